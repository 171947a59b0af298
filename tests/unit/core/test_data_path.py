"""Whether data passes: what is said of a pair, by what it hears and by what is known of its peer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swanmesh.core.actions import Action, Initiate, LimitPath, ObserveAll, ObserveSas, ObserveTraffic, Probe
from swanmesh.core.model import AddressPair
from swanmesh.core.observed import ChildSa, ChildUp, IkeDown, IkeSa, IkeUp
from swanmesh.core.pairs.data_path import ASKED, Heard, Kind
from swanmesh.core.verdict import pair_verdict
from swanmesh.core.xfrm import KernelWatched
from tests.unit.core.build import association, holdings, ike_sa
from tests.unit.core.life import Life

BOUND = 20.0


class Probed(Life):
    """A pair that is up, and a kernel and a charon that show what the test says."""

    def __init__(self, *, ours: bool = True) -> None:
        super().__init__(ours=ours)
        self.came, self.went = 0, 0
        self.sas: list[IkeSa] = []
        self.sas = [self.up()]
        self.mesh.kernel_event(KernelWatched(), self.now)
        self.mesh.probes_ready(True, self.now)
        self.carries: int | None = None
        """Bytes of the largest packet that passes; None: all do."""
        self.limits: list[LimitPath] = []
        self.probes: list[Probe] = []
        self.initiated: list[Initiate] = []

    @property
    def child(self) -> ChildSa:
        return self.sas[0].children[0]

    def hear(self, kind: Kind, silence: int = 0) -> None:
        assert self.pair.addresses is not None
        if kind != "echo":
            self.came += 1
        self.mesh.heard([Heard(self.pair.addresses, kind, silence=silence)], self.now)

    def carry_out(self, action: Action) -> None:
        match action:
            case Probe():
                self.probes.append(action)
                self.went += 1 + action.echoes
                if action.packet is not None:
                    self.send_large(action.packet or 1466, believed=not action.packet)
            case LimitPath():
                self.limits.append(action)
                self.do(action)
            case ObserveTraffic():
                packets = {self.child.spi_in: self.came, self.child.spi_out: self.went}
                self.mesh.traffic_observed(packets, self.now)
            case ObserveSas():
                self.mesh.observed(tuple(self.sas), self.now)
            case ObserveAll():
                assert self.pair.loaded is not None
                loaded = {self.name: self.pair.loaded}
                self.mesh.observed(holdings(self.host, *self.sas, loaded=loaded), self.now)
            case Initiate():
                self.initiated.append(action)
                self.do(action)
            case _:
                pass

    def turn(self, seconds: float, *, answers: tuple[Kind, ...] = (), others: bool = False) -> None:
        """So much time, in which the peer answers as it does, and others may send through it."""
        end = self.now + seconds
        while self.now < end:
            due = self.mesh.due
            self.now = min(end, max(end if due is None else due, self.now + 0.05))
            before = len(self.probes)
            for action in self.step():
                self.carry_out(action)
            for probe in self.probes[before:]:
                for kind in answers:
                    if kind != "echo" or probe.echoes:
                        self.hear(kind)
                        self.came += kind == "echo"
            self.went += 2 * others

    def send_large(self, size: int, *, believed: bool) -> None:
        assert isinstance(self.pair.addresses, AddressPair)
        heard = [Heard(self.pair.addresses, "sent", size)] if believed else []
        if self.carries is None or size <= self.carries:
            self.came += 1
            heard.append(Heard(self.pair.addresses, "answer", size))
        self.mesh.heard(heard, self.now)

    def state(self) -> tuple[str, str]:
        verdict = pair_verdict(self.mesh.state, self.pair)
        return verdict.state, verdict.reason.code


def test_a_quiet_pair_is_probed_and_one_that_carries_traffic_is_not() -> None:
    life = Probed()
    life.turn(60, answers=("answer", "echo"))
    quiet = len(life.probes)
    assert 8 <= quiet <= 20
    for _ in range(60):
        life.came += 1
        life.turn(1)
    assert len(life.probes) <= quiet + 1


@pytest.mark.parametrize("known", [("answer", "echo"), ("echo",)])
def test_silence_of_a_peer_whose_kernel_has_answered_is_told_in_time(known: tuple[Kind, ...]) -> None:
    life = Probed()
    life.turn(30, answers=known)
    assert life.state() == ("up", "")
    life.turn(ASKED - 1)
    assert life.state()[0] == "up"
    life.turn(BOUND - ASKED + 1)
    assert life.state() == ("down", "no-data")
    assert "peer-down" in life.kinds() or life.mesh.state.up == set()


def test_what_comes_in_again_ends_it() -> None:
    life = Probed()
    life.turn(30, answers=("answer", "echo"))
    life.turn(BOUND)
    assert life.state()[0] == "down"
    life.turn(3, answers=("answer", "echo"))
    assert life.state() == ("up", "")


def test_another_association_is_tried_at_growing_intervals_while_no_data_passes() -> None:
    life = Probed()
    life.turn(30, answers=("answer", "echo"))
    life.turn(BOUND + 300)
    assert 2 <= len(life.initiated) <= 5
    assert {action.reason.code for action in life.initiated} == {"no-data"}


def test_a_new_association_through_which_nothing_passes_either_is_not_up() -> None:
    life = Probed()
    life.turn(30, answers=("answer", "echo"))
    life.turn(BOUND)
    life.mesh.event(IkeUp(ike_sa(life.name, 2, age=0.0)), life.now)
    other = association(life.name, 2, age=0.0)
    life.mesh.event(ChildUp(other), life.now)
    life.sas.append(other)
    life.turn(1)
    assert life.state() == ("down", "no-data")


def test_a_service_that_stops_while_its_kernel_answers_is_no_fault() -> None:
    life = Probed()
    life.turn(30, answers=("answer", "echo"))
    life.turn(300, answers=("echo",))
    assert life.state() == ("up", "")


@pytest.mark.parametrize("known", [(), ("answer",)])
def test_silence_of_a_peer_whose_kernel_never_answered_is_no_evidence(known: tuple[Kind, ...]) -> None:
    life = Probed()
    life.turn(30, answers=known)
    life.turn(600)
    assert life.state()[0] == "up"


def test_its_service_known_and_packets_of_others_without_an_answer_are_evidence() -> None:
    life = Probed()
    life.turn(30, answers=("answer",))
    life.turn(BOUND + 40, others=True)
    assert life.state() == ("down", "no-data")


def test_a_peer_that_hears_nothing_is_believed_about_its_own_pair() -> None:
    life = Probed()
    life.turn(30, answers=("answer", "echo"))
    life.hear("ask", silence=60)
    life.turn(1)
    assert life.state()[0] == "up"
    for silence in range(12):
        life.hear("ask", silence=silence + 4)
        life.turn(1, answers=("answer", "echo"))
    assert life.state() == ("down", "no-data")
    life.hear("ask")
    life.turn(1)
    assert life.state() == ("up", "")


def test_what_was_asked_while_this_host_did_not_answer_is_no_evidence() -> None:
    life = Probed()
    life.turn(30, answers=("answer", "echo"))
    for silence in range(30):
        life.hear("ask", silence=silence + 4)
    life.turn(1)
    assert life.state()[0] == "up"


def test_the_peer_is_told_that_nothing_comes_in() -> None:
    life = Probed()
    life.turn(30, answers=("answer", "echo"))
    assert {probe.silence for probe in life.probes} == {0}
    life.turn(BOUND)
    assert life.probes[-1].silence >= ASKED


def test_what_charon_asks_itself_without_an_answer_is_left_to_charon() -> None:
    life = Probed()
    life.turn(30, answers=("answer", "echo"))
    life.sas = [replace(life.sas[0], tasks_active=("IKE_DPD",))]
    life.turn(BOUND)
    assert life.state()[0] == "up"


def test_a_controller_that_was_not_running_concludes_nothing_from_it() -> None:
    life = Probed()
    life.turn(30, answers=("answer", "echo"))
    life.now += 3600
    life.turn(3)
    assert life.state()[0] == "up"


def test_a_forged_echo_proves_no_life() -> None:
    life = Probed()
    life.turn(30, answers=("answer", "echo"))
    for _ in range(int(BOUND)):
        life.hear("echo")
        life.turn(1)
    assert life.state() == ("down", "no-data")


def test_a_path_that_drops_large_packets_is_up_with_its_reason_and_the_kernel_is_told() -> None:
    life = Probed()
    life.carries = 1300
    life.turn(120, answers=("answer", "echo"))
    (limit,) = life.limits
    assert 1290 <= limit.largest <= 1300 and limit.believed == 1466
    assert life.state() == ("up", "path-mtu")
    life.carries = None
    life.turn(1200, answers=("answer", "echo"))
    assert [each.largest for each in life.limits] == [limit.largest, 0]
    assert life.state() == ("up", "")


def test_the_kernel_is_left_to_itself_about_a_peer_that_is_gone() -> None:
    life = Probed()
    life.carries = 1300
    life.turn(120, answers=("answer", "echo"))
    life.mesh.update_peers((), [life.peer.source], life.now)
    life.mesh.event(IkeDown(life.sas[0]), life.now)
    life.turn(5)
    assert [each.largest for each in life.limits][1:] == [0]


def test_a_path_that_carries_what_the_kernel_believes_is_left_alone() -> None:
    life = Probed()
    life.turn(600, answers=("answer", "echo"))
    assert life.limits == []
