"""Findings of overlapping pages: each once, the newest, in order, whatever is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import deduplication
from patchwave.campaign.deduplication import Newest
from patchwave.campaign.findings import Finding
from tests.domain.test_severity import NOW, finding

SEEN = st.lists(
    st.builds(
        lambda number, minutes, title: replace(finding(number=number), updated=NOW + timedelta(minutes=minutes), title=title),
        st.integers(1, 9), st.integers(0, 3), st.sampled_from(["a", "b\nc", "ü"]),
    ),
    max_size=30,
)  # fmt: skip


def expected(found: list[Finding]) -> list[Finding]:
    """By the simplest means."""
    newest: dict[str, Finding] = {}
    for one in found:
        if one.arn not in newest or one.updated > newest[one.arn].updated:
            newest[one.arn] = one
    return [newest[arn] for arn in sorted(newest)]


@given(SEEN, st.integers(1, 7))
def test_each_finding_is_there_once_and_is_the_newest(found: list[Finding], at_once: int) -> None:
    """However few are sorted at a time; of two that are as new it is the one that came first. And a second time."""
    kept = Newest(iter(found), at_once=at_once)
    assert list(kept) == expected(found) == list(kept)
    assert [deduplication.finding_of(row) for row in kept.rows()] == expected(found)


def test_all_are_taken_before_anybody_goes_through_them() -> None:
    """What is noted of them while they go by is complete then."""
    taken = []

    def pages() -> Iterator[Finding]:
        for number in range(3):
            taken.append(number)
            yield finding(number=number)

    Newest(pages())
    assert taken == [0, 1, 2]
