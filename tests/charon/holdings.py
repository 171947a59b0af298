"""The SAs that the fake charon holds, and how VICI tells of them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.serialization import load_der_private_key
from cryptography.x509 import SubjectKeyIdentifier


def key_id(der: bytes) -> str:
    """SHA-1 of the public key's bit string, as charon names keys; ValueError for what is no key."""
    public = load_der_private_key(der, None).public_key()
    return SubjectKeyIdentifier.from_public_key(public).digest.hex()  # type: ignore[arg-type]


@dataclass
class ChildSa:
    unique_id: int
    name: str
    state: str = "INSTALLED"
    mode: str = "TRANSPORT"
    reqid: int = 1
    spi_in: str = field(default_factory=lambda: secrets.token_hex(4))
    spi_out: str = field(default_factory=lambda: secrets.token_hex(4))
    local_ts: str = "192.0.2.1/32"
    remote_ts: str = "192.0.2.2/32"
    bytes_in: int = 0
    bytes_out: int = 0

    def section(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "uniqueid": str(self.unique_id),
            "reqid": str(self.reqid),
            "state": self.state,
            "mode": self.mode,
            "protocol": "ESP",
            "spi-in": self.spi_in,
            "spi-out": self.spi_out,
            "encr-alg": "AES_GCM_16",
            "encr-keysize": "128",
            "esn": "1",
            "bytes-in": str(self.bytes_in),
            "packets-in": str(self.bytes_in // 100),
            "bytes-out": str(self.bytes_out),
            "packets-out": str(self.bytes_out // 100),
            "rekey-time": "3000",
            "life-time": "3960",
            "install-time": "1",
            "local-ts": [self.local_ts],
            "remote-ts": [self.remote_ts],
        }


@dataclass
class IkeSa:
    unique_id: int
    connection: str
    state: str = "NEW"
    initiator: bool = True
    local_host: str = "192.0.2.1"
    local_port: int = 500
    remote_host: str = "192.0.2.2"
    remote_port: int = 500
    nat_remote: bool = False
    local_id: str = "a.mesh.example"
    remote_id: str = "b.mesh.example"
    spi_initiator: str = field(default_factory=lambda: secrets.token_hex(8))
    spi_responder: str = field(default_factory=lambda: secrets.token_hex(8))
    children: dict[int, ChildSa] = field(default_factory=dict)
    tasks_active: list[str] = field(default_factory=list)
    tasks_passive: list[str] = field(default_factory=list)
    wanted_child: str = ""

    def take_addresses(self, body: dict[str, Any]) -> None:
        """Addresses and the peer's identity from the connection that it is made under."""
        if local := body.get("local_addrs"):
            self.local_host = local[0].decode()
        if remote := body.get("remote_addrs"):
            self.remote_host = remote[0].decode()
        for name, auth in body.items():
            if not isinstance(auth, dict) or "id" not in auth:
                continue
            identity = auth["id"].decode().removeprefix("fqdn:")
            if name.startswith("remote"):
                self.remote_id = identity
            elif name.startswith("local"):
                self.local_id = identity

    def child(self, unique_id: int, name: str, mode: str) -> ChildSa:
        """A CHILD_SA between its two hosts."""
        local, remote = (
            f"{host}/{128 if ':' in host else 32}" for host in (self.local_host, self.remote_host)
        )
        return ChildSa(unique_id, name, mode=mode, local_ts=local, remote_ts=remote)

    def successor(self, unique_id: int) -> IkeSa:
        """What a rekey makes of it."""
        return replace(self, unique_id=unique_id, spi_initiator=secrets.token_hex(8), initiator=True)

    def section(self, *, with_children: bool = True, only: ChildSa | None = None) -> dict[str, Any]:
        body: dict[str, Any] = {
            "uniqueid": str(self.unique_id),
            "version": "2",
            "state": self.state,
            "local-host": self.local_host,
            "local-port": str(self.local_port),
            "local-id": self.local_id,
            "remote-host": self.remote_host,
            "remote-port": str(self.remote_port),
            "remote-id": self.remote_id if self.state != "CONNECTING" else "%any",
            "initiator-spi": self.spi_initiator,
            "responder-spi": self.spi_responder,
            "encr-alg": "AES_GCM_16",
            "encr-keysize": "128",
            "prf-alg": "PRF_HMAC_SHA2_256",
            "dh-group": "CURVE_25519",
        }
        if self.initiator:
            body["initiator"] = "yes"
        if self.nat_remote:
            body |= {"nat-remote": "yes", "nat-any": "yes"}
        if self.state == "ESTABLISHED":
            body |= {"established": "1", "rekey-time": "14000", "reauth-time": str(20 * 86400 - 1)}
        for name, tasks in (("tasks-active", self.tasks_active), ("tasks-passive", self.tasks_passive)):
            if tasks:
                body[name] = list(tasks)
        children = [only] if only else list(self.children.values())
        if with_children:
            body["child-sas"] = {f"{child.name}-{child.unique_id}": child.section() for child in children}
        return body
