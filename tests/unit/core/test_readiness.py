"""What stands in the way of `require`, peer by peer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swanmesh.core.actions import LoadConnection
from swanmesh.core.desired import desired
from swanmesh.core.mesh import Mesh
from swanmesh.core.model import Peer, Settings
from swanmesh.core.readiness import Readiness, readiness
from swanmesh.core.reasons import Cause, Reason
from swanmesh.core.settings.override import HOST, Override, Trial
from swanmesh.core.settings.policy import Policy
from tests.unit.core.build import association, holdings, name_of, peer, settings

HOST_SETTINGS = settings("web1.mesh.example", "203.0.113.1", policy=Policy.PREFER)
PEER = peer("web2.mesh.example", "203.0.113.2")


def mesh_with(host: Settings, other: Peer, *, up: bool) -> Mesh:
    """A mesh of one peer, whose association stands in charon or does not."""
    made = Mesh(host, seed=1)
    made.update_peers([other], [], 0.0)
    sas = [association(name_of(host, other))] if up else []
    loaded = {name: connection.child for name, (_, connection) in desired(host, other).items()}
    made.charon_back("5.9.8", holdings(host, *sas, loaded=loaded), 0.0)
    made.step(1.0)
    return made


def ready(made: Mesh, other: Peer = PEER) -> Readiness:
    return readiness(made.state, other, 2.0)


def test_nothing_stands_in_the_way_of_a_peer_that_is_up() -> None:
    found = ready(mesh_with(HOST_SETTINGS, PEER, up=True))
    assert (found.member, bool(found.obstacle)) == (True, False)


def test_a_peer_that_is_not_up_is_in_the_way_whatever_the_reason() -> None:
    made = mesh_with(HOST_SETTINGS, PEER, up=False)
    assert ready(made).obstacle
    assert ready(made).member is None
    off = mesh_with(replace(HOST_SETTINGS, policy=Policy.OFF), PEER, up=False)
    assert ready(off).obstacle.code == "policy-off"
    assert "`prefer`" in ready(off).obstacle.words


@pytest.mark.parametrize(
    ("cause", "member"), [(Cause.AUTHORITY_UNKNOWN, False), (Cause.PEER_UNREACHABLE, None)]
)
def test_who_answers_without_a_certificate_of_the_mesh_is_no_member(
    cause: Cause, member: bool | None
) -> None:
    made = mesh_with(HOST_SETTINGS, PEER, up=False)
    (pair,) = made.state.pairs.of(PEER.name)
    pair.standing.cause = Reason(cause, "because")
    made.state.pairs.mark(pair)
    made.step(1.5)
    assert ready(made).member is member


def test_a_family_that_the_peer_lacks_is_said() -> None:
    both = settings("web1.mesh.example", "203.0.113.1", "2001:db8::1")
    assert ready(mesh_with(both, PEER, up=False)).lacks == (6,)
    assert ready(mesh_with(HOST_SETTINGS, PEER, up=False)).lacks == ()


def test_a_policy_is_settled_once_charon_holds_what_it_calls_for() -> None:
    made = mesh_with(HOST_SETTINGS, PEER, up=True)
    assert ready(made).settled
    required = replace(HOST_SETTINGS, policy=Policy.REQUIRE)
    made.configure(required, 3.0)
    assert not ready(made).settled
    (load,) = (action for action in made.step(3.0).actions if isinstance(action, LoadConnection))
    made.done(load, None, 3.1)
    assert ready(made).settled


def test_a_trial_holds_where_the_file_says_what_it_said() -> None:
    trial = Trial(policy=Policy.REQUIRE, before={HOST: Policy.PREFER, "web2.mesh.example": Policy.OFF})
    tried = replace(HOST_SETTINGS, override=Override(trial=trial))
    own = replace(PEER, policy=Policy.OFF)
    assert tried.policy_of(PEER) is tried.policy_of(own) is Policy.REQUIRE
    assert tried.policy_of(replace(PEER, policy=Policy.PREFER)) is Policy.PREFER
    by_hand = replace(tried, policy=Policy.OFF)
    assert by_hand.policy_of(PEER) is Policy.OFF
    assert replace(tried, override=Override(trial=trial, disabled=True)).policy_of(own) is Policy.OFF
