"""`swanmesh bench PEER`: what crosses to a peer, and what holds it back."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click

from swanmesh.cli.failures import ExitStatus, Failure
from swanmesh.cli.output import say, say_json, table, wrap
from swanmesh.cli.setup import Setup, complete_peer, json_option, pass_setup

if TYPE_CHECKING:
    from swanmesh.control.reports import Association, PeerStatus
    from swanmesh.core.throughput import Path
    from swanmesh.throughput.asking import Session, Transfer
    from swanmesh.throughput.messages import Ask

_LONGEST, _STREAMS = 30, 16
"""What the other service lets be asked for (`throughput/messages.py`)."""


@click.command()
@click.argument("peer", shell_complete=complete_peer)
@click.option(
    "--seconds", type=click.IntRange(1, _LONGEST), default=5, show_default=True, help="Of each transfer."
)
@click.option(
    "--streams",
    type=click.IntRange(1, _STREAMS),
    default=4,
    show_default=True,
    help="TCP streams at once, after one alone.",
)
@click.option(
    "--speed", type=click.IntRange(1), metavar="MBIT", help="The link's speed, where it cannot be told."
)
@click.option(
    "--port",
    type=click.IntRange(1024, 65535),
    default=5201,
    show_default=True,
    help="Where iperf3 listens here.",
)
@json_option
@pass_setup
def bench(
    setup: Setup, peer: str, seconds: int, streams: int, speed: int | None, port: int, as_json: bool
) -> int:
    """Measure how much TCP crosses to PEER and back, and say what holds it back.

    It fills the link for about twenty seconds. PEER is a name or one of its addresses; there, `bench: {allow:
    true}` must stand in swanmesh.yaml. Takes root and iperf3, at both ends. Ctrl-C ends it, at both ends too.

    CPU is that of the whole machine, less what was busy just before, for 10**9 bytes of TCP's payload. The
    ceiling is the payload that the slower one of both links could carry through ESP with packets of its MTU.
    """
    status = setup.client.status([peer], fresh=True)
    found = status.peers[0]
    association = _association(found, peer)
    wanted = [(count, sending) for count in dict.fromkeys((1, streams)) for sending in (True, False)]
    measured, path = asyncio.run(
        _measure(setup, found.name, status.host.name, association, wanted, seconds, speed, port)
    )
    if as_json:
        say_json(_document(found.name, association, path, measured))
    else:
        _show(found.name, association, path, measured)
    return ExitStatus.DONE


def _association(peer: PeerStatus, asked: str) -> Association:
    """The one that is measured. Raises Failure if the peer is not up."""
    if peer.state != "up":
        why = peer.reason or f"it is {peer.state}"
        raise Failure(
            ExitStatus.FAILED, f"{peer.name} is not up: {why}; look at: swanmesh status {peer.name}"
        )
    up = [each for each in peer.associations if each.works]
    if not up:
        raise Failure(ExitStatus.FAILED, f"{peer.name} has no association that works")
    return next((each for each in up if _address(each.remote) == _address(asked)), up[0])


def _address(text: str) -> str:
    """The same however an address is written; a name stays what it is."""
    try:
        return str(ip_address(text))
    except ValueError:
        return text


async def _measure(
    setup: Setup,
    name: str,
    host: str,
    association: Association,
    wanted: Sequence[tuple[int, bool]],
    seconds: int,
    speed: int | None,
    port: int,
) -> tuple[list[dict[str, Any]], Path]:
    from swanmesh.core.model import AddressPair
    from swanmesh.throughput.asking import Refused, Silent, session
    from swanmesh.throughput.iperf import Failed
    from swanmesh.throughput.messages import Ask

    addresses = AddressPair(ip_address(association.local), ip_address(association.remote))
    measured = []
    try:
        async with session(addresses, setup.config.bench.port, encap=association.encap, speed=speed) as asked:
            for streams, sending in wanted:
                ask = Ask(port=port, seconds=seconds, streams=streams, send=not sending)
                with _Progress(_words(streams, sending, name)) as progress:
                    transfer = await asked.transfer(ask, progress)
                measured.append(_figures(asked, transfer, host, name, ask))
            return measured, asked.path
    except Silent as silent:
        raise Failure(ExitStatus.TIMED_OUT, f"{name}: {silent}") from None
    except (Refused, Failed) as failed:
        raise Failure(ExitStatus.FAILED, f"{name}: {failed}") from None


def _figures(asked: Session, transfer: Transfer, host: str, peer: str, ask: Ask) -> dict[str, Any]:
    from swanmesh.core.throughput import limit

    bits, path = transfer.carried.bits, asked.path
    loads = asked.loads(transfer, host, peer)
    reason = limit(path, bits, transfer.carried.resent, ask.seconds, loads)
    here, there = (round(load.each_gigabyte(bits), 3) if bits else None for load in loads)
    return {
        "streams": ask.streams,
        "direction": "from" if ask.send else "to",
        "bits_per_second": round(bits),
        "ceiling_share": round(bits / path.ceiling, 4) if path.ceiling else None,
        "retransmits": transfer.carried.resent,
        "cpu_seconds_per_gigabyte": {"here": here, "peer": there},
        "busy": {"here": _rounded(loads[0].busy), "peer": _rounded(loads[1].busy)},
        "limit": reason.code,
        "limit_reason": reason.words,
    }


def _rounded(shares: Sequence[float]) -> list[float]:
    return [round(share, 3) for share in shares]


def _document(
    name: str, association: Association, path: Path, measured: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "schema": 1,
        "peer": name,
        "local": association.local,
        "remote": association.remote,
        "mtu": path.mtu,
        "segment": path.segment,
        "link_bits_per_second": path.speed,
        "ceiling_bits_per_second": path.ceiling,
        "measured": measured,
    }


def _show(name: str, association: Association, path: Path, measured: list[dict[str, Any]]) -> None:
    if path.speed is not None and path.ceiling is not None:
        most = f"{path.ceiling / 1e6:,.0f}"
        link = f"a link of {path.speed / 1e6:,.0f} Mbit/s, of which TCP can have {most} through ESP"
    else:
        link = "a link whose speed is not known here (--speed)"
    say(f"{association.local} to {association.remote}, MTU {path.mtu}, {link}", "")
    rows = [
        [
            _words(each["streams"], each["direction"] == "to", name),
            f"{each['bits_per_second'] / 1e6:,.0f}",
            "-" if each["ceiling_share"] is None else f"{each['ceiling_share']:.1%}",
            *(_cell(each["cpu_seconds_per_gigabyte"][end]) for end in ("here", "peer")),
            each["limit"],
        ]
        for each in measured
    ]
    say(*table(["", "MBIT/S", "OF CEILING", "CPU S/GB HERE", "THERE", "LIMIT"], rows), "")
    for line in _limits(measured):
        say(*wrap(line, indent=0, hang=2))


def _limits(measured: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Each limit once, with its words of the first time."""
    told: dict[str, str] = {}
    for each in measured:
        told.setdefault(each["limit"], each["limit_reason"])
    for code, words in told.items():
        yield f"{code}: {words}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _words(streams: int, sending: bool, name: str) -> str:
    return f"{streams} stream{'' if streams == 1 else 's'} {'to' if sending else 'from'} {name}"


class _Progress:
    """One line on a terminal, written over each second; nothing elsewhere."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def __enter__(self) -> _Progress:
        self._line(self._what)
        return self

    def __call__(self, rate: float) -> None:
        self._line(f"{self._what}: {rate:,.0f} Mbit/s")

    def __exit__(self, *_: object) -> None:
        self._line("")

    def _line(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
