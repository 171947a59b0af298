"""What a hook writes: kept up to a bound, made printable, and never a load."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from swanmesh.core.model import shown

LIMIT = 64 * 1024
"""Bytes kept of one run."""
_LINES = 200
_LINE = 1000
"""Characters shown of one line."""
_CHUNK = 64 * 1024
_PAUSE = 0.02
"""Seconds between two readings beyond LIMIT. A hook that writes too much is slowed down by it, to about
3 MB/s, instead of keeping the service busy."""


class HookOutput:
    """Reads one pipe on the running loop until its end."""

    def __init__(self, pipe: int, changed: Callable[[], None]) -> None:
        """Takes the pipe over; `changed` is called at its end."""
        self.closed = False
        self._pipe = pipe
        self._changed = changed
        self._kept = bytearray()
        self._dropped = 0
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._read)

    def close(self) -> None:
        """Read no more; who still writes is told so by the kernel."""
        if not self.closed:
            self.closed = True
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._changed()

    def lines(self) -> tuple[str, ...]:
        """All that came, without anything that could steer a terminal or break a line of the log."""
        text = self._kept.decode(errors="backslashreplace").replace("\r\n", "\n").expandtabs()
        found = [line for line in text.split("\n") if line.strip()]
        lines = [shown(line.rstrip(), _LINE) for line in found[:_LINES]]
        if len(found) > _LINES:
            lines.append(f"({len(found) - _LINES} more lines)")
        if self._dropped:
            lines.append(f"({self._dropped} more bytes)")
        return tuple(lines)

    def _read(self) -> None:
        try:
            read = os.read(self._pipe, _CHUNK)
        except BlockingIOError:
            return
        if not read:
            self.close()
            return
        room = LIMIT - len(self._kept)
        self._kept += read[:room]
        self._dropped += max(0, len(read) - room)
        if self._dropped:
            self._loop.remove_reader(self._pipe)
            self._pause = self._loop.call_later(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._loop.add_reader(self._pipe, self._read)
