"""What a run would call: counted from the plan, and told so that people and programs can read it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from patchwave.aws.operations import OPERATIONS, Effect
from patchwave.campaign import calls, page
from patchwave.campaign import plan as plans
from patchwave.campaign.calls import HEALTH, LOCK, SEND, VERIFICATION
from patchwave.campaign.fleet import Ping
from patchwave.campaign.plan import Plan, Restriction
from patchwave.campaign.rollout import StepKind
from tests.domain.builders import FAR, a_host, a_plan


def a_fleet(count: int, *, platforms: int = 1) -> Plan:
    """Hosts of stage dev, which takes all of them at once."""
    hosts = [a_host(one, group_tag="linux-dev", platform=f"Ubuntu {one % platforms}") for one in range(1, count + 1)]
    return a_plan(hosts)


def sent(plan: Plan, step: StepKind, stage: str = "dev") -> int:
    return calls.of(plan).by_operation(stage=stage, steps=(step.value,)).get(SEND, 0)


@pytest.mark.parametrize(("hosts", "platforms", "commands"), [(1, 1, 1), (50, 1, 1), (51, 1, 2), (50, 3, 3), (0, 1, 0)])
def test_a_step_is_a_command_for_each_fifty_hosts_of_a_platform(hosts: int, platforms: int, commands: int) -> None:
    """SendCommand takes fifty ids, and a snapshot holds for one platform."""
    assert sent(a_fleet(hosts, platforms=platforms), StepKind.SCAN) == commands
    assert sent(a_fleet(hosts, platforms=platforms), StepKind.INSTALL) == commands


def test_hosts_of_two_cells_never_share_a_command() -> None:
    """A command belongs to one account and region."""
    plan = a_plan([a_host(1, group_tag="linux-dev"), a_host(2, group_tag="linux-dev", cell=FAR)])
    assert sent(plan, StepKind.SCAN) == 2


def test_installs_are_counted_wave_by_wave_and_scans_before_all_at_once() -> None:
    """The Scan before disrupts nobody; a tenth of a stage at a time means ten Installs."""
    plan = a_plan([a_host(one) for one in range(1, 41)])
    assert (len(plan.stage("prod").waves), sent(plan, StepKind.SCAN, "prod")) == (10, 1)
    assert [sent(plan, step, "prod") for step in (StepKind.INSTALL, StepKind.REBOOT, StepKind.VERIFY)] == [10, 10, 10]


def test_a_plan_without_reboots_counts_none() -> None:
    """The policy may forbid them."""
    assert sent(replace(a_fleet(3), reboot=False), StepKind.REBOOT) == 0


def test_a_host_that_does_not_answer_is_looked_at_and_sent_nothing() -> None:
    """It may answer when its turn comes: that is said, not counted."""
    plan = a_plan([a_host(1, group_tag="linux-dev", ping=Ping.CONNECTION_LOST)])
    found = calls.of(plan).by_operation(stage="dev")
    assert SEND not in found
    assert found["ssm:DescribeInstanceInformation"] == 1


def test_a_run_about_findings_does_not_look_for_newcomers() -> None:
    """Nobody knows their findings."""
    plan = a_fleet(3)
    narrowed = replace(plan, restriction=Restriction(severities=("critical",)))
    assert calls.of(plan).by_operation(stage="dev")["ec2:DescribeInstances"] == 2 * len(plan.cells)
    assert calls.of(narrowed).by_operation(stage="dev")["ec2:DescribeInstances"] == 1


def test_verification_reads_every_rule_of_every_cell_that_has_hosts() -> None:
    """Excluded hosts are judged, too."""
    plan = a_plan([a_host(1, group_tag="linux-dev"), a_host(2, group_tag=None, cell=FAR)])
    found = calls.of(plan, rules=("one", "two", "three")).by_operation(steps=(VERIFICATION,))
    assert found["config:GetComplianceDetailsByConfigRule"] == 6
    assert found["ssm:DescribeInstancePatchStates"] == 2


def test_a_lockfile_is_laid_down_for_each_install_of_a_later_stage() -> None:
    """The first stage makes it, and lays down nothing."""
    plan = a_plan([a_host(1, group_tag="linux-dev"), *(a_host(one) for one in range(2, 22))])
    found = calls.of(plan, lockfile=True)
    assert calls.PUT not in found.by_operation(stage="dev", steps=(LOCK,))
    assert found.by_operation(stage="prod", steps=(LOCK,))[calls.PUT] == sent(plan, StepKind.INSTALL, "prod") == 10
    assert calls.PUT not in calls.of(plan).by_operation()


def test_other_baselines_are_laid_down_for_each_install_of_a_stage_that_goes_by_them() -> None:
    """And its invocations are read once more, for AWS keeps no report of it."""
    plan = a_plan([a_host(one) for one in range(2, 22)])
    plain, found = calls.of(plan).by_operation(stage="prod"), calls.of(plan, overridden=["prod"]).by_operation(stage="prod")
    assert found[calls.PUT] == sent(plan, StepKind.INSTALL, "prod") == 10
    assert found["ssm:ListCommandInvocations"] == plain["ssm:ListCommandInvocations"] + 10
    assert found["ssm:DescribeInstancePatches"] == 20
    assert calls.of(plan, overridden=["dev"]).by_operation(stage="prod") == plain


def test_the_gateways_own_table_says_which_calls_change_something() -> None:
    """Every operation that is counted is one that the gateway makes, and is called what it is."""
    plan = a_plan([a_host(1, group_tag="linux-dev", group="web", target_groups=("shop",)), a_host(2)])
    found = calls.of(plan, rules=("one",), lockfile=True).by_operation()
    assert {"autoscaling:DescribeAutoScalingGroups", "elbv2:DescribeTargetHealth"} <= found.keys()
    assert {one for one in found if OPERATIONS[one].effect is not Effect.NONE} == calls.CHANGING & found.keys() != set()
    assert {one for one in calls.CHANGING | calls.PAGE.keys() if one not in OPERATIONS} == set()


def test_the_numbers_add_up_wherever_they_stand() -> None:
    """By stage, by operation, in JSON and in the sentence on top."""
    found = calls.of(a_plan([a_host(1, group_tag="linux-dev"), a_host(2)]), rules=("one",))
    content = calls.to_json(found)
    total = found.changing + found.reading
    assert sum(one["at_least"] for one in content["calls"]) == sum(one["at_least"] for one in content["by_operation"]) == total
    assert sum(sum(found.by_operation(stage=stage).values()) for stage in (*found.stages, "")) == total
    assert content["at_least"] == {"changing": 8, "reading": found.reading}
    assert (
        f"At least **{total} calls** to AWS, if every host that answers needs every step: **8 that change something**"
        in calls.markdown(found)
    )


def test_the_checks_that_a_stage_does_not_want_are_not_counted() -> None:
    """The campaign file chooses them; EC2 is asked in any case who is there."""
    plan = a_fleet(2)
    quiet = replace(plan, stages=tuple(replace(one, health_checks=("ec2",)) for one in plan.stages))
    assert calls.of(quiet).by_operation(steps=(HEALTH,)) == {"ec2:DescribeInstanceStatus": 1}


def test_the_section_says_what_is_counted_and_what_is_not() -> None:
    """A number without its assumptions would be a promise."""
    plan = a_plan([a_host(1)], dry_run=True)
    text = plans.markdown(plan, calls=calls.markdown(calls.of(plan)))
    assert "## What a run would call" in text
    for sentence in (*calls.ASSUMES, *calls.ON_TOP):
        assert f"- {sentence}" in text
    assert "What a run would call" not in plans.markdown(plan)


def test_names_from_outside_are_text_on_the_page() -> None:
    """A host is called what its owner wrote; the page runs nothing and loads nothing."""
    odd = "<script>alert(1)</script>[x](javascript:alert(1))"
    written = page.to_html(plans.markdown(a_plan([a_host(1, name=odd)])), title=odd)
    assert "<script" not in written
    assert "href=" not in written
    assert "<h1>Plan of weekly-linux</h1>" in written
    assert "default-src 'none'" in written
