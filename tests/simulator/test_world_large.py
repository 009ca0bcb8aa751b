"""Large worlds: what they cost, in processor time and memory, so that a busy machine fails no test."""

import sys

import pytest

from awsim import bench


@pytest.mark.skipif(sys.platform != "linux", reason="processor time and memory of a process are read from /proc")
def test_ten_thousand_hosts_start_and_answer_within_their_limits(monkeypatch):
    """20 s, 2 GiB, and 20 ms for the patch states of 50 hosts; `make bench-awsim` measures the wall clock, too."""
    monkeypatch.setattr(bench, "CALLS", 20)
    measured = bench.measure(10_000)
    assert measured.start_processor <= 20
    assert measured.memory <= 2048
    assert measured.answer_processor <= 0.020


def test_a_broken_promise_is_said_with_the_numbers():
    """`make bench-awsim` fails then."""
    slow = bench.Measured(hosts=10_000, start=21, start_processor=20, memory=3000, answer=0.03, answer_processor=0.02)
    assert len(slow.broken()) == 3
    assert "10000 hosts started in 21.0 s, promised are 20 s" in slow.broken()
    quick = bench.Measured(hosts=10_000, start=6, start_processor=6, memory=350, answer=0.01, answer_processor=0.006)
    assert quick.broken() == []
