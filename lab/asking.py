"""What the hosts' controllers say: their status, their plan, and what they wrote down."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from lab.host import Host
from lab.mesh import Mesh, address_pairs
from lab.waiting import wait_until
from swanmesh.control.client import Client

Spis = frozenset[tuple[str, str, str]]


def status(host: Host) -> dict[str, Any]:
    """What `status --json` shows, without a process for it: those cost seconds in user-mode Linux."""
    return dict(json.loads(Client(host.control_socket).status_json()))


def view(host: Host, other: Host, *, fresh: bool = False) -> dict[str, Any]:
    """What `host` says of its peer `other`. `fresh`: once it has looked at charon and the kernel."""
    told = Client(host.control_socket).status_json([other.name], fresh=fresh)
    return dict(json.loads(told)["peers"][0])


def plan(host: Host) -> list[str]:
    """What `host` would do now or later, each as `action target: reason`."""
    actions = Client(host.control_socket).plan().actions
    return [f"{action.action} {action.target}: {action.reason}" for action in actions]


def wait_until_idle(hosts: Iterable[Host], timeout: float = 30) -> None:
    """Waits until no host plans anything. Raises TimeoutError with what is planned."""
    for host in hosts:
        wait_until(partial(_nothing_planned, host), timeout, f"{host.short} plans nothing")


def pair_spis(host: Host, other: Host) -> Spis:
    """The SPIs of `host`'s ESP states with `other`, both directions."""
    ends = {end for pair in address_pairs(host, other) for end in (pair, pair[::-1])}
    return frozenset(spi for spi in host.spis() if spi[:2] in ends)


def full(lab: Mesh) -> Mesh:
    """Everything started and up."""
    lab.start()
    lab.wait_until_full()
    return lab


def everyone_up(hosts: list[Host]) -> None:
    """Waits until every controller says so of all its peers."""
    for host in hosts:
        host.swanmesh("wait", "--timeout", "60", timeout=90)


def names(host: Host, other: Host) -> list[str]:
    """Connections that `host`'s charon holds for `other`."""
    return [name for name in host.connections() if name.startswith(f"swanmesh-{other.name}-")]


def end_faults(host: Host, other: Host) -> Iterator[str]:
    """What `host`'s kernel lacks of what its charon has with `other`: states, and policies both ways."""
    held = {spi for _, _, spi in pair_spis(host, other)}
    sas = [sa for sa in host.sas() if sa["remote-host"] in other.addresses]
    used = {child[key] for sa in sas for child in sa["child-sas"].values() for key in ("spi-in", "spi-out")}
    if not used <= held:
        yield f"{host.short}'s kernel lacks states with {other.short}"
    policies = host.exec("ip", "xfrm", "policy").stdout
    for local, remote in address_pairs(host, other):
        for source, destination in ((local, remote), (remote, local)):
            if f"src {_net(source)} dst {_net(destination)} " not in policies:
                yield f"{host.short}'s kernel lacks the policy from {source} to {destination}"


def unanswered(host: Host, other: Host) -> Iterator[str]:
    """Exchanges of `host`'s charon that `other` has not answered: if all that is sent again was lost, the
    association ends seconds after the cable was mended."""
    for sa in host.sas():
        if sa["remote-host"] in other.addresses and sa.get("tasks-active"):
            yield f"{host.short} waits for {other.short}'s answer to {', '.join(sa['tasks-active'])}"


def lacking(host: Host, others: Iterable[Host]) -> Iterator[str]:
    """What `host`'s charon should have been loaded with, and was not."""
    loaded = host.connections()
    for other in others:
        count = sum(name.startswith(f"swanmesh-{other.name}-") for name in loaded)
        if count != len(address_pairs(host, other)):
            yield f"{host.short}'s charon holds {count} connections for {other.short}"
    with host.vici() as session:
        if not session.get_keys().get("keys"):
            yield f"{host.short}'s charon holds no private key"


def _net(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


class Journal:
    """What a host's controller writes down from now on."""

    def __init__(self, host: Host) -> None:
        self._path = host.swanmesh_log
        self._start = self._path.stat().st_size if self._path.exists() else 0

    def lines(self, *events: str, peer: Host | None = None) -> list[dict[str, str]]:
        """The lines of these events (all, if none is named), about one peer if that is given."""
        return [
            line
            for line in self._lines()
            if (not events or line.get("event") in events) and (peer is None or line.get("peer") == peer.name)
        ]

    def actions(self) -> list[dict[str, str]]:
        """The lines that tell of an action."""
        return [line for line in self._lines() if "target" in line]

    def _lines(self) -> Iterator[dict[str, str]]:
        with self._path.open(errors="replace") as log:
            log.seek(self._start)
            for line in log:
                # Of a traceback's lines none is of this shape, and none may be passed over.
                words = shlex.split(line) if line.startswith("timestamp=") else [f"event={line!r}"]
                yield dict(word.split("=", 1) for word in words if "=" in word)


def _nothing_planned(host: Host) -> _Nothing:
    return _Nothing(plan(host))


class _Nothing(list[str]):
    """A list that is true when it is empty: `wait_until` shows what is left."""

    def __bool__(self) -> bool:
        return not len(self)
