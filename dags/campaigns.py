"""One DAG per campaign file: airflow dag wiring and nothing else.

Files that cannot be read are left out here, so that one broken file never takes the other campaigns away;
`campaign_files.py` reports them as an import error.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, Param, TaskGroup, chain

from patchwave.campaign import definition, policy
from patchwave.campaign.definition import Campaign
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.policy import Policy
from patchwave.operators.approval import ApproveStageOperator, questions
from patchwave.operators.compliance import VerifyComplianceOperator
from patchwave.operators.documentation import dag_page
from patchwave.operators.findings import ClassifyOperator, ScanFindingsOperator
from patchwave.operators.health import HealthOperator, SoakOperator
from patchwave.operators.managed_services import PatchManagedServicesOperator
from patchwave.operators.patch import PatchStageOperator
from patchwave.operators.plan import PlanOperator
from patchwave.operators.remediation import RemediateOperator
from patchwave.operators.report import OutcomeOperator, ReportOperator
from patchwave.timetables import campaign as timetable

INCLUDE = Path(__file__).resolve().parents[1] / "include"
CAMPAIGNS = Path(os.environ.get("PATCHWAVE_CAMPAIGNS", INCLUDE / "campaigns"))
POLICIES = Path(os.environ.get("PATCHWAVE_POLICIES", INCLUDE / "policies"))

DEFAULTS = {
    # Airflow itself fails or re-runs healthy tasks now and then, and every task can be run again at any moment. So many that
    # ten minutes without AWS, the ledger or Airflow's own api-server do not end a campaign that could go on.
    "retries": 60,
    "retry_delay": timedelta(seconds=10),
}


def params(campaign: Campaign) -> dict[str, Param]:
    """The trigger form."""
    names = [stage.name for stage in campaign.stages]
    form = {
        "dry_run": Param(
            True,
            type="boolean",
            title="Dry run",
            description_md="Makes the plan and changes nothing. **Switch it off to patch.** A scheduled run is never a dry run.",
        ),
        "stages": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "enum": names},
            examples=names,
            title="Stages",
            description_md="Stages to patch, in the campaign's order. Nothing chosen means all of them.",
            section="Restrict the run",
        ),
        "severities": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "enum": ["critical", "high", "medium", "low", "informational", "untriaged"]},
            examples=["critical", "high", "medium", "low", "informational", "untriaged"],
            title="Severities",
            description_md="Only hosts with findings of these severities are patched. Nothing chosen means all hosts.",
            section="Restrict the run",
        ),
        "vulnerabilities": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "pattern": definition.VULNERABILITY_ID},
            title="CVE ids",
            description_md="Only hosts with one of these findings are patched, one id a line, e.g. `CVE-2026-12345`.",
            section="Restrict the run",
        ),
    }
    return form | emergency_params(campaign.canary.name, names) if campaign.canary else form


def emergency_params(canary: str, names: list[str]) -> dict[str, Param]:
    """What the trigger form of an emergency asks otherwise."""
    return {
        "vulnerabilities": Param(
            type="array",
            minItems=1,
            items={"type": "string", "pattern": definition.VULNERABILITY_ID},
            title="CVE ids",
            description_md="**Compulsory.** Only hosts with one of these findings are patched, one id a line, e.g. "
            "`CVE-2026-12345`.",
        ),
        "stages": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "enum": names},
            contains={"const": canary},
            examples=names,
            title="Stages",
            description_md=f"Nothing chosen means all of them. `{canary}`, the canary, cannot be left out.",
            section="Restrict the run",
        ),
    }


def build(campaign: Campaign, rules: Policy) -> DAG:
    """The DAG of one campaign."""
    campaign_json = campaign.to_json()
    with DAG(
        dag_id=campaign.name,
        dag_display_name=campaign.name,
        description=campaign.description,
        schedule=timetable.of(campaign.schedule),
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        tags={"patchwave", f"policy:{campaign.policy}", *(f"stage:{stage.name}" for stage in campaign.stages)},
        default_args={**DEFAULTS, "owner": campaign.owner},
        params=params(campaign),
        doc_md=dag_page(campaign),
        render_template_as_native_obj=False,
    ) as dag:
        scan = ScanFindingsOperator(
            task_id="scan_findings", campaign_json=campaign_json, policy_json=rules.model_dump_json(by_alias=True)
        )
        classify = ClassifyOperator(task_id="classify")
        plan = PlanOperator(task_id="plan")
        scan >> classify >> plan
        before = plan
        for number, stage in enumerate(campaign.stages):
            # A stage left out of the run is skipped and the next one goes on: the ledger says whether it may.
            turn = "all_success" if number == 0 else "none_failed"
            with TaskGroup(group_id=stage.name, tooltip=f"{stage.concurrency or 'some'} at once, then a soak"):
                first = patch = PatchStageOperator(
                    task_id="patch",
                    stage=stage.name,
                    trigger_rule="all_success" if stage.approval.required else turn,
                )
                if stage.approval.required:
                    last = questions(stage, later=number > 0)
                    # One task a question: Airflow shows the first text of a task instance for ever.
                    asks = [
                        ApproveStageOperator(
                            task_id="approve" if number == 1 else f"approve_{number}",
                            stage=stage.name,
                            approvers=campaign.approvers(stage),
                            timeout=stage.approval.timeout,
                            campaign_json=campaign_json,
                            number=number,
                            last=last,
                            trigger_rule=turn if number == 1 else "all_success",
                        )
                        for number in range(1, last + 1)
                    ]
                    first = asks[0]
                    chain(*asks, patch)
                health = HealthOperator(task_id="health", stage=stage.name)
                soak = SoakOperator(task_id="soak", stage=stage.name)
                last_change: Any = patch
                if stage.managed_services:
                    last_change = PatchManagedServicesOperator(task_id="managed_services", stage=stage.name)
                    patch >> last_change
                last_change >> health >> soak
            before >> first
            before = soak
        # What was patched is verified and reported also when a later stage was rejected or failed.
        verify = VerifyComplianceOperator(task_id="verify", document="compliance.after", trigger_rule="all_done")
        remediate = RemediateOperator(task_id="remediate")
        verify_again = VerifyComplianceOperator(task_id="verify_again", document="compliance.final")
        report = ReportOperator(
            task_id="report", trigger_rule="all_done", outlets=[Asset(name=f"patchwave-report-{campaign.name}")]
        )
        # The only leaf: without it a run whose stage failed would end green, for its report was made.
        outcome = OutcomeOperator(task_id="outcome", trigger_rule="all_done")
        before >> verify >> remediate >> verify_again >> report >> outcome
    return dag


def policies() -> dict[str, Policy]:
    """Policies by name; a broken one is reported by `campaign_files.py`."""
    found = {}
    for path in sorted(POLICIES.glob("*.yaml")):
        try:
            found[path.stem] = policy.read(path)
        except InvalidFile:
            continue
    return found


known = policies()
for one in definition.read_all(CAMPAIGNS, policies=POLICIES)[0]:
    if one.policy in known:
        globals()[f"campaign_{one.name}"] = build(one, known[one.policy])
