"""How is an AWS operation answered by awsim? This is the module to read before adding one.

    from typing import Any
    from awsim.registry import AwsError, Context, operation

    @operation("inspector2", "ListCoverage")
    def list_coverage(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        hosts = ctx.world.hosts_in(ctx.account, ctx.region)
        rows, token = ctx.page(rows, params, default=100, tokens="nextToken", size="maxResults")
        return {"coveredResources": rows, "nextToken": token}

Put it into a module of `awsim/services/`; every module there is imported at start, no list to extend.

- A typo in the service or operation name raises at import. `params` has passed the botocore model (required, min, max, enum,
  pattern), so a handler checks only what the model cannot say. `check=False` switches that off (for answers that are mostly
  moto's).
- Return a dict in the shape of the model's output: members by their model names; None means "leave out"; moments as aware
  datetimes (`awsim.clock.moment(epoch)`) or floats are NOT accepted for timestamps. Output is never checked against enums, as
  AWS's own is not.
- Refuse with `raise AwsError("InvalidCommandId", "message", Member=value)`: code and HTTP status follow the model of the service.
- `ctx.call_moto()` asks moto the same request and gives its answer parsed (a dict; moto's errors are raised as they are);
  `ctx.moto_answer()` gives it unparsed, to be returned as it is.
- `ctx.at` is virtual now in epoch seconds, `ctx.now` the same as aware datetime. All due world events have happened already.
- `ctx.state(MyState)` is your own state, one object a cell (account and region), made by `MyState()` on first use and dropped at
  reset. `ctx.world.at(moment, action)` schedules `action(moment)` on the virtual clock. Handlers run under one lock: do not
  sleep.
- To follow the world's events: `@on_world def attach(world): world.on_report(...)`.
- Calling another operation's core from a handler: use its module's functions (`runcommand.send(...)`), not HTTP.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from awsim import paging, wire
from awsim.clock import moment
from awsim.faults import Kind

if TYPE_CHECKING:
    from awsim.world import World

State = TypeVar("State")
Handler = Callable[["Context", dict[str, Any]], "dict[str, Any] | wire.Answer | None"]

_FILTER = re.compile(r"The filter '(.*)' for |Filter dicts have not been implemented in Moto for '(.*)' yet", re.DOTALL)
"""How moto refuses a filter: with an error of its own, that a server would answer as a 500."""

OWNED = frozenset({"ssm", "inspector2", "config", "imagebuilder"})
"""Services whose operations, when neither awsim nor moto has them, are refused with a clear code instead of an HTML 500."""


class AwsError(Exception):
    """The service refuses. `code` is the error code of the model; further members by their model names."""

    def __init__(self, code: str, message: str = "", *, status: int | None = None, **members: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        for name, value in members.items():
            setattr(self, name, value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    service: str
    name: str
    handler: Handler
    check: bool


@dataclass(kw_only=True, slots=True)
class Context:
    """One request: who asks where and when, and ways to answer."""

    world: "World"
    service: str
    operation: str
    account: str
    region: str
    request_id: str
    at: float
    params: dict[str, Any]
    _call: "wire.Call" = field(repr=False)

    @property
    def now(self) -> datetime:
        return moment(self.at)

    @property
    def host_header(self) -> str:
        """How the caller reached awsim (`127.0.0.1:5005`), for answers that hold a URL."""
        return str(self._call.environ.get("HTTP_HOST", "127.0.0.1"))

    @property
    def access_key(self) -> str | None:
        """The key that signed the request."""
        scope = wire.scope_of(self._call.environ)
        return scope.access_key if scope is not None else None

    def call_moto(self) -> dict[str, Any]:
        return self.moto_answer().parsed(self._call)

    def moto_answer(self) -> "wire.Answer":
        try:
            return self._call.ask_moto()
        except NotImplementedError as unknown:
            filtered = _FILTER.search(str(unknown))
            if filtered is None:
                raise wire.MotoTripped(f"moto does not know how: {unknown}") from unknown
            named = next(name for name in filtered.groups() if name is not None)
            raise AwsError("InvalidParameterValue", f"The filter '{named}' is invalid (or moto does not know it)") from None
        except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as tripped:  # moto's, over odd requests
            raise wire.MotoTripped(f"{type(tripped).__name__}: {tripped}") from tripped

    def state(self, factory: Callable[[], State]) -> State:
        return self.world.state(self.account, self.region, factory)

    def page(
        self, rows: list[Any], params: dict[str, Any], *, default: int, tokens: str = "NextToken", size: str = "MaxResults"
    ) -> tuple[list[Any], str | None]:
        """One page of rows and the token of the next one.

        A token of another operation, account or region, or with other filters, is refused.
        """
        place = f"{self.service} {self.operation} {self.account} {self.region}"
        facts = {"service": self.service, "operation": self.operation, "account": self.account, "region": self.region}
        try:
            if self.world.faults.take_call(Kind.EMPTY_PAGE, **facts) is not None:
                return [], paging.same_place(params, operation=place, token_name=tokens, size_name=size)
            return paging.page(rows, params, operation=place, default=default, token_name=tokens, size_name=size)
        except paging.BadToken:
            if self.service == "ssm":
                raise AwsError("InvalidNextToken", "The specified token is not valid.") from None
            if self.service == "imagebuilder":
                raise AwsError("InvalidPaginationTokenException", "The specified token is not valid.") from None
            if self.service == "config":
                raise AwsError("InvalidNextTokenException", "The specified token is not valid.") from None
            raise AwsError("ValidationException", "The specified token is not valid.") from None

    def random(self, *purpose: object) -> Random:
        """Randomness that depends on the seed and the purpose only, never on the order of calls."""
        return self.world.random(*purpose)


_operations: dict[tuple[str, str], Operation] = {}


def operation(service: str, name: str, *, check: bool = True) -> Callable[[Handler], Handler]:
    """Register the decorated function as awsim's answer to `service` `name` (see the module's docstring)."""
    wire.operation_model(service, name)  # a typo ends here

    def register(handler: Handler) -> Handler:
        if (service, name) in _operations:
            raise ValueError(f"{service} {name} is registered twice: {_operations[service, name].handler} and {handler}")
        _operations[service, name] = Operation(service=service, name=name, handler=handler, check=check)
        return handler

    return register


_attached: list[Callable[["World"], None]] = []


def on_world(function: Callable[["World"], None]) -> Callable[["World"], None]:
    """The decorated function is called with every new world (at start and after a reset), e.g. to subscribe to its events."""
    _attached.append(function)
    return function


def attach(world: "World") -> None:
    for function in _attached:
        function(world)


def find(service: str, name: str) -> Operation | None:
    return _operations.get((service, name))


@cache
def load() -> int:
    """Import every module of `awsim.services`; returns how many operations there are."""
    package = importlib.import_module("awsim.services")
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        importlib.import_module(f"awsim.services.{found.name}")
    return len(_operations)


def registered() -> list[tuple[str, str]]:
    return sorted(_operations)
