"""awsim as a process of its own, for the gateway to talk to over HTTP, with the clock standing still until a test moves it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from patchwave.aws.gateway import Gateway
from tests.gateway.conftest import session_with_keys

ROOT = Path(__file__).parents[2]


class Simulated:
    """A gateway, and what moves the world behind it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.gateway = Gateway(session_with_keys, endpoint_url=url)

    def control(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(f"{self.url}/_awsim/{path}", json.dumps(body).encode() if body else None)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def pass_time(self, time: timedelta) -> None:
        self.control("advance", seconds=time.total_seconds())

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.control("clock")["epoch"], UTC)


@contextmanager
def small_world(start: datetime) -> Iterator[str]:
    """The address of the 66 hosts of ``include/worlds/small.yaml``; `start` is the world's first moment, in UTC."""
    process = subprocess.Popen(
        [sys.executable, "-m", "awsim", "--world", str(ROOT / "include/worlds/small.yaml"), "--port", "0",
         "--speed", "0", "--seed", "7", "--base", start.replace(tzinfo=None).isoformat()],
        env={**os.environ, "PYTHONPATH": str(ROOT / "include")}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("awsim ready: "), line
        yield line.split()[2]
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()
