"""How does a request become an operation with parameters, and a result a response? The only contact with moto.core.

`route` names service and operation of a request, `Call.params` parses it, `serialize` and `serialize_error` render results in the
service's protocol, `Call.ask_moto` hands the untouched request to moto's server. Everything private of moto that awsim leans on
is imported here (and, for state, in `estate.py`), so that a new moto breaks two modules at most.
"""

import io
import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from botocore.loaders import Loader
from botocore.parsers import create_parser
from botocore.session import get_session
from moto.core.errors import ErrorShape
from moto.core.model import OperationModel, ServiceModel
from moto.core.parse import PROTOCOL_PARSERS, RequestParserError
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.serialize import SerializationContext, get_serializer_class
from moto.core.utils import get_service_model
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.exceptions import HTTPException

SERVICE_OF_SCOPE = {"monitoring": "cloudwatch", "elasticloadbalancing": "elbv2"}
"""Where the name in the signature's scope is not botocore's name of the service."""

_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What no XML document may hold; a refusal that repeats the caller's value must not become unreadable by it."""

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d+/([^/,\s]+)/([^/,\s]+)/aws4_request")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """Who signed for which service in which region."""

    access_key: str
    region: str
    service: str


@dataclass(kw_only=True, slots=True)
class Answer:
    """An HTTP response, moto's or ours."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def parsed(self, call: "Call") -> dict[str, Any]:
        """The answer as botocore's client would see it; an error answer is raised as it is."""
        if self.status >= 300:
            raise MotoRefused(self)
        shape = call.model.output_shape
        raw = {"status_code": self.status, "headers": dict(self.headers), "body": self.body}
        result: dict[str, Any] = create_parser(call.protocol).parse(raw, shape) if shape else {}
        result.pop("ResponseMetadata", None)
        return result


class MotoRefused(Exception):
    """moto answered the request with an error; it is passed on as it is."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body[:500])
        self.answer = answer


class MotoTripped(Exception):
    """moto failed over the request instead of refusing it; AWS would have refused."""


class Unreadable(Exception):
    """The request's body does not fit the operation's input."""


class Moto:
    """moto's own server application, called in-process."""

    def __init__(self) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any]) -> Answer:
        collected: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            collected["status"], collected["headers"] = int(status.split(" ", 1)[0]), headers
            return lambda _: None

        chunks: Iterable[bytes] = self._application(environ, start_response)
        body = b"".join(chunks)
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
        return Answer(status=collected["status"], headers=list(collected["headers"]), body=body)


@dataclass(kw_only=True, slots=True)
class Call:
    """A request whose operation is known."""

    moto: Moto
    environ: dict[str, Any]
    body: bytes
    service: str
    model: Any  # moto.core.model.OperationModel
    protocol: str
    uri_params: dict[str, Any]
    request: Any = field(repr=False)

    def params(self) -> dict[str, Any]:
        parser = PROTOCOL_PARSERS[self.protocol](self.model)
        try:
            parsed = parser.parse(
                {
                    "method": self.request.method,
                    "values": self.request.values,
                    "headers": self.request.headers,
                    "body": self.request.data,
                    "url_path": self.request.path,
                    "url_params": self.uri_params,
                }
            )
        except (RequestParserError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, OverflowError) as unreadable:
            raise Unreadable(str(unreadable)) from unreadable
        if not isinstance(parsed, dict):
            raise Unreadable("Start of structure or map expected.")
        return dict(parsed)

    def as_sent(self) -> Any:
        """The body before moto's parser turned text into numbers and lists; None where the protocol has no types."""
        if self.protocol != "json" or not self.body:
            return None
        try:
            return json.loads(self.body)
        except ValueError as broken:
            raise Unreadable(str(broken)) from broken

    def ask_moto(self) -> Answer:
        return self.moto(replayed(self.environ, self.body))


def replayed(environ: dict[str, Any], body: bytes) -> dict[str, Any]:
    """The same request once more, with a body that can be read from its beginning."""
    fresh = {key: value for key, value in environ.items() if not key.startswith("werkzeug.")}
    fresh["wsgi.input"] = io.BytesIO(body)
    fresh["CONTENT_LENGTH"] = str(len(body))
    return fresh


def scope_of(environ: dict[str, Any]) -> Scope | None:
    """None for a request that carries no signature version 4."""
    found = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    if found is None:
        credential = parse_qs(environ.get("QUERY_STRING", "")).get("X-Amz-Credential")
        found = _CREDENTIAL.search(f"Credential={credential[0]}") if credential else None
    if found is None:
        return None
    key, region, name = found.groups()
    return Scope(access_key=key, region=region, service=SERVICE_OF_SCOPE.get(name.lower(), name.lower()))


def route(moto: Moto, scope: Scope, environ: dict[str, Any], body: bytes) -> Call | None:
    """The operation of a request, or None when the service's model does not know it."""
    if not _known(scope.service):
        return None
    request = Request(replayed(environ, body))
    try:
        model, uri_params = get_service_router(scope.service).match(request)
    except (HTTPException, NotImplementedError):
        model, uri_params = _by_path(scope.service, request.method, request.path), {}
    if model is None:
        return None
    try:
        protocol = determine_request_protocol(get_service_model(scope.service), request.content_type)
    except (HTTPException, NotImplementedError):
        return None
    return Call(
        moto=moto,
        environ=environ,
        body=body,
        service=scope.service,
        model=model,
        protocol=protocol,
        uri_params=uri_params,
        request=request,
    )


def _by_path(service: str, method: str, path: str) -> Any:
    """A request that lacks a required member of its query is still one of its operation, which refuses it."""
    model: ServiceModel = get_service_model(service)
    if model.metadata.get("protocol") != "rest-json":
        return None
    for name in model.operation_names:
        http = model.operation_model(name).http
        if (http.get("method"), http.get("requestUri")) == (method, path):
            return model.operation_model(name)
    return None


def operation_model(service: str, name: str) -> Any:
    """The botocore model of an operation; a wrong name raises here, at import of the handler."""
    if not _known(service):
        raise LookupError(f"awsim: botocore knows no service {service!r}")
    model: ServiceModel = get_service_model(service)
    if name not in model.operation_names:
        raise LookupError(f"awsim: service {service} has no operation {name!r}")
    found: OperationModel = model.operation_model(name)
    return found


def serialize(call: Call, result: dict[str, Any], request_id: str) -> Answer:
    return _rendered(call, result, request_id)


def serialize_error(
    call: Call, *, code: str, message: str, request_id: str, status: int | None, members: dict[str, Any]
) -> Answer:
    """The error in the service's protocol; status and code follow the model when it has that error."""
    return error_of_service(
        service=call.service,
        protocol=call.protocol,
        model=call.model,
        code=code,
        message=message,
        request_id=request_id,
        status=status,
        members=members,
    )


def error_of_service(
    *,
    service: str,
    protocol: str,
    code: str,
    message: str,
    request_id: str,
    model: Any = None,
    status: int | None = None,
    members: dict[str, Any] | None = None,
) -> Answer:
    if protocol in ("query", "ec2", "rest-xml"):
        message = _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", message)
    error = _Refusal(message)
    error.code = code
    for name, value in {"message": message, "Message": message, **(members or {})}.items():
        setattr(error, name, value)
    model = model if model is not None else OperationModel({"name": "Unknown"}, get_service_model(service))
    serializer = get_serializer_class(service, protocol)(model, context=SerializationContext(request_id))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # moto warns of codes that no model lists; AWS uses many of those
        answer = _answer(serializer.serialize(error), request_id)
    if status is not None:
        answer.status = status
    return answer


class _Refusal(Exception):
    code = "UnspecifiedErrorCode"


def _rendered(call: Call, result: Any, request_id: str) -> Answer:
    serializer = get_serializer_class(call.service, call.protocol)(call.model, context=SerializationContext(request_id))
    return _answer(serializer.serialize(result), request_id)


def _answer(rendered: Any, request_id: str) -> Answer:
    body = rendered["body"]
    headers = {str(name): str(value) for name, value in rendered["headers"].items()}
    headers.setdefault("x-amzn-RequestId", request_id)
    return Answer(
        status=rendered["status_code"],
        headers=list(headers.items()),
        body=body.encode() if isinstance(body, str) else bytes(body),
    )


@cache
def _loader() -> Loader:
    loader: Loader = get_session().get_component("data_loader")
    return loader


@cache
def _services() -> frozenset[str]:
    return frozenset(_loader().list_available_services("service-2"))


def _known(service: str) -> bool:
    return service in _services()


def moto_has(service: str, operation: str) -> bool:
    """Whether moto implements the operation (a method of that name in its response class)."""
    return _method_name(operation) in _moto_methods(service)


@cache
def _moto_methods(service: str) -> frozenset[str]:
    from importlib import import_module

    package = {"config": "config", "ssm": "ssm", "inspector2": "inspector2"}.get(service, service)
    try:
        module = import_module(f"moto.{package}.responses")
    except ModuleNotFoundError:
        return frozenset()
    return frozenset(name for kind in vars(module).values() if isinstance(kind, type) for name in vars(kind))


def _method_name(operation: str) -> str:
    from moto.core.utils import camelcase_to_underscores

    return str(camelcase_to_underscores(operation))


__all__ = ["Answer", "Call", "ErrorShape", "Moto", "MotoRefused", "Scope", "Unreadable", "route", "scope_of", "serialize"]
