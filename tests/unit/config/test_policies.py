"""Writing a policy into a file that a person wrote."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from swanmesh.config.policies import with_policy, write_policies
from swanmesh.core.model import InvalidInput
from swanmesh.core.settings.policy import Policy
from swanmesh.files.write import NotWritten


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: 1\npolicy: prefer  # why\n# end\n", "a: 1\npolicy: require  # why\n# end\n"),
        ("policy: 'off'\na: 1\n", "policy: require\na: 1\n"),
        ("policy:\na: 1\n", "policy: require\na: 1\n"),
        ("a: 1\n# end\n", "a: 1\n# end\npolicy: require\n"),
        ("a: 1", "a: 1\npolicy: require\n"),
        ("a: |\n  text\n", "a: |\n  text\npolicy: require\n"),
        ("a:\n  policy: off\n", "a:\n  policy: off\npolicy: require\n"),
        ("a: 1\n...\n", "a: 1\npolicy: require\n...\n"),
        ("{a: 1, b: [2]}\n", "{policy: require, a: 1, b: [2]}\n"),
        ("{a: 1, policy: off}", "{a: 1, policy: require}"),
        ("\ufeffä: 1\r\npolicy: off\r\nb: ö\r\n", "\ufeffä: 1\r\npolicy: require\r\nb: ö\r\n"),
        ("policy: require # so\n", "policy: require # so\n"),
    ],
)
def test_the_one_word_is_exchanged(before: str, after: str) -> None:
    assert with_policy(before.encode(), Policy.REQUIRE, "peer.yaml").decode() == after


@pytest.mark.parametrize("text", [" a: 1\n b: 2\n", "policy: [off]\n", "- a\n", "a: 1\n---\nb: 2\n", ""])
def test_a_file_that_it_cannot_be_written_into_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"peer\.yaml"):
        with_policy(text.encode(), Policy.REQUIRE, "peer.yaml")


_words = st.text("abc :#'{}[]\n-", max_size=12)
_documents = st.dictionaries(
    st.sampled_from(["name", "policy", "addresses", "x y"]), _words | st.lists(_words) | st.none(), min_size=1
)


@given(_documents, st.booleans() | st.none(), st.sampled_from(list(Policy)))
def test_all_else_says_what_it_said(document: dict[str, object], style: bool | None, policy: Policy) -> None:
    before = yaml.safe_dump(document, default_flow_style=style, sort_keys=False).encode()
    try:
        after = with_policy(before, policy, "peer.yaml")
    except InvalidInput:
        assert not isinstance(document.get("policy"), str | None)
        return
    assert yaml.safe_load(after) == {**document, "policy": "off" if policy == "off" else policy.value} or (
        policy is Policy.OFF and yaml.safe_load(after) == {**document, "policy": False}
    )


def test_several_files_change_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    for path, mode in ((one, 0o640), (other, 0o600)):
        path.write_text("a: 1\npolicy: prefer\n")
        path.chmod(mode)
    wanted = {one: Policy.REQUIRE, other: Policy.REQUIRE}
    sync, calls = os.fsync, iter(range(100))

    def full(fd: int) -> None:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(fd)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NotWritten, match="no space"):
        write_policies(wanted)
    assert one.read_text() == other.read_text() == "a: 1\npolicy: prefer\n"
    assert sorted(tmp_path.iterdir()) == [one, other]
    assert write_policies(wanted) == [one, other]
    assert one.read_text() == other.read_text() == "a: 1\npolicy: require\n"
    assert [path.stat().st_mode & 0o777 for path in (one, other)] == [0o640, 0o600]
    assert write_policies(wanted) == []


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target.yaml", tmp_path / "link.yaml"
    target.write_text("policy: prefer\n")
    link.symlink_to(target)
    with pytest.raises(InvalidInput, match=f"change {target}"):
        write_policies({link: Policy.REQUIRE})
    assert target.read_text() == "policy: prefer\n"
