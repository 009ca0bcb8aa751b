"""Deadlines by table: which row a finding meets, where each answer comes from, and what not knowing does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import policy, severity
from patchwave.campaign.catalogues import NOTHING, Catalogue, Exploitation, Known, Ssvc
from patchwave.campaign.deadlines import BodTable, ByTable, Due, Wanted
from patchwave.campaign.findings import Finding, Severity
from patchwave.campaign.policy import Policy, Track
from patchwave.campaign.reachability import Reach
from patchwave.campaign.severity import Triage
from tests.domain.test_severity import HOST, NOW, finding, package

POLICIES = Path(__file__).parents[2] / "include" / "policies"
BOD = policy.read(POLICIES / "bod-26-04.yaml")
TEXT = yaml.safe_load((POLICIES / "standard.yaml").read_text(encoding="utf-8"))

CVE = "CVE-2026-0001"
SEEN = NOW - timedelta(days=2)
INTERNET = Reach(addresses=("203.0.113.7",))
INSIDE = Reach()


def a_policy(deadlines: dict[str, Any]) -> Policy:
    """The standard policy with other deadlines."""
    return policy.parse(yaml.safe_dump({**TEXT, "name": "mine", "deadlines": deadlines}), file="mine.yaml")


def a_catalogue(*cves: str, version: str = "2026.06.12", added: date | None = None) -> Catalogue:
    released = datetime(*map(int, version.split(".")), tzinfo=UTC)  # type: ignore[misc,arg-type]
    day = added or (SEEN - timedelta(days=30)).date()
    return Catalogue(version=version, released=released, source="kev.json", read_at=NOW, added=dict.fromkeys(cves, day))


def known(*listed: str, reach: Reach | None = INSIDE, ssvc: Ssvc | None = None, **facts: Any) -> Known:
    values: dict[str, Any] = {
        "catalogue": a_catalogue(*listed), "reach": {} if reach is None else {HOST: reach}, "ssvc": {CVE: ssvc} if ssvc else {},
    }  # fmt: skip
    return Known(**values | facts)


def due(facts: Known, by: Policy = BOD, **changes: Any) -> Due:
    return by.deadlines.due(replace(finding(number=1, first_seen=SEEN), **{"vulnerability": CVE, **changes}), facts)


HARMLESS = Ssvc(exploitation=Exploitation.NONE, automatable="no", technical_impact="partial")
WORST = Ssvc(exploitation=Exploitation.ACTIVE, automatable="yes", technical_impact="total")


# --- BOD 26-04 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("facts", "row", "days"), [
    (known(ssvc=HARMLESS), "row 0 (fix on system upgrade: 180 days by the policy)", 180),
    (known(CVE, ssvc=HARMLESS), "row 1 (14 days)", 14),
    (known(reach=INTERNET, ssvc=HARMLESS), "row 2 (60 days)", 60),
    (known(CVE, reach=INTERNET, ssvc=replace(HARMLESS, automatable="yes")), "row 11 (3 days)", 3),
    (known(CVE, reach=INTERNET, ssvc=WORST), "row 15 (3 days & forensic investigation)", 3),
    (known(reach=INTERNET, ssvc=WORST), "row 14 (3 days)", 3),
], ids=lambda one: one if isinstance(one, str) else "")  # fmt: skip
def test_the_row_that_matches_gives_the_time_and_is_named(facts: Known, row: str, days: int):
    """Which row it was, a change board must be able to look up."""
    found = due(facts)
    assert found.because.startswith(f"CISA BOD 26-04, {row}: ")
    assert found.within == timedelta(days=days)
    assert found.at == SEEN + timedelta(days=days)


def test_the_sentence_gives_every_answer_with_where_it_comes_from():
    """'Automatable: yes' without a witness is an opinion."""
    found = due(known(CVE, reach=INTERNET, ssvc=WORST))
    assert found.because == (
        "CISA BOD 26-04, row 15 (3 days & forensic investigation): known exploited yes (CISA's catalogue 2026.06.12 lists it "
        f"since {SEEN - timedelta(days=30):%Y-%m-%d}); publicly exposed yes (it has a public address); automatable yes "
        "(CISA's SSVC answer); technical impact total (CISA's SSVC answer)"
    )


def test_an_answer_that_nobody_knows_is_the_policys_and_says_so():
    """Unknown is neither yes nor no: a person has decided what it counts as."""
    said = due(known(reach=None)).because
    assert "publicly exposed yes (unknown: EC2 did not describe the host; so the policy answers)" in said
    assert "automatable yes (unknown: nobody has judged it; so the policy answers)" in said
    assert "technical impact total (unknown: nobody has judged it; so the policy answers)" in said


def test_a_host_is_not_exposed_only_if_somebody_looked():
    """The sentence names what was looked for."""
    said = due(known(ssvc=HARMLESS)).because
    assert "publicly exposed no (no public address, no internet facing load balancer, no tag Exposure)" in said


@pytest.mark.parametrize(("reach", "sign"), [
    (Reach(addresses=("203.0.113.7",)), "it has a public address"),
    (Reach(balancers=("front",)), "behind the internet-facing load balancer front"),
    (Reach(tags={"Exposure": "internet"}), "tag Exposure=internet"),
])  # fmt: skip
def test_one_sign_is_enough(reach: Reach, sign: str):
    """A host behind a public load balancer has no public address of its own."""
    assert f"publicly exposed yes ({sign})" in due(known(reach=reach)).because


def test_a_function_is_no_host_that_somebody_could_look_at():
    """Its ARN is no instance id; whether it is exposed, the policy says."""
    said = due(known(), resource="arn:aws:lambda:x", resource_type="AWS_LAMBDA_FUNCTION").because
    assert "publicly exposed yes (unknown: AWS_LAMBDA_FUNCTION is no EC2 instance; so the policy answers)" in said


def test_an_advisory_is_looked_up_by_the_cve_ids_that_it_mends():
    """Amazon's advisories are no CVE ids, and CISA lists nothing else."""
    said = due(known(CVE), vulnerability="ALAS2023-2026-123", related=("CVE-2026-9999", CVE)).because
    assert f"known exploited yes (CISA's catalogue 2026.06.12 lists {CVE} since" in said


def test_an_advisory_without_cve_ids_cannot_be_looked_up():
    """Not listed and not able to be listed are different answers."""
    said = due(known(CVE), vulnerability="ALAS2023-2026-123").because
    assert "known exploited no (unknown: ALAS2023-2026-123 names no CVE id; so the policy answers)" in said


def test_the_worst_of_several_answers_counts():
    """An advisory that mends two is as urgent as the worse one."""
    both = Known(catalogue=a_catalogue(), reach={HOST: INSIDE}, ssvc={CVE: HARMLESS, "CVE-2026-0002": WORST})
    assert "automatable yes" in due(both, related=("CVE-2026-0002",)).because


def test_epss_answers_where_cisa_does_not_and_only_upwards():
    """A low probability proves nothing, so the policy's answer stays."""
    deadlines = BOD.deadlines.model_dump(mode="json", exclude={"decision_table"})
    deadlines["automatable"] = {"epss": {"file": "epss.csv", "at_least": 0.1}, "if_unknown": "no"}
    mine = a_policy(deadlines)
    assert mine.deadlines.wanted.epss == "epss.csv"
    assert "automatable yes (EPSS 0.300, at least 0.1)" in due(known(epss={CVE: 0.3}), mine).because
    assert "automatable no (unknown: " in due(known(epss={CVE: 0.09}), mine).because
    assert "automatable no (CISA's" in due(known(epss={CVE: 0.9}, ssvc=HARMLESS), mine).because


def test_a_policy_says_what_has_to_be_read():
    """Nothing else is: a policy by severity needs neither network nor load balancers."""
    assert policy.read(POLICIES / "standard.yaml").deadlines.wanted == Wanted()
    wanted = BOD.deadlines.wanted
    assert wanted.catalogue is not None
    assert wanted.catalogue.startswith("https://www.cisa.gov/")
    assert (wanted.reach, wanted.balancers, wanted.tags, wanted.epss) == (True, True, ("Exposure",), None)


# --- The clock --------------------------------------------------------------------------------------------------------------


def test_the_clock_of_a_listed_vulnerability_begins_when_it_was_listed():
    """Nobody could have met a deadline that passed before there was one."""
    listed = (NOW - timedelta(days=1)).date()
    old = NOW - timedelta(days=50)
    found = due(known(catalogue=a_catalogue(CVE, added=listed), ssvc=HARMLESS), first_seen=old)
    assert found.at == datetime(listed.year, listed.month, listed.day, tzinfo=UTC) + timedelta(days=14)
    assert found.because.endswith(f"; counted from {listed}")


def test_being_listed_never_gives_more_time():
    """If it was due in a day anyway, it stays due in a day."""
    listed = (NOW - timedelta(days=1)).date()
    old = NOW - timedelta(days=59)
    facts = known(catalogue=a_catalogue(CVE, added=listed), reach=INTERNET, ssvc=HARMLESS)
    found = due(facts, first_seen=old)
    assert found.at == old + timedelta(days=60)
    assert found.because.endswith("; not later than it was before that")


# --- FedRAMP and SSVC -------------------------------------------------------------------------------------------------------

FEDRAMP = {
    "table": "fedramp-vdr",
    "impact_level": "moderate",
    "potential_adverse_impact": {"critical": 5, "high": 4, "medium": 3, "low": 2, "informational": 2, "untriaged": 4},
    "likely_exploitable": {"catalogue": "kev.json", "epss": {"file": "epss.csv", "at_least": 0.1}, "if_unknown": False},
    "internet_reachable": {"if_unknown": True},
}
DEPLOYER = {
    "table": "ssvc-deployer",
    "exploitation": {"catalogue": "kev.json", "vulnrichment": "records", "if_unknown": "none"},
    "system_exposure": {"otherwise": "controlled", "if_unknown": "open"},
    "automatable": {"vulnrichment": "records", "if_unknown": True},
    "human_impact": {"tag": "HumanImpact", "if_unknown": "high"},
    "days": {"immediate": 1, "out_of_cycle": 7, "scheduled": 30, "defer": None},
}


@pytest.mark.parametrize(("facts", "changes", "row", "time"), [
    (known(CVE, reach=INTERNET), {}, "moderate N4 LEV IRV (4 days)", timedelta(days=4)),
    (known(CVE), {}, "moderate N4 LEV NIRV (8 days)", timedelta(days=8)),
    (known(), {}, "moderate N4 NLEV (64 days)", timedelta(days=64)),
    (known(), {"exploit_known": True}, "moderate N4 LEV NIRV (8 days)", timedelta(days=8)),
    (known(epss={CVE: 0.2}), {"severity": Severity.CRITICAL}, "moderate N5 LEV NIRV (4 days)", timedelta(days=4)),
])  # fmt: skip
def test_fedramp_gives_the_time_of_its_level(facts: Known, changes: dict[str, Any], row: str, time: timedelta):
    """Rule VDR-TFR-PVR by level, harm, likelihood and reachability."""
    found = due(facts, a_policy(FEDRAMP), **changes)
    assert found.because.startswith(f"FedRAMP VDR, row {row}: impact level moderate (the policy's answer for all); ")
    assert found.within == time


def test_half_a_day_is_twelve_hours():
    """High impact, N5, likely and reachable: the shortest time of the three tables."""
    found = due(known(CVE, reach=INTERNET), a_policy({**FEDRAMP, "impact_level": "high"}), severity=Severity.CRITICAL)
    assert found.within == timedelta(hours=12)
    assert "(12 hours)" in found.because


@pytest.mark.parametrize(("facts", "row", "days"), [
    (known(CVE, reach=INTERNET, ssvc=WORST), "row 70 (immediate: 1 day by the policy)", 1),
    (known(reach=Reach(tags={"HumanImpact": "Very-High"}), ssvc=WORST), "row 63 (out-of-cycle: 7 days by the policy)", 7),
    (known(reach=Reach(tags={"HumanImpact": "low"}), ssvc=HARMLESS), "row 8 (defer: no deadline by the policy)", None),
    (known(reach=Reach(tags={"HumanImpact": "?"}), ssvc=HARMLESS), "row 10 (scheduled: 30 days by the policy)", 30),
])  # fmt: skip
def test_ssvc_gives_an_urgency_and_the_policy_its_days(facts: Known, row: str, days: int | None):
    """CERT/CC names no days; whoever applies the table does."""
    found = due(facts, a_policy(DEPLOYER))
    assert found.because.startswith(f"SSVC deployer, {row}: ")
    assert found.within == (None if days is None else timedelta(days=days))


@pytest.mark.parametrize(("said", "inspector", "answer"), [
    (Exploitation.NONE, True, "public poc (Inspector knows of an exploit)"),
    (Exploitation.ACTIVE, True, "active (CISA's SSVC answer)"),
    (Exploitation.NONE, False, "none (CISA's SSVC answer)"),
    (None, True, "public poc (Inspector knows of an exploit)"),
])  # fmt: skip
def test_the_worst_that_is_said_of_an_exploitation_counts(said: Exploitation | None, inspector: bool, answer: str):
    """Inspector's exploit is a proof of concept, whatever CISA has not seen yet."""
    facts = known(ssvc=replace(HARMLESS, exploitation=said))
    assert f"exploitation {answer}" in due(facts, a_policy(DEPLOYER), exploit_known=inspector).because


# --- What holds of all of them ----------------------------------------------------------------------------------------------

BY_TABLE = [BOD, a_policy(FEDRAMP), a_policy(DEPLOYER)]
answers = st.builds(
    Ssvc,
    exploitation=st.sampled_from([None, *Exploitation]),
    automatable=st.sampled_from([None, "yes", "no"]),
    technical_impact=st.sampled_from([None, "partial", "total"]),
)
reaches = st.builds(
    Reach,
    addresses=st.sampled_from([(), ("203.0.113.7",)]),
    balancers=st.sampled_from([(), ("front",)]),
    tags=st.sampled_from([{}, {"Exposure": "internet"}, {"HumanImpact": "low"}]),
)
some_known = st.builds(
    Known,
    catalogue=st.one_of(st.none(), st.sampled_from([a_catalogue(), a_catalogue(CVE), a_catalogue(CVE, added=NOW.date())])),
    ssvc=st.dictionaries(st.just(CVE), answers),
    epss=st.dictionaries(st.just(CVE), st.floats(0, 1)),
    reach=st.dictionaries(st.just(HOST), reaches),
)
some_findings = st.builds(
    lambda exploited, word, cve, kind: replace(
        finding(severity=word, first_seen=SEEN), vulnerability=cve, exploit_known=exploited, resource_type=kind
    ),
    st.booleans(), st.sampled_from(list(Severity)), st.sampled_from([CVE, "ALAS2023-2026-1"]),
    st.sampled_from(["AWS_EC2_INSTANCE", "AWS_LAMBDA_FUNCTION"]),
)  # fmt: skip


@given(by=st.sampled_from(BY_TABLE), one=some_findings, facts=some_known)
def test_every_finding_meets_a_row_whatever_is_known(by: Policy, one: Finding, facts: Known):
    """Total: no fact, no missing fact and no combination leaves a finding without an answer."""
    found = by.deadlines.due(one, facts)
    assert ", row " in found.because
    assert (found.at is None) == (found.within is None)
    assert found.at is None or found.at >= one.first_seen


@given(by=st.sampled_from(BY_TABLE), one=some_findings, facts=some_known)
def test_not_knowing_never_gives_more_time_than_the_policys_own_answers(by: Policy, one: Finding, facts: Known):
    """Whatever is unknown counts as what the policy states for it: no fact taken away is ever taken for a better one."""
    assert isinstance(by.deadlines, ByTable)
    found = by.deadlines.answers(one, facts)
    for column, source in by.deadlines.inputs.items():
        stated = getattr(source, "if_unknown", None)
        if "so the policy answers" in found[column].because:
            assert found[column].value == stated
    blind = by.deadlines.answers(replace(one, exploit_known=False), NOTHING)
    assert all(blind[column].value == source.if_unknown for column, source in by.deadlines.inputs.items()
               if hasattr(source, "if_unknown"))  # fmt: skip


@given(by=st.sampled_from(BY_TABLE), one=some_findings, facts=some_known)
def test_an_entry_in_the_catalogue_never_makes_a_deadline_later(by: Policy, one: Finding, facts: Known):
    """CISA's word only ever takes time away."""
    before = by.deadlines.due(one, replace(facts, catalogue=a_catalogue()))
    after = by.deadlines.due(one, replace(facts, catalogue=a_catalogue(CVE, added=NOW.date())))
    assert before.at is None or (after.at is not None and after.at <= before.at)


def test_a_table_that_was_not_read_decides_nothing():
    """A policy that came past policy.parse has no rows: better a traceback in a test than a made-up deadline."""
    bare = BodTable.model_validate(BOD.deadlines.model_dump(exclude={"decision_table"}))
    with pytest.raises(ValueError, match="holds no copy of its table"):
        bare.due(finding(), NOTHING)


# --- In the triage ----------------------------------------------------------------------------------------------------------


def judged(facts: Known, *found: Finding, by: Policy = BOD) -> Triage:
    return severity.classify(found, by, now=NOW, coverage=[], known=facts)


def test_what_must_be_gone_within_two_weeks_is_on_the_critical_track():
    """The shipped policy gives the track by the table, too: a medium finding that is exploited is urgent, a high one is not."""
    exploited = replace(finding(number=1, severity=Severity.MEDIUM, first_seen=SEEN), vulnerability=CVE)
    quiet = finding(number=2, severity=Severity.HIGH, first_seen=SEEN)
    facts = replace(known(CVE), ssvc={"CVE-2026-0002": HARMLESS, CVE: HARMLESS})
    result = judged(facts, exploited, quiet)
    assert [(one.vulnerability, one.track) for one in result.assessments] == [
        (CVE, Track.CRITICAL), ("CVE-2026-0002", Track.STANDARD),
    ]  # fmt: skip
    assert "row 3 of policy bod-26-04: what must be gone within 14 days" in result.assessments[0].reason
    assert "row 1 (14 days)" in result.assessments[0].deadline_because
    assert result.catalogue.startswith("CISA's catalogue 2026.06.12 (1 entries, read ")


def test_days_by_severity_are_a_reason_too():
    """Every finding says why it has its deadline, by whatever policy."""
    result = judged(NOTHING, finding(), by=policy.read(POLICIES / "standard.yaml"))
    assert result.assessments[0].deadline_because == "days by severity: high, 30 days"


def test_a_triage_of_before_there_were_reasons_is_still_read():
    """Runs that are stored stay readable."""
    import json

    stored = json.loads(judged(NOTHING, finding(), by=policy.read(POLICIES / "standard.yaml")).to_json())
    for name in ("catalogue", "catalogue_released"):
        del stored[name]
    for one in stored["assessments"]:
        del one["deadline_because"]
    again = Triage.from_json(json.dumps(stored))
    assert again.assessments[0].deadline_because == ""
    assert again.catalogue == ""


# --- A newer catalogue ------------------------------------------------------------------------------------------------------

FACTS = replace(known(), ssvc={CVE: HARMLESS, "CVE-2026-0002": HARMLESS})
TWO = [replace(finding(number=n, first_seen=SEEN), vulnerability=f"CVE-2026-000{n}") for n in (1, 2)]


def test_an_entry_that_is_new_makes_its_findings_more_urgent_and_says_so():
    """The others stay as they are, and so does who was scanned."""
    before = judged(FACTS, *TWO)
    day = NOW.date()
    newer = a_catalogue(CVE, version="2026.06.13", added=day)
    after, (change,) = severity.reprioritised(before, TWO, BOD, FACTS, newer, now=NOW)
    assert change.sooner
    assert change.sentence.startswith(
        f"{CVE} on {HOST}: deadline {SEEN + timedelta(180):%Y-%m-%d %H:%M} UTC becomes {day + timedelta(14)} 00:00 UTC, "
        "track standard becomes critical: CISA BOD 26-04, row 1 (14 days): known exploited yes (CISA's catalogue 2026.06.13 lists"
    )
    assert [one.vulnerability for one in after.assessments] == [CVE, "CVE-2026-0002"]
    assert after.scanned == before.scanned
    assert after.catalogue_released == newer.released


def test_an_older_catalogue_takes_nothing_back():
    """A copy that stands in for one that cannot be read must not make anything less urgent."""
    before = judged(replace(FACTS, catalogue=a_catalogue(CVE, version="2026.06.13")), *TWO)
    assert severity.reprioritised(before, TWO, BOD, FACTS, a_catalogue(version="2026.06.12"), now=NOW) == (before, ())


def test_what_cisa_takes_out_of_the_catalogue_is_said_as_well():
    """It happens; then the finding has its time back, visibly."""
    before = judged(replace(FACTS, catalogue=a_catalogue(CVE)), *TWO)
    _, (change,) = severity.reprioritised(before, TWO, BOD, FACTS, a_catalogue(version="2026.06.13"), now=NOW)
    assert not change.sooner
    assert "track critical becomes standard" in change.sentence


@given(listed=st.sets(st.sampled_from(["CVE-2026-0001", "CVE-2026-0002"])))
def test_every_change_and_nothing_else_is_named(listed: set[str]):
    """Whoever waits at a gate sees exactly what is different."""
    before = judged(FACTS, *TWO)
    after, changes = severity.reprioritised(before, TWO, BOD, FACTS, a_catalogue(*listed, version="2026.06.14"), now=NOW)
    was = {one.finding: (one.deadline, one.track) for one in before.assessments}
    different = {one.finding for one in after.assessments if (one.deadline, one.track) != was[one.finding]}
    assert {one.after.finding for one in changes} == different
    assert {one.after.vulnerability for one in changes} == listed


def test_a_kernel_stays_on_its_track_however_urgent_it_is():
    """It needs its reboot, and thus its window."""
    kernel = replace(finding(package("kernel"), first_seen=SEEN), vulnerability=CVE)
    assert judged(known(CVE), kernel).assessments[0].track is Track.KERNEL
