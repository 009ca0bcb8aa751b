"""How does a plan become files? Its Markdown as safe HTML for the pages in the UI and as one file that can be sent, and JSON.

The Markdown is the plan's only wording; here nothing is added to it but a frame. The same files lie in the run's folder and are
served by the dashboard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from patchwave.campaign import evidence

ROWS_AT_ONCE = 500
"""Rows of a table that are rendered together: the tokens of a row are a hundred times its text, and a plan may have 100,000."""


def rendered(markdown: str) -> Markup:
    """Markdown as HTML: raw HTML stays text, and there are no links or images, for host names come from tags."""
    return Markup("".join(_pieces(markdown)))  # noqa: S704  the renderer escapes everything that it does not make itself


def _pieces(markdown: str) -> Iterator[str]:
    """The page's HTML, long tables a part at a time: as if it were rendered at once, in a tenth of the memory."""
    if "```" in markdown or "~~~" in markdown:  # what looks like a table may be code
        yield _markdown().render(markdown)
        return
    text: list[str] = []
    lines = markdown.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        end = _end_of_table(lines, at)
        if end - at - 2 <= ROWS_AT_ONCE:
            text += lines[at : max(end, at + 1)]
            at = max(end, at + 1)
            continue
        yield _markdown().render("".join(text))
        text.clear()
        yield from _table(lines[at : at + 2], lines[at + 2 : end])
        at = end
    yield _markdown().render("".join(text))


def _end_of_table(lines: Sequence[str], at: int) -> int:
    """Behind the last row of the table that begins at this line; this line where none does."""
    begins = at == 0 or not lines[at - 1].strip()
    if not begins or not lines[at].startswith("|") or at + 1 == len(lines) or not lines[at + 1].startswith("|-"):
        return at
    end = at + 2
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    # What follows without a blank line is still a part of it, in ways that only the renderer knows.
    return end if end == len(lines) or not lines[end].strip() else at


def _table(head: Sequence[str], rows: Sequence[str]) -> Iterator[str]:
    begins, ends = "<tbody>\n", "</tbody>\n</table>\n"
    for first in range(0, len(rows), ROWS_AT_ONCE):
        html = _markdown().render("".join((*head, *rows[first : first + ROWS_AT_ONCE])))
        if first:
            html = html[html.index(begins) + len(begins) :]
        yield html if first + ROWS_AT_ONCE >= len(rows) else html.removesuffix(ends)


def to_html(markdown: str, *, title: str) -> str:
    """One file: no scripts, no foreign sources, everything from outside escaped."""
    return _templates().get_template("plan.html.j2").render(title=title, body=rendered(markdown))


def to_json(plan: Mapping[str, Any], *, run: str, calls: Any = None) -> dict[str, Any]:
    """The plan's document for programs, with the digest that an approval is bound to.

    Args:
        calls: `calls.to_json`: what a run would call; of a dry run only.
    """
    content = {"run": run, "digest": evidence.digest(plan), "plan": plan}
    return content if calls is None else {**content, "calls": calls}


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    return MarkdownIt("js-default", {"html": False, "linkify": False}).disable(["link", "autolink", "image", "reference"])


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
