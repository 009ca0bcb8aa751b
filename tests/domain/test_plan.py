"""The plan: everybody is in it or excluded with a reason, and its digest names it."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.campaign import evidence, rollout, severity
from patchwave.campaign import plan as plans
from patchwave.campaign.definition import AmbiguousStage
from patchwave.campaign.findings import Coverage, Finding, Severity, VulnerablePackage
from patchwave.campaign.fleet import Group, Host, InstanceState, Ping
from patchwave.campaign.plan import Plan, Restriction
from patchwave.campaign.policy import Track
from patchwave.campaign.rollout import HostState, StepKind
from patchwave.campaign.severity import Triage
from patchwave.campaign.windows import Window
from tests.domain.builders import CAMPAIGN, CELL, FAR, NOW, RUN, a_campaign, a_host, a_plan, host_id
from tests.domain.test_severity import STANDARD

GROUPS = {"linux-dev": "dev", "linux-staging": "staging", "linux-prod": "prod"}


@st.composite
def fleets(draw: st.DrawFn) -> list[Host]:
    """Hosts of all sorts, in any order."""
    hosts = [
        a_host(
            number,
            group_tag=draw(st.sampled_from([*GROUPS, "windows", None])),
            state=draw(st.sampled_from([*InstanceState, *[InstanceState.RUNNING] * 6])),
            ping=draw(st.sampled_from([*Ping, *[Ping.ONLINE] * 4])),
            cell=draw(st.sampled_from([CELL, FAR])),
            zone=draw(st.sampled_from(["a", "b"])),
            group=draw(st.sampled_from([None, "web", "api"])),
            platform=draw(st.sampled_from(["Amazon Linux 2023", "Ubuntu 24.04"])),
        )
        for number in draw(st.sets(st.integers(1, 99), max_size=25))
    ]
    return draw(st.permutations(hosts))


def a_finding(number: int, level: Severity = Severity.HIGH, *, manager: str = "OS", cve: str | None = None) -> Finding:
    return Finding(
        arn=f"arn:aws:inspector2:eu-central-1:111111111111:finding/{number:032x}{level.value}{manager}", cell=CELL,
        resource=host_id(number), resource_type="AWS_EC2_INSTANCE", vulnerability=cve or f"CVE-2026-{number:04}", title="t",
        severity=level, packages=(VulnerablePackage(name="openssl", version="1", manager=manager, fixed_in="2"),), fix="YES",
        first_seen=NOW - timedelta(days=1), updated=NOW,
    )  # fmt: skip


def a_triage(*findings: Finding, scanned: tuple[int, ...] = (), **restriction: Any) -> Triage:
    coverage = [Coverage(cell=CELL, host=host_id(number), active=True, reason="SUCCESSFUL") for number in scanned]
    return severity.classify(findings, STANDARD, now=NOW, coverage=coverage, **restriction)


def mixed_plan() -> Plan:
    """One of everything: findings, an unreachable and a stopped host, exclusions, an unscanned host, what no patch mends."""
    hosts = [
        a_host(1, group_tag="linux-dev"), a_host(2), a_host(3, group="web"), a_host(4, ping=Ping.CONNECTION_LOST),
        a_host(5, state=InstanceState.STOPPED), a_host(6, group_tag=None, name="lonely"), a_host(7, group_tag="linux-staging"),
    ]  # fmt: skip
    triage = a_triage(a_finding(1), a_finding(2, Severity.CRITICAL), a_finding(3, manager="GOBINARY"), scanned=(1, 2, 3, 4, 5))
    return a_plan(hosts, triage)


# --- nobody is left out silently ------------------------------------------------------------------------------------------------
@given(fleets())
def test_every_host_of_the_scope_is_planned_or_excluded_with_a_reason(hosts: list[Host]) -> None:
    """In exactly one stage, or in the list of exclusions; never in both, never in neither."""
    plan = a_plan(hosts)
    planned = [host.id for host in plan.hosts]
    excluded = [one.host for one in plan.exclusions]
    assert sorted(planned + excluded) == sorted(host.id for host in hosts)
    assert all(one.reason for one in plan.exclusions)


def test_a_platform_that_the_first_stage_does_not_have_is_excluded_where_its_lockfile_is_promoted() -> None:
    """Before anyone approves; the policy may let such hosts be patched by their baseline. Of an unknown one nobody knows."""
    hosts = [
        a_host(1, group_tag="linux-dev"), a_host(2), a_host(3, platform="Ubuntu 24.04"), a_host(4, platform="unknown"),
    ]  # fmt: skip

    def excluded(**promotion: str) -> dict[str, str]:
        plan = a_plan(hosts, campaign=a_campaign(f"{CAMPAIGN}\npromotion: {json.dumps(promotion)}\n"))
        return {one.host: one.reason for one in plan.exclusions}

    (reason,) = excluded(by="lockfile").values()
    assert reason.startswith("Dev had no host of Ubuntu 24.04 (it had Amazon Linux 2023), so nobody has tried its patches")
    assert list(excluded(by="lockfile")) == [host_id(3)]
    assert excluded(by="lockfile", untried="baseline") == excluded(by="baseline") == excluded() == {}


@given(fleets())
def test_a_host_is_in_the_stage_that_its_patch_group_names(hosts: list[Host]) -> None:
    """And each stage keeps its campaign's order."""
    plan = a_plan(hosts)
    groups = {host.id: host.patch_group for host in hosts}
    assert [stage.name for stage in plan.stages] == ["dev", "staging", "prod"]
    assert all(GROUPS[str(groups[host.id])] == stage.name for stage in plan.stages for host in stage.hosts)


@given(fleets())
def test_waves_hold_every_host_that_a_command_can_reach_and_nobody_else(hosts: list[Host]) -> None:
    """The forecast is made of those who can take part; the others stand in the plan with the reason why not."""
    for stage in a_plan(hosts).stages:
        in_waves = [host for wave in stage.waves for host in wave.hosts]
        assert sorted(in_waves) == sorted(host.id for host in stage.hosts if not host.note)


@given(fleets())
def test_no_wave_and_no_rule_allows_more_than_the_campaign_says(hosts: list[Host]) -> None:
    """Places by domain and by stage; stopped hosts serve nobody, so they widen no share."""
    campaign = a_campaign()
    serving = {
        stage: sum(1 for h in hosts if GROUPS.get(str(h.patch_group)) == stage and h.state.value in ("running", "pending"))
        for stage in GROUPS.values()
    }
    plan = a_plan(hosts)
    for stage in plan.stages:
        domains = {host.id: host.domains for host in stage.hosts}
        assert stage.stage_places == campaign.stage(stage.name).concurrency.of(max(1, serving[stage.name]))
        for wave in stage.waves:
            assert len(wave.hosts) <= stage.stage_places
            for domain in stage.places:
                assert sum(1 for host in wave.hosts if domain in domains[host]) <= stage.places[domain]
        assert {domain for its in domains.values() for domain in its} <= stage.places.keys()


def test_fifty_prod_hosts_at_ten_percent_are_never_more_than_five_at_once() -> None:
    """The example of the README."""
    stage = a_plan([a_host(n, group="web") for n in range(1, 51)]).stage("prod")
    assert stage.stage_places == 5
    assert max(len(wave.hosts) for wave in stage.waves) == 5
    assert len(stage.waves) == 10


def test_a_host_that_two_stages_select_stops_the_plan() -> None:
    """Nobody guesses which rules hold for it."""
    campaign = a_campaign(CAMPAIGN.replace("select: {patch_groups: [linux-staging]}", "select: {tags: {role: web}}"))
    with pytest.raises(AmbiguousStage, match=host_id(1)):
        a_plan([a_host(1, tags={"PatchGroup": "linux-prod", "role": "web"})], campaign=campaign)


# --- restrictions ------------------------------------------------------------------------------------------------------------
def test_a_run_restricted_to_stages_leaves_the_others_out_by_name() -> None:
    """Their hosts are excluded with that reason, and the page says which stages are left out."""
    plan = a_plan([a_host(1, group_tag="linux-dev"), a_host(2)], restriction=Restriction(stages=("dev",)))
    assert [stage.name for stage in plan.stages] == ["dev"]
    assert plan.left_out == ("staging", "prod")
    assert [(one.host, one.reason) for one in plan.exclusions] == [(host_id(2), "stage prod was not chosen for this run")]
    assert "Stages left out of this run:** staging, prod" in plans.markdown(plan)


@pytest.mark.parametrize(
    ("severities", "vulnerabilities", "planned"),
    [
        (("critical",), (), [2]),
        (("critical", "high"), (), [1, 2]),
        ((), ("CVE-2026-0001",), [1]),
        (("critical",), ("CVE-2026-0001",), []),
        (("low",), (), []),
        ((), (), [1, 2, 3, 4]),
    ],
)
def test_a_run_restricted_by_finding_takes_the_hosts_that_have_one(
    severities: tuple[str, ...], vulnerabilities: tuple[str, ...], planned: list[int]
) -> None:
    """Host 3's finding cannot be mended by an OS patch and host 4 has none: both are patched only in an unrestricted run."""
    triage = a_triage(
        a_finding(1), a_finding(2, Severity.CRITICAL), a_finding(3, Severity.CRITICAL, manager="GOBINARY"),
        severities=[Severity(word) for word in severities], vulnerabilities=vulnerabilities,
    )  # fmt: skip
    restriction = Restriction(severities=severities, vulnerabilities=vulnerabilities)
    plan = a_plan([a_host(n) for n in (1, 2, 3, 4)], triage, restriction=restriction)
    assert [host.id for host in plan.hosts] == [host_id(n) for n in planned]
    assert len(plan.exclusions) == 4 - len(planned)


# --- the digest --------------------------------------------------------------------------------------------------------------
@given(fleets(), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_digest_does_not_depend_on_the_order_in_which_aws_lists_hosts(hosts: list[Host], choose: Any) -> None:
    """The same facts are the same plan."""
    shuffled = list(hosts)
    choose.shuffle(shuffled)
    assert plans.digest(a_plan(hosts)) == plans.digest(a_plan(shuffled))


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, (*path, key))
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from leaves(value, (*path, index))
    else:
        yield path


def test_the_digest_changes_with_any_change_of_the_plan() -> None:
    """An approval covers every letter of it."""
    content = plans.to_json(mixed_plan())
    known = {evidence.digest(content)}
    for path in leaves(content):
        changed = copy.deepcopy(content)
        holder = changed
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = f"{holder[path[-1]]}x"
        known.add(evidence.digest(changed))
    assert len(known) == 1 + len(list(leaves(content)))


@pytest.mark.parametrize(
    "change",
    [
        {"dry_run": True}, {"requested_by": "ana"}, {"definition": "0" * 64}, {"run": RUN + "x"},
        {"now": NOW + timedelta(seconds=1)}, {"restriction": Restriction(stages=("prod",))},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_another_question_is_another_plan(change: dict[str, Any]) -> None:
    """Who approved one has not approved the other."""
    assert plans.digest(a_plan([a_host(1)])) != plans.digest(a_plan([a_host(1)], **change))


@given(fleets())
@settings(max_examples=40)
def test_a_plan_that_was_stored_is_read_back_as_it_was(hosts: list[Host]) -> None:
    """Through real JSON, as a ledger keeps it."""
    plan = a_plan(hosts)
    stored = json.loads(json.dumps(plans.to_json(plan)))
    assert plans.from_json(stored) == plan
    assert plans.digest(plans.from_json(stored)) == plans.digest(plan)


def test_a_mixed_plan_is_read_back_as_it_was() -> None:
    """Findings, deadlines and unscanned hosts included."""
    plan = mixed_plan()
    assert plans.from_json(json.loads(json.dumps(plans.to_json(plan)))) == plan


# --- for people --------------------------------------------------------------------------------------------------------------
def test_the_page_shows_whatever_a_person_has_to_know() -> None:
    """Hosts, order, what for, exclusions, who cannot be reached, who is not scanned, what no patch mends."""
    text = plans.markdown(mixed_plan(), for_stage="prod")
    for words in (
        "You are asked about stage `prod`", "1 critical, 2 high", "| dev |", "## Excluded (1)", "lonely", "it has no patch group",
        "the agent does not answer (ConnectionLost)", "the instance is stopped", f"({host_id(7)}): NO_COVERAGE",
        "unknown (not scanned)", "## What an OS patch cannot mend\n\n- 1 finding:", plans.digest(mixed_plan()),
    ):  # fmt: skip
        assert words in text, words


def test_the_plan_says_that_the_requesters_own_yes_does_not_count() -> None:
    """Where the list of those who may approve names them; else it would read as if they could."""
    assert "requested by:** olga, whose own yes does not count (staging, prod)" in plans.markdown(a_plan([a_host(1)]))
    assert "does not count" not in plans.markdown(a_plan([a_host(1)], requested_by="uma"))
    assert "does not count" not in plans.markdown(a_plan([a_host(1)], requested_by=None))


def test_a_dry_run_and_a_notice_stand_on_top() -> None:
    """Nobody takes a rehearsal for the real thing, nor an old campaign file for the newest."""
    text = plans.markdown(a_plan([a_host(1)], dry_run=True), notices=["The campaign file has changed", "olga has said yes"])
    assert text.index("The campaign file has changed") < text.index("Dry run") < text.index("What for")
    assert "> **The campaign file has changed**\n>\n> **olga has said yes**\n\n" in text


def test_what_a_plan_is_for_is_what_its_own_hosts_have() -> None:
    """The scan's total stays beside it: a host that went after the scan took its findings with it."""
    plan = a_plan([a_host(1), a_host(2)], a_triage(a_finding(1), a_finding(2, Severity.CRITICAL), scanned=(1, 2)))
    smaller = plans.without(plan, next(one.name for one in plan.stages if one.hosts), [host_id(2)], reason="it is gone")
    assert "**What for:** 1 critical, 1 high patchable findings on these hosts" in plans.markdown(plan)
    assert "**What for:** 1 high patchable findings on these hosts, of 1 critical, 1 high active ones" in plans.markdown(smaller)


def test_a_gate_of_five_thousand_hosts_stays_readable_and_leaves_nothing_out_unsaid() -> None:
    """A hundred hosts by name, the others in numbers; every reason with its count, and where the whole list is."""
    numbers = range(1, 5001)
    hosts = [a_host(number, group_tag="linux-prod" if number % 20 else None, name=f"web-{number:05}") for number in numbers]
    triage = a_triage(*(a_finding(number) for number in numbers[::2]), scanned=tuple(numbers[:4000]))
    plan = a_plan(hosts, triage)
    whole, text = plans.markdown(plan, for_stage="prod"), plans.markdown(plan, for_stage="prod", most=plans.MOST_AT_GATE)
    assert len(whole) > 500_000
    assert len(text) < 50_000
    listed = [line for line in text.splitlines() if line.startswith("| ") and "| web-" in line]
    assert len(listed) == 200  # a hundred of the stage, a hundred excluded
    assert "**And 4650 more in later waves: 4650 Amazon Linux 2023; findings 2447 high" in text
    assert "950 not scanned by Inspector; soonest deadline" in text
    assert "- **250**: no stage of the campaign selects it (it has no patch group)" in text
    assert "**And 150 more.** All of them: `python -m patchwave plan weekly-linux/" in text
    assert "And " not in whole


@pytest.mark.parametrize(
    "name", ["a|b", "x`y", "<script>", "line\nbreak", "line\rbreak", "back\\slash|", "[click](http://evil.example)"]
)
def test_a_name_from_outside_cannot_break_out_of_its_cell(name: str) -> None:
    """Whoever may tag a host may not write the page that somebody approves."""
    plain = plans.markdown(a_plan([a_host(1), a_host(2, group_tag=None)]))
    odd = plans.markdown(a_plan([a_host(1, name=name, platform=name), a_host(2, group_tag=None, name=name)]))
    assert len(odd.splitlines()) == len(plain.splitlines())
    assert cells(odd) == cells(plain)
    assert "<script" not in odd
    assert odd.count("`") == plain.count("`")
    assert "[click]" not in odd.replace("\\[", "")


def test_an_approvers_login_cannot_break_out_of_its_cell_either() -> None:
    """A login name is text of a file, not markup."""
    campaign = a_campaign(CAMPAIGN.replace("approvers: [olga]", "approvers: ['o|ga']"))
    plain = plans.markdown(a_plan([a_host(1)]))
    assert cells(plans.markdown(a_plan([a_host(1)], campaign=campaign))) == cells(plain)


def cells(text: str) -> list[int]:
    """Columns of each row of each table."""
    return [line.replace("\\\\", "").replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")]


def test_the_page_of_a_plan_without_hosts_says_so() -> None:
    """An empty stage is told, not left blank."""
    assert "No host is selected by this stage." in plans.markdown(a_plan([]))


# --- what the rollout gets -----------------------------------------------------------------------------------------------------
@given(fleets())
@settings(max_examples=40)
def test_the_rollout_gets_every_host_of_the_stage_with_a_place_for_its_domain(hosts: list[Host]) -> None:
    """No host is begun under a rule that does not name its domain."""
    plan = a_plan(hosts)
    for stage in plan.stages:
        rules, rows = plans.rules(plan, stage), plans.rows(plan, stage, now=NOW)
        assert rules.order == tuple(row.host for row in rows) == tuple(host.id for host in stage.hosts)
        assert {row.state for row in rows} <= {HostState.PLANNED}
        assert all(rules.places[domain] >= 1 for row in rows for domain in row.domains)
        assert all(f"{row.cell}|{row.platform}" in rules.snapshots for row in rows)


def test_a_stopped_host_widens_no_share() -> None:
    """Nine of ten are stopped: ten percent of the one that serves is one, and it is the only one anyway."""
    hosts = [a_host(n, group_tag="linux-staging", state=InstanceState.STOPPED) for n in range(1, 10)]
    stage = a_plan([*hosts, a_host(10, group_tag="linux-staging")]).stage("staging")
    assert stage.stage_places == 1
    assert set(stage.places.values()) == {1}


def test_members_of_a_group_that_are_not_patched_widen_its_share() -> None:
    """The group serves with all its members: a share of the group is a share of them."""
    hosts = [a_host(n, group="web", group_tag="linux-staging") for n in (1, 2)]
    others = [a_host(n, group="web", group_tag=None) for n in (3, 4, 5, 6)]
    stage = a_plan([*hosts, *others]).stage("staging")
    assert stage.places == {f"asg:{CELL}/web": 3, f"zone:staging/{CELL.account}/eu-central-1a": 1, "stage:staging": 1}


def test_nobody_asks_for_a_stage_that_is_not_in_the_plan() -> None:
    """It is named, not guessed."""
    with pytest.raises(KeyError, match="qa"):
        a_plan([]).stage("qa")


# --- where the numbers come from ----------------------------------------------------------------------------------------------
WEB = f"asg:{CELL}/web"


def a_group(*numbers: int, **facts: Any) -> Group:
    return Group(domain=WEB, members=frozenset(host_id(n) for n in numbers), **facts)


def staging(hosts: list[Host], *groups: Group, concurrency: str = "50%", **facts: Any) -> plans.StagePlan:
    campaign = a_campaign(CAMPAIGN.replace("concurrency: 50%", f"concurrency: {concurrency}"))
    return a_plan(hosts, campaign=campaign, groups=groups, **facts).stage("staging")


def test_a_group_is_as_large_as_aws_says_whoever_patches_its_members() -> None:
    """Two of its eight members are the stage's: half of eight is four, but the stage has only one place."""
    stage = staging([a_host(n, group="web", group_tag="linux-staging") for n in (1, 2)], a_group(*range(1, 9)))
    assert (stage.places[WEB], stage.stage_places) == (4, 1)


def test_a_group_is_never_taken_below_its_minimum() -> None:
    """Ten members, eight must serve: two at once, and the plan says why not five."""
    hosts = [a_host(n, group="web", group_tag="linux-staging") for n in range(1, 11)]
    stage = staging(hosts, a_group(*range(1, 11), minimum=8, says="MinSize 8"))
    assert stage.places[WEB] == 2
    assert max(len(wave.hosts) for wave in stage.waves) == 2
    assert "Group web: 2 at once and not 5, so that 8 always serve (MinSize 8)." in stage.remarks


def test_a_group_at_its_minimum_gives_one_host_at_a_time_and_the_plan_says_so() -> None:
    """With no place at all it could never be patched in place; whoever approves sees it."""
    hosts = [a_host(n, group="web", group_tag="linux-staging") for n in (1, 2)]
    plan = a_plan(hosts, groups=[a_group(1, 2, minimum=2, says="MinSize 2")])
    assert plan.stage("staging").places[WEB] == 1
    assert "one host at a time is taken all the same" in plans.markdown(plan)


def test_target_groups_and_zones_have_budgets_of_their_own() -> None:
    """A host is away from all of them at once."""
    hosts = [
        a_host(n, group_tag="linux-staging", zone=f"eu-central-1{'ab'[n % 2]}", target_groups=("shop",) if n < 3 else ())
        for n in range(1, 9)
    ]
    stage = staging(hosts)
    zone = f"zone:staging/{CELL.account}/eu-central-1"
    assert stage.places == {f"target:{CELL}/shop": 1, f"{zone}a": 2, f"{zone}b": 2, "stage:staging": 4}
    assert all(sum(1 for host in wave.hosts if host in (host_id(1), host_id(2))) <= 1 for wave in stage.waves)


@pytest.mark.parametrize(("hosts", "at_once"), [(1, 1), (24, 1), (25, 2), (100, 5), (101, 9), (1000, 80), (1001, 101)])
def test_without_a_word_in_the_file_the_number_comes_from_aws_own_table(hosts: int, at_once: int) -> None:
    """And the plan says where it comes from."""
    campaign = a_campaign(CAMPAIGN.replace("    concurrency: 50%\n", ""))
    stage = a_plan([a_host(n, group_tag="linux-staging") for n in range(1, hosts + 1)], campaign=campaign).stage("staging")
    assert stage.stage_places == at_once
    assert any("Patch now" in remark and f"{hosts} hosts" in remark for remark in stage.remarks)


def test_the_plan_says_that_newcomers_are_patched_too() -> None:
    """Whoever approves it has agreed to them; in a run about certain findings nobody knows theirs."""
    assert "Hosts that appear meanwhile in these groups" in plans.markdown(a_plan([a_host(1)]))
    triage = a_triage(a_finding(1, Severity.CRITICAL), severities=[Severity.CRITICAL])
    restricted = a_plan([a_host(1)], triage, restriction=Restriction(severities=("critical",)))
    assert "Hosts that appear meanwhile are left alone" in plans.markdown(restricted)


def test_a_window_stands_in_the_plan() -> None:
    """With its cron, its zone and what does not fit into it."""
    window = "concurrency: 50%\n    window: {cron: '0 22 * * 2', duration: 4h, timezone: Europe/Vienna}"
    plan = a_plan([a_host(1, group_tag="linux-staging")], campaign=a_campaign(CAMPAIGN.replace("concurrency: 50%", window)))
    stage = plan.stage("staging")
    assert stage.window == Window(cron="0 22 * * 2", duration=timedelta(hours=4), timezone="Europe/Vienna")
    assert "Window: opens by 0 22 * * 2 in Europe/Vienna for 4h" in plans.markdown(plan)
    assert plan.stage("prod").window is None
    assert plans.from_json(json.loads(json.dumps(plans.to_json(plan)))) == plan


def test_times_that_were_learned_make_the_forecast_and_are_frozen_in_the_plan() -> None:
    """Of the slowest platform; what nobody has seen yet takes what AWS's guides say."""
    slow = {"Amazon Linux 2023": {**rollout.AT_MOST, StepKind.INSTALL: timedelta(minutes=50)}}
    hosts = [a_host(1, group_tag="linux-staging"), a_host(2, group_tag="linux-staging", platform="Ubuntu 24.04")]
    plan = a_plan(hosts, expected=slow)
    assert plan.expected == slow
    assert plans.rules(plan, plan.stage("staging")).expected == slow
    assert plan.stage("staging").forecast == timedelta(minutes=2 + (50 + 3 + 2) * 2)
    assert a_plan(hosts).stage("staging").forecast == timedelta(minutes=2 + (10 + 3 + 2) * 2)
    assert plans.from_json(json.loads(json.dumps(plans.to_json(plan)))) == plan


# --- a plan that is changed before a stage begins ---------------------------------------------------------------------------
@given(fleets(), st.data())
def test_hosts_that_are_left_out_are_excluded_and_nothing_else_changes(hosts: list[Host], data: st.DataObject) -> None:
    """Fewer hosts are another plan with another digest; nobody is lost, and no wave is empty."""
    plan = a_plan(hosts)
    mine = [host.id for host in plan.stage("prod").hosts]
    out = data.draw(st.sets(st.sampled_from(mine))) if mine else set()
    less = plans.without(plan, "prod", out, reason="left out by olga")
    assert [host.id for host in less.stage("prod").hosts] == [host for host in mine if host not in out]
    assert {one.host for one in less.exclusions} - {one.host for one in plan.exclusions} == out
    assert less.stages[:-1] == plan.stages[:-1]
    waves = less.stage("prod").waves
    assert [wave.number for wave in waves] == list(range(1, len(waves) + 1))
    assert all(wave.hosts for wave in waves)
    assert {host for wave in waves for host in wave.hosts} == {host.id for host in less.stage("prod").hosts if not host.note}
    assert (plans.digest(less) != plans.digest(plan)) is bool(out)


@given(fleets(), fleets(), st.sampled_from(["dev", "staging", "prod"]))
def test_a_renewed_stage_has_the_hosts_of_now_and_the_others_stay(before: list[Host], now: list[Host], name: str) -> None:
    """Every host that is there now, or was planned in another stage, is in exactly one place."""
    plan, fresh = a_plan(before), a_plan(now)
    made = plans.renewed(plan, fresh, name)
    assert [stage for stage in made.stages if stage.name != name] == [stage for stage in plan.stages if stage.name != name]
    elsewhere = {host.id for stage in plan.stages if stage.name != name for host in stage.hosts}
    assert {host.id for host in made.stage(name).hosts} == {host.id for host in fresh.stage(name).hosts} - elsewhere
    places = [host.id for host in made.hosts] + [one.host for one in made.exclusions]
    assert len(places) == len(set(places))
    assert set(places) == {host.id for host in now} | elsewhere


@given(fleets(), st.sampled_from(["dev", "staging", "prod"]))
def test_a_stage_renewed_with_the_same_hosts_is_the_same_plan(hosts: list[Host], name: str) -> None:
    """So its approval still holds."""
    plan = a_plan(hosts)
    again = a_plan(hosts, now=NOW + timedelta(days=1))
    assert plans.digest(plans.renewed(plan, again, name)) == plans.digest(plan)


def test_a_plan_changed_for_a_stage_holds_for_it_and_for_later_ones() -> None:
    """What was approved for an earlier stage stays what it was."""
    names = ["plan", "plan.md", "triage", "compliance.before"]
    order = ["dev", "staging", "prod"]
    assert [plans.in_force(names, order, stage=stage) for stage in (*order, None)] == ["plan"] * 4
    names.append(plans.changed_name(names, "staging"))
    assert [plans.in_force(names, order, stage=stage) for stage in (*order, None)] == ["plan", *["plan.2.staging"] * 3]
    names += [f"plan.{number}.prod" for number in range(3, 12)]
    assert plans.changed_name(names, "prod") == "plan.12.prod"
    assert [plans.in_force(names, order, stage=stage) for stage in (*order, None)] == [
        "plan", "plan.2.staging", "plan.11.prod", "plan.11.prod",
    ]  # fmt: skip


# --- approvals --------------------------------------------------------------------------------------------------------------
def strict_plan() -> Plan:
    """Two of three people, one of them by her role; two hosts may differ."""
    text = CAMPAIGN.replace("approvers: [olga]}", "approvers: [olga, ana], roles: [board], quorum: 2, tolerance: 2}")
    return a_plan([a_host(1)], campaign=a_campaign(f"{text}roles: {{board: [uma]}}\n"))


def test_the_plan_says_whose_yes_it_needs_and_when_that_is_void() -> None:
    """Before anybody says it."""
    text = plans.markdown(strict_plan())
    assert "| 2 of olga, ana, uma |" in text
    assert "- Approval: void, and asked for again with the difference, if more than 2 hosts came or went" in text


def test_a_plan_without_quorum_and_tolerance_is_stored_as_it_always_was() -> None:
    """An upgrade in the middle of a run must not change the digest that somebody has approved."""
    stored = plans.to_json(a_plan([a_host(1)]))
    assert all(not {"quorum", "tolerance"} & stage.keys() for stage in stored["stages"])
    assert plans.from_json(stored).stage("prod").quorum == 1


@pytest.mark.parametrize(
    ("window", "stored"),
    [
        ("{cron: '0 22 * * 2', duration: 4h, timezone: UTC}", {"cron", "duration", "timezone"}),
        (
            "{rrule: FREQ=WEEKLY;BYDAY=TU, starts: 2026-11-10T22:00, duration: 4h, timezone: UTC}",
            {"cron", "duration", "timezone", "rrule", "starts"},
        ),
        ("{maintenance_window: prod-nights}", {"cron", "duration", "timezone", "maintenance_window"}),
    ],
)
def test_a_window_is_stored_with_what_it_says_and_read_back(window: str, stored: set[str]) -> None:
    """A window by cron has had its three facts ever since: its digest stays."""
    text = CAMPAIGN.replace("concurrency: 50%", f"concurrency: 50%\n    window: {window}")
    plan = a_plan([a_host(1, group_tag="linux-staging")], campaign=a_campaign(text))
    content = plans.to_json(plan)
    (found,) = [stage["window"] for stage in content["stages"] if stage["window"] is not None]
    assert found.keys() == stored
    assert plans.from_json(json.loads(json.dumps(content))) == plan


def test_a_quorum_and_a_tolerance_are_part_of_what_was_approved() -> None:
    """They are stored, read back, and change the digest."""
    plan = strict_plan()
    assert plans.from_json(json.loads(json.dumps(plans.to_json(plan)))) == plan
    assert (plan.stage("prod").quorum, plan.stage("prod").tolerance) == (2, 2)
    assert plans.to_json(plan)["stages"][-1]["quorum"] == 2


def test_what_is_new_stands_before_the_tables() -> None:
    """Who reads only the first page of a long plan reads that."""
    text = plans.markdown(mixed_plan(), for_stage="prod", difference="\n## Difference\n\nnothing\n")
    assert text.index("## Difference") < text.index("## Stages, in this order")


# --- a kernel update waits for a window ----------------------------------------------------------------------------------------
def with_kernel(number: int, **facts: Any) -> Finding:
    package = VulnerablePackage(name="kernel", version="1", manager="OS", fixed_in="2")
    return dataclasses.replace(a_finding(number, **facts), arn=f"kernel-{number}", packages=(package,))


WINDOWED = CAMPAIGN.replace(
    "    concurrency: 10%", '    window: {cron: "0 22 * * *", timezone: UTC, duration: 4h}\n    concurrency: 10%'
)


def test_a_host_that_a_kernel_waits_for_is_left_out_of_a_stage_without_a_window_and_told_what_to_do() -> None:
    """Never silently skipped; in the stage that has one it is patched, and hosts without a kernel update are, everywhere."""
    assert WINDOWED != CAMPAIGN
    hosts = [a_host(1, group_tag="linux-dev"), a_host(2, group_tag="linux-dev"), a_host(3)]
    triage = a_triage(with_kernel(1), a_finding(2), with_kernel(3))
    plan = a_plan(hosts, triage, campaign=a_campaign(WINDOWED), kernel_waits=True)
    assert [host.id for host in plan.hosts] == [host_id(2), host_id(3)]
    (out,) = plan.exclusions
    assert (out.host, out.reason) == (host_id(1), rollout.waits_for_window("dev"))
    shown = plans.markdown(plan)
    assert "give the stage a 'window'" in shown
    assert "**Kernel updates:** installed and rebooted in a stage's window only; dev, staging have none" in shown
    everywhere = a_plan(hosts, triage, campaign=a_campaign(WINDOWED))
    assert everywhere.exclusions == ()
    assert "Kernel updates" not in plans.markdown(everywhere)


def test_a_kernel_that_the_run_is_not_about_is_waited_for_all_the_same() -> None:
    """A run about one CVE installs everything that the host's baseline approves, the kernel among it."""
    triage = a_triage(with_kernel(1, cve="CVE-2026-1"), a_finding(1, cve="CVE-2026-2"), vulnerabilities=["CVE-2026-2"])
    assert triage.by_track()[Track.KERNEL] == 0
    plan = a_plan([a_host(1, group_tag="linux-dev")], triage, kernel_waits=True)
    assert [out.host for out in plan.exclusions] == [host_id(1)]


def test_a_plan_that_confines_no_kernel_keeps_its_digest_and_one_that_does_is_read_back() -> None:
    """An approval holds over an upgrade in the middle of a run."""
    plan = mixed_plan()
    assert "kernel_waits" not in plans.to_json(plan)
    confined = dataclasses.replace(plan, kernel_waits=True)
    assert plans.from_json(json.loads(json.dumps(plans.to_json(confined)))) == confined
    assert plans.digest(confined) != plans.digest(plan)
