"""Are these campaign files, policies, tables and catalogues right? Every problem with its file, line and field, before Airflow
sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from patchwave.campaign import catalogues, definition, document, policy, tables
from patchwave.campaign.errors import InvalidFile
from patchwave.cli.environment import REPOSITORY

CAMPAIGNS = REPOSITORY / "include" / "campaigns"
POLICIES = REPOSITORY / "include" / "policies"


def validate(files: Sequence[Path], console: Console) -> int:
    """Read the files (all campaigns, policies and tables if none is named), print what is wrong; 0 if nothing is.

    What a file is, its place and its content say: JSON is CISA's catalogue or CVE records, CSV is EPSS; YAML in a folder
    ``policies`` or with a matrix is a policy, in a folder ``tables`` or with columns a decision table, and else a campaign.
    """
    problems: list[str] = []
    good: list[str] = []
    for file in files or _all():
        try:
            good.append(_kind(file)(file))
        except InvalidFile as invalid:
            problems.extend(invalid.problems)
        except OSError as error:
            problems.append(f"{file}: {error.strerror or error}")
    if not files:
        # Files that are right one by one may still take each other's name.
        _, broken = definition.read_all(CAMPAIGNS, policies=POLICIES)
        problems.extend(problem for one in broken for problem in one.problems)
    for name in good:
        console.print(f"{name}: good", highlight=False, markup=False)
    for problem in dict.fromkeys(problems):
        console.print(problem, highlight=False, markup=False, soft_wrap=True)
    return 1 if problems else 0


def _all() -> list[Path]:
    return [*sorted(CAMPAIGNS.glob("*.yaml")), *sorted(POLICIES.glob("*.yaml")), *sorted((POLICIES / "tables").glob("*.yaml"))]


def _kind(file: Path) -> Callable[[Path], str]:
    """What reads it."""
    if file.suffix == ".json":
        return _json
    if file.suffix == ".csv":
        return _epss
    if file.parent.name in READERS:
        return READERS[file.parent.name]
    written = document.load(document.text_of(file), file=str(file)).data
    return _policy if "matrix" in written else _table if "columns" in written else _campaign


def _campaign(file: Path) -> str:
    return str(definition.read(file, policies=POLICIES).name)


def _policy(file: Path) -> str:
    """The policy, and the files that its deadlines go by; an address is read by the run."""
    read = policy.read(file)
    wanted = read.deadlines.wanted
    for name, check in ((wanted.catalogue, _catalogue), (wanted.vulnrichment, _records), (wanted.epss, _epss)):
        if name and "://" not in name:
            check(file.parent / name)
    return f"policy {read.name}"


def _table(file: Path) -> str:
    return f"table {tables.read(file).name}"


def _catalogue(file: Path) -> str:
    return str(catalogues.catalogue(document.text_of(file), file=str(file), read_at=datetime.now(UTC)))


def _records(file: Path) -> str:
    """A file of CVE records; of a folder nothing is read, for a run opens only those that it has findings of."""
    count = 0 if file.is_dir() else len(catalogues.ssvc(document.text_of(file), file=str(file)))
    return f"{file.name} ({count} SSVC answers)"


def _epss(file: Path) -> str:
    return f"{file.name} ({len(catalogues.epss(document.text_of(file), file=str(file)))} probabilities)"


def _json(file: Path) -> str:
    loaded = document.load_json(document.text_of(file), file=str(file)).data
    records = isinstance(loaded, list) or "cveMetadata" in loaded
    return _records(file) if records else _catalogue(file)


READERS = {"campaigns": _campaign, "policies": _policy, "tables": _table}
"""By the name of the folder."""
