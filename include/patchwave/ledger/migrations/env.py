"""How does Alembic reach the ledger? On the connection of `connect.upgrade`, or at ``-x url=...`` when a developer calls it."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, make_url

from patchwave.ledger.connect import engine_for
from patchwave.ledger.tables import metadata


def run(connection: Connection) -> None:
    """Run the migrations in the caller's transaction (SQLite's DDL takes part in it, which Alembic does not expect)."""
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if url is None:
        raise SystemExit("say which database: -x url=sqlite:////folder/ledger.db")
    with engine_for(make_url(url), foreign_keys=False).begin() as own:
        run(own)
