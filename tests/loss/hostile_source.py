"""A platform that behaves as badly as real ones do: an HTTP server on localhost, in simulated time, from one seed.

Before each reply time passes and records are created, edited and deleted; and some replies are not what they should be.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from hashlib import blake2b
from random import Random

from aiohttp import web

from tests.loss.dialects import Dialect, Ends, Names, Order
from tests.loss.history import History, Version, key
from tests.simulated import SimulatedClock

SOON_OVER = (
    "429", "429 with Retry-After", "500", "503 with Retry-After", "no reply", "reset mid-body", "truncated JSON",
    "HTML with 200", "empty body",
)  # fmt: skip
"""Faults that pass when the request is repeated."""
OF_TOKENS = ("repeated page token", "empty middle page", "short page")
BROKEN = ("invalid JSON", "another shape")
"""Faults that end the run: its period stays uncovered and is inside the next one (HOLE d)."""


@dataclass
class Temper:
    """How hostile the source is. ``faults``, ``changes``: chances per request. ``slowest``: seconds per request."""

    faults: float = 0.0
    changes: float = 0.0
    slowest: float = 0.0
    circle: bool = False

    def calm(self) -> None:
        """Stop being hostile."""
        self.faults = self.changes = 0.0
        self.circle = False


@dataclass
class HostileSource:
    """The server's state. ``faults``: how many of which kind. ``most_requests``: where a listing without end is stopped.

    ``before_reply`` is called with each request's number.
    """

    dialect: Dialect
    history: History
    clock: SimulatedClock
    random: Random
    temper: Temper
    page_size: int
    most_requests: int = 2000
    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    before_reply: Callable[[int], None] = lambda _number: None

    def calm(self) -> None:
        """Change nothing and break nothing from now on. A source that grew faster than it was read can be read now."""
        if not self.temper.circle:
            self.most_requests += self.requests
        self.temper.calm()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request for a page."""
        self.requests += 1
        if self.requests > self.most_requests:
            return self._reply(400, b"ran on for ever")
        self.clock.advance(seconds=self.temper.slowest * self.random.random() ** 3)
        while self.random.random() < self.temper.changes:
            self.history.happen(self.clock.now())
        self.before_reply(self.requests)
        return await self._respond(request, self._fault(bool(request.query.get("after"))))

    def _fault(self, going_on: bool) -> str:
        if self.temper.circle and going_on:
            return "repeated page token"
        if self.random.random() >= self.temper.faults:
            return ""
        kinds = [*SOON_OVER, *SOON_OVER, *(OF_TOKENS if self.dialect.has_token else ()), self.random.choice(BROKEN)]
        fault = self.random.choice(kinds)
        return "" if fault == "repeated page token" and not going_on else fault

    async def _respond(self, request: web.Request, fault: str) -> web.StreamResponse:
        if fault:
            self.faults[fault] += 1
        match fault:
            case "429":
                return self._reply(429, b"slow down")
            case "429 with Retry-After":
                return self._reply(429, b"slow down", {"Retry-After": str(self.random.choice((1, 30, 600)))})
            case "500":
                return self._reply(500, b"sorry")
            case "503 with Retry-After":
                until = self.history.source_time(self.clock.now()) + timedelta(seconds=45)
                return self._reply(503, b"maintenance", {"Retry-After": format_datetime(until, usegmt=True)})
            case "no reply":
                return self._cut(request)
            case "HTML with 200":
                return self._reply(200, b"<!doctype html><title>Maintenance</title>")
            case "empty body":
                return self._reply(200, b"")
            case "invalid JSON":
                return self._reply(200, b'{"data": [{"id": 1,,}]}')
            case "another shape":
                return self._reply(200, b'{"data": {"message": "try the new version"}}')
        versions, envelope, headers = self._page(request, fault)
        body = self._body(versions, envelope)
        if fault == "reset mid-body":
            return await self._half(request, body)
        if fault == "truncated JSON":
            return self._reply(200, body[: len(body) * 2 // 3], headers)
        return self._reply(200, body, headers)

    def _body(self, versions: list[Version], envelope: dict[str, object]) -> bytes:
        records = ",".join(version.text(self.dialect) for version in versions)
        return f'{{"data": [{records}], {json.dumps(envelope)[1:]}'.encode()

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
        response = web.Response(status=status, body=body, headers=headers)
        self._date(response)
        return response

    def _date(self, response: web.StreamResponse) -> None:
        at = self.history.source_time(self.clock.now()).replace(microsecond=0)
        response.headers["Date"] = format_datetime(at, usegmt=True) if self.dialect.sends_date else "none"

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    async def _half(self, request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(body)), "Content-Type": "application/json"})
        self._date(response)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        return self._cut(request)

    def _page(self, request: web.Request, fault: str) -> tuple[list[Version], dict[str, object], dict[str, str]]:
        listed = self._listed(request)
        start = self._start(request, listed)
        size = {"empty middle page": 0, "short page": max(1, self.page_size // 2)}.get(fault, self.page_size)
        if self.dialect.pager == "none":
            size = len(listed)
        shown = listed[start : start + size]
        more = start + size < len(listed)
        envelope: dict[str, object] = {"next": None}
        headers: dict[str, str] = {}
        if self.dialect.ends is Ends.MORE:
            envelope["more"] = more
        if self.dialect.ends is Ends.TOTAL:
            envelope |= {"pages": -(-len(listed) // self.page_size), "total": len(listed)}
        if self.dialect.ends is Ends.HEADER:
            headers["X-Pages"] = str(-(-len(listed) // self.page_size))
        if more and self.dialect.names_next:
            token = request.query.get("after", "") if fault == "repeated page token" else self._token(request, shown)
            envelope["next"] = {"token": token}
            if self.dialect.pager == "link":
                link = request.rel_url.update_query(after=token)
                headers["Link"] = f'<{link}>; rel="next"'
        return shown, envelope, headers

    def _listed(self, request: web.Request) -> list[Version]:
        """What the request's filters leave, in the source's order, as things stand now."""
        dialect = self.dialect
        versions = list(self.history.latest(self.clock.now()))
        since, until = request.query.get("since"), request.query.get("until")
        if since is not None:
            from_ = dialect.bound(since)
            strict = dialect.meaning == "exclusive"
            versions = [v for v in versions if self._at(v) > from_ or (self._at(v) == from_ and not strict)]
        if until is not None:
            to = dialect.bound(until)
            strict = dialect.meaning == "exclusive"
            versions = [v for v in versions if self._at(v) < to or (self._at(v) == to and not strict)]
        if dialect.shuffles:
            versions.sort(key=lambda version: self._shuffled(version, request))
            return sorted(versions, key=self._at, reverse=dialect.order is Order.NEWEST_CHANGE)
        return sorted(versions, key=self._position, reverse=dialect.order is Order.NEWEST_CHANGE)

    def _at(self, version: Version) -> datetime:
        return self.dialect.compared(version.changed_at if self.dialect.changes else version.created_at)

    def _position(self, version: Version) -> tuple[str, int]:
        return "" if self.dialect.order is Order.ID else self._at(version).isoformat(), version.id

    def _shuffled(self, version: Version, request: web.Request) -> bytes:
        """The record's place among those of one cursor value: it depends on the page asked for, and on nothing else."""
        page = request.query.get("page") or request.query.get("offset") or request.query.get("after")
        return blake2b(f"{version.id} {page}".encode(), digest_size=4).digest()

    def _start(self, request: web.Request, listed: list[Version]) -> int:
        """The place in ``listed`` at which the requested page starts."""
        after = request.query.get("after")
        match self.dialect.pager:
            case "page":
                return (int(request.query["page"]) - 1) * self.page_size
            case "offset":
                return int(request.query["offset"])
            case "last_id" if after is not None:
                return sum(str(key(version.id, self.dialect)) <= after if self.dialect.text_keys
                           else version.id <= int(after) for version in listed)  # fmt: skip
            case "cursor" | "link" if self.dialect.names is not None:
                return self._named(self.dialect.names, after, listed)
            case "cursor" | "link" if after is not None:
                _, at, number = json.loads(after)
                reached = (at, number)
                if self.dialect.order is Order.NEWEST_CHANGE:
                    return sum(self._position(version) >= reached for version in listed)
                return sum(self._position(version) <= reached for version in listed)
        return 0

    def _named(self, names: Names, after: str | None, listed: list[Version]) -> int:
        match names:
            case Names.PAGES:
                return (int(after or 1) - 1) * self.page_size
            case Names.OFFSETS:
                return int(after or 0)
            case Names.KEYS:
                return sum(version.id <= int(after or 0) for version in listed)

    def _token(self, request: web.Request, shown: list[Version]) -> str:
        """What the dialect names, or opaque: the last record's place, and a number that makes each token another one."""
        match self.dialect.names:
            case Names.PAGES:
                return str(int(request.query.get("after", 1)) + 1)
            case Names.OFFSETS:
                return str(int(request.query.get("after", 0)) + len(shown))
            case Names.KEYS:
                return str(shown[-1].id)
        if shown:
            return json.dumps([self.requests, *self._position(shown[-1])])
        before = request.query.get("after")
        if before is not None:
            return json.dumps([self.requests, *json.loads(before)[1:]])
        newest = self.dialect.order is Order.NEWEST_CHANGE
        return json.dumps([self.requests, "9999" if newest else "", 0])


@asynccontextmanager
async def serve(source: HostileSource) -> AsyncIterator[str]:
    """Serve ``source`` on localhost and yield its base address."""
    app = web.Application()
    app.router.add_get("/orders", source.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)
