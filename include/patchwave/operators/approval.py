"""The gate before a stage: Airflow's own human-in-the-loop asks, the ledger remembers.

A gate is a chain of task instances, one for each question: Airflow keeps the first text of a request through clear, retry and
a second question in the same task instance, so whoever is asked second sees who has said yes only in a task of its own. Each
answer is written to the ledger as the first thing that happens to it, and what is written there is never asked for again:
whatever Airflow does to the gate's tasks, nobody says yes twice. An answer that says nothing clear, or is not that person's to
give, decides nothing: the same question is asked again in the same task instance.

While it waits, a gate looks now and then at the hosts that the run has patched before, and reads CISA's catalogue: Airflow's
own time limit of a request wakes the task up, and it waits on for the same request without writing it anew, since that would
wipe an answer that somebody gave meanwhile. Airflow hands such an answer over as soon as the task waits again, also to the next
try of a task whose answer it has lost.

What opens the stage is the decision in the ledger, which `PatchStageOperator` reads; marking these tasks by hand opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, assert_never

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context, Param
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from patchwave.campaign import approval, difference
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import (
    DEFERRED,
    VOIDED,
    VOTE,
    Agreed,
    Choice,
    Decision,
    Deferred,
    Impossible,
    Misread,
    Refused,
    Terms,
    Undecided,
    Verdict,
    Vote,
)
from patchwave.campaign.definition import Campaign, Event, Stage
from patchwave.campaign.errors import PatchwaveError, Permanent
from patchwave.campaign.plan import Plan, StagePlan
from patchwave.campaign.values import StageName
from patchwave.execution import openings, promotion
from patchwave.hooks import clock
from patchwave.ledger import approved
from patchwave.ledger.store import Entry, WaitRow
from patchwave.operators import findings, health, stages, void
from patchwave.operators.base import PLAN, Work
from patchwave.operators.findings import clocks_now
from patchwave.operators.links import RunPageLink
from patchwave.operators.notifications import tell
from patchwave.operators.plan import baselines_now, fleet_now, forecast_now, patches_now, why_now
from patchwave.triggers.watch import MomentTrigger, first_look

NOBODY = "-"
ROUNDS = 3
"""How often the people of a gate are asked at most where the stage's hosts change while they are."""
ASKED = "approval.asked"
"""Kind of the journal's record of a question."""
RENEWED = "plan.renewed"
"""Kind of the journal's record of a plan that was out of date before anybody was asked about it."""
WATCHED = "approval.watched"
"""Kind of the journal's record of who is not healthy while a gate asks; one for each change."""
LEAST_TIME = timedelta(minutes=1)
"""That long a question waits at least, also one that follows an answer given in the last moment."""
LOOK_AGAIN = timedelta(minutes=10)
"""How often the hosts of earlier stages are looked at while a gate asks, in the campaign's time."""
LEAST_PAUSE = timedelta(minutes=1)
"""Real time between two looks at least: in a rehearsal ten minutes pass in seconds, and while a worker looks nobody can answer in
the browser."""
MOST_CHANGES = 100
"""So many differences of lockfiles are listed on the page; all of them are in the journal's record."""


def questions(stage: Stage, *, later: bool = False) -> int:
    """How many task instances a gate has: one for each yes, and as many again for each time that it may have to ask anew.

    Args:
        later: stages come before it, whose hosts may fall ill while it asks; a gate that has no question left for that keeps its
            last one open instead.
    """
    again = stage.approval.tolerance is not None or stage.window is not None
    return stage.approval.quorum * (ROUNDS if again else 2 if later else 1)


class ApproveStageOperator(ApprovalOperator):
    """Asks one question of a gate: whether a stage may be patched as planned.

    Args:
        stage: name of the stage.
        approvers: login names that may answer; empty means everybody who may answer at all.
        timeout: no answer within it means no (real time, also in a rehearsal).
        campaign_json: the campaign file as it is now, to say on the page that a newer version exists.
        number: which question of the gate it is; one whose gate is decided by then asks nobody.
        last: how many questions the gate has.
    """

    DEFER = "Defer"

    template_fields: Sequence[str] = ("subject", "body", "aws_conn_id", "ledger_conn_id")
    operator_extra_links = (RunPageLink(),)

    def __init__(
        self,
        *,
        stage: str,
        approvers: Sequence[str],
        timeout: timedelta,
        campaign_json: str,
        number: int = 1,
        last: int = 1,
        aws_conn_id: str = "aws_default",
        ledger_conn_id: str = "patchwave_ledger",
        **kwargs: Any,
    ) -> None:
        kwargs.pop("params", None)  # the trigger form's, which Airflow hands to every task and merges once more
        super().__init__(
            subject=f"May stage {stage} be patched as planned?",
            body="The plan stands in the ledger; it is shown here when the gate asks.",
            # No default: Airflow would write it as the answer whenever the task is woken up.
            response_timeout=timeout,
            assigned_users=_assigned(approvers),
            params=_form(),
            **kwargs,
        )
        self.stage = stage
        self.campaign_json = campaign_json
        self.number = number
        self.last = last
        self.aws_conn_id = aws_conn_id
        self.ledger_conn_id = ledger_conn_id

    def execute(self, context: Context) -> Any:
        """Ask, unless the ledger has the answer."""
        work = self._work(context)
        try:
            stage = self._stage(work)
            known = self._known(work)
            if known is not None:
                self.log.info(
                    "Decided already: %s by %s at %s; nobody is asked again", known.verdict.value, known.author, known.at
                )
                return self._carry_out(work, known)
            if not stage.approval_required:
                self.log.info("The plan asks nobody about stage %s", self.stage)
                return None
            if self.number in self._answered(work):
                self.log.info("This question was answered already; nobody is asked it again")
                return self._go_on(work)
            self._let_pass(work)
            return self._ask(work, context)
        except Permanent as error:
            raise AirflowFailException(str(error)) from error

    def ask_again(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """The opening that somebody did not want is over."""
        return self.execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any], after: str = "", read_at: str = "") -> Any:
        """Write the answer down before anything else happens; without one, look around and wait on.

        Args:
            after, read_at: of `_wait`.
        """
        work = self._work(context)
        try:
            if "error" in event and event.get("error_type") != "timeout":
                raise Permanent(f"the request could not be answered: {event['error']}")
            known = self._known(work)
            if known is not None:
                return self._carry_out(work, known)
            author = str((event.get("responded_by_user") or {}).get("id") or NOBODY)
            if author == NOBODY:
                if self._time_left(work, self._stage(work)) <= timedelta():
                    return self._decide(work, Verdict.EXPIRED, author=NOBODY, comment="nobody answered in time")
                if "error" not in event:  # a request of an earlier version, whose default Airflow has written as the answer
                    return self._ask(work, context, after=after or "nobody has answered yet")
                return self._wait_on(work, after=after, read_at=read_at)
            vote = self._vote(work, event, author)
            if isinstance(vote, Misread):
                self.log.warning("The answer of %s decides nothing: %s", author, vote.reason)
                return self._ask(work, context, after=f"the answer of {author} decided nothing: {vote.reason}")
            answered_at = event.get("responded_at")
            real = answered_at.isoformat() if isinstance(answered_at, datetime) else str(answered_at)
            record = {**approval.as_record(vote), "question": self.number, "answered_at": real, **self._locked(work)}
            work.ledger.record(work.run_id, VOTE, record, at=work.now)
            return self._go_on(work)
        except Permanent as error:
            raise AirflowFailException(str(error)) from error

    # answers --------------------------------------------------------------------------------------------------------
    def _vote(self, work: Work, event: Mapping[str, Any], author: str) -> Vote | Misread:
        """What that person answered, if it is theirs to answer."""
        stage = self._stage(work)
        terms = self._terms(work)
        if not terms.counts(author):
            why = ", who asked for the run, does not count" if author == terms.requester else " may not answer"
            return Misread(reason=f"{author}{why} for stage {self.stage}; {self._people(terms.people)} may")
        digest = plans.digest(work.plan)
        if any((one.author, one.stage, one.plan) == (author, self.stage, digest) for one in self._votes(work)):
            return Misread(reason=f"{author} has answered already, and {terms.quorum} different people are needed")
        vote = approval.read(
            event.get("chosen_options"),
            event.get("params_input"),
            stage=stage.name,
            plan=digest,
            author=author,
            at=work.now,
            hosts={host.id: host.name for host in stage.hosts},
            may_defer=self._may_defer(stage),
        )
        if isinstance(vote, Vote) and vote.choice is Choice.APPROVE and self.number == self.last:
            ill = health.sentence(health.unhealthy_before(work, self.stage))
            work.count_calls({})
            if ill:  # there is no further question that could say so
                return Misread(reason=f"{ill}; say yes when they are, or no")
        return vote

    def _go_on(self, work: Work) -> Any:
        """What follows from the answers that the ledger has."""
        found = self._standing(work)
        match found:
            case Agreed():
                return self._agreed(work, found)
            case Refused(vote=vote):
                return self._decide(work, Verdict.REJECTED, author=vote.author, comment=vote.reason)
            case Deferred(vote=vote):
                return self._deferred(work, vote)
            case Impossible(reason=reason):
                raise Permanent(f"{reason}. Nothing is patched; let somebody else start the run, or name more people.")
            case Undecided():
                return self._next_question(found)
            case _:
                assert_never(found)

    def _may_defer(self, stage: StagePlan) -> bool:
        """There is a window to defer to, and questions enough for asking everybody again."""
        return stage.window is not None and self.last - self.number >= stage.quorum

    def _deferred(self, work: Work, vote: Vote) -> Any:
        """The opening that lasts, or the next one, is let pass; the next task asks again after it."""
        found = openings.opening(work.gateway, work.campaign, work.plan, self._stage(work), now=work.now)
        work.count_calls({})
        if found is None or found.span is None:
            said = f"deferred, and no opening of its window is known: {vote.reason}".removesuffix(": ")
            return self._decide(work, Verdict.REJECTED, author=vote.author, comment=said)
        record = {"stage": self.stage, "plan": vote.plan, "author": vote.author, "reason": vote.reason,
                  "until": found.span.closes.isoformat()}  # fmt: skip
        work.ledger.record(work.run_id, DEFERRED, record, at=work.now)
        work.ledger.end_wait(work.run_id, f"approve {self.stage}", at=work.now)
        self.log.info("Deferred by %s: the next task asks again when the opening until %s is over", vote.author, record["until"])
        return {"stage": self.stage, "verdict": "deferred"}

    def _put_off(self, work: Work) -> Mapping[str, Any] | None:
        """The last time that somebody deferred this gate; None if nobody did."""
        its = [
            one.data for one in work.ledger.journal(work.run_id) if one.kind == DEFERRED and one.data.get("stage") == self.stage
        ]
        return its[-1] if its else None

    def _let_pass(self, work: Work) -> None:
        """Wait without a worker until the opening is over that somebody did not want."""
        last = self._put_off(work)
        if last is None or (until := datetime.fromisoformat(last["until"])) <= work.now:
            return
        why = f": {' '.join(last['reason'].split())}" if last["reason"] else ""
        work.ledger.wait(
            WaitRow(
                run=work.run_id,
                subject=f"approve {self.stage}",
                reason=f"{last['author']} deferred stage {self.stage} to the next window{why}",
                ends="this opening is over; then it is asked again",
                since=work.now,
                until=until,
            )
        )
        self.defer(trigger=MomentTrigger(until=until.isoformat()), method_name="ask_again")

    def _next_question(self, found: Undecided) -> Any:
        if self.number < self.last:
            self.log.info("%d more have to answer: the next task asks them", found.missing)
            return {"stage": self.stage, "verdict": "undecided", "missing": found.missing}
        raise Permanent(
            f"stage {self.stage} needs {found.missing} more to say yes, and this gate has no question left; nothing is patched. "
            "Trigger another run."
        )

    def _agreed(self, work: Work, found: Agreed) -> Any:
        """The quorum is there: is the stage what they agreed to?"""
        plan, stage = work.plan, self._stage(work)
        changed = void.changed(work, stage)
        ill = "" if changed is not None else health.sentence(health.unhealthy_before(work, self.stage))
        work.count_calls({})
        if changed is not None or ill:
            reason = changed.reason if changed is not None else f"the approval is void: {ill}"
            void.record(work, stage.name, reason, yes=[one.author for one in found.yes], changed=changed)
            self.log.warning("%s; it is asked again", reason)
            if changed is not None:
                self._change_plan(work, changed.renewed)
            return self._next_question(Undecided(yes=(), missing=stage.quorum, may=()))
        digest, less = plans.digest(plan), None
        if found.without:
            names = ", ".join(dict.fromkeys(one.author for one in found.yes if one.without))
            less = plans.without(plan, self.stage, found.without, reason=f"{void.LEFT_OUT} {names}")
            digest = plans.digest(less)
        result = self._record(work, Verdict.APPROVED, author=found.yes[-1].author, comment=_said(found), plan=digest)
        if less is not None and result.plan == digest:
            self._change_plan(work, less)
        return self._carry_out(work, result)

    def _decide(self, work: Work, verdict: Verdict, *, author: str, comment: str) -> Any:
        decision = self._record(work, verdict, author=author, comment=comment, plan=plans.digest(work.plan))
        return self._carry_out(work, decision)

    def _record(self, work: Work, verdict: Verdict, *, author: str, comment: str, plan: str) -> Decision:
        decision = work.ledger.record_decision(
            Decision(
                run=work.run_id, stage=StageName(self.stage), plan=plan, verdict=verdict, author=author, at=work.now,
                comment=comment, lockfile=self._locked(work).get("lockfile", ""),
            )
        )  # fmt: skip
        work.ledger.end_wait(work.run_id, f"approve {self.stage}", at=work.now)
        self.log.info("Stage %s: %s by %s", self.stage, decision.verdict.value, decision.author)
        return decision

    def _carry_out(self, work: Work, decision: Decision) -> Any:
        if decision.verdict is Verdict.APPROVED:
            return {"stage": self.stage, "verdict": decision.verdict.value}
        work.ledger.skip_stage(
            work.run_id, StageName(self.stage), reason=f"{decision.verdict.value} by {decision.author}", at=work.now
        )
        # A "no" is an answer, not a failure: what follows is skipped, the report is still made.
        task = work.context["task"]
        self.skip(ti=work.context["ti"], tasks=task.get_direct_relatives(upstream=False))
        return {"stage": self.stage, "verdict": decision.verdict.value}

    # questions ------------------------------------------------------------------------------------------------------
    def _ask(self, work: Work, context: Context, *, after: str = "") -> Any:
        """Put the question, or put it again.

        Args:
            after: why an answer to it decided nothing; its text stays the one that was shown first.
        """
        found = self._standing(work)
        if not isinstance(found, Undecided):
            self._go_on(work)
            raise Permanent(f"stage {self.stage} cannot be asked about: {found}")
        if after:
            self._write(context)  # wipes the answer
            return self._wait_on(work, after=after)
        put = self._put(work)
        if put is not None:
            if put["plan"] != plans.digest(work.plan):
                self.log.info("This question shows plan %s, which does not hold any more", put["plan"])
                return self._next_question(found)
            self.log.info("This question was put by an earlier try; it is waited for")
            return self._wait_on(work)
        if not found.yes:
            self._renew(work)
            if void.promoted(work, StageName(self.stage)):
                promotion.show(work.ledger, work.run_id, StageName(self.stage), work.campaign.name, now=work.now)
        plan, stage = work.plan, self._stage(work)
        ill = self._look(work)
        notices = [sentence for sentence in (self._notice(work), *self._so_far(work, found, stage, ill)) if sentence]
        self.subject, self.body = self._page(work, found, stage, notices)
        self.options = [self.APPROVE, self.REJECT, *([self.DEFER] if self._may_defer(stage) else [])]
        # Whom Airflow lets answer, and until when, is what the plan says: the file may have been edited meanwhile.
        self.assigned_users = _assigned(found.may)
        self.response_timeout = self._time_left(work, stage)
        self._write(context)
        tell(work.campaign, Event.APPROVAL_REQUESTED, f"{self.subject} {self._who(found)} may answer", to=self.log)
        record = {"stage": self.stage, "plan": plans.digest(plan), "question": self.number, "of": list(found.may),
                  "asked_at": datetime.now(UTC).isoformat(), "shown": True, **self._locked(work)}  # fmt: skip
        work.ledger.record(work.run_id, ASKED, record, at=work.now)
        return self._wait(work, found, ill)

    def _page(self, work: Work, found: Undecided, stage: StagePlan, notices: Sequence[str]) -> tuple[str, str]:
        """Subject and text of the question."""
        plan = work.plan
        heard = f", {len(found.yes)} of {stage.quorum} have said yes" if found.yes else ""
        subject = (
            f"{plan.campaign}: may stage {self.stage} be patched? {_hosts(len(stage.hosts))}, {stage.stage_places} at once{heard}"
        )
        return subject, plans.markdown(
            plan,
            for_stage=self.stage,
            most=plans.MOST_AT_GATE,
            notices=notices,
            difference=self._difference(work) + self._relocked(work),
            patches=self._patches(work),
            forecast=forecast_now(work, plan, since=self.stage),
            baselines=baselines_now(work, plan, fleet_now(work)[0]) if work.policy.baselines else (),
            clocks=clocks_now(work),
            why=why_now(work, plan),
        )

    def _change_plan(self, work: Work, plan: Plan) -> None:
        """Have another plan hold for the stage."""
        void.change_plan(work, plan, self.stage)

    def _write(self, context: Context) -> None:
        """Have Airflow write the request down; how long it is waited for at a time is not Airflow's business."""
        with suppress(TaskAwaitingInput):
            super().execute(context)

    def _wait_on(self, work: Work, *, after: str = "", read_at: str = "") -> Any:
        """Look around, and wait for the answer to the question that is put already."""
        found = self._standing(work)
        if not isinstance(found, Undecided):
            return self._go_on(work)
        return self._wait(work, found, self._look(work), after=after, read_at=read_at)

    def _wait(self, work: Work, found: Undecided, ill: str, *, after: str = "", read_at: str = "") -> NoReturn:
        """Write why it waits, and free the worker until somebody answers or it is time to look again.

        Args:
            ill: who is not healthy.
            after: why an answer decided nothing.
            read_at: when CISA's catalogue was read last; empty: not yet.
        """
        stage = self._stage(work)
        read = not read_at or work.now - datetime.fromisoformat(read_at) >= health.READ_AGAIN
        news = findings.news(work, self.log, read=read)
        heard = f", {len(found.yes)} of {stage.quorum} have said yes" if found.yes else ""
        reason = "; ".join(
            filter(None, (f"stage {self.stage} waits for {self._who(found)} to say yes or no{heard}", after, ill, news))
        )
        row = WaitRow(
            run=work.run_id,
            subject=f"approve {self.stage}",
            reason=reason,
            ends=f"one of them answers; no answer within {stage.approval_timeout} means no",
            since=work.now,
        )
        if work.ledger.wait(row):
            self.log.info("Waiting: %s", reason)
        raise TaskAwaitingInput(
            method_name="execute_complete",
            kwargs={"after": after, "read_at": work.now.isoformat() if read else read_at},
            timeout=self._until_next_look(work, stage),
        )

    def _until_next_look(self, work: Work, stage: StagePlan) -> timedelta:
        """Real time: Airflow knows no rehearsal's clock."""
        left = max(timedelta(seconds=first_look()), self._time_left(work, stage))
        if health.patched_before(work, self.stage):
            every = LOOK_AGAIN
        elif work.policy.deadlines.wanted.catalogue is not None:
            every = health.READ_AGAIN
        else:
            return left
        return min(left, max(LEAST_PAUSE, every / clock.speed()))

    def _look(self, work: Work) -> str:
        """Who of the stages before is not healthy, as a sentence; whoever is new among them is told of."""
        try:
            sick = health.unhealthy_before(work, self.stage)
            work.count_calls({})
        except PatchwaveError as error:
            self.log.warning("The hosts of the stages before cannot be looked at: %s", error)
            return "whether the hosts of the stages before are healthy is not known, AWS does not say"
        said = health.sentence(sick)
        now = {host for its in sick.values() for host in (one.host for one in its)}
        before = self._ill_before(work)
        if now != before:
            work.ledger.record(
                work.run_id, WATCHED, {"stage": self.stage, "unhealthy": sorted(now), "reason": said}, at=work.now
            )
            self.log.warning("While stage %s is asked about: %s", self.stage, said or "all hosts are healthy again")
        if now - before:
            text = f"stage {self.stage} waits for approval, and {said}. A yes is void as long as that is so"
            tell(work.campaign, Event.APPROVAL_REQUESTED, text, to=self.log)
        return said

    def _ill_before(self, work: Work) -> set[str]:
        its = [
            one.data for one in work.ledger.journal(work.run_id) if one.kind == WATCHED and one.data.get("stage") == self.stage
        ]
        return set(its[-1]["unhealthy"]) if its else set()

    def _put(self, work: Work) -> Mapping[str, Any] | None:
        """The record of this question, if Airflow shows it; None if it has not been put yet."""
        its = [
            one.data
            for one in work.ledger.journal(work.run_id)
            if one.kind == ASKED and (one.data.get("stage"), one.data.get("question")) == (self.stage, self.number)
        ]
        return its[-1] if its and its[-1].get("shown") else None

    def _who(self, found: Undecided) -> str:
        return self._people(found.may, " or ")

    def _locked(self, work: Work) -> dict[str, str]:
        """Which lockfile people are shown, for records; nothing where none says what the stage gets."""
        if not void.promoted(work, StageName(self.stage)):
            return {}
        shown = promotion.shown(work.ledger, work.run_id, StageName(self.stage))
        return {} if shown is None else {"lockfile": shown.digest}

    def _relocked(self, work: Work) -> str:
        """How the lockfile differs from the one that was shown first, as a section."""
        changes = [
            change
            for one in self._since_deferred(work)
            if one.kind == VOIDED and one.data.get("stage") == self.stage
            for change in one.data.get("lockfile") or ()
        ]
        if not changes:
            return ""
        more = f"- and {len(changes) - MOST_CHANGES} more\n" if len(changes) > MOST_CHANGES else ""
        listed = "".join(f"- {_plain(change)}\n" for change in changes[:MOST_CHANGES])
        return f"\n## The lockfile has changed since it was shown first\n\n{listed}{more}"

    def _renew(self, work: Work) -> None:
        """Nobody is asked about hosts that are no longer the stage's."""
        stage = self._stage(work)
        changed = void.changed_hosts(work, stage)
        if changed is not None:
            record = {"stage": self.stage, "plan": plans.digest(work.plan), "added": list(changed.added),
                      "removed": list(changed.removed)}  # fmt: skip
            work.ledger.record(work.run_id, RENEWED, record, at=work.now)
            self._change_plan(work, changed.renewed)

    def _difference(self, work: Work) -> str:
        """What is new, as sections: in this run, and since the plan that was approved before."""
        plan = work.plan
        found = ""
        before = self._plan_before(work)
        if before is not None:
            changed = difference.between(before, plan)
            found += difference.markdown(changed, title="Changed since this run's plan was shown or made")
        last = approved.newest(work.ledger, plan.campaign, before=work.run_id, stage=self.stage)
        if last is None:
            found += (
                "\n## Difference from the plan approved before\n\nNo plan of this campaign was approved for this stage before.\n"
            )
        else:
            policies = (approved.policy_digest(last.run), approved.policy_digest(work.run))
            changed = difference.between(last.plan, plan, policies=policies)
            found += difference.markdown(changed, title=f"Difference from the plan approved before, by {last.decision.author}")
        return found

    def _patches(self, work: Work) -> str:
        """What is installed, and what of it is new since the plan that was approved before."""
        last = approved.newest(work.ledger, work.plan.campaign, before=work.run_id, stage=self.stage)
        return patches_now(work, self.stage, since=last.run.id if last else None)

    def _plan_before(self, work: Work) -> Plan | None:
        """The plan that was changed into the one that holds; None if it is the first of the run."""
        names = list(work.ledger.documents(work.run_id))
        order = [one.name for one in work.plan.stages]
        now = plans.in_force(names, order, stage=self.stage)
        if now == PLAN:
            return None
        before = plans.in_force([name for name in names if name != now], order, stage=self.stage)
        return plans.from_json(work.ledger.document(work.run_id, before))

    def _so_far(self, work: Work, found: Undecided, stage: StagePlan, ill: str) -> Iterator[str]:
        """What whoever is asked has to know before the plan: how many are needed, and what has happened at this gate, a
        sentence each."""
        needed = f"{stage.quorum} different people have to say yes; one no is enough to stop. " if stage.quorum > 1 else ""
        put_off = "Defer lets the opening pass that is on, or the next one, and asks again." if self._may_defer(stage) else ""
        yield f"{needed}{put_off}".strip()
        yield _plain(self._changed_since(work))
        last = self._put_off(work)
        if last is not None:
            until = datetime.fromisoformat(last["until"]).astimezone(UTC)
            yield _plain(
                f"{last['author']} deferred it until the opening to {until:%Y-%m-%d %H:%M} UTC was over{_quoted(last['reason'])}."
            )
        for vote in found.yes:
            out = f" without {', '.join(vote.without)}" if vote.without else ""
            yield _plain(f"{vote.author} has said yes{out} at {vote.at:%Y-%m-%d %H:%M} UTC{_quoted(vote.reason)}.")
        if ill:
            yield _plain(f"{ill[0].upper()}{ill[1:]}. A yes is void as long as that is so.")

    def _changed_since(self, work: Work) -> str:
        """Why the plan that is asked about is not the one from before, if that was so since the last deferral."""
        its = [one for one in self._since_deferred(work) if one.kind in (VOIDED, RENEWED) and one.data.get("stage") == self.stage]
        if not its:
            return ""
        if its[-1].kind == RENEWED:
            return "The stage's hosts have changed since the plan was made; this is about those of now."
        void_ = its[-1].data
        yes, other = void_.get("yes") or (), void_.get("plan") != plans.digest(work.plan)
        had = f" {', '.join(yes)} had said yes{' to the plan before' if other else ''}." if yes else ""
        return f"Asked again: {void_['reason']}.{had}"

    def _time_left(self, work: Work, stage: StagePlan) -> timedelta:
        """The whole gate has the time that the campaign gives it, counted from the first question about this plan, and each
        question has `LEAST_TIME`."""
        digest, now = plans.digest(work.plan), datetime.now(UTC)
        asked = [
            (one.data.get("question"), datetime.fromisoformat(one.data["asked_at"]))
            for one in self._since_deferred(work)
            if one.kind == ASKED and one.data.get("stage") == self.stage and one.data.get("plan") == digest
        ]
        first = min((at for _, at in asked), default=now)
        this = min((at for number, at in asked if number == self.number), default=now)
        return max(first + stage.approval_timeout, this + LEAST_TIME) - now

    def _people(self, people: Sequence[str], between: str = ", ") -> str:
        return between.join(people) or "anybody who may answer"

    # what the ledger has --------------------------------------------------------------------------------------------
    def _terms(self, work: Work) -> Terms:
        stage = self._stage(work)
        return Terms(approvers=stage.approvers, quorum=stage.quorum, requester=work.plan.requested_by)

    def _votes(self, work: Work) -> tuple[Vote, ...]:
        return approval.from_records(work.ledger.journal(work.run_id))

    def _since_deferred(self, work: Work) -> Sequence[Entry]:
        """The journal from the last time on that somebody deferred this gate."""
        records = work.ledger.journal(work.run_id)
        last = max(
            (at for at, one in enumerate(records, 1) if one.kind == DEFERRED and one.data.get("stage") == self.stage), default=0
        )
        return records[last:]

    def _standing(self, work: Work) -> approval.Standing:
        votes = self._votes(work)
        return approval.standing(self._terms(work), stage=StageName(self.stage), plan=plans.digest(work.plan), votes=votes)

    def _answered(self, work: Work) -> frozenset[int]:
        """Numbers of the gate's questions that have their answer."""
        return frozenset(
            one.data["question"]
            for one in work.ledger.journal(work.run_id)
            if one.kind == VOTE and one.data.get("stage") == self.stage and "question" in one.data
        )

    def _known(self, work: Work) -> Decision | None:
        digest = plans.digest(work.plan)
        for decision in work.ledger.decisions(work.run_id):
            if decision.stage == self.stage and decision.plan == digest:
                return decision
        return None

    def _stage(self, work: Work) -> StagePlan:
        return stages.reached(work, self.stage)

    def _notice(self, work: Work) -> str:
        if Campaign.from_json(self.campaign_json).digest != work.run.definition_digest:
            return "The campaign file has changed since this run began. This plan and this run use the version from then."
        return ""

    def _work(self, context: Context) -> Work:
        return Work(context, aws_conn_id=self.aws_conn_id, ledger_conn_id=self.ledger_conn_id)


def _hosts(count: int) -> str:
    return f"{count} host{'s' if count != 1 else ''}"


def _said(found: Agreed) -> str:
    """Who agreed, in whose words, for the evidence."""
    return "; ".join(
        f"{one.author}{f' without {_hosts(len(one.without))}' if one.without else ''}{f': {one.reason}' if one.reason else ''}"
        for one in found.yes
    )


def _form() -> dict[str, Param]:
    """What stands below the question. Nothing is compulsory: an empty field must not shut the buttons."""
    return {
        "reason": Param(
            None, type=["null", "string"], title="Reason (kept beside your name)", format="multiline",
            description_md="Stands beside your name in the evidence.",
        ),
        "without": Param(
            None, type=["null", "string"], title="Without these hosts (ids or names; empty: all are patched)", format="multiline",
            description_md="Ids or names of hosts of this stage that you do not agree to, divided by blanks or commas. They are "
            "left out of this run; the others are patched. Empty: all of them.",
        ),
    }  # fmt: skip


def _quoted(reason: str | None) -> str:
    """The reason that somebody gave, set off from our own words; nothing if they gave none."""
    said = " ".join((reason or "").split())
    return f": \"{said}\"" if said else ""


def _plain(text: str) -> str:
    """Text that begins no markup."""
    return text.replace("*", "\\*").replace("<", "&lt;").replace("[", "\\[")


def _assigned(approvers: Sequence[str]) -> list[dict[str, str]] | None:
    """As Airflow wants them; None: anybody who may answer at all."""
    return [{"id": name, "name": name} for name in approvers] or None
