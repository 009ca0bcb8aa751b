"""Hosts count in several failure domains at once; dispatches name their platform, so that durations can be learned."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

hosts = sa.table("hosts", sa.column("stage"), sa.column("domain"), sa.column("domains"))


def upgrade() -> None:
    op.add_column("hosts", sa.Column("domains", sa.Text(), nullable=False, server_default="[]"))
    known = op.get_bind().execute(sa.select(hosts.c.domain, hosts.c.stage).distinct()).all()
    for domain, stage in known:
        both = list(dict.fromkeys([domain, f"stage:{stage}"]))
        here = (hosts.c.domain == domain) & (hosts.c.stage == stage)
        op.execute(hosts.update().where(here).values(domains=json.dumps(both, separators=(",", ":"))))
    with op.batch_alter_table("hosts") as table:
        table.alter_column("domains", server_default=None)
        table.drop_column("domain")
    op.add_column("dispatches", sa.Column("platform", sa.String(), nullable=False, server_default=""))
    with op.batch_alter_table("dispatches") as table:
        table.alter_column("platform", server_default=None)
    op.create_index("ix_dispatches_platform_step", "dispatches", ["platform", "step"])


def downgrade() -> None:
    raise NotImplementedError("a host's domains cannot be put back into one")
