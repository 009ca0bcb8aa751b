"""How is a long answer cut into pages? Tokens are opaque, tied to the operation and its parameters, and refused elsewhere."""

import base64
import binascii
import hashlib
import json
from typing import Any


class BadToken(Exception):
    """The token was not made by this operation with these parameters."""


def page(
    rows: list[Any], params: dict[str, Any], *, operation: str, default: int, token_name: str, size_name: str
) -> tuple[list[Any], str | None]:
    """`size_name` 0 or absent means the default. Returns the rows of this page and the next token, None at the end."""
    mark = _mark(params, operation, token_name, size_name)
    start = _offset(params.get(token_name), mark)
    size = params.get(size_name) or default
    rest = len(rows) > start + size
    return rows[start : start + size], _token(mark, start + size) if rest else None


def same_place(params: dict[str, Any], *, operation: str, token_name: str, size_name: str) -> str:
    """A token for the page that was asked for: what an empty page gives while its service has not got the rows together."""
    mark = _mark(params, operation, token_name, size_name)
    return _token(mark, _offset(params.get(token_name), mark))


def _mark(params: dict[str, Any], operation: str, token_name: str, size_name: str) -> str:
    shape = {key: value for key, value in params.items() if key not in (token_name, size_name)}
    return hashlib.sha256(f"{operation} {json.dumps(shape, sort_keys=True, default=str)}".encode()).hexdigest()[:16]


def _token(mark: str, offset: int) -> str:
    return base64.urlsafe_b64encode(f"{mark}.{offset}".encode()).decode()


def _offset(token: str | None, mark: str) -> int:
    if not token:
        return 0
    try:
        text = base64.urlsafe_b64decode(token.encode()).decode()
        made_for, _, offset = text.partition(".")
        number = int(offset)
    except (ValueError, binascii.Error) as broken:
        raise BadToken(token) from broken
    if made_for != mark or number < 0:
        raise BadToken(token)
    return number
