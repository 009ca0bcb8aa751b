"""What the crash checks are given: campaigns and a world that can be read, and triggers without patience."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from awsim.catalogue import shipped
from awsim.world_file import load
from patchwave.campaign import definition
from patchwave.cli.environment import REPOSITORY
from tests.crashes import campaigns, moments


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Written as for a run."""
    slow = {"sa-east-1": [6500, 7000]}
    return campaigns.write(tmp_path / "given", timings={"install": [600, 900]}, slow=slow, remedied=moments.REMEDIED)


def test_every_campaign_can_be_read(world: Path) -> None:
    """One that cannot is no DAG, and the crash checks would kill processes of an idle Airflow."""
    found, broken = definition.read_all(world.parent / "campaigns", policies=REPOSITORY / "include" / "policies")
    assert list(broken) == []
    assert len(found) == len(campaigns.REGIONS)
    assert [one.name for one in found if one.remediate.stages] == [campaigns.name_of(region) for region in moments.REMEDIED]


def test_the_world_can_be_read_and_every_host_of_it_is_expected_to_become_something(world: Path) -> None:
    """Of eighteen hosts of a campaign fifteen are patched, and the one whose Install fails gets one, too."""
    fleets = [one for one in load(world, shipped()).fleets if one.region == "eu-west-1"]
    names = [f"{fleet.name}/{number}" for fleet in fleets for number in range(1, fleet.count + 1)]
    expected = [campaigns.expected(name, stages=list(campaigns.FLEETS)) for name in names]
    assert Counter(became for became, _ in expected) == {"patched": 15, "already_compliant": 1, "stopped": 1, "failed": 1}
    assert sum(installs for _, installs in expected) == 16


def test_a_stage_that_was_not_chosen_is_left_alone() -> None:
    """Neither a class nor an Install."""
    assert campaigns.expected("eu-west-1-prod/2", stages=["staging"]) == ("", 0)


def test_the_early_triggers_really_have_no_patience(tmp_path: Path) -> None:
    """Else the moment at which a trigger fires at once would prove nothing."""
    code = "from patchwave.triggers import watch; print(watch.first_look())"
    environment = {"PYTHONPATH": moments.EARLY["PYTHONPATH"], "AIRFLOW_HOME": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split()[-1] == "0.0"


def test_the_full_disk_is_really_full_while_the_file_is_there(tmp_path: Path) -> None:
    """Else the moment at which there is no room would prove nothing; and there is room again afterwards."""
    code = """
import os, pathlib, sys
from patchwave.campaign.errors import LedgerUnavailable
from patchwave.ledger.connect import ledger_at
from tests.ledger.builders import AT, DEV, RUN, a_run
ledger = ledger_at(sys.argv[1])
ledger.open_run(a_run(), [DEV])
full = pathlib.Path(os.environ["PATCHWAVE_TESTS_DISK_FULL"])
full.touch()
try:
    ledger.record(RUN, "note", {"long": "x" * 9000}, at=AT)
except LedgerUnavailable as refused:
    print(refused)
full.unlink()
ledger.record(RUN, "note", {"long": "x" * 9000}, at=AT)
"""
    environment = {
        "PYTHONPATH": f"{moments.FULL['PYTHONPATH']}:{REPOSITORY}",
        "PATCHWAVE_TESTS_DISK_FULL": str(tmp_path / "full"),
    }
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'ledger.db'}"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.startswith("the ledger's disk is full")
