"""Do the generated pages say what the code says?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

GENERATED = ("campaign-files.md", "dag-reference.md", "awsim-reference.md", "campaign.schema.json", "policy.schema.json",
             "table.schema.json")  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as the generator makes them now; a process of its own, for it imports Airflow with a home of its own."""
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_what_the_generator_makes(made: Path, name: str):
    """A page that was edited by hand, or a change of the code without `make docs`, would tell something untrue."""
    assert (made / name).read_text(encoding="utf-8") == (ROOT / "docs" / name).read_text(encoding="utf-8"), (
        f"docs/{name} is old: run make docs"
    )


def test_the_generator_makes_no_other_page(made: Path):
    """A page that nobody compares is not kept true."""
    assert {path.name for path in made.iterdir()} == set(GENERATED)


def test_every_field_of_a_campaign_file_is_on_the_page():
    """The page is the only manual of these files."""
    from patchwave.campaign.definition import Campaign

    page = (ROOT / "docs" / "campaign-files.md").read_text(encoding="utf-8")
    schema = Campaign.model_json_schema()
    fields = {name for part in [schema, *schema["$defs"].values()] for name in part.get("properties", ())}
    assert {name for name in fields if f"| `{name}` |" not in page} == set()
