"""Sources that misbehave on purpose, on a local server each, and a clock that sleeps by moving on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
from aiohttp import web

from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.rest.connector import RestConnector, RestSource
from tidegate.connectors.rest.loader import load
from tidegate.domain.fetch import FetchRequest, Page, PageToken

NOW = datetime(2026, 7, 13, 16, tzinfo=UTC)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Record = dict[str, object]


class LeapingClock:
    """Whoever sleeps on it moves it on at once; ``slept`` keeps what was asked for."""

    def __init__(self, now: datetime = NOW) -> None:
        self._now = now
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += timedelta(seconds=seconds)


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[str]:
    """Answer every request with ``handler``; yields the base address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def declaration(stream: str, top: str = "") -> str:
    """A declaration with one stream ``orders`` whose body is the indented YAML ``stream``."""
    return (
        f"name: hostile\nbase_url: '{{settings.url}}'\nsettings: {{url: null}}\n{top}\nstreams:\n  orders:\n{stream}\n"
    )


@asynccontextmanager
async def opened(
    handler: Handler, yaml: str, *, secrets: Mapping[str, str] | None = None, clock: LeapingClock | None = None
) -> AsyncIterator[RestSource]:
    """The source that ``yaml`` declares, served by ``handler``."""
    async with serve(handler) as url, open_session(allow_private_addresses=True) as session:
        connection = ConnectionSettings({"url": url}, secrets or {})
        yield RestConnector(load(yaml)).open(connection, session, clock or LeapingClock())


def asked(
    lower: datetime | None = None,
    upper: datetime | None = None,
    *,
    stop_after: datetime = NOW,
    resume: PageToken | None = None,
) -> FetchRequest:
    return FetchRequest("orders", lower, upper, stop_after, resume)


async def read(source: RestSource, request: FetchRequest | None = None) -> list[Page]:
    return [page async for page in source.fetch(request or asked())]


async def fetched(
    handler: Handler,
    yaml: str,
    request: FetchRequest | None = None,
    *,
    secrets: Mapping[str, str] | None = None,
    clock: LeapingClock | None = None,
) -> list[Page]:
    """All pages of one fetch."""
    async with opened(handler, yaml, secrets=secrets, clock=clock) as source:
        return await read(source, request)


def ids(pages: list[Page]) -> list[object]:
    """The ids of the records on ``pages``, in order, repeated ones too."""
    return [record["id"] for page in pages for record in msgspec.json.decode(page.records, type=list[Record])]


def replied(document: object, headers: Mapping[str, str] | None = None, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document), content_type="application/json", headers=headers, status=status
    )
