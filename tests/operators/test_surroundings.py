"""What goes on around a stage's hosts, against a simulated AWS: newcomers, those who vanish, the unwell, and windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from patchwave.aws.gateway import Gateway
from patchwave.campaign import definition, severity
from patchwave.campaign import plan as plans
from patchwave.campaign.fleet import Ping
from patchwave.campaign.plan import Plan, Restriction
from patchwave.campaign.rollout import TERMINAL, Done, Halt, HostState, StepKind, Wait
from patchwave.campaign.values import HostId
from patchwave.execution.surroundings import EVERY, STARTING, Surroundings
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import StageState
from tests.domain.builders import CELL
from tests.domain.test_severity import STANDARD
from tests.gateway.conftest import session_with_keys
from tests.operators.stage import ONCE, RUN, STAGE, Stage
from tests.simulator.conftest import AMAZON, Aws

S = HostState

WORLD = f"name: around{AMAZON}" + """\
  ubuntu: {os: ubuntu-24.04, missing: {count: [3, 3]}}
fleets:
  - name: web
    account: "111111111111"
    region: eu-central-1
    count: 4
    zones: 1
    template: amazon
    tags: {PatchGroup: web}
    auto_scaling_group: {name: web, min: 1, desired: 4, max: 9, health_check: EC2}
    target_group: {name: shop, deregistration_delay: 10}
  - {name: lone, account: "111111111111", region: eu-central-1, count: 2, zones: 1, template: amazon, tags: {PatchGroup: lone}}
  - {name: ubuntu, account: "111111111111", region: eu-central-1, count: 2, template: ubuntu, tags: {PatchGroup: ubuntu}}
"""

CAMPAIGN = """
name: weekly-linux
description: Weekly patches
owner: platform
scope: {cells: [{account: "111111111111", regions: [eu-central-1]}]}
policy: standard
stages:
  - {name: dev, select: {patch_groups: [GROUPS]}, concurrency: 50%, error_budget: 9, soak: 0mWINDOW}
"""


@pytest.fixture
def aws(start: Callable[..., Aws]) -> Aws:
    return start(WORLD)


class Around(Stage):
    """A stage that was planned as a campaign's is, with everything around it."""

    def __init__(self, aws: Aws, groups: str = "web, lone", *, window: str = "", closed: str = "", **rules: Any) -> None:
        self.aws = aws
        self.ledger = MemoryLedger()
        self.gateway = Gateway(session_with_keys, endpoint_url=aws.url, reads=ONCE)
        text = CAMPAIGN.replace("GROUPS", groups).replace("WINDOW", f", window: {window}" if window else "")
        text = text.replace("policy: standard", f"policy: standard\n{closed}")
        self.campaign = definition.parse(text, file="weekly-linux.yaml")
        hosts, around = self.gateway.surroundings(CELL, self.gateway.fleet(CELL, {}))
        self.plan: Plan = plans.build(
            self.campaign, hosts, severity.classify([], STANDARD, now=self.now, coverage=[]), run=RUN, now=self.now,
            dry_run=False, restriction=Restriction(), definition="d", requested_by=None, groups=around,
        )  # fmt: skip
        self.stage = self.plan.stage(STAGE)
        self.hosts = [host.id for host in self.stage.hosts]
        self.ledger.open_run(self.a_run(), [STAGE])
        self.rules = plans.rules(self.plan, self.stage)
        self.ledger.add_hosts(self.lease("begin"), plans.rows(self.plan, self.stage, now=self.now))

    def executor(self, holder: str, *, anew: bool = False, patience: timedelta | None = None, **changes: Any) -> Any:
        made = super().executor(holder, **changes)
        around = Surroundings(
            ledger=made.ledger, gateway=made.gateway, lease=made.lease, campaign=self.campaign, plan=self.plan,
            stage=self.stage, now=made.now, log=made.log, anew=anew, patience=patience,
        )  # fmt: skip
        return replace(made, surroundings=around)

    @property
    def rows(self) -> dict[HostId, Any]:
        return {row.host: row for row in self.ledger.hosts(RUN, STAGE)}

    def scale(self, **size: int) -> None:
        self.aws.client("autoscaling").update_auto_scaling_group(AutoScalingGroupName="web", **size)

    def terminate(self, host: HostId) -> None:
        self.aws.ec2.terminate_instances(InstanceIds=[host])


def kinds(stage: Around) -> list[str]:
    return [entry.kind for entry in stage.ledger.journal(RUN)]


# --- domains ----------------------------------------------------------------------------------------------------------------
def test_hosts_know_their_group_their_target_group_their_zone_and_their_stage(aws: Aws) -> None:
    """As AWS says it; the group's own minimum and its size make its places."""
    stage = Around(aws)
    (zone,) = {host.zone for host in stage.stage.hosts}
    shared = (f"zone:dev/{CELL.account}/{zone}", "stage:dev")
    web = [host for host in stage.stage.hosts if len(host.domains) > 2]
    assert {host.domains for host in web} == {(f"asg:{CELL}/web", f"target:{CELL}/shop", *shared)}
    assert {host.domains for host in stage.stage.hosts if host not in web} == {shared}
    assert stage.stage.places == {f"asg:{CELL}/web": 2, f"target:{CELL}/shop": 2, shared[0]: 3, "stage:dev": 3}
    assert stage.to_the_end(stage.executor("try-1")) == Done(classes={S.PATCHED: 6})


def test_a_group_that_has_shrunk_since_the_plan_has_fewer_places(aws: Aws) -> None:
    """Its minimum was raised: the approved number is a ceiling, what the group needs now comes first."""
    stage = Around(aws)
    stage.scale(MinSize=3)
    executor = stage.executor("try-1")
    executor.advance()
    assert executor.surroundings.rules(stage.rules).places[f"asg:{CELL}/web"] == 1


# --- newcomers --------------------------------------------------------------------------------------------------------------
def test_a_host_that_the_group_launches_meanwhile_is_patched_too(aws: Aws) -> None:
    """It is added when its agent has registered, with when it appeared, and counts in its siblings' domains."""
    stage = Around(aws)
    executor = stage.executor("try-1")
    stage.until_step(executor, StepKind.INSTALL)
    stage.scale(DesiredCapacity=5)
    end = stage.to_the_end(executor)
    assert isinstance(end, Done)
    (new,) = set(stage.rows) - set(stage.hosts)
    assert sum(end.classes.values()) == 7
    assert stage.rows[new].state in (S.PATCHED, S.ALREADY_COMPLIANT)
    assert f"target:{CELL}/shop" in stage.rows[new].domains
    (added,) = [entry for entry in stage.ledger.journal(RUN) if entry.kind == "hosts.added"][1:]
    assert "late joiner: appeared at" in added.data["hosts"][0]["reason"]
    assert "launched by group web" in added.data["hosts"][0]["reason"]


def test_a_stage_is_done_only_after_a_last_look(aws: Aws) -> None:
    """Whoever appears while the last host is verified is found, although nobody looks that often."""
    stage = Around(aws, "lone")
    executor = stage.executor("try-1")
    stage.until_step(executor, StepKind.VERIFY)
    before = set(aws.hosts())
    stage.scale(DesiredCapacity=5)
    aws.advance(60)
    (new,) = set(aws.hosts()) - before
    aws.ec2.create_tags(Resources=[new], Tags=[{"Key": "PatchGroup", "Value": "lone"}])
    end = stage.to_the_end(executor)
    assert isinstance(end, Done)
    assert sum(end.classes.values()) == 3
    assert stage.rows[HostId(new)].state in (S.PATCHED, S.ALREADY_COMPLIANT)


def test_what_the_plan_left_out_and_what_belongs_elsewhere_is_not_taken_in(aws: Aws) -> None:
    """Whoever approved the plan approved its exclusions; a newcomer in another group is not the stage's."""
    stage = Around(aws, "lone")
    executor = stage.executor("try-1")
    stage.until_step(executor, StepKind.VERIFY)
    aws.ec2.create_tags(Resources=[aws.hosts("web")[0]], Tags=[{"Key": "PatchGroup", "Value": "lone"}])
    stage.scale(DesiredCapacity=5)
    stage.to_the_end(executor)
    assert set(stage.rows) == set(stage.hosts)


def test_a_newcomer_that_is_starting_is_waited_for_and_one_that_never_answers_is_unreachable(aws: Aws) -> None:
    """Nobody is silently left out: its agent has so long to register, then it is what it is."""
    stage = Around(aws)
    executor = stage.executor("try-1")
    stage.until_step(executor, StepKind.VERIFY)
    waits: list[Wait] = []
    fresh = HostId("i-0123456789abcdef0")
    born: list[datetime] = []
    gateway = executor.gateway
    listed = gateway.listed

    def with_one_more(*args: Any, **named: Any) -> Any:
        if not born and any(row.state not in TERMINAL for row in stage.rows.values()):
            return listed(*args, **named)
        born.append(born[0] if born else stage.now)
        return {**listed(*args, **named), fresh: replace(a_web, id=fresh, tags={"PatchGroup": "web"}, launched=born[0])}

    hosts = gateway.hosts
    a_web = hosts(CELL, [stage.hosts[0]])[0]

    def silent(cell: Any, ids: Any, **named: Any) -> Any:
        found = tuple(hosts(cell, [one for one in ids if one != fresh], **named))
        return (*found, replace(a_web, id=fresh, ping=Ping.UNMANAGED)) if fresh in ids else found

    gateway.listed, gateway.hosts = with_one_more, silent
    end = stage.to_the_end(executor, waits=waits)
    assert isinstance(end, Done)
    starting = [wait for wait in waits if "are starting" in wait.reason]
    assert starting
    assert starting[0].until == born[0] + STARTING
    assert stage.rows[fresh].state is S.UNREACHABLE


# --- those who vanish -------------------------------------------------------------------------------------------------------
def test_a_host_that_vanishes_is_replaced_by_the_one_that_its_group_launches(aws: Aws) -> None:
    """It is terminated first; when the group's new instance appears, the report names it."""
    stage = Around(aws)
    executor = stage.executor("try-1")
    stage.until_step(executor, StepKind.SCAN)
    gone = next(host.id for host in stage.stage.hosts if len(host.domains) > 2)
    stage.terminate(gone)
    end = stage.to_the_end(executor)
    assert isinstance(end, Done)
    (new,) = set(stage.rows) - set(stage.hosts)
    assert stage.rows[gone].state is S.REPLACED
    assert new in stage.rows[gone].reason
    assert stage.rows[new].state in (S.PATCHED, S.ALREADY_COMPLIANT)


def test_a_host_of_no_group_that_vanishes_is_terminated(aws: Aws) -> None:
    """Nobody stands in its place."""
    stage = Around(aws, "lone")
    executor = stage.executor("try-1")
    stage.until_step(executor, StepKind.SCAN)
    stage.terminate(stage.hosts[0])
    end = stage.to_the_end(executor)
    assert end == Done(classes={S.TERMINATED: 1, S.PATCHED: 1})


# --- the unwell -------------------------------------------------------------------------------------------------------------
def sicken(stage: Around, host: HostId) -> None:
    stage.aws.client("autoscaling").set_instance_health(InstanceId=host, HealthStatus="Unhealthy", ShouldRespectGracePeriod=False)


def test_who_was_unhealthy_before_holds_a_place_and_a_resume_sees_the_same(aws: Aws) -> None:
    """The group can miss two, and misses one already: one Install at a time, in every leg."""
    stage = Around(aws)
    web = [host.id for host in stage.stage.hosts if len(host.domains) > 2]
    aws.client("autoscaling").suspend_processes(AutoScalingGroupName="web", ScalingProcesses=["ReplaceUnhealthy", "HealthCheck"])
    sicken(stage, web[0])
    executor = stage.executor("try-1")
    stage.until_step(executor, StepKind.INSTALL)
    assert executor.surroundings.before[f"asg:{CELL}/web"] == {web[0]}
    installing = [host for host in web[1:] if stage.rows[host].state is S.INSTALLING]
    assert len(installing) <= 1
    second = stage.executor("try-2")
    second.advance()
    assert second.surroundings.before == executor.surroundings.before
    assert stage.ledger.document(RUN, "unhealthy:dev")["before"] == {f"asg:{CELL}/web": [web[0]]}


def test_a_stage_whose_group_has_nobody_to_spare_waits_for_its_health(aws: Aws) -> None:
    """Three of four are unhealthy before we come, and two may be missing: nobody is begun until enough of them serve again."""
    stage = Around(aws)
    lease = stage.lease("begin")
    stage.ledger.set_stage(lease, StageState.PATCHING, reason="", at=stage.now)
    web = [host.id for host in stage.stage.hosts if len(host.domains) > 2]
    aws.client("autoscaling").suspend_processes(AutoScalingGroupName="web", ScalingProcesses=["ReplaceUnhealthy", "HealthCheck"])
    for host in web[:3]:
        sicken(stage, host)
    waits: list[Wait] = []
    executor = stage.executor("try-1", patience=timedelta(hours=9))
    for _ in range(12):
        decision = executor.advance()
        assert isinstance(decision, Wait)
        waits.append(decision)
        aws.advance(120)
    installed = {host for host, count in stage.begun("Install").items() if count}
    assert web[3] not in installed  # it serves, and the group cannot miss it
    for host in web[:3]:
        aws.client("autoscaling").set_instance_health(InstanceId=host, HealthStatus="Healthy", ShouldRespectGracePeriod=False)
    assert stage.to_the_end(executor) == Done(classes={S.PATCHED: 6})


def test_a_failed_host_gives_its_place_back_when_it_serves_again(aws: Aws) -> None:
    """Its Install failed, it runs on: the journal says when its place was given back, and the others go on."""
    stage = Around(aws, "lone")
    stage.rules = replace(stage.rules, places=dict.fromkeys(stage.rules.places, 1))
    first = stage.hosts[0]
    aws.control("faults", {"kind": "install_fails", "host": first, "times": 9})
    end = stage.to_the_end(stage.executor("try-1"))
    assert isinstance(end, Done)
    assert sorted(end.classes) == [S.FAILED, S.PATCHED]
    assert kinds(stage).count("host.recovered") == 1


def test_a_stage_whose_places_are_all_held_waits_for_their_health_and_then_halts(aws: Aws) -> None:
    """So long as a host may take to become healthy; then a person looks, and a clear goes on when it is well."""
    stage = Around(aws, "lone")
    stage.rules = replace(stage.rules, places=dict.fromkeys(stage.rules.places, 1))
    aws.control("faults", {"kind": "reboot_never_returns", "times": 1})
    waits: list[Wait] = []
    end = stage.to_the_end(stage.executor("try-1", patience=timedelta(minutes=20)), waits=waits)
    assert isinstance(end, Halt)
    assert end.rule == "disruption budget"
    assert any("whether they serve again is looked at" in wait.reason for wait in waits)


# --- the error budget --------------------------------------------------------------------------------------------------------
def test_a_refusal_is_judged_before_the_next_command_is_sent(aws: Aws) -> None:
    """Two platforms are two commands, decided at once; AWS denies the first, and none may fail: the second is not sent."""
    stage = Around(aws, "web, ubuntu")
    stage.rules = replace(stage.rules, error_budget=0)
    aws.control("faults", {"kind": "access_denied", "service": "ssm", "operation": "SendCommand", "times": 1})
    end = stage.to_the_end(stage.executor("try-1"))
    assert isinstance(end, Halt)
    assert end.rule == "error budget"
    assert [row.state.value for row in stage.ledger.dispatches(RUN, STAGE)] == ["refused"]
    assert set(stage.begun("Scan").values()) == {0}
    assert sorted(set(stage.states.values())) == [S.PLANNED, S.UNREACHABLE]


# --- windows ----------------------------------------------------------------------------------------------------------------
def test_nothing_is_sent_before_the_window_opens(aws: Aws) -> None:
    """08:00 in January; it opens at 10:00 in Vienna, 09:00 UTC."""
    stage = Around(aws, window='{cron: "0 10 * * *", duration: 4h, timezone: Europe/Vienna}')
    wait = stage.executor("try-1", anew=True).advance()
    assert isinstance(wait, Wait)
    assert f"{wait.until:%H:%M}" == "09:00"
    assert not stage.ledger.dispatches(RUN, STAGE)
    aws.advance(3600)
    assert stage.to_the_end(stage.executor("try-2")) == Done(classes={S.PATCHED: 6})


def test_who_does_not_fit_any_more_is_out_of_the_window(aws: Aws) -> None:
    """One wave fits into 25 minutes by what AWS's guides say, the second one does not."""
    stage = Around(aws, window='{cron: "0 9 * * *", duration: 1h, timezone: Europe/Vienna}')
    aws.advance(35 * 60)
    end = stage.to_the_end(stage.executor("try-1", anew=True))
    assert isinstance(end, Done)
    assert set(end.classes) == {S.PATCHED, S.OUT_OF_WINDOW}
    for host, row in stage.rows.items():
        if row.state is S.OUT_OF_WINDOW:
            assert stage.begun("Install")[host] == 0
            assert "the next run takes it" in row.reason


def test_the_window_of_a_stage_is_chosen_once_and_anew_when_a_halt_is_cleared(aws: Aws) -> None:
    """A retry on the next day does not wait for another night than the one that was begun."""
    stage = Around(aws, window='{cron: "0 10 * * *", duration: 4h, timezone: Europe/Vienna}')
    stage.executor("try-1", anew=True).advance()
    first = stage.ledger.document(RUN, "window:dev")
    aws.advance(86400)
    stage.executor("try-2").advance()
    assert stage.ledger.document(RUN, "window:dev") == first
    assert set(stage.states.values()) == {S.OUT_OF_WINDOW}
    stage.executor("try-3", anew=True).advance()
    assert datetime.fromisoformat(stage.ledger.document(RUN, "window:dev")["opens"]) > stage.now - timedelta(days=1)


def test_a_freeze_holds_a_stage_that_has_no_window_of_its_own(aws: Aws) -> None:
    """Until 08:30 nothing is sent; then it goes on as ever."""
    stage = Around(aws, closed="freezes: [{from: 2026-01-05T07:00Z, to: 2026-01-05T08:30Z, reason: launch}]")
    wait = stage.executor("try-1", anew=True).advance()
    assert isinstance(wait, Wait)
    assert f"{wait.until:%H:%M}" == "08:30"
    assert not stage.ledger.dispatches(RUN, STAGE)
    aws.advance(1800)
    assert stage.to_the_end(stage.executor("try-2")) == Done(classes={S.PATCHED: 6})


CALENDAR = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//AWS//Change Calendar 1.0//EN
X-CALENDAR-TYPE:DEFAULT_OPEN
EVENTSEND:VCALENDAR
"""
INCIDENT = "BEGIN:VEVENT\nUID:1\nDTSTART:20260105T080000Z\nDTEND:20260105T120000Z\nSUMMARY:incident\nEND:VEVENT\n"


def test_a_calendar_that_is_closed_while_a_stage_goes_on_lets_nobody_else_begin(aws: Aws) -> None:
    """Who is begun is brought to the end; the others wait for noon, and are patched then."""
    stage = Around(aws, "lone", closed="calendars: [change-freeze]")
    stage.rules = replace(stage.rules, places=dict.fromkeys(stage.rules.places, 1))
    aws.ssm.create_document(
        Name="change-freeze", Content=CALENDAR.replace("EVENTS", ""), DocumentType="ChangeCalendar", DocumentFormat="TEXT"
    )
    stage.until_step(stage.executor("try-1", anew=True), StepKind.INSTALL)
    aws.ssm.update_document(
        Name="change-freeze", Content=CALENDAR.replace("EVENTS", INCIDENT), DocumentVersion="$LATEST", DocumentFormat="TEXT"
    )
    aws.ssm.update_document_default_version(Name="change-freeze", DocumentVersion="2")
    aws.advance(700)
    executor = stage.executor("try-2")
    for _ in range(20):
        decision = executor.advance()
        aws.advance(60)
    assert isinstance(decision, Wait)
    assert f"{decision.until:%H:%M}" == "12:00"
    assert sorted(stage.begun("Install").values()) == [0, 1]
    assert sorted(stage.states.values()) == [S.PATCHED, S.READY]
    aws.advance(4 * 3600)
    assert stage.to_the_end(stage.executor("try-3")) == Done(classes={S.PATCHED: 2})


def test_a_calendar_that_cannot_be_read_holds_a_stage_and_gives_nobody_up(aws: Aws) -> None:
    """Nothing is sent while it is missing, and nobody is out of the window for it."""
    stage = Around(aws, closed="calendars: [change-freeze]")
    executor = stage.executor("try-1", anew=True)
    for _ in range(3):
        wait = executor.advance()
        assert isinstance(wait, Wait)
        assert wait.until <= stage.now + EVERY
        aws.advance(660)
    assert set(stage.states.values()) == {S.PLANNED}
    aws.ssm.create_document(
        Name="change-freeze", Content=CALENDAR.replace("EVENTS", ""), DocumentType="ChangeCalendar", DocumentFormat="TEXT"
    )
    assert stage.to_the_end(stage.executor("try-2")) == Done(classes={S.PATCHED: 6})
