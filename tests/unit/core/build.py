"""Plain values for the tests of the core: hosts, settings, peers, IKE_SAs."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from swanmesh.core.connections import connection_name
from swanmesh.core.model import (
    Address,
    AddressPair,
    ConnectionSettings,
    Credentials,
    Host,
    InitiationSettings,
    Peer,
    Settings,
)
from swanmesh.core.observed import ChildSa, Holdings, IkeSa, LoadedConnection, LoadedCredentials
from swanmesh.core.peers.description import parse_peer
from swanmesh.core.settings.policy import Policy


def credentials(name: str = "web1.mesh.example", *, lifetime: float = 90 * 86400.0) -> Credentials:
    return Credentials(
        certificate=f"certificate of {name}".encode(),
        private_key=f"key of {name}".encode(),
        key_id=name.encode().hex(),
        authorities=(b"the authority",),
        not_before=2e9 - lifetime,
        not_after=2e9,
    )


def settings(
    name: str = "web1.mesh.example",
    *addresses: str,
    policy: Policy = Policy.REQUIRE,
    connection: ConnectionSettings | None = None,
    initiation: InitiationSettings | None = None,
) -> Settings:
    return Settings(
        host=Host(
            name=name,
            addresses=tuple(ipaddress.ip_address(a) for a in addresses or ("203.0.113.1",)),
        ),
        credentials=credentials(name),
        policy=policy,
        connection=connection or ConnectionSettings(),
        initiation=initiation or InitiationSettings(),
    )


def peer(
    name: str = "web2.mesh.example", *addresses: str, policy: str | None = None, source: str = ""
) -> Peer:
    return parse_peer(name, list(addresses) or ["203.0.113.2"], policy, source=source or f"{name}.yaml")


def pair_of(host: Settings, other: Peer) -> AddressPair:
    return AddressPair(host.host.addresses[0], other.addresses[0])


def name_of(host: Settings, other: Peer) -> str:
    """Name of the connection for the first address pair."""
    return connection_name(other.name, pair_of(host, other))


def address(text: str) -> Address:
    return ipaddress.ip_address(text)


def child_sa(unique_id: int = 1, state: str = "INSTALLED", mode: str = "TRANSPORT") -> ChildSa:
    return ChildSa(
        unique_id=unique_id,
        name="esp-0123456789abcdef",
        state=state,
        mode=mode,
        spi_in=f"{unique_id:08x}",
        spi_out=f"{unique_id + 0x8000:08x}",
        age=1.0,
    )


def ike_sa(
    connection: str,
    unique_id: int = 1,
    state: str = "ESTABLISHED",
    *children: ChildSa,
    initiator: bool = True,
    age: float | None = 1.0,
    spi: str | None = None,
) -> IkeSa:
    return IkeSa(
        unique_id=unique_id,
        connection=connection,
        state=state,
        initiator=initiator,
        spi_initiator=spi or f"{unique_id:016x}",
        spi_responder=spi or f"{unique_id:016x}",
        children=children,
        age=age if state in ("ESTABLISHED", "REKEYING") else None,
    )


def association(connection: str, unique_id: int = 1, *, initiator: bool = True, age: float = 1.0) -> IkeSa:
    """An IKE_SA with one CHILD_SA that works."""
    return ike_sa(connection, unique_id, "ESTABLISHED", child_sa(unique_id), initiator=initiator, age=age)


def with_tasks(sa: IkeSa, *, active: tuple[str, ...] = (), passive: tuple[str, ...] = ()) -> IkeSa:
    return replace(sa, tasks_active=active, tasks_passive=passive)


def holdings(
    host: Settings, *sas: IkeSa, loaded: dict[str, str] | None = None, credentials_too: bool = True
) -> Holdings:
    """What a look shows. `loaded`: name of the child by name of the connection."""
    mine = host.credentials
    held = LoadedCredentials(
        key_ids=frozenset({mine.key_id} if credentials_too else ()),
        certificates=frozenset({mine.certificate_id, *mine.authority_ids} if credentials_too else ()),
    )
    connections = tuple(LoadedConnection(name=n, children=(c,)) for n, c in (loaded or {}).items())
    return Holdings(connections=connections, sas=sas, credentials=held)
