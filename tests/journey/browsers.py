"""What does a person do at a gate in Airflow's own pages, and what do they see there? Steps in Debian's Chromium.

Used by the journeys whose people answer in a browser; those over REST are in `runs`. Playwright's browser belongs to the thread
that started it, so a journey opens it in its own `drive`. Nothing waits for a fixed time, and nothing for a quiet network:
Airflow's pages never stop asking. `PATCHWAVE_TEST_PICTURES=FOLDER` keeps a picture of each page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest

from patchwave.cli import passwords
from tests.journey.runs import FollowedRun

Found = TypeVar("Found")

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE = 180_000
"""Milliseconds until a page counts as broken: two cores are busy with all other journeys."""
LOOK = 30_000
"""Milliseconds after which somebody who does not find a question in the list loads it again."""
PICTURES = os.environ.get("PATCHWAVE_TEST_PICTURES", "")
"""Folder for a picture of each page that somebody reads; empty: none is taken."""

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium here")


@dataclass(kw_only=True)
class Person:
    """Somebody who has signed in, in a window of their own.

    Attributes:
        read: what stood on the page that they read last.
    """

    name: str
    run: FollowedRun
    page: Any
    read: str = ""

    def reads(self, task: str) -> str:
        """Go to the question as people do: the run's Required Actions, and from there to the task.

        Returns:
            All that stands on its page.
        """
        run, page = self.run, self.page
        self._finds(f"{run.stage.stack.address}/dags/{quote(run.dag)}/runs/{quote(run.run)}/required_actions", task)
        page.wait_for_url(f"**/tasks/{task}/required_actions*")
        page.get_by_role("dialog").first.wait_for(state="hidden")  # the list of the run, which shows the question, too
        page.get_by_role("heading", name=f"Plan of {run.dag}").first.wait_for()
        page.get_by_test_id("hitl-option-Approve").wait_for()
        self.picture(f"{task} {self.name}")
        self.read = str(page.locator("body").inner_text())
        return self.read

    def _finds(self, address: str, task: str) -> None:
        """Open the list and follow its link to the task; look anew while it is not there, as people do.

        A gate that looks around is missing from the list for seconds, and a list that was loaded then is not always renewed.
        """
        from playwright.sync_api import TimeoutError as NotThere

        link = self.page.locator(f'a[href*="/tasks/{task}/required_actions"]').first
        for _look in range(PATIENCE // LOOK):
            self.page.goto(address)
            try:
                link.click(timeout=LOOK)
            except NotThere:
                continue
            return
        raise AssertionError(f"{task} is not among the required actions of {self.run.dag}\n{self.run.picture()}")

    def presses(self, option: str, *, reason: str = "", without: str = "") -> int:
        """Fill the form of the page that they read, and press that button.

        Returns:
            The status with which Airflow took the answer.
        """
        page = self.page
        for field, words in (("reason", reason), ("without", without)):
            if words:
                page.locator(f"[name=element_{field}]").fill(words)
        with page.expect_response(lambda said: said.request.method == "PATCH" and "/hitlDetails" in said.url) as answered:
            page.get_by_test_id(f"hitl-option-{option}").click()
        status = int(answered.value.status)
        said = {200: "response successful", 403: "Access Denied"}.get(status, "Response failed")
        page.get_by_text(said).first.wait_for()
        self.picture(f"{option} {self.name} {status}")
        return status

    def says(self, task: str, option: str, *, then: Callable[[], Found | None], what: str, **fields: str) -> Found:
        """Read that question and answer it; again if Airflow lost the answer.

        Args:
            then: what comes of the answer.
            what: that in words.
            fields: of the form.
        """

        def answer() -> None:
            self.reads(task)
            self.presses(option, **fields)

        return self.run.put(task, answer, then=then, what=what)[1]

    @property
    def digest(self) -> str:
        """Of the plan that they have read."""
        (found,) = set(re.findall(r"\b[0-9a-f]{64}\b", self.read))
        return str(found)

    def picture(self, what: str) -> None:
        """Of the window's upper part and of the whole page, if somebody wants to look at them."""
        if PICTURES:
            name = f"{PICTURES}/{self.run.dag} {what}"
            self.page.screenshot(path=f"{name}.png")
            Path(f"{name}.html").write_text(self.page.content())


@contextmanager
def signing_in(run: FollowedRun) -> Iterator[Callable[[str], Person]]:
    """A browser, and how people sign in with it, through Airflow's own page."""
    from playwright.sync_api import sync_playwright

    secrets = passwords.ensure(run.stage.stack.places.passwords)
    people: list[Person] = []
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])

        def sign_in(name: str) -> Person:
            window = browser.new_context(viewport={"width": 1400, "height": 1000}, locale="en-GB", timezone_id="UTC")
            window.set_default_timeout(PATIENCE)
            page = window.new_page()
            page.goto(run.stage.stack.address)
            page.get_by_label("Username").fill(name)
            page.get_by_label("Password").fill(secrets[name])
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(lambda address: "/auth/" not in address)
            people.append(Person(name=name, run=run, page=page))
            return people[-1]

        try:
            yield sign_in
        except BaseException:
            for person in people:
                person.picture(f"went wrong {person.name}")
            raise
        finally:
            browser.close()
