"""Faults: what goes wrong strikes whom it names, when it says, as often as it says, and looks as AWS's own failures do."""

import json
import urllib.error
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from botocore.exceptions import ConnectionError as ConnectionBroken

from awsim.faults import Kind
from tests.simulator.conftest import FEW

GROUP = FEW.replace(
    "    tags: {Environment: dev, PatchGroup: web}\n  - name: odd",
    "    tags: {Environment: dev, PatchGroup: web}\n    auto_scaling_group: {name: web, min: 2, max: 8}\n"
    "    target_group: {name: web-tg, deregistration_delay: 60}\n  - name: odd",
)


def code_of(call, **params):
    with pytest.raises(ClientError) as refused:
        call(**params)
    return refused.value.response["Error"]["Code"], refused.value.response["ResponseMetadata"]["HTTPStatusCode"]


# --- calls ---


def test_expired_credentials_look_as_each_protocol_says_it(aws):
    """Client libraries decide by these codes whether they fetch new credentials."""
    aws.control("faults", {"kind": "expired_credentials"})
    assert code_of(aws.ssm.list_commands) == ("ExpiredTokenException", 400)
    assert code_of(aws.ec2.describe_instances) == ("RequestExpired", 400)
    assert code_of(aws.client("autoscaling").describe_auto_scaling_groups) == ("ExpiredToken", 403)
    assert code_of(aws.client("inspector2").list_coverage) == ("ExpiredTokenException", 403)


@pytest.mark.parametrize(("effect", "sent"), [("before", 0), ("after", 1)])
def test_a_reset_connection_tells_nothing_of_what_was_done(aws, effect, sent):
    """The same exception in the client; the effect is there or not."""
    aws.control("faults", {"kind": "connection_reset", "effect": effect, "operation": "SendCommand", "times": 1})
    with pytest.raises((ConnectionClosedError, ConnectionBroken)):
        aws.patch(aws.hosts("web")[0])
    aws.advance(2)
    assert len(aws.ssm.list_commands()["Commands"]) == sent


def test_an_empty_page_with_a_token_hides_no_row(aws):
    """A paginator that follows the token gets everything; one that stops at an empty page would not."""
    every = {row["InstanceId"] for row in aws.ssm.describe_instance_information(MaxResults=50)["InstanceInformationList"]}
    aws.control("faults", {"kind": "empty_page", "operation": "DescribeInstanceInformation", "times": 2})
    first = aws.ssm.describe_instance_information(MaxResults=50)
    assert (first["InstanceInformationList"], bool(first["NextToken"])) == ([], True)
    pages = aws.ssm.get_paginator("describe_instance_information").paginate(PaginationConfig={"PageSize": 5})
    assert {row["InstanceId"] for page in pages for row in page["InstanceInformationList"]} == every


def test_a_slow_answer_waits_outside_the_lock(start, monkeypatch):
    """Real seconds, of this call only; the test owns the sleeping."""
    aws = start()
    slept = []
    monkeypatch.setattr(aws.simulator, "_sleep", slept.append)
    aws.control("faults", {"kind": "slow", "seconds": 7, "service": "ssm", "times": 1})
    aws.ssm.list_commands()
    aws.ssm.list_commands()
    assert slept == [7]


def test_a_fault_is_in_force_only_in_its_time(aws):
    """`after` and `lasts`, in virtual seconds from when it was added."""
    aws.control("faults", {"kind": "access_denied", "service": "ssm", "after": 60, "lasts": 30})
    aws.ssm.list_commands()
    aws.advance(60)
    assert code_of(aws.ssm.list_commands)[0] == "AccessDeniedException"
    aws.advance(30)
    aws.ssm.list_commands()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kind": "slow"}, "slow needs seconds"),
        ({"kind": "zone_lost"}, "zone_lost needs zone"),
        ({"kind": "empty_page"}, "empty_page needs times"),
        ({"kind": "throttle", "exit_code": 3}, "exit_code belongs to install_fails, package_manager_locked, not to throttle"),
        ({"kind": "agent_late", "seconds": 5, "service": "ssm"}, "is a fault of a host"),
        ({"kind": "earthquake"}, "kind: Input should be 'throttle'"),
        ({"kind": "error", "tag": "web"}, "is not Key=Value"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_with_the_reason(aws, body, said):
    """400, and what is allowed."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        aws.control("faults", body)
    assert (refused.value.code, said in refused.value.read().decode()) == (400, True)


# --- rate limits ---


def test_a_rate_limit_is_a_bucket_for_each_operation(aws):
    """A burst goes through, then it is refused; time fills it again; other operations and regions have their own."""
    aws.control("throttle", {"service": "ssm", "rate": 1, "burst": 3})
    for _ in range(3):
        aws.ssm.list_commands()
    assert code_of(aws.ssm.list_commands) == ("ThrottlingException", 400)
    aws.ssm.list_command_invocations()
    aws.client("ssm", region="us-east-1").list_commands()
    aws.ec2.describe_instances()
    aws.advance(2)
    aws.ssm.list_commands()
    aws.ssm.list_commands()
    assert code_of(aws.ssm.list_commands)[0] == "ThrottlingException"
    assert aws.control("throttle")["throttles"][0]["refused"] == 2
    aws.control("throttle", method="DELETE")
    aws.ssm.list_commands()


def test_a_profile_has_the_narrow_limits_first(aws):
    """SendCommand twice a second, other calls of ssm five times."""
    aws.control("throttle", {"profile": "strict"})
    host = aws.hosts("web")[0]
    for _ in range(2):
        aws.script(host, lines=["true"])
    with pytest.raises(ClientError, match="ThrottlingException"):
        aws.script(host, lines=["true"])
    with pytest.raises(urllib.error.HTTPError):
        aws.control("throttle", {"profile": "gentle"})


# --- hosts ---


def test_a_late_agent_takes_the_command_late(aws):
    """Pending until then; nothing is lost."""
    host, other = aws.hosts("web")[:2]
    aws.control("faults", {"kind": "agent_late", "host": host, "seconds": 120})
    command = aws.script(other, host, lines=["true"])
    aws.advance(30)
    assert aws.details(command) == {host: "Pending", other: "Success"}
    aws.advance(120)
    assert aws.details(command)[host] == "Success"


def test_an_agent_lost_in_the_middle_leaves_the_work_done_and_untold(aws):
    """The package manager goes on; SSM says InProgress until the agent is back."""
    host = aws.hosts("web")[0]
    aws.control("faults", {"kind": "agent_lost", "host": host, "operation": "Install", "seconds": 30, "lasts": 1800, "times": 1})
    command = aws.patch(host, Parameters={"RebootOption": ["NoReboot"]})
    aws.advance(600)
    assert "package_installed" in aws.events(host)
    assert "command_ended" in aws.events(host)
    assert aws.details(command)[host] == "InProgress"
    aws.advance(1500)
    assert aws.details(command)[host] == "Success"


@pytest.mark.parametrize("code", [1, 2, 3, 126, 143, 149, 152, 156, 160, 167])
def test_each_documented_exit_code_ends_the_command_failed(aws, code):
    """1 and 2 leave Failed rows, 3 leaves updates that wait for a boot, all others leave the old report."""
    host = aws.hosts("web")[0]
    before = aws.patch_state(host)
    aws.control("faults", {"kind": "install_fails", "host": host, "exit_code": code, "times": 1})
    command = aws.patch(host)
    aws.advance(1800)
    assert aws.details(command)[host] == "Failed"
    row = aws.ssm.get_command_invocation(CommandId=command, InstanceId=host, PluginName="PatchLinux")
    assert row["ResponseCode"] == code
    after = aws.patch_state(host)
    if code in (1, 2):
        assert after["FailedCount"] == before["MissingCount"]
    elif code == 3:
        assert (after["MissingCount"], "reboot_begun" in aws.events(host)) == (0, False)
        aws.patch(host, operation="Scan")
        aws.advance(60)
        assert aws.patch_state(host)["InstalledPendingRebootCount"] == before["MissingCount"]
    else:
        assert after == before


def test_a_full_disk_and_a_locked_package_manager_fail_the_install(aws):
    """Exit code 1 both; the disk leaves Failed rows, the lock no new report."""
    disk, lock = aws.hosts("web")[:2]
    before = aws.patch_state(lock)
    aws.control("faults", {"kind": "disk_full", "host": disk})
    aws.control("faults", {"kind": "package_manager_locked", "host": lock})
    command = aws.patch(disk, lock, MaxErrors="10")
    aws.advance(900)
    assert aws.details(command) == {disk: "Failed", lock: "Failed"}
    assert aws.patch_state(disk)["FailedCount"] > 0
    assert aws.patch_state(lock) == before


def test_a_second_reboot_is_done_and_five_are_not(aws):
    """The payload tries four times, then it exits with 3."""
    twice, never = aws.hosts("web")[:2]
    aws.control("faults", {"kind": "second_reboot", "host": twice, "times": 1})
    aws.control("faults", {"kind": "second_reboot", "host": never})
    command = aws.patch(twice, never, MaxErrors="10")
    aws.advance(1800)
    assert aws.details(command) == {twice: "Success", never: "Failed"}
    assert (aws.events(twice).count("reboot_ended"), aws.events(never).count("reboot_ended")) == (2, 4)


def test_a_reboot_storm_leaves_agents_asleep_after_the_machines_are_back(aws):
    """In service again, and yet no command reaches them for a while."""
    aws.control(
        "faults", {"kind": "reboot_storm", "tag": "PatchGroup=web", "region": "eu-central-1", "seconds": 1200, "after": 60}
    )
    hosts = aws.hosts("web")
    aws.advance(300)
    assert all(aws.events(host) == ["out_of_service", "reboot_begun", "reboot_ended", "in_service"] for host in hosts)
    command = aws.script(*hosts, lines=["true"])
    aws.advance(400)
    assert set(aws.details(command).values()) == {"Delayed"}
    aws.advance(900)
    assert set(aws.details(command).values()) == {"Success"}


def test_a_lost_zone_takes_its_hosts_down_and_gives_them_back(aws):
    """Running to EC2, impaired to its checks, silent to SSM; those of other zones are untouched."""
    rows = aws.control("hosts")["hosts"]
    lost = [row["host"] for row in rows if row["zone"] == "eu-central-1b" and row["name"].startswith("web/")]
    kept = [host for host in aws.hosts("web") if host not in lost]
    assert lost
    aws.control("faults", {"kind": "zone_lost", "zone": "eu-central-1b", "after": 10, "lasts": 900})
    aws.advance(400)
    checks = aws.ec2.describe_instance_status(InstanceIds=lost + kept)["InstanceStatuses"]
    assert {row["InstanceId"]: row["InstanceStatus"]["Status"] for row in checks} == {
        **dict.fromkeys(lost, "impaired"),
        **dict.fromkeys(kept, "ok"),
    }
    pings = {row["host"]: row["ping"] for row in aws.control("hosts")["hosts"]}
    assert {pings[host] for host in lost} == {"ConnectionLost"}
    aws.advance(700)
    assert {row["ping"] for row in aws.control("hosts")["hosts"] if row["host"] in lost} == {"Online"}


def test_an_event_with_a_probability_strikes_the_same_hosts_for_the_same_seed(start):
    """Drawn from the seed; another one strikes others."""
    struck = []
    for seed in (3, 3):
        aws = start(seed=seed)
        aws.control("faults", {"kind": "reboot_storm", "probability": 0.5})
        struck.append([row["name"] for row in aws.control("hosts")["hosts"] if row["rebooting"]])
    assert struck[0] == struck[1]
    assert 0 < len(struck[0]) < 9


# --- what AWS knows, and when ---


def test_an_update_that_is_withdrawn_is_missing_nowhere_any_more(start):
    """Between Dev and Prod: an Install of later does not get it, and its report does not ask for it."""
    aws = start(FEW.replace("regions:", "catalogue: {withdrawn: {ALAS2023-2024-729: 600}}\nregions:"))
    first, later = aws.hosts("web")[:2]
    aws.patch(first)
    aws.advance(900)
    assert any(row["KBId"] == "expat.x86_64" and row["State"] == "Installed" for row in aws.patches(first, "Installed"))
    assert any(row["KBId"] == "expat.x86_64" for row in aws.patches(later, "Missing"))
    aws.patch(later)
    aws.advance(900)
    installed = [line["package"] for line in aws.journal() if line["host"] == later and line["event"] == "package_installed"]
    assert installed
    assert "expat" not in installed
    assert aws.patch_state(later)["MissingCount"] == 0


@pytest.mark.parametrize(
    ("where", "gone"), [({"region": "us-east-1"}, False), ({"region": "eu-central-1"}, True), ({"account": "111111111111"}, True)]
)
def test_an_update_may_be_withdrawn_in_one_region_only(start, where, gone):
    """Amazon Linux has a repository in each; the others offer it as before."""
    aws = start(FEW)
    host = aws.hosts("web")[0]
    aws.control("faults", {"kind": "update_withdrawn", "advisory": "ALAS2023-2024-729", **where})
    aws.patch(host, operation="Scan")
    aws.advance(100)
    assert any(row["KBId"] == "expat.x86_64" for row in aws.patches(host, "Missing")) is not gone


def test_a_late_inspector_keeps_its_findings_longer(aws):
    """The inventory of now is known to it hours later."""
    host = aws.hosts("web")[0]
    findings = {"filterCriteria": {"resourceId": [{"comparison": "EQUALS", "value": host}]}}
    inspector = aws.client("inspector2")
    assert inspector.list_findings(**findings)["findings"]
    aws.control("faults", {"kind": "inspector_late", "seconds": 7200})
    aws.patch(host)
    aws.advance(4000)
    active = [row for row in inspector.list_findings(**findings)["findings"] if row["status"] == "ACTIVE"]
    assert any("packageVulnerabilityDetails" in row for row in active)
    late = len(active)
    aws.advance(6000)
    assert len([row for row in inspector.list_findings(**findings)["findings"] if row["status"] == "ACTIVE"]) < late


def test_an_alarm_fires_at_its_moment(start):
    """One of the world file, moved by a fault of the world file."""
    aws = start(
        FEW + "alarms: [web-errors]\nfaults: [{kind: alarm_fires, alarm: web-errors, region: eu-central-1, after: 120}]\n"
    )
    cloudwatch = aws.client("cloudwatch")
    state = lambda: cloudwatch.describe_alarms(AlarmNames=["web-errors"])["MetricAlarms"][0]["StateValue"]  # noqa: E731
    assert state() != "ALARM"
    aws.advance(121)
    assert state() == "ALARM"


def test_a_group_scales_in_the_middle_of_things(start):
    """Out, and a replacement: there are other hosts than before."""
    aws = start(GROUP)
    before = set(aws.hosts("web"))
    aws.control("faults", {"kind": "group_scales_out", "group": "web", "number": 2, "after": 30})
    aws.advance(600)
    rows = [row for row in aws.control("hosts")["hosts"] if row["auto_scaling_group"] == "web" and row["state"] == "running"]
    assert len(rows) == 6
    assert before < {row["host"] for row in rows}


def test_a_group_scales_in_or_replaces_by_itself(start):
    """Two hosts go though nobody asked; one is replaced by another one."""
    aws = start(GROUP)
    aws.control("faults", {"kind": "group_scales_in", "group": "web", "number": 2, "after": 30})
    aws.advance(600)
    members = [
        row["host"] for row in aws.control("hosts")["hosts"] if row["auto_scaling_group"] == "web" and row["state"] == "running"
    ]
    assert len(members) == 2
    gone = [line for line in aws.journal() if line["event"] == "out_of_service"]
    assert [(line["reason"], line["cause"]["request_id"]) for line in gone] == [("terminating", None)] * 2
    aws.control("faults", {"kind": "group_replaces", "group": "web"})
    aws.advance(600)
    assert [line["host"] for line in aws.journal() if line["event"] == "replaced"] == members[:1]


def test_a_late_config_repeats_the_old_verdict(start):
    """The host is compliant, and Config says so hours later."""
    rule = "ec2-managedinstance-patch-compliance-status-check"
    aws = start(FEW + f"config_rules: [{{name: {rule}}}]\n")
    host, other = aws.hosts("web")[:2]

    def verdict(of: str) -> str:
        rows = aws.client("config").get_compliance_details_by_config_rule(ConfigRuleName=rule)["EvaluationResults"]
        found = {row["EvaluationResultIdentifier"]["EvaluationResultQualifier"]["ResourceId"]: row for row in rows}
        return str(found[f"AWS::SSM::ManagedInstanceInventory/{of}"]["ComplianceType"])

    assert (verdict(host), verdict(other)) == ("NON_COMPLIANT", "NON_COMPLIANT")
    aws.control("faults", {"kind": "config_late", "host": host, "seconds": 7200})
    aws.patch(host, other)
    aws.advance(3000)
    assert (verdict(host), verdict(other)) == ("NON_COMPLIANT", "COMPLIANT")
    aws.advance(6000)
    assert verdict(host) == "COMPLIANT"


# --- each kind, wherever it is written ---

WRITTEN = {
    Kind.SLOW: {"seconds": 1},
    Kind.EMPTY_PAGE: {"times": 1},
    Kind.AGENT_DEAD: {"host": "web/1"},
    Kind.AGENT_ONLINE: {"tag": "PatchGroup=web"},
    Kind.AGENT_LATE: {"seconds": 60},
    Kind.AGENT_LOST: {"seconds": 60},
    Kind.ZONE_LOST: {"zone": "eu-central-1b"},
    Kind.GROUP_SCALES_OUT: {"group": "web"},
    Kind.GROUP_SCALES_IN: {"group": "web"},
    Kind.GROUP_REPLACES: {"group": "web"},
    Kind.CONFIG_LATE: {"seconds": 60},
    Kind.INSPECTOR_LATE: {"seconds": 60},
    Kind.UPDATE_WITHDRAWN: {"advisory": "ALAS2023-2024-729"},
    Kind.ALARM_FIRES: {"alarm": "web-errors"},
    Kind.IMAGE_BUILD_FAILS: {"image_state": "TESTING"},
    Kind.IMAGE_DISTRIBUTION_FAILS: {"to_region": "us-east-1"},
    Kind.IMAGE_UNHEALTHY: {"pipeline": "web"},
    Kind.ALARM_IN_REFRESH: {"alarm": "web-errors"},
}
"""What a kind needs to be complete."""


def test_every_kind_is_taken_by_the_world_file_as_by_the_control_api(start):
    """The same fields: whom, where, when and how often."""
    where = {"account": "111111111111", "region": "eu-central-1", "after": 100_000, "probability": 0.5}
    faults = [{"kind": kind.value, **where, **WRITTEN.get(kind, {})} for kind in Kind]
    aws = start(GROUP + "alarms: [web-errors]\nfaults: " + json.dumps(faults) + "\n")
    written = [fault for fault in aws.control("faults")["faults"] if fault.get("after")]  # one is of a host's exceptions
    assert [fault["kind"] for fault in written] == [kind.value for kind in Kind]
    aws.control("faults", method="DELETE")
    posted = [aws.control("faults", fault) for fault in faults]
    forget = {"id"}
    assert [{name: value for name, value in fault.items() if name not in forget} for fault in posted] == [
        {name: value for name, value in fault.items() if name not in forget} for fault in written
    ]


def test_the_reference_lists_every_kind():
    """docs/awsim-reference.md is generated: forgotten `make docs` is found here."""
    text = (Path(__file__).parents[2] / "docs" / "awsim-reference.md").read_text(encoding="utf-8")
    assert [kind for kind in Kind if f"| `{kind.value}` |" not in text] == []


def test_a_fault_of_a_call_strikes_its_account_region_and_operation_only(aws):
    """Anybody else is answered."""
    strike = {"kind": "throttle", "service": "ssm", "operation": "ListCommands", "region": "eu-central-1"}
    aws.control("faults", {**strike, "account": "222222222222"})
    aws.ssm.list_commands()
    aws.control("faults", {**strike, "account": "111111111111"})
    assert code_of(aws.ssm.list_commands) == ("ThrottlingException", 400)
    aws.ssm.list_command_invocations()
    aws.client("ssm", region="us-east-1").list_commands()
    assert [fault["struck"] for fault in aws.control("faults")["faults"] if fault["kind"] == "throttle"] == [0, 1]


def test_a_fault_of_a_call_with_a_probability_strikes_some(start):
    """Drawn from the seed: the same calls meet it again."""

    def struck(seed: int) -> list[bool]:
        aws, found = start(seed=seed), []
        aws.control("faults", {"kind": "error", "service": "ssm", "probability": 0.4})
        for _ in range(20):
            try:
                aws.ssm.list_commands()
                found.append(False)
            except ClientError:
                found.append(True)
        return found

    assert struck(5) == struck(5) != struck(6)
    assert 2 < sum(struck(5)) < 16


@pytest.mark.parametrize(
    "whom",
    [
        {"host": "web/2"},
        {"tag": "Name=web-02"},
        {"host": ["web/2", "odd/1"], "account": "111111111111", "region": "eu-central-1"},
    ],
)
def test_a_fault_of_a_host_finds_it_by_name_by_tag_and_by_place(aws, whom):
    """Only that one fails; in another region none would."""
    hosts = aws.hosts("web")
    aws.control("faults", {"kind": "install_fails", "operation": "Install", "region": "us-east-1"})
    aws.control("faults", {"kind": "install_fails", "operation": "Install", **whom})
    command = aws.patch(*hosts, MaxErrors="10")
    aws.advance(1800)
    assert aws.details(command) == {host: "Failed" if host == hosts[1] else "Success" for host in hosts}
    again = aws.patch(*hosts, operation="Scan")
    aws.advance(300)
    assert set(aws.details(again).values()) == {"Success"}
