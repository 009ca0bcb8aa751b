"""Who is told of what? The campaign file's notifications; one that fails never fails a task."""

from __future__ import annotations

import logging
from typing import Any

from patchwave.campaign.definition import Campaign, Event

log = logging.getLogger(__name__)


def tell(campaign: Campaign, event: Event, text: str, *, to: Any = log) -> None:
    """Send `text` by every way that the campaign file names for `event`.

    Args:
        to: the task's logger.
    """
    for way in campaign.notifications:
        if event not in way.on:
            continue
        if way.log is not None:
            to.log(getattr(logging, way.log.upper()), "%s: %s", event.value, text)
        if way.email is not None:
            _mail(way.email, subject=f"{campaign.name}: {event.value.replace('_', ' ')}", text=text, to=to)


def _mail(address: str, *, subject: str, text: str, to: Any) -> None:
    try:
        from airflow.utils.email import send_email
        from markupsafe import escape

        send_email([address], subject, f"<p>{escape(text)}</p>")
    except Exception as error:  # noqa: BLE001 (whatever is wrong with the mail server, the campaign goes on)
        to.warning("%s could not be written to: %s", address, error)
