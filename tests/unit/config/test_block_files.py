"""blocks.d as it is read and written."""

from __future__ import annotations

from pathlib import Path

import pytest

from swanmesh.config.block_edit import block_text, remove_block, restore_block, write_block
from swanmesh.config.entry_files import block_directory
from swanmesh.core.model import Block, InvalidInput
from swanmesh.core.peers.blocks import parse_block
from swanmesh.core.settings.policy import Policy


def made(name: str = "servers", cidr: str = "203.0.113.0/24", **keys: object) -> Block:
    return parse_block(name, cidr, **{"source": "x"} | keys)  # type: ignore[arg-type]


def test_a_file_is_a_block_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text("cidr: 2001:db8::/64\npolicy: prefer\nexcept: [2001:db8::1, 2001:db8::ff00/120]\n")
    (block,) = block_directory(tmp_path).scan().entries.values()
    assert (block.name, str(block.cidr), block.policy) == ("servers", "2001:db8::/64", Policy.PREFER)
    assert [str(each) for each in block.exceptions] == ["2001:db8::1/128", "2001:db8::ff00/120"]
    assert block.source == str(path)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", {""}),
        ("- a\n", {""}),
        ("policy: prefer\n", {"cidr"}),
        ("cidr: 203.0.113.0/24\nname: a\n", {"name"}),
        ("cidr: 203.0.113.0/24\nexcept: [a, 198.51.100.1]\n", {"except[0]", "except[1]"}),
        ("cidr: 203.0.113.0/33\npolicy: never\nexept: []\n", {"cidr", "policy", "exept"}),
    ],
)
def test_mistakes_are_told_all_at_once(tmp_path: Path, text: str, keys: set[str]) -> None:
    (tmp_path / "b.yaml").write_text(text)
    scan = block_directory(tmp_path).scan()
    assert {problem.key for problem in scan.problems} == keys
    assert all(problem.file == str(tmp_path / "b.yaml") and problem.remedy for problem in scan.problems)
    assert scan.unreadable == {str(tmp_path / "b.yaml")} and not scan.entries


def test_a_folder_that_never_was_is_no_mistake_and_one_that_goes_is(tmp_path: Path) -> None:
    folder = tmp_path / "blocks.d"
    directory = block_directory(folder)
    assert directory.scan().complete and directory.scan().problems == ()
    write_block(folder, made(), wide=False)
    assert len(directory.scan().entries) == 1
    folder.rename(tmp_path / "elsewhere")
    scan = directory.scan()
    assert not scan.complete and len(scan.entries) == 1 and scan.problems


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    block = made(policy="prefer", exceptions=["203.0.113.1", "203.0.113.64/26"])
    written = write_block(tmp_path, block, wide=False)
    assert written.result == "added"
    assert write_block(tmp_path, block, wide=False).result == "unchanged"
    assert list(block_directory(tmp_path).scan().entries.values()) == [written.block]
    other = write_block(tmp_path, made(policy="off"), wide=False)
    assert other.result == "updated"
    restore_block(other)
    assert list(block_directory(tmp_path).scan().entries.values()) == [written.block]
    wide = write_block(tmp_path, made("all", "0.0.0.0/0", wide=True), wide=True)
    assert b"wide: true" in block_text(wide.block, wide=True)
    assert len(block_directory(tmp_path).scan().entries) == 2


def test_one_block_has_one_file(tmp_path: Path) -> None:
    write_block(tmp_path, made(), wide=False)
    with pytest.raises(InvalidInput, match=r"stands in .*servers\.yaml already"):
        write_block(tmp_path, made("again"), wide=False)
    remove_block(tmp_path, "SERVERS")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InvalidInput, match="no such block"):
        remove_block(tmp_path, "servers")
