"""A plan's page: long tables are rendered a part at a time, and nobody can tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import page

CELLS = st.text(alphabet="ab|*`<>[]()\\_-# ", max_size=6)
ROWS = st.lists(st.tuples(CELLS, CELLS).map(lambda cells: f"| {cells[0]} | {cells[1]} |\n"), max_size=9)
TEXTS = st.sampled_from(
    ["", "# A\n\n", "- one\n- two\n\n", "1. one\n\n   more\n\n", "> quoted\n", "    code\n\n", "| no table\n\n", "a\n", "```\n"]
)


@pytest.fixture(autouse=True, scope="module")
def few_rows_at_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "ROWS_AT_ONCE", 2)
        yield


def whole(markdown: str) -> str:
    return str(page._markdown().render(markdown))


@given(before=TEXTS, rows=ROWS, between=TEXTS, more=ROWS, after=TEXTS)
def test_a_page_in_parts_is_the_page_as_a_whole(before: str, rows: list[str], between: str, more: list[str], after: str):
    """Whatever stands in the cells, before a table, and after it."""
    head = "| a | b |\n|---|---:|\n"
    text = f"{before}\n{head}{''.join(rows)}\n{between}{head}{''.join(more)}{after}"
    assert str(page.rendered(text)) == whole(text)


def test_a_long_table_is_rendered_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch):
    """The rows' tokens are what a large plan's page took its memory for."""
    asked: list[int] = []
    render = page._markdown().render
    monkeypatch.setattr(page._markdown(), "render", lambda text: asked.append(text.count("\n")) or render(text))
    rows = "".join(f"| host-{number} | dev |\n" for number in range(9))
    page.rendered(f"# Plan\n\n| host | stage |\n|---|---|\n{rows}\nEnd.\n")
    assert max(asked) <= 2 + page.ROWS_AT_ONCE
    assert len(asked) == 7
