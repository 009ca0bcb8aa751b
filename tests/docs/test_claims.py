"""Does what the pages name exist: pages, files, commands, options, variables, tasks?"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.docs.pages import PAGES, ROOT, Page

EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=str)
TOP = ("include", "dags", "docs", "tests", "plugins", "compose", ".ci")
LEFT_BEHIND = ("var/", ".venv", ".env", "include/campaigns/shop-ring.yaml")
"""What running something makes, or the reader writes."""


def targets() -> set[str]:
    """Targets of the Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def subcommands(program: str, *words: str) -> str:
    """The help of a program."""
    done = subprocess.run([sys.executable, "-m", program, *words, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


@EACH_PAGE
def test_every_link_leads_somewhere(page: Page):
    """Relative links lead to files of the tree, fragments to headings."""
    dead = []
    for link in page.links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        known = {other.path: other for other in PAGES}
        if not target.exists() or (fragment and fragment not in known[target].anchors):
            dead.append(link)
    assert dead == []


@EACH_PAGE
def test_every_make_target_exists(page: Page):
    """`make X` in code is something that one can type."""
    named = {found for code in page.code for found in re.findall(r"\bmake ([a-z][a-z-]*)", code)}
    assert named - targets() == set()


@EACH_PAGE
def test_every_variable_of_make_is_read_by_the_makefile(page: Page):
    """`make demo SPEDE=60` would be ignored without a word."""
    makefile = (ROOT / "Makefile").read_text()
    named = {
        variable
        for code in page.code
        for rest in re.findall(r"\bmake [a-z-]+((?: [A-Z_]+=\S+)+)", code)
        for variable in re.findall(r"([A-Z_]+)=", rest)
    }
    assert {variable for variable in named if f"$({variable})" not in makefile} == set()


@pytest.mark.parametrize("program", ["patchwave", "awsim"])
def test_every_command_and_option_exists(program: str):
    """`python -m patchwave X --y` in the pages is known to the command line."""
    lines = [code for page in PAGES for code in page.code if f"python -m {program}" in code]
    assert lines
    known = subcommands(program)
    for line in lines:
        words = line.partition(f"python -m {program}")[2].split()
        if words and re.fullmatch(r"[a-z]+(-[a-z]+)*", words[0]):
            assert re.search(rf"^(?: +|python -m {program} ){words[0]}\b", known, re.MULTILINE), line
            known_here = subcommands(program, words[0])
        else:
            known_here = known
        for option in re.findall(r"--[a-z-]+", line):
            assert option in known_here, line


@EACH_PAGE
def test_every_path_exists(page: Page):
    """A file that is named in code is in the tree; what a run makes is not looked for."""
    named = {
        word.strip(".,:;()")
        for code in page.code
        for word in code.split()
        if re.match(rf"(?:{'|'.join(map(re.escape, TOP))})/[\w./*-]*$", word.strip(".,:;()"))
    }
    assert {path for path in named if not path.startswith(LEFT_BEHIND) and not list(ROOT.glob(path.rstrip("/")))} == set()


@EACH_PAGE
def test_every_variable_of_patchwave_is_read_somewhere(page: Page):
    """A renamed environment variable must not live on in the pages."""
    named = {found for code in page.code for found in re.findall(r"\bPATCHWAVE_[A-Z_]+", code)}
    sources = [*ROOT.glob("include/**/*.py"), *ROOT.glob("dags/*.py"), ROOT / "docker-compose.yaml"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert {variable for variable in named if variable not in text} == set()


def test_every_terminal_class_has_a_line_in_the_operating_guide():
    """Whoever reads a class in a report at night finds out what to do."""
    from patchwave.campaign.rollout import TERMINAL

    guide = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    assert {state.value for state in TERMINAL if f"| `{state.value}` |" not in guide} == set()


def test_every_outcome_of_a_run_has_a_line_in_the_operating_guide():
    """All but `running`, which is no end."""
    from patchwave.ledger.store import RunOutcome

    guide = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    ends = {outcome.value for outcome in RunOutcome} - {"running"}
    assert {outcome for outcome in ends if f"| `{outcome}` |" not in guide} == set()


def test_every_table_of_the_ledger_is_on_its_page():
    """An auditor reads the page, then the tables."""
    from patchwave.ledger.tables import metadata

    page = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    assert {name for name in metadata.tables if f"| `{name}` |" not in page} == set()


def test_every_fault_and_control_route_on_awsims_page_exists():
    """Whoever copies a line of the page breaks what they meant to break."""
    from awsim import control
    from awsim.faults import Fault

    page = (ROOT / "docs" / "awsim.md").read_text(encoding="utf-8")
    for body in re.findall(r"/_awsim/faults -d '([^']+)'", page):
        Fault.model_validate_json(body)
    table = page.partition("| kind |")[2].partition("\n\n")[0]
    kinds = {kind for row in table.splitlines() for kind in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")}
    assert kinds
    needed = {
        "agent_dead": {"host": "web/1"},
        "agent_online": {"host": "web/1"},
        "alarm_in_refresh": {"alarm": "errors"},
        "image_build_fails": {"image_state": "TESTING"},
        "image_distribution_fails": {"to_region": "us-east-1"},
        "image_unhealthy": {"pipeline": "web"},
    }
    for kind in kinds:
        Fault.model_validate({"kind": kind, **needed.get(kind, {})})
    known = {f"{verb} {control.PREFIX}{name}" for verb, name in control._ROUTES} | {"DELETE /_awsim/faults/3"}
    assert set(re.findall(r"`((?:GET|POST|DELETE) /_awsim/[^`]*)`", page)) <= known


def test_the_picture_of_the_readme_is_small():
    """It is fetched by everybody who opens the page."""
    picture = ROOT / "docs" / "images" / "run.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 300_000
