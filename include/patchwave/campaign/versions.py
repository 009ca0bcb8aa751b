"""Which of two package versions is the newer one, by the rules of the distribution?

`lockfile` compares what a host has with what Dev received. A version is an EVR with its epoch written out (``0:6.1.119-129``),
whatever the source leaves away; Windows updates have none, for a KB number is what names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import cmp_to_key


class Scheme(StrEnum):
    """By whose rules versions are compared."""

    RPM = "rpm"
    DEB = "deb"
    WINDOWS = "windows"


_DEB_ARCHITECTURES = frozenset({"all", "amd64", "arm64", "armhf", "armel", "i386", "riscv64", "ppc64el", "s390x"})
_KB = re.compile(r"KB\d+", re.IGNORECASE)
_RPM_PARTS = re.compile(r"[~^]|[0-9]+|[A-Za-z]+")


def scheme_of(patch: str) -> Scheme:
    """By the id that Patch Manager gives a patch: ``KB5046616``, ``kernel.x86_64``, ``linux-image-aws.amd64``."""
    if _KB.fullmatch(patch):
        return Scheme.WINDOWS
    return Scheme.DEB if patch.rpartition(".")[2] in _DEB_ARCHITECTURES else Scheme.RPM


def written_out(version: str) -> str:
    """With its epoch: ``6.1.119-129`` and ``(none):6.1.119-129`` are ``0:6.1.119-129``; an empty one stays empty."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        return f"0:{version}" if version else ""
    return f"{epoch if epoch.isdigit() else 0}:{rest}"


def compare(one: str, other: str, scheme: Scheme) -> int:
    """Below 0 if `one` is older than `other`, 0 if they are the same, above 0 if it is newer.

    Raises:
        ValueError: versions of Windows updates, which have no order.
    """
    if scheme is Scheme.WINDOWS:
        raise ValueError("updates of Windows are named by their KB number, which has no order")
    (epoch, rest), (other_epoch, other_rest) = _split(one), _split(other)
    if epoch != other_epoch:
        return 1 if epoch > other_epoch else -1
    part = _rpm if scheme is Scheme.RPM else _deb
    version, _, release = rest.rpartition("-") if "-" in rest else (rest, "", "")
    other_version, _, other_release = other_rest.rpartition("-") if "-" in other_rest else (other_rest, "", "")
    return part(version, other_version) or part(release, other_release)


def newest(found: Iterable[str], scheme: Scheme) -> str:
    """The newest of these versions.

    Raises:
        ValueError: there are none, or they are of Windows updates.
    """

    def order(one: str, other: str) -> int:
        return compare(one, other, scheme)

    return max(found, key=cmp_to_key(order))


def _split(version: str) -> tuple[int, str]:
    epoch, _, rest = written_out(version).partition(":")
    return int(epoch or 0), rest


def _rpm(one: str, other: str) -> int:
    """rpmvercmp: runs of digits and of letters are compared in turn; ``~`` is older than the end, ``^`` newer than it."""
    mine, theirs = _RPM_PARTS.findall(one), _RPM_PARTS.findall(other)
    for left, right in zip(mine, theirs, strict=False):
        if left == right:
            continue
        for mark, order in (("~", -1), ("^", -1)):  # before anything but the end, a caret is older, too
            if mark in (left, right):
                return order if left == mark else -order
        if left.isdigit() and right.isdigit():
            if int(left) != int(right):
                return 1 if int(left) > int(right) else -1
            continue
        if left.isdigit() or right.isdigit():
            return 1 if left.isdigit() else -1  # digits are newer than letters
        return 1 if left > right else -1
    if len(mine) == len(theirs):
        return 0
    longer, sign = (mine, 1) if len(mine) > len(theirs) else (theirs, -1)
    return -sign if longer[min(len(mine), len(theirs))] == "~" else sign


def _deb(one: str, other: str) -> int:
    """dpkg: text and numbers in turn; in text ``~`` is older than the end, letters are older than other characters."""
    while one or other:
        text, number, one = _head(one)
        other_text, other_number, other = _head(other)
        for place in range(max(len(text), len(other_text))):
            mine, theirs = _rank(text, place), _rank(other_text, place)
            if mine != theirs:
                return 1 if mine > theirs else -1
        if number != other_number:
            return 1 if number > other_number else -1
    return 0


def _head(version: str) -> tuple[str, int, str]:
    found = re.match(r"([^0-9]*)([0-9]*)", version)
    assert found is not None  # both parts may be empty
    return found[1], int(found[2] or 0), version[found.end() :]


def _rank(text: str, place: int) -> int:
    if place >= len(text):
        return 0
    character = text[place]
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256
