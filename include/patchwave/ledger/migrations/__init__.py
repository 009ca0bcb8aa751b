"""Which schema does the ledger have, and how did it come there? Alembic's migrations.

`connect.ledger_at` runs them. A new one, from the repository's root::

    alembic -c include/patchwave/ledger/migrations/alembic.ini -x url=sqlite:////tmp/ledger.db revision --autogenerate -m "..."

read what it wrote, then set `HEAD` to its revision.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

HEAD = "0007"
"""The newest revision, written down here so that a ledger that is ready is recognised without loading Alembic."""


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for these migrations, to be run on `connection`."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made
