"""Which calls to AWS would a run of this plan make, and how many?

`of` counts them before anything is sent, by stage, step and operation; `markdown` is the section of a dry run's plan, `to_json`
the same for programs. What is counted is the least: what nobody can know beforehand is said in words. The operators that make
the calls are not asked: tests hold this count against what the executor really calls, and against the gateway's table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchwave.campaign.databases import Kind
from patchwave.campaign.plan import Plan, PlannedHost, StagePlan
from patchwave.campaign.rollout import LARGEST_DISPATCH, StepKind
from patchwave.campaign.settling import Service
from patchwave.campaign.snapshots import Way
from patchwave.campaign.values import Cell, HostId

DOCUMENT = "calls"
"""Name under which a dry run's ledger holds `to_json`."""

LOOK, BASELINES, SAVE, HEALTH, LOCK, VERIFICATION = "look", "baselines", "snapshots", "health", "lockfile", "verification"
MANAGED = "managed_services"
"""Steps beside those of `StepKind`."""
TITLES: Mapping[str, str] = {
    LOOK: "hosts and their groups, at the beginning and at the end",
    BASELINES: "patch baselines, before the first Scan",
    StepKind.SCAN.value: "Scan before",
    SAVE: "snapshots, before the Install",
    StepKind.INSTALL.value: "Install",
    StepKind.REBOOT.value: "reboot",
    StepKind.VERIFY.value: "Scan after",
    MANAGED: "databases and functions, after the hosts",
    HEALTH: "health after the stage",
    LOCK: "the lockfile",
    VERIFICATION: "verification after the last stage",
}
"""What each step is called, in order."""

SEND, PUT = "ssm:SendCommand", "s3:PutObject"
CREATE, UPDATE = "ssm:CreatePatchBaseline", "ssm:UpdatePatchBaseline"
REGISTER, DEREGISTER = "ssm:RegisterPatchBaselineForPatchGroup", "ssm:DeregisterPatchBaselineForPatchGroup"
SUSPEND, RESUME = "autoscaling:SuspendProcesses", "autoscaling:ResumeProcesses"
RDS_LOOK = ("rds:DescribePendingMaintenanceActions", "rds:DescribeDBClusters", "rds:DescribeDBInstances")
MANAGED_CHANGES = (
    "rds:CreateDBSnapshot", "rds:CreateDBClusterSnapshot", "rds:ApplyPendingMaintenanceAction", "rds:ModifyDBInstance",
    "rds:ModifyDBCluster", "lambda:PutRuntimeManagementConfig", "lambda:UpdateFunctionConfiguration",
)  # fmt: skip
SNAPSHOT = "ec2:CreateSnapshot"
CHANGING = frozenset({SEND, PUT, CREATE, UPDATE, REGISTER, DEREGISTER, SUSPEND, RESUME, SNAPSHOT, *MANAGED_CHANGES})
"""Counted operations that change something in AWS; all others only read."""

PAGE: Mapping[str, int] = {
    "ssm:DescribeInstancePatchStates": 50,
    "ssm:DescribeInstanceInformation": 50,
    "autoscaling:DescribeAutoScalingInstances": 50,
    "autoscaling:DescribeAutoScalingGroups": 100,
    "ec2:DescribeInstanceStatus": 100,
    "ec2:DescribeInstances": 1000,
}
"""Hosts (or groups) that one call tells of at most (botocore's models and the services' API references)."""

ASSUMES = (
    "Counted as if every host that answers now lacked patches that want a reboot, and the hosts of a wave went on together: a "
    "host that lacks nothing spares its Install, its reboot and its Scan after; one that needs no reboot spares that.",
    "Hosts that do not answer now are looked at when their stage begins, and counted no further.",
)
ON_TOP = (
    "Looks while commands run, a few a step: ListCommandInvocations of a single command, ListCommands for each fifty; where the "
    "connection names a queue of command events, ReceiveMessage and DeleteMessageBatch take their place.",
    "Looks while snapshots are made, one a minute and cell (DescribeSnapshots).",
    "Hosts of one wave that are through at different times go on in smaller commands, each with its own SendCommand and "
    "ListCommandInvocations.",
    "A host that was not heard of for five minutes is looked at before it is sent something; every quarter of an hour newcomers "
    "are looked for, and hosts that appear or answer again are patched, too.",
    "Hosts of one group that reboot at different times have its health checks suspended more than once, and whoever goes on "
    "after a crash suspends them again (SuspendProcesses, ResumeProcesses).",
    "A command that was cancelled or refused is sent again to those who still need it, a host is rebooted twice at most, and a "
    "step that is given up is cancelled (CancelCommand).",
    "Databases and functions are looked at every minute while one of them is changed, snapshots of databases, too.",
    "Change calendars and maintenance windows are asked for while a stage waits for them.",
    "Verification asks AWS Config to evaluate its rules (StartConfigRulesEvaluation, each rule of each cell, every five minutes) "
    "until it has looked at every patched host, and reads again each time.",
    "Verification asks from what the Auto Scaling groups of patched hosts make their instances (DescribeAutoScalingGroups, "
    "DescribeLaunchTemplateVersions or DescribeLaunchConfigurations, DescribeImages), and when those hosts were patched.",
    "The run's own reading of findings and fleet, as this dry run has done it.",
    "Remediation: which hosts need it is known only after the verification.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Called:
    """So many calls of an operation in a step, at least.

    Attributes:
        stage: empty for what comes after the last stage.
        step: a key of `TITLES`.
        operation: ``ssm:SendCommand``.
    """

    stage: str
    step: str
    operation: str
    count: int

    @property
    def changing(self) -> bool:
        """Whether it changes something in AWS."""
        return self.operation in CHANGING


@dataclass(frozen=True, kw_only=True, slots=True)
class CallForecast:
    """Every call that a run of the plan makes at the least."""

    stages: tuple[str, ...]
    calls: tuple[Called, ...]

    @property
    def changing(self) -> int:
        """Calls that change something."""
        return sum(one.count for one in self.calls if one.changing)

    @property
    def reading(self) -> int:
        """Calls that only read."""
        return sum(one.count for one in self.calls if not one.changing)

    def by_operation(self, *, stage: str | None = None, steps: Collection[str] = tuple(TITLES)) -> dict[str, int]:
        """Calls by operation, the changing ones first.

        Args:
            stage: only this one (``""``: after the last); None: all.
            steps: only these.
        """
        found: Counter[str] = Counter()
        for one in self.calls:
            if one.step in steps and stage in (None, one.stage):
                found[one.operation] += one.count
        return dict(sorted(found.items(), key=lambda item: (item[0] not in CHANGING, item[0])))


def of(
    plan: Plan, *, rules: Sequence[str] = (), lockfile: bool = False, overridden: Collection[str] = ()
) -> CallForecast:
    """The calls of a run of `plan`.

    Args:
        rules: names of the AWS Config rules that the campaign verifies by.
        lockfile: later stages are patched by what the first one received.
        overridden: stages whose Installs go by the policy's baselines in place of the accounts'.
    """
    calls: list[Called] = []
    for number, stage in enumerate(plan.stages):
        calls += _stage(plan, stage)
        if lockfile:
            calls += _locked(stage, first=number == 0)
        if stage.name in overridden:
            calls += _overridden(stage)
    calls += _verification(plan, rules)
    return CallForecast(stages=tuple(str(one.name) for one in plan.stages), calls=tuple(one for one in calls if one.count))


def _stage(plan: Plan, stage: StagePlan) -> list[Called]:
    facts = {host.id: host for host in stage.hosts}
    waves = [[facts[host] for host in wave.hosts] for wave in stage.waves]
    answering = [host for wave in waves for host in wave]
    found = _look(plan, stage)
    found += _baselines(stage)
    found += _step(stage, StepKind.SCAN, [answering])
    if plan.kernel_waits and stage.window is None:
        found.append(_made(stage, StepKind.SCAN.value, "ssm:DescribeInstancePatches", len(answering)))
    found += _snapshots(stage, waves)
    found += _step(stage, StepKind.INSTALL, waves)
    if plan.kernel_waits and stage.window is None and plan.reboot:
        found.append(_made(stage, StepKind.INSTALL.value, "ssm:DescribeInstancePatches", len(answering)))
    found += [*_step(stage, StepKind.REBOOT, waves), *_shields(stage, waves)] if plan.reboot else []
    found += _step(stage, StepKind.VERIFY, waves)
    found += _managed(stage)
    checks = {"ec2:DescribeInstanceStatus": True, "ssm:DescribeInstanceInformation": "ssm" in stage.health_checks,
              "autoscaling:DescribeAutoScalingInstances": "autoscaling" in stage.health_checks}  # fmt: skip
    found += [_made(stage, HEALTH, one, _pages(answering, one)) for one, wanted in checks.items() if wanted]
    return found


def _look(plan: Plan, stage: StagePlan) -> list[Called]:
    """The plan may be days old when a stage begins, and whoever has appeared by its end belongs to it."""
    operation = "ec2:DescribeInstances"
    if plan.restriction.by_finding:  # newcomers are left alone
        listings = _pages(stage.hosts, operation)
    else:
        listings = len(plan.cells) * (2 if stage.hosts else 1)
    domains = {domain for host in stage.hosts for domain in host.domains}
    scaling = Counter(one.rpartition("/")[0] for one in domains if one.startswith("asg:"))
    targets = Counter(one.rpartition("/")[0] for one in domains if one.startswith("target:"))
    groups = "autoscaling:DescribeAutoScalingGroups"
    return [
        _made(stage, LOOK, operation, listings),
        _made(stage, LOOK, "ssm:DescribeInstanceInformation", _pages(stage.hosts, "ssm:DescribeInstanceInformation")),
        _made(stage, LOOK, groups, sum(math.ceil(count / PAGE[groups]) for count in scaling.values())),
        _made(stage, LOOK, "elbv2:DescribeTargetGroups", len(targets)),
        _made(stage, LOOK, "elbv2:DescribeTargetHealth", targets.total()),
    ]


def _baselines(stage: StagePlan) -> list[Called]:
    """Looked at before each change; what another stage of the run has created is there then."""
    kept = stage.baselines
    return [
        _made(stage, BASELINES, "ssm:DescribePatchBaselines", len(kept)),
        _made(stage, BASELINES, "ssm:GetPatchBaseline", sum(not one.creates for one in kept)),
        _made(stage, BASELINES, "ssm:DescribePatchGroups", len(kept)),
        _made(stage, BASELINES, CREATE, sum(one.creates for one in kept)),
        _made(stage, BASELINES, UPDATE, sum(bool(one.changes) for one in kept)),
        _made(stage, BASELINES, DEREGISTER, sum(len(one.takes) for one in kept)),
        _made(stage, BASELINES, REGISTER, sum(len(one.groups) + len(one.takes) for one in kept)),
    ]


def _snapshots(stage: StagePlan, waves: Sequence[Sequence[PlannedHost]]) -> list[Called]:
    """One a host; EC2 is asked for those that are there before they are begun, and again until they are complete."""
    if stage.ways_back is None or not stage.ways_back.snapshots:
        return []
    saved = {one.host for one in stage.ways_back.hosts if one.way is Way.ROOT_VOLUME}
    cells = sum(len({host.cell for host in wave}) for wave in waves)
    return [
        _made(stage, SAVE, SNAPSHOT, sum(host.id in saved for wave in waves for host in wave)),
        _made(stage, SAVE, "ec2:DescribeSnapshots", 2 * cells),
        _made(stage, SAVE, "ec2:DescribeInstances", cells),
        _made(stage, SAVE, "ec2:DescribeVolumes", cells),
    ]


def _step(stage: StagePlan, step: StepKind, waves: Iterable[Sequence[PlannedHost]]) -> list[Called]:
    """A command for each fifty hosts of a cell and platform; its invocations after its end, and what the hosts reported."""
    waves = list(waves)
    sent = _commands(waves)
    states = sum(_pages(wave, "ssm:DescribeInstancePatchStates") for wave in waves)
    name = step.value
    return [
        _made(stage, name, SEND, sent),
        _made(stage, name, "ssm:ListCommandInvocations", sent),
        _made(stage, name, "ssm:DescribeInstancePatchStates", 0 if step is StepKind.REBOOT else states),
    ]


def _shields(stage: StagePlan, waves: Iterable[Sequence[PlannedHost]]) -> list[Called]:
    """Around each wave's reboots the health checks of its hosts' Auto Scaling groups are suspended."""
    groups = sum(len({domain for host in wave for domain in host.domains if domain.startswith("asg:")}) for wave in waves)
    name = StepKind.REBOOT.value
    return [_made(stage, name, one, groups) for one in ("autoscaling:DescribeAutoScalingGroups", SUSPEND, RESUME)]


def _managed(stage: StagePlan) -> list[Called]:
    """Each change once; what is looked at in between depends on how long RDS and Lambda take."""
    plan = stage.managed
    if plan is None:
        return []
    databases = [one for one in plan.databases if one.changes and Service.RDS in plan.services]
    functions = [one for one in plan.functions if one.changes and Service.LAMBDA in plan.services]
    saved = {(one.cell, one.saved_kind, one.saved) for one in databases if one.saved}
    upgraded = [one for one in databases if one.target]
    cells = len({one.cell for one in databases})
    return [
        _made(stage, MANAGED, "rds:CreateDBSnapshot", sum(kind is Kind.INSTANCE for _, kind, _ in saved)),
        _made(stage, MANAGED, "rds:CreateDBClusterSnapshot", sum(kind is Kind.CLUSTER for _, kind, _ in saved)),
        _made(stage, MANAGED, "rds:ApplyPendingMaintenanceAction", sum(len(one.actions) for one in databases)),
        _made(
            stage, MANAGED, "rds:ModifyDBInstance",
            sum(one.kind is Kind.INSTANCE for one in upgraded) + sum(one.automatic is not None for one in databases),
        ),
        _made(stage, MANAGED, "rds:ModifyDBCluster", sum(one.kind is Kind.CLUSTER for one in upgraded)),
        *(_made(stage, MANAGED, one, cells) for one in RDS_LOOK),
        _made(stage, MANAGED, "lambda:PutRuntimeManagementConfig", sum(bool(one.mode) for one in functions)),
        _made(stage, MANAGED, "lambda:UpdateFunctionConfiguration", sum(one.update for one in functions)),
        _made(stage, MANAGED, "lambda:GetFunctionConfiguration", len(functions)),
        _made(stage, MANAGED, "lambda:GetRuntimeManagementConfig", len(functions)),
    ]  # fmt: skip


def _locked(stage: StagePlan, *, first: bool) -> list[Called]:
    """The first stage's hosts are read before and after; all others are told by a list, and compared with it at each Scan."""
    hosts = sum(len(wave.hosts) for wave in stage.waves)
    facts = {host.id: host for host in stage.hosts}
    lists = 0 if first else _commands([[facts[host] for host in wave.hosts] for wave in stage.waves])
    return [
        _made(stage, LOCK, PUT, lists),
        _made(stage, LOCK, "ssm:DescribeInstancePatches", hosts * (2 if first else 3)),
        _made(stage, LOCK, "ssm:ListInventoryEntries", hosts if first else 0),
    ]


def _overridden(stage: StagePlan) -> list[Called]:
    """The file is laid down before each Install; after it each host is asked what is missing that it should have brought."""
    facts = {host.id: host for host in stage.hosts}
    waves = [[facts[host] for host in wave.hosts] for wave in stage.waves]
    sent = _commands(waves)
    return [
        _made(stage, StepKind.INSTALL.value, PUT, sent),
        _made(stage, StepKind.VERIFY.value, "ssm:ListCommandInvocations", sent),
        _made(stage, StepKind.VERIFY.value, "ssm:DescribeInstancePatches", sum(len(wave) for wave in waves)),
    ]


def _commands(waves: Iterable[Sequence[PlannedHost]]) -> int:
    groups = (Counter((host.cell, host.platform) for host in wave) for wave in waves)
    return sum(math.ceil(hosts / LARGEST_DISPATCH) for wave in groups for hosts in wave.values())


def _verification(plan: Plan, rules: Sequence[str]) -> list[Called]:
    """Every host of the scope is judged, the excluded ones, too."""
    subjects: dict[Cell, set[HostId]] = {}
    for one in plan.hosts:
        subjects.setdefault(one.cell, set()).add(one.id)
    for out in plan.exclusions:
        subjects.setdefault(out.cell, set()).add(out.host)
    page = PAGE["ssm:DescribeInstancePatchStates"]
    counted = {
        "ssm:DescribeInstancePatchStates": sum(math.ceil(len(hosts) / page) for hosts in subjects.values()),
        "config:GetComplianceDetailsByConfigRule": len(subjects) * len(rules),
        "inspector2:ListFindings": len(plan.cells),
        "inspector2:ListCoverage": len(plan.cells),
    }
    return [Called(stage="", step=VERIFICATION, operation=one, count=count) for one, count in counted.items()]


def _pages(hosts: Iterable[PlannedHost], operation: str) -> int:
    return sum(math.ceil(count / PAGE[operation]) for count in Counter(host.cell for host in hosts).values())


def _made(stage: StagePlan, step: str, operation: str, count: int) -> Called:
    return Called(stage=str(stage.name), step=step, operation=operation, count=count)


def to_json(forecast: CallForecast) -> dict[str, Any]:
    """The forecast as JSON-able content."""
    return {
        "at_least": {"changing": forecast.changing, "reading": forecast.reading},
        "by_operation": [
            {"operation": one, "changing": one in CHANGING, "at_least": count} for one, count in forecast.by_operation().items()
        ],
        "calls": [
            {"stage": one.stage, "step": one.step, "operation": one.operation, "changing": one.changing, "at_least": one.count}
            for one in forecast.calls
        ],
        "assumes": list(ASSUMES),
        "on_top": list(ON_TOP),
    }


def markdown(forecast: CallForecast) -> str:
    """The section of a plan that says what a run would call."""
    columns = [*forecast.stages, ""]
    lines = [
        "",
        "## What a run would call",
        "",
        f"At least **{forecast.changing + forecast.reading} calls** to AWS, if every host that answers needs every step: "
        f"**{forecast.changing} that change something**, and {forecast.reading} that only read. This dry run has made none "
        "of the first kind.",
        "",
        *_table([*(f"`{name}`" for name in forecast.stages), "verification", "all"], _operations(forecast, columns)),
        "",
        "### Commands to hosts (`ssm:SendCommand`)",
        "",
        *_table([TITLES[step.value] for step in StepKind], _sent(forecast), first="stage", second="commands"),
        "",
        *(f"- {sentence}" for sentence in ASSUMES),
        "",
        "What may come on top, and is not counted:",
        "",
        *(f"- {sentence}" for sentence in ON_TOP),
    ]
    return "\n".join(lines)


def _operations(forecast: CallForecast, columns: Sequence[str]) -> list[list[str]]:
    counts = {name: forecast.by_operation(stage=name) for name in columns}
    found = []
    for one, total in forecast.by_operation().items():
        effect = "**changes**" if one in CHANGING else "reads"
        found.append([f"`{one}`", effect, *(str(counts[name].get(one, 0)) for name in columns), str(total)])
    return found


def _sent(forecast: CallForecast) -> list[list[str]]:
    found = []
    for name in forecast.stages:
        its = [forecast.by_operation(stage=name, steps=(step.value,)).get(SEND, 0) for step in StepKind]
        found.append([f"`{name}`", str(sum(its)), *map(str, its)])
    return found


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, first: str = "operation", second: str = "effect"
) -> list[str]:
    head = [first, second, *columns]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * 2 + ["---:"] * len(columns), *rows)]
