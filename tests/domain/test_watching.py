"""What a watcher calls urgent, and what of it is nobody's yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from patchwave.campaign import emergency
from patchwave.campaign.catalogues import NOTHING
from patchwave.campaign.deadlines import SeverityDays
from patchwave.campaign.emergency import Earlier, Urgent
from patchwave.campaign.findings import Finding, Severity
from patchwave.campaign.policy import Emergency
from tests.domain.builders import NOW, host_id
from tests.domain.test_emergency import CVE, an_emergency, having
from tests.domain.test_severity import STANDARD

OTHER = "CVE-2026-20000"
STRICT = STANDARD.model_copy(
    update={"deadlines": SeverityDays(critical=2, high=14, medium=30, low=60, informational=None, untriaged=14)}
)
STAGES = {host_id(2): "everybody", host_id(1): "canary", host_id(3): "everybody"}
HOUR = timedelta(hours=1)


def found(*findings: Finding, policy: object = STRICT) -> tuple[Urgent, ...]:
    return emergency.urgent(findings, policy, NOTHING, now=NOW, stages=STAGES)[0]  # type: ignore[arg-type]


def test_urgent_is_what_the_policy_gives_no_more_than_three_days_to() -> None:
    """However much of that time is left; two days for critical ones by this policy, fourteen for high ones."""
    old = NOW - timedelta(days=20)
    its = found(*having(1, 2), *having(3, first_seen=old), *having(1, cve=OTHER, of=Severity.HIGH, first_seen=old))
    (one,) = its
    assert one.clock.vulnerability == CVE
    assert one.clock.deadline == old + timedelta(days=2)
    assert one.hosts == {"canary": 1, "everybody": 2}
    assert one.newest == NOW
    assert "critical" in one.because


def test_the_policy_may_say_another_time() -> None:
    """Fourteen days make the high ones urgent, too; one day makes none."""
    both = [*having(1), *having(1, cve=OTHER, of=Severity.HIGH)]
    policy = STRICT.model_copy(update={"emergency": Emergency(due_within=timedelta(days=14))})
    assert [one.clock.vulnerability for one in found(*both, policy=policy)] == [CVE, OTHER]
    policy = STRICT.model_copy(update={"emergency": Emergency(due_within=timedelta(days=1))})
    assert found(*both, policy=policy) == ()


def test_hosts_of_no_stage_are_none_of_its_business() -> None:
    """The campaign would not patch them."""
    assert found(*having(9)) == ()


def test_what_no_patch_mends_is_told_and_starts_nothing() -> None:
    """A run could not close it."""
    (one,) = having(1)
    urgent, others = emergency.urgent([replace(one, fix="NO")], STRICT, NOTHING, now=NOW, stages=STAGES)
    assert urgent == ()
    assert [other.vulnerability for other in others] == [CVE]


def test_the_least_time_comes_first() -> None:
    """The question's first line is about it."""
    its = found(*having(1), *having(2, cve=OTHER, first_seen=NOW - HOUR))
    assert [one.clock.vulnerability for one in its] == [OTHER, CVE]


# --- runs of before -----------------------------------------------------------------------------------------------------------
def a_run(*vulnerabilities: str, began_at: datetime = NOW, **facts: object) -> Earlier:
    return Earlier(vulnerabilities=frozenset(vulnerabilities or {CVE}), began_at=began_at, **facts)  # type: ignore[arg-type]


def left(*runs: Earlier, now: datetime = NOW, of: Sequence[Finding] = ()) -> list[str]:
    return [one.clock.vulnerability for one in emergency.unhandled(found(*(of or having(1, 2))), runs, now=now)]


@pytest.mark.parametrize(("run", "open_ones"), [
    (a_run(), []),
    (a_run(began_at=NOW - HOUR), [CVE]),  # the finding came later
    (a_run(began_at=NOW - HOUR, running=True), []),  # it may still come to that host, and another cannot begin beside it
    (a_run(CVE, OTHER), []),
    (a_run(OTHER), [CVE]),
    (a_run(dry_run=True), [CVE]),
    (a_run(silent=True), [CVE]),
    (a_run(declined_at=NOW - 23 * HOUR), []),
    (a_run(declined_at=NOW - 24 * HOUR), [CVE]),
])  # fmt: skip
def test_what_a_run_of_before_means_for_an_urgent_finding(run: Earlier, open_ones: list[str]) -> None:
    """Begun is begun, however it went; a dry run patches nobody; silence is no answer; a no holds for a day."""
    assert left(run) == open_ones


def test_each_cve_is_judged_by_itself() -> None:
    """A run about one of two leaves the other."""
    both = [*having(1), *having(1, cve=OTHER)]
    assert left(a_run(CVE), of=both) == [OTHER]
    assert left(a_run(CVE), a_run(OTHER), of=both) == []


def test_a_run_has_the_same_name_until_the_ledger_knows_it() -> None:
    """So a second try of the watcher begins none; after a no there is another one."""
    name = emergency.run_name([OTHER, CVE], [])
    assert emergency.run_name([CVE, OTHER], [a_run(CVE)]) == name
    assert emergency.run_name([CVE, OTHER], [a_run(CVE, OTHER)]) != name
    assert emergency.run_name([CVE], []) != name


def test_the_question_says_what_how_long_where_and_what_follows() -> None:
    """In one line and a table; markup from outside stays text."""
    its = list(found(*having(1, 2)))
    its[0] = replace(its[0], because="a [link](http://x) | <b>")
    subject, body = emergency.question(an_emergency(), its, now=NOW, within=timedelta(days=3))
    assert subject.startswith(f"Start emergency for 1 CVE id? {CVE}: 2 days left")
    assert "| canary 1, everybody 1 |" in body
    assert "no more than 3d" in body
    assert "a \\[link](http://x) \\| &lt;b>" in body
    assert "the hosts of stage canary that have them at once" in body
    assert "your yes does not count at its gates" in body
