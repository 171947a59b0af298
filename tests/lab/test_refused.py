"""A host with a certificate that is good, but for another name or another address, gets nowhere, and both
ends say why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Host, Mesh, mesh, wait_until
from lab.asking import Journal, full, status, view
from tests.lab.watching import all_spis

ELSEWHERE = "192.0.2.77"


@pytest.fixture(scope="module")
def lab() -> Iterator[Mesh]:
    with mesh(3, initiation={"backoff_ceiling": "4s"}) as lab:
        yield full(lab)


def begin_with(host: Host, lab: Mesh, name: str, *addresses: str) -> None:
    """The host begins anew, with a certificate for this name and these addresses."""
    host.kill_swanmesh()
    host.stop_charon()
    host.namespace.ip("xfrm state flush", "xfrm policy flush")
    certificate, private_key = host.folder / "host.pem", host.folder / "host.key"
    lab.authority.issue(name, addresses, certificate=certificate, private_key=private_key)
    host.write_config(
        host={"name": name, "addresses": list(host.addresses)}, initiation={"backoff_ceiling": "4s"}
    )
    host.start_charon()
    host.start_swanmesh()


def tells(host: Host, other: Host, *codes: str) -> bool:
    shown = view(host, other)
    return shown["state"] != "up" and shown["reason_code"] in codes


def test_for_another_address(lab: Mesh) -> None:
    one, two, other = lab
    lab.wait_until_full()
    before, journal = all_spis([one, two]), Journal(one)
    begin_with(other, lab, other.name, ELSEWHERE)
    wait_until(lambda: tells(one, other, "not-as-agreed"), 60, "h1 says why")
    assert ELSEWHERE in view(one, other)["reason"]
    assert any(ELSEWHERE in problem for problem in status(other)["problems"])
    wait_until(lambda: tells(other, one, "peer-deleted"), 60, "h3 says that h1 ended it")
    tries = Journal(one)
    wait_until(lambda: len(tries.lines("terminate", peer=other)) > 1, 90, "it was tried and ended again")
    # Up once, before anything was known of its certificate.
    assert len(journal.lines("peer-up", peer=other)) <= 1
    assert all_spis([one, two]) == before


def test_for_another_name(lab: Mesh) -> None:
    one, two, other = lab
    before, journal = all_spis([one, two]), Journal(one)
    begin_with(other, lab, "somebody.mesh.example", *other.addresses)
    ours = ("identity-mismatch", "no-connection-here", "authentication-failed-here", "peer-refused")
    there = ("authentication-failed-at-peer", "identity-mismatch")
    wait_until(lambda: tells(one, other, *ours, *there), 60, "h1 says why")
    wait_until(lambda: tells(other, one, *there), 60, "h3 says why")
    print(view(one, other)["reason"], "|", view(other, one)["reason"])
    assert journal.lines("peer-up", peer=other) == []
    assert all_spis([one, two]) == before
