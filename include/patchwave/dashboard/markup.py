"""How do the ledger's values look on a page? Templates and their filters; the plan's Markdown is `campaign.page`'s."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from patchwave.campaign.page import rendered
from patchwave.campaign.report import CLASSES, MEANINGS, duration_text

ASSETS = Path(__file__).parent / "assets"
LONGEST_DATA = 240
"""Characters of a journal record's data on the page; the whole of it is in the JSON."""


def moment(at: datetime | None) -> str:
    """``2026-06-02 20:00 UTC``; ``-`` for None."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if at else "-"


def clock(at: datetime) -> str:
    """With seconds, for records that follow each other closely."""
    return f"{at.astimezone(UTC):%m-%d %H:%M:%S}"


def when(until: datetime | None, now: datetime) -> str:
    """How far away the end of a wait is."""
    if until is None:
        return "until somebody answers"
    left = until - now
    if left < timedelta(0):
        return f"until {moment(until)}, which passed {duration_text(-left.total_seconds())} ago"
    return f"until {moment(until)} at the latest, in {duration_text(left.total_seconds())}"


def brief(data: Any) -> str:
    """A record's data in one line."""
    text = ", ".join(f"{key}: {_word(value)}" for key, value in data.items() if value not in (None, ""))
    return text if len(text) <= LONGEST_DATA else text[: LONGEST_DATA - 1] + "…"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


@lru_cache(maxsize=1)
def templates() -> Environment:
    """The environment of the pages."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "moment": moment,
        "clock": clock,
        "when": when,
        "brief": brief,
        "markdown": rendered,
        "duration": lambda span: duration_text(span.total_seconds()),
        "words": lambda text: str(text).replace("_", " "),
        "quoted": lambda text: quote(str(text), safe=""),
    }
    made.globals["classes"] = CLASSES
    made.globals["meanings"] = MEANINGS
    return made
