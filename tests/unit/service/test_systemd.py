"""What systemd is told, over real sockets."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swanmesh.service.systemd import Notifier

REPOSITORY = Path(__file__).parents[3]


class Systemd:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(5)

    def heard(self) -> str:
        return self.socket.recv(4096).decode()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    abstract = f"@swanmesh-test-{os.getpid()}"
    listening = Systemd(abstract if request.param == "abstract" else str(tmp_path / "notify"))
    yield listening
    listening.socket.close()


def test_what_is_told(systemd: Systemd) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.address})
    notifier.ready()
    assert systemd.heard() == "READY=1"
    notifier.ready("12 of 12 peers up")
    assert systemd.heard() == "READY=1\nSTATUS=12 of 12 peers up"
    notifier.status("waiting for charon")
    assert systemd.heard() == "STATUS=waiting for charon"
    notifier.watchdog()
    assert systemd.heard() == "WATCHDOG=1"
    notifier.stopping()
    assert systemd.heard() == "STOPPING=1"
    notifier.close()
    notifier.ready()


def test_a_reload_carries_its_time(systemd: Systemd) -> None:
    before = time.monotonic_ns() // 1000
    Notifier({"NOTIFY_SOCKET": systemd.address}).reloading()
    match = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", systemd.heard())
    assert match
    assert before <= int(match[1]) <= time.monotonic_ns() // 1000


def test_a_status_stays_one_line(systemd: Systemd) -> None:
    Notifier({"NOTIFY_SOCKET": systemd.address}).status("one\nREADY=1\ttwo")
    assert systemd.heard() == "STATUS=one READY=1 two"


@pytest.mark.parametrize(
    "address", ["", "relative", "/nonexistent/notify", "@nobody-listens-here", "vsock:2:1"]
)
def test_without_systemd_nothing_happens(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address} if address else {})
    notifier.ready("x")
    notifier.watchdog()


def test_a_systemd_that_does_not_read_is_not_waited_for_for_long(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    systemd.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    notifier = Notifier({"NOTIFY_SOCKET": systemd.address})
    begun, told = time.monotonic(), 0
    while time.monotonic() - begun < 0.2:  # until one of them had to wait
        notifier.status("x" * 1000)
        told += 1
        assert told < 100_000
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_how_often_a_sign_of_life_is_due(environment: dict[str, str], interval: float | None) -> None:
    assert Notifier(environment, pid=77).watchdog_interval == interval


def test_the_unit_is_ordered_after_strongswan_and_not_bound_to_it() -> None:
    lines = (REPOSITORY / "systemd" / "swanmesh.service").read_text().splitlines()
    settings = [line.partition("=")[::2] for line in lines if line and line[0] not in "#["]
    assert any("strongswan.service" in value.split() for key, value in settings if key == "After")
    binding = {"Requires", "BindsTo", "PartOf", "Requisite", "Upholds", "PropagatesStopTo"}
    assert not [key for key, value in settings if key in binding and "strongswan" in value]


@pytest.mark.parametrize("measured", [False, True])
def test_the_unit_is_valid_and_stays_hardened(tmp_path: Path, measured: bool) -> None:
    text = (REPOSITORY / "systemd" / "swanmesh.service").read_text()
    unit = tmp_path / "swanmesh.service"
    unit.write_text(text.replace("/usr/local/bin/swanmesh", "/bin/true"))
    if measured:
        drop_in = tmp_path / "swanmesh.service.d/bench.conf"
        drop_in.parent.mkdir()
        shutil.copy(REPOSITORY / "conf/bench.conf.disabled", drop_in)
    analyze = "/usr/bin/systemd-analyze"
    verify = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (verify.returncode, verify.stdout + verify.stderr) == (0, "")
    # Exposure 2.1 of 10 with systemd 252, and 2.6 where peers may measure; the threshold is ten times that.
    argv = [analyze, "security", "--offline=true", f"--threshold={27 if measured else 25}", str(unit)]
    security = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert security.returncode == 0, security.stdout[-300:]
