"""Who is on a revocation list is ended and stays out, and nobody else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swanmesh.core.actions import (
    Action,
    LoadConnection,
    LoadRevocationLists,
    RekeyIke,
    TerminateIke,
)
from swanmesh.core.credentials.revocation import LARGEST, RevocationList
from swanmesh.core.mesh import Mesh
from swanmesh.core.observed import (
    CertificatesShown,
    ChildUp,
    Diagnosis,
    IkeDown,
    IkeRekeyed,
    IkeUp,
    SeenCertificate,
)
from swanmesh.core.reasons import Cause, Reason
from tests.unit.core.build import association, holdings, ike_sa, name_of, peer, settings
from tests.unit.core.life import Life

DAY = 86400.0
OFFSET = 1.993e9
"""The wall's time when the core's clock began."""
OURS, OTHER = "our authority", "another authority"


def certificate(name: str, serial: int, *, issuer: str = OURS) -> SeenCertificate:
    return SeenCertificate(
        fingerprint=f"{issuer} {serial}",
        names=(name,),
        not_before=OFFSET - DAY,
        not_after=OFFSET + 80 * DAY,
        issuer=issuer,
        serial=serial,
    )


def crl(
    number: int, *serials: int, issuer: str = OURS, expires: float = OFFSET + 30 * DAY, size: int = 1000
) -> RevocationList:
    return RevocationList(
        issuer=issuer,
        authority="CN=swanmesh authority",
        number=number,
        issued=OFFSET + number,
        expires=expires,
        fingerprint=f"{issuer} {number}",
        der=f"{number}".encode().ljust(size),
        revoked=dict.fromkeys(serials, OFFSET),
        source="/etc/swanmesh/pki/crl.pem",
    )


class Standing(Life):
    """An association that stands on a certificate that charon has shown."""

    def __init__(self, *serials: int, shown: bool = True) -> None:
        super().__init__()
        self.told: list[str] = []
        self.mesh.wall_clock(OFFSET)
        self.up()
        if shown:
            self.show(1, *serials)

    def step(self, now: float | None = None) -> list[Action]:
        self.now = self.now if now is None else now
        step = self.mesh.step(self.now)
        self.told = [event.kind for event in step.events]
        return [action for action in step.actions if not action.quiet]

    def show(self, unique_id: int, *serials: int, issuer: str = OURS) -> None:
        """charon shows these certificates of the peer as the IKE_SA has come up."""
        seen = tuple(certificate(self.peer.name, serial, issuer=issuer) for serial in serials)
        ike = replace(ike_sa(self.name, unique_id), remote_id=self.peer.name)
        self.event(CertificatesShown(ike, seen))

    def take(self, *lists: RevocationList) -> list[Action]:
        """What is done about these lists, their loading into charon apart."""
        self.mesh.revocation_lists(lists, self.now)
        return self.rest(self.step())

    def rest(self, actions: list[Action]) -> list[Action]:
        for action in actions:
            if isinstance(action, LoadRevocationLists):
                self.do(action)
        return [action for action in actions if not isinstance(action, LoadRevocationLists)]

    def reauthenticated(self, unique_id: int, *serials: int) -> None:
        self.event(IkeUp(ike_sa(self.name, unique_id, age=0.0)))
        self.event(ChildUp(association(self.name, unique_id, age=0.0)))
        self.show(unique_id, *serials)
        self.event(IkeDown(ike_sa(self.name, unique_id - 1, "DELETING")))


def test_who_is_on_a_list_is_ended_at_once_and_by_force() -> None:
    life = Standing(7)
    (action,) = life.take(crl(1, 7))
    assert isinstance(action, TerminateIke) and action.force and action.unique_ids == (1,)
    assert action.reason.code == "certificate-revoked" and "7" in action.reason.words
    assert life.told == ["certificate-revoked"]
    life.do(action)
    assert not life.pair.up
    life.step()
    assert life.pair.decision is not None and life.pair.decision.reason.code == "certificate-revoked"


def test_who_is_not_on_it_is_left_alone() -> None:
    life = Standing(7)
    assert life.take(crl(1, 8)) == [] and life.told == [] and life.pair.up


def test_revoking_the_old_certificate_of_a_host_that_has_a_new_one_ends_nothing() -> None:
    life = Standing(7)
    life.reauthenticated(2, 7, 9)  # charon remembers the old one, too
    assert life.take(crl(1, 7)) == [] and life.pair.up
    (action,) = life.take(crl(2, 7, 9))
    assert isinstance(action, TerminateIke) and action.unique_ids == (2,)


def test_a_list_counts_for_the_certificates_of_its_own_authority_alone() -> None:
    life = Standing(7)
    assert life.take(crl(1, 7, issuer=OTHER)) == []


def test_what_was_shown_is_known_beyond_a_rekey() -> None:
    life = Standing(7)
    life.event(IkeRekeyed(1, ike_sa(life.name, 5)))
    (action,) = life.take(crl(1, 7))
    assert isinstance(action, TerminateIke) and action.unique_ids == (5,)


def test_an_older_list_brings_nobody_back() -> None:
    life = Standing(8)
    assert life.take(crl(5, 7)) == []
    assert life.take(crl(4)) == []
    life.reauthenticated(2, 7)
    (action,) = life.step()
    assert isinstance(action, TerminateIke) and action.reason.code == "certificate-revoked"


def test_without_any_list_of_an_authority_none_is_in_force() -> None:
    life = Standing(7)
    life.take(crl(1, 8))
    life.take()
    life.reauthenticated(2, 8)
    assert life.step() == []


def test_who_comes_up_with_a_revoked_certificate_is_ended_as_soon_as_it_is_shown() -> None:
    life = Standing(shown=False)
    life.mesh.revocation_lists([crl(1, 7)], life.now)
    life.rest(life.step())
    life.show(1, 7)
    (action,) = life.rest(life.step())
    assert isinstance(action, TerminateIke)


class TestDoubt:
    """It is not certain what the association stands on."""

    def test_one_of_two_is_asked_for_and_refused_by_charon(self) -> None:
        life = Standing(7, 8)
        (action,) = life.take(crl(1, 7)) or life.rest(life.step(61.0))
        assert isinstance(action, RekeyIke) and action.reauth
        life.do(action)
        assert life.step() == []  # once
        life.now += 1.0
        refused = Reason(Cause.CERTIFICATE_REVOKED, "its certificate was revoked")
        life.event(Diagnosis(life.name, 2, refused))
        (action,) = life.step()
        assert isinstance(action, TerminateIke) and action.unique_ids == (1,)
        assert action.reason == refused and life.told == ["certificate-revoked"]

    def test_one_that_shows_a_good_one_stays(self) -> None:
        life = Standing(shown=False)
        assert life.take(crl(1, 7)) == []
        (action,) = life.step(61.0)
        assert isinstance(action, RekeyIke) and action.reauth
        life.do(action)
        life.now += 1.0
        life.reauthenticated(2, 8)
        assert life.step() == [] and life.pair.up

    def test_one_that_is_the_only_one_it_can_be_is_asked_at_once(self) -> None:
        life = Standing(shown=False)
        held = holdings(life.host, association(life.name, 1), loaded={life.name: str(life.pair.loaded)})
        seen = (certificate(life.peer.name, 7),)
        held = replace(held, credentials=replace(held.credentials, seen=seen))
        life.mesh.charon_back("5.9.8", held, life.now)
        life.step()
        (action,) = life.take(crl(1, 7))
        assert isinstance(action, RekeyIke) and action.reauth

    def test_who_is_known_is_not_asked(self) -> None:
        life = Standing(8)
        assert life.take(crl(1, 7)) == [] and life.step(61.0) == []


class TestCharon:
    """What charon is given."""

    def test_lists_come_before_connections(self) -> None:
        host, other = settings(), peer()
        mesh = Mesh(host, seed=1)
        mesh.update_peers([other], (), 0.0)
        mesh.revocation_lists([crl(1, 7)], 0.0)
        mesh.charon_back("5.9.8", holdings(host), 0.0)
        kinds = [type(action) for action in mesh.step(0.0).actions]
        assert kinds.index(LoadRevocationLists) < kinds.index(LoadConnection)

    def test_what_it_holds_is_not_loaded_again_until_others_clear_its_credentials(self) -> None:
        host = settings()
        mesh = Mesh(host, seed=1)
        mesh.revocation_lists([crl(1, 7)], 0.0)
        held = holdings(host)
        shows = replace(
            held, credentials=replace(held.credentials, revocation_lists=frozenset({crl(1).fingerprint}))
        )
        mesh.charon_back("5.9.8", shows, 0.0)
        assert not [one for one in mesh.step(0.0).actions if isinstance(one, LoadRevocationLists)]
        bare = replace(shows.credentials, key_ids=frozenset[str]())
        mesh.observed(replace(shows, credentials=bare), 1.0)
        assert [one for one in mesh.step(1.0).actions if isinstance(one, LoadRevocationLists)]

    def test_what_it_refuses_holds_up_nothing_and_is_tried_again(self) -> None:
        life = Standing(8)
        life.mesh.revocation_lists([crl(1, 7)], life.now)
        (action,) = life.step()
        assert life.step(life.now + 1.0) == []
        life.do(action, "parsing failed")
        assert life.step() == [] and life.pair.up
        assert life.mesh.due is not None
        again = [one for one in life.step(life.now + 61.0) if isinstance(one, LoadRevocationLists)]
        assert len(again) == 1

    def test_one_that_is_too_large_for_it_counts_here(self) -> None:
        life = Standing(7)
        large = crl(1, 7, size=LARGEST + 1)
        life.mesh.revocation_lists([large], life.now)
        assert [type(action) for action in life.step()] == [TerminateIke]
        (problem,) = life.mesh.state.revocations.problems(OFFSET)
        assert "more than charon takes" in str(problem)


def many(count: int, *, shown: bool = True) -> tuple[Mesh, list[str]]:
    """A mesh of peers that are up, peer N with the certificate N."""
    host = settings()
    mesh = Mesh(host, seed=1)
    mesh.wall_clock(OFFSET)
    others = [peer(f"peer{n}.mesh.example", f"203.0.113.{n + 10}") for n in range(count)]
    mesh.update_peers(others, (), 0.0)
    names = [name_of(host, other) for other in others]
    sas = [association(name, n + 1) for n, name in enumerate(names)]
    loaded = {pair.name: pair.connection.child for pair in mesh.state.pairs if pair.connection is not None}
    mesh.charon_back("5.9.8", holdings(host, *sas, loaded=loaded), 0.0)
    for n, (other, name) in enumerate(zip(others, names, strict=True)) if shown else ():
        ike = replace(ike_sa(name, n + 1), remote_id=other.name)
        mesh.event(CertificatesShown(ike, (certificate(other.name, n),)), 0.0)
    mesh.step(0.0)
    return mesh, [other.name for other in others]


def ended(mesh: Mesh, now: float) -> set[str]:
    return {one.peer for one in mesh.step(now).actions if isinstance(one, TerminateIke)}


class TestBrake:
    """What would take away many at once is held."""

    @pytest.mark.parametrize(
        ("count", "revoked", "held"), [(8, 3, False), (20, 5, False), (20, 6, True), (4, 4, True)]
    )
    def test_more_than_a_few_and_a_quarter(self, count: int, revoked: int, held: bool) -> None:
        mesh, names = many(count)
        mesh.revocation_lists([crl(1, *range(revoked))], 1.0)
        kinds = [event.kind for event in mesh.step(1.0).events]
        assert ("revocation-held" in kinds) is held
        if held:
            assert ended(mesh, 1.0) == set() and len(mesh.state.up) == count
            assert "confirm revocation" in str(mesh.state.revocations.held_problems()[0])
            assert set(mesh.confirm_lists(2.0)) == set(names[:revoked])
            assert ended(mesh, 2.0) == set(names[:revoked])
            assert mesh.state.revocations.held_problems() == []

    def test_it_is_told_once_and_goes_with_the_list(self) -> None:
        mesh, _ = many(8)
        slip = crl(2, *range(8))
        mesh.revocation_lists([crl(1, 1), slip], 1.0)
        mesh.step(1.0)
        mesh.revocation_lists([crl(1, 1), slip], 2.0)
        assert "revocation-held" not in [event.kind for event in mesh.step(2.0).events]
        mesh.revocation_lists([crl(1, 1), crl(3, 1, 2)], 3.0)
        assert ended(mesh, 3.0) == {"peer2.mesh.example"}
        assert mesh.state.revocations.held_problems() == []

    def test_a_restart_is_no_confirmation(self) -> None:
        host = settings()
        mesh = Mesh(host, seed=1)
        mesh.update_peers([peer(f"peer{n}.mesh.example", f"203.0.113.{n + 10}") for n in range(8)], (), 0.0)
        good, slip = crl(1, 99), crl(2, *range(8))
        mesh.revocation_lists([slip, good], 0.0, {slip.fingerprint: False, good.fingerprint: True})
        mesh.charon_back("5.9.8", holdings(host), 0.0)
        (loading,) = (one for one in mesh.step(0.0).actions if isinstance(one, LoadRevocationLists))
        assert loading.fingerprints == {good.fingerprint}

    def test_of_peers_that_are_up_and_not_known_any_may_be_meant(self) -> None:
        mesh, _ = many(8, shown=False)
        mesh.revocation_lists([crl(1, 100)], 1.0)
        mesh.revocation_lists([crl(2, *range(8), 100)], 2.0)
        assert len(mesh.state.revocations.held_problems()) == 1

    def test_a_host_that_is_new_to_the_mesh_takes_a_long_list(self) -> None:
        host = settings()
        mesh = Mesh(host, seed=1)
        mesh.update_peers([peer(f"peer{n}.mesh.example", f"203.0.113.{n + 10}") for n in range(8)], (), 0.0)
        mesh.revocation_lists([crl(1, *range(1000))], 0.0)
        assert mesh.state.revocations.held_problems() == []


def test_a_list_past_its_date_is_told_and_counts_all_the_same() -> None:
    life = Standing(7)
    (action,) = life.take(crl(1, 7, expires=OFFSET - 1.0))
    assert isinstance(action, TerminateIke)
    revocations = life.mesh.state.revocations
    (problem,) = revocations.problems(OFFSET)
    assert "was to be replaced by" in str(problem)
    assert [reason.code for reason in revocations.news(OFFSET)] == ["crl-expired"]
    assert revocations.news(OFFSET) == []


def test_this_hosts_own_certificate_on_a_list_is_told_and_ends_nothing_here() -> None:
    life = Standing(7)
    mine = replace(life.host.credentials, serial=3, issuer=OURS)
    life.mesh.configure(replace(life.host, credentials=mine), life.now)
    assert life.take(crl(1, 3)) == []
    assert life.told == ["certificate-revoked"] and life.pair.up


def test_at_the_other_end_it_says_that_its_certificate_is_revoked() -> None:
    life = Standing(7)
    life.mesh.configure(
        replace(life.host, credentials=replace(life.host.credentials, serial=3, issuer=OURS)), life.now
    )
    life.take(crl(1, 3))
    life.event(IkeDown(ike_sa(life.name, 1, "DELETING")))
    refused = Reason(Cause.AUTHENTICATION_FAILED_AT_PEER, "authentication failed at the peer")
    life.event(Diagnosis(life.name, 1, refused))
    life.step()
    assert life.pair.decision is not None
    assert "this host's certificate 3 was revoked" in life.pair.decision.reason.words


def test_a_peer_that_shows_a_newer_certificate_is_told_once() -> None:
    life = Standing(1)
    life.step()
    assert "certificate-renewed" not in life.told
    newer = replace(certificate(life.peer.name, 2), not_after=OFFSET + 140 * DAY)
    ike = replace(ike_sa(life.name, 1), remote_id=life.peer.name)
    for told in (True, False):
        life.event(CertificatesShown(ike, (certificate(life.peer.name, 1), newer)))
        life.step()
        assert ("certificate-renewed" in life.told) == told
