"""A process that freezes inside a transaction does not stop the others for longer than a lease (SPEC 7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tidegate.store import database
from tidegate.store.database import DISPATCH_LOCK, end_frozen, lock, try_lock

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool

AT_ONCE = timedelta(0)
LOOKS = 500


async def _between_statements(frozen: Connection) -> asyncio.Task[str] | None:
    await frozen.fetchval("select 1")
    return None


async def _between_messages(frozen: Connection) -> asyncio.Task[str] | None:
    """The statement is prepared; the message that executes it never comes."""
    await frozen.prepare("select count(*) from runs where id <> $1")
    return None


async def _inside_a_copy(frozen: Connection) -> asyncio.Task[str] | None:
    await frozen.execute("create temporary table staged (line text)")
    begun = asyncio.Event()

    async def lines() -> AsyncIterator[bytes]:
        yield b"first\n"
        begun.set()
        await asyncio.Event().wait()

    copying = asyncio.create_task(frozen.copy_to_table("staged", source=lines()))
    await begun.wait()
    return copying


async def _pools(dsn: str) -> tuple[Pool, Pool]:
    return await database.open_pool(dsn, size=1), await database.open_pool(dsn, size=1)


@pytest.mark.parametrize("freeze", [_between_statements, _between_messages, _inside_a_copy])
def test_what_a_frozen_process_has_locked_is_freed(
    database_url: str, freeze: Callable[[Connection], Awaitable[asyncio.Task[str] | None]]
) -> None:
    """SPEC 7: a dispatcher that freezes, wherever it stands, gives up its lock."""

    async def story() -> None:
        theirs, ours = await _pools(database_url)
        frozen = await theirs.acquire()
        transaction = frozen.transaction()
        await transaction.start()
        await lock(frozen, DISPATCH_LOCK)
        copying = await freeze(frozen)
        assert not await _free(ours), "it is locked"
        assert await end_frozen(ours, timedelta(minutes=5)) == 0, "not frozen for as long as that"
        assert await _ended(ours) == 1
        assert await _free(ours)
        if copying:
            copying.cancel()
            await asyncio.wait({copying})
        theirs.terminate()
        await ours.close()

    asyncio.run(story())


def test_a_session_at_work_is_left_alone(database_url: str) -> None:
    """A long statement, and a session outside any transaction, are not frozen."""

    async def story() -> None:
        theirs, ours = await _pools(database_url)
        await theirs.fetchval("select 1")
        assert await end_frozen(ours, AT_ONCE) == 0
        at_work = asyncio.create_task(theirs.fetchval("select 1 from pg_sleep(1000)"))
        while not await ours.fetchval("select count(*) from pg_stat_activity where wait_event = 'PgSleep'"):
            await asyncio.sleep(0)
        assert await end_frozen(ours, AT_ONCE) == 0
        await ours.execute("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'")
        with pytest.raises(asyncpg.QueryCanceledError):
            await at_work
        await theirs.close()
        await ours.close()

    asyncio.run(story())


async def _free(pool: Pool) -> bool:
    async with pool.acquire() as connection, connection.transaction():
        return await try_lock(connection, DISPATCH_LOCK)


async def _ended(pool: Pool) -> int:
    """Return how many sessions were ended, once the server shows where the frozen one stands and has freed its locks."""
    ended = 0
    for _ in range(LOOKS):
        ended += await end_frozen(pool, AT_ONCE)
        if ended and await _free(pool):
            return ended
        await asyncio.sleep(0)
    return ended
