"""The guard of thousands of peers: to apply it, to change it, and what it costs a packet.

What is measured runs in a network namespace of its own, with this kernel: it needs no ESP.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.results import Line, Results
from swanmesh.core.guard.policies import Cover, Ground, Part, policies_of
from swanmesh.core.xfrm import Direction, XfrmPolicy
from swanmesh.kernel import boot, netlink
from swanmesh.kernel.guard import FILE, standing, write_file

_PACKETS = 100_000
_FIRST = int(ipaddress.IPv4Address("198.18.0.0"))
_SOMEBODY = ("203.0.113.2", 9)
"""No peer: each packet there is looked up among all policies."""
_DEVICE = (
    "link add v0 type veth peer name v1",
    "addr add 203.0.113.1/24 dev v0",
    "link set v0 up",
    "link set v1 up",
    f"neigh add {_SOMEBODY[0]} lladdr 02:00:00:00:00:02 dev v0",
)
_IP_SAYS = {Direction.IN: "in", Direction.OUT: "out", Direction.FORWARD: "fwd"}


def measure(results: Results, folder: Path, count: int, rounds: int) -> None:
    """Each round in a namespace of its own; medians."""
    took: dict[str, list[float]] = {}
    for _ in range(rounds):
        command = ("unshare", "--net", sys.executable, "-m", "bench.guard", str(folder), str(count))
        answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        for what, seconds in answer.items():
            took.setdefault(what, []).append(seconds)
    median = {what: statistics.median(seconds) for what, seconds in took.items()}
    results.add(
        f"the guard of {count:,} peers (ip -batch; beside no guard)",
        Line(what="at boot, from the start of the process", ours=median["boot"], theirs=median["ip -batch"]),
        Line(what="one peer more", ours=median["one more"], theirs=median["one more, none"]),
        Line(
            what=f"{_PACKETS:,} packets to somebody else",
            ours=median["packets"],
            theirs=median["packets, none"],
            note="one lookup each: no connected socket",
        ),
    )


def _covers(first: int, count: int) -> list[Part]:
    addresses = (ipaddress.IPv4Address(_FIRST + first + number) for number in range(count))
    return [Cover(address, 32, closed=True, source=str(address)) for address in addresses]


def _inside(folder: Path, count: int) -> dict[str, float]:
    """In a namespace that nothing else is in."""
    for words in _DEVICE:
        _ip(*words.split())
    parts = [Ground(4), *_covers(0, count)]
    took = {"packets, none": _timed(_send), "one more, none": _timed(lambda: _put(_covers(count, 1)))}
    write_file(folder, parts)
    apply = (sys.executable, "-I", "-S", boot.__file__, str(folder / FILE))
    took["boot"] = _timed(lambda: subprocess.run(apply, check=True))
    _must_hold(3 * (count + 1) + len(policies_of(Ground(4))))
    took["one more"] = _timed(lambda: _put(_covers(count + 1, 1)))
    took["packets"] = _timed(_send)
    _ip("xfrm", "policy", "flush")
    batch = folder / "batch"
    batch.write_text(
        "".join(_as_ip_has_it(policy) for part in parts for policy in policies_of(part).values())
    )
    took["ip -batch"] = _timed(lambda: _ip("-batch", str(batch)))
    return took


def _timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def _ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True)  # noqa: S607 - wherever this system has it


def _send() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(_PACKETS):
            sender.sendto(b"x", _SOMEBODY)


def _put(parts: Iterable[Part]) -> None:
    policies = [policy for part in parts for policy in policies_of(part).values()]
    refused = boot.apply(b"".join(netlink.changes(policies, ())))
    if refused:
        raise RuntimeError(f"the kernel refused {len(refused)} policies: {refused[0]}")


def _must_hold(count: int) -> None:
    if (held := len(standing())) != count:
        raise RuntimeError(f"the kernel holds {held} policies, not {count}")


def _as_ip_has_it(policy: XfrmPolicy) -> str:
    """The selector's user is not for ip(8) to set, so theirs bear no mark."""
    upper = ""
    if policy.protocol:
        upper = f" proto {policy.protocol} type {policy.source_port} code {policy.destination_port}"
    return (
        f"xfrm policy add src {policy.source}/{policy.source_bits} "
        f"dst {policy.destination}/{policy.destination_bits}{upper} dir {_IP_SAYS[policy.direction]} "
        f"action {'allow' if policy.allow else 'block'} priority {policy.priority}\n"
    )


if __name__ == "__main__":
    json.dump(_inside(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout)
