"""One deferrable task a stage: it carries the stage's plan out until each host is settled.

`work` is its resume: it runs again after every wait, retry and clear, even beside an orphan of an earlier try. The lease in
the ledger decides who may act, intents stand there before effects, and commands are adopted by their token.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Context

from patchwave.aws import console
from patchwave.campaign import approval, baselines, overrides
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Choice
from patchwave.campaign.definition import Event, Source
from patchwave.campaign.errors import NotApproved, Permanent
from patchwave.campaign.lockfile import NotLocked
from patchwave.campaign.overrides import Override
from patchwave.campaign.plan import StagePlan
from patchwave.campaign.rollout import Done, Halt, HostState, Invocation, Move, Outcome, Wait
from patchwave.campaign.values import StageName
from patchwave.execution import baselines as keeping
from patchwave.execution import promotion, stopping
from patchwave.execution.executor import SETTLING, STOPPED, StageExecutor, wait_for
from patchwave.execution.overriding import Overriding
from patchwave.execution.promotion import Promotion, Witness
from patchwave.execution.snapshots import SnapshotsBefore
from patchwave.execution.surroundings import EVERY, Surroundings
from patchwave.hooks import clock
from patchwave.ledger.changes import EXPLAINED, explained
from patchwave.ledger.store import Lease, StageState
from patchwave.operators import stages, void
from patchwave.operators.approval import questions
from patchwave.operators.base import CampaignOperator, Work
from patchwave.operators.findings import findings_before
from patchwave.operators.links import RunCommandConsoleLink, RunPageLink
from patchwave.operators.notifications import tell
from patchwave.triggers.watch import CommandsTrigger

NOT_WORTH_DEFERRING = 2.0
"""Real seconds. A deferral costs a worker's start, about two seconds of a core; a wait that usually ends sooner than this is
waited out in place. In real time no step is that short: this is for rehearsals, whose clock runs hundreds of times faster."""

LOOK_WHILE_SHUT = timedelta(hours=1)
"""How long a stage is left alone at most while nothing is in flight, before a window opens, for instance, in the campaign's time;
with commands in flight it is `EVERY`, for hosts come and go without a word."""
LEAST_DEFERRAL = timedelta(seconds=20)
"""Real seconds: in a rehearsal `EVERY` passes in a moment, and each wake costs a worker's start."""

TOGETHER = 20.0
"""Campaign seconds that a command that is over waits for the others that were sent with it."""
WORTH_A_WORKER = 2.0
"""Real seconds: the same in a rehearsal, where every wake costs a worker's start, and with it minutes of the campaign's time."""

LOOKS_WHEN_KILLED = 2
"""How often the wish of a person is looked for before Airflow kills this process for good, two seconds apart."""

LOOKS = 8
"""How often a short wait is looked at again, a quarter of `NOT_WORTH_DEFERRING` apart, before it is deferred all the same."""


class StageHalted(Permanent):
    """A rule of the rollout stopped this stage."""


class PatchStageOperator(CampaignOperator):
    """Patches one stage as planned and approved.

    Args:
        stage: name of the stage.
        poll: campaign seconds between two looks at commands in flight, at the least.
    """

    template_fields: Sequence[str] = (*CampaignOperator.template_fields, "stage")
    operator_extra_links = (RunPageLink(), RunCommandConsoleLink())

    def __init__(self, *, stage: str, poll: float = 8.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.poll = poll
        self._executor: StageExecutor | None = None
        self._told: Mapping[str, Sequence[Invocation]] = {}
        self._looked: dict[str, datetime] = {}

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Go on after a wait; what the trigger read of commands a moment ago is not asked for again."""
        found = (event or {}).get("invocations") or {}
        self._told = {command: tuple(_invocation(one) for one in its) for command, its in found.items()}
        looked = (event or {}).get("looked") or {}
        self._looked = {command: datetime.fromisoformat(at) for command, at in looked.items()}
        return super().execute_complete(context, event)

    def work(self, work: Work) -> dict[str, int]:
        """Returns the stage's hosts by terminal class.

        Raises:
            NotApproved: the ledger holds no approval of this plan, or one that does not cover what would be patched now.
            StageHalted: a rule stopped it; clearing the task goes on with the hosts that are not settled.
            StillHalted: it is halted, and nobody has cleared the task.
            LeaseLost: another process took the stage between our look at it and the lease.
        """
        stage = stages.reached(work, self.stage)
        stages.check_gate(work, stage)
        name = StageName(self.stage)
        before = work.ledger.stage(work.run_id, name)
        if before.state is StageState.PATCHED:
            # A try that Airflow had given up wakes up late: opening the stage again would shut the next one.
            self.log.info("Stage %s is patched already", name)
            return dict(Counter(row.state.value for row in work.ledger.hosts(work.run_id, name)))
        stopping.refuse_unless_cleared(before, work.holder)
        lease = work.ledger.acquire(work.run_id, name, work.holder, at=work.now, seen=before.fencing)
        untouched = not work.ledger.dispatches(work.run_id, name)
        if untouched:
            self._check_cover(work, stage, lease)
        if before.state is not StageState.PATCHING:
            work.ledger.set_stage(lease, StageState.PATCHING, reason="", at=work.now)
        work.ledger.add_hosts(lease, plans.rows(work.plan, stage, now=work.now))
        if untouched:
            self._leave_out(work, lease)
        wanted = baselines.wanted(work.policy.baselines, policy=work.policy.name)
        keeping.keep(work.ledger, work.gateway, lease, stage, wanted, now=clock.now, log=self.log)
        promoted = self._promotion(work, lease)
        override = self._override(work, stage, promoted)
        executor = self._executor = StageExecutor(
            ledger=work.ledger,
            gateway=work.gateway,
            lease=lease,
            rules=replace(plans.rules(work.plan, stage), override=override),
            campaign=work.plan.campaign,
            now=clock.now,
            log=self.log,
            settling=SETTLING * clock.speed(),
            errors_since=before.halted_at,
            look_again=Patience(),
            told=self._told,
            looked=self._looked,
            surroundings=Surroundings(
                ledger=work.ledger,
                gateway=work.gateway,
                lease=lease,
                campaign=work.campaign,
                plan=work.plan,
                stage=stage,
                now=clock.now,
                log=self.log,
                anew=before.state is not StageState.PATCHING,
                every=max(EVERY, LEAST_DEFERRAL * clock.speed()),
            ),
            promotion=promoted,
            overriding=None
            if override is None
            else Overriding(gateway=work.gateway, override=override, bucket=work.lists_bucket),
            kernel=work.policy.kernel if work.plan.kernel_waits and stage.window is None else None,
            snapshots=self._snapshots(work, stage, lease),
        )
        if before.state is StageState.PATCHING and stopping.was_cleared(before.holder, work.holder):
            self._stop_what_was_cleared(work, executor)
        return self._follow(work, lease, executor.advance())

    def _override(self, work: Work, stage: StagePlan, promoted: Promotion | Witness | None) -> Override | None:
        """The baselines that hold in place of the accounts' own; what is patched by a lockfile goes by that alone."""
        locked = promoted.lockfile.platforms if isinstance(promoted, Promotion) else ()
        return overrides.of(work.policy, window=stage.window is not None, locked=[one.platform for one in locked])

    def _snapshots(self, work: Work, stage: StagePlan, lease: Lease) -> SnapshotsBefore | None:
        """Whoever takes snapshots before an Install, where the plan says that they are taken."""
        rule = work.policy.snapshot
        if rule is None or stage.ways_back is None or not stage.ways_back.snapshots:
            return None
        return SnapshotsBefore(
            ledger=work.ledger, gateway=work.gateway, lease=lease, rule=rule, now=clock.now, log=self.log,
            settling=SETTLING * clock.speed(),
        )  # fmt: skip

    def _promotion(self, work: Work, lease: Lease) -> Promotion | Witness | None:
        """The lockfile that holds for this stage; the first one makes it. None where the campaign wants none.

        Raises:
            NotLocked: there is none, so nobody knows what this stage may get.
        """
        wanted, first = work.campaign.promotion, work.campaign.stages[0].name
        if wanted.by is not Source.LOCKFILE:
            return None
        if not work.campaign.is_locked(self.stage):
            return Witness(ledger=work.ledger, gateway=work.gateway, lease=lease, now=clock.now)
        found = promotion.holding(work.ledger, work.run_id, work.campaign.name)
        if found is None:
            raise NotLocked(
                f"stage {self.stage} is patched by what {first} received, and neither this run nor an earlier one that went "
                f"through has a lockfile: begin with stage {first}"
            )
        run, lockfile = found
        if run != work.run_id:
            self.log.info("This run has no lockfile of its own: that of %s holds (%s)", run, lockfile.digest)
        return Promotion(
            ledger=work.ledger,
            gateway=work.gateway,
            lease=lease,
            lockfile=lockfile,
            bucket=work.lists_bucket,
            now=clock.now,
            allowed=wanted.untried is Source.BASELINE,
        )

    def _lock(self, work: Work) -> None:
        """What the first stage received is frozen the moment it is through."""
        if work.campaign.promotion.by is not Source.LOCKFILE or self.stage != work.campaign.stages[0].name:
            return
        made = promotion.lock(
            work.ledger,
            work.gateway,
            run=work.run_id,
            stage=StageName(self.stage),
            findings=findings_before(work),
            now=work.now,
        )
        self.log.info("Lockfile %s: %s", made.digest, {one.platform: len(one.patches) for one in made.platforms})

    def _stop_what_was_cleared(self, work: Work, executor: StageExecutor) -> None:
        """A person cleared the task: what its last try had in flight is cancelled, then the stage goes on from there."""
        stopped = executor.stop(looks=1, pause=lambda: None)
        if stopped.commands or stopped.unknown:
            self.log.info("The task was cleared: %s", stopped)
            data = stopping.as_data(executor.lease.stage, stopping.CLEARED, stopped)
            work.ledger.record(work.run_id, STOPPED, data, at=work.now)

    def _check_cover(self, work: Work, stage: StagePlan, lease: Lease) -> None:
        """Before the first command, however long after the answer: is the stage what they agreed to?

        If it is not, the plan is changed to what is there now, which nobody has approved: clearing the gate asks about that.

        Raises:
            NotApproved: it is another one.
        """
        changed = void.changed(work, stage) if stage.approval_required else None
        if changed is None:
            return
        yes = self._agreed(work, stage)
        work.ledger.check(lease)
        void.record(work, stage.name, changed.reason, yes=yes, changed=changed)
        void.change_plan(work, changed.renewed, self.stage)
        work.ledger.end_wait(work.run_id, self.stage, at=work.now)
        why = f"{changed.reason}. {' and '.join(yes)} had said yes to the plan before"
        work.ledger.set_stage(lease, StageState.WAITING, reason=why, at=work.now)
        text = f"Stage {stage.name}: {why}; nothing was sent. {self._how_to_ask(work)}"
        tell(work.campaign, Event.STAGE_HALTED, text, to=self.log)
        raise NotApproved(text)

    def _agreed(self, work: Work, stage: StagePlan) -> list[str]:
        """Who said yes to the plan that holds until now."""
        digest = plans.digest(work.plan)
        decided = [one.author for one in work.ledger.decisions(work.run_id) if (one.stage, one.plan) == (stage.name, digest)]
        votes = approval.from_records(work.ledger.journal(work.run_id))
        voted = [one.author for one in votes if one.stage == stage.name and one.choice is Choice.APPROVE]
        return list(dict.fromkeys(voted)) or decided

    def _how_to_ask(self, work: Work) -> str:
        """What a person does who wants it patched all the same."""
        last = questions(work.campaign.stage(self.stage), later=self.stage != work.campaign.stages[0].name)
        answered = [
            one.data["question"]
            for one in work.ledger.journal(work.run_id)
            if one.kind == approval.VOTE and one.data.get("stage") == self.stage and "question" in one.data
        ]
        number = max(answered, default=0) + 1
        if number > last:
            return "The gate has no question left: trigger another run."
        task = "approve" if number == 1 else f"approve_{number}"
        return f"Clear {self.stage}.{task} with what follows it: it asks about the stage as it is now. Or trigger another run."

    def _leave_out(self, work: Work, lease: Lease) -> None:
        """A host that came into the ledger under a plan whose approval is void, and that the plan of now excludes, is not
        patched."""
        out = {one.host: one.reason for one in work.plan.exclusions}
        moves = [
            Move(host=row.host, before=row.state, after=HostState.EXCEPTED, reason=out[row.host])
            for row in work.ledger.hosts(work.run_id, lease.stage)
            if row.state is HostState.PLANNED and row.host in out
        ]
        if moves:
            work.ledger.move_hosts(lease, moves, at=work.now)

    def _follow(self, work: Work, lease: Lease, decision: Wait | Halt | Done) -> dict[str, int]:
        match decision:
            case Wait():
                looked = self._executor.looked if self._executor is not None else {}
                self.say_wait(work, subject=self.stage, reason=decision.reason, ends=decision.ends, until=decision.until)
                commands = wait_for(
                    decision,
                    work.ledger.dispatches(work.run_id, lease.stage),
                    work.ledger.hosts(work.run_id, lease.stage),
                    looked,
                )
                self.defer(
                    trigger=CommandsTrigger(
                        commands=commands,
                        until=min(decision.until, work.now + _look_within(decision)).isoformat(),
                        aws_conn_id=self.aws_conn_id,
                        poll=self.poll,
                        patience=max(TOGETHER, WORTH_A_WORKER * clock.speed()),
                        run_id=work.run_id,
                        stage=self.stage,
                        holder=work.holder,
                        ledger_conn_id=self.ledger_conn_id,
                    ),
                    method_name="execute_complete",
                )
                raise AssertionError("defer does not return")
            case Halt():
                work.ledger.end_wait(work.run_id, self.stage, at=work.now)
                text = f"{decision.rule}: {decision.reason} ({', '.join(decision.hosts)}); {decision.advice}"
                why = explained(self.stage, decision.rule, decision.reason, decision.hosts, decision.advice)
                work.ledger.record(work.run_id, EXPLAINED, why, at=work.now)
                work.ledger.set_stage(lease, StageState.HALTED, reason=text, at=work.now)
                self._leave_link(work)
                tell(work.campaign, Event.STAGE_HALTED, f"stage {self.stage}: {text}", to=self.log)
                raise StageHalted(f"Stage {self.stage} is halted. {text}")
            case Done():
                self._lock(work)
                work.ledger.end_wait(work.run_id, self.stage, at=work.now)
                work.ledger.set_stage(lease, StageState.PATCHED, reason="each host is settled", at=work.now)
                self._leave_link(work)
                return {state.value: count for state, count in decision.classes.items()}

    def _leave_link(self, work: Work) -> None:
        sent = [row for row in work.ledger.dispatches(work.run_id, StageName(self.stage)) if row.command]
        if sent:
            work.context["ti"].xcom_push(key="console_url", value=console.command(sent[-1].cell.region, str(sent[-1].command)))

    def on_kill(self) -> None:
        """Airflow ends this process, for a person's sake or for its own; five seconds are left.

        If a person ended the task, its commands are cancelled here; if there is no time for it, the api-server does it, or
        whoever looks at the ledger next. In all other cases they go on, and are adopted by whoever resumes.
        """
        if self._executor is None:
            return
        executor = self._executor
        # A thread: this is a signal's handler, and what it interrupted may hold the ledger's lock.
        threading.Thread(target=_stop_if_wished, args=(executor,), name=f"stop {executor.lease.stage}").start()


def _stop_if_wished(executor: StageExecutor) -> None:
    stopper = stopping.Stopper(
        ledger=executor.ledger, gateway=lambda: executor.gateway, now=clock.now, log=executor.log, pause=time.sleep,
        speed=clock.speed(),
    )  # fmt: skip
    lease = executor.lease
    outcome = stopper.after_kill(lease.run, lease.stage, lease.holder, patience=LOOKS_WHEN_KILLED)
    executor.log.info("Stopped: %s", outcome or "what is in flight stands in the ledger and is adopted by whoever resumes")


def _invocation(told: Mapping[str, Any]) -> Invocation:
    """From what `triggers.watch` says of it."""
    ended = None if told["ended"] is None else datetime.fromisoformat(told["ended"])
    return Invocation(**{**told, "outcome": Outcome(told["outcome"]), "ended": ended})


def _look_within(wait: Wait) -> timedelta:
    """How long the stage is left alone at most: `EVERY` or `LOOK_WHILE_SHUT`."""
    busy = bool(wait.tokens) or wait.expected is not None
    return max(wait.look or (EVERY if busy else LOOK_WHILE_SHUT), LEAST_DEFERRAL * clock.speed())


class Patience:
    """Waits a short wait out; the count begins anew with each wait that says something else."""

    def __init__(self) -> None:
        self._reason = ""
        self._looks = 0

    def __call__(self, wait: Wait) -> bool:
        if wait.expected is None or wait.expected.total_seconds() / clock.speed() > NOT_WORTH_DEFERRING:
            return False
        self._looks = self._looks + 1 if wait.reason == self._reason else 1
        self._reason = wait.reason
        if self._looks > LOOKS:
            return False
        time.sleep(NOT_WORTH_DEFERRING / 4)
        return True
