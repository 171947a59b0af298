"""The responder's side of IKEv2 between two simulated charons."""

from __future__ import annotations

from typing import Any

from swanmesh.core.observed import InitiationRefused
from tests.unit.core.simulation.requests import BUSY, MISSING, REFUSED, Requests
from tests.unit.core.simulation.sas import Child, Exchange, Ike

HALF_OPEN = 30.0
UNNAMED = "(unnamed)"


class Responses(Requests):
    def receive(self, request: Exchange) -> None:
        """A request arrived, for the first time or again."""
        theirs = request.ike
        ike = self.by_spi.get(theirs.spi_i)
        if ike is None and request.kind != "IKE_INIT":
            return
        if ike is not None:
            ike.heard = self.clock.now
        if ike is not None and request.number in ike.answers:
            reply = ike.answers[request.number]
        elif ike is None:
            reply = self._init(request)
        elif request.kind == "IKE_INIT":
            return
        else:
            reply = self._respond(ike, request)
            ike.answers = {request.number: reply}
        self.network.send(self, theirs.local, lambda charon: request.arrived(charon, reply))

    def _init(self, request: Exchange) -> Any:
        theirs = request.ike
        conn = self.match(theirs.remote, theirs.local)
        if conn is None:
            self.emit(InitiationRefused(theirs.remote, theirs.local))
            return REFUSED
        spi = self.spi()
        ike = Ike(self.next_number(), UNNAMED, "", theirs.remote, theirs.local, False, theirs.spi_i, spi)
        self.keep(ike)
        ike.answers = {request.number: spi}
        self.clock.after(HALF_OPEN, lambda: self._expire(ike))
        return spi

    def _expire(self, ike: Ike) -> None:
        if ike.state == "CONNECTING":
            self.destroy(ike, tell=False)

    def _respond(self, ike: Ike, request: Exchange) -> Any:
        handler = {
            "IKE_AUTH": self._on_auth,
            "IKE_DPD": lambda ike, request: None,
            "IKE_DELETE": self._on_delete,
            "CHILD_CREATE": self._on_child,
            "CHILD_DELETE": self._on_child_delete,
            "CHILD_REKEY": self._on_child_rekey,
            "IKE_REKEY": self._on_ike_rekey,
        }[request.kind]
        return handler(ike, request)

    def _on_auth(self, ike: Ike, request: Exchange) -> Any:
        conn = self.match(ike.local, ike.remote)
        if conn is None or not self.certificates or ike.state != "CONNECTING":
            self.destroy(ike, tell=True)
            return REFUSED
        self.adopt(ike, conn)
        self.establish(ike)
        return self._on_child(ike, request, fails=None)

    def _on_child(self, ike: Ike, request: Exchange, fails: Any = REFUSED) -> Any:
        if not ike.established_state or self.clock.rng.random() < self.trouble.child:
            return fails
        spi = self.spi()
        self.install(ike, spi, request.payload)
        return spi

    def _on_delete(self, ike: Ike, request: Exchange) -> Any:
        tell = ike.successor is None and ike.state != "REKEYED"
        ike.state, ike.passive = "DELETING", ("IKE_DELETE",)
        self.destroy(ike, tell=tell)
        return None

    def _by_spi_in(self, ike: Ike, spi_in: str) -> Child | None:
        return next((child for child in ike.children.values() if child.spi_in == spi_in), None)

    def _on_child_delete(self, ike: Ike, request: Exchange) -> Any:
        spi, quietly = request.payload
        child = self._by_spi_in(ike, spi)
        if child is not None and child.state != "DELETED":
            self.drop_child(ike, child, quietly=quietly)
        return None

    def _on_child_rekey(self, ike: Ike, request: Exchange) -> Any:
        spi, new_spi = request.payload
        child = self._by_spi_in(ike, spi)
        if child is None:
            return MISSING
        if child.state not in ("INSTALLED", "REKEYING") or not self._gives_way(ike, request, "CHILD_REKEY"):
            return BUSY
        mine = self.spi()
        self.replaced(ike, child, mine, new_spi)
        return mine

    def _on_ike_rekey(self, ike: Ike, request: Exchange) -> Any:
        if not ike.established_state or not self._gives_way(ike, request, "IKE_REKEY"):
            return BUSY
        mine = self.spi()
        self.take_over(ike, request.payload, mine, initiator=False)
        return mine

    def _gives_way(self, ike: Ike, request: Exchange, kind: str) -> bool:
        """Of two that rekey the same at once the one with the higher nonce goes on; what crosses with any
        other exchange that changes the SA is put off (RFC 7296, section 2.25)."""
        mine = ike.exchange
        if mine is None or mine.kind == "IKE_DPD":
            return True
        return mine.kind == kind and mine.nonce < request.nonce
