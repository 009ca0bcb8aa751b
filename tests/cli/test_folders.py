"""Where the evidence of a run lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign.folders import LONGEST, folder_name, run_folder
from patchwave.campaign.values import RunId


def test_a_plain_run_id_stays_readable() -> None:
    """People look for the folder by the names they know from the UI."""
    run = RunId("weekly-linux/demo-20261123T104312Z")
    assert run_folder(Path("var/runs"), run) == Path("var/runs/weekly-linux--demo-20261123T104312Z")


def test_what_airflow_writes_into_run_ids_does_not_reach_the_file_system() -> None:
    """Colons and a plus are refused or quoted by file systems and shells."""
    name = folder_name(RunId("weekly-linux/manual__2026-11-23T10:29:49.123456+00:00"))
    assert name.startswith("weekly-linux--manual__2026-11-23T10-29-49.123456-00-00---")


@pytest.mark.parametrize(
    "run", ["../../etc/passwd", "..", "a/..", "/", "a/b/c", ".hidden/x", "a/b.", "", "ä/ö", "x" * 500 + "/" + "y" * 500]
)
def test_no_run_id_leads_out_of_the_folder(run: str) -> None:
    """A run id is typed by whoever triggers the run."""
    root = Path("/var/runs")
    folder = run_folder(root, RunId(run))
    assert folder.parent == root
    assert folder.resolve().parent == root
    assert len(folder.name) <= LONGEST + 13


@given(st.lists(st.text(alphabet="ab-_/.:+ ", min_size=1, max_size=8), min_size=2, max_size=2, unique=True))
def test_two_runs_never_share_a_folder(runs: list[str]) -> None:
    """Or the evidence of one would overwrite the other's."""
    first, second = (folder_name(RunId(f"dag/{run}")) for run in runs)
    assert first != second
