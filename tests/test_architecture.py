"""Who may import whom: the contracts of pyproject.toml, checked by import-linter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def test_the_import_contracts_are_kept() -> None:
    """Layers, patchwave and awsim apart, a plain domain, boto3 in one place; a new package that nobody placed fails, too."""
    ended = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True,
        check=False, timeout=300, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "include"), "COLUMNS": "200"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "4 kept, 0 broken" in ended.stdout
