"""What does a rule say of a resource at a moment?

A patch report becomes a configuration item after `config.recorded_after`, the change triggers an evaluation of that host after
`config.evaluated_after`; StartConfigRulesEvaluation judges all resources by what is recorded at that moment, so too early it
repeats the old result with new times. The other rules follow the same clock: each knows when its resource changed and what it
was like then. What a custom rule says is put by callers (`custom.py`). A rule that is neither in `JUDGES` nor was told anything
of has no applicable resources: INSUFFICIENT_DATA.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from awsim import estate, estate_config, runcommand
from awsim.estate import ConfigRule
from awsim.faults import Kind
from awsim.host import Host, PatchReport
from awsim.registry import on_world
from awsim.world import World
from awsim.world_file import Config as Times

PATCH_RULE = "EC2_MANAGEDINSTANCE_PATCH_COMPLIANCE_STATUS_CHECK"
PATCH_COMPLIANCE = "AWS::SSM::PatchCompliance"
ASSOCIATION_COMPLIANCE = "AWS::SSM::AssociationCompliance"
INSTANCE = "AWS::EC2::Instance"
GROUP = "AWS::AutoScaling::AutoScalingGroup"
INVENTORY = "AWS::SSM::ManagedInstanceInventory"
"""Ids of `AWS::SSM::PatchCompliance` resources begin with it."""
LONG_AGO = 30 * 86_400.0
DAY = 86_400.0
SILENT = 300.0
"""After so long SSM calls an agent lost."""


@dataclass(kw_only=True, slots=True)
class Asked:
    """When a rule came to be and was changed, and when it was asked to evaluate everything."""

    created: float
    changes: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)

    @property
    def moments(self) -> list[float]:
        """When everything began to be evaluated."""
        return [self.created, *self.changes, *self.starts]


@dataclass(slots=True)
class ConfigState:
    """Of a cell: what moto does not keep."""

    asked: dict[str, Asked] = field(default_factory=dict)
    pack_rules: dict[str, ConfigRule] = field(default_factory=dict)
    """Rules that conformance packs made, by their names with suffix."""
    pack_rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The same as DescribeConfigRules tells them."""
    put: dict[str, dict[tuple[str, str], "Result"]] = field(default_factory=dict)
    """Custom rule -> what PutEvaluations said of each resource."""
    cleared: dict[str, float] = field(default_factory=dict)
    """Rule -> when DeleteEvaluationResults forgot what had been recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a rule says of a resource."""

    rule: ConfigRule
    resource_type: str
    resource_id: str
    compliance: str
    item: float
    """When the configuration item was recorded that was judged."""
    invoked: float
    recorded: float
    annotation: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A resource that a rule applies to."""

    type: str
    id: str
    changes: list[float]
    """When it changed in a way that matters to the rule."""
    judge: Callable[[float], tuple[str, float] | None]
    """By what is recorded at a moment: the verdict, and when what was judged had been recorded. None: nothing is recorded."""


@on_world
def attach(world: World) -> None:
    """The rules of the world file exist from the beginning."""
    if world.file is None:
        return
    for account, region in world.cells:
        for rule in world.file.config_rules:
            if (not rule.accounts or account in rule.accounts) and (not rule.regions or region in rule.regions):
                estate.create_config_rule(account, region, rule.name, rule.source_identifier)
                kept = world.state(account, region, ConfigState)
                kept.asked[rule.name] = Asked(created=world.clock.base - LONG_AGO)


def times_of(world: World) -> Times:
    return world.file.config if world.file else Times()


def rules_of(world: World, account: str, region: str) -> dict[str, ConfigRule]:
    """All rules of a cell by name, those of conformance packs among them."""
    return {**estate.config_rules(account, region), **world.state(account, region, ConfigState).pack_rules}


def asked_of(world: World, account: str, region: str, rule: str) -> Asked:
    return world.state(account, region, ConfigState).asked.setdefault(rule, Asked(created=world.clock.base))


def evaluating(world: World, account: str, region: str, rule: str) -> bool:
    """Does the state of the rule say so? Only after StartConfigRulesEvaluation; a rule just put is ACTIVE."""
    asked = asked_of(world, account, region, rule)
    return any(start <= world.now < start + times_of(world).evaluation_takes for start in asked.starts)


def results(world: World, account: str, region: str, rule: ConfigRule, *, now: float | None = None) -> list[Result]:
    """The rule's last words by now (or by an earlier moment); nothing of what never reported or is gone."""
    subjects, kept = JUDGES.get(rule.source_identifier), world.state(account, region, ConfigState)
    moment = world.now if now is None else now
    if subjects is None:
        return [result for result in kept.put.get(rule.name, {}).values() if result.recorded <= moment]
    asked, cleared = asked_of(world, account, region, rule.name), kept.cleared.get(rule.name, -1.0)
    late = _lateness(world, account, region)
    found = (_result(world, rule, subject, asked, moment, late(subject)) for subject in subjects(world, account, region, rule))
    return [result for result in found if result is not None and result.recorded > cleared]


def _lateness(world: World, account: str, region: str) -> Callable[[Subject], float]:
    """How many seconds later than usual Config records a subject, by faults in force."""
    if all(fault.kind is not Kind.CONFIG_LATE for fault in world.faults.all()):
        return lambda _: 0.0

    def late(subject: Subject) -> float:
        host = world.host(account, region, subject.id.rpartition("/")[2])
        return world.faults.delay(Kind.CONFIG_LATE, host) if host is not None else 0.0

    return late


def _result(world: World, rule: ConfigRule, subject: Subject, asked: Asked, now: float, late: float) -> Result | None:
    times = times_of(world)
    evaluations = [(start + times.evaluation_takes, start, start) for start in asked.moments]
    for change in subject.changes:
        end = change + late + times.evaluated_after
        evaluations.append((end, max(change + late + times.recorded_after, end - 1), end))
    if rule.source_identifier in PERIODIC:
        last = asked.created + (now - asked.created) // DAY * DAY
        evaluations.append((last + times.evaluation_takes, last, last))
    for recorded, invoked, judged in sorted(evaluations, reverse=True):
        if recorded > now or judged < asked.created:
            continue
        verdict = subject.judge(judged - late)
        if verdict is not None:
            return Result(
                rule=rule,
                resource_type=subject.type,
                resource_id=subject.id,
                compliance=verdict[0],
                item=verdict[1] + late,
                invoked=invoked,
                recorded=recorded,
            )
    return None


# --- what each rule looks at ---


def _hosts(world: World, account: str, region: str) -> list[Host]:
    return [host for host in world.hosts_in(account, region) if host.state != "terminated"]


def _recorded(host: Host, by: float, times: Times) -> PatchReport | None:
    """The newest report that is a configuration item by that moment."""
    return next((report for report in reversed(host.reports) if report.uploaded + times.recorded_after <= by), None)


def _patches(world: World, account: str, region: str, rule: ConfigRule) -> list[Subject]:
    times = times_of(world)

    def subject(host: Host) -> Subject:
        def judge(at: float) -> tuple[str, float] | None:
            item = _recorded(host, at, times)
            if item is None:
                return None
            return "COMPLIANT" if item.compliant else "NON_COMPLIANT", item.uploaded + times.recorded_after

        changes = [report.uploaded for report in host.reports]
        return Subject(type=PATCH_COMPLIANCE, id=f"{INVENTORY}/{host.id}", changes=changes, judge=judge)

    return [subject(host) for host in _hosts(world, account, region)]


def _associations(world: World, account: str, region: str, rule: ConfigRule) -> list[Subject]:
    """Associations of a node are compliant unless the last run of the patch association on it failed."""
    times = times_of(world)
    runs: dict[str, list[tuple[float, bool]]] = {}
    for command in runcommand.book(world, account, region).commands.values():
        if command.document.endswith("AWS-RunPatchBaselineAssociation"):
            for invocation in command.invocations.values():
                if invocation.finished is not None:
                    row = (invocation.finished, invocation.status == "Success")
                    runs.setdefault(invocation.host.id, []).append(row)

    def subject(host: Host) -> Subject:
        since = host.registered or 0.0

        def judge(at: float) -> tuple[str, float] | None:
            if since + times.recorded_after > at:
                return None
            known = [row for row in sorted(runs.get(host.id, [])) if row[0] + times.recorded_after <= at]
            good, changed = (known[-1][1], known[-1][0]) if known else (True, since)
            return "COMPLIANT" if good else "NON_COMPLIANT", changed + times.recorded_after

        changes = [since, *(at for at, _ in runs.get(host.id, []))]
        return Subject(type=ASSOCIATION_COMPLIANCE, id=f"{INVENTORY}/{host.id}", changes=changes, judge=judge)

    return [subject(host) for host in _hosts(world, account, region) if host.registered is not None]


def _managed(world: World, account: str, region: str, rule: ConfigRule) -> list[Subject]:
    """A running instance whose agent never registered or is silent is NON_COMPLIANT; a stopped one is not judged badly."""
    times = times_of(world)

    def subject(host: Host) -> Subject:
        silent = [*host.silences, *([(host.disconnected, float("inf"))] if host.disconnected is not None else [])]
        changes = [host.launched, *([host.registered] if host.registered is not None else [])]
        changes += [began + SILENT for began, ended in silent if ended - began > SILENT]
        changes += [ended for began, ended in silent if ended - began > SILENT and ended < float("inf")]

        def judge(at: float) -> tuple[str, float] | None:
            seen = at - times.recorded_after
            if host.launched > seen:
                return None
            item = max((change for change in changes if change <= seen), default=host.launched) + times.recorded_after
            if host.state == "stopped" and host.disconnected is not None and host.disconnected <= seen:
                return "COMPLIANT", item
            up = host.registered is not None and host.registered <= seen
            lost = any(began + SILENT <= seen < ended for began, ended in silent)
            return "COMPLIANT" if up and not lost else "NON_COMPLIANT", item

        return Subject(type=INSTANCE, id=host.id, changes=changes, judge=judge)

    return [subject(host) for host in _hosts(world, account, region)]


def _constant(type_: str, identifier: str, since: float, good: bool, times: Times) -> Subject:
    """Of what does not change after its beginning."""

    def judge(at: float) -> tuple[str, float] | None:
        item = since + times.recorded_after
        return None if item > at else ("COMPLIANT" if good else "NON_COMPLIANT", item)

    return Subject(type=type_, id=identifier, changes=[since], judge=judge)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _approved_by_id(world: World, account: str, region: str, rule: ConfigRule) -> list[Subject]:
    approved, times = set(_listed(rule.parameters.get("amiIds", ""))), times_of(world)
    machines = {machine.id: machine for machine in estate.machines(account, region)}
    return [
        _constant(INSTANCE, host.id, host.launched, machines[host.id].image in approved, times)
        for host in _hosts(world, account, region)
        if host.id in machines
    ]


def _approved_by_tag(world: World, account: str, region: str, rule: ConfigRule) -> list[Subject]:
    """`key:value` or `key`, separated by commas; one that the image has is enough."""
    wanted, times = _listed(rule.parameters.get("amisByTagKeyAndValue", "")), times_of(world)
    machines = {machine.id: machine for machine in estate.machines(account, region)}

    def approved(image: str) -> bool:
        tags = estate.tags_of(account, region, image)
        pairs = [entry.partition(":") for entry in wanted]
        return any(key in tags and (not colon or tags[key] == value) for key, colon, value in pairs)

    known = {image: approved(image) for image in {machine.image for machine in machines.values()}}
    return [
        _constant(INSTANCE, host.id, host.launched, known[machines[host.id].image], times)
        for host in _hosts(world, account, region)
        if host.id in machines
    ]


def _stopped(world: World, account: str, region: str, rule: ConfigRule) -> list[Subject]:
    """Periodic: stopped for longer than AllowedDays (30)."""
    days, times = float(rule.parameters.get("AllowedDays") or 30), times_of(world)

    def subject(host: Host) -> Subject:
        def judge(at: float) -> tuple[str, float] | None:
            if host.launched > at:
                return None
            since = host.disconnected if host.disconnected is not None else host.launched
            long = host.state == "stopped" and at - since > days * DAY
            return "NON_COMPLIANT" if long else "COMPLIANT", max(host.launched, min(since, at)) + times.recorded_after

        return Subject(type=INSTANCE, id=host.id, changes=[], judge=judge)

    return [subject(host) for host in _hosts(world, account, region)]


def _launch_template(world: World, account: str, region: str, rule: ConfigRule) -> list[Subject]:
    times = times_of(world)
    groups = estate_config.scaling_groups(account, region)
    return [_constant(GROUP, arn, world.clock.base - LONG_AGO, good, times) for arn, _, good in groups]


JUDGES: dict[str, Callable[[World, str, str, ConfigRule], list[Subject]]] = {
    PATCH_RULE: _patches,
    "EC2_MANAGEDINSTANCE_ASSOCIATION_COMPLIANCE_STATUS_CHECK": _associations,
    "EC2_INSTANCE_MANAGED_BY_SSM": _managed,
    "APPROVED_AMIS_BY_ID": _approved_by_id,
    "APPROVED_AMIS_BY_TAG": _approved_by_tag,
    "EC2_STOPPED_INSTANCE": _stopped,
    "AUTOSCALING_LAUNCH_TEMPLATE": _launch_template,
}
PERIODIC = frozenset({"EC2_STOPPED_INSTANCE"})
