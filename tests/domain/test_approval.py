"""What stands between a gate and a stage."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import approval
from patchwave.campaign.approval import Closed, Decision, Open, Verdict
from patchwave.campaign.values import StageName
from tests.domain.builders import NOW, RUN, STAGE

PLAN, OTHER_PLAN = "p" * 64, "q" * 64


def a_decision(
    verdict: Verdict = Verdict.APPROVED, *, author: str = "olga", plan: str = PLAN, stage: StageName = STAGE, minute: int = 0
) -> Decision:
    return Decision(run=RUN, stage=stage, plan=plan, verdict=verdict, author=author, at=NOW + timedelta(minutes=minute))


def asked(*decisions: Decision, approvers: tuple[str, ...] = ("olga", "ana"), required: bool = True) -> Open | Closed:
    return approval.may_patch(stage=STAGE, plan=PLAN, required=required, approvers=approvers, decisions=decisions)


def test_an_approval_of_this_plan_by_somebody_who_may_opens_the_stage() -> None:
    """And the answer is handed on, for the evidence."""
    yes = a_decision()
    assert asked(yes) == Open(decision=yes)


@pytest.mark.parametrize(
    ("decisions", "why"),
    [
        ((), "no decision"),
        ((a_decision(plan=OTHER_PLAN),), "another plan"),
        ((a_decision(stage=StageName("staging")),), "no decision"),
        ((a_decision(author="mallory"),), "mallory may not approve"),
        ((a_decision(author="Olga"),), "Olga may not approve"),
        ((a_decision(author="-"),), "- may not approve"),
        ((a_decision(Verdict.REJECTED),), "rejected by olga"),
        ((a_decision(Verdict.EXPIRED, author="-"),), "expired"),
        ((a_decision(Verdict.REJECTED), a_decision(Verdict.APPROVED, minute=1)), "rejected by olga"),
        ((a_decision(Verdict.APPROVED, minute=1), a_decision(Verdict.REJECTED)), "rejected by olga"),
    ],
    ids=["none", "other plan", "other stage", "wrong author", "other spelling", "nobody", "rejected", "expired", "no, then yes",
         "no, then yes, listed otherwise"],
)  # fmt: skip
def test_everything_else_keeps_it_shut_and_says_why(decisions: tuple[Decision, ...], why: str) -> None:
    """The gate fails closed: the first decision on a plan stands, and only the plan that was shown is covered."""
    answer = asked(*decisions)
    assert isinstance(answer, Closed)
    assert why in answer.reason


def test_a_stage_that_asks_nobody_is_open() -> None:
    """Dev by default."""
    assert asked(required=False) == Open(decision=None)


def test_without_named_approvers_whoever_may_answer_may_approve() -> None:
    """The campaign file decides; Airflow has let only people who may answer come that far."""
    assert isinstance(asked(a_decision(author="anybody"), approvers=()), Open)


@given(
    st.lists(
        st.builds(
            a_decision, st.sampled_from(Verdict), author=st.sampled_from(["olga", "ana", "mallory", "-"]),
            plan=st.sampled_from([PLAN, OTHER_PLAN]), stage=st.sampled_from([STAGE, StageName("dev")]),
            minute=st.integers(0, 5),
        ),
        unique_by=lambda one: (one.stage, one.plan),
    )
)  # fmt: skip
def test_a_stage_opens_only_by_a_yes_to_its_own_plan_from_one_who_may(decisions: list[Decision]) -> None:
    """Whatever else the ledger holds."""
    answer = asked(*decisions)
    fitting = [one for one in decisions if (one.stage, one.plan) == (STAGE, PLAN)]
    good = bool(fitting) and fitting[0].verdict is Verdict.APPROVED and fitting[0].author in {"olga", "ana"}
    assert isinstance(answer, Open) is good
