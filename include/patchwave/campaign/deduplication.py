"""How is a million findings, of pages that overlap, brought into order in the memory of some thousands of them?

Inspector's lists move while they are read, so a finding may come twice. `Newest` takes findings as they come, sorts some
thousands at a time, and keeps them as compressed lines; going through it merges these. `scan_findings` writes them to the
ledger, and the watcher of an emergency judges them.
"""

from __future__ import annotations

import heapq
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache
from itertools import groupby, islice
from typing import Any

from pydantic import TypeAdapter

from patchwave.campaign import lasting
from patchwave.campaign.findings import Finding

SORTED_AT_ONCE = 20_000
"""Findings that are in memory as objects: some twenty MiB."""
LINES = 500
"""Findings that are compressed together; of each sorted part so many are in memory while the parts are merged."""


class Newest:
    """Each finding once, the most recently updated one, ordered by ARN; can be gone through several times.

    Args:
        findings: taken at once, one at a time.
        at_once: how many are sorted at a time.
    """

    def __init__(self, findings: Iterable[Finding], *, at_once: int = SORTED_AT_ONCE) -> None:
        self._parts: list[tuple[bytes, ...]] = []
        newest: dict[str, Finding] = {}
        for finding in findings:
            known = newest.get(finding.arn)
            if known is None or finding.updated > known.updated:
                newest[finding.arn] = finding
            if len(newest) >= at_once:
                self._parts.append(_part(newest))
                newest = {}
        self._parts.append(_part(newest))

    def __iter__(self) -> Iterator[Finding]:
        return map(finding_of, self.rows())

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """As the ledger stores them."""
        merged = heapq.merge(*map(_rows, self._parts), key=_arn)
        for _, same in groupby(merged, key=_arn):
            yield max(same, key=_updated)  # of two that are as new the one that came first, as within a part


def finding_of(row: Any) -> Finding:
    """What the ledger stores, as a finding."""
    finding = _stored().validate_python(row)
    lasting.in_utc(finding, "first_seen", "updated")
    return finding


@cache
def _stored() -> TypeAdapter[Finding]:
    return TypeAdapter(Finding)


def _part(newest: Mapping[str, Finding]) -> tuple[bytes, ...]:
    lines = (_stored().dump_json(newest[arn]) for arn in sorted(newest))
    return tuple(zlib.compress(b"\n".join(some), 1) for some in iter(lambda: list(islice(lines, LINES)), []))


def _rows(part: tuple[bytes, ...]) -> Iterator[Mapping[str, Any]]:
    for body in part:
        yield from map(json.loads, zlib.decompress(body).split(b"\n"))


def _arn(row: Mapping[str, Any]) -> str:
    return str(row["arn"])


def _updated(row: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(row["updated"])
