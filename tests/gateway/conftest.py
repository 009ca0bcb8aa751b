"""A gateway whose clients are botocore's own, with canned answers checked against AWS's model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.stub import Stubber

from patchwave.aws.calls import Session
from patchwave.aws.gateway import Gateway
from patchwave.campaign.values import Cell

CELL = Cell(account="111111111111", region="eu-central-1")
NOW = datetime(2026, 3, 3, 22, 0, tzinfo=UTC)
COMMAND = "0b2c3d4e-0000-4000-8000-00000000000a"


def host(number: int) -> str:
    """An instance id with 17 hex digits."""
    return f"i-{number:017x}"


class Wire:
    """What AWS will be asked, in this order per service, and what it will answer; anything else fails the test."""

    def __init__(self) -> None:
        self._stubs: dict[str, Stubber] = {}
        self.gateway = Gateway(lambda cell: self)

    def client(self, service_name: str, **options: Any) -> Any:
        """As a `boto3.Session` would, for the gateway; a service's calls share one list of answers."""
        return self._stub(service_name, options["region_name"]).client

    def _stub(self, service: str, region: str = CELL.region) -> Stubber:
        if service not in self._stubs:
            client = boto3.client(
                service, region_name=region, aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret",
                config=Config(retries={"total_max_attempts": 1}),
            )  # fmt: skip
            self._stubs[service] = Stubber(client)
            self._stubs[service].activate()
        return self._stubs[service]

    def expects(self, service: str, method: str, answer: dict[str, Any], request: dict[str, Any] | None = None) -> None:
        """One call, its answer, and (None: whatever it is) its request."""
        self._stub(service).add_response(method, answer, request)

    def refuses(self, service: str, method: str, code: str, message: str = "", *, status: int = 400) -> None:
        """One call that AWS answers by an error."""
        self._stub(service).add_client_error(method, code, message, http_status_code=status)

    def done(self) -> None:
        """Nothing that was expected is left over."""
        for stub in self._stubs.values():
            stub.assert_no_pending_responses()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.done()


class Server:
    """An HTTP server that counts requests and does with them what a test says: answer a status, hang up, stay silent."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.bodies: list[str] = []
        self.closing = threading.Event()
        self.behaviour: Callable[[BaseHTTPRequestHandler], None] = answers(500)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
                outer.requests.append(self.headers.get("X-Amz-Target", self.path))
                outer.behaviour(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def says_nothing(self, _: BaseHTTPRequestHandler) -> None:
        """Keep the connection and never answer."""
        self.closing.wait()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


def answers(status: int, body: str = "{}") -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer with that status and body."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/x-amz-json-1.1")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body.encode())

    return behave


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    """Take the request and close the connection without an answer."""
    handler.close_connection = True
    handler.connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def session_with_keys(cell: Cell) -> Session:
    """A session of made-up credentials."""
    session: Session = boto3.Session("AKIDEXAMPLE", "secret", region_name=cell.region)
    return session
