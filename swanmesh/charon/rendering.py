"""The core's connections as VICI has them: the message of `load-conn` (strongSwan plugins/vici/README.md).

The authorities go by value into each connection, and charon parses them each time: for 5,000 connections
1.0 to 1.2 s of processor time with a P-256 key, 0.4 s with RSA, beside 1.1 s for all else (5.9.8 with
OpenSSL 3). There is no other way that is as strict. `cacert` sections take a file or a handle instead and
are parsed as often; `ca_id` constrains the chain to a name or a key id, which any authority that charon
trusts for something else can put into an intermediate of its own; without either, all of those would be
believed. Several sessions at once gain nothing (measured).

Whoever changes what is written for the same connection gives `core/connections.py` a new FORMAT, and sees to
it that charon finds the two different: what it takes for the same keeps its trap under the old child's name.
"""

from __future__ import annotations

from typing import TypeAlias

from swanmesh.core.connections import ANYBODY, FORMAT, SHORTER, Connection, Terms

_PACKETS = 3_000_000_000
"""After so many a CHILD_SA is rekeyed: where the peer refuses ESN the kernel has 2^32 sequence numbers and
sends nothing after the last, 86 minutes at 10 Gbit/s. With ESN a rekey more does no harm."""
_PACKETS_OVER = 1_200_000_000
"""Packets that a rekeying may take: 24 minutes at 10 Gbit/s."""

Value: TypeAlias = "str | bytes | list[str] | list[bytes] | dict[str, Value]"
_NOWHERE = {"local_addrs": ["127.0.0.1"], "remote_addrs": ["127.0.0.1"]}
"""Where no peer's request comes from."""


def render(connection: Connection) -> dict[str, Value]:
    """What stands under the connection's name.

    `unique=never` and `mobike=no`: charon otherwise ends or moves associations on its own. The own
    certificate is left out and found by `local.id`, so that a renewed one replaces no connection.
    """
    body: dict[str, Value] = {"version": "2", "unique": "never"}
    child: dict[str, Value] = {
        "local_ts": list(connection.local_ts),
        "remote_ts": list(connection.remote_ts),
        "start_action": "trap" if connection.trap else "none",
    }
    if connection.peer:
        body |= _identities(connection)
    if connection.terms is None or connection.addresses is None:
        # No IKE_SA comes of it, so this says nothing but that another format is another connection.
        body |= _NOWHERE | {"dpd_delay": f"{FORMAT}s"}
        child["mode"] = connection.kind.value
    else:
        body |= _negotiation(connection.terms)
        body["local_addrs"] = [str(connection.addresses.local)]
        body["remote_addrs"] = [str(connection.addresses.remote)]
        child |= _association(connection.terms)
    return body | {"children": {connection.child: child}}


def _identities(connection: Connection) -> dict[str, Value]:
    identity = connection.peer if connection.peer == ANYBODY else f"fqdn:{connection.peer}"
    remote: dict[str, Value] = {"auth": "pubkey", "id": identity}
    if connection.terms is not None:
        remote["cacerts"] = list(connection.terms.authorities)
        if connection.terms.revocation:
            remote["revocation"] = connection.terms.revocation
    return {"local": {"auth": "pubkey", "id": f"fqdn:{connection.host}"}, "remote": remote}


def _negotiation(terms: Terms) -> dict[str, Value]:
    return {
        "proposals": list(terms.ike_proposals),
        "mobike": "no",
        "keyingtries": "1",
        "send_cert": "always",
        "encap": "yes" if terms.encap else "no",
        "dpd_delay": f"{terms.dpd_delay}s",
        "rekey_time": f"{terms.ike_rekey}s",
        "reauth_time": f"{terms.ike_reauth}s",
        "over_time": f"{terms.ike_over}s",
        # By default as long as over_time, which may be longer than a short life itself.
        "rand_time": f"{terms.ike_rekey // SHORTER}s",
    }


def _association(terms: Terms) -> dict[str, Value]:
    return {
        "mode": "transport",
        "esp_proposals": list(terms.esp_proposals),
        "rekey_time": f"{terms.child_rekey}s",
        "life_time": f"{terms.child_rekey + terms.child_over}s",
        "rand_time": f"{terms.child_rekey // SHORTER}s",
        "rekey_packets": str(_PACKETS),
        "life_packets": str(_PACKETS + _PACKETS_OVER),
        "rand_packets": str(_PACKETS // SHORTER),
        "replay_window": str(terms.replay_window),
        "close_action": "none",
        "dpd_action": "none",
    }
