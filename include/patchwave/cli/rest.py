"""What can be asked of Airflow, and said to it, over its REST API?

Airflow on SQLite answers 500 ("database is locked") now and then, and a starting api-server not at all: the client tries
again, so that neither a person nor a test has to. What is sent twice that way is harmless: a run is triggered under an id
of ours, everything else sets a state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from patchwave.campaign.errors import Permanent, Transient

Json = Any
"""What Airflow answered; its schema is Airflow's."""

AGAIN = frozenset({500, 502, 503, 504})


class Unanswered(Transient):
    """Airflow's API did not answer, or only with errors of its own."""


class Refused(Permanent):
    """Airflow's API refused a request.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        self.status = status
        super().__init__(message)


class Airflow:
    """Airflow's REST API as one signed-in user sees it."""

    def __init__(
        self,
        address: str,
        *,
        user: str,
        password: str,
        attempts: int = 8,
        timeout: float = 30.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            address: e.g. ``http://127.0.0.1:8080``.
            attempts: how often a request is tried before `Unanswered`.
            timeout: of one attempt, in seconds.
        """
        self.address = address
        self.user = user
        self._password = password
        self._attempts = attempts
        self._pause = pause
        self._token: str | None = None
        self._http = httpx.Client(base_url=address, timeout=timeout, trust_env=False)

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def request(self, method: str, path: str, *, json: Json = None, params: Mapping[str, Any] | None = None) -> Json:
        """One request below ``/api/v2``, tried again where Airflow itself stumbles.

        Raises:
            Refused: a status of 400 to 499.
            Unanswered: every attempt failed.
        """
        problem = ""
        for attempt in range(self._attempts):
            if attempt:
                self._pause(min(3.0, 0.25 * 2**attempt))
            try:
                answer = self._http.request(
                    method, f"/api/v2{path}", json=json, params=params, headers=self._authorization(fresh=problem == "401")
                )
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if answer.status_code == 401 and problem != "401":
                problem = "401"  # the token's day is over, or the api-server has another secret: sign in again
                continue
            if answer.status_code not in AGAIN:
                return self._checked(answer, f"{method} {path}")
            problem = f"{answer.status_code}: {answer.text[:300]}"
        raise Unanswered(f"{method} {path} as {self.user}: {self._attempts} attempts, the last: {problem}")

    def _authorization(self, *, fresh: bool) -> Mapping[str, str]:
        if self._token is None or fresh:
            answer = self._http.post("/auth/token", json={"username": self.user, "password": self._password})
            if answer.status_code in AGAIN:
                raise httpx.RemoteProtocolError(f"/auth/token answered {answer.status_code}")
            self._token = str(self._checked(answer, f"sign in as {self.user}")["access_token"])
        return {"Authorization": f"Bearer {self._token}"}

    def _checked(self, answer: httpx.Response, what: str) -> Json:
        if answer.status_code >= 400:
            try:
                detail = answer.json().get("detail", answer.text)
            except (ValueError, AttributeError):
                detail = answer.text
            raise Refused(f"{what}: {answer.status_code}, {str(detail)[:500]}", status=answer.status_code)
        return answer.json() if answer.content else None

    def get(self, path: str, **params: Any) -> Json:
        """GET below ``/api/v2``."""
        return self.request("GET", path, params=params or None)

    def post(self, path: str, body: Json) -> Json:
        """POST below ``/api/v2``."""
        return self.request("POST", path, json=body)

    def patch(self, path: str, body: Json) -> Json:
        """PATCH below ``/api/v2``."""
        return self.request("PATCH", path, json=body)

    # health -----------------------------------------------------------------------------------------------------------
    def unhealthy(self) -> tuple[str, ...]:
        """Parts that are not healthy yet, by Airflow's own names; needs no sign-in, is asked once and never raises."""
        try:
            answer = self._http.get("/api/v2/monitor/health", timeout=5)
            parts = answer.json()
        except (httpx.TransportError, ValueError):
            return ("api-server",)
        if answer.status_code != 200 or not isinstance(parts, dict):
            return ("api-server",)
        wanted = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return tuple(name for name in wanted if (parts.get(name) or {}).get("status") != "healthy")

    # DAGs and runs ----------------------------------------------------------------------------------------------------
    def dag(self, dag: str) -> Json | None:
        """That DAG, or None while Airflow does not know it."""
        try:
            return self.get(f"/dags/{quote(dag, safe='')}")
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise

    def import_errors(self) -> Sequence[str]:
        """Why DAG files could not be read."""
        return [str(one["stack_trace"]) for one in self.get("/importErrors")["import_errors"]]

    def pause(self, dag: str, *, paused: bool) -> None:
        """Pause or unpause a DAG."""
        self.patch(f"/dags/{quote(dag, safe='')}", {"is_paused": paused})

    def trigger(self, dag: str, run: str, conf: Mapping[str, Any]) -> None:
        """Begin a run under this id; if it is there already, that was an earlier attempt of ours."""
        try:
            self.post(
                f"/dags/{quote(dag, safe='')}/dagRuns", {"dag_run_id": run, "logical_date": None, "conf": dict(conf)}
            )
        except Refused as refusal:
            if refusal.status != 409:
                raise

    def run(self, dag: str, run: str) -> Json:
        """That run."""
        return self.get(_run_path(dag, run))

    def runs_in_flight(self, dag: str = "~") -> Sequence[Json]:
        """Runs that are queued or running; of all DAGs with ``~``."""
        return list(self.get(f"/dags/{quote(dag, safe='~')}/dagRuns", state=["queued", "running"], limit=100)["dag_runs"])

    def fail_run(self, dag: str, run: str) -> None:
        """Mark a run failed, which ends its tasks."""
        self.patch(_run_path(dag, run), {"state": "failed"})

    def tasks(self, dag: str, run: str) -> Sequence[Json]:
        """The run's task instances."""
        return list(self.get(f"{_run_path(dag, run)}/taskInstances", limit=200)["task_instances"])

    def task(self, dag: str, run: str, task: str, map_index: int = -1) -> Json:
        """One task instance."""
        suffix = "" if map_index < 0 else f"/{map_index}"
        return self.get(f"{_run_path(dag, run)}/taskInstances/{quote(task, safe='')}{suffix}")

    def set_task_state(self, dag: str, run: str, task: str, state: str) -> None:
        """Mark a task instance by hand, as the UI does (``success``, ``failed``, ``skipped``)."""
        self.patch(f"{_run_path(dag, run)}/taskInstances/{quote(task, safe='')}", {"new_state": state})

    def log(self, dag: str, run: str, task: str, attempt: int = 1) -> Json:
        """A task's log."""
        return self.get(f"{_run_path(dag, run)}/taskInstances/{quote(task, safe='')}/logs/{attempt}", full_content=True)

    # human in the loop --------------------------------------------------------------------------------------------------
    def open_requests(self, dag: str, run: str) -> Sequence[Json]:
        """What the run asks of people at this moment (``state``: or Airflow also lists requests of ended tasks)."""
        details = self.get(f"{_run_path(dag, run)}/hitlDetails", state="awaiting_input", response_received=False)
        return list(details["hitl_details"])

    def request_of(self, dag: str, run: str, task: str, map_index: int = -1) -> Json:
        """What a task asked, and what it was answered."""
        return self.get(_request_path(dag, run, task, map_index))

    def answer(
        self, dag: str, run: str, task: str, option: str, *, map_index: int = -1, inputs: Mapping[str, Any] | None = None
    ) -> Json:
        """Answer a request; Airflow refuses a second answer (409) and those who may not (403)."""
        body = {"chosen_options": [option], "params_input": dict(inputs or {})}
        return self.patch(_request_path(dag, run, task, map_index), body)


def _run_path(dag: str, run: str) -> str:
    return f"/dags/{quote(dag, safe='')}/dagRuns/{quote(run, safe='')}"


def _request_path(dag: str, run: str, task: str, map_index: int) -> str:
    return f"{_run_path(dag, run)}/taskInstances/{quote(task, safe='')}/{map_index}/hitlDetails"
