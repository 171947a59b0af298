"""charon as the rest of swanmesh sees it: what it holds, what happens in it, and what can be asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from swanmesh.charon import messages
from swanmesh.charon.codec import Section
from swanmesh.charon.errors import CharonLost, CommandFailed, UnknownEvent
from swanmesh.charon.events import EventReader
from swanmesh.charon.loading import load_in_batches
from swanmesh.charon.messages import Decoder, Version
from swanmesh.charon.session import Session
from swanmesh.charon.watchdog import Pulse
from swanmesh.core.actions import (
    Action,
    Initiate,
    InstallPolicies,
    LoadConnection,
    LoadCredentials,
    LoadRevocationLists,
    RekeyChild,
    RekeyIke,
    TerminateChild,
    TerminateIke,
    UnloadConnection,
)
from swanmesh.core.connections import Connection, Kind, kind_of
from swanmesh.core.observed import (
    Event,
    Holdings,
    IkeSa,
    LoadedConnection,
    LoadedCredentials,
    SeenCertificate,
)

_EVENTS = ("ike-updown", "child-updown", "ike-rekey", "child-rekey", "ike-update", "alert", "log")
"""`log` comes last: nothing before it is buried under charon's own lines."""
_STREAMS = {"list-sas": "list-sa", "list-conns": "list-conn", "list-certs": "list-cert"}
_BUSY = 3.0
"""How many times longer a command may take that waits for each IKE_SA in turn: charon holds an IKE_SA for
10 s while it fetches a CRL for it (libstrongswan plugins/revocation), and waits for it meanwhile."""


@dataclass(frozen=True, slots=True)
class CharonGone:
    """The last thing in `Charon.events`: no session any more. Close it, and connect a new one."""

    reason: str


Incoming: TypeAlias = Event | CharonGone
Read: TypeAlias = Callable[[Iterable[bytes]], tuple[SeenCertificate, ...]]
"""Reads certificates (DER), and leaves out those that nobody of the mesh vouches for."""


def _nobody(_: Iterable[bytes]) -> tuple[SeenCertificate, ...]:
    return ()


class Charon:
    """A connected charon: one session for commands, another for events.

    One object is one life of the connection: `connect`, use, `close`. When either session is lost both end,
    everything under way raises CharonLost, and `events` gets one CharonGone after the last event.
    """

    def __init__(self, socket: Path, *, timeout: float = 10.0, read: Read = _nobody) -> None:
        """`timeout`: seconds without a sign of life after which charon counts as lost. An answer may take
        three times as long while there are other signs."""
        self._read = read
        self.events: asyncio.Queue[Incoming] = asyncio.Queue()
        """What happened, in charon's order. Without a bound, as charon's own queue grows if it is not read;
        `events.qsize()` is its depth."""
        self.since: float | None = None
        """When charon started, in seconds since the epoch, once connected."""
        self.algorithms: frozenset[str] | None = None
        """Names of what this charon has plugins for, once connected."""
        self._socket = socket
        self._timeout = timeout
        self._version: Version | None = None
        self._commands: Session | None = None
        self._listener: Session | None = None
        self._connected = False
        self._gone: str | None = None
        self._decoder = Decoder()
        self._reader = EventReader(self._decoder)
        self._pulse = Pulse()

    @property
    def version(self) -> str:
        """charon's version, such as 5.9.8; empty before `connect`."""
        return self._version.version if self._version else ""

    @property
    def requests(self) -> int:
        """VICI packets sent on both sessions so far: commands and event registrations."""
        return sum(session.requests for session in (self._commands, self._listener) if session)

    @property
    def skipped(self) -> int:
        """Sections and events of charon's that could not be understood and were left out."""
        dropped = sum(session.dropped for session in (self._commands, self._listener) if session)
        return self._decoder.skipped + dropped

    async def connect(self) -> Version:
        """Open both sessions, ask for events, and learn who answers.

        Once it returns, every event from then on comes through `events`, so a look at charon after it misses
        nothing. Raises CharonLost with the reason in words; nothing stays open then.
        """
        try:
            self._listener = await self._open(self._received)
            await self._register(self._listener, _EVENTS)
            self._commands = await self._open(None)
            await self._register(self._commands, tuple(_STREAMS.values()))
            self._version = messages.version(await self._request("version"))
            self.since = messages.running_since(await self._request("stats"))
            self.algorithms = messages.algorithms(await self._request("get-algorithms"))
            if self._gone is not None:
                raise CharonLost(self._gone)
            self._connected = True
        except BaseException:
            await self.close()
            raise
        return self._version

    async def close(self) -> None:
        """End both sessions. What is under way raises CharonLost; charon and its SAs do not notice."""
        self._gone = self._gone or "closed at this end"
        self._end_sessions()

    # Looking.

    async def observe_sas(self) -> tuple[IkeSa, ...]:
        """All IKE_SAs with their CHILD_SAs, ours or anybody's.

        Waits for IKE_SAs that charon is busy with (no `noblock`): left out, they would look gone, and be
        initiated anew. One that stays busy for three timeouts makes charon count as hanging: CharonLost.
        """
        found: list[IkeSa] = []
        await self._stream("list-sas", lambda item: found.extend(self._decoder.ike_sas(item)))
        return tuple(found)

    async def observe_connections(self) -> tuple[LoadedConnection, ...]:
        """All connections that charon holds through VICI and other backends."""
        found: list[LoadedConnection] = []
        await self._stream("list-conns", lambda item: found.extend(self._decoder.connection(item)))
        return tuple(found)

    async def observe_credentials(self) -> LoadedCredentials:
        """Private keys and X.509 certificates, by the names that the core compares."""
        certificates, lists, keys = await asyncio.gather(
            self._list_certificates({"type": "X509"}),
            self._list_certificates({"type": "X509_CRL"}),
            self._request("get-keys"),
        )
        return LoadedCredentials(
            key_ids=messages.key_ids(keys),
            certificates=_fingerprints(certificates),
            seen=self._read(certificates),
            revocation_lists=_fingerprints(lists),
        )

    async def certificates_of(self, name: str) -> tuple[SeenCertificate, ...]:
        """The certificates of the host `name`, or of all, that charon holds or remembers: a few dozen."""
        which = {"type": "X509"} | ({"subject": name} if name else {})
        return self._read(await self._list_certificates(which))

    async def forget_certificates(self) -> None:
        """Have charon forget what it has verified: what was loaded stays, the rest it verifies anew."""
        await self._request("flush-certs", {"type": "X509"})

    async def _list_certificates(self, which: dict[str, str]) -> list[bytes]:
        found: list[bytes] = []
        await self._stream("list-certs", lambda item: found.extend(messages.certificate(item)), which)
        return found

    async def observe_all(self) -> Holdings:
        """Connections, credentials and IKE_SAs, asked for in one go."""
        connections, credentials, sas = await asyncio.gather(
            self.observe_connections(), self.observe_credentials(), self.observe_sas()
        )
        return Holdings(connections=connections, sas=sas, credentials=credentials)

    # Acting. Each raises CommandFailed when charon refuses, and CharonLost.

    async def load_connections(self, connections: list[Connection]) -> dict[str, str | None]:
        """Load them, many in one message; for each name None, or charon's words why it is not loaded.

        One that charon refuses holds up no other. Loading again what is loaded changes nothing.
        """
        outcome: dict[str, str | None] = {}
        async for part in self.load_each(connections):
            outcome |= part
        return outcome

    def load_each(self, connections: Iterable[Connection]) -> AsyncGenerator[dict[str, str | None], None]:
        """The same, telling the outcome of each message as charon answers it."""
        return load_in_batches(connections, lambda payload: self._request("load-conn", payload))

    async def unload_connection(self, name: str) -> None:
        """Forget a connection and its trap; its SAs stay (plugins/vici/vici_config.c)."""
        await self._request("unload-conn", {"name": name})

    async def load_credentials(
        self, certificate: bytes, private_key: bytes, authorities: Iterable[bytes] = (), name: str = ""
    ) -> str:
        """Load authorities, this host's key and its certificate, all DER; returns charon's id of the key.

        charon looks for the certificate to show in its cache first, where the one before still is
        (libstrongswan credentials/credential_manager.c): so that is let go. And it shows one that leads to an
        authority that the peer asks for, the first that it names: so older keys for certificates of `name`
        are let go as well, where an authority of the mesh vouches for these. The older certificate would
        otherwise be shown for as long as its authority is loaded anywhere.
        """
        for authority in authorities:
            await self._request("load-cert", {"type": "X509", "flag": "CA", "data": authority})
        reply = await self._request("load-key", {"type": "any", "data": private_key})
        await self._request("load-cert", {"type": "X509", "flag": "NONE", "data": certificate})
        await self.forget_certificates()
        key_id = messages.text(reply, "id").replace(":", "").lower()
        if name:
            await self._unload_keys_but(key_id, name)
        return key_id

    async def _unload_keys_but(self, key_id: str, name: str) -> None:
        held = messages.key_ids(await self._request("get-keys"))
        older = {one.key_id for one in await self.certificates_of(name) if name in one.names}
        for other in (held & older) - {key_id}:
            await self._request("unload-key", {"id": other})

    async def load_revocation_lists(self, lists: Iterable[bytes]) -> None:
        """Load lists, DER. charon keeps the newest of each authority (libstrongswan mem_cred.c, add_crl).

        Its cache of certificates may hold an older one, and the first that is valid counts
        (plugins/revocation/revocation_validator.c, find_crl): so the lists in that cache are let go.
        """
        for one in lists:
            await self._request("load-cert", {"type": "X509_CRL", "flag": "NONE", "data": one})
        await self._request("flush-certs", {"type": "X509_CRL"})

    async def initiate(self, connection: str, child: str) -> None:
        """Have charon bring up `child` of `connection`. Returns before anything is established."""
        await self._request("initiate", {"ike": connection, "child": child, "timeout": "-1"})

    async def terminate_ike(self, unique_id: int, *, force: bool = False) -> None:
        """End an IKE_SA and its CHILD_SAs. Returns before the peer agreed; `force` does not wait for it."""
        message = {"ike-id": str(unique_id), "timeout": "-1"}
        await self._request("terminate", message | ({"force": "yes"} if force else {}), patience=_BUSY)

    async def terminate_ikes(self, unique_ids: Iterable[int], *, force: bool = False) -> None:
        """End several, all asked for at once; one that is gone already keeps none of the others from it.
        Raises the first refusal."""
        outcomes = await asyncio.gather(
            *(self.terminate_ike(unique_id, force=force) for unique_id in unique_ids), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def terminate_child(self, unique_id: int) -> None:
        """End a CHILD_SA alone. Returns before the peer agreed."""
        await self._request("terminate", {"child-id": str(unique_id), "timeout": "-1"}, patience=_BUSY)

    async def rekey_child(self, unique_id: int) -> None:
        """Have charon replace a CHILD_SA. Returns before it has."""
        await self._request("rekey", {"child-id": str(unique_id)}, patience=_BUSY)

    async def rekey_ike(self, unique_id: int, *, reauth: bool = False) -> None:
        """Have charon replace an IKE_SA, or with `reauth` authenticate anew.

        A reauthentication asked of the IKE_SA's responder does nothing by itself: ask its initiator's end.
        """
        message = {"ike-id": str(unique_id)} | ({"reauth": "yes"} if reauth else {})
        await self._request("rekey", message, patience=_BUSY)

    async def install_policies(self, connection: str, child: str) -> None:
        """Install the policies of a trap or shunt that is loaded once more, in case they are gone.

        A trap's are replaced without a gap (sa/trap_manager.c, install). A shunt that was installed is not
        installed again (sa/shunt_manager.c), so it is uninstalled first; charon may refuse that alone.
        """
        message = {"ike": connection, "child": child}
        if kind_of(child) is not Kind.ASSOCIATION:
            with contextlib.suppress(CommandFailed):
                await self._request("uninstall", message)
        await self._request("install", message)

    async def perform(self, action: Action) -> None:
        """Carry `action` out."""
        match action:
            case LoadCredentials():
                await self.load_credentials(
                    action.certificate, action.private_key, action.authorities, action.name
                )
            case LoadRevocationLists():
                await self.load_revocation_lists(action.lists)
            case LoadConnection():
                outcome = await self.load_connections([action.connection])
                if (errmsg := outcome[action.connection.name]) is not None:
                    raise CommandFailed("load-conn", errmsg)
            case UnloadConnection():
                await self.unload_connection(action.name)
            case Initiate():
                await self.initiate(action.connection, action.child)
            case TerminateIke():
                await self.terminate_ikes(action.unique_ids, force=action.force)
            case TerminateChild():
                await self.terminate_child(action.unique_id)
            case RekeyChild():
                await self.rekey_child(action.unique_id)
            case InstallPolicies():
                await self.install_policies(action.connection, action.child)
            case RekeyIke():
                await self.rekey_ike(action.unique_id, reauth=action.reauth)
            case _:
                raise NotImplementedError(action.verb)

    # The two sessions.

    async def _open(self, on_event: Callable[[str, bytes], None] | None) -> Session:
        return await Session.connect(
            self._socket,
            timeout=self._timeout,
            pulse=self._pulse,
            on_event=on_event,
            on_lost=self._session_lost,
        )

    async def _register(self, session: Session, events: Iterable[str]) -> None:
        """Registers at once for all of them that this charon has (`alert` came with 6.0.3)."""
        outcomes = await asyncio.gather(*map(session.register, events), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, UnknownEvent):
                raise outcome

    async def _request(
        self, command: str, message: Mapping[str, Any] | bytes = b"", *, patience: float = 1.0
    ) -> Section:
        return await self._session().request(command, message, timeout=self._timeout * patience)

    async def _stream(
        self, command: str, on_item: Callable[[Section], None], message: Mapping[str, Any] | bytes = b""
    ) -> None:
        timeout = self._timeout * _BUSY
        await self._session().stream(command, _STREAMS[command], on_item, message, timeout=timeout)

    def _session(self) -> Session:
        if self._commands is None:
            raise CharonLost(self._gone or "not connected")
        return self._commands

    def _session_lost(self, reason: str) -> None:
        if self._gone is None:
            self._gone = reason
            if self._connected:
                self.events.put_nowait(CharonGone(reason))
            self._end_sessions()

    def _end_sessions(self) -> None:
        reason = self._gone or "closed at this end"
        for session in (self._commands, self._listener):
            if session is not None:
                session.close(reason)

    def _received(self, name: str, payload: bytes) -> None:
        if self._gone is None:
            for event in self._reader.read(name, payload):
                self.events.put_nowait(event)


def _fingerprints(certificates: Iterable[bytes]) -> frozenset[str]:
    return frozenset(hashlib.sha256(one).hexdigest() for one in certificates)
