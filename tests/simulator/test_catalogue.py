"""The catalogue: each platform in its own vocabulary; releases and snapshots that hosts are locked to; distributions of time."""

import re
from random import Random

import pytest

from awsim.catalogue import locked_until, shipped
from awsim.world_file import Spread, WorldFileError, load
from tests.simulator.conftest import FEW

PLATFORMS = shipped().platforms
WORDS = {
    "AMAZON_LINUX_2": ({"Security", "Bugfix", "Enhancement"}, {"Critical", "Important", "Medium", "Low"}),
    "AMAZON_LINUX_2023": ({"Security", "Bugfix", "Enhancement"}, {"Critical", "Important", "Medium", "Low"}),
    "REDHAT_ENTERPRISE_LINUX": ({"Security", "Bugfix", "Enhancement"}, {"Critical", "Important", "Moderate", "Low", "None"}),
    "UBUNTU": (None, {"Required", "Important", "Standard", "Optional", "Extra"}),
    "WINDOWS": (
        {"CriticalUpdates", "SecurityUpdates", "DefinitionUpdates", "UpdateRollups", "Updates"},
        {"Critical", "Important", "Moderate", "Low", "Unspecified"},
    ),
}
ADVISORIES = {
    "AMAZON_LINUX_2": r"ALAS2-20\d\d-\d+|ALASKERNEL-5\.10-20\d\d-\d+",
    "AMAZON_LINUX_2023": r"ALAS2023-20\d\d-\d+",
    "REDHAT_ENTERPRISE_LINUX": r"RH[SBE]A-20\d\d:\d+",
    "UBUNTU": r"USN-\d+-\d+",
    "WINDOWS": r"KB\d{6,7}(-\S+)?",
}


@pytest.mark.parametrize("key", sorted(PLATFORMS))
def test_a_platform_speaks_its_own_language(key):
    """Classifications and severities are those that its baselines can filter; ids have the distribution's form."""
    platform = PLATFORMS[key]
    classifications, severities = WORDS[platform.operating_system]
    updates = [update for package in platform.packages.values() for update in package.updates]
    assert len(updates) >= 9
    for update in updates:
        assert update.severity in severities, update
        assert classifications is None or update.classification in classifications, update
        assert re.fullmatch(ADVISORIES[platform.operating_system], update.advisory), update
        assert all(re.fullmatch(r"CVE-\d{4}-\d{4,}", cve.id) and 0 < cve.score <= 10 for cve in update.cves)
        assert bool(update.kb) == (platform.type == "Windows")
    assert all(update.needs_reboot for update in platform.packages[platform.kernel].updates)
    for package in platform.packages.values():
        assert [update.released for update in package.updates] == sorted(update.released for update in package.updates)


def test_windows_is_patched_by_its_kbs_and_rhel_by_its_own_words(start):
    """KB numbers as ids, one cumulative update for all it supersedes, and the default baseline's Critical and Important."""
    aws = start(
        FEW.replace("os: ubuntu-24.04, missing: {count: [3, 3]}", "os: windows-server-2022, missing: {count: [9, 9]}").replace(
            "os: amazon-linux-2023, missing: {count: [4, 6], always: [kernel, expat]}", "os: rhel-9, missing: {count: [4, 6]}"
        )
    )
    aws.control("reset", {})
    host = aws.hosts("odd")[3]
    (row,) = aws.ssm.describe_instance_information(InstanceInformationFilterList=[{"key": "InstanceIds", "valueSet": [host]}])[
        "InstanceInformationList"
    ]
    assert (row["PlatformType"], row["PlatformName"]) == ("Windows", "Microsoft Windows Server 2022 Datacenter")
    aws.control("faults", method="DELETE")
    aws.patch(host)
    aws.advance(3600)
    installed = [line for line in aws.journal() if line["host"] == host and line["event"] == "package_installed"]
    assert installed
    rows = aws.patches(host, "Installed")
    assert {row["KBId"] for row in rows} >= {"KB5049983"}
    assert all(re.fullmatch(r"KB\d+", row["KBId"]) and row["KBId"] in row["Title"] for row in rows)
    assert not aws.patches(host, "Missing")


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2023.6.20241010", 1728604800),
        ("latest", None),
        ('APT::Snapshot "20241015T000000Z";\n', 1728950400),
        ("2023.6.20249999", None),
    ],
)
def test_a_lock_file_says_until_when(text, day):
    """A release has the updates of its own day, a snapshot those of before its moment."""
    assert locked_until(text) == day


def test_a_locked_host_is_compliant_and_vulnerable_until_it_is_unlocked(start):
    """Amazon Linux 2023's locked release: Install finds nothing newer; another release in the variable, and it does."""
    aws = start(FEW.replace("amazon: {os: amazon-linux-2023,", "amazon: {os: amazon-linux-2023, locked_to: 2023.5.20240101,"))
    host = aws.hosts("web")[0]
    assert aws.patch_state(host)["MissingCount"] == 0
    findings = {"filterCriteria": {"resourceId": [{"comparison": "EQUALS", "value": host}]}}
    assert aws.client("inspector2").list_findings(**findings)["findings"]
    aws.script(host, lines=["echo latest > /etc/dnf/vars/releasever"])
    aws.advance(60)
    aws.patch(host, operation="Scan")
    aws.advance(60)
    assert aws.patch_state(host)["MissingCount"] >= 4


def test_an_update_may_be_three_days_old_at_the_start(start):
    """A rule that waits for seven approves it after four more."""
    rule = "{filters: {CLASSIFICATION: [Security]}, approve_after_days: 7}"
    world = FEW.replace("{filters: {CLASSIFICATION: [Security]}, compliance_level: HIGH}", rule)
    aws = start(world.replace("regions:", "catalogue: {appears: {ALAS2023-2024-729: -259200}}\nregions:"))
    host = aws.hosts("web")[0]

    def missing():
        aws.patch(host, operation="Scan")
        aws.advance(100)
        return {row["KBId"] for row in aws.patches(host, "Missing")}

    assert "kernel.x86_64" in missing()
    assert "expat.x86_64" not in missing()
    aws.advance(4 * 86_400)
    assert "expat.x86_64" in missing()


def test_an_update_appears_while_a_campaign_runs(start):
    """Not there at the start, missing for whoever scans after its moment."""
    aws = start(FEW.replace("regions:", "catalogue: {appears: {ALAS2023-2025-813: 3600}}\nregions:"))
    host = aws.hosts("web")[0]
    assert not any(row["KBId"] == "rsync.x86_64" for row in aws.patches(host, "Missing"))
    aws.advance(3700)
    aws.patch(host, operation="Scan")
    aws.advance(60)
    assert any(row["KBId"] == "rsync.x86_64" for row in aws.patches(host, "Missing"))


@pytest.mark.parametrize(
    ("written", "least", "middle", "most"),
    [
        ([60, 180], 60, 120, 180),
        (90, 90, 90, 90),
        ({"lognormal": {"median": 120, "sigma": 0.6}, "least": 30, "most": 3600}, 30, 120, 3600),
        ({"normal": {"mean": 200, "deviation": 20}}, 0, 200, 400),
        ({"exponential": {"mean": 100}}, 0, 69, 5000),
        ({"parts": [{"share": 0.9, "range": [10, 20]}, {"share": 0.1, "range": [1000, 2000]}]}, 10, 15.5, 2000),
    ],
)
def test_durations_are_distributed_as_written(written, least, middle, most):
    """A thousand draws: their middle, and nothing outside."""
    spread = Spread.model_validate(written)
    drawn = sorted(spread.draw(Random(number)) for number in range(1000))
    assert least <= drawn[0]
    assert drawn[-1] <= most
    assert drawn[500] == pytest.approx(middle, rel=0.15)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("scan: [20, 20]", "scan: {lognormal: {median: 3}, range: [1, 2]}", 5, "timings.scan: give exactly one of range"),
        ("scan: [20, 20]", "scan: {parts: [{share: 0.5, range: [1, 2]}]}", 5, "timings.scan: parts: the shares add up to 0.5"),
        ("count: 5", "count: many", 28, "fleets.1.count: Input should be a valid integer"),
        ("template: ubuntu", "template: debian", 26, "fleets.1 (odd).template: 'debian' is not one of"),
        ("os: ubuntu-24.04", "os: rhel-9, locked_to: 2023.6.20241010", 15, "rhel-9 has no releases or snapshots"),
        (
            "regions:",
            "catalogue: {appears: {ALAS-1: 3}}\nregions:",
            4,
            "catalogue.appears: the catalogue has no advisory 'ALAS-1'",
        ),
        ("regions:", "faults: [{kind: agent_dead, host: web/9}]\nregions:", 4, "faults.0.host: 'web/9' is no host of the world"),
        ("regions:", "faults: [{kind: alarm_fires, alarm: red}]\nregions:", 4, "faults.0.alarm: 'red' is not one of"),
        ("name: few", "name: [few", 4, "is not YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, old, new, line, said):
    """file:line: field: what is allowed."""
    path = tmp_path / "wrong.yaml"
    path.write_text(FEW.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(WorldFileError) as refused:
        load(path, shipped())
    assert said in str(refused.value)
    assert abs(int(str(refused.value).removeprefix(f"{path}:").partition(":")[0]) - line) <= 3, str(refused.value)
