"""Which row of a decision table do the facts about a finding meet?

A table is a YAML file in `include/policies/tables/`: its source, its columns with their answers, and a row for each combination
of answers. A policy names one, and `policy.read` puts a copy of it into the policy, so that a run goes by the table as it was
when the run began. Which answers a finding gets is decided in `deadlines`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, StrictStr, WithJsonSchema, field_validator, model_validator

from patchwave.campaign import document
from patchwave.campaign.definition import Line, Slug, Timeout
from patchwave.campaign.document import FilePart, Misfit, Misplacement, Part

SHIPPED = Path(__file__).resolve().parents[2] / "policies" / "tables"
"""The tables that come with Patchwave."""

LARGEST = 10_000
"""Combinations of answers that a table may have; those that are shipped have 96 at most."""


def word(written: object) -> object:
    """An answer as text: YAML reads ``yes`` and ``no`` as true and false, and 5 as a number."""
    if isinstance(written, bool):
        return "yes" if written else "no"
    if isinstance(written, int):
        return str(written)
    return written


Word = Annotated[
    StrictStr,
    BeforeValidator(word),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "boolean"}, {"type": "integer"}]}),
]


class Row(Part):
    """One row: the answers that it takes, and what follows."""

    row: Annotated[Word, Field(description="Name of the row, as its source has it; reasons and reports quote it.")]
    when: Annotated[Mapping[StrictStr, Word], Field(
        description="An answer by column. A column that is not named does not matter to this row.",
    )]  # fmt: skip
    outcome: Annotated[StrictStr, Field(description="What follows: one of the table's `outcomes`.")]


class Table(FilePart):
    """One file of `include/policies/tables/`."""

    name: Annotated[Slug, Field(description="Name of the table: that of its file, without the ending.")]
    title: Annotated[Line, Field(description="Name of the table in reasons and reports.")]
    source: Annotated[Line, Field(description="Where its rows come from, so that an auditor can look them up.")]
    columns: Annotated[Mapping[StrictStr, tuple[Word, ...]], Field(
        min_length=1, description="The answers of each column, the least urgent first.",
    )]  # fmt: skip
    outcomes: Annotated[Mapping[StrictStr, Timeout | None], Field(
        min_length=1,
        description="What may follow, the least urgent first, with the time that it gives; null where the source names no time.",
    )]  # fmt: skip
    rows: Annotated[tuple[Row, ...], Field(min_length=1, description="Exactly one for each combination of answers.")]

    @field_validator("columns")
    @classmethod
    def _answers_differ(cls, value: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        found = [
            Misplacement(loc=(name,), message="names no answer, or one twice; allowed is a list of answers, each once")
            for name, answers in value.items()
            if not answers or len(set(answers)) != len(answers)
        ]
        if found:
            raise Misfit(found)
        return value

    @model_validator(mode="after")
    def _each_combination_has_one_row(self) -> Self:
        size = 1
        for answers in self.columns.values():
            size *= len(answers)
        if size > LARGEST:
            raise Misfit([Misplacement(loc=("columns",), message=f"have {size} combinations; allowed are at most {LARGEST}")])
        found = [problem for number, row in enumerate(self.rows) for problem in self._odd(number, row)]
        if found:
            raise Misfit(found)
        met: dict[tuple[str, ...], int] = {}
        for number, row in enumerate(self.rows):
            for combination in self._met_by(row):
                first = met.setdefault(combination, number)
                if first != number:
                    message = f"meets {self._said(combination)}, as row {self.rows[first].row} does; allowed is one row for it"
                    raise Misfit([Misplacement(loc=("rows", number), message=message)])
        for combination in product(*self.columns.values()):
            if combination not in met:
                message = f"no row meets {self._said(combination)}; allowed is a row for each combination of answers"
                raise Misfit([Misplacement(loc=("rows",), message=message)])
        return self

    def _odd(self, number: int, row: Row) -> Iterator[Misplacement]:
        for column, answer in row.when.items():
            loc = ("rows", number, "when", column)
            if column not in self.columns:
                yield Misplacement(loc=loc, message=f"is no column; allowed are {', '.join(self.columns)}")
            elif answer not in self.columns[column]:
                allowed = ", ".join(self.columns[column])
                yield Misplacement(loc=loc, message=f"found {answer!r}; allowed are the answers of its column: {allowed}")
        if row.outcome not in self.outcomes:
            allowed = ", ".join(map(repr, self.outcomes))
            yield Misplacement(loc=("rows", number, "outcome"), message=f"found {row.outcome!r}; allowed are {allowed}")

    def _met_by(self, row: Row) -> Iterator[tuple[str, ...]]:
        return product(*((row.when[name],) if name in row.when else answers for name, answers in self.columns.items()))

    def _said(self, combination: tuple[str, ...]) -> str:
        return ", ".join(f"{column} {answer}" for column, answer in zip(self.columns, combination, strict=True))

    @cached_property
    def _by_answers(self) -> Mapping[tuple[str, ...], Row]:
        return {combination: row for row in self.rows for combination in self._met_by(row)}

    def match(self, answers: Mapping[str, str]) -> Row:
        """The row that meets these answers, one by column.

        Raises:
            KeyError: a column is missing, or an answer is none of its column's.
        """
        return self._by_answers[tuple(answers[column] for column in self.columns)]

    def time_of(self, row: Row) -> timedelta | None:
        """The time that a row gives; None where the table names none."""
        return self.outcomes[row.outcome]


def parse(text: str, *, file: str) -> Table:
    """The table of a file's text.

    Raises:
        InvalidFile: with every problem that was found.
    """
    return document.fit(document.load(text, file=file), Table)


def read(path: Path) -> Table:
    """The table of a file.

    Raises:
        InvalidFile: with every problem that was found; also if its name is not that of the file.
    """
    text = document.text_of(path)
    table = parse(text, file=str(path))
    document.called_like_its_file(path, text, table.name)
    return table


def find(name: str, *, folder: Path | None = None) -> Table:
    """The table of that name: from `folder` if it holds one, else the one that is shipped.

    Raises:
        InvalidFile: the file is broken, or there is none.
    """
    own = folder / f"{name}.yaml" if folder else None
    return read(own if own is not None and own.is_file() else SHIPPED / f"{name}.yaml")


def schema_text() -> str:
    """The JSON schema of a table's file for editors, as stored in docs/table.schema.json."""
    return document.schema_text(Table.model_json_schema())
