"""Migrations beside processes that work: locks are asked for briefly, indexes are built online, old revisions step aside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.engine.world import World, in_world
from tests.store.rows import connected
from tidegate.domain.errors import DestinationUnavailable, InvalidInput
from tidegate.engine.engine import Engine
from tidegate.store import database, schema

ADDED = [("9001_added", "alter table runs add column extra int;")]
ONLINE = [("9002_online", schema.OUTSIDE + "create index concurrently if not exists late on runs (due_at);\n")]


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Migrations of a revision to come; append to it to know them here."""
    known = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: known)
    monkeypatch.setattr(schema, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(schema, "PAUSE_SECONDS", 0.05)
    return known


@asynccontextmanager
async def pool_at(dsn: str) -> AsyncGenerator[asyncpg.Pool[asyncpg.Record]]:
    pool = await database.open_pool(dsn, size=4)
    try:
        yield pool
    finally:
        await pool.close()


def test_a_long_transaction_holds_up_the_migration_and_nobody_else(
    database_url: str, newer: list[tuple[str, str]]
) -> None:
    """A migration that waits for a table makes all who come after wait behind it: so it waits briefly, again and again."""

    async def story() -> None:
        newer.extend(ADDED)
        async with pool_at(database_url) as pool, connected(database_url) as reader, connected(database_url) as worker:
            async with reader.transaction():
                await reader.execute("select count(*) from tidegate.runs")
                migrating = asyncio.create_task(schema.migrate(pool))
                for _ in range(3):
                    while not await worker.fetchval("select exists (select from pg_locks where not granted)"):
                        await asyncio.sleep(0.01)
                    await worker.execute("update tidegate.runs set attempt = 0", timeout=2)  # never behind it for long
                    assert not migrating.done()
            assert await asyncio.wait_for(migrating, 10) == ["9001_added"]

    asyncio.run(story())


def test_a_migration_gives_up_in_the_end_and_leaves_nothing(
    database_url: str, newer: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to look for; the next start tries again."""
    monkeypatch.setattr(schema, "TRIES", 2)

    async def story() -> None:
        newer.extend(ADDED)
        async with pool_at(database_url) as pool, connected(database_url) as reader:
            async with reader.transaction():
                await reader.execute("select count(*) from tidegate.runs")
                with pytest.raises(DestinationUnavailable, match="9001_added found its tables taken 2 times"):
                    await schema.migrate(pool)
            assert await schema.migrate(pool) == ["9001_added"]

    asyncio.run(story())


def test_an_index_is_built_beside_open_transactions_and_other_starters(
    database_url: str, newer: list[tuple[str, str]]
) -> None:
    """Building waits for every statement that runs, so whoever waits for his turn to migrate must not sit in one."""

    async def story() -> None:
        newer.extend(ONLINE)
        async with pool_at(database_url) as pool, connected(database_url) as writer:
            writing = writer.transaction()
            await writing.start()
            await writer.execute("update tidegate.runs set attempt = 0")
            both = [asyncio.create_task(schema.migrate(pool)) for _ in range(2)]
            async with connected(database_url) as other:
                while not await other.fetchval("select to_regclass('tidegate.late') is not null"):
                    await asyncio.sleep(0.01)
                await other.execute("update tidegate.runs set attempt = 1", timeout=2)
            await writing.commit()
            assert sorted(await asyncio.wait_for(asyncio.gather(*both), 20)) == [[], ["9002_online"]]

    asyncio.run(story())


def test_an_index_that_a_crash_left_half_built_is_built_anew(database_url: str, newer: list[tuple[str, str]]) -> None:
    """`if not exists` alone would keep the useless one."""

    async def story() -> None:
        newer.extend(ONLINE)
        async with pool_at(database_url) as pool, connected(database_url) as writer, connected(database_url) as builder:
            async with writer.transaction():
                await writer.execute("update tidegate.runs set attempt = 0")
                await writer.execute("select txid_current()")
                await builder.execute("set statement_timeout = '300ms'")
                with pytest.raises(asyncpg.QueryCanceledError):
                    await builder.execute("create index concurrently late on tidegate.runs (due_at)")
            valid = "select indisvalid from pg_index where indexrelid = 'tidegate.late'::regclass"
            assert await builder.fetchval(valid) is False
            await schema.migrate(pool)
            assert await builder.fetchval(valid) is True

    asyncio.run(story())


def test_an_older_revision_refuses_to_start(database_url: str) -> None:
    """It cannot know what the newer schema means; the newer processes go on."""

    async def story() -> None:
        async with pool_at(database_url) as pool:
            await pool.execute("insert into migrations (name) values ('9001_added')")
            with pytest.raises(InvalidInput, match=r"9001_added.*newer version"):
                await schema.migrate(pool)

    asyncio.run(story())


def test_a_running_engine_steps_aside_when_a_newer_revision_migrates(database_url: str) -> None:
    """It ends gracefully by itself: what it had in hand goes on elsewhere."""

    async def story(world: World) -> None:
        engine = Engine(world.parts)
        running = asyncio.create_task(engine.run())
        await world.pool.execute("insert into migrations (name) values ('9001_added')")
        while not running.done():
            world.clock.advance(seconds=1)
            await asyncio.sleep(0.01)
        with pytest.raises(InvalidInput, match="newer version"):
            running.result()

    in_world(database_url, story)
