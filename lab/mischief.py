"""What can be done to a host of the lab: each fault begins, lasts for a while, and is ended again."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

from lab.host import Host

Step = Callable[[Host, random.Random], None]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to trouble a host. `begin` and `end` return as soon as it is done, whatever follows from it."""

    name: str
    begin: Step
    end: Step | None = None
    """None: what was done, was done at once."""


def _kill_charon(host: Host, rng: random.Random) -> None:
    host.kill_charon(signal.SIGKILL)


def _stop_charon(host: Host, rng: random.Random) -> None:
    host.stop_charon()


def _start_charon(host: Host, rng: random.Random) -> None:
    host.start_charon()


def _hang_charon(host: Host, rng: random.Random) -> None:
    os.kill(host.charon_pid, signal.SIGSTOP)


def _wake_charon(host: Host, rng: random.Random) -> None:
    os.kill(host.charon_pid, signal.SIGCONT)


def _crash(host: Host, rng: random.Random) -> None:
    host.kill_swanmesh(signal.SIGKILL)
    host.kill_charon(signal.SIGKILL)
    host.namespace.ip("xfrm state flush", "xfrm policy flush")


def _boot(host: Host, rng: random.Random) -> None:
    host.start_charon()
    host.start_swanmesh()


def _kill_controller(host: Host, rng: random.Random) -> None:
    host.kill_swanmesh(signal.SIGKILL)


def _start_controller(host: Host, rng: random.Random) -> None:
    host.start_swanmesh()


def _cut(host: Host, rng: random.Random) -> None:
    host.link.cut("both")


def _cut_in(host: Host, rng: random.Random) -> None:
    host.link.cut("in")


def _cut_out(host: Host, rng: random.Random) -> None:
    host.link.cut("out")


def _drop_ike(host: Host, rng: random.Random) -> None:
    host.link.drop("ike")


def _drop_esp(host: Host, rng: random.Random) -> None:
    host.link.drop("esp")


def _lose(host: Host, rng: random.Random) -> None:
    host.link.loss(20)


def _mend(host: Host, rng: random.Random) -> None:
    host.link.restore()


def _load_all(host: Host, rng: random.Random) -> None:
    host.exec("swanctl", "--load-all")


def _clear_creds(host: Host, rng: random.Random) -> None:
    with host.vici() as session:
        session.clear_creds()


def _terminate(host: Host, rng: random.Random) -> None:
    found = sorted(int(sa["uniqueid"]) for sa in host.sas())
    if found:
        with host.vici() as session:
            list(session.terminate({"ike-id": str(rng.choice(found)), "timeout": "-1"}))


def _flush_states(host: Host, rng: random.Random) -> None:
    host.namespace.ip("xfrm state flush")


def _flush_policies(host: Host, rng: random.Random) -> None:
    host.namespace.ip("xfrm policy flush")


FAULTS = (
    Fault(name="charon killed", begin=_kill_charon, end=_start_charon),
    Fault(name="charon stopped", begin=_stop_charon, end=_start_charon),
    Fault(name="charon hanging", begin=_hang_charon, end=_wake_charon),
    Fault(name="host crashed", begin=_crash, end=_boot),
    Fault(name="controller killed", begin=_kill_controller, end=_start_controller),
    Fault(name="cable cut", begin=_cut, end=_mend),
    Fault(name="cable cut towards it", begin=_cut_in, end=_mend),
    Fault(name="cable cut from it", begin=_cut_out, end=_mend),
    Fault(name="IKE dropped", begin=_drop_ike, end=_mend),
    Fault(name="ESP dropped", begin=_drop_esp, end=_mend),
    Fault(name="20 % lost", begin=_lose, end=_mend),
    Fault(name="swanctl --load-all", begin=_load_all),
    Fault(name="credentials cleared", begin=_clear_creds),
    Fault(name="an IKE_SA terminated", begin=_terminate),
    Fault(name="kernel's states flushed", begin=_flush_states),
    Fault(name="kernel's policies flushed", begin=_flush_policies),
)
