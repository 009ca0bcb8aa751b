"""How fast does awsim start, how much memory does it take, and how fast does it answer? `python -m awsim.bench [HOSTS ...]`.

Each size is a process of its own, measured from outside as a caller meets it; a Markdown table is printed, for
`docs/benchmarks.md`. Ends with status 1 when a limit that we promise is broken.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config

LIMITS = {10_000: (20.0, 2048.0), 100_000: (120.0, None)}
"""Hosts -> seconds to the start, MiB of memory."""
ANSWER_LIMIT = 0.020
"""Seconds that DescribeInstancePatchStates of 50 hosts takes, the median."""
CALLS = 60

_WORLD = """
name: bench
accounts: [{{id: "111111111111"}}]
regions: [eu-central-1, us-east-1]
templates:
  amazon: {{os: amazon-linux-2023, missing: {{count: [5, 12]}}}}
  ubuntu: {{os: ubuntu-24.04, missing: {{count: [5, 8]}}}}
  redhat: {{os: rhel-9, missing: {{count: [5, 8]}}}}
fleets:
  - name: web
    account: "111111111111"
    region: eu-central-1
    count: {half}
    mix: [{{template: amazon, share: 0.5}}, {{template: ubuntu, share: 0.5}}]
    tags: {{Environment: prod, PatchGroup: web}}
  - name: far
    account: "111111111111"
    region: us-east-1
    count: {half}
    template: redhat
    tags: {{Environment: prod, PatchGroup: web}}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    hosts: int
    start: float
    start_processor: float
    """Of `start`, the seconds that the processor worked for it: what a machine with nothing else to do would need."""
    memory: float
    answer: float
    answer_processor: float
    """Of the server alone."""

    def broken(self) -> list[str]:
        seconds, mebibytes = LIMITS.get(self.hosts, (None, None))
        found = []
        if seconds is not None and self.start > seconds:
            found.append(f"{self.hosts} hosts started in {self.start:.1f} s, promised are {seconds:g} s")
        if mebibytes is not None and self.memory > mebibytes:
            found.append(f"{self.hosts} hosts took {self.memory:.0f} MiB, promised are {mebibytes:g} MiB")
        if self.answer > ANSWER_LIMIT:
            found.append(
                f"{self.hosts} hosts: 50 patch states took {self.answer * 1000:.1f} ms, promised are {ANSWER_LIMIT * 1000:g} ms"
            )
        return found

    def row(self) -> str:
        start = f"{self.start:.1f} s | {self.start_processor:.1f} s"
        answer = f"{self.answer * 1000:.1f} ms | {self.answer_processor * 1000:.1f} ms"
        return f"| {self.hosts:,} | {start} | {self.memory:,.0f} MiB | {answer} |"


def measure(hosts: int) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "bench.yaml"
        world.write_text(_WORLD.format(half=hosts // 2), encoding="utf-8")
        command = [sys.executable, "-m", "awsim", "--world", str(world), "--port", "0", "--speed", "0", "--seed", "1"]
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command line
        try:
            ready = process.stdout.readline() if process.stdout else ""
            start = time.perf_counter() - begun
            if not ready.startswith("awsim ready: "):
                raise RuntimeError(f"awsim did not start: {ready!r}")
            worked = _processor(process.pid)
            answer = _answer(ready.split()[2])
            answer_processor = (_processor(process.pid) - worked) / CALLS
            memory = _memory(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=60)
    return Measured(
        hosts=hosts, start=start, start_processor=worked, memory=memory, answer=answer, answer_processor=answer_processor
    )


def _answer(url: str) -> float:
    ssm = boto3.client(
        "ssm",
        region_name="eu-central-1",
        endpoint_url=url,
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="secret",  # noqa: S106 - the simulator takes every one
        config=Config(retries={"total_max_attempts": 1}),
    )
    pages = ssm.get_paginator("describe_instance_information").paginate(PaginationConfig={"MaxItems": 50, "PageSize": 50})
    ids = [row["InstanceId"] for page in pages for row in page["InstanceInformationList"]]
    if len(ids) != 50:
        raise RuntimeError(f"50 managed nodes were expected, not {len(ids)}")
    taken = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        ssm.describe_instance_patch_states(InstanceIds=ids)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def _processor(pid: int) -> float:
    """Seconds of processor time of a process so far (0 where there is no /proc)."""
    status = Path(f"/proc/{pid}/stat")
    if not status.exists():
        return 0.0
    fields = status.read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    """The most that the process ever had in memory, in MiB."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m awsim.bench", description="Measure awsim with worlds of these sizes.")
    parser.add_argument("hosts", type=int, nargs="*", default=sorted(LIMITS), help="default: %(default)s")
    options = parser.parse_args(arguments)
    print("| hosts | start | of it processor | memory, at most | 50 patch states, median | of it the server's processor, mean |")
    print("|---|---|---|---|---|---|", flush=True)
    broken = []
    for hosts in options.hosts:
        measured = measure(hosts)
        print(measured.row(), flush=True)
        broken += measured.broken()
    for sentence in broken:
        print(sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
