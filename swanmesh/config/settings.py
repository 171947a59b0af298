"""`swanmesh.yaml`: what this host is, where things lie, and how connections are made.

The file is one plain YAML document. Every key is decoded by its type alone, so that one reading reports every
mistake. A relative path counts from the file's folder, so that many hosts can live on one machine.
"""

from __future__ import annotations

import difflib
import grp
import os
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from swanmesh.config.documents import CONFIG_LIMIT, decode_document
from swanmesh.config.sections import BOUNDS, REMEDIES, Document, Duration, LogFormat, LogLevel, decode
from swanmesh.core.model import (
    Address,
    ConnectionSettings,
    Host,
    InitiationSettings,
    InvalidInput,
    Policy,
    Problem,
    shown,
)
from swanmesh.core.peers import check_name, check_policy, parse_addresses
from swanmesh.files.read import read_trusted

_SOCKET_PATH_LIMIT = 107
"""Bytes in a Unix socket's address, without the final zero: unix(7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that `swanmesh.yaml` says, checked. Paths are absolute, durations in seconds."""

    path: Path
    host: Host
    policy: Policy
    certificate: Path
    private_key: Path
    authorities: tuple[Path, ...]
    peers: Path
    hooks: Path
    charon_socket: Path
    charon_timeout: float
    """After so long without a reply charon counts as hanging."""
    control_socket: Path
    control_group: str | None
    """Members may use the control socket beside root; None admits root alone."""
    log_level: LogLevel
    log_format: LogFormat
    connection: ConnectionSettings
    initiation: InitiationSettings

    @property
    def environment(self) -> dict[str, str]:
        """What hooks learn of this host, so that their own calls of `swanmesh` reach its service."""
        return {"SWANMESH_HOST": self.host.name, "SWANMESH_CONFIG": str(self.path)}


def load_config(path: Path) -> Config:
    """Read and check `swanmesh.yaml`. Nothing that it names is opened.

    Raises InvalidInput with every problem found; a file that others could write is one.
    """
    path = path.absolute()
    source = str(path)
    document = decode_document(read_trusted(path, CONFIG_LIMIT), source)
    if not isinstance(document, dict):
        message, remedy = "must be a mapping of sections", "begin with `host:` and `credentials:`"
        raise InvalidInput(Problem(source, "", "", message, remedy))
    reading = _Reading(source)
    values = reading.struct(document, Document, "")
    host = reading.host(values.get("host", {}))
    policy = reading.policy(values.get("policy"))
    folder = path.parent
    charon, control = values.get("charon", {}), values.get("control", {})
    charon_socket = reading.socket(folder, charon.get("socket"), "charon.socket")
    control_socket = reading.socket(folder, control.get("socket"), "control.socket")
    group = reading.group(control.get("group"))
    connection = reading.connection(values.get("connection", {}))
    initiation = reading.initiation(values.get("initiation", {}))
    if reading.problems:
        raise InvalidInput(*sorted(reading.problems))
    credentials, log = values["credentials"], values["log"]
    return Config(
        path=path,
        host=host,
        policy=policy,
        certificate=folder / credentials["certificate"],
        private_key=folder / credentials["private_key"],
        authorities=tuple(folder / authority for authority in credentials["authorities"]),
        peers=folder / values["peers"],
        hooks=folder / values["hooks"],
        charon_socket=charon_socket,
        charon_timeout=charon["timeout"],
        control_socket=control_socket,
        control_group=group,
        log_level=log["level"],
        log_format=log["format"],
        connection=connection,
        initiation=initiation,
    )


def missing_addresses(config: Config, present: Container[Address]) -> tuple[Problem, ...]:
    """Which of the host's addresses none of this machine's interfaces has. They may come later."""
    return tuple(
        Problem(
            str(config.path),
            f"host.addresses[{index}]",
            str(address),
            "no interface of this host has it",
            "correct it, or give it to an interface",
        )
        for index, address in enumerate(config.host.addresses)
        if address not in present
    )


def automatic_in_flight() -> int:
    """Initiations at once for this machine: 16 for each processor this process may use.

    An exchange keeps a processor busy for a few milliseconds and then waits for the network; 16 hide a
    round trip of some 50 ms without making charon's 16 worker threads queue for long.
    """
    return 16 * max(1, len(os.sched_getaffinity(0)))


class _Reading:
    """One reading of the file; gathers its problems."""

    def __init__(self, source: str) -> None:
        self.problems: list[Problem] = []
        self._source = source

    def problem(self, key: str, value: object, message: str, remedy: str) -> None:
        text = "" if value is None else shown(value)
        self.problems.append(Problem(self._source, key, text, message, remedy))

    def struct(self, given: object, kind: type[msgspec.Struct], prefix: str) -> dict[str, Any]:
        """The fields of `kind` that `given` holds or that have a default, each decoded by itself."""
        if not isinstance(given, dict):
            self.problem(prefix.rstrip("."), given, "must be a mapping", "indent its keys below it")
            return {}
        names = [field.name for field in msgspec.structs.fields(kind)]
        for key in given.keys() - set(names):
            near = difflib.get_close_matches(key, names, n=1)
            remedy = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(names)}"
            self.problem(prefix + shown(key), given[key], "is no key that swanmesh knows", remedy)
        values: dict[str, Any] = {}
        hints = get_type_hints(kind, include_extras=True)
        for field in msgspec.structs.fields(kind):
            key = prefix + field.name
            nested = isinstance(hints[field.name], type) and issubclass(hints[field.name], msgspec.Struct)
            if field.name not in given:
                if field.required:
                    self.problem(key, None, "is missing", "add it")
                elif nested:
                    values[field.name] = self.struct({}, hints[field.name], f"{key}.")
                else:
                    values[field.name] = field.default
            elif nested:
                section = given[field.name]
                values[field.name] = self.struct(
                    {} if section is None else section, hints[field.name], f"{key}."
                )
            else:
                self._value(values, field.name, given[field.name], hints[field.name], key)
        return values

    def _value(self, values: dict[str, Any], name: str, given: object, kind: Any, key: str) -> None:
        try:
            value = msgspec.convert(given, kind, dec_hook=decode)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at `$")
            place = place.rstrip("`")
            if place and isinstance(given, list):
                given = given[int(place.strip("[]"))]
            remedy = REMEDIES.get(key, "correct the value")
            self.problem(key + place, given, message[:1].lower() + message[1:], remedy)
            return
        low, high = BOUNDS.get(key, (0.0, 0.0))
        if isinstance(value, Duration) and not low <= value <= high:
            self.problem(key, given, "is out of bounds", f"give {low:g} to {high:g} seconds")
            return
        values[name] = value

    def host(self, section: dict[str, Any]) -> Host:
        name = ""
        if "name" in section:
            try:
                name = check_name(section["name"])
            except ValueError as error:
                self.problem("host.name", section["name"], str(error), "give the name in its certificate")
        addresses = (
            parse_addresses(section["addresses"], "host.addresses", self._source, self.problems)
            if "addresses" in section
            else ()
        )
        return Host(name=name, addresses=addresses)

    def policy(self, value: object) -> Policy:
        try:
            policy = check_policy(value)
        except ValueError as error:
            self.problem("policy", value, str(error), "write require, prefer or off")
            return Policy.REQUIRE
        return policy

    def socket(self, folder: Path, value: Path | None, key: str) -> Path:
        path = folder / (value or Path())
        if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
            message = f"is longer than the {_SOCKET_PATH_LIMIT} bytes that a socket's address holds"
            self.problem(key, str(path), message, "choose a shorter path")
        return path

    def group(self, name: str | None) -> str | None:
        if name is not None:
            try:
                grp.getgrnam(name)
            except KeyError:
                self.problem("control.group", name, "is no group here", f"run: groupadd --system {name}")
            except (UnicodeEncodeError, ValueError):
                self.problem("control.group", name, "is no name of a group", "correct the value")
        return name

    def connection(self, section: dict[str, Any]) -> ConnectionSettings:
        given: dict[str, Any] = {key: value for key, value in section.items() if value is not None}
        for key, value in given.items():
            if isinstance(value, Duration):
                given[key] = int(value)
            elif isinstance(value, list):
                given[key] = tuple(str(proposal) for proposal in value)
        return ConnectionSettings(**given)

    def initiation(self, section: dict[str, Any]) -> InitiationSettings:
        given: dict[str, Any] = {
            key: float(value) if isinstance(value, Duration) else value
            for key, value in section.items()
            if value is not None
        }
        if given.get("in_flight", "auto") == "auto":
            given["in_flight"] = automatic_in_flight()
        settings = InitiationSettings(**given)
        if settings.backoff_ceiling < settings.backoff_base:
            self.problem(
                "initiation.backoff_ceiling",
                f"{settings.backoff_ceiling:g}",
                f"is less than backoff_base ({settings.backoff_base:g})",
                "raise it",
            )
        return settings
