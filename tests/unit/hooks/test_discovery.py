"""Which files of hooks.d are run, refused and passed over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swanmesh.files.trust import distrust
from swanmesh.hooks.discovery import Found, find_hooks, is_hook_name
from tests.unit.config.elsewhere import NOBODY, open_directory, run_python
from tests.unit.hooks.hooking import write_hook

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "hooks.d"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user can enter."""
    with open_directory() as path:
        yield path


def names(found: Found) -> list[str]:
    return [path.name for path in found.hooks]


@pytest.mark.parametrize("name", ["10-mail", "chat", "mail.sh", "Z", "hook.dpkg", "disabled", "a b"])
def test_names_of_hooks(name: str) -> None:
    assert is_hook_name(name)


@pytest.mark.parametrize(
    "name",
    [
        ".hidden",
        "mail~",
        "mail.disabled",
        "mail.dpkg-old",
        "mail.dpkg-new",
        "mail.dpkg-dist",
        "mail.ucf-dist",
        "mail.rpmsave",
        "mail.new",
        "mail.bak",
        "#mail#",
        ".mail.swp",
    ],
)
def test_names_that_are_left_out(name: str) -> None:
    assert not is_hook_name(name)


def test_order_is_that_of_the_names_bytes(directory: Path) -> None:
    for name in ("b", "10-x", "2-x", "B", "a", "ä"):
        write_hook(directory / name, "exit 0")
    assert names(find_hooks(directory)) == ["10-x", "2-x", "B", "a", "b", "ä"]


def test_what_is_not_executable_is_passed_over(directory: Path) -> None:
    write_hook(directory / "README", "exit 0", mode=0o644)
    (directory / "folder").mkdir()
    os.mkfifo(directory / "pipe", 0o700)
    found = find_hooks(directory)
    assert (found.hooks, found.refused) == ((), {})
    assert "chmod +x" in found.skipped[directory / "README"]
    assert found.skipped[directory / "pipe"] == found.skipped[directory / "folder"] == "is not a regular file"


def test_no_directory_means_no_hooks(tmp_path: Path) -> None:
    assert find_hooks(tmp_path / "nowhere") == Found()


def test_a_file_in_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "hooks.d").write_text("")
    found = find_hooks(tmp_path / "hooks.d")
    assert "not a directory" in found.refused[tmp_path / "hooks.d"]


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_hook_that_others_may_write_is_refused(directory: Path, mode: int) -> None:
    bad = write_hook(directory / "bad", "exit 0", mode=mode)
    write_hook(directory / "good", "exit 0")
    found = find_hooks(directory)
    assert names(found) == ["good"]
    assert f"mode {mode:04o}" in found.refused[bad]
    assert f"chmod go-w {bad}" in found.refused[bad]


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777])
def test_nothing_is_run_from_a_directory_that_others_may_write(directory: Path, mode: int) -> None:
    write_hook(directory / "good", "exit 0")
    directory.chmod(mode)
    found = find_hooks(directory)
    assert found.hooks == ()
    assert list(found.refused) == [directory]
    assert f"chmod go-w {directory}" in found.refused[directory]


def test_nor_if_a_folder_above_may_be_exchanged(tmp_path: Path) -> None:
    above = tmp_path / "etc"
    above.mkdir()
    write_hook(above / "hooks.d" / "good", "exit 0")
    above.chmod(0o777)
    assert find_hooks(above / "hooks.d").hooks == ()
    # Sticky: others may put files there, but exchange none of ours.
    above.chmod(0o1777)
    assert names(find_hooks(above / "hooks.d")) == ["good"]


@AS_ROOT
def test_files_of_other_users_are_refused(directory: Path) -> None:
    theirs = write_hook(directory / "theirs", "exit 0")
    os.chown(theirs, NOBODY, NOBODY)
    found = find_hooks(directory)
    assert found.hooks == ()
    assert f"belongs to user {NOBODY}" in found.refused[theirs]
    os.chown(directory, NOBODY, NOBODY)
    assert list(find_hooks(directory).refused) == [directory]


@AS_ROOT
def test_the_services_own_files_are_run(shared: Path) -> None:
    """A service that is not root runs its own hooks and root's, and nobody else's."""
    for name, owner in (("mine", NOBODY), ("roots", 0), ("theirs", 4242)):
        os.chown(write_hook(shared / "hooks.d" / name, "exit 0"), owner, owner)
    code = """
        import sys, pathlib
        from swanmesh.hooks.discovery import find_hooks
        found = find_hooks(pathlib.Path(sys.argv[1]))
        print([path.name for path in found.hooks], [path.name for path in found.refused])
    """
    assert run_python(code, shared / "hooks.d", user=NOBODY) == "['mine', 'roots'] ['theirs']\n"


def test_links_are_followed_and_judged_by_where_they_lead(directory: Path, tmp_path: Path) -> None:
    place = tmp_path / "lib"
    target = write_hook(place / "target", "exit 0")
    (directory / "absolute").symlink_to(target)
    (directory / "relative").symlink_to("../lib/target")
    (tmp_path / "twice").symlink_to("lib")
    (directory / "through").symlink_to("../twice/../twice/target")
    assert names(find_hooks(directory)) == ["absolute", "relative", "through"]
    target.chmod(0o775)
    assert len(find_hooks(directory).refused) == 3
    target.chmod(0o755)
    place.chmod(0o777)
    found = find_hooks(directory)
    assert found.hooks == ()
    assert all(str(place) in reason for reason in found.refused.values())


def test_links_to_nowhere_and_in_circles_are_told(directory: Path) -> None:
    (directory / "nowhere").symlink_to("/nonexistent/hook")
    (directory / "circle").symlink_to("circle")
    found = find_hooks(directory)
    assert "leads to nowhere" in found.refused[directory / "nowhere"]
    assert "leads back to itself" in found.refused[directory / "circle"]


@AS_ROOT
def test_a_link_that_another_user_may_turn_is_distrusted(tmp_path: Path) -> None:
    """In a sticky folder others cannot exchange what is ours, but everything of their own."""
    target = write_hook(tmp_path / "target", "exit 0")
    link = tmp_path / "link"
    link.symlink_to(target)
    assert distrust(link) == ""
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    assert f"{link} belongs to user {NOBODY}" in distrust(link)


def test_distrust_of_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        distrust(tmp_path / "nothing")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="symbolic links"):
        distrust(tmp_path / "circle")
