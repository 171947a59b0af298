"""IKEv2 between two simulated charons: exchanges, rekeying, reauthentication, dead peer detection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swanmesh.core.observed import ChildDown, ChildRekeyed, IkeRekeyed

from .holder import Holder
from .sas import Child, Exchange, Ike

DPD_DELAY = 5.0
HALF_OPEN = 30.0
KEPT_DELETED = 5.0
"""Seconds that a replaced CHILD_SA is kept for packets on their way (charon.delete_rekeyed_delay)."""
KEPT_REKEYED = 90.0
"""Seconds after which a responder drops a replaced IKE_SA that nobody deletes (ikev2/tasks/ike_rekey.c)."""
UNNAMED = "(unnamed)"

REFUSED = "NO_PROPOSAL_CHOSEN"
BUSY = "TEMPORARY_FAILURE"
MISSING = "CHILD_SA_NOT_FOUND"


class Exchanges(Holder):
    # The initiator's side of each exchange.

    def enqueue(self, ike: Ike, task: Callable[[], None]) -> None:
        ike.queue.append(task)
        self._next(ike)

    def _next(self, ike: Ike) -> None:
        while ike.queue and ike.exchange is None and not ike.gone and ike.state != "CONNECTING":
            ike.queue.popleft()()

    def _begin(
        self, ike: Ike, kind: str, payload: Any, answered: Callable[[Any], None], *, tell: bool = True
    ) -> None:
        def done(reply: Any) -> None:
            answered(reply)
            self._next(ike)

        Exchange(self, ike, kind, payload, done, lambda: self.destroy(ike, tell=tell)).send()

    def connect(
        self,
        name: str,
        config: str,
        local: str,
        remote: str,
        *,
        by_controller: bool,
        replaces: Ike | None = None,
    ) -> None:
        """A new IKE_SA. If nobody answers it goes without an event (sa/ike_sa.c, retransmit)."""
        ike = Ike(self.next_number(), name, config, local, remote, True, self.spi())
        ike.original, ike.by_controller, ike.replaces = True, by_controller, replaces
        self.keep(ike)
        self._begin(ike, "IKE_INIT", None, lambda reply: self._init_done(ike, reply), tell=False)

    def _init_done(self, ike: Ike, reply: Any) -> None:
        if reply == REFUSED:
            self._rejected(ike, "no matching connection at the peer")
            return
        if not self.certificates:
            self.diagnose(ike, "no private key found")
            self.destroy(ike, tell=False)
            return
        ike.spi_r = reply
        spi = self.spi()
        self._begin(ike, "IKE_AUTH", spi, lambda reply: self._auth_done(ike, spi, reply), tell=False)

    def _auth_done(self, ike: Ike, spi: str, reply: Any) -> None:
        if reply == REFUSED:
            self._rejected(ike, "the peer refused our authentication")
            return
        self.establish(ike)
        if reply is not None:
            self.install(ike, spi, reply)
        old = ike.replaces
        if old is not None and not old.gone:
            self.enqueue(old, lambda: self.delete(old))

    def _rejected(self, ike: Ike, cause: str) -> None:
        self.diagnose(ike, cause)
        self.destroy(ike, tell=True)

    def delete(self, ike: Ike) -> None:
        """DELETE for an IKE_SA; one that was replaced goes without an event."""
        if ike.state == "DELETING":
            return
        tell = ike.successor is None
        ike.state = "DELETING"

        def done(_: Any) -> None:
            ike.active = ("IKE_DELETE",)
            self.destroy(ike, tell=tell)

        self._begin(ike, "IKE_DELETE", None, done, tell=tell)

    def create_child(self, ike: Ike) -> None:
        """Aborted if the IKE_SA has that CHILD_SA (ikev2/tasks/child_create.c, check_for_duplicate)."""
        if any(child.state in ("INSTALLED", "REKEYING") for child in ike.children.values()):
            return
        if not ike.established_state:
            return
        spi = self.spi()

        def done(reply: Any) -> None:
            if reply == REFUSED:
                self.diagnose(ike, "the peer has no such CHILD_SA")
            else:
                self.install(ike, spi, reply)

        self._begin(ike, "CHILD_CREATE", spi, done)

    def delete_child(self, ike: Ike, child: Child, *, quietly: bool) -> None:
        if child.unique_id not in ike.children or child.state in ("DELETING", "DELETED"):
            return
        child.state = "DELETING"

        def done(_: Any) -> None:
            self._drop_child(ike, child, quietly=quietly)

        self._begin(ike, "CHILD_DELETE", (child.spi_out, quietly), done)

    def _drop_child(self, ike: Ike, child: Child, *, quietly: bool) -> None:
        if child.unique_id not in ike.children:
            return
        if quietly:
            child.state = "DELETED"
            self.clock.after(KEPT_DELETED, lambda: self._forget_child(ike, child))
            return
        del ike.children[child.unique_id]
        self.emit(ChildDown(ike.snapshot(self.clock.now, (child,))))
        self.ended_child(ike)

    def _forget_child(self, ike: Ike, child: Child) -> None:
        while ike.successor is not None:
            ike = ike.successor
        ike.children.pop(child.unique_id, None)

    def replace_child(self, ike: Ike, child: Child) -> None:
        """CREATE_CHILD_SA with N(REKEY_SA)."""
        if child.unique_id not in ike.children or child.state != "INSTALLED" or ike.state != "ESTABLISHED":
            return
        child.state = "REKEYING"
        spi = self.spi()

        def done(reply: Any) -> None:
            if reply == BUSY or child.state != "REKEYING":
                if child.state == "REKEYING":
                    child.state = "INSTALLED"
            elif reply == MISSING:
                self._drop_child(ike, child, quietly=False)
                self.enqueue(ike, lambda: self.create_child(ike))
            else:
                self._replaced(ike, child, spi, reply)
                self.enqueue(ike, lambda: self.delete_child(ike, child, quietly=True))

        self._begin(ike, "CHILD_REKEY", (child.spi_out, spi), done)

    def _replaced(self, ike: Ike, child: Child, spi_in: str, spi_out: str) -> None:
        child.state = "REKEYED"
        new = self.install(ike, spi_in, spi_out, tell=False)
        now = self.clock.now
        self.emit(ChildRekeyed(ike.snapshot(now, ()), child.unique_id, new.snapshot(now)))

    def replace_ike(self, ike: Ike) -> None:
        if ike.state != "ESTABLISHED":
            return
        ike.state = "REKEYING"
        spi = self.spi()

        def done(reply: Any) -> None:
            if reply == BUSY or ike.state != "REKEYING":
                if ike.state == "REKEYING":
                    ike.state = "ESTABLISHED"
                return
            self._take_over(ike, spi, reply, initiator=True)
            self.enqueue(ike, lambda: self.delete(ike))

        self._begin(ike, "IKE_REKEY", spi, done)

    def _take_over(self, old: Ike, spi_i: str, spi_r: str, *, initiator: bool) -> None:
        new = Ike(self.next_number(), old.conn, old.config, old.local, old.remote, initiator, spi_i, spi_r)
        new.state, new.established, new.original = "ESTABLISHED", self.clock.now, old.original
        new.children, old.children = old.children, {}
        new.queue, old.queue = old.queue, new.queue
        old.state, old.successor = "REKEYED", new
        self.keep(new)
        self.clock.after(KEPT_REKEYED, lambda: self.destroy(old, tell=False))
        self.emit(IkeRekeyed(old.unique_id, new.snapshot(self.clock.now, ())))
        self.began(new)
        self._next(new)

    def reauthenticate(self, ike: Ike) -> None:
        """Make before break; at the responder's end it changes nothing."""
        if ike.state == "ESTABLISHED" and ike.original:
            self.connect(ike.conn, ike.config, ike.local, ike.remote, by_controller=False, replaces=ike)

    # The responder's side.

    def receive(self, request: Exchange) -> None:
        """A request arrived, for the first time or again."""
        theirs = request.ike
        ike = self.by_spi.get(theirs.spi_i)
        if ike is None and request.kind != "IKE_INIT":
            return
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
            self._drop_child(ike, child, quietly=quietly)
        return None

    def _on_child_rekey(self, ike: Ike, request: Exchange) -> Any:
        spi, new_spi = request.payload
        child = self._by_spi_in(ike, spi)
        if child is None:
            return MISSING
        if child.state not in ("INSTALLED", "REKEYING") or not self._gives_way(ike, request, "CHILD_REKEY"):
            return BUSY
        mine = self.spi()
        self._replaced(ike, child, mine, new_spi)
        return mine

    def _on_ike_rekey(self, ike: Ike, request: Exchange) -> Any:
        if not ike.established_state or not self._gives_way(ike, request, "IKE_REKEY"):
            return BUSY
        mine = self.spi()
        self._take_over(ike, request.payload, mine, initiator=False)
        return mine

    def _gives_way(self, ike: Ike, request: Exchange, kind: str) -> bool:
        """Of two that rekey the same at once the one with the higher nonce goes on; what crosses with any
        other exchange that changes the SA is put off (RFC 7296, section 2.25)."""
        mine = ike.exchange
        if mine is None or mine.kind == "IKE_DPD":
            return True
        return mine.kind == kind and mine.nonce < request.nonce

    # Dead peer detection. What would be answered with certainty is not simulated.

    def ended(self, ike: Ike) -> None:
        self.other_end_looks(ike)

    def ended_child(self, ike: Ike) -> None:
        """A CHILD_SA is gone while its IKE_SA stays."""

    def other_end_looks(self, ike: Ike) -> None:
        owner = self.network.owners.get(ike.remote)
        other = owner.by_spi.get(ike.spi_i) if owner is not None else None
        if owner is not None and other is not None:
            owner.check(other)

    def check_all(self) -> None:
        for ike in self.sas.values():
            self.check(ike)

    def check(self, ike: Ike) -> None:
        """Look for a sign of life within the delay, unless all is well with certainty."""
        if ike.dpd_due or ike.gone or ike.spi_i not in self.by_spi or self._well(ike):
            return
        ike.dpd_due = True
        self.clock.after(self.clock.rng.uniform(0.0, DPD_DELAY), lambda: self._dpd(ike))

    def _well(self, ike: Ike) -> bool:
        owner = self.network.owners.get(ike.remote)
        if owner is None or not owner.running or not self.network.sound(self, owner):
            return False
        return ike.spi_i in owner.by_spi

    def _dpd(self, ike: Ike) -> None:
        ike.dpd_due = False
        if ike.gone or self._well(ike):
            return
        if ike.exchange is None and ike.established_state:
            self._begin(ike, "IKE_DPD", None, lambda _: None)
        ike.dpd_due = True
        self.clock.after(DPD_DELAY, lambda: self._dpd(ike))

    # charon's own timers.

    def began(self, ike: Ike) -> None:
        rng, life = self.clock.rng, self.lifetimes
        self.clock.after(life.ike_rekey * rng.uniform(0.9, 1.0), lambda: self._rekey_due(ike))
        if ike.original:
            self.clock.after(life.reauth * rng.uniform(0.9, 1.0), lambda: self._reauth_due(ike))
        self.check(ike)

    def _rekey_due(self, ike: Ike) -> None:
        if not ike.gone and ike.state == "ESTABLISHED":
            self.enqueue(ike, lambda: self.replace_ike(ike))

    def _reauth_due(self, ike: Ike) -> None:
        while ike.successor is not None:
            ike = ike.successor
        if not ike.gone:
            self.enqueue(ike, lambda: self.reauthenticate(ike))

    def child_began(self, ike: Ike, child: Child) -> None:
        wait = self.lifetimes.child_rekey * self.clock.rng.uniform(0.9, 1.0)
        self.clock.after(wait, lambda: self._child_rekey_due(ike, child))

    def _child_rekey_due(self, ike: Ike, child: Child) -> None:
        while ike.successor is not None:
            ike = ike.successor
        if not ike.gone and child.state == "INSTALLED":
            self.enqueue(ike, lambda: self.replace_child(ike, child))
