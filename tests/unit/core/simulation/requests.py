"""The initiator's side of IKEv2 between two simulated charons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swanmesh.core.observed import ChildDown, ChildRekeyed, IkeRekeyed
from swanmesh.core.reasons import Cause
from tests.unit.core.simulation.holder import Holder
from tests.unit.core.simulation.sas import Child, Exchange, Ike

KEPT_DELETED = 5.0
"""Seconds that a replaced CHILD_SA is kept for packets on their way (charon.delete_rekeyed_delay)."""
KEPT_REKEYED = 90.0
"""Seconds after which a responder drops a replaced IKE_SA that nobody deletes (ikev2/tasks/ike_rekey.c)."""

REFUSED = "NO_PROPOSAL_CHOSEN"
BUSY = "TEMPORARY_FAILURE"
MISSING = "CHILD_SA_NOT_FOUND"


class Requests(Holder):
    def enqueue(self, ike: Ike, task: Callable[[], None]) -> None:
        ike.queue.append(task)
        self._next(ike)

    def _next(self, ike: Ike) -> None:
        while ike.queue and ike.exchange is None and not ike.gone and ike.state != "CONNECTING":
            ike.queue.popleft()()

    def begin(
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
        self.begin(ike, "IKE_INIT", None, lambda reply: self._init_done(ike, reply), tell=False)

    def _init_done(self, ike: Ike, reply: Any) -> None:
        if reply == REFUSED:
            self._rejected(ike, Cause.NO_CONNECTION_AT_PEER)
            return
        if not self.certificates:
            self.diagnose(ike, Cause.MISSING_KEY)
            self.destroy(ike, tell=False)
            return
        ike.spi_r = reply
        spi = self.spi()
        self.begin(ike, "IKE_AUTH", spi, lambda reply: self._auth_done(ike, spi, reply), tell=False)

    def _auth_done(self, ike: Ike, spi: str, reply: Any) -> None:
        if reply == REFUSED:
            self._rejected(ike, Cause.AUTHENTICATION_FAILED_AT_PEER)
            return
        self.establish(ike)
        if reply is not None:
            self.install(ike, spi, reply)
        old = ike.replaces
        if old is not None and not old.gone:
            self.enqueue(old, lambda: self.delete(old))

    def _rejected(self, ike: Ike, code: Cause) -> None:
        self.diagnose(ike, code)
        self.destroy(ike, tell=True)

    def delete(self, ike: Ike) -> None:
        """DELETE for an IKE_SA; one that was replaced goes without an event."""
        if ike.state == "DELETING":
            return
        tell = ike.successor is None
        ike.state, ike.doomed = "DELETING", self.clock.now

        def done(_: Any) -> None:
            ike.active = ("IKE_DELETE",)
            self.destroy(ike, tell=tell)

        self.begin(ike, "IKE_DELETE", None, done, tell=tell)

    def create_child(self, ike: Ike) -> None:
        """Aborted if the IKE_SA has that CHILD_SA (ikev2/tasks/child_create.c, check_for_duplicate)."""
        if any(child.state in ("INSTALLED", "REKEYING") for child in ike.children.values()):
            return
        if not ike.established_state:
            return
        spi = self.spi()

        def done(reply: Any) -> None:
            if reply == REFUSED:
                self.diagnose(ike, Cause.SELECTORS_REFUSED)
            else:
                self.install(ike, spi, reply)

        self.begin(ike, "CHILD_CREATE", spi, done)

    def delete_child(self, ike: Ike, child: Child, *, quietly: bool) -> None:
        if child.unique_id not in ike.children or child.state in ("DELETING", "DELETED"):
            return
        child.state, ike.doomed = "DELETING", self.clock.now

        def done(_: Any) -> None:
            self.drop_child(ike, child, quietly=quietly)

        self.begin(ike, "CHILD_DELETE", (child.spi_out, quietly), done)

    def drop_child(self, ike: Ike, child: Child, *, quietly: bool) -> None:
        if child.unique_id not in ike.children:
            return
        if quietly:
            child.state = "DELETED"
            self.clock.after(KEPT_DELETED, lambda: self._forget_child(ike, child))
            return
        del ike.children[child.unique_id]
        self.emit(ChildDown(ike.snapshot(self.clock.now, (child,))))
        self.child_ended(ike)

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
                self.drop_child(ike, child, quietly=False)
                self.enqueue(ike, lambda: self.create_child(ike))
            else:
                self.replaced(ike, child, spi, reply)
                self.enqueue(ike, lambda: self.delete_child(ike, child, quietly=True))

        self.begin(ike, "CHILD_REKEY", (child.spi_out, spi), done)

    def replaced(self, ike: Ike, child: Child, spi_in: str, spi_out: str) -> None:
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
            self.take_over(ike, spi, reply, initiator=True)
            self.enqueue(ike, lambda: self.delete(ike))

        self.begin(ike, "IKE_REKEY", spi, done)

    def take_over(self, old: Ike, spi_i: str, spi_r: str, *, initiator: bool) -> None:
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
