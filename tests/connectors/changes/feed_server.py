"""A source that keeps a log of changes and answers *what since*, by a token of its own; it forgets old tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.connectors.rest.sources import replied, serve


@dataclass
class Book:
    """Contacts and the log of what happened to them. Tokens older than ``remembered`` entries are answered with 410."""

    names: dict[int, str] = field(default_factory=dict)
    log: list[int] = field(default_factory=list)
    page_size: int = 2
    remembered: int = 1000
    bare_keys: bool = False
    gives_token: bool = True
    meddle: Callable[[web.Request], int | None] = lambda _request: None
    asked: list[dict[str, str]] = field(default_factory=list)

    def put(self, number: int, name: str) -> None:
        self.names[number] = name
        self.log.append(number)

    def delete(self, number: int) -> None:
        del self.names[number]
        self.log.append(number)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        status = self.meddle(request)
        if status is not None:
            return replied({"error": "told to"}, status=status)
        page = request.query.get("page", "")
        since = request.query.get("since", "")
        if since and int(since) < len(self.log) - self.remembered:
            return replied({"error": "token too old"}, status=410)
        if since:
            return self._changes(int(since), page)
        return self._all(page)

    def _all(self, page: str) -> web.Response:
        """The whole book, by number; its token is of the moment of its first page."""
        began, after = (int(part) for part in page.split("-")) if page else (len(self.log), 0)
        numbers = [number for number in sorted(self.names) if number > after]
        shown = numbers[: self.page_size]
        further = f"{began}-{shown[-1]}" if len(numbers) > len(shown) else None
        return self._reply([(number, self.names[number]) for number in shown], [], further, began)

    def _changes(self, since: int, page: str) -> web.Response:
        """What has changed after entry ``since``; several changes of one contact within a page are one."""
        start = int(page) if page else since
        end = min(start + self.page_size, len(self.log))
        numbers = list(dict.fromkeys(self.log[start:end]))
        there = [(number, self.names[number]) for number in numbers if number in self.names]
        gone = [number for number in numbers if number not in self.names]
        return self._reply(there, gone, str(end) if end < len(self.log) else None, end)

    def _reply(self, there: list[tuple[int, str]], gone: list[int], page: str | None, token: int) -> web.Response:
        return replied({
            "contacts": [{"id": number, "name": name} for number, name in there],
            "gone": gone if self.bare_keys else [{"id": number} for number in gone],
            "next": page,
            "token": str(token) if page is None and self.gives_token else None,
        })  # fmt: skip


@asynccontextmanager
async def serving(book: Book) -> AsyncIterator[str]:
    """Yield the base address of ``book``."""
    async with serve(book.answer) as url:
        yield url


DECLARATION = """
name: book
base_url: {url}
streams:
  contacts:
    path: /contacts
    records: contacts
    pager: {{type: cursor, param: page, token: next}}
    changes: {{param: since, token: token, removed: gone}}
    columns: {{id: bigint, name: text, deleted: boolean}}
"""
