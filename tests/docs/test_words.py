"""Does the tree speak of the product only, and of nothing about how or where it was written?"""

from __future__ import annotations

import re

from tests.docs.pages import ROOT, tree

# Written with a gap, so that this file does not hold what it looks for.
WORDS = ("assis~tant", "chat~bot", "language mo~del", "ll~m", "an~thropic", "cl~aude", "open~ai", "co~pilot")
PLACES = ("/wo~rk/", "/tmp/te~am", "/work~space/")
PROMPT = re.compile(r"\bprom" + r"pts?\b(?![-_]toolkit)", re.IGNORECASE)  # a package of that name is among the requirements
ORDINARY = re.compile(
    r"(shell|command|password|sign-in|\[y/N\])[^\n]{0,40}$|^[^\n]{0,40}(at the terminal|of the shell)", re.IGNORECASE
)
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".in", ".j2", ".css", ".js", ".json", ".sh", ".ini", ".mako", ".cfg", ""}


def lines() -> list[tuple[str, int, str]]:
    """Every line of every text file: path, number, text."""
    found = []
    for path in tree():
        if path.suffix in TEXT:
            text = path.read_text(encoding="utf-8", errors="replace")
            found += [(str(path.relative_to(ROOT)), number, line) for number, line in enumerate(text.splitlines(), 1)]
    return found


LINES = lines()


def test_the_tree_is_read():
    """Or the tests below would hold for nothing."""
    assert len(LINES) > 10_000
    assert {"README.md", "Makefile", "include/awsim/wire.py"} <= {path for path, _, _ in LINES}


def test_nothing_tells_by_what_it_was_written():
    """Readers want to know about patching."""
    pattern = re.compile(r"\b(" + "|".join(re.escape(word.replace("~", "")) for word in WORDS) + r")s?\b", re.IGNORECASE)
    assert [line for line in LINES if pattern.search(line[2])] == []


def test_nothing_names_a_place_on_the_authors_machine():
    """Such a path exists nowhere else."""
    places = [place.replace("~", "") for place in PLACES]
    assert [line for line in LINES if any(place in line[2] for place in places)] == []


def test_a_prompt_is_a_prompt_of_a_terminal():
    """The word is ordinary for what a shell or a question in the terminal prints, and for nothing else here."""
    odd = [
        (path, number, text)
        for path, number, text in LINES
        for match in PROMPT.finditer(text)
        if path != "tests/docs/test_words.py"
        and not ORDINARY.search(text[: match.start()])
        and not ORDINARY.search(text[match.end() :])
    ]
    assert odd == []
