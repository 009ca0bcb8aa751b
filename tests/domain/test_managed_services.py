"""Databases and functions: what is planned, in which order it is done, and that each is settled."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.campaign import databases, functions, managed_services, report, settling
from patchwave.campaign import plan as plans
from patchwave.campaign.databases import Automatic, Databases, Fix, Kind, Minor, Target
from patchwave.campaign.findings import Finding, Severity, VulnerablePackage
from patchwave.campaign.functions import Functions, Wanted
from patchwave.campaign.managed_services import Done, Halt, Rules
from patchwave.campaign.settling import Service, State
from tests.domain import builders
from tests.domain.builders import CELL, NOW, later
from tests.domain.managed_builders import World, a_database, a_function, a_plan, arn_of, function_arn, pending, to_the_end
from tests.domain.report_builders import a_run, an_assessment

FIX = Fix(vulnerability="CVE-2026-1111", engine="postgres", fixed_in=("16.6", "15.10"), source="PostgreSQL news of 2026-02-12")


def one_planned(database: databases.Database, rule: Databases, **facts: object) -> databases.PlannedDatabase:
    (one,) = databases.planned([database], [database.arn], rule, deadlines={FIX.vulnerability: later(60)}, **facts)  # type: ignore[arg-type]
    return one


# --- what is planned ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minor", "fixes", "target"),
    [
        (Minor.AUTOMATIC, (), "16.4"), (Minor.NEWEST, (), "16.6"), (Minor.NONE, (), ""), (Minor.NONE, (FIX,), ""),
        (Minor.AUTOMATIC, (FIX,), "16.6"),
    ],
)  # fmt: skip
def test_the_policy_chooses_the_minor_version_and_a_fix_may_need_a_newer_one(minor: Minor, fixes: tuple[Fix, ...], target: str):
    """17.1 is offered, too, and is never chosen."""
    one = one_planned(a_database(), Databases(minor_versions=minor, fixes=fixes))
    assert one.target == target


@given(
    versions=st.lists(st.tuples(st.integers(16, 18), st.integers(0, 9), st.booleans()), unique_by=lambda one: one[:2]),
    minor=st.sampled_from(Minor), fixes=st.sampled_from([(), (FIX,)]),
)  # fmt: skip
def test_no_major_version_is_ever_chosen(versions, minor, fixes):
    """Whatever RDS offers, and whatever a fix would need."""
    targets = tuple(Target(version=f"{major}.{its}", automatic=auto, major=major > 16) for major, its, auto in versions)
    one = one_planned(a_database(targets=targets), Databases(minor_versions=minor, fixes=fixes))
    assert not one.target or (one.target.startswith("16.") and databases.ordered_by(one.target) > (16, 3))


def test_a_cve_that_the_policy_has_no_fix_for_in_this_line_is_unknown_and_not_gone():
    """PostgreSQL 14 is not mentioned by the fix."""
    one = one_planned(a_database(version="14.2", targets=()), Databases(fixes=(FIX,)))
    assert one.vulnerabilities == ()
    assert "unknown" in one.notes[0]


def test_a_database_without_a_version_that_mends_says_so():
    """Only a major version would: it is left alone, and that is no success."""
    one = one_planned(a_database(targets=(Target(version="17.1", automatic=False, major=True),)), Databases(fixes=(FIX,)))
    assert "no minor version that mends CVE-2026-1111" in one.why_not
    assert "17.1" in " ".join(one.notes)


def test_one_deadline_holds_for_a_cve_wherever_it_is():
    """The campaign's earliest, which came from a host's finding perhaps."""
    one = one_planned(a_database(), Databases(fixes=(FIX,)))
    assert (one.deadline, one.closes) == (later(60), ("CVE-2026-1111",))


@pytest.mark.parametrize(("wanted", "change"), [(Automatic.ON, True), (Automatic.OFF, None), (Automatic.UNMANAGED, None)])
def test_automatic_minor_upgrade_is_compared_with_the_policy(wanted: Automatic, change: bool | None):
    """It is off; unmanaged means that the plan says so and nothing else."""
    one = one_planned(a_database(), Databases(automatic_minor_upgrade=wanted))
    assert one.automatic is change
    assert any("stays so" in note for note in one.notes) is (wanted is Automatic.UNMANAGED)


def test_a_source_whose_replica_is_elsewhere_keeps_its_version():
    """RDS wants replicas upgraded first, and another stage's replica is none of ours."""
    source = a_database(replicas=("reader",), pending=(pending(),))
    reader = a_database("reader", source="orders")
    (one,) = databases.planned([source, reader], [source.arn], Databases(), deadlines={})
    assert (one.target, one.actions) == ("", ("system-update",))
    assert "reader must be upgraded first" in " ".join(one.notes)


def test_what_the_policy_does_not_apply_is_told_with_its_date():
    """AWS will do it anyway."""
    one = one_planned(a_database(pending=(pending("hardware-maintenance", by_itself=later(5)),)), Databases())
    assert one.actions == ()
    assert "hardware-maintenance by itself from 2026-03-03 22:05 UTC on; the policy leaves it alone" in " ".join(one.notes)


def a_finding(cve: str, path: str, name: str = "checkout") -> Finding:
    return Finding(
        arn=f"arn:{cve}", cell=CELL, resource=f"{function_arn(name)}:$LATEST", resource_type=functions.LAMBDA_FUNCTION,
        vulnerability=cve, title=cve, severity=Severity.HIGH, fix="YES", first_seen=NOW, updated=NOW,
        packages=(VulnerablePackage(name="urllib3", version="1.26", manager="PYTHON", fixed_in="2.5", path=path),),
    )  # fmt: skip


def test_findings_are_the_runtimes_or_the_codes_with_an_owner():
    """A layer is code; what AWS brings is not."""
    found = [
        a_finding("CVE-2026-1", "/var/runtime/urllib3/METADATA"), a_finding("CVE-2026-2", "/var/task/urllib3/METADATA"),
        a_finding("CVE-2026-3", "/opt/python/urllib3/METADATA"), a_finding("CVE-2026-4", "", name="other"),
    ]  # fmt: skip
    (one,) = functions.planned([a_function()], Functions(), found, deadlines={"CVE-2026-3": later(9)}, now=NOW)
    assert (one.by_runtime, one.by_code) == (("CVE-2026-1",), ("CVE-2026-2", "CVE-2026-3"))
    assert one.deadline == later(9)
    assert "its owner is shop" in one.notes[0]


@pytest.mark.parametrize(
    ("facts", "rule", "why"),
    [
        ({"image": True, "runtime": ""}, Functions(), "container image"),
        ({"runtime": "python3.9"}, Functions(), "deprecated"),
        ({"mode": "Manual", "pinned": "runtime:1"}, Functions(), "pinned to runtime:1"),
        ({"mode": "Manual", "pinned": "runtime:1"}, Functions(update_on=Wanted.AUTO), ""),
        ({}, Functions(), ""),
    ],
)  # fmt: skip
def test_a_function_that_no_update_helps_is_left_alone_with_the_reason(facts, rule, why):
    """Only a policy that manages modes takes one off its pin."""
    (one,) = functions.planned([a_function(**facts)], rule, [], deadlines={}, now=NOW)
    assert why in one.why_not
    assert bool(one.why_not) is bool(why)
    assert one.changes is not bool(why)


def test_every_deprecation_has_a_date():
    """The data file is read by YAML, which makes dates of them."""
    assert all(isinstance(one, date) for one in functions.deprecations().values())
    assert functions.deprecations()["python3.9"] == date(2025, 12, 15)


# --- in the plan --------------------------------------------------------------------------------------------------------


def test_a_plan_without_managed_services_keeps_its_digest_and_one_with_them_comes_back():
    """What no stage names stands nowhere in the JSON."""
    plan = builders.a_plan([builders.a_host()])
    assert "managed" not in plans.to_json(plan)["stages"][0]
    (stage, *_) = plan.stages
    its = a_plan([a_database()], [a_function()])
    managed = replace(plan, stages=(replace(stage, managed=its), *plan.stages[1:]))
    assert plans.from_json(plans.to_json(managed)) == managed
    text = plans.markdown(managed)
    assert "| RDS | orders | postgres 16.3 | 16.3 to 16.4 |" in text
    assert "| Lambda | checkout | python3.13 | newest version of its runtime |" in text


def test_a_stage_that_does_not_name_a_service_lists_what_would_be_done():
    """Nothing of it is settled, for nothing of it is begun."""
    its = replace(a_plan([a_database()]), services=())
    assert managed_services.rows(its, now=NOW) == {}
    assert managed_services.table(its)[0][3] == "not by this run: 16.3 to 16.4"


# --- the rollout --------------------------------------------------------------------------------------------------------


def a_chain() -> list[databases.Database]:
    """A source with a replica that has a replica, and a cluster of three."""
    cluster = {"engine": "aurora-postgresql", "pending": (pending(),)}
    targets = (Target(version="16.4", automatic=True, major=False),)
    return [
        a_database("orders", replicas=("near",)),
        a_database("near", source="orders", replicas=("far",)),
        a_database("far", source=arn_of("near")),
        a_database("ledger", kind=Kind.CLUSTER, engine="aurora-postgresql", automatic=None, targets=targets),
        *(a_database(f"ledger-{n}", cluster="ledger", writer=n == 1, **cluster) for n in (1, 2, 3)),
    ]  # fmt: skip


def test_replicas_go_before_their_source_and_readers_before_the_writer():
    """And each unit has its snapshot before anything of it is changed."""
    world = World(a_chain())
    done, rows = to_the_end(a_plan(a_chain()), world)
    assert done == Done(classes={"patched": 7})
    changed = [name for _, what, name in world.begun if what != "snapshot"]
    assert changed.index("far") < changed.index("near") < changed.index("orders")
    assert changed.index("ledger-2") < changed.index("ledger-1") < changed.index("ledger")
    assert changed.index("ledger-3") < changed.index("ledger-1")
    assert [name for _, what, name in world.begun if what == "snapshot"] == ["ledger", "orders"]
    assert {row.after for row in rows.values() if row.name in {"orders", "near", "far", "ledger"}} == {"16.4"}


def test_nothing_is_changed_before_its_snapshot_is_available():
    """Begun is not there."""
    world = World([a_database()])
    to_the_end(a_plan([a_database()]), world)
    (took, _), (changed, _) = [(at, what) for at, what, _ in world.begun]
    assert changed >= took + timedelta(minutes=1)
    assert changed >= next(iter(world.snapshots.values()))[0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), places=st.integers(1, 3), lossy=st.sampled_from([0.0, 0.3]), forget=st.sampled_from([0.0, 0.3])
)
def test_kills_and_lost_requests_change_nothing_twice_at_once_and_everything_is_settled(seed, places, lossy, forget):
    """The world refuses a change of what is not available; each change happens at most once, and each row ends."""
    its = [a_function(f"fn-{n}") for n in range(3)]
    world = World(a_chain(), its, seed=seed)
    world.lossy = lossy
    end, rows = to_the_end(a_plan(a_chain(), its, places=places), world, failures=100, forget=forget)
    assert isinstance(end, Done)
    assert settling.settled(rows)
    done = [(what, name) for _, what, name in world.begun if not what.startswith(("mode", "update"))]
    assert len(done) == len(set(done))
    for arn, row in rows.items():
        if row.service is Service.RDS and row.state is State.PATCHED:
            assert world.databases[arn].status == "available"
            assert not world.databases[arn].pending


def test_a_reader_that_fails_stops_its_writer_and_the_stage():
    """The writer keeps what it has, and with an error budget of none nothing more is begun."""
    world = World(a_chain())
    world.broken = {"ledger-2"}
    end, _ = to_the_end(a_plan(a_chain()), world)
    assert isinstance(end, Halt)
    assert "incompatible-parameters" in end.reason
    assert "ledger-1" not in {name for _, _, name in world.begun}


def test_a_failed_unit_keeps_its_place_and_the_others_are_settled():
    """With a budget for it and one place there is nobody who could go on; that is said, and nothing waits for ever."""
    world = World(a_chain())
    world.broken = {"ledger-2"}
    end, rows = to_the_end(a_plan(a_chain()), world, failures=1)
    assert isinstance(end, Done)
    assert rows[arn_of("ledger-1")].state is State.STOPPED
    assert "ledger-2" in rows[arn_of("ledger-1")].reason
    assert rows[arn_of("orders")].state is State.STOPPED


def test_a_database_stuck_in_modifying_fails_with_that_word():
    """After the policy's time-out, not never."""
    world = World([a_database()])
    world.stuck = {"orders"}
    end, rows = to_the_end(a_plan([a_database()]), world)
    assert isinstance(end, Halt)
    assert "still upgrading after 3:00:00" in rows[arn_of("orders")].reason


def test_what_nobody_looked_at_for_a_day_goes_on_with_its_next_step():
    """The time-out is for what AWS was asked; a step that was never asked for is no failure of the database or the function."""
    its, functions_ = [a_database(pending=(pending(),))], [a_function()]
    world = World(its, functions_)
    end, rows = to_the_end(a_plan(its, functions_), world, every=timedelta(days=1))
    assert isinstance(end, Done)
    assert {row.state for row in rows.values()} == {State.PATCHED}
    assert [what for _, what, name in world.begun if name == "orders"] == ["snapshot", "maintenance system-update", "upgrade"]


def test_what_somebody_else_changes_is_waited_for_and_then_left_alone():
    """RDS refuses two changes at once; that is no failure of ours, and it counts all the same."""
    end, rows = to_the_end(a_plan([a_database()]), World([a_database(status="backing-up")]))
    assert rows[arn_of("orders")].state is State.UNREACHABLE
    assert "not by us" in rows[arn_of("orders")].reason
    assert isinstance(end, Halt)


def test_nothing_is_begun_that_would_not_be_over_before_the_window_closes():
    """A database takes 45 minutes by the policy's default, a function five."""
    world = World([a_database()], [a_function()])
    span = (NOW, NOW + timedelta(minutes=30))
    _, rows = to_the_end(a_plan([a_database()], [a_function()]), world, span=span)
    assert rows[arn_of("orders")].state is State.OUT_OF_WINDOW
    assert rows[function_arn("checkout")].state is State.PATCHED
    assert {name for _, _, name in world.begun} == {"checkout"}


def test_a_function_is_proven_by_another_runtime_version_and_rolled_back_when_its_update_fails():
    """Pinned to the version before; it counts as failed."""
    world = World([], [a_function("good"), a_function("bad")])
    world.broken = {"bad"}
    _, rows = to_the_end(a_plan([], [a_function("good"), a_function("bad")], places=2), world, failures=1)
    good, bad = rows[function_arn("good")], rows[function_arn("bad")]
    assert (good.state, good.before, good.after) == (State.PATCHED, "runtime:1", "runtime:2")
    assert bad.state is State.FAILED
    assert "pinned to the runtime version before" in bad.reason
    assert (world.functions[bad.id].mode, world.functions[bad.id].version) == ("Manual", "runtime:1")


def test_a_function_that_has_the_newest_version_is_compliant_already():
    """Lambda was asked, by an update; nothing came of it."""
    now_newest = a_function(version="runtime:2")
    _, rows = to_the_end(a_plan([], [now_newest]), World([], [now_newest]))
    assert rows[now_newest.arn].state is State.ALREADY_COMPLIANT


def test_the_mode_is_set_before_the_update():
    """A pinned function would stay where it is."""
    rules = Rules(functions=Functions(update_on=Wanted.AUTO))
    pinned = a_function(mode="Manual", pinned="runtime:1")
    world = World([], [pinned])
    _, rows = to_the_end(a_plan([], [pinned], rules=rules), world, rules=rules)
    assert [what for _, what, _ in world.begun] == ["mode Auto", "update"]
    assert rows[pinned.arn].state is State.PATCHED


def test_a_stop_says_what_goes_on():
    """Neither service takes back what it has begun."""
    plan = a_plan([a_database(), a_database("stock")])
    rows = managed_services.rows(plan, now=NOW)
    going = rows[arn_of("orders")].to(State.CHANGING, "", at=NOW).intending("upgrade to 16.4", at=NOW)
    idle = rows[arn_of("stock")].to(State.SAVING, "", at=NOW)
    back, told = managed_services.stopped({going.id: going, idle.id: idle}, now=NOW)
    assert [(row.id, row.state) for row in back] == [(idle.id, State.PLANNED)]
    assert "orders (upgrade to 16.4)" in told
    assert "cannot be stopped" in told


def test_later_moments_of_a_story_are_in_order():
    """The builders' world never goes back in time."""
    world = World(a_chain())
    to_the_end(a_plan(a_chain(), places=2), world)
    assert all(one[0] <= other[0] for one, other in pairwise(world.begun))


# --- the report ---------------------------------------------------------------------------------------------------------


def a_report(plan: managed_services.ManagedPlan, rows: object, *, open_: list[str], closed: list[str]) -> report.Report:
    """Of a run with one host and this plan in its stage, after a second look at Inspector."""
    base = builders.a_plan([builders.a_host()])
    stages = tuple(replace(stage, managed=plan if stage.name == "prod" else None) for stage in base.stages)
    triage = {
        "assessments": [
            {
                **an_assessment(number, 1),
                "finding": f"arn:{cve}", "host": None, "resource": f"{function_arn('checkout')}:$LATEST", "vulnerability": cve,
            }
            for number, cve in enumerate((*open_, *closed))
        ]
    }  # fmt: skip
    after = {"at": NOW.isoformat(), "open": [f"arn:{cve}" for cve in open_], "closed": [f"arn:{cve}" for cve in closed]}
    documents = {
        "plan": plans.to_json(replace(base, stages=stages)), managed_services.document("prod"): rows, "triage": triage,
        "findings.after": after,
    }  # fmt: skip
    return report.build(a_run(), (), (), (), (), (), {}, (), documents, now=NOW)


def test_the_report_says_of_each_what_it_has_now_and_what_is_gone_where():
    """A database's CVE is closed by its version, a function's by Inspector's word, and the code's is its owner's."""
    rules = Rules.model_validate({"databases": Databases(fixes=(FIX,))})
    its = a_plan([a_database()], [a_function()], rules=rules)
    code = replace(its.functions[0], by_code=("CVE-2026-2",), by_runtime=("CVE-2026-1",), owner="shop")
    its = replace(its, functions=(code,))
    _, rows = to_the_end(its, World([a_database()], [a_function()]), rules=rules)
    made = a_report(its, settling.to_json(rows.values()), open_=["CVE-2026-2"], closed=["CVE-2026-1"])
    database, function = made.managed
    assert (database.klass, database.before, database.after) == ("patched", "16.3", "16.6")
    assert (database.closed, database.open) == (("CVE-2026-1111",), ())
    assert (function.klass, function.closed, function.open, function.owner) == (
        "patched", ("CVE-2026-1",), ("CVE-2026-2",), "shop",
    )  # fmt: skip
    assert "of 2 databases and functions: 2 patched" in made.headline
    assert "<h2>Databases and functions</h2>" in report.to_html(made)


def test_what_was_never_begun_or_only_listed_is_not_called_patched():
    """Without rows in the ledger nobody has done anything; nothing of it is closed."""
    rules = Rules.model_validate({"databases": Databases(fixes=(FIX,))})
    its = a_plan([a_database()], rules=rules)
    (line,) = a_report(its, None, open_=[], closed=[]).managed
    assert (line.klass, line.closed, line.open) == ("not_started", (), ("CVE-2026-1111",))
    (line,) = a_report(replace(its, services=()), None, open_=[], closed=[]).managed
    assert line.klass == "listed"
