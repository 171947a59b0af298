"""YAML files as people write them, read as hostile input.

One plain document: mappings, lists and scalars. Anchors, aliases and tags are refused, and so are a key given
twice, a second document and deep nesting, so that a small file cannot become a large value and nothing is
silently dropped. Plain scalars mean what YAML 1.2's core schema says (https://yaml.org/spec/1.2.2/#103-core-schema):
`no` and `off` are words, and `1:2:3:4:5:6:7:8` is an address, where YAML 1.1 reads a number to base 60.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from swanmesh.core.model import InvalidInput, Problem, shown

PEER_LIMIT = 64 * 1024
CONFIG_LIMIT = 1024 * 1024
DEPTH_LIMIT = 8

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C where PyYAML was built with it: ten times as fast. Only its events are used."""
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,2})?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def decode_document(data: bytes, source: str) -> object:
    """The one document in a file's content, as dict, list, str, int, float, bool or None. `source` names it
    in errors. Raises InvalidInput."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(source, "", f"line {line}", "is not UTF-8 text", "write the file anew in UTF-8")
        raise InvalidInput(problem) from None
    return parse_document(text, source)


def parse_document(text: str, source: str) -> object:
    """The one document in `text`; `source` names it in errors. Raises InvalidInput."""
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.take(event)
    except UnicodeEncodeError:
        raise builder.refusal("is not UTF-8 text", "write it anew in UTF-8", None) from None
    except yaml.MarkedYAMLError as error:
        what = error.problem or "is no YAML"
        raise builder.refusal(what, "correct the YAML there", error.problem_mark) from None
    except yaml.YAMLError as error:
        raise builder.refusal(shown(str(error)), "correct the YAML", None) from None
    return builder.document


def unknown_keys(
    document: Mapping[str, object], known: Collection[str], what: str, source: str
) -> list[Problem]:
    """The keys that a `what` does not have."""
    return [
        Problem(
            source,
            shown(key),
            shown(value),
            f"is no key of a {what}",
            f"correct it; known here: {', '.join(known)}",
        )
        for key, value in document.items()
        if key not in known
    ]


class _Open:
    """A mapping or list that is being filled."""

    __slots__ = ("key", "value")

    def __init__(self, value: dict[str, object] | list[object]) -> None:
        self.value = value
        self.key: str | None = None


class _Builder:
    """Makes the value from the parser's events, without recursion: depth costs no stack."""

    def __init__(self, source: str) -> None:
        self.document: object = None
        self._source = source
        self._open: list[_Open] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.NodeEvent):
            self._take_node(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self.refusal(
                    "a second document begins", "keep one document in a file", event.start_mark
                )

    def _take_node(self, event: yaml.NodeEvent) -> None:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self.refusal("anchors and aliases are refused", "write the value out", event.start_mark)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self.refusal(f"the tag {shown(tag)} is refused", "write a plain value", event.start_mark)
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0]
            if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
                self._take_key(event)
            else:
                self._place(plain_scalar(event.value) if plain else event.value, event)
            return
        if len(self._open) >= DEPTH_LIMIT:
            raise self.refusal(f"is nested deeper than {DEPTH_LIMIT}", "flatten it", event.start_mark)
        value: dict[str, object] | list[object] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._place(value, event)
        self._open.append(_Open(value))

    def _take_key(self, event: yaml.ScalarEvent) -> None:
        inner = self._open[-1]
        if event.value in inner.value:
            raise self.refusal(
                f"the key {shown(event.value)} stands twice", "keep one of the two", event.start_mark
            )
        inner.key = event.value

    def _place(self, value: object, event: yaml.NodeEvent) -> None:
        if not self._open:
            self.document = value
            return
        inner = self._open[-1]
        if isinstance(inner.value, list):
            inner.value.append(value)
        elif inner.key is None:
            raise self.refusal("a key must be a plain word", "write `key: value`", event.start_mark)
        else:
            inner.value[inner.key] = value
            inner.key = None

    def refusal(self, message: str, remedy: str, mark: Any) -> InvalidInput:
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        return InvalidInput(Problem(self._source, "", where, message, remedy))


def plain_scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means by YAML 1.2's core schema; infinities, NaN and integers of more than 18
    digits stay words."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 10) if text[:2] not in ("0o", "0x") else int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text
