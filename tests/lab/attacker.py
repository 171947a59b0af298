"""A member that means harm: a certificate for its own name, and a charon that it drives as it likes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab import Host, by_hand, wait_until

_ESP = ["aes128gcm16-ecp256-esn", "aes128gcm16-ecp256"]
"""What swanmesh asks for, so that nothing but the attack is refused."""
_LIFETIMES = {"rekey_time": "8h", "dpd_delay": "1s"}
_HANDSHAKES = 20
"""Begun at once and not finished: fewer than charon takes from one address (`block_threshold`)."""


class Attacker:
    """Drives the charon of `host`, on which no controller runs, against `victim`."""

    def __init__(self, host: Host, victim: Host) -> None:
        self.host = host
        self._victim = victim
        by_hand.load_credentials(host)

    def load(
        self,
        name: str,
        children: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        local: str = "",
        **ike: Any,
    ) -> None:
        """Loads a connection to the victim: `ike` and `children` (one named esp) over what a host would
        have. As responder, charon takes it too."""
        local = local or self.host.ipv4()
        connection = by_hand.connection(self.host, local, self._victim, self._victim.ipv4(), "none")
        honest = connection["children"]["esp"] | {"esp_proposals": _ESP}
        connection["children"] = {
            child: honest | dict(fields) for child, fields in (children or {"esp": {}}).items()
        }
        with self.host.vici() as session:
            session.load_conn({name: connection | _LIFETIMES | ike})

    def initiate(self, name: str, child: str = "esp") -> None:
        """Asks for a CHILD_SA and does not wait for it."""
        with self.host.vici() as session:
            list(session.initiate({"ike": name, "child": child, "timeout": "-1"}))

    def speak_as(self, address: str) -> None:
        """What this host's charon sends to the victim comes from another address from now on."""
        self.host.link.disguise(self.host.ipv4(), address, self._victim.ipv4())

    def pile_up(self, count: int) -> tuple[int, int]:
        """Sets up `count` IKE_SAs, as fast as the victim answers.

        Returns how many came up, and how many of them stood at the most.
        """
        for number in range(count):
            # Of two connections that differ in nothing charon would use the IKE_SA of the first.
            self.load(f"pile-{number}", rekey_time=f"{480 + number}m")
        before, most = self.established, 0
        for number in range(count):
            self.initiate(f"pile-{number}")
            wait_until(lambda: self._in_state("CONNECTING") < _HANDSHAKES, 30, "the victim answers")
            most = max(most, self._in_state("ESTABLISHED"))
        wait_until(lambda: not self._in_state("CONNECTING"), 30, "the victim has answered all")
        return self.established - before, max(most, self._in_state("ESTABLISHED"))

    def spis(self) -> frozenset[str]:
        """The SPIs of all that this charon holds now."""
        return frozenset(
            child[key]
            for sa in self.host.sas()
            for child in sa["child-sas"].values()
            for key in ("spi-in", "spi-out")
            if key in child
        )

    @property
    def established(self) -> int:
        """IKE_SAs that came up, by the log."""
        return self.host.charon_log.read_text().count("] established between ")

    @property
    def children(self) -> int:
        """CHILD_SAs that came up, by the log: what stood for a moment counts as well."""
        return self.host.charon_log.read_text().count("} established with SPIs ")

    def _in_state(self, state: str) -> int:
        return sum(sa["state"] == state for sa in self.host.sas())
