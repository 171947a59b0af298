"""The cable between a host and the switch: cut, slow or lossy, without the host being told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from lab.namespaces import Namespace

Direction = Literal["both", "in", "out"]
"""As the host sees it: `in` is what comes to it, `out` what it sends."""

# What the switch's port receives is what the host sends.
_HOOKS: dict[Direction, tuple[str, ...]] = {
    "both": ("ingress", "egress"),
    "in": ("egress",),
    "out": ("ingress",),
}
_MATCHES: dict[str, tuple[str, ...]] = {
    "ike": (
        "protocol ip flower ip_proto udp dst_port 500",
        "protocol ip flower ip_proto udp dst_port 4500",
        "protocol ipv6 flower ip_proto udp dst_port 500",
        "protocol ipv6 flower ip_proto udp dst_port 4500",
    ),
    "udp": (
        "protocol ip flower ip_proto udp dst_port 4500",
        "protocol ipv6 flower ip_proto udp dst_port 4500",
    ),
    "esp": (
        "protocol ip u32 match ip protocol 50 0xff",
        "protocol ipv6 u32 match ip6 protocol 50 0xff",
    ),
}


class Link:
    """One host's link. Every fault is silent: no carrier is lost, no sender gets an error.

    Faults add up until `restore`. Delay and loss apply to each direction by itself, so a round trip meets
    them twice.
    """

    def __init__(self, switch: Namespace, port: str, host: Namespace, device: str) -> None:
        self._switch = switch
        self._port = port
        self._host = host
        self._device = device
        self._netem: dict[str, str] = {}

    def cut(self, direction: Direction = "both") -> None:
        """Loses every packet, as a pulled cable behind a switch does."""
        self._filter(f"{hook} protocol all matchall action drop" for hook in _HOOKS[direction])

    def drop(self, what: Literal["ike", "udp", "esp"], direction: Direction = "both") -> None:
        """Loses IKE (UDP 500 and 4500), UDP 4500 or ESP only, as a firewall on the way does."""
        self._filter(f"{hook} {match} action drop" for hook in _HOOKS[direction] for match in _MATCHES[what])

    def narrow(self, mtu: int) -> None:
        """Loses every packet of more bytes than this, in each direction."""
        self._switch.ip(f"link set {self._port} mtu {mtu}")

    def delay(self, milliseconds: float) -> None:
        """Holds each packet back, in each direction."""
        self._netem["delay"] = f"{milliseconds:g}ms"
        self._apply_netem()

    def disguise(self, own: str, seen_as: str, towards: str) -> None:
        """IKE that the host sends from `own` to `towards` (IPv4) arrives with the source `seen_as`.

        What comes back is not changed: to hear it, the host must have that address. Takes the place of drops,
        cuts and disguises before.
        """
        self._clear(self._switch, self._port, "clsact")
        self._filter(
            f"ingress protocol ip flower ip_proto udp dst_port {port} src_ip {own} dst_ip {towards} "
            f"action nat egress {own}/32 {seen_as}"
            for port in (500, 4500)
        )

    def loss(self, percent: float) -> None:
        """Loses each packet with this chance, in each direction."""
        self._netem["loss"] = f"{percent:g}%"
        self._apply_netem()

    def restore(self) -> None:
        """Ends every fault, whoever made it."""
        self._netem.clear()
        self.narrow(1500)
        for space, device in ((self._switch, self._port), (self._host, self._device)):
            self._clear(space, device, "clsact")
            self._clear(space, device, "netem")

    def _clear(self, space: Namespace, device: str, kind: Literal["clsact", "netem"]) -> None:
        if f"qdisc {kind}" in space.tc_show("qdisc", "show", "dev", device):
            space.tc(f"qdisc del dev {device} {'root' if kind == 'netem' else kind}")

    def _filter(self, filters: Iterable[str]) -> None:
        self._switch.tc(
            f"qdisc replace dev {self._port} clsact",
            *(f"filter add dev {self._port} {one}" for one in filters),
        )

    def _apply_netem(self) -> None:
        words = " ".join(f"{key} {value}" for key, value in self._netem.items())
        self._switch.tc(f"qdisc replace dev {self._port} root netem limit 10000 {words}")
        self._host.tc(f"qdisc replace dev {self._device} root netem limit 10000 {words}")
