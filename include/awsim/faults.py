"""What goes wrong, for whom, when, and how often?

A fault is a kind, a match (service, operation, account, region, host, tag), a time (`after`, `lasts`) and a limit (`times`,
`probability`). Five families, told apart by who asks:
    faults of a call (`throttle`, `error`, `slow`, ...): `server.py`, around each operation; `empty_page`: `Context.page`
    faults of a host (`install_fails`, `agent_late`, ...): the world, at the moment the host does that thing; those of a database
    (`database_stuck`, ...) in the same way by `services/rds`
    faults of an Auto Scaling group (`no_capacity`, `alarm_in_refresh`): `services/autoscaling.py` and `instance_refresh.py`
    standing delays (`config_late`, `inspector_late`): whoever computes when AWS knows something
    faults of an image (`image_build_fails`, ...): Image Builder, and the world at the launch of an instance
    events (`agent_dead`, `zone_lost`, `reboot_storm`, ...): carried out by the world at their moment, then gone
Added by the world file and by `POST /_awsim/faults`. A new kind is a member of `Kind`, a family, and one `take_...` where it
strikes. Rate limits are no faults but what AWS does every day: `Throttles`, token buckets by `POST /_awsim/throttle`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Kind(StrEnum):
    THROTTLE = "throttle"
    ERROR = "error"
    LOST_ANSWER = "lost_answer"
    CONNECTION_RESET = "connection_reset"
    SLOW = "slow"
    ACCESS_DENIED = "access_denied"
    EXPIRED_CREDENTIALS = "expired_credentials"
    EMPTY_PAGE = "empty_page"
    AGENT_DEAD = "agent_dead"
    AGENT_ONLINE = "agent_online"
    AGENT_LATE = "agent_late"
    AGENT_LOST = "agent_lost"
    UNDELIVERABLE = "undeliverable"
    INSTALL_FAILS = "install_fails"
    DISK_FULL = "disk_full"
    PACKAGE_MANAGER_LOCKED = "package_manager_locked"
    SECOND_REBOOT = "second_reboot"
    REBOOT_NEVER_RETURNS = "reboot_never_returns"
    REBOOT_STORM = "reboot_storm"
    ZONE_LOST = "zone_lost"
    GROUP_SCALES_OUT = "group_scales_out"
    GROUP_SCALES_IN = "group_scales_in"
    GROUP_REPLACES = "group_replaces"
    CONFIG_LATE = "config_late"
    INSPECTOR_LATE = "inspector_late"
    UPDATE_WITHDRAWN = "update_withdrawn"
    ALARM_FIRES = "alarm_fires"
    INSTALL_BRICKS = "install_bricks"
    NO_CAPACITY = "no_capacity"
    ALARM_IN_REFRESH = "alarm_in_refresh"
    DATABASE_STUCK = "database_stuck"
    DATABASE_UPGRADE_FAILS = "database_upgrade_fails"
    IMAGE_BUILD_FAILS = "image_build_fails"
    IMAGE_DISTRIBUTION_FAILS = "image_distribution_fails"
    IMAGE_SCAN_FINDS = "image_scan_finds"
    IMAGE_SCAN_FAILS = "image_scan_fails"
    IMAGE_UNHEALTHY = "image_unhealthy"


CALL_KINDS = (Kind.THROTTLE, Kind.ERROR, Kind.ACCESS_DENIED, Kind.EXPIRED_CREDENTIALS)
"""Those that an error answer before any effect is all of."""

HOST_KINDS = frozenset(
    {
        Kind.AGENT_DEAD,
        Kind.AGENT_ONLINE,
        Kind.AGENT_LATE,
        Kind.AGENT_LOST,
        Kind.UNDELIVERABLE,
        Kind.INSTALL_FAILS,
        Kind.DISK_FULL,
        Kind.PACKAGE_MANAGER_LOCKED,
        Kind.SECOND_REBOOT,
        Kind.REBOOT_NEVER_RETURNS,
        Kind.REBOOT_STORM,
        Kind.CONFIG_LATE,
        Kind.INSPECTOR_LATE,
        Kind.INSTALL_BRICKS,
    }
)
GROUP_KINDS = (Kind.NO_CAPACITY, Kind.ALARM_IN_REFRESH)
"""Those of an Auto Scaling group, whenever it does that thing."""
DATABASE_KINDS = (Kind.DATABASE_STUCK, Kind.DATABASE_UPGRADE_FAILS)
"""Those of a database of RDS, at the moment that a change of it would end."""
EVENT_KINDS = frozenset(
    {
        Kind.AGENT_DEAD,
        Kind.AGENT_ONLINE,
        Kind.REBOOT_STORM,
        Kind.ZONE_LOST,
        Kind.GROUP_SCALES_OUT,
        Kind.GROUP_SCALES_IN,
        Kind.GROUP_REPLACES,
        Kind.UPDATE_WITHDRAWN,
        Kind.ALARM_FIRES,
    }
)

IMAGE_KINDS = frozenset(
    {
        Kind.IMAGE_BUILD_FAILS,
        Kind.IMAGE_DISTRIBUTION_FAILS,
        Kind.IMAGE_SCAN_FINDS,
        Kind.IMAGE_SCAN_FAILS,
        Kind.IMAGE_UNHEALTHY,
    }
)

_GROUP_EVENTS = (Kind.GROUP_SCALES_OUT, Kind.GROUP_SCALES_IN, Kind.GROUP_REPLACES)
_NEEDS: dict[Kind, tuple[str, ...]] = {
    Kind.SLOW: ("seconds",),
    Kind.AGENT_LATE: ("seconds",),
    Kind.AGENT_LOST: ("seconds",),
    Kind.CONFIG_LATE: ("seconds",),
    Kind.INSPECTOR_LATE: ("seconds",),
    Kind.ZONE_LOST: ("zone",),
    Kind.UPDATE_WITHDRAWN: ("advisory",),
    Kind.ALARM_FIRES: ("alarm",),
    Kind.IMAGE_BUILD_FAILS: ("image_state",),
    Kind.IMAGE_DISTRIBUTION_FAILS: ("to_region",),
    Kind.ALARM_IN_REFRESH: ("alarm",),
    **dict.fromkeys(_GROUP_EVENTS, ("group",)),
}
_ONLY: dict[str, tuple[Kind, ...]] = {
    "exit_code": (Kind.INSTALL_FAILS, Kind.PACKAGE_MANAGER_LOCKED),
    "code": (Kind.ERROR,),
    "status": (Kind.ERROR, Kind.LOST_ANSWER),
    "effect": (Kind.CONNECTION_RESET,),
    "zone": (Kind.ZONE_LOST, Kind.NO_CAPACITY),
    "advisory": (Kind.UPDATE_WITHDRAWN,),
    "alarm": (Kind.ALARM_FIRES, Kind.ALARM_IN_REFRESH),
    "percent": (Kind.ALARM_IN_REFRESH,),
    "database": DATABASE_KINDS,
    "image_state": (Kind.IMAGE_BUILD_FAILS,),
    "to_region": (Kind.IMAGE_DISTRIBUTION_FAILS,),
    "cve": (Kind.IMAGE_SCAN_FINDS,),
    "image": (Kind.IMAGE_UNHEALTHY,),
    "pipeline": tuple(sorted(IMAGE_KINDS)),
    "group": (*_GROUP_EVENTS, *GROUP_KINDS, Kind.IMAGE_UNHEALTHY),
    "number": _GROUP_EVENTS,
    "seconds": (
        Kind.SLOW,
        Kind.AGENT_LATE,
        Kind.AGENT_LOST,
        Kind.REBOOT_STORM,
        Kind.CONFIG_LATE,
        Kind.INSPECTOR_LATE,
        Kind.ALARM_IN_REFRESH,
        Kind.DATABASE_STUCK,
    ),
}


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
    after: Annotated[float, Field(ge=0)] = Field(0.0, description="virtual seconds from now (or the start) until it is in force")
    lasts: Annotated[float, Field(gt=0)] | None = Field(None, description="virtual seconds; None means until it is removed")
    times: Annotated[int, Field(ge=1)] | None = Field(None, description="how often it strikes; None means always")
    probability: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="0 to 1, drawn from the world's seed")
    seconds: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="of slow: real seconds; of agent_late, config_late, inspector_late: how late; of agent_lost: how long after"
        " the command began; of reboot_storm: how long the agents hibernate after the boot (1800); of database_stuck: how long it"
        " stays in `modifying` (None: forever); of alarm_in_refresh: how long the alarm stays (900)",
    )
    exit_code: Annotated[int, Field(ge=1, le=255)] = Field(
        1, description="of install_fails, package_manager_locked: the exit code that the script ends with"
    )
    code: str | None = Field(None, description="of error: the error code to answer with")
    status: Annotated[int, Field(ge=400, le=599)] = Field(500, description="of error and lost_answer: the HTTP status")
    effect: Literal["before", "after"] = Field("before", description="of connection_reset: is the call carried out or not?")
    zone: str | None = Field(
        None, description="of zone_lost and no_capacity, e.g. eu-central-1b; no_capacity: None means in none"
    )
    group: str | None = Field(
        None,
        description="of group_*: name of the Auto Scaling group; of no_capacity and alarm_in_refresh: None means any",
    )
    percent: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, description="of alarm_in_refresh: when so much of a refresh is complete; None means when it bakes"
    )
    number: Annotated[int, Field(ge=1)] = Field(1, description="of group_*: how many instances")
    advisory: str | None = Field(
        None, description="of update_withdrawn, e.g. ALAS2023-2024-766; with an account or region only there"
    )
    alarm: str | None = Field(None, description="of alarm_fires and alarm_in_refresh: its name")
    database: str | None = Field(None, description="of database_*: identifier of the instance or cluster; None means every one")
    pipeline: str | None = Field(None, description="of image_*: name of the image pipeline; None means every build")
    image_state: Literal["PENDING", "CREATING", "BUILDING", "TESTING", "DISTRIBUTING", "INTEGRATING"] | None = Field(
        None, description="of image_build_fails: the state that ends in FAILED"
    )
    to_region: str | None = Field(None, description="of image_distribution_fails: the region that gets no AMI")
    cve: str | None = Field(None, description="of image_scan_finds: what critical is found (CVE-2024-3094)")
    image: str | None = Field(
        None,
        description="of image_unhealthy: the AMI whose instances never come up; or give pipeline, for all that it made, or group",
    )
    id: int | None = Field(None, description="given by awsim")
    struck: int = Field(0, description="counted by awsim")

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> "Fault":
        if self.kind in HOST_KINDS and self.service is not None:
            raise ValueError(f"{self.kind.value} is a fault of a host and takes host, tag, account or region, not service")
        if self.kind in GROUP_KINDS and (self.service or self.operation or self.host or self.tag):
            raise ValueError(f"{self.kind.value} takes group, account or region, not service, operation, host or tag")
        if self.kind in DATABASE_KINDS and (self.service or self.operation or self.host):
            raise ValueError(f"{self.kind.value} takes database, tag, account or region, not service, operation or host")
        if self.kind in (Kind.AGENT_DEAD, Kind.AGENT_ONLINE) and not (self.host or self.tag):
            raise ValueError(f"{self.kind.value} needs a host or a tag")
        missing = [name for name in _NEEDS.get(self.kind, ()) if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.kind.value} needs {', '.join(missing)}")
        for name, kinds in _ONLY.items():
            if getattr(self, name) != type(self).model_fields[name].default and self.kind not in kinds:
                raise ValueError(f"{name} belongs to {', '.join(kind.value for kind in kinds)}, not to {self.kind.value}")
        if self.kind is Kind.IMAGE_UNHEALTHY and not (self.image or self.pipeline or self.group):
            raise ValueError("image_unhealthy needs an image, a pipeline or a group")
        if self.kind is Kind.EMPTY_PAGE and self.times is None and self.probability == 1:
            raise ValueError("empty_page needs times, or a probability below 1: no client would ever come to the end")
        if self.tag is not None and "=" not in self.tag:
            raise ValueError(f"tag: {self.tag!r} is not Key=Value")
        return self

    def hosts(self) -> list[str]:
        return [self.host] if isinstance(self.host, str) else list(self.host or [])


def _epoch() -> float:
    return 0.0


class Faults:
    """All faults in force or to come, oldest first."""

    def __init__(self, randomness: Callable[..., Random], now: Callable[[], float] = _epoch) -> None:
        self._random = randomness
        self._now = now
        self._faults: dict[int, Fault] = {}
        self._since: dict[int, float] = {}
        self._next = 1
        self._draws = 0

    def add(self, fault: Fault) -> Fault:
        kept = fault.model_copy(update={"id": self._next, "struck": 0})
        self._faults[self._next] = kept
        self._since[self._next] = self._now() + fault.after
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
        for fault in self._faults.values():
            if fault.kind in kinds and _meant(fault, service, operation, account, region) and self._strikes(fault):
                return fault
        return None

    def take_reset(self, effect: str, *, service: str, operation: str, account: str, region: str) -> Fault | None:
        """The first connection_reset of this side of the effect that strikes this call; it is counted."""
        for fault in self._faults.values():
            meant = fault.kind is Kind.CONNECTION_RESET and fault.effect == effect
            if meant and _meant(fault, service, operation, account, region) and self._strikes(fault):
                return fault
        return None

    def take_host(self, kind: Kind, host: Any, *, operation: str | None = None) -> Fault | None:
        """The first fault of this kind that strikes this host; it is counted."""
        for fault in self._faults.values():
            if fault.kind is kind and concerns(fault, host, operation) and self._strikes(fault):
                return fault
        return None

    def take_image(self, kind: Kind, pipeline: str | None, account: str, region: str, **facts: str | None) -> Fault | None:
        """The first fault of this kind that strikes a build of this pipeline, or an instance of its AMI; it is counted.

        `facts`: what the fault may name besides (`image_state`, `to_region`, `image`); a fault that names none means all.
        """
        for fault in self._faults.values():
            meant = fault.kind is kind and fault.pipeline in (None, pipeline)
            meant = meant and all(getattr(fault, name) in (None, value) for name, value in facts.items())
            if meant and fault.account in (None, account) and fault.region in (None, region) and self._strikes(fault):
                return fault
        return None

    def take_group(
        self, kind: Kind, *, account: str, region: str, group: str, zone: str = "", percent: int = 101
    ) -> Fault | None:
        """The first fault of this kind that strikes this group there, at that progress (101: done); it is counted."""
        for fault in self._faults.values():
            meant = (
                fault.kind is kind
                and fault.group in (None, group)
                and fault.zone in (None, zone)
                and fault.account in (None, account)
                and fault.region in (None, region)
                and (101 if fault.percent is None else fault.percent) <= percent
            )
            if meant and self._strikes(fault):
                return fault
        return None

    def delay(self, kind: Kind, host: Any) -> float:
        """Of a standing delay: how many seconds later than usual AWS knows something of this host."""
        late = 0.0
        for fault in self._faults.values():
            if fault.kind is kind and self._in_force(fault) and concerns(fault, host):
                late = max(late, fault.seconds or 0.0)
        return late

    def among(self, fault: Fault, hosts: list[Any]) -> list[Any]:
        """Of an event: the hosts it concerns, each with the fault's probability, at most `times` of them."""
        struck = [host for host in hosts if concerns(fault, host)]
        if fault.probability < 1:
            self._draws += 1
            chance = self._random("event", self._draws)
            struck = [host for host in struck if chance.random() < fault.probability]
        return struck if fault.times is None else struck[: fault.times]

    def _in_force(self, fault: Fault) -> bool:
        since = self._since.get(fault.id or 0, 0.0)
        return since <= self._now() < since + (math.inf if fault.lasts is None else fault.lasts)

    def _strikes(self, fault: Fault) -> bool:
        if (fault.times is not None and fault.struck >= fault.times) or not self._in_force(fault):
            return False
        if fault.probability < 1:
            self._draws += 1
            if self._random("fault", fault.id, self._draws).random() >= fault.probability:
                return False
        fault.struck += 1
        return True


def _meant(fault: Fault, service: str, operation: str, account: str, region: str) -> bool:
    return (
        (fault.service is None or fault.service == service)
        and (fault.operation is None or fault.operation == operation)
        and (fault.account is None or fault.account == account)
        and (fault.region is None or fault.region == region)
    )


def concerns(fault: Fault, host: Any, operation: str | None = None) -> bool:
    """Whether the fault's match names this host (by id, by world name, by tag or by zone)."""
    names = fault.hosts()
    if names and host.id not in names and host.name not in names:
        return False
    if fault.zone is not None and fault.zone != host.zone:
        return False
    if fault.database is not None and fault.database != host.id:
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


# --- rate limits ---


class Throttle(BaseModel):
    """A rate limit: each account, region, service and operation that it matches has a bucket of its own."""

    model_config = ConfigDict(extra="forbid")

    service: str | None = Field(None, description="botocore's name of the service; None matches every one")
    operation: str | None = Field(None, description="e.g. SendCommand; `Describe*` matches by beginning")
    account: str | None = None
    region: str | None = None
    rate: Annotated[float, Field(gt=0)] = Field(description="tokens that flow in a second")
    burst: Annotated[float, Field(ge=1)] | None = Field(None, description="tokens that the bucket holds; None means the rate")
    clock: Literal["virtual", "real"] = Field(
        "virtual", description="whose seconds; virtual ones make the same calls be refused every time"
    )
    id: int | None = Field(None, description="given by awsim")
    refused: int = Field(0, description="counted by awsim")


PROFILES: dict[str, tuple[Throttle, ...]] = {
    "strict": (
        Throttle(service="ssm", operation="SendCommand", rate=2, burst=2),
        Throttle(service="ssm", rate=5, burst=5),
        Throttle(rate=10, burst=10),
    ),
    "ec2-published": (
        Throttle(service="ec2", operation="Describe*", rate=20, burst=100),
        Throttle(service="ec2", rate=5, burst=50),
    ),
}
"""AWS publishes few numbers; `strict` is what careless polling was seen to meet, `ec2-published` are those of EC2's guide."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Throttles:
    """The rate limits in force; the first that matches a call decides, so the narrow ones come first."""

    def __init__(self, *, virtual: Callable[[], float], real: Callable[[], float]) -> None:
        self._now = {"virtual": virtual, "real": real}
        self._limits: dict[int, Throttle] = {}
        self._buckets: dict[tuple[int, str, str, str, str], _Bucket] = {}
        self._next = 1

    def add(self, throttle: Throttle) -> Throttle:
        kept = throttle.model_copy(update={"id": self._next, "refused": 0})
        self._limits[self._next] = kept
        self._next += 1
        return kept

    def clear(self) -> None:
        self._limits.clear()
        self._buckets.clear()

    def all(self) -> list[Throttle]:
        return list(self._limits.values())

    def refuses(self, *, service: str, operation: str, account: str, region: str) -> bool:
        """Takes a token; whether there was none."""
        for limit in self._limits.values():
            if _limited(limit, service, operation, account, region):
                return self._empty(limit, (limit.id or 0, account, region, service, operation))
        return False

    def _empty(self, limit: Throttle, key: tuple[int, str, str, str, str]) -> bool:
        now, most = self._now[limit.clock](), limit.burst if limit.burst is not None else max(1.0, limit.rate)
        bucket = self._buckets.setdefault(key, _Bucket(tokens=most, at=now))
        bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * limit.rate)
        bucket.at = now
        if bucket.tokens < 1 - 1e-9:
            limit.refused += 1
            return True
        bucket.tokens -= 1
        return False


def _limited(limit: Throttle, service: str, operation: str, account: str, region: str) -> bool:
    named = limit.operation is None or limit.operation == operation
    if limit.operation is not None and limit.operation.endswith("*"):
        named = operation.startswith(limit.operation[:-1])
    return (
        named
        and (limit.service is None or limit.service == service)
        and (limit.account is None or limit.account == account)
        and (limit.region is None or limit.region == region)
    )
