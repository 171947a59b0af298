"""Who is on a revocation list is ended on every host, alone, and stays out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import permutations

import pytest

from lab import Host, Mesh, mesh, wait_until
from lab.asking import Journal, full, status, view
from tests.lab.watching import all_spis, moment

CREDENTIALS = {
    "certificate": "host.pem",
    "private_key": "host.key",
    "authorities": ["ca.pem"],
    "crls": ["crl.pem"],
}
INTERVAL = 0.05
"""Seconds between the pings of a stream."""
REVOKED, REFUSED_THERE = "certificate-revoked", "authentication-failed-at-peer"


@pytest.fixture(scope="module")
def lab() -> Iterator[Mesh]:
    with mesh(4, credentials=CREDENTIALS, initiation={"backoff_ceiling": "4s"}) as lab:
        for host in lab:
            put_list(host, lab.authority.revoke(number=1))
        yield full(lab)


def put_list(host: Host, data: bytes) -> None:
    new = host.folder / "crl.new"
    new.write_bytes(data)
    new.replace(host.folder / "crl.pem")


def tells(host: Host, other: Host) -> str:
    """The code of the reason why `other` is not up at `host`; empty while it is."""
    shown = view(host, other)
    return "" if shown["state"] == "up" else str(shown["reason_code"])


def told_revoked(journal: Journal, host: Host) -> list[dict[str, str]]:
    """The lines that tell of the list as the cause of what became of a peer."""
    lines = journal.lines("terminate", "peer-down", "certificate-revoked", peer=host)
    return [line for line in lines if line["code"] == REVOKED]


def await_tries(one: Host, other: Host) -> None:
    """Waits until the two have begun anew several times, whichever of them does."""
    ends = ((Journal(one), other), (Journal(other), one))

    def tries() -> int:
        return sum(len(journal.lines("initiate", peer=peer)) for journal, peer in ends)

    wait_until(lambda: tries() > 2, 90, f"{one.short} and {other.short} have tried again")


def test_a_list_ends_who_is_on_it_on_every_host_and_nobody_else(lab: Mesh) -> None:
    *others, revoked = lab
    lab.wait_until_full()
    # One began after all had come up: what they showed then it can only suppose.
    others[1].kill_swanmesh()
    others[1].start_swanmesh()
    others[1].swanmesh("wait", "--timeout", "60", timeout=90)
    before, journals = all_spis(others), [Journal(host) for host in others]
    streams = [one.ping_stream(other.ipv4(), interval=INTERVAL) for one, other in permutations(others, 2)]
    new = lab.authority.revoke(revoked.folder / "host.pem", number=2)
    arrived = {}
    for host in others:
        arrived[host.short] = time.time()
        put_list(host, new)
    for host, journal in zip(others, journals, strict=True):
        why = f"{host.short} has ended {revoked.short}"
        # Whoever was asked to prove itself once more may have been ended by charon alone.
        line = wait_until(partial(told_revoked, journal, revoked), 30, why)[0]
        print(f"{host.short}: ended {moment(line) - arrived[host.short]:.2f} s after the list came")
        assert len(journal.lines("certificate-revoked", peer=revoked)) == 1
        # A host that is dead would be noticed after charon's dpd_delay and its retransmissions.
        assert moment(line) - arrived[host.short] < 5
    wait_until(
        lambda: not any(sa.get("remote-id") == revoked.name for host in others for sa in host.sas()),
        30,
        "nothing stands with it",
    )
    lab[0].ping(lab[1], 20, INTERVAL)
    assert [stream.stop().lost for stream in streams] == [0] * len(streams)
    assert all_spis(others) == before
    for host in others:
        wait_until(lambda h=host: tells(h, revoked) == REVOKED, 30, f"{host.short} says why")  # type: ignore[misc]
        wait_until(lambda h=host: tells(revoked, h) == REFUSED_THERE, 60, "so does the other end")  # type: ignore[misc]


def test_one_that_restarts_everything_stays_out(lab: Mesh) -> None:
    *others, revoked = lab
    before, journals = all_spis(others), [Journal(host) for host in others]
    revoked.kill_swanmesh()
    revoked.kill_charon()
    revoked.namespace.ip("xfrm state flush", "xfrm policy flush")
    revoked.start_charon()
    revoked.start_swanmesh()
    for host in others:
        await_tries(host, revoked)
        assert tells(host, revoked) == REVOKED
    assert [line for journal in journals for line in journal.lines("peer-up")] == []
    assert all_spis(others) == before


def test_nor_is_it_let_in_by_a_host_that_restarts_everything_and_finds_an_older_list(lab: Mesh) -> None:
    one, *_, revoked = lab
    one.kill_swanmesh()
    one.kill_charon()
    one.namespace.ip("xfrm state flush", "xfrm policy flush")
    put_list(one, lab.authority.revoke(number=1))
    one.start_charon()
    one.start_swanmesh()
    lab.wait_until_full(90, lab.hosts[:3])
    await_tries(one, revoked)
    assert tells(one, revoked) == REVOKED
    assert any("older than what is in force" in problem for problem in status(one)["problems"])


def test_with_a_new_certificate_it_is_back_and_nothing_of_the_old_one_ends_it(lab: Mesh) -> None:
    *others, back = lab
    lab.authority.issue(
        back.name,
        back.addresses,
        certificate=back.folder / "host.pem",
        private_key=back.folder / "host.key",
    )
    back.kill_swanmesh()
    back.start_swanmesh()
    lab.wait_until_full(90)
    before, journals = all_spis(lab.hosts), [Journal(host) for host in others]
    again = lab.authority.revoke(lab[0].folder / "ca.pem", number=3)  # nobody's, and without the old one
    for host in others:
        put_list(host, again)
    for host, journal in zip(others, journals, strict=True):
        why = f"{host.short} has taken the list"
        wait_until(lambda j=journal: j.lines("load-crls"), 30, why)  # type: ignore[misc]
    lab[0].ping(back, 20, INTERVAL)
    assert all_spis(lab.hosts) == before
    assert [line for journal in journals for line in journal.lines("terminate")] == []
