"""What does a service's model allow, and how is it broken? Values of input shapes for the fuzz, and a checker of answers."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from botocore.session import get_session
from hypothesis import strategies as st

DEEP = 3
"""Below this depth optional members are left out."""

_CLASSES = [
    (r"\p{Print}", r"[\x20-\x7e]"),
    (r"\p{ASCII}", r"[\x20-\x7e]"),
    (r"\p{Alnum}", "[a-zA-Z0-9]"),
    (r"\p{Graph}", r"[\x21-\x7e]"),
    (r"\p{L}", "a-zA-Z"),
    (r"\p{Z}", " "),
    (r"\p{N}", "0-9"),
    (r"\p{M}", ""),
    (r"\p{S}", "+"),
    (r"\p{P}", "_"),
]


@cache
def model(service: str) -> Any:
    return get_session().get_service_model(service)


# --- valid values ---


def requests(service: str, operation: str, known: dict[str, list[str]]) -> st.SearchStrategy[dict[str, Any]]:
    """Requests that satisfy the operation's input shape; identifiers are often those that exist (`known`, by member name)."""
    shape = model(service).operation_model(operation).input_shape
    return values(shape, "", known, 0) if shape is not None else st.just({})


def around(service: str, operation: str, good: dict[str, Any], known: dict[str, list[str]]) -> st.SearchStrategy[dict[str, Any]]:
    """A request that the service would answer, with up to two members made anew."""
    members = model(service).operation_model(operation).input_shape.members
    anew = st.lists(st.sampled_from(sorted(members)), max_size=2, unique=True) if members else st.just([])
    return anew.flatmap(
        lambda names: st.fixed_dictionaries({one: values(members[one], one, known, 1) for one in names}).map(
            lambda made: {**good, **made}
        )
    )


def values(shape: Any, name: str, known: dict[str, list[str]], depth: int) -> st.SearchStrategy[Any]:
    kind, facts = shape.type_name, shape.metadata
    if kind == "structure":
        required = {member: values(shape.members[member], member, known, depth + 1) for member in shape.required_members}
        if getattr(shape, "is_tagged_union", False):
            return st.one_of(
                [
                    values(found, member, known, depth + 1).map(lambda value, key=member: {key: value})
                    for member, found in shape.members.items()
                ]
            )
        if depth >= DEEP:
            return st.fixed_dictionaries(required)
        optional = {
            member: st.deferred(lambda found=found, member=member: values(found, member, known, depth + 1))
            for member, found in shape.members.items()
            if member not in required
        }
        # few optional members at a time: a request with all of them is refused for the first one
        chosen = st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True) if optional else st.just([])
        return chosen.flatmap(lambda names: st.fixed_dictionaries({**required, **{one: optional[one] for one in names}}))
    if kind == "list":
        low = facts.get("min", 0)
        high = min(facts.get("max", low + 2), low + 2)
        return st.lists(values(shape.member, name, known, depth + 1), min_size=low, max_size=max(low, high))
    if kind == "map":
        low = facts.get("min", 0)
        keys = values(shape.key, "", known, depth + 1)
        return st.dictionaries(
            keys, values(shape.value, name, known, depth + 1), min_size=low, max_size=max(low, min(2, facts.get("max", 2)))
        )
    if kind == "string":
        return _strings(shape, name, known)
    if kind in ("integer", "long"):
        low = facts.get("min", 0)
        return st.integers(low, min(facts.get("max", low + 12), 2**31 - 1))
    if kind in ("float", "double"):
        return st.floats(facts.get("min", 0), facts.get("max", 1000), allow_nan=False)
    if kind == "boolean":
        return st.booleans()
    if kind == "timestamp":
        return st.sampled_from([datetime(1999, 1, 1), datetime(2026, 1, 5, 9), datetime(2026, 1, 6), datetime(2030, 12, 31)])  # noqa: DTZ001
    return st.binary(min_size=facts.get("min", 0), max_size=32)


def _strings(shape: Any, name: str, known: dict[str, list[str]]) -> st.SearchStrategy[str]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    made = st.sampled_from(
        texts(shape.name, shape.metadata.get("pattern"), shape.metadata.get("min", 0), shape.metadata.get("max"))
    )
    existing = [value for value in known.get(name.lower().removesuffix("s"), []) if fits(value, shape)]
    return st.one_of(st.sampled_from(existing), st.sampled_from(existing), made) if existing else made


def fits(value: str, shape: Any) -> bool:
    facts = shape.metadata
    if not facts.get("min", 0) <= len(value) <= facts.get("max", 10**9):
        return False
    compiled = readable(facts.get("pattern"))
    return compiled is None or compiled.fullmatch(value) is not None


@cache
def readable(pattern: str | None) -> re.Pattern[str] | None:
    if not pattern:
        return None
    for java, python in _CLASSES:
        pattern = pattern.replace(java, python)
    try:
        return re.compile(pattern)
    except re.error:
        return None


@cache
def texts(shape: str, pattern: str | None, low: int, high: int | None) -> list[str]:
    """Up to eight strings of a shape, always the same ones."""
    chance = random.Random(f"{shape} {pattern}")
    compiled = readable(pattern)
    high = high if high is not None else max(low, 24) + 40
    if compiled is None:
        sizes = {low, min(high, low + 1), min(high, max(low, 12)), min(high, 256)}
        found = ["".join(chance.choice("abcXYZ019-_./: é") for _ in range(size)) for size in sorted(sizes)]
        return ["a" * len(one) if pattern else one for one in found]
    tree = _parser.parse(compiled.pattern)
    kept: list[str] = []
    for effort in range(600):
        text = _string(tree, chance, low if effort % 2 else 0)
        if low <= len(text) <= high and compiled.fullmatch(text) and text not in kept:
            kept.append(text)
        if len(kept) == 8:
            break
    return kept or ["a" * max(low, 1)]


def _string(tree: Any, chance: random.Random, wanted: int) -> str:
    """A text that the parsed pattern matches (look-arounds aside: the caller tries again)."""
    out: list[str] = []
    for code, argument in tree:
        if code is sre.LITERAL:
            out.append(chr(argument))
        elif code in (sre.ANY, sre.NOT_LITERAL):
            out.append(chance.choice("abc09-"))
        elif code is sre.IN:
            out.append(_one_of(argument, chance))
        elif code in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            low, high, inner = argument
            top = min(int(high), max(int(low), wanted) + chance.choice([0, 1, 3, 12]))
            times = min(top, chance.randint(int(low), top) if not wanted else max(int(low), min(wanted, top)))
            out.extend(_string(inner, chance, 0) for _ in range(times))
        elif code is sre.SUBPATTERN:
            out.append(_string(argument[-1], chance, wanted))
        elif code is sre.BRANCH:
            out.append(_string(chance.choice(argument[1]), chance, wanted))
        elif code is sre.ATOMIC_GROUP:
            out.append(_string(argument, chance, wanted))
    return "".join(out)


def _one_of(members: Any, chance: random.Random) -> str:
    allowed = [chr(number) for number in range(32, 127) if _within(members, chr(number))] or [" "]
    return chance.choice(allowed)


def _within(members: Any, letter: str) -> bool:
    negated = any(code is sre.NEGATE for code, _ in members)
    hit = False
    for code, argument in members:
        if code is sre.LITERAL:
            hit |= ord(letter) == argument
        elif code is sre.RANGE:
            hit |= argument[0] <= ord(letter) <= argument[1]
        elif code is sre.CATEGORY:
            hit |= _CATEGORIES[str(argument)](letter)
    return hit is not negated


_CATEGORIES = {
    "CATEGORY_DIGIT": str.isdigit,
    "CATEGORY_NOT_DIGIT": lambda letter: not letter.isdigit(),
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_NOT_SPACE": lambda letter: not letter.isspace(),
    "CATEGORY_WORD": lambda letter: letter.isalnum() or letter == "_",
    "CATEGORY_NOT_WORD": lambda letter: not (letter.isalnum() or letter == "_"),
}


# --- broken values ---


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """A request with exactly one violation, and what AWS says of it."""

    where: str
    sentence: str
    request: dict[str, Any]


def broken(service: str, operation: str, looser: frozenset[tuple[str, str]]) -> Iterator[Broken]:
    """Every single violation of the operation's input shape down to DEEP members."""
    shape = model(service).operation_model(operation).input_shape
    if shape is None:
        return
    for where, sentence, value in _violations(service, shape, "", 0, looser):
        yield Broken(where=where, sentence=sentence, request=value)


def least(shape: Any) -> Any:
    """The smallest valid value of a shape."""
    kind, facts = shape.type_name, shape.metadata
    if kind == "structure":
        members = list(shape.required_members)
        if getattr(shape, "is_tagged_union", False):
            members = list(shape.members)[:1]
        return {member: least(shape.members[member]) for member in members}
    if kind == "list":
        return [least(shape.member)] * max(1, facts.get("min", 0))
    if kind == "map":
        return {least(shape.key): least(shape.value)}
    if kind == "string":
        return shape.enum[0] if shape.enum else texts(shape.name, facts.get("pattern"), facts.get("min", 0), facts.get("max"))[-1]
    if kind == "boolean":
        return True
    if kind == "timestamp":
        return datetime(2026, 1, 6)  # noqa: DTZ001
    if kind == "blob":
        return b"x" * facts.get("min", 1)
    return max(facts.get("min", 1), 0)


def _violations(service: str, shape: Any, path: str, depth: int, looser: Any) -> Iterator[tuple[str, str, Any]]:
    kind, facts = shape.type_name, shape.metadata
    loose = (service, shape.name) in looser
    if kind == "structure" and depth < DEEP:
        whole = least(shape)
        for member in shape.required_members:
            if shape.members[member].serialization.get("location") == "uri":
                continue  # there is no path without it
            if shape.members[member].metadata.get("idempotencyToken"):
                continue  # botocore fills it in
            where = f"{path}.{member}".strip(".")
            yield where, "Member must not be null", {key: value for key, value in whole.items() if key != member}
        for member, found in shape.members.items():
            for where, sentence, value in _violations(service, found, f"{path}.{member}".strip("."), depth + 1, looser):
                if value != "" or found.serialization.get("location") != "uri":
                    yield where, sentence, {**whole, member: value}
    elif kind == "list":
        if facts.get("min", 0) > 0:
            yield path, f"length greater than or equal to {facts['min']}", [least(shape.member)] * (facts["min"] - 1)
        if facts.get("max", 10**9) < 1100:
            yield path, f"length less than or equal to {facts['max']}", [least(shape.member)] * (facts["max"] + 1)
        for where, sentence, value in _violations(service, shape.member, f"{path}[]", depth, looser):
            yield where, sentence, [value] * max(1, facts.get("min", 0))
    elif kind == "map":
        if facts.get("min", 0) > 0:
            yield path, f"length greater than or equal to {facts['min']}", {}
        for where, sentence, value in _violations(service, shape.value, f"{path}{{}}", depth, looser):
            yield where, sentence, {least(shape.key): value}
    elif kind == "string" and not loose:
        if shape.enum:
            yield path, "Member must satisfy enum value set", "no-such-value"
        else:
            if facts.get("min", 0) > 1 or (facts.get("min", 0) == 1 and model(service).metadata["protocol"] != "query"):
                yield path, f"length greater than or equal to {facts['min']}", "a" * (facts["min"] - 1)
            if facts.get("max", 10**9) < 70_000:
                yield path, f"length less than or equal to {facts['max']}", "a" * (facts["max"] + 1)
            compiled = readable(facts.get("pattern"))
            if compiled is not None:
                size = max(1, facts.get("min", 1))
                wrong = next(
                    (text for text in ("\x07" * size, "~" * size, " " * size, "{" * size) if not compiled.fullmatch(text)), None
                )
                if wrong is not None:
                    yield path, "Member must satisfy regular expression pattern", wrong
    elif kind in ("integer", "long", "float", "double"):
        if "min" in facts:
            yield path, f"value greater than or equal to {facts['min']}", facts["min"] - 1
        if facts.get("max", 2**31) < 2**31 - 1:
            yield path, f"value less than or equal to {facts['max']}", facts["max"] + 1


# --- answers ---

_PYTHON = {
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
    "timestamp": datetime,
    "list": list,
    "map": dict,
    "structure": dict,
}


def unlike(shape: Any, value: Any, path: str = "$") -> Iterator[str]:
    """What in a parsed answer is not of its shape: unknown members, wrong types, required members that are absent."""
    kind = shape.type_name
    if value is None:
        return
    if kind == "blob":
        return
    if not isinstance(value, _PYTHON[kind]) or (kind in ("integer", "long") and isinstance(value, bool)):
        yield f"{path} is {type(value).__name__}, not {kind}"
        return
    if kind == "structure":
        for member in shape.required_members:
            if value.get(member) is None:
                yield f"{path}.{member} is required and absent"
        for member, inner in value.items():
            if member not in shape.members:
                yield f"{path}.{member} is no member of {shape.name}"
            else:
                yield from unlike(shape.members[member], inner, f"{path}.{member}")
    elif kind == "list":
        for inner in value:
            yield from unlike(shape.member, inner, f"{path}[]")
    elif kind == "map":
        for key, inner in value.items():
            yield from unlike(shape.value, inner, f"{path}.{key}")
