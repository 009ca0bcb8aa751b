"""What does a failed call mean for the campaign? The one place where AWS's errors become ours.

`calls.Calls` asks `translated` for every exception of botocore. Codes are compared as strings: a throttling or an access
error is in no operation's own list of errors, and each service spells them its own way.
"""

from __future__ import annotations

from botocore import exceptions as boto

from patchwave.aws.operations import Effect, Operation
from patchwave.campaign.errors import (
    AccessDenied,
    AwsUnavailable,
    HostsRefused,
    InvalidRequest,
    OutcomeUnknown,
    PatchwaveError,
    Throttled,
)

THROTTLING = frozenset(
    {
        "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
        "RequestLimitExceeded", "TooManyRequestsException", "CallRateLimitExceededException", "SlowDown",
        "BandwidthLimitExceeded", "EC2ThrottledException", "PriorRequestNotComplete",
    }
)  # fmt: skip
DENIED = frozenset(
    {
        "AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure", "UnrecognizedClientException",
        "InvalidClientTokenId", "SignatureDoesNotMatch", "InvalidSignatureException", "MissingAuthenticationToken",
        "MissingAuthenticationTokenException", "IncompleteSignature", "InsufficientPermissionsException", "OptInRequired",
        "NotAuthorized", "InvalidAccessException", "Blocked", "RegionDisabledException",
    }
)  # fmt: skip
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
"""Credentials that have run out; another session has fresh ones, so it is worth another try."""
HOSTS_REFUSED = frozenset(
    {"InvalidInstanceId", "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "UnsupportedPlatformType"}
)
UNAVAILABLE = frozenset(
    {
        "InternalServerError", "InternalServerException", "InternalServerErrorException", "InternalFailure", "InternalError",
        "ServiceUnavailable", "ServiceUnavailableException", "Unavailable", "RequestTimeout", "RequestTimeoutException",
        "ResourceContention",
    }
)  # fmt: skip

NEVER_LEFT = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.UnknownEndpointError, boto.NoRegionError)
"""No connection came about, so AWS cannot have seen the request."""


def translated(error: Exception, operation: Operation) -> PatchwaveError:
    """What `error`, raised by a call of `operation`, means.

    For a call that must not be repeated blindly, everything but a certain refusal (HTTP 4xx) and a connection that never
    came about is an `OutcomeUnknown`: AWS may have done it.
    """
    effect = operation.effect in {Effect.UNGUARDED, Effect.IDEMPOTENT}
    if isinstance(error, boto.ClientError):
        if error.operation_name != operation.name:  # the credentials of the call were refused, not the call
            return _refused(error, Operation(service="sts", name=error.operation_name), effect=False)
        return _refused(error, operation, effect=effect)
    said = f"{operation.id}: {error}"
    if isinstance(error, boto.ParamValidationError):
        return InvalidRequest(said)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.TokenRetrievalError):
        return AccessDenied(said, operation=operation.id)
    if isinstance(error, boto.CredentialRetrievalError):
        return AwsUnavailable(said)
    if effect and not isinstance(error, NEVER_LEFT):
        return OutcomeUnknown(f"{operation.id} was called and its answer was lost: {error}")
    return AwsUnavailable(said)


def _refused(error: boto.ClientError, operation: Operation, *, effect: bool) -> PatchwaveError:
    code, status = code_of(error), _status(error)
    message = str(error.response.get("Error", {}).get("Message", "")) or str(error)
    said = f"{operation.id}: {code}: {message}"
    if status == 501:  # the endpoint does not have this operation, and will not have it a minute later
        return InvalidRequest(said)
    if effect and (not 400 <= status < 500 or code in UNAVAILABLE):
        return OutcomeUnknown(f"{operation.id} was called and AWS answered {status} {code}: {message}")
    if code in THROTTLING or status == 429:
        return Throttled(said)
    if code in DENIED:
        return AccessDenied(said, operation=operation.id)
    if code in HOSTS_REFUSED:
        return HostsRefused(said)
    if code in EXPIRED:
        return AwsUnavailable(f"{said} (the credentials have run out)")
    if code in UNAVAILABLE or status >= 500:
        return AwsUnavailable(said)
    if status in {401, 403}:
        return AccessDenied(said, operation=operation.id)
    return InvalidRequest(said)


def code_of(error: BaseException | None) -> str:
    """AWS's error code behind an error of botocore's or of ours; empty if AWS said none.

    Codes of json services come as ``prefix#Code``, and query services append ``Exception`` or do not; only the former is
    undone here.
    """
    if isinstance(error, PatchwaveError):
        return code_of(error.__cause__)
    if isinstance(error, boto.ClientError):
        return str(error.response.get("Error", {}).get("Code", "")).rpartition("#")[2]
    return ""


def _status(error: boto.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
