"""Is the floor what the pages of AWS allow, and is a target that is missed told?"""

from __future__ import annotations

from typing import Any

from benchmarks.calls import floor, following, missed


def test_the_floor_counts_pages_of_fifty():
    """500 hosts in ten waves: 11 for the fleet, 31 for the Scan, 11 for each wave."""
    assert floor(500) == 11 + 31 + 10 * 11


def test_one_look_tells_of_fifty_commands():
    """5,000 hosts: the Scan is 100 commands, so two pages of ListCommands; a wave's step is ten, so one."""
    assert floor(5000) == 105 + 302 + 10 * 83


def a_result(**facts: Any) -> dict[str, Any]:
    usual = {"hosts": 500, "odd": False, "calls": {"ssm:SendCommand": 80}, "wall": 1000, "steps": 1000, "right": 500}
    return {**usual, "carried": 2000, **facts}


STOCK = a_result(
    calls={"ssm:GetCommandInvocation": 1570, "ssm:SendCommand": 30, "ssm:DescribeInstancePatchStates": 30}, carried=1500
)


def test_kept_targets_are_silent():
    """Few calls, in time, and true."""
    assert missed(a_result(), STOCK) == []


def test_each_missed_target_has_a_sentence():
    """Whoever reads the output of CI must not have to compute."""
    told = missed(a_result(calls={"ssm:ListCommands": 1000}, wall=1100, right=499), STOCK)
    assert [sentence.split(": ")[1].split(" ")[0:2] for sentence in told] == [
        ["of", "1"],
        ["1000", "calls"],
        ["the", "stock"],
        ["1100", "s"],
    ]


def test_where_hosts_fail_only_the_truth_is_judged():
    """The stock operator stops where its first host fails, so its calls say nothing there."""
    ours = a_result(odd=True, calls={"ssm:ListCommands": 1000})
    assert missed(ours, a_result(odd=True)) == []
    assert len(missed(a_result(odd=True, right=499), a_result(odd=True))) == 1


def test_the_stock_operator_is_compared_for_what_it_does():
    """It sends commands and waits for them: what is read beside that, and how many commands a way needs, is not counted."""
    assert following(STOCK) == 1600 / 1500
    ours = a_result(calls={"ssm:SendCommand": 80, "ec2:DescribeInstances": 60})
    assert following(ours) == 80 / 2000
    assert missed(ours, STOCK) == []
    just_too_many = a_result(calls={"ssm:SendCommand": 108})
    assert [sentence.split(": ")[1] for sentence in missed(just_too_many, STOCK)] == [
        "the stock operator makes 19.8 x as many calls to send and follow a command, not 20"
    ]
