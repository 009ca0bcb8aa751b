"""AWS's errors become ours in one place, and each means what its caller will do about it."""

from __future__ import annotations

import pytest
from botocore import exceptions as boto

from patchwave.aws import errors as aws_errors
from patchwave.aws.operations import OPERATIONS
from patchwave.campaign import errors
from patchwave.campaign.values import HostId
from tests.gateway.conftest import CELL, Wire, host

READ = OPERATIONS["ssm:ListCommands"]
SEND = OPERATIONS["ssm:SendCommand"]


def refusal(code: str, status: int = 400, operation: str = "SendCommand") -> boto.ClientError:
    return boto.ClientError({"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)


@pytest.mark.parametrize(
    ("code", "status", "meant"),
    [
        ("ThrottlingException", 400, errors.Throttled),
        ("Throttling", 400, errors.Throttled),
        ("RequestLimitExceeded", 400, errors.Throttled),
        ("TooManyRequestsException", 429, errors.Throttled),
        ("AnythingElse", 429, errors.Throttled),
        ("AccessDeniedException", 400, errors.AccessDenied),
        ("AccessDenied", 403, errors.AccessDenied),
        ("UnauthorizedOperation", 403, errors.AccessDenied),
        ("UnrecognizedClientException", 400, errors.AccessDenied),
        ("SomethingForbidden", 403, errors.AccessDenied),
        ("ExpiredTokenException", 400, errors.AwsUnavailable),
        ("InvalidInstanceId", 400, errors.HostsRefused),
        ("UnsupportedPlatformType", 400, errors.HostsRefused),
        ("DuplicateInstanceId", 400, errors.InvalidRequest),
        ("InvalidDocument", 400, errors.InvalidRequest),
        ("InvalidParameters", 400, errors.InvalidRequest),
        ("ValidationException", 400, errors.InvalidRequest),
        ("LimitExceededException", 400, errors.InvalidRequest),
        ("NotImplemented", 501, errors.InvalidRequest),
    ],
)
def test_a_refusal_means_the_same_for_reads_and_effects(code: str, status: int, meant: type[Exception]) -> None:
    """With HTTP 4xx AWS has certainly done nothing; with 501 whoever answers cannot do it at all."""
    assert type(aws_errors.translated(refusal(code, status), SEND)) is meant
    assert type(aws_errors.translated(refusal(code, status, "ListCommands"), READ)) is meant


@pytest.mark.parametrize(
    ("code", "status"),
    [("InternalServerError", 500), ("ServiceUnavailable", 503), ("RequestLimitExceeded", 503), ("InternalServerError", 400),
     ("RequestTimeoutException", 400), ("", 200), ("Moved", 301)],
)  # fmt: skip
def test_what_is_no_certain_refusal_leaves_an_effect_unknown(code: str, status: int) -> None:
    """And a read is just made again."""
    assert type(aws_errors.translated(refusal(code, status), SEND)) is errors.OutcomeUnknown


@pytest.mark.parametrize(
    ("error", "read", "effect"),
    [
        (boto.EndpointConnectionError(endpoint_url="u"), errors.AwsUnavailable, errors.AwsUnavailable),
        (boto.ConnectTimeoutError(endpoint_url="u"), errors.AwsUnavailable, errors.AwsUnavailable),
        (boto.ReadTimeoutError(endpoint_url="u"), errors.AwsUnavailable, errors.OutcomeUnknown),
        (boto.ConnectionClosedError(endpoint_url="u"), errors.AwsUnavailable, errors.OutcomeUnknown),
        (boto.ProxyConnectionError(proxy_url="u"), errors.AwsUnavailable, errors.OutcomeUnknown),
        (boto.SSLError(endpoint_url="u", error="e"), errors.AwsUnavailable, errors.OutcomeUnknown),
        (boto.NoCredentialsError(), errors.AccessDenied, errors.AccessDenied),
        (boto.ParamValidationError(report="r"), errors.InvalidRequest, errors.InvalidRequest),
    ],
)
def test_a_lost_connection_is_only_harmless_to_reads(error: Exception, read: type, effect: type) -> None:
    """A connection that never came about carried nothing."""
    assert type(aws_errors.translated(error, READ)) is read
    assert type(aws_errors.translated(error, SEND)) is effect


def test_an_error_names_the_call_and_keeps_awss_words(wire: Wire) -> None:
    """That line is what an operator reads at night."""
    wire.refuses("ssm", "describe_instance_patch_states", "AccessDeniedException", "User x is not authorized")
    with pytest.raises(errors.AccessDenied, match="not authorized") as caught:
        wire.gateway.patch_states(CELL, [HostId(host(1))])
    assert caught.value.operation == "ssm:DescribeInstancePatchStates"
    assert aws_errors.code_of(caught.value) == "AccessDeniedException"


def test_expired_credentials_are_fetched_anew_for_the_next_call(wire: Wire) -> None:
    """A session of an hour must not end a campaign of a day."""
    asked: list[str] = []
    session_for = wire.gateway._session_for
    wire.gateway._session_for = lambda cell: (asked.append(str(cell)), session_for(cell))[1]  # type: ignore[func-returns-value]
    wire.refuses("ssm", "describe_instance_patch_states", "ExpiredTokenException")
    wire.expects("ssm", "describe_instance_patch_states", {"InstancePatchStates": []})
    wire.expects("ssm", "describe_instance_patch_states", {"InstancePatchStates": []})
    with pytest.raises(errors.AwsUnavailable, match="run out"):
        wire.gateway.patch_states(CELL, [HostId(host(1))])
    for _ in range(2):
        wire.gateway.patch_states(CELL, [HostId(host(1))])
    assert len(asked) == 2
