"""How does a plan become files? Its Markdown as safe HTML for the pages in the UI and as one file that can be sent, and JSON.

The Markdown is the plan's only wording; here nothing is added to it but a frame. The same files lie in the run's folder and are
served by the dashboard.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from patchwave.campaign import evidence


def rendered(markdown: str) -> Markup:
    """Markdown as HTML: raw HTML stays text, and there are no links or images, for host names come from tags."""
    return Markup(_markdown().render(markdown))  # noqa: S704  the renderer escapes everything that it does not make itself


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
