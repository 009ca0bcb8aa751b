"""Does everything that passes on stock moto pass on awsim, too? Runs moto's own tests, in server mode, and compares.

`make test-moto` calls this; `make test-moto-baseline` calls it with `--baseline`, which runs the same tests against stock
`moto_server` and writes `baseline.txt`. The tests come in moto's source distribution (the version that requirements.txt pins),
which pip fetches into `var/moto/`, together with the one package that they need and we do not. The tests are shared out between
two workers, each with a server of its own, since moto's tests reset the server before each test.

A test that passes on stock has to pass on awsim, or be listed in `allowed.yaml` with the reason. One that fails is given a
second chance (some of moto's tests draw random names); what passes then is listed as flaky. The last line printed is
`P passed, F failed, S skipped, R regressions`; the exit status is 1 when there are regressions, 2 when nothing could be run.
"""

import argparse
import json
import os
import queue
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BASELINE = HERE / "baseline.txt"
ALLOWED = HERE / "allowed.yaml"
CACHE = REPOSITORY / "var" / "moto"
EXTRA = "freezegun==1.5.5"
"""What moto's tests import and requirements.txt does not name; it lies in var/moto/packages, not in the environment."""

SERVICES = (
    "ec2",
    "rds",
    "autoscaling",
    "events",
    "elbv2",
    "ssm",
    "organizations",
    "config",
    "securityhub",
    "resourcegroupstaggingapi",
    "sts",
    "inspector2",
)
"""Longest first, so that two workers end at about the same time."""
FILES_A_JOB = 20
SECONDS_A_TEST = 120


class CannotRun(Exception):
    """Nothing was tested, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """Outcomes (`passed`, `failed`, `skipped`) and last lines of what failed, by test id."""

    outcomes: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, other: "Results") -> None:
        self.outcomes.update(other.outcomes)
        self.reasons.update(other.reasons)
        self.seconds.update(other.seconds)


# --- what is run ---


def pinned() -> str:
    """The version of moto that requirements.txt names."""
    found = re.search(r"^moto==(\S+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    if found is None:
        raise CannotRun("requirements.txt: no line moto==VERSION")
    return found.group(1)


def fetched(version: str) -> Path:
    """The folder that holds moto's `tests`, fetched once."""
    folder = CACHE / version
    if not (folder / "tests").is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            _pip(f"moto=={version}", "download", "--no-deps", "--no-binary", "moto", "--dest", temporary)
            archive = next(Path(temporary).glob("moto-*.tar.gz"))
            unpacked = Path(temporary) / "unpacked"
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
            folder.mkdir(exist_ok=True)
            (unpacked / f"moto-{version}" / "setup.cfg").rename(folder / "setup.cfg")  # pytest's markers
            (unpacked / f"moto-{version}" / "tests").rename(folder / "tests")  # last: it says that the folder is complete
    packages = CACHE / "packages"
    if not (packages / "freezegun").is_dir():
        _pip(EXTRA, "install", "--no-deps", "--target", str(packages))
    return folder


def _pip(wanted: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, wanted, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-3:]
        raise CannotRun(
            f"pip cannot {arguments[0]} {wanted}: {' '.join(errors)} It is needed once, and kept in {CACHE}: is the package "
            "index within reach (pip's own settings, PIP_INDEX_URL, PIP_FIND_LINKS)?"
        )


def jobs(folder: Path, services: Sequence[str]) -> list[list[str]]:
    """Lists of test files, each list for one pytest process."""
    found: list[list[str]] = []
    for service in services:
        files = sorted(str(path.relative_to(folder)) for path in (folder / "tests" / f"test_{service}").rglob("test_*.py"))
        if not files:
            raise CannotRun(f"moto has no tests of {service}; services are {', '.join(SERVICES)}")
        found += [files[start : start + FILES_A_JOB] for start in range(0, len(files), FILES_A_JOB)]
    return found


# --- servers ---


@contextmanager
def server(*, stock: bool) -> Iterator[str]:
    """The URL of a server that lives as long as the context; awsim, or the moto that it stands on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    module = ["moto.server", "-H", "127.0.0.1", "-p"] if stock else ["awsim", "--port"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module, str(port)], cwd=tempfile.gettempdir(), env=_environment(), stdout=log, stderr=log
        )
        try:
            end = time.monotonic() + 60
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise CannotRun(f"{module[0]} did not start: {log.read().decode(errors='replace')[-2000:]}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(port: int) -> bool:
    try:
        reset(port)
    except OSError:
        return False
    return True


def reset(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/moto-api/reset")
    connection.getresponse().read()
    connection.close()


def _environment(**more: str) -> dict[str, str]:
    """Nobody's AWS account, and nobody's proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("AWS_", "MOTO_", "PYTEST_"))}
    kept = {name: value for name, value in kept.items() if not name.upper().endswith("_PROXY")}
    include = str(REPOSITORY / "include")
    return {**kept, "PYTHONPATH": include, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONDONTWRITEBYTECODE": "1", **more}


# --- tests ---


def run(folder: Path, work: Iterable[list[str]], *, stock: bool, workers: int) -> Results:
    """Every job, shared out between workers that each have a server."""
    waiting: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
    for job in work:
        waiting.put(job)
    results, broken = Results(), list[Exception]()

    def worker() -> None:
        try:
            with server(stock=stock) as url:
                while not broken:
                    try:
                        job = waiting.get_nowait()
                    except queue.Empty:
                        return
                    began = time.monotonic()
                    found = tested(folder, job, url)
                    results.add(found)
                    counts = Counter(found.outcomes.values())
                    first = job[0].removeprefix("tests/test_").split("::")[0]
                    print(f"  {first:70} {_counts(counts)} in {time.monotonic() - began:.0f} s", flush=True)
        except Exception as problem:  # noqa: BLE001  whatever ended the worker ends the run, below
            broken.append(problem)

    threads = [threading.Thread(target=worker) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    return results


def tested(folder: Path, tests: Sequence[str], url: str) -> Results:
    """One pytest process; a test that ends it (or hangs) loses the rest of its job, which then counts as not passed."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "outcomes"
        arguments = Path(temporary) / "tests"
        arguments.write_text("\n".join(tests))
        environment = _environment(
            TEST_SERVER_MODE="true",
            TEST_SERVER_MODE_ENDPOINT=url,
            PYTHONPATH=os.pathsep.join([str(folder), str(HERE), str(CACHE / "packages")]),
            MOTO_TESTS_REPORT=str(report),
        )
        options = ["-q", "--no-header", "--tb=line", "-p", "record", "-p", "no:cacheprovider", "-W", "ignore"]
        options += ["--timeout", str(SECONDS_A_TEST), "-c", "setup.cfg", "--rootdir", str(folder)]
        command = [sys.executable, "-m", "pytest", *options, f"@{arguments}"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if not report.exists():
            raise CannotRun(f"pytest did not run {tests[0]}...: {(done.stdout + done.stderr)[-3000:]}")
        results = Results()
        for line in report.read_text().splitlines():
            row: dict[str, Any] = json.loads(line)
            results.outcomes[row["test"]] = row["outcome"]
            results.seconds[row["test"]] = row["seconds"]
            if row["reason"]:
                results.reasons[row["test"]] = row["reason"]
        return results


# --- the baseline ---


def write_baseline(version: str, outcomes: dict[str, str]) -> None:
    lines = [f"moto {version}: outcome of each of its tests on stock moto_server (p passed, f failed, s skipped)"]
    last = ""
    for test, outcome in sorted(outcomes.items()):
        path, _, name = test.partition("::")
        if path != last:
            lines.append(path)
            last = path
        lines.append(f" {outcome[0]} {name}")
    BASELINE.write_text("\n".join(lines) + "\n")


def read_baseline(version: str) -> dict[str, str]:
    if not BASELINE.exists():
        raise CannotRun(f"{BASELINE} is missing: make test-moto-baseline writes it")
    head, *lines = BASELINE.read_text().splitlines()
    if not head.startswith(f"moto {version}:"):
        raise CannotRun(
            f"{BASELINE} is of another moto than requirements.txt pins ({version}): make test-moto-baseline writes it"
        )
    words = {"p": "passed", "f": "failed", "s": "skipped"}
    outcomes: dict[str, str] = {}
    path = ""
    for line in lines:
        if line.startswith(" "):
            outcomes[f"{path}::{line[3:]}"] = words[line[1]]
        else:
            path = line
    return outcomes


def read_allowed(baseline: dict[str, str]) -> dict[str, str]:
    """Reasons by test id."""
    rows: list[dict[str, Any]] = yaml.safe_load(ALLOWED.read_text()) or []
    allowed: dict[str, str] = {}
    for row in rows:
        if set(row) != {"tests", "reason"} or not row["reason"].strip():
            raise CannotRun(f"{ALLOWED}: each entry has tests and reason, not {', '.join(row)}")
        for test in row["tests"]:
            if baseline.get(test) != "passed":
                raise CannotRun(f"{ALLOWED}: {test} does not pass on stock moto, so it needs no allowance")
            allowed[test] = " ".join(row["reason"].split())
    return allowed


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="moto's own tests against awsim, compared with stock moto.")
    parser.add_argument("services", nargs="*", help=f"default all: {' '.join(SERVICES)}")
    parser.add_argument("--baseline", action="store_true", help="run against stock moto_server and write baseline.txt")
    parser.add_argument("--workers", type=int, default=2, help="server processes at a time; default %(default)s")
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="name the N slowest tests")
    options = parser.parse_args(arguments)
    try:
        return _baseline(options) if options.baseline else _compared(options)
    except CannotRun as problem:
        print(f"test-moto: {problem}", file=sys.stderr)
        return 2


def _baseline(options: argparse.Namespace) -> int:
    version = pinned()
    folder = fetched(version)
    services = options.services or SERVICES
    began = time.monotonic()
    results = run(folder, jobs(folder, services), stock=True, workers=options.workers)
    before = read_baseline(version) if options.services and BASELINE.exists() else {}
    kept = {test: outcome for test, outcome in before.items() if _service(test) not in services}
    write_baseline(version, {**kept, **results.outcomes})
    _slowest(results, options.slowest)
    print(f"{BASELINE.relative_to(REPOSITORY)} written in {time.monotonic() - began:.0f} s")
    print(_counts(Counter(results.outcomes.values())))
    return 0


def _compared(options: argparse.Namespace) -> int:
    version = pinned()
    baseline = read_baseline(version)
    allowed = read_allowed(baseline)
    folder = fetched(version)
    services = options.services or SERVICES
    began = time.monotonic()
    results = run(folder, jobs(folder, services), stock=False, workers=options.workers)
    expected = {test for test, outcome in baseline.items() if outcome == "passed" and _service(test) in services}

    def regressed() -> set[str]:
        return {test for test in expected if results.outcomes.get(test) != "passed"}

    again = sorted(regressed() - set(allowed))
    if again:
        print(f"once more: {len(again)} that pass on stock moto")
        results.add(run(folder, [again], stock=False, workers=1))
    flaky = set(again) - regressed()
    regressions = regressed() - set(allowed)
    for test in sorted(flaky):
        print(f"FLAKY {test}: passed at the second try")
    for test in sorted(set(allowed) & expected):
        state = "passes now, take it out of allowed.yaml" if test not in regressed() else allowed[test]
        print(f"ALLOWED {test}: {state}")
    for test in sorted(regressions):
        print(f"REGRESSION {test}: {results.outcomes.get(test, 'not run')}; {results.reasons.get(test, '')}")
    better = [test for test, outcome in results.outcomes.items() if outcome == "passed" and baseline.get(test) == "failed"]
    print(f"{len(better)} fail on stock moto and pass here; {len(set(results.outcomes) - set(baseline))} are not in the baseline")
    _slowest(results, options.slowest)
    table = {service: Counter[str]() for service in services}
    for test, outcome in results.outcomes.items():
        table[_service(test)][outcome] += 1
    for service, counts in table.items():
        lost = sum(_service(test) == service for test in regressions)
        print(f"{service:26} {_counts(counts)}, {lost} regressions")
    print(f"took {time.monotonic() - began:.0f} s")
    print(f"{_counts(Counter(results.outcomes.values()))}, {len(regressions)} regressions")
    return 1 if regressions else 0


def _service(test: str) -> str:
    return test.split("/")[1].removeprefix("test_")


def _counts(counts: Counter[str]) -> str:
    return f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"


def _slowest(results: Results, number: int) -> None:
    for test, seconds in sorted(results.seconds.items(), key=lambda row: -row[1])[:number]:
        print(f"{seconds:6.1f} s {test}")


if __name__ == "__main__":
    sys.exit(main())
