"""What the log looks like, and to whom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SAID = """
from pathlib import Path
from swanmesh.core.events import MeshEvent
from swanmesh.hooks.process import HookRun
from swanmesh.hooks.queue import Turn
from swanmesh.service import logs
logs.complain("swanmesh.yaml: it is not there")
logs.configure("debug", {form!r})
log = logs.logger()
log.debug("observe", reason="due")
log.info("peer-up", peer="web2", reason="")
log.warning("waiting for charon", reason="no socket")
event = MeshEvent(kind="peer-down", time=0.0, peer="web2")
for status, error in ((0, ""), (3, "exit status 3")):
    run = HookRun(
        hook=Path("10-mail"), turn=Turn(event), status=status, output=("<0>a b", "c"), error=error
    )
    logs.hooks(run)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("a fault")
"""

PRIORITIES = ["<3>", "<7>", "<6>", "<4>", "<6>", "<3>", "<3>"]


def log(folder: Path, form: str, *, journal: bool | str) -> list[str]:
    """The lines that the program above leaves in a file, which may be the journal to it."""
    environment = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    with (folder / "log").open("w+") as file:
        status = os.fstat(file.fileno())
        if journal:
            ours = f"{status.st_dev}:{status.st_ino}"
            environment["JOURNAL_STREAM"] = journal if isinstance(journal, str) else ours
        subprocess.run(
            [sys.executable, "-c", SAID.format(form=form)], stderr=file, env=environment, check=True
        )
        file.seek(0)
        return file.read().splitlines()


def test_in_the_journal_a_line_has_its_priority_then_the_event_and_no_time(tmp_path: Path) -> None:
    lines = log(tmp_path, "auto", journal=True)
    assert [line[:3] for line in lines] == PRIORITIES
    assert lines[0][3:] == "swanmesh: swanmesh.yaml: it is not there"
    assert lines[2][3:] == "event=peer-up peer=web2 reason="
    assert not any("timestamp=" in line or "level=" in line for line in lines)


def test_a_run_of_a_hook_is_one_line_with_its_output(tmp_path: Path) -> None:
    done, failed = log(tmp_path, "auto", journal=True)[4:6]
    assert done.startswith('<6>event="hook done" hook=10-mail told=peer-down peer=web2 status=0 ')
    assert done.endswith(r' output="<0>a b\nc"')
    assert failed.startswith('<3>event="hook failed"')
    assert 'error="exit status 3"' in failed


def test_json_is_the_same_in_the_journal_but_for_the_priority(tmp_path: Path) -> None:
    lines = log(tmp_path, "json", journal=True)
    assert [line[:3] for line in lines] == PRIORITIES
    documents = [json.loads(line[3:]) for line in lines[1:]]
    assert [document["level"] for document in documents] == [
        "debug",
        "info",
        "warning",
        "info",
        "error",
        "error",
    ]
    assert "ZeroDivisionError" in documents[-1]["exception"]
    elsewhere = [json.loads(line) for line in log(tmp_path, "json", journal=False)[1:]]
    assert [document.keys() for document in elsewhere] == [document.keys() for document in documents]


@pytest.mark.parametrize("journal", [False, "8:4711"], ids=["none", "another file's"])
def test_elsewhere_a_line_has_time_and_level_and_no_priority(tmp_path: Path, journal: bool | str) -> None:
    first, *lines = log(tmp_path, "auto", journal=journal)
    assert first.startswith("swanmesh: ")
    assert all(line.startswith("timestamp=") for line in lines)
    assert [line.split()[1] for line in lines][:2] == ["level=debug", "level=info"]
