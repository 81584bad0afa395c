"""The engine's test world with a webhook in the place of its table, and a sender beside the worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import asyncpg

from tests.destinations.webhook.receiver import SECRET, Receiver, receiving
from tests.engine.world import World, open_world
from tidegate import bootstrap
from tidegate.engine.sender import Sender
from tidegate.store import directory

T = TypeVar("T")


@dataclass
class Sending:
    """A world whose installations deliver to a destination that is sent to."""

    world: World
    receiver: Receiver

    @property
    def pool(self) -> asyncpg.Pool[asyncpg.Record]:
        return self.world.pool

    async def configure(
        self, kind: str, settings: Mapping[str, Any], secrets: Mapping[str, str], name: str = "table"
    ) -> None:
        """Make the destination of all installations so."""
        sealer = self.world.parts.sealer
        await self.pool.execute(
            "update destinations set kind = $1, settings = $2::text::jsonb, sealed = $3, fingerprint = $4 where name = $5",
            kind,
            json.dumps(settings),
            sealer.seal(secrets, directory.destination_place(name)),
            sealer.fingerprint(settings, secrets),
            name,
        )

    async def install(self, tenant: str = "acme", secrets: str = SECRET, **settings: Any) -> int:
        """Install a sync of orders into the receiver and return its chain."""
        chain = await self.world.install(tenant)
        await self.configure("webhook", {"url": self.receiver.url, **settings}, {"signing_secrets": secrets})
        return chain

    async def send(self) -> None:
        """Let a sender do all that is due to be sent now, and end what waited for it."""
        sender = Sender(self.world.parts, on_end=lambda: None)
        now = self.world.clock.now
        while await self.pool.fetchval("select count(*) from routes where not_before_at <= $1", now()):
            before = await self.pool.fetch("select id, epoch from routes order by id")
            await sender.step(now())
            await sender.idle()
            if before == await self.pool.fetch("select id, epoch from routes order by id"):
                break
        await sender.step(now())
        await sender.close()

    async def die_at(self, point: str, nth: int = 1) -> None:
        """Let a sender work until it dies at a signal: what it holds it neither settles nor gives back."""
        calm, passed = self.world.parts, []

        def die(name: str) -> None:
            passed.append(name)
            if passed.count(point) == nth and name == point:
                raise asyncio.CancelledError

        sender = Sender(replace(calm, signal=die), on_end=lambda: None)
        await sender.step(self.world.clock.now())
        await sender.idle()
        assert passed.count(point) == nth, f"{point} was not passed {nth} times: {passed}"

    async def tick(self) -> None:
        """Plan, fetch and send everything that is due now."""
        for _ in range(2):  # what a run's end lets start, too
            await self.world.tick()
            await self.send()

    async def outbox(self) -> list[asyncpg.Record]:
        """Return the outbox in order."""
        return await self.pool.fetch("select * from outbox order by route_id, position")


@asynccontextmanager
async def open_sending(dsn: str, **settings: Any) -> AsyncGenerator[Sending]:
    """Yield such a world on the database at ``dsn``."""
    async with open_world(dsn, **settings) as world, receiving(world.clock.now) as receiver:
        parts = world.parts
        world.parts = replace(
            parts,
            open_destination=partial(
                bootstrap.open_destination,
                parts.pool,
                parts.session,
                parts.clock,
            ),
        )
        yield Sending(world, receiver)


def in_sending(dsn: str, story: Callable[[Sending], Awaitable[T]], **settings: Any) -> T:
    """Run ``story`` in a fresh world and return what it returns."""

    async def run() -> T:
        async with open_sending(dsn, **settings) as sending:
            return await story(sending)

    return asyncio.run(run())
