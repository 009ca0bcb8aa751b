"""Answers as AWS's own documentation prints them, over HTTP and through botocore's parsers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patchwave.aws.gateway import Gateway
from patchwave.campaign.compliance import Compliance
from patchwave.campaign.remediation import RemedyState
from patchwave.campaign.rollout import Outcome
from patchwave.campaign.values import HostId
from tests.gateway.conftest import CELL, COMMAND, Server, answers, session_with_keys

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "aws-cli-examples"
pytestmark = pytest.mark.skipif(not SAMPLES.exists(), reason="the samples of the AWS CLI's documentation are not here")


def told(server: Server, sample: str) -> Gateway:
    """A gateway to an AWS that answers everything with that sample, as its last page."""
    answer = json.loads((SAMPLES / sample).read_text())
    answer.pop("NextToken", None)
    server.behaviour = answers(200, json.dumps(answer))
    return Gateway(session_with_keys, endpoint_url=server.url)


def test_invocations(server: Server) -> None:
    """Epoch seconds, one plugin."""
    found = told(server, "ssm/list-command-invocations/01.output.json").invocations(CELL, COMMAND, "t")
    assert {one.outcome for one in found} == {Outcome.SUCCEEDED}
    assert {one.exit_code for one in found} == {0}


def test_commands(server: Server) -> None:
    """ISO times with an offset; the Comments are others' and carry no token of ours."""
    gateway = told(server, "ssm/list-commands/01.output.repaired.json")
    command = "8bee3135-398c-4d31-99b6-e42d2EXAMPLE"
    status = gateway.commands(CELL, [command])[command]
    assert (status.complete, status.targets, status.completed, status.errors) == (True, 6, 6, 0)
    assert gateway.find_command(CELL, "0" * 32, since=status.requested_at) is None


def test_patch_states(server: Server) -> None:
    """Every count of the row."""
    found = told(server, "ssm/describe-instance-patch-states/01.output.json").patch_states(CELL, [HostId("i-1234567890abcdef0")])
    (state,) = found.values()
    assert (state.operation, state.installed, state.missing, state.failed) == ("Scan", 123, 1, 2)
    assert not state.compliant


def test_patches(server: Server) -> None:
    """The wire's spelling of the states."""
    gateway = told(server, "ssm/describe-instance-patches/02.output.repaired.json")
    assert {one.state for one in gateway.patches(CELL, HostId("i-1"))} == {"missing"}


def test_rule_results(server: Server) -> None:
    """Under a rule about instances Config's id is the instance's."""
    found = told(server, "configservice/get-compliance-details-by-config-rule/01.output.json").rule_compliance(CELL, "r")
    assert found
    assert {one.host for one in found} >= {"i-1a2b3c4d", "i-2a2b3c4d"}
    assert {one.compliance for one in found} == {Compliance.NON_COMPLIANT}


def test_rule_status(server: Server) -> None:
    """A rule that was invoked and has evaluated nothing yet has no success."""
    found = told(server, "configservice/describe-config-rule-evaluation-status/01.output.json").rule_status(
        CELL, ["MyConfigRule"]
    )
    assert found["MyConfigRule"].succeeded_at is None


def test_coverage(server: Server) -> None:
    """Reason and status code of a covered host."""
    (one,) = told(server, "inspector2/list-coverage/01.output.json").coverage(CELL)
    assert (one.active, one.reason, one.host) == (True, "SUCCESSFUL", "i-EXAMPLE55555555555")


def test_automation(server: Server) -> None:
    """A finished execution with its steps."""
    status = told(server, "ssm/get-automation-execution/01.output.json").automation(CELL, "73c8eef8-f4ee-4a05-820c-e354fEXAMPLE")
    assert (status.state, status.ended, status.failure) == (RemedyState.SUCCEEDED, True, "")
