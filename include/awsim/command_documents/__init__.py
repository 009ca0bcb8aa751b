"""Which Command documents of AWS's own does awsim know, what do they accept, and on which platforms do they run?

One YAML file a document beside this module: `platforms`, `created` and `content`, with AWS's parameters (allowed values,
patterns, defaults) and step names; what AWS's scripts do is `runcommand.py`'s business. SendCommand checks against the same
declarations that DescribeDocument and GetDocument show.
"""

import re
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


class BadParameter(ValueError):
    """The document does not take this; the message says what it takes."""


@cache
def owned() -> dict[str, dict[str, Any]]:
    """By name: `platforms`, `created` (a date), `content`."""
    here = files(__name__)
    found = sorted((entry for entry in here.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    return {entry.name.removesuffix(".yaml"): yaml.safe_load(entry.read_text(encoding="utf-8")) for entry in found}


def content(name: str) -> dict[str, Any]:
    found: dict[str, Any] = owned()[name]["content"]
    return found


def platforms(name: str) -> tuple[str, ...]:
    return tuple(owned()[name]["platforms"])


def created(name: str) -> date:
    found: date = owned()[name]["created"]
    return found


def check(name: str, given: dict[str, list[str]]) -> None:
    """Whether the document takes these parameters.

    Raises:
        BadParameter: one is unknown, missing, or not allowed.
    """
    declared: dict[str, dict[str, Any]] = content(name).get("parameters") or {}
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise BadParameter(f"document {name} does not support parameters: {', '.join(unknown)}")
    for key, declaration in declared.items():
        values = given.get(key)
        if not values:
            if "default" not in declaration:
                raise BadParameter(f"Parameter {key} is required and has no value.")
            if values is None:
                continue
        _check_values(key, declaration, values or [])


def _check_values(key: str, declaration: dict[str, Any], values: list[str]) -> None:
    if declaration["type"] == "String" and len(values) != 1:
        raise BadParameter(f"Parameter {key} is of type String and takes exactly one value, not {len(values)}.")
    allowed, pattern = declaration.get("allowedValues"), declaration.get("allowedPattern")
    for value in values:
        if allowed and value not in allowed:
            raise BadParameter(f"Parameter value {value!r} of {key} is not allowed: {', '.join(allowed)}")
        if pattern and re.fullmatch(pattern, value) is None:
            raise BadParameter(f"Parameter value {value!r} of {key} is not allowed: {pattern}")
        if len(value) > declaration.get("maxChars", len(value)):
            raise BadParameter(f"Parameter {key} has more than {declaration['maxChars']} characters.")
