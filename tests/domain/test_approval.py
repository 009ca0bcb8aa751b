"""What stands between a gate and a stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import approval, evidence
from patchwave.campaign.approval import (
    Agreed,
    Choice,
    Closed,
    Decision,
    Deferred,
    Impossible,
    Misread,
    Open,
    Refused,
    Terms,
    Undecided,
    Verdict,
    Vote,
)
from patchwave.campaign.lockfile import LockedPatch, Lockfile, PlatformLock
from patchwave.campaign.values import HostId, Share, StageName
from tests.domain.builders import NOW, RUN, STAGE, host_id

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


# --- what people answer -------------------------------------------------------------------------------------------------
HOSTS = {host_id(1): "web-1", host_id(2): "web-2", host_id(3): "db"}


def read(chosen: object, inputs: object = None, **facts: Any) -> Vote | Misread:
    values: dict[str, Any] = {"stage": STAGE, "plan": PLAN, "author": "olga", "at": NOW, "hosts": HOSTS}
    return approval.read(chosen, inputs, **values | facts)


def test_a_reason_can_always_be_written_down() -> None:
    """People paste anything."""
    found = read(["Approve"], {"reason": "a\0b\ud83dc" + "x" * 9000})
    assert isinstance(found, Vote)
    assert evidence.canonical(approval.as_record(found))
    assert len(found.reason) == approval.LONGEST_REASON


def test_a_yes_keeps_its_reason() -> None:
    """It stands in the evidence beside the name."""
    assert read(["Approve"], {"reason": " tested on dev "}) == a_vote("olga", reason="tested on dev")


@pytest.mark.parametrize(
    "written", ["web-1, db", "web-1\ndb", f"{host_id(1)};{host_id(3)}", ["web-1", "db"], " db  web-1 web-1 "]
)
def test_hosts_are_left_out_by_id_or_name(written: object) -> None:
    """As people write lists."""
    assert read(["Approve"], {"without": written}) == a_vote("olga", without=(host_id(1), host_id(3)))


@pytest.mark.parametrize(
    ("chosen", "inputs", "why"),
    [
        ([], {}, "allowed is one of approve, reject"),
        (["Approve", "Defer"], {}, "allowed is one of"),
        (["Perhaps"], {}, "'Perhaps'"),
        (None, None, "None"),
        ("Approve", {}, "allowed is one of"),
        (["Defer"], {}, "cannot be deferred"),
        (["Approve"], {"without": "web-9"}, "'web-9': no such host in this stage"),
        (["Approve"], {"without": "web-1, web-2, db"}, "a yes without any host"),
        (["Approve"], {"without": 7}, "ids or names of hosts"),
        (["Approve"], {"without": {"a": 1}}, "ids or names of hosts"),
        (["Approve"], {"without": [None]}, "ids or names of hosts"),
    ],
)
def test_an_answer_that_says_nothing_clear_decides_nothing(chosen: object, inputs: object, why: str) -> None:
    """Airflow takes anything over its API; it is asked again, and a word that is not understood is never a yes."""
    found = read(chosen, inputs)
    assert isinstance(found, Misread)
    assert why in found.reason


@pytest.mark.parametrize("inputs", [{}, None, [], {"without": 7}, {"without": "web-9"}, {"reason": None}, {"another": 1}])
def test_a_no_is_understood_whatever_stands_beside_it(inputs: object) -> None:
    """Nobody has to say no twice."""
    found = read(["Reject"], inputs)
    assert isinstance(found, Vote)
    assert found.choice is Choice.REJECT


def test_a_stage_with_a_window_can_be_deferred() -> None:
    """To the next one."""
    assert read(["Defer"], {"reason": "quarter end"}, may_defer=True) == a_vote("olga", Choice.DEFER, reason="quarter end")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["Approve", "Reject", "Defer", "web-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["reason", "without", "x"]), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, JSON, st.booleans())
def test_no_answer_breaks_the_gate(chosen: object, inputs: object, may_defer: bool) -> None:
    """Whatever comes over the API, it is a vote or it is asked again; what is left out is of the stage, and never all of it."""
    found = read(chosen, inputs, may_defer=may_defer)
    if isinstance(found, Misread):
        assert found.reason
    else:
        assert set(found.without) < HOSTS.keys()
        assert found.choice is Choice.REJECT or chosen == [found.choice.value.capitalize()] or len(chosen) == 1  # type: ignore[arg-type]


# --- quorum -------------------------------------------------------------------------------------------------------------
def a_vote(author: str = "olga", choice: Choice = Choice.APPROVE, *, minute: float = 0, **facts: Any) -> Vote:
    values: dict[str, Any] = {"stage": STAGE, "plan": PLAN, "at": NOW + timedelta(minutes=minute)}
    return Vote(choice=choice, author=author, **values | facts)


TWO_OF_THREE = Terms(approvers=("olga", "ana", "uma"), quorum=2, requester="uma")


def asked_of(*votes: Vote, terms: Terms = TWO_OF_THREE) -> approval.Standing:
    return approval.standing(terms, stage=STAGE, plan=PLAN, votes=votes)


def test_one_yes_of_two_is_not_enough_and_says_who_can_give_the_other() -> None:
    """Not she who has, and not who asked for the run."""
    yes = a_vote("olga")
    assert asked_of(yes) == Undecided(yes=(yes,), missing=1, may=("ana",))


def test_two_different_people_are() -> None:
    """The first two, in the order of time."""
    votes = a_vote("olga"), a_vote("ana", minute=3)
    assert asked_of(*reversed(votes)) == Agreed(yes=votes)


@pytest.mark.parametrize(
    "second",
    [a_vote("olga", minute=1), a_vote("uma", minute=1), a_vote("eve", minute=1), a_vote("-", minute=1), a_vote("", minute=1),
     a_vote("ana", plan=OTHER_PLAN), a_vote("ana", stage=StageName("dev")), a_vote("Ana", minute=1)],
    ids=["the same person", "the requester", "a stranger", "nobody", "no name", "another plan", "another stage",
         "another spelling"],
)  # fmt: skip
def test_a_second_yes_that_does_not_count_changes_nothing(second: Vote) -> None:
    """Distinct people, named, to this plan, and not who asked for it."""
    assert asked_of(a_vote("olga"), second) == asked_of(a_vote("olga"))


def test_one_no_is_enough() -> None:
    """Also after a yes."""
    no = a_vote("ana", Choice.REJECT, minute=1, reason="the shop is full")
    assert asked_of(a_vote("olga"), no) == Refused(vote=no)


def test_a_no_after_the_quorum_is_too_late() -> None:
    """The decision stands; whoever wants to stop the stage kills its task."""
    terms = replace(TWO_OF_THREE, requester=None)
    assert isinstance(asked_of(a_vote("olga"), a_vote("ana"), a_vote("uma", Choice.REJECT, minute=1), terms=terms), Agreed)


def test_of_a_yes_and_a_no_at_the_same_moment_the_no_counts() -> None:
    """Two windows, one second."""
    assert isinstance(asked_of(a_vote("olga"), a_vote("olga", Choice.REJECT)), Refused)


def test_a_deferral_ends_the_question() -> None:
    """It is asked again before the next window, with the plan as it is then."""
    later = a_vote("ana", Choice.DEFER, minute=1)
    assert asked_of(a_vote("olga"), later) == Deferred(vote=later)


def test_hosts_that_one_of_them_leaves_out_are_left_out() -> None:
    """What is patched was agreed to by each of the quorum."""
    votes = a_vote("olga", without=(host_id(1),)), a_vote("ana", minute=1, without=(host_id(2),))
    assert asked_of(*votes) == Agreed(yes=votes, without=(host_id(1), host_id(2)))


def test_a_quorum_that_cannot_come_about_is_said_at_once() -> None:
    """Instead of after a day of silence."""
    found = asked_of(terms=Terms(approvers=("olga", "uma"), quorum=2, requester="uma"))
    assert isinstance(found, Impossible)
    assert found.reason == (
        "stage prod needs 2 yes, and olga of olga, uma can give it (uma asked for the run and does not count)"
    )


def test_a_quorum_of_nobody_is_no_quorum() -> None:
    """A gate that is open by itself is none."""
    with pytest.raises(ValueError, match="at least one person, not 0"):
        Terms(quorum=0)


PEOPLE = ["olga", "ana", "uma", "eve", "-"]
VOTES = st.lists(
    st.builds(
        a_vote, st.sampled_from(PEOPLE), st.sampled_from([*Choice, *[Choice.APPROVE] * 4]), minute=st.integers(0, 9),
        plan=st.sampled_from([PLAN, PLAN, PLAN, OTHER_PLAN]), stage=st.sampled_from([STAGE, STAGE, StageName("dev")]),
        without=st.sampled_from([(), (), (host_id(1),), (host_id(2),)]),
    ),
    max_size=8,
)  # fmt: skip
TERMS = st.builds(
    Terms, approvers=st.sampled_from([(), ("olga",), ("olga", "ana"), ("olga", "ana", "uma")]), quorum=st.integers(1, 3),
    requester=st.sampled_from([None, "olga", "uma"]),
)  # fmt: skip


@given(TERMS, VOTES)
def test_whoever_agreed_are_as_many_different_people_as_were_asked_for(terms: Terms, votes: list[Vote]) -> None:
    """Named, not the requester, to this plan of this stage, and nobody who counts had said no before."""
    found = asked_of(*votes, terms=terms)
    if not isinstance(found, Agreed):
        return
    people = [one.author for one in found.yes]
    assert len(set(people)) == len(people) == terms.quorum
    assert terms.requester not in people
    assert "-" not in people
    assert all((one.stage, one.plan, one.choice) == (STAGE, PLAN, Choice.APPROVE) for one in found.yes)
    assert not terms.approvers or set(people) <= set(terms.approvers)
    last = max(one.at for one in found.yes)
    nos = [one for one in votes if (one.stage, one.plan) == (STAGE, PLAN) and terms.counts(one.author) and one.at < last]
    first = {one.author: one for one in sorted(nos, key=lambda one: (one.at, one.choice is Choice.APPROVE), reverse=True)}
    assert all(one.choice is Choice.APPROVE for one in first.values())


@given(TERMS, VOTES, st.randoms(use_true_random=False))
def test_the_order_in_which_votes_are_read_does_not_matter(terms: Terms, votes: list[Vote], chance: Any) -> None:
    """Two processes that read the same journal say the same."""
    mixed = list(votes)
    chance.shuffle(mixed)
    one, other = asked_of(*votes, terms=terms), asked_of(*mixed, terms=terms)
    assert type(one) is type(other)
    if isinstance(one, Agreed) and isinstance(other, Agreed):
        assert {vote.author for vote in one.yes} == {vote.author for vote in other.yes}


@given(TERMS, VOTES, VOTES)
def test_what_is_decided_stays_decided(terms: Terms, votes: list[Vote], more: list[Vote]) -> None:
    """Whatever is answered afterwards."""
    decided = asked_of(*votes, terms=terms)
    after = [replace(one, at=NOW + timedelta(hours=1)) for one in more]
    if not isinstance(decided, Undecided):
        assert asked_of(*votes, *after, terms=terms) == decided


@given(TERMS, VOTES)
def test_whoever_is_asked_next_can_change_something(terms: Terms, votes: list[Vote]) -> None:
    """Nobody is asked in vain: the yes of each who is said to be able to answer counts."""
    found = asked_of(*votes, terms=terms)
    if isinstance(found, Undecided):
        assert found.missing == terms.quorum - len(found.yes) > 0
        for person in found.may:
            after = asked_of(*votes, a_vote(person, minute=99), terms=terms)
            assert isinstance(after, Agreed) or (isinstance(after, Undecided) and after.missing == found.missing - 1)


@given(TERMS, VOTES, st.sampled_from(Verdict))
def test_a_stage_with_a_quorum_opens_only_by_it(terms: Terms, votes: list[Vote], verdict: Verdict) -> None:
    """A decision alone, however it came into the ledger, opens nothing."""
    decision = a_decision(verdict)
    answer = approval.may_patch(
        stage=STAGE, plan=PLAN, required=True, approvers=terms.approvers, decisions=[decision], terms=terms, votes=votes
    )
    good = verdict is Verdict.APPROVED and isinstance(asked_of(*votes, terms=terms), Agreed)
    assert isinstance(answer, Open) is good


# --- tolerance ----------------------------------------------------------------------------------------------------------
SOME = st.frozensets(st.integers(1, 12).map(host_id), max_size=12)


@given(SOME, SOME, st.none() | st.integers(0, 12) | st.sampled_from([Share(0.1), Share(0.5), Share(1.0)]))
def test_an_approval_is_void_exactly_beyond_the_tolerance(
    before: frozenset[HostId], now: frozenset[HostId], tolerance: Share | int | None
) -> None:
    """Hosts that came and hosts that went count alike."""
    found = approval.void(before, now, tolerance)
    if tolerance is None:
        assert found is None
        return
    allowed = approval.tolerated(tolerance, len(before))
    assert (found is not None) is (len(before - now) + len(now - before) > allowed)
    if found is not None:
        assert (set(found.added), set(found.removed), found.allowed) == (now - before, before - now, allowed)


@given(SOME, SOME)
def test_with_no_tolerance_every_host_that_differs_voids_it(before: frozenset[HostId], now: frozenset[HostId]) -> None:
    """0 means 0."""
    assert (approval.void(before, now, 0) is None) is (before == now)


def test_a_share_of_a_small_stage_tolerates_nobody() -> None:
    """10 % of three hosts is rounded down: never more than was said."""
    three = [host_id(1), host_id(2), host_id(3)]
    found = approval.void(three, [*three, host_id(4)], Share(0.1))
    assert str(found) == "the approval is void: since the plan was made 1 host came and 0 went; 0 may differ"


def a_lockfile(hosts: tuple[str, ...] = ("dev-1",), **versions: int) -> Lockfile:
    patches = tuple(
        LockedPatch(id=f"{name}.x86_64", version=f"0:{version}-1", title=f"{name}.x86_64:0:{version}-1", received=True)
        for name, version in sorted(versions.items())
    )
    return Lockfile(platforms=(PlatformLock(platform="Amazon Linux 2023", hosts=hosts, patches=patches),))


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 3)),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 3)),
    st.none() | st.integers(0, 8) | st.sampled_from([Share(0.1), Share(0.5), Share(1.0)]),
)
def test_other_patches_void_an_approval_exactly_beyond_the_tolerance(
    before: dict[str, int], now: dict[str, int], tolerance: Share | int | None
) -> None:
    """What came, what went and what has another version count alike; without a tolerance nothing may differ."""
    found = approval.relocked(a_lockfile(**before), a_lockfile(**now), tolerance)
    differ = sum(before.get(name) != now.get(name) for name in before.keys() | now.keys())
    allowed = 0 if tolerance is None else approval.tolerated(tolerance, len(before))
    assert (found is not None) is (differ > allowed)
    if found is not None:
        assert (len(found.changes), found.allowed) == (differ, allowed)


def test_the_same_patches_read_from_other_hosts_are_the_same() -> None:
    """The digest is another one; what a host gets is not."""
    assert approval.relocked(a_lockfile(kernel=1), a_lockfile(("dev-2",), kernel=1), None) is None


def test_a_platform_that_went_counts_with_all_its_patches() -> None:
    """One sentence says it, and three patches are not there any more."""
    assert approval.relocked(a_lockfile(a=1, b=1, c=1), Lockfile(platforms=()), 2) is not None
    assert approval.relocked(a_lockfile(a=1, b=1, c=1), Lockfile(platforms=()), 3) is None


def test_the_sentence_names_the_first_patches_that_differ() -> None:
    """All of them stand in the journal's record."""
    names = "abcdefg"
    found = approval.relocked(a_lockfile(**dict.fromkeys(names, 1)), a_lockfile(**dict.fromkeys(names, 2)), 1)
    assert "a.x86_64 is 0:2-1 instead of 0:1-1; " in str(found)
    assert str(found).endswith(", and 2 more); 1 may differ")


# --- the journal --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class ARecord:
    """A record of a journal, as far as votes are concerned."""

    kind: str
    at: datetime
    data: Any


@given(VOTES)
def test_votes_survive_the_journal(votes: list[Vote]) -> None:
    """Written as data, read back as they were."""
    records = [ARecord(kind=approval.VOTE, at=one.at, data=approval.as_record(one)) for one in votes]
    others = [ARecord(kind="host.moved", at=NOW, data={"stage": "prod"})]
    assert list(approval.from_records([*others, *records])) == votes


@pytest.mark.parametrize("kind", [approval.DEFERRED, approval.VOIDED])
def test_answers_from_before_a_deferral_or_from_before_they_were_void_count_no_more(kind: str) -> None:
    """Of that stage; other stages keep theirs."""
    dev = a_vote("ana", stage=StageName("dev"))
    before = [a_vote("olga"), dev, a_vote("ana", Choice.DEFER, minute=1)]
    records = [ARecord(kind=approval.VOTE, at=one.at, data=approval.as_record(one)) for one in before]
    records.append(ARecord(kind=kind, at=NOW, data={"stage": STAGE}))
    assert approval.from_records(records) == (dev,)
    after = a_vote("ana", minute=9)
    records.append(ARecord(kind=approval.VOTE, at=after.at, data=approval.as_record(after)))
    assert approval.from_records(records) == (dev, after)


@pytest.mark.parametrize("data", [{}, {"stage": "prod", "plan": PLAN, "choice": "perhaps", "author": "olga"}])
def test_a_record_that_cannot_be_read_is_no_yes(data: Any) -> None:
    """Another version's, or a broken one."""
    assert approval.from_records([ARecord(kind=approval.VOTE, at=NOW, data=data)]) == ()
