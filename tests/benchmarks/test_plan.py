"""Is the made-up company one, and is a target that is missed told?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import estate
from benchmarks.plan import MEBIBYTES, SECONDS, Measured, measured


def test_findings_come_one_at_a_time():
    """A million of them are never in memory at once."""
    found = estate.findings(10**12, hosts=100)
    assert isinstance(found, Iterator)
    assert next(found).arn != next(found).arn


def test_the_same_seed_gives_the_same_rows():
    """Or two measurements would be of two fleets."""
    assert list(estate.findings(300, hosts=50)) == list(estate.findings(300, hosts=50))
    assert estate.hosts(300) == estate.hosts(300)


def test_the_rows_are_of_all_sorts():
    """Every severity, every answer about fixes, several packages, language packages, functions and images; each ARN once."""
    found = list(estate.findings(5000, hosts=500))
    assert len({one.arn for one in found}) == 5000
    assert {one.severity for one in found} == set(estate.SEVERITIES)
    assert {one.fix for one in found} == {"YES", "NO", "PARTIAL"}
    assert {len(one.packages) for one in found} == {1, 2, 3}
    assert Counter(one.resource_type for one in found) == {estate.EC2: 4900, estate.FUNCTION: 50, estate.IMAGE: 50}
    assert {package.manager for one in found for package in one.packages} == {"OS", *(name for name, _ in estate.LANGUAGES)}
    its = {host.id: host.cell for host in estate.hosts(500)}
    assert all(its[one.host] == one.cell for one in found if one.resource_type == estate.EC2)


def test_hosts_are_in_stages_and_groups():
    """Most in prod, six of ten of those in groups whose members are known."""
    hosts = estate.hosts(2000)
    assert {host.patch_group for host in hosts} == {"linux-dev", "linux-staging", "linux-prod", None}
    assert 0.4 < sum(host.group is not None for host in hosts) / len(hosts) < 0.6
    groups = estate.groups(hosts)
    assert all(1 <= len(group.members) <= estate.LARGEST_GROUP and group.minimum < len(group.members) for group in groups)


def a_measurement(**facts: Any) -> Measured:
    values: dict[str, Any] = {"way": "standard", "wall": 99.0, "processor": 20.0, "memory": 500.0, "parts": {}, "said": ""}
    return Measured(**values | facts)


def test_kept_targets_are_silent():
    """However long a busy machine took, and however long the rows took to make."""
    assert a_measurement().missed(5.0) == []
    assert a_measurement(processor=SECONDS + 5, memory=MEBIBYTES).missed(5.0) == []


def test_each_missed_target_has_a_sentence():
    """Whoever reads the output of CI must not have to compute."""
    told = a_measurement(processor=SECONDS + 6, memory=MEBIBYTES + 1).missed(5.0)
    assert told == [
        "standard: 31.0 s of processor time beside the rows, wanted are 30 s",
        "standard: 1,025 MiB, wanted are 1,024 MiB",
    ]


def test_a_floor_has_no_target():
    """It is there to compare with."""
    assert a_measurement(way="sqlite", processor=99.0, memory=9999.0).missed(0.0) == []


def test_a_process_of_its_own_tells_its_figures():
    """Time and memory from outside, parts from inside, and a plan that holds the hosts."""
    one = measured("standard", hosts=200, findings=1000)
    assert list(one.parts) == ["hosts", "findings and classify", "plan", "digest"]
    assert 0 < sum(one.parts.values()) <= one.processor
    assert one.memory > 20
    assert "hosts in 3 stages" in one.said
    assert Path(one.tree) == Path(__file__).parents[2] / "include" / "patchwave" / "campaign", "another tree was measured"
