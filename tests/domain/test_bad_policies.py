"""Malformed policies and catalogues, made from the schemas and by hand: always file, line, field and what is allowed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from patchwave.campaign import catalogues, policy, tables
from patchwave.campaign.errors import InvalidFile
from tests.domain.test_baselines import SECTION
from tests.domain.test_catalogues import a_file, an_entry
from tests.domain.test_deadlines import DEPLOYER, FEDRAMP, TEXT

POLICIES = Path(__file__).parents[2] / "include" / "policies"
SHIPPED = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(POLICIES.glob("*.yaml"))}
GOOD_POLICIES = [
    *SHIPPED.values(), {**TEXT, "deadlines": FEDRAMP}, {**TEXT, "deadlines": DEPLOYER},
    {**SHIPPED["standard"], **yaml.safe_load(SECTION.replace("2026-12-31", "'2026-12-31'"))},
]  # fmt: skip
GOOD_TABLES = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((POLICIES / "tables").glob("*.yaml"))]
OF_POLICIES = Draft202012Validator(json.loads(policy.schema_text()))
OF_TABLES = Draft202012Validator(json.loads(tables.schema_text()))

PROBLEM = re.compile(r"(?s)(?P<file>[^:]+):(?P<line>[0-9]+): (?P<field>\S.*?): (?P<says>.+)")
SAYS_WHAT = re.compile(r"allowed|it must be given|no valid JSON|put it in quotes")

ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**6), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8),
    st.sampled_from(["", "\x00", "yes", "-1d", "0d", "999d", "..", "../x", "file:///etc/passwd", "{{ x }}", "CVE-1"]),
    st.just([]), st.just({}), st.just([[]]), st.just({"x": {"y": 1}}), st.just([None]),
)  # fmt: skip


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every value inside."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inside:
        yield (*at, key)
        yield from places(value, (*at, key))


def spoiled(draw: st.DrawFn, good: Any) -> Any:
    """A copy with one thing wrong, or perhaps wrong: lost, called otherwise, of another kind, or too much."""
    made = copy.deepcopy(good)
    *way, last = draw(st.sampled_from(list(places(good))))
    holder = made
    for step in way:
        holder = holder[step]
    what = draw(st.sampled_from(["lose", "rename", "replace", "replace", "add"]))
    if what == "lose":
        del holder[last]
    elif what == "rename" and isinstance(holder, dict):
        holder[draw(st.text(min_size=1, max_size=6))] = holder.pop(last)
    elif what == "add" and isinstance(holder, dict):
        holder[draw(st.sampled_from(["x", "Critical", "if-unknown", ""]))] = draw(ODD)
    else:
        holder[last] = draw(ODD)
    return made


@st.composite
def malformed(draw: st.DrawFn, kind: str) -> str:
    """The YAML text of a file that the schema for editors refuses."""
    goods, schema = (GOOD_POLICIES, OF_POLICIES) if kind == "policy" else (GOOD_TABLES, OF_TABLES)
    made = spoiled(draw, draw(st.sampled_from(goods)))
    assume(not schema.is_valid(made))
    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True)


@st.composite
def perhaps_malformed(draw: st.DrawFn) -> str:
    """Whatever it is: what is wrong may be beyond a schema, such as two fields that do not fit."""
    return yaml.safe_dump(spoiled(draw, draw(st.sampled_from(GOOD_POLICIES))), sort_keys=False, allow_unicode=True)


def assert_told(error: InvalidFile, text: str, file: str) -> None:
    """Each problem with the file, a line that it has, a field, and what may be there."""
    assert error.problems
    for one in error.problems:
        if one.startswith("and ") and one.endswith("more problems of this file"):
            continue
        told = PROBLEM.fullmatch(one)
        assert told, one
        assert told["file"] == file
        assert 1 <= int(told["line"]) <= text.count("\n") + 1
        assert SAYS_WHAT.search(told["says"]), one


def refusal(read: Callable[[], Any], text: str, file: str) -> tuple[str, ...]:
    """The problems with which a text is refused, each told as it should be."""
    with pytest.raises(InvalidFile) as refused:
        read()
    assert_told(refused.value, text, file)
    return refused.value.problems


quick = settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])


@settings(quick, max_examples=80)
@given(text=malformed("policy"))
def test_what_the_schema_of_policies_refuses_is_refused_with_line_field_and_what_is_allowed(text: str):
    """80 files that an editor would underline: never a policy, never a traceback."""
    assert refusal(lambda: policy.parse(text, file="mine.yaml"), text, "mine.yaml")


@settings(quick, max_examples=60)
@given(text=perhaps_malformed())
def test_a_policy_with_one_thing_changed_is_read_or_refused_with_a_sentence(text: str):
    """Nothing in between: no traceback, no half policy."""
    try:
        read = policy.parse(text, file="mine.yaml")
    except InvalidFile as refused:
        assert_told(refused, text, "mine.yaml")
    else:
        assert policy.Policy.from_json(read.to_json()) == read


@settings(quick, max_examples=40)
@given(text=malformed("table"))
def test_what_the_schema_of_tables_refuses_is_refused_with_line_field_and_what_is_allowed(text: str):
    """40 files: a table that is not understood decides nothing."""
    assert refusal(lambda: tables.parse(text, file="mine.yaml"), text, "mine.yaml")


KEV = json.loads(a_file(an_entry(), an_entry("CVE-2025-12345")))
FIELDS = ["catalogVersion", "dateReleased", "count", "vulnerabilities"]
ENTRY = ["cveID", "vendorProject", "product", "vulnerabilityName", "dateAdded", "dueDate"]


@settings(quick, max_examples=60)
@given(data=st.data())
def test_a_catalogue_without_one_of_cisas_fields_or_with_another_kind_of_value_is_refused(data: st.DataObject):
    """60 files: each field that CISA's schema demands and that anything depends on."""
    made = copy.deepcopy(KEV)
    number = data.draw(st.sampled_from([None, 0, 1]))
    holder = made if number is None else made["vulnerabilities"][number]
    field = data.draw(st.sampled_from(FIELDS if number is None else ENTRY))
    if data.draw(st.booleans()):
        del holder[field]
    else:
        kinds: dict[str, Any] = {"vulnerabilities": st.sampled_from([None, 5, "x", {}, [], [5], [{}]])}
        odd = kinds.get(field, st.sampled_from([None, 5.5, True, [], {}, ["2026.06.12"]]))
        holder[field] = data.draw(odd)
    text = json.dumps(made, indent=2)
    problems = refusal(
        lambda: catalogues.catalogue(text, file="kev.json", read_at=datetime(2026, 6, 13, tzinfo=UTC)), text, "kev.json"
    )
    assert any(field in one for one in problems)


@settings(quick, max_examples=60)
@given(text=st.one_of(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)
                      | st.dictionaries(st.sampled_from([*FIELDS, *ENTRY, "x"]), inner)).map(json.dumps)))  # fmt: skip
def test_whatever_is_sent_in_place_of_a_catalogue_is_refused_with_a_sentence(text: str):
    """A proxy's page, another JSON, nothing at all."""
    for read in (
        lambda: catalogues.catalogue(text, file="x", read_at=datetime(2026, 6, 13, tzinfo=UTC)),
        lambda: catalogues.epss(text, file="x"),
    ):
        assert refusal(read, text.replace("\r", "\n") + "\n", "x")


# --- By hand ----------------------------------------------------------------------------------------------------------------

BOD = (POLICIES / "bod-26-04.yaml").read_text(encoding="utf-8")

BY_HAND = [
    pytest.param("table: bod-26-04", "table: bod-26-4", "deadlines.table",
                 "found 'bod-26-4'; allowed are bod-26-04, fedramp-vdr, ssvc-deployer, or no table and days by severity",
                 id="no such table"),
    pytest.param("table: bod-26-04", "table: [bod-26-04]", "deadlines.table", "found a list; allowed are bod-26-04",
                 id="a list of tables"),
    pytest.param("  table: bod-26-04\n", "", "deadlines.critical", "is missing; it must be given (Days for critical findings",
                 id="inputs without a table"),
    pytest.param("  table: bod-26-04\n", "  table: bod-26-04\n  critical: 3\n", "deadlines.critical",
                 "is no known field; allowed here are automatable, fix_on_system_upgrade, known_exploited", id="both"),
    pytest.param("  table: bod-26-04\n", "  table: bod-26-04\n  decision_table: {}\n", "deadlines.decision_table",
                 "allowed is only `table`, the name of a table", id="rows of one's own"),
    pytest.param("catalogue: https:", "catalogue: http:", "deadlines.known_exploited.catalogue",
                 "allowed is an address that begins with https://, or a path", id="without TLS"),
    pytest.param("catalogue: https://www.cisa.gov/", "catalogue: ../../", "deadlines.known_exploited.catalogue",
                 "allowed is a path without '..'", id="out of the folder"),
    pytest.param("catalogue: https:", "catalogue: file:", "deadlines.known_exploited.catalogue", "begins with https://",
                 id="another scheme"),
    pytest.param("oldest: 7d", "oldest: 7", "deadlines.known_exploited.oldest", "a duration needs a unit", id="no unit"),
    pytest.param("oldest: 7d", "oldest: 0d", "deadlines.known_exploited.oldest", "allowed is more than zero", id="no age"),
    pytest.param("    if_unknown: no", "    # if_unknown", "deadlines.known_exploited.if_unknown", "is missing",
                 id="nobody says"),
    pytest.param("    if_unknown: no", "    if_unknown: perhaps", "deadlines.known_exploited.if_unknown",
                 "found 'perhaps'; allowed is 'yes' or 'no'", id="perhaps"),
    pytest.param("signs: [public_address,", "signs: [public_ip,", "deadlines.publicly_exposed.signs[0]",
                 "found 'public_ip'; allowed is 'public_address' or 'internet_facing_load_balancer'", id="no such sign"),
    pytest.param("signs: [public_address, internet_facing_load_balancer]\n    tags: {Exposure: [internet]}", "signs: []",
                 "deadlines.publicly_exposed.signs", "allowed is at least one sign or tag", id="nobody is ever exposed"),
    pytest.param("{Exposure: [internet]}", "{Exposure: []}", "deadlines.publicly_exposed.tags.Exposure",
                 "allowed is a list with at least one entry", id="a tag without values"),
    pytest.param("if_unknown: total", "if_unknown: full", "deadlines.technical_impact.if_unknown",
                 "found 'full'; allowed is 'partial' or 'total'", id="no such impact"),
    pytest.param("fix_on_system_upgrade: 180", "fix_on_system_upgrade: 180d", "deadlines.fix_on_system_upgrade",
                 "allowed is a whole number of days from 0 to 3650, or null for no deadline", id="days with a unit"),
    pytest.param("due_within: 14d", "due_within: 14", "matrix[2].due_within", "a duration needs a unit", id="condition"),
    pytest.param("  automatable:", "  automatic:", "deadlines.automatic", "did you mean 'automatable'?", id="another name"),
    pytest.param("deadlines:  #", "deadlines: 30  #\nx:  #", "deadlines", "found the number 30; allowed is a mapping of fields",
                 id="a number"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "field", "message"), BY_HAND)
def test_a_mistake_in_deadlines_by_table_is_refused_with_the_field_and_what_is_allowed(
    old: str, new: str, field: str, message: str
):
    """What people will get wrong, and the sentence from which they can mend it."""
    assert old in BOD
    text = BOD.replace(old, new, 1)
    problems = refusal(lambda: policy.parse(text, file="mine.yaml"), text, "mine.yaml")
    (told,) = [one for one in problems if PROBLEM.fullmatch(one)["field"] == field]  # type: ignore[index]
    assert message in told


def test_probabilities_and_adverse_impacts_are_bounded():
    """In the other two tables."""
    for deadlines, field, message in (
        ({**FEDRAMP, "likely_exploitable": {"epss": {"file": "e.csv", "at_least": 10}, "if_unknown": "no"}},
         "deadlines.likely_exploitable.epss.at_least", "found the number 10; allowed is a number above 0 and at most 1"),
        ({**FEDRAMP, "impact_level": "medium"}, "deadlines.impact_level", "allowed is 'low', 'moderate' or 'high'"),
        ({**DEPLOYER, "days": {"immediate": 8, "out_of_cycle": 7, "scheduled": 30, "defer": None}}, "deadlines.days.immediate",
         "is later than out_of_cycle (7 days); allowed is at most that"),
        ({**DEPLOYER, "human_impact": {"if_unknown": "extreme"}}, "deadlines.human_impact.if_unknown", "'very high'"),
    ):  # fmt: skip
        text = yaml.safe_dump({**TEXT, "deadlines": deadlines})
        with pytest.raises(InvalidFile) as refused:
            policy.parse(text, file="mine.yaml")
        (told,) = refused.value.problems
        assert f": {field}: " in told
        assert message in told


def test_a_broken_table_beside_the_policies_is_named_with_its_own_file(tmp_path: Path):
    """The policy is right; the table that it names is not."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "bod-26-04.yaml").write_text(BOD, encoding="utf-8")
    table = (POLICIES / "tables" / "bod-26-04.yaml").read_text(encoding="utf-8")
    broken = table.replace("outcome: 60 days}", "outcome: 61 days}", 1)
    (tmp_path / "tables" / "bod-26-04.yaml").write_text(broken, encoding="utf-8")
    with pytest.raises(InvalidFile, match=r"tables/bod-26-04.yaml:\d+: rows\[2\].outcome: found '61 days'"):
        policy.read(tmp_path / "bod-26-04.yaml")


def test_a_table_with_other_columns_does_not_fit(tmp_path: Path):
    """A table of one's own has the columns for which there are inputs."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "bod-26-04.yaml").write_text(BOD, encoding="utf-8")
    other = (POLICIES / "tables" / "bod-26-04.yaml").read_text(encoding="utf-8").replace("technical_impact", "impact")
    (tmp_path / "tables" / "bod-26-04.yaml").write_text(other, encoding="utf-8")
    with pytest.raises(InvalidFile, match=r"columns: found known_exploited, .*, impact; allowed are known_exploited, "):
        policy.read(tmp_path / "bod-26-04.yaml")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_policy_is_what_its_schema_says(name: str):
    """An editor underlines nothing in what we ship, and it is read."""
    assert list(OF_POLICIES.iter_errors(SHIPPED[name])) == []
    assert policy.read(POLICIES / f"{name}.yaml").name == name
