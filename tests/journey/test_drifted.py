"""Somebody patches a host of prod by hand before its turn: the stage halts, and says which host has what."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun
from tests.journey.test_promoted import come_out, withdraw

CAMPAIGN, REGION = "drifted", "me-south-1"
ADVISORY, NEWER = "USN-7155-1", "linux-image-aws.amd64 is 0:6.8.0-1020.22"
HASTY = "drifted-prod/01"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """A newer kernel comes out while the gate asks, and somebody has it installed on one host; then olga approves."""
    withdraw(run, ADVISORY)
    run.begin(dry_run=False)
    run.gate("prod")
    come_out(run, ADVISORY)
    ssm, hasty = run.client("ssm"), run.host(HASTY)
    sent = ssm.send_command(
        DocumentName="AWS-RunPatchBaseline", InstanceIds=[hasty], Parameters={"Operation": ["Install"]}, Comment="by hand"
    )["Command"]["CommandId"]
    run.until(
        lambda: [one["Status"] for one in ssm.list_command_invocations(CommandId=sent)["CommandInvocations"]] == ["Success"],
        "the host is patched by hand",
    )
    run.answer("prod", approve=True)
    run.ended()


def test_the_stage_halts_by_name(journey: FollowedRun) -> None:
    """Host, package, and both versions; the run is red."""
    stage = journey.ledger.stage(journey.id, "prod")
    assert (journey.state, stage.state.value) == ("failed", "halted")
    assert stage.reason.startswith("lockfile: 1 hosts have not what Dev received")
    assert journey.host(HASTY) in stage.reason
    assert f"{NEWER}, the lockfile says 0:6.8.0-1018.20" in stage.reason


def test_the_other_host_has_what_dev_has(journey: FollowedRun) -> None:
    """The halt comes when everybody is settled."""
    compared = journey.ledger.document(journey.id, "compared:prod")["hosts"]
    hasty = journey.host(HASTY)
    assert {host: bool(said) for host, said in compared.items()} == {host: host == hasty for host in journey.planned["prod"]}
    other = next(iter(journey.planned["prod"] - {hasty}))
    assert journey.classes[other] == "patched"


def test_the_report_says_it(journey: FollowedRun) -> None:
    """To whoever was not there."""
    assert "the lockfile says 0:6.8.0-1018.20" in (journey.folder / "report.html").read_text()
