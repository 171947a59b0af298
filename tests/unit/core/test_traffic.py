"""Bytes and packets are added up over rekeys, restarts of charon, and whatever else begins counters anew."""

from __future__ import annotations

from dataclasses import replace

from swanmesh.core.observed import ChildDown, ChildRekeyed, ChildSa, IkeSa
from tests.unit.core.build import child_sa
from tests.unit.core.life import Life


def counted(child: ChildSa, received: int) -> ChildSa:
    return replace(child, bytes_in=received, bytes_out=2 * received, packets_in=received // 10)


class Crossing(Life):
    """A peer that is up, and looks at what has crossed."""

    def __init__(self) -> None:
        super().__init__()
        self.ike = self.up()

    def holding(self, *children: ChildSa) -> IkeSa:
        return replace(self.ike, children=children)

    def look(self, *children: ChildSa) -> None:
        self.now += 60
        self.mesh.observed((self.holding(*children),), self.now)

    def told(self) -> tuple[int, int, int]:
        traffic = self.pair.traffic
        return traffic.bytes_in, traffic.bytes_out, traffic.packets_in


def test_what_crosses_between_looks() -> None:
    life = Crossing()
    life.look(counted(child_sa(1), 1000))
    life.look(counted(child_sa(1), 1500))
    life.look(counted(child_sa(1), 1500))
    assert life.told() == (1500, 3000, 150)


def test_a_rekey_loses_nothing_and_counts_nothing_twice() -> None:
    life = Crossing()
    life.look(counted(child_sa(1), 1000))
    life.event(ChildRekeyed(life.holding(counted(child_sa(1), 2000)), 1, child_sa(2)))
    life.look(counted(child_sa(1, "DELETED"), 2100), counted(child_sa(2), 300))
    life.look(counted(child_sa(2), 400))
    assert life.told()[0] == 2100 + 400


def test_the_last_of_one_that_ends_is_counted() -> None:
    life = Crossing()
    life.look(counted(child_sa(1), 1000))
    life.event(ChildDown(life.holding(counted(child_sa(1), 1700))))
    assert life.told()[0] == 1700


def test_a_charon_that_counts_ids_anew_is_not_taken_for_the_old_one() -> None:
    life = Crossing()
    life.look(counted(child_sa(1), 1000))
    life.look(replace(counted(child_sa(1), 1200), spi_in="cafecafe"))
    assert life.told()[0] == 2200
