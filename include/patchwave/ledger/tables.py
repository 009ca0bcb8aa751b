"""In which tables does the ledger rest? SQLAlchemy's metadata, which the migrations must agree with (a test says whether).

JSON is stored as canonical text and not as the database's own JSON type: the bytes that were hashed are the bytes that rest.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from patchwave.ledger.changes import utc

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """An aware datetime, UTC on both sides; SQLite stores it without its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = utc(value)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def name() -> String:
    """Ids and names; sorted by code point in every database, whatever its locale."""
    return String().with_variant(String(collation="C"), "postgresql")


def number() -> Column[int]:
    """The order in which rows were written."""
    kind = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up INTEGER PRIMARY KEY only
    return Column("number", kind, primary_key=True, autoincrement=True)


runs = Table(
    "runs",
    metadata,
    Column("id", name(), primary_key=True),
    Column("campaign", name(), nullable=False),
    Column("dag_id", name(), nullable=False),
    Column("dag_run_id", name(), nullable=False),
    Column("began_at", Moment(), nullable=False),
    Column("definition", Text(), nullable=False),
    Column("definition_digest", String(), nullable=False),
    Column("policy", Text(), nullable=False),
    Column("params", Text(), nullable=False),
    Column("requested_by", String()),
    Column("speed", Float(precision=53), nullable=False),
    Column("outcome", String(), nullable=False),
    Column("ended_at", Moment()),
    Index(None, "campaign", "began_at"),
    Index(None, "began_at"),
)

contents = Table(
    "contents",
    metadata,
    Column("digest", String(), primary_key=True),
    Column("body", Text(), nullable=False),
)

# Rows of large documents, compressed: `rows` says how; the manifest that names them is a content.
chunks = Table(
    "chunks",
    metadata,
    Column("digest", String(), primary_key=True),
    Column("body", LargeBinary(), nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("run", name(), ForeignKey("runs.id"), primary_key=True),
    Column("name", name(), primary_key=True),
    Column("digest", String(), ForeignKey("contents.digest"), nullable=False),
    Column("put_at", Moment(), nullable=False),
)

stages = Table(
    "stages",
    metadata,
    Column("run", name(), ForeignKey("runs.id"), primary_key=True),
    Column("stage", name(), primary_key=True),
    Column("position", Integer(), nullable=False),
    Column("state", String(), nullable=False),
    Column("reason", Text(), nullable=False),
    Column("fencing", Integer(), nullable=False),
    Column("holder", String()),
    Column("began_at", Moment()),
    Column("ended_at", Moment()),
    Column("halted_at", Moment()),
    Column("looked_at", Moment()),
)

hosts = Table(
    "hosts",
    metadata,
    Column("run", name(), primary_key=True),
    Column("stage", name(), primary_key=True),
    Column("host", name(), primary_key=True),
    Column("account", String(), nullable=False),
    Column("region", String(), nullable=False),
    Column("name", String(), nullable=False),
    Column("platform", String(), nullable=False),
    Column("state", String(), nullable=False),
    Column("reason", Text(), nullable=False),
    Column("token", String()),
    Column("since", Moment(), nullable=False),
    Column("installed", Integer()),
    Column("missing_before", Integer()),
    Column("missing_after", Integer()),
    Column("domains", Text(), nullable=False),
    ForeignKeyConstraint(["run", "stage"], ["stages.run", "stages.stage"]),
)

dispatches = Table(
    "dispatches",
    metadata,
    number(),
    Column("token", String(), nullable=False),
    Column("run", name(), nullable=False),
    Column("stage", name(), nullable=False),
    Column("step", String(), nullable=False),
    Column("account", String(), nullable=False),
    Column("region", String(), nullable=False),
    Column("hosts", Text(), nullable=False),
    Column("attempt", Integer(), nullable=False),
    Column("state", String(), nullable=False),
    Column("fencing", Integer(), nullable=False),
    Column("intended_at", Moment(), nullable=False),
    Column("snapshot", String(), nullable=False),
    Column("command", String()),
    Column("requested_at", Moment()),
    Column("ended_at", Moment()),
    Column("platform", String(), nullable=False),
    UniqueConstraint("run", "token"),
    Index(None, "run", "stage"),
    Index(None, "platform", "step"),
    ForeignKeyConstraint(["run", "stage"], ["stages.run", "stages.stage"]),
)

decisions = Table(
    "decisions",
    metadata,
    number(),
    Column("run", name(), ForeignKey("runs.id"), nullable=False),
    Column("stage", name(), nullable=False),
    Column("plan", String(), nullable=False),
    Column("verdict", String(), nullable=False),
    Column("author", String(), nullable=False),
    Column("at", Moment(), nullable=False),
    Column("comment", Text(), nullable=False),
    Column("lockfile", String(), nullable=True),
    UniqueConstraint("run", "stage", "plan"),
)

# A quarantine is a row as a promotion is; a version comes to a level once.
images = Table(
    "images",
    metadata,
    number(),
    Column("image", name(), nullable=False),
    Column("version", name(), nullable=False),
    Column("level", String(), nullable=False),
    Column("manifest", String(), nullable=False),
    Column("amis", Text(), nullable=False),
    Column("at", Moment(), nullable=False),
    Column("run", name(), ForeignKey("runs.id"), nullable=False),
    Column("by", String(), nullable=False),
    Column("reason", Text(), nullable=False),
    UniqueConstraint("image", "version", "level"),
)

waits = Table(
    "waits",
    metadata,
    number(),
    Column("run", name(), ForeignKey("runs.id"), nullable=False),
    Column("subject", name(), nullable=False),
    Column("reason", Text(), nullable=False),
    Column("ends", Text(), nullable=False),
    Column("since", Moment(), nullable=False),
    Column("until", Moment()),
    Column("ended_at", Moment()),
    Index(None, "run", "subject"),
)

# Never refused, so it refers to nothing: a try can be killed whatever the ledger knows of its run.
stop_wishes = Table(
    "stop_wishes",
    metadata,
    number(),
    Column("run", name(), nullable=False),
    Column("stage", name(), nullable=False),
    Column("holder", String(), nullable=False),
    Column("at", Moment(), nullable=False),
    Column("reason", Text(), nullable=False),
    Column("ended_at", Moment()),
    Column("outcome", Text()),
    UniqueConstraint("run", "stage", "holder"),
)

journal = Table(
    "journal",
    metadata,
    Column("run", name(), ForeignKey("runs.id"), primary_key=True),
    Column("sequence", Integer(), primary_key=True),
    Column("at", Moment(), nullable=False),
    Column("kind", String(), nullable=False),
    Column("data", Text(), nullable=False),
    Column("before", String(), nullable=False),
    Column("hash", String(), nullable=False),
)

calls = Table(
    "calls",
    metadata,
    Column("run", name(), ForeignKey("runs.id"), primary_key=True),
    Column("operation", name(), primary_key=True),
    Column("count", BigInteger(), nullable=False),
)
