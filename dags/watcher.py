"""One watcher per emergency campaign: airflow dag wiring and nothing else.

Campaign and policy files that cannot be read have no watcher; `campaign_files.py` reports them as an import error.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, CronTriggerTimetable, chain

from patchwave.campaign import definition, policy
from patchwave.campaign.definition import Campaign, Start
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.policy import Policy
from patchwave.operators.documentation import watcher_page
from patchwave.operators.watch import ASK, LOOK, AskToStartOperator, LookOperator, StartEmergencyOperator

INCLUDE = Path(__file__).resolve().parents[1] / "include"
CAMPAIGNS = Path(os.environ.get("PATCHWAVE_CAMPAIGNS", INCLUDE / "campaigns"))
POLICIES = Path(os.environ.get("PATCHWAVE_POLICIES", INCLUDE / "policies"))


def watcher(campaign: Campaign, rules: Policy, start: Start) -> DAG:
    """The DAG that watches for one emergency campaign."""
    files = {"campaign_json": campaign.to_json(), "policy_json": rules.model_dump_json(by_alias=True)}
    with DAG(
        dag_id=f"{campaign.name}_watch",  # no campaign's name has an underscore
        description=f"Every hour: is there a finding that must be gone soon, and that no run of {campaign.name} is about?",
        schedule=CronTriggerTimetable("0 * * * *", timezone="UTC"),
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        tags={"patchwave", "emergency", f"policy:{campaign.policy}"},
        # Less than an hour: what cannot be read by then is shown as failed before the next look.
        default_args={"retries": 12, "retry_delay": timedelta(minutes=1), "owner": campaign.owner},
        doc_md=watcher_page(campaign, rules),
        render_template_as_native_obj=False,
    ) as dag:
        look = LookOperator(task_id=LOOK, **files)
        ask = [AskToStartOperator(task_id=ASK, starters=campaign.starters, **files)] if start is Start.ASK else []
        chain(look, *ask, StartEmergencyOperator(task_id="start", campaign=campaign.name))
    return dag


for one in definition.read_all(CAMPAIGNS, policies=POLICIES)[0]:
    if one.emergency is not None:
        try:
            its_policy = policy.read(POLICIES / f"{one.policy}.yaml")
        except InvalidFile:
            continue
        globals()[f"watcher_{one.name}"] = watcher(one, its_policy, one.emergency.start)
