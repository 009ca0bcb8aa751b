"""In which span may this stage act now, by its window, the campaign's freezes, change calendars and maintenance windows?

`Surroundings` asks when a leg begins and when it looks around. The opening is chosen once, when the stage begins or a halt is
cleared; what closes it is asked again and again, for people close calendars in a hurry. What cannot be asked holds the stage:
nothing is begun, nothing is given up, and it is asked again. Each change is recorded, so that the rule checker can judge by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from patchwave.aws.gateway import Gateway
from patchwave.campaign import forecast, windows
from patchwave.campaign.definition import Campaign, MaintenanceWindow
from patchwave.campaign.errors import Transient
from patchwave.campaign.plan import Plan, StagePlan
from patchwave.campaign.values import Cell
from patchwave.campaign.windows import Closure, Listing, Opening, Span, Window
from patchwave.execution.log import Log
from patchwave.ledger.store import Lease, Ledger

CHANGED = "window.changed"
"""Kind of the record of a span: stage, opens, closes, and why."""
KEPT = "window.kept"
"""Kind of the record of a maintenance window that was created or put back."""


def closures(
    gateway: Gateway, campaign: Campaign, stage: str, *, now: datetime, until: datetime | None = None
) -> tuple[Closure, ...]:
    """What closes a stage from now on: the freezes of the campaign file, and its change calendars as AWS has them."""
    freezes = campaign.closures(stage)
    if not campaign.calendars:
        return freezes
    return (*freezes, *gateway.calendar_closures(campaign.cells, campaign.calendars, now=now, until=until))


def listing(gateway: Gateway, cells: Sequence[Cell], window: Window | None, *, now: datetime) -> Listing | None:
    """The openings of a window that only Systems Manager knows; None for every other one."""
    if window is None or not window.maintenance_window:
        return None
    return gateway.window_openings(cells, window.maintenance_window, now=now)


def cells_of(stage: StagePlan, campaign: Campaign) -> tuple[Cell, ...]:
    """Where its maintenance window has to be."""
    return tuple(sorted({host.cell for host in stage.hosts})) or campaign.cells


def opening(gateway: Gateway, campaign: Campaign, plan: Plan, stage: StagePlan, *, now: datetime) -> Opening | None:
    """The opening that a stage would choose now; None: nothing has a say in it.

    Asks AWS, and changes nothing: for a plan's forecast, and for whoever asks whether a stage is open.
    """
    closed = closures(gateway, campaign, stage.name, now=now)
    if stage.window is None and not closed:
        return None
    listed = listing(gateway, cells_of(stage, campaign), stage.window, now=now)
    return windows.opening(stage.window, now, closures=closed, least=forecast.shortest(plan, stage), listed=listed)


def around(gateway: Gateway, campaign: Campaign, plan: Plan, *, now: datetime) -> tuple[tuple[Closure, ...], dict[str, Listing]]:
    """What `forecast.forecast` needs to know of a plan's stages: what closes them, and what only Systems Manager knows.

    Asks AWS, and changes nothing: a maintenance window that is declared and not there yet is created when its stage begins.
    """
    closed = tuple(freeze.closure for freeze in campaign.freezes)
    if campaign.calendars:
        closed += gateway.calendar_closures(campaign.cells, campaign.calendars, now=now)
    listings: dict[str, Listing] = {}
    for stage in plan.stages:
        listed = listing(gateway, cells_of(stage, campaign), stage.window, now=now)
        declared = _declared(campaign, stage)
        if listed is not None and listed.missing and declared is not None:
            why = f"maintenance window {declared.name} is created when the stage begins, and when it opens is known then"
            listed = Listing(because=why, missing=True)
        if listed is not None:
            listings[stage.name] = listed
    return closed, listings


def _declared(campaign: Campaign, stage: StagePlan) -> MaintenanceWindow | None:
    """The maintenance window that the campaign file declares for the stage; None: it declares none."""
    written = campaign.stage(stage.name).window
    named = written.maintenance_window if written else None
    return named if named is not None and named.is_declared else None


def is_open(gateway: Gateway, campaign: Campaign, plan: Plan, stage: StagePlan, *, now: datetime) -> bool:
    """Whether something may be begun on the stage's hosts at this moment."""
    found = opening(gateway, campaign, plan, stage, now=now)
    return found is None or (found.span is not None and now in found.span)


@dataclass(kw_only=True)
class Openings:
    """The span of one stage, for one leg of its task.

    Attributes:
        every: what cannot be asked holds the stage for so long, in the campaign's time.
    """

    ledger: Ledger
    gateway: Gateway
    lease: Lease
    campaign: Campaign
    plan: Plan
    stage: StagePlan
    log: Log
    every: timedelta

    @property
    def is_asked(self) -> bool:
        """Whether anything has a say in when the stage acts."""
        return self.stage.window is not None or bool(self.campaign.closures(self.stage.name) or self.campaign.calendars)

    def current(self, *, now: datetime, anew: bool = False, ask: bool = True) -> Span | None:
        """The span in which the stage may act; one that opens later is waited for. None: at any time.

        Args:
            anew: the stage begins, or a person cleared its halt: its opening is chosen anew.
            ask: False: what was found last holds, unless it was found to be unknown.

        Raises:
            NotOurs: the campaign declares a maintenance window, and another one has its name.
            InvalidRequest: AWS refuses what it declares.
            LeaseLost: another process has taken the stage over.
        """
        if not self.is_asked:
            return None
        last = None if anew else self._read(self._open_name)
        if last is not None and not ask and not last["held"]:
            return _span(last)
        span, held = self._asked(now, anew=anew)
        return self._keep(span, last, held=held, now=now)

    # --- asking -------------------------------------------------------------------------------------------------------
    def _asked(self, now: datetime, *, anew: bool) -> tuple[Span | None, bool]:
        """The span, and whether it is no more than a hold until somebody can be asked."""
        whole = None if anew else self._chosen()
        if whole is None:
            return self._choose(now)
        closed = closures(self.gateway, self.campaign, self.stage.name, now=now, until=whole.closes)
        listed = listing(self.gateway, cells_of(self.stage, self.campaign), self.stage.window, now=now)
        if listed is not None:
            if listed.because:
                return self._hold(now, (listed.because,), closes=whole.closes), True
            common = windows.common([whole], listed.spans)
            if not common and whole.closes > now:
                return self._choose(now)  # it was moved to another time
            whole = next(iter(common), whole)
        unknown = [one for one in closed if not one.known and one.begins <= now]
        if unknown:
            return self._hold(now, [one.told() for one in unknown], closes=whole.closes), True
        left = windows.remaining(whole, closed, now, least=forecast.shortest(self.plan, self.stage))
        why = "; ".join(one.told() for one in closed if one.begins < whole.closes and (one.ends is None or one.ends > now))
        return replace(left, because=why or whole.because), False

    def _choose(self, now: datetime) -> tuple[Span | None, bool]:
        try:
            self._keep_declared(now)
        except Transient as error:
            return self._hold(now, (f"the maintenance window that the campaign declares cannot be kept: {error}",)), True
        found = opening(self.gateway, self.campaign, self.plan, self.stage, now=now)
        if found is None:
            return None, False
        if found.span is None:
            return self._hold(now, found.because), True
        span = replace(found.span, because="; ".join(found.because))
        if found.whole is not None:
            # All of it: what cuts it may be taken back.
            content = {"opens": found.whole.opens.isoformat(), "closes": found.whole.closes.isoformat(),
                       "chosen": now.isoformat(), "because": span.because}  # fmt: skip
            self.ledger.check(self.lease)
            self.ledger.put_document(self.lease.run, self._chosen_name, content, at=now)
        return span, False

    def _hold(self, now: datetime, because: Sequence[str], *, closes: datetime | None = None) -> Span:
        """Nothing is begun until it is asked again."""
        until = now + self.every
        return Span(opens=until, closes=max(closes or now + windows.HORIZON, until), because="; ".join(because))

    def _keep_declared(self, now: datetime) -> None:
        """Create the maintenance window that the campaign file declares for the stage, or put back what is otherwise."""
        declared = _declared(self.campaign, self.stage)
        if declared is None:
            return
        for cell in cells_of(self.stage, self.campaign):
            kept = self.gateway.ensure_window(cell, declared, campaign=self.campaign.name, run=str(self.lease.run))
            if kept.created or kept.drift:
                what = "created" if kept.created else f"put back: {'; '.join(kept.drift)}"
                self.log.info("Maintenance window %s (%s) of %s: %s", declared.name, kept.id, cell, what)
                data = {"stage": self.stage.name, "cell": str(cell), "window": kept.id, "created": kept.created,
                        "drift": list(kept.drift)}  # fmt: skip
                self.ledger.record(self.lease.run, KEPT, data, at=now)

    # --- keeping ------------------------------------------------------------------------------------------------------
    @property
    def _chosen_name(self) -> str:
        return f"window:{self.stage.name}"

    @property
    def _open_name(self) -> str:
        return f"open:{self.stage.name}"

    def _chosen(self) -> Span | None:
        """The opening that was chosen; None: none, or a halt has ended since."""
        known = self._read(self._chosen_name) if self.stage.window is not None else None
        halted = self.ledger.stage(self.lease.run, self.lease.stage).halted_at
        if known is None or (halted is not None and halted >= datetime.fromisoformat(known["chosen"])):
            return None
        return _span(known)

    def _keep(self, span: Span | None, last: Any, *, held: bool, now: datetime) -> Span | None:
        """Store what was found where it is another than before."""
        if last is not None and last["held"] is held:
            before = _span(last)
            if held and last["because"] == (span.because if span else ""):
                return span
            if not held and _same(before, span, now):
                return before
        content = {
            "opens": span.opens.isoformat() if span else None,
            "closes": span.closes.isoformat() if span else None,
            "because": span.because if span else "",
            "held": held,
        }
        self.ledger.check(self.lease)
        # The record first: whoever is killed between the two leaves one too many, and none too few.
        self.ledger.record(self.lease.run, CHANGED, {"stage": self.stage.name, **content}, at=now)
        self.ledger.put_document(self.lease.run, self._open_name, content, at=now)
        if span is None:
            self.log.info("Nothing closes stage %s: it acts at any time", self.stage.name)
        else:
            why = f": {span.because}" if span.because else ""
            until = windows.shown(span.closes)
            self.log.info("Stage %s may act from %s to %s%s", self.stage.name, windows.shown(span.opens), until, why)
        return span

    def _read(self, name: str) -> Any:
        try:
            return self.ledger.document(self.lease.run, name)
        except KeyError:
            return None


def _span(content: Any) -> Span | None:
    if content["opens"] is None:
        return None
    opens, closes = (datetime.fromisoformat(content[name]) for name in ("opens", "closes"))
    return Span(opens=opens, closes=closes, because=content.get("because", ""))


def _same(before: Span | None, span: Span | None, now: datetime) -> bool:
    """Whether they mean the same from now on: what is open already may have opened whenever."""
    if before is None or span is None:
        return before is span
    return before.closes == span.closes and (before.opens == span.opens or max(before.opens, span.opens) <= now)
