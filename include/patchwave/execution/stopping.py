"""A person ended a stage's task, or the remediation: how is what is in flight stopped, and by whom?

Marking the task failed or success, or failing the run, leaves a wish in the ledger (the listener in the api-server writes
it: it is only called for a person's action). Whoever notices first carries it out: the trigger that is told to stop, the
worker's process that is, the api-server when neither did, or a triggerer that sweeps (`listeners.ended_by_hand`). All of them
may: the lease says who does. A cleared task needs no wish: its next try knows by its own number that it was cleared, and stops
first.

Nothing here trusts `on_kill` by itself: Airflow calls it when nobody acted, too (reference: triggers, on_kill).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from patchwave.aws.gateway import Gateway
from patchwave.campaign import plan as plans
from patchwave.campaign.errors import LeaseLost, PatchwaveError, Permanent
from patchwave.campaign.rollout import StageRules
from patchwave.campaign.values import RunId, StageName
from patchwave.execution import managed_services, remedies
from patchwave.execution.executor import SETTLING, STOPPED, StageExecutor, Stopped
from patchwave.execution.log import Log
from patchwave.ledger import approved
from patchwave.ledger.changes import EXPLAINED, explained
from patchwave.ledger.store import Ledger, StageRow, StageState, StopWish

LOOKS = 10
BETWEEN = 2.0
"""Real seconds between two looks at commands that are being cancelled: twenty in all, so that a kill is over within thirty."""
PATIENCE = 10
"""How often, `BETWEEN` apart, a trigger that was told to stop looks whether a person did it."""
STOPPER = "stop of "
CLEARED = "the task was cleared"
GO_ON = "clear the task to go on with the hosts that are not settled"

_ENDED = frozenset({"failed", "success", "skipped", "removed", "upstream_failed"})
"""Airflow's states of a task that ended; a deferred task whose trigger merely moved is still deferred."""


class StillHalted(Permanent):
    """A stage was begun again that is halted, and no person had wanted that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Try:
    """A try of a task, as it names itself when it takes a lease.

    Attributes:
        task_instance: its id: the same over all deferrals of a try, new with each retry, reset and clear.
        most: how many tries the task may have: it grows with a clear, and with nothing else.
    """

    task_instance: str
    most: int

    def __str__(self) -> str:
        return f"{self.task_instance}#{self.most}"

    @classmethod
    def parse(cls, holder: str) -> Try | None:
        """From a holder of a lease; None for one that is no try (somebody who stops it)."""
        name, sign, most = holder.partition("#")
        return cls(task_instance=name, most=int(most)) if sign and most.lstrip("-").isdigit() else None


def was_cleared(before: str | None, now: str) -> bool:
    """Whether a person cleared the task between the try that held the lease before and this one."""
    earlier = Try.parse((before or "").removeprefix(STOPPER))
    this = Try.parse(now)
    return earlier is not None and this is not None and earlier.task_instance != this.task_instance and this.most > earlier.most


def refuse_unless_cleared(before: StageRow, holder: str) -> None:
    """Nothing, unless the stage is halted and nobody has cleared the task since.

    A halt is a person's to end. Airflow begins tasks again by itself, too: when the end of a try was lost, and an orphan may
    come to its beginning after the stage was stopped under its successor.

    Raises:
        StillHalted: only a clear opens it again.
    """
    known = Try.parse((before.holder or "").removeprefix(STOPPER)) is not None and Try.parse(holder) is not None
    if before.state is StageState.HALTED and known and not was_cleared(before.holder, holder):
        raise StillHalted(f"Stage {before.stage} is halted, and nobody has cleared its task since. {before.reason}")


def rules_of(ledger: Ledger, run: RunId, stage: StageName) -> tuple[StageRules, str]:
    """The stage's rules and the campaign's name, from the plan in force: a gate may have let other hosts in.

    Raises:
        KeyError: the run has no plan, or the plan does not touch the stage: then nothing was sent, either.
    """
    plan = approved.in_force(ledger, run, stage=stage)
    return plans.rules(plan, plan.stage(stage)), plan.campaign


def as_data(stage: StageName, reason: str, stopped: Stopped) -> dict[str, Any]:
    """A stop for the journal: which hosts had begun, which had not, and of which AWS did not say."""
    return {
        "stage": stage,
        "reason": reason,
        "commands": list(stopped.commands),
        "begun": list(stopped.begun),
        "not_begun": list(stopped.not_begun),
        "unknown": list(stopped.unknown),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopper:
    """A process that may carry wishes out: a worker, a triggerer or the api-server.

    Attributes:
        gateway: makes one; asked only when there is something to stop.
        pause: lets real seconds pass.
        speed: campaign seconds in a real one.
    """

    ledger: Ledger
    gateway: Callable[[], Gateway]
    now: Callable[[], datetime]
    log: Log
    pause: Callable[[float], None]
    speed: float = 1.0

    def carry_out(self, wish: StopWish) -> str:
        """Do what a wish asks for, and write what became of it; safe to be called by several at once.

        Returns:
            What became of it, in one sentence; empty if somebody else has taken the stage meanwhile: the wish stays open, for
            whoever looks at it next.

        Raises:
            PatchwaveError: AWS or the ledger did not answer; the wish stays open.
        """
        if wish.stage == remedies.TASK:
            return self._ended(wish, self._stop_remedies(wish))
        try:
            row = self.ledger.stage(wish.run, wish.stage)
        except KeyError:
            return self._ended(wish, "the ledger knows no such stage: nothing was sent")
        if (row.holder or "").removeprefix(STOPPER) != wish.holder:
            return self._ended(wish, "another try has the stage since, which goes on from what the ledger says")
        if row.state is not StageState.PATCHING:
            return self._ended(wish, f"nothing was in flight: the stage was {row.state.value}")
        try:
            return self._ended(wish, self._stop_stage(wish, seen=row.fencing))
        except LeaseLost:
            self.log.info("Somebody else has stage %s since", wish.stage)
            return ""

    def _stop_stage(self, wish: StopWish, *, seen: int) -> str:
        rules, campaign = rules_of(self.ledger, wish.run, wish.stage)
        lease = self.ledger.acquire(wish.run, wish.stage, STOPPER + wish.holder, at=self.now(), seen=seen)
        executor = StageExecutor(
            ledger=self.ledger,
            gateway=self.gateway(),
            lease=lease,
            rules=rules,
            campaign=campaign,
            now=self.now,
            log=self.log,
            settling=SETTLING * self.speed,
        )
        stopped = executor.stop(looks=LOOKS, pause=self._pause)
        goes_on = managed_services.stop(self.ledger, lease, now=self.now())
        said = f"{stopped}; {goes_on}" if goes_on else str(stopped)
        self.ledger.record(wish.run, STOPPED, as_data(wish.stage, wish.reason, stopped), at=self.now())
        why = explained(wish.stage, "kill means stop", f"{wish.reason}; {said}", (*stopped.begun, *stopped.unknown), GO_ON)
        self.ledger.record(wish.run, EXPLAINED, why, at=self.now())
        text = f"{wish.reason}; {said}; {GO_ON}"
        self.ledger.set_stage(lease, StageState.HALTED, reason=text, at=self.now())
        self.ledger.end_wait(wish.run, wish.stage, at=self.now())
        return said

    def _stop_remedies(self, wish: StopWish) -> str:
        return remedies.stop(
            self.ledger, self.gateway(), wish.run, wish.holder, reason=wish.reason, now=self.now, log=self.log, looks=LOOKS,
            pause=self._pause,
        )  # fmt: skip

    def _pause(self) -> None:
        self.pause(BETWEEN)

    def _ended(self, wish: StopWish, outcome: str) -> str:
        self.ledger.end_stop_wish(wish.run, wish.stage, wish.holder, outcome=outcome, at=self.now())
        return outcome

    def sweep(self, *, only: Collection[str] | None = None) -> list[str]:
        """Carry out every open wish, or those of the holders named; one that fails stays open and keeps no other from its turn.

        Returns:
            What became of each.
        """
        outcomes = []
        for wish in self.ledger.stop_wishes(open_only=True):
            if only is not None and wish.holder not in only:
                continue
            try:
                outcomes.append(self.carry_out(wish))
            except PatchwaveError as error:
                self.log.info("Stage %s of run %s cannot be stopped yet: %s", wish.stage, wish.run, error)
        return [outcome for outcome in outcomes if outcome]

    def after_kill(
        self,
        run: RunId,
        stage: StageName,
        holder: str,
        *,
        task_state: Callable[[], str | None] | None = None,
        patience: int = PATIENCE,
    ) -> str:
        """This process of the try `holder` was told to stop: find out whether a person did it, and if so carry it out.

        A person's mark leaves a wish of this holder within moments. A clear brings a new try, which takes the lease and stops
        by itself. When neither comes, Airflow is asked; where it does not say, nothing is stopped, for nobody is known to have
        wished it.

        Args:
            task_state: asks Airflow for the task's state; None where that is not possible.
            patience: how often the wish is looked for, `BETWEEN` real seconds apart.

        Returns:
            What was done, in one sentence; empty if nothing.
        """
        try:
            for look in range(patience):
                wish = next((one for one in self.ledger.stop_wishes(run, open_only=True) if one.holder == holder), None)
                if wish is not None:
                    return self.carry_out(wish)
                if self.ledger.stage(run, stage).holder != holder:
                    return ""
                if look + 1 < patience:
                    self._pause()
            state = task_state() if task_state is not None else None
            if state is None or state not in _ENDED:
                self.log.info("Told to stop, but nobody ended the task (%s): its commands go on", state or "state unknown")
                return ""
            self.ledger.wish_stop(run, stage, holder, at=self.now(), reason=f"the task was ended by hand ({state})")
            return "".join(self.sweep(only=[holder]))
        except PatchwaveError as error:
            self.log.info("Stage %s could not be stopped by this process: %s", stage, error)
            return ""
