"""Reading what deadlines are decided by: files beside the policies, and an address that may not answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from patchwave.campaign.errors import InvalidFile
from patchwave.hooks import catalogues as sources
from patchwave.hooks.catalogues import CatalogueUnavailable
from tests.domain.test_catalogues import ANSWERS, EPSS, a_file, a_record, an_entry

NOW = datetime(2026, 6, 13, tzinfo=UTC)


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the policies, from which relative paths count."""
    monkeypatch.setenv("PATCHWAVE_POLICIES", str(tmp_path))
    return tmp_path


Page = tuple[int, bytes]


@pytest.fixture
def site() -> Iterator[Callable[[int, bytes], str]]:
    """`site(status, content)`: the address of a page that answers so."""
    pages: list[Page] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = pages[-1]
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) + (500 if status == 206 else 0)))  # 206: it hangs up half-way
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def serve(status: int, content: bytes) -> str:
        pages.append((status, content))
        return f"http://127.0.0.1:{server.server_port}/kev.json"

    yield serve
    server.shutdown()
    server.server_close()


def test_a_catalogue_comes_from_an_address(site: Callable[[int, bytes], str]) -> None:
    """Also with the mark that some editors put in front."""
    address = site(200, b"\xef\xbb\xbf" + a_file(an_entry()).encode())
    read = sources.exploited(address, now=NOW)
    assert (read.source, read.read_at, list(read.added)) == (address, NOW, ["CVE-2026-0001"])


@pytest.mark.parametrize(("status", "content", "message"), [
    (503, b"", "cannot be read: HTTP Error 503"), (404, b"", "cannot be read: HTTP Error 404"),
    (200, b"<html>Sign in</html>", "sends something else: .*is no valid JSON"),
    (200, b"\xff\xfe", "cannot be read: .*utf-8"), (206, a_file(an_entry()).encode()[:300], "is no valid JSON"),
    (200, a_file(an_entry(), count=9).encode(), "sends something else: .*allowed is a whole catalogue"),
])  # fmt: skip
def test_an_address_that_gives_no_catalogue_is_a_passing_trouble(
    site: Callable[[int, bytes], str], status: int, content: bytes, message: str
) -> None:
    """Nobody here can mend it: Airflow tries again, and the ledger may have a copy."""
    with pytest.raises(CatalogueUnavailable, match=message):
        sources.exploited(site(status, content), now=NOW)


def test_an_address_where_nobody_listens_is_a_passing_trouble() -> None:
    """Port 9 discards; nothing listens on it here."""
    with pytest.raises(CatalogueUnavailable, match="cannot be read"):
        sources.exploited("http://127.0.0.1:9/kev.json", now=NOW)


def test_a_catalogue_comes_from_a_file_beside_the_policies(policies: Path) -> None:
    """A relative path does not depend on where the worker was started."""
    (policies / "kev.json").write_text(a_file(an_entry()), encoding="utf-8")
    assert sources.exploited("kev.json", now=NOW).source == str(policies / "kev.json")
    assert sources.exploited(str(policies / "kev.json"), now=NOW).version == "2026.06.12"


def test_a_file_that_is_wrong_or_missing_is_for_somebody_to_mend(policies: Path) -> None:
    """No retry helps: it fails at once, with the sentence from which it can be mended."""
    (policies / "kev.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidFile, match=r"kev.json:1: catalogVersion: is missing"):
        sources.exploited("kev.json", now=NOW)
    with pytest.raises(InvalidFile, match=r"none.json:1: the file: cannot be read: No such file"):
        sources.exploited("none.json", now=NOW)


def test_answers_come_from_a_file_or_from_a_copy_of_vulnrichment(policies: Path) -> None:
    """Of a copy only the records are opened that somebody asks for."""
    (policies / "answers.json").write_text(json.dumps([a_record(), a_record("CVE-2026-0002")]), encoding="utf-8")
    assert sources.ssvc("answers.json", wanted={"CVE-2026-0001", "CVE-2026-0009"}) == {"CVE-2026-0001": ANSWERS}
    folder = policies / "vulnrichment" / "2026" / "0xxx"
    folder.mkdir(parents=True)
    (folder / "CVE-2026-0001.json").write_text(json.dumps(a_record()), encoding="utf-8")
    (folder / "CVE-2026-0002.json").write_text("broken", encoding="utf-8")
    assert sources.ssvc("vulnrichment", wanted={"CVE-2026-0001", "CVE-2026-0009"}) == {"CVE-2026-0001": ANSWERS}
    with pytest.raises(InvalidFile, match=r"CVE-2026-0002.json:1: the file: is no valid JSON"):
        sources.ssvc("vulnrichment", wanted={"CVE-2026-0002"})


def test_probabilities_come_from_a_file(policies: Path) -> None:
    """FIRST's, unpacked."""
    (policies / "epss.csv").write_text(EPSS, encoding="utf-8")
    assert sources.epss("epss.csv", wanted={"CVE-2026-0003"}) == {"CVE-2026-0003": 1.0}
    with pytest.raises(InvalidFile, match=r"none.csv:1: the file: cannot be read"):
        sources.epss("none.csv", wanted=())
