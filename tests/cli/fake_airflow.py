"""A small HTTP server that answers as a test tells it, in place of an Airflow whose flaws cannot be called up at will."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]


class FakeAirflow:
    """Scripted answers by method and path; the last one of a script stays.

    Attributes:
        calls: (method, path, body, bearer token) in the order in which they came.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any, str]] = []
        self.scripts: dict[tuple[str, str], list[Answer | Callable[[Any], Answer]]] = {}
        self.tokens = 0
        self.address = ""

    def on(self, method: str, path: str, *answers: Answer | Callable[[Any], Answer]) -> None:
        """Answer that request so; one answer after another."""
        self.scripts[method, f"/api/v2{path}"] = list(answers)

    def said(self, method: str) -> list[tuple[str, Any]]:
        """Paths and bodies of the requests with that method."""
        return [(path, body) for verb, path, body, _ in self.calls if verb == method]

    def reply(self, method: str, path: str, body: Any, token: str) -> Answer:
        """What the handler sends."""
        if path == "/auth/token":
            self.tokens += 1
            return 201, {"access_token": f"token-{self.tokens}"}
        self.calls.append((method, path, body, token))
        script = self.scripts.get((method, path.partition("?")[0]))
        if not script:
            return 404, {"detail": "not found"}
        answer = script.pop(0) if len(script) > 1 else script[0]
        return answer(body) if callable(answer) else answer


@contextmanager
def serving() -> Iterator[FakeAirflow]:
    """A fake that listens."""
    fake = FakeAirflow()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            status, said = fake.reply(self.command, self.path, body, token)
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _handle  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
