"""Where is the ledger? An Airflow connection, turned into an open ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from patchwave.campaign.errors import Permanent
from patchwave.ledger.connect import ledger_at, url_of

if TYPE_CHECKING:
    from patchwave.ledger.sql import SqlLedger

CONNECTION = "patchwave_ledger"


class LedgerNotConnected(Permanent):
    """There is no Airflow connection for the ledger."""


def ledger(conn_id: str = CONNECTION) -> SqlLedger:
    """The ledger behind that connection.

    Raises:
        LedgerNotConnected: Airflow has no such connection.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise _not_connected(conn_id) from error
    return _open(connection)


async def open_ledger_from_a_trigger(conn_id: str = CONNECTION) -> SqlLedger:
    """The same, asked for in an event loop, where Airflow's connections have to be awaited.

    Raises:
        LedgerNotConnected: Airflow has no such connection.
    """
    try:
        connection = await BaseHook.aget_connection(conn_id)
    except AirflowNotFoundException as error:
        raise _not_connected(conn_id) from error
    return _open(connection)


def _not_connected(conn_id: str) -> LedgerNotConnected:
    return LedgerNotConnected(f"Airflow has no connection {conn_id!r}: create it, or set AIRFLOW_CONN_{conn_id.upper()}")


def _open(connection: Connection) -> SqlLedger:
    return ledger_at(
        url_of(
            conn_type=connection.conn_type,
            host=connection.host,
            login=connection.login,
            password=connection.password,
            port=connection.port,
            schema=connection.schema,
            extra=connection.extra_dejson,
        )
    )
