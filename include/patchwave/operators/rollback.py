"""A campaign of its own that takes back what another run did: its plan, its gate, and how it is carried out.

All campaigns share one DAG for it (`dags/rollback.py`), so what differs from run to run, above all who may approve, stands in
the plan. The report is the campaigns' own. `DeleteSnapshotsOperator` ends the time for which a way back is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from patchwave.campaign import plan as plans
from patchwave.campaign import rollback, snapshots
from patchwave.campaign.approval import Undecided
from patchwave.campaign.definition import Campaign
from patchwave.campaign.errors import PatchwaveError, Permanent
from patchwave.campaign.fleet import Host
from patchwave.campaign.plan import Plan, Restriction, StagePlan
from patchwave.campaign.rollback import STAGE, Earlier, NothingToRollBack
from patchwave.campaign.rollout import DispatchState, Done, Halt, StepKind, Wait
from patchwave.campaign.snapshots import State, Taken
from patchwave.campaign.values import Cell, HostId, RunId
from patchwave.execution import stopping
from patchwave.execution.executor import SETTLING
from patchwave.execution.rolling_back import RollbackExecutor
from patchwave.hooks import clock
from patchwave.ledger import approved
from patchwave.ledger.store import Ledger, Run, StageState
from patchwave.operators import stages
from patchwave.operators.approval import ApproveStageOperator
from patchwave.operators.base import PLAN, CampaignOperator, Work
from patchwave.operators.findings import requester
from patchwave.operators.patch import PatchStageOperator, Patience

MOST_RUNS = 5000
"""So many runs of the ledger are looked through for snapshots, and for the run that somebody means by its dag run id."""
DELETED = "snapshot.deleted"
"""Kind of the journal's record of a snapshot whose time is over."""


class PlanRollbackOperator(CampaignOperator):
    """Finds out which hosts of a run can be rolled back, and makes the plan."""

    def work(self, work: Work) -> str:
        """Returns the plan's digest.

        Raises:
            NothingToRollBack: nobody has a way back; the report says of each host why, and what to do.
        """
        if _is_planned(work):
            self.log.info("This run has its plan already; it stays as it is. For another plan, trigger another run.")
            plan = work.plan
        else:
            plan = self._plan(work)
        text = rollback.markdown(plan)
        work.ledger.put_document(work.run_id, "plan.md", text, at=work.now)
        digest = plans.digest(plan)
        self.log.info("Plan %s\n\n%s", digest, text)
        if not plan.hosts and not plan.dry_run:
            raise NothingToRollBack("no host can be rolled back; the report says of each why, and what to do")
        return digest

    def _plan(self, work: Work) -> Plan:
        params = _resolved(work.context["params"])
        ran = _run_of(work.ledger, params["run"])
        earlier = _earlier(work.ledger, ran)
        ids: dict[Cell, list[HostId]] = {}
        for row in earlier.rows:
            ids.setdefault(row.cell, []).append(row.host)
        hosts: dict[HostId, Host] = {}
        states: dict[str, State] = {}
        for cell, its in ids.items():
            hosts |= {one.id: one for one in work.gateway.hosts(cell, its, groups=False)}
            states |= {name: one.state for name, one in work.gateway.snapshots_of(cell, ran.id).items()}
        picked = rollback.chosen(earlier, hosts, states, stages=params["stages"], only=params["hosts"])
        campaign = Campaign.from_json(json.dumps(dict(ran.definition)))
        plan = rollback.build(
            earlier,
            picked,
            hosts,
            run=work.run_id,
            now=work.now,
            dry_run=params["dry_run"],
            requested_by=requester(work.dag_run),
            restriction=Restriction(stages=tuple(params["stages"])),
            otherwise=campaign.starters,
        )
        if plan.stage(STAGE).quorum > rollback.QUESTIONS:
            raise Permanent(f"stage needs {plan.stage(STAGE).quorum} people; a rollback can ask {rollback.QUESTIONS}")
        campaign = rollback.one_stage(campaign, plan.stage(STAGE))
        work.ledger.open_run(
            Run(
                id=work.run_id,
                campaign=rollback.DAG,
                dag_id=work.dag_run.dag_id,
                dag_run_id=work.dag_run.run_id,
                began_at=work.now,
                definition=json.loads(campaign.to_json()),
                definition_digest=ran.definition_digest,
                policy=ran.policy,
                params={**params, "run": ran.id, "severities": [], "vulnerabilities": []},
                requested_by=requester(work.dag_run),
                speed=clock.speed(),
            ),
            [STAGE],
        )
        work.ledger.put_document(work.run_id, PLAN, plans.to_json(plan), at=work.now)
        return plan


def _is_planned(work: Work) -> bool:
    try:
        work.ledger.run(work.run_id)
    except KeyError:
        return False
    return PLAN in work.ledger.documents(work.run_id)


def _resolved(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the trigger form says; lists that nobody filled in are empty."""
    return {
        "run": str(params.get("run") or "").strip(),
        "stages": [str(one) for one in params.get("stages") or ()],
        "hosts": [str(one) for one in params.get("hosts") or ()],
        "dry_run": bool(params.get("dry_run")),
    }


def _run_of(ledger: Ledger, name: str) -> Run:
    """The run that somebody means: ``<dag id>/<dag run id>``, or a dag run id that only one run has.

    Raises:
        NothingToRollBack: there is none, or none that can be taken back.
    """
    try:
        found = [ledger.run(RunId(name))]
    except KeyError:
        found = [run for run in ledger.runs(limit=MOST_RUNS) if run.dag_run_id == name]
    if len(found) != 1:
        many = "the ledger has no such run" if not found else f"{len(found)} runs are called so"
        raise NothingToRollBack(f"run: found {name!r}, {many}; allowed is <dag id>/<dag run id> of a run that patched")
    if found[0].dag_id == rollback.DAG:
        raise NothingToRollBack(f"run: {name} is a rollback; what it did is taken back by patching again")
    return found[0]


def _earlier(ledger: Ledger, ran: Run) -> Earlier:
    try:
        plan = approved.in_force(ledger, ran.id)
    except KeyError:
        raise NothingToRollBack(f"{ran.id} has no plan, so it has done nothing") from None
    busy = [str(one.stage) for one in ledger.stages(ran.id) if one.state is StageState.PATCHING]
    if busy:
        raise NothingToRollBack(f"stage {', '.join(busy)} of {ran.id} is being patched: stop its task first, then roll back")
    # A refused call, or one that was never made, has touched nobody.
    touched = {
        host
        for one in ledger.dispatches(ran.id)
        if one.step is StepKind.INSTALL and one.state is not DispatchState.REFUSED and one.command
        for host in one.hosts
    }
    saved = {host: one for its in _saved(ledger, ran.id).values() for host, one in its.items()}
    return Earlier(run=ran.id, plan=plan, rows=ledger.hosts(ran.id), touched=frozenset(touched), saved=saved)


def _saved(ledger: Ledger, run: RunId) -> dict[str, dict[HostId, Taken]]:
    """Snapshots of a run, by the name of their document."""
    names = [name for name in ledger.documents(run) if name.startswith(snapshots.document(""))]
    return {name: snapshots.from_json(ledger.document(run, name)) for name in names}


class ApproveRollbackOperator(ApproveStageOperator):
    """Asks whether these hosts are to be rolled back; who may answer, and until when, the plan says."""

    def _page(self, work: Work, found: Undecided, stage: StagePlan, notices: Sequence[str]) -> tuple[str, str]:
        ran = work.run.params["run"]
        return f"May {len(stage.hosts)} hosts of {ran} be rolled back?", rollback.markdown(work.plan, notice=" ".join(notices))

    def _notice(self, work: Work) -> str:
        return ""

    def _change_plan(self, work: Work, plan: Plan) -> None:
        work.change_plan(plan, stage=self.stage, text=rollback.markdown(plan))


class RollBackOperator(PatchStageOperator):
    """Carries an approved rollback out: gate, lease, stop and waits are those of a stage that is patched."""

    def work(self, work: Work) -> dict[str, int]:
        """Returns the hosts by terminal class.

        Raises:
            NotApproved: the ledger holds no approval of this plan.
            StageHalted: somebody did not come back.
            StillHalted: it is halted, and nobody has cleared the task.
        """
        stage = stages.reached(work, self.stage)
        stages.check_gate(work, stage)
        before = work.ledger.stage(work.run_id, STAGE)
        if before.state is StageState.PATCHED:
            self.log.info("It is rolled back already")
            return {}
        stopping.refuse_unless_cleared(before, work.holder)
        lease = work.ledger.acquire(work.run_id, STAGE, work.holder, at=work.now, seen=before.fencing)
        if before.state is not StageState.PATCHING:
            work.ledger.set_stage(lease, StageState.PATCHING, reason="", at=work.now)
        ran = RunId(work.run.params["run"])
        rows = rollback.rows(work.plan, {row.host: row for row in work.ledger.hosts(ran)}, now=work.now)
        work.ledger.add_hosts(lease, rows)
        assert stage.ways_back is not None
        executor = RollbackExecutor(
            ledger=work.ledger,
            gateway=work.gateway,
            lease=lease,
            rules=plans.rules(work.plan, stage),
            campaign=rollback.DAG,
            now=clock.now,
            log=self.log,
            settling=SETTLING * clock.speed(),
            errors_since=before.halted_at,
            look_again=Patience(),
            told=self._told,
            looked=self._looked,
            earlier=ran,
            ways={one.host: one for one in stage.ways_back.hosts},
            down=frozenset(one.id for one in stage.hosts if one.note),
        )
        self._executor = executor
        if before.state is StageState.PATCHING and stopping.was_cleared(before.holder, work.holder):
            self._stop_what_was_cleared(work, executor)
        decision: Wait | Halt | Done = executor.advance()
        return self._follow(work, lease, decision)


class DeleteSnapshotsOperator(CampaignOperator):
    """Deletes snapshots whose time is over, never one that a rollback which has not ended uses."""

    def work(self, work: Work) -> int:
        """Returns how many were deleted.

        Raises:
            Permanent: AWS refused some; the others are deleted all the same.
        """
        needed = set(_needed(work.ledger))
        count, problems = 0, []
        for run in work.ledger.runs(limit=MOST_RUNS):
            for name, taken in _saved(work.ledger, run.id).items():
                due = [
                    one
                    for one in taken.values()
                    if one.state is not State.DELETED and one.keep_until <= work.now and one.token not in needed
                ]
                gone, wrong = self._delete(work, run.id, due)
                problems += wrong
                count += len(gone)
                if gone:
                    left = [replace(one, state=State.DELETED) if one.host in gone else one for one in taken.values()]
                    work.ledger.put_document(run.id, name, snapshots.to_json(left), at=work.now)
        self.log.info("%d snapshots deleted, %d are kept for rollbacks that go on", count, len(needed))
        if problems:
            raise Permanent("; ".join(problems[:10]))
        return count

    def _delete(self, work: Work, run: RunId, due: list[Taken]) -> tuple[set[HostId], list[str]]:
        gone: set[HostId] = set()
        problems: list[str] = []
        for cell in sorted({one.cell for one in due}):
            try:
                there = work.gateway.snapshots_of(cell, run)
                for one in [one for one in due if one.cell == cell]:
                    found = there.get(one.token)  # also one whose id nobody had written down
                    if found is not None:
                        work.gateway.delete_snapshot(cell, found.id)
                        data = {"host": one.host, "snapshot": found.id, "kept_until": one.keep_until.isoformat()}
                        work.ledger.record(run, DELETED, data, at=work.now)
                    gone.add(one.host)
            except PatchwaveError as error:
                problems.append(f"{cell}: {error}")
        return gone, problems


def _needed(ledger: Ledger) -> Iterator[str]:
    """Tokens of the snapshots that rollbacks name which have not ended."""
    for run in ledger.runs(campaign=rollback.DAG, limit=MOST_RUNS):
        if run.ended_at is not None or PLAN not in ledger.documents(run.id):
            continue
        plan = approved.in_force(ledger, run.id)
        ids = {one.snapshot for stage in plan.stages if stage.ways_back is not None for one in stage.ways_back.hosts}
        for taken in _saved(ledger, RunId(run.params["run"])).values():
            yield from (one.token for one in taken.values() if one.id in ids)
