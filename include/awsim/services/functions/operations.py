"""Put- and GetRuntimeManagementConfig, and what runtime management adds to moto's answers on functions."""

from typing import Any

from awsim import estate_lambda, runtimes
from awsim.journal import Cause
from awsim.registry import AwsError, Context, operation
from awsim.services.functions import functions
from awsim.services.functions.functions import MANUAL, Function
from awsim.wire import Answer

_BLOCKED_AFTER = 60 * 86_400.0
"""After its deprecation, until functions of a runtime can be neither made nor updated."""
_ONLY_OF_ONE = ("State", "StateReason", "StateReasonCode", "LastUpdateStatus", "LastUpdateStatusReason",
                "LastUpdateStatusReasonCode", "RuntimeVersionConfig")  # fmt: skip
"""What ListFunctions does not tell."""


def _function(ctx: Context, params: dict[str, Any]) -> Function:
    name = params["FunctionName"]
    made = estate_lambda.function(ctx.account, ctx.region, name, params.get("Qualifier"))
    if made is None:
        arn = name if name.startswith("arn:") else f"arn:aws:lambda:{ctx.region}:{ctx.account}:function:{name}"
        raise AwsError("ResourceNotFoundException", f"Function not found: {arn}", Type="User")
    return functions.known(ctx.world, ctx.account, ctx.region, made)


@operation("lambda", "GetRuntimeManagementConfig")
def get_runtime_management_config(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    function = _function(ctx, params)
    release = function.release
    pinned = release.arn(ctx.region) if function.mode == MANUAL and release is not None else None
    return {"FunctionArn": function.arn, "UpdateRuntimeOn": function.mode, "RuntimeVersionArn": pinned}


@operation("lambda", "PutRuntimeManagementConfig")
def put_runtime_management_config(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """A version is named with Manual, always, and only then."""
    function, mode, arn = _function(ctx, params), params["UpdateRuntimeOn"], params.get("RuntimeVersionArn")
    if (mode == MANUAL) is not bool(arn):
        sentence = "must be given" if mode == MANUAL else "cannot be given"
        raise AwsError("InvalidParameterValueException", f"RuntimeVersionArn {sentence} when UpdateRuntimeOn is {mode}.")
    if function.release is None:
        raise AwsError("InvalidParameterValueException", "Runtime management is not supported for this function.")
    there = functions.releases(ctx.world, function.runtime)
    pinned = next((release for release in there if release.arn(ctx.region) == arn), None)
    if arn and pinned is None:
        raise AwsError("InvalidParameterValueException", f"{arn} is no runtime version of {function.runtime}.")
    _check_idle(ctx, function)
    functions.manage(ctx.world, function, mode, pinned, Cause(request_id=ctx.request_id))
    return {"FunctionArn": function.arn, "UpdateRuntimeOn": mode, "RuntimeVersionArn": arn}


@operation("lambda", "GetFunctionConfiguration", check=False)
def get_function_configuration(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    if not functions.paced(ctx.world):
        return ctx.moto_answer()
    told = ctx.call_moto()
    _add(ctx, told)
    return told


@operation("lambda", "GetFunction", check=False)
def get_function(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    if not functions.paced(ctx.world):
        return ctx.moto_answer()
    told = ctx.call_moto()
    _add(ctx, told["Configuration"])
    return told


@operation("lambda", "ListFunctions", check=False)
def list_functions(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    """Without what only one function's own configuration tells; at most 50 on a page."""
    if not functions.paced(ctx.world):
        return ctx.moto_answer()
    told = ctx.call_moto()
    rows = [{key: value for key, value in row.items() if key not in _ONLY_OF_ONE} for row in told.get("Functions") or []]
    size = params.get("MaxItems")
    asked = {**params, "MaxItems": min(size, 50)} if isinstance(size, int) else params
    page, marker = ctx.page(rows, asked, default=50, tokens="Marker", size="MaxItems")
    return {"Functions": page, "NextMarker": marker}


@operation("lambda", "CreateFunction", check=False)
def create_function(ctx: Context, params: dict[str, Any]) -> Answer:
    _check_supported(ctx, params.get("Runtime"))
    return ctx.moto_answer()


@operation("lambda", "UpdateFunctionCode", check=False)
def update_function_code(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    return _updated(ctx, params, code=not params.get("DryRun"))


@operation("lambda", "UpdateFunctionConfiguration", check=False)
def update_function_configuration(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    return _updated(ctx, params, code=False)


def _updated(ctx: Context, params: dict[str, Any], *, code: bool) -> dict[str, Any] | Answer:
    made = estate_lambda.function(ctx.account, ctx.region, params.get("FunctionName") or "")
    if made is None or not functions.paced(ctx.world):
        return ctx.moto_answer()
    function = functions.known(ctx.world, ctx.account, ctx.region, made)
    _check_supported(ctx, params.get("Runtime") or function.runtime)
    _check_idle(ctx, function)
    told = ctx.call_moto()
    if code or not params.get("DryRun"):  # moto leaves the moment of the last change as it was when the configuration changes
        made.last_modified = told["LastModified"] = f"{ctx.now:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "+0000"
    functions.updated(ctx.world, function, Cause(request_id=ctx.request_id), code=code)
    _add(ctx, told)
    return told


def _check_idle(ctx: Context, function: Function) -> None:
    if function.busy(ctx.at):
        raise AwsError(
            "ResourceConflictException",
            f"The operation cannot be performed at this time. An update is in progress for resource: {function.arn}",
        )


def _check_supported(ctx: Context, runtime: str | None) -> None:
    known = runtimes.shipped().get(runtime or "")
    if functions.paced(ctx.world) and known is not None and ctx.at > known.deprecated + _BLOCKED_AFTER:
        raise AwsError(
            "InvalidParameterValueException",
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions.",
        )


def _add(ctx: Context, row: dict[str, Any]) -> None:
    made = estate_lambda.function(ctx.account, ctx.region, row["FunctionName"])
    if made is None:
        return
    function = functions.known(ctx.world, ctx.account, ctx.region, made)
    if function.release is not None:
        row["RuntimeVersionConfig"] = {"RuntimeVersionArn": function.release.arn(ctx.region)}
    row["LastUpdateStatus"] = "InProgress" if function.busy(ctx.at) else "Successful"
