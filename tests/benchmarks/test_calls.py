"""Is the floor what the pages of AWS allow, and is a target that is missed told?"""

from __future__ import annotations

from typing import Any

from benchmarks.calls import floor, missed


def test_the_floor_counts_pages_of_fifty():
    """500 hosts in ten waves: 11 for the fleet, 31 for the Scan, 11 for each wave."""
    assert floor(500) == 11 + 31 + 10 * 11


def test_one_look_tells_of_fifty_commands():
    """5,000 hosts: the Scan is 100 commands, so two pages of ListCommands; a wave's step is ten, so one."""
    assert floor(5000) == 105 + 302 + 10 * 83


def a_result(**facts: Any) -> dict[str, Any]:
    return {"hosts": 500, "odd": False, "calls": {"ssm:SendCommand": 160}, "wall": 1000, "steps": 1000, "right": 500} | facts


def test_kept_targets_are_silent():
    """Few calls, in time, and true."""
    assert missed(a_result(), a_result(calls={"ssm:GetCommandInvocation": 3200})) == []


def test_each_missed_target_has_a_sentence():
    """Whoever reads the output of CI must not have to compute."""
    ours = a_result(calls={"ssm:ListCommands": 1000}, wall=1100, right=499)
    told = missed(ours, a_result(calls={"ssm:GetCommandInvocation": 3200}))
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


def test_nobody_is_held_to_what_the_pages_do_not_allow():
    """The stock operator makes eleven times the calls of the floor: twenty times fewer than it is below the floor."""
    ours = a_result(calls={"ssm:ListCommands": floor(500)})
    assert missed(ours, a_result(calls={"ssm:GetCommandInvocation": 11 * floor(500)})) == []
    assert len(missed(ours, a_result(calls={"ssm:GetCommandInvocation": 20 * floor(500) - 1}))) == 0
