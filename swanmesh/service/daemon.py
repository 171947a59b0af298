"""The service: puts the parts together, and is what the control socket asks."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
import signal
import time
from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from swanmesh import __version__
from swanmesh.charon.link import Link
from swanmesh.config.override import Overrides
from swanmesh.control.counters import Counters
from swanmesh.control.listener import Listener, listen
from swanmesh.control.protocol import ConfirmSubject, ReloadReply
from swanmesh.core import abilities
from swanmesh.core.actions import Action
from swanmesh.core.credentials.revocation import own_problems
from swanmesh.core.events import MeshEvent
from swanmesh.core.inputs.authorities import authority_problems
from swanmesh.core.inputs.removal import held_problems
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import AddressPair
from swanmesh.core.pairs.agreement import uncertified
from swanmesh.core.reasons import Reason
from swanmesh.hooks.runner import Hooks
from swanmesh.kernel.link import KernelLink
from swanmesh.pki.seen import Voucher
from swanmesh.probe.link import ProbeLink
from swanmesh.service import logs, rollout
from swanmesh.service.announce import Announcer
from swanmesh.service.certificates import Certificates
from swanmesh.service.feed import Feed
from swanmesh.service.following import Following
from swanmesh.service.guarding import Guarding
from swanmesh.service.loop import Loop, now
from swanmesh.service.rekeying import Rekeying
from swanmesh.service.requests import DaemonService
from swanmesh.service.revocation import RevocationSource
from swanmesh.service.seen import SeenStore
from swanmesh.service.sources import Sources
from swanmesh.service.status import Clock
from swanmesh.service.systemd import Notifier
from swanmesh.throughput.offering import Offering

if TYPE_CHECKING:
    from swanmesh.control.server import ControlServer


class Daemon:
    """One host's controller, from start to stop."""

    def __init__(
        self,
        sources: Sources,
        notifier: Notifier,
        *,
        watch_kernel: bool = True,
        began: float | None = None,
    ) -> None:
        """`watch_kernel` is for tests against a charon that installs nothing in any kernel. `began`: when the
        service's process began, if it is one."""
        self.sources = sources
        seed = random.SystemRandom().getrandbits(64)
        self.mesh = Mesh(sources.settings, seed=seed, began=began, kernel=watch_kernel)
        self.feed = Feed()
        self.counters = Counters()
        self.started = now()
        self.log = logs.logger()
        self.hooks = Hooks(sources.config.hooks, sources.config.environment, logs.hooks)
        self._announcer = Announcer(self.log, self.counters, self.feed, self.hooks)
        self.loop = Loop(self.mesh, self._announcer, self.counters, self.log, self)
        self.certificates = Certificates(
            sources, self._announcer.event, self.log, lambda: self.loop.guarded(self.reload, None)
        )
        self._notifier = notifier
        self._stop = asyncio.Event()
        self._rekeying = Rekeying(self.mesh, self._rekey)
        config = sources.config
        voucher = Voucher(lambda: sources.settings.credentials.authorities)
        self._link = Link(config.charon.socket, self.loop.put, timeout=config.charon.timeout, read=voucher)
        self._lists = RevocationSource(sources, self.loop, self._lists_fetched)
        self._kernel = KernelLink(self.loop.put)
        self.offering = Offering(self._partner, self.log.info)
        self._guarding = Guarding(self.mesh.state, lambda: self.sources.config.state, self.log)
        self._watch_kernel = watch_kernel
        self._probe = ProbeLink(self.loop.put, self.mesh.watched)
        self._probe.configure(config.probe.port, config.host.addresses)
        self._edges: dict[str, Callable[[Iterable[Action]], None]] = {
            "charon": self._link.submit,
            "kernel": self._kernel.submit,
            "probe": self._probe.submit,
        }
        self._following = Following(sources, partial(self.loop.guarded, self.reload))
        self.sources.apply(self.mesh, sources.first(self.mesh.state.registry), self.started)
        self._seen = SeenStore(config.state)
        self._seen.recall(self.mesh.state.certificates, voucher.issuers, time.time())
        self._lists.take()

    # What the control socket reads and asks for.

    def clock(self) -> Clock:
        return Clock(now(), time.time())

    def problems(self) -> list[str]:
        degraded = [self._following.degraded] if self._following.degraded else []
        kernel = self.mesh.state.kernel
        if self._watch_kernel and not kernel.watched and kernel.reason:
            degraded.append(f"the kernel's IPsec is not watched, and has no guard: {kernel.reason}")
        degraded += self._guarding.problems()
        if self.loop.unprobed:
            degraded.append(f"data paths are not probed: {self.loop.unprobed}")
        config, state = self.sources.config, self.mesh.state
        unable = abilities.problems(config.connection, state.charon.abilities, str(config.path))
        ends = self.certificates.problems()
        lists = (*self._lists.problems, *self._lists.unkept, *state.revocations.problems(time.time()))
        mine = (
            *own_problems(state.revocations, state.settings.credentials),
            *uncertified(state.settings.credentials, state.settings.host),
        )
        caught = state.registry.caught(self.sources.needed, state.settings.host_policy)
        problems = (
            *(*self.sources.problems, *state.registry.problems, *held_problems(state), *caught),
            *authority_problems(state, str(config.path)),
            *(*unable, *ends, *lists, *mine),
        )
        degraded += filter(None, [self.offering.problem])
        return [str(problem) for problem in problems] + degraded

    @property
    def vici_requests(self) -> int:
        """VICI packets sent in this process's life."""
        return self._link.requests

    @property
    def events_lost(self) -> int:
        """What charon told in this process's life that could not be understood."""
        return self._link.skipped

    def _offer(self) -> None:
        """Take part in measurements of throughput, where that is allowed."""
        config = self.sources.config
        self.offering.configure(config.host.addresses, config.bench.port if config.bench.allow else None)

    def _partner(self, addresses: AddressPair) -> str:
        """The peer with which an association between these addresses is up; empty if there is none."""
        pairs = self.mesh.state.pairs
        return next((pair.peer for pair in pairs if pair.addresses == addresses and pair.up), "")

    def stop(self) -> None:
        """End `run`, as SIGTERM does."""
        self._stop.set()

    def history(self, peer: str) -> list[MeshEvent]:
        return self._announcer.history(peer)

    def look(self, reason: Reason) -> None:
        """Look at charon as soon as the pace of looks allows."""
        self.mesh.state.observation.want(now(), reason)
        self.mesh.state.kernel.want(now(), reason)
        self.loop.wake()

    def command(self, command: str, peer: str) -> None:
        """`up`, `down`, `rekey`. Raises KeyError for a peer that is not known."""
        self.mesh.command(command, peer, now())
        self.log.info("asked", command=command, peer=peer)
        self.loop.wake()

    async def count_clear_text(self) -> None:
        """Have what crossed in clear with each peer counted by the kernel."""
        if self._watch_kernel:
            await self._guarding.count()

    @property
    def udp_4500(self) -> str:
        """Why UDP 4500 is not kept out where it should be; empty if it is."""
        return self._guarding.udp_4500

    @property
    def segmentation(self) -> str:
        """The setting data_path.segmentation."""
        return self.sources.config.data_path.segmentation

    def _rekey(self, peer: str) -> None:
        self.mesh.command("rekey", peer, now())
        self.loop.wake()

    def rekey_all(self) -> str:
        """Every peer that is up, one after another. Returns what follows, in words."""
        count = self._rekeying.begin()
        self.log.info("asked", command="rekey", peers=count)
        took = f", over about {seconds:.0f} s" if (seconds := self._rekeying.seconds(count)) >= 2 else ""
        return (
            f"rekeying {count} peer{'' if count == 1 else 's'} that {'is' if count == 1 else 'are'} up{took}"
        )

    def reload(self, paths: Iterable[Path] | None, *, removed: bool = False) -> ReloadReply:
        """Read these files again, or all; what is valid comes into force. `removed`: those of them that are
        gone were removed on purpose."""
        before, overrides = set(self.problems()), self.sources.overrides
        credentials = self.sources.settings.credentials
        if paths is None:
            self.sources.look_at_addresses()
        update = self.sources.read(paths, self.mesh.state.registry, removed=removed)
        names = self.sources.apply(self.mesh, update, now())
        if update.settings is not None:
            self.log.info("settings changed", host=update.settings.host.name)
            self.certificates.changed(credentials)
        rollout.tell(self.log, overrides, self.sources.overrides)
        config = self.sources.config
        if paths is None or not set(config.credentials.crls).isdisjoint(paths):
            self._lists.changed()
        self.hooks.directory, self.hooks.environment = config.hooks, config.environment
        self._probe.configure(config.probe.port, config.host.addresses)
        self._offer()
        self.counters.reloads += 1
        self._complain(before)
        self.loop.wake()
        return ReloadReply(changed=sorted(names), problems=self.problems())

    def _complain(self, before: Container[str]) -> None:
        """Log the problems that are new."""
        for problem in self.problems():
            if problem not in before:
                self.log.error("not in force", problem=problem)

    def _lists_fetched(self) -> None:
        with self.complaining():
            self.loop.guarded(self._lists.changed)

    def confirm(self, subject: ConfirmSubject) -> list[str]:
        """Let happen what is held. Returns the names of the peers that are removed, or ended."""
        if subject == "revocation":
            names = self.mesh.confirm_lists(now())
            self._lists.keep()
        else:
            names = self.mesh.confirm(now())
        self.log.info("asked", command=f"confirm {subject}", peers=names)
        self.loop.wake()
        return names

    # What the loop needs.

    def submit(self, action: Action) -> None:
        self._edges[action.edge]((action,))

    def begin_anew(self) -> None:
        self._link.begin_anew("swanmesh makes its state anew after a fault of its own")

    def stepped(self) -> None:
        self._guarding.look()

    @contextlib.contextmanager
    def complaining(self) -> Iterator[None]:
        before = set(self.problems())
        yield
        self._complain(before)

    @property
    def files_due(self) -> float | None:
        trial = self.sources.overrides.trial
        return None if trial is None else now() + trial.left()

    def read_files(self) -> None:
        self.reload(None)

    async def next_step(self) -> None:
        await self.loop.next_step()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Leaves charon and every association as they are."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        # First of all, for it is also the lock between two services.
        config = self.sources.config
        listener = listen(config.control.socket, config.control.group)
        tasks = [
            loop.create_task(work)
            for work in (
                self._link.run(),
                *([self._kernel.run(), self._guarding.run()] if self._watch_kernel else []),
                self._probe.run(),
                self.loop.run(),
                self._following.files(),
                self._lists.run(),
                self._following.addresses(),
                self._live(),
            )
        ]
        control = None
        try:
            control = await self._open_control(listener)
            self._complain(())
            self.log.info(
                "started", version=__version__, host=self.sources.settings.host.name, peers=self._count()
            )
            rollout.tell(self.log, Overrides(), self.sources.overrides)
            self._announcer.service("started")
            self._notifier.ready("waiting for charon")
            stop = loop.create_task(self._stop.wait())
            done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()
        finally:
            self._notifier.stopping()
            self._rekeying.close()
            self.log.info("stopping", associations="left as they are")
            self._announcer.service("stopping")
            self._seen.keep(self.mesh.state.certificates, now(), at_once=True)
            self._lists.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(
                *tasks, self.certificates.close(), self.offering.close(), return_exceptions=True
            )
            # Before the control socket closes: hooks may ask for the status.
            await self.hooks.close()
            if control is not None:
                await control.stop()
            self._following.close()

    async def _open_control(self, listener: Listener) -> ControlServer:
        """Who calls meanwhile waits. aiohttp takes longer to import than all else, so charon gets its first
        connections while a thread does that."""
        server = await asyncio.to_thread(importlib.import_module, "swanmesh.control.server")
        control: ControlServer = server.ControlServer(DaemonService(self), listener.path, None)
        await control.start(listener)
        return control

    # Signals, systemd.

    def _hangup(self) -> None:
        self._notifier.reloading("reading files")
        self.loop.guarded(self.reload, None)
        self._notifier.ready()

    async def _live(self) -> None:
        """Tells systemd how it stands, and that the loop turns."""
        interval = self._notifier.watchdog_interval
        while True:
            self._notifier.watchdog()
            self._notifier.status(self._summary())
            if self.offering.problem:
                self.loop.guarded(self._offer)
            if self.sources.look_at_addresses():
                self.loop.guarded(self.reload, None)
            self.loop.guarded(self.certificates.look)
            self.loop.guarded(self.certificates.look_at_peers, self.mesh.state)
            self.loop.guarded(self._seen.keep, self.mesh.state.certificates, now())
            for news in self.mesh.state.revocations.news(time.time()):
                self._announcer.event(MeshEvent.of("crl-expired", reason=news))
            try:
                async with asyncio.timeout(min(interval or 10.0, 10.0)):
                    await self._stop.wait()
                    return
            except TimeoutError:
                continue

    def _summary(self) -> str:
        state = self.mesh.state
        if not state.charon.reachable:
            return f"waiting for charon: {state.charon.reason}"
        return f"{len(state.up)} of {self._count()} peers up, charon {state.charon.version}"

    def _count(self) -> int:
        return len(self.mesh.state.peers())
