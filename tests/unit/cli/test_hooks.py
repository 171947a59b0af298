"""`swanmesh hooks`: listing them, and running them by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.waiting import wait_until
from tests.unit.cli.conftest import Machine
from tests.unit.hooks.hooking import alive, write_hook


@pytest.fixture
def hooks(machine: Machine) -> Path:
    return machine.folder / "hooks.d"


def test_list_shows_what_is_run_and_what_is_not_and_why(machine: Machine, hooks: Path) -> None:
    write_hook(hooks / "20-b", "exit 0")
    write_hook(hooks / "10-a", "exit 0")
    write_hook(hooks / "bad", "exit 0", mode=0o775)
    write_hook(hooks / "note", "exit 0", mode=0o644)
    write_hook(hooks / "mail.disabled", "exit 0")
    ended = machine.swanmesh("hooks", "list")
    assert (ended.status, ended.err) == (0, "")
    assert [line.split()[:2] for line in ended.out.splitlines()[1:]] == [
        ["10-a", "run"],
        ["20-b", "run"],
        ["bad", "refused"],
        ["note", "skipped"],
    ]
    assert "chmod go-w" in ended.out
    found = machine.swanmesh("hooks", "list", "--json").json
    assert found["hooks"] == [str(hooks / "10-a"), str(hooks / "20-b")]
    assert list(found["refused"]) == [str(hooks / "bad")]
    assert list(found["skipped"]) == [str(hooks / "note")]


def test_no_hooks_are_no_mistake(machine: Machine, hooks: Path) -> None:
    for arguments in (("list",), ("test", "started")):
        ended = machine.swanmesh("hooks", *arguments)
        assert (ended.status, ended.err) == (0, "")
        assert str(hooks) in ended.out


def test_test_runs_all_as_if_it_had_happened(machine: Machine, hooks: Path) -> None:
    machine.write_peer("web2.yaml", 'name: web2.mesh.example\naddresses: [203.0.113.2, "2001:db8::2"]\n')
    out = machine.folder / "out"
    write_hook(hooks / "10-env", f"env > {out}.env; cat > {out}.json; echo heard")
    write_hook(hooks / "20-quiet", "exit 0")
    ended = machine.swanmesh("hooks", "test", "peer-down", "web2.mesh.example")
    assert (ended.status, ended.err) == (0, "")
    first, line, second = ended.out.splitlines()
    assert first.startswith("10-env: done, 0.")
    assert line == "  heard"
    assert second.startswith("20-quiet: done, ")
    environment = dict(line.split("=", 1) for line in Path(f"{out}.env").read_text().splitlines())
    assert environment["SWANMESH_EVENT"] == "peer-down"
    assert environment["SWANMESH_PEER"] == "web2.mesh.example"
    assert environment["SWANMESH_ADDRESSES"] == "203.0.113.2 2001:db8::2"
    assert environment["SWANMESH_HOST"] == "web1.mesh.example"
    assert environment["SWANMESH_CONFIG"] == str(machine.config)
    assert environment["SWANMESH_TEST"] == "1"
    record = json.loads(Path(f"{out}.json").read_text())
    assert record["test"] is True
    assert record["event"] == "peer-down"
    assert record["addresses"] == ["203.0.113.2", "2001:db8::2"]


def test_a_peer_is_made_up_where_none_is_named_and_events_without_one_have_none(
    machine: Machine, hooks: Path
) -> None:
    write_hook(hooks / "hook", 'echo "$SWANMESH_EVENT,$SWANMESH_PEER,$SWANMESH_ADDRESSES"')
    for kind in ("peer-added", "peer-up", "peer-down", "peer-removed"):
        assert f"  {kind},peer.mesh.example,192.0.2.1" in machine.swanmesh("hooks", "test", kind).out
    for kind in ("charon-lost", "charon-back", "started", "stopping"):
        assert f"  {kind},,\n" in machine.swanmesh("hooks", "test", kind).out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("peer-up", "web9"), "no such peer: web9; did you mean web2?"),
        (("started", "web2"), "concerns no single peer"),
        (("peer-gone",), "peer-gone"),
        ((), "EVENT"),
    ],
)
def test_wrong_usage_runs_nothing(
    machine: Machine, hooks: Path, arguments: tuple[str, ...], words: str
) -> None:
    machine.write_peer("web2.yaml", "name: web2\naddresses: [203.0.113.2]\n")
    write_hook(hooks / "hook", f"touch {machine.folder}/ran")
    ended = machine.swanmesh("hooks", "test", *arguments)
    assert ended.status == 2
    assert words in ended.err
    assert not (machine.folder / "ran").exists()


def test_one_that_fails_makes_the_status_1_and_the_others_run(machine: Machine, hooks: Path) -> None:
    write_hook(hooks / "10-fails", "echo 'no \033[31mluck' >&2; exit 7")
    (write_hook(hooks / "20-broken", "")).write_text("#!/nonexistent\n")
    write_hook(hooks / "30-fine", "exit 0")
    ended = machine.swanmesh("hooks", "test", "started")
    assert ended.status == 1
    assert "10-fails: exit status 7, " in ended.out
    assert r"  no \x1b[31mluck" in ended.out
    assert "20-broken: cannot be started: " in ended.out
    assert "30-fine: done, " in ended.out
    runs = machine.swanmesh("hooks", "test", "started", "--json").json["runs"]
    assert [run["status"] for run in runs] == [7, None, 0]
    assert all(run["seconds"] >= 0 for run in runs)


def test_one_that_is_refused_makes_the_status_1(machine: Machine, hooks: Path) -> None:
    write_hook(hooks / "bad", f"touch {machine.folder}/ran", mode=0o777)
    ended = machine.swanmesh("hooks", "test", "started")
    assert ended.status == 1
    assert f"{hooks}/bad: refused: " in ended.err
    assert not (machine.folder / "ran").exists()
    assert list(machine.swanmesh("hooks", "test", "started", "--json").json["refused"]) == [f"{hooks}/bad"]


def test_check_warns_of_what_is_refused(machine: Machine, hooks: Path) -> None:
    bad = write_hook(hooks / "bad", "exit 0", mode=0o777)
    write_hook(hooks / "good", "exit 0")
    warnings = machine.swanmesh("check", "--json").json["warnings"]
    [warning] = [warning for warning in warnings if "hook" in warning["message"]]
    assert warning["file"] == str(bad)
    assert warning["message"].startswith("this hook is not run: ")
    assert warning["remedy"] == f"run: chmod go-w {bad}"


def test_what_is_left_running_is_waited_for(machine: Machine, hooks: Path) -> None:
    left = machine.folder / "left"
    write_hook(hooks / "hook", f"(sleep 0.7; touch {left}) &")
    ended = machine.swanmesh("hooks", "test", "started")
    assert (ended.status, left.exists()) == (0, True)


def test_ctrl_c_ends_the_hook_too(machine: Machine, hooks: Path) -> None:
    pid = machine.folder / "pid"
    write_hook(hooks / "hook", f"trap '' INT TERM; echo $$ > {pid}; while :; do sleep 1; done")
    command = [sys.executable, "-m", "swanmesh", "--config", str(machine.config), "hooks", "test", "started"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=dict(os.environ)) as process:
        wait_until(lambda: pid.exists() and alive(pid), 20, "the hook runs")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    wait_until(lambda: not alive(pid), 20, "the hook is ended")
