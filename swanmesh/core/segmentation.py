"""Segmentation through ESP: what is said of the kernel's modules for it, and of states that do without.

A state uses the module of its family if that was there when the state was made, and counts as its user then
(xfrm_get_type_offload in net/xfrm/xfrm_state.c takes a reference; tried with 6.1 and 6.12). So of a family's
states as many do without as there are more states than users, and these are the oldest ones. What that cannot
tell: users in other network namespaces count too, so there may be more that do without than are told; the
kernel notes whole seconds only; and where a module went and came again the oldest may be the wrong ones.

esp6_offload is never asked for, and told of where it is used. It takes the IV of a packet that it cut from
the number after the packet's own, and of one that it did not cut from its own number (esp6_xmit in
net/ipv6/esp6_offload.c; esp4_offload does it right). So the last of a large piece and the single packet
behind it have one IV under one key, and AES-GCM then betrays what both encrypt. Seen on the wire with
Debian's 6.1.0-56 and 6.12.117 (`make test-data`): some 30 in 4 MiB of TCP; none in UDP encapsulation. No
kernel is known that is mended: the lines are the same in Debian's sources of 6.1.192, 6.12.117 and 7.2.13.

Both modules also raise the upper half of ESN's number one packet too soon (in the same functions, of all
three): of 2**32 packets one is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swanmesh.core.model import Problem
from swanmesh.core.xfrm import Module, Segmenting

COST = "a byte of TCP costs more instructions, two and a half times with Linux 6.1, nearly twice with 6.12"
"""`make bench-data`: 48.7 without it and 19.3 with it, 30.6 and 16.3."""
_BROKEN = 6
_REPEATS = "repeats IVs of AES-GCM in TCP over IPv6, which betrays what it encrypts (tried with 6.1 and 6.12)"
_LEAVE = (
    "take it out of /etc/modules-load.d/swanmesh.conf, mask modprobe@esp6_offload.service, and reboot: "
    "states that use it keep it loaded"
)
_SOURCE = "data_path.segmentation"
_KEEP_AWAY = "remove /etc/modules-load.d/swanmesh.conf, and mask modprobe@{0}.service"


def remarks(found: Iterable[Segmenting], setting: str, families: Iterable[int]) -> Iterator[Problem]:
    """What an operator should know, of the families that this host has addresses of."""
    wanted = set(families)
    for each in found:
        if each.family not in wanted:
            continue
        name = each.name
        if each.family == _BROKEN:
            if each.module in (Module.LOADED, Module.BUILT_IN):
                yield Problem(name, "", "", f"is {each.module}, and {_REPEATS}", _LEAVE)
        elif setting == "off":
            if each.module in (Module.LOADED, Module.BUILT_IN):
                message = f"{name} is {each.module}, though segmentation is switched off here"
                yield Problem(name, _SOURCE, setting, message, _KEEP_AWAY.format(name))
        elif each.module is Module.NOT_LOADED:
            message = f"is not loaded: {COST}"
            yield Problem(name, "", "", message, f"run: modprobe {name}, then swanmesh rekey")
        elif each.module is Module.ABSENT:
            message = f"is not part of this kernel: {COST}"
            yield Problem(name, "", "", message, "use a kernel that has it, as Debian's do")
        elif each.without:
            message = f"came after at least {each.without} of {each.states} IPsec states, which do without it"
            yield Problem(name, "", "", message, "run: swanmesh rekey, or wait until they are rekeyed")


def summary(found: Iterable[Segmenting], setting: str) -> str:
    """How it stands, in one line; empty if the kernel was not looked at yet."""
    modules = [f"{each.name} {each.module}" for each in found]
    if not modules:
        return ""
    return "; ".join(
        [", ".join(modules), *(["switched off by data_path.segmentation"] if setting == "off" else [])]
    )


def without(found: Iterable[Segmenting], family: int, made: float) -> bool:
    """Whether the states of an association made then (wall clock) are among those that do without."""
    return any(each.family == family != _BROKEN and each.without and made < each.until + 1 for each in found)
