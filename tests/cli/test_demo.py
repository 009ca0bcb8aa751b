"""The demo: what it chooses where nobody has chosen."""

from __future__ import annotations

from pathlib import Path

from patchwave.cli.demo import world_of
from patchwave.cli.stack import SMALL_WORLD


def test_a_campaign_is_shown_in_the_world_of_its_own_name(tmp_path: Path) -> None:
    """`make demo CAMPAIGN=web-refresh` needs no second option."""
    own = tmp_path / "web-refresh.yaml"
    own.write_text("name: web-refresh\n", encoding="utf-8")
    assert world_of("web-refresh", tmp_path) == own
    assert world_of("weekly-linux", tmp_path) == SMALL_WORLD
    assert world_of("web-refresh").is_file()
    assert world_of("web-refresh") != SMALL_WORLD
