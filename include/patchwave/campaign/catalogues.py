"""What do others know about a vulnerability? CISA's catalogue of exploited ones, its SSVC answers, EPSS.

The task `scan_findings` reads their files or addresses and hands over the text; here it becomes facts, or a refusal that names
file, line, field and what is allowed. A file that was cut off or is something else is refused as a whole: half a catalogue would
make deadlines later than they are. What follows from the facts is decided in `deadlines`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictInt, StrictStr, field_validator, model_validator

from patchwave.campaign import definition, document
from patchwave.campaign.document import Misfit, Misplacement, shown
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.reachability import Reach
from patchwave.campaign.values import HostId

MOST_PROBLEMS = 20
"""So many problems of one file are told; a file that is something else has a thousand."""

CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,19}")
AN_ID = "a CVE id such as 'CVE-2026-12345'"


class Exploitation(StrEnum):
    """CISA's answer on exploitation, in SSVC's words."""

    NONE = "none"
    PUBLIC_POC = "public poc"  # written ``poc`` in CVE records
    ACTIVE = "active"


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """CISA's catalogue of known exploited vulnerabilities, as it was read.

    Attributes:
        version: CISA's, e.g. ``2026.06.12``.
        source: file or address.
        added: the day on which each was taken up.
        note: why this one was taken and not a newer one; empty if it is the newest.
    """

    version: str
    released: datetime
    source: str
    read_at: datetime
    added: Mapping[str, date]
    note: str = ""

    def __str__(self) -> str:
        return f"CISA's catalogue {self.version} ({len(self.added)} entries, read {self.read_at:%Y-%m-%d %H:%M} UTC)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ssvc:
    """CISA's SSVC answers on one vulnerability; None where it gives none."""

    exploitation: Exploitation | None = None
    automatable: str | None = None  # yes, no
    technical_impact: str | None = None  # partial, total


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """Everything that deadlines are decided by, beside the finding itself. What is absent is unknown, never harmless.

    Attributes:
        catalogue: None if the policy names none.
        ssvc: by CVE id.
        epss: probability of an exploitation within 30 days, by CVE id.
        reach: how each host can be reached from the internet; one that is absent was not looked at, or is gone.
    """

    catalogue: Catalogue | None = None
    ssvc: Mapping[str, Ssvc] = field(default_factory=dict)
    epss: Mapping[str, float] = field(default_factory=dict)
    reach: Mapping[HostId, Reach] = field(default_factory=dict)


NOTHING = Known()
"""For policies that go by severity alone."""


class _Foreign(BaseModel):
    """Part of a file that others write: what we do not know in it is theirs."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# --- CISA's catalogue ---------------------------------------------------------------------------------------------------------


def _cve(value: str) -> str:
    if not CVE.fullmatch(value):
        raise ValueError(f"allowed is {AN_ID}")
    return value


class _Entry(_Foreign):
    cve: Annotated[StrictStr, Field(alias="cveID", description=AN_ID)]
    added: Annotated[date, Field(alias="dateAdded", description="the day on which it was taken up, such as 2026-12-31")]
    due: Annotated[date, Field(alias="dueDate", description="a day such as 2026-12-31")]
    vendor: Annotated[StrictStr, Field(alias="vendorProject", description="text")]
    product: Annotated[StrictStr, Field(description="text")]
    name: Annotated[StrictStr, Field(alias="vulnerabilityName", description="text")]

    _is_cve = field_validator("cve")(_cve)
    _is_day = field_validator("added", "due", mode="before")(definition.day)


class _Exploited(_Foreign):
    """CISA's schema of the catalogue, as far as its fields are read or tell a whole file from a piece of one."""

    version: Annotated[StrictStr, Field(alias="catalogVersion", min_length=1, description="CISA's version of the catalogue")]
    released: Annotated[AwareDatetime, Field(alias="dateReleased", description="a moment as 2026-06-12T15:00:00Z")]
    count: Annotated[StrictInt, Field(description="number of the entries")]
    entries: Annotated[tuple[_Entry, ...], Field(alias="vulnerabilities", description="the entries")]

    @field_validator("released", mode="before")
    @classmethod
    def _is_moment(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                found = datetime.fromisoformat(value)
            except ValueError:
                found = None
            if found is not None and found.tzinfo is not None:
                return found
        raise ValueError("allowed is a moment with its zone, such as '2026-06-12T15:00:00Z'")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        found = []
        if not self.entries:
            found.append(Misplacement(loc=("vulnerabilities",), message="is an empty list; allowed is a whole catalogue"))
        elif self.count != len(self.entries):
            message = f"says {self.count}, and there are {len(self.entries)} entries; allowed is a whole catalogue"
            found.append(Misplacement(loc=("count",), message=message))
        first: dict[str, int] = {}
        for number, one in enumerate(self.entries):
            if first.setdefault(one.cve, number) != number:
                message = f"{one.cve} is there before, in vulnerabilities[{first[one.cve]}]; allowed is once"
                found.append(Misplacement(loc=("vulnerabilities", number, "cveID"), message=message))
        if found:
            raise Misfit(found)
        return self


def catalogue(text: str, *, file: str, read_at: datetime) -> Catalogue:
    """CISA's catalogue (``known_exploited_vulnerabilities.json``).

    Args:
        file: file or address, as messages and reasons name it.

    Raises:
        InvalidFile: it is no such catalogue, or not a whole one.
    """
    read = _fit(text, _Exploited, file=file)
    return Catalogue(
        version=read.version,
        released=read.released.astimezone(UTC),
        source=file,
        read_at=read_at,
        added={one.cve: one.added for one in read.entries},
    )


# --- CISA's SSVC answers, as Vulnrichment publishes them in CVE records ---------------------------------------------------------

_ANSWERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "Exploitation": ("exploitation", {"none": "none", "poc": "public poc", "public poc": "public poc", "active": "active"}),
    "Automatable": ("automatable", {"yes": "yes", "no": "no"}),
    "Technical Impact": ("technical_impact", {"partial": "partial", "total": "total"}),
}
"""The decision points that are read, and their answers; others (CISA's mission and well-being) are no facts of ours."""


class _Content(_Foreign):
    options: Annotated[tuple[Mapping[str, Any], ...], Field(description="SSVC's answers, each as one name and its value")]

    @field_validator("options")
    @classmethod
    def _is_known(cls, options: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
        found = []
        for number, option in enumerate(options):
            for name, answer in option.items():
                allowed = _ANSWERS.get(name, ("", {}))[1]
                if allowed and str(answer).lower() not in allowed:
                    message = f"found {shown(answer)}; allowed are {', '.join(allowed)}"
                    found.append(Misplacement(loc=(number, name), message=message))
        if found:
            raise Misfit(found)
        return options

    @property
    def answers(self) -> Ssvc:
        given = {
            _ANSWERS[name][0]: _ANSWERS[name][1][str(answer).lower()]
            for option in self.options
            for name, answer in option.items()
            if name in _ANSWERS
        }
        exploitation = given.pop("exploitation", None)
        return Ssvc(exploitation=Exploitation(exploitation) if exploitation else None, **given)


class _Other(_Foreign):
    type: StrictStr = ""
    content: Mapping[str, Any] = Field(default_factory=dict)


class _Metric(_Foreign):
    other: _Other | None = None


class _Adp(_Foreign):
    metrics: tuple[_Metric, ...] = ()


class _Containers(_Foreign):
    adp: tuple[_Adp, ...] = ()


class _Metadata(_Foreign):
    id: Annotated[StrictStr, Field(alias="cveId", description=AN_ID)]

    _is_cve = field_validator("id")(_cve)


class _Record(_Foreign):
    metadata: Annotated[_Metadata, Field(alias="cveMetadata", description="the record's id")]
    containers: Annotated[_Containers, Field(description="what is published about it")]

    @model_validator(mode="after")
    def _answers_fit(self) -> Self:
        list(self.contents())
        return self

    def contents(self) -> Iterator[_Content]:
        """What the record says in SSVC's words."""
        for a, adp in enumerate(self.containers.adp):
            for m, metric in enumerate(adp.metrics):
                if metric.other is not None and metric.other.type.lower() == "ssvc":
                    yield _content(metric.other.content, ("containers", "adp", a, "metrics", m, "other", "content"))


def _content(given: Mapping[str, Any], loc: document.Loc) -> _Content:
    try:
        return _Content.model_validate(given)
    except ValueError as error:
        raise Misfit(
            [Misplacement(loc=(*loc, *one.loc), message=one.message) for one in document.misplaced(error, _Content)]
        ) from None


class _Records(_Foreign):
    records: Annotated[tuple[_Record, ...], Field(alias="")]  # a list has no field of its own that a message could name


def ssvc(text: str, *, file: str) -> Mapping[str, Ssvc]:
    """SSVC answers by CVE id, from CVE records with CISA's container (Vulnrichment): one record, or a list of them.

    A record without such answers says nothing: it is absent.

    Raises:
        InvalidFile: it is no such record.
    """
    loaded = document.load_json(text, file=file)
    if isinstance(loaded.data, list):
        records: tuple[_Record, ...] = _bounded(loaded.within(""), _Records).records
    else:
        records = (_bounded(loaded, _Record),)
    return {record.metadata.id: content.answers for record in records for content in record.contents()}


def record_path(cve: str) -> str:
    """Where a copy of the Vulnrichment repository keeps a record: ``2026/12xxx/CVE-2026-12345.json``."""
    _, year, number = cve.split("-")
    return f"{year}/{number[:-3]}xxx/{cve}.json"


# --- EPSS ---------------------------------------------------------------------------------------------------------------------


def epss(text: str, *, file: str, wanted: Collection[str] | None = None) -> Mapping[str, float]:
    """Probabilities by CVE id, from FIRST's file: columns ``cve,epss,percentile``, a comment in front.

    Args:
        wanted: only these are kept (the file names some 300,000); None: all. Every line is checked all the same.

    Raises:
        InvalidFile: it is no such file.
    """
    found: dict[str, float] = {}
    problems: list[str] = []
    lines = csv.reader(io.StringIO(text, newline=""))
    header: list[str] | None = None
    try:
        for row in lines:
            if not row or row[0].startswith("#"):
                continue
            if header is None:
                header = [one.strip().lower() for one in row]
                if header[:2] != ["cve", "epss"]:
                    name = shown(",".join(row))
                    raise InvalidFile((f"{file}:{lines.line_num}: the header: found {name}; allowed is cve,epss,percentile",))
                continue
            cve, probability = (row[0].strip(), _probability(row[1])) if len(row) > 1 else (row[0].strip(), None)
            if not CVE.fullmatch(cve):
                problems.append(f"{file}:{lines.line_num}: cve: found {shown(cve)}; allowed is {AN_ID}")
            elif probability is None:
                given = shown(row[1]) if len(row) > 1 else "nothing"
                problems.append(f"{file}:{lines.line_num}: epss: found {given}; allowed is a number from 0 to 1")
            elif wanted is None or cve in wanted:
                found[cve] = max(probability, found.get(cve, 0.0))
    except csv.Error as error:
        problems.append(f"{file}:{lines.line_num}: the file: is no CSV: {error}")
    if header is None and not problems:
        problems.append(f"{file}:1: the file: is empty; allowed is CSV with the header cve,epss,percentile")
    if problems:
        raise InvalidFile(_some(problems))
    return found


def _probability(written: str) -> float | None:
    if not re.fullmatch(r"\s*(0|1|0?\.[0-9]{1,20}|[01]\.[0-9]{0,20}|[0-9](\.[0-9]{1,20})?[eE]-[0-9]{1,3})\s*", written):
        return None
    value = float(written)
    return value if 0 <= value <= 1 else None


# --- Reading ------------------------------------------------------------------------------------------------------------------


def _fit(text: str, model: type[document.ModelT], *, file: str) -> document.ModelT:
    return _bounded(document.load_json(text, file=file), model)


def _bounded(loaded: document.Document, model: type[document.ModelT]) -> document.ModelT:
    try:
        return document.fit(loaded, model)
    except InvalidFile as error:
        raise InvalidFile(_some(error.problems)) from None


def _some(problems: Collection[str]) -> tuple[str, ...]:
    told = tuple(problems)[:MOST_PROBLEMS]
    more = len(problems) - len(told)
    return (*told, f"and {more} more problems of this file") if more else told
