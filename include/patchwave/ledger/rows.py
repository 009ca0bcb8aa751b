"""How does a document of a million rows rest in the ledger without ever being in memory as a whole?

Rows are written as lines of canonical JSON, `ROWS` of them in a chunk; a chunk is named by the sha256 of its lines and kept
compressed. The document itself is a manifest: the rest of the document, and each chunk's name and number of rows in order. Its
digest is the document's, so it names every row: another row is another chunk, another manifest, another digest.

Pure; `sql.SqlLedger` and `memory.MemoryLedger` keep chunks and manifests. Chunks are kept before the manifest that names them,
so a writer that dies leaves chunks that no document names, and a document is there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from patchwave.campaign import evidence
from patchwave.campaign.evidence import EvidenceBroken

ROWS = 2000
"""Rows in a chunk: a few hundred KiB compressed, one or two MiB of lines while it is made or read."""
MARK = "patchwave.rows"
"""The key that makes a manifest of a stored content; its value is the version of this format."""
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Rows that rest together.

    Attributes:
        digest: sha256 of the lines, whatever compresses them.
        body: the lines, compressed.
    """

    digest: str
    rows: int
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """A document of many rows, as a reader gets it. It can be gone through several times; each time it is read anew.

    Attributes:
        digest: of the document.
        head: the document without its rows; None if it is nothing but a list.
        count: how many rows there are.
        of: the key under which a document that is a mapping has its rows.
    """

    digest: str
    head: Mapping[str, Any] | None
    count: int
    of: str | None
    each: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self.each()

    def whole(self) -> Any:
        """The document as if it had been stored in one piece: all rows at once."""
        return list(self) if self.head is None else {**self.head, str(self.of): list(self)}


def chunks(rows: Iterable[Any], *, size: int = ROWS) -> Iterator[Chunk]:
    """The rows in chunks, one chunk at a time.

    Raises:
        NotJson: a row cannot be written as JSON.
    """
    waiting = iter(rows)
    while lines := [evidence.canonical(row) for row in islice(waiting, size)]:
        # A line has no line break of its own: JSON writes one within a text as \n.
        text = b"\n".join(lines)
        yield Chunk(digest=hashlib.sha256(text).hexdigest(), rows=len(lines), body=zlib.compress(text, 1))


def manifest(kept: Iterable[Chunk], *, head: Mapping[str, Any] | None, of: str | None) -> dict[str, Any]:
    """The content that stands for the whole document.

    Raises:
        ValueError: the head says something under the rows' own key, or there is only one of both.
    """
    if (head is None) != (of is None) or (head is not None and of in head):
        raise ValueError(f"a document of rows is a list, or a mapping that has them under a key of their own; not {of!r}")
    named = [[chunk.digest, chunk.rows] for chunk in kept]
    return {MARK: VERSION, "head": dict(head) if head is not None else None, "of": of, "chunks": named}


def is_manifest(content: Any) -> bool:
    """Whether a stored content stands for rows in chunks."""
    return isinstance(content, dict) and MARK in content


def opened(content: Any, *, name: str, digest: str, of: str | None, chunk: Callable[[str], bytes | None]) -> Rows:
    """The rows behind a stored content.

    Args:
        content: a manifest, or a document of before there were manifests.
        name: of the document, for messages.
        of: where the rows stand in a document that was stored in one piece; None if it is a list.
        chunk: the body of a chunk by its digest; None if there is none.

    Raises:
        EvidenceBroken: the manifest is of a version that nobody here knows.
    """
    if not is_manifest(content):
        return _in_one_piece(content, name=name, digest=digest, of=of)
    if content[MARK] != VERSION:
        raise EvidenceBroken(f"{name}: its rows are stored as version {content[MARK]}; this Patchwave reads version {VERSION}")
    named: list[tuple[str, int]] = [(str(found), int(rows)) for found, rows in content["chunks"]]

    def each() -> Iterator[Any]:
        for number, (found, rows) in enumerate(named, 1):
            yield from _read(chunk(found), found, rows, what=f"{name}: chunk {number} of {len(named)} ({found[:12]})")

    return Rows(digest=digest, head=content["head"], count=sum(rows for _, rows in named), of=content["of"], each=each)


def _in_one_piece(content: Any, *, name: str, digest: str, of: str | None) -> Rows:
    if isinstance(content, list):
        rows, head = content, None
    elif isinstance(content, dict) and of is not None:
        rows, head = content.get(of) or [], {key: value for key, value in content.items() if key != of}
    else:
        raise ValueError(f"{name} is no document of rows")
    return Rows(digest=digest, head=head, count=len(rows), of=of if head is not None else None, each=lambda: iter(rows))


def _read(body: bytes | None, digest: str, rows: int, *, what: str) -> list[Any]:
    """The rows of a chunk.

    Raises:
        EvidenceBroken: they are not those that were stored.
    """
    if body is None:
        raise EvidenceBroken(f"{what} is missing")
    try:
        text = zlib.decompress(body)
    except zlib.error as problem:
        raise EvidenceBroken(f"{what} is damaged: {problem}") from problem
    if hashlib.sha256(text).hexdigest() != digest:
        raise EvidenceBroken(f"{what} is not what was stored: its digest is another one")
    lines = text.split(b"\n")
    if len(lines) != rows:
        raise EvidenceBroken(f"{what} has {len(lines)} rows; the document counts {rows}")
    return [json.loads(line) for line in lines]
