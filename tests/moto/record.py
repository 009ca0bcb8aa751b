"""How did each test end? A pytest plugin that run.py loads into the processes that run moto's tests.

Writes one JSON line a test to the file that MOTO_TESTS_REPORT names, as it goes: what was written stands when the process dies.
"""

import json
import os
from typing import TextIO

import pytest


class Recorder:
    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._reports: dict[str, list[pytest.TestReport]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.setdefault(report.nodeid, []).append(report)
        if report.when == "teardown":
            self._write(report.nodeid, self._reports.pop(report.nodeid))

    def _write(self, test: str, reports: list[pytest.TestReport]) -> None:
        failed = next((report for report in reports if report.failed), None)
        outcome = "failed" if failed else "skipped" if any(report.skipped for report in reports) else "passed"
        crash = getattr(failed.longrepr, "reprcrash", None) if failed else None
        reason = str(crash.message if crash else failed.longrepr if failed else "")
        row = {
            "test": test,
            "outcome": outcome,
            "seconds": round(sum(report.duration for report in reports), 2),
            "reason": " ".join(reason.split())[:300],
        }
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(open(os.environ["MOTO_TESTS_REPORT"], "w")))  # noqa: SIM115  open to the end
