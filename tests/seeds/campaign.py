"""A campaign played to its end in virtual time, by processes that may be killed, stalled and overtaken at any call.

It does what Airflow and `PatchStageOperator` do around a `StageExecutor` (take the lease, begin the stage, wait, retry, be
cleared by a person), keeps every process in a greenlet of its own, and judges nothing: `judge` does, with the rule checker.

Two limits stand for what no design can do without a client token of `SendCommand`: a process is stalled for at most
`LONGEST_CALL` between its last check and the end of that call, and clocks are at most `SKEW` apart; both together stay below
`executor.SETTLING`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from random import Random
from typing import Any

from greenlet import greenlet

from patchwave.campaign import audit
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.audit import Broken, RunTrace
from patchwave.campaign.errors import LedgerUnavailable, Permanent, Transient
from patchwave.campaign.plan import Plan, StagePlan
from patchwave.campaign.rollout import DispatchRow, DispatchState, Done, Halt, HostState, Invocation, Wait
from patchwave.campaign.values import RunId, StageName
from patchwave.execution.executor import StageExecutor
from patchwave.execution.stopping import Stopper, Try, refuse_unless_cleared
from patchwave.execution.surroundings import Surroundings
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import Run, StageState, WaitRow
from tests.domain import builders
from tests.seeds.world import ACCOUNT, SeededGateway, World, moment

NAME = "seeded"
RUN = RunId(f"{NAME}/run")
MOST_LEGS = 3000
LONGEST_CALL = 15.0
"""Seconds; with our time limits a SendCommand takes no longer, however it ends."""
SKEW = 5.0

WINDOWS = [
    "",
    "",
    "",
    *(
        f"""
    window: {{cron: "0 {opens} * * *", timezone: UTC, duration: {duration}}}"""
        for opens, duration in ((7, "3h"), (8, "90m"), (9, "1h"), (22, "4h"))
    ),
]

FREEZES = [
    "",
    "",
    "",
    *(
        f"""
freezes: [{{from: 2026-01-05T{begins}Z, to: 2026-01-05T{ends}Z, reason: launch{stages}}}]"""
        for begins, ends in (("07:00", "08:30"), ("08:05", "08:40"), ("08:20", "12:00"), ("09:10", "23:00"))
        for stages in ("", ", stages: [{first}]")
    ),
]

WRITES = frozenset(
    {
        "acquire",
        "set_stage",
        "add_hosts",
        "move_hosts",
        "intend",
        "mark_dispatch",
        "wait",
        "end_wait",
        "record",
        "check",
        "put_document",
        "note_look",
    }
)
CRITICAL = frozenset({("after", "check"), ("before", "ssm:SendCommand")})


class Killed(BaseException):
    """The process is gone: no handler of the code under test may see it."""


class NoEnd(Exception):
    """The campaign goes on for ever."""


@dataclass(eq=False, kw_only=True)
class Process:
    """One try of a stage's task.

    Attributes:
        skew: its clock against AWS's, seconds.
        cleared: a person cleared the task while its last try had commands in flight: those are stopped first.
        official: whether Airflow still knows it; an orphan is one that it has given up.
        wakes_at: stalled until then.
    """

    holder: str
    stage: StagePlan
    skew: float
    body: Any = None
    official: bool = True
    cleared: bool = False
    wakes_at: float = 0.0
    at: tuple[str, str] = ("", "")
    over: bool = False
    result: Any = None


@dataclass
class Counts:
    """What was done to the processes."""

    kills: int = 0
    orphans: int = 0
    stalls: int = 0
    legs: int = 0
    clears: int = 0
    stops: int = 0


class WatchedLedger:
    """The ledger as one process sees it: each write is a moment at which the process, or the ledger, may be gone."""

    def __init__(self, campaign: SeededCampaign, process: Process) -> None:
        self._campaign, self._process = campaign, process

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._campaign.ledger, name)
        if not callable(found):
            return found
        writes = name in WRITES

        def call(*args: Any, **kwargs: Any) -> Any:
            if writes:
                self._campaign.point(self._process, "before", name)
            self._campaign.ledger_answers()
            answer = found(*args, **kwargs)
            if writes:
                self._campaign.ledger_loses_the_answer(name)
                self._campaign.point(self._process, "after", name)
            return answer

        return call


@dataclass
class SeededCampaign:
    """One seed.

    Attributes:
        calm: no faults and no kills, for a run that has to be good.
        fleets: the world file's, instead of drawn ones.
        stages: of the campaign file, instead of drawn ones.
        tell: where the story goes, one line at a time.
    """

    seed: int
    calm: bool = False
    tell: Callable[[str], None] = lambda _: None
    counts: Counts = field(default_factory=Counts)
    fleets: list[dict[str, Any]] | None = None
    stages: str = ""
    ledger: Any = field(default_factory=MemoryLedger)

    def __post_init__(self) -> None:
        self.chance = Random(f"campaign/{self.seed}")
        self.world = World(self.chance, seed=self.seed, calm=self.calm, fleets=self.fleets)
        self.processes: list[Process] = []
        self._tries = 0
        self._most = 60
        rough = 0.0 if self.calm else self.chance.choice([0.0, 0.0, 0.01, 0.03, 0.08])
        self.kills, self.overtakes, self.stalls = (
            rough,
            rough * self.chance.choice([0, 1, 1]),
            rough * self.chance.choice([0, 1, 1]),
        )
        self.most_interrupts = 60
        self.ledger_away: list[tuple[float, float]] = []
        self.lossy_ledger = 0.0
        if not self.calm and self.chance.random() < 0.25:
            began = self.world.now + self.chance.uniform(0, 2400)
            self.ledger_away.append((began, began + self.chance.uniform(5, 300)))
            self.lossy_ledger = self.chance.choice([0.0, 0.02])
        self.faults = len(self.world.told) + len(self.ledger_away)
        self.main = greenlet.getcurrent()
        self.plan = self._plan()

    @property
    def rough(self) -> bool:
        """Whether anything went wrong on purpose."""
        return bool(self.faults or self.counts.kills or self.counts.orphans or self.counts.stalls or self.world.faulted)

    # --- the plan -------------------------------------------------------------------------------------------------------
    def _plan(self) -> Plan:
        chance = self.chance
        stages = self.stages or "".join(
            f"""
  - name: {name}
    select: {{patch_groups: [linux-{name}]}}
    concurrency: {chance.choice(["10%", "25%", "50%", "100%", "1", "2", "3"])}
    error_budget: {chance.choice([0, 1, 2, 9])}
    soak: {chance.choice(["1m", "30m", "2h"])}{chance.choice(WINDOWS)}
    approval: {{required: {str(chance.random() < 0.5).lower()}, approvers: [olga]}}"""
            for name in self.world.stages
        )
        # Drawn by itself: the campaigns of the seeds that are known stay what they are but for this.
        freeze = "" if self.calm else Random(f"freeze/{self.seed}").choice(FREEZES).replace("{first}", self.world.stages[0])
        regions = ", ".join(sorted({cell.region for cell in self.world.cells}))
        campaign = self.definition = builders.a_campaign(f"""
name: {NAME}
description: Drawn from a seed
owner: nobody
scope:
  cells: [{{account: "{ACCOUNT}", regions: [{regions}]}}]
policy: standard{freeze}
stages:{stages}
""")
        gateway = SeededGateway(self.world, lambda *_: None, lambda _: None)
        hosts = [host for cell in self.world.cells for host in _patiently(gateway, cell)]
        restriction = plans.Restriction()
        if len(self.world.stages) > 1 and chance.random() < 0.1:
            restriction = plans.Restriction(stages=tuple(self.world.stages[:-1]))
        plan = builders.a_plan(
            hosts, _triage(), campaign=campaign, run=RUN, now=self._now(), restriction=restriction, reboot=chance.random() > 0.1
        )
        self.ledger.open_run(
            Run(
                id=RUN, campaign=NAME, dag_id=NAME, dag_run_id="run", began_at=self._now(), definition={},
                definition_digest="d" * 64, policy={}, params={},
            ),
            [StageName(name) for name in self.world.stages],
        )  # fmt: skip
        self.ledger.put_document(RUN, "plan", plans.to_json(plan), at=self._now())
        return plan

    # --- time -----------------------------------------------------------------------------------------------------------
    def _now(self, process: Process | None = None) -> datetime:
        return moment(self.world.now + (process.skew if process else 0.0))

    def _pass(self, seconds: float) -> None:
        for what in self.world.pass_time(seconds):
            self.say(what)

    def say(self, text: str, process: Process | None = None) -> None:
        """A line of the story."""
        self.tell(f"{self._now():%H:%M:%S} {process.holder + ': ' if process else ''}{text}")

    # --- what a process goes through ------------------------------------------------------------------------------------
    def point(self, process: Process, when: str, what: str) -> None:
        """A moment at which others may have their turn, or after which there is no process any more."""
        process.at = (when, what)
        if greenlet.getcurrent() is not self.main:
            self.main.switch()

    def ledger_answers(self) -> None:
        """Raises if it is away now."""
        if any(began <= self.world.now < ended for began, ended in self.ledger_away):
            self._pass(1.0)
            raise LedgerUnavailable("the ledger does not answer")

    def ledger_loses_the_answer(self, name: str) -> None:
        """The transaction is in, and the process does not learn it."""
        if self.lossy_ledger and self.chance.random() < self.lossy_ledger:
            self.say(f"the ledger's answer to {name} is lost")
            raise LedgerUnavailable(f"the ledger's answer to {name} was lost")

    def _begin(
        self,
        stage: StagePlan,
        holder: str | None = None,
        skew: float | None = None,
        work: Callable[[Process], Any] | None = None,
    ) -> Process:
        self._tries += holder is None
        process = Process(
            holder=holder or str(Try(task_instance=f"try-{self._tries}", most=self._most)),
            stage=stage,
            skew=skew if skew is not None else (0.0 if self.calm else self.chance.uniform(-SKEW, SKEW)),
        )

        def body() -> None:
            try:
                process.result = (work or self._leg)(process)
            except Killed as killed:
                process.result = killed
            except (Transient, Permanent) as error:
                process.result = error
            process.over = True

        process.body = greenlet(body)
        self.processes.append(process)
        self.counts.legs += 1
        if self.counts.legs > MOST_LEGS:
            raise NoEnd(f"no end after {MOST_LEGS} legs, {self.world.now - 1_767_600_000.0:.0f} s")
        return process

    def _leg(self, process: Process) -> Wait | Halt | Done:
        """What `PatchStageOperator.work` does."""
        ledger: Any = WatchedLedger(self, process)
        stage, name = process.stage, process.stage.name

        def now() -> datetime:
            return self._now(process)

        before = ledger.stage(RUN, name)
        if before.state is StageState.PATCHED:
            return Done(classes=Counter(row.state for row in ledger.hosts(RUN, name)))
        gateway = SeededGateway(self.world, lambda when, what: self.point(process, when, what), self._pass)
        told, looked = self._read_by_a_trigger(ledger.dispatches(RUN, name), gateway, now)
        refuse_unless_cleared(before, process.holder)
        lease = ledger.acquire(RUN, name, process.holder, at=now(), seen=before.fencing)
        if before.state is not StageState.PATCHING:
            ledger.set_stage(lease, StageState.PATCHING, reason="", at=now())
        ledger.add_hosts(lease, plans.rows(self.plan, stage, now=now()))
        executor = StageExecutor(
            ledger=ledger,
            gateway=gateway,
            lease=lease,
            rules=plans.rules(self.plan, stage),
            campaign=NAME,
            now=now,
            log=_Log(self, process),
            errors_since=before.halted_at,
            told=told,
            looked=looked,
            surroundings=Surroundings(
                ledger=ledger,
                gateway=gateway,
                lease=lease,
                campaign=self.definition,
                plan=self.plan,
                stage=stage,
                now=now,
                log=_Log(self, process),
                anew=before.state is not StageState.PATCHING,
            ),
        )
        if process.cleared:
            self.say(f"what the last try had in flight is stopped: {executor.stop(looks=1, pause=lambda: None)}", process)
            process.cleared = False
        decision = executor.advance()
        match decision:
            case Wait():
                ledger.wait(
                    WaitRow(run=RUN, subject=name, reason=decision.reason, ends=decision.ends, since=now(), until=decision.until)
                )
            case Halt():
                ledger.end_wait(RUN, name, at=now())
                ledger.set_stage(lease, StageState.HALTED, reason=f"{decision.rule}: {decision.reason}", at=now())
            case Done():
                ledger.end_wait(RUN, name, at=now())
                ledger.set_stage(lease, StageState.PATCHED, reason="each host is settled", at=now())
        return decision

    def _read_by_a_trigger(
        self, dispatches: Sequence[DispatchRow], gateway: Any, now: Callable[[], datetime]
    ) -> tuple[dict[str, Sequence[Invocation]], dict[str, datetime]]:
        """What the trigger before this leg hands on, which may be some time ago: how one command went, and that others were
        looked at and had nothing new to tell."""
        if self.chance.random() < 0.5:
            return {}, {}
        sent = [row for row in dispatches if row.state is DispatchState.SENT and row.command]
        self.chance.shuffle(sent)
        told = {str(row.command): gateway.invocations(row.cell, row.command, row.token) for row in sent[:1]}
        return told, {str(row.command): now() for row in sent[1:] if self.chance.random() < 0.7}

    def _sweep(self, process: Process) -> str:
        """What the api-server or a triggerer does with a person's wish to stop."""
        gateway = SeededGateway(self.world, lambda when, what: self.point(process, when, what), self._pass)
        ledger: Any = WatchedLedger(self, process)

        def now() -> datetime:
            return self._now(process)

        stopper = Stopper(ledger=ledger, gateway=lambda: gateway, now=now, log=_Log(self, process), pause=self._pass)
        return "; ".join(stopper.sweep())

    # --- what Airflow and people do -------------------------------------------------------------------------------------
    def play(self) -> None:
        """To the end.

        Raises:
            NoEnd: there is none.
        """
        for what in self.world.told:
            self.say(what)
        for stage in self.plan.stages:
            if stage.approval_required:
                self._pass(self.chance.uniform(10, 300))
                self.ledger.record_decision(
                    Decision(
                        run=RUN, stage=stage.name, plan=plans.digest(self.plan), verdict=Verdict.APPROVED, author="olga",
                        at=self._now(),
                    )
                )  # fmt: skip
            if not self._stage(stage):
                self.say(f"stage {stage.name} stays halted; the run ends")
                break
            self._pass(stage.soak.total_seconds() + 1 + 2 * SKEW)
        while self.processes:
            self._turn()

    def _stage(self, stage: StagePlan) -> bool:
        """Whether it is patched in the end."""
        process = self._begin(stage)
        pause, said = 30.0, ""
        halts: list[str] = []
        while True:
            result = self._until_over(process)
            match result:
                case Done():
                    self.say(f"stage {stage.name} is patched: {_told(result)}", process)
                    return True
                case Halt():
                    self.say(f"halted: {result.rule}: {result.reason}", process)
                    if halts.count(result.reason) >= 2 or self.chance.random() < 0.1:
                        return False
                    halts.append(result.reason)
                    self.counts.clears += 1
                    self._pass(self.chance.uniform(60, 1800))
                    self._cleared_by_a_person()
                    process = self._begin(stage)
                case Wait():
                    pause, said = (min(600.0, pause * 2), said) if result.reason == said else (20.0, result.reason)
                    self.say(f"waits: {result.reason}", process)
                    left = (result.until - self._now(process)).total_seconds()
                    self._others_go_on_for(max(1.0, min(pause, left) if result.tokens else left))
                    if self.kills and self.chance.random() < 0.01:
                        process = self._stopped_by_hand(stage, process)
                    elif self.kills and self.chance.random() < 0.01:
                        self._cleared_by_a_person("while it waits")
                        self.counts.clears += 1
                        process = self._begin(stage)
                        process.cleared = True
                    else:
                        process = self._begin(stage, process.holder, process.skew)
                case Killed():
                    self._others_go_on_for(self.chance.choice([5.0, 30.0, 200.0, 1500.0]))
                    process = self._begin(stage)
                case Permanent():
                    self.say(f"failed: {result}", process)
                    self._others_go_on_for(self.chance.uniform(60, 1800))
                    self._cleared_by_a_person()
                    process = self._begin(stage)
                case _:
                    self.say(f"failed, will be retried: {type(result).__name__}: {result}", process)
                    self._others_go_on_for(self.chance.uniform(20, 120))
                    process = self._begin(stage)

    def _stopped_by_hand(self, stage: StagePlan, process: Process) -> Process:
        """A person marks the task failed while it waits, and clears it later on; the try that goes on then."""
        self.say("a person marks the task failed", process)
        self.counts.stops += 1
        reason = "the task was marked failed"
        self.ledger.wish_stop(RUN, stage.name, process.holder, at=self._now(), reason=reason)
        while self.ledger.stop_wishes(open_only=True):
            sweeper = self._begin(stage, work=self._sweep)
            said = self._until_over(sweeper)
            self.say(f"stopping it: {said}", sweeper)
            self._others_go_on_for(60.0)
        self._others_go_on_for(self.chance.uniform(30, 900))
        self._cleared_by_a_person()
        return self._begin(stage)

    def _cleared_by_a_person(self, when: str = "") -> None:
        """Airflow allows the task more tries then, and only then."""
        self._most += 1
        self.say(f"a person clears the task {when}".rstrip())

    def _until_over(self, process: Process) -> Any:
        """Until the official process is over, or its successor is."""
        while not process.over and process.official:
            self._turn()
        if not process.official and not process.over:  # overtaken: Airflow begins the next try beside it
            return Killed()
        return process.result

    def _others_go_on_for(self, seconds: float) -> None:
        """Time passes; orphans may use it."""
        end = self.world.now + seconds
        while self.world.now < end:
            awake = [one for one in self.processes if one.wakes_at <= self.world.now]
            if awake:
                self._turn()
                continue
            until = min([end, *(one.wakes_at for one in self.processes)])
            self._pass(max(0.001, until - self.world.now))

    def _turn(self) -> None:
        """One process goes on to its next point."""
        awake = [one for one in self.processes if one.wakes_at <= self.world.now]
        if not awake:
            self._pass(max(0.001, min(one.wakes_at for one in self.processes) - self.world.now))
            return
        critical = [one for one in awake if one.at in CRITICAL]
        process = self.chance.choice(critical or awake)
        process.body.switch()
        if process.over:
            self.processes.remove(process)
        else:
            self._interrupt(process)

    def _interrupt(self, process: Process) -> None:
        if not self.kills or self.counts.kills + self.counts.orphans + self.counts.stalls > self.most_interrupts:
            return
        draw = self.chance.random()
        if draw < self.kills:
            self.say(f"killed {' '.join(process.at)}", process)
            self.counts.kills += 1
            process.body.throw(Killed())
            self.processes.remove(process)
        elif draw < self.kills + self.overtakes and process.official:
            self.say(f"given up by Airflow {' '.join(process.at)}, goes on as an orphan", process)
            self.counts.orphans += 1
            process.official = False
            self._stall(process)
        elif draw < self.kills + self.overtakes + self.stalls:
            self.counts.stalls += 1
            self._stall(process)

    def _stall(self, process: Process) -> None:
        longest = LONGEST_CALL if process.at in CRITICAL else self.chance.choice([10.0, 60.0, 900.0])
        seconds = self.chance.uniform(0, longest)
        self.say(f"stalled for {seconds:.0f} s {' '.join(process.at)}", process)
        process.wakes_at = self.world.now + seconds

    def counted(self) -> Counter[str]:
        """What was done, for the sum over all seeds."""
        return Counter({
            "hosts": len(self.plan.hosts), "stages": len(self.plan.stages), "commands": len(self.ledger.dispatches(RUN)),
            "faults": self.faults, "kills": self.counts.kills, "orphans": self.counts.orphans, "stalls": self.counts.stalls,
            "stops by hand": self.counts.stops, "clears": self.counts.clears, "legs": self.counts.legs,
        })  # fmt: skip

    # --- the verdict ----------------------------------------------------------------------------------------------------
    def trace(self) -> RunTrace:
        """What the rule checker is asked about."""
        return RunTrace(
            run=RUN,
            campaign=NAME,
            plan=self.plan,
            stages=self.ledger.stages(RUN),
            hosts=self.ledger.hosts(RUN),
            dispatches=self.ledger.dispatches(RUN),
            decisions=self.ledger.decisions(RUN),
            records=self.ledger.journal(RUN),
            lines=self.world.journal(),
            waits=(),
            apart=timedelta(seconds=60),
            closures=tuple(one.closure for one in self.definition.freezes),
        )

    def judge(self) -> list[str]:
        """Rules that were broken."""
        found = [str(one) for one in audit.broken(self.trace())]
        return found + [str(one) for one in (*self._unspoilt(), *self._unproven())]

    def _unproven(self) -> list[Broken]:
        """A host that is called patched is so on its own disk, too."""
        return [
            Broken(rule=audit.Rule.TRUTH, subject=row.host, seen=f"the ledger calls it patched, but {why}")
            for row in self.ledger.hosts(RUN)
            if row.state is HostState.PATCHED and (why := self.world.unproven(row.host))
        ]

    def _unspoilt(self) -> list[Broken]:
        """A host that nothing was done to is patched, whatever happened around it."""
        good = {HostState.PATCHED, HostState.ALREADY_COMPLIANT} | (set() if self.plan.reboot else {HostState.PENDING_REBOOT})
        # Who does not fit into a window is left for the next one.
        left = {HostState.OUT_OF_WINDOW, HostState.PENDING_REBOOT}
        fits = {stage.name: good | (left if stage.window or self.definition.closures(stage.name) else set())
                for stage in self.plan.stages}  # fmt: skip
        patched = {row.stage for row in self.ledger.stages(RUN) if row.state is StageState.PATCHED}
        return [
            Broken(
                rule=audit.Rule.TRUTH, subject=row.host,
                seen=f"nothing was wrong with it, and it is {row.state.value}: {row.reason}",
            )
            for row in self.ledger.hosts(RUN)
            if row.stage in patched and row.host not in self.world.faulted and row.state not in fits[row.stage]
            and "denies access" not in row.reason and "denied access" not in row.reason
        ]  # fmt: skip


class _Log:
    def __init__(self, campaign: SeededCampaign, process: Process) -> None:
        self._campaign, self._process = campaign, process

    def info(self, msg: str, *args: object) -> None:
        self._campaign.say(msg % args, self._process)


def _told(done: Done) -> str:
    return ", ".join(f"{count} {state.value}" for state, count in Counter(done.classes).items())


def _patiently(gateway: SeededGateway, cell: Any) -> Any:
    return gateway.fleet(cell, {})


@cache
def _triage() -> Any:
    return builders.no_findings()
