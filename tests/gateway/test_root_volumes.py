"""Snapshots and root volumes against the simulated AWS, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from patchwave.campaign.snapshots import State
from patchwave.campaign.values import HostId, RunId
from tests.gateway.conftest import CELL
from tests.gateway.simulated import Simulated, small_world

START = datetime(2026, 3, 3, 22, tzinfo=UTC)
RUN = RunId("weekly-linux/one")


@pytest.fixture(scope="module")
def aws() -> Iterator[Simulated]:
    with small_world(START) as url:
        yield Simulated(url)


def some_host(aws: Simulated) -> HostId:
    return aws.gateway.fleet(CELL, {"Patch Group": ("linux-staging",)})[0].id


def test_a_host_has_a_root_volume_with_a_size(aws: Simulated) -> None:
    """The plan counts its GiB; a host that EC2 does not list is absent."""
    host = some_host(aws)
    (disk,) = aws.gateway.root_volumes(CELL, [host, HostId("i-0123456789abcdef0")])
    assert disk.host == host
    assert disk.volume.startswith("vol-")
    assert disk.gib > 0


def test_a_snapshot_is_found_by_its_token_until_it_is_deleted(aws: Simulated) -> None:
    """CreateSnapshot takes no client token, so this is how a lost answer is found again."""
    host = some_host(aws)
    (disk,) = aws.gateway.root_volumes(CELL, [host])
    made = aws.gateway.create_snapshot(
        CELL, volume=disk.volume, host=host, run=RUN, token="a" * 32, keep=START + timedelta(days=7)
    )
    assert (made.token, made.volume, made.state) == ("a" * 32, disk.volume, State.PENDING)
    aws.pass_time(timedelta(minutes=20))
    found = aws.gateway.snapshots_of(CELL, RUN)
    assert found["a" * 32].id == made.id
    assert found["a" * 32].state is State.COMPLETED
    assert aws.gateway.snapshots_of(CELL, RunId("weekly-linux/two")) == {}
    aws.gateway.delete_snapshot(CELL, made.id)
    aws.gateway.delete_snapshot(CELL, made.id)
    assert aws.gateway.snapshots_of(CELL, RUN) == {}
