"""A service that begins with files that are not valid waits for good ones, and says so."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swanmesh.cli.main import main

CONFIG = """\
host: {name: web1.mesh.example, addresses: [203.0.113.1]}
credentials:
  certificate: pki/web1.mesh.example.pem
  private_key: pki/web1.mesh.example.key
  authorities: [pki/ca.pem]
charon: {socket: charon.vici}
control: {socket: control.sock}
"""


@contextlib.contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "swanmesh", "--config", str(folder / "swanmesh.yaml"), "run"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield process
        finally:
            process.kill()


def until(process: subprocess.Popen[bytes], folder: Path, words: str) -> None:
    """Waits until the log has these words; fails if the service ends before."""
    end = time.monotonic() + 60
    while words not in (log := (folder / "log").read_text()):
        assert process.poll() is None and time.monotonic() < end, log
        time.sleep(0.02)


@pytest.mark.parametrize("wrong", ["no configuration", "a slip in it", "no certificate"])
def test_it_waits_for_good_files(tmp_path: Path, wrong: str) -> None:
    config, place = tmp_path / "swanmesh.yaml", ("--directory", str(tmp_path / "pki"))
    config.write_text(CONFIG)
    (tmp_path / "peers.d").mkdir()
    if wrong == "no configuration":
        config.unlink()
    elif wrong == "a slip in it":
        config.write_text(CONFIG.replace("host:", "hots:"))
    if wrong != "no certificate":
        make_credentials(config, place)
    with running(tmp_path) as service:
        until(service, tmp_path, "waiting until that is put right")
        assert str(tmp_path) in (tmp_path / "log").read_text()
        config.write_text(CONFIG)
        if wrong == "no certificate":
            make_credentials(config, place)
        until(service, tmp_path, "started")
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0


def make_credentials(config: Path, place: tuple[str, str]) -> None:
    for arguments in (("init",), ("issue", "web1.mesh.example", "203.0.113.1")):
        assert main(["--config", str(config), "ca", *arguments, *place]) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_waiting(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as service:
        until(service, tmp_path, "waiting until that is put right")
        service.send_signal(number)
        assert service.wait(30) == 0
