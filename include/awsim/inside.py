"""How does awsim call its own API, as a runbook's step or a conformance pack does?

`ask(world, account, region, service, operation, params)` sends the request through awsim's own WSGI application, without a
network: it is checked, routed, answered by awsim or moto, struck by faults and journalled as any client's. It may be called
while the world catches up (`Agenda.run_until` is then in the middle of an event); virtual time does not move inside.
"""

import io
import json
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from botocore.model import OperationModel, ServiceModel, Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.session import get_session
from botocore.validate import ParamValidator

from awsim.registry import AwsError

if TYPE_CHECKING:
    from awsim.world import World


class Unaskable(Exception):
    """The request cannot be made: no such service or operation, or parameters that do not fit."""


@cache
def _service(name: str) -> ServiceModel:
    return ServiceModel(get_session().get_component("data_loader").load_service_model(name, "service-2"), name)


@cache
def _operation(service: str, name: str) -> OperationModel:
    session = get_session()
    if service not in session.get_available_services():
        raise Unaskable(f"the service {service!r} is unknown")
    model = _service(service)
    if name not in model.operation_names:
        raise Unaskable(f"the service {service} has no operation {name!r}")
    return model.operation_model(name)


def knows(service: str, name: str) -> bool:
    """Whether AWS has such an operation."""
    try:
        _operation(service, name)
    except Unaskable:
        return False
    return True


def ask(
    world: "World",
    account: str,
    region: str,
    service: str,
    operation: str,
    params: dict[str, Any],
    *,
    access_key: str = "AWSIMINSIDE",
) -> dict[str, Any]:
    """The parsed answer.

    Raises:
        Unaskable: the request cannot be made.
        AwsError: the service refuses, or a fault struck.
    """
    if world.answer is None:
        raise Unaskable("this world has no API")
    model = _operation(service, operation)
    given = _fitted(params, model.input_shape) if model.input_shape is not None else {}
    _fill_token(world, model, given, service, operation)
    if model.input_shape is not None:
        report = ParamValidator().validate(given, model.input_shape)
        if report.has_errors():
            raise Unaskable(f"Parameter validation failed: {report.generate_report()}")
    protocol = model.service_model.resolved_protocol
    request = create_serializer(protocol, include_validation=False).serialize_to_request(given, model)
    try:
        answer = world.answer(_environ(request, model.service_model, account, region, access_key))
    except Exception as broken:  # a client over HTTP would see moto's page of error 500
        raise AwsError("InternalFailure", f"{type(broken).__name__}: {broken}", status=500) from broken
    raw = {"status_code": answer.status, "headers": {key.lower(): value for key, value in answer.headers}, "body": answer.body}
    if answer.status >= 300:
        raise _refusal(raw, protocol, model)
    if model.output_shape is None:
        return {}
    parsed: dict[str, Any] = create_parser(protocol).parse(raw, model.output_shape)
    parsed.pop("ResponseMetadata", None)
    return parsed


def _refusal(raw: dict[str, Any], protocol: str, model: OperationModel) -> AwsError:
    try:
        error = create_parser(protocol).parse(raw, model.output_shape).get("Error", {})
    except Exception:  # noqa: BLE001 - an error page of moto's is no answer of the protocol
        error = {}
    code = str(error.get("Code") or "InternalFailure")
    return AwsError(code, str(error.get("Message") or f"HTTP {raw['status_code']}"), status=raw["status_code"])


def _environ(request: dict[str, Any], service: ServiceModel, account: str, region: str, access_key: str) -> dict[str, Any]:
    body = request.get("body") or b""
    headers = dict(request.get("headers") or {})
    if isinstance(body, dict):
        body = urlencode(body, doseq=True)
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
    data = body.encode() if isinstance(body, str) else bytes(body)
    path, _, query = str(request["url_path"]).partition("?")
    more = request.get("query_string") or {}
    told = urlencode(more, doseq=True) if isinstance(more, dict) else str(more)
    scope = service.signing_name
    environ = {
        "REQUEST_METHOD": request["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "&".join(part for part in (query, told) if part),
        "SERVER_NAME": f"{service.endpoint_prefix}.{region}.amazonaws.com",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": f"{service.endpoint_prefix}.{region}.amazonaws.com",
        "HTTP_AUTHORIZATION": (
            f"AWS4-HMAC-SHA256 Credential={access_key}/20260101/{region}/{scope}/aws4_request, SignedHeaders=host, Signature=0"
        ),
        "HTTP_X_MOTO_ACCOUNT_ID": account,
        "CONTENT_LENGTH": str(len(data)),
        "wsgi.input": io.BytesIO(data),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in headers.items():
        if name.lower() == "content-type":
            environ["CONTENT_TYPE"] = value
        else:
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = str(value)
    return environ


def _fill_token(world: "World", model: OperationModel, given: dict[str, Any], service: str, operation: str) -> None:
    for name in model.idempotent_members:
        if name not in given:
            bits = f"{world.random('token', service, operation, world.request_id()).getrandbits(128):032x}"
            given[name] = f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"


def _fitted(value: Any, shape: Shape) -> Any:
    """The value in the kinds of the model: variables of runbooks and values of templates are often strings."""
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict):
        return {key: _fitted(item, shape.members[key]) if key in shape.members else item for key, item in value.items()}
    if kind == "list":
        return [_fitted(item, shape.member) for item in (value if isinstance(value, list) else [value])]
    if kind == "map" and isinstance(value, dict):
        return {key: _fitted(item, shape.value) for key, item in value.items()}
    if kind in ("structure", "map") and isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return _fitted(json.loads(value), shape)
        except ValueError:
            return value
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if kind == "boolean" and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if kind in ("integer", "long") and isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    if kind == "string" and isinstance(value, (bool, int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return value
