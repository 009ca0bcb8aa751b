"""`python -m patchwave validate`: campaigns, policies, tables and catalogues, each by what it is."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from patchwave.cli.validate import POLICIES, validate
from tests.domain.test_catalogues import EPSS, a_file, a_record, an_entry

BOD = (POLICIES / "bod-26-04.yaml").read_text(encoding="utf-8")
ADDRESS = "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json"


def said(*files: Path) -> tuple[int, list[str]]:
    console = Console(file=io.StringIO(), width=400)
    code = validate(files, console)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue().splitlines()


def test_everything_that_is_shipped_is_good():
    """Without a name: all campaigns, policies and tables."""
    code, lines = said()
    assert code == 0
    assert {"weekly-linux: good", "policy bod-26-04: good", "table ssvc-deployer: good"} <= set(lines)


@pytest.mark.parametrize(("name", "text", "line"), [
    ("kev.json", a_file(an_entry()), "CISA's catalogue 2026.06.12 (1 entries"),
    ("answers.json", json.dumps([a_record()]), "answers.json (1 SSVC answers): good"),
    ("record.json", json.dumps(a_record()), "record.json (1 SSVC answers): good"),
    ("epss.csv", EPSS, "epss.csv (3 probabilities): good"),
    ("bod-26-04.yaml", BOD, "policy bod-26-04: good"),
    ("ssvc-deployer.yaml", (POLICIES / "tables" / "ssvc-deployer.yaml").read_text(encoding="utf-8"), "table ssvc-deployer: good"),
])  # fmt: skip
def test_a_file_is_read_as_what_it_is(tmp_path: Path, name: str, text: str, line: str):
    """Nobody has to say which kind."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    code, lines = said(tmp_path / name)
    assert code == 0
    assert lines[0].startswith(line)


def test_a_policy_is_checked_with_the_files_that_its_deadlines_go_by(tmp_path: Path):
    """A catalogue that is wrong would stop the run; better now than in the night of the window."""
    (tmp_path / "bod-26-04.yaml").write_text(BOD.replace(ADDRESS, "kev.json"), encoding="utf-8")
    code, lines = said(tmp_path / "bod-26-04.yaml")
    assert (code, lines) == (1, [f"{tmp_path}/kev.json:1: the file: cannot be read: No such file or directory"])
    (tmp_path / "kev.json").write_text(a_file(an_entry(), count=2), encoding="utf-8")
    code, (line,) = said(tmp_path / "bod-26-04.yaml")
    assert code == 1
    assert line.startswith(f"{tmp_path}/kev.json:5: count: says 2")


@pytest.mark.parametrize(("name", "text", "line"), [
    ("bod-26-04.yaml", BOD.replace("table: bod-26-04", "table: bod"), "deadlines.table: found 'bod'; allowed are bod-26-04"),
    ("kev.json", "<html>", "kev.json:1: the file: is no valid JSON"),
    ("list.json", "5", "list.json:1: the file: found the number 5; allowed is a mapping or a list"),
    ("none.yaml", None, "none.yaml:1: the file: cannot be read"),
    ("empty.yaml", "", "empty.yaml:1: the file: is empty"),
])  # fmt: skip
def test_what_is_wrong_is_said_with_file_line_and_field(tmp_path: Path, name: str, text: str | None, line: str):
    """And the exit code says that something is."""
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    code, lines = said(tmp_path / name)
    assert code == 1
    assert any(line in one for one in lines), lines
