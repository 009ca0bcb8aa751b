"""The ledger's first schema: runs, documents, stages, hosts, dispatches, decisions, waits, wishes, journal, calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Written out and not imported from `tables`: what a migration does must not change when the tables do.
NAME = sa.String().with_variant(sa.String(collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table("contents",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_contents")
    )
    op.create_table("runs",
        sa.Column("id", NAME, nullable=False),
        sa.Column("campaign", NAME, nullable=False),
        sa.Column("dag_id", NAME, nullable=False),
        sa.Column("dag_run_id", NAME, nullable=False),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("definition_digest", sa.String(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.String(), nullable=True),
        sa.Column("speed", sa.Float(precision=53), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_runs")
    )
    op.create_index("ix_runs_began_at", "runs", ["began_at"])
    op.create_index("ix_runs_campaign_began_at", "runs", ["campaign", "began_at"])

    op.create_table("stop_wishes",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("run", NAME, nullable=False),
        sa.Column("stage", NAME, nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_stop_wishes"),
        sa.UniqueConstraint("run", "stage", "holder", name="uq_stop_wishes_run_stage_holder")
    )
    op.create_table("calls",
        sa.Column("run", NAME, nullable=False),
        sa.Column("operation", NAME, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_calls_run"),
        sa.PrimaryKeyConstraint("run", "operation", name="pk_calls")
    )
    op.create_table("decisions",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("run", NAME, nullable=False),
        sa.Column("stage", NAME, nullable=False),
        sa.Column("plan", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_decisions_run"),
        sa.PrimaryKeyConstraint("number", name="pk_decisions"),
        sa.UniqueConstraint("run", "stage", "plan", name="uq_decisions_run_stage_plan")
    )
    op.create_table("documents",
        sa.Column("run", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("put_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["contents.digest"], name="fk_documents_digest"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_documents_run"),
        sa.PrimaryKeyConstraint("run", "name", name="pk_documents")
    )
    op.create_table("journal",
        sa.Column("run", NAME, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("before", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_journal_run"),
        sa.PrimaryKeyConstraint("run", "sequence", name="pk_journal")
    )
    op.create_table("stages",
        sa.Column("run", NAME, nullable=False),
        sa.Column("stage", NAME, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("fencing", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(), nullable=True),
        sa.Column("began_at", MOMENT, nullable=True),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("halted_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_stages_run"),
        sa.PrimaryKeyConstraint("run", "stage", name="pk_stages")
    )
    op.create_table("waits",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("run", NAME, nullable=False),
        sa.Column("subject", NAME, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ends", sa.Text(), nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.Column("until", MOMENT, nullable=True),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_waits_run"),
        sa.PrimaryKeyConstraint("number", name="pk_waits")
    )
    op.create_index("ix_waits_run_subject", "waits", ["run", "subject"])

    op.create_table("dispatches",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("run", NAME, nullable=False),
        sa.Column("stage", NAME, nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("hosts", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("fencing", sa.Integer(), nullable=False),
        sa.Column("intended_at", MOMENT, nullable=False),
        sa.Column("snapshot", sa.String(), nullable=False),
        sa.Column("command", sa.String(), nullable=True),
        sa.Column("requested_at", MOMENT, nullable=True),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["run", "stage"], ["stages.run", "stages.stage"], name="fk_dispatches_run_stage"),
        sa.PrimaryKeyConstraint("number", name="pk_dispatches"),
        sa.UniqueConstraint("run", "token", name="uq_dispatches_run_token")
    )
    op.create_index("ix_dispatches_run_stage", "dispatches", ["run", "stage"])

    op.create_table("hosts",
        sa.Column("run", NAME, nullable=False),
        sa.Column("stage", NAME, nullable=False),
        sa.Column("host", NAME, nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("platform", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("token", sa.String(), nullable=True),
        sa.Column("since", MOMENT, nullable=False),
        sa.Column("installed", sa.Integer(), nullable=True),
        sa.Column("missing_before", sa.Integer(), nullable=True),
        sa.Column("missing_after", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["run", "stage"], ["stages.run", "stages.stage"], name="fk_hosts_run_stage"),
        sa.PrimaryKeyConstraint("run", "stage", "host", name="pk_hosts")
    )


def downgrade() -> None:
    raise NotImplementedError("the ledger holds evidence: a schema before the first one would be its end")
