"""peers.d as it is written: whole or not at all, all or none, one writer at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swanmesh.config.documents import parse_document
from swanmesh.config.edit import PeerEditor, file_name, peer_text
from swanmesh.config.entry_files import peer_directory, peer_from_document, read_peer
from swanmesh.core.model import InvalidInput, Peer
from swanmesh.core.peers.description import parse_peer
from swanmesh.core.settings.policy import Policy
from swanmesh.files import lock
from swanmesh.files.write import NotWritten
from tests.unit.config.editing import remove_peers, write_peer, write_peers
from tests.unit.config.elsewhere import NOBODY, REPOSITORY, open_directory, run_python

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
NAMES = st.builds(lambda labels: ".".join([*labels, "example"]), st.lists(LABEL, min_size=1, max_size=4))
ADDRESSES = st.lists(
    st.integers(1, 254).map(lambda n: f"203.0.113.{n}")
    | st.integers(1, 0xFFFF).map(lambda n: f"2001:db8::{n:x}"),
    min_size=1,
    max_size=4,
    unique=True,
)
POLICIES = st.sampled_from([None, "require", "prefer", "off"])


def peer(name: str, last: int, policy: str | None = None) -> Peer:
    return parse_peer(name, [f"203.0.113.{last}"], policy, source="")


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@given(NAMES, ADDRESSES, POLICIES)
def test_what_is_written_reads_as_what_was_meant(name: str, addresses: list[str], policy: str | None) -> None:
    meant = parse_peer(name, addresses, policy, source="x")
    assert peer_from_document(parse_document(peer_text(meant).decode(), "x"), "x") == meant


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(ADDRESSES, POLICIES)
def test_written_twice_is_no_change(tmp_path: Path, addresses: list[str], policy: str | None) -> None:
    first = write_peer(tmp_path, "a.example", addresses, policy)
    second = write_peer(tmp_path, "a.example", addresses, policy)
    assert first.changed
    assert not second.changed
    assert read_peer(first.path) == second.peer
    first.path.unlink()


def test_a_new_peer_gets_a_file_of_its_name(tmp_path: Path) -> None:
    written = write_peer(tmp_path / "peers.d", "Web12.Mesh.Example", ["203.0.113.12", "2001:db8::c"])
    assert written.path == tmp_path / "peers.d" / "web12.mesh.example.yaml"
    assert (written.created, written.changed, written.previous) == (True, True, None)
    assert written.path.read_text() == "name: web12.mesh.example\naddresses: [203.0.113.12, '2001:db8::c']\n"
    assert written.path.stat().st_mode & 0o777 == 0o644
    assert list(contents(tmp_path / "peers.d")) == ["web12.mesh.example.yaml"]


def test_the_same_peer_leaves_the_file_as_somebody_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# ours\nname: A\naddresses:\n  - '203.0.113.1'\n")
    before = path.stat()
    assert not write_peer(tmp_path, "a", ["203.0.113.1"]).changed
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_an_update_keeps_the_policy_that_it_does_not_name(tmp_path: Path) -> None:
    write_peer(tmp_path, "a", ["203.0.113.1"], "prefer")
    written = write_peer(tmp_path, "a", ["203.0.113.2"])
    assert (written.created, written.changed) == (False, True)
    assert read_peer(written.path).policy is Policy.PREFER
    assert write_peer(tmp_path, "a", ["203.0.113.2"], "require").changed


def test_a_peer_is_updated_where_it_stands(tmp_path: Path) -> None:
    rack = tmp_path / "rack1.yaml"
    rack.write_text("name: Web1.mesh.example\naddresses: [203.0.113.1]\n")
    (tmp_path / "mentions.yaml").write_text("name: x\naddresses: [203.0.113.9] # not web1.mesh.example\n")
    assert write_peer(tmp_path, "web1.mesh.example", ["203.0.113.2"]).path == rack
    assert sorted(contents(tmp_path)) == ["mentions.yaml", "rack1.yaml"]
    assert remove_peers(tmp_path, ["WEB1.mesh.example"]) == [rack]
    assert sorted(contents(tmp_path)) == ["mentions.yaml"]


def test_a_name_spelled_with_escapes_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text('name: "w\\x65b1"\naddresses: [203.0.113.1]\n')
    assert remove_peers(tmp_path, ["web1"]) == [tmp_path / "x.yaml"]


def test_a_file_in_the_way_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: b\naddresses: [203.0.113.1]\n")
    before = contents(tmp_path)
    with pytest.raises(InvalidInput, match=r"holds the peer b; rename it to b\.yaml"):
        write_peer(tmp_path, "a", ["203.0.113.2"])
    (tmp_path / "a.yaml").write_text("name: [")
    with pytest.raises(InvalidInput, match=r"a\.yaml"):
        remove_peers(tmp_path, ["a"])
    assert contents(tmp_path) == {**before, "a.yaml": b"name: ["}


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", "..", "", ".", "a\0b", "a" * 64, "ä"])
def test_a_name_never_becomes_a_path_unchecked(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "peers.d"
    directory.mkdir()
    with pytest.raises(InvalidInput):
        write_peer(directory, name, ["203.0.113.1"])
    assert contents(directory) == {}


def test_the_longest_names_have_files_and_each_its_own(tmp_path: Path) -> None:
    names = [".".join(["a" * 63] * 3 + ["b" * 57 + end]) for end in ("aaaa", "bbbb")]
    assert len({file_name(name) for name in names}) == 2
    for last, name in enumerate(names, 1):
        assert write_peer(tmp_path, name, [f"203.0.113.{last}"]).created
        assert not write_peer(tmp_path, name, [f"203.0.113.{last}"]).changed
    assert {one.name for one in peer_directory(tmp_path).scan().entries.values()} == set(names)


def test_many_are_written_at_once(tmp_path: Path) -> None:
    write_peer(tmp_path, "h1", ["203.0.113.1"])
    written = write_peers(tmp_path, [peer(f"h{n}", n) for n in range(1, 40)])
    assert [one.created for one in written] == [False] + [True] * 38
    assert len(peer_directory(tmp_path).scan().entries) == 39


def test_a_name_given_twice_is_refused_whole(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is given twice"):
        write_peers(tmp_path, [peer("a", 1), peer("b", 2), peer("a", 3)])
    assert contents(tmp_path) == {}


def test_unknown_peers_are_removed_all_or_none(tmp_path: Path) -> None:
    write_peers(tmp_path, [peer("a", 1), peer("b", 2)])
    with pytest.raises(InvalidInput, match="there is no such peer") as caught:
        remove_peers(tmp_path, ["a", "x", "b", "y"])
    assert [problem.value for problem in caught.value.problems] == ["x", "y"]
    assert sorted(contents(tmp_path)) == ["a.yaml", "b.yaml"]
    remove_peers(tmp_path, ["a", "b"])
    assert contents(tmp_path) == {}


def test_what_was_written_can_be_put_back(tmp_path: Path) -> None:
    write_peers(tmp_path, [peer("a", 1), peer("b", 2)])
    before = contents(tmp_path)
    with PeerEditor(tmp_path) as editor:
        written = editor.write([peer("a", 11), peer("b", 2), peer("c", 3)])
        assert contents(tmp_path) != before
        editor.restore(written)
    assert contents(tmp_path) == before


def test_a_link_is_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "peers.d").mkdir()
    target = tmp_path / "target"
    target.write_text("name: a\naddresses: [203.0.113.1]\n")
    link = tmp_path / "peers.d" / "a.yaml"
    link.symlink_to(target)
    assert not write_peer(tmp_path / "peers.d", "a", ["203.0.113.1"]).changed
    with pytest.raises(InvalidInput, match=rf"a\.yaml: is a symbolic link; change {target}, or put a file"):
        write_peer(tmp_path / "peers.d", "a", ["203.0.113.2"])
    assert "203.0.113.1" in target.read_text()
    remove_peers(tmp_path / "peers.d", ["a"])
    assert target.exists() and not link.is_symlink()


def test_a_link_to_nowhere_is_not_taken_for_free_room(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=r"a\.yaml"):
        write_peer(tmp_path, "a", ["203.0.113.2"])
    assert not (tmp_path / "nowhere").exists()


def test_nothing_is_written_where_others_could_change_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(InvalidInput, match=f"run: chmod go-w {tmp_path}"):
        write_peer(tmp_path, "a", ["203.0.113.2"])
    assert contents(tmp_path) == {}


def test_addresses_that_a_peer_loses_are_told(tmp_path: Path) -> None:
    assert write_peer(tmp_path, "a", ["203.0.113.1", "203.0.113.2", "2001:db8::1"]).dropped == ()
    written = write_peer(tmp_path, "a", ["2001:db8:0::1", "203.0.113.3"])
    assert [str(address) for address in written.dropped] == ["203.0.113.1", "203.0.113.2"]


def test_left_overs_of_a_killed_writer_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".swanmesh-1-0.tmp").write_text("half")
    (tmp_path / ".keep").write_text("")
    write_peer(tmp_path, "a", ["203.0.113.1"])
    assert sorted(contents(tmp_path)) == [".keep", "a.yaml"]


def test_the_umask_does_not_hide_peers_from_others(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        assert write_peer(tmp_path, "a", ["203.0.113.1"]).path.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(old)


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from swanmesh.core.peers.description import parse_peer
        from swanmesh.files.write import NotWritten
        from tests.unit.config.editing import write_peer, write_peers
        directory = Path(sys.argv[1])
        write_peer(directory, "a", ["203.0.113.1"])
        before = (directory / "a.yaml").read_bytes()
        free = os.statvfs(directory).f_bavail * os.statvfs(directory).f_bsize

        def attempt(act):
            try:
                act()
            except NotWritten as error:
                print(error)
            else:
                print("written")
            names = sorted(path.name for path in directory.iterdir())
            assert names == ["a.yaml", "filler"], names
            assert (directory / "a.yaml").read_bytes() == before

        # Room for two more small files, of a page each: the third of four fails.
        (directory / "filler").write_bytes(bytes(free - 2 * 4096))
        attempt(lambda: write_peers(directory, [parse_peer(n, [f"203.0.113.{i}"], source="")
                                                for i, n in enumerate("abcd", 10)]))
        with open(directory / "filler", "ab") as file:
            file.write(bytes(2 * 4096))
        attempt(lambda: write_peer(directory, "a", ["203.0.113.2"]))
        attempt(lambda: write_peer(directory, "b", ["203.0.113.2"]))
        (directory / "filler").unlink()
        print(write_peer(directory, "a", ["203.0.113.2"]).changed)
    """
    output = run_python(
        code, tmp_path, before=f"mount -t tmpfs -o size=64k,mode=755 tmpfs {tmp_path}"
    ).splitlines()
    assert output[3] == "True"
    for line, name in zip(output[:3], ("c.yaml", "a.yaml", "b.yaml"), strict=True):
        assert name in line
        assert "no space left on device; free some space" in line
        assert "nothing was changed" in line


def test_a_failure_among_the_renames_puts_everything_back(tmp_path: Path) -> None:
    write_peers(tmp_path, [peer("b", 1), peer("c", 2)])
    before = contents(tmp_path)
    code = """
        import sys
        from pathlib import Path
        from swanmesh.core.peers.description import parse_peer
        from swanmesh.files.write import NotWritten
        from tests.unit.config.editing import write_peers
        try:
            write_peers(Path(sys.argv[1]), [parse_peer(n, [f"203.0.113.{i}"], source="")
                                            for i, n in enumerate("abcd", 10)])
        except NotWritten as error:
            print(error)
    """
    mounted = tmp_path / "c.yaml"  # what is mounted on can be written to, but not renamed over
    assert "c.yaml: not written" in run_python(code, tmp_path, before=f"mount --bind {mounted} {mounted}")
    assert contents(tmp_path) == before


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from swanmesh.files.write import NotWritten
        from tests.unit.config.editing import write_peer
        try:
            write_peer(Path(sys.argv[1]), "a", ["203.0.113.1"])
        except NotWritten as error:
            print(error)
    """
    before = f"mount -t tmpfs -o mode=755 tmpfs {tmp_path}; mount -o remount,ro {tmp_path}"
    assert "read-only file system; mount that file system writable" in run_python(
        code, tmp_path, before=before
    )


def test_no_permission_is_told_with_who_may() -> None:
    code = """
        import sys
        from pathlib import Path
        from swanmesh.files.write import NotWritten
        from tests.unit.config.editing import remove_peers, write_peer
        directory = Path(sys.argv[1])
        for act in (lambda: write_peer(directory, "b", ["203.0.113.2"]),
                    lambda: write_peer(directory, "a", ["203.0.113.2"]),
                    lambda: remove_peers(directory, ["a"])):
            try:
                act()
            except NotWritten as error:
                print(error)
    """
    with open_directory() as directory:
        write_peer(directory, "a", ["203.0.113.1"])
        before = contents(directory)
        if os.geteuid() != 0:
            directory.chmod(0o555)
        lines = run_python(code, directory, user=NOBODY).splitlines()
        assert contents(directory) == before
        directory.chmod(0o755)
    assert len(lines) == 3
    assert all("; run it as root or as the owner of the directory" in line for line in lines)


def test_a_directory_that_is_not_there_is_made_only_for_writing(tmp_path: Path) -> None:
    with pytest.raises(NotWritten, match="create the directory first"):
        remove_peers(tmp_path / "peers.d", ["a"])
    with pytest.raises(NotWritten, match="create the directory first"):
        write_peer(tmp_path / "no" / "peers.d", "a", ["203.0.113.1"])
    assert contents(tmp_path) == {}


def test_two_writers_follow_each_other(tmp_path: Path) -> None:
    """Two processes count up one peer's address: with none of them locked out, no step is lost."""
    write_peer(tmp_path, "a", ["203.0.113.1"])
    code = """
import sys
from pathlib import Path
from ipaddress import ip_address
from swanmesh.core.model import Peer
from swanmesh.config.edit import PeerEditor
from swanmesh.config.entry_files import read_peer
for _ in range(30):
    with PeerEditor(Path(sys.argv[1])) as editor:
        old = read_peer(Path(sys.argv[1]) / "a.yaml")
        editor.write([Peer(name="a", addresses=(old.addresses[0] + 1,))])
"""
    argv = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    writers = [subprocess.Popen(argv, env=environment) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert str(read_peer(tmp_path / "a.yaml").addresses[0]) == "203.0.113.61"
    assert list(contents(tmp_path)) == ["a.yaml"]


def test_a_writer_that_does_not_end_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "TIMEOUT", 0.05)
    with PeerEditor(tmp_path), pytest.raises(NotWritten, match="another command is writing there"):
        write_peer(tmp_path, "a", ["203.0.113.1"])
    assert write_peer(tmp_path, "a", ["203.0.113.1"]).created
