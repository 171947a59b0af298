"""An iperf3 of ours, and two ends of a measurement on loopback, where there is no ESP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from swanmesh.core.model import AddressPair
from swanmesh.throughput.asking import Session, session
from swanmesh.throughput.offering import Offering

HERE, THERE, ELSEWHERE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
MBIT = 912_000_000

_PROGRAM = """\
#!{python} -IS
import json, os, pathlib, socket, sys, time
folder = pathlib.Path(__file__).parent
words = sys.argv[1:]
mode = (folder / "mode").read_text()
value = lambda name: words[words.index(name) + 1]
side = "client" if "--client" in words else "server"
with open(folder / "ran", "a") as ran:
    ran.write(json.dumps([side, os.getpid(), os.geteuid(), *words]) + "\\n")
if side == "server":
    listening = socket.create_server((value("--bind"), int(value("--port"))))
    print("Server listening on", value("--port"), flush=True)
    connection, there = listening.accept()
    who = "203.0.113.9" if mode == "stranger" else there[0]
    print(f"Accepted connection from {{who}}, port {{there[1]}}")
    print("[  5]   0.00-1.00   sec   109 MBytes   912 Mbits/sec", flush=True)
    connection.recv(1)
else:
    connection = socket.create_connection((value("--client"), int(value("--port"))), 5, (value("--bind"), 0))
    if mode in ("hang", "stranger"):
        time.sleep(600)
    if mode == "garbage":
        print("no JSON at all")
    elif mode == "error":
        print(json.dumps({{"start": {{}}, "error": "the server is busy"}}))
    elif mode == "flood":
        while True:
            print("x" * 65536)
    else:
        sums = {{"sum_sent": {{"retransmits": 3}}, "sum_received": {{"bits_per_second": {mbit}}}}}
        print(json.dumps({{"end": sums}}))
"""


class FakeIperf:
    """What runs in place of iperf3, and how: `mode` is `well`, `hang`, `garbage`, `error`, `flood` or
    `stranger`. In a folder that nobody may read and write, since it runs as nobody."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        program = folder / "iperf3"
        program.write_text(_PROGRAM.format(python=Path(sys.executable).resolve(), mbit=MBIT))
        program.chmod(0o755)
        (folder / "ran").touch()
        (folder / "ran").chmod(0o666)
        folder.chmod(0o755)
        self.mode = "well"

    @property
    def mode(self) -> str:
        return (self._folder / "mode").read_text()

    @mode.setter
    def mode(self, mode: str) -> None:
        (self._folder / "mode").write_text(mode)

    def ran(self, side: str) -> list[list[str]]:
        """Process id, user and arguments of each that ran as `client` or `server`."""
        lines = [json.loads(line) for line in (self._folder / "ran").read_text().splitlines()]
        return [[str(word) for word in words[1:]] for words in lines if words[0] == side]

    def running(self) -> list[str]:
        """Process ids of those that still run."""
        pids = [words[0] for side in ("client", "server") for words in self.ran(side)]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@contextlib.contextmanager
def fake_iperf(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIperf]:
    folder = Path(tempfile.mkdtemp(prefix="swanmesh-iperf-"))
    monkeypatch.setenv("PATH", f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin")
    try:
        yield FakeIperf(folder)
    finally:
        shutil.rmtree(folder)


def unprotected(sock: socket.socket) -> None:
    """In place of what takes a kernel with ESP."""


def free_port() -> int:
    with socket.create_server((THERE, 0)) as sock:
        return int(sock.getsockname()[1])


class Other:
    """The other host: its peers, by address, and what it told its log."""

    def __init__(self, *peers: str, protect: Callable[[socket.socket], None] = unprotected) -> None:
        self.peers = {address: f"web-{address}" for address in peers or (HERE, ELSEWHERE)}
        self.told: list[tuple[str, dict[str, str]]] = []
        self.port = free_port()
        self.offering = Offering(
            lambda pair: self.peers.get(str(pair.remote), ""),
            lambda words, **facts: self.told.append((words, facts)),
            protect=protect,
        )

    def allow(self, yes: bool = True) -> None:
        self.offering.configure([ip_address(THERE)], self.port if yes else None)

    @contextlib.asynccontextmanager
    async def asked(self, by: str = HERE) -> AsyncIterator[Session]:
        pair = AddressPair(ip_address(by), ip_address(THERE))
        async with session(pair, self.port, protect=unprotected) as made:
            yield made


@contextlib.asynccontextmanager
async def other(*peers: str) -> AsyncIterator[Other]:
    """One that takes part."""
    made = Other(*peers)
    made.allow()
    try:
        yield made
    finally:
        await made.offering.close()


async def until_none_runs(iperf: FakeIperf) -> None:
    async with asyncio.timeout(10):
        while iperf.running():  # noqa: ASYNC110 - processes of another user, told of by nobody
            await asyncio.sleep(0.02)
