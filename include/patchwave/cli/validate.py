"""Are these campaign files right? Every problem with its file, line and field, before Airflow sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from patchwave.campaign import definition
from patchwave.campaign.errors import InvalidFile
from patchwave.cli.environment import REPOSITORY

CAMPAIGNS = REPOSITORY / "include" / "campaigns"
POLICIES = REPOSITORY / "include" / "policies"


def validate(files: Sequence[Path], console: Console) -> int:
    """Read the files (all of `CAMPAIGNS` if none is named), print what is wrong; 0 if nothing is."""
    problems: list[str] = []
    good: list[str] = []
    if files:
        for file in files:
            try:
                good.append(definition.read(file, policies=POLICIES).name)
            except InvalidFile as invalid:
                problems.extend(invalid.problems)
            except OSError as error:
                problems.append(f"{file}: {error.strerror or error}")
    else:
        campaigns, broken = definition.read_all(CAMPAIGNS, policies=POLICIES)
        good = [campaign.name for campaign in campaigns]
        problems = [problem for one in broken for problem in one.problems]
    for name in good:
        console.print(f"{name}: good", highlight=False, markup=False)
    for problem in problems:
        console.print(problem, highlight=False, markup=False, soft_wrap=True)
    return 1 if problems else 0
