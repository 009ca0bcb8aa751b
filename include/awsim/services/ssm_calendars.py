"""Change calendars: documents of plain text (which moto does not take), and GetCalendarState.

CreateDocument and UpdateDocument are answered here for format TEXT only; every other document stays moto's.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

import yaml

from awsim import calendars, estate_ssm
from awsim.calendars import BadCalendar, Calendar
from awsim.clock import moment
from awsim.registry import AwsError, Context, operation
from awsim.wire import Answer

_NAME = re.compile(r"[a-zA-Z0-9_\-.]{3,128}")
_RESERVED = ("aws", "amazon", "amzn")
_LIMIT = 64 * 1024
_ARN = re.compile(r"arn:aws[a-z-]*:ssm:([a-z0-9-]*):(\d{12}):document/(.+)")


# --- documents ---


@operation("ssm", "CreateDocument", check=False)
def create_document(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    calendar = params.get("DocumentType") == "ChangeCalendar"
    if not calendar and params.get("DocumentFormat") != "TEXT":
        _check_mapping(params)
        made = ctx.call_moto()
        made["DocumentDescription"]["Tags"] = params.get("Tags") or []
        return made
    if not calendar or params.get("DocumentFormat") not in (None, "TEXT"):
        raise AwsError("InvalidDocumentContent", "Format TEXT is that of documents of type ChangeCalendar, and theirs only.")
    name, content = params.get("Name") or "", params.get("Content") or ""
    if _NAME.fullmatch(name) is None or name.lower().startswith(_RESERVED):
        raise AwsError("ValidationException", f"Name: {name!r} must have 3-128 of a-zA-Z0-9_-. and not begin with aws or amazon.")
    _check(content)
    told = estate_ssm.create_text_document(
        ctx.account,
        ctx.region,
        name=name,
        content=content,
        kind="ChangeCalendar",
        version_name=params.get("VersionName") or "",
        tags_given={tag["Key"]: tag["Value"] for tag in params.get("Tags") or []},
    )
    if told is None:
        raise AwsError("DocumentAlreadyExists", "The specified document already exists.")
    return {"DocumentDescription": _dated(ctx, told)}


def _check_mapping(params: dict[str, Any]) -> None:
    """moto breaks on content that is no mapping."""
    read = json.loads if params.get("DocumentFormat") in (None, "JSON") else yaml.safe_load
    try:
        content = read(params.get("Content") or "{}")
    except (ValueError, yaml.YAMLError):
        return  # moto refuses it
    if not isinstance(content, dict):
        raise AwsError("InvalidDocumentContent", "The content for the document is not valid.")


def _check(content: str) -> None:
    if len(content.encode()) > _LIMIT:
        raise AwsError("MaxDocumentSizeExceeded", f"A document has at most {_LIMIT} bytes.")
    try:
        calendars.parse(content)
    except BadCalendar as bad:
        raise AwsError("InvalidDocumentContent", f"The content for the document is not valid: {bad}.") from bad


def _dated(ctx: Context, told: dict[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in told.items() if value not in (None, "")}, "CreatedDate": moment(ctx.at)}


@operation("ssm", "UpdateDocument", check=False)
def update_document(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    name = params.get("Name") or ""
    if estate_ssm.text_document(ctx.account, ctx.region, name) is None:
        _check_mapping(params)
        return ctx.moto_answer()
    if params.get("DocumentFormat") not in (None, "TEXT"):
        raise AwsError("InvalidDocumentContent", "Format TEXT is that of documents of type ChangeCalendar.")
    _check(params.get("Content") or "")
    told = estate_ssm.update_text_document(
        ctx.account, ctx.region, name=name, content=params["Content"], version_name=params.get("VersionName") or ""
    )
    if told is None:
        raise AwsError("DuplicateDocumentContent", "The content of the association document matches another document.")
    return {"DocumentDescription": _dated(ctx, told)}


# --- state ---


def calendar_of(account: str, region: str, name: str) -> Calendar:
    """A calendar by its name, or by its ARN when another account shares it.

    Raises:
        AwsError: as GetCalendarState refuses.
    """
    owner, plain, where = account, name, region
    arn = _ARN.fullmatch(name)
    if arn is not None:
        where, owner, plain = arn.group(1), arn.group(2), arn.group(3)
    found = estate_ssm.raw_document(owner, where, plain) if where == region else None
    if found is None or (owner != account and not estate_ssm.shared_with(owner, where, plain, account)):
        raise AwsError("InvalidDocument", f"Document with name {name} does not exist.")
    kind, content = found
    if kind != "ChangeCalendar":
        raise AwsError("InvalidDocumentType", f"The document {name} is of type {kind}, not ChangeCalendar.")
    try:
        return calendars.parse(content)
    except BadCalendar as bad:
        raise AwsError("UnsupportedCalendarException", f"The calendar {name} is not supported: {bad}.") from bad


@operation("ssm", "GetCalendarState")
def get_calendar_state(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Several calendars are open only when all are; NextTransitionTime is when the answer as a whole changes."""
    names = params["CalendarNames"]
    if not names:
        raise AwsError("ValidationException", "CalendarNames: at least one name or ARN is needed.")
    given = params.get("AtTime")
    at = _epoch(given) if given else float(int(ctx.at))
    found = [calendar_of(ctx.account, ctx.region, name) for name in names]
    is_open, changes = calendars.state(found, at)
    return {
        "State": "OPEN" if is_open else "CLOSED",
        "AtTime": _spelled(at),
        "NextTransitionTime": _spelled(changes) if changes is not None else None,
    }


def _epoch(text: str) -> float:
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise AwsError(
            "ValidationException", f"AtTime: {text!r} is not an ISO 8601 moment such as 2026-01-05T08:00:00Z."
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _spelled(at: float) -> str:
    return f"{datetime.fromtimestamp(at, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"
