"""What commands print: safe whatever it contains, aligned, and with units."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import click

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def safe(text: str) -> str:
    """The text without anything that could steer a terminal: control, direction and other unprintable
    characters become escapes."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text
    )


def say(*lines: str) -> None:
    """Each line on stdout, made printable."""
    write(*map(safe, lines))


def write(*lines: str) -> None:
    """Each line on stdout as it is: made safe before, and perhaps coloured since."""
    if lines:
        sys.stdout.write("\n".join(lines) + "\n")


def say_json(value: Any) -> None:
    """The value as indented JSON."""
    import msgspec

    text = value if isinstance(value, bytes) else msgspec.json.encode(value)
    sys.stdout.write(msgspec.json.format(text, indent=2).decode() + "\n")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns, two spaces apart."""
    cells = [list(headings), *([safe(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def for_people() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def width() -> int:
    """Columns of the terminal."""
    return max(40, shutil.get_terminal_size().columns)


def wrap(text: str, *, indent: int, hang: int = 0) -> list[str]:
    """The text in lines of the terminal's width, all indented, all but the first by `hang` more; none for an
    empty one."""
    return textwrap.wrap(
        text,
        width(),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang),
        break_long_words=False,
        break_on_hyphens=False,
    )


def paint(text: str, colour: str) -> str:
    """The text in a colour, at a terminal that has any, unless NO_COLOR is set (https://no-color.org)."""
    if not for_people() or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return text
    return click.style(text, fg=colour, bold=colour == "red" or None)


def span(seconds: float) -> str:
    """A length of time in its two largest units, such as `3h 12m`."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def amount(count: int) -> str:
    """Bytes in binary units, such as `1.4 MiB`."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} PiB"


def plural(count: int, word: str) -> str:
    """`1 peer`, `2 peers`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
