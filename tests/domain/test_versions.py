"""Versions are compared as rpm and dpkg compare them, or a lockfile would call a newer package drift to the past."""

from __future__ import annotations

import pytest

from patchwave.campaign import versions
from patchwave.campaign.versions import Scheme

RPM = [  # older, newer; from rpm's own rpmvercmp tests and from Amazon Linux advisories
    ("1.0", "2.0"), ("2.0", "2.0.1"), ("5.5p1", "5.5p2"), ("5.5p1", "5.5p10"), ("10xyz", "10.1xyz"), ("xyz.4", "8"),
    ("2.0.1", "2.0.1a"), ("20101121", "20101122"), ("1.0~rc1", "1.0"), ("1.0~rc1", "1.0~rc2"), ("1.0", "1.0^"),
    ("1.0^git1", "1.0^git2"), ("1.0^git1", "1.01"), ("1.0^git1~pre", "1.0^git1"), ("xyz10", "xyz10.1"),
    ("0:6.1.115-126.197.amzn2023", "0:6.1.119-129.201.amzn2023"), ("0:2.34-52.amzn2023.0.9", "0:2.34-52.amzn2023.0.10"),
    ("9.9-1", "1:1.0-1"), ("1:3.0.8-1.amzn2023.0.16", "1:3.0.8-1.amzn2023.0.18"),
]  # fmt: skip
DEB = [  # Debian policy 5.6.12 and Ubuntu Security Notices
    ("1.0", "1.1"), ("1.0~rc1-1", "1.0-1"), ("1.0", "1.0+b1"), ("1.2.25", "1.2.27"), ("9.9", "1:0.1"),
    ("3.0.2-0ubuntu1.9", "3.0.2-0ubuntu1.18"), ("6.5.0.1024.24~22.04.1", "6.8.0.1018.19~22.04.1"),
    ("1:8.9p1-3ubuntu0.7", "1:8.9p1-3ubuntu0.10"), ("3.10.12-1~22.04.6", "3.10.12-1~22.04.7"), ("1.0a", "1.0+"),
    ("8.2.3995-1ubuntu2.18", "8.2.3995-1ubuntu2.21"), ("1.0~~", "1.0~"), ("1.0~", "1.0"), ("2.0-1", "2.0-1build1"),
]  # fmt: skip


@pytest.mark.parametrize(("older", "newer", "scheme"), [(*p, Scheme.RPM) for p in RPM] + [(*p, Scheme.DEB) for p in DEB])
def test_the_newer_version_is_newer_from_either_side(older: str, newer: str, scheme: Scheme) -> None:
    """Each pair is one of the distribution's own rules."""
    assert versions.compare(older, newer, scheme) < 0 < versions.compare(newer, older, scheme)


@pytest.mark.parametrize("scheme", [Scheme.RPM, Scheme.DEB])
@pytest.mark.parametrize(("one", "other"), [("1.0-1", "0:1.0-1"), ("(none):1.0-1", "1.0-1"), ("1.010-1", "1.10-1")])
def test_an_epoch_that_is_left_away_is_zero(one: str, other: str, scheme: Scheme) -> None:
    """Patch Manager, inventories and Inspector write epochs differently; leading zeros never count."""
    assert versions.compare(one, other, scheme) == 0


def test_an_id_tells_by_whose_rules_it_is_compared() -> None:
    """The architecture's name is the distribution's: x86_64 is rpm's, amd64 dpkg's."""
    ids = ["kernel.x86_64", "tzdata.noarch", "libssl3.amd64", "needrestart.all", "python3.10.arm64", "KB5046616"]
    assert [versions.scheme_of(one).value for one in ids] == ["rpm", "rpm", "deb", "deb", "deb", "windows"]


def test_updates_of_windows_have_no_order() -> None:
    """A KB number says nothing about age."""
    with pytest.raises(ValueError, match="KB number"):
        versions.compare("KB1", "KB2", Scheme.WINDOWS)
