"""Which version of a gold image may a level use, and which record may be appended?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from patchwave.campaign.images import promotion
from patchwave.campaign.images.promotion import LADDER, Level, PromotedImage, Refusal
from patchwave.campaign.values import RunId

AT = datetime(2026, 11, 24, 9, tzinfo=UTC)


def a_record(level: Level = Level.CANDIDATE, version: str = "1.0.0/1", image: str = "web") -> PromotedImage:
    return PromotedImage(
        image=image,
        version=version,
        manifest=f"manifest of {version}",
        amis={"eu-central-1": f"ami-{version}"},
        level=level,
        at=AT,
        run=RunId("gold-image-web/manual__1"),
        by="gold-image-web",
        reason=f"{level} has found it good",
    )


def climbed(version: str, to: Level) -> list[PromotedImage]:
    return [a_record(level, version) for level in LADDER[: LADDER.index(to) + 1]]


def quarantined(version: str) -> PromotedImage:
    return replace(a_record(Level.QUARANTINED, version), reason="half of Dev did not come up")


def said(answer: PromotedImage | Refusal | None) -> str:
    assert isinstance(answer, Refusal)
    return answer.reason


def test_a_level_uses_its_newest_version_and_no_newer_one_of_a_lower_level():
    """What Dev tries out is not what Prod runs."""
    records = climbed("1/1", Level.PROD) + climbed("2/1", Level.DEV)
    stands = promotion.standing(records, "web")
    assert {level: record.version for level, record in stands.items()} == {
        Level.CANDIDATE: "2/1",
        Level.DEV: "2/1",
        Level.STAGING: "1/1",
        Level.PROD: "1/1",
    }
    assert promotion.may_be_used(records, "web", Level.PROD) == stands[Level.PROD]


def test_records_are_taken_in_the_order_in_which_they_came():
    """Clocks of two machines differ; the ledger's order does not."""
    late, early = a_record(Level.CANDIDATE, "1/1"), replace(a_record(Level.CANDIDATE, "2/1"), at=AT - timedelta(hours=1))
    assert promotion.standing([late, early], "web")[Level.CANDIDATE].version == "2/1"


def test_a_quarantine_ends_a_version_at_every_level_whenever_it_was_written():
    """A promotion that slipped in after the quarantine does not bring the version back."""
    records = [*climbed("1/1", Level.PROD), *climbed("2/1", Level.DEV), quarantined("2/1"), a_record(Level.STAGING, "2/1")]
    assert {record.version for record in promotion.standing(records, "web").values()} == {"1/1"}


def test_a_level_whose_versions_are_all_quarantined_says_why():
    reason = said(promotion.may_be_used([*climbed("1/1", Level.DEV), quarantined("1/1")], "web", Level.DEV))
    assert "quarantined, last 1/1: half of Dev did not come up" in reason


@pytest.mark.parametrize("level", [Level.DEV, Level.STAGING, Level.PROD])
def test_a_candidate_is_used_by_no_stage(level: Level):
    """The gate's yes is not yet the promotion."""
    assert "has been promoted to" in said(promotion.may_be_used([a_record()], "web", level))


@pytest.mark.parametrize("level", [Level.CANDIDATE, Level.QUARANTINED])
def test_only_dev_staging_and_prod_are_levels_of_a_stage(level: Level):
    assert "dev, staging or prod" in said(promotion.may_be_used(climbed("1/1", Level.PROD), "web", level))


def test_an_image_is_not_another_image():
    records = climbed("1/1", Level.PROD)
    assert promotion.standing(records, "db") == {}
    assert "knows no image db" in said(promotion.may_be_used(records, "db", Level.PROD))


def test_a_level_goes_back_to_its_version_before_and_to_no_quarantined_one():
    records = [*climbed("1/1", Level.PROD), *climbed("2/1", Level.PROD), *climbed("3/1", Level.PROD), quarantined("2/1")]
    back = promotion.previous(records, "web", Level.PROD)
    assert back is not None
    assert back.version == "1/1"
    assert promotion.previous(climbed("1/1", Level.PROD), "web", Level.PROD) is None


@pytest.mark.parametrize("level", LADDER[1:])
def test_no_level_is_skipped(level: Level):
    before = LADDER[LADDER.index(level) - 1]
    assert promotion.refused(climbed("1/1", before), a_record(level, "1/1")) is None
    below = climbed("1/1", LADDER[LADDER.index(before) - 1]) if before is not Level.CANDIDATE else []
    assert f"has not been at {before}" in said(promotion.refused(below, a_record(level, "1/1")))


def test_another_version_at_the_level_before_proves_nothing():
    assert "has not been at staging" in said(promotion.refused(climbed("1/1", Level.PROD), a_record(Level.PROD, "2/1")))


def test_a_quarantined_version_reaches_no_level_any_more():
    there = [*climbed("1/1", Level.DEV), quarantined("1/1")]
    for level in LADDER:
        assert "quarantined" in said(promotion.refused(there, a_record(level, "1/1")))


def test_a_version_never_changes():
    """Not even while it is quarantined: what was gated is what is used."""
    there = climbed("1/1", Level.DEV)
    for other in ({"manifest": "another"}, {"amis": {"eu-central-1": "ami-other"}}):
        assert "never changes" in said(promotion.refused(there, replace(a_record(Level.STAGING, "1/1"), **other)))


def test_an_unknown_version_is_not_quarantined_and_one_without_amis_not_promoted():
    assert "not known" in said(promotion.refused([], quarantined("1/1")))
    assert "no AMI" in said(promotion.refused([], replace(a_record(), amis={})))
