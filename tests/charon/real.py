"""A real charon in a network namespace of its own: enough kernel for VICI and IKE, with or without ESP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import vici

from swanmesh.charon.client import Charon
from swanmesh.charon.rendering import render
from swanmesh.core.connections import Connection
from swanmesh.kernel.packet_filter import Filter, script

CHARON = "/usr/sbin/charon-systemd"
PREFIX = "swmvici"
"""Starts the name of each namespace made here, with the process that made it: PREFIX-PID-RANDOM."""

_CONFIGURATION = """
charon-systemd {{
  load_modular = yes
  install_routes = no
  retransmit_tries = 1
  retransmit_timeout = 0.3
  retransmit_base = 1
  half_open_timeout = 3
  make_before_break = yes
  plugins {{
    include /etc/strongswan.d/charon/*.conf
    vici {{ socket = unix://{socket} }}
    resolve {{ load = no }}
    updown {{ load = no }}
    systime-fix {{ load = no }}
  }}
  filelog {{ log {{ path = {log}
    default = 1
    flush_line = yes }} }}
}}
"""

_RESOURCES = (3, 4)
"""Statuses of iptables for what the kernel lacks."""


def available() -> bool:
    """Whether this machine can run one: root, iproute2 and charon-systemd."""
    return os.geteuid() == 0 and Path(CHARON).exists() and shutil.which("ip") is not None


def ip(*arguments: str) -> str:
    return subprocess.run(["/usr/sbin/ip", *arguments], check=True, capture_output=True, text=True).stdout


def remove_leftovers() -> None:
    """Ends what a crashed run left: namespaces of this prefix whose maker is gone, and what runs in them."""
    for line in ip("netns", "list").splitlines():
        name = line.split()[0]
        prefix, _, rest = name.partition("-")
        maker = rest.partition("-")[0]
        if prefix == PREFIX and maker.isdigit() and not Path("/proc", maker).exists():
            remove_namespace(name)


def remove_namespace(name: str) -> None:
    for pid in ip("netns", "pids", name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    ip("netns", "delete", name)


class RealCharon:
    """charon-systemd in a fresh namespace; `stop` or `kill` it, `start` it again."""

    def __init__(self, directory: Path) -> None:
        self.namespace = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(3)}"
        self.socket = directory / "charon.vici"
        self.log = directory / "charon.log"
        self._configuration = directory / "strongswan.conf"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text(_CONFIGURATION.format(socket=self.socket, log=self.log))
        ip("netns", "add", self.namespace)
        ip("-n", self.namespace, "link", "set", "lo", "up")

    def start(self) -> None:
        """Start it; it answers a little later."""
        self._process = subprocess.Popen(
            ["/usr/sbin/ip", "netns", "exec", self.namespace, CHARON],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "STRONGSWAN_CONF": str(self._configuration)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def answering(self, timeout: float = 10) -> None:
        """Return when it accepts connections; fail if it ended instead."""
        async with asyncio.timeout(timeout):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_unix_connection(self.socket)
                    writer.close()
                    return
                assert self._process is not None
                assert self._process.poll() is None, f"charon ended at once: {self.said()}"
                await asyncio.sleep(0.02)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(10)
            self._process = None

    def stop(self) -> None:
        """Stop all its threads; returns once the last of them has: until then they may still answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def remove(self) -> None:
        """End it and take its namespace away."""
        self.end(signal.SIGKILL)
        remove_namespace(self.namespace)

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else "(no log)"


def join(one: RealCharon, other: RealCharon, addresses: tuple[str, str]) -> None:
    """A cable between two of them."""
    ip(
        "-n",
        one.namespace,
        "link",
        "add",
        "v0",
        "type",
        "veth",
        "peer",
        "name",
        "v0",
        "netns",
        other.namespace,
    )
    for charon, address in zip((one, other), addresses, strict=True):
        ip("-n", charon.namespace, "address", "add", f"{address}/24", "dev", "v0")
        ip("-n", charon.namespace, "link", "set", "v0", "up")


async def load(running: RealCharon, client: Charon, wanted: Connection, *, together: bool = False) -> None:
    """Load what `running` is to initiate with, so that the IKE_SA comes up with ESP or without.

    Where the kernel refuses and the CHILD_SA was asked for `together` with the IKE_SA, as swanmesh does, 6.0
    answers without its identity. So there it is asked for afterwards (RFC 6023), and the IKE_SA stands as it
    does with 5.9.8.
    """
    assert set((await client.load_connections([wanted])).values()) == {None}
    if not (together or has_esp(running.namespace)):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(running.socket))
            vici.Session(stream).load_conn({wanted.name: {**render(wanted), "childless": "force"}})


def has_esp(namespace: str) -> bool:
    """Whether the kernel can take what swanmesh asks for."""
    state = ["src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "spi", "0x1000"]
    try:
        ip(
            *("-n", namespace, "xfrm", "state", "add", *state, "mode", "transport"),
            *("aead", "rfc4106(gcm(aes))", f"0x{'01' * 20}", "128"),
        )
    except subprocess.CalledProcessError:
        return False
    ip("-n", namespace, "xfrm", "state", "delete", *state)
    return True


def translate(namespace: str, destination: str, source: str) -> None:
    """From now on UDP to `destination` leaves the namespace from another of its addresses. Skips the test
    where the kernel has no NAT, as Debian 13's user-mode Linux has none."""
    rule = ["POSTROUTING", "-p", "udp", "-d", destination, "-j", "SNAT", "--to-source", source]
    try:
        ip("netns", "exec", namespace, "iptables", "-t", "nat", "-A", *rule)
    except subprocess.CalledProcessError as failed:
        if failed.returncode not in _RESOURCES:
            raise
        pytest.skip(f"this kernel has no NAT: {failed.stderr.strip()}")


def put_filter(namespace: str, wanted: Filter) -> None:
    """The packet filter that the service would put there. Skips the test where nft cannot."""
    nft = ["netns", "exec", namespace, "nft"]
    try:
        ip(*nft, "add", "table", "inet", "swanmesh")
    except subprocess.CalledProcessError as failed:
        pytest.skip(f"takes nft, and a kernel with its inet family: {failed.stderr.strip()}")
    subprocess.run(["/usr/sbin/ip", *nft, "-f", "-"], input=script(wanted), text=True, check=True)
