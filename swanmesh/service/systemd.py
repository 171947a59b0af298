"""What the service tells systemd: sd_notify(3).

One datagram to the socket in NOTIFY_SOCKET is the whole protocol. sdnotify (last released in 2017) knows
neither errors nor RELOADING's time stamp, and systemd-python needs a compiler and libsystemd's headers to
install: both cost more than these lines.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

_PATIENCE = 0.25


class Notifier:
    """Tells systemd how the service is; without systemd, and on any error, it does nothing."""

    def __init__(self, environment: Mapping[str, str] | None = None, *, pid: int | None = None) -> None:
        """Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (default: from this process's environment)."""
        environment = os.environ if environment is None else environment
        address = environment.get("NOTIFY_SOCKET", "")
        # An abstract socket's name begins with a zero byte, which the environment cannot hold.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            # READY must not be lost to a queue that is full for a moment, nor a hanging systemd hang us.
            self._socket.settimeout(_PATIENCE)
        self.watchdog_interval = _watchdog_interval(environment, os.getpid() if pid is None else pid)
        """Seconds between two signs of life: half of what systemd allows; None if it wants none."""

    def ready(self, status: str = "") -> None:
        """Start-up, or a reload, is complete."""
        self._send("READY=1", status)

    def reloading(self, status: str = "") -> None:
        """A reload begins; `ready` ends it. By the time stamp systemd knows the reload it asked for."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", status)

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("", text)

    def watchdog(self) -> None:
        """A sign of life, due every `watchdog_interval` seconds."""
        self._send("WATCHDOG=1", "")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str, status: str) -> None:
        if status:
            # A line break would begin another assignment.
            message = f"{message}\nSTATUS={' '.join(status.split())}".lstrip("\n")
        if self._socket is not None and message:
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)


def _watchdog_interval(environment: Mapping[str, str], pid: int) -> float | None:
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", "0"))
        # Set for another process when this one was started by a shell (sd_watchdog_enabled(3)).
        meant_for = int(environment.get("WATCHDOG_PID", pid))
    except ValueError:
        return None
    return microseconds / 2e6 if microseconds > 0 and meant_for == pid else None
