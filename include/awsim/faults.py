"""What goes wrong, for whom, and how often?

A fault is a kind, a match (service, operation, account, region, host) and a limit (`times`, `probability`). Two families:
faults of a call (`throttle`, `error`, `lost_answer`, `access_denied`) are asked for by the server around each operation, faults
of a host (`install_fails`, `undeliverable`, `reboot_never_returns`) by the world at the moment the host does that thing;
`agent_dead` and `agent_online` change a host at once and are not kept. Added by the world file and by `POST /_awsim/faults`. A
new kind is a member of `Kind` and one `faults.take(...)` where it strikes.
"""

from collections.abc import Callable
from enum import StrEnum
from random import Random
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Kind(StrEnum):
    THROTTLE = "throttle"
    ERROR = "error"
    LOST_ANSWER = "lost_answer"
    ACCESS_DENIED = "access_denied"
    AGENT_DEAD = "agent_dead"
    AGENT_ONLINE = "agent_online"
    INSTALL_FAILS = "install_fails"
    UNDELIVERABLE = "undeliverable"
    REBOOT_NEVER_RETURNS = "reboot_never_returns"


CALL_KINDS = (Kind.THROTTLE, Kind.ERROR, Kind.ACCESS_DENIED)
HOST_KINDS = (Kind.AGENT_DEAD, Kind.AGENT_ONLINE, Kind.INSTALL_FAILS, Kind.UNDELIVERABLE, Kind.REBOOT_NEVER_RETURNS)


class Fault(BaseModel):
    """One fault as written in a world file or posted to `/_awsim/faults`."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    service: str | None = Field(None, description="botocore's name of the service; None matches every one")
    operation: str | None = Field(None, description="e.g. SendCommand; for faults of a host: Scan or Install")
    account: str | None = None
    region: str | None = None
    host: str | list[str] | None = Field(None, description="instance ids, or host names of the world (`fleet/number`)")
    tag: str | None = Field(None, description="`Key=Value` that the host must carry")
    times: Annotated[int, Field(ge=1)] | None = Field(None, description="how often it strikes; None means always")
    probability: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="0 to 1, drawn from the world's seed")
    exit_code: Annotated[int, Field(ge=1, le=255)] = Field(
        1, description="of install_fails: the exit code that the script ends with"
    )
    code: str | None = Field(None, description="of error: the error code to answer with")
    status: Annotated[int, Field(ge=400, le=599)] = Field(500, description="of error and lost_answer: the HTTP status")
    id: int | None = Field(None, description="given by awsim")
    struck: int = Field(0, description="counted by awsim")

    @model_validator(mode="after")
    def _host_faults_need_no_service(self) -> "Fault":
        if self.kind in HOST_KINDS and self.service is not None:
            raise ValueError(f"{self.kind.value} is a fault of a host and takes host, tag, account or region, not service")
        if self.kind in (Kind.AGENT_DEAD, Kind.AGENT_ONLINE) and not (self.host or self.tag):
            raise ValueError(f"{self.kind.value} needs a host or a tag")
        return self

    def hosts(self) -> list[str]:
        return [self.host] if isinstance(self.host, str) else list(self.host or [])


class Faults:
    """All faults in force, oldest first."""

    def __init__(self, randomness: Callable[..., Random]) -> None:
        self._random = randomness
        self._faults: dict[int, Fault] = {}
        self._next = 1
        self._draws = 0

    def add(self, fault: Fault) -> Fault:
        kept = fault.model_copy(update={"id": self._next, "struck": 0})
        self._faults[self._next] = kept
        self._next += 1
        return kept

    def remove(self, number: int) -> bool:
        return self._faults.pop(number, None) is not None

    def clear(self) -> None:
        self._faults.clear()

    def all(self) -> list[Fault]:
        return list(self._faults.values())

    def take_call(self, *kinds: Kind, service: str, operation: str, account: str, region: str) -> Fault | None:
        """The first fault of these kinds that strikes this call; it is counted."""
        facts = {"service": service, "operation": operation, "account": account, "region": region}
        for fault in self._faults.values():
            wanted = {name: getattr(fault, name) for name in facts}
            if (
                fault.kind in kinds
                and all(value is None or value == facts[name] for name, value in wanted.items())
                and self._strikes(fault)
            ):
                return fault
        return None

    def take_host(self, kind: Kind, host: Any, *, operation: str | None = None) -> Fault | None:
        """The first fault of this kind that strikes this host; it is counted."""
        for fault in self._faults.values():
            if fault.kind is kind and concerns(fault, host, operation) and self._strikes(fault):
                return fault
        return None

    def _strikes(self, fault: Fault) -> bool:
        if fault.times is not None and fault.struck >= fault.times:
            return False
        if fault.probability < 1:
            self._draws += 1
            if self._random("fault", fault.id, self._draws).random() >= fault.probability:
                return False
        fault.struck += 1
        return True


def concerns(fault: Fault, host: Any, operation: str | None = None) -> bool:
    """Whether the fault's match names this host (by id, by world name or by tag)."""
    names = fault.hosts()
    if names and host.id not in names and host.name not in names:
        return False
    if fault.tag is not None:
        key, _, value = fault.tag.partition("=")
        if host.tags().get(key) != value:
            return False
    return (
        (fault.account is None or fault.account == host.account)
        and (fault.region is None or fault.region == host.region)
        and (fault.operation is None or operation is None or fault.operation == operation)
    )
