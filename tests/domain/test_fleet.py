"""Who can be patched, and what stands in a host's way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import fleet
from patchwave.campaign.fleet import Health, InstanceState, Ping, Readiness
from tests.domain.builders import CELL, FAR, NOW, a_host, host_id

BY_STATE = {
    InstanceState.TERMINATED: Readiness.TERMINATED,
    InstanceState.SHUTTING_DOWN: Readiness.TERMINATED,
    InstanceState.STOPPED: Readiness.STOPPED,
    InstanceState.STOPPING: Readiness.STOPPED,
}


@pytest.mark.parametrize("state", list(InstanceState))
@pytest.mark.parametrize("ping", list(Ping))
def test_readiness_follows_ec2_first_and_the_agent_second(state: InstanceState, ping: Ping) -> None:
    """Systems Manager's word lags: an instance that EC2 calls stopped is stopped, whatever its agent said last."""
    expected = BY_STATE.get(state, Readiness.READY if ping is Ping.ONLINE else Readiness.UNREACHABLE)
    assert fleet.readiness(a_host(1, state=state, ping=ping)) is expected


@given(st.sampled_from(InstanceState), st.sampled_from(Ping))
def test_whoever_cannot_be_patched_is_told_why(state: InstanceState, ping: Ping) -> None:
    """And nobody else: an empty sentence means that nothing is in the way."""
    host = a_host(1, state=state, ping=ping)
    assert bool(fleet.why_not(host)) is (fleet.readiness(host) is not Readiness.READY)


def test_a_silent_host_says_when_it_was_last_heard_of() -> None:
    """Five minutes of silence are something else than five weeks."""
    assert "2026-03-03 22:00 UTC" in fleet.why_not(a_host(1, ping=Ping.CONNECTION_LOST, last_ping=NOW))
    assert "does not know the instance" in fleet.why_not(a_host(1, ping=Ping.UNMANAGED))


@pytest.mark.parametrize("key", ["PatchGroup", "Patch Group"])
def test_a_patch_group_is_read_in_both_of_its_spellings(key: str) -> None:
    """AWS has two; which one a host carries depends on its metadata options."""
    assert a_host(1, tags={key: "linux-prod"}).patch_group == "linux-prod"
    assert a_host(1, tags={"patchgroup": "linux-prod"}).patch_group is None


def test_a_host_is_in_several_failure_domains_at_once() -> None:
    """Its group, its target groups, its zone within the stage, and the stage, which is the last."""
    host = a_host(1, group="web", target_groups=("shop", "api"), zone="eu-central-1b")
    assert fleet.failure_domains(host, stage="prod") == (
        f"asg:{CELL}/web", f"target:{CELL}/api", f"target:{CELL}/shop", f"zone:prod/{CELL.account}/eu-central-1b", "stage:prod",
    )  # fmt: skip
    assert fleet.failure_domains(a_host(1, zone=""), stage="prod") == ("stage:prod",)


def test_groups_are_the_same_in_every_stage_and_others_in_every_cell() -> None:
    """A group's budget protects the group, whoever is patched in it; a zone's and a stage's are the stage's own."""
    here, there = a_host(1, group="web"), a_host(2, group="web", cell=FAR)
    prod, dev = fleet.failure_domains(here, stage="prod"), fleet.failure_domains(here, stage="dev")
    assert prod[0] == dev[0] != fleet.failure_domains(there, stage="prod")[0]
    assert not set(prod[1:]) & set(dev[1:])


def test_health_names_each_check() -> None:
    """Whoever reads the wait sees which check says what."""
    health = Health(host=host_id(1), healthy=False, checks=(("ec2", "initializing"), ("ssm", "Online")))
    assert str(health) == f"{host_id(1)}: ec2 initializing, ssm Online"
