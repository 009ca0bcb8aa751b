"""What is wrong? Inspector's findings and coverage as the domain sees them.

`patchwave.aws.inspector` makes these from Inspector's pages, `deduplication` keeps each once; `severity.classify` judges them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from patchwave.campaign.values import Cell, HostId

EC2_INSTANCE = "AWS_EC2_INSTANCE"
"""Inspector's type of the resources that are hosts."""


class Severity(StrEnum):
    """Inspector's own words, most urgent first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFORMATIONAL = "informational"
    UNTRIAGED = "untriaged"  # no score yet: not harmless, but unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class VulnerablePackage:
    """A package that a finding names.

    Attributes:
        manager: Inspector's package manager: ``OS``, ``GOBINARY``, ``GOMOD``, ``PIP``, ``NPM``, ``JAR``...
        fixed_in: version that mends it; None when there is none (Inspector says ``NotAvailable``).
        path: file that holds it, for language packages.
    """

    name: str
    version: str
    manager: str
    fixed_in: str | None = None
    path: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One vulnerability on one resource.

    Attributes:
        arn: Inspector's name of it.
        vulnerability: CVE id or the vendor's (``ALAS2023-2026-123``).
        score: Inspector's score 0-10; None for untriaged ones.
        fix: ``YES``, ``NO`` or ``PARTIAL`` (only some of its packages have a fix).
        exploit_known: an exploit is said to exist.
        related: ids of the vulnerabilities that a vendor's advisory mends, mostly CVE ids.
        first_seen: when Inspector saw it first: exposure counts from here.
    """

    arn: str
    cell: Cell
    resource: str
    resource_type: str
    vulnerability: str
    title: str
    severity: Severity
    packages: tuple[VulnerablePackage, ...]
    fix: str
    first_seen: datetime
    updated: datetime
    score: float | None = None
    exploit_known: bool = False
    related: tuple[str, ...] = ()

    @property
    def host(self) -> HostId:
        """The resource, where it is an EC2 instance."""
        return HostId(self.resource)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """Whether Inspector looks at a host's packages; a host without an active one is unknown, never clean.

    Attributes:
        active: Inspector's scan status is ACTIVE.
        reason: Inspector's word, e.g. ``SUCCESSFUL``, ``UNMANAGED_EC2_INSTANCE``, ``NO_INVENTORY``.
        last_scanned: None if never.
    """

    cell: Cell
    host: HostId
    active: bool
    reason: str
    last_scanned: datetime | None = None
