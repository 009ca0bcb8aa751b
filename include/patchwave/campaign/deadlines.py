"""By when must a finding be gone, and why by then?

What stands under `deadlines:` in a policy file: days by severity, or a decision table of `tables` with where the answer of each
column comes from. `severity.classify` asks `due` for each finding. An answer that nobody knows is the one that the policy states
for it (`if_unknown`), and the sentence says so: not knowing never gives more time than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainValidator,
    StrictBool,
    StrictStr,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from patchwave.campaign import catalogues, definition, tables
from patchwave.campaign.catalogues import CVE, Known, Ssvc
from patchwave.campaign.definition import TAGS_SCHEMA, Tags, Timeout, written_duration
from patchwave.campaign.document import Misfit, Misplacement, Part, shown
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.findings import EC2_INSTANCE, Finding, Severity
from patchwave.campaign.reachability import Reach, Sign
from patchwave.campaign.tables import Table

WEEK = timedelta(days=7)


# --- What comes out -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """What a policy says of one finding.

    Attributes:
        at: None for no deadline.
        within: the time that was given, from `since` on.
        because: the table, the row that matched and its answers, each with where it comes from.
    """

    at: datetime | None
    within: timedelta | None
    because: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer of one column, and where it comes from.

    Attributes:
        since: when it became so, where that is known and later than the finding may be.
    """

    value: str
    because: str
    since: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What has to be read before deadlines can be decided.

    Attributes:
        catalogue: CISA's catalogue: file or address; None if it does not matter.
        oldest: age of a catalogue in the ledger that may stand in for one that cannot be read.
        vulnrichment: file or folder of CVE records.
        epss: file.
        reach: hosts' addresses and tags are needed.
        balancers: load balancers, too.
        tags: keys of the tags that matter.
    """

    catalogue: str | None = None
    oldest: timedelta = WEEK
    vulnrichment: str | None = None
    epss: str | None = None
    reach: bool = False
    balancers: bool = False
    tags: tuple[str, ...] = ()

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(
            catalogue=self.catalogue or other.catalogue,
            oldest=min(self.oldest, other.oldest),
            vulnrichment=self.vulnrichment or other.vulnrichment,
            epss=self.epss or other.epss,
            reach=self.reach or other.reach,
            balancers=self.balancers or other.balancers,
            tags=tuple(sorted({*self.tags, *other.tags})),
        )


# --- How a value is written -----------------------------------------------------------------------------------------------------


def days(written: object) -> int | None:
    """A number of days, or None for no deadline.

    Raises:
        ValueError: neither.
    """
    if written is None:
        return None
    if isinstance(written, int) and not isinstance(written, bool) and 0 <= written <= 3650:
        return written
    raise ValueError("allowed is a whole number of days from 0 to 3650, or null for no deadline")


def probability(written: object) -> float:
    """A probability above 0.

    Raises:
        ValueError: none.
    """
    if isinstance(written, int | float) and not isinstance(written, bool) and 0 < written <= 1:
        return float(written)
    raise ValueError("allowed is a number above 0 and at most 1, such as 0.1")


def _without_way_out(path: str) -> str:
    if ".." in Path(path).parts:
        raise ValueError("allowed is a path without '..'")
    return path


ON_WORKER = "on the machine of the Airflow worker (a relative one counts from the folder of the policies)"
LOCAL = r"(?!\w+://)[^\s\x00][^\x00\n]*"
# Without TLS whoever sits in between could take an entry out, and with it the deadline; this machine sends to nobody.
ADDRESS = r"https://[^\s/?#]+/\S*|http://(localhost|127\.0\.0\.1)(:[0-9]+)?/\S*"

Days = Annotated[int | None, Field(strict=True, ge=0, le=3650)]
LocalPath = Annotated[
    StrictStr,
    definition.matching(LOCAL, f"a path {ON_WORKER}"),
    AfterValidator(_without_way_out),
]
Source = Annotated[
    StrictStr,
    definition.matching(
        f"{ADDRESS}|{LOCAL}",
        f"an address that begins with https://, or a path {ON_WORKER}",
    ),
    AfterValidator(_without_way_out),
]
YES_OR_NO = WithJsonSchema({"enum": ["yes", "no", True, False]})
YesNo = Annotated[Literal["yes", "no"], BeforeValidator(tables.word), YES_OR_NO]
Probability = Annotated[
    float, PlainValidator(probability), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
]
HostTags = Annotated[Tags, Field(json_schema_extra=lambda schema: schema.update(TAGS_SCHEMA))]
Impact = Annotated[Literal["2", "3", "4", "5"], BeforeValidator(tables.word), WithJsonSchema({"enum": [2, 3, 4, 5]})]


# --- Days by severity -----------------------------------------------------------------------------------------------------------


class SeverityDays(Part):
    """Days from the moment when Inspector first saw a finding until it must be gone; null for no deadline.

    There are no defaults: a deadline that nobody wrote down is nobody's.
    """

    critical: Annotated[Days, Field(description="Days for critical findings (score 9.0 to 10).", examples=[15])]
    high: Annotated[Days, Field(description="Days for high findings (7.0 to 8.9).", examples=[30])]
    medium: Annotated[Days, Field(description="Days for medium findings (4.0 to 6.9).", examples=[90])]
    low: Annotated[Days, Field(description="Days for low findings (0.1 to 3.9).", examples=[180])]
    informational: Annotated[Days, Field(description="Days for informational findings (0).", examples=[None])]
    untriaged: Annotated[Days, Field(
        description="Days for findings without a score yet. Unknown is not harmless: give them those of high findings, since "
        "most are scored medium or high once somebody looks, and critical ones are rarely left unscored.",
        examples=[30],
    )]  # fmt: skip

    @field_validator("*", mode="before")
    @classmethod
    def _is_days(cls, written: object) -> object:
        return days(written)

    @model_validator(mode="after")
    def _more_severe_is_never_later(self) -> Self:
        _never_later(self, ("critical", "high", "medium", "low", "informational"))
        return self

    @property
    def wanted(self) -> Wanted:
        """Nothing but the finding."""
        return Wanted()

    def of(self, severity: Severity) -> timedelta | None:
        """The time that a finding of this severity has; None for no deadline."""
        return _days_of(self, severity.value)

    def due(self, finding: Finding, known: Known, memo: Memo | None = None) -> Due:
        """By the finding's severity alone."""
        del known, memo
        within, because = self._rows[finding.severity]
        at = None if within is None else finding.first_seen + within
        return Due(at=at, within=within, because=because)

    @cached_property
    def _rows(self) -> Mapping[Severity, tuple[timedelta | None, str]]:
        return {one: (self.of(one), f"days by severity: {one.value}, {_said(self.of(one))}") for one in Severity}


def _days_of(part: Part, name: str) -> timedelta | None:
    given: int | None = getattr(part, name)
    return None if given is None else timedelta(days=given)


def _never_later(part: Part, ranked: Sequence[str]) -> None:
    """Nothing, if no more urgent one has more days.

    Raises:
        Misfit: one has.
    """
    found = []
    for worse, milder in pairwise(ranked):
        sooner, later = getattr(part, worse), getattr(part, milder)
        if later is not None and (sooner is None or sooner > later):
            message = f"is later than {milder} ({later} days); allowed is at most that"
            found.append(Misplacement(loc=(worse,), message=message))
    if found:
        raise Misfit(found)


# --- Where the answers of columns come from -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Met:
    """The row that answers meet: its time, the sentence, and since when it is so (None: always)."""

    within: timedelta | None
    because: str
    since: datetime | None


@dataclass(kw_only=True, slots=True)
class Memo:
    """What was answered before by the same `Known`: a million findings are of a few thousand vulnerabilities.

    Attributes:
        once: equal answers are one object: that a host has no public address is said of 100,000 in the same words, and with an
            answer of its own each of them would meet rows of its own.
        answers: of a resource, and of a vulnerability, by column.
        rows: by the answers' identities.
        without_catalogue: the same facts, as they were before CISA's catalogue took anything up, and what was answered by those.
    """

    once: dict[Answer, Answer] = field(default_factory=dict)
    answers: dict[tuple[Any, ...], Mapping[str, Answer]] = field(default_factory=dict)
    rows: dict[tuple[int, ...], _Met] = field(default_factory=dict)
    without_catalogue: tuple[Known, Memo] | None = None


class Input(Protocol):
    """Where the answer of one column comes from.

    Attributes:
        of_host: it depends on the resource alone; if not, on the vulnerability alone.
    """

    of_host: ClassVar[bool]

    @property
    def wanted(self) -> Wanted: ...

    def answer(self, finding: Finding, known: Known) -> Answer: ...


def cve_ids(finding: Finding) -> tuple[str, ...]:
    """The CVE ids that a finding is about: its own, or those of a vendor's advisory."""
    return tuple(dict.fromkeys(one.upper() for one in (finding.vulnerability, *finding.related) if CVE.fullmatch(one.upper())))


def _unknown(value: str, why: str) -> Answer:
    return Answer(value=value, because=f"unknown: {why}; so the policy answers")


def _nobody_says(finding: Finding) -> str:
    return "nobody has judged it" if cve_ids(finding) else f"{finding.vulnerability} names no CVE id"


class KnownExploited(Part):
    """Whether CISA's catalogue of known exploited vulnerabilities (KEV) lists the vulnerability."""

    of_host: ClassVar[bool] = False

    catalogue: Annotated[Source, Field(
        description="CISA's catalogue as JSON: an address, or a file that somebody keeps up to date.",
        examples=["https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json"],
    )]  # fmt: skip
    oldest: Annotated[Timeout, Field(
        description="If the address cannot be read, the last catalogue in the ledger stands in, up to this age; the report says "
        "so. Without one the run stops before anything is judged. Default 7 days: CISA adds several a week.",
    )] = WEEK  # fmt: skip
    if_unknown: Annotated[YesNo, Field(
        description="The answer for a finding without any CVE id: no catalogue can be asked. No default: somebody decides.",
    )]  # fmt: skip

    @property
    def wanted(self) -> Wanted:
        """The catalogue."""
        return Wanted(catalogue=self.catalogue, oldest=self.oldest)

    def answer(self, finding: Finding, known: Known) -> Answer:
        """Yes if one of the finding's CVE ids is listed."""
        listed = _listed(finding, known)
        if listed is not None:
            return listed
        if known.catalogue is None or not cve_ids(finding):
            return _unknown(self.if_unknown, "no catalogue was read" if known.catalogue is None else _nobody_says(finding))
        return Answer(value="no", because=f"CISA's catalogue {known.catalogue.version} does not list it")


def _listed(finding: Finding, known: Known) -> Answer | None:
    """Yes, with the day, if the catalogue lists it."""
    if known.catalogue is None:
        return None
    found = [(known.catalogue.added[cve], cve) for cve in cve_ids(finding) if cve in known.catalogue.added]
    if not found:
        return None
    day, cve = min(found)
    name = "it" if cve == finding.vulnerability.upper() else cve
    because = f"CISA's catalogue {known.catalogue.version} lists {name} since {day:%Y-%m-%d}"
    return Answer(value="yes", because=because, since=datetime.combine(day, time(), UTC))


class Reachable(Part):
    """Whether strangers can reach the host: by what AWS shows, or by what its tags say. One sign is enough."""

    of_host: ClassVar[bool] = True

    signs: Annotated[tuple[Sign, ...], Field(
        description="What AWS may show: a public address of the host (IPv4, or any IPv6), or an internet-facing load balancer of "
        "which it is a target. Default: both count.",
    )] = (Sign.PUBLIC_ADDRESS, Sign.INTERNET_FACING_LOAD_BALANCER)  # fmt: skip
    tags: Annotated[HostTags, Field(
        default_factory=dict,
        description="Tags of hosts that strangers can reach in ways that AWS does not show (a CDN, a VPN, a partner's line): one "
        "of the values of any key is enough. Default: none.",
        examples=[{"Exposure": ["internet", "partner"]}],
    )]  # fmt: skip
    if_unknown: Annotated[YesNo, Field(
        description="The answer for a host that EC2 does not describe, and for what is no EC2 instance (functions, images). No "
        "default: somebody decides.",
    )]  # fmt: skip

    @model_validator(mode="after")
    def _has_a_sign(self) -> Self:
        if not self.signs and not self.tags:
            message = (
                "is an empty list, and there are no tags either; allowed is at least one sign or tag, or nobody is ever exposed"
            )
            raise Misfit([Misplacement(loc=("signs",), message=message)])
        return self

    @property
    def wanted(self) -> Wanted:
        """Addresses and tags of hosts."""
        return Wanted(reach=True, balancers=Sign.INTERNET_FACING_LOAD_BALANCER in self.signs, tags=tuple(self.tags))

    def answer(self, finding: Finding, known: Known) -> Answer:
        """Yes if the host shows a sign; no only if somebody looked."""
        reach = _reach(finding, known)
        if reach is None:
            return _unknown(self.if_unknown, _not_seen(finding))
        sign = next((text for sign in self.signs if (text := reach.shows(sign))), "") or _tagged(reach, self.tags)
        if sign:
            return Answer(value="yes", because=sign)
        looked = [one.value.replace("_", " ") for one in self.signs] + [f"tag {key}" for key in self.tags]
        return Answer(value="no", because=f"no {', no '.join(looked)}")


def _reach(finding: Finding, known: Known) -> Reach | None:
    return known.reach.get(finding.host) if finding.resource_type == EC2_INSTANCE else None


def _not_seen(finding: Finding) -> str:
    if finding.resource_type != EC2_INSTANCE:
        return f"{finding.resource_type} is no EC2 instance"
    return "EC2 did not describe the host"


def _tagged(reach: Reach, tags: Mapping[str, Sequence[str]]) -> str:
    return next((f"tag {key}={reach.tags[key]}" for key, values in tags.items() if reach.tags.get(key) in values), "")


class Epss(Part):
    """EPSS: the probability that a vulnerability is exploited within 30 days, by FIRST."""

    file: Annotated[LocalPath, Field(description="FIRST's CSV file, unpacked: columns `cve,epss,percentile`.")]
    at_least: Annotated[Probability, Field(
        description="From this probability on the answer is yes. Below it EPSS says nothing: rarely tried is not impossible.",
        examples=[0.1],
    )]  # fmt: skip

    def reached(self, finding: Finding, known: Known) -> str:
        """The probability in words, if it is high enough; else empty."""
        highest = max((known.epss[cve] for cve in cve_ids(finding) if cve in known.epss), default=0.0)
        return f"EPSS {highest:.3f}, at least {self.at_least:g}" if highest >= self.at_least else ""


class Automatable(Part):
    """Whether an attacker can do without a person: SSVC's decision point Automatable."""

    of_host: ClassVar[bool] = False

    vulnrichment: Annotated[LocalPath | None, Field(
        description="CVE records with CISA's SSVC answers: a JSON file (a record or a list), or a folder laid out as a copy of "
        "github.com/cisagov/vulnrichment. Default: none.",
    )] = None  # fmt: skip
    epss: Annotated[Epss | None, Field(description="Used where CISA has given no answer. Default: not used.")] = None
    if_unknown: Annotated[YesNo, Field(description="The answer where nobody gives one. No default: somebody decides.")]

    @property
    def wanted(self) -> Wanted:
        """CISA's answers, and EPSS."""
        return Wanted(vulnrichment=self.vulnrichment, epss=self.epss.file if self.epss else None)

    def answer(self, finding: Finding, known: Known) -> Answer:
        """CISA's; else yes by EPSS; else the policy's."""
        given = {one.automatable for one in _ssvc(finding, known)} - {None}
        if given:
            return Answer(value="yes" if "yes" in given else "no", because="CISA's SSVC answer")
        if self.epss is not None and (said := self.epss.reached(finding, known)):
            return Answer(value="yes", because=said)
        return _unknown(self.if_unknown, _nobody_says(finding))


class TechnicalImpact(Part):
    """Whether an exploit gives total control or a part of it: SSVC's decision point Technical Impact."""

    of_host: ClassVar[bool] = False

    vulnrichment: Annotated[LocalPath | None, Field(
        description="CVE records with CISA's SSVC answers, as for `automatable`. Default: none.",
    )] = None  # fmt: skip
    if_unknown: Annotated[Literal["partial", "total"], Field(
        description="The answer where nobody gives one. No default: somebody decides.",
    )]  # fmt: skip

    @property
    def wanted(self) -> Wanted:
        """CISA's answers."""
        return Wanted(vulnrichment=self.vulnrichment)

    def answer(self, finding: Finding, known: Known) -> Answer:
        """CISA's; else the policy's."""
        given = {one.technical_impact for one in _ssvc(finding, known)} - {None}
        if given:
            return Answer(value="total" if "total" in given else "partial", because="CISA's SSVC answer")
        return _unknown(self.if_unknown, _nobody_says(finding))


def _ssvc(finding: Finding, known: Known) -> list[Ssvc]:
    return [known.ssvc[cve] for cve in cve_ids(finding) if cve in known.ssvc]


class LikelyExploitable(Part):
    """Whether a vulnerability is likely to be exploited: FedRAMP's LEV or NLEV. One yes is enough."""

    of_host: ClassVar[bool] = False

    catalogue: Annotated[Source | None, Field(
        description="CISA's catalogue, as for `known_exploited`: what it lists is likely exploitable. Default: not asked.",
    )] = None  # fmt: skip
    oldest: Annotated[Timeout, Field(description="Age up to which a catalogue in the ledger stands in, as there.")] = WEEK
    exploit_known: Annotated[StrictBool, Field(
        description="Whether Inspector's word that an exploit exists counts. Default true: FedRAMP asks how likely it is.",
    )] = True  # fmt: skip
    epss: Annotated[Epss | None, Field(description="Default: not used.")] = None
    if_unknown: Annotated[YesNo, Field(
        description="The answer where nobody says yes: silence is no proof that it is unlikely. No default: somebody decides.",
    )]  # fmt: skip

    @property
    def wanted(self) -> Wanted:
        """The catalogue and EPSS."""
        return Wanted(catalogue=self.catalogue, oldest=self.oldest, epss=self.epss.file if self.epss else None)

    def answer(self, finding: Finding, known: Known) -> Answer:
        """Yes by the catalogue, Inspector or EPSS; else the policy's."""
        if self.catalogue is not None and (listed := _listed(finding, known)) is not None:
            return listed
        if self.exploit_known and finding.exploit_known:
            return Answer(value="yes", because="Inspector knows of an exploit")
        if self.epss is not None and (said := self.epss.reached(finding, known)):
            return Answer(value="yes", because=said)
        return _unknown(self.if_unknown, "nobody says that it is likely")


class AdverseImpact(Part):
    """FedRAMP's potential adverse impact (N2 to N5) by Inspector's severity: what harm is done, somebody has to say."""

    of_host: ClassVar[bool] = False

    critical: Annotated[Impact, Field(description="For critical findings.", examples=[5])]
    high: Annotated[Impact, Field(description="For high findings.", examples=[4])]
    medium: Annotated[Impact, Field(description="For medium findings.", examples=[3])]
    low: Annotated[Impact, Field(description="For low findings.", examples=[2])]
    informational: Annotated[Impact, Field(description="For informational findings.", examples=[2])]
    untriaged: Annotated[Impact, Field(description="For findings without a score yet.", examples=[4])]

    @property
    def wanted(self) -> Wanted:
        """Nothing but the finding."""
        return Wanted()

    def answer(self, finding: Finding, known: Known) -> Answer:
        """By severity."""
        del known
        return Answer(value=str(getattr(self, finding.severity.value)), because=f"severity {finding.severity.value}")


_EXPLOITATION = tuple(one.value for one in catalogues.Exploitation)


class Exploitation(Part):
    """How far exploitation has come: SSVC's none, public poc or active. The worst that anybody says counts."""

    of_host: ClassVar[bool] = False

    catalogue: Annotated[Source | None, Field(
        description="CISA's catalogue, as for `known_exploited`: what it lists is exploited (active). Default: not asked.",
    )] = None  # fmt: skip
    oldest: Annotated[Timeout, Field(description="Age up to which a catalogue in the ledger stands in, as there.")] = WEEK
    vulnrichment: Annotated[LocalPath | None, Field(
        description="CVE records with CISA's SSVC answers, as for `automatable`. Default: none.",
    )] = None  # fmt: skip
    exploit_known: Annotated[StrictBool, Field(
        description="Whether Inspector's word that an exploit exists is a public proof of concept. Default true.",
    )] = True  # fmt: skip
    if_unknown: Annotated[Literal["none", "public poc", "active"], Field(
        description="The answer where nobody gives one. No default: somebody decides.",
    )]  # fmt: skip

    @property
    def wanted(self) -> Wanted:
        """The catalogue and CISA's answers."""
        return Wanted(catalogue=self.catalogue, oldest=self.oldest, vulnrichment=self.vulnrichment)

    def answer(self, finding: Finding, known: Known) -> Answer:
        """The worst of what is said; the policy's answer where nobody says anything."""
        listed = _listed(finding, known) if self.catalogue is not None else None
        if listed is not None:
            return Answer(value="active", because=listed.because, since=listed.since)
        said = [one.exploitation.value for one in _ssvc(finding, known) if one.exploitation is not None]
        worst = max(said, key=_EXPLOITATION.index, default=self.if_unknown)
        if self.exploit_known and finding.exploit_known and worst == "none":
            return Answer(value="public poc", because="Inspector knows of an exploit")
        return Answer(value=worst, because="CISA's SSVC answer") if said else _unknown(worst, _nobody_says(finding))


class SystemExposure(Reachable):
    """How exposed the host is: SSVC's open where strangers can reach it, else what the policy says."""

    otherwise: Annotated[Literal["small", "controlled", "open"], Field(
        description="The answer for a host that shows no sign. No default: somebody must say whether the network is controlled.",
    )]  # fmt: skip
    if_unknown: Annotated[Literal["small", "controlled", "open"], Field(  # type: ignore[assignment]
        description="The answer for a host that EC2 does not describe, and for what is no EC2 instance. No default.",
    )]  # fmt: skip

    def answer(self, finding: Finding, known: Known) -> Answer:
        """Open if the host shows a sign."""
        reached = super().answer(finding, known)
        if _reach(finding, known) is None:
            return reached
        return Answer(value="open" if reached.value == "yes" else self.otherwise, because=reached.because)


class HumanImpact(Part):
    """How much people depend on the host: SSVC's Human Impact, from a tag."""

    of_host: ClassVar[bool] = True

    tag: Annotated[definition.TagKey | None, Field(
        description="Tag whose value is low, medium, high or very high, in any case of letters. Default: no tag is asked.",
        examples=["HumanImpact"],
    )] = None  # fmt: skip
    if_unknown: Annotated[Literal["low", "medium", "high", "very high"], Field(
        description="The answer for a host without that tag or with another value. No default: somebody decides.",
    )]  # fmt: skip

    @property
    def wanted(self) -> Wanted:
        """The hosts' tag."""
        return Wanted(reach=True, tags=(self.tag,)) if self.tag else Wanted()

    def answer(self, finding: Finding, known: Known) -> Answer:
        """The tag's, if it is one of the four."""
        if self.tag is None:
            return Answer(value=self.if_unknown, because="the policy's answer for all hosts")
        reach = _reach(finding, known)
        given = reach.tags.get(self.tag) if reach else None
        value = " ".join(re.split(r"[\s_-]+", (given or "").strip().lower()))
        if value in {"low", "medium", "high", "very high"}:
            return Answer(value=value, because=f"tag {self.tag}={given}")
        why = f"tag {self.tag}={given} is none of the four answers" if given else f"no tag {self.tag} is known"
        return _unknown(self.if_unknown, why)


# --- By a table ---------------------------------------------------------------------------------------------------------------


class ByTable(Part):
    """What the tables have in common: the copy of the table, and one input a column."""

    decision_table: SkipJsonSchema[Table | None] = None
    """The table itself, put in by `policy.read`: a run works from its copy."""

    COLUMNS: ClassVar[Mapping[str, tuple[str, ...]]]
    """The answers that the inputs may give, by column."""

    @property
    def wanted(self) -> Wanted:
        """What all columns want."""
        found = Wanted()
        for one in self.inputs.values():
            found |= one.wanted
        return found

    @cached_property
    def inputs(self) -> Mapping[str, Input]:
        """The input of each column that is no constant."""
        return {column: given for column in self.COLUMNS if isinstance(given := getattr(self, column), Part)}  # type: ignore[misc]

    def time_of(self, outcome: str) -> timedelta | None:
        """The time of an outcome for which the table names none; None for no deadline."""
        raise NotImplementedError

    def with_table(self, table: Table) -> Self:
        """The same with its table.

        Raises:
            InvalidFile: the table's columns are others.
        """
        found = _unfit(table, self.COLUMNS)
        if found:
            raise InvalidFile(tuple(f"table {table.name}: {one}" for one in found))
        return self.model_copy(update={"decision_table": table})

    def due(self, finding: Finding, known: Known, memo: Memo | None = None) -> Due:
        """By the row that meets the answers.

        The clock begins when Inspector first saw the finding; if the row is owed to an answer that became true later (an entry
        in CISA's catalogue), on that day, but never so that the finding has more time than without that answer.

        Args:
            memo: of earlier findings with the same `known`.
        """
        answers = self.answers(finding, known, memo)
        met = self._met(answers, memo)
        at = None if met.within is None else finding.first_seen + met.within
        clock = ""
        if met.since is not None and met.since > finding.first_seen and met.within is not None:
            before = self._before_listed(finding, known, memo)
            later = met.since + met.within
            at = later if before is None else min(later, finding.first_seen + before)
            clock = f"; counted from {met.since:%Y-%m-%d}" if at == later else "; not later than it was before that"
        return Due(at=at, within=met.within, because=f"{met.because}{clock}")

    def answers(self, finding: Finding, known: Known, memo: Memo | None = None) -> Mapping[str, Answer]:
        """The answer of each column."""
        memo = memo if memo is not None else Memo()
        resource = (finding.resource, finding.resource_type)
        about = (finding.vulnerability, finding.related, finding.severity, finding.exploit_known)
        of_host = memo.answers.get(resource)
        if of_host is None:
            of_host = memo.answers[resource] = self._answered(finding, known, memo, of_host=True)
        others = memo.answers.get(about)
        if others is None:
            others = memo.answers[about] = self._answered(finding, known, memo, of_host=False)
        return {column: of_host.get(column) or others[column] for column in self.COLUMNS}

    def _answered(self, finding: Finding, known: Known, memo: Memo, *, of_host: bool) -> Mapping[str, Answer]:
        """The answers of those columns that depend on the resource, or of the others."""
        found: dict[str, Answer] = {}
        for column in self.COLUMNS:
            source = self.inputs.get(column)
            if (source is not None and source.of_host) != of_host:
                continue
            constant = Answer(value=str(getattr(self, column)), because="the policy's answer for all")
            answer = source.answer(finding, known) if source is not None else constant
            found[column] = memo.once.setdefault(answer, answer)
        return found

    def _before_listed(self, finding: Finding, known: Known, memo: Memo | None) -> timedelta | None:
        """The time that the finding has if the catalogue does not list it."""
        memo = memo if memo is not None else Memo()
        if memo.without_catalogue is None:
            memo.without_catalogue = _with_empty_catalogue(known), Memo()
        unlisted, its = memo.without_catalogue
        return self._met(self.answers(finding, unlisted, its), its).within

    def _met(self, answers: Mapping[str, Answer], memo: Memo | None) -> _Met:
        """The row that meets the answers, and the sentence."""
        key = tuple(map(id, answers.values()))  # answers of the memo live as long as it does
        if memo is not None and key in memo.rows:
            return memo.rows[key]
        if self.decision_table is None:
            raise ValueError("the policy holds no copy of its table: it was not read by policy.read or policy.parse")
        row = self.decision_table.match({column: one.value for column, one in answers.items()})
        within = self.decision_table.time_of(row)
        said = row.outcome
        if within is None:
            within = self.time_of(row.outcome)
            said = f"{row.outcome}: {_said(within)} by the policy"
        met = _Met(
            within=within,
            because=f"{self.decision_table.title}, row {row.row} ({said}): {_because(answers)}",
            since=max((one.since for one in answers.values() if one.since is not None), default=None),
        )
        if memo is not None:
            memo.rows[key] = met
        return met


def _with_empty_catalogue(known: Known) -> Known:
    """What is known, as it was before the catalogue took anything up."""
    return replace(known, catalogue=replace(known.catalogue, added={}) if known.catalogue else None)


def _because(answers: Mapping[str, Answer]) -> str:
    return "; ".join(f"{column.replace('_', ' ')} {one.value} ({one.because})" for column, one in answers.items())


def _said(within: timedelta | None) -> str:
    if within is None:
        return "no deadline"
    text = written_duration(within)
    number, unit = int(text[:-1]), {"d": "day", "h": "hour", "m": "minute", "s": "second"}[text[-1]]
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _unfit(table: Table, columns: Mapping[str, tuple[str, ...]]) -> Iterable[str]:
    odd = sorted(set(table.columns) ^ set(columns))
    if odd:
        return [f"columns: found {', '.join(table.columns)}; allowed are {', '.join(columns)}"]
    return [
        f"columns.{name}: found {', '.join(table.columns[name])}; allowed are {', '.join(answers)}"
        for name, answers in columns.items()
        if set(table.columns[name]) != set(answers)
    ]


_YES_NO = ("no", "yes")


class BodTable(ByTable):
    """CISA's Binding Operational Directive 26-04: 16 rows by known exploitation, exposure, automatability and impact."""

    COLUMNS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "known_exploited": _YES_NO, "publicly_exposed": _YES_NO, "automatable": _YES_NO, "technical_impact": ("partial", "total"),
    }  # fmt: skip

    table: Annotated[Literal["bod-26-04"], Field(description="The table `include/policies/tables/bod-26-04.yaml`.")]
    known_exploited: Annotated[KnownExploited, Field(description="Is it in CISA's catalogue?")]
    publicly_exposed: Annotated[Reachable, Field(description="Can strangers reach the host?")]
    automatable: Annotated[Automatable, Field(description="Can an attack be automated?")]
    technical_impact: Annotated[TechnicalImpact, Field(description="Does an attack give total control?")]
    fix_on_system_upgrade: Annotated[Days, Field(
        description="Days for the two rows that say 'fix on system upgrade'; null for no deadline. No default: an upgrade that "
        "nobody plans never comes.",
        examples=[None, 180],
    )]  # fmt: skip

    @field_validator("fix_on_system_upgrade", mode="before")
    @classmethod
    def _is_days(cls, written: object) -> object:
        return days(written)

    def time_of(self, outcome: str) -> timedelta | None:
        """The policy's days for fixing it on an upgrade."""
        del outcome
        return _days_of(self, "fix_on_system_upgrade")


class FedrampTable(ByTable):
    """FedRAMP's Vulnerability Detection and Response: days by impact level, harm, likelihood and reachability."""

    COLUMNS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "impact_level": ("low", "moderate", "high"), "potential_adverse_impact": ("2", "3", "4", "5"),
        "likely_exploitable": _YES_NO, "internet_reachable": _YES_NO,
    }  # fmt: skip

    table: Annotated[Literal["fedramp-vdr"], Field(description="The table `include/policies/tables/fedramp-vdr.yaml`.")]
    impact_level: Annotated[Literal["low", "moderate", "high"], Field(description="Impact level of the authorization.")]
    potential_adverse_impact: Annotated[AdverseImpact, Field(description="N2 (limited) to N5 (catastrophic), by severity.")]
    likely_exploitable: Annotated[LikelyExploitable, Field(description="LEV or NLEV?")]
    internet_reachable: Annotated[Reachable, Field(description="IRV or NIRV?")]

    def time_of(self, outcome: str) -> timedelta | None:
        """Every row of the table has its time."""
        raise ValueError(f"the table fedramp-vdr names no time for {outcome!r}")


class SsvcDays(Part):
    """Days for each of SSVC's urgencies, of which SSVC names no days itself; null for no deadline."""

    immediate: Annotated[Days, Field(description="Days for immediate: with everything at hand, outside normal procedures.")]
    out_of_cycle: Annotated[Days, Field(description="Days for out-of-cycle: at the next opportunity, if need be overtime.")]
    scheduled: Annotated[Days, Field(description="Days for scheduled: with the regular maintenance.")]
    defer: Annotated[Days, Field(description="Days for defer: nothing is done for now.", examples=[None])]

    @field_validator("*", mode="before")
    @classmethod
    def _is_days(cls, written: object) -> object:
        return days(written)

    @model_validator(mode="after")
    def _more_urgent_is_never_later(self) -> Self:
        _never_later(self, ("immediate", "out_of_cycle", "scheduled", "defer"))
        return self


class SsvcTable(ByTable):
    """CERT/CC's SSVC for those who deploy: an urgency by exploitation, exposure, automatability and human impact."""

    COLUMNS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "exploitation": _EXPLOITATION, "system_exposure": ("small", "controlled", "open"),
        "automatable": _YES_NO, "human_impact": ("low", "medium", "high", "very high"),
    }  # fmt: skip

    table: Annotated[Literal["ssvc-deployer"], Field(description="The table `include/policies/tables/ssvc-deployer.yaml`.")]
    exploitation: Annotated[Exploitation, Field(description="Is it exploited?")]
    system_exposure: Annotated[SystemExposure, Field(description="How exposed is the host?")]
    automatable: Annotated[Automatable, Field(description="Can an attack be automated?")]
    human_impact: Annotated[HumanImpact, Field(description="How much do people depend on the host?")]
    days: Annotated[SsvcDays, Field(description="Days for each urgency. No default: SSVC names none.")]

    def time_of(self, outcome: str) -> timedelta | None:
        """The policy's days for an urgency."""
        return _days_of(self.days, outcome.replace("-", "_"))


TABLES: Mapping[str, type[ByTable]] = {"bod-26-04": BodTable, "fedramp-vdr": FedrampTable, "ssvc-deployer": SsvcTable}
"""The tables that a policy may name."""


def _kind(given: object) -> str:
    """Which of them is meant; days by severity unless a table is named."""
    name = given.get("table") if isinstance(given, dict) else getattr(given, "table", None)
    return f"<{name}>" if isinstance(name, str) and name in TABLES else "<severity>"


def names_known_table(given: object) -> object:
    """What is given, if it names no table or one that is known.

    Raises:
        Misfit: it names another one.
    """
    named = given.get("table", "") if isinstance(given, dict) else ""
    if isinstance(given, dict) and "table" in given and not (isinstance(named, str) and named in TABLES):
        message = f"found {shown(named)}; allowed are {', '.join(TABLES)}, or no table and days by severity"
        raise Misfit([Misplacement(loc=("table",), message=message)])
    return given


Deadlines = Annotated[
    Annotated[SeverityDays, Tag("<severity>")]
    | Annotated[BodTable, Tag("<bod-26-04>")]
    | Annotated[FedrampTable, Tag("<fedramp-vdr>")]
    | Annotated[SsvcTable, Tag("<ssvc-deployer>")],
    Discriminator(_kind),
]
