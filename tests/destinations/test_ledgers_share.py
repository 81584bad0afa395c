"""Several ledgers in one schema, and a table of commits from before there were ledger ids (SPEC 5, "Fencing"; HOLE s)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import asyncpg
import pytest

from tests.destinations.loading import LEDGER, Pool, Run, at, page, pool_of, remote, rows, target
from tests.destinations.test_commits import blocked
from tidegate.destinations.postgres import commits as module
from tidegate.destinations.postgres.commits import Commits
from tidegate.destinations.postgres.remote import RemotePostgres
from tidegate.domain.errors import LeaseLost
from tidegate.domain.fetch import Page

OTHER = UUID(int=2)
TABLE = "synced.tidegate_commits"
OLDER = f"""
CREATE SCHEMA synced;
CREATE TABLE {TABLE} (
  run_id bigint PRIMARY KEY, epoch bigint NOT NULL, batch int NOT NULL DEFAULT 0, checkpoint bytea, written json
)
"""
OLDER_CLAIM = f"""
INSERT INTO {TABLE} AS t (run_id, epoch) VALUES ($1, $2)
ON CONFLICT (run_id) DO UPDATE SET epoch = excluded.epoch WHERE t.epoch <= excluded.epoch
RETURNING checkpoint"""
OLDER_COMMIT = f"""
UPDATE {TABLE} SET batch = $3, checkpoint = $4, written = $5
WHERE run_id = $1 AND epoch = $2 AND batch < $3 RETURNING batch"""
KEY = f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{TABLE}'::regclass AND contype = 'p'"
WRITTEN = '{"read":1,"inserted":1}'


def order(number: int) -> Page:
    """Return a page with one order."""
    return page({"id": number, "updated_at": at(0)})


def the_run(destination: RemotePostgres, epoch: int = 1, batch: int = 0) -> Run:
    """Return run 7 with its writer."""
    return Run(destination.writer(target(), 7, epoch), run_id=7, epoch=epoch, batch=batch)


def elsewhere(url: str, ledger_url: str, story: Callable[[RemotePostgres, Pool], Awaitable[None]], alone: bool) -> None:
    """Play a story at a destination with a table of the older shape."""

    async def run() -> None:
        async with remote(url, ledger_url, alone=alone) as (destination, pool):
            await pool.execute(OLDER)
            await story(destination, pool)

    asyncio.run(run())


def test_two_ledgers_in_one_schema_never_meet(database_url: str, empty_database_url: str) -> None:
    """The same run number is two runs: each has its own epoch, its own last batch, and forgets only its own."""

    async def run() -> None:
        async with (
            remote(empty_database_url, database_url) as (destination, pool),
            remote(empty_database_url, database_url, OTHER) as (others, _),
        ):
            ours, theirs = the_run(destination, epoch=5), the_run(others)
            assert await ours.writer.committed() is None
            await ours.write(order(1))
            assert await theirs.writer.committed() is None
            await theirs.write(order(2), checkpoint=b"theirs")
            await ours.write(order(3))
            assert await the_run(destination, epoch=6).writer.committed() == b"2"
            assert await the_run(others, epoch=2).writer.committed() == b"theirs"
            assert [row["id"] for row in await rows(pool)] == [1, 2, 3]
            assert await pool.fetchval(KEY) == "PRIMARY KEY (ledger_id, run_id)"

            async def all_ended(run_ids: Sequence[int]) -> Sequence[int]:
                return run_ids

            assert await others.forget(all_ended) == 1
            assert await the_run(destination, epoch=7).writer.committed() == b"2"

    asyncio.run(run())


@pytest.mark.parametrize("alone", [False, True])
def test_workers_from_before_there_were_ledger_ids_go_on_beside_newer_ones(
    database_url: str, empty_database_url: str, alone: bool
) -> None:
    """The older table is moved over by the first claim: notes are found, and epochs fence, in both directions."""

    async def story(destination: RemotePostgres, pool: Pool) -> None:
        await pool.fetchval(OLDER_CLAIM, 7, 1)
        assert await pool.fetchval(OLDER_COMMIT, 7, 1, 1, b"older", WRITTEN) == 1
        newer = the_run(destination, epoch=2, batch=1)
        assert await newer.writer.committed() == b"older"
        assert await pool.fetchval(OLDER_COMMIT, 7, 1, 2, b"late", WRITTEN) is None, "it is fenced"
        await newer.write(order(1), checkpoint=b"newer")
        assert await pool.fetchval(OLDER_CLAIM, 7, 3) == b"newer"
        with pytest.raises(LeaseLost):
            await newer.write(order(2))
        assert await pool.fetchval(OLDER_CLAIM, 8, 1) is None
        assert await pool.fetchval(OLDER_COMMIT, 8, 1, 1, b"eight", WRITTEN) == 1
        assert await pool.fetchval(f"SELECT array_agg(DISTINCT ledger_id) FROM {TABLE}") == [LEDGER]
        assert len(await rows(pool)) == 1

    elsewhere(empty_database_url, database_url, story, alone)


def test_a_schema_that_is_new_while_older_workers_may_be_left_takes_them_too(
    database_url: str, empty_database_url: str
) -> None:
    """The day of the upgrade: whoever comes first makes the table, and both work on it."""

    async def run() -> None:
        async with remote(empty_database_url, database_url, alone=False) as (destination, pool):
            await the_run(destination).writer.committed()
            assert await pool.fetchval(OLDER_CLAIM, 7, 2) is None
            assert await pool.fetchval(OLDER_COMMIT, 7, 2, 1, b"older", WRITTEN) == 1
            assert await the_run(destination, epoch=3).writer.committed() == b"older"

    asyncio.run(run())


def test_the_older_key_goes_once_no_older_worker_is_left(database_url: str, empty_database_url: str) -> None:
    """By the hourly look, not before; no note is lost."""

    async def story(destination: RemotePostgres, pool: Pool) -> None:
        async def none_ended(run_ids: Sequence[int]) -> Sequence[int]:
            return []

        await the_run(destination).writer.committed()
        await destination.forget(none_ended)
        assert await pool.fetchval(KEY) == "PRIMARY KEY (run_id)"
        async with pool_of(database_url) as ledger_pool:
            later = await RemotePostgres.connect(empty_database_url, ledger_pool, LEDGER)
            await later.forget(none_ended)
            await later.forget(none_ended)
            await later.close()
        assert await pool.fetchval(KEY) == "PRIMARY KEY (ledger_id, run_id)"
        with pytest.raises(asyncpg.NotNullViolationError):
            await pool.execute(f"INSERT INTO {TABLE} (run_id, epoch) VALUES (9, 1)")
        await the_run(destination).write(order(1))

    elsewhere(empty_database_url, database_url, story, alone=False)


def test_another_ledgers_number_costs_the_older_key_at_once(database_url: str, empty_database_url: str) -> None:
    """A schema that is shared at last, or an older ledger's, holds up no run."""

    async def story(destination: RemotePostgres, pool: Pool) -> None:
        await pool.fetchval(OLDER_CLAIM, 7, 4)
        await the_run(destination, epoch=5).writer.committed()
        async with remote(empty_database_url, database_url, OTHER, alone=False) as (others, _):
            theirs = the_run(others)
            assert await theirs.writer.committed() is None
            await theirs.write(order(1))
        assert await pool.fetchval(KEY) == "PRIMARY KEY (ledger_id, run_id)"
        assert await the_run(destination, epoch=6).writer.committed() is None

    elsewhere(empty_database_url, database_url, story, alone=False)


def test_two_that_claim_a_run_at_the_same_time_leave_the_older_key(database_url: str, empty_database_url: str) -> None:
    """A rival for the same note is no other ledger: it is waited for, and the newer epoch stands."""

    async def story(destination: RemotePostgres, pool: Pool) -> None:
        await the_run(destination).writer.committed()
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(f"INSERT INTO {TABLE} (ledger_id, run_id, epoch) VALUES ($1, 8, 1)", LEDGER)
            async with pool_of(empty_database_url, size=1) as rival, rival.acquire() as second:
                claiming = asyncio.create_task(Commits("synced", LEDGER, alone=False).claim(second, 8, 2))  # type: ignore[arg-type]
                await blocked(pool)
                await connection.execute("COMMIT; BEGIN")
                assert await claiming is None
        assert await pool.fetchval(KEY) == "PRIMARY KEY (run_id)"
        assert await pool.fetchval(f"SELECT epoch FROM {TABLE} WHERE run_id = 8") == 2

    elsewhere(empty_database_url, database_url, story, alone=False)


def test_the_table_is_moved_over_while_an_older_worker_commits(
    database_url: str, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The definition waits for the batch's end, briefly and again, so that nobody waits behind it for long."""
    monkeypatch.setattr(module, "_LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr(module, "_TRIES", 1000)

    async def story(destination: RemotePostgres, pool: Pool) -> None:
        await pool.fetchval(OLDER_CLAIM, 7, 1)
        async with pool.acquire() as connection, connection.transaction():
            assert await connection.fetchval(OLDER_COMMIT, 7, 1, 1, b"older", WRITTEN) == 1
            claiming = asyncio.create_task(the_run(destination, epoch=2).writer.committed())
            await blocked(pool)
        assert await claiming == b"older"

    elsewhere(empty_database_url, database_url, story, alone=False)
