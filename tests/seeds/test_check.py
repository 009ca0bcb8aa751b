"""`python -m patchwave check`: finds journal and ledger, prints the rules, and says by its exit status how it went."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from patchwave.campaign.folders import run_folder
from patchwave.cli.check import BROKEN, IMPOSSIBLE, KEPT, Options, check, in_one_line
from patchwave.cli.main import main
from patchwave.ledger.connect import ledger_at
from patchwave.ledger.store import RunOutcome
from tests.seeds.campaign import RUN, SeededCampaign
from tests.seeds.test_audit import FLEETS, STAGES

NOWHERE = "http://127.0.0.1:9"


class Rehearsal:
    """A run in a ledger on disk, and awsim's journal as the demo saves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = ledger_at(f"sqlite:///{folder / 'ledger.db'}")
        campaign = SeededCampaign(seed=1, calm=True, fleets=FLEETS, stages=STAGES, ledger=self.ledger)
        campaign.play()
        self.ledger.end_run(RUN, RunOutcome.SUCCEEDED, at=campaign.trace().records[-1].at)
        self.lines: list[dict[str, Any]] = campaign.world.journal()

    def checked(self, run: str = "latest", *, lines: list[dict[str, Any]] | None = None, **options: Any) -> tuple[int, str]:
        file = run_folder(self.folder / "runs", RUN) / "journal.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in self.lines if lines is None or line in lines))
        said = StringIO()
        values = {"awsim": NOWHERE, "ledger": f"sqlite:///{self.folder / 'ledger.db'}", "runs": self.folder / "runs"} | options
        return check(Options(run=run, **values), Console(file=said, width=200)), said.getvalue()


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    return Rehearsal(tmp_path_factory.mktemp("rehearsal"))


@pytest.mark.parametrize("name", ["latest", "run", "seeded/run"])
def test_a_good_run_is_called_good_under_each_of_its_names(rehearsal: Rehearsal, name: str) -> None:
    """By the saved journal when awsim has stopped."""
    status, said = rehearsal.checked(name)
    assert status == KEPT, said
    assert "12 rules, 0 broken: run seeded/run; 5 hosts" in said
    assert "as it was saved" in said


def test_a_broken_rule_is_shown_with_its_host_and_evidence(rehearsal: Rehearsal) -> None:
    """A patched host on which no Install ever began."""
    host = next(line["host"] for line in rehearsal.lines if line["operation"] == "Install")
    status, said = rehearsal.checked(
        lines=[line for line in rehearsal.lines if line["host"] != host or line["operation"] != "Install"]
    )
    assert status == BROKEN
    assert f"truth: {host}: the ledger calls it patched, but no Install ever began on it" in said
    assert "12 rules, 1 broken" in said
    assert "awsim's journal, line" in said


def test_what_cannot_be_checked_is_not_called_good(rehearsal: Rehearsal, tmp_path: Path) -> None:
    """No ledger, no such run, no journal."""
    status, said = rehearsal.checked(ledger=f"sqlite:///{tmp_path / 'none.db'}")
    assert (status, "there is no ledger at" in said) == (IMPOSSIBLE, True)
    status, said = rehearsal.checked("another")
    assert (status, "no run another; it has seeded/run" in said) == (IMPOSSIBLE, True)
    status, said = rehearsal.checked(runs=tmp_path)
    assert (status, "awsim does not answer" in said) == (IMPOSSIBLE, True)


def test_the_demo_says_it_in_one_line(rehearsal: Rehearsal) -> None:
    """The summary, and the first break if there is one."""
    text = "".join(json.dumps(line) + "\n" for line in rehearsal.lines)
    line, broken = in_one_line(rehearsal.ledger, RUN, text)
    assert (line.startswith("12 rules, 0 broken"), broken) == (True, False)
    line, broken = in_one_line(rehearsal.ledger, RUN, "")
    assert ("; first: truth:" in line, broken) == (True, True)


def test_the_command_knows_its_options(rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str]) -> None:
    """As people type it."""
    rehearsal.checked()
    arguments = ["check", "latest", "--awsim", NOWHERE, "--runs", str(rehearsal.folder / "runs")]
    assert main([*arguments, "--ledger", f"sqlite:///{rehearsal.folder / 'ledger.db'}"]) == KEPT
    assert "0 broken" in capsys.readouterr().out
