"""A group is replaced as `campaign.replacement` decides, against a simulated AWS; its journal tells who served when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.aws.gateway import Gateway
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.replacement import (
    Facts,
    MakeVersion,
    Member,
    Preferences,
    Replaced,
    RollBack,
    StartRefresh,
    Status,
    TemplateVersion,
    Terms,
    decide,
    preferences,
)
from patchwave.campaign.rollout import Halt
from patchwave.campaign.values import HostId
from tests.domain.builders import CELL
from tests.gateway.conftest import session_with_keys
from tests.operators.stage import ONCE
from tests.simulator.conftest import AMAZON, Aws

TOKEN = "0123456789abcdef0123456789abcdef"
WORLD = f"name: refreshed{AMAZON}" + """\
fleets:
  - name: web
    account: "111111111111"
    region: eu-central-1
    count: SIZE
    template: amazon
    tags: {PatchGroup: web}
    auto_scaling_group: {name: web, min: 4, desired: SIZE, max: 60, health_check: EC2}
alarms: [web-5xx]
"""


class Replacing:
    """Carries decisions out as they come, and nothing else: no ledger, no lease."""

    def __init__(self, aws: Aws, size: int) -> None:
        self.aws, self.size = aws, size
        self.gateway = Gateway(session_with_keys, endpoint_url=aws.url, reads=ONCE)
        self.image = str(aws.ec2.register_image(Name="al2023-ami-gold", RootDeviceName="/dev/xvda")["ImageId"])
        self.how = preferences(size, size // 10, warmup=timedelta(seconds=30))
        self.first = aws.hosts("web")
        self.ill: list[str] = []
        self.begun: list[str] = []

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.aws.control("clock")["epoch"], UTC)

    @property
    def group(self) -> dict[str, Any]:
        (row,) = self.aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["web"])["AutoScalingGroups"]
        return dict(row)

    @property
    def base(self) -> TemplateVersion:
        named = self.group["LaunchTemplate"]
        return TemplateVersion(template=named["LaunchTemplateId"], version=str(named["Version"]))

    def facts(self) -> Facts:
        rows = {one["InstanceId"]: one for one in self.group["Instances"]}
        images = {
            one["InstanceId"]: one["ImageId"]
            for page in self.aws.ec2.get_paginator("describe_instances").paginate()
            for reservation in page["Reservations"]
            for one in reservation["Instances"]
        }
        members = tuple(
            Member(
                host=HostId(name), image=images[name], in_service=row["LifecycleState"] == "InService",
                healthy=row["HealthStatus"] == "Healthy", proven=True,
            )
            for name, row in sorted(rows.items())
        )  # fmt: skip
        return Facts(
            group="web", image=self.image, members=members, refreshes=self.gateway.refreshes(CELL, "web"),
            ours=self.gateway.template_version(CELL, self.base.template, TOKEN),
        )  # fmt: skip

    def terms(self) -> Terms:
        return Terms(patience=timedelta(minutes=30), foreign_until=self.now + timedelta(hours=1))

    def to_the_end(self, *, at_percent: dict[int, Callable[[], None]] | None = None) -> Replaced | Halt:
        left = dict(at_percent or {})
        for _ in range(2000):
            facts = self.facts()
            mine = next((one for one in facts.refreshes if one.asks_for == facts.ours), None)
            for percent in [one for one in left if mine is not None and mine.percent >= one]:
                left.pop(percent)()
            decision = decide(facts, self.terms(), ill=self.ill, now=self.now)
            match decision:
                case MakeVersion(image=image):
                    self.gateway.make_template_version(CELL, self.base, image, TOKEN)
                case StartRefresh(asks_for=version):
                    self.begun.append(self.gateway.start_refresh(CELL, "web", version, self.how))
                case RollBack():
                    assert self.gateway.roll_back_refresh(CELL, "web")
                case Replaced() | Halt():
                    return decision
                case _:
                    self.aws.advance(30)
        raise AssertionError(f"no end: {decision}")

    def images(self) -> set[str]:
        return {one.image for one in self.facts().members}


@pytest.fixture
def replacing(start: Callable[..., Aws]) -> Replacing:
    """A small group; two may be away."""
    return Replacing(start(WORLD.replace("SIZE", "20")), 20)


def most_out_of_service(replacing: Replacing) -> int:
    """By awsim's journal: how many of the group's places were empty at once."""
    serving = set(replacing.first)
    least = len(serving)
    for entry in replacing.aws.journal():
        if entry["event"] == "in_service":
            serving.add(entry["host"])
        elif entry["event"] == "out_of_service":
            serving.discard(entry["host"])
        least = min(least, len(serving))
    return replacing.size - least


def test_fifty_hosts_are_replaced_and_never_more_than_five_are_out_of_service(start: Callable[..., Aws]) -> None:
    """One refresh, every instance from the new image."""
    replacing = Replacing(start(WORLD.replace("SIZE", "50")), 50)
    before = {one.host for one in replacing.facts().members}
    done = replacing.to_the_end()
    assert isinstance(done, Replaced)
    assert len(done.hosts) == 50
    assert not before & set(done.hosts)
    assert replacing.images() == {replacing.image}
    assert len(replacing.begun) == 1
    assert 1 <= most_out_of_service(replacing) <= 5


def test_the_same_token_makes_one_version(replacing: Replacing) -> None:
    """Whoever lost the answer finds it, and a second call makes no other."""
    first = replacing.gateway.make_template_version(CELL, replacing.base, replacing.image, TOKEN)
    assert replacing.gateway.template_version(CELL, first.template, TOKEN) == first
    assert replacing.gateway.template_version(CELL, first.template, "f" * 32) is None
    assert first != replacing.base


def test_a_refresh_of_somebody_else_is_waited_for_and_ours_begins_after_it(replacing: Replacing) -> None:
    """AWS refuses a second one; we do not even ask."""
    version = replacing.base
    replacing.gateway.start_refresh(CELL, "web", version, Preferences(min_healthy=50))
    theirs = replacing.gateway.refreshes(CELL, "web")[0]
    with pytest.raises(InvalidRequest, match="InstanceRefreshInProgress"):
        replacing.gateway.start_refresh(CELL, "web", version, replacing.how)
    assert isinstance(replacing.to_the_end(), Replaced)
    ours = replacing.gateway.refreshes(CELL, "web")[0]
    assert theirs.id != ours.id == replacing.begun[0]
    assert ours.began_at > theirs.began_at


def test_what_goes_wrong_at_thirty_percent_is_taken_back(replacing: Replacing) -> None:
    """The instances are of the image of before again, at most two out of service throughout, and nothing is begun again."""
    (old,) = replacing.images()
    ended = replacing.to_the_end(at_percent={30: lambda: replacing.ill.append("the error budget is spent")})
    assert isinstance(ended, Halt)
    assert ended.rule == "taken back"
    assert replacing.gateway.refreshes(CELL, "web")[0].status is Status.ROLLBACK_SUCCESSFUL
    assert replacing.images() == {old}
    assert len(replacing.begun) == 1
    assert most_out_of_service(replacing) <= 2


def test_an_alarm_takes_it_back_without_us(replacing: Replacing) -> None:
    """AWS watches the alarms itself; we see that it was taken back, and why."""
    replacing.how = preferences(20, 2, warmup=timedelta(seconds=30), alarms=["web-5xx"])

    def fire() -> None:
        replacing.aws.client("cloudwatch").set_alarm_state(AlarmName="web-5xx", StateValue="ALARM", StateReason="5xx")

    ended = replacing.to_the_end(at_percent={30: fire})
    assert isinstance(ended, Halt)
    assert ended.rule == "taken back"
    assert "web-5xx" in ended.reason
    assert most_out_of_service(replacing) <= 2


def test_a_cancelled_refresh_begins_no_further_instance(replacing: Replacing) -> None:
    """Kill means stop; what is there stays there, and the halt says how many run which image."""
    cancelled: list[bool] = []
    ended = replacing.to_the_end(at_percent={20: lambda: cancelled.append(replacing.gateway.cancel_refresh(CELL, "web"))})
    assert cancelled == [True]
    assert isinstance(ended, Halt)
    assert ended.rule == "kill means stop"
    assert len(replacing.images()) == 2
    assert not replacing.gateway.cancel_refresh(CELL, "web")
    assert not replacing.gateway.roll_back_refresh(CELL, "web")

