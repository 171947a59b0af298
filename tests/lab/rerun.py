"""Runs the lab's tests inside the lab's kernel, and reports each as if it had run here.

Once the tests are collected, a pytest starts through `lab/run` for each file of lab tests, a few at a time,
and writes a line for each report. Lab tests wait for much of their time, so they run beside the others, and
come last here: each then waits for its own lines.
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

RUN = Path(__file__).parents[2] / "lab/run"
_REPORTS = "LAB_REPORTS"
_KERNELS = int(os.environ.get("LAB_KERNELS") or min(4, 2 + len(os.sched_getaffinity(0))))
"""At once. Each keeps to one processor (`lab/run`), and leaves it free for half of the time."""


def inside() -> bool:
    """Whether this process runs where `lab/run` put it."""
    return bool(os.environ.get("LAB"))


class Outside:
    """The plugin of the pytest that was called: hands lab tests over."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inner: dict[Path, _Inner] = {}
        """By the file that it runs."""
        self._waiting: list[list[pytest.Item]] = []
        """The tests of each file that is not begun."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=self._is_ours)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.config.option.collectonly:
            return
        by_file: dict[Path, list[pytest.Item]] = {}
        for item in filter(self._is_ours, session.items):
            by_file.setdefault(item.path, []).append(item)
        self._waiting = list(by_file.values())
        self._advance()

    def _advance(self) -> None:
        """Begin as many as may run at once."""
        while self._waiting and sum(inner.running for inner in self._inner.values()) < _KERNELS:
            items = self._waiting.pop(0)
            self._inner[items[0].path] = _Inner(items, self._advance)

    def pytest_runtest_logfinish(self) -> None:
        self._advance()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if not self._is_ours(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._inner[item.path].reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _is_ours(self, item: pytest.Item) -> bool:
        return self._folder in item.path.parents and item.get_closest_marker("outside") is None

    def pytest_sessionfinish(self) -> None:
        for inner in self._inner.values():
            inner.end()


class Reporter:
    """The plugin of the pytest in the lab's kernel: writes down each report."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config = config
        self._file = path.open("w")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._file.write(json.dumps(data) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())  # hostfs keeps written pages back until then


def plugin(config: pytest.Config, folder: Path) -> object | None:
    """The plugin that this process needs, if any."""
    if not inside():
        return Outside(folder)
    path = os.environ.pop(_REPORTS, "")
    return Reporter(config, Path(path)) if path else None


class _Inner:
    """The pytest in the lab's kernel, as seen from outside: it runs one file."""

    def __init__(self, items: list[pytest.Item], meanwhile: Callable[[], None]) -> None:
        """`meanwhile` is called now and then while its reports are waited for."""
        config, nodeids = items[0].config, [item.nodeid for item in items]
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
                (*(str(RUN), sys.executable, "-m", "pytest", "-p", "no:cacheprovider"), *nodeids),
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
                raise RuntimeError(f"the lab ran {report.nodeid} where {item.nodeid} was to come")
            when = report.when
            yield report

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Ends the kernel if it still runs; removes the folder unless a failure left something in it."""
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
        text = f"{RUN} ended with status {self._process.returncode} before this test did. It said:\n{said}"
        return pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")
