"""Associations are authenticated anew when a certificate calls for it, and never by the clock alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swanmesh.core.actions import Action, ObserveAll, ObserveSas, RekeyIke, TerminateIke
from swanmesh.core.inputs.authorities import authority_problems
from swanmesh.core.observed import ChildUp, Holdings, IkeDown, IkeSa, IkeUp, SeenCertificate
from tests.unit.core.build import association, holdings, ike_sa, peer
from tests.unit.core.life import Life

DAY = 86400.0
OFFSET = 1.993e9
"""The wall's time when the core's clock began."""


def seen(name: str, end: float, issuer: str = "") -> SeenCertificate:
    """A certificate of ninety days, that ends then on the core's clock."""
    return SeenCertificate(
        fingerprint=f"{end} {issuer}",
        names=(name,),
        not_before=OFFSET + end - 90 * DAY,
        not_after=OFFSET + end,
        issuer=issuer,
    )


class Aging(Life):
    """An association that stands, and a charon that shows the peer's certificates at each look."""

    def __init__(self, *ends: float, ike_reauth: int = 24 * 3600, issuer: str = "") -> None:
        """`ends`: of the peer's certificates, each of a life of 90 days, on the core's clock."""
        super().__init__()
        self.host = replace(self.host, connection=replace(self.host.connection, ike_reauth=ike_reauth))
        self.mesh.configure(self.host, 0.0)
        self.mesh.wall_clock(OFFSET)
        self.sa: IkeSa | None = self.up()
        self.ends, self.issuer = ends, issuer
        self.done: list[tuple[float, Action]] = []

    def held(self) -> Holdings:
        sas = (replace(self.sa, age=None),) if self.sa is not None else ()
        held = holdings(self.host, *sas, loaded={self.name: str(self.pair.loaded)})
        shown = tuple(seen(self.peer.name, end, issuer=self.issuer) for end in self.ends)
        return replace(held, credentials=replace(held.credentials, seen=shown))

    def until(self, end: float, *, works: bool = True) -> list[tuple[float, Action]]:
        """What is done up to `end`, looks apart. `works`: whether a reauthentication brings a new IKE_SA."""
        self.done = []
        while True:
            for action in self.step():
                if isinstance(action, ObserveAll):
                    self.mesh.observed(self.held(), self.now)
                elif isinstance(action, ObserveSas):
                    self.mesh.observed(self.held().sas, self.now)
                else:
                    self._carry_out(action, works=works)
            due = self.mesh.due
            if due is None or due > end:
                return self.done
            self.now = max(self.now + 0.001, due)

    def _carry_out(self, action: Action, *, works: bool) -> None:
        self.done.append((self.now, action))
        self.do(action)
        if isinstance(action, RekeyIke) and works:
            assert action.reauth
            old, new = action.unique_id, action.unique_id + 1
            self.event(IkeUp(ike_sa(self.name, new, age=0.0)))
            self.sa = association(self.name, new, age=0.0)
            self.event(ChildUp(self.sa))
            self.event(IkeDown(ike_sa(self.name, old, "DELETING")))
        elif isinstance(action, TerminateIke):
            self.event(IkeDown(ike_sa(self.name, action.unique_ids[0], "DELETING")))
            self.sa = None


def test_certificates_that_hold_call_for_nothing_however_long_it_stands() -> None:
    life = Aging(80 * DAY, ike_reauth=60)
    assert life.until(30 * DAY) == []


def test_another_certificate_of_this_host_is_shown_once() -> None:
    life = Aging(80 * DAY)
    assert life.until(DAY) == []
    life.now = DAY
    renewed = replace(life.host.credentials, certificate=b"a new one", since=OFFSET + DAY)
    life.host = replace(life.host, credentials=renewed)
    life.mesh.configure(life.host, life.now)
    again = [(at, action) for at, action in life.until(10 * DAY) if isinstance(action, RekeyIke)]
    ((at, action),) = again
    assert action.reason.code == "new-certificate" and DAY <= at <= DAY + 600.0


def test_before_the_peers_certificate_ends_it_is_asked_for_another_once() -> None:
    life = Aging(20 * DAY)
    assert life.until(10 * DAY) == []
    life.ends = (20 * DAY, 110 * DAY)  # it has another by now, and shows it when asked
    ((at, action),) = life.until(19.9 * DAY)
    assert isinstance(action, RekeyIke) and 10 * DAY <= at < 20 * DAY
    life.ends = (110 * DAY,)
    assert life.until(19.9 * DAY) == []


def test_who_shows_no_other_certificate_is_ended_after_the_end_of_the_one_it_has() -> None:
    life = Aging(20 * DAY)
    asked = life.until(19.99 * DAY, works=False)
    assert asked and {type(action) for _, action in asked} == {RekeyIke}
    assert len(asked) < 50, "less and less before the end"
    ended = [action for _, action in life.until(20.1 * DAY, works=False) if isinstance(action, TerminateIke)]
    assert [action.reason.code for action in ended] == ["certificate-dates"] and not life.pair.up


def test_one_that_was_authenticated_with_the_same_certificate_ends_with_it() -> None:
    life = Aging(20 * DAY)
    life.until(19.9 * DAY)
    actions = [action for at, action in life.until(20.1 * DAY) if at >= 20 * DAY]
    assert isinstance(actions[0], TerminateIke) and actions[0].reason.code == "certificate-dates"


def test_what_is_not_known_of_the_peer_is_bounded() -> None:
    life = Aging(ike_reauth=3600)
    ((at, action),) = life.until(4000.0)
    assert isinstance(action, RekeyIke) and 0.9 * 3600 <= at - 1 <= 3600
    assert action.reason.code == "certificate-unknown"


@pytest.mark.parametrize("set_by", [-400 * DAY, -DAY / 8, DAY / 8, 4000 * DAY])
def test_a_clock_that_is_set_wrong_ends_nothing(set_by: float) -> None:
    life = Aging(20 * DAY)
    assert life.until(DAY) == []
    life.mesh.wall_clock(OFFSET + set_by)
    assert not [action for _, action in life.until(3 * DAY) if isinstance(action, TerminateIke)]
    assert life.pair.up


def test_who_showed_another_certificate_in_time_is_not_ended_with_the_old_one() -> None:
    life = Aging(20 * DAY)
    assert life.until(5 * DAY) == []
    life.ends = (20 * DAY, 80 * DAY)
    actions = [action for _, action in life.until(25 * DAY)]
    assert [type(action) for action in actions] == [RekeyIke], actions
    assert life.until(70 * DAY) == []


def test_who_has_two_certificates_and_proves_itself_by_neither_is_ended_after_the_first_ones_end() -> None:
    life = Aging(20 * DAY, 80 * DAY)
    actions = [action for _, action in life.until(21 * DAY, works=False)]
    assert [type(action) for action in actions[:2]] == [RekeyIke, TerminateIke]
    assert isinstance(actions[1], TerminateIke) and actions[1].reason.code == "certificate-dates"


def believes(life: Life, *authorities: str) -> None:
    """The host's files name these authorities from now on."""
    believed = replace(
        life.host.credentials,
        authorities=tuple(name.encode() for name in authorities),
        issuers=frozenset(authorities),
    )
    life.host = replace(life.host, credentials=believed)
    life.mesh.configure(life.host, life.now)


def test_who_never_showed_a_certificate_of_another_authority_is_ended_when_his_is_dropped() -> None:
    life = Aging(80 * DAY, issuer="old")
    believes(life, "old", "new")
    assert not [action for _, action in life.until(DAY) if isinstance(action, TerminateIke | RekeyIke)]
    believes(life, "new")
    actions = [action for at, action in life.until(DAY + 60) if isinstance(action, TerminateIke | RekeyIke)]
    assert [(type(action), action.reason.code) for action in actions] == [(TerminateIke, "authority-dropped")]


def test_who_showed_one_is_asked_for_it_and_stays() -> None:
    life = Aging(80 * DAY, issuer="old")
    believes(life, "old", "new")
    life.until(DAY)
    life.mesh.state.certificates.take(
        [seen(life.peer.name, 85 * DAY, issuer="new")], frozenset({life.peer.name})
    )
    (times,) = life.pair.associations.times.values()
    assert times.certificate is None
    believes(life, "new")
    life.issuer = "new"
    life.ends = (85 * DAY,)
    actions = [action for _, action in life.until(30 * DAY) if isinstance(action, TerminateIke | RekeyIke)]
    assert all(isinstance(action, RekeyIke) for action in actions) and len(actions) <= 1
    assert life.pair.up


def test_an_authority_that_many_stand_on_is_not_dropped_by_a_slip() -> None:
    life = Aging(80 * DAY, issuer="old")
    believes(life, "old", "new")
    others = [peer(f"web{number}.mesh.example", f"203.0.113.{number}") for number in range(3, 8)]
    life.mesh.update_peers(others, (), life.now)
    state = life.mesh.state
    for each in (life.peer, *others):
        state.certificates.take([seen(each.name, 80 * DAY, issuer="old")], frozenset({each.name}))
    believes(life, "new")
    assert not [action for action in life.step() if isinstance(action, TerminateIke)]
    (problem,) = authority_problems(state, "swanmesh.yaml")
    assert "6 peers stand" in problem.message and life.pair.up
    believes(life, "old", "new")
    assert authority_problems(state, "swanmesh.yaml") == []
