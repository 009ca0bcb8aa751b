"""Documents of many rows: streamed in and out, named by a digest that names every row, there as a whole or not at all."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL, text

from patchwave.campaign import evidence
from patchwave.campaign.errors import PatchwaveError
from patchwave.campaign.evidence import EvidenceBroken
from patchwave.campaign.values import RunId
from patchwave.ledger import rows as chunked
from patchwave.ledger.connect import engine_for, ledger_at
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.rows import Chunk, Rows
from patchwave.ledger.store import Ledger
from tests.ledger.builders import AT, DEV, RUN, a_run, everything, later

LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
ROW = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))
"""Whatever JSON can say."""
SIZE = st.integers(1, 5)


def stored(rows: list[Any], *, size: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Manifest and chunks."""
    made = list(chunked.chunks(rows, size=size))
    return chunked.manifest(made, head=None, of=None), {chunk.digest: chunk.body for chunk in made}


def opened(manifest: Any, bodies: dict[str, bytes]) -> Rows:
    return chunked.opened(manifest, name="document triage", digest=evidence.digest(manifest), of=None, chunk=bodies.get)


def many(count: int = 5000) -> list[dict[str, Any]]:
    """More than two chunks of rows."""
    return [{"finding": f"arn:{number}", "packages": ["kernel"], "text": "a\nb\u2028c"} for number in range(count)]


# --- what is pure --------------------------------------------------------------------------------------------------------------


@given(st.lists(ROW, max_size=17), SIZE)
def test_rows_come_back_as_they_were(rows: list[Any], size: int) -> None:
    """Each of them, in order, as often as one asks; whatever a text holds, line breaks of all sorts among it."""
    read = opened(*stored(rows, size=size))
    assert list(read) == rows == list(read)
    assert read.count == len(rows)


@given(st.lists(ROW, min_size=1, max_size=12), SIZE, st.data())
def test_another_row_anywhere_is_another_digest(rows: list[Any], size: int, data: st.DataObject) -> None:
    """A row that is changed, left out, put twice or put elsewhere: the document's digest tells."""
    place = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(ROW)
    changed = data.draw(st.sampled_from([
        [*rows[:place], other, *rows[place + 1 :]], rows[:place] + rows[place + 1 :],
        [*rows[:place], rows[place], *rows[place:]], [*rows[place:], *rows[:place]],
    ]))  # fmt: skip
    same = [evidence.canonical(row) for row in rows] == [evidence.canonical(row) for row in changed]
    digests = [evidence.digest(stored(one, size=size)[0]) for one in (rows, changed)]
    assert (digests[0] == digests[1]) is same


@given(st.lists(ROW, min_size=1, max_size=12), SIZE, st.data())
def test_a_chunk_that_is_not_what_was_stored_is_refused(rows: list[Any], size: int, data: st.DataObject) -> None:
    """Cut off, mangled, lost, or of another document: never a shorter or another list of rows."""
    manifest, bodies = stored(rows, size=size)
    victim = data.draw(st.sampled_from(sorted(bodies)))
    body = bodies[victim]
    place = data.draw(st.integers(0, len(body) - 1))
    bodies[victim] = data.draw(st.sampled_from([
        body[:place], body[:place] + bytes([body[place] ^ (1 << data.draw(st.integers(0, 7)))]) + body[place + 1 :],
        zlib.compress(zlib.decompress(body) + b"\n1"), zlib.compress(b""),
    ]))  # fmt: skip
    if data.draw(st.booleans()):
        del bodies[victim]
    with suppress(EvidenceBroken):
        # A bit that does not count for the text (of zlib's header) harms nobody.
        assert list(opened(manifest, bodies)) == rows


def test_the_message_says_which_chunk_of_which_document() -> None:
    """Whoever has a backup knows what to look for."""
    manifest, bodies = stored([1, 2, 3], size=1)
    lost = manifest["chunks"][1][0]
    del bodies[lost]
    with pytest.raises(EvidenceBroken, match=f"document triage: chunk 2 of 3 \\({lost[:12]}\\) is missing"):
        list(opened(manifest, bodies))
    bodies[lost] = zlib.compress(b"2")[:-3]
    with pytest.raises(EvidenceBroken, match=r"chunk 2 of 3 .* is damaged"):
        list(opened(manifest, bodies))
    bodies[lost] = zlib.compress(b"7")
    with pytest.raises(EvidenceBroken, match=r"chunk 2 of 3 .* its digest is another one"):
        list(opened(manifest, bodies))


def test_a_manifest_that_counts_otherwise_is_refused() -> None:
    """Its count is what people are told."""
    manifest, bodies = stored([1, 2, 3], size=2)
    manifest["chunks"][0][1] = 1
    with pytest.raises(EvidenceBroken, match="has 2 rows; the document counts 1"):
        list(opened(manifest, bodies))


def test_a_manifest_of_a_later_version_is_refused() -> None:
    """Not read as if it were of this one."""
    manifest, bodies = stored([1], size=1)
    with pytest.raises(EvidenceBroken, match="version 2; this Patchwave reads version 1"):
        opened(manifest | {chunked.MARK: 2}, bodies)


def test_no_more_than_a_chunk_of_rows_is_taken_at_once() -> None:
    """What comes from AWS page by page is not collected."""
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    made = chunked.chunks(endless())
    assert [next(made).rows, taken, next(made).rows, taken] == [chunked.ROWS, chunked.ROWS, chunked.ROWS, 2 * chunked.ROWS]


# --- in each ledger ------------------------------------------------------------------------------------------------------------


def test_a_document_of_rows_comes_back_row_by_row(ledger: Ledger) -> None:
    """With its head, under the digest that the ledger names; also as a whole, for whoever wants that."""
    ledger.open_run(a_run(), [DEV])
    digest = ledger.put_rows(RUN, "triage", iter(many()), at=AT, head={"policy": "standard"}, of="assessments")
    read = ledger.rows(RUN, "triage")
    assert (read.head, read.of, read.count, read.digest) == ({"policy": "standard"}, "assessments", 5000, digest)
    assert list(read) == many() == list(read)
    assert ledger.document(RUN, "triage") == {"policy": "standard", "assessments": many()}
    assert ledger.documents(RUN) == {"triage": digest}
    assert [entry.data for entry in ledger.journal(RUN)[1:]] == [{"name": "triage", "digest": digest}]


def test_the_same_rows_again_are_nothing(ledger: Ledger) -> None:
    """A retry repeats what it did; the journal does not."""
    ledger.open_run(a_run(), [DEV])
    first = ledger.put_rows(RUN, "findings.before", many(), at=AT)
    before = everything(ledger)
    assert ledger.put_rows(RUN, "findings.before", iter(many()), at=later(1)) == first
    assert everything(ledger) == before
    assert ledger.put_rows(RUN, "findings.before", many()[1:], at=later(2)) != first


def test_all_ledgers_give_rows_the_same_digest(ledger: Ledger) -> None:
    """Or a copy in another database could not be compared."""
    twin = MemoryLedger()
    for one in (twin, ledger):
        one.open_run(a_run(), [DEV])
        one.put_rows(RUN, "findings.before", many(), at=AT)
    assert twin.documents(RUN) == ledger.documents(RUN)


def test_who_dies_among_the_rows_leaves_the_document_as_it_was(ledger: Ledger) -> None:
    """Nothing is named that is not whole, whether there was such a document or not; the next try goes through."""
    ledger.open_run(a_run(), [DEV])

    def dying() -> Iterator[Any]:
        yield from many(4500)
        raise KeyboardInterrupt

    before = everything(ledger)
    with pytest.raises(KeyboardInterrupt):
        ledger.put_rows(RUN, "triage", dying(), at=AT)
    assert everything(ledger) == before
    with pytest.raises(KeyError, match="triage"):
        ledger.rows(RUN, "triage")
    ledger.put_rows(RUN, "triage", many(10), at=AT)
    with pytest.raises(KeyboardInterrupt):
        ledger.put_rows(RUN, "triage", dying(), at=later(1))
    assert list(ledger.rows(RUN, "triage")) == many(10)
    ledger.put_rows(RUN, "triage", many(), at=later(2))
    assert list(ledger.rows(RUN, "triage")) == many()


def test_a_reader_goes_on_with_what_it_opened(ledger: Ledger) -> None:
    """Another document under the name, put while somebody reads, is not mixed into the first."""
    ledger.open_run(a_run(), [DEV])
    ledger.put_rows(RUN, "triage", many(), at=AT)
    reading = iter(ledger.rows(RUN, "triage"))
    first = next(reading)
    ledger.put_rows(RUN, "triage", [1, 2], at=later(1))
    assert [first, *reading] == many()


@pytest.mark.parametrize(("content", "of", "head"), [
    (many(3), None, None), ({"policy": "p", "assessments": many(3)}, "assessments", {"policy": "p"}),
    ({"at": "now"}, "assessments", {"at": "now"}),
])  # fmt: skip
def test_a_document_of_before_is_read_the_same_way(ledger: Ledger, content: Any, of: str | None, head: Any) -> None:
    """Runs that began before an update are reported after it."""
    ledger.open_run(a_run(), [DEV])
    digest = ledger.put_document(RUN, "triage", content, at=AT)
    read = ledger.rows(RUN, "triage", of=of)
    expected = many(3) if content != {"at": "now"} else []
    assert (list(read), read.count, read.head, read.digest) == (expected, len(expected), head, digest)


def test_rows_of_an_unknown_run_are_refused_before_one_is_taken(ledger: Ledger) -> None:
    """They would be stored for nobody."""
    with pytest.raises(KeyError, match="nonesuch"):
        ledger.put_rows(RunId("dag/nonesuch"), "triage", _never(), at=AT)


def _never() -> Iterator[Any]:
    raise AssertionError("a row was taken")
    yield


def test_what_is_no_json_is_refused(ledger: Ledger) -> None:
    """In a row as in any document, and nothing is named."""
    ledger.open_run(a_run(), [DEV])
    before = everything(ledger)
    with pytest.raises(evidence.NotJson):
        ledger.put_rows(RUN, "triage", [{"a": 1}, {"a": {1, 2}}], at=AT)
    for head, of in (({"rows": 1}, "rows"), ({}, None), (None, "rows")):
        with pytest.raises(ValueError, match="a key of their own"):
            ledger.put_rows(RUN, "triage", _never(), at=AT, head=head, of=of)
    assert everything(ledger) == before


def test_a_chunk_that_was_changed_in_the_database_is_found(database: URL) -> None:
    """As any document that somebody has rewritten there."""
    ledger = ledger_at(database)
    ledger.open_run(a_run(), [DEV])
    ledger.put_rows(RUN, "triage", many(), at=AT)
    (other,) = chunked.chunks([{"finding": "none"}])
    _overwrite(database, other)
    with pytest.raises(PatchwaveError, match=r"document triage of run .*: chunk 1 of 3 .* its digest is another one"):
        list(ledger.rows(RUN, "triage"))


def _overwrite(database: URL, chunk: Chunk) -> None:
    with engine_for(database).begin() as connection:
        connection.execute(text("UPDATE chunks SET body = :body"), {"body": chunk.body})
