"""How do we prove it? Canonical JSON, the digests that name documents, and the links that chain a journal's records.

The ledger makes digests and links with it, the report and the auditor's export check them with `verify`. Where records are
stored, and which ones there are, is the ledger's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from patchwave.campaign.errors import Permanent

FIRST = "0" * 64
"""What stands in `before` of a journal's first record."""


class NotJson(Permanent):
    """The content cannot be written as JSON, so it has no digest."""


class EvidenceBroken(Permanent):
    """What is stored is not what was written: its digest is another one."""


class Linked(Protocol):
    """A record of a journal, whoever stores it."""

    @property
    def run(self) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def at(self) -> datetime: ...
    @property
    def kind(self) -> str: ...
    @property
    def data(self) -> Mapping[str, Any]: ...
    @property
    def before(self) -> str: ...
    @property
    def hash(self) -> str: ...


def canonical(content: Any) -> bytes:
    """`content` as JSON with sorted keys and without blanks, in UTF-8: equal contents give equal bytes on any machine.

    Raises:
        NotJson: a key is no text (JSON would turn 10 into "10" and sort it elsewhere afterwards), a number is not finite,
            a text is no valid Unicode, or a value is of a type that JSON does not have.
    """
    _check_keys(content, "content")
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise NotJson(f"the content cannot be written as JSON: {problem}") from problem


_NESTING = (dict, list, tuple)


def _check_keys(content: Any, place: str) -> None:
    waiting = [(content, place)] if isinstance(content, _NESTING) else []
    while waiting:
        value, where = waiting.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise NotJson(f"{where} has the key {key!r}; keys of JSON are texts")
                if isinstance(inner, _NESTING):
                    waiting.append((inner, f"{where}.{key}"))
        else:
            waiting.extend((inner, f"{where}[{index}]") for index, inner in enumerate(value) if isinstance(inner, _NESTING))
        if len(where) > 10_000:
            raise NotJson("the content is nested too deeply, or contains itself")


def digest(content: Any) -> str:
    """sha256 of the canonical JSON, 64 hex digits: the name of a plan, a campaign file's content, a document.

    Raises:
        NotJson: see `canonical`.
    """
    return hashlib.sha256(canonical(content)).hexdigest()


def link(run: str, sequence: int, at: datetime, kind: str, data: Mapping[str, Any], before: str) -> str:
    """The hash of a record, which the next record carries as its `before`.

    Args:
        at: aware; the same moment gives the same hash in every time zone.

    Raises:
        ValueError: `at` has no time zone.
        NotJson: see `canonical`.
    """
    if at.utcoffset() is None:
        raise ValueError(f"{at.isoformat()} has no time zone")
    moment = at.astimezone(UTC).isoformat(timespec="microseconds")
    return digest({"run": run, "sequence": sequence, "at": moment, "kind": kind, "data": dict(data), "before": before})


def verify(entries: Iterable[Linked]) -> list[str]:
    """What is wrong with a run's journal, one sentence each; an empty list when every record is as it was written.

    A record that was changed, removed, put in or moved is found. Records cut off at the end are not, for the chain cannot
    know how long it was: compare the last hash with one that was kept elsewhere (the report prints it).
    """
    problems: list[str] = []
    run: str | None = None
    before, expected = FIRST, 1
    for entry in entries:
        name = f"record {entry.sequence} ({entry.kind})"
        if run is not None and entry.run != run:
            problems.append(f"{name} belongs to {entry.run}, not to {run}")
        run = entry.run if run is None else run
        if entry.sequence != expected:
            problems.append(f"{name} stands where record {expected} should stand")
        if entry.before != before:
            problems.append(
                f"{name} does not follow the record before it: that one's hash is {before[:12]}, not {entry.before[:12]}"
            )
        made = _link_of(entry)
        if entry.hash != made:
            problems.append(f"{name} was changed after it was written: its hash is not the one of its content")
        before, expected = entry.hash, entry.sequence + 1
    return problems


def _link_of(entry: Linked) -> str | None:
    try:
        return link(entry.run, entry.sequence, entry.at, entry.kind, entry.data, entry.before)
    except (NotJson, ValueError):
        return None
