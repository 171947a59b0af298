"""Runs tests that wait for much of their time beside the others, and reports each as if it had run here.

Once the tests are collected, a pytest starts for each file of such tests, a few at a time, and writes a line
for each report: for the lab's in a kernel of its own, through `lab/run`. They come last here, where each then
waits for its own lines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

RUN = Path(__file__).parents[1] / "lab/run"
_LAB, _SERVICE = Path(__file__).parent / "lab", Path(__file__).parent / "service"
_REPORTS = "TESTS_REPORTS"
_CPUS = sorted(os.sched_getaffinity(0))
_AT_ONCE = int(os.environ.get("TESTS_AT_ONCE") or min(5, 3 + len(_CPUS)))
"""Files. A kernel keeps to one processor, and leaves it free for half of the time."""


def inside() -> bool:
    """Whether this process runs where `lab/run` put it."""
    return bool(os.environ.get("LAB"))


class Outside:
    """The plugin of the pytest that was called: hands tests over."""

    def __init__(self) -> None:
        self._inner: dict[Path, _Inner] = {}
        """By the file that it runs."""
        self._waiting: list[list[pytest.Item]] = []
        """The tests of each file that is not begun."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        # What takes longest is not to be left for the end.
        items.sort(key=lambda item: (_is_handed_over(item), item.get_closest_marker("long") is None))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.config.option.collectonly:
            return
        by_file: dict[Path, list[pytest.Item]] = {}
        for item in filter(_is_handed_over, session.items):
            by_file.setdefault(item.path, []).append(item)
        self._waiting = list(by_file.values())
        self._advance()

    def _advance(self) -> None:
        """Begin as many as may run at once."""
        while self._waiting and len(cpus := [i.cpu for i in self._inner.values() if i.running]) < _AT_ONCE:
            items = self._waiting.pop(0)
            self._inner[items[0].path] = _Inner(items, min(_CPUS, key=cpus.count), self._advance)

    def pytest_runtest_logfinish(self) -> None:
        self._advance()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if not _is_handed_over(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        while item.path not in self._inner:  # those before it have told all, and are about to end
            time.sleep(0.05)
            self._advance()
        for report in self._inner[item.path].reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self) -> None:
        for inner in self._inner.values():
            inner.end()


def _is_handed_over(item: pytest.Item) -> bool:
    return bool({_LAB, _SERVICE} & {*item.path.parents}) and item.get_closest_marker("outside") is None


class Reporter:
    """The plugin of a pytest beside: writes down each report."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config = config
        self._file = path.open("w")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._file.write(json.dumps(data) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())  # hostfs keeps written pages back until then


def plugin(config: pytest.Config) -> object | None:
    """The plugin that this process needs, if any."""
    if path := os.environ.pop(_REPORTS, ""):
        return Reporter(config, Path(path))
    return None if inside() else Outside()


class _Inner:
    """A pytest beside, as seen from here: it runs one file."""

    def __init__(self, items: list[pytest.Item], cpu: int, meanwhile: Callable[[], None]) -> None:
        """`meanwhile` is called now and then while its reports are waited for."""
        config, nodeids = items[0].config, [item.nodeid for item in items]
        where = ("taskset", "--cpu-list", str(cpu), str(RUN)) if _LAB in items[0].path.parents else ()
        self.cpu = cpu
        self._config = config
        self._meanwhile = meanwhile
        name = str(items[0].path.relative_to(config.rootpath).with_suffix("")).replace("/", "-")
        self._out = Path(
            os.environ.get("LAB_OUT") or tempfile.mkdtemp(prefix="swanmesh-lab-out.", dir="/tmp")
        )
        self._out.mkdir(parents=True, exist_ok=True)
        self._path = self._out / name
        self._path.unlink(missing_ok=True)
        self._offset = 0
        self._lines: list[dict[str, Any]] = []
        self._log = self._out / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                (*where, *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"), *nodeids),
                cwd=config.rootpath,
                env=os.environ | {"LAB_OUT": str(self._out), _REPORTS: str(self._path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def reports(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """Each report of one test, as it comes, to that of its teardown."""
        when = ""
        while when != "teardown":
            data = self._next()
            if data is None:
                yield self._lost(item)
                return
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
            if report.nodeid != item.nodeid:
                raise RuntimeError(f"{report.nodeid} ran where {item.nodeid} was to come")
            when = report.when
            yield report

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Ends it if it still runs; removes the folder unless a failure left something in it."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        if "LAB_OUT" not in os.environ and {path.name for path in self._out.iterdir()} <= {
            self._path.name,
            self._log.name,
        }:
            self._path.unlink(missing_ok=True)
            self._log.unlink()
            self._out.rmdir()

    def _next(self) -> dict[str, Any] | None:
        while not self._lines:
            ended = self._process.poll() is not None
            self._read()
            if not self._lines:
                if ended:
                    return None
                self._meanwhile()
                time.sleep(0.05)
        return self._lines.pop(0)

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, _, _ = file.read().rpartition(b"\n")
        if whole:
            self._offset += len(whole) + 1
            self._lines += [json.loads(line) for line in whole.splitlines()]

    def _lost(self, item: pytest.Item) -> pytest.TestReport:
        said = self._log.read_text(errors="replace")[-3000:]
        text = f"its pytest ended with status {self._process.returncode} before this test did:\n{said}"
        return pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")
