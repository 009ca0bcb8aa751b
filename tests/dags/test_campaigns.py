"""The DAG files: what they make of campaign files, and what they leave alone."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

REPOSITORY = Path(__file__).resolve().parents[2]
DAGS = REPOSITORY / "dags"
CAMPAIGNS = REPOSITORY / "include/campaigns"
POLICIES = REPOSITORY / "include/policies"

EDGES = {
    ("scan_findings", "classify"),
    ("classify", "plan"),
    ("plan", "dev.patch"),
    ("dev.patch", "dev.health"),
    ("dev.health", "dev.soak"),
    ("dev.soak", "staging.approve"),
    ("staging.approve", "staging.approve_2"),
    ("staging.approve_2", "staging.approve_3"),
    ("staging.approve_3", "staging.patch"),
    ("staging.patch", "staging.health"),
    ("staging.health", "staging.soak"),
    ("staging.soak", "prod.approve"),
    ("prod.approve", "prod.approve_2"),
    ("prod.approve_2", "prod.approve_3"),
    ("prod.approve_3", "prod.patch"),
    ("prod.patch", "prod.health"),
    ("prod.health", "prod.soak"),
    ("prod.soak", "verify"),
    ("verify", "remediate"),
    ("remediate", "verify_again"),
    ("verify_again", "report"),
    ("report", "outcome"),
}

RULES = {
    "staging.approve": "none_failed",
    "prod.approve": "none_failed",
    "verify": "all_done",
    "report": "all_done",
    "outcome": "all_done",
}


def bag(folder: Path = DAGS) -> DagBag:
    return DagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="tests")


@pytest.fixture(scope="module")
def loaded() -> tuple[DagBag, float]:
    began = time.monotonic()
    return bag(), time.monotonic() - began


@pytest.fixture(scope="module")
def weekly(loaded: tuple[DagBag, float]) -> Any:
    return loaded[0].dags["weekly-linux"]


def test_every_dag_file_is_imported_without_an_error_well_within_airflows_limit(loaded: tuple[DagBag, float]) -> None:
    """dagbag_import_timeout is 30 s."""
    assert loaded[0].import_errors == {}
    assert loaded[1] < 30


def test_every_file_below_dags_is_known_to_a_test() -> None:
    """Whoever adds one says here what it is for: `campaigns.py` makes DAGs, `campaign_files.py` reports broken files,
    `watcher.py` watches for emergencies, `rollback.py` takes runs back and deletes snapshots."""
    assert {path.relative_to(DAGS).as_posix() for path in DAGS.rglob("*.py")} == {
        "campaigns.py",
        "campaign_files.py",
        "watcher.py",
        "rollback.py",
    }


def test_there_is_one_dag_per_campaign_file_and_a_watcher_per_emergency(loaded: tuple[DagBag, float]) -> None:
    """Named like the file's campaign, from the loader and no other file."""
    files = {name: Path(dag.fileloc).name for name, dag in loaded[0].dags.items()}
    assert files == {path.stem: "campaigns.py" for path in CAMPAIGNS.glob("*.yaml")} | {
        "emergency_watch": "watcher.py", "rollback": "rollback.py", "snapshot_retention": "rollback.py",
    }  # fmt: skip


# --- the shape of weekly-linux -----------------------------------------------------------------------------------------------
def test_weekly_linux_has_exactly_these_edges(weekly: Any) -> None:
    """Stage after stage, then proof, remedies, proof again, report, outcome. An edge more or less is another campaign."""
    edges = {(task.task_id, below) for task in weekly.tasks for below in task.downstream_task_ids}
    assert edges == EDGES


def test_each_stage_is_a_task_group_of_its_tasks(weekly: Any) -> None:
    """Dev asks nobody; the others begin with their gate, which asks again after the window that somebody defers to."""
    groups = {name: set(group.children) for name, group in weekly.task_group.get_task_group_dict().items() if name}
    asked = ("approve", "approve_2", "approve_3", "patch", "health", "soak")
    assert groups == {
        "dev": {"dev.patch", "dev.health", "dev.soak"},
        "staging": {f"staging.{name}" for name in asked},
        "prod": {f"prod.{name}" for name in asked},
    }


def test_trigger_rules_are_these_and_no_others(weekly: Any) -> None:
    """A stage left out lets the next one ask; proof, report and outcome come whatever happened; patch never comes unasked."""
    assert {task.task_id: task.trigger_rule.value for task in weekly.tasks} == {
        task.task_id: RULES.get(task.task_id, "all_success") for task in weekly.tasks
    }


def test_the_outcome_is_the_only_leaf(weekly: Any) -> None:
    """A run is as green as its leaves: a report that succeeded must not hide a stage that failed."""
    assert [task.task_id for task in weekly.leaves] == ["outcome"]


def test_runs_of_a_campaign_never_overlap_and_never_catch_up(weekly: Any) -> None:
    """One run at a time, and none for a moment that has passed."""
    assert weekly.max_active_runs == 1
    assert weekly.catchup is False
    assert weekly.timetable.serialize() == {"cron": "0 22 * * 2", "timezone": "Europe/Vienna"}


def test_every_task_may_be_run_again_often(weekly: Any) -> None:
    """Airflow fails healthy tasks now and then, and ten minutes without AWS must not end a campaign that could go on."""
    assert min(task.retries * task.retry_delay for task in weekly.tasks) >= timedelta(minutes=10)


def test_people_find_it_by_owner_and_tags_and_read_its_page(weekly: Any) -> None:
    """What an operator needs at 3 a.m. stands behind the book icon."""
    assert weekly.owner == "platform-operations"
    assert weekly.tags == {"patchwave", "policy:standard", "stage:dev", "stage:staging", "stage:prod"}
    assert weekly.description
    for words in ("# weekly-linux", "| prod |", "Europe/Vienna", "olga, ana", "Clear the stage's `patch` task", "No answer"):
        assert words in weekly.doc_md


def test_the_trigger_form_protects_whoever_clicks(weekly: Any) -> None:
    """A dry run by default, every field described, every default valid, so that the schedule can begin a run."""
    form = weekly.params
    assert set(form) == {"dry_run", "stages", "severities", "vulnerabilities"}
    assert form.dump() == {"dry_run": True, "stages": None, "severities": None, "vulnerabilities": None}
    form.validate()
    for name in form:
        assert form.get_param(name).schema["description_md"]
    assert form.get_param("stages").schema["items"]["enum"] == ["dev", "staging", "prod"]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("dry_run", "yes"), ("stages", ["qa"]), ("severities", ["bad"]), ("vulnerabilities", ["heartbleed"]), ("stages", "dev")],
)
def test_the_trigger_form_refuses_what_means_nothing(weekly: Any, name: str, wrong: Any) -> None:
    """Airflow checks it on the server before a run begins."""
    with pytest.raises(ValueError):
        weekly.params.get_param(name).resolve(wrong)


def test_gates_ask_the_campaigns_approvers_and_silence_means_no(weekly: Any) -> None:
    """Airflow's request is answered by them only; it has no default that Airflow could take for an answer."""
    for stage in ("staging", "prod"):
        gate = weekly.get_task(f"{stage}.approve")
        assert [user["id"] for user in gate.assigned_users] == ["olga", "ana"]
        assert gate.defaults is None
        assert gate.response_timeout == timedelta(hours=24)


def test_every_dag_is_serialised_with_its_timetable(loaded: tuple[DagBag, float]) -> None:
    """What the scheduler works from, through JSON and back."""
    for dag in loaded[0].dags.values():
        stored = json.loads(json.dumps(DagSerialization.to_dict(dag)))
        assert {task["__var"]["task_id"] for task in stored["dag"]["tasks"]} == set(dag.task_ids)
        again = DagSerialization.from_dict(stored)
        if hasattr(dag.timetable, "summary"):  # one of ours; Airflow's own have it in the scheduler only
            assert again.timetable.summary == dag.timetable.summary


# --- emergencies -------------------------------------------------------------------------------------------------------------
def test_the_form_of_an_emergency_asks_for_cve_ids_and_keeps_the_canary(loaded: tuple[DagBag, float]) -> None:
    """Compulsory and without a default; a dry run until somebody switches it off, as with every campaign."""
    form = copy.deepcopy(loaded[0].dags["emergency"].params)  # Airflow's keep what they are asked
    assert form.get_param("dry_run").resolve() is True
    with pytest.raises(ValueError, match="vulnerabilities"):
        form.validate()
    assert form.get_param("vulnerabilities").resolve(["CVE-2026-12345"]) == ["CVE-2026-12345"]
    assert form.get_param("stages").resolve(["canary"]) == ["canary"]
    form.validate()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("vulnerabilities", []), ("vulnerabilities", None), ("vulnerabilities", ["heartbleed"]), ("stages", ["everybody"])],
)
def test_the_form_of_an_emergency_refuses_what_means_nothing(loaded: tuple[DagBag, float], name: str, wrong: Any) -> None:
    """On the server, before a run begins."""
    with pytest.raises(ValueError):
        loaded[0].dags["emergency"].params.get_param(name).resolve(wrong)


def test_an_emergency_is_started_by_nobody_but_people_and_its_watcher(loaded: tuple[DagBag, float]) -> None:
    """Behind the canary the people on call are asked."""
    dag = loaded[0].dags["emergency"]
    assert dag.schedule is None
    assert "canary.approve" not in dag.task_ids
    assert [user["id"] for user in dag.get_task("everybody.approve").assigned_users] == ["olga", "uma"]


def test_the_watcher_looks_every_hour_asks_and_starts(loaded: tuple[DagBag, float]) -> None:
    """One look at a time, none for hours that have passed; a question is over before the next look."""
    dag = loaded[0].dags["emergency_watch"]
    edges = {(task.task_id, below) for task in dag.tasks for below in task.downstream_task_ids}
    assert edges == {("look", "ask"), ("ask", "start")}
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    again = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    assert again.timetable.summary == "0 * * * *"
    ask = dag.get_task("ask")
    assert [user["id"] for user in ask.assigned_users] == ["olga", "uma"]
    assert ask.defaults == ["Reject"]
    assert ask.response_timeout < timedelta(hours=1)
    assert dag.get_task("start").trigger_dag_id == "emergency"
    assert "Nothing urgent" in dag.doc_md


# --- files of one's own ------------------------------------------------------------------------------------------------------
@pytest.fixture
def campaigns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the campaign files that a test may break."""
    folder = tmp_path / "campaigns"
    shutil.copytree(CAMPAIGNS, folder)
    monkeypatch.setenv("PATCHWAVE_CAMPAIGNS", str(folder))
    monkeypatch.setenv("PATCHWAVE_POLICIES", str(POLICIES))
    return folder


def test_a_gate_of_a_quorum_is_a_chain_of_questions(campaigns: Path) -> None:
    """One task a question, each with the form for a reason and for fewer hosts; the stage comes after the last one.

    Both people may have to be asked a second time.
    """
    path = campaigns / "weekly-linux.yaml"
    text = path.read_text(encoding="utf-8")
    rules = "      approvers: [olga]\n      roles: [board]\n      quorum: 2\n"
    assert text.count("      approvers: [olga, ana]\n") == 2
    text = re.sub("    window: .*\n", "", text)  # one more question, for whoever defers
    path.write_text(text.replace("      approvers: [olga, ana]\n", rules) + "roles: {board: [ana, uma]}\n", encoding="utf-8")
    dag = bag().dags["weekly-linux"]
    assert dag.get_task("prod.approve").downstream_task_ids == {"prod.approve_2"}
    assert dag.get_task("prod.approve_4").downstream_task_ids == {"prod.patch"}
    assert [dag.get_task(f"prod.{name}").trigger_rule.value for name in ("approve", "approve_2")] == [
        "none_failed",
        "all_success",
    ]
    gate = dag.get_task("prod.approve_2")
    assert (gate.number, gate.last) == (2, 4)
    assert [user["id"] for user in gate.assigned_users] == ["olga", "ana", "uma"]
    assert set(gate.serialized_params) == {"reason", "without"}
    assert "2 of olga, ana, uma" in dag.doc_md


@pytest.mark.parametrize(
    ("schedule", "summary", "told"),
    [
        ("patch_tuesday: {plus_days: 3, at: '22:00', timezone: Europe/Berlin}",
         "Second Tuesday of the month plus 3 days 22:00 Europe/Berlin",
         "**Runs:** second Tuesday of the month plus 3 days at 22:00 (Europe/Berlin)."),
        ("weekly: {on: [tuesday, friday], at: '06:00', timezone: Asia/Tokyo}", "Every Tuesday, Friday 06:00 Asia/Tokyo",
         "**Runs:** every Tuesday, Friday at 06:00 (Asia/Tokyo)."),
    ],
)  # fmt: skip
def test_a_campaign_of_another_schedule_has_its_timetable_when_the_scheduler_reads_it(
    campaigns: Path, schedule: str, summary: str, told: str
) -> None:
    """From the file through the DAG and its JSON to the next run; people read it in the list and on the page."""
    path = campaigns / "weekly-linux.yaml"
    text = path.read_text(encoding="utf-8")
    cron = 'schedule:\n  cron: "0 22 * * 2"\n  timezone: Europe/Vienna\n'
    assert cron in text
    path.write_text(text.replace(cron, f"schedule:\n  {schedule}\n", 1), encoding="utf-8")
    found = bag()
    assert found.import_errors == {}
    dag = found.dags["weekly-linux"]
    again = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    assert again.timetable.summary == summary
    assert told in dag.doc_md
    coming = again.next_dagrun_info(last_automated_run_info=None)
    assert coming is not None
    assert coming.run_after > datetime.now(UTC) - timedelta(minutes=5)


def test_a_watcher_that_starts_at_once_asks_nobody(campaigns: Path) -> None:
    """The file says so."""
    path = campaigns / "emergency.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("start: ask", "start: at_once"), encoding="utf-8")
    dag = bag().dags["emergency_watch"]
    assert set(dag.task_ids) == {"look", "start"}
    assert "**It starts** `emergency` at once" in dag.doc_md


# --- broken files ------------------------------------------------------------------------------------------------------------
def test_a_broken_emergency_is_named_and_has_neither_dag_nor_watcher(campaigns: Path) -> None:
    """A watcher of nothing would look as if somebody watched."""
    path = campaigns / "emergency.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("start: ask", "start: soon"), encoding="utf-8")
    found = bag()
    assert not {"emergency", "emergency_watch"} & set(found.dags)
    ((_, message),) = found.import_errors.items()
    assert "emergency.start" in message


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("policy: standard", "policy: standrd", "policy"),
        ("concurrency: 10%", "concurrency: 110%", "stages[2].concurrency"),
        ("    soak: 30m", "    soak: 30", "stages[0].soak"),
        ("owner:", "ownr:", "ownr"),
        ("stages:", "stages: [", "the file"),
    ],
)
def test_a_broken_file_leaves_the_others_and_is_named(campaigns: Path, old: str, new: str, field: str) -> None:
    """The good campaigns stay; one import error names file, line and field of the bad one."""
    path = campaigns / "weekly-linux.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    found = bag()
    others = {"emergency_watch", "rollback", "snapshot_retention"}
    assert set(found.dags) == {path.stem for path in CAMPAIGNS.glob("*.yaml")} - {"weekly-linux"} | others
    ((file, message),) = found.import_errors.items()
    assert Path(file).name == "campaign_files.py"
    assert "weekly-linux.yaml:" in message
    assert field in message


def test_several_broken_files_are_all_named(campaigns: Path) -> None:
    """In one go: nobody mends them one parse at a time."""
    (campaigns / "a.yaml").write_text("name: a\n", encoding="utf-8")
    (campaigns / "b.yaml").write_text("", encoding="utf-8")
    ((_, message),) = bag().import_errors.items()
    assert "a.yaml:1" in message
    assert "b.yaml:1" in message


def test_a_campaign_with_a_broken_policy_has_no_dag(campaigns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody patches by rules that cannot be read; campaigns of other policies stay."""
    policies = tmp_path / "policies"
    shutil.copytree(POLICIES, policies)
    (policies / "standard.yaml").write_text("nonsense: true\n", encoding="utf-8")
    monkeypatch.setenv("PATCHWAVE_POLICIES", str(policies))
    found = bag()
    assert "weekly-linux" not in found.dags
    ((_, message),) = found.import_errors.items()
    assert "standard.yaml" in message


# --- what a parse does not do ------------------------------------------------------------------------------------------------
PARSE = """
import json, runpy, socket, sys
sys.path.insert(0, {include!r})

def refuse(*args, **kwargs):
    raise AssertionError("a DAG file opened a connection")

socket.socket.connect = refuse
import sqlite3
sqlite3.connect = refuse
{guard}
runpy.run_path({file!r}, run_name="unusual_prefix_parsed")
print("MODULES", json.dumps(sorted(sys.modules)))
"""


NO_CLIENTS = "import botocore.session; botocore.session.Session.create_client = refuse"


def modules_after_parsing(file: str, tmp_path: Path, *, guard: str = "") -> set[str]:
    """What a fresh process has imported once it has read a DAG file; connections are refused."""
    program = PARSE.format(include=str(REPOSITORY / "include"), file=str(DAGS / file), guard=guard)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW_CONN_PATCHWAVE_LEDGER": "sqlite:////nowhere/ledger.db"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("MODULES ")]
    return set(json.loads(line.removeprefix("MODULES ")))


@pytest.mark.parametrize("file", ["campaigns.py", "watcher.py", "rollback.py"])
def test_parsing_opens_no_connection_and_makes_no_client(file: str, tmp_path: Path) -> None:
    """The wiring is all that is computed: no database, no AWS, no client of it."""
    modules = modules_after_parsing(file, tmp_path, guard=NO_CLIENTS)
    assert "patchwave.operators.base" in modules
    assert not (tmp_path / "airflow.db").exists()
    assert "moto" not in modules
    assert "awsim" not in modules


def test_the_file_that_reports_broken_campaigns_imports_neither_airflow_nor_the_loader(tmp_path: Path) -> None:
    """Importing the loader would register all DAGs under its name, and its error would make them stale."""
    modules = modules_after_parsing("campaign_files.py", tmp_path)
    assert not {name for name in modules if name.partition(".")[0] in ("airflow", "boto3", "sqlalchemy", "campaigns")}
    assert not {name for name in modules if name.startswith("patchwave.operators")}
