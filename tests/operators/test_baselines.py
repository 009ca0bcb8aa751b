"""What the plan says of patch baselines, where the policy says what they should say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException

from patchwave.campaign import baselines, severity
from patchwave.campaign.baselines import Apply, Baseline, Found
from patchwave.campaign.errors import AccessDenied
from patchwave.campaign.fleet import Host
from patchwave.campaign.policy import Policy
from patchwave.operators.base import Work
from patchwave.operators.plan import PlanOperator, baselines_now
from tests.domain.builders import CELL, NOW, a_host, a_plan
from tests.domain.test_baselines import SECTION
from tests.operators.work import HOSTS, POLICY_JSON, RUN, Desk

POLICY = Policy.model_validate({**json.loads(POLICY_JSON), **yaml.safe_load(SECTION)})
AMAZON = baselines.wanted(POLICY.baselines, policy=POLICY.name)[0]
OURS = replace(AMAZON, id="pb-0123456789abcdef0")
EMPTY_TRIAGE = json.loads(severity.classify([], POLICY, now=NOW, coverage=[]).to_json())
LAST = "Nothing of this is changed by the run: until somebody does it, hosts get what their baselines approve today"


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(monkeypatch)
    desk.planned()
    return desk


def with_baselines(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A run whose policy has the section."""
    desk = Desk(monkeypatch)
    desk.open_run(policy=json.loads(POLICY.to_json()))
    desk.gateway.baselines_found.side_effect = lambda cell, wanted, groups: Found(
        own=OURS, used=dict.fromkeys(groups, OURS), registered=frozenset(groups)
    )
    return desk


def said(desk: Desk, hosts: list[Host]) -> tuple[str, ...]:
    work = Work(desk.context(), aws_conn_id="aws", ledger_conn_id="ledger")
    return baselines_now(work, a_plan(hosts), hosts)


def test_a_policy_without_baselines_reads_nothing_and_says_nothing(desk: Desk) -> None:
    """The default: it needs no new right, and the plan has no new section."""
    assert said(desk, HOSTS) == ()
    assert not desk.gateway.baselines_found.called


def test_the_groups_of_the_plan_s_hosts_are_compared_by_cell_and_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """One reading for each, with the groups of its hosts."""
    desk = with_baselines(monkeypatch)
    assert said(desk, HOSTS) == (
        f"AMAZON_LINUX_2023 in {CELL}: baseline {AMAZON.name} is as the policy wants it, and patches every group", LAST,
    )  # fmt: skip
    desk.gateway.baselines_found.assert_called_once_with(CELL, AMAZON, {"linux-dev", "linux-staging", "linux-prod"})


def test_hosts_that_no_wanted_baseline_reaches_are_told_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that reads as if it covered everybody must not be taken for one that does."""
    desk = with_baselines(monkeypatch)
    hosts = [
        a_host(1), a_host(2, platform="Debian GNU/Linux 12"), a_host(3, platform="unknown"),
        a_host(4, platform="Debian GNU/Linux 12"),
    ]  # fmt: skip
    told = said(desk, hosts)
    assert told[:2] == (
        "2 of the plan's hosts: the policy wants no baseline for DEBIAN",
        "1 of the plan's hosts: their platform (unknown) is none that Patch Manager has baselines for",
    )


def test_hosts_without_a_patch_group_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No registration reaches them."""
    desk = with_baselines(monkeypatch)
    work = Work(desk.context(), aws_conn_id="aws", ledger_conn_id="ledger")
    host = a_host(1)
    told = baselines_now(work, a_plan([host]), [replace(host, tags={})])
    assert (
        told[0] == "1 of the plan's hosts: they carry no patch group, so the account's default for AMAZON_LINUX_2023 patches them"
    )


def test_what_cannot_be_read_is_told_and_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The section is information: a missing right must not keep hosts unpatched."""
    desk = with_baselines(monkeypatch)
    desk.gateway.baselines_found.side_effect = AccessDenied("denied", operation="ssm:DescribePatchGroups")
    (told, last) = said(desk, HOSTS)
    assert "cannot be read, so nobody knows how it differs from what the policy wants" in told
    assert last == LAST


def planned_beside(desk: Desk, name: str) -> str:
    """The text of the plan where somebody else's baseline of that name is registered for every group."""
    other = Baseline(name=name, id="pb-1", operating_system="AMAZON_LINUX_2023", rules=AMAZON.rules[:1])
    desk.gateway.baselines_found.side_effect = lambda cell, wanted, groups: Found(
        own=None, used=dict.fromkeys(groups, other), registered=frozenset(groups)
    )
    desk.ledger.put_document(RUN, "triage", EMPTY_TRIAGE, at=desk.ledger.run(RUN).began_at)
    PlanOperator(task_id="plan").execute(desk.context())
    return str(desk.ledger.document(RUN, "plan.md"))


def test_the_plan_s_text_says_what_which_stage_does_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And to whom it happens beside this campaign; the plan itself holds it, so that an approval is about it."""
    desk = Desk(monkeypatch)
    policy = POLICY.model_copy(update={"apply_baselines": Apply.TAKE_OVER_GROUPS})
    desk.open_run(policy=json.loads(policy.to_json()))
    text = planned_beside(desk, "by-hand")
    assert (
        f"- Stage dev changes this before its first Scan: baseline {AMAZON.name} in {CELL}: creates it; "
        "registers it for patch group linux-dev in place of pb-1\n" in text
    )
    assert f"- Stage prod changes this before its first Scan: baseline {AMAZON.name} in {CELL}: registers it for patch" in text
    assert "from then on it holds for hosts of other stages and campaigns, too" in text
    assert LAST not in text
    stored = {stage["name"]: stage.get("baselines", []) for stage in desk.ledger.document(RUN, "plan")["stages"]}
    assert [one["takes"] for one in stored["prod"]] == [{"linux-prod": "pb-1"}]
    assert not desk.gateway.ensure_baseline.called


def test_the_plan_s_text_has_the_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a section of its own, with what somebody else's baseline does; nothing is changed."""
    desk = with_baselines(monkeypatch)
    text = planned_beside(desk, "by|hand")
    section = text.partition("## Patch baselines\n\n")[2].partition("\n## ")[0]
    assert f"- AMAZON_LINUX_2023 in {CELL}: baseline {AMAZON.name} does not exist; it would approve " in section
    assert (
        "hosts of patch group linux-dev, linux-prod, linux-staging are patched by baseline by\\|hand (pb-1), not by " in section
    )
    assert "baseline by\\|hand has no rule for CLASSIFICATION Bugfix; wanted is: 7 days after release, level LOW" in section
    assert LAST in section
    assert not desk.gateway.ensure_baseline.called


def overriding(monkeypatch: pytest.MonkeyPatch, *, bucket: str = "acme-lists") -> Desk:
    """A run whose policy has Installs made by its own baselines."""
    desk = Desk(monkeypatch)
    desk.buckets = dict.fromkeys([CELL.region], bucket)
    policy = POLICY.model_copy(update={"apply_baselines": Apply.OVERRIDE})
    desk.open_run(policy=json.loads(policy.to_json()))
    return desk


def test_a_plan_whose_installs_go_by_the_policy_s_baselines_says_by_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage by stage and with the file's digest, so that an approval is about it; nothing is changed in the account."""
    desk = overriding(monkeypatch)
    text = planned_beside(desk, "by-hand")
    assert "which installs by the policy's baselines all the same; Scans go by theirs" in text
    for stage in desk.ledger.document(RUN, "plan")["stages"]:
        told = [one for one in stage["remarks"] if "BaselineOverride" in one]
        assert len(told) == bool(stage["hosts"])
        assert all(AMAZON.name in one and "those stay as they are" in one for one in told)
        assert not stage.get("baselines")
    assert not desk.gateway.ensure_baseline.called


def test_a_run_by_the_policy_s_baselines_without_a_bucket_is_refused_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hosts could not read the file, and an Install without it would go by the account's."""
    desk = overriding(monkeypatch, bucket="")
    with pytest.raises(AirflowFailException, match="patchwave_lists_bucket"):
        planned_beside(desk, "by-hand")
    assert "plan" not in desk.ledger.documents(RUN)
