"""What holds for the lab's tests, inside the lab's kernel and where pytest was called."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from lab.mesh import keep_evidence
from tests import beside


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not any("itself" in argument for argument in config.args):
        terminalreporter.write_line("not run: the tests of the lab itself (make test-lab, when lab/ changed)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure's text names the folder where each host's logs are, before a fixture removes the hosts."""
    report = yield
    if report.failed and beside.inside():
        kept = keep_evidence()
        if kept:
            report.sections.append(("the lab", kept))
    return report
