"""The decision tables: each row is its source's, each combination has one row, and worse facts never give more time."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import tables
from patchwave.campaign.deadlines import TABLES
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.tables import Table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "include" / "policies" / "tables"
SOURCES = ROOT.parent / "shared" / "data" / "policy-tables"
SHIPPED = {path.stem: tables.read(path) for path in sorted(FOLDER.glob("*.yaml"))}

BOD, SSVC, FEDRAMP = SHIPPED["bod-26-04"], SHIPPED["ssvc-deployer"], SHIPPED["fedramp-vdr"]


def of_source(name: str) -> list[dict[str, str]]:
    """The rows of a published file; skips where it is absent."""
    file = SOURCES / name
    if not file.is_file():
        pytest.skip(f"the published table {name} is not on this machine")
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


# --- Row by row -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(16))
def test_each_row_of_bod_26_04_is_that_of_cisas_table(number: int):
    """Source: cisa_bod_26_04_1_0_0.csv, the row of that number; its last column is the outcome, and the days in it the time."""
    (source,) = [row for row in of_source("cisa_bod_26_04_1_0_0.csv") if row["row"] == str(number)]
    _, kev, exposed, automatable, impact, outcome = source.values()
    row = BOD.match({"known_exploited": kev, "publicly_exposed": exposed, "automatable": automatable, "technical_impact": impact})
    assert (row.row, row.outcome) == (str(number), outcome)
    days = int(outcome.split()[0]) if outcome[0].isdigit() else None
    assert BOD.time_of(row) == (None if days is None else timedelta(days=days))


@pytest.mark.parametrize("number", range(72))
def test_each_row_of_the_ssvc_deployer_table_is_that_of_cert_cc(number: int):
    """Source: ssvc_deployer_1_0_0.csv, the row of that number; SSVC names no days, so the table must not either."""
    (source,) = [row for row in of_source("ssvc_deployer_1_0_0.csv") if row["row"] == str(number)]
    _, exploitation, exposure, automatable, impact, outcome = source.values()
    row = SSVC.match(
        {"exploitation": exploitation, "system_exposure": exposure, "automatable": automatable, "human_impact": impact}
    )
    assert (row.row, row.outcome, SSVC.time_of(row)) == (str(number), outcome, None)


@pytest.mark.parametrize("level", ["low", "moderate", "high"])
@pytest.mark.parametrize("pain", ["2", "3", "4", "5"])
@pytest.mark.parametrize(("column", "likely", "reachable", "suffix"), [
    ("max_days_irv_lev", "yes", ["yes"], "LEV IRV"), ("max_days_nirv_lev", "yes", ["no"], "LEV NIRV"),
    ("max_days_nlev", "no", ["yes", "no"], "NLEV"),
])  # fmt: skip
def test_each_time_of_fedramp_is_that_of_vdr_tfr_pvr(
    level: str, pain: str, column: str, likely: str, reachable: list[str], suffix: str
):
    """Source: fedramp_vdr_timeframes.csv, the line of that impact level and pain; what is unlikely has one time for both."""
    (source,) = [row for row in of_source("fedramp_vdr_timeframes.csv") if (row["impact_level"], row["pain"]) == (level, pain)]
    for reached in reachable:
        row = FEDRAMP.match({
            "impact_level": level, "potential_adverse_impact": pain, "likely_exploitable": likely, "internet_reachable": reached,
        })  # fmt: skip
        assert row.row == f"{level} N{pain} {suffix}"
        assert FEDRAMP.time_of(row) == timedelta(days=float(source[column]))


@pytest.mark.parametrize(("table", "file", "rows"), [
    (BOD, "cisa_bod_26_04_1_0_0.csv", 16), (SSVC, "ssvc_deployer_1_0_0.csv", 72), (FEDRAMP, "fedramp_vdr_timeframes.csv", 12),
])  # fmt: skip
def test_no_row_of_a_source_is_missing_and_none_was_added(table: Table, file: str, rows: int):
    """FedRAMP's file has three times a line, so three rows of ours."""
    assert len(of_source(file)) == rows
    assert len(table.rows) == (rows * 3 if table is FEDRAMP else rows)


# --- What holds of every table ----------------------------------------------------------------------------------------------


def combinations(table: Table) -> Iterator[dict[str, str]]:
    for answers in product(*table.columns.values()):
        yield dict(zip(table.columns, answers, strict=True))


@pytest.mark.parametrize("table", SHIPPED.values(), ids=SHIPPED)
def test_every_combination_of_answers_has_a_row(table: Table):
    """Nothing falls through: a finding without a row would have no deadline."""
    met = {table.match(answers).row for answers in combinations(table)}
    assert met == {row.row for row in table.rows}
    assert len(met) == len(table.rows), "a row's name names one row"


@pytest.mark.parametrize("table", SHIPPED.values(), ids=SHIPPED)
def test_every_table_names_its_source_and_can_be_chosen(table: Table):
    """An auditor looks it up; a table that no policy can name is dead."""
    assert table.source
    assert TABLES[table.name].COLUMNS.keys() == table.columns.keys()


ORDERS = {name: {outcome: rank for rank, outcome in enumerate(table.outcomes)} for name, table in SHIPPED.items()}


@pytest.mark.parametrize("table", SHIPPED.values(), ids=SHIPPED)
@given(data=st.data())
def test_a_worse_answer_never_gives_more_time(table: Table, data: st.DataObject):
    """One column one step worse, all others the same: the outcome is as urgent or more so."""
    answers = data.draw(st.fixed_dictionaries({name: st.sampled_from(its) for name, its in table.columns.items()}))
    column = data.draw(st.sampled_from(sorted(table.columns)))
    ladder = table.columns[column]
    for worse in ladder[ladder.index(answers[column]) :]:
        now, then = table.match(answers), table.match({**answers, column: worse})
        sooner, later = table.time_of(then), table.time_of(now)
        assert later is None or (sooner is not None and sooner <= later)
        if later == sooner is None:
            assert ORDERS[table.name][then.outcome] >= ORDERS[table.name][now.outcome]


@pytest.mark.parametrize("table", SHIPPED.values(), ids=SHIPPED)
def test_a_table_is_stored_and_read_back_as_it_was(table: Table):
    """A run works from the copy."""
    assert Table.from_json(table.to_json()) == table


def test_the_schema_of_tables_for_editors_is_that_of_the_model():
    """Made, not written: on a difference run `make docs`."""
    assert (ROOT / "docs" / "table.schema.json").read_text(encoding="utf-8") == tables.schema_text()


# --- Files of one's own -----------------------------------------------------------------------------------------------------

OWN = (FOLDER / "bod-26-04.yaml").read_text(encoding="utf-8")

REFUSED = [
    pytest.param("  - {row: 3, ", "  #", "rows", "no row meets known_exploited no, publicly_exposed no, automatable yes",
                 id="row missing"),
    pytest.param("  - {row: 3, when: {known_exploited: no", "  - {row: 3, when: {known_exploited: yes", "rows[6]",
                 "meets known_exploited yes, publicly_exposed no, automatable yes, technical_impact partial, as row 3 does",
                 id="two rows"),
    pytest.param("row: 5, when: {known_exploited: yes", "row: 5, when: {known_exploited: perhaps",
                 "rows[5].when.known_exploited", "allowed are the answers of its column: no, yes", id="answer"),
    pytest.param("row: 5, when: {known_exploited", "row: 5, when: {exploited", "rows[5].when.exploited",
                 "is no column; allowed are known_exploited", id="column"),
    pytest.param("outcome: 60 days}", "outcome: 61 days}", "rows[2].outcome", "allowed are 'fix on system upgrade', '60 days'",
                 id="outcome"),
    pytest.param("  60 days: 60d", "  60 days: 60", "outcomes.60 days", "a duration needs a unit", id="no unit"),
    pytest.param("[partial, total]", "[partial, partial]", "columns.technical_impact", "each once", id="answer twice"),
    pytest.param("[partial, total]", "[]", "columns.technical_impact", "each once", id="no answer"),
    pytest.param("title: CISA BOD 26-04\n", "", "title", "is missing", id="no title"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "field", "message"), REFUSED)
def test_a_broken_table_is_refused_with_the_field_and_what_is_allowed(old: str, new: str, field: str, message: str):
    """Half a table would leave findings without a deadline."""
    assert old in OWN
    with pytest.raises(InvalidFile) as refused:
        tables.parse(OWN.replace(old, new, 1), file="bod-26-04.yaml")
    assert any(f": {field}: " in one and message in one for one in refused.value.problems), refused.value.problems


def test_a_table_is_named_like_its_file(tmp_path: Path):
    """Else a policy would name one and get another."""
    file = tmp_path / "other.yaml"
    file.write_text(OWN, encoding="utf-8")
    with pytest.raises(InvalidFile, match=r"other.yaml:2: name: found 'bod-26-04'; allowed is the name of the file, 'other'"):
        tables.read(file)


def test_a_table_of_ones_own_comes_before_the_shipped_one(tmp_path: Path):
    """An agency that is stricter writes its own rows beside its policies."""
    (tmp_path / "bod-26-04.yaml").write_text(OWN.replace("14 days: 14d", "14 days: 7d"), encoding="utf-8")
    assert tables.find("bod-26-04", folder=tmp_path).outcomes["14 days"] == timedelta(days=7)
    assert tables.find("bod-26-04", folder=tmp_path / "none").outcomes["14 days"] == timedelta(days=14)
