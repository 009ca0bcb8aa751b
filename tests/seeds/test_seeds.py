"""Do the seeds still play, and can they still fail? A few of them here; `make check-seeds` plays a thousand."""

from __future__ import annotations

import pytest

from tests.seeds import run
from tests.seeds.sabotage import SABOTAGE


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Every seed is forked from a process that has made a world before."""
    run.warm_up()


def test_some_campaigns_with_faults_and_kills_break_no_rule() -> None:
    """Eight of the thousand."""
    verdicts = list(run.all_of(list(range(1, 9)), workers=2))
    assert [one for verdict in verdicts for one in verdict.broken] == []
    assert sum(verdict.counts["kills"] for verdict in verdicts) > 0
    assert sum(verdict.counts["faults"] for verdict in verdicts) > 0


def test_a_seed_plays_the_same_alone_and_among_others() -> None:
    """Or a failing one could not be replayed."""
    alone = next(iter(run.all_of([7], workers=1)))
    among = {verdict.seed: verdict for verdict in run.all_of([5, 6, 7], workers=2)}
    assert alone.counts == among[7].counts


@pytest.mark.parametrize(("name", "seed"), [("budget", 1), ("place-held", 1), ("return", 1)])
def test_a_bug_that_is_put_in_is_found(name: str, seed: int) -> None:
    """A proof that cannot fail proves nothing; `python -m tests.seeds.run --sabotage all` tries every one of them."""
    assert name in SABOTAGE
    found = [verdict for verdict in run.all_of(list(range(seed, seed + 8)), workers=2, sabotage=name) if verdict.broken]
    assert found
