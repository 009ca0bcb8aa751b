"""`python -m awsim record`: a world from an account (awsim itself is the account), read-only and without ids."""

import re

import boto3
import pytest
import yaml

from awsim import __main__ as command
from awsim import record
from awsim.catalogue import shipped
from awsim.world_file import load
from tests.simulator.conftest import SMALL

ID = re.compile(r"\b(i|ami|vpc|subnet|pb)-[0-9a-f]{8,17}\b|arn:aws|10\.20\.\d+\.\d+")


def recorded(aws, path, monkeypatch, *more):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    given = ["record", "--region", "eu-central-1,us-east-1", "--endpoint-url", aws.url, "--out", str(path), *more]
    assert command.main(given) == 0
    return load(path, shipped())


def test_a_recorded_world_has_the_fleet_and_nothing_that_identifies_it(start, tmp_path, monkeypatch):
    """As many hosts of each OS, their states, groups and baselines; no id, ARN or address."""
    aws = start(SMALL)
    aws.ec2.create_tags(
        Resources=[aws.hosts("dev-eu")[0]], Tags=[{"Key": "Note", "Value": "see i-0123456789abcdef0 and 10.20.1.4"}]
    )
    world = recorded(aws, tmp_path / "recorded.yaml", monkeypatch)
    text = (tmp_path / "recorded.yaml").read_text(encoding="utf-8")
    assert ID.search(text) is None
    assert "see masked and masked" in text
    assert sum(fleet.count for fleet in world.fleets) == 66
    per_os = {}
    for fleet in world.fleets:
        for part in fleet.mix:
            system = world.templates[part.template].os
            per_os[system] = per_os.get(system, 0) + part.count
    assert per_os["amazon-linux-2023"] + per_os["ubuntu-22.04"] + per_os["ubuntu-24.04"] == 66
    (group,) = [fleet for fleet in world.fleets if fleet.auto_scaling_group]
    assert (group.count, group.auto_scaling_group.min, group.auto_scaling_group.max) == (50, 45, 60)
    unlike = [exception for fleet in world.fleets for exception in fleet.exceptions]
    assert sum(one.agent.value == "connection_lost" for one in unlike) == 1
    assert sum(one.state.value == "stopped" for one in unlike) == 1
    assert {baseline.name for baseline in world.baselines} == {"linux-al2023", "linux-ubuntu"}


def test_a_recorded_world_runs_and_has_the_same_counts(start, tmp_path, monkeypatch):
    """The point of it: a rehearsal on it meets as many hosts that are in the same state."""
    aws = start()
    before = aws.control("hosts")["hosts"]
    recorded(aws, tmp_path / "recorded.yaml", monkeypatch)
    rows = start(tmp_path / "recorded.yaml").control("hosts")["hosts"]
    for fact in ("platform", "state", "ping", "account"):
        assert sorted(str(row[fact]) for row in rows) == sorted(str(row[fact]) for row in before), fact


def test_tags_are_kept_only_as_asked(start, tmp_path, monkeypatch):
    """A tag may name a customer; patch groups are needed always."""
    recorded(start(), tmp_path / "recorded.yaml", monkeypatch, "--tags", "Team")
    kept = {key for fleet in yaml.safe_load((tmp_path / "recorded.yaml").read_text())["fleets"] for key in fleet["tags"]}
    assert kept == {"PatchGroup", "Patch Group"}


def test_a_call_that_could_change_something_is_refused_before_it_is_made(aws):
    """Whatever a later version of the recorder asks for."""
    session = boto3.Session(aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="secret")
    recorder = record.Recorder(session=session, endpoint=aws.url, kept_tags=None)
    client = recorder.client("ec2", "eu-central-1")
    assert client.describe_instances()["Reservations"]
    with pytest.raises(record.NotReadOnly, match="TerminateInstances"):
        client.terminate_instances(InstanceIds=aws.hosts("web"))
    assert all(row["state"] == "running" for row in aws.control("hosts")["hosts"] if row["name"].startswith("web"))


def test_an_account_that_refuses_is_one_clear_line(start, tmp_path, monkeypatch, capsys):
    """Exit status 2, and no file."""
    aws = start()
    aws.control("faults", {"kind": "expired_credentials"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    given = ["record", "--region", "eu-central-1", "--endpoint-url", aws.url, "--out", str(tmp_path / "none.yaml")]
    assert command.main(given) == 2
    assert "ExpiredToken" in capsys.readouterr().err
    assert not (tmp_path / "none.yaml").exists()
