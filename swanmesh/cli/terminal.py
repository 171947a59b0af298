"""The status for a person at a terminal: the same words as the plain table, with colour and wrapping.

rich leaves colour out where NO_COLOR is set or the terminal has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swanmesh.cli.output import safe
from swanmesh.cli.status import HEADINGS, footing, heading, row

if TYPE_CHECKING:
    from swanmesh.control.protocol import StatusReply

_STYLES = {"up": "green", "connecting": "yellow", "down": "bold red", "disabled": "dim"}


def show(reply: StatusReply, now: float) -> None:
    console = Console(highlight=False, soft_wrap=False)
    # Text, never markup: what a peer is called must not be read as a style.
    console.print(Text(safe(heading(reply, now)), style="" if reply.charon.reachable else "bold red"))
    if reply.peers:
        console.print(_table(reply, now))
    for line in footing(reply):
        console.print(Text(safe(line), style="bold red" if line.startswith("problem: ") else ""))


def _table(reply: StatusReply, now: float) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for heading_ in HEADINGS:
        right = heading_ in ("IN", "OUT")
        table.add_column(heading_, justify="right" if right else "left", no_wrap=heading_ != "REASON")
    for peer in reply.peers:
        style = _STYLES.get(peer.state, "")
        cells = [Text(safe(cell)) for cell in row(peer, now)]
        cells[1].stylize(style)
        table.add_row(*cells)
    return table
