"""What `make test-moto` does when something is not as it should be; the tests themselves are moto's, and run apart."""

from pathlib import Path

from tests.moto import run

REPOSITORY = Path(__file__).parents[3]


def test_a_download_that_fails_is_told_in_a_sentence(tmp_path, monkeypatch, capsys):
    """What was wanted, what pip says, where to look; and exit status 2, so that nobody takes it for tests that passed."""
    monkeypatch.setattr(run, "CACHE", tmp_path / "moto")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    assert run.main(["sts"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"test-moto: pip cannot download moto=={run.pinned()}: ")
    assert "No matching distribution found" in said
    assert "PIP_INDEX_URL" in said
    assert not (tmp_path / "moto" / run.pinned() / "tests").exists()


def test_a_test_that_passes_on_stock_moto_and_fails_here_is_a_regression(monkeypatch, capsys):
    """Tried twice, named, counted in the last line, exit status 1; one that did not run at all counts, too."""
    baseline = {"tests/test_sts/test_sts.py::good": "passed", "tests/test_sts/test_sts.py::bad": "passed"}
    tried = []

    def ran(_folder, work, **_):
        tried.append(list(work))
        return run.Results(outcomes={"tests/test_sts/test_sts.py::good": "passed"})

    monkeypatch.setattr(run, "read_baseline", lambda _: baseline)
    monkeypatch.setattr(run, "read_allowed", lambda _: {})
    monkeypatch.setattr(run, "fetched", lambda _: Path())
    monkeypatch.setattr(run, "jobs", lambda *_: [["tests/test_sts/test_sts.py"]])
    monkeypatch.setattr(run, "run", ran)
    assert run.main(["sts"]) == 1
    assert tried[1:] == [[["tests/test_sts/test_sts.py::bad"]]]
    lines = capsys.readouterr().out.splitlines()
    assert "REGRESSION tests/test_sts/test_sts.py::bad: not run; " in lines
    assert lines[-1] == "1 passed, 0 failed, 0 skipped, 1 regressions"


def test_what_is_allowed_to_fail_passes_on_stock_moto_and_has_a_reason():
    """The list stays short, and the baseline is of the moto that is pinned."""
    allowed = run.read_allowed(run.read_baseline(run.pinned()))
    assert 0 < len(allowed) <= 12
    assert all(len(reason.split()) > 3 for reason in allowed.values())


def test_continuous_integration_runs_them():
    """A suite that nobody runs vouches for nothing."""
    assert "make test-moto\n" in (REPOSITORY / ".ci" / "run").read_text("utf-8")
