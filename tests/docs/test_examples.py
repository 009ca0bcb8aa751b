"""Do the examples work: campaign files, policies, Python?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from patchwave.campaign import definition, policy
from tests.docs.pages import PAGES, ROOT

POLICIES = {path.stem for path in (ROOT / "include" / "policies").glob("*.yaml")}
STANDARD = (ROOT / "include" / "policies" / "standard.yaml").read_text(encoding="utf-8")
YAML = [(str(page), text) for page in PAGES for text in page.blocks("yaml")]
PYTHON = [(str(page), text) for page in PAGES for text in page.blocks("python")]


@pytest.mark.parametrize(("page", "text"), YAML, ids=[page for page, _ in YAML])
def test_an_example_file_is_valid(page: str, text: str):
    """Whoever copies it begins with something that works."""
    written = yaml.safe_load(text)
    if "matrix" in written:
        policy.parse(text, file=page)
    elif written.keys() <= {"baselines", "stale_images"}:  # a section of a policy
        policy.parse(STANDARD + text, file=page)
    else:
        definition.parse(text, file=page, policies=POLICIES)


def test_there_are_examples_of_both_kinds():
    """Or the test above would hold for nothing."""
    kinds = {"policy" if "matrix" in yaml.safe_load(text) else "campaign" for _, text in YAML}
    assert kinds == {"policy", "campaign"}


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=[page for page, _ in PYTHON])
def test_an_example_in_python_is_python(page: str, text: str):
    """Its imports exist, too: they are carried out."""
    compile(text, page, "exec")
    imports = "\n".join(line for line in text.splitlines() if line.startswith(("import ", "from ")))
    exec(compile(imports, page, "exec"), {})


def test_the_example_of_an_awsim_operation_registers():
    """Service and operation exist, and nobody answers it already."""
    (example,) = [text for page, text in PYTHON if page == "docs/awsim.md" and "@operation" in text]
    code = f"from awsim import registry\nregistry.load()\n{example}\nprint(len(registry.registered()))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "include")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_ledgers_example_verifies_a_ledger(tmp_path, capsys):
    """The lines that an auditor is given find a whole chain whole."""
    (example,) = [text for page, text in PYTHON if page == "docs/ledger.md"]
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    _small_run(url)
    exec(compile(example.replace("sqlite:////absolute/path/to/var/demo/ledger.db", url), "docs/ledger.md", "exec"), {})
    assert capsys.readouterr().out.strip().endswith("whole")


def _small_run(url: str) -> None:
    from datetime import UTC, datetime

    from patchwave.campaign.values import RunId, StageName
    from patchwave.ledger.connect import ledger_at
    from patchwave.ledger.store import Run

    at = datetime(2026, 11, 23, tzinfo=UTC)
    run = Run(
        id=RunId("weekly/one"), campaign="weekly", dag_id="weekly", dag_run_id="one", began_at=at,
        definition={}, definition_digest="0" * 64, policy={}, params={},
    )  # fmt: skip
    ledger_at(url).open_run(run, [StageName("dev")])
