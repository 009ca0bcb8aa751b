"""The world: what a file may say, what the journal says, and that the same seed makes the same world."""

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from awsim import __main__ as command
from awsim.catalogue import shipped
from awsim.world_file import WorldFileError, load
from tests.simulator.conftest import ACCOUNT, BASE, FEW, SMALL


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: few", "nam: few", "nam: Extra inputs are not permitted"),
        (
            "os: ubuntu-24.04",
            "os: ubuntu-26.10",
            "templates.ubuntu.os: 'ubuntu-26.10' is not one of amazon-linux-2, amazon-linux-2023",
        ),
        ("template: ubuntu", "template: debian", "template: 'debian' is not one of amazon, ubuntu"),
        ("scan: [20, 20]", "scan: [20, 10]", "timings.scan: [20.0, 10.0] is not a range"),
        ("{host: 1, agent: connection_lost}", "{host: 9, agent: connection_lost}", "host 9 does not exist, the fleet has 5"),
        (
            "{host: 1, agent: connection_lost}",
            "{host: 1, agent: asleep}",
            "fleets.1.exceptions.0.agent: Input should be 'online'",
        ),
        ("always: [kernel, expat]", "always: [emacs]", "the catalogue of amazon-linux-2023 has no update of package 'emacs'"),
        ("not_patchable: [go-binary-stdlib]", "not_patchable: [rust]", "'rust' is not one of go-binary-stdlib"),
        ("count: 4", "count: many", "fleets.0.count: Input should be a valid integer"),
        ("region: us-east-1", "region: mars-1", "region: 'mars-1' is not one of eu-central-1, us-east-1"),
        ("name: few", "name: [few", "is not YAML"),
    ],
)
def test_a_wrong_world_file_is_told_with_file_field_and_what_is_allowed(tmp_path, old, new, said):
    """Whoever writes a world finds the line without reading our code."""
    path = tmp_path / "wrong.yaml"
    path.write_text(FEW.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(WorldFileError) as refused:
        load(path, shipped())
    assert str(path) in str(refused.value)
    assert said in str(refused.value)


def test_the_small_world_is_what_it_promises(start):
    """6 dev, 10 staging, 50 prod; the defects that a campaign must survive."""
    aws = start(SMALL)
    rows = aws.control("hosts")["hosts"]
    per_environment = {name: sum(row["tags"]["Environment"] == name for row in rows) for name in ("dev", "staging", "prod")}
    assert per_environment == {"dev": 6, "staging": 10, "prod": 50}
    assert sum(row["ping"] == "ConnectionLost" and row["state"] == "running" for row in rows) == 1
    assert sum(row["state"] == "stopped" for row in rows) == 1
    assert sum(not row["inspector"]["covered"] for row in rows) == 1
    assert sum(row["patch_report"]["compliant"] for row in rows) == 1
    assert {row["platform"] for row in rows} == {"amazon-linux-2023", "ubuntu-22.04", "ubuntu-24.04"}
    assert all(5 <= row["patch_report"]["missing"] <= 12 for row in rows if not row["patch_report"]["compliant"])
    (group,) = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["DesiredCapacity"], group["MaxSize"], group["HealthCheckType"]) == (45, 50, 60, "EC2")
    assert {instance["LifecycleState"] for instance in group["Instances"]} == {"InService"}
    assert len({instance["AvailabilityZone"] for instance in group["Instances"]}) == 3
    assert {row["host"] for row in rows if row["tags"]["Environment"] == "prod"} == {
        one["InstanceId"] for one in group["Instances"]
    }


ACCOUNTS = 'accounts: [{id: "111111111111"}, {id: "222222222222", roles: [patching]}]'


def test_credentials_mean_the_worlds_account_and_roles_mean_theirs(start):
    """The first account by default, any other by AssumeRole."""
    aws = start(FEW.replace('accounts: [{id: "111111111111"}]', ACCOUNTS))
    assert aws.client("sts").get_caller_identity()["Account"] == ACCOUNT
    arn = "arn:aws:iam::222222222222:role/patching"
    role = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="rehearsal")["Credentials"]
    other = {
        "aws_access_key_id": role["AccessKeyId"],
        "aws_secret_access_key": role["SecretAccessKey"],
        "aws_session_token": role["SessionToken"],
    }
    assert aws.client("sts", **other).get_caller_identity()["Account"] == "222222222222"
    assert aws.client("ssm", **other).describe_instance_information()["InstanceInformationList"] == []


def told(aws):
    """The journal without what may differ: the wall clock."""
    return [{key: value for key, value in line.items() if key != "real_at"} for line in aws.journal()]


def test_the_same_seed_and_calls_make_the_same_journal(start):
    """Ids, durations and order; another seed makes another world."""
    journals = []
    for seed in (7, 7, 8):
        aws = start(seed=seed)
        aws.patch(*aws.hosts("web"), Comment="token")
        aws.advance(900)
        journals.append(told(aws))
    assert journals[0] == journals[1]
    assert len(journals[0]) > 20
    assert journals[0][0]["host"] != journals[2][0]["host"]


def test_a_journal_line_names_host_tags_operation_and_cause(aws):
    """With the tags of that moment."""
    host = aws.hosts("web")[0]
    aws.ec2.create_tags(Resources=[host], Tags=[{"Key": "Campaign", "Value": "weekly"}])
    command = aws.patch(host, operation="Scan", Comment="run-7/wave-1")
    aws.advance(60)
    first = aws.journal()[0]
    assert list(first)[:9] == ["at", "real_at", "host", "account", "region", "tags", "event", "operation", "cause"]
    assert (first["host"], first["account"], first["region"]) == (host, ACCOUNT, "eu-central-1")
    assert (first["event"], first["operation"], first["tags"]["Campaign"]) == ("command_begun", "Scan", "weekly")
    assert first["cause"]["command_id"] == command
    assert first["cause"]["comment"] == "run-7/wave-1"
    assert first["cause"]["request_id"]
    assert first["at"] == "2026-01-05T08:00:01.500Z"


def test_events_keep_their_own_moments_however_late_somebody_looks(aws):
    """One jump of an hour or a hundred small ones: the same moments."""
    aws.patch(*aws.hosts("web")[:2])
    aws.advance(3600)
    moments = [line["at"] for line in aws.journal()]
    assert moments == sorted(moments)
    assert len(set(moments)) > 10


def test_the_clock_stands_still_is_sped_up_and_never_goes_back(aws):
    """`/_awsim/clock` and `/_awsim/advance`."""
    before = aws.control("clock")
    assert (before["paused"], before["now"]) == (True, "2026-01-05T08:00:00.000Z")
    assert aws.control("advance", {"seconds": 90})["now"] == "2026-01-05T08:01:30.000Z"
    assert aws.control("clock", {"speed": 60})["speed"] == 60
    assert aws.control("clock", {"paused": True})["paused"] is True
    with pytest.raises(Exception, match="400"):
        aws.control("advance", {"seconds": -1})


def test_a_reset_of_moto_empties_awsim_and_its_own_reset_brings_the_world_back(aws):
    """Both in one process, as moto's own tests want it."""
    import urllib.request

    hosts = aws.hosts()
    urllib.request.urlopen(urllib.request.Request(f"{aws.url}/moto-api/reset", method="POST"))
    assert aws.hosts() == []
    assert aws.ssm.describe_instance_information()["InstanceInformationList"] == []
    aws.control("reset", {})
    assert aws.hosts() == hosts


@pytest.mark.parametrize("anew", ["reset", "another simulator"])
def test_a_world_that_is_over_takes_no_memory(anew, start):
    """A process of thousands of tests, or resets, stays as small as one world: the world and moto's backends are let go."""
    from moto.ec2.models import ec2_backends

    aws = start()
    aws.patch(*aws.hosts("web"))
    aws.advance(900)
    over = [weakref.ref(aws.simulator.world), weakref.ref(ec2_backends[ACCOUNT]["eu-central-1"])]
    if anew == "reset":
        aws.control("reset", {})
    else:
        del aws
        aws = start()
    gc.collect()
    assert [one() for one in over] == [None, None]


def test_a_port_in_use_is_one_clear_line(aws):
    """Exit status 2, before anything else is made."""
    port = aws.url.rpartition(":")[2]
    include = Path(__file__).parents[2] / "include"
    ended = subprocess.run(
        [sys.executable, "-m", "awsim", "--port", port], capture_output=True, text=True, cwd=include, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.strip() == f"awsim: 127.0.0.1:{port} cannot be listened on: Address already in use; choose another --port"


@pytest.mark.parametrize(
    ("option", "given", "said"),
    [
        ("--base", "tomorrow", "argument --base: tomorrow is no moment; write one as 2026-01-05T08:00:00Z"),
        (
            "--speed",
            "fast",
            "argument --speed: fast is not a speed; 0 stops the clock, 1 is real time, 60 makes an hour a minute",
        ),
        ("--port", "70000", "argument --port: 70000 is no port; 0 takes a free one, 65535 is the highest"),
    ],
)
def test_an_option_that_says_nothing_is_one_clear_line(option, given, said, capsys):
    """Exit status 2, and no traceback."""
    with pytest.raises(SystemExit) as ended:
        command.main([option, given])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"python -m awsim: error: {said}"


@pytest.mark.parametrize("given", ["2026-01-05T08:00:00", "2026-01-05T08:00:00Z", "2026-01-05T10:00:00+02:00"])
def test_a_base_is_in_utc_unless_it_says_otherwise(given):
    """An offset is heeded, not dropped."""
    assert command._parser().parse_args(["--base", given]).base == BASE


def test_the_journal_summary_counts_hosts_in_flight(aws):
    """By tag and by Auto Scaling group, from the journal alone."""
    hosts = aws.hosts("web")
    aws.patch(*hosts[:2], Comment="a")
    aws.advance(900)
    aws.patch(*hosts[2:], Comment="b")
    aws.advance(900)
    summary = aws.control("journal/summary")
    assert summary["max_in_flight"]["PatchGroup=web"] == 2
    assert summary["commands_per_host"] == {host: {"Install": 1} for host in hosts}


def test_operations_nobody_simulates_say_so(aws):
    """501 with a code, not an HTML page that looks like a broken network."""
    with pytest.raises(ClientError) as refused:
        aws.ssm.describe_activations()
    assert refused.value.response["Error"]["Code"] == "NotImplementedByAwsim"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


@pytest.mark.parametrize(
    ("service", "operation", "request_"),
    [
        ("ec2", "describe_locked_snapshots", {}),
        ("autoscaling", "describe_account_limits", {}),
        ("cloudwatch", "describe_alarm_history", {}),
        ("organizations", "describe_effective_policy", {"PolicyType": "TAG_POLICY"}),
        ("elbv2", "describe_trust_stores", {}),
    ],
)
def test_what_moto_lacks_is_refused_in_each_protocol(aws, service, operation, request_):
    """501 with a code that a client can read, instead of a page of HTML."""
    with pytest.raises(ClientError) as refused:
        getattr(aws.client(service), operation)(**request_)
    told = refused.value.response
    assert (told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"]) == ("NotImplementedByAwsim", 501)
    assert "neither by awsim nor by moto" in told["Error"]["Message"]


def test_a_handler_for_an_operation_that_does_not_exist_is_refused_at_import():
    """A typo would otherwise be an operation that is never called."""
    from awsim.registry import operation

    with pytest.raises(LookupError, match="has no operation 'SendComand'"):
        operation("ssm", "SendComand")


def test_hosts_are_told_as_json(aws):
    """For tests and the demo."""
    row = json.loads(aws.raw("hosts"))["hosts"][0]
    assert {"host", "name", "tags", "state", "ping", "patch_report", "platform"} <= set(row)
