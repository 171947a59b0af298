"""Desired connections: what charon should hold for a peer, as plain data.

A connection is ours by its name and its child's: both have a shape that nobody else gives by chance. The
child's name ends in a digest of all that was loaded, because charon does not tell proposals back
(plugins/vici/vici_query.c, list_conns): so the digest, too, is read from charon and never kept by us.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache

from swanmesh.core.actions import Connection, Value
from swanmesh.core.model import Address, AddressPair, ConnectionSettings, Peer, Settings
from swanmesh.core.observed import LoadedConnection
from swanmesh.core.policy import meaning, policy_of

_NAME = re.compile(r"swanmesh-([a-z0-9.-]+)-[0-9a-f]{8}", re.ASCII)
_CHILD = re.compile(r"(esp|drop|pass)-[0-9a-f]{16}", re.ASCII)
_NOWHERE = {4: ["127.0.0.1"], 6: ["::1"]}
"""Addresses no peer's request comes from: a connection with them takes part in no negotiation."""


_NEIGHBOUR_DISCOVERY = (135, 136)
"""ICMPv6 types of solicitation and advertisement (RFC 4861 §4.3, §4.4)."""


def connection_name(peer: str, pair: AddressPair) -> str:
    """Name of the pair's connection. It stays the same through every change of what is loaded under it.

    VICI names hold 255 bytes; the digest covers what a very long host name loses here.
    """
    digest = hashlib.sha256(f"{peer} {_text(pair.local)} to {_text(pair.remote)}".encode()).hexdigest()[:8]
    return f"swanmesh-{peer[:200]}-{digest}"


def ours(name: str) -> bool:
    """Whether a connection or IKE_SA of this name is one of ours."""
    return _NAME.fullmatch(name) is not None


def ours_loaded(connection: LoadedConnection) -> bool:
    return ours(connection.name) and all(_CHILD.fullmatch(child) for child in connection.children)


def peer_of(name: str) -> str:
    """The peer in a connection's name, for words about connections whose peer is known no more."""
    match = _NAME.fullmatch(name)
    return match.group(1) if match else name


def is_shunt(child: str) -> bool:
    """Whether a child lets packets pass or drops them, and never becomes an association. Under a peer's
    connection it is what `down` leaves in place of the real one."""
    return child.startswith(("drop-", "pass-"))


def address_pairs(settings: Settings, peer: Peer) -> Iterator[AddressPair]:
    """Every local address with every address of the peer's of its family."""
    for local in settings.host.addresses:
        for remote in peer.addresses:
            if local.version == remote.version:
                yield AddressPair(local, remote)


def desired(settings: Settings, peer: Peer) -> dict[str, tuple[AddressPair, Connection]]:
    """The connections that should be loaded for the peer, by name."""
    policy = meaning(policy_of(peer, settings))
    if not policy.connects:
        return {}
    found = {}
    for pair in address_pairs(settings, peer):
        name = connection_name(peer.name, pair)
        found[name] = (pair, _association(name, settings, peer, pair, trap=policy.trap))
    return found


def down(settings: Settings, peer: Peer, pair: AddressPair) -> Connection:
    """What stands in a connection's place while the operator holds the peer down: no negotiation, and a shunt
    that drops the pair's packets, or lets them pass where the policy allows clear text."""
    closed = meaning(policy_of(peer, settings)).closed_while_down
    word = "drop" if closed else "pass"
    nowhere = _NOWHERE[pair.local.version]
    body: dict[str, Value] = {
        "version": "2",
        "local_addrs": list(nowhere),
        "remote_addrs": list(nowhere),
        "local": {"auth": "pubkey", "id": f"fqdn:{settings.host.name}"},
        "remote": {"auth": "pubkey", "id": f"fqdn:{peer.name}"},
    }
    child: dict[str, Value] = {
        "mode": word,
        "local_ts": [_selector(pair.local)],
        "remote_ts": [_selector(pair.remote)],
        "start_action": "trap",
    }
    return _connection(connection_name(peer.name, pair), peer.name, word, body, child)


def neighbour_discovery(settings: Settings) -> Connection | None:
    """A shunt that lets IPv6 neighbour discovery pass in clear; None on a host without IPv6.

    The answers go from host address to host address, so traps would hold them back, IKE would have no link
    address to send to, and no association could ever come up. Pass policies outrank traps and associations
    (libcharon plugins/kernel_netlink/kernel_netlink_ipsec.c, get_priority)."""
    if all(address.version == 4 for address in settings.host.addresses):
        return None
    name = f"swanmesh-neighbour-discovery-{hashlib.sha256(b'shunt').hexdigest()[:8]}"
    nowhere = _NOWHERE[6]
    body: dict[str, Value] = {"version": "2", "local_addrs": list(nowhere), "remote_addrs": list(nowhere)}
    child: dict[str, Value] = {
        "mode": "pass",
        "local_ts": [f"::/0[ipv6-icmp/{kind << 8}]" for kind in _NEIGHBOUR_DISCOVERY],
        "remote_ts": ["::/0[ipv6-icmp]"],
        "start_action": "trap",
    }
    return _connection(name, "", "pass", body, child)


def reauth_time(settings: Settings) -> int:
    """Seconds between authentications: a quarter of the own certificate's life at most, since only a
    reauthentication looks at certificates again; a rekey never does."""
    return max(60, min(settings.connection.ike_reauth, int(settings.credentials.lifetime / 4)))


def _association(name: str, settings: Settings, peer: Peer, pair: AddressPair, *, trap: bool) -> Connection:
    """`unique=never` and `mobike=no`: charon otherwise ends or moves associations on its own. The own
    certificate is left out and found by `local.id`, so that a renewed one replaces no connection."""
    how = settings.connection
    body: dict[str, Value] = {
        "version": "2",
        "local_addrs": [_text(pair.local)],
        "remote_addrs": [_text(pair.remote)],
        "proposals": list(how.ike_proposals),
        "unique": "never",
        "mobike": "no",
        "keyingtries": "1",
        "send_cert": "always",
        "encap": "yes" if how.encap else "no",
        "dpd_delay": f"{how.dpd_delay}s",
        "rekey_time": f"{how.ike_rekey}s",
        "reauth_time": f"{reauth_time(settings)}s",
        "local": {"auth": "pubkey", "id": f"fqdn:{settings.host.name}"},
        "remote": {
            "auth": "pubkey",
            "id": f"fqdn:{peer.name}",
            "cacerts": list(settings.credentials.authorities),
        },
    }
    return _connection(name, peer.name, "esp", body, _child(how, pair, trap=trap))


def _child(how: ConnectionSettings, pair: AddressPair, *, trap: bool) -> dict[str, Value]:
    return {
        "mode": "transport",
        "local_ts": [_selector(pair.local)],
        "remote_ts": [_selector(pair.remote)],
        "esp_proposals": list(how.esp_proposals),
        "rekey_time": f"{how.child_rekey}s",
        "replay_window": str(how.replay_window),
        "start_action": "trap" if trap else "none",
        "close_action": "none",
        "dpd_action": "none",
    }


def _selector(address: Address) -> str:
    return f"{_text(address)}/{address.max_prefixlen}"


@lru_cache(maxsize=64)
def _text(address: Address) -> str:
    """Kept for a while: each address is written several times in a row, and IPv6 takes 10 µs to write."""
    return str(address)


def _connection(
    name: str, peer: str, kind: str, body: dict[str, Value], child: dict[str, Value]
) -> Connection:
    # charon takes two children that differ in name alone for the same (config/child_cfg.c, equals), and then
    # keeps the old one's trap under its old name. So nothing may enter the digest that charon reads as equal.
    # Of plain dicts, lists, str and bytes `repr` says all and no more, alike in every process.
    digest = hashlib.sha256(repr((name, body, child)).encode()).hexdigest()[:16]
    child_name = f"{kind}-{digest}"
    return Connection(name=name, child=child_name, peer=peer, body=body | {"children": {child_name: child}})
