"""`GET /_awsim/`: a page for people; and what `journal/summary` answers."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.simulator.conftest import SMALL

CHROMIUM = Path("/usr/bin/chromium")


def page(aws):
    with urllib.request.urlopen(f"{aws.url}/_awsim/", timeout=20) as answer:
        return answer.headers, answer.read().decode()


def test_the_page_shows_fleet_commands_clock_and_faults(start):
    """One look tells what is going on."""
    aws = start(SMALL)
    aws.control("faults", {"kind": "throttle", "service": "ssm", "times": 2, "operation": "CancelCommand"})
    aws.patch(*aws.hosts("dev-eu"), Comment="run-7/wave-1")
    aws.advance(60)
    headers, text = page(aws)
    assert headers["Content-Type"].startswith("text/html")
    for said in (
        "small",
        "66 hosts",
        "2026-01-05 08:01:00 UTC",
        "web-prod",
        "AWS-RunPatchBaseline",
        "run-7/wave-1",
        "CancelCommand",
    ):
        assert said in text, said
    assert "http://" not in text
    assert "https://" not in text


def test_the_page_escapes_whatever_callers_wrote(aws):
    """A comment, a tag and a fault are strangers' text."""
    evil = "<script>alert(1)</script>"
    aws.control("faults", {"kind": "error", "operation": evil})
    aws.patch(aws.hosts("web")[0], Comment=evil)
    aws.advance(60)
    _, text = page(aws)
    assert evil not in text
    assert "&lt;script&gt;alert(1)" in text


def test_an_empty_aws_has_a_page_too(start):
    """It says how to begin."""
    aws = start(None)
    assert "No machine is there yet" in page(aws)[1]
    assert "Nobody has sent a command" in page(aws)[1]


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium here")
def test_a_person_moves_the_clock_on_the_page(aws):
    """The button works, the console is silent, nothing is wider than the window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        told = []
        window = browser.new_page(viewport={"width": 400, "height": 800})
        window.on("console", lambda message: told.append(message.text))
        window.on("pageerror", lambda error: told.append(str(error)))
        window.goto(f"{aws.url}/_awsim/")
        window.get_by_role("button", name="+1 h").click()
        window.get_by_text("09:00:00 UTC").wait_for(timeout=10_000)
        assert window.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert told == []
        browser.close()


def test_the_summary_tells_peak_order_and_counts_of_what_is_asked(aws):
    """By domain, host, comment, operation and time."""
    hosts = aws.hosts("web")
    aws.patch(*hosts[:1], Comment="run/wave-1")
    aws.advance(900)
    aws.patch(*hosts[1:], Comment="run/wave-2", MaxConcurrency="2")
    aws.advance(1800)
    whole = aws.control("journal/summary")
    assert (whole["max_in_flight"]["*"], whole["max_in_flight"]["region=eu-central-1"]) == (2, 2)
    assert whole["order"][0]["host"] == hosts[0]
    assert {row["host"] for row in whole["order"]} == set(hosts)
    first = aws.control("journal/summary?comment=run/wave-1&domain=PatchGroup=web")
    assert first["max_in_flight"] == {"PatchGroup=web": 1}
    assert first["peak"]["PatchGroup=web"]["hosts"] == [hosts[0]]
    assert aws.control(f"journal/summary?host={hosts[1]}")["commands_per_host"] == {hosts[1]: {"Install": 1}}
    assert aws.control("journal/summary?operation=Scan")["order"] == []
    later = aws.control("journal/summary?from=2026-01-05T08:15:00Z")
    assert hosts[0] not in {row["host"] for row in later["order"]}
    assert all(line in aws.raw("journal") for line in aws.raw(f"journal?host={hosts[0]}&event=reboot_begun").splitlines())


@pytest.mark.parametrize("query", ["colour=red", "domain=web", "from=yesterday", "event=party"])
def test_a_question_that_makes_no_sense_is_refused(aws, query):
    """400, not an answer to another question."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        aws.control(f"journal/summary?{query}")
    assert refused.value.code == 400


def test_faults_are_told_in_words_without_the_machines_spelling(start):
    """7200, not 7200.0; hosts by name, not as a list of Python; and each with how often it struck."""
    aws = start(SMALL)
    aws.control("faults", {"kind": "undeliverable", "host": ["dev-eu/1", "dev-eu/2"], "after": 7200})
    aws.control("throttle", {"service": "ssm", "rate": 2, "burst": 2.5})
    _, text = page(aws)
    assert "host dev-eu/1 dev-eu/2, after 7200<" in text
    assert "service ssm, rate 2, burst 2.5<" in text


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium here")
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_on_the_page_is_cut_off(start, width):
    """The page is never wider than its window; at a desk's width no table is wider than its box."""
    from playwright.sync_api import sync_playwright

    aws = start(SMALL)
    aws.patch(*aws.hosts("dev-eu"), Comment="weekly-linux/dev wave 1")
    aws.control("faults", {"kind": "throttle", "service": "ssm", "operation": "SendCommand", "times": 3})
    aws.advance(200)
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        seen = browser.new_page(viewport={"width": width, "height": 900})
        seen.goto(f"{aws.url}/_awsim/")
        assert seen.evaluate("document.documentElement.scrollWidth <= innerWidth")
        cut = seen.evaluate("[...document.querySelectorAll('section')].filter(box => box.scrollWidth > box.clientWidth).length")
        browser.close()
    assert cut == 0 or width == 400
