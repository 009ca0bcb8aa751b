"""Does the rule checker see each rule broken, and none where none is? A real run on awsim, doctored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from patchwave.campaign import approval, audit, evidence
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Choice, Vote
from patchwave.campaign.audit import Rule, RunTrace
from patchwave.campaign.plan import Plan
from patchwave.campaign.rollout import HostState, StepKind
from patchwave.campaign.windows import Closure, Window
from patchwave.ledger.store import Entry, StageState, WaitRow
from tests.seeds.campaign import RUN, SeededCampaign
from tests.seeds.world import ACCOUNT

STAGES = """
  - {name: dev, select: {patch_groups: [linux-dev]}, concurrency: 100%, error_budget: 0, soak: 30m}
  - name: staging
    select: {patch_groups: [linux-staging]}
    concurrency: 1
    error_budget: 0
    soak: 1m
    approval: {required: true, approvers: [olga]}"""


def fleet(name: str, count: int, group: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "account": ACCOUNT, "region": "eu-central-1", "count": count, "template": "amazon",
        "tags": {"PatchGroup": group}, **more,
    }  # fmt: skip


FLEETS = [
    fleet("dev-0", 2, "linux-dev", exceptions=[{"host": 2, "compliant": True}]),
    fleet("staging-0", 3, "linux-staging"),
    fleet("strangers", 1, "others"),
]


@pytest.fixture(scope="module")
def good() -> RunTrace:
    """Two stages patched without a fault: one host in dev is compliant before, the others need a reboot."""
    campaign = SeededCampaign(seed=1, calm=True, fleets=FLEETS, stages=STAGES)
    campaign.play()
    return campaign.trace()


@dataclass
class Doctor:
    """A run that can be changed in one place."""

    trace: RunTrace

    def __post_init__(self) -> None:
        self.lines: list[dict[str, Any]] = copy.deepcopy([dict(line) for line in self.trace.lines])

    def hosts(self, stage: str, state: HostState = HostState.PATCHED) -> list[str]:
        return [str(row.host) for row in self.trace.hosts if row.stage == stage and row.state is state]

    def find(self, event: str, operation: str | None = None, *, host: str = "", last: bool = False) -> int:
        """Place of the first (last) such line."""
        found = [
            number for number, line in enumerate(self.lines)
            if line["event"] == event and line["operation"] == operation and line["host"] in (host or line["host"])
        ]  # fmt: skip
        return found[-1 if last else 0]

    def without(self, chosen: Callable[[dict[str, Any]], bool]) -> RunTrace:
        return replace(self.trace, lines=[line for line in self.lines if not chosen(line)])

    def done(self, **more: Any) -> RunTrace:
        return replace(self.trace, **({"lines": self.lines} | more))

    def noted(self, moment: Callable[[evidence.Linked], bool], record: str, /, **data: Any) -> RunTrace:
        """With one more record in the ledger's journal, before the first one that is meant; its chain is whole."""
        records = list(self.trace.records)
        place = next(number for number, one in enumerate(records) if moment(one))
        records.insert(place, an_entry(at=records[place].at, kind=record, data=data))
        return replace(self.trace, records=relinked(records))


def an_entry(*, at: datetime, kind: str, data: dict[str, Any]) -> Entry:
    return Entry(run=RUN, sequence=0, at=at, kind=kind, data=data, before="", hash="")


def relinked(records: Iterable[evidence.Linked]) -> list[Entry]:
    """The same records in one whole chain."""
    made: list[Entry] = []
    before = evidence.FIRST
    for number, one in enumerate(records, start=1):
        after = evidence.link(RUN, number, one.at, one.kind, one.data, before)
        made.append(Entry(run=RUN, sequence=number, at=one.at, kind=one.kind, data=one.data, before=before, hash=after))
        before = after
    return made


def with_plan(trace: RunTrace, plan: Plan) -> RunTrace:
    """As if that had been the plan from the beginning."""
    digest = plans.digest(plan)
    records = [
        an_entry(at=one.at, kind=one.kind, data={**one.data, **changed})
        for one in trace.records
        for changed in ({"digest": digest} if one.kind == "plan.made" else {"plan": digest} if "plan" in one.data else {},)
    ]
    decisions = [replace(one, plan=digest) for one in trace.decisions]
    return replace(trace, plan=plan, records=relinked(records), decisions=decisions)


def begins(step: StepKind, stage: str) -> Callable[[evidence.Linked], bool]:
    return lambda one: one.kind == "dispatch.intended" and one.data["step"] == step.value and one.data["stage"] == stage


def rules(trace: RunTrace) -> set[Rule]:
    return {one.rule for one in audit.broken(trace)}


def test_a_good_run_breaks_no_rule(good: RunTrace) -> None:
    """And it has everything in it that the rules are about."""
    assert [str(one) for one in audit.broken(good)] == []
    assert {row.state for row in good.hosts} == {HostState.PATCHED, HostState.ALREADY_COMPLIANT}
    assert len(good.hosts) == 5
    assert any(one.event == "reboot_ended" for one in good.events)


# --- each rule, broken once ---------------------------------------------------------------------------------------------------
def two_away_at_once(doctor: Doctor) -> RunTrace:
    """The second host's Install begins as soon as the first one's."""
    first, second = (doctor.lines[doctor.find("command_begun", "Install", host=host)] for host in in_order(doctor, "staging")[:2])
    second["at"] = first["at"]
    return doctor.done()


def in_order(doctor: Doctor, stage: str) -> list[str]:
    """Hosts of a stage as their Installs began."""
    hosts = doctor.hosts(stage)
    return sorted(hosts, key=lambda host: doctor.find("command_begun", "Install", host=host))


def a_failed_host_gives_its_place_away(doctor: Doctor) -> RunTrace:
    """The ledger calls the first host unreachable in the end, and the second one was begun all the same."""
    first = in_order(doctor, "staging")[0]
    hosts = [replace(row, state=HostState.UNREACHABLE) if row.host == first else row for row in doctor.trace.hosts]
    records = [
        an_entry(at=one.at, kind=one.kind, data={**one.data, "after": "unreachable"})
        if one.kind == "host.moved" and one.data["host"] == first and one.data["after"] == "patched" else one
        for one in doctor.trace.records
    ]  # fmt: skip
    plan = doctor.trace.plan
    assert plan is not None
    stages = tuple(replace(stage, error_budget=9) for stage in plan.stages)
    return with_plan(doctor.done(hosts=hosts, records=relinked(records)), replace(plan, stages=stages))


def begun_after_a_failure(doctor: Doctor) -> RunTrace:
    """No host may fail, one has, and it is the next to be installed."""
    first = in_order(doctor, "staging")[0]
    return doctor.noted(
        begins(StepKind.INSTALL, "staging"), "host.moved", stage="staging", host=first, before="ready", after="failed",
    )  # fmt: skip


def sent_twice(doctor: Doctor) -> RunTrace:
    """The same token under two command ids."""
    place = doctor.find("command_begun", "Install")
    line = copy.deepcopy(doctor.lines[place])
    line["cause"]["command_id"] = "another"
    doctor.lines.insert(place, line)
    return doctor.done()


def installed_again(doctor: Doctor) -> RunTrace:
    """A second dispatch of an Install to the same host; no record says why."""
    token = "f" * 32
    host = in_order(doctor, "dev")[0]
    place = doctor.find("command_ended", "Install", host=host)
    line = copy.deepcopy(doctor.lines[doctor.find("command_begun", "Install", host=host)])
    line["cause"] = {**line["cause"], "command_id": "again", "comment": f"patchwave {token} seeded dev install"}
    ended = copy.deepcopy(doctor.lines[place])
    ended["cause"] = line["cause"]
    line["at"] = ended["at"] = doctor.lines[place]["at"]
    doctor.lines[place + 1 : place + 1] = [line, ended]
    row = next(row for row in doctor.trace.dispatches if row.step is StepKind.INSTALL and row.stage == "dev")
    noted = doctor.noted(
        begins(StepKind.SCAN, "staging"), "dispatch.intended", stage="dev", token=token, step="verify", hosts=[host]
    )
    again = replace(row, token=token, command="again", hosts=(row.hosts[0],))
    return replace(noted, lines=doctor.lines, dispatches=[*doctor.trace.dispatches, again])


def not_approved(doctor: Doctor) -> RunTrace:
    """Nobody has said yes."""
    return doctor.done(decisions=[])


def approved_afterwards(doctor: Doctor) -> RunTrace:
    """The decision was written when the stage had begun."""
    made = [one for one in doctor.trace.records if one.kind == "decision.made"]
    rest = [one for one in doctor.trace.records if one.kind != "decision.made"]
    return doctor.done(records=relinked([*rest, *made]))


def one_yes_of_two(doctor: Doctor) -> RunTrace:
    """The plan asks for two people, and the ledger has the decision with one answer."""
    return with_votes(doctor, "olga")


def with_votes(doctor: Doctor, *people: str) -> RunTrace:
    """As if two people had to agree, and these had."""
    plan = doctor.trace.plan
    assert plan is not None
    asks = next(stage for stage in plan.stages if stage.approval_required)
    strict = replace(asks, quorum=2, approvers=("olga", "ana"))
    stages = tuple(strict if one is asks else one for one in plan.stages)
    trace = with_plan(doctor.trace, replace(plan, stages=stages, requested_by="uma"))
    for person in people:
        vote = Vote(stage=asks.name, plan=plans.digest(trace.plan), choice=Choice.APPROVE, author=person, at=trace.records[0].at)
        trace = Doctor(trace).noted(lambda one: one.kind == "decision.made", approval.VOTE, **approval.as_record(vote))
    return trace


def not_soaked(doctor: Doctor) -> RunTrace:
    """Staging's hosts were begun forty minutes earlier than the ledger says."""
    for line in doctor.lines:
        if line["host"] in doctor.hosts("staging"):
            line["at"] = (datetime.fromisoformat(line["at"]) - timedelta(minutes=40)).isoformat()
    return doctor.done()


def a_stranger_is_scanned(doctor: Doctor) -> RunTrace:
    """A command of ours on a host that the plan leaves out."""
    stranger = next(str(one.host) for one in doctor.trace.plan.exclusions) if doctor.trace.plan else ""
    doctor.lines.append({**doctor.lines[doctor.find("command_begun", "Scan", last=True)], "host": stranger})
    return doctor.done()


def it_was_a_dry_run(doctor: Doctor) -> RunTrace:
    """Everything was done although nothing was to be done."""
    assert doctor.trace.plan is not None
    return with_plan(doctor.trace, replace(doctor.trace.plan, dry_run=True))


def at_the_wrong_time(doctor: Doctor) -> RunTrace:
    """The stage may be worked on in the night, and was in the morning."""
    plan = doctor.trace.plan
    assert plan is not None
    window = Window(cron="0 2 * * *", duration=timedelta(hours=1), timezone="UTC")
    stages = tuple(replace(stage, window=window) for stage in plan.stages)
    return with_plan(doctor.trace, replace(plan, stages=stages))


def in_a_freeze(doctor: Doctor) -> RunTrace:
    """The campaign file freezes the whole day."""
    began = min(datetime.fromisoformat(line["at"]) for line in doctor.lines)
    freeze = Closure(begins=began - timedelta(days=1), ends=began + timedelta(days=9), reason="freeze 'launch'")
    return doctor.done(closures=(freeze,))


def outside_of_what_was_open(doctor: Doctor) -> RunTrace:
    """Staging's calendar was closed when its first Install was meant, and the run had recorded so."""
    return doctor.noted(begins(StepKind.INSTALL, "staging"), "window.changed", stage="staging", held=False,
                        opens="2030-01-01T00:00:00+00:00", closes="2030-01-01T04:00:00+00:00", because="closed")  # fmt: skip


def a_host_is_forgotten(doctor: Doctor) -> RunTrace:
    """Planned, and in no class when the stage ended."""
    gone = doctor.hosts("staging")[0]
    return doctor.done(hosts=[row for row in doctor.trace.hosts if row.host != gone])


def touched_afterwards(doctor: Doctor) -> RunTrace:
    """A command that was given up begins an hour after its host was settled."""
    line = copy.deepcopy(doctor.lines[doctor.find("command_begun", "Scan", last=True)])
    row = doctor.trace.tokens[line["cause"]["comment"].split()[1]]
    line["at"] = (datetime.fromisoformat(line["at"]) + timedelta(hours=1)).isoformat()
    # Not a host of that command: it would have been carried out on it twice, which is another rule.
    other = next(host for host in (*doctor.hosts("staging"), *doctor.hosts("dev")) if host not in row.hosts)
    doctor.lines.append({**line, "host": other, "operation": "Scan"})
    hosts = (*row.hosts, audit.HostId(other))
    return doctor.done(dispatches=[replace(one, hosts=hosts) if one is row else one for one in doctor.trace.dispatches])


def patched_without_an_install(doctor: Doctor) -> RunTrace:
    """The journal of a patched host has neither Install nor package."""
    host = doctor.hosts("staging")[0]
    return doctor.without(lambda line: line["host"] == host and line["operation"] == "Install")


def patched_without_a_reboot(doctor: Doctor) -> RunTrace:
    """Its patches waited for one."""
    host = doctor.hosts("dev")[0]
    return doctor.without(lambda line: line["host"] == host and line["event"].startswith("reboot"))


def patched_without_a_scan_after(doctor: Doctor) -> RunTrace:
    """Nobody looked."""
    host = doctor.hosts("dev")[0]
    del doctor.lines[doctor.find("command_ended", "Scan", host=host, last=True)]
    return doctor.done()


def compliant_before_and_yet_installed(doctor: Doctor) -> RunTrace:
    """The ledger says that nothing was done to it."""
    host = doctor.hosts("staging")[0]
    hosts = [replace(row, state=HostState.ALREADY_COMPLIANT) if row.host == host else row for row in doctor.trace.hosts]
    records = [
        an_entry(at=one.at, kind=one.kind, data={**one.data, "after": "already_compliant"})
        if one.kind == "host.moved" and one.data["host"] == host and one.data["after"] == "patched" else one
        for one in doctor.trace.records
    ]  # fmt: skip
    last = in_order(doctor, "staging")[-1]
    assert last  # the budget sees the place of this host as taken; it is the last one of its stage
    return doctor.done(hosts=hosts, records=relinked(records))


def nobody_knows_the_command(doctor: Doctor) -> RunTrace:
    """A command that carries our name and stands in no ledger."""
    line = copy.deepcopy(doctor.lines[doctor.find("command_begun", "Scan")])
    line["cause"]["comment"] = f"patchwave {'e' * 32} seeded dev scan"
    doctor.lines.append(line)
    return doctor.done()


def the_ledger_has_another_command(doctor: Doctor) -> RunTrace:
    """Its token is right and its id is not."""
    changed = [replace(row, command="c-0") if row.step is StepKind.SCAN else row for row in doctor.trace.dispatches]
    return doctor.done(dispatches=changed)


def halted_and_yet_begun(doctor: Doctor) -> RunTrace:
    """An Install was intended between a halt and its clearing."""
    return doctor.noted(begins(StepKind.INSTALL, "staging"), "stage.halted", stage="staging", before="patching", reason="x")


def a_record_was_changed(doctor: Doctor) -> RunTrace:
    """After it was written."""
    records = [
        replace(one, data={**one.data, "author": "ana"}) if one.kind == "decision.made" and isinstance(one, Entry) else one
        for one in doctor.trace.records
    ]
    return doctor.done(records=records)


def a_class_was_changed(doctor: Doctor) -> RunTrace:
    """The table says what the journal does not."""
    host = in_order(doctor, "staging")[-1]
    return doctor.done(hosts=[replace(row, state=HostState.EXCEPTED) if row.host == host else row for row in doctor.trace.hosts])


def it_waited_without_a_word(doctor: Doctor) -> RunTrace:
    """Nobody knew why."""
    wait = WaitRow(run=RUN, subject="dev", reason="", ends="", since=datetime(2026, 1, 5, tzinfo=UTC))
    return doctor.done(waits=[wait])


@pytest.mark.parametrize(
    ("doctored", "rule"),
    [
        (two_away_at_once, Rule.BUDGET),
        (a_failed_host_gives_its_place_away, Rule.BUDGET),
        (begun_after_a_failure, Rule.ERROR_BUDGET),
        (sent_twice, Rule.ONCE),
        (installed_again, Rule.ONCE),
        (not_approved, Rule.ORDER),
        (approved_afterwards, Rule.ORDER),
        (one_yes_of_two, Rule.ORDER),
        (not_soaked, Rule.ORDER),
        (a_stranger_is_scanned, Rule.PLAN),
        (it_was_a_dry_run, Rule.PLAN),
        (at_the_wrong_time, Rule.WINDOW),
        (in_a_freeze, Rule.WINDOW),
        (outside_of_what_was_open, Rule.WINDOW),
        (a_host_is_forgotten, Rule.SETTLED),
        (touched_afterwards, Rule.SETTLED),
        (patched_without_an_install, Rule.TRUTH),
        (patched_without_a_reboot, Rule.TRUTH),
        (patched_without_a_scan_after, Rule.TRUTH),
        (nobody_knows_the_command, Rule.KNOWN),
        (the_ledger_has_another_command, Rule.KNOWN),
        (halted_and_yet_begun, Rule.HALT),
        (a_record_was_changed, Rule.JOURNAL),
        (it_waited_without_a_word, Rule.WAITS),
    ],
    ids=lambda one: one.__name__ if callable(one) else str(one),
)
def test_a_broken_rule_is_seen_and_no_other(good: RunTrace, doctored: Callable[[Doctor], RunTrace], rule: Rule) -> None:
    """One thing is changed in a good run; exactly that rule reports, with a sentence and a subject."""
    found = audit.broken(doctored(Doctor(good)))
    assert {one.rule for one in found} == {rule}, [str(one) for one in found]
    assert all(one.subject and one.seen for one in found)


def test_a_stage_that_as_many_have_agreed_to_as_it_needs_is_good(good: RunTrace) -> None:
    """Or the rule would say nothing."""
    assert audit.broken(with_votes(Doctor(good), "olga", "ana")) == audit.broken(good)


@pytest.mark.parametrize(
    ("state", "by_a_person", "settled"),
    [
        (HostState.TO_VERIFY, True, True),
        (HostState.NEEDS_REBOOT, True, True),
        (HostState.INSTALLING, True, False),  # what it had in flight is not known to be over
        (HostState.TO_VERIFY, False, False),  # a rule halts a stage when all that has begun is brought to its end
    ],
)
def test_a_stage_that_a_person_stopped_may_leave_hosts_between_two_steps(
    good: RunTrace, state: HostState, by_a_person: bool, settled: bool
) -> None:
    """Kill means stop: nothing is on its way there, and whoever clears the task goes on with them."""
    doctor = Doctor(good)
    host = doctor.hosts("staging")[0]
    hosts = [replace(row, state=state) if row.host == host else row for row in good.hosts]
    stages = [replace(row, state=StageState.HALTED) if row.stage == "staging" else row for row in good.stages]
    noted = doctor.noted(begins(StepKind.INSTALL, "staging"), "stage.stopped" if by_a_person else "said", stage="staging")
    found = list(audit.CHECKS[Rule.SETTLED](replace(noted, hosts=hosts, stages=stages)))
    assert ([] if settled else [host]) == [one.subject for one in found if one.seen.startswith("stage staging stopped")]


def test_what_was_recorded_as_open_at_any_time_is(good: RunTrace) -> None:
    """A calendar that says nothing closes nothing; neither does a freeze that concerns another stage, or is over."""
    doctor = Doctor(good)
    free = doctor.noted(
        begins(StepKind.INSTALL, "staging"), "window.changed", stage="staging", opens=None, closes=None, held=False
    )
    assert audit.broken(free) == ()
    other = Closure(begins=datetime(2020, 1, 1, tzinfo=UTC), ends=None, reason="freeze", stages=("prod",))
    over = Closure(begins=datetime(2020, 1, 1, tzinfo=UTC), ends=datetime(2020, 1, 2, tzinfo=UTC), reason="freeze")
    assert audit.broken(replace(good, closures=(other, over))) == ()


def test_a_class_that_cannot_be_is_seen(good: RunTrace) -> None:
    """Called compliant before although an Install began; called excepted by the table only."""
    assert Rule.TRUTH in rules(compliant_before_and_yet_installed(Doctor(good)))
    assert Rule.JOURNAL in rules(a_class_was_changed(Doctor(good)))


def test_each_rule_has_a_meaning_and_a_check() -> None:
    """What is printed for people names them all."""
    assert set(audit.MEANING) == set(Rule) == set(audit.CHECKS)


def test_commands_of_other_runs_of_the_same_ledger_are_none_of_ours(good: RunTrace) -> None:
    """Two campaigns rehearse in one awsim."""
    doctor = Doctor(good)
    trace = nobody_knows_the_command(doctor)
    assert rules(replace(trace, elsewhere=frozenset({"e" * 32}))) == set()
    assert rules(replace(trace, campaign="another")) == set()


# --- Installs by other baselines than the accounts' ---------------------------------------------------------------------------
def what(event: str, operation: str | None = None, exit_code: int | None = None) -> Any:
    """Something that happened to a host by a command of ours."""
    return SimpleNamespace(
        event=event, operation=operation, exit_code=exit_code, begins_install=(event, operation) == ("command_begun", "Install"),
        ends=lambda asked: (event, operation, exit_code) == ("command_ended", asked, 0),
    )  # fmt: skip


def an_install(*inside: Any, exit_code: int = 0) -> list[Any]:
    ends = what("command_ended", "Install", exit_code), what("command_ended", "Scan", 0)
    return [what("command_begun", "Install"), *inside, *ends]


CAME, BOOTED = what("package_installed"), what("reboot_ended")


@pytest.mark.parametrize(
    ("state", "its", "true"),
    [
        (HostState.PATCHED, an_install(CAME), True),
        (HostState.PATCHED, an_install(CAME, exit_code=1), False),  # no report says what is there
        (HostState.PATCHED, an_install(), False),  # nothing was done
        (HostState.ALREADY_COMPLIANT, an_install(), True),
        (HostState.ALREADY_COMPLIANT, an_install(CAME), False),
        (HostState.ALREADY_COMPLIANT, an_install(exit_code=1), False),
        (HostState.ALREADY_COMPLIANT, [what("command_ended", "Scan", 0)], False),  # only an Install tells
        (HostState.FAILED, an_install(CAME, exit_code=1), True),
        (HostState.FAILED, an_install(CAME), False),
    ],
)
def test_where_another_baseline_holds_the_install_s_exit_code_decides(state: HostState, its: list[Any], true: bool) -> None:
    """AWS keeps no report of it, and the Scans go by the account's baseline."""
    row: Any = SimpleNamespace(state=state, missing_after=0)
    assert (audit._untrue(row, its, rebooted=False, again=False, overridden=True) == "") is true


def test_where_the_account_s_baseline_holds_an_install_on_a_compliant_host_is_none_that_should_be() -> None:
    """And a Scan is enough."""
    row: Any = SimpleNamespace(state=HostState.ALREADY_COMPLIANT, missing_after=0)
    assert audit._untrue(row, an_install(), rebooted=False, again=False, overridden=False)
    assert not audit._untrue(row, [what("command_ended", "Scan", 0)], rebooted=False, again=False, overridden=False)
