"""What a setting may be. Each field of the settings carries one of these kinds in its annotation, with its
bounds and what to do about a value that will not do: whatever reads or explains a setting asks there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from swanmesh.core.settings.proposals import fault

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PROPOSAL = re.compile(r"[a-z0-9_]+(-[a-z0-9_]+)*")


class Misfit(ValueError):
    """A value will not do."""

    def __init__(self, message: str, remedy: str, place: str = "", value: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.place = place
        """Where in the value, such as `[1]`; empty for all of it."""
        self.value = value
        """What stands there; None if `place` is empty."""


class Kind(Protocol):
    """How the value of a setting is read."""

    def read(self, value: object) -> Any:
        """The value as the settings hold it. Raises Misfit."""
        ...


@dataclass(frozen=True, slots=True)
class Seconds:
    """A length of time, from a number of seconds or text such as `4h`. Beyond the bounds it is a slip, or
    would keep charon or the network busy."""

    low: float
    high: float
    whole: bool = False
    """charon takes whole seconds."""

    def read(self, value: object) -> float:
        remedy = f"give {self.low:g} to {self.high:g} seconds"
        try:
            length = duration(value)
        except ValueError as error:
            raise Misfit(str(error), remedy) from None
        if self.whole and not length.is_integer():
            raise Misfit("must be whole seconds", remedy)
        if not self.low <= length <= self.high:
            raise Misfit("is out of bounds", remedy)
        return int(length) if self.whole else length


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number of something."""

    low: int
    high: int
    auto: bool = False
    """The word `auto` may stand there too, and is read as `low`: the reader knows better."""

    def read(self, value: object) -> int:
        if self.auto and value == AUTO:
            return self.low
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            remedy = f"write a number from {self.low} to {self.high}" + (f", or {AUTO}" if self.auto else "")
            raise Misfit("is no such number", remedy)
        return value


@dataclass(frozen=True, slots=True)
class Port:
    """A UDP port, or `off`, which is read as 0."""

    def read(self, value: object) -> int:
        if value is False or value == "off":  # YAML 1.1 reads a bare `off` as false
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
            raise Misfit("is no port", "write a number from 1 to 65535, or off")
        return value


AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no."""

    def read(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise Misfit("is neither true nor false", "write true or false")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.words:
            remedy = f"write {', '.join(self.words[:-1])} or {self.words[-1]}"
            raise Misfit("is none of the words possible", remedy)
        return value


@dataclass(frozen=True, slots=True)
class Checked:
    """Whatever a function lets pass; it raises ValueError with what is wrong."""

    check: Callable[[object], object]
    remedy: str

    def read(self, value: object) -> object:
        try:
            return self.check(value)
        except ValueError as error:
            raise Misfit(str(error), self.remedy) from None


@dataclass(frozen=True, slots=True)
class ListOf:
    """One or more of another kind, in order; or none."""

    item: Kind
    what: str
    least: int = 1

    def read(self, value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) < self.least:
            raise Misfit(f"must be a list of {self.what}", "give one or more, such as [one, another]")
        read = []
        for index, item in enumerate(value):
            try:
                read.append(self.item.read(item))
            except Misfit as misfit:
                raise Misfit(misfit.message, misfit.remedy, f"[{index}]", item) from None
        return tuple(read)


@dataclass(frozen=True, slots=True)
class Proposal:
    """Algorithms of one proposal as strongSwan writes them: for IKE such as aes128gcm16-prfsha256-x25519, for
    ESP such as aes128gcm16-x25519-esn."""

    ike: bool

    def read(self, value: object) -> str:
        if not isinstance(value, str) or not _PROPOSAL.fullmatch(value):
            message = "must be a proposal such as aes128gcm16-x25519-esn, in small letters"
            raise Misfit(message, "write it as strongSwan does")
        if words := fault(value, ike=self.ike):
            raise Misfit(f"must be a proposal that charon can read: {words}", "write it as strongSwan does")
        return value


IKE_PROPOSALS = ListOf(Proposal(ike=True), "proposals")
ESP_PROPOSALS = ListOf(Proposal(ike=False), "proposals")


def duration(value: object) -> float:
    """Seconds from a number or from text such as `4h`. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be seconds or a number with ms, s, m, h or d, such as 30m")
    return float(match[1]) * _UNITS[match[2]]
