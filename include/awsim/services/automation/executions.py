"""What is known of an Automation execution and its steps? Records only; `flow.py` moves them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from awsim import runcommand
from awsim.journal import Cause
from awsim.world import World

STEP_TIMEOUT = 3600.0
TERMINAL = frozenset({"Success", "Failed", "TimedOut", "Cancelled"})


def _number(value: Any, default: float) -> float:
    try:
        return float(value) if value else default
    except (TypeError, ValueError):
        return default


def true(value: Any) -> bool:
    """Of a flag that a document may spell as a string."""
    return str(value).lower() == "true"


@dataclass(kw_only=True, slots=True, eq=False)
class Step:
    """One step of an execution; Pending until its turn comes."""

    id: str
    name: str
    action: str
    definition: dict[str, Any]
    status: str = "Pending"
    started: float | None = None
    ended: float | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, list[str]] = field(default_factory=dict)
    failure: str = ""
    next_step: str | None = None
    attempt: int = 0
    """Counts every beginning, so that an event of an earlier one means nothing."""
    tries: int = 0
    """Beginnings since the step was reached, of which maxAttempts are allowed."""
    command: runcommand.Command | None = None
    child: "Execution | None" = None
    """Of aws:executeAutomation, and of a step that stands for one target."""
    decisions: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of aws:approve: who decided what, and the comment."""
    location: dict[str, Any] | None = None
    """The account and region that the step stands for."""
    default_timeout: float = STEP_TIMEOUT

    @property
    def timeout(self) -> float:
        return _number(self.definition.get("timeoutSeconds"), self.default_timeout)

    @property
    def ends(self) -> bool:
        return true(self.definition.get("isEnd"))

    @property
    def critical(self) -> bool:
        """A failure of it is the execution's, whatever comes after; said by the step, else it depends on onFailure."""
        said = self.definition.get("isCritical")
        return true(said) if said is not None else self.definition.get("onFailure") != "Continue"

    @property
    def attempts(self) -> int:
        return int(_number(self.definition.get("maxAttempts"), 1))


@dataclass(kw_only=True, slots=True, eq=False)
class Execution:
    id: str
    account: str
    region: str
    document: str
    version: str
    content: dict[str, Any]
    parameters: dict[str, list[str]]
    mode: str
    executed_by: str
    requested: float
    changed: float
    """When its state moved last."""
    cause: Cause
    tags: dict[str, str]
    steps: list[Step]
    status: str = "Pending"
    ended: float | None = None
    failure: str = ""
    current: Step | None = None
    stopping: str | None = None
    """Cancel or Complete, once somebody asked."""
    cleaning: bool = False
    """Cancelled, and in the steps that onCancel leads to."""
    parent: str | None = None
    target: str = ""
    """The value of the target parameter, of a child that stands for one target."""
    request: dict[str, Any] = field(default_factory=dict)
    """Of a rate-controlled or multi-account parent: Targets, TargetMaps, TargetLocations and the rest, to be told back."""
    variables: dict[str, list[str]] = field(default_factory=dict)
    """As aws:updateVariable has left them."""
    triggered: list[dict[str, str]] = field(default_factory=list)
    """The alarm that stopped it."""
    resolved: list[str] = field(default_factory=list)
    fan: Any = None
    """`rate.Fan` of such a parent."""
    on_end: Callable[[], None] | None = None

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    def step(self, name: str) -> Step | None:
        return next((step for step in self.steps if step.name == name), None)


@dataclass(slots=True)
class Executions:
    """Of a cell, oldest first; client token (lower case) -> what was asked with it."""

    by_id: dict[str, Execution] = field(default_factory=dict)
    tokens: dict[str, tuple[str, Execution]] = field(default_factory=dict)


def executions(world: World, account: str, region: str) -> Executions:
    return world.state(account, region, Executions)


def uuid(world: World, *purpose: object) -> str:
    bits = f"{world.random(*purpose).getrandbits(128):032x}"
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"
