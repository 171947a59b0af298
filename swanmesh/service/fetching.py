"""Revocation lists from URLs: asked for again and again. One that is down is told, and no more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from swanmesh.config.sections import Config
from swanmesh.core.model import InvalidInput, Problem, Settings
from swanmesh.pki.revocation import LIMIT, read_lists

if TYPE_CHECKING:
    import aiohttp

KEY = "credentials.crls"
_FETCH_TIME = 30.0
"""Seconds that an answer may take as a whole."""
_REDIRECTS = 3
_FIRST_RETRY = 15.0


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
class Fetching:
    """Has what the URLs that `swanmesh.yaml` names answered last."""

    config: Callable[[], Config]
    settings: Callable[[], Settings]
    wall: Callable[[], float]
    changed: Callable[[], None]
    """Called when a URL brought something else."""
    _urls: dict[str, _Url] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, url: str) -> tuple[bytes | None, Problem | None]:
        """What it brought last, and what is wrong with it."""
        found = self._urls.setdefault(url, _Url())
        return found.data, found.problem

    def look(self) -> None:
        """The URLs may be others now."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
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
                    read_lists(data, name, self.settings().credentials.authorities, now=self.wall(), key=KEY)
                    url.data = data
                    url.etag = answer.headers.get("ETag", "")
                    url.modified = answer.headers.get("Last-Modified", "")
            url.problem, url.failures, wait = None, 0, refresh
        except InvalidInput as invalid:
            url.problem, wait = invalid.problems[0], self._later(url, refresh)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            message = f"cannot be fetched: {_words(error)}; the last good list stays in force"
            url.problem = Problem(name, KEY, "", message, "see to it that this host reaches it")
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
                Problem(str(answer.url), KEY, "", message, "give the authority's current list")
            )
    return data


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_FETCH_TIME:g} s"
    return str(error) or type(error).__name__
