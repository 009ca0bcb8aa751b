"""The gate before a stage: Airflow's own human-in-the-loop asks, the ledger remembers.

A gate is a chain of task instances, one for each question: Airflow keeps the first text of a request through clear, retry and
a second question in the same task instance, so whoever is asked second sees who has said yes only in a task of its own. Each
answer is written to the ledger as the first thing that happens to it, and what is written there is never asked for again:
whatever Airflow does to the gate's tasks, nobody says yes twice. An answer that says nothing clear, or is not that person's to
give, decides nothing: the same question is asked again in the same task instance.

What opens the stage is the decision in the ledger, which `PatchStageOperator` reads; marking these tasks by hand opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, assert_never

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context, Param
from airflow.sdk.exceptions import AirflowFailException

from patchwave.campaign import approval, difference
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import (
    DEFERRED,
    VOIDED,
    VOTE,
    Agreed,
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
from patchwave.campaign.errors import Permanent
from patchwave.campaign.plan import Plan, StagePlan
from patchwave.campaign.values import StageName
from patchwave.execution import openings
from patchwave.ledger import approved
from patchwave.ledger.store import Entry, WaitRow
from patchwave.operators import stages
from patchwave.operators.base import PLAN, Work
from patchwave.operators.findings import clocks_now
from patchwave.operators.links import RunPageLink
from patchwave.operators.notifications import tell
from patchwave.operators.plan import baselines_now, fleet_now, forecast_now, made_of, patches_now, text_now, why_now
from patchwave.triggers.watch import MomentTrigger

NOBODY = "-"
ROUNDS = 3
"""How often the people of a gate are asked at most where the stage's hosts change while they are."""
ASKED = "approval.asked"
"""Kind of the journal's record of a question."""
RENEWED = "plan.renewed"
"""Kind of the journal's record of a plan that was out of date before anybody was asked about it."""
LEAST_TIME = timedelta(minutes=1)
"""That long a question waits at least, also one that follows an answer given in the last moment."""


def questions(stage: Stage) -> int:
    """How many task instances a gate has: one for each yes, and as many again for each time that it may have to ask anew."""
    again = stage.approval.tolerance is not None or stage.window is not None
    return stage.approval.quorum * (ROUNDS if again else 1)


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
            defaults=self.REJECT,
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
            self._ask(work, context)
        except Permanent as error:
            raise AirflowFailException(str(error)) from error

    def ask_again(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """The opening that somebody did not want is over."""
        return self.execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Write the answer down before anything else happens."""
        work = self._work(context)
        try:
            if "error" in event:
                raise Permanent(f"the request could not be answered: {event['error']}")
            known = self._known(work)
            if known is not None:
                return self._carry_out(work, known)
            author = str((event.get("responded_by_user") or {}).get("id") or NOBODY)
            if author == NOBODY:
                return self._decide(work, Verdict.EXPIRED, author=NOBODY, comment="nobody answered in time")
            vote = self._vote(work, event, author)
            if isinstance(vote, Misread):
                self.log.warning("The answer of %s decides nothing: %s", author, vote.reason)
                self._ask(work, context, after=f"the answer of {author} decided nothing: {vote.reason}")
            answered_at = event.get("responded_at")
            real = answered_at.isoformat() if isinstance(answered_at, datetime) else str(answered_at)
            record = {**approval.as_record(vote), "question": self.number, "answered_at": real}
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
        return approval.read(
            event.get("chosen_options"),
            event.get("params_input"),
            stage=stage.name,
            plan=digest,
            author=author,
            at=work.now,
            hosts={host.id: host.name for host in stage.hosts},
            may_defer=self._may_defer(stage),
        )

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
        changed = self._changed(work, plan, stage)
        if changed is not None:
            gone, renewed = changed
            record = {
                "stage": self.stage, "plan": plans.digest(plan), "reason": str(gone), "added": list(gone.added),
                "removed": list(gone.removed),
            }  # fmt: skip
            work.ledger.record(work.run_id, VOIDED, record, at=work.now)
            self.log.warning("%s; it is asked again", gone)
            self._change_plan(work, renewed)
            return self._next_question(Undecided(yes=(), missing=stage.quorum, may=()))
        digest, less = plans.digest(plan), None
        if found.without:
            names = ", ".join(dict.fromkeys(one.author for one in found.yes if one.without))
            less = plans.without(plan, self.stage, found.without, reason=f"left out at the gate by {names}")
            digest = plans.digest(less)
        result = self._record(work, Verdict.APPROVED, author=found.yes[-1].author, comment=_said(found), plan=digest)
        if less is not None and result.plan == digest:
            self._change_plan(work, less)
        return self._carry_out(work, result)

    def _changed(self, work: Work, plan: Plan, stage: StagePlan) -> tuple[approval.Void, Plan] | None:
        """Whether the stage has other hosts now than in the plan, by more than is tolerated, and the plan with those."""
        if stage.tolerance is None:
            return None
        hosts, groups = fleet_now(work)
        work.count_calls({})
        renewed = plans.renewed(plan, made_of(work, hosts, groups, expected=plan.expected), self.stage)
        now = [host.id for host in renewed.stage(self.stage).hosts]
        gone = approval.void([host.id for host in stage.hosts], now, stage.tolerance)
        return None if gone is None else (gone, renewed)

    def _change_plan(self, work: Work, plan: Plan) -> None:
        hosts = fleet_now(work)[0] if work.policy.baselines else []
        work.change_plan(plan, stage=self.stage, text=text_now(work, plan, hosts))

    def _decide(self, work: Work, verdict: Verdict, *, author: str, comment: str) -> Any:
        decision = self._record(work, verdict, author=author, comment=comment, plan=plans.digest(work.plan))
        return self._carry_out(work, decision)

    def _record(self, work: Work, verdict: Verdict, *, author: str, comment: str, plan: str) -> Decision:
        decision = work.ledger.record_decision(
            Decision(
                run=work.run_id, stage=StageName(self.stage), plan=plan, verdict=verdict, author=author, at=work.now,
                comment=comment,
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
    def _ask(self, work: Work, context: Context, *, after: str = "") -> NoReturn:
        """Put the question, or put it again.

        Args:
            after: why an answer to it decided nothing; its text stays the one that was shown first.
        """
        found = self._standing(work)
        if not isinstance(found, Undecided):
            self._go_on(work)
            raise Permanent(f"stage {self.stage} cannot be asked about: {found}")
        if not after and not found.yes:
            self._renew(work)
        plan, stage = work.plan, self._stage(work)
        heard = f", {len(found.yes)} of {stage.quorum} have said yes" if found.yes else ""
        self.subject = (
            f"{plan.campaign}: may stage {self.stage} be patched? {_hosts(len(stage.hosts))}, {stage.stage_places} at once{heard}"
        )
        notices = filter(None, (self._notice(work), self._so_far(work, found, stage)))
        self.body = plans.markdown(
            plan,
            for_stage=self.stage,
            notice=" ".join(notices),
            difference=self._difference(work),
            patches=self._patches(work),
            forecast=forecast_now(work, plan, since=self.stage),
            baselines=baselines_now(work, plan, fleet_now(work)[0]) if work.policy.baselines else (),
            clocks=clocks_now(work),
            why=why_now(work, plan),
        )
        self.options = [self.APPROVE, self.REJECT, *([self.DEFER] if self._may_defer(stage) else [])]
        # Whom Airflow lets answer, and until when, is what the plan says: the file may have been edited meanwhile.
        self.assigned_users = _assigned(found.may)
        self.response_timeout = self._time_left(work, stage)
        who = self._people(found.may, " or ")
        if not after:
            tell(work.campaign, Event.APPROVAL_REQUESTED, f"{self.subject} {who} may answer", to=self.log)
            record = {"stage": self.stage, "plan": plans.digest(plan), "question": self.number, "of": list(found.may),
                      "asked_at": datetime.now(UTC).isoformat()}  # fmt: skip
            work.ledger.record(work.run_id, ASKED, record, at=work.now)
        work.ledger.wait(
            WaitRow(
                run=work.run_id,
                subject=f"approve {self.stage}",
                reason=f"stage {self.stage} waits for {who} to say yes or no{heard}{f'; {after}' if after else ''}",
                ends=f"one of them answers; no answer within {stage.approval_timeout} means no",
                since=work.now,
            )
        )
        super().execute(context)
        raise AssertionError("the request waits without an end of its own")

    def _renew(self, work: Work) -> None:
        """Nobody is asked about hosts that are no longer the stage's."""
        plan = work.plan
        changed = self._changed(work, plan, self._stage(work))
        if changed is not None:
            gone, renewed = changed
            record = {"stage": self.stage, "plan": plans.digest(plan), "added": list(gone.added), "removed": list(gone.removed)}
            work.ledger.record(work.run_id, RENEWED, record, at=work.now)
            self._change_plan(work, renewed)

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

    def _so_far(self, work: Work, found: Undecided, stage: StagePlan) -> str:
        told = ""
        if stage.quorum > 1:
            told = f"{stage.quorum} different people have to say yes; one no is enough to stop."
        if self._may_defer(stage):
            told += " Defer lets the opening pass that is on, or the next one, and asks again."
        told += self._changed_since(work)
        last = self._put_off(work)
        if last is not None:
            told += f" {last['author']} deferred it until the opening to {last['until']} was over."
            told += f" {' '.join(last['reason'].split())}" if last["reason"] else ""
        for vote in found.yes:
            out = f" without {', '.join(vote.without)}" if vote.without else ""
            said = f": {' '.join(vote.reason.split())}" if vote.reason else ""
            told += f" {vote.author} has said yes{out} at {vote.at:%Y-%m-%d %H:%M} UTC{said}."
        return told.strip().replace("*", "\\*").replace("<", "&lt;").replace("[", "\\[")

    def _changed_since(self, work: Work) -> str:
        """Why the plan that is asked about is not the one from before, if that was so since the last deferral."""
        its = [one for one in self._since_deferred(work) if one.kind in (VOIDED, RENEWED) and one.data.get("stage") == self.stage]
        if not its:
            return ""
        if its[-1].kind == RENEWED:
            return " The stage's hosts have changed since the plan was made; this is about those of now."
        yes = [vote.author for vote in self._votes(work) if vote.stage == self.stage and vote.plan == its[-1].data["plan"]]
        return f" Asked again: {its[-1].data['reason']}. {', '.join(yes)} had said yes to the plan before."

    def _time_left(self, work: Work, stage: StagePlan) -> timedelta:
        """The whole gate has the time that the campaign gives it, counted from the first question about this plan."""
        digest = plans.digest(work.plan)
        asked = [
            datetime.fromisoformat(one.data["asked_at"])
            for one in self._since_deferred(work)
            if one.kind == ASKED and one.data.get("stage") == self.stage and one.data.get("plan") == digest
        ]
        passed = datetime.now(UTC) - min(asked) if asked else timedelta()
        return max(LEAST_TIME, stage.approval_timeout - max(timedelta(), passed))

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


def _assigned(approvers: Sequence[str]) -> list[dict[str, str]] | None:
    """As Airflow wants them; None: anybody who may answer at all."""
    return [{"id": name, "name": name} for name in approvers] or None
