"""What would take away many peers at once is held: files that vanish, a start beside a full charon."""

from __future__ import annotations

import pytest

from swanmesh.core.actions import UnloadConnection
from swanmesh.core.inputs.removal import held, held_problems
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Peer
from swanmesh.core.peers.removals import SETTLE, WINDOW
from swanmesh.core.reasons import FILES_IN_DOUBT, NONE, Reason
from tests.unit.core.build import association, holdings, name_of, peer, settings

HOST = settings("web1.mesh.example", "203.0.113.1")
PEERS = [peer(f"p{n:02}", f"198.51.100.{n}", source=f"peers.d/p{n:02}.yaml") for n in range(1, 13)]


class Service:
    """A core that is fed by hand, and the charon that it talks to."""

    def __init__(self, files: list[Peer], loaded: list[Peer]) -> None:
        self.mesh = Mesh(HOST, seed=1)
        self.now = 0.0
        self.events: list[tuple[str, str]] = []
        self.unloaded: list[str] = []
        self.mesh.update_peers(files, (), 0.0)
        child = {name_of(HOST, one): "esp-0123456789abcdef" for one in loaded}
        sas = [association(name, number) for number, name in enumerate(child, 1)]
        self.mesh.charon_back("5.9.8", holdings(HOST, *sas, loaded=child), 0.0)
        self.step()

    def step(self, after: float = 0.0) -> None:
        """Carries out everything until `after` seconds from now."""
        end = self.now + after
        for _ in range(500):
            step = self.mesh.step(self.now)
            self.events += [(event.kind, str(event.reason)) for event in step.events]
            for action in step.actions:
                if isinstance(action, UnloadConnection):
                    self.unloaded.append(action.peer)
                if hasattr(action, "connection") or isinstance(action, UnloadConnection):
                    self.mesh.done(action, None, self.now)
            due = self.mesh.due
            if due is None or due > end:
                break
            self.now = max(self.now, due)
        self.now = end

    def vanish(self, *peers: Peer) -> None:
        self.mesh.update_peers((), (), self.now, gone=[one.source for one in peers])
        self.step()

    def back(self, *peers: Peer) -> None:
        self.mesh.update_peers(peers, (), self.now)
        self.step()

    @property
    def in_force(self) -> int:
        return len(self.mesh.state.registry.peers)

    @property
    def problem(self) -> str:
        return "\n".join(map(str, held_problems(self.mesh.state)))


@pytest.fixture
def service() -> Service:
    return Service(PEERS, PEERS)


def test_an_emptied_folder_removes_nobody(service: Service) -> None:
    service.vanish(*PEERS)
    service.step(1000.0)
    assert service.unloaded == [] and service.in_force == 12
    assert "the files of 12 of 12 peers are gone (p01, p02, p03, p04, p05, …)" in service.problem
    assert "swanmesh confirm removal" in service.problem
    assert [kind for kind, _ in service.events].count("removal-held") == 1
    assert held(service.mesh.state) == [one.name for one in PEERS]


def test_files_deleted_one_after_the_other_count_as_one(service: Service) -> None:
    for one in PEERS:
        service.vanish(one)
        service.step(2.0)
    service.step(1000.0)
    assert len(service.unloaded) <= 3
    assert service.in_force >= 9
    assert "removal-held" in [kind for kind, _ in service.events]


def test_what_is_held_goes_when_it_is_confirmed_and_not_before(service: Service) -> None:
    service.vanish(*PEERS[:5])
    service.step(2 * WINDOW)
    assert service.unloaded == []
    assert service.mesh.confirm(service.now) == [one.name for one in PEERS[:5]]
    service.step()
    assert sorted(service.unloaded) == [one.name for one in PEERS[:5]]
    assert service.problem == "" and service.mesh.confirm(service.now) == []


def test_files_that_are_put_back_end_it_without_a_trace(service: Service) -> None:
    service.vanish(*PEERS)
    service.step(100.0)
    for one in PEERS:  # one after the other: the last few are still held
        service.back(one)
        service.step(10.0)
    service.step(1000.0)
    assert service.unloaded == [] and service.problem == "" and service.in_force == 12
    assert "peer-removed" not in [kind for kind, _ in service.events]


def test_a_few_go_by_themselves_after_a_while(service: Service) -> None:
    service.vanish(*PEERS[:3])
    service.step(SETTLE - 0.1)
    assert service.unloaded == []
    service.step(0.2)
    assert sorted(service.unloaded) == ["p01", "p02", "p03"]
    assert service.problem == ""


def test_a_quarter_of_many_goes_by_itself() -> None:
    many = [peer(f"q{n}", f"198.51.100.{n}") for n in range(1, 41)]
    service = Service(many, many)
    service.vanish(*many[:10])
    service.step(SETTLE)
    assert len(service.unloaded) == 10
    service.vanish(many[10])
    service.step(1000.0)
    assert len(service.unloaded) == 10 and "1 of 30" in service.problem


def test_what_remove_peer_takes_goes_at_once_however_much(service: Service) -> None:
    service.mesh.update_peers((), [one.source for one in PEERS], service.now)
    service.step()
    assert len(service.unloaded) == 12 and service.problem == ""


def test_it_may_be_told_after_the_files_were_seen_to_be_gone(service: Service) -> None:
    service.vanish(*PEERS)
    assert service.problem and service.unloaded == []
    service.mesh.update_peers((), [one.source for one in PEERS], service.now)
    service.step()
    assert len(service.unloaded) == 12 and service.problem == ""


def test_a_file_that_is_back_broken_is_no_removal(service: Service) -> None:
    service.vanish(PEERS[0])
    service.mesh.update_peers((), (), service.now, broken=[PEERS[0].source])
    service.step(1000.0)
    assert service.unloaded == [] and service.in_force == 12


def test_a_peer_that_moves_to_another_file_stays(service: Service) -> None:
    moved = [peer(one.name, str(one.addresses[0]), source=f"new.d/{one.name}.yaml") for one in PEERS]
    service.mesh.update_peers(moved, (), service.now, gone=[one.source for one in PEERS])
    service.step(1000.0)
    assert service.unloaded == [] and service.problem == ""
    assert set(service.mesh.state.registry.peers) == {one.source for one in moved}


def test_an_address_is_free_for_another_as_soon_as_its_file_is_gone(service: Service) -> None:
    new = peer("new", str(PEERS[0].addresses[0]))
    service.mesh.update_peers([new], (), service.now, gone=[PEERS[0].source])
    service.step()
    assert service.unloaded == ["p01"] and not service.mesh.state.registry.problems
    assert service.mesh.state.registry.named("new") == new


def test_nobody_goes_for_want_of_a_file_while_there_is_a_doubt(service: Service) -> None:
    service.mesh.hold(Reason(FILES_IN_DOUBT, "p01.yml is not read"))
    service.vanish(PEERS[0])
    service.step(1000.0)
    assert service.unloaded == [] and service.in_force == 12
    service.mesh.update_peers((), [PEERS[1].source], service.now)
    service.step()
    assert service.unloaded == ["p02"], "on purpose"
    service.mesh.hold(NONE)
    service.step()
    assert service.unloaded == ["p02", "p01"]


def test_a_start_with_no_files_beside_a_charon_that_holds_many_removes_nobody() -> None:
    service = Service([], PEERS)
    service.step(1000.0)
    assert service.unloaded == []
    assert "charon: holds connections with 12 peers that no file describes (p01," in service.problem
    assert [kind for kind, _ in service.events].count("removal-held") == 1
    for one in PEERS:
        service.back(one)
        service.step(10.0)
    assert service.unloaded == [] and service.problem == ""


def test_what_is_held_from_a_start_on_goes_when_it_is_confirmed() -> None:
    service = Service(PEERS[:4], PEERS)
    service.step(1000.0)
    assert service.unloaded == [] and "8 peers" in service.problem
    assert len(service.mesh.confirm(service.now)) == 8
    service.step(10.0)
    assert sorted(service.unloaded) == [one.name for one in PEERS[4:]] and service.problem == ""


def test_a_few_that_were_removed_while_nobody_watched_go_at_the_start() -> None:
    service = Service(PEERS[:9], PEERS)
    assert sorted(service.unloaded) == [one.name for one in PEERS[9:]] and service.problem == ""
