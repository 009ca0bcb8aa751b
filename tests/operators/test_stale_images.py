"""Whether a group really brings an unpatched host back, against a simulated AWS: said before, and seen after a scale-out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from patchwave.campaign.rollout import Done, HostState
from patchwave.campaign.values import HostId
from patchwave.execution.stale_images import stale_images_of
from tests.domain.builders import CELL
from tests.operators.stage import RUN, STAGE
from tests.operators.test_surroundings import WORLD, Around
from tests.simulator.conftest import Aws


@pytest.fixture
def stage(start: Callable[..., Aws]) -> Around:
    return Around(start(WORLD), "web")


def asked(stage: Around) -> Any:
    return stale_images_of(stage.gateway, stage.ledger.hosts(RUN, STAGE), None, now=stage.now)


def newest(stage: Around) -> int:
    """Patches that an instance lacks which the group launches now."""
    before = {one["InstanceId"] for one in instances(stage)}
    group = stage.aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["web"])["AutoScalingGroups"][0]
    stage.scale(DesiredCapacity=group["DesiredCapacity"] + 1)
    stage.aws.advance(900)
    (new,) = {one["InstanceId"] for one in instances(stage)} - before
    stage.aws.client("ssm").send_command(
        InstanceIds=[new], DocumentName="AWS-RunPatchBaseline", Parameters={"Operation": ["Scan"]}
    )
    stage.aws.advance(120)
    return stage.gateway.patch_states(CELL, [HostId(new)])[HostId(new)].missing


def instances(stage: Around) -> list[dict[str, Any]]:
    return [row for page in stage.aws.ec2.describe_instances()["Reservations"] for row in page["Instances"]]


def test_a_group_patched_in_place_would_bring_an_unpatched_host_back_and_does(stage: Around) -> None:
    """Its launch template names the image of before; the scale-out shows that the report is right."""
    assert asked(stage) == ((), "")  # nobody was patched yet
    assert stage.to_the_end(stage.executor("try-1")) == Done(classes={HostState.PATCHED: 4})
    (one,), problem = asked(stage)
    assert (one.group, one.hosts, problem) == ("web", 4, "")
    assert "names image ami-" in one.why
    assert newest(stage) > 0


def test_a_template_with_an_image_of_a_patched_host_brings_a_patched_one(stage: Around) -> None:
    """An image is made of one of them and named in a new version: nothing is listed, and the scale-out lacks nothing."""
    stage.to_the_end(stage.executor("try-1"))
    image = stage.aws.ec2.create_image(InstanceId=stage.hosts[0], Name="patched")["ImageId"]
    stage.aws.advance(900)
    scaling = stage.aws.client("autoscaling")
    (group,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["web"])["AutoScalingGroups"]
    template = group["LaunchTemplate"]["LaunchTemplateId"]
    made = stage.aws.ec2.create_launch_template_version(
        LaunchTemplateId=template, SourceVersion=group["LaunchTemplate"]["Version"], LaunchTemplateData={"ImageId": image}
    )
    version = str(made["LaunchTemplateVersion"]["VersionNumber"])
    scaling.update_auto_scaling_group(
        AutoScalingGroupName="web", LaunchTemplate={"LaunchTemplateId": template, "Version": version}
    )
    assert asked(stage) == ((), "")
    assert newest(stage) == 0


def test_that_aws_may_not_be_asked_is_told(stage: Around) -> None:
    """Not known is not the same as none."""
    stage.to_the_end(stage.executor("try-1"))
    stage.aws.control("faults", {"kind": "access_denied", "service": "ec2", "operation": "DescribeImages", "times": 9})
    found, problem = asked(stage)
    assert found == ()
    assert "DescribeImages" in problem
