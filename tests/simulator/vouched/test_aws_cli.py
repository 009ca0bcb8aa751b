"""The AWS CLI, as a process, through a morning of an operator: what is typed, and what must stand on the screen.

awscli brings its own botocore, so it lives in an environment of its own below var/ (`make aws-cli` makes it beforehand).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.conftest import Aws
from tests.simulator.vouched.stage import RULE, RUNBOOK, STAGE

REPOSITORY = Path(__file__).parents[3]
PLACE = REPOSITORY / "var" / "aws-cli"
VERSION = "1.46.3"
REFUSED = 255
"""The CLI's exit code when a service refuses (version 2 says 254)."""


@pytest.fixture(scope="session")
def program() -> Path:
    """The CLI; made on first use."""
    aws = PLACE / "bin" / "aws"
    if not aws.exists():
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if uv is None:
            pytest.skip("no AWS CLI: there is no uv to install it with; run `make venv`, then `make aws-cli`")
        for command in (
            [uv, "venv", "--quiet", "--python", sys.executable, str(PLACE)],
            [uv, "pip", "install", "--quiet", "--python", str(PLACE / "bin" / "python"), f"awscli=={VERSION}"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
            if done.returncode:
                shutil.rmtree(PLACE, ignore_errors=True)
                pytest.skip(f"no AWS CLI: it cannot be installed here: {done.stderr.strip()[-300:]}")
    return aws


class Terminal:
    """Types commands; counts them."""

    def __init__(self, program: Path, aws: Aws, home: Path) -> None:
        self._program, self._home, self.typed = program, home, 0
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
        self._environment = {
            **kept,
            "HOME": str(home),
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL": aws.url,
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def run(self, *words: str, fails: bool = False) -> str:
        self.typed += 1
        done = subprocess.run(
            [str(self._program), *words],
            capture_output=True,
            text=True,
            timeout=60,
            env=self._environment,
            cwd=self._home,
            check=False,
        )
        assert done.returncode == (REFUSED if fails else 0), f"aws {' '.join(words)}: {done.returncode} {done.stderr}"
        return done.stderr.strip() if fails else done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--output", "json"))

    def text(self, *words: str) -> list[str]:
        return self.run(*words, "--output", "text").split()


@pytest.fixture
def terminal(program: Path, start: Callable[..., Aws], tmp_path: Path) -> tuple[Terminal, Aws]:
    aws = start(STAGE)
    (tmp_path / "runbook.json").write_text(json.dumps(RUNBOOK), encoding="utf-8")
    return Terminal(program, aws, tmp_path), aws


def test_an_operator_patches_a_fleet_with_the_aws_cli(terminal):
    """Thirty commands in a row: looking, patching, waiting, a window, a runbook, Config, a refresh, and mistakes."""
    cli, aws = terminal
    web = aws.hosts("web")

    # who am I, what is there
    assert cli.json("sts", "get-caller-identity")["Account"] == "111111111111"
    assert set(cli.text("organizations", "list-accounts", "--query", "Accounts[].Id")) == {
        "111111111111",
        "222222222222",
        "333333333333",
    }
    tagged = cli.text(
        "ec2", "describe-instances", "--filters", "Name=tag:PatchGroup,Values=web",
        "--query", "Reservations[].Instances[].InstanceId",
    )  # fmt: skip
    assert sorted(tagged) == sorted([*web, *aws.hosts("app")])
    managed = cli.text("ssm", "describe-instance-information", "--query", "InstanceInformationList[].InstanceId")
    _, stopped, unregistered, *_ = aws.hosts("odd")
    assert sorted(managed) == sorted(set(aws.hosts()) - {stopped, unregistered, *aws.hosts("far")})
    table = cli.run("ssm", "describe-instance-information", "--page-size", "5", "--output", "table")
    assert all(host in table for host in web)
    few = cli.json("ssm", "describe-instance-information", "--max-items", "2")
    assert len(few["InstanceInformationList"]) == 2
    rest = cli.json("ssm", "describe-instance-information", "--starting-token", few["NextToken"])
    assert [row["InstanceId"] for part in (few, rest) for row in part["InstanceInformationList"]] == managed

    # what is missing
    (baseline,) = cli.text(
        "ssm", "get-patch-baseline-for-patch-group", "--patch-group", "web", "--operating-system", "AMAZON_LINUX_2023",
        "--query", "BaselineId",
    )  # fmt: skip
    assert cli.json("ssm", "get-patch-baseline", "--baseline-id", baseline)["Name"] == "all-al2023"
    (state,) = cli.json("ssm", "describe-instance-patch-states", "--instance-ids", web[0])["InstancePatchStates"]
    assert state["MissingCount"] > 0
    missing = cli.json("ssm", "describe-instance-patches", "--instance-id", web[0], "--filters", "Key=State,Values=Missing")
    assert len(missing["Patches"]) == state["MissingCount"]
    findings = cli.json(
        "inspector2", "list-findings", "--max-items", "3",
        "--filter-criteria", json.dumps({"resourceId": [{"comparison": "EQUALS", "value": web[0]}]}),
    )["findings"]  # fmt: skip
    assert [row["resources"][0]["id"] for row in findings] == [web[0]] * 3
    assert set(web) <= set(cli.text("inspector2", "list-coverage", "--query", "coveredResources[].resourceId"))

    # patch it
    command = cli.json(
        "ssm", "send-command", "--document-name", "AWS-RunPatchBaseline", "--instance-ids", web[0],
        "--parameters", "Operation=Install,RebootOption=RebootIfNeeded", "--comment", "by hand", "--timeout-seconds", "600",
    )["Command"]  # fmt: skip
    assert (command["Status"], command["Comment"]) == ("Pending", "by hand")
    aws.advance(600)
    named = ("--command-id", command["CommandId"], "--instance-id", web[0])
    assert cli.run("ssm", "wait", "command-executed", *named) == ""
    assert cli.json("ssm", "get-command-invocation", *named)["Status"] == "Success"
    (state,) = cli.json("ssm", "describe-instance-patch-states", "--instance-ids", web[0])["InstancePatchStates"]
    assert (state["Operation"], state["MissingCount"]) == ("Install", 0)

    # a script on all of them
    script = cli.text(
        "ssm", "send-command", "--document-name", "AWS-RunShellScript", "--targets", "Key=tag:PatchGroup,Values=web",
        "--parameters", 'commands=["echo hello","exit 3"]', "--max-concurrency", "50%", "--max-errors", "100%",
        "--query", "Command.CommandId",
    )[0]  # fmt: skip
    aws.advance(300)
    details = ("--query", "CommandInvocations[].StatusDetails")
    assert cli.text("ssm", "list-command-invocations", "--command-id", script, *details) == ["Failed"] * len(tagged)
    detailed = cli.json(
        "ssm", "list-command-invocations", "--command-id", script, "--details", "--page-size", "1", "--max-items", "1"
    )
    (plugin,) = detailed["CommandInvocations"][0]["CommandPlugins"]
    assert (plugin["ResponseCode"], plugin["Output"][:6]) == (3, "hello\n")

    # a window
    window = cli.json(
        "ssm", "create-maintenance-window", "--name", "nightly", "--schedule", "cron(0 2 ? * TUE *)", "--duration", "3",
        "--cutoff", "1", "--no-allow-unassociated-targets",
    )["WindowId"]  # fmt: skip
    soon = cli.json("ssm", "describe-maintenance-window-schedule", "--window-id", window, "--max-items", "2")
    assert [row["ExecutionTime"] for row in soon["ScheduledWindowExecutions"]] == ["2026-01-06T02:00Z", "2026-01-13T02:00Z"]

    # a runbook of our own
    written = cli.json(
        "ssm", "create-document", "--name", "Waits", "--document-type", "Automation", "--document-format", "JSON",
        "--content", "file://runbook.json",
    )["DocumentDescription"]  # fmt: skip
    assert (written["Name"], written["SchemaVersion"]) == ("Waits", "0.3")
    begun = cli.json("ssm", "start-automation-execution", "--document-name", "Waits", "--parameters", f"InstanceId={web[0]}")
    aws.advance(60)
    ended = cli.json("ssm", "get-automation-execution", "--automation-execution-id", begun["AutomationExecutionId"])
    assert ended["AutomationExecution"]["AutomationExecutionStatus"] == "Success"

    # Config
    aws.advance(900)
    verdicts = cli.json("configservice", "get-compliance-details-by-config-rule", "--config-rule-name", RULE)["EvaluationResults"]
    of_host = [row for row in verdicts if web[0] in row["EvaluationResultIdentifier"]["EvaluationResultQualifier"]["ResourceId"]]
    assert [row["ComplianceType"] for row in of_host] == ["COMPLIANT"]

    # the group
    refresh = cli.json(
        "autoscaling", "start-instance-refresh", "--auto-scaling-group-name", "app",
        "--preferences", '{"InstanceWarmup": 60, "MinHealthyPercentage": 50}',
    )["InstanceRefreshId"]  # fmt: skip
    aws.advance(20)
    (row,) = cli.json("autoscaling", "describe-instance-refreshes", "--auto-scaling-group-name", "app")["InstanceRefreshes"]
    assert (row["InstanceRefreshId"], row["Status"]) == (refresh, "InProgress")
    assert cli.json("autoscaling", "cancel-instance-refresh", "--auto-scaling-group-name", "app")["InstanceRefreshId"] == refresh

    # mistakes
    nobody = cli.run(
        "ssm", "send-command", "--document-name", "AWS-RunShellScript", "--instance-ids", "i-0123456789abcdef0",
        "--parameters", "commands=df", fails=True,
    )  # fmt: skip
    assert "(InvalidInstanceId) when calling the SendCommand operation" in nobody
    strange = cli.run("ssm", "describe-instance-information", "--filters", "Key=Colour,Values=red", fails=True)
    assert "(InvalidFilterKey)" in strange
    unknown = cli.run("autoscaling", "describe-instance-refreshes", "--auto-scaling-group-name", "nobody", fails=True)
    assert "(ValidationError)" in unknown

    assert cli.typed >= 30


def test_make_installs_the_cli_that_the_test_types_on():
    """One version in two places."""
    assert f"awscli=={VERSION}" in (REPOSITORY / "Makefile").read_text("utf-8")
