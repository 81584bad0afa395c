"""A small world for engine tests: a real database, simulated time, a fake shop, and the engine's own steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

import aiohttp
import asyncpg

from tests.engine.doubles import FakeShop, TableDestination
from tests.simulated import SimulatedClock
from tidegate.domain.capacity import RateLimit
from tidegate.domain.run import RunState, may_follow
from tidegate.domain.schedule import next_due, start_instant
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.parts import Parts
from tidegate.engine.planner import plan_due
from tidegate.engine.settings import Settings
from tidegate.engine.worker import Worker
from tidegate.store import chains, database, directory, schedules
from tidegate.store.directory import StoredConnection, StoredDestination
from tidegate.store.seal import Sealer

DAILY = {"daily": True, "time_zone": "Etc/UTC", "start_date": "2026-05-01"}
T = TypeVar("T")


@dataclass
class World:
    """Everything an engine test needs; ``parts`` may be replaced to change settings or signals."""

    parts: Parts
    clock: SimulatedClock
    shop: FakeShop

    @property
    def pool(self) -> asyncpg.Pool[asyncpg.Record]:
        return self.parts.pool

    async def install(
        self,
        tenant: str = "acme",
        rule: Mapping[str, Any] = DAILY,
        stream: str = "orders",
        *,
        account: str = "",
        limit: int = 4,
        own_limit: int | None = None,
        rate: RateLimit | None = None,
    ) -> int:
        """Set up a tenant with one installation of one stream and return its chain's id."""
        now = self.clock.now()
        schedule = parse_schedule(dict(rule)).started(now)
        sealed = self.parts.sealer.seal({}, directory.connection_place(tenant, "shop"))
        async with self.pool.acquire() as connection, connection.transaction():
            await directory.put_tenant(connection, tenant, tenant.title(), now)
            await directory.put_connection(
                connection,
                StoredConnection(
                    0,
                    tenant,
                    "shop",
                    "fake",
                    account or f"{tenant}.example",
                    limit,
                    {},
                    sealed,
                    "f",
                    None,
                    "",
                    rate_limit=rate,
                    own_concurrency_limit=own_limit,
                ),
            )
            await directory.put_destination(
                connection,
                StoredDestination(
                    0, "table", "table", {}, self.parts.sealer.seal({}, directory.destination_place("table")), "f"
                ),
            )
            installation_id, account_id = await directory.put_installation(connection, tenant, "sync", "shop", "table")
            chain_id, _ = await chains.ensure(
                connection, tenant, installation_id, "sync", stream, account_id, start_instant(schedule)
            )
            await schedules.put(connection, chain_id, schedule.as_json(), now, next_due(schedule, now))
        return chain_id

    async def tick(self) -> None:
        """Plan what is due, and dispatch and execute until nothing more can start now."""
        while await plan_due(self.parts, self.clock.now()) + await dispatch_ready(self.parts, self.clock.now()):
            await self.work()

    async def work(self) -> None:
        """Execute everything that is queued, as one worker."""
        worker = Worker(self.parts, on_end=lambda: None)
        queued = await self.pool.fetch("select id from runs where state = 'queued' order by id")
        await asyncio.gather(*(worker.handle(row["id"]) for row in queued))

    async def runs(self, chain_id: int | None = None) -> list[asyncpg.Record]:
        """Return the runs, oldest first."""
        return await self.pool.fetch(
            "select * from runs where $1::bigint is null or chain_id = $1 order by period_end, id", chain_id
        )

    async def covered(self, chain_id: int) -> list[tuple[datetime, datetime]]:
        """Return the chain's periods."""
        return [(link.period.start, link.period.end) for link in await chains.links(self.pool, chain_id)]

    async def delivered(self, tenant: str = "acme") -> dict[int, str]:
        """Return the delivered rows' cursor values by id."""
        rows = await self.pool.fetch("select id, updated_at from delivered_rows where tenant_id = $1", tenant)
        return {row["id"]: row["updated_at"] for row in rows}

    def with_settings(self, **changes: Any) -> None:
        """Change engine settings."""
        self.parts = replace(self.parts, settings=replace(self.parts.settings, **changes))


@asynccontextmanager
async def open_world(dsn: str, **settings: Any) -> AsyncGenerator[World]:
    """Yield a world on the database at ``dsn``."""
    clock = SimulatedClock()
    shop = FakeShop(clock)
    pool = await database.open_pool(dsn, size=12)
    await TableDestination.create(pool)
    await pool.execute(_WATCH)

    async def open_table(_stored: StoredDestination, _secrets: dict[str, str]) -> TableDestination:
        return TableDestination(pool)

    async with aiohttp.ClientSession() as session:
        parts = Parts(
            pool=pool,
            clock=clock,
            session=session,
            sealer=Sealer(bytes(32)),
            connector=lambda _name: shop,
            open_destination=open_table,
            chance=lambda: 0.5,
            worker="test",
            settings=Settings(**settings),
        )
        yield World(parts, clock, shop)
    await _require_legal_transitions(pool)
    await pool.close()


_WATCH = """
create table if not exists transitions (before text, after text, primary key (before, after));
create or replace function watch_transitions() returns trigger language plpgsql as $$
begin
    insert into transitions values (old.state, new.state) on conflict do nothing;
    return null;
end $$;
create or replace trigger watch after update of state on runs for each row when (old.state <> new.state)
    execute function watch_transitions();
"""


async def _require_legal_transitions(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    """Every story of the engine holds the one table of transitions (domain.run) against what SQL really did."""
    seen = [(row["before"], row["after"]) for row in await pool.fetch("select before, after from transitions")]
    illegal = [(before, after) for before, after in seen if not may_follow(RunState(before), RunState(after))]
    assert not illegal, f"not in domain.run.TRANSITIONS: {illegal}"


def in_world(dsn: str, story: Callable[[World], Awaitable[T]], **settings: Any) -> T:
    """Run ``story`` in a fresh world and return what it returns."""

    async def run() -> T:
        async with open_world(dsn, **settings) as world:
            return await story(world)

    return asyncio.run(run())
