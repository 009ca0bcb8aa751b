"""Shares, counts and cells."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign.values import Cell, Count, Share


def test_ten_percent_of_three_hosts_is_still_one_host():
    """A share never rounds down to nobody, or small fleets would never be patched."""
    assert Share(0.10).of(3) == 1


@given(percent=st.integers(1, 100), size=st.integers(1, 100_000))
def test_a_share_is_the_exact_part_rounded_up(percent: int, size: int):
    """Floating point never adds a host: ten percent of 30 is 3, although 0.1 * 30 is more than 3."""
    assert Share.parse(f"{percent}%").of(size) == math.ceil(Fraction(percent, 100) * size)


@given(percent=st.integers(1, 100), size=st.integers(1, 10_000))
def test_a_share_never_takes_more_than_there_is(percent: int, size: int):
    """1 <= share of n <= n."""
    assert 1 <= Share.parse(f"{percent}%").of(size) <= size


@pytest.mark.parametrize("value", [0, -0.1, 1.0001, 10, math.nan, math.inf])
def test_a_share_outside_0_to_100_percent_does_not_exist(value: float):
    """Ten is not ten percent, and no part is larger than the whole."""
    with pytest.raises(ValueError, match="share"):
        Share(value)


@pytest.mark.parametrize("text", ["0.1", "10", "", "%", "-5%", "1e1%", "10%%", "ten %"])
def test_a_share_is_written_as_a_percentage_only(text: str):
    """A bare 0.1 is 10 % to some and a typing error to others, so it is nothing."""
    with pytest.raises(ValueError):
        Share.parse(text)


@given(count=st.integers(1, 1000), size=st.integers(1, 1000))
def test_a_count_is_that_many_but_no_more_than_there_are(count: int, size: int):
    """The smaller of both, and at least one."""
    assert Count(count).of(size) == min(count, size)


def test_a_count_of_no_hosts_does_not_exist():
    """A concurrency of none is a campaign that never ends."""
    with pytest.raises(ValueError, match="at least 1"):
        Count(0)


def test_a_cell_is_read_back_from_its_name():
    """parse(str(cell)) == cell."""
    cell = Cell(account="012345678901", region="eu-central-1")
    assert Cell.parse(str(cell)) == cell
