"""Did it work: nothing that was not seen counts as compliant."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import compliance
from patchwave.campaign.compliance import Compliance, HostCompliance, Judgement, RuleResult, Subject, Verdict
from patchwave.campaign.rollout import PatchState
from tests.domain.builders import CELL, NOW, a_report, host_id, later

RULE = "ec2-managedinstance-patch-compliance-status-check"


def a_result(
    word: Compliance = Compliance.COMPLIANT, *, number: int = 1, invoked: datetime | None = None, judged: datetime | None = None,
    rule: str = RULE,
) -> RuleResult:  # fmt: skip
    moment = invoked or later(20)
    return RuleResult(
        cell=CELL, rule=rule, host=host_id(number), resource=f"AWS::SSM::ManagedInstanceInventory/{host_id(number)}",
        resource_type="AWS::SSM::ManagedInstanceInventory", compliance=word, recorded_at=moment, invoked_at=moment,
        judged_at=judged or moment,
    )  # fmt: skip


def judged(
    state: PatchState | None, result: RuleResult | None, *, changed: datetime | None = NOW, rules: bool = True
) -> HostCompliance:
    subject = Subject(host=host_id(1), cell=CELL, stage="prod", changed_at=changed)
    return compliance.judge(subject, state, {RULE: result} if rules else {})


CLEAN, MISSING = a_report(), a_report(missing=2)
OLD, OLD_MISSING = a_report(ended=later(-5)), a_report(ended=later(-5), missing=1)
YES, NO = a_result(), a_result(Compliance.NON_COMPLIANT)
OLD_YES, OLD_NO = a_result(invoked=later(-5)), a_result(Compliance.NON_COMPLIANT, invoked=later(-5))


@pytest.mark.parametrize(
    ("state", "result", "verdict"),
    [
        (CLEAN, YES, Verdict.COMPLIANT),
        (CLEAN, a_result(Compliance.NOT_APPLICABLE), Verdict.COMPLIANT),
        (CLEAN, NO, Verdict.NOT_COMPLIANT),
        (MISSING, YES, Verdict.NOT_COMPLIANT),
        (MISSING, None, Verdict.NOT_COMPLIANT),
        (a_report(pending_reboot=1), YES, Verdict.NOT_COMPLIANT),
        (a_report(failed=1), YES, Verdict.NOT_COMPLIANT),
        (a_report(rejected=1), YES, Verdict.NOT_COMPLIANT),
        (None, YES, Verdict.UNKNOWN),
        (None, None, Verdict.UNKNOWN),
        (OLD, YES, Verdict.UNKNOWN),
        (OLD_MISSING, NO, Verdict.UNKNOWN),
        (CLEAN, None, Verdict.UNKNOWN),
        (CLEAN, OLD_YES, Verdict.UNKNOWN),
        (CLEAN, OLD_NO, Verdict.UNKNOWN),
        (CLEAN, a_result(judged=later(-5)), Verdict.UNKNOWN),
        (CLEAN, a_result(Compliance.NON_COMPLIANT, judged=later(-5)), Verdict.UNKNOWN),
        (CLEAN, a_result(Compliance.INSUFFICIENT_DATA), Verdict.UNKNOWN),
    ],
)
def test_a_host_is_compliant_only_by_fresh_proof_from_both(
    state: PatchState | None, result: RuleResult | None, verdict: Verdict
) -> None:
    """An evaluation or a report from before the patch proves nothing, in either direction; nor does a new evaluation of what
    Config had recorded before."""
    found = judged(state, result)
    assert found.verdict is verdict
    assert found.reason


def test_a_host_that_was_not_touched_is_judged_by_what_there_is() -> None:
    """Nothing changed it, so an evaluation of yesterday still holds."""
    assert judged(OLD, OLD_YES, changed=None).verdict is Verdict.COMPLIANT
    assert judged(OLD, OLD_NO, changed=None).verdict is Verdict.NOT_COMPLIANT


def test_without_rules_the_patch_report_alone_speaks() -> None:
    """A campaign that names no rule is not unknown for that."""
    assert judged(CLEAN, None, rules=False).verdict is Verdict.COMPLIANT


@given(st.lists(st.sampled_from(["clean", "missing", "none"]), max_size=20))
def test_every_subject_gets_one_verdict_in_order_and_the_counts_sum(kinds: list[str]) -> None:
    """All three classes are named, also where nobody is in one."""
    subjects = [Subject(host=host_id(n), cell=CELL, stage="prod") for n in range(len(kinds))]
    states = {host_id(n): a_report(n, missing=3 * (kind == "missing")) for n, kind in enumerate(kinds) if kind != "none"}
    results = [a_result(number=n) for n in range(len(kinds))]
    made = compliance.judge_all(subjects, states, results, (RULE,), at=NOW)
    assert [host.host for host in made.hosts] == [subject.host for subject in subjects]
    assert made.counts == {
        "compliant": kinds.count("clean"), "not_compliant": kinds.count("missing"), "unknown": kinds.count("none")
    }  # fmt: skip


def test_a_result_for_another_rule_or_host_proves_nothing() -> None:
    """Each rule of the campaign has to speak of this very host."""
    subject = Subject(host=host_id(1), cell=CELL, stage="prod")
    made = compliance.judge_all(
        [subject], {subject.host: CLEAN}, [a_result(rule="other"), a_result(number=2)], (RULE,), at=NOW
    )  # fmt: skip
    assert made.hosts[0].verdict is Verdict.UNKNOWN
    assert made.hosts[0].rules == {RULE: "-"}


@pytest.mark.parametrize(
    ("state", "result", "worth"),
    [
        (CLEAN, YES, False), (CLEAN, None, True), (CLEAN, OLD_NO, True), (CLEAN, NO, True), (MISSING, NO, False),
        (None, None, False), (OLD, YES, True),
    ],
)  # fmt: skip
def test_what_a_later_look_may_settle_is_waited_for(state: PatchState | None, result: RuleResult | None, worth: bool) -> None:
    """Missing patches stay missing however often one looks, and a host that never reported will not begin to."""
    judgement = Judgement(at=NOW, hosts=(judged(state, result),))
    assert bool(compliance.unproven(judgement)) is worth
