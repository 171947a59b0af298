"""What probing thousands of peers costs: a service whose peers are up and answer, beside one that asks none.

`python -m bench.probe PORT` is the peers: whatever address is asked, it answers from there.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.processes import ROOT, WITH_US, Service, ended, fake_charon, service, usage
from bench.results import Line, Results, verdict
from bench.site import ADDRESS, build
from lab.waiting import wait_until
from swanmesh.core.model import ProbeSettings
from swanmesh.probe.datagram import ANSWER, ASK, decode

_SHARE = 0.01
_IPV6_FREEBIND = 78  # linux/in6.h
_PEERS = "2001:db8:1::/64"
_PORT = ProbeSettings().port
# Two namespaces; all peers are behind the one address of the other's link.
_HERE = (
    "ip link set lo up && ip link add v0 type veth peer name v1 netns {other} && ip link set v0 up"
    f" && ip address add {ADDRESS}/128 dev v0 nodad && ip address add fe80::a/64 dev v0 nodad"
    f" && ip route add {_PEERS} via fe80::b dev v0"
)
_THERE = (
    "ip link set lo up && ip link set v1 up && ip address add fe80::b/64 dev v1 nodad"
    f" && ip route add local {_PEERS} dev lo && ip route add {ADDRESS} via fe80::a dev v1"
)


def measure(results: Results, folder: Path, count: int, seconds: float) -> None:
    """One after the other: each has the machine to itself."""
    shares = [_share(folder / word, count, seconds, port) for word, port in (("off", 0), ("on", _PORT))]
    line = Line(
        what="probing: share of one CPU",
        ours=shares[1] * 100,
        theirs=shares[0] * 100,
        unit="%",
        goal=f"below {_SHARE:.0%}",
        met=verdict(count, shares[1] < _SHARE),
        note=f"over {seconds:.0f} s; beside it a service that probes nobody",
    )
    results.add(f"probes at {count:,} peers that are up and answer", line)


def _share(folder: Path, count: int, seconds: float, port: int) -> float:
    site = build(folder, count, probe={"port": port or "off"})
    with contextlib.ExitStack() as stack:
        charon = stack.enter_context(fake_charon(site))
        inside = stack.enter_context(_network())
        running: Service = stack.enter_context(service(site, charon, inside=inside))
        running.await_loads(count + 1)
        running.await_up()
        before, began = usage(running.pid), time.monotonic()
        while time.monotonic() - began < seconds:
            if running.process.poll() is not None:
                raise RuntimeError(f"the service ended with status {running.process.returncode}")
            time.sleep(1.0)
        return (usage(running.pid).cpu - before.cpu) / (time.monotonic() - began)


@contextlib.contextmanager
def _network() -> Iterator[int]:
    """The process in whose network namespace the service is to run; the peers run in another one."""
    commands = (("sleep", "infinity"), (sys.executable, "-m", "bench.probe", str(_PORT)))
    here, there = (
        subprocess.Popen((*WITH_US, "unshare", "--net", *command), cwd=ROOT) for command in commands
    )
    with ended(here), ended(there):
        own = _namespace("self")
        wait_until(
            lambda: own not in (_namespace(here.pid), _namespace(there.pid)), 20, "both have a network"
        )
        for process, text in ((here, _HERE.format(other=there.pid)), (there, _THERE)):
            command = ("nsenter", f"--net=/proc/{process.pid}/ns/net", "sh", "-c", text)
            subprocess.run(command, check=True)
        yield here.pid


def _namespace(process: int | str) -> int:
    return Path(f"/proc/{process}/ns/net").stat().st_ino


def _answer_all(port: int) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        sock.bind(("::", port))
        while True:
            data, about, _, sender = sock.recvmsg(2048, 256)
            asked = decode(data)
            if asked is not None and asked.kind == ASK:
                sock.sendmsg([asked._replace(kind=ANSWER).encode()], about, 0, sender)


if __name__ == "__main__":
    _answer_all(int(sys.argv[1]))
