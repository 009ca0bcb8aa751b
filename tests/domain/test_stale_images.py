"""Which groups would bring an unpatched host back, and how the policy has that handled."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from patchwave.campaign import document, stale_images
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.stale_images import Handling, Origin, Patched, StaleImages
from tests.domain.builders import CELL, NOW, host_id

OLD = Origin(
    cell=CELL, group="web", source="launch template web, version 3", image="ami-1", made_at=NOW - timedelta(days=30), most=9
)
PATCHED = [
    Patched(host=host_id(number), cell=CELL, group="web", at=NOW - timedelta(hours=number)) for number in (1, 2)
]  # fmt: skip
TWO_WEEKS = StaleImages(handled=Handling.NEXT_IMAGE, within=timedelta(days=14))


def test_an_image_older_than_its_hosts_patches_is_named_with_both_moments() -> None:
    """So that whoever reads it can check it in the console."""
    (one,) = stale_images.found([OLD], PATCHED, None, now=NOW)
    assert (one.group, one.image, one.hosts, one.patched_at) == ("web", "ami-1", 2, NOW - timedelta(hours=1))
    assert "launch template web, version 3 names image ami-1 of" in one.why
    assert (one.handled, one.overdue) == ("", False)


def test_an_image_made_after_the_patches_brings_nobody_back() -> None:
    """Nor does a group that may have no instance, nor one of whose hosts nobody was ever patched."""
    assert not stale_images.found([replace(OLD, made_at=NOW)], PATCHED, None, now=NOW)
    assert not stale_images.found([replace(OLD, most=0)], PATCHED, None, now=NOW)
    assert not stale_images.found([OLD], [], None, now=NOW)


def test_only_hosts_patched_after_the_image_count() -> None:
    """One was patched before the image was made: it may be in it."""
    (one,) = stale_images.found([replace(OLD, made_at=NOW - timedelta(minutes=90))], PATCHED, None, now=NOW)
    assert one.hosts == 1


@pytest.mark.parametrize("unknown", [replace(OLD, made_at=None), replace(OLD, image="", made_at=None)])
def test_what_is_not_known_counts_as_open(unknown: Origin) -> None:
    """An image that is gone, or a template that names none, is no proof of anything."""
    (one,) = stale_images.found([unknown], PATCHED, None, now=NOW)
    assert "AWS does not" in one.why


def test_each_template_of_a_group_counts() -> None:
    """A mixed instances policy may take any of them."""
    other = replace(OLD, source="launch template web-arm, version 1", image="ami-2", made_at=NOW)
    assert [one.image for one in stale_images.found([other, OLD], PATCHED, None, now=NOW)] == ["ami-1"]


def test_the_next_image_is_due_and_then_overdue() -> None:
    """Counted from the last patching, not from the report."""
    (soon,) = stale_images.found([OLD], PATCHED, TWO_WEEKS, now=NOW)
    (late,) = stale_images.found([OLD], PATCHED, TWO_WEEKS, now=NOW + timedelta(days=14))
    assert "the next image closes it, due by" in soon.handled
    assert (soon.overdue, late.overdue) == (False, True)


def test_an_acceptance_ends_with_its_day() -> None:
    """It holds on its last day, and is overdue on the next."""
    rule = StaleImages(handled=Handling.ACCEPTED, until=date(2026, 12, 31), because="CHG-1")
    last = NOW.replace(year=2026, month=12, day=31, hour=23)
    (on_it,) = stale_images.found([OLD], PATCHED, rule, now=last)
    (after,) = stale_images.found([OLD], PATCHED, rule, now=last + timedelta(hours=2))
    assert on_it.handled == "accepted until 2026-12-31: CHG-1"
    assert (on_it.overdue, after.overdue) == (False, True)


def test_what_the_ledger_keeps_is_what_was_found() -> None:
    """Also of an image that AWS does not know."""
    found = stale_images.found([OLD, replace(OLD, group="api", made_at=None)], PATCHED, TWO_WEEKS, now=NOW)
    assert stale_images.from_json(stale_images.to_json(found, problem="denied")) == (found, "denied")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("handled: next_image", "within"),
        ("handled: accepted\nuntil: 2026-12-31", "because"),
        ("handled: accepted\nbecause: CHG-1", "until"),
        ("handled: next_image\nwithin: 14d\nuntil: 2026-12-31", "until"),
        ("handled: never", "handled"),
    ],
)
def test_half_an_answer_is_refused_with_what_is_missing(text: str, message: str) -> None:
    """An acceptance without an end, or without a reason, is none."""
    with pytest.raises(InvalidFile, match=message):
        document.fit(document.load(text, file="policy.yaml"), StaleImages)
