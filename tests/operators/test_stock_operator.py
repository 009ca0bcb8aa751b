"""Four situations in which Airflow's own SsmRunCommandOperator says Success although hosts were not patched, and in each of
them our stage tells the truth.

The operator, its trigger and waiter are the real ones (`benchmarks/stock.py` plays Airflow's part); awsim's journal says what
happened to the hosts. Time is awsim's, and it moves only when somebody sleeps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from benchmarks.stock import StockTasks
from benchmarks.tasks import Airflow, Ended
from benchmarks.virtual import VirtualTime
from patchwave.campaign.rollout import Done, HostState
from tests.operators.stage import Stage
from tests.simulator.conftest import AMAZON, Aws

WORLD = f"name: stock{AMAZON}" + """\
fleets:
  - {name: web, account: "111111111111", region: eu-central-1, count: 5, template: amazon, tags: {PatchGroup: web}}
  - {name: many, account: "111111111111", region: eu-central-1, count: 60, template: amazon, tags: {PatchGroup: many}}
"""
BEYOND_THE_PAGE = [f"many/{number}" for number in range(51, 61)]


class World:
    """One awsim, a stock operator on it, and what the hosts went through."""

    def __init__(self, aws: Aws, time: VirtualTime) -> None:
        self.aws, self.time = aws, time

    def operator_says(self, *, trigger_after: float = 1.0, **arguments: Any) -> Ended:
        """Run the stock operator with an Install; the triggerer takes `trigger_after` seconds to run its trigger.

        When the operator has ended, that moment is all that counts: nothing is advanced after it.
        """
        tasks = StockTasks(self.time, self.aws.ssm, airflow=Airflow(trigger=trigger_after))
        command = arguments.pop("command")
        command = {"Parameters": {"Operation": ["Install"]}, "MaxConcurrency": "100%", "MaxErrors": "100%", **command}
        operator = tasks.operator(
            document_name="AWS-RunPatchBaseline", run_command_kwargs=command, waiter_max_attempts=1000, **arguments
        )
        with tasks.stand_ins():
            return self.time.run(tasks.run(operator))

    def patched(self, fleet: str) -> int:
        """Hosts of a fleet on which an Install has ended well so far, by the journal."""
        hosts = set(self.aws.hosts(fleet))
        return len(
            {
                line["host"]
                for line in self.aws.journal()
                if line["event"] == "command_ended" and line["operation"] == "Install" and line["exit_code"] == 0
            }
            & hosts
        )

    def ours_says(self, fleet: str) -> Counter[HostState]:
        """Our stage in the same situation, to its end; the hosts by class."""
        stage = Stage(self.aws, fleet, places=60, error_budget=60)
        assert isinstance(stage.to_the_end(stage.executor("ours")), Done)
        return Counter(stage.states.values())

    def fails_to_install(self, hosts: list[str]) -> None:
        self.aws.control("faults", {"kind": "install_fails", "host": hosts, "exit_code": 1})

    def cannot_be_delivered(self, hosts: list[str]) -> None:
        self.aws.control("faults", {"kind": "undeliverable", "host": hosts})


@pytest.fixture
def world(start: Callable[..., Aws]) -> Iterator[World]:
    aws = start(WORLD)
    time = VirtualTime(aws.url)
    yield World(aws, time)
    time.close()


def tagged(value: str) -> dict[str, Any]:
    return {"Targets": [{"Key": "tag:PatchGroup", "Values": [value]}]}


# --- more than 50 targets ---


def test_deferrable_operator_says_success_of_sixty_hosts_when_it_has_waited_for_fifty(world: World) -> None:
    """Its trigger reads one page of ListCommandInvocations, so a failure on host 51 is none."""
    world.fails_to_install(BEYOND_THE_PAGE)

    said = world.operator_says(deferrable=True, trigger_after=60, command=tagged("many"))

    assert said.success
    assert world.patched("many") == 50


def test_our_stage_counts_all_sixty_hosts(world: World) -> None:
    """Each host is settled by its own invocation and its own Scan, on whatever page they stand."""
    world.fails_to_install(BEYOND_THE_PAGE)

    assert world.ours_says("many") == {HostState.PATCHED: 50, HostState.FAILED: 10}
    assert world.patched("many") == 50


# --- invocations that are not listed yet ---


def test_deferrable_operator_says_success_when_no_invocation_is_listed_yet(world: World) -> None:
    """ListCommandInvocations is empty for about a second after SendCommand; a trigger that runs sooner waits for nobody."""
    said = world.operator_says(deferrable=True, trigger_after=0.1, command={"InstanceIds": world.aws.hosts("web")})

    assert said.success
    assert world.patched("web") == 0


def test_deferrable_operator_says_success_of_the_hosts_that_were_listed_first(world: World) -> None:
    """SSM begins with one host, then two, then four: what is listed after a second is one host of five.

    With it patched the operator ends, whatever becomes of the others, whose agents are late here.
    """
    first, *others = world.aws.hosts("web")
    world.aws.control("faults", {"kind": "agent_late", "host": others, "seconds": 600})

    said = world.operator_says(deferrable=True, trigger_after=1.0, waiter_delay=15, command={"InstanceIds": [first, *others]})

    assert said.success
    assert world.patched("web") == 1


def test_our_stage_takes_an_invocation_that_is_missing_for_no_outcome(world: World) -> None:
    """A host without an invocation is still in flight, however long it takes until AWS lists it."""
    _, *others = world.aws.hosts("web")
    world.aws.control("faults", {"kind": "agent_late", "host": others, "seconds": 100})

    assert world.ours_says("web") == {HostState.PATCHED: 5}
    assert world.patched("web") == 5


# --- targets by tag ---


def test_operator_says_success_at_once_for_targets_by_tag(world: World) -> None:
    """It waits for the ids in SendCommand's answer, and with Targets there are none."""
    said = world.operator_says(command=tagged("web"))

    assert said.success
    assert said.ended - said.began < timedelta(seconds=10)
    assert world.patched("web") == 0


def test_operator_says_success_for_a_tag_that_nobody_carries(world: World) -> None:
    """SSM ends the command as NoInstancesInTag, which nobody reads."""
    said = world.operator_says(command=tagged("wbe"))
    world.aws.advance(10)

    assert said.success
    assert world.aws.status(said.returned) == "NoInstancesInTag"


def test_our_stage_names_its_hosts_before_it_sends(world: World) -> None:
    """A plan holds ids, frozen when it was approved; none of them is settled by a command that reached nobody."""
    assert world.ours_says("web") == {HostState.PATCHED: 5}
    assert world.patched("web") == 5


# --- hosts to which nothing was delivered ---


def test_ssm_itself_says_success_with_four_of_five_hosts_untouched(world: World) -> None:
    """Undeliverable counts neither as an error nor against MaxErrors."""
    hosts = world.aws.hosts("web")
    world.cannot_be_delivered(hosts[1:])

    command = world.aws.patch(*hosts)
    world.aws.advance(600)

    assert world.aws.status(command) == "Success"
    assert world.patched("web") == 1


@pytest.mark.parametrize("deferrable", [False, True])
def test_operator_says_success_of_undelivered_hosts_when_exit_codes_are_handled_elsewhere(world: World, deferrable: bool) -> None:
    """`fail_on_nonzero_exit=False` promises that failures of AWS still raise; Undeliverable has Status Failed, and does not."""
    hosts = world.aws.hosts("web")
    world.cannot_be_delivered(hosts[1:])

    said = world.operator_says(
        deferrable=deferrable, trigger_after=20, fail_on_nonzero_exit=False, command={"InstanceIds": hosts}
    )

    assert said.success
    assert world.patched("web") == 1


def test_deferrable_operator_says_success_when_the_undelivered_come_later_in_the_list(world: World) -> None:
    """With its defaults it raises for an undelivered host that it has listed, and not for one that SSM reached later."""
    hosts = world.aws.hosts("web")
    world.cannot_be_delivered(hosts[1:])

    said = world.operator_says(deferrable=True, trigger_after=1.0, command={"InstanceIds": hosts})

    assert said.success
    assert world.patched("web") == 1


def test_our_stage_calls_the_undelivered_unreachable(world: World) -> None:
    """They count against the error budget, too, which SSM does not do."""
    world.cannot_be_delivered(world.aws.hosts("web")[1:])

    assert world.ours_says("web") == {HostState.PATCHED: 1, HostState.UNREACHABLE: 4}
    assert world.patched("web") == 1
