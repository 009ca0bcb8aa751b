"""A call with an effect is made once, whatever becomes of its answer; counted by the server and not by the client."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from botocore.config import Config

from patchwave.aws.calls import Session
from patchwave.aws.gateway import Gateway
from patchwave.aws.identity import assumed
from patchwave.campaign import errors
from patchwave.campaign.values import Cell, HostId
from tests.gateway.conftest import CELL, Server, answers, hangs_up, host, session_with_keys

QUICK = Config(retries={"mode": "standard", "total_max_attempts": 3}, read_timeout=2)


def gateway(server: Server, **options: Any) -> Gateway:
    return Gateway(session_with_keys, endpoint_url=server.url, **options)


def send(gateway: Gateway) -> object:
    return gateway.send(
        CELL,
        document="AWS-RunPatchBaseline",
        parameters={"Operation": ("Scan",)},
        hosts=[HostId(host(1))],
        comment="patchwave",
        timeout=timedelta(minutes=10),
    )


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_on_send_command_is_an_unknown_outcome_after_one_request(server: Server, status: int) -> None:
    """The error may come after the command was taken, so botocore must not try again by itself."""
    server.behaviour = answers(status, '{"__type":"InternalServerError","message":"oops"}')
    with pytest.raises(errors.OutcomeUnknown):
        send(gateway(server))
    assert server.requests == ["AmazonSSM.SendCommand"]


def test_a_connection_that_closes_without_an_answer_is_an_unknown_outcome_after_one_request(server: Server) -> None:
    """A lost answer says nothing about the effect."""
    server.behaviour = hangs_up
    with pytest.raises(errors.OutcomeUnknown):
        send(gateway(server))
    assert len(server.requests) == 1


def test_silence_is_an_unknown_outcome_after_one_request(server: Server) -> None:
    """The read time-out ends the wait and not the command."""
    server.behaviour = server.says_nothing
    once = Config(retries={"mode": "standard", "total_max_attempts": 1}, read_timeout=0.2)
    with pytest.raises(errors.OutcomeUnknown):
        send(gateway(server, unrepeated=once))
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", ["", "{}", '{"Command":{}}', "<html>"])
def test_an_answer_without_a_command_is_an_unknown_outcome(server: Server, body: str) -> None:
    """HTTP 200 of something that is not AWS, or of half an answer, proves neither yes nor no."""
    server.behaviour = answers(200, body)
    with pytest.raises(errors.OutcomeUnknown):
        send(gateway(server))
    assert len(server.requests) == 1


def test_a_refusal_is_certain(server: Server) -> None:
    """HTTP 4xx: AWS did not take the command, and says why; throttling as well."""
    server.behaviour = answers(400, '{"__type":"ThrottlingException","message":"Rate exceeded"}')
    with pytest.raises(errors.Throttled):
        send(gateway(server))
    assert len(server.requests) == 1


def test_nobody_at_home_is_certain_too() -> None:
    """Where no connection came about AWS has seen nothing: not an unknown outcome, just another try."""
    closed = Server()
    closed.close()
    with pytest.raises(errors.AwsUnavailable):
        send(gateway(closed))


def test_config_remediation_is_not_repeated_either(server: Server) -> None:
    """StartRemediationExecution takes no token."""
    with pytest.raises(errors.OutcomeUnknown):
        gateway(server).start_config_remediation(CELL, "patched", [HostId(host(1))])
    assert len(server.requests) == 1


def test_a_read_is_repeated_and_each_request_is_counted(server: Server) -> None:
    """The budget of calls is about requests, so botocore's own retries are in it."""
    reading = gateway(server, reads=QUICK)
    with pytest.raises(errors.AwsUnavailable):
        reading.patch_states(CELL, [HostId(host(1))])
    assert len(server.requests) == 3
    assert reading.calls == {"ssm:DescribeInstancePatchStates": 3}


def test_starting_an_automation_is_repeated_under_the_same_token(server: Server) -> None:
    """The client token makes the second call the first one again; without an answer at last the outcome is unknown."""
    with pytest.raises(errors.OutcomeUnknown):
        gateway(server, reads=QUICK).start_automation(CELL, "Patchwave-Remediate", {}, "6f3f4ad46a3b5a5e9a0d5d0f3f1c7d21")
    assert server.requests == ["AmazonSSM.StartAutomationExecution"] * 3


def test_a_role_that_may_not_be_assumed_is_named_as_such(server: Server) -> None:
    """The campaign's page should say sts:AssumeRole, not the call that happened to be the first."""
    denied = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    server.behaviour = answers(403, denied)
    role = "arn:aws:iam::222222222222:role/PatchwaveRole"
    there = Gateway(
        lambda cell: assumed(session_with_keys(cell), role_arn=role, region=cell.region, endpoint_url=server.url),
        endpoint_url=server.url,
    )
    with pytest.raises(errors.AccessDenied) as caught:
        send(there)
    assert caught.value.operation == "sts:AssumeRole"
    assert server.requests == ["/"]


def test_threads_share_clients_and_lose_no_count(server: Server) -> None:
    """Triggers call one gateway from a pool: one session a cell, and the ledger's count of calls is exact."""
    asked: list[Cell] = []

    def session_for(cell: Cell) -> Session:
        asked.append(cell)
        return session_with_keys(cell)

    server.behaviour = answers(200, '{"InstancePatchStates":[]}')
    shared = Gateway(session_for, endpoint_url=server.url)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: shared.patch_states(CELL, [HostId(host(n))]), range(40)))
    assert len(server.requests) == 40
    assert shared.take_calls() == {"ssm:DescribeInstancePatchStates": 40}
    assert asked == [CELL]
