"""`swanmesh run` and its hooks: what they hear is what `swanmesh events` shows, to the last."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from swanmesh.cli.main import main
from swanmesh.control.client import Client, ServiceUnreachable
from swanmesh.core.events import MeshEvent
from tests.charon.fake import FakeCharon
from tests.unit.cli.conftest import CONFIG
from tests.unit.hooks.hooking import alive, until, write_hook, written


class Listener:
    """Follows the event stream from a thread of its own."""

    def __init__(self, socket: Path) -> None:
        self.records: list[MeshEvent] = []
        self._client = Client(socket)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with contextlib.suppress(ServiceUnreachable):
            for record in self._client.events():
                self.records.append(record)

    @property
    def follows(self) -> bool:
        return bool(self.records)

    def told(self) -> list[bytes]:
        """As `swanmesh events --json` prints them, without what hooks are not told."""
        self._thread.join(20)
        quiet = ("action", "heartbeat")
        return [msgspec.json.encode(record) for record in self.records if record.kind not in quiet]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = tmp_path / "swanmesh.yaml"
    config.write_text(f"{CONFIG}charon: {{socket: charon.vici}}\nlog: {{format: json}}\n")
    (tmp_path / "peers.d").mkdir()
    place = ("--directory", str(tmp_path / "pki"))
    assert swanmesh(tmp_path, "ca", "init", *place) == 0
    assert swanmesh(tmp_path, "ca", "issue", "web1.mesh.example", "203.0.113.1", "2001:db8::1", *place) == 0
    return tmp_path


def swanmesh(folder: Path, *arguments: str) -> int:
    return main(["--config", str(folder / "swanmesh.yaml"), *arguments])


@contextlib.contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "swanmesh", "--config", str(folder / "swanmesh.yaml"), "run"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield process
        finally:
            process.kill()
            print((folder / "log").read_text())


def events_in(log: Path) -> list[str]:
    return [msgspec.json.decode(line, type=MeshEvent).kind for line in written(log)]


def test_hooks_hear_what_the_event_stream_shows(folder: Path) -> None:
    heard = folder / "heard"
    write_hook(folder / "hooks.d" / "10-hear", f'line=$(cat); printf "%s\\n" "$line" >> {heard}; echo thanks')

    async def play(service: subprocess.Popen[bytes]) -> Listener:
        charon = FakeCharon(folder / "charon.vici")
        await charon.start()
        await until(lambda: events_in(heard) == ["started"], "the start is told")
        listener = Listener(folder / "control.sock")
        await until(lambda: listener.follows, "the stream is followed")
        await until(lambda: '"charon answers"' in (folder / "log").read_text(), "charon was found")
        await asyncio.to_thread(swanmesh, folder, "add-peer", "web2", "203.0.113.2")
        await until(lambda: "peer-added" in events_in(heard), "a new peer is told")
        await charon.stop()
        await until(lambda: "charon-lost" in events_in(heard), "charon's loss is told")
        await charon.start()
        await until(lambda: "charon-back" in events_in(heard), "charon's return is told")
        await asyncio.to_thread(swanmesh, folder, "remove-peer", "web2")
        await until(lambda: "peer-removed" in events_in(heard), "the peer's removal is told")
        service.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(service.wait, 20) == 0
        await charon.stop()
        return listener

    with running(folder) as service:
        listener = asyncio.run(play(service))
    assert sorted(listener.told()) == sorted(line.encode() for line in written(heard)[1:])
    log = [msgspec.json.decode(line) for line in written(folder / "log")]
    runs = [line for line in log if "hook" in line]
    assert {(line["event"], line["hook"], line["output"]) for line in runs} == {
        ("hook done", "10-hear", "thanks")
    }
    done = [(line["told"], line["peer"], line["status"]) for line in runs]
    assert ("peer-added", "web2", 0) in done
    assert done[-1] == ("stopping", "", 0)


def test_a_hook_that_hangs_delays_neither_answers_nor_for_long_the_stop(folder: Path) -> None:
    pid = folder / "pid"
    text = (
        f"test $SWANMESH_EVENT = started || exit 0; echo $$ > {pid}; trap '' TERM; while :; do sleep 1; done"
    )
    write_hook(folder / "hooks.d" / "10-hang", text)
    write_hook(folder / "hooks.d" / "20-bad", "exit 0", mode=0o777)

    async def play(service: subprocess.Popen[bytes]) -> None:
        await until(pid.exists, "the hook hangs")
        client = Client(folder / "control.sock")
        assert (await asyncio.to_thread(client.status)).host.name == "web1.mesh.example"
        service.send_signal(signal.SIGTERM)
        await until(lambda: "stopping" in (folder / "log").read_text(), "the service is told to stop")
        # It answers hooks to the end.
        assert (await asyncio.to_thread(client.status)).host.name == "web1.mesh.example"
        began = time.monotonic()
        assert await asyncio.to_thread(service.wait, 60) == 0
        assert time.monotonic() - began < 20  # TimeoutStopSec of the unit

    with running(folder) as service:
        asyncio.run(play(service))
    assert not alive(pid)
    log = [msgspec.json.decode(line) for line in written(folder / "log")]
    refused = [line for line in log if line["event"] == "hooks" and "20-bad" in line["path"]]
    assert "can be changed by others (mode 0777)" in refused[0]["notice"]
    failed = [line["error"] for line in log if line["event"] == "hook failed"]
    assert failed == ["the service stops: ended with all of its processes"]
