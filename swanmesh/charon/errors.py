"""What can go wrong between this process and charon."""

from __future__ import annotations

from swanmesh.core.model import shown


class CharonError(Exception):
    """Base of everything this package raises on purpose."""


class CharonLost(CharonError):
    """There is no session with charon (any more); `reason` says why in words. Connect again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CommandFailed(CharonError):
    """charon understood the command and refused it; the session goes on."""

    def __init__(self, command: str, errmsg: str) -> None:
        self.command = command
        self.errmsg = shown(errmsg or "no reason given", 200)
        super().__init__(f"charon refused {command}: {self.errmsg}")


class UnsupportedCommand(CommandFailed):
    """This charon has no such command."""

    def __init__(self, command: str) -> None:
        super().__init__(command, "unknown command: too old, or built without it")


class MessageTooLarge(CommandFailed):
    """The request is larger than VICI can carry; nothing was sent."""

    def __init__(self, command: str, detail: str) -> None:
        super().__init__(command, f"message too large: {detail}")


class UnknownEvent(CharonError):
    """This charon has no event of that name (`alert` before 6.0.3)."""

    def __init__(self, event: str) -> None:
        super().__init__(f"charon has no event {shown(event)}")
