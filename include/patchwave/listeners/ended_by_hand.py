"""A person marked a stage's task or the remediation's, or failed their run: the wish to stop goes into the ledger.

The plugin registers this module in every process of Airflow. Only the api-server calls it with `previous_state=None`, and
only for a person's action; workers and schedulers call it when tasks end by themselves, which is no wish. A clear calls
nothing: the next try knows by its own number that it was cleared.

The trigger or the worker of a stage's task is told to stop at about the same time and carries the wish out. If neither has
begun to after `OTHERS_FIRST` seconds (the triggerer is gone, or had not started the trigger of a task that was just deferred;
or the task is the remediation's), the api-server does it itself, with the credentials that it has. And if the api-server dies
meanwhile, each triggerer looks every `SWEEP_EVERY` seconds whether a wish is left that all of them should have carried out.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from airflow.listeners import hookimpl

log = logging.getLogger(__name__)

OPERATORS = frozenset({"PatchStageOperator", "PatchManagedServicesOperator", "RollBackOperator", "RemediateOperator"})
"""Of tasks that have something in flight; for a remediation the api-server is the only one that stops it at once."""
OTHERS_FIRST = 8.0
"""Real seconds; a trigger or a worker has begun after one to four, and a stop is promised within thirty."""
AGAIN = (0.0, 25.0, 15.0, 30.0)
"""Real seconds before each of the tries to do it from here; whoever has begun takes twenty, and is left alone so long."""
SWEEP_EVERY = 30.0
LEFT = timedelta(seconds=90)
"""Real time after which a wish is nobody's: the last of `AGAIN` is over."""


@hookimpl  # type: ignore[untyped-decorator]
def on_starting(component: Any) -> None:
    """A triggerer starts; its jobs do not say what they are yet, so its command does."""
    if "triggerer" in sys.argv[1:2]:
        threading.Thread(target=_sweep_for_ever, name="stop what is left", daemon=True).start()


@hookimpl  # type: ignore[untyped-decorator]
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:
    """Marked failed, alone or with its run."""
    _noticed(previous_state, task_instance, "marked failed")


@hookimpl  # type: ignore[untyped-decorator]
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """Marked success, alone or with its run."""
    _noticed(previous_state, task_instance, "marked success")


@hookimpl  # type: ignore[untyped-decorator]
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    """Marked skipped."""
    _noticed(previous_state, task_instance, "marked skipped")


def _noticed(previous_state: Any, task_instance: Any, how: str) -> None:
    if previous_state is not None or getattr(task_instance, "operator", None) not in OPERATORS:
        return
    # Read now: the object belongs to a session that ends with the request.
    wish = Ended(
        run=f"{task_instance.dag_id}/{task_instance.run_id}",
        stage=str(task_instance.task_id).removesuffix(".patch").removesuffix(".managed_services").removesuffix(".roll_back"),
        task_instance=str(task_instance.id),
        most=int(task_instance.max_tries),
        how=how,
    )
    threading.Thread(target=wish.carry_on, name=f"stop {wish.run} {wish.stage}", daemon=True).start()


def _sweep_for_ever() -> None:
    while True:
        time.sleep(SWEEP_EVERY)  # first: the triggerer forks, and a thread in the middle of its work is nothing to be forked
        try:
            sweep_what_is_left()
        except Exception:  # a thread of the triggerer: there is nobody above
            log.exception("Looking for stages that a person ended failed; looking again")


def sweep_what_is_left() -> None:
    """Carry out wishes that whoever should have done it has not."""
    from patchwave.hooks import clock
    from patchwave.hooks.ledger import ledger

    now = clock.now()
    left = [wish.holder for wish in ledger().stop_wishes(open_only=True) if now - wish.at >= LEFT * clock.speed()]
    if left:
        log.warning("Stages that a person ended were not stopped: %s", ", ".join(left))
        _sweep(left)


def _sweep(holders: Iterable[str]) -> None:
    from patchwave.execution.stopping import Stopper
    from patchwave.hooks import clock
    from patchwave.hooks.aws import PatchwaveAwsHook
    from patchwave.hooks.ledger import ledger

    stopper = Stopper(
        ledger=ledger(), gateway=PatchwaveAwsHook().gateway, now=clock.now, log=log, pause=time.sleep, speed=clock.speed()
    )
    stopper.sweep(only=list(holders))


class Ended:
    """A stage's task that a person ended."""

    def __init__(self, *, run: str, stage: str, task_instance: str, most: int, how: str) -> None:
        self.run, self.stage, self.task_instance, self.most, self.how = run, stage, task_instance, most, how

    def carry_on(self) -> None:
        """Write the wish, leave the others time, and do what they did not; nothing of it disturbs the api-server."""
        try:
            self.note()
            time.sleep(OTHERS_FIRST)
            for number, pause in enumerate(AGAIN):
                time.sleep(pause)
                if (number > 0 or not self.begun()) and self.stop():
                    return
        except Exception:  # a thread of the api-server: there is nobody above
            log.exception("Stage %s of run %s was %s; it could not be stopped from here", self.stage, self.run, self.how)

    @property
    def holder(self) -> str:
        """The try as the ledger knows it."""
        from patchwave.execution.stopping import Try

        return str(Try(task_instance=self.task_instance, most=self.most))

    def note(self) -> None:
        """Write the wish."""
        from patchwave.campaign.values import RunId, StageName
        from patchwave.hooks import clock
        from patchwave.hooks.ledger import ledger

        reason = f"the task was {self.how} by hand"
        ledger().wish_stop(RunId(self.run), StageName(self.stage), self.holder, at=clock.now(), reason=reason)

    def begun(self) -> bool:
        """Whether somebody else is at it: two that stop at once know less of which hosts had begun."""
        from patchwave.campaign.values import RunId, StageName
        from patchwave.execution.stopping import STOPPER
        from patchwave.hooks.ledger import ledger

        try:
            holder = ledger().stage(RunId(self.run), StageName(self.stage)).holder
        except KeyError:
            return False
        return holder == STOPPER + self.holder

    def stop(self) -> bool:
        """Carry it out if it is still open; whether nothing is left to do."""
        from patchwave.hooks.ledger import ledger

        _sweep([self.holder])
        return all(wish.holder != self.holder for wish in ledger().stop_wishes(open_only=True))
