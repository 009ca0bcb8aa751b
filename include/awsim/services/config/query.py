"""What does a query in Config's SQL mean? `SELECT fields [WHERE ...] [GROUP BY fields] [ORDER BY fields]`, no FROM.

Fields are paths (`configuration.state.name`, also with quoted parts), over lists in any element. Conditions: `=`, `<>`, `!=`,
`<`, `>`, `<=`, `>=`, `LIKE 'abc%'`, `IN (...)`, `BETWEEN a AND b`, joined by AND, OR, NOT and brackets. Functions: COUNT, SUM,
MIN, MAX, AVG.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<sign><>|!=|<=|>=|[=<>(),*])
        |(?P<word>(?:[A-Za-z_][\w:-]*|"[^"]+")(?:\.(?:[A-Za-z_][\w:-]*|"[^"]+"))*))""",
    re.VERBOSE,
)
_FUNCTIONS = ("COUNT", "SUM", "MIN", "MAX", "AVG")
Test = Callable[[dict[str, Any]], bool]


class BadQuery(ValueError):
    """The expression cannot be understood."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    fields: list[str]
    where: Test
    group_by: list[str]
    order_by: list[tuple[str, bool]]
    """Field, and whether downwards."""


def parse(expression: str) -> Query:
    """
    Raises:
        BadQuery: see above.
    """
    return _Parser(expression).query()


class _Parser:
    def __init__(self, expression: str) -> None:
        self._tokens: list[str] = []
        rest = expression.strip().rstrip(";")
        while rest.strip():
            match = _TOKEN.match(rest)
            if match is None:
                raise BadQuery(f"The expression cannot be understood at {rest.strip()[:30]!r}.")
            self._tokens.append(match.group().strip())
            rest = rest[match.end() :]

    def _peek(self) -> str:
        return self._tokens[0] if self._tokens else ""

    def _is(self, *words: str) -> bool:
        return self._peek().upper() in words

    def _take(self, *words: str) -> str:
        if not self._tokens or (words and not self._is(*words)):
            raise BadQuery(f"Expected {' or '.join(words) or 'more'}, found {self._peek() or 'the end'!r}.")
        return self._tokens.pop(0)

    def query(self) -> Query:
        self._take("SELECT")
        fields = self._list(self._field)
        where: Test = lambda _: True  # noqa: E731
        if self._is("WHERE"):
            self._take()
            where = self._or()
        group: list[str] = []
        if self._is("GROUP"):
            self._take()
            self._take("BY")
            group = self._list(self._field)
        order: list[tuple[str, bool]] = []
        if self._is("ORDER"):
            self._take()
            self._take("BY")
            order = self._list(self._ordered)
        if self._tokens:
            raise BadQuery(f"Unexpected {self._peek()!r}.")
        return Query(fields=fields, where=where, group_by=group, order_by=order)

    def _list(self, part: Callable[[], Any]) -> list[Any]:
        found = [part()]
        while self._is(","):
            self._take()
            found.append(part())
        return found

    def _field(self) -> str:
        word = self._take()
        if word == "*":
            return word
        if word.upper() in _FUNCTIONS and self._is("("):
            self._take()
            inner = self._take()
            self._take(")")
            return f"{word.upper()}({inner})"
        if not re.match(r'[A-Za-z_"]', word):
            raise BadQuery(f"{word!r} is no field.")
        return word

    def _ordered(self) -> tuple[str, bool]:
        name = self._field()
        down = self._take().upper() == "DESC" if self._is("ASC", "DESC") else False
        return name, down

    def _or(self) -> Test:
        parts = [self._and()]
        while self._is("OR"):
            self._take()
            parts.append(self._and())
        return lambda row: any(part(row) for part in parts)

    def _and(self) -> Test:
        parts = [self._not()]
        while self._is("AND"):
            self._take()
            parts.append(self._not())
        return lambda row: all(part(row) for part in parts)

    def _not(self) -> Test:
        if self._is("NOT"):
            self._take()
            inner = self._not()
            return lambda row: not inner(row)
        if self._is("("):
            self._take()
            inner = self._or()
            self._take(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Test:
        field = self._field()
        negated = False
        if self._is("NOT"):
            self._take()
            negated = True
        how = self._take("=", "<>", "!=", "<", ">", "<=", ">=", "LIKE", "IN", "BETWEEN").upper()
        test = self._test(how)
        if how in ("<>", "!="):
            return lambda row: all(test(value) for value in values(row, field))
        return lambda row: any(test(value) for value in values(row, field)) != negated

    def _test(self, how: str) -> Callable[[Any], bool]:
        if how == "IN":
            self._take("(")
            wanted = self._list(self._value)
            self._take(")")
            return lambda value: value in wanted
        if how == "BETWEEN":
            least = self._value()
            self._take("AND")
            most = self._value()
            return lambda value: _compared(value, least) >= 0 and _compared(value, most) <= 0
        wanted_one = self._value()
        if how == "LIKE":
            pattern = re.compile(".*".join(map(re.escape, str(wanted_one).split("%"))), re.DOTALL)
            return lambda value: pattern.fullmatch(str(value)) is not None
        tests: dict[str, Callable[[Any], bool]] = {
            "=": lambda value: _compared(value, wanted_one) == 0,
            "<>": lambda value: _compared(value, wanted_one) != 0,
            "!=": lambda value: _compared(value, wanted_one) != 0,
            "<": lambda value: _compared(value, wanted_one) < 0,
            ">": lambda value: _compared(value, wanted_one) > 0,
            "<=": lambda value: _compared(value, wanted_one) <= 0,
            ">=": lambda value: _compared(value, wanted_one) >= 0,
        }
        return tests[how]

    def _value(self) -> Any:
        word = self._take()
        if word.startswith("'"):
            return word[1:-1].replace("''", "'")
        if re.fullmatch(r"-?\d+(\.\d+)?", word):
            return float(word) if "." in word else int(word)
        if word.lower() in ("true", "false"):
            return word.lower() == "true"
        raise BadQuery(f"{word!r} is no value; strings stand in single quotes.")


def _compared(left: Any, right: Any) -> int:
    if type(left) is not type(right) and not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
        left, right = str(left), str(right)
    return (left > right) - (left < right)


def values(row: Any, path: str) -> list[Any]:
    """All values that a path leads to; through lists into each element."""
    parts = [part.strip('"') for part in re.findall(r'"[^"]+"|[^.]+', path)]
    found = [row]
    for part in parts:
        found = [item[part] for whole in found for item in (whole if isinstance(whole, list) else [whole]) if _has(item, part)]
    return [item for value in found for item in (value if isinstance(value, list) else [value])]


def _has(item: Any, part: str) -> bool:
    return isinstance(item, dict) and item.get(part) is not None


def run(query: Query, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [row for row in rows if query.where(row)]
    counted = any("(" in field for field in query.fields)
    if counted or query.group_by:
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in found:
            groups.setdefault(tuple(str(values(row, name)) for name in query.group_by), []).append(row)
        if not query.group_by:
            groups = {(): found}
        told = [{field: _calculated(field, members) for field in query.fields} for members in groups.values()]
        for name, down in reversed(query.order_by):
            told.sort(key=lambda row: (row.get(name) is None, row.get(name) or 0), reverse=down)
        return [_nested(row) for row in told]
    for name, down in reversed(query.order_by):
        found.sort(key=lambda row: str((values(row, name) or [""])[0]), reverse=down)
    return [row if query.fields == ["*"] else _picked(row, query.fields) for row in found]


def _calculated(field: str, members: list[dict[str, Any]]) -> Any:
    match = re.fullmatch(r"([A-Z]+)\((.+)\)", field)
    if match is None:
        return next(iter(values(members[0], field)), None) if members else None
    name, inner = match.groups()
    if name == "COUNT":
        return len(members) if inner == "*" else sum(len(values(row, inner)) for row in members)
    numbers = [float(value) for row in members for value in values(row, inner) if isinstance(value, (int, float))]
    if not numbers:
        return None
    return {"SUM": sum, "MIN": min, "MAX": max, "AVG": lambda them: sum(them) / len(them)}[name](numbers)  # type: ignore[operator]


def _picked(row: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """The fields in the row's own nesting; one that goes through a list is the list of its parts."""
    told: dict[str, Any] = {}
    for field in fields:
        parts = [part.strip('"') for part in re.findall(r'"[^"]+"|[^.]+', field)]
        _put(told, parts, _at(row, parts))
    return told


def _at(item: Any, parts: list[str]) -> Any:
    if not parts:
        return item
    if isinstance(item, list):
        return [{parts[0]: _at(entry.get(parts[0]), parts[1:])} for entry in item if isinstance(entry, dict)]
    return _at(item.get(parts[0]), parts[1:]) if isinstance(item, dict) else None


def _put(told: dict[str, Any], parts: list[str], value: Any) -> None:
    if value is None:
        return
    for part in parts[:-1]:
        told = told.setdefault(part, {})
        if not isinstance(told, dict):
            return
    told[parts[-1]] = value


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for field, value in row.items():
        parts = [field] if "(" in field else [part.strip('"') for part in re.findall(r'"[^"]+"|[^.]+', field)]
        _put(told, parts, value)
    return told
