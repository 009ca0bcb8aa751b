"""Hooks: an Airflow connection becomes a gateway or a ledger, the environment becomes the campaign's clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from patchwave.campaign import errors
from patchwave.campaign.values import Cell, HostId, RunId
from patchwave.hooks import clock
from patchwave.hooks.aws import PatchwaveAwsHook
from patchwave.hooks.ledger import LedgerNotConnected, ledger
from tests.gateway.conftest import CELL, Server, answers, host

ELSEWHERE = Cell(account="222222222222", region="us-east-1")


class Aws(Server):
    """STS in the account 111111111111, and a Systems Manager that knows no host."""

    def __init__(self) -> None:
        super().__init__()
        self.behaviour = self.answer
        self.keys: list[str] = []
        self.roles: list[str] = []

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if "X-Amz-Target" in handler.headers:
            self.keys.append(handler.headers["Authorization"].split("Credential=")[1].split("/")[0])
            answers(200, '{"InstancePatchStates":[]}')(handler)
            return
        form = parse_qs(self.bodies[-1])
        action = form["Action"][0]
        if action == "AssumeRole":
            self.roles.append(form["RoleArn"][0])
        answers(200, _IDENTITY if action == "GetCallerIdentity" else _ROLE)(handler)


_IDENTITY = (
    "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::111111111111:user/patch</Arn>"
    "<UserId>U</UserId><Account>111111111111</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
)
_ROLE = (
    "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAOFTHEROLE</AccessKeyId>"
    "<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
    "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
)


@pytest.fixture
def aws() -> Iterator[Aws]:
    aws = Aws()
    yield aws
    aws.close()


def connect(monkeypatch: pytest.MonkeyPatch, **extra: object) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_TEST",
        json.dumps({"conn_type": "aws", "login": "AKIAOFTHECONN", "password": "secret", "extra": extra}),
    )


def test_the_connections_own_account_is_used_without_a_role(monkeypatch: pytest.MonkeyPatch, aws: Aws) -> None:
    """The endpoint is the connection's; nobody needs a role to be who they are."""
    connect(monkeypatch, endpoint_url=aws.url)
    PatchwaveAwsHook("aws_test").gateway().patch_states(CELL, [HostId(host(1))])
    assert (aws.keys, aws.roles) == (["AKIAOFTHECONN"], [])


def test_another_account_is_reached_by_the_role_there(monkeypatch: pytest.MonkeyPatch, aws: Aws) -> None:
    """The role is assumed once, whatever number of calls is made."""
    connect(monkeypatch, endpoint_url=aws.url)
    gateway = PatchwaveAwsHook("aws_test").gateway()
    for _ in range(2):
        gateway.patch_states(ELSEWHERE, [HostId(host(1))])
    assert aws.keys == ["ASIAOFTHEROLE"] * 2
    assert aws.roles == ["arn:aws:iam::222222222222:role/PatchwaveRole"]


def test_the_connection_names_the_role(monkeypatch: pytest.MonkeyPatch, aws: Aws) -> None:
    """Organisations have naming rules of their own."""
    connect(monkeypatch, endpoint_url=aws.url, patchwave_role_name="ops/Patching")
    PatchwaveAwsHook("aws_test").gateway().patch_states(ELSEWHERE, [HostId(host(1))])
    assert aws.roles == ["arn:aws:iam::222222222222:role/ops/Patching"]


def test_without_an_endpoint_the_environments_is_used(monkeypatch: pytest.MonkeyPatch, aws: Aws) -> None:
    """AWS_ENDPOINT_URL turns every connection towards a simulator, the role's session included."""
    connect(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    PatchwaveAwsHook("aws_test").gateway().patch_states(ELSEWHERE, [HostId(host(1))])
    assert aws.keys == ["ASIAOFTHEROLE"]


def test_a_services_own_endpoint_wins(monkeypatch: pytest.MonkeyPatch, aws: Aws) -> None:
    """As with Airflow's own hooks: service_config.<service>.endpoint_url."""
    silent = Server()
    silent.behaviour = answers(400, '{"__type":"AccessDeniedException"}')
    connect(monkeypatch, endpoint_url=aws.url, service_config={"ssm": {"endpoint_url": silent.url}})
    with pytest.raises(errors.AccessDenied):
        PatchwaveAwsHook("aws_test").gateway().patch_states(CELL, [HostId(host(1))])
    silent.close()
    assert aws.keys == []
    assert len(silent.requests) == 1


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({}, ("", "")),
        ({"patchwave_lists_bucket": "acme-lists"}, ("acme-lists", "acme-lists")),
        ({"patchwave_lists_bucket": {"us-east-1": "acme-lists-us"}}, ("", "acme-lists-us")),
    ],
)
def test_the_connection_names_the_bucket_of_lists_for_all_regions_or_for_each(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, object], named: tuple[str, str]
) -> None:
    """Hosts read a list across regions, but not every organisation lets them."""
    connect(monkeypatch, **extra)
    hook = PatchwaveAwsHook("aws_test")
    assert (hook.lists_bucket("eu-central-1"), hook.lists_bucket("us-east-1")) == named


def test_a_trigger_reads_the_connection_in_its_event_loop(monkeypatch: pytest.MonkeyPatch, aws: Aws) -> None:
    """Afterwards its threads ask nobody for it."""
    connect(monkeypatch, endpoint_url=aws.url)
    hook = asyncio.run(PatchwaveAwsHook("aws_test").prepared())
    monkeypatch.delenv("AIRFLOW_CONN_AWS_TEST")
    hook.gateway().patch_states(CELL, [HostId(host(1))])
    assert aws.keys == ["AKIAOFTHECONN"]


def test_the_ledger_is_the_one_that_its_connection_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty ledger knows no run."""
    monkeypatch.setenv("AIRFLOW_CONN_PATCHWAVE_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "l.db")}))
    with pytest.raises(KeyError):
        ledger().run(RunId("patch/none"))
    assert (tmp_path / "l.db").exists()


def test_a_ledger_without_a_connection_says_which_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Permanent: a retry would find it missing again."""
    monkeypatch.delenv("AIRFLOW_CONN_NO_LEDGER", raising=False)
    with pytest.raises(LedgerNotConnected, match="AIRFLOW_CONN_NO_LEDGER"):
        ledger("no_ledger")


# the clock ------------------------------------------------------------------------------------------------------------
def at(monkeypatch: pytest.MonkeyPatch, real: float, written: str) -> None:
    monkeypatch.setattr("patchwave.hooks.clock.time.time", lambda: real)
    monkeypatch.setenv(clock.VARIABLE, written)


def test_a_rehearsal_runs_as_many_times_faster_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten real seconds at speed 360 are an hour."""
    begin = datetime(2026, 3, 3, 22, tzinfo=UTC)
    at(monkeypatch, 1010.0, f"1000,{begin.timestamp()},360")
    assert clock.now() == begin + timedelta(hours=1)
    assert clock.speed() == 360
    assert clock.real_delay(begin + timedelta(hours=2)) == 10
    assert clock.real_delay(begin) == 0
    assert clock.real_time_of(begin + timedelta(hours=2)) == datetime.fromtimestamp(1020, UTC)


def test_without_a_rehearsal_time_is_real_and_aware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naive datetimes cannot be compared with AWS's."""
    monkeypatch.delenv(clock.VARIABLE, raising=False)
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.speed() == 1
    moment = datetime(2026, 3, 3, 22, tzinfo=UTC)
    assert clock.real_time_of(moment) == moment


@pytest.mark.parametrize("written", ["yesterday", "1,2", "1,2,3,4", "1,2,0", "1,2,-5", "1,2,nan"])
def test_a_clock_that_is_misset_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    """A campaign that silently ran on real time would soak for hours."""
    monkeypatch.setenv(clock.VARIABLE, written)
    with pytest.raises(clock.ClockMisset, match=clock.VARIABLE):
        clock.now()
