"""Faults of every kind, at random times, for as long as asked."""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.core.simulation.holder import FOREIGN, Trouble
from tests.unit.core.simulation.host import SimHost
from tests.unit.core.simulation.world import World


class Chaos:
    def __init__(self, world: World, *, gap: float, seconds: float) -> None:
        """A fault about every `gap` seconds. Faults that last heal by themselves."""
        self.world, self.rng, self.clock = world, world.rng, world.clock
        self.gap = gap
        self.end = self.clock.now + seconds
        self.faults = 0
        self.kinds: tuple[Callable[[SimHost], None], ...] = (
            self._crash,
            self._kill_controller,
            self._cut_both_ways,
            self._cut_one_way,
            self._lossy,
            self._hang,
            self._unload_all,
            self._clear_credentials,
            self._terminate,
            self._terminate_child,
            self._rekey,
            self._reauthenticate,
            self._trouble,
            self._renumber,
            self._leave_and_join,
            self._down_and_up,
            self._operators_rekey,
            self._isolate,
        )
        self._next()

    def _next(self) -> None:
        self.clock.after(self.rng.expovariate(1 / self.gap), self._strike)

    def _strike(self) -> None:
        if self.clock.now >= self.end:
            return
        host = self.world.hosts[self.rng.choice(sorted(self.world.hosts))]
        kind = self.rng.choice(self.kinds)
        kind(host)
        self.faults += 1
        self.world.watch.counts[f"fault {kind.__name__.strip('_')}"] += 1
        self._next()

    def _later(self, low: float, high: float, call: Callable[[], None]) -> None:
        self.clock.after(self.rng.uniform(low, high), call)

    def _crash(self, host: SimHost) -> None:
        if host.charon.running:
            host.charon.crash()
            self._later(0.1, 40.0, lambda: self._restart(host))

    def _restart(self, host: SimHost) -> None:
        if not host.charon.running:
            host.charon.restart()

    def _kill_controller(self, host: SimHost) -> None:
        if host.mesh is not None:
            host.kill()
            self._later(0.1, 30.0, lambda: host.start() if host.mesh is None else None)

    def _cut(self, *directions: tuple[str, str]) -> None:
        network = self.world.network
        network.cut.update(directions)
        network.changed()

        def heal() -> None:
            network.cut.difference_update(directions)
            network.changed()

        self._later(1.0, 60.0, heal)

    def _other(self, host: SimHost) -> SimHost:
        return self.world.hosts[self.rng.choice(sorted(self.world.hosts.keys() - {host.name}))]

    def _cut_both_ways(self, host: SimHost) -> None:
        other = self._other(host)
        self._cut((host.name, other.name), (other.name, host.name))

    def _cut_one_way(self, host: SimHost) -> None:
        self._cut((host.name, self._other(host).name))

    def _isolate(self, host: SimHost) -> None:
        others = sorted(self.world.hosts.keys() - {host.name})
        self._cut(*[(host.name, o) for o in others], *[(o, host.name) for o in others])

    def _lossy(self, host: SimHost) -> None:
        network = self.world.network
        network.loss, network.repeat = self.rng.uniform(0.02, 0.4), self.rng.uniform(0.0, 0.2)
        network.changed()

        def heal() -> None:
            network.loss = network.repeat = 0.0
            network.changed()

        self._later(5.0, 60.0, heal)

    def _hang(self, host: SimHost) -> None:
        if host.charon.running and not host.hung:
            host.hang(self.rng.uniform(1.0, 30.0))

    def _unload_all(self, host: SimHost) -> None:
        host.charon.unload_all()

    def _clear_credentials(self, host: SimHost) -> None:
        host.charon.clear_credentials()

    def _some_sa(self, host: SimHost) -> int | None:
        mine = [sa.unique_id for sa in host.charon.sas.values() if sa.conn != FOREIGN]
        return self.rng.choice(mine) if mine else None

    def _terminate(self, host: SimHost) -> None:
        """`swanctl --terminate`, by hand."""
        unique_id = self._some_sa(host)
        if unique_id is not None:
            host.charon.terminate_ike(unique_id)

    def _some_child(self, host: SimHost) -> int | None:
        ids = [child for sa in host.charon.sas.values() for child in sa.children]
        return self.rng.choice(ids) if ids else None

    def _terminate_child(self, host: SimHost) -> None:
        child = self._some_child(host)
        if child is not None:
            host.charon.terminate_child(child)

    def _rekey(self, host: SimHost) -> None:
        unique_id, child = self._some_sa(host), self._some_child(host)
        if unique_id is not None:
            host.charon.rekey_ike(unique_id)
        if child is not None:
            host.charon.rekey_child(child)

    def _reauthenticate(self, host: SimHost) -> None:
        unique_id = self._some_sa(host)
        if unique_id is not None:
            host.charon.rekey_ike(unique_id, reauth=True)

    def _trouble(self, host: SimHost) -> None:
        host.charon.trouble = Trouble(load=0.3, initiate=0.2, child=0.3, look=0.3)

        def heal() -> None:
            host.charon.trouble = Trouble()

        self._later(5.0, 60.0, heal)

    def _renumber(self, host: SimHost) -> None:
        if host.name in self.world.members:
            self.world.renumber(host.name)

    def _leave_and_join(self, host: SimHost) -> None:
        if host.name in self.world.members and len(self.world.members) > 2:
            self.world.leave(host.name)
            self._later(0.1, 60.0, lambda: self.world.join(host.name))

    def _down_and_up(self, host: SimHost) -> None:
        other = self._other(host).name
        host.command("down", other)
        self._later(0.1, 60.0, lambda: host.command("up", other))

    def _operators_rekey(self, host: SimHost) -> None:
        host.command("rekey", self._other(host).name)
