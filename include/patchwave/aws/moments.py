"""Which moment is meant where AWS takes or gives text instead of a timestamp?"""

from __future__ import annotations

from datetime import UTC, datetime


def parsed(text: str) -> datetime:
    """A moment out of an answer, in UTC; without an offset it is UTC, too.

    Raises:
        ValueError: it is no moment (ISO 8601).
    """
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def written(moment: datetime) -> str:
    """A moment for a request, to the second: ``2026-03-03T22:10:00Z``."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
