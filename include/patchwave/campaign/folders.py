"""In which folder does the evidence of a run lie?

The report task writes plan, report and hosts there, the command line adds the simulator's journal: both ask here, so that
they meet. A run id holds what file systems dislike (a slash, colons, a plus), hence a safe name instead of it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from patchwave.campaign.values import RunId

LONGEST = 120
"""Characters of a folder name; file systems allow 255 bytes, archives and Windows shares less."""


def folder_name(run: RunId) -> str:
    """A folder name for this run and no other.

    A run id whose parts are plain (letters, digits, ``.``, ``_``, single dashes) stays readable as it is; in any other the
    foreign characters become dashes, and ten digits of its hash keep it apart from its neighbours.
    """
    dag, _, dag_run = run.partition("/")
    readable = f"{dag}--{dag_run}"
    if _plain(dag) and _plain(dag_run) and len(readable) <= LONGEST:
        return readable
    digest = hashlib.sha256(run.encode()).hexdigest()[:10]
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", readable).strip("-.")[: LONGEST - 13]
    return f"{words}---{digest}"


def run_folder(root: Path, run: RunId) -> Path:
    """Where everything of this run lies below `root`. Nothing is created."""
    return root / folder_name(run)


def _plain(part: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._]*(-[A-Za-z0-9._]+)*", part) is not None and not part.endswith(".")
