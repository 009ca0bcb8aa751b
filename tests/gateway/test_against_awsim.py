"""The gateway against the simulated AWS, over HTTP: one host's way through a campaign, in the order in which it goes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from patchwave.aws import automation, commands
from patchwave.campaign import errors
from patchwave.campaign.compliance import Evaluation
from patchwave.campaign.fleet import Host, Readiness, readiness
from patchwave.campaign.remediation import RUNBOOK, RemedyState
from patchwave.campaign.rollout import Dispatch, Invocation, Outcome, StepKind
from patchwave.campaign.values import Cell, HostId
from tests.gateway.conftest import CELL
from tests.gateway.simulated import Simulated, small_world

RULE = "ec2-managedinstance-patch-compliance-status-check"
START = datetime(2026, 3, 3, 22, tzinfo=UTC)


class Campaigning(Simulated):
    """A world in which steps are carried out as a campaign does."""

    def carry_out(self, step: StepKind, host: Host, *, snapshot: str = "") -> tuple[str, Invocation]:
        """Send a step to one host and let time pass until AWS calls the command complete."""
        token = uuid.uuid4().hex
        dispatch = Dispatch(
            token=token, step=step, cell=CELL, platform=host.platform, hosts=(host.id,), attempt=1, snapshot=snapshot
        )
        spec = commands.command_for(dispatch, campaign="weekly-linux", stage="staging")
        began = self.now
        sent = self.gateway.send(
            CELL, document=spec.document, parameters=spec.parameters, hosts=dispatch.hosts, comment=spec.comment,
            timeout=spec.timeout,
        )  # fmt: skip
        assert self.gateway.find_command(CELL, token, since=began) == sent
        for _ in range(60):
            self.pass_time(timedelta(minutes=1))
            if self.gateway.commands(CELL, [sent.id])[sent.id].complete:
                (invocation,) = self.gateway.invocations(CELL, sent.id, token)
                return sent.id, invocation
        pytest.fail(f"the {step.value} did not end within an hour")


@pytest.fixture(scope="module")
def aws() -> Iterator[Campaigning]:
    with small_world(START) as url:
        yield Campaigning(url)


def staging(aws: Campaigning) -> list[Host]:
    return [
        one
        for one in aws.gateway.fleet(CELL, {"Patch Group": ("linux-staging",)})
        if readiness(one) is Readiness.READY and one.platform.startswith("Amazon")
    ]


def test_we_are_in_the_account_of_the_cell(aws: Campaigning) -> None:
    """Otherwise every call would be made in another account's name."""
    assert aws.gateway.caller(CELL).account == CELL.account


def test_the_fleet_has_every_host_with_its_platform_and_group(aws: Campaigning) -> None:
    """The world file says how many there are."""
    prod = aws.gateway.fleet(CELL, {"Patch Group": ("linux-prod",)})
    assert len(prod) == 50
    assert {one.group for one in prod} == {"web-prod"}
    assert {one.platform for one in prod} == {"Amazon Linux 2023", "Ubuntu 24.04"}
    dev = aws.gateway.fleet(CELL, {"PatchGroup": ("linux-dev",)})
    assert sorted(readiness(one).value for one in dev) == ["ready", "ready", "ready", "unreachable"]
    abroad = Cell(account=CELL.account, region="us-east-1")
    assert Readiness.STOPPED in {readiness(one) for one in aws.gateway.fleet(abroad, {"PatchGroup": ("linux-dev",)})}


def test_a_vanished_id_is_absent(aws: Campaigning) -> None:
    """And the others are still told."""
    (first, *_) = staging(aws)
    found = aws.gateway.hosts(CELL, [first.id, HostId("i-0fffffffffffffff0")])
    assert [one.id for one in found] == [first.id]
    health = aws.gateway.health(CELL, [first.id, HostId("i-0fffffffffffffff0")])
    assert [one.healthy for one in health] == [True, False]


def test_a_host_goes_its_whole_way(aws: Campaigning) -> None:
    """Scan, Install without reboot, reboot by our script, Scan: the report of each step is the one of that step."""
    host = staging(aws)[0]
    _, scan = aws.carry_out(StepKind.SCAN, host)
    assert (scan.outcome, scan.exit_code) == (Outcome.SUCCEEDED, 0)
    before = aws.gateway.patch_states(CELL, [host.id])[host.id]
    assert before.operation == "Scan"
    assert before.missing == len(aws.gateway.patches(CELL, host.id, states=["Missing"])) > 0

    snapshot = uuid.uuid4().hex
    _, install = aws.carry_out(StepKind.INSTALL, host, snapshot=snapshot)
    assert install.outcome is Outcome.SUCCEEDED
    installed = aws.gateway.patch_states(CELL, [host.id])[host.id]
    assert (installed.operation, installed.missing, installed.snapshot) == ("Install", 0, str(uuid.UUID(snapshot)))
    assert installed.pending_reboot > 0

    command, reboot = aws.carry_out(StepKind.REBOOT, host)
    assert (reboot.outcome, reboot.exit_code) == (Outcome.SUCCEEDED, 0)

    aws.carry_out(StepKind.VERIFY, host)
    assert aws.gateway.patch_states(CELL, [host.id])[host.id].compliant
    assert command in aws.gateway.commands(CELL, [command, str(uuid.uuid4())])


def test_a_host_that_aws_does_not_manage_refuses_the_whole_command(aws: Campaigning) -> None:
    """And nothing is sent to the others."""
    first, *_ = staging(aws)
    since = aws.now
    with pytest.raises(errors.HostsRefused):
        aws.gateway.send(
            CELL, document="AWS-RunPatchBaseline", parameters={"Operation": ("Scan",)},
            hosts=[first.id, HostId("i-0fffffffffffffff0")], comment=f"patchwave {'0' * 32}", timeout=timedelta(minutes=10),
        )  # fmt: skip
    assert aws.gateway.find_command(CELL, "0" * 32, since=since) is None


def test_inspector_tells_findings_and_whom_it_does_not_cover(aws: Campaigning) -> None:
    """Both are read to the last page."""
    found = list(aws.gateway.findings(CELL))
    hosts = {one.id for one in aws.gateway.fleet(CELL, {})}
    assert {one.host for one in found} <= hosts
    assert len(found) > 100, "more than one page was expected"
    covered = {one.host: one for one in aws.gateway.coverage(CELL)}
    assert any(not one.active for one in covered.values())
    prod = list(aws.gateway.findings(CELL, tags={"Patch Group": ("linux-prod",)}))
    assert {one.host for one in prod} < {one.host for one in found}


def test_config_evaluates_once_and_then_later(aws: Campaigning) -> None:
    """The second wish within a minute is refused, which is no error."""
    asked = aws.now
    assert aws.gateway.evaluate(CELL, [RULE, "absent"]) == {RULE: Evaluation.STARTED, "absent": Evaluation.NO_RULE}
    assert aws.gateway.evaluate(CELL, [RULE]) == {RULE: Evaluation.LATER}
    aws.pass_time(timedelta(minutes=10))
    succeeded = aws.gateway.rule_status(CELL, [RULE, "absent"])[RULE].succeeded_at
    assert succeeded is not None
    assert succeeded >= asked
    results = aws.gateway.rule_compliance(CELL, RULE)
    assert results
    assert {one.host for one in results} <= {one.id for one in aws.gateway.fleet(CELL, {})}
    assert aws.gateway.rule_compliance(CELL, "absent") is None


def test_systems_manager_agrees_with_the_reports(aws: Campaigning) -> None:
    """Two views of the same run of the agent."""
    hosts = [one.id for one in aws.gateway.fleet(CELL, {})]
    states = aws.gateway.patch_states(CELL, hosts)
    compliance = aws.gateway.resource_compliance(CELL, hosts)
    assert {host: one.compliant for host, one in compliance.items()} == {host: one.compliant for host, one in states.items()}


def test_a_remedy_is_started_once_and_leaves_the_host_compliant(aws: Campaigning) -> None:
    """The same token names the same execution, also when it is asked for again."""
    host = staging(aws)[1]
    for _ in range(2):
        aws.gateway.ensure_runbook(CELL, RUNBOOK, automation.runbook())
    token = str(uuid.uuid4())
    execution = aws.gateway.start_automation(CELL, RUNBOOK, {"InstanceId": [host.id]}, token)
    assert aws.gateway.start_automation(CELL, RUNBOOK, {"InstanceId": [host.id]}, token) == execution
    found = aws.gateway.find_automation(CELL, token)
    assert found is not None
    assert found.id == execution
    for _ in range(60):
        aws.pass_time(timedelta(minutes=1))
        status = aws.gateway.automation(CELL, execution)
        if status.ended:
            break
    assert (status.state, status.failure) == (RemedyState.SUCCEEDED, "")
    assert aws.gateway.patch_states(CELL, [host.id])[host.id].compliant
