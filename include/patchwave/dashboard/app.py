"""Which pages are there? The FastAPI application that the plugin mounts under ``/patchwave``.

GET only. `access.permitted` stands in front of every route, the style sheet included. The ledger is opened when a request
asks for it, and what it does not answer becomes a sentence, not a stack trace.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

from patchwave.campaign.errors import PatchwaveError
from patchwave.dashboard import access
from patchwave.dashboard.access import MayRead

if TYPE_CHECKING:
    from patchwave.dashboard.queries import RunView
    from patchwave.ledger.store import Ledger

CONTENT_TYPES: Mapping[str, str] = {"ledger.css": "text/css", "ledger.js": "text/javascript"}
POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; connect-src 'self'; frame-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
"""Styles in attributes are allowed: they are the widths of bars, numbers that we counted."""
FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"

routes = APIRouter()


def create_app() -> FastAPI:
    """The application, without the documentation pages that FastAPI would serve openly."""
    app = FastAPI(title="Patchwave", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(access.permitted)])
    app.include_router(routes)
    app.middleware("http")(_guarded)
    app.add_exception_handler(PatchwaveError, _unavailable)
    return app


def open_ledger() -> Ledger:
    """The ledger behind the Airflow connection ``patchwave_ledger``; tests put another one in its place."""
    from patchwave.hooks.ledger import ledger

    return ledger()


async def _guarded(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
    """Adds what keeps a page to itself: no foreign sources, no foreign frames, nothing kept in caches."""
    answer = await call(request)
    answer.headers.setdefault("Content-Security-Policy", POLICY)
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Referrer-Policy"] = "no-referrer"
    answer.headers["Cache-Control"] = "no-store"
    return answer


async def _unavailable(request: Request, error: Exception) -> Response:
    """503 with the error's own sentence; errors of the ledger never hold a password."""
    sentence = f"The ledger cannot be read: {error}"
    if _wants_json(request):
        return JSONResponse({"detail": sentence}, status_code=503)
    return _page("notice.html.j2", request, status=503, title="The ledger does not answer", text=sentence, live="")


def _wants_json(request: Request) -> bool:
    return request.url.path.removeprefix(request.scope.get("root_path", "")).startswith("/api/")


def _page(template: str, request: Request, *, status: int = 200, **values: Any) -> HTMLResponse:
    from patchwave.dashboard import markup

    root = request.scope.get("root_path", "").rstrip("/")
    return HTMLResponse(markup.templates().get_template(template).render(root=root, **values), status_code=status)


def _run_id(dag_id: str, dag_run_id: str) -> Any:
    return f"{dag_id}/{dag_run_id}"


def _view(ledger: Ledger, dag_id: str, dag_run_id: str, stage: str, task: str) -> RunView:
    from patchwave.dashboard import queries

    run = _run_id(dag_id, dag_run_id)
    return queries.of_run(ledger, run, stage=stage, task=task, campaigns=queries.campaign_folder())


# --- Pages ------------------------------------------------------------------------------------------------------------------


@routes.get("/")
def index(request: Request, ledger: Annotated[Any, Depends(open_ledger)],
          may_read: Annotated[MayRead, Depends(access.permitted)]) -> Response:  # fmt: skip
    """All runs, the youngest first."""
    from patchwave.dashboard import queries

    return _page("runs.html.j2", request, runs=queries.runs(ledger, may_read), live="/live")


@routes.get("/live")
def live_index(request: Request, ledger: Annotated[Any, Depends(open_ledger)],
               may_read: Annotated[MayRead, Depends(access.permitted)]) -> Response:  # fmt: skip
    """What changes on that page."""
    from patchwave.dashboard import queries

    return _page("live_runs.html.j2", request, runs=queries.runs(ledger, may_read))


def _run_page(template: str, request: Request, ledger: Ledger, dag_id: str, dag_run_id: str, stage: str, task: str) -> Response:
    from patchwave.dashboard import queries
    from patchwave.hooks import clock

    view: RunView | None
    try:
        view = _view(ledger, dag_id, dag_run_id, stage, task)
    except queries.UnknownRun:
        view = None
    # Built here and not in the template: the run's page and its live part must agree on every address.
    return _page(template, request, view=view, dag_id=dag_id, dag_run_id=dag_run_id, now=clock.now())


@routes.get("/runs/{dag_id}/{dag_run_id:path}")
def run_page(request: Request, dag_id: str, dag_run_id: str, ledger: Annotated[Any, Depends(open_ledger)],
             stage: str = "", task: str = "") -> Response:  # fmt: skip
    """One run, whole or narrowed to a stage, or to the stage of a task."""
    return _run_page("run.html.j2", request, ledger, dag_id, dag_run_id, stage, task)


@routes.get("/live/{dag_id}/{dag_run_id:path}")
def live_run(request: Request, dag_id: str, dag_run_id: str, ledger: Annotated[Any, Depends(open_ledger)],
             stage: str = "", task: str = "") -> Response:  # fmt: skip
    """What changes on that page; fetched every few seconds."""
    return _run_page("live_run.html.j2", request, ledger, dag_id, dag_run_id, stage, task)


@routes.get("/report/{dag_id}/{dag_run_id:path}")
def report_page(request: Request, dag_id: str, dag_run_id: str) -> Response:
    """The report in a frame, with a way back: Airflow's own frame has none."""
    return _page("report.html.j2", request, dag_id=dag_id, dag_run_id=dag_run_id, live="")


@routes.get("/files/{name}/{dag_id}/{dag_run_id:path}")
def file(name: str, dag_id: str, dag_run_id: str, ledger: Annotated[Any, Depends(open_ledger)],
         download: bool = False) -> Response:  # fmt: skip
    """A file of a run, from the ledger's documents; the same as in the run's folder."""
    from patchwave.campaign import folders, lockfile, page, report
    from patchwave.dashboard import queries

    run = _run_id(dag_id, dag_run_id)
    makers: Mapping[str, tuple[str, Callable[[Any], Response]]] = {
        "report.html": ("report", lambda content: HTMLResponse(report.to_html(content))),
        "report.json": ("report", lambda content: JSONResponse(content)),
        "hosts.csv": ("report", lambda content: Response(report.to_csv(content), media_type="text/csv; charset=utf-8")),
        "plan.md": ("plan.md", lambda content: PlainTextResponse(content)),
        "plan.html": ("plan.md", lambda content: HTMLResponse(page.to_html(content, title=queries.plan_title(ledger, run)))),
        "plan.json": ("plan", lambda _: JSONResponse(queries.plan_file(ledger, run))),
        "lockfile.json": (lockfile.DOCUMENT, lambda content: JSONResponse(content)),
    }
    if name not in makers:
        raise HTTPException(404, f"There is no file {name}; there are {', '.join(makers)}.")
    document, made = makers[name]
    try:
        content = queries.document(ledger, run, document)
    except queries.UnknownRun:
        content = None
    if content is None:
        raise HTTPException(404, f"This run has no {document} yet.")
    answer = made(content)
    answer.headers["Content-Security-Policy"] = FILE_POLICY
    if download or name == "hosts.csv":
        answer.headers["Content-Disposition"] = f'attachment; filename="{folders.folder_name(run)}-{name}"'
    return answer


@routes.get("/assets/{name}")
def asset(name: str) -> Response:
    """The style sheet and the script; behind the same door as everything else, which a static mount would not be."""
    from patchwave.dashboard import markup

    if name not in CONTENT_TYPES:
        raise HTTPException(404, f"There is no {name}.")
    return Response((markup.ASSETS / name).read_bytes(), media_type=CONTENT_TYPES[name])


# --- JSON -------------------------------------------------------------------------------------------------------------------

PARTS = ("waits", "halts", "stages", "hosts", "decisions", "journal", "plan", "report")


def _json(content: Any) -> JSONResponse:
    from patchwave.campaign import report

    return JSONResponse(report.plain(content))


@routes.get("/api/runs")
def api_runs(ledger: Annotated[Any, Depends(open_ledger)],
             may_read: Annotated[MayRead, Depends(access.permitted)]) -> Response:  # fmt: skip
    """All runs, the youngest first."""
    from patchwave.dashboard import queries

    return _json(queries.runs(ledger, may_read))


@routes.get("/api/runs/{dag_id}/{dag_run_id:path}/{part}")
def api_part(dag_id: str, dag_run_id: str, part: str, ledger: Annotated[Any, Depends(open_ledger)]) -> Response:
    """One part of a run, whole: ``waits`` with those that ended, the ``journal`` from its first record."""
    from patchwave.dashboard import queries

    run = _run_id(dag_id, dag_run_id)
    try:
        queries.known(ledger, run)
    except queries.UnknownRun:  # so what looks like a part may be the end of a run id with a slash in it
        return api_run(dag_id, f"{dag_run_id}/{part}", ledger)
    if part not in PARTS:
        raise HTTPException(404, f"A run has no part {part}; there are {', '.join(PARTS)}.")
    match part:
        case "waits":
            content: Any = ledger.waits(run)
        case "halts":
            content = queries.halts(ledger, run)
        case "hosts":
            content = queries.hosts_of(ledger, run)
        case "stages":
            content = queries.of_run(ledger, run).stages
        case "decisions":
            content = ledger.decisions(run)
        case "journal":
            content = ledger.journal(run)
        case _:
            content = queries.plan_in_force(ledger, run) if part == "plan" else queries.document(ledger, run, part)
            if content is None:
                raise HTTPException(404, f"This run has no {part} yet.")
    return _json(content)


@routes.get("/api/runs/{dag_id}/{dag_run_id:path}")
def api_run(dag_id: str, dag_run_id: str, ledger: Annotated[Any, Depends(open_ledger)]) -> Response:
    """What the page of the run shows."""
    from patchwave.dashboard import queries

    try:
        return _json(_view(ledger, dag_id, dag_run_id, "", ""))
    except queries.UnknownRun as error:
        raise HTTPException(404, _unknown(dag_id, dag_run_id)) from error


def _unknown(dag_id: str, dag_run_id: str) -> str:
    return f"The ledger knows no run {dag_run_id} of {dag_id}: it has not begun to write, or never will."
