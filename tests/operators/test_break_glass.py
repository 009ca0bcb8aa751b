"""An emergency by lockfile: cut from the last one that another campaign promoted, and it holds for the canary, too."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from patchwave.campaign import lockfile as lockfiles
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.values import RunId, StageName
from patchwave.execution import promotion
from patchwave.execution.promotion import Promotion
from patchwave.hooks import clock
from patchwave.ledger.store import RunOutcome
from patchwave.operators.base import Work
from patchwave.operators.findings import ClassifyOperator, ScanFindingsOperator
from patchwave.operators.patch import PatchStageOperator
from patchwave.operators.plan import PlanOperator, patches_now
from tests.domain.builders import a_host
from tests.domain.test_emergency import EMERGENCY, an_emergency, having
from tests.domain.test_lockfile import promoted
from tests.operators.work import POLICY_JSON, RUN, Desk

BASH, NOWHERE = "CVE-2014-6271", "CVE-2099-10000"
BY_LOCKFILE = EMERGENCY.replace("emergency: {}", "emergency: {lockfile_of: weekly-linux}\npromotion: {by: lockfile}")
BEFORE = RunId("weekly-linux/earlier")


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A canary and another host with a CVE whose patch the last run of weekly-linux promoted."""
    desk = Desk(monkeypatch)
    hosts = [a_host(1, group_tag="linux-dev"), a_host(2)]
    desk.gateway.fleet.side_effect = lambda cell, tags: [host for host in hosts if host.cell == cell]
    desk.gateway.hosts.side_effect = lambda cell, ids, **_: [host for host in hosts if host.id in ids]
    desk.gateway.findings.side_effect = lambda cell: having(1, 2, cve=BASH)
    monkeypatch.setattr(Work, "lists_bucket", lambda self, region: "lists")
    return desk


def carried_through(desk: Desk, outcome: RunOutcome = RunOutcome.SUCCEEDED) -> None:
    """An earlier run of weekly-linux with its lockfile."""
    desk.open_run(id=BEFORE, campaign="weekly-linux", dag_run_id="earlier")
    origin = lockfiles.Origin(run=BEFORE, stage=StageName("dev"), at=datetime.now(UTC))
    desk.ledger.put_document(BEFORE, lockfiles.DOCUMENT, lockfiles.envelope(promoted(), origin), at=datetime.now(UTC))
    desk.ledger.end_run(BEFORE, outcome, at=datetime.now(UTC))


def until_plan(desk: Desk, *cves: str) -> Any:
    context = desk.context(params={"dry_run": False, "vulnerabilities": list(cves or (BASH,))})
    campaign = an_emergency(BY_LOCKFILE).to_json()
    for task in (
        ScanFindingsOperator(task_id="scan_findings", campaign_json=campaign, policy_json=POLICY_JSON),
        ClassifyOperator(task_id="classify"),
        PlanOperator(task_id="plan"),
    ):
        task.execute(context)
    return context


def test_the_run_has_a_lockfile_of_these_packages_before_anything_is_patched(desk: Desk) -> None:
    """Derived from the promoted one, with its origin; nothing else is in it."""
    carried_through(desk)
    until_plan(desk)
    cut = promotion.stored_for(desk.ledger, RUN)
    assert cut is not None
    assert (cut.derived_from, cut.vulnerabilities) == (promoted().digest, (BASH,))
    assert [patch.id for one in cut.platforms for patch in one.patches] == ["bash.x86_64"]
    assert "lockfile.cut" in desk.journal


def test_the_canary_is_patched_by_it_like_every_other_stage(desk: Desk) -> None:
    """By its baseline it would get everything."""
    carried_through(desk)
    context = until_plan(desk)
    with pytest.raises(TaskDeferred):
        PatchStageOperator(task_id="patch", stage="canary").execute(context)
    for stage in ("canary", "everybody"):
        task = PatchStageOperator(task_id="patch", stage=stage)
        work = Work(context, aws_conn_id="aws_default", ledger_conn_id="patchwave_ledger")
        lease = desk.ledger.acquire(RUN, StageName(stage), work.holder, at=clock.now())
        found = task._promotion(work, lease)
        assert isinstance(found, Promotion)
        assert found.lockfile == promotion.stored_for(desk.ledger, RUN)
        assert "bash.x86\\_64" in patches_now(work, stage)


@pytest.mark.parametrize(("outcome", "cves", "said"), [
    (None, (BASH,), "no run of weekly-linux that went through all its stages has a lockfile"),
    (RunOutcome.FAILED, (BASH,), "no run of weekly-linux that went through"),
    (RunOutcome.SUCCEEDED, (BASH, NOWHERE), f"no patch that is known to mend {NOWHERE}"),
])  # fmt: skip
def test_a_run_that_its_lockfile_would_not_mend_is_refused(
    desk: Desk, outcome: RunOutcome | None, cves: tuple[str, ...], said: str
) -> None:
    """With nothing patched: half an emergency must not look whole."""
    if outcome is not None:
        carried_through(desk, outcome)
    with pytest.raises(AirflowFailException, match=said):
        until_plan(desk, *cves)
    assert "plan" not in desk.ledger.documents(RUN)


def test_a_lockfile_of_another_campaign_needs_a_promotion_by_lockfile() -> None:
    """Or the file would say two things."""
    with pytest.raises(InvalidFile, match=r"emergency\.lockfile_of: found 'weekly-linux'"):
        an_emergency(EMERGENCY.replace("emergency: {}", "emergency: {lockfile_of: weekly-linux}"))


def test_a_remedy_on_the_canary_goes_by_it_too() -> None:
    """By its baseline the host would get everything after all."""
    broken = an_emergency(BY_LOCKFILE)
    usual = an_emergency(EMERGENCY.replace("emergency: {}", "emergency: {}\npromotion: {by: lockfile}"))
    assert [broken.is_locked(stage.name) for stage in broken.stages] == [True, True]
    assert [usual.is_locked(stage.name) for stage in usual.stages] == [False, True]
    assert not an_emergency().is_locked("everybody")
