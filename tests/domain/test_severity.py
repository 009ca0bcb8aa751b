"""How findings are judged."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import policy, severity
from patchwave.campaign.findings import Coverage, Finding, Severity, VulnerablePackage
from patchwave.campaign.policy import Policy, Track
from patchwave.campaign.severity import Assessment, Triage
from patchwave.campaign.values import Cell, HostId

POLICIES = Path(__file__).parents[2] / "include" / "policies"
STANDARD = policy.read(POLICIES / "standard.yaml")
STRICT = policy.read(POLICIES / "strict.yaml")
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
CELL = Cell(account="111111111111", region="eu-central-1")
HOST = HostId("i-0123456789abcdef0")


def package(
    name: str = "openssl", *, manager: str = "OS", fixed_in: str | None = "2.0", path: str | None = None
) -> VulnerablePackage:
    return VulnerablePackage(name=name, version="1.0", manager=manager, fixed_in=fixed_in, path=path)


def finding(
    *packages: VulnerablePackage,
    severity: Severity = Severity.HIGH,
    fix: str = "YES",
    number: int = 1,
    resource: str = HOST,
    resource_type: str = "AWS_EC2_INSTANCE",
    first_seen: datetime = NOW - timedelta(days=1),
    exploit_known: bool = False,
) -> Finding:
    return Finding(
        arn=f"arn:aws:inspector2:eu-central-1:111111111111:finding/{number:032x}",
        cell=CELL,
        resource=resource,
        resource_type=resource_type,
        vulnerability=f"CVE-2026-{number:04}",
        title="a vulnerability",
        severity=severity,
        packages=packages or (package(),),
        fix=fix,
        first_seen=first_seen,
        updated=NOW,  # never the moment that exposure counts from
        exploit_known=exploit_known,
    )


def triage(*found: Finding, by: Policy = STANDARD, coverage: tuple[Coverage, ...] = ()) -> Triage:
    return severity.classify(found, by, now=NOW, coverage=coverage)


def judged(one: Finding, *, by: Policy = STANDARD) -> Assessment:
    return triage(one, by=by).assessments[0]


def covered(host: str, *, active: bool = True, reason: str = "SUCCESSFUL") -> Coverage:
    return Coverage(cell=CELL, host=HostId(host), active=active, reason=reason)


# --- Tracks -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "track", "row"),
    [
        (finding(severity=Severity.CRITICAL), Track.CRITICAL, 3),
        (finding(severity=Severity.HIGH, exploit_known=True), Track.CRITICAL, 4),
        (finding(severity=Severity.UNTRIAGED, exploit_known=True), Track.CRITICAL, 4),
        (finding(severity=Severity.HIGH), Track.STANDARD, 5),
        (finding(severity=Severity.LOW, exploit_known=True), Track.STANDARD, 5),
        (finding(severity=Severity.UNTRIAGED), Track.STANDARD, 5),
        (finding(package("kernel6.12")), Track.KERNEL, 2),
        (finding(package("linux-image-6.8.0-1015-aws"), severity=Severity.CRITICAL), Track.KERNEL, 2),
        (finding(package("vim"), package("kernel")), Track.KERNEL, 2),
        (finding(package("express", manager="NPM"), resource_type="AWS_LAMBDA_FUNCTION"), Track.MANAGED_SERVICE, 1),
    ],
)
def test_the_first_matching_row_gives_the_track_and_says_so(one: Finding, track: Track, row: int):
    """Every finding shows why it has its track."""
    assessment = judged(one)
    assert assessment.track is track
    assert assessment.reason.startswith(f"row {row} of policy standard: {STANDARD.matrix[row - 1].because}")


def test_the_strict_policy_makes_high_findings_urgent():
    """The matrix is data: another file, another track."""
    assert judged(finding(severity=Severity.HIGH), by=STRICT).track is Track.CRITICAL


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (
            finding(package("golang.org/x/net", manager="GOBINARY", path="usr/bin/agent")),
            r"golang.org/x/net is a Go binary in usr/bin/agent",
        ),
        (finding(package("requests", manager="PYTHONPKG")), "requests is a Python package"),
        (finding(package("log4j", manager="JAR")), "log4j is a Java archive"),
        (finding(package("thing", manager="ZIG")), "thing is a package of ZIG"),
        (finding(package(fixed_in=None), fix="NO"), "no fix is available yet for openssl"),
        (finding(package(fixed_in=None), fix="PARTIAL"), "no fix is available yet for openssl"),
        (
            finding(package(fixed_in=None), package("requests", manager="PIP"), fix="PARTIAL"),
            "no fix is available yet for openssl",
        ),
        (finding(resource="arn:aws:ecr:x", resource_type="AWS_ECR_CONTAINER_IMAGE"), "is an image: it is rebuilt, not patched"),
        (finding(resource="repo", resource_type="CODE_REPOSITORY"), "CODE_REPOSITORY is no EC2 instance"),
        (replace(finding(), packages=()), "names no package"),
    ],
)
def test_what_no_os_patch_mends_is_not_patchable_with_the_reason(one: Finding, reason: str):
    """Nobody waits for a patch that will never come."""
    assessment = judged(one)
    assert assessment.track is Track.NOT_PATCHABLE
    assert reason in assessment.reason
    assert assessment.packages == ()
    assert not assessment.wanted


def test_a_finding_with_a_fix_for_some_packages_is_patched_and_says_what_stays():
    """PARTIAL: the part that the operating system can mend is mended, and nobody takes the host for clean."""
    assessment = judged(
        finding(package("curl"), package("libcurl", fixed_in=None), package("pycurl", manager="PIP"), fix="PARTIAL")
    )
    assert assessment.track is Track.STANDARD
    assert assessment.packages == ("curl",)
    assert "libcurl, pycurl stays" in assessment.reason


def test_inspectors_yes_counts_where_a_package_names_no_version():
    """YES means that every package has a fix; the version itself may be missing."""
    assert judged(finding(package(fixed_in=None), fix="YES")).track is Track.STANDARD


def test_a_kernel_without_a_fix_is_no_kernel_update():
    """Only what is installed reboots a host."""
    assert judged(finding(package("vim"), package("kernel", fixed_in=None), fix="PARTIAL")).track is Track.STANDARD


def test_only_ec2_instances_are_hosts():
    """A function's ARN is never taken for an instance id."""
    function = finding(resource="arn:aws:lambda:x", resource_type="AWS_LAMBDA_FUNCTION")
    result = triage(function, finding(number=2))
    assert {one.host for one in result.assessments} == {None, HOST}
    assert set(result.by_host()) == {HOST}
    assert [one.resource for one in result.elsewhere()] == ["arn:aws:lambda:x"]


# --- Deadlines --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "days"),
    [(Severity.CRITICAL, 15), (Severity.HIGH, 30), (Severity.UNTRIAGED, 30), (Severity.MEDIUM, 90), (Severity.LOW, 180)],
)
def test_the_deadline_counts_from_the_first_sighting(of: Severity, days: int):
    """Not from the last scan, or it would never come."""
    seen = NOW - timedelta(days=7)
    assert judged(finding(severity=of, first_seen=seen)).deadline == seen + timedelta(days=days)


def test_a_severity_without_days_has_no_deadline_and_is_never_overdue():
    """None is said, not a date in the year 9999."""
    assessment = judged(finding(severity=Severity.INFORMATIONAL, first_seen=NOW - timedelta(days=3000)))
    assert assessment.deadline is None
    assert not assessment.overdue


def test_a_finding_is_overdue_after_its_deadline_and_not_at_it():
    """The last moment still counts."""
    seen = NOW - timedelta(days=30)
    assert not judged(finding(first_seen=seen)).overdue
    assert judged(finding(first_seen=seen - timedelta(microseconds=1))).overdue


def test_what_is_not_patchable_keeps_its_deadline():
    """The clock of a vulnerability does not stop because somebody else must mend it."""
    assessment = judged(finding(package("requests", manager="PIP"), first_seen=NOW - timedelta(days=40)))
    assert assessment.overdue


def test_a_moment_without_time_zone_is_refused():
    """A deadline is a moment, not a wall clock."""
    with pytest.raises(ValueError, match="time zone"):
        severity.classify([], STANDARD, now=NOW.replace(tzinfo=None), coverage=[])


def test_the_most_urgent_comes_first():
    """By deadline, then severity; what has none comes last."""
    result = triage(
        finding(number=1, severity=Severity.INFORMATIONAL),
        finding(number=2, severity=Severity.LOW),
        finding(number=3, severity=Severity.CRITICAL),
        finding(number=4, severity=Severity.HIGH, first_seen=NOW - timedelta(days=300)),
    )
    assert [one.vulnerability[-1] for one in result.assessments] == ["4", "3", "2", "1"]


# --- What the run is restricted to ------------------------------------------------------------------------------------------


def test_what_the_parameters_leave_aside_stays_visible_with_the_reason():
    """Restricted is not dropped: the rest is there, marked, and counted nowhere."""
    result = severity.classify(
        [finding(number=1, severity=Severity.CRITICAL), finding(number=2, severity=Severity.LOW, resource="i-2")],
        STANDARD, now=NOW, coverage=[], severities={Severity.CRITICAL},
    )  # fmt: skip
    assert [one.not_selected for one in result.assessments] == [None, "the run is restricted to critical"]
    assert result.hosts_to_patch() == {HOST}
    assert set(result.by_host()) == {HOST}
    assert sum(result.by_severity().values()) == sum(result.by_track().values()) == len(result.selected()) == 1


def test_a_vulnerability_is_meant_however_it_is_typed():
    """People paste ids from mails."""
    result = severity.classify([finding(number=7)], STANDARD, now=NOW, coverage=[], vulnerabilities=[" cve-2026-0007 "])
    assert result.assessments[0].selected
    assert result.without_finding() == ()


def test_a_vulnerability_that_was_found_nowhere_is_named():
    """A typing error must not look like a clean fleet."""
    result = severity.classify([finding(number=7)], STANDARD, now=NOW, coverage=[], vulnerabilities=["CVE-2026-9999"])
    assert result.selected() == ()
    assert result.without_finding() == ("CVE-2026-9999",)


def test_severity_and_vulnerability_must_both_hold():
    """Each parameter narrows; none widens the other."""
    found = [finding(number=1, severity=Severity.LOW), finding(number=2, severity=Severity.HIGH)]
    result = severity.classify(
        found, STANDARD, now=NOW, coverage=[], severities=[Severity.HIGH], vulnerabilities=["CVE-2026-0001"]
    )
    assert result.selected() == ()


def test_empty_parameters_do_not_narrow():
    """An empty form field means everything, as None does."""
    assert severity.classify([finding()], STANDARD, now=NOW, coverage=[], severities=[], vulnerabilities=[]).selected()


# --- Coverage ---------------------------------------------------------------------------------------------------------------


def test_a_host_that_inspector_does_not_scan_is_unknown_with_the_reason():
    """Never clean: not active, not yet scanned, or not listed at all."""
    result = triage(
        coverage=(
            covered("i-1"),
            covered("i-2", active=False, reason="UNMANAGED_EC2_INSTANCE"),
            covered("i-3", active=True, reason="PENDING_INITIAL_SCAN"),
        )
    )
    assert result.unknown([HostId(host) for host in ("i-1", "i-2", "i-3", "i-4")]) == {
        "i-2": "UNMANAGED_EC2_INSTANCE",
        "i-3": "PENDING_INITIAL_SCAN",
        "i-4": severity.NO_COVERAGE,
    }


def test_a_host_with_several_rows_is_scanned_if_one_says_so():
    """Inspector lists a host once for each way of scanning it; their order means nothing."""
    rows = (covered("i-1", active=False, reason="NO_INVENTORY"), covered("i-1"))
    assert triage(coverage=rows).unknown([HostId("i-1")]) == {}
    assert triage(coverage=rows[::-1]).unknown([HostId("i-1")]) == {}


def test_a_stopped_host_is_unknown_although_it_has_findings():
    """Its findings stay as they were; what was installed since nobody knows."""
    result = triage(finding(), coverage=(covered(HOST, active=False, reason="EC2_INSTANCE_STOPPED"),))
    assert result.unknown([HOST]) == {HOST: "EC2_INSTANCE_STOPPED"}
    assert result.hosts_to_patch() == {HOST}


# --- All findings, always ---------------------------------------------------------------------------------------------------

packages = st.builds(
    package,
    st.sampled_from(["kernel", "openssl", "linux-aws", "requests"]),
    manager=st.sampled_from(["OS", "PIP", "GOBINARY", "NEW"]),
    fixed_in=st.sampled_from([None, "2"]),
)
any_finding = st.builds(
    lambda number, its, **rest: replace(finding(number=number, **rest), packages=tuple(its)),
    st.integers(0, 10_000),
    st.lists(packages, max_size=3),
    severity=st.sampled_from(list(Severity)),
    fix=st.sampled_from(["YES", "NO", "PARTIAL", ""]),
    resource=st.sampled_from(["i-1", "i-2", "arn:x"]),
    resource_type=st.sampled_from(["AWS_EC2_INSTANCE", "AWS_LAMBDA_FUNCTION", "AWS_ECR_CONTAINER_IMAGE", "NEW_TYPE"]),
    first_seen=st.datetimes(datetime(2020, 1, 1), datetime(2026, 7, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants them so
    exploit_known=st.booleans(),
)
findings = st.lists(any_finding, max_size=20, unique_by=lambda one: one.arn)


@given(found=findings, by=st.sampled_from([STANDARD, STRICT]), only=st.sets(st.sampled_from(list(Severity))))
def test_no_finding_is_lost_and_each_has_one_track_with_a_reason(found: list[Finding], by: Policy, only: set[Severity]):
    """One assessment a finding; the counts add up; only hosts are patched, and only with a package that mends."""
    result = severity.classify(found, by, now=NOW, coverage=[], severities=only)
    assert sorted(one.finding for one in result.assessments) == sorted(one.arn for one in found)
    assert sum(result.by_track().values()) == sum(result.by_severity().values()) == len(result.selected())
    for one in result.assessments:
        assert one.reason
        assert one.patchable == bool(one.packages)
        assert one.host is not None or not one.patchable
        assert one.selected == (not only or one.severity in only)


@given(found=findings)
def test_the_order_in_which_findings_arrive_changes_nothing(found: list[Finding]):
    """Pages come as they like; the triage is one."""
    assert triage(*found) == triage(*reversed(found))


@given(found=findings)
def test_a_stored_triage_is_read_back_as_it_was(found: list[Finding]):
    """from_json(to_json(t)) == t, down to the time zone."""
    result = triage(*found, coverage=(covered("i-1"), covered("i-2", active=False, reason="NO_INVENTORY")))
    again = Triage.from_json(result.to_json())
    assert again == result
    assert again.to_json() == result.to_json()


@given(found=findings, by=st.sampled_from([STANDARD, STRICT]))
def test_findings_that_come_one_at_a_time_are_judged_as_a_list_of_them_is(found: list[Finding], by: Policy):
    """Whoever has a million of them need not hold them all."""
    streamed = severity.classify((one for one in found), by, now=NOW, coverage=())
    assert streamed == severity.classify(found, by, now=NOW, coverage=())


def test_no_finding_is_kept_once_it_is_judged():
    """The triage names findings; it does not hold them."""
    alive = []

    def stream() -> Iterator[Finding]:
        for number in range(50):
            yield finding(number=number)
            alive.append(sum(isinstance(one, Finding) for one in gc.get_objects()))

    result = severity.classify(stream(), STANDARD, now=NOW, coverage=())
    assert len(result.assessments) == 50
    assert max(alive) - min(alive) <= 1


def test_a_triage_holds_each_text_once():
    """Each page of Inspector's brings copies of the same ids and names; a million of them are most of the memory."""
    copies = [finding(package("".join(["open", "ssl"])), number=1, resource="".join(["i-", HOST[2:]])) for _ in range(2)]
    one, other = (replace(its, arn=str(number)) for number, its in enumerate(copies))
    first, second = triage(one, other).assessments
    assert first.resource is second.resource
    assert first.vulnerability is second.vulnerability
    assert first.packages is second.packages
    assert first.reason is second.reason


def test_a_hundred_thousand_findings_are_judged_and_stored_in_seconds():
    """About 3 s on two slow cores; the limit is wide, so that it fails for another order of growth only."""
    found = [finding(number=number, resource=f"i-{number % 5000:017x}") for number in range(100_000)]
    begun = time.perf_counter()
    result = triage(*found)
    assert len(Triage.from_json(result.to_json()).by_host()) == 5000
    assert time.perf_counter() - begun < 30


@given(found=findings, by=st.sampled_from([STANDARD, STRICT]))
def test_a_triage_comes_back_from_its_rows(found: list[Finding], by: Policy):
    """As it was, whatever its findings say; and without its rows with everything else."""
    coverage = [Coverage(cell=CELL, host=HOST, active=True, reason="SUCCESSFUL")]
    triage = severity.classify(found, by, now=NOW, coverage=coverage, severities=[Severity.HIGH])
    head, rows = json.loads(json.dumps([triage.head(), list(triage.rows())]))
    assert Triage.from_rows(head, iter(rows)) == triage
    assert Triage.from_rows(head, ()) == replace(triage, assessments=())
    assert tuple(severity.assessments_of(rows)) == triage.assessments
    assert {**head, severity.ROWS: rows} == json.loads(triage.to_json())


def test_what_many_rows_say_is_one_object():
    """A million assessments say the same few thousand things: each text once, as in a triage that was just made."""
    triage = severity.classify([finding(number=number) for number in (1, 2)], STANDARD, now=NOW, coverage=())
    first, second = Triage.from_rows(triage.head(), json.loads(json.dumps(list(triage.rows())))).assessments
    for name in ("cell", "resource", "host", "packages", "reason", "deadline_because"):
        assert getattr(first, name) is getattr(second, name)
    assert first.first_seen.tzinfo is second.first_seen.tzinfo is UTC


@given(found=findings, by=st.sampled_from([STANDARD, STRICT]))
def test_the_order_is_that_of_deadline_severity_and_name(found: list[Finding], by: Policy):
    """What has no deadline comes last."""
    made = severity.classify(found, by, now=NOW, coverage=()).assessments
    assert list(made) == sorted(made, key=severity._urgency)
