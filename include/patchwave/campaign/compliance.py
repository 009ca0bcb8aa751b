"""Did it work? Three answers for every host of the scope: compliant, not compliant, unknown.

Systems Manager's patch states and Config's evaluations go in, verdicts come out. Nothing that was not seen counts as
compliant: a host without a report, or whose last evaluation is older than the patch, is unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from patchwave.campaign.rollout import PatchState
from patchwave.campaign.values import Cell, HostId


class RuleVerdict(StrEnum):
    """Config's compliance types."""

    COMPLIANT = "COMPLIANT"
    NON_COMPLIANT = "NON_COMPLIANT"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleResult:
    """What a Config rule says of one host.

    Attributes:
        host: the instance id, cut out of ``AWS::SSM::ManagedInstanceInventory/i-...`` where the rule uses that form.
        invoked_at: ConfigRuleInvokedTime: when the rule looked.
        recorded_at: ResultRecordedTime.
    """

    rule: str
    host: HostId
    verdict: RuleVerdict
    invoked_at: datetime
    recorded_at: datetime
    annotation: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleStatus:
    """How far Config is with a rule in one cell.

    Attributes:
        exists: Config knows the rule there.
        evaluating: an evaluation is under way.
        last_success: LastSuccessfulEvaluationTime; None before the first.
        last_error: Config's last error message, empty if none.
    """

    rule: str
    cell: Cell
    exists: bool = True
    evaluating: bool = False
    last_success: datetime | None = None
    last_error: str = ""


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
class Compliance:
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
            rules={rule: "-" if result is None else result.verdict.value for rule, result in results.items()},
        )

    if state is None:
        return verdict(Verdict.UNKNOWN, "Systems Manager has no patch report of it")
    if subject.changed_at is not None and state.ended < subject.changed_at:
        return verdict(Verdict.UNKNOWN, "its last patch report is older than the patch")
    if not state.compliant:
        return verdict(Verdict.NOT_COMPLIANT, f"Systems Manager: {state.wrong}")
    against = [rule for rule, result in results.items() if result is not None and result.verdict is RuleVerdict.NON_COMPLIANT]
    old = [rule for rule, result in results.items() if not _proves(result, subject)]
    if old:
        return verdict(Verdict.UNKNOWN, f"Config has not evaluated {', '.join(old)} since the host was last changed")
    if against:
        return verdict(Verdict.NOT_COMPLIANT, f"Config: {', '.join(against)}")
    return verdict(Verdict.COMPLIANT, "nothing missing, no reboot pending" + (", Config agrees" if results else ""))


def _proves(result: RuleResult | None, subject: Subject) -> bool:
    """Whether the evaluation was made after the last change of the host."""
    if result is None or result.verdict is RuleVerdict.INSUFFICIENT_DATA:
        return False
    return subject.changed_at is None or result.invoked_at >= subject.changed_at


def judge_all(
    subjects: Sequence[Subject],
    states: Mapping[HostId, PatchState],
    results: Iterable[RuleResult],
    rules: Sequence[str],
    *,
    at: datetime,
) -> Compliance:
    """The verdict on each subject, in their order."""
    by_host: dict[HostId, dict[str, RuleResult]] = {}
    for result in results:
        by_host.setdefault(result.host, {})[result.rule] = result
    return Compliance(
        at=at,
        hosts=tuple(
            judge(subject, states.get(subject.host), {rule: by_host.get(subject.host, {}).get(rule) for rule in rules})
            for subject in subjects
        ),
    )


def unproven(compliance: Compliance) -> tuple[HostId, ...]:
    """Hosts that a later look may still settle: unknown ones that have a report, and ones that Config contradicts."""
    return tuple(
        host.host
        for host in compliance.hosts
        if (host.verdict is Verdict.UNKNOWN and host.reported_at is not None)
        or (host.verdict is Verdict.NOT_COMPLIANT and host.reason.startswith("Config"))
    )
