"""How often is AWS asked to patch a fleet, how long does it take, and is what is said of each host true? Ours beside the stock
operator: `python -m benchmarks.calls [HOSTS ...]`, or `make bench-calls`.

The same fleet in awsim (`benchmarks/measure.py` says which) is patched in ten waves of a tenth each:

- by ours: `PatchStageOperator` with its trigger, concurrency 10 %: Scan, Install, reboot, Scan;
- by Airflow's `SsmRunCommandOperator`, one for each 50 ids, once with what it takes to know of each host what ours knows (a Scan
  before and after the Install, which reboots by itself, and a page of patch states that a careful author reads with boto3),
  with its own pace of 120 s and with 5 s, which is ours at first; once with nothing but the Install; and that deferrable.

All hosts are well; with 500 hosts ours and the stock operator are measured a second time with a fleet in which one host in a
hundred fails to install and one in a hundred cannot be delivered to, for what is said of the hosts then.

No Airflow runs. Time is awsim's: when everybody sleeps, its clock is moved to the moment at which the first one wakes. What
Airflow takes is played by its measured means (`tasks.Airflow`): each start or resume on a worker holds a slot for 3.6 s and the
task waits for it; a trigger begins one second after the deferral, and a deferred wait costs no slot. Calls are counted where
botocore sends them, for both alike; making the plan (the list of hosts) is left out for both.

The stock operator sends commands and waits for them, and nothing else: it looks at no fleet, takes no reboot as a step of its
own, and reads no patch states. So its calls and ours are compared for the same work, too: to send a command and to follow it to
its end, for each command that a host carried out.

A Markdown table is printed, for `docs/benchmarks.md`. Ends with status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from typing import Any

PAGE = 50
"""SendCommand's ids, and rows of ListCommands, ListCommandInvocations, patch states and managed nodes that AWS gives."""
INSTANCES_PAGE = 1000
"""Rows of DescribeInstances."""
WAVES = 10
CALLS_OVER_FLOOR = 1.2
FEWER_THAN_STOCK = 20
WALL_OVER_FLOOR = 1.05
WALL_JUDGED_AT = 500

WAYS = {
    "ours": "Patchwave",
    "stock": "stock: Scan, Install, Scan, patch states; every 120 s",
    "stock-quick": "the same, every 5 s",
    "stock-install-only": "stock: Install only, every 120 s",
    "stock-deferrable": "the same, deferrable",
}
AT = {500: tuple(WAYS), 5000: ("ours", "stock")}
"""Which ways are measured with so many hosts: the large fleet takes minutes with each."""
ODD_AT = {500: ("ours", "stock", "stock-install-only", "stock-deferrable")}
"""The same with the fleet in which some hosts fail."""
FOLLOWING = frozenset(
    {"ssm:SendCommand", "ssm:ListCommands", "ssm:ListCommandInvocations", "ssm:GetCommandInvocation", "ssm:CancelCommand"}
)
"""Operations that send a command or follow it: all that the stock operator calls by itself."""
STOCK = "stock"
"""The way that ours is judged by: it is the cheaper one of the two that answer the same question."""


def floor(hosts: int) -> int:
    """Calls that nobody can do without who sends to 50 hosts at a time and takes each host's outcome from its own invocation.

    A command is one SendCommand and one page of ListCommandInvocations after its end, for Scan and Install one page of
    DescribeInstancePatchStates, too; and as all commands of a step run at once, one ListCommands for each 50 of them tells
    that they have ended. The Scan before is one step of all hosts; Install, reboot and Scan are steps of each wave. When the
    stage begins the fleet is looked at once, for the plan may be days old.
    """
    all_commands, commands = math.ceil(hosts / PAGE), math.ceil(hosts / WAVES / PAGE)
    fleet = math.ceil(hosts / INSTANCES_PAGE) + math.ceil(hosts / PAGE)
    scan = 3 * all_commands + math.ceil(all_commands / PAGE)
    wave = (3 + 2 + 3) * commands + 3 * math.ceil(commands / PAGE)
    return fleet + scan + WAVES * wave


def measured(way: str, hosts: int, *, odd: bool) -> dict[str, Any]:
    """One measurement, in a process and an Airflow home of its own."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PATCHWAVE_", "AWS_"))},
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        command = [sys.executable, "-m", "benchmarks.measure", way, str(hosts), *(["--odd"] if odd else [])]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - our own
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


HEAD = """\
| hosts | way | calls | a host | over the floor | a command of a host | wall | over the floor | worker slots | most in flight \
| told right |
|---|---|---|---|---|---|---|---|---|---|---|"""


def following(one: dict[str, Any]) -> float:
    """Calls to send a command to a host and to follow it to its end, on average over all that hosts carried out."""
    return float(sum(count for name, count in one["calls"].items() if name in FOLLOWING) / one["carried"])


def row(one: dict[str, Any], steps: float) -> str:
    """A line of the table."""
    hosts, calls = one["hosts"], sum(one["calls"].values())
    return (
        f"| {_fleet(one)} | {WAYS[one['way']]} | {calls:,} | {calls / hosts:.2f} | {calls / floor(hosts):.2f} "
        f"| {following(one):.3f} | {one['wall'] / 60:,.0f} min | {one['wall'] / steps:.2f} | {one['slot']:,.0f} s "
        f"| {one['in_flight']:,} | {one['right']:,} |"
    )


def missed(ours: dict[str, Any], stock: dict[str, Any]) -> list[str]:
    """Targets that are not kept, in sentences."""
    hosts, calls = ours["hosts"], sum(ours["calls"].values())
    least = floor(hosts)
    found = []
    if ours["right"] != hosts:
        found.append(f"{hosts} hosts: of {hosts - ours['right']} something wrong was said")
    if ours["odd"]:  # the others stop where their first host fails, so that nothing else can be compared
        return found
    if calls > CALLS_OVER_FLOOR * least:
        found.append(f"{hosts} hosts: {calls} calls are {calls / least:.2f} x the floor of {least}, not {CALLS_OVER_FLOOR}")
    fewer = following(stock) / following(ours)
    if fewer < FEWER_THAN_STOCK:
        found.append(
            f"{hosts} hosts: the stock operator makes {fewer:.1f} x as many calls to send and follow a command, "
            f"not {FEWER_THAN_STOCK}"
        )
    if hosts == WALL_JUDGED_AT and ours["wall"] > WALL_OVER_FLOOR * ours["steps"]:
        over = ours["wall"] / ours["steps"]
        found.append(f"{hosts} hosts: {ours['wall']:.0f} s are {over:.2f} x the floor of {ours['steps']:.0f} s")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and say whether all targets are kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls", description="Count calls to AWS, ours and the stock's.")
    parser.add_argument("hosts", type=int, nargs="*", default=sorted(AT), help="default: %(default)s")
    options = parser.parse_args(arguments)
    print(HEAD, flush=True)
    broken, by_operation = [], []
    for hosts in options.hosts:
        for odd, ways in ((False, AT.get(hosts, ("ours", STOCK))), (True, ODD_AT.get(hosts, ()))):
            results: dict[str, dict[str, Any]] = {}
            for way in ways:
                results[way] = measured(way, hosts, odd=odd)
                print(row(results[way], results["ours"]["steps"]), flush=True)
            if results:
                broken += missed(results["ours"], results[STOCK])
            by_operation += [_operations(one) for one in results.values()]
            if results and not odd:
                by_operation.append(_beside(results["ours"], results[STOCK]))
    print()
    print("\n".join(by_operation))
    for sentence in broken:
        print(sentence, file=sys.stderr)
    return 1 if broken else 0


def _beside(ours: dict[str, Any], stock: dict[str, Any]) -> str:
    """How many times fewer calls ours makes than the stock operator, for the same commands and for all that it does."""
    whole = sum(stock["calls"].values()) / sum(ours["calls"].values())
    return (
        f"{_fleet(ours)}: the stock operator makes {following(stock) / following(ours):.1f} x our calls to send and follow a "
        f"command of a host, and {whole:.1f} x in all, for {stock['carried']:,} commands of hosts where ours carries out "
        f"{ours['carried']:,}"
    )


def _operations(one: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {count:,}" for name, count in sorted(one["calls"].items()))
    took = f"{one['real']:.0f} s"
    installs = f"at most {one['installs']} Installs a host"
    return f"{_fleet(one)}, {one['way']}: {parts}; {one['legs']} legs; {installs}; took {took}"


def _fleet(one: dict[str, Any]) -> str:
    return f"{one['hosts']:,}, some fail" if one["odd"] else f"{one['hosts']:,}"


if __name__ == "__main__":
    sys.exit(main())
