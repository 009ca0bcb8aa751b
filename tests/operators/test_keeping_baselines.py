"""A stage brings the accounts' patch baselines to what the policy wants, as far as its plan says: by the world's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from patchwave.aws.baselines import BaselineOfOthers
from patchwave.aws.gateway import Gateway
from patchwave.campaign import baselines, calls
from patchwave.campaign import plan as plans
from patchwave.campaign.baselines import Apply, PatchBaseline
from patchwave.campaign.errors import LeaseLost
from patchwave.campaign.plan import Plan
from patchwave.campaign.rollout import HostState as S
from patchwave.campaign.values import HostId, StageName
from patchwave.execution import baselines as keeping
from patchwave.operators.plan import with_baselines
from tests.domain.builders import CELL
from tests.domain.test_severity import STANDARD
from tests.gateway.conftest import session_with_keys
from tests.operators.stage import RUN, STAGE, Killed, Watched
from tests.operators.test_surroundings import Around
from tests.simulator.conftest import Aws

WORLD = """
name: kept
accounts: [{id: "111111111111"}]
regions: [eu-central-1]
timings: {delivery: [1, 1], scan: [20, 20], install: [100, 100], reboot: [90, 90], status_check: [30, 30]}
baselines:
  - name: theirs
    operating_system: AMAZON_LINUX_2023
    patch_groups: [taken]
    rules: [{filters: {CLASSIFICATION: [Security]}, compliance_level: HIGH}]
templates:
  amazon: {os: amazon-linux-2023, missing: {count: [2, 3], always: [kernel]}}
fleets:
  - {name: taken, account: "111111111111", region: eu-central-1, count: 2, template: amazon, tags: {PatchGroup: taken}}
  - {name: free, account: "111111111111", region: eu-central-1, count: 2, template: amazon, tags: {PatchGroup: free}}
"""
# Approves nothing that is there: whom it patches is told by that nothing is installed.
SECTION = PatchBaseline.model_validate(
    {
        "operating_system": "AMAZON_LINUX_2023",
        "rules": [{"track": "standard", "filters": {"PRODUCT": ["*"]}, "approve_until_date": "2000-01-01"}],
    }
)
(WANTED,) = baselines.wanted([SECTION], policy="standard")


class Kept(Around):
    """A stage of both groups, planned under a policy that applies its baselines."""

    def __init__(self, aws: Aws, apply: Apply) -> None:
        super().__init__(aws, "taken, free")
        self.policy = STANDARD.model_copy(update={"baselines": (SECTION,), "apply_baselines": apply})
        self.gateway.take_calls()
        self.plan = self.planned()
        self.read: Mapping[str, int] = dict(self.gateway.take_calls())
        self.stage = self.plan.stage(STAGE)

    def planned(self) -> Plan:
        work: Any = SimpleNamespace(policy=self.policy, gateway=self.gateway)
        return with_baselines(work, self.plan, self.gateway.fleet(CELL, {}))

    def keep(self, holder: str = "try-1", *, gateway: Any = None, ledger: Any = None, lease: Any = None) -> None:
        wanted = baselines.wanted(self.policy.baselines, policy=self.policy.name)
        log: Any = SimpleNamespace(info=lambda *_: None)
        keeping.keep(
            ledger or self.ledger, gateway or self.gateway, lease or self.lease(holder), self.stage, wanted,
            now=lambda: self.now, log=log,
        )  # fmt: skip

    @property
    def registered(self) -> dict[str, str]:
        """Name of the baseline that is registered for each patch group, as AWS says it."""
        rows = self.aws.ssm.describe_patch_groups()["Mappings"]
        return {row["PatchGroup"]: row["BaselineIdentity"]["BaselineName"] for row in rows}

    @property
    def ours(self) -> list[str]:
        filters = [{"Key": "OWNER", "Values": ["Self"]}]
        rows = self.aws.ssm.describe_patch_baselines(Filters=filters)["BaselineIdentities"]
        return [row["BaselineId"] for row in rows if row["BaselineName"] == WANTED.name]

    def classes(self, fleet: str) -> set[S]:
        return {self.rows[HostId(host)].state for host in self.aws.hosts(fleet)}

    def installed(self, fleet: str) -> bool:
        hosts = set(self.aws.hosts(fleet))
        return any(line["event"] == "package_installed" and line["host"] in hosts for line in self.aws.journal())

    @property
    def records(self) -> list[Any]:
        kinds = (keeping.KEEPING, keeping.KEPT)
        return [(entry.kind, entry.data) for entry in self.ledger.journal(RUN) if entry.kind in kinds]


@pytest.fixture
def aws(start: Callable[..., Aws]) -> Aws:
    return start(WORLD)


def test_hosts_are_patched_by_what_the_policy_wants_and_a_group_of_somebody_else_by_theirs(aws: Aws) -> None:
    """The baseline is created and registered before the first Scan; the other group's hosts get what they got before."""
    stage = Kept(aws, Apply.CREATE_AND_UPDATE)
    stage.keep()
    assert stage.registered == {"free": WANTED.name, "taken": "theirs"}
    stage.to_the_end(stage.executor("try-1"))
    assert (stage.classes("free"), stage.classes("taken")) == ({S.ALREADY_COMPLIANT}, {S.PATCHED})
    assert (stage.installed("free"), stage.installed("taken")) == (False, True)
    assert {aws.patch_state(host)["BaselineId"] for host in aws.hosts("free")} == set(stage.ours)


def test_a_group_is_taken_over_where_the_policy_and_so_the_plan_say_it(aws: Aws) -> None:
    """With the id of the baseline that is replaced, so that whoever approves sees it."""
    stage = Kept(aws, Apply.TAKE_OVER_GROUPS)
    (one,) = stage.stage.baselines
    assert (one.creates, one.groups, list(one.takes)) == (True, ("free",), ["taken"])
    assert "registers it for patch group taken in place of pb-" in str(one)
    stage.keep()
    assert stage.registered == {"free": WANTED.name, "taken": WANTED.name}
    stage.to_the_end(stage.executor("try-1"))
    assert not stage.installed("taken")


def test_a_group_that_a_third_baseline_has_by_then_is_left(aws: Aws) -> None:
    """The plan spoke of another one; what nobody has seen is not replaced."""
    stage = Kept(aws, Apply.TAKE_OVER_GROUPS)
    theirs = next(iter(stage.stage.baselines[0].takes.values()))
    third = aws.ssm.create_patch_baseline(Name="third", OperatingSystem="AMAZON_LINUX_2023")["BaselineId"]
    aws.ssm.deregister_patch_baseline_for_patch_group(BaselineId=theirs, PatchGroup="taken")
    aws.ssm.register_patch_baseline_for_patch_group(BaselineId=third, PatchGroup="taken")
    stage.keep()
    assert stage.registered == {"free": WANTED.name, "taken": "third"}
    assert stage.records[-1][1]["left"] == [["taken", third]]


def test_making_the_plan_only_reads_and_none_applies_nothing(aws: Aws) -> None:
    """A dry run ends with the plan."""
    stage = Kept(aws, Apply.TAKE_OVER_GROUPS)
    assert set(stage.read) & calls.CHANGING == set()
    assert stage.ours == []
    assert Kept(aws, Apply.NONE).stage.baselines == ()
    assert "baselines" not in plans.to_json(Kept(aws, Apply.NONE).plan)["stages"][0]


def test_what_is_called_is_what_a_dry_run_forecasts(aws: Aws) -> None:
    """The changing ones exactly, and what reads at least."""
    stage = Kept(aws, Apply.TAKE_OVER_GROUPS)
    forecast = calls.of(stage.plan).by_operation(stage=STAGE, steps=(calls.BASELINES,))
    stage.keep()
    really = stage.gateway.take_calls()
    assert {one: count for one, count in really.items() if one in calls.CHANGING} == {
        one: count for one, count in forecast.items() if one in calls.CHANGING
    }
    assert {one for one, count in forecast.items() if really.get(one, 0) < count} == set()


def test_a_baseline_that_was_changed_by_hand_is_put_back_and_the_plan_said_so(aws: Aws) -> None:
    """A later run finds its own baseline; where all is as wanted it does nothing."""
    Kept(aws, Apply.CREATE_AND_UPDATE).keep()
    assert Kept(aws, Apply.CREATE_AND_UPDATE).stage.baselines == ()
    (identifier,) = Kept(aws, Apply.CREATE_AND_UPDATE).ours
    aws.ssm.update_patch_baseline(BaselineId=identifier, RejectedPatches=["docker*"])
    stage = Kept(aws, Apply.CREATE_AND_UPDATE)
    (one,) = stage.stage.baselines
    assert one.changes == (f"baseline {WANTED.name} rejects docker*; wanted is nothing",)
    stage.keep()
    assert aws.ssm.get_patch_baseline(BaselineId=identifier)["RejectedPatches"] == []
    assert stage.records[-1][1]["drift"] == list(one.changes)


def test_a_baseline_of_that_name_that_is_somebody_else_s_is_never_changed(aws: Aws) -> None:
    """The plan does nothing about it; one that was made since stops the stage before its first Scan."""
    stage = Kept(aws, Apply.TAKE_OVER_GROUPS)
    made = aws.ssm.create_patch_baseline(Name=WANTED.name, OperatingSystem="AMAZON_LINUX_2023")["BaselineId"]
    with pytest.raises(BaselineOfOthers):
        stage.keep()
    assert stage.registered == {"taken": "theirs"}
    assert Kept(aws, Apply.TAKE_OVER_GROUPS).stage.baselines == ()
    assert made in stage.ours


@pytest.mark.parametrize("calls_until_killed", range(1, 5))
def test_whoever_goes_on_after_a_kill_does_the_rest_and_nothing_twice(aws: Aws, calls_until_killed: int) -> None:
    """Killed behind any call to AWS: an intent is there before, one baseline afterwards, and each group has it."""
    stage = Kept(aws, Apply.TAKE_OVER_GROUPS)
    left = [calls_until_killed]

    class Gone(Gateway):
        def call(self, *args: Any, **kwargs: Any) -> Any:
            answer = super().call(*args, **kwargs)
            left[0] -= 1
            if not left[0]:
                raise Killed
            return answer

    with pytest.raises(Killed):
        stage.keep("try-1", gateway=Gone(session_with_keys, endpoint_url=aws.url))
    assert [kind for kind, _ in stage.records] == [keeping.KEEPING]
    stage.keep("try-2")
    stage.keep("try-3")
    assert stage.registered == {"free": WANTED.name, "taken": WANTED.name}
    assert len(stage.ours) == 1


@pytest.mark.parametrize("writes_until_killed", [1, 2, 3])
def test_a_kill_between_two_writes_of_the_ledger_is_made_good(aws: Aws, writes_until_killed: int) -> None:
    """The intent, the record of what was done, the note that it is done."""
    stage = Kept(aws, Apply.TAKE_OVER_GROUPS)
    left = [writes_until_killed]

    def killed(_: str) -> None:
        left[0] -= 1
        if not left[0]:
            raise Killed

    with pytest.raises(Killed):
        stage.keep("try-1", ledger=Watched(stage.ledger, frozenset({"record", "put_document"}), after=killed))
    stage.keep("try-2")
    before = len(stage.records)
    stage.gateway.take_calls()
    stage.keep("try-3")
    assert (len(stage.records), dict(stage.gateway.take_calls())) == (before, {})
    assert stage.registered == {"free": WANTED.name, "taken": WANTED.name}
    assert len(stage.ours) == 1


def test_a_try_that_was_overtaken_changes_nothing(aws: Aws) -> None:
    """Its lease is gone, and with it the right to touch anything."""
    stage = Kept(aws, Apply.CREATE_AND_UPDATE)
    lease = stage.lease("try-1")
    stage.lease("try-2")
    with pytest.raises(LeaseLost):
        stage.keep(lease=lease)
    assert stage.ours == []


def test_a_second_stage_of_the_run_creates_nothing_again(aws: Aws) -> None:
    """What the first one has created is there by then; it registers its own groups only."""
    stage = Kept(aws, Apply.CREATE_AND_UPDATE)
    parts = {
        name: tuple(host for host in stage.stage.hosts if host.name.startswith(name)) for name in ("free", "taken")
    }
    free, taken = (replace(stage.stage, name=StageName(name), baselines=(), hosts=hosts) for name, hosts in parts.items())
    stage.plan = replace(stage.plan, stages=(free, replace(free, name=StageName("again")), taken))
    first, again, second = stage.planned().stages
    assert (first.baselines[0].creates, first.baselines[0].groups) == (True, ("free",))
    assert (again.baselines, second.baselines) == ((), ())
