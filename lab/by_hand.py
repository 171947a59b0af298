"""Connections loaded by hand through VICI: what an operator without swanmesh would write."""

from __future__ import annotations

from typing import Any, Literal

from lab.host import Host
from lab.mesh import address_pairs


def _pass(icmp_type: int) -> dict[str, Any]:
    selector = [f"::/0[ipv6-icmp/{icmp_type}]"]
    return {"mode": "pass", "start_action": "trap", "local_ts": selector, "remote_ts": selector}


NEIGHBOURS: dict[str, Any] = {
    "remote_addrs": ["::1"],  # so that no IKE_SA ever takes it
    "children": {"solicitation": _pass(135), "advertisement": _pass(136)},
}
"""Neighbour discovery in clear. Without it a trap also holds the answer to the question which Ethernet
address a peer has, so that IKE itself cannot reach an IPv6 peer on the link."""


def load_credentials(host: Host) -> None:
    """Loads the host's key and certificate and the mesh's authority."""
    with host.vici() as session:
        for kind, flag, name in (("X509", "CA", "ca.pem"), ("X509", "NONE", "host.pem")):
            session.load_cert({"type": kind, "flag": flag, "data": (host.folder / name).read_bytes()})
        session.load_key({"type": "any", "data": (host.folder / "host.key").read_bytes()})


def connection(
    host: Host, local: str, other: Host, remote: str, start_action: Literal["none", "trap", "trap|start"]
) -> dict[str, Any]:
    """A transport-mode connection for one address pair, as load-conn takes it."""
    return {
        "version": "2",
        "local_addrs": [local],
        "remote_addrs": [remote],
        "proposals": ["aes128gcm16-prfsha256-ecp256"],
        "mobike": "no",
        "unique": "never",
        "local": {"auth": "pubkey", "id": host.name},
        "remote": {
            "auth": "pubkey",
            "id": other.name,
            "cacerts": [(host.folder / "ca.pem").read_bytes()],
        },
        "children": {
            "esp": {
                "mode": "transport",
                "esp_proposals": ["aes128gcm16-ecp256"],
                "start_action": start_action,
            }
        },
    }


def load_connections(
    host: Host, others: list[Host], start_action: Literal["none", "trap", "trap|start"] = "trap"
) -> list[str]:
    """Loads credentials and a connection for each address pair with `others`; returns their names."""
    load_credentials(host)
    names = []
    with host.vici() as session:
        if any(":" in address for address in host.addresses):
            session.load_conn({"neighbours": NEIGHBOURS})
        for other in others:
            for index, (local, remote) in enumerate(address_pairs(host, other)):
                names.append(f"{other.short}-{index}")
                session.load_conn({names[-1]: connection(host, local, other, remote, start_action)})
    return names


def initiate(host: Host, name: str) -> None:
    """Asks for a connection's CHILD_SA and does not wait for it."""
    with host.vici() as session:
        list(session.initiate({"ike": name, "child": "esp", "timeout": "-1"}))
