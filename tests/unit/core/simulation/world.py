"""A whole simulated mesh: hosts, charons, network, and what holds when all is quiet."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from swanmesh.core.actions import Action, ObserveAll, ObserveSas
from swanmesh.core.model import InitiationSettings, Peer
from swanmesh.core.pairs.initiation import initiates
from tests.unit.core.build import settings
from tests.unit.core.simulation.charon import SimCharon
from tests.unit.core.simulation.clock import Clock
from tests.unit.core.simulation.cpu import Cpu
from tests.unit.core.simulation.holder import Lifetimes, Trouble
from tests.unit.core.simulation.host import SimHost
from tests.unit.core.simulation.network import Network
from tests.unit.core.simulation.watch import Watch, associations, works_here

NOBODY = ipaddress.ip_address("198.51.100.0")
"""Nobody answers at the addresses from here on."""


class World:
    def __init__(
        self,
        seed: int,
        hosts: int,
        *,
        v6: bool = False,
        traffic: float = 0.0,
        lifetimes: Lifetimes | None = None,
        initiation: InitiationSettings | None = None,
    ) -> None:
        self.seed = seed
        self.clock = Clock(seed)
        self.rng = self.clock.rng
        self.network = Network(self.clock)
        self.watch = Watch(self.network)
        self.hosts: dict[str, SimHost] = {}
        self.members: set[str] = set()
        """Names of the hosts that belong to the mesh once all files have arrived."""
        self._spare = 0
        for index in range(hosts):
            name = f"h{index}.mesh.example"
            charon = SimCharon(name, self.clock, self.network, lifetimes or Lifetimes(), traffic)
            addresses = [self._address(charon), *([self._address(charon, 6)] if v6 else [])]
            mine = settings(name, *addresses, initiation=initiation)
            self.hosts[name] = SimHost(self.clock, charon, mine, self.watch)
        self.members = set(self.hosts)

    def _address(self, charon: SimCharon, version: int = 4) -> str:
        """An address nobody has had, at which the charon answers."""
        self._spare += 1
        base = int(ipaddress.ip_address("2001:db8::" if version == 6 else "198.18.0.0"))
        address = str(ipaddress.ip_address(base + self._spare))
        self.network.owners[address] = charon
        return address

    def shared_cpu(self, rate: float) -> None:
        """All hosts on one processor, which does so many seconds of work in a second."""
        cpu = Cpu(self.clock, rate)
        for host in self.hosts.values():
            host.charon.cpu = cpu

    def own_cpus(self) -> None:
        for host in self.hosts.values():
            host.charon.cpu = Cpu(self.clock)

    def bury(self, name: str, count: int) -> None:
        """So many peers for a host that nobody answers for. Not for `faults`, which expects members alone."""
        self.hosts[name].put(
            *[
                Peer(name=f"dead{n}.mesh.example", addresses=(NOBODY + n,), source=f"dead{n}.yaml")
                for n in range(count)
            ]
        )

    # Files.

    def peer(self, name: str) -> Peer:
        host = self.hosts[name].settings.host
        return Peer(name=name, addresses=host.addresses, source=f"{name}.yaml")

    def share_files(self) -> None:
        """Every member's file on every member, in one go."""
        for name in sorted(self.members):
            self.hosts[name].put(*[self.peer(other) for other in sorted(self.members)])

    def start(self, spread: float = 2.0) -> None:
        """All hosts at once, as after a power cut."""
        self.share_files()
        for host in self.hosts.values():
            self.clock.after(self.rng.uniform(0.0, spread), host.start)

    def renumber(self, name: str) -> None:
        """The host gets another address; the word of it reaches each file on its own time."""
        host = self.hosts[name]
        addresses = (ipaddress.ip_address(self._address(host.charon)), *host.settings.host.addresses[1:])
        mine = replace(host.settings, host=replace(host.settings.host, addresses=addresses))
        host.configure(mine)
        for other in sorted(self.members - {name}):
            self._soon(20.0, self._put, other, name)

    def leave(self, name: str) -> None:
        """Its file is removed everywhere, and it forgets the others."""
        self.members.discard(name)
        host = self.hosts[name]
        for other in sorted(self.members):
            self._soon(10.0, self._drop, other, name)
            self._soon(30.0, self._drop, name, other)
        host.down.clear()

    def join(self, name: str) -> None:
        self.members.add(name)
        for other in sorted(self.members - {name}):
            self._soon(10.0, self._put, other, name)
            self._soon(10.0, self._put, name, other)

    def _put(self, at: str, name: str) -> None:
        if at in self.members and name in self.members:
            self.hosts[at].put(self.peer(name))

    def _drop(self, at: str, name: str) -> None:
        if at not in self.members or name not in self.members:
            self.hosts[at].drop(f"{name}.yaml")

    def _soon(self, within: float, call: object, *names: str) -> None:
        assert callable(call)
        self.clock.after(self.rng.uniform(0.0, within), lambda: call(*names))

    # Peace.

    def make_peace(self) -> None:
        """The last fault is over: everything runs, nothing is lost, the operator wants all up."""
        self.network.cut.clear()
        self.network.loss = self.network.repeat = 0.0
        for host in self.hosts.values():
            host.charon.trouble = Trouble()
            host.charon.lifetimes = Lifetimes()
            host.hung = False
            if not host.charon.running:
                host.charon.restart()
            if host.mesh is None:
                host.start()
            self.clock.after(10.0, host.all_up)
            for name in sorted(self.members):
                self._put(host.name, name)
            for source in list(host.files):
                self._drop(host.name, source.removesuffix(".yaml"))
        self.network.changed()

    # What holds when all is quiet.

    def faults(self) -> list[str]:
        """Everything that is not as it should be at rest; empty if all is well."""
        found = list(self.watch.breaches)
        for host in self.hosts.values():
            found += self._pairs_of(host)
            found += self._rest_of(host)
        return found

    def down(self) -> list[str]:
        """The pairs without an association that works at both ends; and breaches of the invariants."""
        found = list(self.watch.breaches)
        for host in self.hosts.values():
            held = associations(host.charon)
            for pair in self._expected(host):
                if not any(self.watch.works(sa) for sa in held.get(pair, ())):
                    found.append(f"{host.name}: {pair} is down")
        return found

    def spis(self) -> dict[tuple[str, str], list[str]]:
        """What each pair holds: SPIs by addresses, of IKE_SAs and of the CHILD_SAs in them."""
        return {
            pair: [
                spi
                for sa in sas
                for spi in (sa.spi_i, sa.spi_r, *[child.spi_in for child in sa.children.values()])
            ]
            for host in self.hosts.values()
            for pair, sas in associations(host.charon).items()
        }

    def _expected(self, host: SimHost) -> list[tuple[str, str]]:
        """The address pairs that the host should have an association for."""
        if host.name not in self.members:
            return []
        return [
            (str(mine), str(theirs))
            for other in sorted(self.members - {host.name})
            for mine in host.settings.host.addresses
            for theirs in self.hosts[other].settings.host.addresses
            if mine.version == theirs.version
        ]

    def _pairs_of(self, host: SimHost) -> Iterable[str]:
        held = associations(host.charon)
        expected = set(self._expected(host))
        for pair in sorted(expected - held.keys()):
            yield f"{host.name}: {pair} has no association"
        for pair, sas in held.items():
            if pair not in expected:
                yield f"{host.name}: {pair} has an association that no file calls for"
            elif len(sas) != 1 or not works_here(sas[0]) or len(sas[0].children) != 1:
                states = [(sa.unique_id, sa.state, [c.state for c in sa.children.values()]) for sa in sas]
                yield f"{host.name}: {pair} holds {states}"
            elif not self.watch.works(sas[0]):
                yield f"{host.name}: {pair} has an association that the other end has not"

    def _rest_of(self, host: SimHost) -> Iterable[str]:
        if host.mesh is None or not host.connected:
            yield f"{host.name}: not connected"
            return
        state = host.mesh.state
        if state.admission.in_flight or state.admission.waiting:
            yield f"{host.name}: {state.admission.in_flight} in flight, {state.admission.waiting} waiting"
        names = {peer.name for peer in state.registry.peers.values()}
        if names != (self.members - {host.name} if host.name in self.members else set()):
            yield f"{host.name}: peers {sorted(names)}"
        if state.up != names:
            yield f"{host.name}: does not believe that all are up: {sorted(names - state.up)}"
        for pair in state.pairs:
            if (
                pair.connection is None
                or pair.busy
                or pair.attempt.began is not None
                or pair.refusals.reason.words
            ):
                yield f"{host.name}: {pair.name} is not at rest: {pair}"
            if pair.connection is not None and pair.loaded != pair.connection.child:
                yield f"{host.name}: {pair.name} is not loaded"
            if pair.up and pair.initiator != initiates(host.name, pair.peer):
                yield f"{host.name}: {pair.name} forgot whose it is"
        if len(state.pairs._timers) > 64 + 4 * len(state.pairs):
            yield f"{host.name}: {len(state.pairs._timers)} timers"
        if state.leaving:
            yield f"{host.name}: still leaving: {sorted(state.leaving)}"

    def actions_at_rest(self, seconds: float) -> list[tuple[str, Action]]:
        """What the controllers do in so much quiet time, looks apart."""
        for host in self.hosts.values():
            host.actions.clear()
        self.clock.run(seconds)
        return [
            (host.name, action)
            for host in self.hosts.values()
            for action in host.actions
            if not isinstance(action, ObserveAll | ObserveSas)
        ]
