"""What does an operator read at 3 a.m.? The page behind the book icon of a campaign's DAG, made from the campaign file."""

from __future__ import annotations

from patchwave.campaign.definition import Campaign, Stage, Start, written_duration
from patchwave.campaign.policy import Policy


def dag_page(campaign: Campaign) -> str:
    """Markdown: purpose, stages, what the tasks do, what a "no" does, how to go on after a halt."""
    schedule = str(campaign.schedule or "by hand only")
    stages = "\n".join(
        f"| {stage.name} | {stage.select} | {stage.concurrency or 'by the number of hosts'} | {stage.error_budget} "
        f"| {written_duration(stage.soak) if stage.soak else 'none'} "
        f"| {_who(campaign, stage)} |"
        for stage in campaign.stages
    )
    cells = ", ".join(str(cell) for cell in campaign.cells)
    remedied = ", ".join(campaign.remediate.stages) or "no stage"
    return f"""# {campaign.name}

{campaign.description}

**Runs:** {schedule}. **Where:** {cells}. **Policy:** {campaign.policy}. **Answers for it:** {campaign.owner}.

| stage | hosts | at once | may fail | soaks | who approves |
|---|---|---|---|---|---|
{stages}

## It waits. What for?
Open the run and its tab **Patchwave**: every wait stands there with its reason and its latest end. A gate waits in
**Required Actions**; it shows the plan. No answer in time means no.

## What a "no" does
A rejection is an answer, not a failure: the stage and all behind it are skipped, what was patched is verified and
reported, the run ends green with the decision in the report.

## A stage is halted (red). What now?
1. The task's log and the tab name the rule that stopped it and the hosts. Nothing further was sent.
2. Look at those hosts and mend them.
3. **Clear the stage's `patch` task.** It goes on with the hosts that are not settled; nobody is patched twice.

Marking a task as success opens nothing: stages read the ledger, not task states.

## By hand
Trigger it with *Dry run* on to get the plan and change nothing; off to patch. Stages, severities and CVE ids narrow the
run. A run works with the campaign file as it was when the run began.

## After the stages
Compliance of every host is proven by Systems Manager and Config after the patch (compliant, not compliant, unknown).
What is not compliant is remedied in: {remedied}. The report is always made.
"""


def watcher_page(campaign: Campaign, policy: Policy) -> str:
    """Markdown: what a watcher looks for, what it does then, what a red run of it means."""
    within = written_duration(policy.in_emergency.due_within)
    asks = campaign.emergency is None or campaign.emergency.start is Start.ASK
    people = ", ".join(campaign.starters)
    does = (
        f"**It asks** {people} in *Required Actions*. A yes starts `{campaign.name}`; a no holds for a day; without an answer it "
        "asks again in about an hour."
        if asks
        else f"**It starts** `{campaign.name}` at once. Stages behind the canary are asked about there."
    )
    return f"""# Watcher of {campaign.name}

Every hour it reads Inspector's active findings on the hosts of `{campaign.name}`. Urgent is what the policy `{policy.name}` gives
no more than {within}, if a patch mends it and no run of `{campaign.name}` is about it.

{does}

- **Nothing urgent:** `look` and all behind it are skipped, the run is green.
- **Red:** the log of `look` says why: Inspector or the ledger cannot be read, the DAG `{campaign.name}` is paused, or the canary
  has no host with the finding, so that a run would be refused. Nobody watches until that is mended.
- Both DAGs must be unpaused. A run that it starts is never a dry run, and a run for the same CVE ids is never started twice.
"""


def _who(campaign: Campaign, stage: Stage) -> str:
    if not stage.approval.required:
        return "not needed"
    people = ", ".join(campaign.approvers(stage))
    return people if stage.approval.quorum == 1 else f"{stage.approval.quorum} of {people}"
