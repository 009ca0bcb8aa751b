"""Who may sign in to the demo, and with which password? Generated at the first start, kept for the next ones."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

USERS: Mapping[str, str] = {"ana": "admin", "olga": "op", "uma": "user", "vic": "viewer"}
"""Login name and role: ana triggers, olga approves, uma may answer and trigger, vic only looks."""


def ensure(file: Path) -> Mapping[str, str]:
    """Passwords by login name, from `file`; those that are missing are made and added. Only its owner can read it."""
    known: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    missing = {name: secrets.token_urlsafe(12) for name in USERS if not known.get(name)}
    if missing or file.stat().st_mode & 0o077:
        _write(file, known | missing)
    return known | missing


def _write(file: Path, passwords: Mapping[str, str]) -> None:
    """All or nothing, and never readable by others, not even for a moment."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        json.dump(passwords, out, indent=2)
        out.write("\n")
    draft.replace(file)
