"""What happens to a request, from first byte to last? The WSGI application in front of moto's, and its server.

Order of things: catch the world up to now; `/_awsim/*` is ours, `/moto-api/*` passes through (its reset empties awsim too); a
signed request is routed to service, operation, account and region; rate limits and faults before the effect; awsim's handler
(model check, lock) or moto; faults after the effect. A mutating EC2 or Auto Scaling call is followed by a look at what it did
to the machines.
"""

import io
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server

from awsim import constraints, control, estate, registry, wire
from awsim.catalogue import shipped
from awsim.clock import Clock
from awsim.faults import CALL_KINDS, Fault, Kind
from awsim.journal import Cause
from awsim.registry import AwsError, Context
from awsim.wire import Answer, Call, Moto, MotoRefused, MotoTripped, Scope, Unreadable
from awsim.world import World
from awsim.world_file import WorldFile, load

_READS = re.compile(r"^(Describe|Get|List|Search|BatchGet|Select)")
_REASONS = {200: "OK", 201: "Created", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error"}


class Simulator:
    """The WSGI application. One a process: moto's state is the process's."""

    def __init__(
        self,
        *,
        world: Path | None = None,
        speed: float = 1.0,
        seed: int = 0,
        base: float | None = None,
        real: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`base`: epoch seconds at which virtual time starts, None for the real present.

        Raises:
            WorldFileError: the world file cannot be used.
        """
        registry.load()
        self._file: WorldFile | None = load(world, shipped()) if world else None
        self._seed, self._base, self._real, self._speed = seed, base, real, speed
        self._paused_speed = speed or 1.0
        self._sleep = sleep
        self._lock = threading.RLock()
        self._moto = Moto()
        self.world = self._made(self._file)

    def _made(self, file: WorldFile | None) -> World:
        world = World(clock=Clock(base=self._base, speed=self._speed, real=self._real), seed=self._seed, file=file)
        world.answer = self._answer
        registry.attach(world)
        world.begin()
        return world

    # --- what control.py does to the simulation ---

    def restart(self) -> None:
        """The world of the world file again, as at the start."""
        with self._lock:
            self.world = self._made(self._file)

    def empty(self) -> None:
        with self._lock:
            self.world = self._made(None)

    def advance(self, seconds: float) -> None:
        with self._lock:
            self.world.clock.advance(seconds)
            self.world.catch_up()

    def set_speed(self, speed: float) -> None:
        with self._lock:
            self.world.clock.set_speed(speed)

    def pause(self, paused: bool) -> None:
        with self._lock:
            clock = self.world.clock
            if paused and clock.speed:
                self._paused_speed = clock.speed
                clock.set_speed(0)
            elif not paused and not clock.speed:
                clock.set_speed(self._paused_speed)

    # --- requests ---

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = self._answer(environ)
        start_response(f"{answer.status} {_REASONS.get(answer.status, 'Answer')}", _framed(answer))
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [answer.body]

    def _answer(self, environ: dict[str, Any]) -> Answer:
        path = environ.get("PATH_INFO", "")
        if path.startswith(control.PREFIX) or path == control.PREFIX[:-1]:
            body = _body(environ)
            with self._lock:
                self.world.catch_up()
                return control.answer(self, environ, body)
        scope = wire.scope_of(environ)
        if path.startswith("/moto-api/") or scope is None or scope.service == "s3":
            if scope is not None:
                environ.setdefault("HTTP_X_MOTO_ACCOUNT_ID", self._account(scope))
            answer = self._moto(environ)
            if path == "/moto-api/reset" and environ.get("REQUEST_METHOD") == "POST":
                self.empty()
            return answer
        return self._signed(scope, environ)

    def _account(self, scope: Scope) -> str:
        return estate.account_of_key(scope.access_key) or self.world.default_account

    def _signed(self, scope: Scope, environ: dict[str, Any]) -> Answer:
        body = _body(environ)
        account = environ.setdefault("HTTP_X_MOTO_ACCOUNT_ID", self._account(scope))
        call = wire.route(self._moto, scope, environ, body)
        if call is None:
            return self._moto(wire.replayed(environ, body))
        with self._lock:
            self.world.catch_up()
            request_id = self.world.request_id()
            facts = {"service": call.service, "operation": call.model.name, "account": account, "region": scope.region}
            slow = self.world.faults.take_call(Kind.SLOW, **facts)
        client = "werkzeug.socket" in environ  # not a runbook's step, which asks from inside
        if slow is not None and client:
            self._sleep(slow.seconds or 0.0)  # outside the lock: the others are not slower for it
        with self._lock:
            self.world.catch_up()
            if self.world.throttles.refuses(**facts):
                return _struck(call, Fault(kind=Kind.THROTTLE), request_id)
            fault = self.world.faults.take_call(*CALL_KINDS, **facts)
            if fault is not None:
                return _struck(call, fault, request_id)
            if client and self.world.faults.take_reset("before", **facts) is not None:
                raise _reset(environ)
            found = registry.find(call.service, call.model.name)
            if found is not None:
                answer = self._handled(found, call, account, scope.region, request_id)
            elif call.service in registry.OWNED and not wire.moto_has(call.service, call.model.name):
                return _not_simulated(call, request_id)
            else:
                try:
                    answer = call.ask_moto()
                except NotImplementedError:
                    return _not_simulated(call, request_id)
            if call.service in ("ec2", "autoscaling") and not _READS.match(call.model.name):
                self.world.sync(account, scope.region, Cause(request_id=request_id))
            if not _READS.match(call.model.name):
                self.world.answered(call.service)
            if client and self.world.faults.take_reset("after", **facts) is not None:
                raise _reset(environ)
            lost = self.world.faults.take_call(Kind.LOST_ANSWER, **facts)
            return answer if lost is None else _struck(call, lost, request_id)

    def _handled(self, found: registry.Operation, call: Call, account: str, region: str, request_id: str) -> Answer:
        """awsim's own answer, in the service's protocol, whatever the handler did."""
        try:
            params = _typed(call)
            if found.check:
                wrong = constraints.violations(call.service, params, call.model.input_shape)
                if wrong:
                    code = constraints.CODE_OF_PROTOCOL.get(call.protocol, "ValidationException")
                    raise AwsError(code, constraints.sentence(wrong))
            odd = constraints.unprintable(params) if call.protocol in constraints.CODE_OF_CHARACTERS else None
            if odd is not None:
                raise AwsError(constraints.CODE_OF_CHARACTERS[call.protocol], f"{odd!r} contains an invalid character")
            context = Context(
                world=self.world,
                service=call.service,
                operation=call.model.name,
                account=account,
                region=region,
                request_id=request_id,
                at=self.world.now,
                params=params,
                _call=call,
            )
            result = found.handler(context, params)
        except Unreadable as unreadable:
            return _refused(call, AwsError("SerializationException", str(unreadable)), request_id)
        except AwsError as error:
            return _refused(call, error, request_id)
        except MotoRefused as refused:
            return refused.answer
        except MotoTripped as tripped:
            code = constraints.CODE_OF_PROTOCOL.get(call.protocol, "ValidationException")
            return _refused(call, AwsError(code, f"The request is not valid ({tripped})."), request_id)
        return result if isinstance(result, Answer) else wire.serialize(call, result or {}, request_id)


def _typed(call: Call) -> dict[str, Any]:
    """The parameters, once every value is known to be of its shape's type.

    Raises:
        Unreadable: one is not.
    """
    shape, sent = call.model.input_shape, call.as_sent()
    params = call.params() if sent is None else {}
    odd = constraints.mistyped(params if sent is None else sent, shape) if shape is not None else None
    if odd is not None:
        raise Unreadable(odd)
    return params if sent is None else call.params()


def _body(environ: dict[str, Any]) -> bytes:
    length = environ.get("CONTENT_LENGTH") or "0"
    body: bytes = environ["wsgi.input"].read(int(length)) if length.isdigit() and int(length) else b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _reset(environ: dict[str, Any]) -> ConnectionResetError:
    """The client gets no answer but a reset; what is to be raised so that the server says nothing more."""
    connection: socket.socket = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)  # else the client would wait for a connection that is kept alive
    return ConnectionResetError("a fault resets the connection")


def _framed(answer: Answer) -> list[tuple[str, str]]:
    headers = [(name, value) for name, value in answer.headers if name.lower() != "content-length"]
    return [*headers, ("Content-Length", str(len(answer.body)))]


def _refused(call: Call, error: AwsError, request_id: str) -> Answer:
    members = {name: value for name, value in vars(error).items() if name not in ("code", "message", "status")}
    return wire.serialize_error(
        call, code=error.code, message=error.message, request_id=request_id, status=error.status, members=members
    )


def _struck(call: Call, fault: Fault, request_id: str) -> Answer:
    """The error a client sees; codes as each protocol's services use them."""
    ec2, query = call.protocol == "ec2", call.protocol == "query"
    if fault.kind is Kind.THROTTLE:
        code = "RequestLimitExceeded" if ec2 else "Throttling" if query else "ThrottlingException"
        status = 503 if ec2 else 429 if call.service == "inspector2" else 400
        error = AwsError(code, "Request limit exceeded." if ec2 else "Rate exceeded", status=status)
    elif fault.kind is Kind.EXPIRED_CREDENTIALS:
        code = "RequestExpired" if ec2 else "ExpiredToken" if query else "ExpiredTokenException"
        message = "Request has expired." if ec2 else "The security token included in the request is expired"
        error = AwsError(code, message, status=400 if ec2 or call.protocol == "json" else 403)
    elif fault.kind is Kind.ACCESS_DENIED:
        code = "UnauthorizedOperation" if ec2 else "AccessDenied" if query else "AccessDeniedException"
        status = 400 if call.protocol == "json" else 403
        error = AwsError(code, f"User is not authorized to perform: {call.service}:{call.model.name}", status=status)
    else:
        code = fault.code or ("InternalError" if ec2 else "InternalFailure" if query else "InternalServerError")
        error = AwsError(code, "An internal error has occurred.", status=fault.status)
    return _refused(call, error, request_id)


def _not_simulated(call: Call, request_id: str) -> Answer:
    message = f"{call.service} {call.model.name} is simulated neither by awsim nor by moto"
    if call.protocol not in ("json", "rest-json"):
        return _refused(call, AwsError("NotImplementedByAwsim", message, status=501), request_id)
    body = json.dumps({"__type": "NotImplementedByAwsim", "code": "NotImplementedByAwsim", "message": message}).encode()
    headers = [
        ("Content-Type", "application/json" if call.protocol == "rest-json" else "application/x-amz-json-1.1"),
        ("x-amzn-errortype", "NotImplementedByAwsim"),
        ("x-amzn-RequestId", request_id),
    ]
    return Answer(status=501, headers=headers, body=body)


class PortTaken(OSError):
    """Another process listens on the port."""


class _QuietHandler(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """No line a request: the journal says what matters."""


class Server:
    """A simulator behind a port. `serve` blocks; `start` and `stop` are for tests that want it in a thread."""

    def __init__(self, simulator: Simulator, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Port 0 takes a free one.

        Raises:
            PortTaken: the port is in use.
        """
        self.simulator = simulator
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)
        except OSError as taken:
            listener.close()
            raise PortTaken(f"awsim: {host}:{port} cannot be listened on: {taken.strerror}; choose another --port") from taken
        self.port: int = listener.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._server: BaseWSGIServer = make_server(
            host, self.port, simulator, threaded=True, request_handler=_QuietHandler, fd=listener.fileno()
        )
        self._listener = listener
        self._thread: threading.Thread | None = None

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.02)

    def start(self) -> "Server":
        self._thread = threading.Thread(target=self.serve, name="awsim", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._server.server_close()
        self._listener.close()
