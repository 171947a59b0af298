"""The cable between a host and the switch: cut, slow or lossy, without the host being told."""

from __future__ import annotations

from typing import Literal

from tests.lab.namespaces import Namespace

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
        self._dropping = False
        self._netem: dict[str, str] = {}

    def cut(self, direction: Direction = "both") -> None:
        """Loses every packet, as a pulled cable behind a switch does."""
        self._add_drops([f"{hook} protocol all matchall" for hook in _HOOKS[direction]])

    def drop(self, what: Literal["ike", "esp"], direction: Direction = "both") -> None:
        """Loses IKE (UDP 500 and 4500) or ESP only, as a firewall on the way does."""
        self._add_drops(
            [f"{hook} {match}" for hook in _HOOKS[direction] for match in _MATCHES[what]],
        )

    def delay(self, milliseconds: float, jitter: float = 0) -> None:
        """Holds each packet back, in each direction."""
        self._netem["delay"] = f"{milliseconds:g}ms" + (f" {jitter:g}ms" if jitter else "")
        self._apply_netem()

    def loss(self, percent: float) -> None:
        """Loses each packet with this chance, in each direction."""
        self._netem["loss"] = f"{percent:g}%"
        self._apply_netem()

    def restore(self) -> None:
        """Ends every fault."""
        if self._dropping:
            self._switch.tc(f"qdisc del dev {self._port} clsact")
            self._dropping = False
        if self._netem:
            self._switch.tc(f"qdisc del dev {self._port} root")
            self._host.tc(f"qdisc del dev {self._device} root")
            self._netem.clear()

    def _add_drops(self, matches: list[str]) -> None:
        lines = [] if self._dropping else [f"qdisc add dev {self._port} clsact"]
        lines += [f"filter add dev {self._port} {match} action drop" for match in matches]
        self._switch.tc(*lines)
        self._dropping = True

    def _apply_netem(self) -> None:
        words = " ".join(f"{key} {value}" for key, value in self._netem.items())
        self._switch.tc(f"qdisc replace dev {self._port} root netem limit 10000 {words}")
        self._host.tc(f"qdisc replace dev {self._device} root netem limit 10000 {words}")
