"""Revocation lists for the core: from files, from URLs, and from the last time.

The last good list of each authority lies in the service's own folder: neither a restart nor a URL that is
down brings back who was revoked. One that was held back lies there too: a restart is no confirmation.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from swanmesh.config.sections import Config
from swanmesh.core.credentials.revocation import RevocationList, Revocations
from swanmesh.core.model import InvalidInput, Problem, Settings
from swanmesh.files.read import read_trusted
from swanmesh.files.write import Change, NotWritten, make_folder, write_whole
from swanmesh.pki.revocation import LIMIT, read_lists

if TYPE_CHECKING:
    import aiohttp

_KEY = "credentials.crls"
_FOLDER = "crls"
_IN_FORCE, _HELD = ".crl", ".held.crl"
"""How the names of files end that hold the last good lists, and those that are held back."""
_FETCH_TIME = 30.0
"""Seconds that an answer may take as a whole."""
_REDIRECTS = 3
_FIRST_RETRY = 15.0
_TURN = 5.0
"""Seconds between two looks at which URL is due, at most."""
_READ_AGAIN = 16
"""Contents whose lists are kept read."""


@dataclass(slots=True)
class _Url:
    """What is known of one URL. Times on the loop's clock."""

    data: bytes | None = None
    etag: str = ""
    modified: str = ""
    problem: Problem | None = None
    failures: int = 0
    due: float = 0.0


@dataclass(slots=True)
class RevocationSource:
    """Gathers the lists that `swanmesh.yaml` names."""

    config: Callable[[], Config]
    settings: Callable[[], Settings]
    wall: Callable[[], float]
    changed: Callable[[], None]
    """Called when a URL brought something else."""
    problems: tuple[Problem, ...] = ()
    """What was not taken, and why."""
    _urls: dict[str, _Url] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _kept: dict[str, str] = field(default_factory=dict)
    """Fingerprints by the names of the files that were written or read."""
    _unkept: Problem | None = None
    _read: dict[tuple[bytes, tuple[bytes, ...]], list[RevocationList]] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether there is anything to gather."""
        return bool(self.config().credentials.crls)

    def gather(self) -> tuple[list[RevocationList], dict[str, bool]]:
        """All lists that can be had now, the last good ones among them; and of those that were kept, by
        fingerprint, whether they were in force."""
        problems: list[Problem] = []
        found: list[RevocationList] = []
        before: dict[str, bool] = {}
        if self.known:
            for path in self._stored():
                lists = self._lists(lambda path=path: read_trusted(path, LIMIT), str(path), None)  # type: ignore[misc]
                found += lists
                for one in lists:
                    before[one.fingerprint] = not path.name.endswith(_HELD)
                    self._kept[path.name] = one.fingerprint
        for index, source in enumerate(self.config().credentials.crls):
            found += self._of(source, f"{_KEY}[{index}]", problems)
        self.problems = tuple(problems)
        self._wake.set()
        # The same list may lie in several places; where it came from is what people know.
        return [*{one.fingerprint: one for one in found}.values()], before

    def _of(self, source: Path | str, key: str, problems: list[Problem]) -> list[RevocationList]:
        if isinstance(source, Path):
            return self._lists(lambda: read_trusted(source, LIMIT, key=key), str(source), problems, key)
        url = self._urls.setdefault(source, _Url())
        if url.problem is not None:
            problems.append(url.problem)
        data = url.data
        return [] if data is None else self._lists(lambda: data, source, problems, key)

    def _lists(
        self, read: Callable[[], bytes], source: str, problems: list[Problem] | None, key: str = ""
    ) -> list[RevocationList]:
        authorities = self.settings().credentials.authorities
        try:
            data = read()
            known = self._read.get((data, authorities))
            if known is not None:
                return known
            lists = read_lists(data, source, authorities, now=self.wall(), key=key)
        except InvalidInput as invalid:
            if problems is not None:
                problems.extend(invalid.problems)
            return []
        self._read[data, authorities] = lists
        if len(self._read) > _READ_AGAIN:
            del self._read[next(iter(self._read))]
        return lists

    def older(self, lists: Iterable[RevocationList], revocations: Revocations) -> None:
        """Tell of those that go back behind what is in force."""
        stored = str(self._folder)
        for one in lists:
            known = revocations.in_force.get(one.issuer)
            if known is not None and one.order < known.order and not one.source.startswith(stored):
                message = f"is older than what is in force ({known}): it is passed over"
                remedy = "put the authority's newest list there"
                self.problems += (Problem(one.source, "", f"list {one.number}", message, remedy),)

    # What outlives the service.

    @property
    def _folder(self) -> Path:
        return self.config().state / _FOLDER

    def _stored(self) -> list[Path]:
        try:
            return sorted(path for path in self._folder.iterdir() if path.name.endswith(_IN_FORCE))
        except OSError:
            return []

    def keep(self, revocations: Revocations) -> None:
        """Write down what is in force and what is held, where that changed."""
        wanted = {f"{issuer}{_IN_FORCE}": one for issuer, one in revocations.in_force.items()}
        wanted |= {f"{issuer}{_HELD}": one for issuer, one in revocations.held.items()}
        changes = [
            Change(path=self._folder / name, content=one.der)
            for name, one in wanted.items()
            if self._kept.get(name) != one.fingerprint
        ]
        gone = [path for path in self._stored() if path.name not in wanted]
        changes += [Change(path=path, content=None) for path in gone]
        if not changes:
            return
        try:
            for folder in (self._folder.parent, self._folder):
                make_folder(folder, 0o700)
            write_whole(changes)
        except NotWritten as error:
            message = f"revocation lists do not outlive the service: {error}"
            self._unkept = Problem(str(self._folder), "state", "", message, "see to that folder")
        else:
            self._unkept = None
            self._kept = {name: one.fingerprint for name, one in wanted.items()}

    @property
    def unkept(self) -> tuple[Problem, ...]:
        """Why the lists in force would not outlive the service."""
        return (self._unkept,) if self._unkept is not None else ()

    # What is fetched.

    async def run(self) -> None:
        """Fetch what URLs have, again and again. A URL that is down is told, and no more."""
        while True:
            self._wake.clear()
            if urls := [one for one in self.config().credentials.crls if isinstance(one, str)]:
                await self._fetch_due(urls)
            wait = self._until_due(urls)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _until_due(self, urls: Iterable[str]) -> float | None:
        now = asyncio.get_running_loop().time()
        waits = [self._urls[url].due - now for url in urls if url in self._urls]
        return max(0.1, min(waits)) if waits else None

    async def _fetch_due(self, urls: Iterable[str]) -> None:
        import aiohttp  # noqa: PLC0415 - of use only to who fetches

        now = asyncio.get_running_loop().time()
        due = [url for url in urls if self._urls.setdefault(url, _Url()).due <= now]
        if not due:
            return
        timeout = aiohttp.ClientTimeout(total=_FETCH_TIME)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            news = await asyncio.gather(*(self._fetch(session, url) for url in due))
        if any(news):
            self.changed()

    async def _fetch(self, session: aiohttp.ClientSession, name: str) -> bool:
        """Returns whether anything changed: its content, or what is wrong with it."""
        import aiohttp  # noqa: PLC0415

        url, refresh = self._urls[name], self.config().credentials.crl_refresh
        before = (url.data, url.problem)
        asked = dict(_conditions(url))
        try:
            async with session.get(name, headers=asked, max_redirects=_REDIRECTS) as answer:
                if answer.status != 304:
                    answer.raise_for_status()
                    data = await _bounded(answer)
                    read_lists(data, name, self.settings().credentials.authorities, now=self.wall(), key=_KEY)
                    url.data = data
                    url.etag = answer.headers.get("ETag", "")
                    url.modified = answer.headers.get("Last-Modified", "")
            url.problem, url.failures, wait = None, 0, refresh
        except InvalidInput as invalid:
            url.problem, wait = invalid.problems[0], self._later(url, refresh)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            message = f"cannot be fetched: {_words(error)}; the last good list stays in force"
            url.problem = Problem(name, _KEY, "", message, "see to it that this host reaches it")
            wait = self._later(url, refresh)
        # Hosts that started together must not go on asking together.
        spread = 0.9 + 0.2 * random.random()  # noqa: S311
        url.due = asyncio.get_running_loop().time() + wait * spread
        return (url.data, url.problem) != before

    @staticmethod
    def _later(url: _Url, refresh: float) -> float:
        url.failures += 1
        return float(min(refresh, _FIRST_RETRY * 2 ** min(url.failures - 1, 20)))


def _conditions(url: _Url) -> Iterator[tuple[str, str]]:
    if url.data is not None and url.etag:
        yield "If-None-Match", url.etag
    if url.data is not None and url.modified:
        yield "If-Modified-Since", url.modified


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    data = b""
    async for part in answer.content.iter_chunked(1 << 16):
        data += part
        if len(data) > LIMIT:
            message = f"is larger than {LIMIT >> 20} MiB"
            raise InvalidInput(
                Problem(str(answer.url), _KEY, "", message, "give the authority's current list")
            )
    return data


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_FETCH_TIME:g} s"
    return str(error) or type(error).__name__
