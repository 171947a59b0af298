"""A member proves its addresses as well as its name, where its certificate lists any."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from swanmesh.core.actions import Action, Initiate, ObserveSas, RekeyIke, TerminateIke
from swanmesh.core.model import Validity
from swanmesh.core.observed import CertificatesShown, ChildUp, IkeDown, IkeUp, SeenCertificate
from swanmesh.core.pairs.agreement import uncertified
from tests.unit.core.build import address, association, ike_sa
from tests.unit.core.life import Life

OFFSET = 1.993e9
DAY = 86400.0


class Proving(Life):
    """A peer that comes up, and what it shows."""

    def __init__(self, *, match: bool = True) -> None:
        super().__init__()
        self.mesh.wall_clock(OFFSET)
        if not match:
            self.mesh.configure(replace(self.host, addresses="ignore"), 0.0)
        self.events: list[str] = []
        self.up()

    def step(self, now: float | None = None) -> list[Action]:
        self.now = self.now if now is None else now
        step = self.mesh.step(self.now)
        self.events += [event.kind for event in step.events]
        if any(isinstance(action, ObserveSas) for action in step.actions):
            self.mesh.observed(tuple(self.pair.sas.values()), self.now)
            return self.step()
        return [action for action in step.actions if not action.quiet]

    def show(self, unique_id: int, *addresses: str) -> None:
        self._shown(unique_id, self._certificate(*addresses))

    def show_both(self, unique_id: int, one: str, other: str) -> None:
        self._shown(unique_id, self._certificate(one), self._certificate(other))

    def knows(self, *addresses: str) -> None:
        """Certificates for each of these were seen before."""
        seen = [self._certificate(one) for one in addresses]
        self.mesh.state.certificates.take(seen, frozenset({self.peer.name}))

    def _certificate(self, *addresses: str) -> SeenCertificate:
        return SeenCertificate(
            fingerprint=f"for {addresses}",
            names=(self.peer.name,),
            not_before=OFFSET - DAY,
            not_after=OFFSET + DAY,
            issuer="ours",
            serial=7,
            addresses=tuple(address(one) for one in addresses),
        )

    def _shown(self, unique_id: int, *certificates: SeenCertificate) -> None:
        ike = replace(ike_sa(self.name, unique_id), remote_id=self.peer.name)
        self.event(CertificatesShown(ike, certificates))

    def end(self, action: Action) -> None:
        assert isinstance(action, TerminateIke) and action.force
        self.do(action)
        for unique_id in action.unique_ids:
            self.event(IkeDown(ike_sa(self.name, unique_id, "DELETING")))

    def begin(self) -> None:
        """Up to the next initiation."""
        while not (begun := [action for action in self.step() if isinstance(action, Initiate)]):
            assert self.mesh.due is not None
            self.now = max(self.now + 0.001, self.mesh.due)
        self.do(begun[0])

    def again(self, unique_id: int) -> None:
        """It comes up once more."""
        self.event(IkeUp(ike_sa(self.name, unique_id, age=0.0)))
        self.event(ChildUp(association(self.name, unique_id, age=0.0)))


@pytest.mark.parametrize(
    "listed", [(), ("203.0.113.2",), ("2001:db8::2", "203.0.113.2"), ("::ffff:203.0.113.9", "203.0.113.2")]
)
def test_a_certificate_for_its_address_or_for_none_is_taken(listed: tuple[str, ...]) -> None:
    life = Proving()
    assert str(life.peer.addresses[0]) == "203.0.113.2"
    life.show(1, *listed)
    assert life.step() == [] and life.pair.up


@pytest.mark.parametrize("listed", [("203.0.113.9",), ("2001:db8::2",), ("::ffff:203.0.113.2",)])
def test_one_for_other_addresses_is_ended_at_once_and_named(listed: tuple[str, ...]) -> None:
    life = Proving()
    life.show(1, *listed)
    (action,) = life.step()
    assert action.reason.code == "not-as-agreed" and str(address(listed[0])) in action.reason.words
    assert life.events.count("peer-violation") == 1 and not life.pair.up
    life.end(action)
    life.step()
    assert life.pair.decision is not None and life.pair.decision.reason.code == "not-as-agreed"


def test_it_is_not_called_up_again_before_it_shows_another() -> None:
    life = Proving()
    life.show(1, "203.0.113.9")
    life.end(life.one())
    life.step()
    waits = []
    for unique_id in range(2, 7):
        life.begin()
        waits.append(life.now)
        life.events.clear()
        life.again(unique_id)
        assert life.step() == []
        life.show(unique_id, "203.0.113.9")
        life.end(life.one())
        life.step()
        assert "peer-up" not in life.events and "peer-down" not in life.events
    gaps = [later - sooner for sooner, later in pairwise(waits)]
    assert gaps[-1] > 3 * gaps[0], "less and less often"
    life.begin()
    life.again(9)
    life.show(9, "203.0.113.2")
    assert life.step() == [] and life.pair.up and "peer-up" in life.events


def test_one_that_charon_has_forgotten_already_counts() -> None:
    life = Proving()
    life.show(1, "203.0.113.9")
    life.end(life.one())
    life.step()
    life.begin()
    life.again(2)
    ike = replace(ike_sa(life.name, 2), remote_id=life.peer.name)
    life.event(CertificatesShown(ike, ()))
    assert life.step() == [] and life.pair.up


def test_ignore_lets_it_go_and_match_ends_it_again() -> None:
    life = Proving(match=False)
    life.show(1, "203.0.113.9")
    assert life.step() == [] and life.pair.up
    life.mesh.configure(life.host, life.now)
    (action,) = life.step()
    assert action.reason.code == "not-as-agreed"


def test_a_host_says_so_of_its_own_certificate() -> None:
    life = Proving()
    mine = replace(
        life.host.credentials,
        addresses=(address("203.0.113.77"),),
        validities=(Validity(file="host.pem", key="", subject="", not_before=0.0, not_after=0.0),),
    )
    (problem,) = uncertified(mine, life.host.host)
    assert "203.0.113.1 of host.addresses" in str(problem)
    assert uncertified(replace(mine, addresses=life.host.host.addresses), life.host.host) == []
    assert uncertified(replace(mine, addresses=()), life.host.host) == []


def test_of_two_of_which_one_will_not_do_it_is_asked_which_it_was() -> None:
    life = Proving()
    life.show(1, "203.0.113.2")
    assert life.step() == [] and life.pair.up
    life.again(2)
    life.event(IkeDown(ike_sa(life.name, 1, "DELETING")))
    life.knows("203.0.113.2", "203.0.113.9")
    life.show_both(2, "203.0.113.2", "203.0.113.9")
    (action,) = life.step()
    assert isinstance(action, RekeyIke) and action.reauth
    life.do(action)
    life.now += 1.0
    life.again(3)
    life.event(IkeDown(ike_sa(life.name, 2, "DELETING")))
    life.show(3, "203.0.113.2")
    assert life.step() == [] and life.pair.up


def test_nor_is_one_of_two_taken_from_who_showed_the_wrong_one_before() -> None:
    life = Proving()
    life.show(1, "203.0.113.9")
    life.end(life.one())
    life.step()
    life.begin()
    life.events.clear()
    life.again(2)
    life.knows("203.0.113.2", "203.0.113.9")
    life.show_both(2, "203.0.113.2", "203.0.113.9")
    life.step()
    life.step(life.now + 3.0)
    assert "peer-up" not in life.events and not life.pair.up
