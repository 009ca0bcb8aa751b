"""awsim as a process: what it needs to start, and who can reach it."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.simulator.conftest import SMALL

ROOT = Path(__file__).parents[2]
TCP = Path("/proc/net/tcp")
LISTENS = "0A"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m awsim` on a free port in an environment without anything of AWS, and its URL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "include")}
    command = [sys.executable, "-m", "awsim", "--world", str(SMALL), "--port", "0", "--speed", "0"]
    started = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    said = started.stdout.readline()
    assert said.startswith("awsim ready: "), (said, started.stderr)
    yield started, said.split()[2]
    started.terminate()
    started.communicate(timeout=20)
    assert started.returncode == 0


def _listening(pid: int, table: Path) -> list[tuple[str, int]]:
    """(address in hexadecimal, port) of each socket of the process that listens."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        told = os.readlink(entry)
        if told.startswith("socket:["):
            inodes.add(told[8:-1])
    rows = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]] if table.exists() else []
    local = [row[1].split(":") for row in rows if row[3] == LISTENS and row[9] in inodes]
    return [(address, int(port, 16)) for address, port in local]


@pytest.mark.skipif(not TCP.exists(), reason="which sockets listen is read from Linux's /proc")
def test_awsim_listens_on_loopback_only_and_needs_no_credentials(process):
    """One socket, 127.0.0.1, none of IPv6; no AWS variable, no home directory; any key will do for a client."""
    started, url = process
    port = int(url.rpartition(":")[2])
    assert _listening(started.pid, TCP) == [("0100007F", port)]
    assert _listening(started.pid, Path("/proc/net/tcp6")) == []
    with urllib.request.urlopen(f"{url}/_awsim/health", timeout=20) as answer:
        assert json.load(answer)["hosts"] == 66
    client = boto3.client(
        "ssm", endpoint_url=url, region_name="eu-central-1", aws_access_key_id="anything", aws_secret_access_key="x"
    )
    assert client.describe_instance_information(MaxResults=5)["InstanceInformationList"]
