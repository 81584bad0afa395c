"""Tokens at rest and in turn: sealed, renewed by one process at a time, and never lost to a cancelled caller or session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
import pytest
from msgspec.structs import replace

from tests.connectors.rest.sources import LeapingClock
from tidegate.domain.errors import InternalError, Unauthorised
from tidegate.store import database, directory, vaults
from tidegate.store.directory import StoredConnection
from tidegate.store.seal import Sealer
from tidegate.store.vaults import Vaults

if TYPE_CHECKING:
    from tidegate.store.database import Pool
    from tidegate.store.vaults import Held

NOW = datetime(2026, 7, 13, 16, tzinfo=UTC)
STORED = StoredConnection(0, "acme", "shop", "fake", "acme.example", 4, {}, b"", "f1", None, "")


@asynccontextmanager
async def processes(dsn: str) -> AsyncGenerator[tuple[Vaults, Vaults, StoredConnection, Pool]]:
    """Two processes' vaults, and the connection that they are about."""
    pools = [await database.open_pool(dsn, size=4) for _ in range(2)]
    async with pools[0].acquire() as connection, connection.transaction():
        await directory.put_tenant(connection, "acme", "Acme", NOW)
        await directory.put_connection(connection, STORED)
    (stored,) = await directory.connections(pools[0])
    one, two = (Vaults(pool, Sealer(bytes(32)), LeapingClock()) for pool in pools)
    yield one, two, stored, pools[0]
    await asyncio.gather(one.settled(), two.settled())
    for pool in pools:
        await pool.close()


def between_processes(dsn: str, story: Callable[[Vaults, Vaults, StoredConnection, Pool], Awaitable[None]]) -> None:
    async def run() -> None:
        async with processes(dsn) as given:
            await story(*given)

    asyncio.run(run())


async def _next(held: Held) -> Held:
    return {"refresh": f"token-{int(held.get('refresh', 'token-0').removeprefix('token-')) + 1}"}


def test_what_is_kept_is_sealed_for_its_connection(database_url: str) -> None:
    async def story(one: Vaults, two: Vaults, stored: StoredConnection, pool: Pool) -> None:
        assert await one.of(stored).read() == {}
        assert await one.of(stored).renew(_next) == {"refresh": "token-1"}
        assert await two.of(stored).read() == {"refresh": "token-1"}
        sealed = await pool.fetchval("select sealed from connection_tokens")
        assert b"token-1" not in sealed
        assert await one.of(replace(stored, name="other")).read() == {}, "sealed for another place"

    between_processes(database_url, story)


def test_a_token_endpoint_that_hangs_does_not_keep_other_platforms_waiting(database_url: str) -> None:
    """SPEC 3 "fairness": each renewal keeps a database connection, so few go on at once, and not all of one platform."""

    async def story(one: Vaults, _two: Vaults, stored: StoredConnection, pool: Pool) -> None:
        answer, asked = asyncio.Event(), []

        async def hanging(held: Held) -> Held:
            asked.append(held)
            await answer.wait()
            return held

        async with pool.acquire() as connection, connection.transaction():
            for name in ("two", "three", "four"):
                await directory.put_connection(connection, replace(STORED, name=name))
            await directory.put_connection(connection, replace(STORED, name="other", connector="another"))
        there = {made.name: made for made in await directory.connections(pool)}
        waiting = [asyncio.create_task(one.of(there[name]).renew(hanging)) for name in ("shop", "two", "three", "four")]
        async with asyncio.timeout(10):
            while len(asked) < vaults.OF_ONE_PLATFORM:
                await asyncio.sleep(0)
            assert await one.of(there["other"]).renew(_next) == {"refresh": "token-1"}
        assert len(asked) == vaults.OF_ONE_PLATFORM
        answer.set()
        await asyncio.gather(*waiting)
        assert len(asked) == 4

    between_processes(database_url, story)


def test_of_two_processes_one_renews_and_the_other_is_handed_what_it_got(database_url: str) -> None:
    """A row lock in the database: the second renewal does not begin before the first is committed."""

    async def story(one: Vaults, two: Vaults, stored: StoredConnection, pool: Pool) -> None:
        await one.of(stored).renew(_next)  # the row is there: its lock counts, not the one that making it takes
        answer, order = asyncio.Event(), []

        async def slow(held: Held) -> Held:
            order.append(("first", dict(held)))
            await answer.wait()
            return {"refresh": "token-9"}

        async def content(held: Held) -> Held:
            order.append(("second", dict(held)))
            return held

        first = asyncio.create_task(one.of(stored).renew(slow))
        while not order:
            await asyncio.sleep(0)
        second = asyncio.create_task(two.of(stored).renew(content))
        await _until_someone_waits(pool)
        assert order == [("first", {"refresh": "token-1"})]
        answer.set()
        assert await first == await second == {"refresh": "token-9"}
        assert order[1:] == [("second", {"refresh": "token-9"})]

    between_processes(database_url, story)


async def _until_someone_waits(pool: Pool) -> None:
    while not await pool.fetchval("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"):
        await asyncio.sleep(0)


def test_a_renewal_goes_on_although_its_caller_is_cancelled(database_url: str) -> None:
    """A lease taken over, or a graceful stop, in the very moment in which the server has answered."""

    async def story(one: Vaults, two: Vaults, stored: StoredConnection, pool: Pool) -> None:
        asked, answer = asyncio.Event(), asyncio.Event()

        async def slow(held: Held) -> Held:
            asked.set()
            await answer.wait()
            return {"refresh": "token-1"}

        caller = asyncio.create_task(one.of(stored).renew(slow))
        await asked.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        answer.set()
        await one.settled()
        assert await two.of(stored).read() == {"refresh": "token-1"}

    between_processes(database_url, story)


def test_tokens_outlive_the_session_that_was_to_commit_them(database_url: str) -> None:
    """The server has answered, and the database session is gone: they are committed in another one."""

    async def story(one: Vaults, two: Vaults, stored: StoredConnection, pool: Pool) -> None:
        async def cut_off(held: Held) -> Held:
            await two.pool.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle in transaction'"
            )
            return {"refresh": "token-1"}

        assert await one.of(stored).renew(cut_off) == {"refresh": "token-1"}
        assert await two.of(stored).read() == {"refresh": "token-1"}

    between_processes(database_url, story)


def test_tokens_that_cannot_be_committed_now_are_committed_before_the_next_renewal(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(one: Vaults, two: Vaults, stored: StoredConnection, pool: Pool) -> None:
        async def gone(*_given: object) -> None:
            raise asyncpg.ConnectionDoesNotExistError("gone")

        with monkeypatch.context() as broken:
            broken.setattr(vaults.ConnectionVault, "_put", gone)
            with pytest.raises(InternalError) as caught:
                await one.of(stored).renew(_next)
            assert caught.value.retryable
        assert await one.of(stored).read() == {}
        assert await one.of(stored).renew(_next) == {"refresh": "token-2"}

    between_processes(database_url, story)


def test_a_late_commit_never_takes_the_place_of_a_newer_token(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(one: Vaults, two: Vaults, stored: StoredConnection, pool: Pool) -> None:
        async def gone(*_given: object) -> None:
            raise asyncpg.ConnectionDoesNotExistError("gone")

        async def newer(_held: Held) -> Held:
            return {"refresh": "token-8"}

        with monkeypatch.context() as broken:
            broken.setattr(vaults.ConnectionVault, "_put", gone)
            with pytest.raises(InternalError):
                await one.of(stored).renew(_next)
        await two.of(stored).renew(newer)
        assert await one.of(stored).renew(_next) == {"refresh": "token-9"}

    between_processes(database_url, story)


def test_what_a_renewal_raises_changes_nothing(database_url: str) -> None:
    async def story(one: Vaults, two: Vaults, stored: StoredConnection, pool: Pool) -> None:
        async def refused(_held: Held) -> Held:
            raise Unauthorised("invalid_grant")

        await one.of(stored).renew(_next)
        with pytest.raises(Unauthorised):
            await one.of(stored).renew(refused)
        assert await two.of(stored).renew(_next) == {"refresh": "token-2"}

    between_processes(database_url, story)


def test_an_older_configuration_renews_nothing(database_url: str) -> None:
    """Fencing: a worker that has not yet seen what was applied must not rotate the new configuration's tokens."""

    async def story(one: Vaults, two: Vaults, stored: StoredConnection, pool: Pool) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await directory.put_connection(connection, replace(STORED, fingerprint="f2"))

        async def never(_held: Held) -> Held:
            raise AssertionError("the token endpoint was asked")

        with pytest.raises(InternalError) as caught:
            await one.of(stored).renew(never)
        assert caught.value.retryable

    between_processes(database_url, story)


def test_a_renewal_that_waits_long_is_not_taken_for_a_frozen_process(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`end_frozen` ends transactions whose process has not stirred; this one has."""
    monkeypatch.setattr(vaults, "HEARTBEAT_SECONDS", 0.01)
    stirred = "select max(state_change) from pg_stat_activity where state = 'idle in transaction'"

    async def story(one: Vaults, two: Vaults, stored: StoredConnection, pool: Pool) -> None:
        async def slow(held: Held) -> Held:
            first = last = await two.pool.fetchval(stirred)
            while last is None or last == first:
                last = await two.pool.fetchval(stirred)
            return {"refresh": "token-1"}

        assert await one.of(stored).renew(slow) == {"refresh": "token-1"}

    between_processes(database_url, story)
