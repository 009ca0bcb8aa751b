"""Does a request satisfy the constraints of the service's model? botocore's client checks minimums and types; AWS checks all.

All violations are collected into AWS's own sentence: `N validation errors detected: Value '..' at 'path' failed to satisfy
constraint: Member must ...`. Called for the operations that awsim answers itself; moto's keep moto's codes and wording.
"""

import re
from functools import cache
from typing import Any

CODE_OF_PROTOCOL = {"query": "ValidationError", "ec2": "InvalidParameterValue"}
"""Every other protocol answers ValidationException."""

CODE_OF_CHARACTERS = {"query": "ValidationError", "ec2": "InvalidCharacter"}
"""Protocols that answer in XML, and what they say of a character that XML cannot hold."""

LOOSER_THAN_MODEL = {("ssm", "PatchGroup"), ("config", "ConfigRuleName64"), ("config", "StringWithCharLimit64")}
"""(service, shape) pairs where the service accepts more than its model says."""


def violations(service: str, params: dict[str, Any], shape: Any) -> list[str]:
    found: list[str] = []
    if shape is not None:
        _structure(service, params, shape, "", found)
    return found


def sentence(found: list[str]) -> str:
    return f"{len(found)} validation error{'s' if len(found) > 1 else ''} detected: {'; '.join(found)}"


_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def unprintable(value: Any) -> str | None:
    """The first text in the parameters that no XML answer could repeat; None when there is none."""
    if isinstance(value, str):
        return value if _NOT_IN_XML.search(value) else None
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((found for one in inner if (found := unprintable(one)) is not None), None)


_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
}


def mistyped(value: Any, shape: Any) -> str | None:
    """The sentence of AWS's deserialiser for the first value of another type than its shape; None when all fit."""
    kind = shape.type_name
    allowed: Any = _TYPES.get(kind)
    if allowed is None:
        return None
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind != "boolean"):
        return _unconvertible(value, kind)
    if kind == "structure":
        members = shape.members
        parts = [(inner, members[name]) for name, inner in value.items() if inner is not None and name in members]
    elif kind == "map":
        parts = [(inner, shape.value) for inner in value.values()]
    elif kind == "list":
        parts = [(inner, shape.member) for inner in value]
    else:
        return None
    for inner, of in parts:
        found = mistyped(inner, of)
        if found is not None:
            return found
    return None


def _unconvertible(value: Any, kind: str) -> str:
    if isinstance(value, dict):
        return "Start of structure or map found where not expected."
    if isinstance(value, list):
        return "Start of list found where not expected"
    if isinstance(value, bool):
        name = str(value).upper()
    else:
        name = "NULL" if value is None else "STRING" if isinstance(value, str) else "NUMBER"
    return f"{name}_VALUE can not be converted to {kind.capitalize()}"


def _walk(service: str, value: Any, shape: Any, path: str, found: list[str]) -> None:
    kind = shape.type_name
    if kind == "structure":
        if isinstance(value, dict):
            _structure(service, value, shape, path, found)
    elif kind == "list":
        _size(service, value, shape, path, found)
        for number, item in enumerate(value if isinstance(value, list) else [], start=1):
            _walk(service, item, shape.member, f"{path}.{number}.member", found)
    elif kind == "map":
        _size(service, value, shape, path, found)
        for key, item in value.items() if isinstance(value, dict) else ():
            _walk(service, key, shape.key, f"{path}.key", found)
            _walk(service, item, shape.value, f"{path}.{key}.member", found)
    elif kind == "string":
        _size(service, value, shape, path, found)
        _string(service, value, shape, path, found)
    elif kind in ("integer", "long", "float", "double"):
        _range(value, shape, path, found)


def _structure(service: str, value: dict[str, Any], shape: Any, path: str, found: list[str]) -> None:
    for name in shape.required_members:
        if value.get(name) is None:
            found.append(f"Value null at '{_join(path, name)}' failed to satisfy constraint: Member must not be null")
    for name, member in shape.members.items():
        if value.get(name) is not None:
            _walk(service, value[name], member, _join(path, name), found)


def _size(service: str, value: Any, shape: Any, path: str, found: list[str]) -> None:
    if (service, shape.name) in LOOSER_THAN_MODEL or not hasattr(value, "__len__"):
        return
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and len(value) < low:
        found.append(_failed(value, path, f"Member must have length greater than or equal to {low}"))
    if high is not None and len(value) > high:
        found.append(_failed(value, path, f"Member must have length less than or equal to {high}"))


def _range(value: Any, shape: Any, path: str, found: list[str]) -> None:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if low is not None and value < low:
        found.append(_failed(value, path, f"Member must have value greater than or equal to {low}"))
    if high is not None and value > high:
        found.append(_failed(value, path, f"Member must have value less than or equal to {high}"))


def _string(service: str, value: Any, shape: Any, path: str, found: list[str]) -> None:
    if not isinstance(value, str):
        return
    if shape.enum and value not in shape.enum:
        found.append(_failed(value, path, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"))
    pattern = shape.metadata.get("pattern")
    if pattern and (service, shape.name) not in LOOSER_THAN_MODEL:
        compiled = _compiled(pattern)
        if compiled is not None and compiled.search(value) is None:
            found.append(_failed(value, path, f"Member must satisfy regular expression pattern: {pattern}"))


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """Java's patterns match the whole value; the few that Python cannot read are not checked."""
    python = pattern.replace(r"\p{Print}", r"[\x20-\x7e]").replace(r"\p{L}", "a-zA-Z").replace(r"\p{Z}", r"\s")
    python = python.replace(r"\p{N}", "0-9").replace(r"\p{Alnum}", "a-zA-Z0-9").replace(r"\p{ASCII}", r"\x00-\x7f")
    if r"\p{" in python:
        return None
    try:
        return re.compile(rf"\A(?:{python})\Z")
    except re.error:
        return None


def _failed(value: Any, path: str, constraint: str) -> str:
    return f"Value '{_printed(value)}' at '{path}' failed to satisfy constraint: {constraint}"


def _printed(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_printed(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_lower_camel(key)}={_printed(item)}" for key, item in value.items()) + "}"
    return str(value)


def _join(path: str, name: str) -> str:
    return f"{path}.{_lower_camel(name)}" if path else _lower_camel(name)


def _lower_camel(name: str) -> str:
    return name[:1].lower() + name[1:]
