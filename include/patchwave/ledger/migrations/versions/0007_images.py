"""Which version of a gold image came to which level, or was quarantined."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NAME = sa.String().with_variant(sa.String(collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "images",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("image", NAME, nullable=False),
        sa.Column("version", NAME, nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("manifest", sa.String(), nullable=False),
        sa.Column("amis", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run", NAME, nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_images_run_runs"),
        sa.PrimaryKeyConstraint("number", name="pk_images"),
        sa.UniqueConstraint("image", "version", "level", name="uq_images_image_version_level"),
    )


def downgrade() -> None:
    op.drop_table("images")
