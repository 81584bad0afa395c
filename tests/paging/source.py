"""The connector on a source in memory: a stand-in for the HTTP session, and nothing else, lies below the code under test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import TypeVar, cast

import aiohttp
import msgspec
from yarl import URL

from tests.paging.dialects import CLOCK, START, Dialect, Headers, Reply, body, headers
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.rest.connector import RestConnector
from tidegate.connectors.rest.loader import load
from tidegate.domain.fetch import FetchRequest, Page

Answer = Callable[[Mapping[str, object]], Reply]
T = TypeVar("T")


class StandingClock:
    """A clock that stands still: then what a fetch does depends on the replies and on nothing else."""

    def now(self) -> datetime:
        """The same instant, always."""
        return CLOCK

    async def sleep(self, seconds: float) -> None:
        """Nobody sleeps here."""
        raise AssertionError("slept")


class _Content:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def at_eof(self) -> bool:
        return not self._content

    async def readany(self) -> bytes:
        content, self._content = self._content, b""
        return content


class _Response:
    def __init__(self, status: int, headers: Headers, content: bytes) -> None:
        self.status, self.headers, self.content = status, headers, _Content(content)

    async def __aenter__(self) -> _Response:
        return self

    async def __aexit__(self, *_error: object) -> None:
        return None


class Session:
    """Stands in for the HTTP session: each request is answered by ``answer``."""

    def __init__(self, dialect: Dialect) -> None:
        self._cursor = dialect.cursor
        self.answer: Answer

    def request(self, method: str, url: str | URL, **sent: object) -> _Response:
        """Answer a request, given as a mapping of its parameters."""
        query = (
            msgspec.json.decode(cast(bytes, sent["data"]), type=dict[str, object])
            if method == "POST"
            else URL(url).query
        )
        reply = self.answer(query)
        return _Response(reply.status, headers(reply.said), body(reply, cursor=self._cursor))


class Opened:
    """A dialect's source, opened."""

    def __init__(self, dialect: Dialect, size: int) -> None:
        self.dialect, self.size = dialect, size
        self._session = Session(dialect)
        session = cast(aiohttp.ClientSession, self._session)
        self._source = RestConnector(load(dialect.yaml(size))).open(ConnectionSettings(), session, StandingClock())

    def fetch(self, answer: Answer) -> list[Page]:
        """All pages of one fetch; raises what it, or ``answer``, raises. Nothing waits, so no loop is needed."""
        self._session.answer = answer
        lower = START if self.dialect.cursor else None
        return _run(self._source.fetch(FetchRequest("orders", lower, None, CLOCK)))


def _run(pages: AsyncIterator[Page]) -> list[Page]:
    found: list[Page] = []
    while True:
        try:
            anext(pages).__await__().send(None)
        except StopIteration as stopped:
            found.append(stopped.value)
        except StopAsyncIteration:
            return found
        else:
            raise AssertionError("a fetch waited for something")
