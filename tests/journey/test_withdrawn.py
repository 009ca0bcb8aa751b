"""One update that Dev received is withdrawn before Prod's turn, and one replaced by its next build: Prod gets neither, and halts.

AWS calls every Install of it a success, and the error budget would have paid for the hosts.
"""

from __future__ import annotations

import re

import pytest

from tests.journey.runs import FollowedRun
from tests.journey.test_promoted import ADVISORY as NEXT_KERNEL
from tests.journey.test_promoted import NEWER, come_out, installs, withdraw

CAMPAIGN, REGION = "withdrawn", "us-east-2"
KERNEL, EXPAT = "RHSA-2024:8162", "RHSA-2024:6754"
"""Advisories of what Dev received."""
TRIED = {"kernel": "0:5.14.0-427.40.1.el9_4", "expat": "0:2.5.0-2.el9_4.1"}
LACKING = ("withdrawn-prod/01", "withdrawn-prod/02")
"""The third host of prod has both from before."""

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """While the gate asks, the kernel that Dev received gives way to the next one and expat is withdrawn; olga approves."""
    withdraw(run, NEXT_KERNEL)
    run.begin(dry_run=False)
    run.gate("prod")
    withdraw(run, KERNEL)
    come_out(run, NEXT_KERNEL)
    withdraw(run, EXPAT)
    run.answer("prod", approve=True)
    run.ended()


def test_no_host_that_lacks_them_is_called_patched(journey: FollowedRun) -> None:
    """Whatever AWS says of the Installs."""
    lacking = {journey.host(name) for name in LACKING}
    assert {host: journey.classes[host] for host in journey.planned["prod"]} == {
        host: "failed" if host in lacking else "already_compliant" for host in journey.planned["prod"]
    }
    assert all(journey.journal.exit_codes(host) == [0] for host in lacking)


def test_the_stage_halts_by_host_package_and_both_versions(journey: FollowedRun) -> None:
    """Though its error budget would have paid for them."""
    stage = journey.ledger.stage(journey.id, "prod")
    assert (journey.state, stage.state.value) == ("failed", "halted")
    assert stage.reason.startswith("lockfile: 2 hosts have not what Dev received: ")
    for name in LACKING:
        for package, locked in TRIED.items():
            where = re.escape(f"({journey.host(name)}): {package}.x86_64 is ")
            assert re.search(where + rf"[^,;]+, the lockfile says {re.escape(locked)}; it was not installed", stage.reason)
    assert "needs a run that begins with Dev" in stage.reason


def test_nothing_was_installed_that_dev_has_not_tried(journey: FollowedRun) -> None:
    """Neither those two, nor the kernel in place of the first, by the world's own record."""
    had, got = journey.journal.of("dev").packages, journey.journal.of("prod").packages
    assert {f"{package}:{version}" for package, version in TRIED.items()} <= had
    assert NEWER not in had | got
    assert {one.partition(":")[0] for one in got}.isdisjoint(TRIED)
    assert got
    (platform,) = journey.ledger.document(journey.id, "lockfile")["lockfile"]["platforms"]
    assert got <= {f"{one['id'].rpartition('.')[0]}:{one['version']}" for one in platform["patches"]}
    assert all("InstallOverrideList" in one for one in installs(journey, "prod"))


def test_the_report_says_it(journey: FollowedRun) -> None:
    """Host by host, and of the stage as a whole."""
    page = (journey.folder / "report.html").read_text()
    assert journey.report["outcome"] == "failed"
    assert f"the lockfile says {TRIED['expat']}" in page
    assert "2 had something else" in page
