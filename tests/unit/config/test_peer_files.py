"""peers.d as it is read: what counts, what is told, and what a change costs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swanmesh.config import directory as directories
from swanmesh.config.directory import is_entry_file, read_entry
from swanmesh.config.entry_files import peer_directory, read_peer
from swanmesh.core.model import InvalidInput, Peer
from swanmesh.core.settings.policy import Policy
from tests.unit.config.elsewhere import NOBODY, open_directory, run_python


def write(path: Path, name: str, last: int, *more: str) -> Path:
    path.write_text("\n".join([f"name: {name}", f"addresses: [203.0.113.{last}]", *more]) + "\n")
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the files that are read, as they are."""
    names: list[str] = []

    def counting(path: Path, decode: Callable[[object, str], Peer], *, folder: Path) -> Peer:
        names.append(path.name)
        return read_entry(path, decode, folder=folder)

    monkeypatch.setattr(directories, "read_entry", counting)
    yield names


def settle(directory: Path) -> None:
    """Make the files look as if written a while ago, as those of a running host are."""
    for path in directory.iterdir():
        os.utime(path, (time.time() - 3600, time.time() - 3600))


def test_a_peer_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "WEB12.mesh.example", 12, "policy: off")
    peer = read_peer(path)
    assert (peer.name, peer.policy, peer.source) == ("web12.mesh.example", Policy.OFF, str(path))
    assert [str(address) for address in peer.addresses] == ["203.0.113.12"]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", {""}),
        ("- a\n", {""}),
        ("name: a\n", {"addresses"}),
        ("name: ../../etc/x\naddresses: [203.0.113.1]\n", {"name"}),
        ("name: [a]\naddresses: [203.0.113.1]\n", {"name"}),
        ("name: a\naddresses: 203.0.113.1\n", {"addresses"}),
        ("name: a\naddresses: [203.0.113.1, 224.0.0.1, 5]\n", {"addresses[1]", "addresses[2]"}),
        (
            "name: a\naddresses: [203.0.113.1]\npolicy: always\nexempt: [tcp/22, tcp]\n",
            {"policy", "exempt[1]"},
        ),
        ("name: a\naddress: [203.0.113.1]\n", {"address", "addresses"}),
        ("name: a_b\naddresses: []\nport: 1\npolicy: x\n", {"name", "addresses", "port", "policy"}),
        ("name: a\naddresses: [203.0.113.1\n", {""}),
    ],
)
def test_every_mistake_of_a_peer_file_is_told_at_once(tmp_path: Path, text: str, keys: set[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        read_peer(path)
    assert {problem.key for problem in caught.value.problems} == keys
    assert all(problem.file == str(path) and problem.remedy for problem in caught.value.problems)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_no_content_causes_anything_but_a_refusal(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(data)
    with pytest.raises(InvalidInput):
        read_peer(path)


def test_a_file_that_is_gone_is_told_apart_from_a_link_to_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(FileNotFoundError):
        read_peer(path)
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="no such file"):
        read_peer(path)


@pytest.mark.parametrize(
    ("name", "counts"),
    [("a.yaml", True), (".a.yaml", False), ("a.yml", False), ("a.yaml~", False), ("a.yaml.new", False)],
)
def test_which_names_count(name: str, counts: bool) -> None:
    assert is_entry_file(Path("/x") / name) is counts


def test_a_scan_takes_what_is_valid_and_tells_the_rest(tmp_path: Path) -> None:
    good = write(tmp_path / "good.yaml", "good", 1)
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\n")
    write(tmp_path / ".hidden.yaml", "hidden", 2)
    (tmp_path / "good.yaml~").write_text("{{{")
    (tmp_path / "#good.yaml#").write_text("{{{")
    (tmp_path / "folder.yaml").mkdir()
    scan = peer_directory(tmp_path).scan()
    assert {path: peer.name for path, peer in scan.entries.items()} == {str(good): "good"}
    assert scan.unreadable == {str(bad), str(tmp_path / "folder.yaml")}
    assert {problem.file for problem in scan.problems} == {str(bad), str(tmp_path / "folder.yaml")}
    assert scan.complete


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("web2.yml", "rename it to web2.yaml, or move it elsewhere"),
        ("web2.yaml.bak", "move it elsewhere, or name it NAME.yaml if it is a peer's"),
        ("web2.yaml.new", "move it elsewhere"),
        ("notes.txt", "move it elsewhere"),
        ("old/", "move it elsewhere"),
    ],
)
@pytest.mark.parametrize("way", ["scan", "look"])
def test_whatever_is_visible_and_not_read_is_a_problem(
    tmp_path: Path, name: str, remedy: str, way: str
) -> None:
    directory = peer_directory(tmp_path)
    path = tmp_path / name
    path.mkdir() if name.endswith("/") else path.touch()
    scan = directory.scan() if way == "scan" else directory.look([path])
    (problem,) = scan.problems
    assert (problem.file, scan.unread, scan.complete) == (str(path), (str(path),), True)
    assert "no peer is removed" in problem.message
    assert remedy in problem.remedy
    path.rmdir() if name.endswith("/") else path.unlink()
    scan = directory.scan() if way == "scan" else directory.look([path])
    assert (scan.problems, scan.unread) == ((), ())


def test_what_others_could_write_says_nothing(tmp_path: Path) -> None:
    peers = tmp_path / "peers.d"
    peers.mkdir()
    path = write(peers / "a.yaml", "a", 1)
    directory = peer_directory(peers)
    assert len(directory.scan().entries) == 1
    path.chmod(0o666)
    scan = directory.scan()
    assert scan.unreadable == {str(path)}
    assert scan.problems[0].remedy == f"run: chmod go-w {path}"
    path.chmod(0o644)
    assert directory.scan().problems == ()
    peers.chmod(0o777)
    for scan in (directory.scan(), directory.look([path]), peer_directory(peers).scan()):
        assert not scan.complete
        assert scan.problems[-1].remedy == f"run: chmod go-w {peers}"
    peers.chmod(0o755)
    tmp_path.chmod(0o777)
    assert directory.scan().problems[0].remedy == f"run: chmod go-w {tmp_path}"
    tmp_path.chmod(0o1777)
    scan = directory.scan()
    assert (list(scan.entries), scan.problems, scan.complete) == ([str(path)], (), True)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_what_belongs_to_somebody_else_says_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "a", 1)
    os.chown(path, NOBODY, -1)
    (tmp_path / "elsewhere").mkdir(mode=0o777)
    (tmp_path / "elsewhere").chmod(0o777)
    link = tmp_path / "b.yaml"
    link.symlink_to(write(tmp_path / "elsewhere" / "b", "b", 2))
    peers = peer_directory(tmp_path).scan()
    remedies = {problem.file: problem.remedy for problem in peers.problems}
    assert f"chown root {path}" in remedies[str(path)]
    assert remedies[str(link)] == f"run: chmod go-w {tmp_path / 'elsewhere'}"


def test_a_linked_file_counts(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "peers.d").mkdir()
    target = write(tmp_path / "elsewhere" / "x", "linked", 1)
    (tmp_path / "peers.d" / "a.yaml").symlink_to(target)
    scan = peer_directory(tmp_path / "peers.d").scan()
    assert [peer.name for peer in scan.entries.values()] == ["linked"]


def test_only_what_changed_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    for number in range(1, 51):
        write(tmp_path / f"h{number}.yaml", f"h{number}", number)
    settle(tmp_path)
    directory = peer_directory(tmp_path)
    assert len(directory.scan().entries) == len(reads) == 50
    # A file's ctime cannot be set back: until it is old enough, its stamp is not relied on.
    deadline = time.monotonic() + 5
    while reads and time.monotonic() < deadline:
        reads.clear()
        directory.scan()
    assert reads == []
    write(tmp_path / "h7.yaml", "h7", 77)
    (tmp_path / "h9.yaml").unlink()
    write(tmp_path / "h51.yaml", "h51", 51)
    scan = directory.scan()
    assert sorted(reads) == ["h51.yaml", "h7.yaml"]
    assert str(scan.entries[str(tmp_path / "h7.yaml")].addresses[0]) == "203.0.113.77"
    assert len(scan.entries) == 50
    assert str(tmp_path / "h9.yaml") not in scan.entries


def test_a_look_reads_the_files_named_and_no_other(tmp_path: Path, reads: list[str]) -> None:
    for number in range(1, 4):
        write(tmp_path / f"h{number}.yaml", f"h{number}", number)
    directory = peer_directory(tmp_path)
    directory.scan()
    reads.clear()
    write(tmp_path / "h1.yaml", "h1", 101)
    write(tmp_path / "h2.yaml", "h2", 102)
    (tmp_path / "h3.yaml").unlink()
    outside = write(tmp_path.parent / "outside.yaml", "outside", 9)
    scan = directory.look([tmp_path / "h1.yaml", tmp_path / "h3.yaml", tmp_path / ".h.yaml", outside])
    assert reads == ["h1.yaml", "h3.yaml"]
    assert {Path(path).name: str(peer.addresses[0]) for path, peer in scan.entries.items()} == {
        "h1.yaml": "203.0.113.101",
        "h2.yaml": "203.0.113.2",
    }


def test_a_change_within_the_clocks_tick_is_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    directory = peer_directory(tmp_path)
    for last in range(10, 60):  # same size, same inode, and most of them the same time stamp
        write(path, "a", last)
        assert str(directory.scan().entries[str(path)].addresses[0]) == f"203.0.113.{last}"


def test_a_file_that_breaks_and_is_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "a", 1)
    directory = peer_directory(tmp_path)
    directory.scan()
    path.write_text("name: [")
    scan = directory.scan()
    assert not scan.entries
    assert scan.unreadable == {str(path)}
    write(path, "a", 2)
    scan = directory.scan()
    assert (list(scan.entries), scan.problems, scan.unreadable) == ([str(path)], (), frozenset())


@pytest.mark.parametrize("way", ["scan", "look"])
def test_a_directory_that_is_gone_says_nothing_about_its_peers(tmp_path: Path, way: str) -> None:
    path = tmp_path / "peers.d"
    path.mkdir()
    file = write(path / "a.yaml", "a", 1)
    directory = peer_directory(path)
    directory.scan()
    path.rename(tmp_path / "away")
    scan = directory.scan() if way == "scan" else directory.look([file])
    assert not scan.complete
    assert list(scan.entries) == [str(file)]
    assert [(problem.file, problem.remedy) for problem in scan.problems] == [
        (str(path), "create it or correct the path")
    ]
    (tmp_path / "away").rename(path)
    scan = directory.scan()
    assert scan.complete
    assert scan.problems == ()


@pytest.mark.parametrize("kind", ["file", "loop"])
def test_what_is_no_directory_is_a_problem_and_not_an_empty_mesh(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "peers.d"
    if kind == "file":
        path.touch()
    else:
        path.symlink_to(path)
    scan = peer_directory(path).scan()
    assert not scan.complete
    assert re.search(r"peers\.d: cannot be read: .*; correct", str(scan.problems[0]))


def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    with open_directory() as folder:
        closed = folder / "closed.d"
        closed.mkdir(mode=0o700)
        os.chown(closed, os.geteuid(), -1)
        (folder / "peers.d").mkdir()
        write(folder / "peers.d" / "a.yaml", "a", 1).chmod(0)
        if os.geteuid() != 0:
            closed.chmod(0)
        code = """
            import sys
            from pathlib import Path
            from swanmesh.config.entry_files import peer_directory
            for path in sys.argv[1:]:
                scan = peer_directory(Path(path)).scan()
                print(scan.complete, len(scan.unreadable), *scan.problems)
        """
        first, second = run_python(code, closed, folder / "peers.d", user=NOBODY).splitlines()
    assert first.startswith("False 0 ")
    assert second.startswith("True 1 ")
    for line in (first, second):
        assert line.endswith("cannot be read: permission denied; let the service's user read it")
