"""What the operator asked for is done when it is, and not when it was asked."""

from __future__ import annotations

from dataclasses import replace

from swanmesh.core.actions import LoadConnection, TerminateIke
from swanmesh.core.commands import PeerCommand, peer_command, unfinished
from swanmesh.core.observed import ChildRekeyed, ChildUp, IkeDown, IkeRekeyed
from swanmesh.core.reasons import Reason
from tests.unit.core.build import association, child_sa
from tests.unit.core.life import Life


def command(life: Life, what: str) -> PeerCommand:
    wanted = peer_command(life.mesh.state, what, life.peer)
    life.mesh.command(what, life.peer.name, life.now)
    return wanted


def waits(life: Life, wanted: PeerCommand) -> str:
    return unfinished(life.mesh.state, wanted, life.now)


def test_down_is_done_when_its_shunt_is_loaded_and_its_associations_are_gone() -> None:
    life = Life()
    sa = life.up()
    wanted = command(life, "down")
    assert waits(life, wanted)
    load = life.one()
    assert isinstance(load, LoadConnection)
    life.do(load)
    end = life.one()
    assert isinstance(end, TerminateIke)
    life.do(end)
    assert waits(life, wanted) == "its associations are being ended"
    life.event(IkeDown(replace(sa, state="DELETING", children=())))
    assert waits(life, wanted) == ""


def test_nothing_is_done_while_charon_is_lost() -> None:
    for what in ("up", "down", "rekey"):
        life = Life()
        life.up()
        life.mesh.charon_lost(Reason("charon-unreachable", "it hangs"), life.now)
        assert waits(life, command(life, what)) == "charon is not reachable (it hangs)"


def test_up_is_done_when_it_is_up() -> None:
    life = Life()
    life.initiate()
    wanted = command(life, "up")
    assert waits(life, wanted)
    life.event(ChildUp(association(life.name, 1, age=0.0)))
    assert waits(life, wanted) == ""


def test_rekey_is_done_when_both_keys_are_new() -> None:
    life = Life()
    sa = life.up()
    wanted = command(life, "rekey")
    assert waits(life, wanted) == "the old keys are still in use"
    life.event(ChildRekeyed(replace(sa, children=()), 1, child_sa(2)))
    assert waits(life, wanted) == "the old keys are still in use"
    new = replace(sa, unique_id=7, spi_initiator="7" * 16, spi_responder="8" * 16, children=())
    life.event(IkeRekeyed(sa.unique_id, new))
    assert waits(life, wanted) == ""


def test_what_is_not_up_cannot_be_rekeyed() -> None:
    life = Life()
    life.load()
    assert waits(life, command(life, "rekey"))
