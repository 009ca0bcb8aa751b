"""Who may read these pages? Whoever is signed in to Airflow and may read the runs of the DAG in question.

`app.create_app` puts `permitted` in front of every route, for Airflow guards none of a plugin's. Airflow itself is imported
when a request comes: the plugin file is loaded in every process, most of which serve no page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request

MayRead = Callable[[str | None], bool]
"""Whether the runs of the DAG with this id may be read; of None: whether any may."""


async def signed_in(request: Request) -> Any:
    """The user of Airflow's cookie or bearer token.

    Raises:
        HTTPException: 401 for nobody and for an expired token, 403 for a bad one.
    """
    from airflow.api_fastapi.core_api import security

    return await security.get_user(request, None, await security.bearer_scheme(request))


def permissions(user: Annotated[Any, Depends(signed_in)]) -> MayRead:
    """What Airflow's auth manager lets this user read."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from airflow.configuration import conf
    from airflow.models.dag import DagModel

    def may_read(dag_id: str | None) -> bool:
        team = DagModel.get_team_name(dag_id) if dag_id and conf.getboolean("core", "multi_team", fallback=False) else None
        details = DagDetails(id=dag_id, team_name=team)
        return bool(
            get_auth_manager().is_authorized_dag(method="GET", access_entity=DagAccessEntity.RUN, details=details, user=user)
        )

    return may_read


def permitted(request: Request, may_read: Annotated[MayRead, Depends(permissions)]) -> MayRead:
    """Lets the request through if the DAG in its path may be read, or any DAG's runs where it names none.

    Raises:
        HTTPException: 403 if not.
    """
    dag_id = request.path_params.get("dag_id")
    if not may_read(dag_id):
        raise HTTPException(status_code=403, detail=f"You may not read the runs of {dag_id or 'any DAG'}.")
    return may_read
