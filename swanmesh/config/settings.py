"""`swanmesh.yaml`: what this host is, where things lie, and how connections are made.

The file is one plain YAML document. Every key is read by the kind that its field has in `sections` or in the
core's settings, by itself, so that one reading reports every mistake. A relative path counts from the file's
folder, so that many hosts can live on one machine.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Container
from pathlib import Path
from typing import Any, get_type_hints

from swanmesh.config.documents import CONFIG_LIMIT, decode_document
from swanmesh.config.sections import Config, File
from swanmesh.core.model import Address, InitiationSettings, InvalidInput, Problem, shown
from swanmesh.core.settings.setting import AUTO, Flag, Misfit
from swanmesh.files.read import read_trusted


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
    reading = _Reading(path)
    values = reading.section(reading.renamed(document), Config, "")
    if (connection := values.get("connection")) is not None:
        values["connection"] = dataclasses.replace(connection, encap=connection.encapsulation == "always")
    if (initiation := values.get("initiation")) is not None:
        given = document.get("initiation") or {}
        values["initiation"] = reading.initiation(initiation, given.get("in_flight", AUTO))
    if reading.problems:
        raise InvalidInput(*sorted(reading.problems))
    return Config(path=path, **values)


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

    def __init__(self, path: Path) -> None:
        self.problems: list[Problem] = []
        self._path = path

    def problem(self, key: str, value: object, message: str, remedy: str) -> None:
        text = "" if value is None else shown(value)
        self.problems.append(Problem(str(self._path), key, text, message, remedy))

    def renamed(self, document: dict[Any, Any]) -> dict[Any, Any]:
        """The document with `connection.encap` of older files as `connection.encapsulation`."""
        connection = document.get("connection")
        if not isinstance(connection, dict) or "encap" not in connection:
            return document
        connection = dict(connection)
        said = connection.pop("encap")
        if "encapsulation" in connection:
            message = "says again what `encapsulation` says, in older words"
            self.problem("connection.encap", said, message, "take it out, and keep `encapsulation`")
        try:
            connection.setdefault("encapsulation", "always" if Flag().read(said) else "never")
        except Misfit as misfit:
            self.problem("connection.encap", said, misfit.message, misfit.remedy)
        return document | {"connection": connection}

    def section(self, given: object, kind: type, prefix: str) -> dict[str, Any]:
        """The fields of `kind` that `given` holds or that have a default, each read by itself."""
        given = {} if given is None else given
        if not isinstance(given, dict):
            self.problem(prefix.rstrip("."), given, "must be a mapping", "indent its keys below it")
            return {}
        hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
        known = [field for field in dataclasses.fields(kind) if _is_setting(hints[field.name])]
        self._strangers(given, [field.name for field in known], prefix)
        values: dict[str, Any] = {}
        for field in known:
            key, hint = prefix + field.name, hints[field.name]
            if field.name not in given and field.default is field.default_factory is dataclasses.MISSING:
                self.problem(key, None, "is missing", "add it")
            elif dataclasses.is_dataclass(hint):
                before = len(self.problems)
                section: Any = hint
                inner = self.section(given.get(field.name), section, f"{key}.")
                if len(self.problems) == before:
                    values[field.name] = section(**inner)
            elif field.name in given:
                self._read(values, field.name, given[field.name], hint.__metadata__[0], key)
            else:
                values[field.name] = self._placed(field.default)
        return values

    def _strangers(self, given: dict[str, object], names: list[str], prefix: str) -> None:
        for key in given.keys() - set(names):
            near = difflib.get_close_matches(key, names, n=1)
            remedy = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(names)}"
            self.problem(prefix + shown(key), given[key], "is no key that swanmesh knows", remedy)

    def _read(self, values: dict[str, Any], name: str, given: object, kind: Any, key: str) -> None:
        try:
            values[name] = self._placed(kind.read(given))
        except* Misfit as misfits:
            for one in misfits.exceptions:
                assert isinstance(one, Misfit)  # noqa: S101 - groups are not nested
                self.problem(key + one.place, one.value if one.place else given, one.message, one.remedy)
        if isinstance(kind, File) and name in values and len(os.fsencode(values[name])) > kind.limit:
            message = f"is longer than the {kind.limit} bytes that it may have"
            self.problem(key, str(values[name]), message, "choose a shorter path")

    def _placed(self, value: Any) -> Any:
        """Paths as they count from the file's folder."""
        if isinstance(value, tuple):
            return tuple(self._placed(item) for item in value)
        return self._path.parent / value if isinstance(value, Path) else value

    def initiation(self, read: InitiationSettings, in_flight: object) -> InitiationSettings:
        if read.backoff_ceiling < read.backoff_base:
            message = f"is less than backoff_base ({read.backoff_base:g})"
            self.problem("initiation.backoff_ceiling", f"{read.backoff_ceiling:g}", message, "raise it")
        return dataclasses.replace(read, in_flight=automatic_in_flight()) if in_flight == AUTO else read


def _is_setting(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint) or hasattr(hint, "__metadata__")
