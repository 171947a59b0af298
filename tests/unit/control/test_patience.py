"""How long a client waits for a service that says nothing: as long as it works, and no longer."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swanmesh.control.client import Client, ServiceTimeout

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
LISTEN = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
caller, _ = listener.accept()
caller.recv(65536)
"""


@contextlib.contextmanager
def service(path: Path, then: str) -> Iterator[None]:
    """Another process that takes one request, and then does this."""
    program = LISTEN + then
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swanmesh.control.client._PATIENCE", 0.2)


def test_one_that_works_may_be_slow(tmp_path: Path) -> None:
    work = f"end = time.process_time() + 1\nwhile time.process_time() < end: pass\ncaller.sendall({ANSWER!r})"
    with service(tmp_path / "control.sock", work):
        Client(tmp_path / "control.sock").health()


def test_another_thread_of_it_may_do_the_work(tmp_path: Path) -> None:
    work = (
        "import hashlib, threading\n"
        "def work():\n"
        "    end = time.process_time() + 1\n"
        "    while time.process_time() < end: hashlib.sha256(bytes(1000000))\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        f"thread.join()\ncaller.sendall({ANSWER!r})"
    )
    with service(tmp_path / "control.sock", work):
        Client(tmp_path / "control.sock").health()


def test_one_that_works_for_ever_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with service(path, "while True: pass"), pytest.raises(ServiceTimeout, match="nothing within 1 s"):
        Client(path, timeout=1.0).health()


def test_one_that_sleeps_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    said = r"its process \d+ does nothing.*systemctl status swanmesh"
    with service(path, "time.sleep(1000)"), pytest.raises(ServiceTimeout, match=said):
        Client(path, timeout=1000).health()
