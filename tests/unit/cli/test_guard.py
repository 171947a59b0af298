"""`swanmesh guard`: what it shows of a kernel, and what it asks before it opens one."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from swanmesh.core.guard.policies import Cover, Ground
from swanmesh.core.xfrm import XfrmPolicy
from swanmesh.kernel import boot
from swanmesh.kernel import guard as kernel
from tests.unit.cli.conftest import Machine

PEER = Cover(ip_address("203.0.113.2"), 32, closed=True, source="web2")
OTHER = Cover(ip_address("2001:db8::3"), 128, closed=True, source="web3")


@pytest.fixture
def held(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[XfrmPolicy]:
    """What the kernel holds, instead of this machine's."""
    machine.config.write_text(machine.config.read_text() + "state: state\n")
    policies: list[XfrmPolicy] = []
    monkeypatch.setattr(kernel, "standing", lambda: list(policies))
    monkeypatch.setattr(kernel, "refusals", lambda: {"out": 3, "in": 0})
    return policies


def keep(machine: Machine, *parts: Cover | Ground) -> Path:
    kernel.write_file(machine.folder / "state", parts)
    return machine.folder / "state" / kernel.FILE


def test_what_is_closed_and_what_was_refused_is_shown(machine: Machine, held: list[XfrmPolicy]) -> None:
    keep(machine, PEER, Ground(4))
    held += [policy._replace(used=1_000_000_000) for policy in PEER.policies()]
    held += Ground(4).policies()
    ended = machine.swanmesh("guard", "status")
    assert ended.status == 0, ended
    assert "203.0.113.2/32" in ended.out and "3 packets out" in ended.out
    shown = machine.swanmesh("guard", "status", "--json").json
    assert [each["network"] for each in shown["closed"]] == ["203.0.113.2/32"]
    assert shown["closed"][0]["refused_out"] == 1_000_000_000 and shown["missing"] == []


def test_a_difference_to_the_next_boot_fails(machine: Machine, held: list[XfrmPolicy]) -> None:
    keep(machine, PEER)
    held += OTHER.policies()
    ended = machine.swanmesh("guard", "status")
    assert ended.status == 1
    assert "not closed now, but after the next boot: 203.0.113.2/32" in ended.out
    assert "closed now, but not after the next boot: 2001:db8::3/128" in ended.out


def test_a_network_is_closed_only_whole(machine: Machine, held: list[XfrmPolicy]) -> None:
    keep(machine, PEER)
    held += list(PEER.policies())[1:]
    assert machine.swanmesh("guard", "status").status == 1


def test_without_a_file_it_is_told_who_keeps_it(machine: Machine, held: list[XfrmPolicy]) -> None:
    ended = machine.swanmesh("guard", "status")
    assert ended.status == 1 and "systemctl start swanmesh" in ended.err


def test_nothing_is_opened_without_a_word(machine: Machine, held: list[XfrmPolicy]) -> None:
    path = keep(machine, PEER)
    held += PEER.policies()
    ended = machine.swanmesh("guard", "clear")
    assert ended.status != 0 and path.exists()


def test_clear_takes_it_from_the_kernel_and_the_next_boot(
    machine: Machine, held: list[XfrmPolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, given = keep(machine, PEER), list[bytes]()

    def apply(content: bytes) -> list[int]:
        given.append(content)
        return []

    held += PEER.policies()
    monkeypatch.setattr(boot, "apply", apply)
    ended = machine.swanmesh("guard", "clear", "--yes")
    assert ended.status == 0 and "3 policies" in ended.out, ended
    assert not path.exists() and len(given) == 1
