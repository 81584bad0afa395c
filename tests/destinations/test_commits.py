"""Exactly once in effect, at home and elsewhere: fencing, crashes between commits, two writers at once (SPEC 5, HOLE s)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from tests.destinations.loading import LEDGER, Run, at, local, page, pool_of, remote, rows, target
from tidegate.destinations.base import DeliveryKey, Written, at_once
from tidegate.destinations.postgres.commits import Commits
from tidegate.domain.errors import DestinationRejected, DestinationUnavailable, InternalError, LeaseLost
from tidegate.domain.fetch import Page


def orders(*ids: int, second: int = 0, requested: float = 0) -> Page:
    """Return a page of these orders, all at one cursor value."""
    return page(*({"id": number, "updated_at": at(second), "n": second} for number in ids), requested=requested)


def test_at_home_rows_and_ledger_are_one_transaction(database_url: str) -> None:
    """SPEC 5, fencing: a ledger that raises LeaseLost takes the rows with it; what the ledger writes commits with them."""

    async def run() -> None:
        async with local(database_url) as (destination, pool):
            await pool.execute("CREATE TABLE entries (n int)")
            run = Run(destination.writer(target(), 1, 1))
            assert await run.writer.committed() is None
            await run.write(orders(1))
            run.ledger.lost = True
            with pytest.raises(LeaseLost):
                await run.write(orders(1, 2, second=5))
            assert [(row["id"], row["n"]) for row in await rows(pool)] == [(1, 0)]

            async def entering(connection: asyncpg.Connection, written: Written) -> None:
                await connection.execute("INSERT INTO entries VALUES ($1)", written.inserted)

            await run.writer.write([orders(2, 3)], DeliveryKey(1, 1, 3), b"", entering, at_once)
            assert await pool.fetchval("SELECT n FROM entries") == 2

    asyncio.run(run())


def test_elsewhere_an_older_epoch_is_refused_and_leaves_nothing(database_url: str, empty_database_url: str) -> None:
    """SPEC 5, fencing: the claim of a newer epoch shuts out the worker that still believes to hold the run."""

    async def run() -> None:
        async with remote(empty_database_url, database_url) as (destination, pool):
            old = Run(destination.writer(target(), 7, 1), run_id=7, epoch=1)
            assert await old.writer.committed() is None
            await old.write(orders(1))
            new = Run(destination.writer(target(), 7, 2), run_id=7, epoch=2, batch=1)
            assert await new.writer.committed() == b"1"
            with pytest.raises(LeaseLost):
                await old.write(orders(2))
            with pytest.raises(LeaseLost):
                await old.writer.committed()
            await new.write(orders(3))
            assert [row["id"] for row in await rows(pool)] == [1, 3]

    asyncio.run(run())


def test_elsewhere_a_claim_made_in_the_middle_of_a_batch_stops_its_commit(
    database_url: str, empty_database_url: str
) -> None:
    """The epoch is looked at again in the batch's own transaction, after its rows: no gap between check and commit."""

    async def run() -> None:
        async with (
            remote(empty_database_url, database_url) as (destination, pool),
            pool_of(empty_database_url) as other,
        ):
            commits = Commits("synced", LEDGER)
            run = Run(destination.writer(target(), 7, 1), run_id=7)
            await run.writer.committed()
            await run.write(orders(1))
            async with other.acquire() as connection, connection.transaction():
                await connection.execute("SELECT 1 FROM synced.shop_orders WHERE id = 1 FOR UPDATE")
                writing = asyncio.create_task(run.write(orders(1, 2, second=9)))
                await blocked(pool)
                async with pool.acquire() as claiming:
                    assert await commits.claim(claiming, 7, 2) == b"1"  # type: ignore[arg-type]
            with pytest.raises(LeaseLost):
                await writing
            assert [(row["id"], row["n"]) for row in await rows(pool)] == [(1, 0)]

    asyncio.run(run())


async def blocked(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    """Return once some session waits for a row's lock."""
    while not await pool.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
        await asyncio.sleep(0)


def test_elsewhere_a_crash_between_the_commits_applies_nothing_twice_and_loses_no_count(
    database_url: str, empty_database_url: str
) -> None:
    """HOLE s: recovery reads the destination, enters the batch it finds with its counts and quarantine, and resumes after it."""

    async def run() -> None:
        async with remote(empty_database_url, database_url) as (destination, pool):
            run = Run(destination.writer(target(), 7, 1), run_id=7)
            await run.writer.committed()
            run.ledger.broken = True
            with pytest.raises(DestinationUnavailable):
                await run.write(page({"id": 1, "updated_at": at(0)}, b"\xff{}"), checkpoint=b"after page 1")
            assert run.ledger.entries == []
            before = await rows(pool, "ctid, xmin")

            again = Run(destination.writer(target(), 7, 2), run_id=7, epoch=2)
            assert await again.writer.committed() == b"after page 1"
            written = await again.write(checkpoint=b"after page 1")
            assert again.ledger.entries == [written]
            assert (written.read, written.inserted, written.quarantined[0].record) == (2, 1, b"\xff{}")
            assert await rows(pool, "ctid, xmin") == before
            assert (await again.write(orders(1, 2, second=1))).updated == 1

    asyncio.run(run())


def test_elsewhere_other_pages_are_never_taken_for_a_batch_that_committed(
    database_url: str, empty_database_url: str
) -> None:
    """Whoever did not resume from what committed would skip pages: refused as a bug of ours, nothing entered."""

    async def run() -> None:
        async with remote(empty_database_url, database_url) as (destination, _):
            run = Run(destination.writer(target(), 7, 1), run_id=7)
            await run.writer.committed()
            await run.write(orders(1), checkpoint=b"here")
            run.batch = 0
            with pytest.raises(InternalError, match="resume from it"):
                await run.write(orders(2), checkpoint=b"elsewhere")
            assert len(run.ledger.entries) == 1

    asyncio.run(run())


def test_elsewhere_nothing_is_written_without_a_claim_and_pruning_takes_it_away(
    database_url: str, empty_database_url: str
) -> None:
    """The notes of runs that have ended go; a zombie of one of them commits nothing."""

    async def run() -> None:
        async with remote(empty_database_url, database_url) as (destination, pool):
            for number in (7, 8):
                run = Run(destination.writer(target(), number, 1), run_id=number)
                if number == 8:
                    with pytest.raises(LeaseLost):
                        await run.write(orders(99))
                await run.writer.committed()
                await run.write(orders(number))

            async def ended(run_ids: Sequence[int]) -> list[int]:
                return [number for number in run_ids if number < 8]

            assert await destination.forget(ended) == 1
            zombie = Run(destination.writer(target(), 7, 1), run_id=7, batch=1)
            with pytest.raises(LeaseLost):
                await zombie.write(orders(1))
            assert await pool.fetchval("SELECT array_agg(run_id) FROM synced.tidegate_commits") == [8]

    asyncio.run(run())


def test_two_writers_of_the_same_records_neither_deadlock_nor_lose(database_url: str) -> None:
    """SPEC 4: live and backfill at once, in opposite orders, poison among them; the newest version of each stands."""

    async def run() -> None:
        async with local(database_url) as (destination, pool):
            ids = list(range(200))

            async def write(number: int, order: list[int]) -> None:
                run = Run(destination.writer(target(), number, 1), run_id=number)
                for second in range(8):
                    mine = 2 * second + number
                    written = await run.write(orders(*order, second=mine, requested=mine), page(b"{}", requested=99))
                    assert len(written.quarantined) == 1

            await asyncio.gather(write(1, ids), write(2, ids[::-1]))
            assert {row["n"] for row in await rows(pool)} == {16}
            assert len(await rows(pool)) == 200

    asyncio.run(run())


def test_runs_of_many_tenants_make_one_table_and_its_columns_at_the_same_time(database_url: str) -> None:
    """Concurrent first runs, each with a field of its own: one table, every column, every value in it."""

    async def run() -> None:
        async with pool_of(database_url, size=6) as pool:
            from tidegate.destinations.postgres.local import LocalPostgres

            async def write(number: int) -> None:
                destination = LocalPostgres(pool)
                run = Run(destination.writer(target(tenant=f"t{number}"), number, 1), run_id=number)
                for batch in range(3):
                    record = {"id": batch, "updated_at": at(0), f"own_{number}_{batch}": number, "shared": batch}
                    assert (await run.write(page(record))).inserted == 1

            await asyncio.gather(*(write(number) for number in range(6)))
            found = await rows(pool, order="tenant_id, id")
            assert all(row[f"own_{row['_tidegate_run_id']}_{row['id']}"] == row["_tidegate_run_id"] for row in found)
            assert len(found) == 18

    asyncio.run(run())


def test_a_busy_table_delays_a_new_column_and_then_fails_for_now(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ALTER TABLE waits with a time limit, so that it never queues up everyone behind it; the run may be retried."""
    from tidegate.destinations.postgres import tables

    monkeypatch.setattr(tables, "_LOCK_TIMEOUT", "20ms")

    async def run() -> None:
        async with local(database_url) as (destination, pool), pool_of(database_url) as other:
            run = Run(destination.writer(target(), 1, 1))
            await run.write(orders(1))
            async with other.acquire() as connection, connection.transaction():
                await connection.execute("SELECT * FROM synced.shop_orders")
                with pytest.raises(DestinationUnavailable, match="locked"):
                    await run.write(page({"id": 2, "updated_at": at(0), "new": 1}))
            await run.write(page({"id": 2, "updated_at": at(0), "new": 1}))
            assert [row["new"] for row in await rows(pool)] == [None, 1]

    asyncio.run(run())


def test_columns_that_an_operator_changed_are_noticed(database_url: str) -> None:
    """The remembered layout is corrected when PostgreSQL disagrees: a column dropped or retyped, the table dropped."""

    async def run() -> None:
        async with local(database_url) as (destination, pool):
            run = Run(destination.writer(target(), 1, 1))
            first = page({"id": 1, "updated_at": at(0), "a": 1, "b": 1})
            await run.write(first)
            await pool.execute("ALTER TABLE synced.shop_orders DROP COLUMN a")
            await run.write(page({"id": 2, "updated_at": at(0), "a": 2, "b": 2}))
            assert [row["a"] for row in await rows(pool)] == [None, 2]
            await pool.execute("ALTER TABLE synced.shop_orders ALTER COLUMN b TYPE text USING b::text")
            later = Run(destination.writer(target(), 2, 1), run_id=2)
            await later.writer.committed()
            await later.write(page({"id": 3, "updated_at": at(0), "b": "three"}))
            assert [row["b"] for row in await rows(pool)] == ["1", "2", "three"]
            await pool.execute("DROP TABLE synced.shop_orders")
            await later.write(first)
            assert len(await rows(pool)) == 1

    asyncio.run(run())


def test_errors_say_whether_to_try_again_and_what_to_do(database_url: str, empty_database_url: str) -> None:
    """Permission denied needs a person; a lost connection only time; a stranger's table is left alone."""

    async def run() -> None:
        async with local(database_url) as (destination, pool):
            await pool.execute("CREATE SCHEMA synced; CREATE TABLE synced.shop_orders (id int)")
            with pytest.raises(DestinationRejected, match="rename it"):
                await Run(destination.writer(target(), 1, 1)).write(orders(1))
            await pool.execute("DROP SCHEMA synced CASCADE; DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN")
        async with local(database_url.replace("postgres:@", "guest:@")) as (destination, _):
            with pytest.raises(DestinationRejected, match="Grant"):
                await Run(destination.writer(target(), 1, 1)).write(orders(1))
        async with local(empty_database_url) as (destination, pool):
            run = Run(destination.writer(target(), 1, 1))

            async def dying(connection: asyncpg.Connection, written: Written) -> None:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

            with pytest.raises(DestinationUnavailable):
                await run.writer.write([orders(1)], DeliveryKey(1, 1, 1), b"", dying, at_once)
            assert await rows(pool) == []
            assert (await run.write(orders(1))).inserted == 1

    asyncio.run(run())
