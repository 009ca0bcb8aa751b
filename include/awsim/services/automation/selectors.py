"""What does a selector such as `$.Reservations[0].Instances..State.Name` pick out of an API's answer?

The part of JSONPath that runbooks use: members, `..member`, `[n]`, `[*]`, `['member']` and `[?(@.a.b == 'c')]`.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from awsim.clock import iso

_PART = re.compile(
    r"""\.\.(?P<deep>[\w*-]+) | \.(?P<member>[\w-]+) | \.\* (?P<star>) | \[(?P<index>-?\d+)\] | \[(?P<all>\*)\]
      | \[['"](?P<quoted>[^'"]+)['"]\]
      | \[\?\(\s*@(?P<path>(?:\.[\w-]+)+)\s*(?P<how>==|!=)\s*['"]?(?P<value>[^'")]*)['"]?\s*\)\]""",
    re.VERBOSE,
)


class BadSelector(ValueError):
    """The selector is none that this simulator understands."""


def select(document: Any, path: str) -> list[Any]:
    """All values that the path leads to, in order.

    Raises:
        BadSelector: see above.
    """
    rest = path.strip().removeprefix("$")
    found = [document]
    while rest:
        part = _PART.match(rest)
        if part is None:
            raise BadSelector(f"The selector {path!r} cannot be understood at {rest!r}.")
        rest = rest[part.end() :]
        found = [value for item in found for value in _step(item, part)]
    return found


def _step(item: Any, part: "re.Match[str]") -> Iterator[Any]:
    named = part["member"] or part["quoted"]
    if named is not None:
        if isinstance(item, dict) and item.get(named) is not None:
            yield item[named]
    elif part["deep"] is not None:
        yield from _deep(item, part["deep"])
    elif part["index"] is not None:
        if isinstance(item, list) and -len(item) <= int(part["index"]) < len(item):
            yield item[int(part["index"])]
    elif part["path"] is not None:
        for entry in item if isinstance(item, list) else []:
            held = any(_plain(value) == part["value"].strip() for value in select(entry, part["path"]))
            if held == (part["how"] == "=="):
                yield entry
    elif isinstance(item, list):
        yield from item
    elif isinstance(item, dict):
        yield from item.values()


def _deep(item: Any, name: str) -> Iterator[Any]:
    if isinstance(item, dict):
        for key, value in item.items():
            if key == name or name == "*":
                yield value
            yield from _deep(value, name)
    elif isinstance(item, list):
        for value in item:
            yield from _deep(value, name)


def output(found: list[Any], kind: str) -> list[str]:
    """The values as a step's output of the declared type holds them."""
    if kind in ("StringList", "MapList"):
        flat = [entry for value in found for entry in (value if isinstance(value, list) else [value])]
        return [_plain(value) for value in flat]
    return [_plain(found[0])] if found else []


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return iso(value.timestamp())
    if isinstance(value, (dict, list)):
        return json.dumps(value, default=_plain)
    return str(value)


plain = _plain
