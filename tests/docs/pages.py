"""What stands in the hand-written and generated pages? Prose, links, code, headings; asked by every test beside it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One Markdown page."""

    path: Path
    text: str

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def prose(self) -> str:
        """Without fenced blocks."""
        return FENCE.sub("", self.text)

    @property
    def links(self) -> list[str]:
        """Targets of links and images."""
        return LINK.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """As GitHub makes them from headings."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def blocks(self, language: str) -> list[str]:
        """Fenced blocks of a language."""
        return [text for kind, text in FENCE.findall(self.text) if kind == language]

    @property
    def code(self) -> Iterator[str]:
        """Code spans, and the lines of fenced blocks."""
        yield from SPAN.findall(self.prose)
        for _, text in FENCE.findall(self.text):
            yield from text.splitlines()


def tree() -> list[Path]:
    """Every file of the project: those that git knows or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:  # an unpacked archive
        hidden = {".venv", "var", ".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
        found = [path for path in ROOT.rglob("*") if not hidden & set(path.relative_to(ROOT).parts)]
    return sorted(path for path in found if path.is_file())


def pages() -> list[Page]:
    """Every Markdown page."""
    return [Page(path=path, text=path.read_text(encoding="utf-8")) for path in tree() if path.suffix == ".md"]


PAGES = pages()
