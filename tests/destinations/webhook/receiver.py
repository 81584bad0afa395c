"""A real HTTP server that receives webhooks, verifies each with the official verifier, and answers as it is told."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from unittest import mock

from aiohttp import web
from standardwebhooks.webhooks import Webhook

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLDER_SECRET = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


def verify(secret: str, body: bytes, headers: dict[str, str], now: datetime) -> Any:
    """Return what the official verifier makes of a request that arrives at ``now``. Raises what it raises."""
    with mock.patch("standardwebhooks.webhooks.datetime", mock.Mock(wraps=datetime)) as clock:
        clock.now = now.astimezone
        return Webhook(secret).verify(body, headers)


@dataclass(frozen=True)
class Received:
    """One request that arrived and was verified."""

    id: str
    at: datetime
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        """Return what the body says."""
        data: dict[str, Any] = json.loads(self.body)["data"]
        return data


Reply = tuple[int, dict[str, str], str]


@dataclass
class Receiver:
    """``answer`` says, given the number of the request from 1, what becomes of it; 0 cuts the connection."""

    now: Callable[[], datetime]
    answer: Callable[[int], Reply] = lambda _number: (204, {}, "")
    secret: str = SECRET
    received: list[Received] = field(default_factory=list)
    url: str = ""
    stall: asyncio.Event | None = None
    delay: Callable[[], float] = lambda: 0.0

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name: request.headers[name] for name in HEADERS}
        verify(self.secret, body, headers, self.now())
        await asyncio.sleep(self.delay())
        if self.stall is not None:
            await self.stall.wait()
        status, more, text = self.answer(len(self.received) + 1)
        every = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(headers["webhook-id"], self.now(), status, every, body))
        if status == 0:
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=status or 500, headers=more, text=text)

    @property
    def taken(self) -> list[Received]:
        """Return the requests that were acknowledged, each id once, in the order of their first acknowledgement."""
        first: dict[str, Received] = {}
        for one in self.received:
            if 200 <= one.status < 300:
                first.setdefault(one.id, one)
        return list(first.values())

    def records(self) -> list[dict[str, Any]]:
        """Return the records taken, in order."""
        return [entry["record"] for one in self.taken for entry in one.data["records"]]


@asynccontextmanager
async def receiving(now: Callable[[], datetime]) -> AsyncGenerator[Receiver]:
    """Yield a receiver that listens on localhost."""
    receiver = Receiver(now)
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_post("/{tail:.*}", receiver.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"http://127.0.0.1:{port}/hooks/tidegate"
    yield receiver
    await runner.cleanup()
