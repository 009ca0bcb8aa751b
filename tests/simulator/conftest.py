"""A simulated AWS for a test: the server in this process, the clock standing still until the test moves it."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from awsim.server import Server, Simulator

ACCOUNT = "111111111111"
REGION = "eu-central-1"
BASE = 1_767_600_000.0  # 2026-01-05T08:00:00Z
SMALL = Path(__file__).parents[2] / "include" / "worlds" / "small.yaml"

SESSION = boto3.Session()  # loads each service model once

AMAZON = """
accounts: [{id: "111111111111"}]
regions: [eu-central-1]
timings: {delivery: [1, 1], scan: [20, 20], install: [100, 100], reboot: [90, 90], status_check: [30, 30]}
templates:
  amazon: {os: amazon-linux-2023, missing: {count: [4, 6], always: [kernel]}}
"""
"""A world with one kind of host: its name goes before, other templates and its fleets behind."""

FEW = """
name: few
accounts: [{id: "111111111111"}]
regions: [eu-central-1, us-east-1]
timings: {delivery: [1, 1], scan: [20, 20], install: [100, 100], reboot: [90, 90], status_check: [30, 30]}
baselines:
  - name: all-al2023
    operating_system: AMAZON_LINUX_2023
    patch_groups: [web]
    rules:
      - {filters: {CLASSIFICATION: [Security]}, compliance_level: HIGH}
      - {filters: {CLASSIFICATION: [Bugfix]}, compliance_level: LOW}
templates:
  amazon: {os: amazon-linux-2023, missing: {count: [4, 6], always: [kernel, expat]}, not_patchable: [go-binary-stdlib]}
  ubuntu: {os: ubuntu-24.04, missing: {count: [3, 3]}}
fleets:
  - name: web
    account: "111111111111"
    region: eu-central-1
    count: 4
    template: amazon
    tags: {Environment: dev, PatchGroup: web}
  - name: odd
    account: "111111111111"
    region: eu-central-1
    count: 5
    template: ubuntu
    tags: {Environment: dev, "Patch Group": odd}
    scanned: false
    exceptions:
      - {host: 1, agent: connection_lost}
      - {host: 2, state: stopped}
      - {host: 3, agent: not_registered}
      - {host: 4, install_fails: {exit_code: 1, times: 1}}
      - {host: 5, compliant: true}
  - name: far
    account: "111111111111"
    region: us-east-1
    count: 1
    template: amazon
    tags: {Environment: dev, PatchGroup: web}
"""


class Aws:
    """Clients, control calls and the few sentences that every test says."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.simulator = server.simulator
        self._clients: dict[tuple[str, str], Any] = {}

    def client(self, service: str, region: str = REGION, **credentials: str) -> Any:
        key = (service, region, *sorted(credentials.items()))
        if key not in self._clients:
            given = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "secret", **credentials}
            retries = Config(retries={"total_max_attempts": 1})
            self._clients[key] = SESSION.client(service, region_name=region, endpoint_url=self.url, config=retries, **given)
        return self._clients[key]

    @property
    def ssm(self) -> Any:
        return self.client("ssm")

    @property
    def ec2(self) -> Any:
        return self.client("ec2")

    def control(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """The JSON answer of `/_awsim/<path>`."""
        return json.loads(self.raw(path, body, method))

    def raw(self, path: str, body: Any = None, method: str | None = None) -> str:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_awsim/{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode()

    def advance(self, seconds: float) -> None:
        self.control("advance", {"seconds": seconds})

    def hosts(self, fleet: str = "") -> list[str]:
        """Instance ids of a fleet, in its order."""
        return [row["host"] for row in self.control("hosts")["hosts"] if row["name"].startswith(f"{fleet}/") or not fleet]

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw("journal").splitlines()]

    def events(self, host: str) -> list[str]:
        return [line["event"] for line in self.journal() if line["host"] == host]

    def patch(self, *ids: str, operation: str = "Install", **request: Any) -> str:
        """Send AWS-RunPatchBaseline; the command's id."""
        parameters = {"Operation": [operation], **request.pop("Parameters", {})}
        sent = self.ssm.send_command(DocumentName="AWS-RunPatchBaseline", InstanceIds=list(ids), Parameters=parameters, **request)
        return str(sent["Command"]["CommandId"])

    def script(self, *ids: str, lines: list[str], **request: Any) -> str:
        sent = self.ssm.send_command(
            DocumentName="AWS-RunShellScript", InstanceIds=list(ids), Parameters={"commands": lines}, **request
        )
        return str(sent["Command"]["CommandId"])

    def status(self, command: str) -> str:
        return str(self.ssm.list_commands(CommandId=command)["Commands"][0]["StatusDetails"])

    def details(self, command: str) -> dict[str, str]:
        """StatusDetails of each invocation that is listed."""
        rows = self.ssm.list_command_invocations(CommandId=command)["CommandInvocations"]
        return {row["InstanceId"]: row["StatusDetails"] for row in rows}

    def patch_state(self, host: str) -> dict[str, Any]:
        (row,) = self.ssm.describe_instance_patch_states(InstanceIds=[host])["InstancePatchStates"]
        return dict(row)

    def patches(self, host: str, state: str) -> list[dict[str, Any]]:
        pages = self.ssm.get_paginator("describe_instance_patches").paginate(
            InstanceId=host, Filters=[{"Key": "State", "Values": [state]}]
        )
        return [row for page in pages for row in page["Patches"]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Aws]]:
    """`start(world, seed=...)`: a fresh simulator whose clock stands still; one at a time, for moto's state is the process's."""
    servers: list[Server] = []

    def begin(world: str | Path | None = FEW, *, seed: int = 1, speed: float = 0) -> Aws:
        while servers:
            servers.pop().stop()
        path = world
        if isinstance(world, str):
            path = tmp_path / "world.yaml"
            path.write_text(world, encoding="utf-8")
        servers.append(Server(Simulator(world=path, speed=speed, seed=seed, base=BASE)).start())
        return Aws(servers[-1])

    yield begin
    for server in servers:
        server.stop()


@pytest.fixture
def aws(start: Callable[..., Aws]) -> Aws:
    return start()
