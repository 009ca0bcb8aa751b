"""The plan: fleet facts, the triage and the frozen campaign become what will be done. A dry run ends here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from patchwave.campaign import (
    baselines,
    calls,
    forecast,
    lockfile,
    managed_services,
    overrides,
    reasons,
    rollout,
    severity,
    snapshots,
    windows,
)
from patchwave.campaign import fleet as fleets
from patchwave.campaign import plan as plans
from patchwave.campaign.baselines import Apply, Baseline, OperatingSystem
from patchwave.campaign.compliance import Subject
from patchwave.campaign.databases import Database
from patchwave.campaign.definition import Source, carries
from patchwave.campaign.errors import PatchwaveError, Permanent
from patchwave.campaign.fleet import Group, Host
from patchwave.campaign.functions import LAMBDA_FUNCTION, Function
from patchwave.campaign.managed_services import Rules
from patchwave.campaign.plan import Plan, Restriction
from patchwave.campaign.policy import Reboot
from patchwave.campaign.reasons import Reasons
from patchwave.campaign.rollout import StepKind
from patchwave.campaign.settling import Service
from patchwave.campaign.values import Cell, HostId, RunId, StageName
from patchwave.execution import openings, promotion
from patchwave.operators.base import PLAN, CampaignOperator, Work
from patchwave.operators.compliance import judge_now, store_judgement
from patchwave.operators.findings import clocks_now, findings_before, read_triage, triage_rows


class NoBucket(Permanent):
    """Later stages are to get what the first one received, and there is no place where their hosts could read that."""


class PlanOperator(CampaignOperator):
    """Builds the plan, stores it under its digest, and prints it as Markdown."""

    def work(self, work: Work) -> str:
        """Returns the plan's digest.

        Raises:
            NoBucket: a stage of the plan needs lists of patches, and the connection names no bucket for them.
        """
        hosts, groups = fleet_now(work)
        if PLAN in work.ledger.documents(work.run_id):
            # A plan is made once: a second one could not be what was approved.
            self.log.info("This run has its plan already; it stays as it is. For another plan, trigger another run.")
            plan = work.plan
        else:
            plan = self._plan(work, hosts, groups)
            self._refuse_without_bucket(work, plan)
        digest = work.ledger.put_document(work.run_id, PLAN, plans.to_json(plan), at=work.now)
        # What follows may be cut off at any line, and is done by the next try then.
        section = _calls(work, plan) if plan.dry_run else ""
        text = text_now(work, plan, hosts, calls=section)
        work.ledger.put_document(work.run_id, "plan.md", text, at=work.now)
        for name in plan.left_out:
            work.ledger.skip_stage(work.run_id, StageName(name), reason="not chosen for this run", at=work.now)
        if "compliance.before" not in work.ledger.documents(work.run_id):
            stage_of = {host.id: stage.name for stage in plan.stages for host in stage.hosts}
            subjects = [Subject(host=host.id, cell=host.cell, stage=stage_of.get(host.id, "")) for host in hosts]
            store_judgement(work, "compliance.before", judge_now(work, subjects))
        self.log.info("Plan %s: %s\n\n%s", digest, plans.summary(plan), text)
        if plan.dry_run:
            self.log.info("This is a dry run: it ends here, with the plan as its result")
        return digest

    def _plan(self, work: Work, hosts: list[Host], groups: list[Group]) -> Plan:
        emergency = work.campaign.emergency
        if emergency is not None and emergency.lockfile_of is not None:
            wanted = work.run.params["vulnerabilities"]
            cut = promotion.break_glass(work.ledger, work.run_id, emergency.lockfile_of, wanted, now=work.now)
            self.log.info("Hosts get what this lockfile says, and nothing else:\n\n%s", lockfile.markdown(cut))
        plan = made_of(work, hosts, groups, expected=expected(work, hosts))
        refused = plans.without_canary(work.campaign, plan)
        if refused and not plan.dry_run:
            raise Permanent(f"{refused}. Nothing is patched")
        if not plan.hosts and not plan.dry_run:
            self.log.warning("The plan holds no host: %d instances of the scope, all excluded", len(hosts))
        return plan

    def _refuse_without_bucket(self, work: Work, plan: Plan) -> None:
        """Now, and not in the middle of a run, when the first stage is patched already."""
        locked = [stage for stage in plan.stages if work.campaign.is_locked(stage.name)]
        overriding = work.policy.apply_baselines is Apply.OVERRIDE
        overridden = [stage for stage in plan.stages if overriding and stage not in locked]
        regions = {host.cell.region for stage in (*locked, *overridden) for host in stage.hosts}
        without = [region for region in sorted(regions) if not work.lists_bucket(region)]
        if without and overridden:
            raise NoBucket(
                f"policy {work.policy.name} has Installs made by its own baselines (apply_baselines: override), and the "
                f"connection {self.aws_conn_id} names no bucket in which hosts in {', '.join(without)} could read them: write "
                '"patchwave_lists_bucket": "NAME" into its extra'
            )
        if without:
            raise NoBucket(
                f"stages get what a lockfile says ({', '.join(stage.name for stage in locked)}), and the connection "
                f"{self.aws_conn_id} names no bucket in which hosts in {', '.join(without)} could read that: write "
                '"patchwave_lists_bucket": "NAME" into its extra, or promotion: {by: baseline} into the campaign file'
            )


def _calls(work: Work, plan: Plan) -> str:
    """What a run would call, stored for programs; the section of the plan that says it to people."""
    by_lockfile = work.campaign.promotion.by is Source.LOCKFILE
    overridden = [
        stage.name
        for stage in plan.stages
        if work.policy.apply_baselines is Apply.OVERRIDE and not work.campaign.is_locked(stage.name)
    ]
    found = calls.of(plan, rules=work.campaign.verify.config_rules, lockfile=by_lockfile, overridden=overridden)
    work.ledger.put_document(work.run_id, calls.DOCUMENT, calls.to_json(found), at=work.now)
    return calls.markdown(found)


def fleet_now(work: Work) -> tuple[list[Host], list[Group]]:
    """Every host of the scope that is not gone, and the groups that they serve in."""
    hosts: list[Host] = []
    groups: list[Group] = []
    for cell in work.campaign.cells:
        tags = {key: tuple(values) for key, values in work.campaign.scope.tags.items()}
        there = [host for host in work.gateway.fleet(cell, tags) if fleets.readiness(host) is not fleets.Readiness.TERMINATED]
        found, around = work.gateway.surroundings(cell, there)
        hosts.extend(found)
        groups.extend(around)
    return hosts, groups


def text_now(work: Work, plan: Plan, hosts: Sequence[Host], *, calls: str = "") -> str:
    """The plan for people, with what is known now of its times and of the accounts' baselines.

    Args:
        hosts: of the scope, as they are now.
        calls: what a dry run says it would call.
    """
    refused = plans.without_canary(work.campaign, plan) if plan.dry_run else ""
    return plans.markdown(
        plan,
        notices=[f"A run that patches is refused: {refused}."] if refused else [],
        forecast=forecast_now(work, plan),
        calls=calls,
        baselines=baselines_now(work, plan, hosts),
        clocks=clocks_now(work),
        why=why_now(work, plan),
    )


def why_now(work: Work, plan: Plan) -> Reasons:
    """By which rows the plan's hosts have their deadlines, as the run's triage says today."""
    return reasons.of([host.id for host in plan.hosts], severity.assessments_of(triage_rows(work)))


def forecast_now(work: Work, plan: Plan, *, since: str | None = None) -> tuple[str, ...]:
    """When each stage begins and ends if its turn came now, in sentences.

    Args:
        since: the stage whose turn it is; those before it are left out. None: the first one.
    """
    names = [str(stage.name) for stage in plan.stages]
    left = replace(plan, stages=plan.stages[names.index(since) if since in names else 0 :])
    closures, listings = openings.around(work.gateway, work.campaign, left, now=work.now)
    stages = forecast.forecast(left, now=work.now, closures=closures, listings=listings)
    return forecast.sentences(stages, {host.id: host.name for host in left.hosts})


def baselines_now(work: Work, plan: Plan, hosts: Sequence[Host]) -> tuple[str, ...]:
    """How the patch baselines that the plan's hosts get differ from what the policy wants, in sentences.

    Args:
        hosts: as they are now; those that the plan does not patch do not matter.

    Returns:
        Nothing if the policy wants none, and nothing is read then. What cannot be read is a sentence: it holds up no host.
    """
    wanted = {one.operating_system: one for one in baselines.wanted(work.policy.baselines, policy=work.policy.name)}
    if not wanted:
        return ()
    groups: dict[tuple[Cell, str], set[str]] = {}
    others: Counter[str] = Counter()
    planned = {host.id for host in plan.hosts}
    for host in (one for one in hosts if one.id in planned):
        system = baselines.operating_system(host.platform)
        if why := _without_baseline(host, system, wanted):
            others[why] += 1
        if system in wanted:
            groups.setdefault((host.cell, system), set()).update({host.patch_group} if host.patch_group else ())
    told = [f"{count} of the plan's hosts: {why}" for why, count in sorted(others.items())]
    for (cell, name), its in sorted(groups.items()):
        told += [f"{name} in {cell}: {sentence}" for sentence in _drift(work, cell, wanted[name], its)]
    return (*told, *_kept(work, plan))


def _kept(work: Work, plan: Plan) -> Iterator[str]:
    """What the run does about it, stage by stage."""
    if work.policy.apply_baselines is Apply.NONE:
        yield "Nothing of this is changed by the run: until somebody does it, hosts get what their baselines approve today"
        return
    if work.policy.apply_baselines is Apply.OVERRIDE:
        yield "Nothing of this is changed by the run, which installs by the policy's baselines all the same; Scans go by theirs"
        return
    for stage in plan.stages:
        for one in stage.baselines:
            yield f"Stage {stage.name} changes this before its first Scan: {one}"
    if not any(stage.baselines for stage in plan.stages):
        yield "The run changes nothing of this"
    if any(one.creates or one.changes for stage in plan.stages for one in stage.baselines):
        yield "A baseline is one for all its patch groups: from then on it holds for hosts of other stages and campaigns, too"


def with_baselines(work: Work, plan: Plan, hosts: Sequence[Host]) -> Plan:
    """The plan, with what its stages do about patch baselines; without a change where the policy applies none.

    Raises:
        PatchwaveError: they cannot be read, so nobody could say what is going to be done.
    """
    apply = work.policy.apply_baselines
    if not apply.changes:
        return with_override(work, plan)
    wanted = {one.operating_system: one for one in baselines.wanted(work.policy.baselines, policy=work.policy.name)}
    facts = {host.id: host for host in hosts}
    earlier: dict[tuple[Cell, str], set[str]] = {}
    stages = []
    for stage in plan.stages:
        groups: dict[tuple[Cell, str], set[str]] = {}
        for host in (facts[one.id] for one in stage.hosts if one.id in facts):
            system = baselines.operating_system(host.platform)
            if system in wanted and host.patch_group:
                groups.setdefault((host.cell, system), set()).add(host.patch_group)
        kept = []
        for (cell, name), its in sorted(groups.items()):
            found = work.gateway.baselines_found(cell, wanted[name], its - earlier.get((cell, name), set()))
            one = baselines.keeping(wanted[name], found, cell=cell, apply=apply)
            # What an earlier stage of this run has created or put back is as wanted then.
            kept.append(replace(one, creates=False, changes=()) if (cell, name) in earlier else one)
            earlier.setdefault((cell, name), set()).update(its)
        stages.append(replace(stage, baselines=tuple(one for one in kept if one)))
    return replace(plan, stages=tuple(stages))


def with_override(work: Work, plan: Plan) -> Plan:
    """The plan, with by which baselines stages install where those are not the accounts'; a lockfile holds in place of any."""
    if work.policy.apply_baselines is not Apply.OVERRIDE:
        return plan
    stages = []
    for stage in plan.stages:
        made = overrides.of(work.policy, window=stage.window is not None)
        told = [made.sentence] if made is not None and stage.hosts else []
        if work.campaign.is_locked(stage.name):
            untried = work.campaign.promotion.untried is Source.BASELINE
            told = [f"Hosts of platforms that the lockfile does not have: {one}" for one in told if untried]
        stages.append(replace(stage, remarks=(*stage.remarks, *told)))
    return replace(plan, stages=tuple(stages))


def with_ways_back(work: Work, plan: Plan) -> Plan:
    """The plan, with how each host could come back; without a change where the policy provides for nothing.

    Raises:
        PatchwaveError: EC2 does not tell of the root volumes, so nobody could say what a host's way back is.
    """
    rule = work.policy.snapshot
    if rule is None:
        return plan
    ids: dict[Cell, list[HostId]] = {}
    for host in plan.hosts:
        ids.setdefault(host.cell, []).append(host.id)
    disks = {one.host: one for cell, its in ids.items() for one in work.gateway.root_volumes(cell, its)}
    return replace(plan, stages=tuple(replace(
        stage, ways_back=snapshots.ways([host.id for host in stage.hosts], disks, rule)
    ) for stage in plan.stages))  # fmt: skip


def with_managed_services(work: Work, plan: Plan) -> Plan:
    """The plan, with what its stages do about databases and functions, or would do; without a change where none names any.

    Raises:
        PatchwaveError: RDS or Lambda does not tell, so nobody could say what is going to be done.
    """
    named = {service for stage in work.campaign.stages for service in stage.managed_services}
    if not named:
        return plan
    scope = {key: tuple(values) for key, values in work.campaign.scope.tags.items()}
    databases: list[Database] = []
    functions: list[Function] = []
    for cell in work.campaign.cells:
        if Service.RDS in named:
            databases += [one for one in work.gateway.databases(cell) if carries(one.tags, scope)]
        if Service.LAMBDA in named:
            functions += work.gateway.functions(cell, lambda tags: carries(tags, scope))
    deadlines: dict[str, datetime] = {}
    for one in read_triage(work).assessments:
        if one.deadline is not None:
            deadlines[one.vulnerability] = min(one.deadline, deadlines.get(one.vulnerability, one.deadline))
    about_functions = [one for one in findings_before(work) if one.resource_type == LAMBDA_FUNCTION]
    stages = []
    for planned in plan.stages:
        stage = work.campaign.stage(planned.name)
        its = [one for one in functions if stage.matches(one.tags)]
        found = managed_services.of_stage(
            stage, databases, its, work.policy.managed_services or Rules.model_validate({}), findings=about_functions,
            deadlines=deadlines, now=work.now, only=plan.restriction.vulnerabilities,
        )  # fmt: skip
        stages.append(replace(planned, managed=found))
    return replace(plan, stages=tuple(stages))


def patches_now(work: Work, stage: str, *, since: RunId | None = None) -> str:
    """What is installed in a stage, for the text at its gate: the lockfile, or that the baseline decides.

    Args:
        since: the run whose plan was approved before; what its lockfile had otherwise is said, too.
    """
    first = work.campaign.stages[0].name
    approved = "What the hosts' patch baselines approve when it is begun, from one snapshot a platform: each wave gets the same."
    if work.campaign.promotion.by is not Source.LOCKFILE:
        return f"{approved} Which packages that is nobody has fixed; `promotion: {{by: lockfile}}` fixes it for later stages.\n"
    emergency = work.campaign.emergency
    if emergency is not None and emergency.lockfile_of is not None:
        locked = promotion.stored_for(work.ledger, work.run_id)
        return "Nothing: this run has no lockfile.\n" if locked is None else lockfile.markdown(locked)
    if stage == first:
        return f"{approved} What it receives is locked, and later stages get that and nothing else.\n"
    found = promotion.holding(work.ledger, work.run_id, work.campaign.name)
    if found is None:
        return f"Nothing: there is no lockfile of what {first} received, and without one this stage is not begun.\n"
    run, locked = found
    text = f"What stage {first} received in `{run}`, and nothing else.\n\n{lockfile.markdown(locked)}"
    before = promotion.stored_for(work.ledger, since) if since else None
    if before is None:
        return text
    return f"{text}\nCompared with the lockfile of `{since}`, approved before:\n\n{lockfile.changes_markdown(before, locked)}"


def _without_baseline(host: Host, system: OperatingSystem | None, wanted: Mapping[str, Baseline]) -> str:
    if system is None:
        return f"their platform ({host.platform}) is none that Patch Manager has baselines for"
    if system not in wanted:
        return f"the policy wants no baseline for {system}"
    return "" if host.patch_group else f"they carry no patch group, so the account's default for {system} patches them"


def _drift(work: Work, cell: Cell, wanted: Baseline, groups: Iterable[str]) -> list[str]:
    try:
        drifts = baselines.drift(wanted, work.gateway.baselines_found(cell, wanted, groups))
    except PatchwaveError as error:
        return [f"cannot be read, so nobody knows how it differs from what the policy wants: {error}"]
    return [one.sentence for one in drifts] or [f"baseline {wanted.name} is as the policy wants it, and patches every group"]


def expected(work: Work, hosts: list[Host]) -> dict[str, dict[StepKind, timedelta]]:
    """How long each step takes on the platforms of these hosts, by what earlier runs of any campaign have told."""
    return {
        platform: windows.expected(work.ledger.durations(platform), rollout.at_most(platform))
        for platform in sorted({host.platform for host in hosts})
    }


def made_of(work: Work, hosts: list[Host], groups: list[Group], *, expected: Mapping[str, Mapping[StepKind, timedelta]]) -> Plan:
    """The plan of this run with these hosts; the campaign, the triage and the form are those of the run's beginning."""
    params = work.run.params
    plan = plans.build(
        work.campaign,
        hosts,
        read_triage(work),
        run=work.run_id,
        now=work.now,
        dry_run=bool(params["dry_run"]),
        restriction=Restriction(
            stages=tuple(params["stages"]),
            severities=tuple(params["severities"]),
            vulnerabilities=tuple(params["vulnerabilities"]),
        ),
        definition=work.run.definition_digest,
        requested_by=work.run.requested_by,
        reboot=work.policy.reboot is not Reboot.NEVER,
        kernel_waits=work.policy.kernel.waits,
        groups=groups,
        expected=expected,
        emergency=work.policy.in_emergency,
    )
    return with_managed_services(work, with_ways_back(work, with_baselines(work, plan, hosts)))
