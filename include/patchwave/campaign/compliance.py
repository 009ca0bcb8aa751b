"""Did it work? Three answers for every host of the scope: compliant, not compliant, unknown.

`patchwave.aws.config` makes the observed values (first half), `judge` makes verdicts of them and of the patch states.
Nothing that was not seen counts as compliant: a host without a report, or whose last evaluation is older than the patch,
is unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from patchwave.campaign.rollout import PatchState
from patchwave.campaign.values import Cell, HostId


class Compliance(StrEnum):
    """Config's words for a resource under a rule."""

    COMPLIANT = "COMPLIANT"
    NON_COMPLIANT = "NON_COMPLIANT"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


class Evaluation(StrEnum):
    """What became of the wish that Config evaluate a rule now."""

    STARTED = "started"
    LATER = "later"  # one runs, or ran less than about a minute ago: ask again, or wait for that one
    NO_RULE = "no_rule"  # the cell has no rule of that name


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleStatus:
    """When Config evaluated a rule last; an evaluation from before the patch proves nothing.

    Attributes:
        succeeded_at: last successful evaluation; None if there was none.
        failed_at: last failed one.
        error: Config's code and message of that failure; empty if there is none.
    """

    cell: Cell
    rule: str
    succeeded_at: datetime | None = None
    failed_at: datetime | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleResult:
    """What a rule says of one resource.

    Attributes:
        host: the instance id, cut out of ``AWS::SSM::ManagedInstanceInventory/i-...`` where Config says it so.
        resource: Config's own id of the resource, which remediation needs.
        recorded_at: when Config wrote the result down.
        invoked_at: when it began the evaluation.
        judged_at: the moment of the configuration item that it judged (OrderingTimestamp): only one later than the patch
            counts, for an evaluation asked for too early judges the old item anew.
        annotation: the rule's remark; mostly empty.
    """

    cell: Cell
    rule: str
    host: HostId
    resource: str
    resource_type: str
    compliance: Compliance
    recorded_at: datetime
    invoked_at: datetime
    judged_at: datetime
    annotation: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchCompliance:
    """Systems Manager's patch compliance of one host.

    Attributes:
        severity: the worst one among what is not compliant, AWS's word.
        executed_at: when the patch run that it comes from was carried out; None if AWS does not say.
        execution: that run's snapshot id.
        non_compliant: how many patches are not.
    """

    cell: Cell
    host: HostId
    compliant: bool
    severity: str = "UNSPECIFIED"
    executed_at: datetime | None = None
    execution: str = ""
    non_compliant: int = 0


class Verdict(StrEnum):
    """The three classes of a host."""

    COMPLIANT = "compliant"
    NOT_COMPLIANT = "not_compliant"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class HostCompliance:
    """The verdict on one host and what it rests on.

    Attributes:
        missing: patches missing or failed by the last report; None without one.
        rules: Config's answer by rule name; ``-`` where it has none.
    """

    host: HostId
    cell: Cell
    stage: str
    verdict: Verdict
    reason: str
    missing: int | None = None
    pending_reboot: int | None = None
    reported_at: datetime | None = None
    rules: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """The verdict on every host of the scope at one moment."""

    at: datetime
    hosts: tuple[HostCompliance, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Hosts by verdict; all three classes are there, and they sum to the hosts."""
        counted = Counter(host.verdict for host in self.hosts)
        return {verdict.value: counted[verdict] for verdict in Verdict}


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A host to be judged.

    Attributes:
        changed_at: when the campaign last changed it (AWS's clock); evaluations before that prove nothing. None if it
            was not touched.
    """

    host: HostId
    cell: Cell
    stage: str
    changed_at: datetime | None = None


def judge(subject: Subject, state: PatchState | None, results: Mapping[str, RuleResult | None]) -> HostCompliance:
    """The verdict on one host.

    Args:
        state: its last patch report; None if it never made one.
        results: Config's result by rule; None where Config has none for it.
    """

    def verdict(which: Verdict, reason: str) -> HostCompliance:
        return HostCompliance(
            host=subject.host,
            cell=subject.cell,
            stage=subject.stage,
            verdict=which,
            reason=reason,
            missing=None if state is None else state.missing + state.failed,
            pending_reboot=None if state is None else state.pending_reboot,
            reported_at=None if state is None else state.ended,
            rules={rule: "-" if result is None else result.compliance.value for rule, result in results.items()},
        )

    if state is None:
        return verdict(Verdict.UNKNOWN, "Systems Manager has no patch report of it")
    if subject.changed_at is not None and state.ended < subject.changed_at:
        return verdict(Verdict.UNKNOWN, "its last patch report is older than the patch")
    if not state.compliant:
        return verdict(Verdict.NOT_COMPLIANT, f"Systems Manager: {state.wrong}")
    against = [rule for rule, result in results.items() if result is not None and result.compliance is Compliance.NON_COMPLIANT]
    old = [rule for rule, result in results.items() if not _proves(result, subject)]
    if old:
        return verdict(Verdict.UNKNOWN, f"Config has not evaluated {', '.join(old)} since the host was last changed")
    if against:
        return verdict(Verdict.NOT_COMPLIANT, f"Config: {', '.join(against)}")
    return verdict(Verdict.COMPLIANT, "nothing missing, no reboot pending" + (", Config agrees" if results else ""))


def _proves(result: RuleResult | None, subject: Subject) -> bool:
    """Whether the evaluation was made after the last change of the host."""
    if result is None or result.compliance is Compliance.INSUFFICIENT_DATA:
        return False
    return subject.changed_at is None or min(result.invoked_at, result.judged_at) >= subject.changed_at


def judge_all(
    subjects: Sequence[Subject],
    states: Mapping[HostId, PatchState],
    results: Iterable[RuleResult],
    rules: Sequence[str],
    *,
    at: datetime,
) -> Judgement:
    """The verdict on each subject, in their order."""
    by_host: dict[HostId, dict[str, RuleResult]] = {}
    for result in results:
        by_host.setdefault(result.host, {})[result.rule] = result
    return Judgement(
        at=at,
        hosts=tuple(
            judge(subject, states.get(subject.host), {rule: by_host.get(subject.host, {}).get(rule) for rule in rules})
            for subject in subjects
        ),
    )


def unproven(compliance: Judgement) -> tuple[HostId, ...]:
    """Hosts that a later look may still settle: unknown ones that have a report, and ones that Config contradicts."""
    return tuple(
        host.host
        for host in compliance.hosts
        if (host.verdict is Verdict.UNKNOWN and host.reported_at is not None)
        or (host.verdict is Verdict.NOT_COMPLIANT and host.reason.startswith("Config"))
    )
