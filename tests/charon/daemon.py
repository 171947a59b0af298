"""What a charon holds and does, without the wire: connections, credentials, SAs, and the commands on them.

What it answers is what strongSwan 5.9.8 answers to the same command. It knows no network: an IKE_SA comes up
because `on_initiate` or the test says so.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from tests.charon.holdings import IkeSa, key_id

Section: TypeAlias = dict[str, Any]
Stream: TypeAlias = Callable[[str, Section], None]
"""Sends an event to the client that asked."""


class Initiation(enum.Enum):
    """What becomes of an `initiate`."""

    ESTABLISH = enum.auto()
    """It comes up right after the reply."""
    HOLD = enum.auto()
    """It stays CONNECTING until `establish_held` or `give_up`."""


class Daemon:
    """The state of a charon; `emit` is where its events go."""

    version = "5.9.8"
    local_id = "a.mesh.example"

    def __init__(self) -> None:
        self.on_initiate = Initiation.ESTABLISH
        self.refuse: Callable[[str], str] = lambda name: ""
        """Why a connection of this name is refused; nothing, if it is not."""
        self.peers_answer = True
        """Whether a DELETE is answered; without, only `force` ends an IKE_SA."""
        self.forget_everything()

    def forget_everything(self) -> None:
        """As after a restart."""
        self.connections: dict[str, Section] = {}
        self.sas: dict[int, IkeSa] = {}
        self.certificates: list[bytes] = []
        self.remembered: list[bytes] = []
        """Certificates that peers show, each time."""
        self.lists: list[bytes] = []
        self.keys: list[str] = []
        self._ids = itertools.count(1)
        self._started = time.time()

    def emit(self, name: str, message: Section) -> None:
        """Send an event to every client registered for it."""
        raise NotImplementedError

    def answer(self, command: str, message: Section, stream: Stream) -> Section | None:
        """The reply to a command, None if there is no such command."""
        handler = getattr(self, f"_do_{command.replace('-', '_')}", None)
        reply: Section | None = handler(message, stream) if handler else None
        return reply

    # What happens in charon.

    def establish(
        self,
        connection: str,
        child: str = "",
        *,
        initiator: bool = True,
        mode: str = "TRANSPORT",
        remote: tuple[str, str] | None = None,
    ) -> IkeSa:
        """A new IKE_SA with a CHILD_SA comes up, begun here or by the peer. `remote`: the peer's address and
        identity, where the connection leaves them open."""
        ike = IkeSa(next(self._ids), connection, initiator=initiator, local_id=self.local_id)
        body = self.connections.get(connection, {})
        ike.take_addresses(body)
        if remote is not None:
            ike.remote_host, ike.remote_id = remote
        self.sas[ike.unique_id] = ike
        self._bring_up(ike, child or next(iter(body.get("children", {})), connection), mode)
        return ike

    def drop(
        self, unique_id: int, *, state: str = "DELETING", passive: tuple[str, ...] = ("IKE_DELETE",)
    ) -> None:
        """An IKE_SA ends; by default because the peer deleted it."""
        ike = self.sas.pop(unique_id)
        was_up, ike.state, ike.tasks_passive = ike.state, state, list(passive)
        if was_up == "CONNECTING":
            return  # charon tells nobody of one that never came up
        self.emit("ike-updown", {ike.connection: ike.section(with_children=False)})
        for child in ike.children.values():
            self.emit("child-updown", {ike.connection: ike.section(only=child)})

    def move(self, unique_id: int, remote_host: str, remote_port: int = 4500) -> None:
        """The peer speaks from elsewhere, and charon follows it (sa/ike_sa.c, update_hosts)."""
        ike = self.sas[unique_id]
        where = {
            "local-host": ike.local_host,
            "local-port": str(ike.local_port),
            "remote-host": remote_host,
            "remote-port": str(remote_port),
        }
        self.emit("ike-update", where | {ike.connection: ike.section(with_children=False)})
        ike.remote_host, ike.remote_port = remote_host, remote_port

    def establish_held(self) -> None:
        """What `on_initiate = HOLD` kept CONNECTING comes up."""
        for ike in [sa for sa in self.sas.values() if sa.state == "CONNECTING"]:
            self._bring_up(ike, ike.wanted_child, "TRANSPORT")

    def give_up(self) -> None:
        """What is CONNECTING times out: gone, without any event (sa/ike_sa.c:2434)."""
        for unique_id in [sa.unique_id for sa in self.sas.values() if sa.state == "CONNECTING"]:
            del self.sas[unique_id]

    def unload(self, name: str) -> None:
        """A connection goes, by whoever's hand."""
        for child, body in self.connections.pop(name)["children"].items():
            if body["start_action"] == b"trap":
                self.log(f"uninstalling '{child}'")

    def log(self, line: str, *, connection: str = "", unique_id: int = 0) -> None:
        """charon logs a line at level 1."""
        who = {"ikesa-name": connection, "ikesa-uniqueid": str(unique_id)} if connection else {}
        self.emit("log", {"group": "IKE", "level": "1", "thread": "7", **who, "msg": line})

    def _bring_up(self, ike: IkeSa, child_name: str, mode: str) -> None:
        if ike.state != "ESTABLISHED":
            ike.state = "ESTABLISHED"
            self.emit("ike-updown", {"up": "yes", ike.connection: ike.section(with_children=False)})
        child = ike.child(next(self._ids), child_name, mode)
        ike.children[child.unique_id] = child
        self.emit("child-updown", {"up": "yes", ike.connection: ike.section(only=child)})

    # The commands, by name; each returns its reply.

    def _do_version(self, _: Section, __: Stream) -> Section:
        return {"daemon": "charon-systemd", "version": self.version, "sysname": "Linux", "release": "6.1.0"}

    def _do_stats(self, _: Section, __: Stream) -> Section:
        since = time.strftime("%b %d %H:%M:%S %Y", time.localtime(self._started))
        return {"uptime": {"running": "1 second", "since": since}, "ikesas": {"total": str(len(self.sas))}}

    def _do_get_algorithms(self, _: Section, __: Stream) -> Section:
        exchanges = {"CURVE_25519": "openssl", "ECP_256": "openssl"}
        return {
            "encryption": {"AES_CBC": "aesni"},
            "aead": {"AES_GCM_16": "aesni"},
            "integrity": {"HMAC_SHA2_256_128": "openssl"},
            "prf": {"PRF_HMAC_SHA2_256": "openssl"},
            "dh" if self.version.startswith("5") else "ke": exchanges,
        }

    def _do_load_conn(self, message: Section, _: Stream) -> Section:
        for name, body in message.items():
            if words := self.refuse(name):
                return _refused(words)
            if b"no-such-algorithm" in body.get("proposals", []):
                return _refused("invalid value for: proposals, config discarded")
            self.connections[name] = body
        return {"success": "yes"}

    def _do_unload_conn(self, message: Section, _: Stream) -> Section:
        name = _text(message, "name")
        if name not in self.connections:
            return _refused(f"unload: connection '{name}' not found")
        self.unload(name)
        return {"success": "yes"}

    def _do_list_conns(self, _: Section, stream: Stream) -> Section:
        for name, body in self.connections.items():
            children = {child: {"mode": "TRANSPORT"} for child in body.get("children", {})}
            stream("list-conn", {name: {"version": "IKEv2", "children": children}})
        return {}

    def _do_list_sas(self, _: Section, stream: Stream) -> Section:
        for ike in self.sas.values():
            stream("list-sa", {ike.connection: ike.section()})
        return {}

    def _do_list_certs(self, asked: Section, stream: Stream) -> Section:
        held = self.lists if _text(asked, "type") == "X509_CRL" else [*self.certificates, *self.remembered]
        for data in held:
            stream("list-cert", {"type": _text(asked, "type"), "flag": "NONE", "data": data})
        return {}

    def _do_load_cert(self, message: Section, _: Stream) -> Section:
        if not message.get("data", b"").startswith(b"\x30"):
            return _refused("parsing X509 certificate failed")
        if _text(message, "type") == "X509_CRL":
            self.lists.append(message["data"])
            return {"success": "yes"}
        if message["data"] not in self.certificates:
            self.certificates.insert(0, message["data"])
        return {"success": "yes"}

    def _do_load_key(self, message: Section, _: Stream) -> Section:
        try:
            key = key_id(message.get("data", b""))
        except ValueError:
            return _refused("parsing ANY private key failed")
        if key not in self.keys:
            self.keys.append(key)
        return {"success": "yes", "id": key}

    def _do_unload_key(self, message: Section, _: Stream) -> Section:
        if _text(message, "id") not in self.keys:
            return _refused("key not found")
        self.keys.remove(_text(message, "id"))
        return {"success": "yes"}

    def _do_get_keys(self, _: Section, __: Stream) -> Section:
        return {"keys": list(self.keys)}

    def _do_flush_certs(self, _: Section, __: Stream) -> Section:
        return {"success": "yes"}

    def _do_clear_creds(self, _: Section, __: Stream) -> Section:
        self.keys.clear()
        self.certificates.clear()
        self.lists.clear()
        return {"success": "yes"}

    def _do_initiate(self, message: Section, _: Stream) -> Section:
        name, child = _text(message, "ike"), _text(message, "child")
        body = self.connections.get(name)
        if body is None or child not in body.get("children", {}):
            return _refused(f"CHILD_SA config '{child}' not found")
        standing = [sa for sa in self.sas.values() if sa.connection == name and sa.state == "ESTABLISHED"]
        if standing:
            ike = standing[0]
        else:
            ike = IkeSa(next(self._ids), name, state="CONNECTING", local_id=self.local_id, wanted_child=child)
            ike.take_addresses(body)
            self.sas[ike.unique_id] = ike
        if self.on_initiate is Initiation.ESTABLISH:
            asyncio.get_running_loop().call_soon(self._bring_up, ike, child, "TRANSPORT")
        return {"success": "yes"}

    def _do_terminate(self, message: Section, _: Stream) -> Section:
        ike_id, child_id = _number(message, "ike-id"), _number(message, "child-id")
        loop = asyncio.get_running_loop()
        matches = 0
        for ike in list(self.sas.values()):
            if ike_id == ike.unique_id:
                if self.peers_answer or _text(message, "force") == "yes":
                    loop.call_soon(self.drop, ike.unique_id)
                else:
                    ike.state = "DELETING"
                matches += 1
            elif child_id in ike.children:
                loop.call_soon(self._drop_child, ike, child_id)
                matches += 1
        done = {"matches": str(matches), "terminated": str(matches)}
        return done | ({"success": "yes"} if matches else _refused("no matching SAs to terminate found"))

    def _drop_child(self, ike: IkeSa, child_id: int) -> None:
        child = ike.children.pop(child_id)
        child.state = "DELETING"
        self.emit("child-updown", {ike.connection: ike.section(only=child)})

    def _do_rekey(self, message: Section, _: Stream) -> Section:
        ike_id, child_id = _number(message, "ike-id"), _number(message, "child-id")
        loop = asyncio.get_running_loop()
        for ike in list(self.sas.values()):
            if child_id in ike.children:
                loop.call_soon(self._rekey_child, ike, child_id)
            elif ike_id == ike.unique_id:
                reauth = _text(message, "reauth") == "yes"
                loop.call_soon(self._reauthenticate if reauth else self._rekey_ike, ike)
            else:
                continue
            return {"success": "yes", "matches": "1"}
        return {"matches": "0"} | _refused("no matching SAs to rekey found")

    def _rekey_child(self, ike: IkeSa, child_id: int) -> None:
        old = ike.children.pop(child_id)
        new = replace(ike.child(next(self._ids), old.name, old.mode), reqid=old.reqid)
        ike.children[new.unique_id] = new
        pair = {"old": old.section(), "new": new.section()}
        section = ike.section(with_children=False) | {"child-sas": {old.name: pair}}
        self.emit("child-rekey", {ike.connection: section})

    def _rekey_ike(self, old: IkeSa) -> None:
        new = old.successor(next(self._ids))
        del self.sas[old.unique_id]
        self.sas[new.unique_id] = new
        pair = {"old": old.section(with_children=False), "new": new.section(with_children=False)}
        self.emit("ike-rekey", {old.connection: pair})

    def _reauthenticate(self, old: IkeSa) -> None:
        names = [child.name for child in old.children.values()]
        self.drop(old.unique_id, passive=())
        for name in names:
            self.establish(old.connection, name)


def _refused(errmsg: str) -> Section:
    return {"success": "no", "errmsg": errmsg}


def _text(message: Section, key: str) -> str:
    value: bytes = message.get(key, b"")
    return value.decode()


def _number(message: Section, key: str) -> int:
    return int(message.get(key, b"0"))
