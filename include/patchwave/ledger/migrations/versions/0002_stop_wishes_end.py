"""Wishes to stop end: when, and with what outcome."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stop_wishes", sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("stop_wishes", sa.Column("outcome", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("stop_wishes") as table:
        table.drop_column("outcome")
        table.drop_column("ended_at")
