"""Take back what a run did: hosts get the root volume of before they were patched.

For **run** put in the run's name as its page has it (`<campaign>/<run id>`), or follow *Roll back* from there. Without **stages**
and **hosts** it is about everybody on whom that run installed something.

- `plan` says of each host whether it has a way back, and if not, what to do. It changes nothing.
- `rollback.approve` asks those who may approve the last of these stages; whoever triggered the rollback does not count. No, or no
  answer in time, and nothing is done.
- `rollback.roll_back` has EC2 replace root volumes, no more at once than the stage had places, hosts that are down first. Each
  host is proven by its agent and a Scan. If one does not come back the task fails; the report says what to do about it. Clear
  the task to go on with the others.

What was written to these root volumes since they were patched is lost; data volumes stay as they are.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, TaskGroup, chain

from patchwave.campaign.rollback import DAG as ROLLBACK
from patchwave.campaign.rollback import QUESTIONS, STAGE
from patchwave.operators.report import OutcomeOperator, ReportOperator
from patchwave.operators.rollback import (
    ApproveRollbackOperator,
    DeleteSnapshotsOperator,
    PlanRollbackOperator,
    RollBackOperator,
)
from patchwave.timetables.campaign import CampaignTimetable

START = datetime(2026, 1, 1, tzinfo=UTC)
RETRIES = {"retries": 60, "retry_delay": timedelta(seconds=10)}  # as those of campaigns: every task may run again

with DAG(
    dag_id=ROLLBACK,
    description="Takes back what a run did, host by host, after an approval",
    schedule=None,
    start_date=START,
    catchup=False,
    max_active_runs=4,
    is_paused_upon_creation=False,  # when it is needed nobody should have to look for that switch
    tags={"patchwave", "rollback"},
    default_args={**RETRIES, "owner": "patchwave"},
    params={
        "run": Param(
            type="string", minLength=1, title="Run",
            description_md="**Compulsory.** The run to take back: `<campaign>/<run id>`.",
        ),
        "stages": Param(
            None, type=["null", "array"], items={"type": "string"}, title="Stages",
            description_md="Only hosts of these stages, one a line. Nothing means all.",
        ),
        "hosts": Param(
            None, type=["null", "array"], items={"type": "string"}, title="Hosts",
            description_md="Only these hosts, by id or name, one a line. Nothing means all on whom something was installed.",
        ),
        "dry_run": Param(False, type="boolean", title="Dry run", description_md="Makes the plan and changes nothing."),
    },
    doc_md=__doc__,
    render_template_as_native_obj=False,
) as rollback:  # fmt: skip
    plan = PlanRollbackOperator(task_id="plan")
    with TaskGroup(group_id=STAGE):
        asks = [
            ApproveRollbackOperator(
                task_id="approve" if number == 1 else f"approve_{number}",
                stage=STAGE,
                approvers=(),
                timeout=timedelta(hours=24),
                campaign_json="",
                number=number,
                last=QUESTIONS,
            )
            for number in range(1, QUESTIONS + 1)
        ]
        roll_back = RollBackOperator(task_id="roll_back", stage=STAGE)
    report = ReportOperator(task_id="report", trigger_rule="all_done")
    outcome = OutcomeOperator(task_id="outcome", trigger_rule="all_done")
    chain(plan, *asks, roll_back, report, outcome)

with DAG(
    dag_id="snapshot_retention",  # no campaign's name has an underscore
    description="Every night: deletes snapshots that nobody needs for a rollback any more",
    schedule=CampaignTimetable("0 3 * * *", timezone="UTC"),  # Airflow's own would begin at once, for last night
    start_date=START,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,  # paused, snapshots would cost money for ever
    tags={"patchwave", "rollback"},
    default_args={"retries": 12, "retry_delay": timedelta(minutes=5), "owner": "patchwave"},
    doc_md="Deletes snapshots that were taken before patching when the time is over for which the policy keeps them "
    "(`snapshot: {keep: ...}`), never one that a rollback uses which has not ended. Without this DAG they cost money for ever.",
    render_template_as_native_obj=False,
) as retention:
    DeleteSnapshotsOperator(task_id="delete_snapshots")
