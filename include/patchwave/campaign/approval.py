"""Who agreed to this plan?

A gate asks several people, one after the other: `read` makes an answer of what they typed, `standing` says where the question
stands after it, `void` whether what they agreed to is still there. The outcome is one decision bound to the plan's digest.
`may_patch` is what stands between a gate and a stage: it reads decisions, never the state of a gate's task, and fails closed.
How people are asked, and where their answers are kept, is the operators' and the ledger's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from patchwave.campaign import lockfile as lockfiles
from patchwave.campaign.lockfile import Lockfile
from patchwave.campaign.values import HostId, RunId, Share, StageName

LONGEST_REASON = 2000
"""Letters of a reason that are kept; who writes more has a page for it."""


class Verdict(StrEnum):
    """How a gate was decided."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"  # nobody answered in time, which means no


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """How one gate was decided: by the answer that completed the quorum, or by the first no.

    Attributes:
        plan: digest of the plan that was shown.
        author: login name; ``-`` when nobody answered.
        lockfile: digest of the lockfile that was shown with it; empty where none says what the stage gets.
    """

    run: RunId
    stage: StageName
    plan: str
    verdict: Verdict
    author: str
    at: datetime
    comment: str = ""
    lockfile: str = ""


# --- what people answer -------------------------------------------------------------------------------------------------


class Choice(StrEnum):
    """What a person can say at a gate."""

    APPROVE = "approve"
    REJECT = "reject"
    DEFER = "defer"  # not in this window: ask again before the next one


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """One person's answer to one question.

    Attributes:
        plan: digest of the plan that was shown.
        reason: in their words; empty if they gave none.
        without: hosts of the stage that they do not agree to.
    """

    stage: StageName
    plan: str
    choice: Choice
    author: str
    at: datetime
    reason: str = ""
    without: tuple[HostId, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Misread:
    """An answer that says nothing clear: nothing is decided by it, and it is asked again."""

    reason: str


def read(
    chosen: object,
    inputs: object,
    *,
    stage: StageName,
    plan: str,
    author: str,
    at: datetime,
    hosts: Mapping[HostId, str],
    may_defer: bool = False,
) -> Vote | Misread:
    """What a person meant. Airflow checks neither the options nor the fields of an answer that comes over its API.

    A no is understood whatever stands beside it; a yes only if every word beside it is.

    Args:
        chosen: the options that were ticked.
        inputs: the form's fields: ``reason``, and ``without`` with ids or names of hosts, divided by blanks or commas.
        hosts: names of the stage's hosts.
        may_defer: there is a window to defer to.
    """
    fields = inputs if isinstance(inputs, Mapping) else {}
    reason = _text(fields.get("reason"))
    words = [str(one).strip().casefold() for one in chosen] if isinstance(chosen, list | tuple) else []
    if Choice.REJECT in words:
        return Vote(stage=stage, plan=plan, choice=Choice.REJECT, author=author, at=at, reason=reason)
    if len(words) != 1 or words[0] not in {choice.value for choice in Choice}:
        return Misread(
            reason=f"the answer is {_shown(chosen)}; allowed is one of approve, reject{', defer' if may_defer else ''}"
        )
    choice = Choice(words[0])
    if choice is Choice.DEFER:
        if not may_defer:
            return Misread(reason="this question cannot be deferred; allowed is approve or reject")
        return Vote(stage=stage, plan=plan, choice=choice, author=author, at=at, reason=reason)
    without = _hosts(fields.get("without"), hosts)
    if isinstance(without, Misread):
        return without
    if without and len(without) == len(hosts):
        return Misread(reason="a yes without any host is none; allowed is to leave out some of them, or to reject")
    return Vote(stage=stage, plan=plan, choice=choice, author=author, at=at, reason=reason, without=without)


def _hosts(written: object, hosts: Mapping[HostId, str]) -> tuple[HostId, ...] | Misread:
    if isinstance(written, list | tuple) and all(isinstance(one, str) for one in written):
        written = "\n".join(written)
    if written is None:
        return ()
    if not isinstance(written, str):
        return Misread(reason=f"the hosts to leave out are {_shown(written)}; allowed are ids or names of hosts of this stage")
    found: set[HostId] = set()
    unknown: list[str] = []
    for word in filter(None, re.split(r"[\s,;]+", written)):
        mine = {host for host, name in hosts.items() if word in (host, name)}
        found |= mine
        unknown += [] if mine else [word]
    if unknown:
        return Misread(
            reason=f"{', '.join(map(_shown, unknown[:10]))}: no such host in this stage; allowed are its ids and names"
        )
    return tuple(sorted(found))


def _text(written: object) -> str:
    text = "" if written is None else written if isinstance(written, str) else str(written)
    # NUL and halves of surrogate pairs cannot be stored.
    legible = "".join("\ufffd" if letter == "\0" or "\ud800" <= letter <= "\udfff" else letter for letter in text)
    return legible.strip()[:LONGEST_REASON]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- where a question stands --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Whose yes a stage needs.

    Attributes:
        approvers: login names; empty: anybody who is signed in and may answer.
        quorum: how many different people have to agree.
        requester: who asked for the run, and so does not count; None: the schedule.

    Raises:
        ValueError: a quorum below one.
    """

    approvers: tuple[str, ...] = ()
    quorum: int = 1
    requester: str | None = None

    def __post_init__(self) -> None:
        if self.quorum < 1:
            raise ValueError(f"a quorum is at least one person, not {self.quorum}")

    def counts(self, person: str) -> bool:
        """Whether that person's answer counts."""
        return bool(person) and person not in ("-", self.requester) and (not self.approvers or person in self.approvers)

    @property
    def people(self) -> tuple[str, ...]:
        """Those of `approvers` who count; empty where anybody does."""
        return tuple(person for person in dict.fromkeys(self.approvers) if self.counts(person))


@dataclass(frozen=True, kw_only=True, slots=True)
class Undecided:
    """More people have to answer.

    Attributes:
        yes: who has agreed.
        missing: how many more have to.
        may: who can; empty: anybody but those who have, and the requester.
        without: hosts that those who agreed leave out.
    """

    yes: tuple[Vote, ...]
    missing: int
    may: tuple[str, ...]
    without: tuple[HostId, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreed:
    """The quorum is there.

    Attributes:
        without: hosts that one of them leaves out: what is patched was agreed to by each.
    """

    yes: tuple[Vote, ...]
    without: tuple[HostId, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """One of them said no, which is enough."""

    vote: Vote


@dataclass(frozen=True, kw_only=True, slots=True)
class Deferred:
    """One of them wants it in the next window."""

    vote: Vote


@dataclass(frozen=True, kw_only=True, slots=True)
class Impossible:
    """Too few people count: however long it waits, the quorum cannot come about."""

    reason: str


Standing = Undecided | Agreed | Refused | Deferred | Impossible


def standing(terms: Terms, *, stage: StageName, plan: str, votes: Iterable[Vote]) -> Standing:
    """Where the question of `stage` and the plan with digest `plan` stands.

    Each person's first answer counts, in the order of time; the first answer that decides it does, whatever comes later.

    Args:
        votes: all that were given in the run, in any order.
    """
    if len(terms.people) < terms.quorum and terms.approvers:
        able = f"{', '.join(terms.people) or 'nobody'} of {', '.join(terms.approvers)} can give it"
        requester = f" ({terms.requester} asked for the run and does not count)" if terms.requester in terms.approvers else ""
        return Impossible(reason=f"stage {stage} needs {terms.quorum} yes, and {able}{requester}")
    heard: set[str] = set()
    yes: list[Vote] = []
    fitting = [one for one in votes if one.stage == stage and one.plan == plan and terms.counts(one.author)]
    # Of answers of the same moment the strictest is heard first.
    for vote in sorted(fitting, key=lambda one: (one.at, _STRICTEST[one.choice], one.author)):
        if vote.author in heard:
            continue
        heard.add(vote.author)
        if vote.choice is Choice.REJECT:
            return Refused(vote=vote)
        if vote.choice is Choice.DEFER:
            return Deferred(vote=vote)
        yes.append(vote)
        if len(yes) == terms.quorum:
            return Agreed(yes=tuple(yes), without=_without(yes))
    left = tuple(person for person in terms.people if person not in heard)
    return Undecided(yes=tuple(yes), missing=terms.quorum - len(yes), may=left, without=_without(yes))


_STRICTEST = {Choice.REJECT: 0, Choice.DEFER: 1, Choice.APPROVE: 2}


def _without(votes: Iterable[Vote]) -> tuple[HostId, ...]:
    return tuple(sorted({host for vote in votes for host in vote.without}))


def agreed_to_any(terms: Terms, *, stage: StageName, votes: Collection[Vote]) -> bool:
    """Whether the quorum is there for any plan that people were shown: one with fewer hosts is approved by votes on the whole."""
    return any(isinstance(standing(terms, stage=stage, plan=plan, votes=votes), Agreed) for plan in {vote.plan for vote in votes})


# --- is what they agreed to still there? --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Void:
    """The stage's hosts are others than those that were approved, by more than the campaign tolerates.

    Attributes:
        allowed: how many may differ.
    """

    added: tuple[HostId, ...]
    removed: tuple[HostId, ...]
    allowed: int

    def __str__(self) -> str:
        came = f"{len(self.added)} host{'s' if len(self.added) != 1 else ''} came"
        return f"the approval is void: since the plan was made {came} and {len(self.removed)} went; {self.allowed} may differ"


def tolerated(tolerance: Share | int, size: int) -> int:
    """How many of `size` approved hosts may differ; a share rounds down: never more than was said."""
    return tolerance if isinstance(tolerance, int) else tolerance.at_most(size)


def void(approved: Collection[HostId], now: Collection[HostId], tolerance: Share | int | None) -> Void | None:
    """Why an approval of the hosts `approved` does not cover the hosts `now`; None if it does.

    Args:
        tolerance: None: it covers whichever hosts the stage has, as the plan says of hosts that appear meanwhile.
    """
    if tolerance is None:
        return None
    before, after = frozenset(approved), frozenset(now)
    allowed = tolerated(tolerance, len(before))
    if len(before ^ after) <= allowed:
        return None
    return Void(added=tuple(sorted(after - before)), removed=tuple(sorted(before - after)), allowed=allowed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Relocked:
    """The stage would get other patches than those that were shown, by more than the campaign tolerates.

    Attributes:
        changes: what differs, a sentence each (`lockfile.changes`).
        allowed: how many may.
    """

    changes: tuple[str, ...]
    allowed: int

    def __str__(self) -> str:
        more = f", and {len(self.changes) - MOST_CHANGES} more" if len(self.changes) > MOST_CHANGES else ""
        return (
            f"the approval is void: the lockfile is not the one that was shown ({'; '.join(self.changes[:MOST_CHANGES])}{more}); "
            f"{self.allowed} may differ"
        )


MOST_CHANGES = 5
"""Differences of lockfiles that a sentence names."""


def relocked(shown: Lockfile, now: Lockfile, tolerance: Share | int | None) -> Relocked | None:
    """Why an approval of the lockfile `shown` does not cover the lockfile `now`; None if it does.

    Args:
        tolerance: None: nothing may differ. Hosts that appear are what the plan announces, other patches are not.
    """
    if shown.digest == now.digest:
        return None
    before, after = _patches(shown), _patches(now)
    allowed = 0 if tolerance is None else tolerated(tolerance, len(before))
    differ = sum(before.get(patch) != after.get(patch) for patch in before.keys() | after.keys())
    return Relocked(changes=lockfiles.changes(shown, now), allowed=allowed) if differ > allowed else None


def _patches(lockfile: Lockfile) -> dict[tuple[str, str], str]:
    return {(one.platform, patch.id): patch.version or patch.title for one in lockfile.platforms for patch in one.patches}


# --- may the stage be patched? ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Open:
    """The stage may be patched."""

    decision: Decision | None  # None where the campaign asks nobody


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """The stage must not be patched, and why."""

    reason: str
    decision: Decision | None = None


def may_patch(
    *,
    stage: StageName,
    plan: str,
    required: bool,
    approvers: Iterable[str],
    decisions: Iterable[Decision],
    terms: Terms | None = None,
    votes: Iterable[Vote] = (),
) -> Open | Closed:
    """Whether the ledger's decisions open `stage` for the plan with digest `plan`.

    Args:
        approvers: login names that may say yes; empty means anybody who is signed in and may answer.
        terms: where given, the votes are counted again, so that a decision without its quorum opens nothing.
        votes: of the run.
    """
    if not required:
        return Open(decision=None)
    mine = [decision for decision in decisions if decision.stage == stage]
    fitting = [decision for decision in mine if decision.plan == plan]
    if not fitting:
        other = " (there is one for another plan)" if mine else ""
        return Closed(reason=f"the ledger holds no decision on stage {stage} for plan {plan[:12]}{other}")
    decision = min(fitting, key=lambda one: one.at)  # the first decision on a plan stands
    if decision.verdict is not Verdict.APPROVED:
        return Closed(reason=f"stage {stage} was {decision.verdict.value} by {decision.author}", decision=decision)
    allowed = frozenset(approvers)
    if allowed and decision.author not in allowed:
        return Closed(
            reason=f"{decision.author} may not approve stage {stage}; {', '.join(sorted(allowed))} may", decision=decision
        )
    if terms is not None:
        found = standing(terms, stage=stage, plan=plan, votes=votes)
        if not isinstance(found, Agreed):
            return Closed(reason=f"stage {stage} is called approved without its quorum of {terms.quorum}", decision=decision)
    return Open(decision=decision)


# --- as the journal keeps them ------------------------------------------------------------------------------------------

VOTE = "vote.cast"
"""Kind of the journal's record of one person's answer."""
DEFERRED = "approval.deferred"
"""Kind of the journal's record of a question that somebody put off; the stage's answers before it count no more."""
VOIDED = "approval.void"
"""Kind of the journal's record of an approval that no longer covers what is there; it begins anew as after a deferral."""


def as_record(vote: Vote) -> dict[str, Any]:
    """The vote as data of a journal's record."""
    return {
        "stage": vote.stage, "plan": vote.plan, "choice": vote.choice.value, "author": vote.author, "reason": vote.reason,
        "without": list(vote.without),
    }  # fmt: skip


def from_records(records: Iterable[Any]) -> tuple[Vote, ...]:
    """The votes of a run's journal (records with kind, at and data, in order) that still count; what cannot be read as one opens
    nothing."""
    found: list[Vote] = []
    for record in records:
        if record.kind in (DEFERRED, VOIDED):
            found = [one for one in found if one.stage != record.data.get("stage")]
        if record.kind != VOTE:
            continue
        data = record.data
        try:
            found.append(
                Vote(
                    stage=StageName(data["stage"]), plan=str(data["plan"]), choice=Choice(data["choice"]),
                    author=str(data["author"]), at=record.at, reason=str(data.get("reason") or ""),
                    without=tuple(HostId(str(host)) for host in data.get("without") or ()),
                )
            )  # fmt: skip
        except (KeyError, ValueError):
            continue
    return tuple(found)
