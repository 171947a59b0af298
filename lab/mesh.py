"""Meshes of hosts on one switch."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import evidence, namespaces, starving
from lab.captures import Capture
from lab.credentials import Authority
from lab.host import Host
from lab.links import Link
from lab.namespaces import Namespace
from lab.waiting import wait_until

ROOM = Path("/run/swanmesh-lab/mesh")
"""Folder of the running mesh; what a crashed run left in it is removed first. The folder above it is this
run's own, whatever else runs on this kernel (native-init)."""

BRIDGE = "br0"
"""The switch itself: a capture on it sees what all its ports bring in."""

_open: list[Mesh] = []

_IPV4 = ("192.0.2", "198.51.100", "203.0.113")
_DOMAIN = "mesh.example"


@dataclass
class Mesh:
    """Hosts on one switch. Index, iterate, take its length: those are its hosts."""

    hosts: list[Host]
    switch: Namespace
    authority: Authority
    members: int
    """The first so many hosts have each other in peers.d; the rest stand by."""
    _suspect: int = field(default=0, repr=False)
    _captures: list[Capture] = field(default_factory=list, repr=False)

    def __getitem__(self, index: int) -> Host:
        return self.hosts[index]

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts)

    def __len__(self) -> int:
        return len(self.hosts)

    def start_charons(self, timeout: float = 120) -> None:
        """Starts every charon at once and waits for all."""
        for host in self:
            host.launch_charon()
        for host in self:
            host.await_charon(timeout)

    def start_controllers(self, timeout: float = 120) -> None:
        """Starts `swanmesh run` on every host at once and waits for all control sockets."""
        for host in self:
            host.launch_swanmesh()
        for host in self:
            host.await_swanmesh(timeout)

    def start(self) -> None:
        """Charons, then controllers."""
        self.start_charons()
        self.start_controllers()

    def faults(self, hosts: list[Host] | None = None) -> Iterator[str]:
        """What is not as it should be between `hosts` (the members), by the word of their charons:
        each address pair has exactly one IKE_SA, and that exactly one CHILD_SA, INSTALLED in transport mode.
        """
        hosts = hosts or self.hosts[: self.members]
        # The host that was at fault last comes first: a waiting caller mostly asks only that one.
        start = self._suspect % len(hosts)
        for host in hosts[start:] + hosts[:start]:
            for fault in host_faults(host, [other for other in hosts if other is not host]):
                self._suspect = hosts.index(host)
                yield fault

    def wait_until_full(self, timeout: float = 60, hosts: list[Host] | None = None) -> None:
        """Waits until `hosts` (the members) have no fault. Raises TimeoutError naming one that is left."""
        last = "nothing was looked at"

        def full() -> bool:
            nonlocal last
            fault = next(self.faults(hosts), None)
            last = fault or ""
            return fault is None

        try:
            wait_until(full, timeout, "the mesh is full", interval=0.2)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {last}") from None

    def capture(self) -> Capture:
        """Captures on the switch: each packet that any host's cable brings in, once."""
        capture = Capture(self.switch, BRIDGE, ROOM / f"capture-{len(self._captures)}.pcap")
        self._captures.append(capture)
        return capture

    def end_all(self) -> None:
        """Kills what the hosts and the switch run."""
        for capture in self._captures:
            capture.kill()
        for host in self:
            host.end_all()

    def spis(self) -> dict[str, frozenset[tuple[str, str, str]]]:
        """Every host's kernel SPIs, by short name."""
        return {host.short: host.spis() for host in self}


def address_pairs(one: Host, other: Host) -> list[tuple[str, str]]:
    """Every address of `one` with every address of `other` of the same family."""
    return [
        (mine, theirs)
        for mine, theirs in itertools.product(one.addresses, other.addresses)
        if (":" in mine) == (":" in theirs)
    ]


def host_faults(host: Host, others: list[Host]) -> Iterator[str]:
    """Faults of one host's end of its associations with `others`; see Mesh.faults."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for sa in host.sas():
        found.setdefault((sa["local-host"], sa["remote-host"]), []).append(sa)
    for other in others:
        for pair in address_pairs(host, other):
            yield from (
                f"{host.short} to {other.short}, {pair[0]} to {pair[1]}: {fault}"
                for fault in _pair_faults(found.get(pair, []))
            )


def _pair_faults(sas: list[dict[str, Any]]) -> Iterator[str]:
    if len(sas) != 1:
        yield f"{len(sas)} IKE_SAs ({', '.join(sa['state'] for sa in sas) or 'none'})"
        return
    children = list(sas[0]["child-sas"].values())
    states = [f"{child['state']} {child['mode']}" for child in children]
    if states != ["INSTALLED TRANSPORT"]:
        yield f"IKE_SA {sas[0]['state']} with {', '.join(states) or 'no CHILD_SA'}"
    elif sas[0]["state"] not in ("ESTABLISHED", "REKEYING"):
        yield f"IKE_SA {sas[0]['state']}"


@contextlib.contextmanager
def mesh(
    count: int, *, ipv4: int = 1, ipv6: int = 0, spare: int = 0, name: str = "", **sections: Any
) -> Iterator[Mesh]:
    """`count` hosts that know each other, and `spare` ones that nobody knows, nothing started.

    Each has `ipv4` and `ipv6` addresses, a certificate, and `sections` in its swanmesh.yaml. What fails
    inside leaves each host's logs and state in a folder named by the exception; it is called `name`, or
    else as the running test.
    """
    clean_up()
    ROOM.mkdir(mode=0o755, parents=True)
    made = _build(count, spare, ipv4, ipv6, sections)
    _open.append(made)
    try:
        yield made
    except KeyboardInterrupt:
        raise  # nobody asks for logs of what was broken off
    except BaseException as error:  # pytest's own outcomes are no Exception
        error.add_note(keep_evidence(name))
        raise
    finally:
        _open.remove(made)
        made.end_all()
        clean_up()


def link_of(number: int) -> Link:
    """The cable of the running mesh's host with this number, from 1."""
    switch, host = (Namespace(namespaces.PREFIX + name) for name in ("switch", f"h{number}"))
    return Link(switch, f"p{number}", host, "eth0")


def keep_evidence(name: str = "") -> str:
    """Keeps what the hosts of the mesh in use are doing; returns a line that names the folder.

    Empty if there is no mesh. `mesh` itself does so for what fails inside it; but a test does not fail inside
    the fixture that opened its mesh.
    """
    if not _open:
        return ""
    folder = evidence.folder(name or running_test())
    for made in _open:
        evidence.keep(made.hosts, folder)
    return f"logs and state of each host: {folder}"


def clean_up() -> None:
    """Removes the lab's namespaces, what runs in them, and the mesh's folder."""
    for space in namespaces.left_over():
        space.remove()
    starving.clean_up()
    shutil.rmtree(ROOM, ignore_errors=True)


def running_test() -> str:
    """Name of the test that pytest runs, fit for a folder."""
    current = os.environ.get("PYTEST_CURRENT_TEST", "lab").rpartition("::")[2].partition(" ")[0]
    return re.sub(r"[^\w.-]+", "-", current).strip("-")


def _build(count: int, spare: int, ipv4: int, ipv6: int, sections: dict[str, Any]) -> Mesh:
    total = count + spare
    assert 0 < total < 250, "a /24 has room for 249 hosts"
    assert 0 <= ipv4 <= len(_IPV4), f"at most {len(_IPV4)} IPv4 addresses"
    spaces = namespaces.create(["switch", *(f"h{number}" for number in range(1, total + 1))])
    switch, others = spaces[0], spaces[1:]
    _cable(switch, others)
    authority = Authority(ROOM / "ca")
    hosts = []
    for number, space in enumerate(others, 1):
        addresses = [f"{net}.{number}" for net in _IPV4[:ipv4]]
        addresses += [f"2001:db8:{index}::{number:x}" for index in range(1, ipv6 + 1)]
        hosts.append(_make_host(number, space, switch, tuple(addresses), authority, sections))
    for host, other in itertools.permutations(hosts[:count], 2):
        host.write_peer(other)
    return Mesh(hosts, switch, authority, count)


def _cable(switch: Namespace, spaces: list[Namespace]) -> None:
    lines = [
        f"link add {BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
        f"link set {BRIDGE} up",
    ]
    for number, space in enumerate(spaces, 1):
        lines.append(f"link add p{number} type veth peer name eth0 netns {space.name}")
        lines.append(f"link set p{number} master {BRIDGE} up")
    switch.ip(*lines)


def _make_host(
    number: int,
    space: Namespace,
    switch: Namespace,
    addresses: tuple[str, ...],
    authority: Authority,
    sections: dict[str, Any],
) -> Host:
    folder = ROOM / f"h{number}"
    for sub in ("peers.d", "hooks.d", "swanctl"):
        (folder / sub).mkdir(parents=True)
    space.ip(
        *(f"addr add {a}/{'64 nodad' if ':' in a else '24'} dev eth0" for a in addresses),
        "link set eth0 up",
    )
    port = f"p{number}"
    host = Host(
        short=f"h{number}",
        name=f"h{number}.{_DOMAIN}",
        addresses=addresses,
        namespace=space,
        folder=folder,
        link=link_of(number),
        switch=switch,
        port=port,
    )
    authority.write(folder / "ca.pem")
    # Its name alone: cases give hosts other addresses, which a certificate that lists some does not allow.
    authority.issue(host.name, (), certificate=folder / "host.pem", private_key=folder / "host.key")
    host.write_config(**sections)
    (folder / "swanctl/swanctl.conf").touch()
    return host
