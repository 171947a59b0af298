"""Processes under measurement: a charon, the service, and what /proc tells of them."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import vici

from bench.site import ADDRESS, Site
from lab.waiting import wait_until
from swanmesh.control.client import Client
from swanmesh.core.events import MeshEvent

ROOT = Path(__file__).parents[1]
CHARON = "/usr/sbin/charon-systemd"
SWANMESH = (sys.executable, "-m", "swanmesh")
_UNIT = ROOT / "systemd/swanmesh.service"
_SETTINGS = ROOT / "conf/strongswan.d/swanmesh.conf"
_CONFIGURATION = """\
include {settings}
charon-systemd {{
  load = random nonce x509 revocation constraints pubkey pkcs1 pkcs8 pem openssl kdf hmac gcm kernel-netlink \
socket-default counters vici
  plugins {{ vici {{ socket = unix://{socket} }} }}
  filelog {{ log {{ path = {log}
    default = 0 }} }}
}}
"""
# A link that leads nowhere: who is called does not answer, as a host that is down.
_NETWORK = (
    "ip link set lo up && ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up"
    " && ip address add {address}/32 dev v0 nodad"
)
WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: the kernel ends it with us, however that comes."""
_INITIATION = b" event=initiate "
_SELDOM = 5
"""Initiations a second: peers that have failed often are tried at 2 a second, all others much faster."""
_WHILE = 15.0
_CPU_TICK = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The process, asked to end at the end, and killed if it does not."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def charon(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """A fresh charon with the shipped settings, in a network namespace of its own that ends with it."""
    conf = site.folder / "strongswan.conf"
    conf.write_text(
        _CONFIGURATION.format(settings=_SETTINGS, socket=site.charon_socket, log=site.folder / "charon.log")
    )
    network = _NETWORK.format(address=ADDRESS)
    command = (
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--net",
        "sh",
        "-c",
        f"{network} && exec {CHARON}",
    )
    process = subprocess.Popen(
        command,
        env=os.environ | {"STRONGSWAN_CONF": str(conf)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with ended(process):
        wait_until(lambda: answers(site.charon_socket), 20, "charon answers", interval=0.02)
        yield process


@contextlib.contextmanager
def fake_charon(site: Site, shown: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A charon whose every peer comes up by itself, with its certificate in the file `shown`; see `fake`."""
    arguments = (str(site.charon_socket), *([str(shown)] if shown is not None else []))
    process = subprocess.Popen((*WITH_US, sys.executable, "-m", "bench.fake", *arguments), cwd=ROOT)
    with ended(process):
        wait_until(lambda: answers(site.charon_socket), 20, "the fake charon answers", interval=0.02)
        yield process


def answers(socket_path: Path) -> bool:
    with vici_session(socket_path) as session:
        return bool(session.version())


@contextlib.contextmanager
def vici_session(socket_path: Path) -> Iterator[vici.Session]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(socket_path))
        yield vici.Session(connection)


def held(socket_path: Path) -> dict[str, tuple[str, ...]]:
    """The connections that a charon holds, with the names of their children."""
    with vici_session(socket_path) as session:
        return {name: tuple(body["children"]) for item in session.list_conns() for name, body in item.items()}


class Service:
    """A running `swanmesh run`, its log, and its event stream."""

    def __init__(self, site: Site, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.client = Client(site.control_socket)
        self._log = log
        self._offset = 0
        self._loads = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    def await_loads(self, count: int, timeout: float = 120) -> None:
        """Until it has loaded so many connections in its life, by its log."""
        wait_until(lambda: self._loaded() >= count, timeout, f"{count} are loaded", interval=0.005)

    def _loaded(self) -> int:
        if self.process.poll() is not None:
            raise RuntimeError(f"the service ended: {self._log.read_text()[-1000:]}")
        with self._log.open("rb") as log:
            log.seek(self._offset)
            whole, _, _ = log.read().rpartition(b"\n")
        self._offset += len(whole) + 1 if whole else 0
        self._loads += sum(b" event=load " in line + b" " for line in whole.splitlines())
        return self._loads

    def await_up(self, timeout: float = 120) -> None:
        """Until every peer is up."""
        missing = self.client.wait((), timeout).missing
        if missing:
            raise RuntimeError(f"{len(missing)} peers did not come up: {next(iter(missing.items()))}")

    def await_rest(self, timeout: float = 900) -> None:
        """Until every peer has been tried, and those that do not answer are tried seldom."""

        def resting() -> bool:
            before = self._log.read_bytes().count(_INITIATION)
            time.sleep(_WHILE)
            return self._log.read_bytes().count(_INITIATION) - before <= _SELDOM * _WHILE

        wait_until(resting, timeout, "it tries few of those that do not answer", interval=0)

    def requests(self) -> int:
        """VICI requests in its life."""
        for line in self.client.metrics().decode().splitlines():
            if line.startswith("swanmesh_vici_requests_total "):
                return int(float(line.split()[1]))
        raise RuntimeError("the service does not tell how many VICI requests it made")

    @contextlib.contextmanager
    def events(self) -> Iterator[queue.SimpleQueue[tuple[float, MeshEvent]]]:
        """Everything that happens from now on, with the moment at which it was told."""
        told: queue.SimpleQueue[tuple[float, MeshEvent]] = queue.SimpleQueue()

        def follow() -> None:
            with contextlib.suppress(Exception):
                for record in self.client.events():
                    told.put((time.monotonic(), record))

        threading.Thread(target=follow, daemon=True).start()
        told.get(timeout=10)  # the heartbeat: it listens
        yield told


@contextlib.contextmanager
def service(site: Site, charon: subprocess.Popen[bytes], *, inside: int = 0) -> Iterator[Service]:
    """`swanmesh run` from its start on, on the host of this charon, or in the network namespace of another
    process."""
    log = site.folder / "swanmesh.log"
    network = ("nsenter", f"--net=/proc/{inside}/ns/net") if inside else ()
    with log.open("wb") as output:
        process = subprocess.Popen(
            (*WITH_US, *network, *_beside(charon), *SWANMESH, "--config", str(site.config), "run"),
            cwd=ROOT,
            env=os.environ | _unit_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    with ended(process):
        yield Service(site, process, log)


def _unit_environment() -> dict[str, str]:
    """What systemd gives the service beside its own."""
    settings = (line.partition("=") for line in _UNIT.read_text().splitlines())
    return dict(value.split("=", 1) for key, _, value in settings if key == "Environment")


def is_real(charon: subprocess.Popen[bytes]) -> bool:
    """Whether it is strongSwan's."""
    return CHARON in Path(f"/proc/{charon.pid}/cmdline").read_text()


def _beside(charon: subprocess.Popen[bytes]) -> tuple[str, ...]:
    if is_real(charon):
        return ("nsenter", f"--net=/proc/{charon.pid}/ns/net")
    # A charon that installs nothing in any kernel: looked at, the kernel would seem to have lost it all.
    return ("setpriv", "--bounding-set", "-net_admin")


@dataclass(frozen=True)
class Usage:
    """What a process has used: seconds of CPU since its start, bytes now."""

    cpu: float
    rss: int
    pss: int


def usage(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    memory = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, value, *_ = line.split()
        memory[key] = int(value) * 1024
    return Usage((int(fields[11]) + int(fields[12])) / _CPU_TICK, memory["Rss:"], memory["Pss:"])


def timed(command: tuple[str, ...]) -> float:
    """Seconds that a whole process takes. Raises RuntimeError if it fails."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr[-1000:]}")
    return took


def load_conns(site: Site, conf: Path | None = None) -> tuple[str, ...]:
    """The command line of swanctl's that loads the site's connections."""
    uri = f"unix://{site.charon_socket}"
    return ("swanctl", "--load-conns", "--uri", uri, "--file", str(conf or site.swanctl_conf))


def list_sas(site: Site) -> tuple[str, ...]:
    return ("swanctl", "--list-sas", "--uri", f"unix://{site.charon_socket}")
