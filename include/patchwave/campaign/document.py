"""How does the text of a file become a model, with every problem placed on its line?

`definition`, `policy` and `tables` call this for their YAML files, `catalogues` for the JSON of others; what a field may hold is
said by their models. Of YAML the node tree is composed before any value is made, because only nodes know their lines; keys stay
the text that was written (YAML 1.1 would turn ``on`` into true).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from patchwave.campaign.errors import InvalidFile

Loc = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)

# A file of a few kilobytes is usual; aliases of aliases can name billions of nodes in ten lines.
MOST_NODES = 100_000
PLAIN_TAGS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Misplacement:
    """One problem that concerns several fields, and the field that a person would change."""

    loc: Loc
    message: str


class Misfit(ValueError):
    """Fields that are right one by one do not fit together; models raise it with everything that they saw."""

    def __init__(self, found: Sequence[Misplacement]) -> None:
        self.found = tuple(found)
        super().__init__("; ".join(f"{dotted(one.loc)}: {one.message}" for one in self.found))


class Part(BaseModel):
    """What all parts of a file have in common: immutable, and no field that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FilePart(Part):
    """A whole file: it can be stored, read back, and named by its digest, for a run works from a copy."""

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, every default written out."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        return cls.model_validate(json.loads(text))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex: changes with the meaning of the file, not with its comments or spaces."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A file as plain data, and the line of each of its fields.

    Attributes:
        file: as people should read it in messages.
        data: mappings, lists and scalars; of YAML a mapping, of JSON a mapping or a list.
        lines: 1-based line by path, e.g. ``("stages", 0, "soak")``.
    """

    file: str
    data: Any
    lines: Mapping[Loc, int]

    def line(self, loc: Loc) -> int:
        """The line of a field; of the nearest enclosing one where the field itself is missing."""
        for length in range(len(loc), -1, -1):
            if loc[:length] in self.lines:
                return self.lines[loc[:length]]
        return 1

    def within(self, name: str) -> Document:
        """The same as the one field of a mapping, for a file that is a list."""
        return Document(file=self.file, data={name: self.data}, lines=_Within(name=name, lines=self.lines))

    def problem(self, loc: Loc, message: str) -> str:
        """One sentence: file, line, field, and what is wrong with it."""
        return f"{self.file}:{self.line(loc)}: {dotted(loc) or 'the file'}: {message}"


def dotted(loc: Loc) -> str:
    """``stages[0].soak``, as people write it."""
    text = ""
    for part in loc[1:] if loc[:1] == ("",) and len(loc) > 1 and isinstance(loc[1], int) else loc:  # a file that is a list
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.strip() or not part.isprintable():
            text += f"[{part!r}]"  # a name that nobody would see
        else:
            text += f".{part}" if text else part
    return text


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        InvalidFile: it cannot be read, or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidFile((f"{path}:1: the file: cannot be read: {error.strerror or error}",)) from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InvalidFile((f"{path}:{line}: the file: holds bytes that are no UTF-8; allowed is UTF-8 text",)) from error


def load(text: str, *, file: str) -> Document:
    """The document of a text.

    Raises:
        InvalidFile: no YAML, empty, more than one document, a key given twice, or a YAML tag that runs code.
    """
    try:
        loader = yaml.CSafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise InvalidFile((f"{file}:1: the file: is empty; allowed is a mapping of fields",))
            reader = _Reader(file=file, loader=loader)
            data = reader.value(node, (), ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InvalidFile((f"{file}:{line}: the file: is no valid YAML: {error.problem or error.context}",)) from error
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise InvalidFile((f"{file}:1: the file: is no valid YAML: {reason}",)) from error
    except (RecursionError, UnicodeError) as error:
        raise InvalidFile((f"{file}:1: the file: is no valid YAML: {type(error).__name__}",)) from error
    if reader.problems:
        raise InvalidFile(tuple(reader.problems))
    if not isinstance(data, dict):
        raise InvalidFile((f"{file}:1: the file: found {shown(data)}; allowed is a mapping of fields",))
    return Document(file=file, data=data, lines=reader.lines)


def load_json(text: str, *, file: str) -> Document:
    """The document of a JSON text: a mapping or a list.

    Raises:
        InvalidFile: no JSON, or another value.
    """
    try:
        data = json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        message = f"{file}:{error.lineno}: the file: is no valid JSON at column {error.colno}: {error.msg}"
        raise InvalidFile((message,)) from error
    except (RecursionError, ValueError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidFile((f"{file}:1: the file: is no valid JSON: {reason}",)) from error
    if not isinstance(data, dict | list):
        raise InvalidFile((f"{file}:1: the file: found {shown(data)}; allowed is a mapping or a list",))
    return Document(file=file, data=data, lines=_JsonLines(text))


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


class _Lines(Mapping[Loc, int]):
    """Lines that are looked up only when there is something to complain about."""

    def found(self) -> Mapping[Loc, int]:
        raise NotImplementedError

    def __getitem__(self, loc: Loc) -> int:
        return self.found()[loc]

    def __iter__(self) -> Iterator[Loc]:
        return iter(self.found())

    def __len__(self) -> int:
        return len(self.found())


class _JsonLines(_Lines):
    """The line of each value of a JSON text, which is known to be valid."""

    _TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: dict[Loc, int] | None = None

    def found(self) -> Mapping[Loc, int]:
        if self._lines is None:
            self._lines = dict(reversed(list(self._walk())))  # a value begins at its first token
        return self._lines

    def _walk(self) -> Iterator[tuple[Loc, int]]:
        path: list[str | int] = []
        inside: list[bool] = []  # whether each enclosing value is a mapping
        key: str | None = None
        line, last = 1, 0
        for token in self._TOKEN.finditer(self._text):
            line, last = line + self._text.count("\n", last, token.start()), token.start()
            match token[0]:
                case "{" | "[" as opens:
                    yield tuple(path), line
                    inside.append(opens == "{")
                    path.append("" if opens == "{" else 0)
                    key = None
                case "}" | "]":
                    inside.pop()
                    path.pop()
                case ",":
                    key = None
                    if not inside[-1]:
                        path[-1] = int(path[-1]) + 1
                case ":":
                    pass
                case text if inside and inside[-1] and key is None:
                    key = path[-1] = str(json.loads(text))
                    yield tuple(path), line
                case _:
                    yield tuple(path), line
            if token[0] in "}]" and inside and inside[-1]:
                key = str(path[-1])


class _Within(_Lines):
    """The lines of a list, seen as the one field of a mapping."""

    def __init__(self, *, name: str, lines: Mapping[Loc, int]) -> None:
        self._name, self._inner = name, lines

    def found(self) -> Mapping[Loc, int]:
        return {(): 1, **{(self._name, *loc): line for loc, line in self._inner.items()}}


@dataclass(kw_only=True, slots=True)
class _Reader:
    """Makes plain data from nodes, remembering lines and what is wrong."""

    file: str
    loader: yaml.CSafeLoader
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    nodes: int = 0

    def complain(self, node: yaml.Node, loc: Loc, message: str) -> None:
        self.problems.append(f"{self.file}:{node.start_mark.line + 1}: {dotted(loc) or 'the file'}: {message}")

    def value(self, node: yaml.Node, loc: Loc, above: tuple[int, ...]) -> Any:
        self.lines.setdefault(loc, node.start_mark.line + 1)
        self.nodes += 1
        if self.nodes > MOST_NODES:
            if self.nodes == MOST_NODES + 1:
                self.complain(node, loc, f"the file holds more than {MOST_NODES} values once its aliases are resolved")
            return None
        if id(node) in above:
            self.complain(node, loc, "an alias contains itself; allowed are aliases of finished values")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, loc)
        if node.tag not in PLAIN_TAGS:
            self.complain(node, loc, f"found the YAML tag {node.tag}; allowed are plain mappings and lists")
            return None
        inside = (*above, id(node))
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*loc, index), inside) for index, item in enumerate(node.value)]
        return self.mapping(node, loc, inside)

    def scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        try:
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError, LookupError):
            self.complain(node, loc, f"found {shown(node.value)}, which YAML reads as {node.tag.rsplit(':', 1)[-1]} "
                                     "and cannot understand; put it in quotes if text is meant")  # fmt: skip
            return None

    def mapping(self, node: yaml.Node, loc: Loc, inside: tuple[int, ...]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.complain(key, loc, "a field's name is a list or a mapping; allowed is text")
                continue
            here = (*loc, key.value)
            if key.value in made:
                self.complain(key, here, f"is given twice, first on line {self.lines[here]}; allowed is once")
                continue
            self.lines[here] = key.start_mark.line + 1
            made[key.value] = self.value(item, here, inside)
        return made


def fit(document: Document, model: type[ModelT], *, also: Sequence[Misplacement] = ()) -> ModelT:
    """The model of a document.

    Args:
        also: problems that the caller found beyond the model; reported together, so that a file is mended in one go.

    Raises:
        InvalidFile: one sentence a problem, ordered by line.
    """
    found = list(also)
    made: ModelT | None = None
    try:
        made = model.model_validate(document.data)
    except ValidationError as error:
        found += misplaced(error, model)
    if found or made is None:
        found.sort(key=lambda one: document.line(one.loc))
        raise InvalidFile(tuple(document.problem(one.loc, one.message) for one in found))
    return made


def called_like_its_file(path: Path, text: str, name: str) -> None:
    """Nothing, if the `name` that a file's text gives is that by which others refer to the file.

    Raises:
        InvalidFile: it is another one.
    """
    if name != path.stem:
        written = load(text, file=str(path))
        raise InvalidFile((written.problem(("name",), f"found {name!r}; allowed is the name of the file, {path.stem!r}"),))


def schema_text(schema: Mapping[str, Any]) -> str:
    """A model's JSON schema as it is stored in docs/, for editors."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def misplaced(error: ValueError, model: type[BaseModel]) -> list[Misplacement]:
    """What pydantic or a `Misfit` says of a model, each problem at its field."""
    if isinstance(error, Misfit):
        return list(error.found)
    if not isinstance(error, ValidationError):
        return [Misplacement(loc=(), message=str(error))]
    found: list[Misplacement] = []
    for one in error.errors():
        cause = one.get("ctx", {}).get("error")
        base = _written(one["loc"])
        if isinstance(cause, Misfit):
            found += [Misplacement(loc=(*base, *part.loc), message=part.message) for part in cause.found]
        else:
            found.append(Misplacement(loc=base, message=_sentence(one, model)))
    return found


def _written(loc: Loc) -> Loc:
    """The path as written in the file: pydantic adds ``[key]`` where the key itself is wrong, and the tag of a union's member,
    which is in angle brackets with us."""
    return tuple(part for part in loc if part != "[key]" and not _is_tag(part))


def _is_tag(part: str | int) -> bool:
    return isinstance(part, str) and part.startswith("<") and part.endswith(">")


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    """What was found and what is allowed, from pydantic's words."""
    kind, found, loc = error["type"], error["input"], error["loc"]
    if kind == "missing":
        holder = model_at(model, loc[:-1])
        info = _field(holder, str(loc[-1]))
        about = info.description if info else None
        return f"is missing; it must be given{f' ({about})' if about else ''}"
    if kind == "extra_forbidden":
        return _unknown(str(loc[-1]), model_at(model, loc[:-1]))
    if kind == "value_error":
        about_all = isinstance(found, dict | BaseModel)  # the mapping as a whole: nothing to quote
        return str(error["ctx"]["error"]) if about_all else f"found {shown(found)}; {error['ctx']['error']}"
    allowed = {
        "string_type": "allowed is text; put it in quotes",
        "bool_type": "allowed is true or false",
        "int_type": "allowed is a whole number",
        "tuple_type": "allowed is a list",
        "list_type": "allowed is a list",
        "mapping_type": "allowed is a mapping of names to values",
        "dict_type": "allowed is a mapping of names to values",
        "model_type": "allowed is a mapping of fields",
        "model_attributes_type": "allowed is a mapping of fields",
        "too_short": "allowed is a list with at least one entry",
        "string_too_short": "allowed is text that is not empty",
    }.get(kind)
    if allowed is None:
        said = error["msg"]
        allowed = said.replace("Input should be", "allowed is") if said.startswith("Input") else f"allowed is only: {said}"
    return f"found {shown(found)}; {allowed}"


def _unknown(name: str, holder: type[BaseModel] | None) -> str:
    if holder is None:
        return "is no known field"
    names = sorted(info.alias or key for key, info in holder.model_fields.items() if not is_hidden(info))
    near = difflib.get_close_matches(name, names, n=1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return f"is no known field{meant}; allowed here are {', '.join(names)}"


def model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model that describes the mapping at `loc`; None where that is no model."""
    here: type[BaseModel] | None = model
    annotation: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        if _is_tag(part):
            here = _tagged(annotation, part)
            continue
        info = _field(here, part)
        if info is None:
            return None
        annotation = info.annotation
        here = _model_in(annotation)
    return here


def is_hidden(info: FieldInfo) -> bool:
    """Whether a field is for stored copies only, and not to be written in a file."""
    return any(type(one).__name__ == "SkipJsonSchema" for one in info.metadata)


def _field(model: type[BaseModel] | None, name: str) -> FieldInfo | None:
    """The field of that name, in Python or in the file."""
    fields = model.model_fields if model else {}
    return fields.get(name) or next((info for info in fields.values() if info.alias == name), None)


def _tagged(annotation: Any, tag: str) -> type[BaseModel] | None:
    """The member of a union that carries that tag."""
    for inner in get_args(annotation):
        if get_origin(inner) is Annotated and any(isinstance(one, Tag) and one.tag == tag for one in inner.__metadata__):
            return _model_in(inner)
        if (found := _tagged(inner, tag)) is not None:
            return found
    return None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None


def shown(value: Any) -> str:
    """A value as a message shows it: short, and the kind where the text alone would mislead."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "an empty list" if not value else "a list"
    if isinstance(value, int | float):
        return f"the number {value}"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
