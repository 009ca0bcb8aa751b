"""Laws of the ledger's pages: nobody reads them unseen, nothing from AWS runs in them, and they answer when nothing does."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi import HTTPException
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.campaign import calls, evidence, lockfile
from patchwave.campaign.errors import LedgerUnavailable
from patchwave.campaign.rollout import HostState
from patchwave.campaign.values import RunId
from patchwave.dashboard import access, markup, queries
from patchwave.dashboard.app import create_app, open_ledger
from patchwave.ledger.changes import EXPLAINED, explained
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import RunOutcome, StageState
from tests.domain.report_builders import BEGAN, NOW, a_plan, a_run
from tests.plugin.builders import (
    ODD_RUN_IDS,
    a_busy_run,
    app_for,
    client,
    host_id,
    open_run,
    put_host,
    put_stage,
    with_report,
)

DAG = "weekly-linux"
ROUTES = [route for route in create_app().routes if isinstance(route, APIRoute)]
SHOWN = ("runs", "live", "files/report.html", "files/plan.html")
"""What a person looks at in the browser."""
HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(1)>'


def filled(path: str, dag_run_id: str = ODD_RUN_IDS[0]) -> str:
    """The path with a run in it; names and parts that exist."""
    values = {"dag_id": DAG, "dag_run_id:path": quote(dag_run_id, safe=""), "part": "waits",
              "name": "report.html" if path.startswith("/files") else "ledger.css"}  # fmt: skip
    return re.sub(r"\{([^}]+)\}", lambda match: values[match[1]], path)


def run_path(kind: str, dag_run_id: str) -> str:
    return f"/{kind}/{DAG}/{quote(dag_run_id, safe='')}"


# --- Who may read ------------------------------------------------------------------------------------------------------------


def test_the_walk_over_the_routes_sees_all_of_them():
    """A mount or a websocket would stand beside the application's dependency, open to anybody."""
    assert len(ROUTES) == len(create_app().routes) >= 10


@pytest.mark.parametrize("path", [route.path for route in ROUTES])
def test_nobody_reads_anything_without_signing_in(path):
    """Airflow guards none of a plugin's routes: page, file, JSON, style sheet, each refuses a stranger."""
    app = create_app()
    app.dependency_overrides[open_ledger] = MemoryLedger
    answer = TestClient(app).get(filled(path))
    assert answer.status_code == 401
    assert answer.json() == {"detail": "Not authenticated"}


@pytest.mark.parametrize("path", [route.path for route in ROUTES])
def test_a_signed_in_viewer_reads_everything(path):
    """So that the test above fails for the right reason."""
    ledger = MemoryLedger()
    with_report(ledger, a_busy_run(ledger))
    assert client(ledger).get(filled(path)).status_code == 200


@pytest.mark.parametrize("path", [route.path for route in ROUTES if "{dag_id}" in route.path])
def test_whoever_may_not_read_a_dag_reads_none_of_its_runs(path):
    """Airflow's permissions per DAG hold for its page as well."""
    ledger = MemoryLedger()
    with_report(ledger, a_busy_run(ledger))
    answer = client(ledger, may_read=lambda dag_id: dag_id in {None, "another"}).get(filled(path))
    assert answer.status_code == 403


def test_the_list_holds_only_runs_of_dags_that_may_be_read():
    """Not even the name of a campaign is shown to others."""
    ledger = MemoryLedger()
    open_run(ledger, "dev")
    open_run(ledger, "dev", dag_id="secret", campaign="secret")
    page = client(ledger, may_read=lambda dag_id: dag_id != "secret")
    for path in ("/", "/live", "/api/runs"):
        assert DAG in page.get(path).text
        assert "secret" not in page.get(path).text


def test_a_refused_token_is_refused_here_too():
    """What Airflow answers to a bad token goes through unchanged."""
    app = create_app()

    def refused() -> None:
        raise HTTPException(403, "Invalid JWT token")

    app.dependency_overrides[access.signed_in] = refused
    assert TestClient(app).get("/").status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_changed_here(method):
    """POST routes of a plugin have no protection against other sites' forms; there are none."""
    assert {name for route in ROUTES for name in route.methods} == {"GET"}
    for route in ROUTES:
        assert client().request(method, filled(route.path)).status_code == 405


def test_no_documentation_page_is_served():
    """FastAPI's own would be open and load scripts from elsewhere."""
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert client().get(path).status_code == 404


# --- What runs in the browser ------------------------------------------------------------------------------------------------


def test_names_from_tags_and_words_of_people_cannot_become_markup():
    """Every value on the page is written by somebody else: it is shown, never run."""
    ledger = MemoryLedger()
    run = open_run(ledger, "dev", campaign=HOSTILE, requested_by=HOSTILE)
    plan = a_plan(dev=[1, 2])
    plan["stages"][0]["hosts"][1].update(name=HOSTILE, platform=HOSTILE, note=HOSTILE)
    ledger.put_document(run.id, "plan", plan, at=BEGAN)
    ledger.put_document(run.id, "plan.md", f"# {HOSTILE}\n\n{HOSTILE}\n\n| a |\n|---|\n| {HOSTILE} |\n", at=BEGAN)
    put_host(ledger, run.id, "dev", 1, HostState.FAILED, reason=HOSTILE, name=HOSTILE, platform=HOSTILE)
    put_stage(ledger, run.id, "dev", StageState.HALTED, HOSTILE)
    ledger.record(run.id, HOSTILE, {HOSTILE: HOSTILE}, at=NOW)
    with_report(ledger, run)
    page = client(ledger)
    for path in ("/", "/live", *(run_path(kind, run.dag_run_id) for kind in SHOWN)):
        text = page.get(path).text
        assert "alert(" in text
        assert not re.search(r"<script(?! src=)|<img", text)


def test_the_plan_is_shown_without_links_images_or_html():
    """A host called [x](javascript:...) is a host with an odd name."""
    shown = str(markup.rendered("[x](javascript:alert(1)) ![y](http://z/p.png) <b>b</b> <https://z>\n\n[a]: http://z\n\n[a]"))
    assert not re.search(r"<(a|img|b)\b|href|src=", shown)
    assert "javascript:alert(1)" in shown


@pytest.mark.parametrize("path", [route.path for route in ROUTES])
def test_every_answer_forbids_foreign_sources_and_frames(path):
    """Also for a mistake of ours: without the policy one unescaped name would be enough."""
    ledger = MemoryLedger()
    with_report(ledger, a_busy_run(ledger))
    headers = client(ledger).get(filled(path)).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
    assert "script-src 'unsafe-inline'" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_pages_load_nothing_from_elsewhere():
    """A control plane for production has no business with a CDN."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    sources = [client(ledger).get(run_path("runs", run.dag_run_id)).text]
    sources += [(markup.ASSETS / name).read_text() for name in ("ledger.css", "ledger.js")]
    for text in sources:
        assert not re.search(r"https?://|//cdn|@import", text)


# --- Runs, known and unknown -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dag_run_id", ODD_RUN_IDS)
def test_run_ids_with_odd_characters_find_their_run(dag_run_id):
    """Colons and plus signs are in every run id of Airflow; a slash or a quote must not open another run."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger, dag_run_id=dag_run_id)
    with_report(ledger, run)
    page = client(ledger)
    text = page.get(run_path("runs", dag_run_id)).text
    links = re.findall(r'(?:href|data-live)="(/(?:live|files|report)/[^"]+)"', text)
    assert len(links) == 8
    for link in links:
        assert page.get(link).status_code == 200
    waits = page.get(run_path("api/runs", dag_run_id) + "/waits").json()
    assert {wait["subject"] for wait in waits} == {"staging", "approve prod"}
    assert page.get(run_path("api/runs", dag_run_id)).json()["run"]["id"] == run.id


VIEWER = client()


@settings(deadline=None)
@given(dag_run_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_no_run_id_brings_the_page_down(dag_run_id):
    """Whatever stands in the address, the answer is a page, or that there is none."""
    assert VIEWER.get(run_path("runs", dag_run_id)).status_code in {200, 404}


def test_a_halt_says_which_rule_which_hosts_and_what_to_do():
    """Apart from each other, so that a program can page the right person; a stage that goes on again has none."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    page = client(ledger)
    address = run_path("api/runs", run.dag_run_id) + "/halts"
    assert page.get(address).json() == []
    why = explained("staging", "error budget", "2 hosts failed, 1 may", ["i-1", "i-2"], "mend them, then clear this task")
    ledger.record(run.id, EXPLAINED, why, at=NOW)
    put_stage(ledger, run.id, "staging", StageState.HALTED)
    (halt,) = page.get(address).json()
    assert {**why, "at": halt["at"]} == halt
    put_stage(ledger, run.id, "staging", StageState.PATCHING)
    assert page.get(address).json() == []


def test_a_run_that_has_not_begun_has_a_friendly_page_and_no_json():
    """The tab is there before the first task has run; programs get a status."""
    page = client()
    for kind in ("runs", "live"):
        answer = page.get(run_path(kind, "manual__1"))
        assert answer.status_code == 200
        assert "This run has not begun to write its ledger yet." in answer.text
    for path in (run_path("api/runs", "manual__1"), run_path("api/runs", "manual__1") + "/waits", run_path("files/plan.md", "x")):
        answer = page.get(path)
        assert answer.status_code == 404
        assert answer.json()["detail"]


def test_what_a_run_does_not_have_yet_is_said_and_not_an_error():
    """A run without plan, decisions or report has a page; its report is a 404 that says so."""
    ledger = MemoryLedger()
    run = open_run(ledger, "dev")
    page = client(ledger)
    assert "There is no plan yet." in page.get(run_path("runs", run.dag_run_id)).text
    assert page.get(run_path("files/report.html", run.dag_run_id)).json() == {"detail": "This run has no report yet."}
    assert page.get(run_path("api/runs", run.dag_run_id) + "/plan").status_code == 404


@pytest.mark.parametrize("path", [route.path for route in ROUTES if not route.path.startswith(("/assets", "/report/"))])
def test_a_ledger_that_does_not_answer_is_a_sentence_and_not_a_stack_trace(path):
    """503, so that the page keeps what it shows and says how old it is."""
    ledger = MemoryLedger()
    a_busy_run(ledger)
    ledger.available = False
    answer = client(ledger).get(filled(path))
    assert answer.status_code == 503
    assert "The ledger cannot be read: the ledger does not answer" in answer.text
    assert answer.headers["content-type"].startswith("application/json" if path.startswith("/api") else "text/html")


def test_a_ledger_that_cannot_be_opened_is_a_sentence_too():
    """No connection, a wrong address, a schema that is too new: the administrator reads which."""
    app = app_for(MemoryLedger())

    def closed() -> None:
        raise LedgerUnavailable("Airflow has no connection 'patchwave_ledger'")

    app.dependency_overrides[open_ledger] = closed
    answer = TestClient(app).get("/")
    assert answer.status_code == 503
    assert "Airflow has no connection &#39;patchwave_ledger&#39;" in answer.text


# --- What the page says ------------------------------------------------------------------------------------------------------


def test_every_open_wait_is_there_with_reason_and_end():
    """Rule 11 of a rollout: a wait explains itself; those that ended are history."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    ledger.end_wait(run.id, "staging", at=NOW)
    text = client(ledger).get(run_path("live", run.dag_run_id)).text
    assert "approve prod" in text
    assert "nobody has answered yet" in text
    assert "until somebody answers; ends when: a person answers" in text
    assert "2 of 2 places are taken" not in text


@pytest.mark.parametrize(
    ("until", "said"),
    [(None, "until somebody answers"), (NOW + timedelta(minutes=5), "at the latest, in 5 min"), (
        NOW - timedelta(hours=2), "which passed 2 h ago")],
)  # fmt: skip
def test_the_end_of_a_wait_is_said_also_when_it_has_passed(until, said):
    """A wait that should have ended is the first thing that an operator has to see."""
    assert said in markup.when(until, NOW)


def test_stages_count_every_host_of_the_plan():
    """Hosts that nothing was done to yet are in the bar as well: the classes sum to the hosts."""
    ledger = MemoryLedger()
    view = queries.of_run(ledger, a_busy_run(ledger).id)
    assert {one.name: one.hosts for one in view.stages} == {"dev": 3, "staging": 6, "prod": 10}
    for one in view.stages:
        assert sum(one.classes.values()) == one.hosts
    staging = view.stages[1]
    assert (staging.settled, staging.in_flight, staging.errors, staging.error_budget, staging.places) == (4, 1, 2, 1, 2)


def test_late_joiners_are_on_the_page():
    """Rule 2: hosts that appear meanwhile are settled, and seen, too."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    put_host(ledger, run.id, "staging", 99, HostState.UNREACHABLE)
    view = queries.of_run(ledger, run.id)
    assert view.stages[1].hosts == 7
    assert host_id(99) in {one.host for one in view.hosts}


def test_what_needs_a_look_stands_on_top():
    """In a fleet of five hundred the three failed ones must not be on page nine."""
    ledger = MemoryLedger()
    view = queries.of_run(ledger, a_busy_run(ledger).id)
    assert [one.state for one in view.hosts[:4]] == ["stopped", "failed", "unreachable", "installing"]


@pytest.mark.parametrize(
    ("query", "focus"),
    [("stage=staging", "staging"), ("task=staging.patch", "staging"), ("task=patch_prod", "prod"), ("task=plan", ""),
     ("stage=nowhere", ""), ("stage=dev&task=prod.patch", "dev")],
)  # fmt: skip
def test_the_page_is_narrowed_to_a_stage_or_to_the_stage_of_a_task(query, focus):
    """The tab of a task shows what that task works on."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    text = client(ledger).get(f"{run_path('live', run.dag_run_id)}?{query}").text
    shown = set(re.findall(r"<tr><th>(\w+)</th><td class=\"host\">", text))
    assert shown == ({focus} if focus else {"dev", "staging", "prod"})


def test_a_decision_on_another_plan_is_marked():
    """An approval never covers something that changed afterwards."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    other = MemoryLedger()
    open_run(other, "dev", "staging")
    other.put_document(run.id, "plan", a_plan(dev=[7]), at=BEGAN)
    for decision in ledger.decisions(run.id):
        other.record_decision(decision)
    assert "it opens nothing" not in client(ledger).get(run_path("live", run.dag_run_id)).text
    assert "it opens nothing" in client(other).get(run_path("live", run.dag_run_id)).text


def test_a_rehearsal_and_a_dry_run_are_said_on_top():
    """Nobody takes a rehearsal at 600 times real time for a patched fleet."""
    ledger = MemoryLedger()
    run = open_run(ledger, "dev", speed=600.0, params={"dry_run": True})
    text = client(ledger).get(run_path("live", run.dag_run_id)).text
    assert "600 times as fast as real time" in text
    assert "dry run" in text


def test_the_journal_is_shown_from_its_end_and_sent_whole():
    """The page has the newest records, the JSON all of them."""
    ledger = MemoryLedger()
    run = open_run(ledger, "dev")
    for number in range(queries.JOURNAL_TAIL + 5):
        ledger.record(run.id, "test.noted", {"number": number}, at=NOW)
    view = queries.of_run(ledger, run.id)
    whole = client(ledger).get(run_path("api/runs", run.dag_run_id) + "/journal").json()
    assert len(view.journal) == queries.JOURNAL_TAIL
    assert view.journal[0].sequence == view.journal_length == len(whole) == whole[-1]["sequence"]


def test_the_files_are_those_of_the_report_in_the_ledger():
    """HTML to read in place, and everything to take along under a name that says which run it is."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    with_report(ledger, run)
    page = client(ledger)
    html = page.get(run_path("files/report.html", run.dag_run_id))
    assert "Patch campaign report" in html.text
    assert "Content-Disposition" not in html.headers
    taken = page.get(run_path("files/report.html", run.dag_run_id) + "?download=1")
    assert re.fullmatch(r'attachment; filename="weekly-linux-[\w.-]+-report\.html"', taken.headers["Content-Disposition"])
    rows = page.get(run_path("files/hosts.csv", run.dag_run_id)).text.splitlines()
    assert len(rows) == 1 + 19
    assert page.get(run_path("files/report.json", run.dag_run_id)).json() == ledger.document(run.id, "report")
    assert page.get(run_path("files/passwd", run.dag_run_id)).status_code == 404


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("plan.html", "text/html; charset=utf-8"), ("plan.md", "text/plain; charset=utf-8"), ("plan.json", "application/json"),
     ("lockfile.json", "application/json")],
)  # fmt: skip
def test_the_plan_and_the_lockfile_can_be_taken_along(name, content_type):
    """What a dry run found goes to those who may not open this page, in the words of the run's folder, and runs nothing."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    ledger.put_document(run.id, lockfile.DOCUMENT, {"format": "patchwave lockfile 1"}, at=NOW)
    page = client(ledger)
    answer = page.get(run_path(f"files/{name}", run.dag_run_id) + "?download=1")
    assert answer.headers["content-type"] == content_type
    assert answer.headers["Content-Disposition"].endswith(f'-{name}"')
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert "<script" not in answer.text
    assert f"/files/{name}/" in page.get(run_path("live", run.dag_run_id)).text


def test_a_run_that_took_snapshots_says_how_it_is_rolled_back():
    """With the run's name, for Airflow's form takes no values from a link; one without snapshots offers nothing."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    page = client(ledger)
    assert "Roll back" not in page.get(run_path("live", run.dag_run_id)).text
    ledger.put_document(run.id, "snapshots:dev", [], at=NOW)
    told = page.get(run_path("live", run.dag_run_id)).text
    assert "patchwave rollback weekly-linux/" in told
    assert 'href="/dags/rollback"' in told


def test_a_run_without_lockfile_offers_none():
    """Most campaigns have none: a link to a file that is not there would be a dead end."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    page = client(ledger)
    assert "lockfile.json" not in page.get(run_path("live", run.dag_run_id)).text
    assert page.get(run_path("files/lockfile.json", run.dag_run_id)).json() == {"detail": "This run has no lockfile yet."}


def test_the_plan_for_programs_is_the_one_in_force():
    """A gate may have changed a stage since: the digest is that of the plan that was approved last, with its calls."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    changed = a_plan(dev=[1], staging=[11], prod=[21])
    ledger.put_document(run.id, "plan.2.staging", changed, at=NOW)
    ledger.put_document(run.id, calls.DOCUMENT, {"total": 7}, at=NOW)
    page = client(ledger)
    got = page.get(run_path("files/plan.json", run.dag_run_id)).json()
    assert got == {"run": run.id, "digest": evidence.digest(changed), "plan": changed, "calls": {"total": 7}}
    assert page.get(run_path("api/runs", run.dag_run_id) + "/plan").json() == changed


def test_the_json_uses_the_words_of_the_report():
    """`class`, states and moments as everywhere else, and plain JSON."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    page = client(ledger)
    hosts = page.get(run_path("api/runs", run.dag_run_id) + "/hosts").json()
    assert {"patched", "failed", "in_flight", "not_started"} <= {one["class"] for one in hosts}
    whole = page.get(run_path("api/runs", run.dag_run_id)).json()
    assert whole["run"]["began_at"] == BEGAN.isoformat()
    assert whole["run"]["outcome"] == RunOutcome.RUNNING.value
    json.dumps(whole)


# --- The campaign file beside the frozen one ---------------------------------------------------------------------------------

SHIPPED = Path(queries.__file__).parents[2] / "campaigns" / "weekly-linux.yaml"


def frozen(content: bytes) -> object:
    return a_run(definition_digest=hashlib.sha256(content).hexdigest())


def test_the_page_says_when_a_newer_campaign_file_exists(tmp_path):
    """A run works from the campaign as it was; whoever edits the file must see that it does."""
    content = SHIPPED.read_bytes()
    file = tmp_path / "weekly-linux.yaml"
    file.write_bytes(content)
    run = frozen(content)
    assert queries.newer_definition(run, tmp_path) == ""
    file.write_bytes(content + b"\n# changed\n")
    assert queries.newer_definition(run, tmp_path).startswith("A newer version of weekly-linux.yaml exists")
    file.write_bytes(b"name: [")
    assert "is broken now" in queries.newer_definition(run, tmp_path)
    file.unlink()
    assert "gone" in queries.newer_definition(run, tmp_path)


def test_a_digest_of_the_meaning_is_as_good_as_one_of_the_bytes(tmp_path):
    """A comment that was added changes nothing in a campaign that was frozen by its meaning."""
    file = tmp_path / "weekly-linux.yaml"
    file.write_bytes(SHIPPED.read_bytes() + b"\n# a comment\n")
    meaning = queries.definition.parse(SHIPPED.read_text(), file="x").digest
    assert queries.newer_definition(a_run(definition_digest=meaning), tmp_path) == ""


def test_a_campaign_in_a_file_of_another_name_is_found(tmp_path):
    """Files need not be called like their campaign."""
    content = SHIPPED.read_bytes()
    (tmp_path / "tuesday.yaml").write_bytes(content)
    (tmp_path / "aaa-broken.yaml").write_text("[")
    assert queries.newer_definition(frozen(content), tmp_path) == ""


def test_nothing_is_said_where_this_process_does_not_see_the_campaign_files(tmp_path):
    """An api-server without the folder must not claim that the file is gone."""
    assert queries.newer_definition(a_run(), tmp_path / "nowhere") == ""


def test_an_unknown_run_is_its_own_error():
    """A KeyError would be taken for a mistake of ours."""
    with pytest.raises(queries.UnknownRun):
        queries.of_run(MemoryLedger(), RunId("a/b"))
