"""What exactly will we do, to which host, in which order?

`build` makes the immutable plan of a run from the frozen campaign, the fleet and the triage; `digest` names it; `markdown`
is what a person judges at a gate. Every host of the scope is either in exactly one stage of the plan or excluded with the
reason: nobody is left out silently. The plan is built without touching anything; a dry run ends with it. Where a gate changes
one stage (`without`, `renewed`), that is another plan with another digest, and `in_force` says which one holds for a stage.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from patchwave.campaign import evidence, fleet, lasting, lockfile, managed_services, reasons, rollout, snapshots, waves
from patchwave.campaign.baselines import Keeping
from patchwave.campaign.definition import Campaign, Source, Stage, written_duration, written_share
from patchwave.campaign.fleet import Group, Host, Readiness
from patchwave.campaign.managed_services import ManagedPlan
from patchwave.campaign.policy import Emergency, Track
from patchwave.campaign.reasons import Reasons
from patchwave.campaign.rollout import StageRules, StepKind
from patchwave.campaign.severity import Assessment, Triage
from patchwave.campaign.snapshots import HostWay, WaysBack
from patchwave.campaign.values import Cell, Count, HostId, RunId, Share, StageName
from patchwave.campaign.waves import Wave
from patchwave.campaign.windows import Window

Needs = Mapping[HostId, Sequence[Assessment]]
"""Why each host is to be patched: its selected findings that an OS patch mends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Restriction:
    """What a person narrowed the run to in the trigger form; empty means everything."""

    stages: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    vulnerabilities: tuple[str, ...] = ()

    @property
    def by_finding(self) -> bool:
        """Hosts are chosen by their findings."""
        return bool(self.severities or self.vulnerabilities)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedHost:
    """A host that the run will bring to a terminal class.

    Attributes:
        domains: failure domains whose budgets it counts in, all at once; the stage is the last.
        note: why a command could not reach it when the plan was made; empty if one could.
        findings: patchable findings by severity.
        deadline: the earliest deadline of those; None without any.
        covered: Inspector scans it; if not, its findings are unknown.
    """

    id: HostId
    cell: Cell
    name: str
    platform: str
    zone: str
    domains: tuple[str, ...]
    note: str
    findings: Mapping[str, int]
    deadline: datetime | None
    covered: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePlan:
    """One stage: its hosts in the order in which they are begun, and the rules that hold.

    Attributes:
        concurrency: as the campaign file says it (``10 %``, ``5 hosts``).
        places: how many hosts of each failure domain may be away at once, the stage among them.
        stage_places: how many of the whole stage.
        approvers: login names, the people of roles among them.
        remarks: how these numbers came about, a sentence each.
        window: when its hosts may be disrupted; None: at any time.
        quorum: how many different people have to say yes.
        tolerance: by how many hosts the stage may differ before an approval is void; None: by any number.
        forecast: expected time from first Scan to last settled host, without soak.
        baselines: what is done about patch baselines before its first Scan.
        ways_back: how each host could come back after an in-place patch; None where the policy provides for nothing.
        managed: what is done about databases and functions; None where no stage of the campaign names them.
    """

    name: StageName
    hosts: tuple[PlannedHost, ...]
    concurrency: str
    places: Mapping[str, int]
    stage_places: int
    error_budget: int
    soak: timedelta
    approval_required: bool
    approvers: tuple[str, ...]
    approval_timeout: timedelta
    health_checks: tuple[str, ...]
    health_timeout: timedelta
    waves: tuple[Wave, ...]
    forecast: timedelta
    remarks: tuple[str, ...] = ()
    window: Window | None = None
    quorum: int = 1
    tolerance: Share | int | None = None
    baselines: tuple[Keeping, ...] = ()
    ways_back: WaysBack | None = None
    managed: ManagedPlan | None = None

    @property
    def who(self) -> str:
        """Whose yes it needs, as people say it."""
        if not self.approval_required:
            return "not needed"
        people = ", ".join(self.approvers) or "anybody who may answer"
        return people if self.quorum == 1 else f"{self.quorum} of {people}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusion:
    """A host of the scope that the run leaves alone, and why."""

    host: HostId
    cell: Cell
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All of one run, decided. Immutable; `digest` names it.

    Attributes:
        definition: digest of the campaign file that it was made from.
        left_out: stages of the campaign that this run does not touch.
        severities: active findings by severity.
        tracks: active findings by track.
        not_patchable: reasons why findings cannot be mended by an OS patch, with their number.
        unscanned: hosts of the plan that Inspector does not cover, with its reason.
        reboot: whether hosts reboot whose patches wait for it.
        kernel_waits: a kernel update is installed in stages that have a window only.
        snapshots: patch snapshot by ``cell|platform``.
        expected: how long each step takes at most in nineteen of twenty cases, by platform.
    """

    run: RunId
    campaign: str
    created: datetime
    definition: str
    policy: str
    dry_run: bool
    requested_by: str | None
    restriction: Restriction
    stages: tuple[StagePlan, ...]
    left_out: tuple[str, ...]
    exclusions: tuple[Exclusion, ...]
    severities: Mapping[str, int]
    tracks: Mapping[str, int]
    not_patchable: Mapping[str, int]
    unscanned: Mapping[HostId, str]
    snapshots: Mapping[str, str]
    reboot: bool = True
    kernel_waits: bool = False
    cells: tuple[Cell, ...] = field(default=())
    expected: Mapping[str, Mapping[StepKind, timedelta]] = field(default_factory=dict)

    def stage(self, name: str) -> StagePlan:
        """That stage.

        Raises:
            KeyError: the plan does not touch it.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    @property
    def hosts(self) -> tuple[PlannedHost, ...]:
        """Hosts of all stages, in order."""
        return tuple(host for stage in self.stages for host in stage.hosts)


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


def to_json(plan: Plan) -> Any:
    """The plan as JSON-able content.

    What plans of earlier versions did not have stands in it only where it says something: a plan keeps its digest, and with it
    its approval, over an upgrade in the middle of a run.
    """
    content = _adapter().dump_python(plan, mode="json")
    _leave_out(content, {"kernel_waits": False})
    for stage in content["stages"]:
        _leave_out(stage, {"quorum": 1, "tolerance": None, "baselines": [], "ways_back": None, "managed": None})
        if stage["window"] is not None:
            _leave_out(stage["window"], {"rrule": "", "starts": None, "maintenance_window": ""})
    return content


def _leave_out(facts: dict[str, Any], usual: Mapping[str, Any]) -> None:
    for name, value in usual.items():
        if facts[name] == value:
            del facts[name]


def from_json(content: Any) -> Plan:
    """The plan that `to_json` wrote.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return _adapter().validate_python(content)


@lasting.made()
def digest(plan: Plan) -> str:
    """sha256 of the plan's canonical JSON: what an approval is bound to."""
    return evidence.digest(to_json(plan))


@lasting.made()
def build(
    campaign: Campaign,
    hosts: Sequence[Host],
    triage: Triage,
    *,
    run: RunId,
    now: datetime,
    dry_run: bool,
    restriction: Restriction,
    definition: str,
    requested_by: str | None,
    reboot: bool = True,
    kernel_waits: bool = False,
    groups: Iterable[Group] = (),
    expected: Mapping[str, Mapping[StepKind, timedelta]] | None = None,
    emergency: Emergency | None = None,
) -> Plan:
    """The plan of one run.

    Args:
        hosts: every instance of the scope's cells that carries the scope's tags, stopped ones included.
        definition: digest of the frozen campaign.
        kernel_waits: hosts that a kernel update waits for are left out of stages without a window.
        groups: the Auto Scaling and target groups that the hosts are in, as AWS has them; of a group that is not here
            nothing is known beyond `hosts`.
        expected: how long steps take, by platform, as far as earlier runs have told.
        emergency: what the policy says of emergencies; counts for emergency campaigns only.

    Raises:
        AmbiguousStage: a host's tags put it into two stages.
    """
    chosen: dict[str, list[Host]] = {stage.name: [] for stage in campaign.stages}
    exclusions: list[Exclusion] = []
    needs = triage.wanted_by_host()
    with_kernel = triage.with_kernel() if kernel_waits else frozenset()
    for host in sorted(hosts, key=lambda one: (one.cell, one.id)):
        stage = campaign.stage_of(host.tags, host=host.id)
        reason = _why_excluded(host, stage, needs.get(host.id, ()), restriction)
        if stage is not None and stage.window is None and host.id in with_kernel:
            reason = reason or rollout.waits_for_window(stage.name)
        if stage is None or reason:
            exclusions.append(Exclusion(host=host.id, cell=host.cell, name=host.name, reason=reason))
        else:
            chosen[stage.name].append(host)
    exclusions += _untried(campaign, chosen)
    unknown = triage.unknown(host.id for host in hosts)
    known = {group.domain: group for group in groups}
    planned = tuple(
        _stage_plan(
            stage, campaign.approvers(stage), chosen[stage.name], hosts, known, needs, unknown, restriction, expected or {}
        )
        for stage in campaign.stages
        if _is_chosen(stage, restriction)
    )
    if campaign.emergency is not None and emergency is not None:
        planned = tuple(_soaking_less(stage, emergency.soak, policy=campaign.policy) for stage in planned)
    return Plan(
        run=run,
        campaign=campaign.name,
        created=now,
        definition=definition,
        policy=campaign.policy,
        dry_run=dry_run,
        requested_by=requested_by,
        restriction=restriction,
        stages=planned,
        left_out=tuple(stage.name for stage in campaign.stages if not _is_chosen(stage, restriction)),
        exclusions=tuple(exclusions),
        severities=_words(triage.by_severity()),
        tracks=_words(triage.by_track()),
        not_patchable=dict(sorted(Counter(one.reason for one in triage.assessments if one.track is Track.NOT_PATCHABLE).items())),
        unscanned={host.id: unknown[host.id] for stage in planned for host in stage.hosts if host.id in unknown},
        snapshots=_snapshots(run, (host for stage in planned for host in stage.hosts)),
        reboot=reboot,
        kernel_waits=kernel_waits,
        cells=campaign.cells,
        expected={platform: dict(its) for platform, its in (expected or {}).items()},
    )


def _soaking_less(stage: StagePlan, soak: timedelta, *, policy: str) -> StagePlan:
    if soak >= stage.soak:
        return stage
    remark = f"Soak: {_duration(soak)} instead of {_duration(stage.soak)}, for this is an emergency (policy {policy})."
    return replace(stage, soak=soak, remarks=(*stage.remarks, remark))


def without_canary(campaign: Campaign, plan: Plan) -> str:
    """Why this plan of an emergency must not be carried out: nothing would be tried before the other stages. Empty if it may."""
    canary = campaign.canary
    if canary is None or not plan.hosts:
        return ""
    its = next((one.hosts for one in plan.stages if one.name == canary.name), ())
    if any(not host.note for host in its):
        return ""
    lacks = "none of its hosts can be reached now" if its else "none of its hosts has one of these CVE ids and may be patched"
    return (
        f"stage {canary.name} is the canary, and {lacks}, so nothing would be tried before the other stages; let the stage "
        f"select a host that has them ({canary.select}), or use a campaign that is no emergency"
    )


def _untried(campaign: Campaign, chosen: dict[str, list[Host]]) -> list[Exclusion]:
    """Take out of the later stages whose platform the first one does not have, where they are patched by its lockfile."""
    if campaign.promotion.by is not Source.LOCKFILE or campaign.promotion.untried is not Source.LOCKFILE:
        return []
    first, *later = campaign.stages
    had = {host.platform for host in chosen[first.name]}
    found = []
    for stage in later:
        platforms = {host.id: host.platform for host in chosen[stage.name] if host.platform != "unknown"}
        reasons = lockfile.untried(had, platforms)
        out = [host for host in chosen[stage.name] if host.id in reasons]
        found += [Exclusion(host=host.id, cell=host.cell, name=host.name, reason=reasons[host.id]) for host in out]
        chosen[stage.name] = [host for host in chosen[stage.name] if host.id not in reasons]
    return found


def _words(counts: Mapping[Any, int]) -> dict[str, int]:
    return {getattr(word, "value", str(word)): count for word, count in counts.items() if count}


def _is_chosen(stage: Stage, restriction: Restriction) -> bool:
    return not restriction.stages or stage.name in restriction.stages


def _why_excluded(host: Host, stage: Stage | None, needs: Sequence[Assessment], restriction: Restriction) -> str:
    if fleet.readiness(host) is Readiness.TERMINATED:
        return fleet.why_not(host)
    if stage is None:
        group = f"its patch group is {host.patch_group!r}" if host.patch_group else "it has no patch group"
        return f"no stage of the campaign selects it ({group})"
    if not _is_chosen(stage, restriction):
        return f"stage {stage.name} was not chosen for this run"
    if restriction.by_finding and not needs:
        return "it has no patchable finding of the severities or CVE ids chosen for this run"
    return ""


def _stage_plan(
    stage: Stage,
    approvers: Sequence[str],
    hosts: Sequence[Host],
    everybody: Sequence[Host],
    groups: Mapping[str, Group],
    needs: Needs,
    unknown: Mapping[HostId, str],
    restriction: Restriction,
    expected: Mapping[str, Mapping[StepKind, timedelta]],
) -> StagePlan:
    domains = {host.id: fleet.failure_domains(host, stage=stage.name) for host in hosts}
    # A stopped host serves nobody, so it neither takes a place nor widens the share.
    serving = [host for host in hosts if fleet.readiness(host) is not Readiness.STOPPED]
    concurrency, remarks = _concurrency(stage, len(serving))
    allowed: dict[str, int] = {}
    members = _members(serving, domains, everybody, groups)
    for domain in sorted({one for its in domains.values() for one in its} | {fleet.stage_domain(stage.name)}):
        size = len(members.get(domain, ()))
        group = groups.get(domain)
        allowed[domain] = waves.places(concurrency, size, minimum=group.minimum if group else 0)
        if group is not None:
            remarks += _minimum_remark(group, size, concurrency, allowed[domain])
    order = waves.ordered([(host.id, host.cell, host.zone, host.name) for host in hosts])
    facts = fleet.by_id(hosts)
    reachable = [host for host in order if fleet.readiness(facts[host]) is Readiness.READY]
    cut = waves.split(reachable, domains, allowed)
    return StagePlan(
        name=StageName(stage.name),
        hosts=tuple(_planned(facts[host], domains[host], needs.get(host, ()), covered=host not in unknown) for host in order),
        concurrency=str(concurrency),
        places=allowed,
        stage_places=allowed[fleet.stage_domain(stage.name)],
        error_budget=stage.errors_allowed(len(hosts)),
        soak=stage.soak,
        approval_required=stage.approval.required,
        approvers=tuple(approvers),
        approval_timeout=stage.approval.timeout,
        health_checks=tuple(check.value for check in stage.health.checks),
        health_timeout=stage.health.timeout,
        waves=cut,
        forecast=_forecast({host.platform for host in hosts}, len(cut), expected),
        remarks=(*remarks, *_window_remark(stage), _newcomers_remark(restriction), *_approval_remark(stage)),
        window=stage.window.window if stage.window else None,
        quorum=stage.approval.quorum,
        tolerance=stage.approval.tolerance,
    )


def _forecast(platforms: Collection[str], count: int, expected: Mapping[str, Mapping[StepKind, timedelta]]) -> timedelta:
    """From the first Scan to the last settled host of so many waves, by the slowest platform of the stage."""
    if not platforms:
        return timedelta()
    its = [{**rollout.at_most(platform), **expected.get(platform, {})} for platform in platforms]
    slowest = {step: max(steps[step] for steps in its) for step in StepKind}
    patch = slowest[StepKind.INSTALL] + slowest[StepKind.REBOOT] + slowest[StepKind.VERIFY]
    return slowest[StepKind.SCAN] + patch * count


def _concurrency(stage: Stage, size: int) -> tuple[Share | Count, tuple[str, ...]]:
    """How many of a domain at once, and where that comes from."""
    if stage.concurrency is not None:
        return stage.concurrency, (f"At once: {stage.concurrency} of each failure domain, as the campaign file says.",)
    found = waves.default_concurrency(size)
    said = f"for the campaign file says nothing and {size} hosts serve here ({waves.DEFAULTS_SOURCE})."
    return found, (f"At once: {found} of each failure domain, {said}",)


def _window_remark(stage: Stage) -> tuple[str, ...]:
    if stage.window is None:
        return ()
    window = stage.window.window
    opens = f"{window.cron or window.rrule} in {window.timezone} for {_duration(window.duration)}"
    if window.maintenance_window:
        opens = f"{window}, as it is then"
    rule = "nothing is begun before it opens, and no host that is not expected to be through before it closes"
    return (f"Window: opens by {opens}; {rule}.",)


def _newcomers_remark(restriction: Restriction) -> str:
    if restriction.by_finding:
        return "Hosts that appear meanwhile are left alone: this run is about hosts with certain findings."
    return "Hosts that appear meanwhile in these groups, or with this stage's tags, are patched too."


def _approval_remark(stage: Stage) -> tuple[str, ...]:
    tolerance = stage.approval.tolerance
    if not stage.approval.required or tolerance is None:
        return ()
    if isinstance(tolerance, Share):
        differ = f"more than {written_share(tolerance)} of the hosts"
    else:
        differ = f"more than {Count(tolerance)}" if tolerance else "any host"
    return (f"Approval: void, and asked for again with the difference, if {differ} came or went since the plan was made.",)


def _members(
    serving: Iterable[Host], domains: Mapping[HostId, Sequence[str]], everybody: Iterable[Host], groups: Mapping[str, Group]
) -> Mapping[str, Collection[HostId]]:
    """Who serves in each failure domain: of a group also those whom this stage does not patch.

    Each host is looked at once, however many domains there are: a company has thousands of groups.
    """
    found: dict[str, set[HostId]] = {domain: set(group.members) for domain, group in groups.items()}
    for host in serving:
        for domain in domains[host.id]:
            found.setdefault(domain, set()).add(host.id)
    for host in everybody:
        if host.id in domains or not (host.group or host.target_groups):
            continue  # a zone and a stage are this stage's hosts alone
        if fleet.readiness(host) in (Readiness.STOPPED, Readiness.TERMINATED):
            continue
        for domain in fleet.failure_domains(host, stage=""):
            if domain not in groups:  # of a group that is known, AWS has said who its members are
                found.setdefault(domain, set()).add(host.id)
    return found


def _minimum_remark(group: Group, size: int, concurrency: Share | Count, places: int) -> tuple[str, ...]:
    name = group.domain.rpartition("/")[2]
    if size - group.minimum < 1:
        return (
            f"Group {name} has {size} members in service and needs {group.minimum} ({group.says}): one host at a time is taken "
            "all the same, for with none it could never be patched in place; raise its desired capacity to avoid that.",
        )
    if places < concurrency.of(size):
        always = f"so that {group.minimum} always serve ({group.says})"
        return (f"Group {name}: {places} at once and not {concurrency.of(size)}, {always}.",)
    return ()


def _planned(host: Host, domains: tuple[str, ...], needs: Sequence[Assessment], *, covered: bool) -> PlannedHost:
    deadlines = [need.deadline for need in needs if need.deadline is not None]
    return PlannedHost(
        id=host.id,
        cell=host.cell,
        name=host.name,
        platform=host.platform,
        zone=host.zone,
        domains=domains,
        note=fleet.why_not(host),
        findings=_words(Counter([need.severity for need in needs])),
        deadline=min(deadlines, default=None),
        covered=covered,
    )


def _snapshots(run: RunId, hosts: Iterable[PlannedHost]) -> dict[str, str]:
    """One snapshot per cell and platform, so that every wave sees the same approved patches (AWS: SnapshotId)."""
    keys = sorted({(host.cell, host.platform) for host in hosts})
    return {f"{cell}|{platform}": rollout.snapshot(run, cell, platform) for cell, platform in keys}


# --- a plan that is changed before a stage begins: another plan, with another digest -------------------------------------

PLAN = "plan"
"""Name of the plan that a run is made with among its documents; changed ones are `changed_name`s."""


def changed_name(names: Iterable[str], stage: str) -> str:
    """The name under which the next changed plan is stored: ``plan.2.prod``, the second plan of the run, changed for prod."""
    return f"{PLAN}.{len(_changed(names)) + 2}.{stage}"


def in_force(names: Collection[str], order: Sequence[str], *, stage: str | None = None) -> str:
    """Under which of the names of a run's documents the plan stands that holds for a stage.

    A plan that was changed for a later stage is none of this stage's: what was approved for it before stays what it was.

    Args:
        order: names of the plan's stages.
        stage: None: the newest, which has every stage as it was changed last.
    """
    earlier = order[: order.index(stage) + 1] if stage in order else order
    fitting = [(number, name) for number, of, name in _changed(names) if of in earlier]
    return max(fitting)[1] if fitting else PLAN


def plan_names(names: Collection[str]) -> list[str]:
    """Those of the names of a run's documents under which plans stand, the first plan first."""
    changed = sorted((number, name) for number, _, name in _changed(names))
    return [name for name in names if name == PLAN] + [name for _, name in changed]


def _changed(names: Iterable[str]) -> list[tuple[int, str, str]]:
    found = (re.fullmatch(rf"{PLAN}\.([0-9]+)\.([^.]+)", name) for name in names)
    return [(int(one[1]), one[2], one[0]) for one in found if one]


def without(plan: Plan, stage: str, hosts: Iterable[HostId], *, reason: str) -> Plan:
    """The plan with fewer hosts in one stage; those left out are excluded with the reason.

    Raises:
        KeyError: the plan does not touch that stage.
    """
    its = plan.stage(stage)
    out = frozenset(hosts) & {host.id for host in its.hosts}
    excluded = [Exclusion(host=one.id, cell=one.cell, name=one.name, reason=reason) for one in its.hosts if one.id in out]
    return _with(plan, _less(its, out, plan.expected), (*plan.exclusions, *excluded))


def renewed(plan: Plan, fresh: Plan, stage: str) -> Plan:
    """The plan with one stage as `fresh` has it; every other stage stays as it was approved and perhaps patched.

    A host that `fresh` has in a stage that is not renewed, or that another stage of `plan` has already, is excluded here.

    Args:
        fresh: made of the same campaign, later.

    Raises:
        KeyError: one of them does not touch that stage.
    """
    elsewhere = {host.id: one.name for one in plan.stages if one.name != stage for host in one.hosts}
    its = fresh.stage(stage)
    taken = frozenset(host.id for host in its.hosts if host.id in elsewhere)
    new = _less(its, taken, fresh.expected)
    planned = {host.id for host in new.hosts} | elsewhere.keys()
    out = [one for one in fresh.exclusions if one.host not in planned]
    turned = [
        Exclusion(
            host=host.id, cell=host.cell, name=host.name, reason=f"stage {one.name} selects it now, which is not asked about"
        )
        for one in fresh.stages
        if one.name != stage
        for host in one.hosts
        if host.id not in planned
    ]
    changed = _with(plan, new, sorted([*out, *turned], key=lambda one: (one.cell, one.host)))
    unscanned = {host: why for host, why in {**plan.unscanned, **fresh.unscanned}.items() if host in planned}
    return replace(changed, unscanned=unscanned, snapshots={**fresh.snapshots, **plan.snapshots})


def _less(stage: StagePlan, out: Collection[HostId], expected: Mapping[str, Mapping[StepKind, timedelta]]) -> StagePlan:
    hosts = tuple(host for host in stage.hosts if host.id not in out)
    kept = [tuple(host for host in wave.hosts if host not in out) for wave in stage.waves]
    cut = tuple(replace(wave, hosts=left) for wave, left in zip(stage.waves, kept, strict=True) if left)
    cut = tuple(replace(wave, number=number) for number, wave in enumerate(cut, 1))
    forecast = _forecast({host.platform for host in hosts}, len(cut), expected)
    back = stage.ways_back.without(out) if stage.ways_back is not None else None
    return replace(stage, hosts=hosts, waves=cut, forecast=forecast, ways_back=back)


def _with(plan: Plan, stage: StagePlan, exclusions: Iterable[Exclusion]) -> Plan:
    left = {host.id for one in plan.stages if one.name != stage.name for host in one.hosts} | {host.id for host in stage.hosts}
    return replace(
        plan,
        stages=tuple(stage if one.name == stage.name else one for one in plan.stages),
        exclusions=tuple(exclusions),
        unscanned={host: why for host, why in plan.unscanned.items() if host in left},
    )


def rules(plan: Plan, stage: StagePlan) -> StageRules:
    """What the rollout of that stage has to keep."""
    return StageRules(
        run=plan.run,
        stage=stage.name,
        order=tuple(host.id for host in stage.hosts),
        places=stage.places,
        error_budget=stage.error_budget,
        snapshots=plan.snapshots,
        reboot=plan.reboot,
        expected=plan.expected,
    )


def rows(plan: Plan, stage: StagePlan, *, now: datetime) -> tuple[rollout.HostRow, ...]:
    """The stage's hosts as they enter the ledger."""
    return tuple(
        rollout.HostRow(
            run=plan.run,
            stage=stage.name,
            host=host.id,
            cell=host.cell,
            name=host.name,
            platform=host.platform,
            domains=host.domains,
            state=rollout.HostState.PLANNED,
            reason=host.note,
            since=now,
        )
        for host in stage.hosts
    )


# --- for people ---------------------------------------------------------------------------------------------------------

MOST_AT_GATE = 100
"""Hosts of a section that a gate's page lists one by one: what somebody reads, and Airflow's page shows without delay."""
MOST_REASONS = 30

_ORDER = ("critical", "high", "medium", "low", "informational", "untriaged")


def _cell_text(text: object) -> str:
    """Text from outside inside a Markdown table: no cell may end early, no markup may start."""
    flat = " ".join(str(text).splitlines())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("[", "\\[").replace("`", "'").replace("<", "&lt;")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[word]} {word}" for word in _ORDER if counts.get(word)) or "none known"


def _purpose(plan: Plan) -> str:
    """What the planned hosts can be rid of, and what the scan found in all: hosts come and go after it, and not every finding has
    a patch or a host in the plan."""
    here: Counter[str] = Counter()
    for host in plan.hosts:
        here.update(host.findings)
    return f"{_counts(here)} patchable findings on these hosts, of {_counts(plan.severities)} active ones in the scan"


def _tracks(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[word]} {word.replace('_', ' ')}" for word in counts if counts[word]) or "none known"


def _stops(stage: StagePlan) -> str:
    most = stage.error_budget
    return f"stops when more than {_many(most, 'host')} failed" if most else "stops at the first host that fails"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def _duration(value: timedelta) -> str:
    return written_duration(value) if value else "none"


def summary(plan: Plan) -> str:
    """One sentence: how many hosts, in how many stages, for what."""
    stages = ", ".join(f"{stage.name} {len(stage.hosts)}" for stage in plan.stages)
    return (
        f"{_many(len(plan.hosts), 'host')} in {_many(len(plan.stages), 'stage')} ({stages}), "
        f"{len(plan.exclusions)} excluded; active findings: {_counts(plan.severities)}"
    )


def markdown(
    plan: Plan,
    *,
    for_stage: str | None = None,
    notices: Sequence[str] = (),
    difference: str = "",
    patches: str = "",
    forecast: Sequence[str] = (),
    calls: str = "",
    baselines: Sequence[str] = (),
    clocks: Sequence[str] = (),
    why: Reasons | None = None,
    most: int | None = None,
) -> str:
    """The plan as a person judges it: how many hosts, in which order, what for, what is excluded and why, how long.

    Args:
        for_stage: the stage that is asked about at a gate; it is named first.
        notices: sentences to stand on top, a paragraph each, e.g. that the campaign file has changed since.
        difference: a section that says what is new, before the tables.
        patches: what is installed in the stage that is asked about.
        forecast: sentences of `forecast.sentences`: when each stage begins and ends, what it waits for, and who will not fit.
        calls: section of `calls.markdown`: what a run would call, for a dry run.
        baselines: how the accounts' patch baselines differ from what the policy wants, in sentences; none: nobody has looked.
        clocks: sentences of `emergency.sentences`: how long is left for the vulnerabilities that the run is about.
        why: by which rows of the policy the hosts' findings have their tracks and deadlines; None: nobody has looked.
        most: hosts that are listed one by one in each section, the others in numbers; None: all of them.
    """
    lines = [f"# Plan of {plan.campaign}", ""]
    if notices:
        lines += ["\n>\n".join(f"> **{sentence}**" for sentence in notices), ""]
    if plan.dry_run:
        lines += ["> **Dry run:** nothing is changed; this plan is the result.", ""]
    if for_stage is not None:
        stage = plan.stage(for_stage)
        lines += [
            f"**You are asked about stage `{for_stage}`:** {_many(len(stage.hosts), 'host')}, at most {stage.stage_places} at "
            f"once ({stage.concurrency}), {_stops(stage)}, expected to take {_duration(stage.forecast)}.",
            "",
        ]
    lines += [f"- **Deadline clock:** {_cell_text(sentence)}" for sentence in clocks]
    lines += [
        f"- **What for:** {_purpose(plan)}",
        f"- **By track of the policy:** {_tracks(plan.tracks)} (all findings of the scan)",
        f"- **Hosts:** {len(plan.hosts)} in {_many(len(plan.stages), 'stage')}, {len(plan.exclusions)} excluded",
        f"- **Policy:** {plan.policy}; **requested by:** {_cell_text(plan.requested_by or 'the schedule')}{_own_yes(plan)}",
        f"- **Made at:** {plan.created:%Y-%m-%d %H:%M} UTC; **run:** `{_cell_text(plan.run)}`",
        f"- **Digest:** `{digest(plan)}` (an approval holds for this plan and no other)",
    ]
    lines.append(
        "- **Reboots:** every host whose patches wait for one, within its stage's budget"
        if plan.reboot
        else "- **Reboots:** none; hosts whose patches wait for one end as `pending_reboot` and are not compliant"
    )
    if plan.kernel_waits:
        open_ones = [str(stage.name) for stage in plan.stages if stage.window is None]
        where = f"; {', '.join(open_ones)} {'has' if len(open_ones) == 1 else 'have'} none" if open_ones else ""
        lines.append(f"- **Kernel updates:** installed and rebooted in a stage's window only{where}")
    if plan.restriction.by_finding:
        chosen = ", ".join((*plan.restriction.severities, *plan.restriction.vulnerabilities))
        lines.append(f"- **Restricted to hosts with:** {_cell_text(chosen)}; those hosts get every patch their baseline approves")
    if plan.left_out:
        lines.append(f"- **Stages left out of this run:** {', '.join(plan.left_out)}")
    lines += [difference.rstrip("\n")] if difference else []
    lines += ["", "## Stages, in this order", ""]
    lines += [
        "| stage | hosts | at once | waves | may fail | takes about | then soaks | approval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for stage in plan.stages:
        lines.append(
            f"| {stage.name} | {len(stage.hosts)} | {stage.stage_places} ({stage.concurrency}) | {len(stage.waves)} | "
            f"{stage.error_budget or 'none'} | {_duration(stage.forecast)} | {_duration(stage.soak)} | {_cell_text(stage.who)} |"
        )
    if forecast:
        lines += ["", "## When, as far as is known now", "", *(f"- {_cell_text(sentence)}" for sentence in forecast)]
    if baselines:
        lines += ["", "## Patch baselines", "", *(f"- {_cell_text(sentence)}" for sentence in baselines)]
    if patches:
        lines += ["", f"## What is installed in stage {for_stage}", "", patches.rstrip("\n")]
    lines += _why_lines(why) if why is not None else []
    lines += ["", "## Hosts, stage by stage"]
    for stage in plan.stages:
        lines += _stage_lines(plan, stage, why.deciding if why is not None else {}, most)
    lines += [calls] if calls else []
    lines += ["", f"## Excluded ({len(plan.exclusions)})", ""]
    if plan.exclusions:
        lines += _by_reason([one.reason for one in plan.exclusions], most)
        lines += ["| host | name | cell | why |", "|---|---|---|---|"]
        listed = plan.exclusions[:most]
        lines += [f"| {one.host} | {_cell_text(one.name)} | {one.cell} | {_cell_text(one.reason)} |" for one in listed]
        lines += _and_more(plan, len(plan.exclusions) - len(listed))
    else:
        lines.append("Nobody: every host of the scope is in a stage.")
    lines += ["", "## Not known to Inspector", ""]
    if plan.unscanned:
        names = {host.id: host.name for host in plan.hosts}
        lines += _by_reason(list(plan.unscanned.values()), most)
        lines += [
            f"- **{_cell_text(names.get(host) or host)}** ({host}): {_cell_text(reason)}; its findings are unknown, it is "
            "patched all the same"
            for host, reason in list(plan.unscanned.items())[:most]
        ]
        lines += _and_more(plan, len(plan.unscanned) - len(list(plan.unscanned)[:most]))
    else:
        lines.append("Inspector scans every host of the plan.")
    lines += ["", "## What an OS patch cannot mend", ""]
    if plan.not_patchable:
        lines += [f"- {_many(count, 'finding')}: {_cell_text(reason)}" for reason, count in plan.not_patchable.items()]
    else:
        lines.append("Nothing: every active finding has an OS patch.")
    return "\n".join(lines) + "\n"


def _own_yes(plan: Plan) -> str:
    """That whoever asked for the run does not count, where a stage names them among those who may approve."""
    named = [one.name for one in plan.stages if one.approval_required and plan.requested_by in one.approvers]
    return f", whose own yes does not count ({', '.join(named)})" if named else ""


def _why_lines(why: Reasons) -> list[str]:
    lines = ["", "## Why, by the rows of the policy", ""]
    if not why.rows:
        return [*lines, "No host of the plan has a finding that an OS patch mends; each gets what its baseline approves."]
    lines += [
        "The number of a row stands beside the deadline of each host that owes it to that row.", "",
        "| row | findings | hosts | soonest deadline | track | deadline |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for number, one in enumerate(why.rows[: reasons.MOST], 1):
        soonest = f"{one.soonest:%Y-%m-%d}{' (overdue)' if one.overdue else ''}" if one.soonest else "-"
        lines.append(
            f"| {number} | {one.findings} | {one.hosts} | {soonest} | {one.track.value}: {_cell_text(one.matrix)} "
            f"| {_cell_text(one.deadline or 'not said')} |"
        )
    if rest := why.rows[reasons.MOST :]:
        count = sum(one.findings for one in rest)
        lines += ["", f"And {len(rest)} rows more, less urgent, of {count} findings: the report has each of them."]
    return lines


def _by_reason(said: Sequence[str], most: int | None) -> list[str]:
    """How many there are for each reason, where not all are listed."""
    if most is None or len(said) <= most:
        return []
    return [*(f"- **{count}**: {_cell_text(reason)}" for reason, count in Counter(said).most_common(MOST_REASONS)), ""]


def _and_more(plan: Plan, left: int, what: str = "") -> list[str]:
    """That some are not listed here, and where they are."""
    if not left:
        return []
    return ["", f"**And {left} more{what}.** All of them: `python -m patchwave plan {_cell_text(plan.run)}`."]


def _stage_lines(plan: Plan, stage: StagePlan, deciding: Mapping[HostId, int], most: int | None) -> list[str]:
    notes = [host for host in stage.hosts if host.note]
    wave_of = {host: wave.number for wave in stage.waves for host in wave.hosts}
    lines = ["", f"### {stage.name}", ""]
    managed = _managed_lines(stage.managed) if stage.managed is not None else []
    if not stage.hosts:
        return [*lines, "No host is selected by this stage.", *managed]
    lines += [f"- {_cell_text(remark)}" for remark in (*stage.remarks, *_back(stage))]
    lines += [
        f"- **{_cell_text(host.name or host.id)}** ({host.id}): {_cell_text(host.note)}; looked at again when the stage begins"
        for host in notes[:most]
    ]
    lines += _and_more(plan, len(notes) - len(notes[:most]), " that cannot be reached now")
    ways = {one.host: one for one in stage.ways_back.hosts} if stage.ways_back is not None else {}
    lines += [
        "",
        f"| wave | host | name | platform | zone | findings | earliest deadline |{' way back |' if ways else ''}",
        f"|---|---|---|---|---|---|---|{'---|' if ways else ''}",
    ]
    ordered = sorted(stage.hosts, key=lambda one: wave_of.get(one.id, 10**6))
    for host in ordered[:most]:
        row = f" (row {deciding[host.id]})" if deciding.get(host.id, reasons.MOST + 1) <= reasons.MOST else ""
        deadline = f"{host.deadline:%Y-%m-%d}{row}" if host.deadline else "-"
        found = _counts(host.findings) if host.covered else "unknown (not scanned)"
        lines.append(
            f"| {wave_of.get(host.id, '-')} | {host.id} | {_cell_text(host.name)} | {_cell_text(host.platform)} | {host.zone} "
            f"| {found} | {deadline} |{_way_cell(ways.get(host.id)) if ways else ''}"
        )
    left = ordered[len(ordered[:most]) :]
    return [*lines, *_and_more(plan, len(left), f" in later waves: {_in_numbers(left)}" if left else ""), *managed]


def _in_numbers(hosts: Sequence[PlannedHost]) -> str:
    """What a table of these hosts would say, added up."""
    platforms = Counter(host.platform for host in hosts).most_common()
    found: Counter[str] = Counter()
    for host in hosts:
        found.update(host.findings)
    soonest = min((host.deadline for host in hosts if host.deadline is not None), default=None)
    unknown = sum(not host.covered for host in hosts)
    said = [", ".join(f"{count} {_cell_text(platform)}" for platform, count in platforms), f"findings {_counts(found)}"]
    said += [f"{unknown} not scanned by Inspector"] if unknown else []
    said += [f"soonest deadline {soonest:%Y-%m-%d}"] if soonest else []
    return "; ".join(said)


def _managed_lines(managed: ManagedPlan) -> list[str]:
    rows = managed_services.table(managed)
    if not rows:
        return ["", "No database or function carries this stage's tags."]
    told = [f"- {sentence}" for sentence in managed_services.sentences(managed)]
    lines = ["", "Databases and functions, after the hosts:", "", *told, ""]
    lines += ["| service | name | is | what is done | to know |", "|---|---|---|---|---|"]
    return lines + [f"| {' | '.join(_cell_text(cell) for cell in row)} |" for row in rows]


def _back(stage: StagePlan) -> tuple[str, ...]:
    if stage.ways_back is None:
        return ("Way back: none but a new instance; the policy takes no snapshot before patching.",)
    return snapshots.sentences(stage.ways_back)


def _way_cell(way: HostWay | None) -> str:
    if way is None:
        return " - |"
    return f" {snapshots.WORDS[way.way]}: {_cell_text(way.why)} |"
