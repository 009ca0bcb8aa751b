"""Passwords are made, never fixed, and only their owner reads them."""

from __future__ import annotations

import json
from pathlib import Path

from patchwave.cli import passwords


def test_each_home_gets_passwords_of_its_own(tmp_path: Path) -> None:
    """A fixed password would be everybody's."""
    first = passwords.ensure(tmp_path / "one.json")
    second = passwords.ensure(tmp_path / "two.json")
    assert set(first) == {"ana", "olga", "uma", "vic"}
    assert not set(first.values()) & set(second.values())
    assert all(len(password) >= 16 for password in first.values())


def test_only_the_owner_can_read_them(tmp_path: Path) -> None:
    """Airflow reads them as the same user; nobody else has to."""
    file = tmp_path / "passwords.json"
    passwords.ensure(file)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_can_read_is_closed_again(tmp_path: Path) -> None:
    """A copied or restored home has lost its mode."""
    file = tmp_path / "passwords.json"
    known = passwords.ensure(file)
    file.chmod(0o644)
    assert passwords.ensure(file) == known
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_second_start_keeps_them_and_adds_who_is_missing(tmp_path: Path) -> None:
    """Whoever wrote the password down can still sign in."""
    file = tmp_path / "passwords.json"
    file.write_text(json.dumps({"olga": "kept"}))
    known = passwords.ensure(file)
    assert known["olga"] == "kept"
    assert json.loads(file.read_text()) == known
    assert set(known) == {"ana", "olga", "uma", "vic"}
