"""What stays in clear by choice under any policy: `exempt: [tcp/22, icmp]`.

`tcp/22` is a service's port, whichever end it is at: connections to port 22 of this host or of the peer, from
a port of 32768 or above, as Linux chooses one (net.ipv4.ip_local_port_range). Both ends must exempt a
service: this host takes what the peer sends in clear, and sends in clear itself. What one end alone exempts
does not work, as the other one refuses it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from swanmesh.core.settings.setting import Checked, ListOf

_SERVICE = re.compile(r"(tcp|udp)/([1-9][0-9]{0,4})", re.ASCII)
_PROTOCOLS = {"tcp": 6, "udp": 17}


@dataclass(frozen=True, slots=True)
class Exemption:
    """One of them."""

    word: str
    """tcp, udp or icmp, which is ICMPv6 in its family."""
    port: int = 0

    def __str__(self) -> str:
        return f"{self.word}/{self.port}" if self.port else self.word

    def protocol(self, version: int) -> int:
        """IP protocol number."""
        return _PROTOCOLS.get(self.word) or {4: 1, 6: 58}[version]


def check_exemption(value: object) -> Exemption:
    """Raises ValueError with what is wrong with it."""
    if value == "icmp":
        return Exemption("icmp")
    match = _SERVICE.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[2]) > 65535:
        raise ValueError("is neither a service nor icmp")
    return Exemption(match[1], int(match[2]))


EXEMPTIONS = ListOf(Checked(check_exemption, "write such as tcp/22, udp/123 or icmp"), "exemptions", least=0)
"""How a list of them is read."""
