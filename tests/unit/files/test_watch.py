"""The watch tells each change to a file that matters, whatever way it is made, and none of any other."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swanmesh.files import watch as watch_module
from swanmesh.files.watch import LONGEST, Changes, Watch
from tests.unit.config.elsewhere import run_python

_PATIENCE = 10.0


class Told:
    """Gathers what a watch tells."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.all: list[Changes] = []
        self._news = asyncio.Event()

    async def gather(self) -> None:
        async for changes in self.watch.changes():
            self.all.append(changes)
            self._news.set()

    @property
    def names(self) -> set[str]:
        return {path.name for changes in self.all for path in changes.paths}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def names_are(self, *names: str) -> None:
        """Exactly these files, and not everything, have been told of since the last time."""
        await self.until(lambda: self.names >= set(names))
        assert self.names == set(names)
        assert not any(changes.everything for changes in self.all)
        self.all.clear()

    async def everything(self) -> None:
        await self.until(lambda: any(changes.everything for changes in self.all))
        self.all.clear()


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[Told]:
    watch = Watch([folder / "peers.d"], [folder / "swanmesh.yaml", folder / "pki" / "web1.key"])
    watch.open()
    told = Told(watch)
    task = asyncio.create_task(told.gather())
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        watch.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "peers.d").mkdir()
    (tmp_path / "pki").mkdir()
    return tmp_path


def run(folder: Path, steps: Callable[[Path, Told], Awaitable[None]]) -> None:
    async def main() -> None:
        async with watching(folder) as told:
            await steps(folder, told)

    asyncio.run(main())


def test_each_way_of_changing_a_peer_file(folder: Path) -> None:
    async def steps(folder: Path, told: Told) -> None:
        peers = folder / "peers.d"
        assert told.watch.degraded == ""
        (peers / "a.yaml").write_text("x")
        await told.names_are("a.yaml")
        with (peers / "a.yaml").open("a") as file:
            file.write("y")
        await told.names_are("a.yaml")
        (peers / ".swanmesh-1.tmp").write_text("z")
        (peers / ".swanmesh-1.tmp").replace(peers / "a.yaml")
        await told.names_are("a.yaml")
        (peers / "a.yaml").chmod(0)
        await told.names_are("a.yaml")
        (peers / "a.yaml").rename(peers / "b.yaml")
        await told.names_are("a.yaml", "b.yaml")
        (peers / "c.yaml").symlink_to("/nowhere")
        await told.names_are("c.yaml")
        os.link(peers / "b.yaml", peers / "d.yaml")
        await told.names_are("d.yaml")
        (peers / "b.yaml").unlink()
        (peers / ".b.yaml.swp").write_text("x")
        (folder / "pki" / "other.key").write_text("x")
        await told.names_are("b.yaml")

    run(folder, steps)


def test_the_configuration_and_the_credentials(folder: Path) -> None:
    async def steps(folder: Path, told: Told) -> None:
        (folder / "swanmesh.yaml").write_text("x")
        await told.names_are("swanmesh.yaml")
        (folder / "pki" / "web1.key").write_text("x")
        (folder / "other.yaml").write_text("x")
        await told.names_are("web1.key")

    run(folder, steps)


def test_a_file_is_not_told_of_while_it_is_still_empty(folder: Path) -> None:
    async def steps(folder: Path, told: Told) -> None:
        with (folder / "peers.d" / "slow.yaml").open("w") as file:
            (folder / "peers.d" / "other.yaml").write_text("x")
            await told.names_are("other.yaml")
            file.write("x")
        await told.names_are("slow.yaml")

    run(folder, steps)


def test_a_burst_is_told_at_once(folder: Path) -> None:
    async def steps(folder: Path, told: Told) -> None:
        for number in range(300):
            (folder / "peers.d" / f"h{number}.yaml").write_text("x")
        await told.until(lambda: len(told.names) == 300)
        assert len(told.all) == 1

    run(folder, steps)


def test_a_burst_that_does_not_end_is_told_in_parts(folder: Path) -> None:
    async def steps(folder: Path, told: Told) -> None:
        async def write_on() -> None:
            for number in range(10_000):
                (folder / "peers.d" / f"h{number % 50}.yaml").write_text("x")
                await asyncio.sleep(watch_module.QUIET / 10)

        begun = asyncio.get_running_loop().time()
        writing = asyncio.create_task(write_on())
        await told.until(lambda: len(told.all) >= 3)
        assert not writing.done()
        assert asyncio.get_running_loop().time() - begun < 3 * LONGEST + 2
        writing.cancel()

    run(folder, steps)


def test_a_folder_removed_and_made_anew(folder: Path) -> None:
    async def steps(folder: Path, told: Told) -> None:
        shutil.rmtree(folder / "peers.d")
        await told.everything()
        (folder / "peers.d").mkdir()
        await told.everything()
        (folder / "peers.d" / "a.yaml").write_text("x")
        await told.names_are("a.yaml")

    run(folder, steps)


def test_a_folder_replaced_by_another(folder: Path) -> None:
    async def steps(folder: Path, told: Told) -> None:
        (folder / "new.d").mkdir()
        (folder / "peers.d").rename(folder / "old.d")
        (folder / "new.d").rename(folder / "peers.d")
        await told.everything()
        (folder / "peers.d" / "a.yaml").write_text("x")
        (folder / "old.d" / "b.yaml").write_text("x")
        await told.names_are("a.yaml")

    run(folder, steps)


def test_a_folder_above_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "etc"

    def make() -> None:
        for path in (folder / "peers.d", folder / "pki"):
            path.mkdir(parents=True)

    def replace() -> None:
        folder.rename(tmp_path / "old")
        make()

    make()

    async def steps(folder: Path, told: Told) -> None:
        replace()
        await told.everything()
        await told.until(lambda: all(one.identity == one.look() for one in told.watch._folders.values()))
        told.all.clear()
        (folder / "peers.d" / "a.yaml").write_text("x")
        await told.until(lambda: "a.yaml" in told.names)

    run(folder, steps)


def test_a_folder_that_comes_later(tmp_path: Path) -> None:
    async def steps(folder: Path, told: Told) -> None:
        (folder / "peers.d").mkdir()
        await told.everything()
        (folder / "peers.d" / "a.yaml").write_text("x")
        await told.names_are("a.yaml")

    run(tmp_path, steps)


def test_a_volume_exchanged_by_a_link_that_its_files_lead_through(folder: Path) -> None:
    peers = folder / "peers.d"
    for version in ("..1", "..2"):
        (peers / version).mkdir()
        (peers / version / "a.yaml").write_text(version)
    (peers / "..data").symlink_to("..1")
    (peers / "a.yaml").symlink_to("..data/a.yaml")

    async def steps(folder: Path, told: Told) -> None:
        (peers / "..tmp").symlink_to("..2")
        (peers / "..tmp").replace(peers / "..data")
        await told.everything()

    run(folder, steps)


def test_two_paths_to_one_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "peers.d").symlink_to("real")

    async def main() -> None:
        watch = Watch([tmp_path / "peers.d"], [tmp_path / "real" / "swanmesh.key"])
        watch.open()
        told = Told(watch)
        task = asyncio.create_task(told.gather())
        (tmp_path / "real" / "swanmesh.key").write_text("x")
        (tmp_path / "real" / "a.yaml").write_text("x")
        await told.names_are("swanmesh.key", "a.yaml")
        assert told.watch.degraded == ""
        task.cancel()
        watch.close()

    asyncio.run(main())


def test_changes_lost_by_the_kernel_are_known_to_be_lost(folder: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"{limit} events fit into the kernel's queue")
    path = folder / "peers.d" / "a.yaml"
    other = folder / "peers.d" / "b.yaml"
    path.write_text("x")
    other.write_text("x")

    async def steps(folder: Path, told: Told) -> None:
        # Two files in turn: the kernel joins equal events that follow each other.
        for number in range(limit + 10):
            os.utime(path if number % 2 else other)
        await told.everything()
        path.unlink()
        await told.until(lambda: "a.yaml" in told.names)

    run(folder, steps)


_WITHOUT_WATCHES = """
    import asyncio, sys
    from pathlib import Path
    from tests.unit.files.test_watch import run

    async def steps(folder, told):
        print(told.watch.degraded)
        peers = folder / "peers.d"
        (peers / "a.yaml").write_text("x")
        await told.names_are("a.yaml")
        (peers / "a.yaml").write_text("yy")
        (peers / "b.yaml").symlink_to("/nowhere")
        await told.until(lambda: told.names == {"a.yaml", "b.yaml"})
        told.all.clear()
        (peers / "a.yaml").unlink()
        (folder / "swanmesh.yaml").write_text("x")
        await told.until(lambda: told.names == {"a.yaml", "swanmesh.yaml"})
        peers.rename(folder / "away")
        await told.everything()
        (folder / "away").rename(peers)
        await told.everything()

    run(Path(sys.argv[1]), steps)
"""


@pytest.mark.parametrize(
    ("limit", "reason"),
    [("max_inotify_watches", "no space left on device"), ("max_inotify_instances", "too many open files")],
)
def test_without_watches_left_the_files_are_compared(folder: Path, limit: str, reason: str) -> None:
    output = run_python(_WITHOUT_WATCHES, folder, before=f"echo 0 > /proc/sys/user/{limit}")
    assert f"inotify: {reason}; raise fs.inotify.max_user_" in output
