"""YAML as hostile input: what is read, and what is refused before it costs anything."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swanmesh.config.documents import decode_document, parse_document, plain_scalar
from swanmesh.core.model import InvalidInput

_PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | _PRINTABLE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_PRINTABLE, inner, max_size=4),
    max_leaves=12,
)


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _refused(text: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse_document(text, "some.yaml")
    (problem,) = caught.value.problems
    assert problem.file == "some.yaml"
    assert problem.remedy
    return str(problem)


@given(_VALUES)
def test_json_is_read_as_what_it_says(value: object) -> None:
    text = json.dumps(value)
    if _depth(value) <= 8:
        assert parse_document(text, "x") == value
    else:
        assert "nested" in _refused(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("true", True),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-7", -7),
        ("0x1f", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
        ("2001:10", "2001:10"),
        ("1_000", "1_000"),
        ("2026-11-23", "2026-11-23"),
        ("203.0.113.1", "203.0.113.1"),
        (".inf", ".inf"),
        ("9" * 40, "9" * 40),
    ],
)
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert plain_scalar(text) == value
    assert parse_document(f"- {text}", "x") == [value]


def test_a_quoted_scalar_is_text() -> None:
    assert parse_document("""["12", 'true', "~"]""", "x") == ["12", "true", "~"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1): the key a stands twice"),
        ("a: &x 1\n", "anchors and aliases"),
        ("a: *x\n", "anchors and aliases"),
        ("<<: {a: 1}\na: &x {}\n", "anchors and aliases"),
        ("--- 1\n--- 2\n", "a second document begins"),
        ("!!python/object/apply:os.system [true]\n", "the tag"),
        ("a: ! 1\n", "the tag"),
        ("[" * 9 + "]" * 9, "nested deeper than 8"),
        ("[" * 100_000, "nest"),
        ("{a: " * 100_000, "nest"),
        ("? [1]\n: 2\n", "a key must be a plain word"),
        ("{{a: 1}: 2}\n", "a key must be a plain word"),
        ("a: [1, 2\nb: 3\n", "line "),
        ("a: 'open\n", "line "),
        ("\tb: 1\n", "line 1"),
        ("a: \x07\n", "control characters"),
        ("%YAML 9.0\n--- 1\n", "line 1"),
    ],
)
def test_what_is_no_plain_document_is_refused_with_its_line(text: str, message: str) -> None:
    assert message in _refused(text)


def test_a_bomb_of_aliases_costs_nothing() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    begun = time.process_time()
    assert "anchors and aliases" in _refused("\n".join(lines))
    assert time.process_time() - begun < 0.5


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_no_bytes_cause_anything_but_a_refusal(data: bytes) -> None:
    try:
        parse_document(data.decode("utf-8", "surrogateescape"), "x")
    except InvalidInput as invalid:
        assert all(problem.file == "x" for problem in invalid.problems)


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"name: a\naddresses: [\xff]\n")
    with pytest.raises(InvalidInput, match=r"line 2.*is not UTF-8"):
        decode_document(path.read_bytes(), str(path))
