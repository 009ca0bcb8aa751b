"""How long was the fleet exposed? Age of findings by severity, from Inspector's first sight to their end.

`patchwave.campaign.report` asks; what a finding's deadline is was answered before, by the triage. A finding that was not
proven closed counts as open: its exposure runs on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from statistics import median
from typing import Any

from patchwave.campaign.findings import Severity


class Fate(StrEnum):
    """What became of a finding, by the last look at Inspector."""

    CLOSED = "closed"
    OPEN = "open"
    UNKNOWN = "unknown"  # not looked at again, or Inspector no longer sees the host: never taken for closed


@dataclass(frozen=True, kw_only=True, slots=True)
class Triaged:
    """A finding as the triage in the ledger has it, and what became of it.

    Attributes:
        track: how it was to be handled; ``not_patchable`` with the reason.
        deadline: when it must be gone; None where the policy names none.
        deadline_because: the row of the deadline's table that matched; empty in runs of before there was such a sentence.
        first_seen: None if the document does not say; then it has no exposure.
    """

    host: str
    vulnerability: str
    severity: str
    track: str
    reason: str
    packages: tuple[str, ...]
    first_seen: datetime | None
    deadline: datetime | None
    fate: Fate = Fate.UNKNOWN
    deadline_because: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """Exposure of one severity.

    Attributes:
        median: from first sight to closing or now; None without findings.
        open: not proven closed (open and unknown ones).
        overdue: of those, past their deadline.
        closed_late: closed, but after their deadline.
    """

    severity: str
    findings: int
    median: timedelta | None
    longest: timedelta | None
    open: int
    overdue: int
    closed_late: int


def by_severity(findings: Iterable[Triaged], *, closed_at: datetime | None, now: datetime) -> tuple[Exposure, ...]:
    """Exposure of each severity that occurs, most urgent first.

    Args:
        closed_at: the look that found the closed ones closed: the latest moment at which they can have ended.
    """
    groups: dict[str, list[Triaged]] = {}
    for finding in findings:
        groups.setdefault(finding.severity, []).append(finding)
    order = {severity.value: rank for rank, severity in enumerate(Severity)}
    return tuple(
        _of(severity, groups[severity], closed_at=closed_at or now, now=now)
        for severity in sorted(groups, key=lambda one: (order.get(one, len(order)), one))
    )


def _of(severity: str, findings: list[Triaged], *, closed_at: datetime, now: datetime) -> Exposure:
    def end(finding: Triaged) -> datetime:
        return closed_at if finding.fate is Fate.CLOSED else now

    late = [one for one in findings if one.deadline is not None and one.deadline < end(one)]
    # Inspector's clock and ours may differ by a moment: nothing was exposed for less than no time.
    ages = [max(timedelta(0), end(one) - one.first_seen) for one in findings if one.first_seen is not None]
    return Exposure(
        severity=severity,
        findings=len(findings),
        median=timedelta(seconds=median(age.total_seconds() for age in ages)) if ages else None,
        longest=max(ages) if ages else None,
        open=sum(one.fate is not Fate.CLOSED for one in findings),
        overdue=sum(one.fate is not Fate.CLOSED for one in late),
        closed_late=sum(one.fate is Fate.CLOSED for one in late),
    )


def triaged(triage: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> tuple[Triaged, ...]:
    """The findings of the ledger's documents ``triage`` and ``findings.after``, each once, in an order that is always the same.

    A million ARNs are more than all that is said of their findings: of each only a digest is kept (BLAKE2b, 128 bits).

    Args:
        triage: its assessments are taken one at a time.
        after: None if nobody looked at Inspector again; then the fate of every finding is unknown.
    """
    fates = _fates(after)
    found: dict[bytes, Triaged] = {}
    said: dict[Any, Any] = {}
    once = said.setdefault  # a million findings say the same few thousand things
    for item in _items(triage):
        arn = _name(str(item["finding"]))
        host, vulnerability = str(item.get("host") or item.get("resource") or ""), str(item.get("vulnerability") or "")
        reason, because = str(item.get("reason") or ""), str(item.get("deadline_because") or "")
        packages = tuple(once(str(one), str(one)) for one in item.get("packages") or ())
        severity = str(item.get("severity") or Severity.UNTRIAGED.value).lower()
        track = str(item.get("track") or "none")
        found[arn] = Triaged(
            host=once(host, host),
            vulnerability=once(vulnerability, vulnerability),
            severity=once(severity, severity),
            track=once(track, track),
            reason=once(reason, reason),
            packages=once(packages, packages),
            first_seen=moment(item.get("first_seen")),
            deadline=moment(item.get("deadline")),
            fate=found[arn].fate if arn in found else fates.pop(arn, Fate.UNKNOWN),  # so none is kept twice
            deadline_because=once(because, because),
        )
    return tuple(found[arn] for arn in sorted(found))


def _name(arn: str) -> bytes:
    return blake2b(arn.encode(), digest_size=16).digest()


def moment(written: object) -> datetime | None:
    """An aware datetime from ISO 8601, or None where there is none."""
    if isinstance(written, datetime):
        return written
    if not isinstance(written, str) or not written:
        return None
    try:
        read = datetime.fromisoformat(written)
    except ValueError:
        return None
    return read if read.tzinfo else None


def _fates(after: Mapping[str, Any] | None) -> dict[bytes, Fate]:
    """Fate by the ARN's digest. Runs of before have a list of ARNs for each fate; now each finding is a row with its fate."""
    fates: dict[bytes, Fate] = {}
    for arn, fate in ((_name(arn), fate) for arn, fate in _said(after or {})):
        # A finding that is named twice is only closed where both say so.
        known = fates.get(arn, Fate.CLOSED)
        fates[arn] = next(one for one in (Fate.OPEN, Fate.UNKNOWN, Fate.CLOSED) if one in (fate, known))
    return fates


def _said(after: Mapping[str, Any]) -> Iterator[tuple[str, Fate]]:
    for fate in Fate:
        for arn in after.get(fate.value) or ():
            yield str(arn), fate
    for row in after.get(ROWS) or ():
        yield str(row["finding"]), Fate(row["fate"])


ROWS = "findings"
"""Where the document ``findings.after`` has its rows."""


def _items(triage: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The triage's assessments: every record that names a finding."""
    return (one for one in (triage or {}).get("assessments") or () if isinstance(one, Mapping) and one.get("finding"))
