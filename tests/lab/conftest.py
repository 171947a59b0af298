"""Lab tests run inside the lab's kernel, whichever way pytest was called."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from lab.mesh import keep_evidence
from tests.lab import rerun


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "outside: tests lab/run itself, so runs where pytest was called")
    plugin = rerun.plugin(config, Path(__file__).parent)
    if plugin is not None:
        config.pluginmanager.register(plugin, "swanmesh-lab")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not any("itself" in argument for argument in config.args):
        terminalreporter.write_line("not run: the tests of the lab itself (make test-lab, when lab/ changed)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure's text names the folder where each host's logs are, before a fixture removes the hosts."""
    report = yield
    if report.failed and rerun.inside():
        kept = keep_evidence()
        if kept:
            report.sections.append(("the lab", kept))
    return report
