"""How do thousands of requests reach awsim without a socket? botocore makes and signs them, the WSGI application is called.

What a handler raises comes out here as it is (a server would answer 500 and hide it). `mangle` may spoil a body on its way.
"""

import io
from collections.abc import Callable
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.config import Config
from werkzeug.test import EnvironBuilder

from awsim.server import Simulator
from tests.simulator.conftest import REGION, SESSION

Mangle = Callable[[bytes], bytes]


class _Raw(io.BytesIO):
    def stream(self, *_: Any, **__: Any) -> Any:
        yield self.read()


class Direct:
    """Clients of one simulator; nothing is checked before it is sent."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.mangle: Mangle | None = None
        self.calls = 0
        self.body = b""
        """The last answer as it went over the wire."""
        self._clients: dict[tuple[str, str], Any] = {}

    def client(self, service: str, region: str = REGION) -> Any:
        if (service, region) not in self._clients:
            client = SESSION.client(
                service,
                region_name=region,
                endpoint_url="http://127.0.0.1:5005",
                aws_access_key_id="AKIAEXAMPLE",
                aws_secret_access_key="secret",
                config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
            )
            client.meta.events.register("before-send", self._send)
            self._clients[service, region] = client
        return self._clients[service, region]

    def _send(self, request: Any, **_: Any) -> AWSResponse:
        self.calls += 1
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else body.read()
        if self.mangle is not None:
            body = self.mangle(body)
        headers = {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in request.headers.items()}
        headers.pop("Content-Length", None)
        path = request.url.split("//", 1)[1].partition("/")[2]
        builder = EnvironBuilder(
            path=f"/{path}",
            base_url="http://127.0.0.1:5005",
            method=request.method,
            headers=headers,
            input_stream=io.BytesIO(body),
        )
        environ = builder.get_environ()
        environ["CONTENT_LENGTH"] = str(len(body))
        seen: dict[str, Any] = {}

        def start_response(status: str, answered: list[tuple[str, str]], exc_info: Any = None) -> None:
            seen.update(status=int(status.split(" ", 1)[0]), headers=dict(answered))

        content = self.body = b"".join(self.simulator(environ, start_response))
        return AWSResponse(request.url, seen["status"], seen["headers"], _Raw(content))
