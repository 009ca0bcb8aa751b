"""Do the real tasks go their whole way in the benchmark, and is a target that is missed told?"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import estate
from benchmarks.plan import MEBIBYTES, Process
from benchmarks.stations import TASKS, measured, missed
from patchwave.aws import inspector
from patchwave.campaign.values import RunId
from patchwave.ledger.connect import ledger_at

RUN = RunId("whole-company/manual__1")


def test_a_finding_comes_back_from_the_wire():
    """What is measured is what Inspector says: nothing is lost, and no field is made up twice."""
    for one in estate.findings(300, hosts=200):
        row = estate.on_the_wire(one)
        assert inspector._finding(one.cell, row, row["resources"][0]) == one


def test_findings_within_a_cell_are_of_its_hosts():
    """Or verify would look for them in vain."""
    cell = estate.CELLS[3]
    its = {host.id for host in estate.hosts(200) if host.cell == cell}
    found = list(estate.findings(300, hosts=200, within=cell))
    assert {one.cell for one in found} == {cell}
    assert {one.host for one in found if one.resource_type == estate.EC2} == its


def test_every_task_goes_its_way_in_a_process_of_its_own(tmp_path: Path):
    """From pages to plan and report, with nothing between them but the ledger's file."""
    took = dict(measured(tmp_path, hosts=160, findings=1600))
    assert list(took) == list(TASKS)
    assert all(one.memory > 50 for one in took.values())
    ledger = ledger_at(f"sqlite:///{tmp_path / 'ledger.db'}")
    stored = {name: ledger.rows(RUN, name, of=of).count for name, of in [
        ("findings.before", None), ("triage", "assessments"), ("findings.after", "findings"), ("coverage.before", None),
    ]}  # fmt: skip
    assert stored == {"findings.before": 1600, "triage": 1600, "findings.after": 1600, "coverage.before": 160}
    assert took["plan"].printed["said"] == ledger.documents(RUN)["plan"]
    report = json.loads((Path(took["report"].printed["said"]) / "report.json").read_text(encoding="utf-8"))
    assert report["findings"]["open"] == 800
    assert report["findings"]["before"] == 1600


def test_a_missed_target_has_a_sentence():
    """Whoever reads the output of CI must not have to compute."""
    assert missed("plan", Process(wall=9, processor=9, memory=MEBIBYTES, printed={})) == []
    assert missed("plan", Process(wall=9, processor=9, memory=2000.0, printed={})) == ["plan: 2,000 MiB, wanted are 1,024 MiB"]
