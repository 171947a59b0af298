"""Writing a policy into people's files: the one word is exchanged, and all else stays as they wrote it."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from swanmesh.config.documents import CONFIG_LIMIT, decode_document, parse_document
from swanmesh.core.model import InvalidInput, Problem
from swanmesh.core.settings.policy import Policy
from swanmesh.files.read import read_trusted
from swanmesh.files.write import Change, write_whole

_KEY = "policy"


def write_policies(wanted: Mapping[Path, Policy]) -> list[Path]:
    """Have these files state these policies, all or none; those that do so already are not touched. Returns
    the paths of the ones that changed. The caller holds the locks of their folders.

    Raises InvalidInput, with every file that cannot be changed, and NotWritten."""
    changes: list[Change] = []
    problems: list[Problem] = []
    for path, policy in wanted.items():
        try:
            if (change := _change(path, policy)) is not None:
                changes.append(change)
        except InvalidInput as invalid:
            problems += invalid.problems
    if problems:
        raise InvalidInput(*problems)
    write_whole(changes)
    return [change.path for change in changes]


def _change(path: Path, policy: Policy) -> Change | None:
    if path.is_symlink():
        message, remedy = "is a symbolic link", f"change {path.resolve()}, or put a file in its place"
        raise InvalidInput(Problem(str(path), "", "", message, remedy))
    before = read_trusted(path, CONFIG_LIMIT)
    after = with_policy(before, policy, str(path))
    if after == before:
        return None
    return Change(path=path, content=after, mode=stat.S_IMODE(path.stat().st_mode))


def with_policy(data: bytes, policy: Policy, source: str) -> bytes:
    """The same file with this policy. Raises InvalidInput if it cannot be written into it."""
    document = decode_document(data, source)
    if not isinstance(document, dict):
        raise InvalidInput(Problem(source, "", "", "must be a mapping", "begin with `name:` or `host:`"))
    if document.get(_KEY) == policy:
        return data
    for changed in _candidates(data.decode(), policy):
        # Whatever it looks like, it has to say the same as before but for the policy.
        try:
            if parse_document(changed, source) == {**document, _KEY: policy.value}:
                return changed.encode()
        except InvalidInput:
            continue
    remedy = f"write `{_KEY}: {policy}` there by hand"
    raise InvalidInput(Problem(source, _KEY, "", "cannot be changed in this file", remedy))


def _candidates(text: str, policy: Policy) -> Iterator[str]:
    """The text with the policy where it may belong: instead of another, else at the end, or in braces."""
    place = _find(text)
    if place.value is not None:
        start, stop = place.value
        space = " " if start == stop else ""
        yield f"{text[:start]}{space}{policy}{text[stop:]}"
        return
    head, tail = text[: place.end], text[place.end :]
    line = "" if not head or head.endswith("\n") else "\n"
    yield f"{head}{line}{_KEY}: {policy}\n{tail}"
    head, tail = text[: place.inside], text[place.inside :]
    yield f"{head}{_KEY}: {policy}, {tail}"
    yield f"{head}{_KEY}: {policy}{tail}"


@dataclass(slots=True)
class _Place:
    """Where in a text, in characters."""

    inside: int = 0
    """Behind the brace that opens the outermost mapping, if it has any."""
    end: int = 0
    """Behind that mapping."""
    value: tuple[int, int] | None = None
    """Beginning and end of the policy."""


def _find(text: str) -> _Place:
    place, depth, key, is_key = _Place(), 0, "", True
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        begin, end = (mark.index if mark is not None else 0 for mark in (event.start_mark, event.end_mark))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth == 1:
                place.inside = end
                continue
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            if depth == 0:
                place.end = begin
        elif isinstance(event, yaml.ScalarEvent) and depth == 1:
            if is_key:
                key = event.value
            elif key == _KEY:
                place.value = (begin, end)
        if depth == 1:
            is_key = not is_key
    return place
