"""CISA's catalogue, SSVC answers and EPSS: what is read, and that nothing half or foreign is."""

from __future__ import annotations

import json
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from patchwave.campaign import catalogues
from patchwave.campaign.catalogues import MOST_PROBLEMS, Exploitation, Ssvc
from patchwave.campaign.errors import InvalidFile

NOW = datetime(2026, 6, 13, tzinfo=UTC)
KEV = Path(__file__).parents[3] / "shared" / "data" / "kev" / "known_exploited_vulnerabilities.2025-01-27.json"


def an_entry(cve: str = "CVE-2026-0001", **changes: Any) -> dict[str, Any]:
    values = {
        "cveID": cve, "vendorProject": "Example", "product": "Server", "vulnerabilityName": "Example Server Overflow",
        "dateAdded": "2026-06-10", "shortDescription": "An overflow.", "requiredAction": "Update.", "dueDate": "2026-07-01",
        "notes": "https:\\/\\/example.com", "cwes": ["CWE-787"],
    }  # fmt: skip
    return {**values, **changes}


def a_file(*entries: dict[str, Any], **changes: Any) -> str:
    values = {
        "title": "CISA Catalog of Known Exploited Vulnerabilities", "catalogVersion": "2026.06.12",
        "dateReleased": "2026-06-12T15:00:57.5282Z", "count": len(entries), "vulnerabilities": list(entries),
    }  # fmt: skip
    return json.dumps({**values, **changes}, indent=4)


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(InvalidFile) as refused:
        catalogues.catalogue(text, file="kev.json", read_at=NOW)
    return refused.value.problems


def test_a_catalogue_is_its_version_and_the_day_of_each_entry():
    """Everything else in it is for people."""
    read = catalogues.catalogue(a_file(an_entry(), an_entry("CVE-2025-1234")), file="kev.json", read_at=NOW)
    assert read.added == {"CVE-2026-0001": date(2026, 6, 10), "CVE-2025-1234": date(2026, 6, 10)}
    assert (read.version, read.released) == ("2026.06.12", datetime(2026, 6, 12, 15, 0, 57, 528200, tzinfo=UTC))
    assert str(read) == "CISA's catalogue 2026.06.12 (2 entries, read 2026-06-13 00:00 UTC)"


def test_cisas_own_catalogue_is_read_whole():
    """Source: CISA's catalogue of 24 January 2025, 1,252 entries."""
    if not KEV.is_file():
        pytest.skip("CISA's catalogue is not on this machine")
    read = catalogues.catalogue(KEV.read_text(encoding="utf-8"), file=KEV.name, read_at=NOW)
    assert (read.version, len(read.added)) == ("2025.01.24", 1252)
    assert read.added["CVE-2020-11023"] == date(2025, 1, 23)


WRONG: list[Any] = [
    pytest.param(a_file(an_entry(dateAdded="10.6.2026")), 12, "vulnerabilities[0].dateAdded",
                 "found '10.6.2026'; allowed is a day such as 2026-12-31", id="another day"),
    pytest.param(a_file(an_entry(), an_entry(dateAdded="2026-02-30")), 26, "vulnerabilities[1].dateAdded", "a day such as",
                 id="no day"),
    pytest.param(a_file(an_entry("CVE-26-1")), 8, "vulnerabilities[0].cveID", "allowed is a CVE id such as", id="no CVE"),
    pytest.param(a_file(an_entry(cveID=5)), 8, "vulnerabilities[0].cveID", "found the number 5; allowed is text", id="number"),
    pytest.param(a_file(an_entry(product=None)), 10, "vulnerabilities[0].product", "found nothing; allowed is text", id="null"),
    pytest.param(a_file(an_entry(), an_entry()), 22, "vulnerabilities[1].cveID",
                 "CVE-2026-0001 is there before, in vulnerabilities[0]; allowed is once", id="twice"),
    pytest.param(a_file(an_entry(), count=2), 5, "count", "says 2, and there are 1 entries; allowed is a whole catalogue",
                 id="cut off"),
    pytest.param(a_file(count="1"), 5, "count", "found '1'; allowed is a whole number", id="count"),
    pytest.param(a_file(), 6, "vulnerabilities", "is an empty list", id="empty"),
    pytest.param(a_file(an_entry(), vulnerabilities={}), 6, "vulnerabilities", "found a mapping; allowed is a list",
                 id="mapping"),
    pytest.param(a_file(an_entry(), dateReleased="yesterday"), 4, "dateReleased", "allowed is a moment with its zone",
                 id="moment"),
    pytest.param(a_file(an_entry(), dateReleased="2026-06-12T15:00:00"), 4, "dateReleased", "with its zone", id="no zone"),
    pytest.param(a_file(an_entry()).replace('"catalogVersion"', '"version"'), 1, "catalogVersion",
                 "is missing; it must be given (CISA's version of the catalogue)", id="no version"),
    pytest.param(a_file(an_entry())[:300], 10, "the file", "is no valid JSON", id="half"),
    pytest.param("<!doctype html>\n<title>Sign in</title>", 1, "the file", "is no valid JSON", id="a page"),
    pytest.param("", 1, "the file", "is no valid JSON", id="nothing"),
    pytest.param("[1]", 1, "the file", "found a list; allowed is a mapping of fields", id="a list"),
    pytest.param('"text"', 1, "the file", "found 'text'; allowed is a mapping or a list", id="a text"),
    pytest.param('{"count": NaN}', 1, "the file", "NaN is no number of JSON", id="NaN"),
    pytest.param("[" * 100_000, 1, "the file", "nested too deeply", id="deep"),
    pytest.param('{"count": ' + "9" * 5000 + "}", 1, "the file", "is no valid JSON", id="a long number"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "field", "message"), WRONG)
def test_a_wrong_catalogue_is_refused_with_line_field_and_what_is_allowed(text: str, line: int, field: str, message: str):
    """Half a catalogue would give the other half's findings more time than they have."""
    found = problems(text)
    assert any(one.startswith(f"kev.json:{line}: {field}: ") and message in one for one in found), found


def test_a_catalogue_that_is_wrong_all_over_is_not_told_a_thousand_times():
    """Twenty sentences, and how many more there are."""
    found = problems(a_file(*(an_entry(f"CVE-2026-{number}") for number in range(100, 600))))
    assert len(found) == MOST_PROBLEMS + 1
    assert found[-1] == "and 480 more problems of this file"


# --- SSVC -------------------------------------------------------------------------------------------------------------------


def a_record(cve: str = "CVE-2026-0001", *options: dict[str, Any], kind: str = "ssvc") -> dict[str, Any]:
    content = {
        "id": cve, "role": "CISA Coordinator", "version": "2.0.3", "timestamp": "2026-06-11T00:00:00Z",
        "options": list(options or ({"Exploitation": "poc"}, {"Automatable": "no"}, {"Technical Impact": "total"})),
    }  # fmt: skip
    metrics = [{"cvssV3_1": {"baseScore": 9.8}}, {"other": {"type": kind, "content": content}}]
    return {
        "dataType": "CVE_RECORD", "dataVersion": "5.1", "cveMetadata": {"cveId": cve, "state": "PUBLISHED"},
        "containers": {"cna": {"title": "x"}, "adp": [{"title": "CVE Program Container"}, {"metrics": metrics}]},
    }  # fmt: skip


ANSWERS = Ssvc(exploitation=Exploitation.PUBLIC_POC, automatable="no", technical_impact="total")


def test_a_record_gives_cisas_three_answers():
    """As Vulnrichment publishes them; CVE records write poc where SSVC says public poc."""
    assert catalogues.ssvc(json.dumps(a_record()), file="x.json") == {"CVE-2026-0001": ANSWERS}


def test_a_list_of_records_is_read_as_one():
    """For those who keep them in one file."""
    text = json.dumps([a_record(), a_record("CVE-2026-0002", {"Automatable": "Yes"})])
    assert catalogues.ssvc(text, file="x.json") == {"CVE-2026-0001": ANSWERS, "CVE-2026-0002": Ssvc(automatable="yes")}


@pytest.mark.parametrize("record", [
    {"cveMetadata": {"cveId": "CVE-2026-0001"}, "containers": {"cna": {}}}, a_record(kind="kev"),
])  # fmt: skip
def test_a_record_without_cisas_answers_says_nothing(record: dict[str, Any]):
    """Which is unknown, not no."""
    assert catalogues.ssvc(json.dumps(record), file="x.json") == {}


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"poc"', '"perhaps"', "x.json:33: containers.adp[1].metrics[1].other.content.options[0].Exploitation: found 'perhaps'; "
     "allowed are none, poc, public poc, active"),
    ('"total"', "true", "options[2].Technical Impact: found true; allowed are partial, total"),
    ('"options"', '"option"', "other.content.options: is missing; it must be given (SSVC's answers"),
    ('"cveMetadata"', '"metadata"', "x.json:1: cveMetadata: is missing; it must be given (the record's id)"),
    ('"cveId": "CVE-2026-0001"', '"cveId": "0001"', "cveMetadata.cveId: found '0001'; allowed is a CVE id"),
    ('"metrics": [', '"metrics": 5, "m": [', "containers.adp[1].metrics: found the number 5; allowed is a list"),
])  # fmt: skip
def test_a_wrong_record_is_refused_with_the_field(old: str, new: str, message: str):
    """An answer that nobody knows is not taken for the harmless one."""
    text = json.dumps(a_record(), indent=1)
    assert old in text
    with pytest.raises(InvalidFile) as refused:
        catalogues.ssvc(text.replace(old, new, 1), file="x.json")
    assert any(message in one for one in refused.value.problems), refused.value.problems


def test_a_wrong_record_of_a_list_is_named_by_its_place():
    """As the file has it."""
    text = json.dumps([a_record(), {}], indent=1)
    with pytest.raises(InvalidFile, match=r"x.json:\d+: \[1\].cveMetadata: is missing"):
        catalogues.ssvc(text, file="x.json")


@pytest.mark.parametrize(("cve", "path"), [
    ("CVE-2026-12345", "2026/12xxx/CVE-2026-12345.json"), ("CVE-2026-0012", "2026/0xxx/CVE-2026-0012.json"),
    ("CVE-2024-1234567", "2024/1234xxx/CVE-2024-1234567.json"),
])  # fmt: skip
def test_a_record_lies_where_vulnrichment_keeps_it(cve: str, path: str):
    """A copy of the repository has 100,000 files: they are not all opened."""
    assert catalogues.record_path(cve) == path


# --- EPSS -------------------------------------------------------------------------------------------------------------------

EPSS = "#model_version:v2025.03.14,score_date:2026-06-12T00:00:00+0000\ncve,epss,percentile\nCVE-2026-0001,0.00042,0.1\n" \
       "CVE-2026-0002,9e-05,0.01\nCVE-2026-0003,1,1.0\n"  # fmt: skip


def test_probabilities_are_read_as_first_publishes_them():
    """A comment, a header, and a line for each CVE id; only those that are asked for are kept."""
    assert catalogues.epss(EPSS, file="e.csv") == {"CVE-2026-0001": 0.00042, "CVE-2026-0002": 9e-05, "CVE-2026-0003": 1.0}
    assert catalogues.epss(EPSS, file="e.csv", wanted={"CVE-2026-0002"}) == {"CVE-2026-0002": 9e-05}


@pytest.mark.parametrize(("text", "message"), [
    ("", "e.csv:1: the file: is empty; allowed is CSV with the header cve,epss,percentile"),
    ("#only a comment\n", "is empty"),
    ("CVE-2026-0001,0.1,0.1\n", "e.csv:1: the header: found 'CVE-2026-0001,0.1,0.1'; allowed is cve,epss,percentile"),
    (EPSS.replace("0.00042", "1.5"), "e.csv:3: epss: found '1.5'; allowed is a number from 0 to 1"),
    (EPSS.replace("0.00042", "nan"), "e.csv:3: epss: found 'nan'"),
    (EPSS.replace("0.00042", "-0.1"), "e.csv:3: epss: found '-0.1'"),
    (EPSS.replace("0.00042", ""), "e.csv:3: epss: found ''"),
    (EPSS.replace("CVE-2026-0002", "0002"), "e.csv:4: cve: found '0002'; allowed is a CVE id"),
    (EPSS + "CVE-2026-0004\n", "e.csv:6: epss: found nothing"),
])  # fmt: skip
def test_a_wrong_file_of_probabilities_is_refused_with_the_line(text: str, message: str):
    """Also where the line is about a CVE id that nobody asks for: a file that is wrong is not half right."""
    with pytest.raises(InvalidFile) as refused:
        catalogues.epss(text, file="e.csv", wanted=())
    assert any(message in one for one in refused.value.problems), refused.value.problems


def test_a_whole_file_of_probabilities_is_read_in_seconds():
    """FIRST's has some 300,000 lines; the limit is wide, so that it fails for another order of growth only."""
    text = EPSS + "".join(f"CVE-2025-{number},0.00043,0.2\n" for number in range(10_000, 310_000))
    begun = time.perf_counter()
    assert len(catalogues.epss(text, file="e.csv", wanted={"CVE-2025-10000"})) == 1
    assert time.perf_counter() - begun < 20
