"""Canonical JSON, digests and the chain of a journal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import evidence

AT = datetime(2026, 3, 3, 22, 0, 0, 500, tzinfo=UTC)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
contents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    run: str
    sequence: int
    at: datetime
    kind: str
    data: dict[str, Any]
    before: str
    hash: str


def a_journal(length: int = 5, run: str = "dag/run") -> list[Record]:
    made: list[Record] = []
    for sequence in range(1, length + 1):
        before = made[-1].hash if made else evidence.FIRST
        values = {"sequence": sequence, "at": AT + timedelta(minutes=sequence), "kind": "note", "data": {"n": sequence}}
        made.append(Record(run=run, before=before, hash=evidence.link(run=run, before=before, **values), **values))
    return made


# canonical JSON


def test_canonical_json_is_sorted_dense_utf8():
    """The bytes are fixed for good: digests of years ago are recomputed from them."""
    assert evidence.canonical({"b": [1, 2.5, None, True], "a": "Zürich"}) == '{"a":"Zürich","b":[1,2.5,null,true]}'.encode()


def test_the_digest_is_the_sha256_of_the_canonical_json():
    """Anybody can check it with the tools of any system."""
    assert evidence.digest({"b": 1, "a": 2}) == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()


@given(contents)
def test_a_round_through_json_changes_no_digest(content: Any):
    """What a ledger hands out has the digest under which it was stored."""
    assert evidence.digest(json.loads(evidence.canonical(content))) == evidence.digest(content)


@given(st.dictionaries(texts, scalars, max_size=6), st.randoms())
def test_the_order_of_keys_changes_no_digest(content: dict[str, Any], random: Any):
    items = list(content.items())
    random.shuffle(items)
    assert evidence.canonical(dict(items)) == evidence.canonical(content)


@given(contents, contents)
def test_different_contents_have_different_bytes(one: Any, other: Any):
    """Equal bytes come from what JSON itself cannot tell apart, and from nothing else."""
    same = evidence.canonical(one) == evidence.canonical(other)
    assert same == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


class Colour(StrEnum):
    RED = "red"


def test_tuples_and_string_enums_are_written_as_json_knows_them():
    assert evidence.canonical({"a": (1, Colour.RED), Colour.RED: 1}) == b'{"a":[1,"red"],"red":1}'


def circle() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": [{10: "x"}]}, r"content\.a\[0\] has the key 10"),
        ({None: 1}, "has the key None"),
        (float("nan"), "not JSON compliant"),
        ([float("inf")], "not JSON compliant"),
        ("\ud83d", "surrogates not allowed"),
        ({"at": AT}, "datetime is not JSON"),
        ({"a": {1, 2}}, "set is not JSON"),
        (b"bytes", "bytes is not JSON"),
        (circle(), "nested too deeply|contains itself"),
    ],
)
def test_what_json_cannot_say_has_no_digest(content: Any, said: str):
    """Rather no digest than one that the content does not have after it was stored and read."""
    with pytest.raises(evidence.NotJson, match=said):
        evidence.digest(content)


# links


def test_the_same_moment_has_the_same_hash_in_every_zone():
    vienna = AT.astimezone(timezone(timedelta(hours=1)))
    assert evidence.link("r", 1, vienna, "note", {}, evidence.FIRST) == evidence.link("r", 1, AT, "note", {}, evidence.FIRST)


def test_a_moment_without_zone_has_no_hash():
    with pytest.raises(ValueError, match="no time zone"):
        evidence.link("r", 1, AT.replace(tzinfo=None), "note", {}, evidence.FIRST)


def test_a_link_is_what_the_documentation_says():
    """So that an auditor can recompute it without Patchwave."""
    text = (
        '{"at":"2026-03-03T22:00:00.000500+00:00","before":"'
        + "0" * 64
        + '","data":{"n":1},"kind":"note","run":"r","sequence":1}'
    )
    assert evidence.link("r", 1, AT, "note", {"n": 1}, evidence.FIRST) == hashlib.sha256(text.encode()).hexdigest()


# verification


@given(st.integers(0, 8))
def test_a_journal_as_it_was_written_has_no_problem(length: int):
    assert evidence.verify(a_journal(length)) == []


@given(st.integers(0, 4), st.sampled_from(["run", "sequence", "at", "kind", "data", "before", "hash"]))
def test_any_change_of_any_field_is_found(index: int, field: str):
    """And the record is named, so that somebody can look."""
    changed = {
        "run": "dag/other",
        "sequence": 77,
        "at": AT - timedelta(microseconds=1),
        "kind": "decision.made",
        "data": {"n": "another"},
        "before": "f" * 64,
        "hash": "f" * 64,
    }
    journal = a_journal()
    journal[index] = replace(journal[index], **{field: changed[field]})
    problems = evidence.verify(journal)
    assert any(f"record {journal[index].sequence} " in problem for problem in problems)


@given(st.integers(0, 3))
def test_a_removed_record_is_found(index: int):
    journal = a_journal()
    del journal[index]
    assert evidence.verify(journal)


def test_records_in_another_order_are_found():
    assert evidence.verify(list(reversed(a_journal())))


def test_a_record_that_is_rewritten_with_its_own_hash_breaks_the_next_one():
    """Who changes a record and recomputes its hash has to recompute all that follow, and the last hash is kept elsewhere."""
    journal = a_journal()
    data = {"n": "forged"}
    forged = evidence.link("dag/run", 3, journal[2].at, "note", data, journal[2].before)
    journal[2] = replace(journal[2], data=data, hash=forged)
    (problem,) = evidence.verify(journal)
    assert problem.startswith("record 4 (note) does not follow")


@pytest.mark.parametrize("broken", [{"at": AT.replace(tzinfo=None)}, {"data": {"n": float("nan")}}, {"data": {1: 2}}])
def test_a_record_that_has_no_hash_at_all_is_a_problem_and_no_crash(broken: dict[str, Any]):
    journal: Sequence[Record] = [replace(a_journal(1)[0], **broken)]
    assert evidence.verify(journal) == [
        "record 1 (note) was changed after it was written: its hash is not the one of its content"
    ]
