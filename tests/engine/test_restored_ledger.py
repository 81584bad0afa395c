"""A ledger restored from an old backup, beside a database that remembers more than it: nothing stuck, nothing skipped.

Run numbers and epochs go on from where the backup was made, so they are given a second time: `tidegate_commits` in the
other database holds notes of runs that the restored ledger knows nothing of (SPEC 5, fencing; HOLE s).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tests.conftest import at
from tests.engine.world import World, open_world
from tidegate.destinations.postgres.remote import RemotePostgres
from tidegate.domain.errors import SourceUnavailable
from tidegate.domain.retry import RetryPolicy
from tidegate.engine.attempt import execution
from tidegate.engine.commands import installations
from tidegate.engine.planner import plan_due
from tidegate.engine.retention import prune
from tidegate.store import ledger
from tidegate.store.directory import StoredDestination

FIRST = datetime(2026, 7, 15, 0, 0, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass
class Deployment:
    """One ledger at a time, and a destination in a database of its own that outlives each of them."""

    ledger: str
    elsewhere: str
    orders: dict[int, dict[str, object]]

    @asynccontextmanager
    async def at_work(self, now: datetime) -> AsyncGenerator[World]:
        """Yield a world on the ledger, whose shop is the same in all of them."""
        async with open_world(self.ledger, batch_bytes=1, retry=RetryPolicy(attempts=9)) as world:
            world.clock.set(now)
            world.shop.orders = self.orders

            opened: list[RemotePostgres] = []
            this = await ledger.identity(world.pool, now)

            async def open_elsewhere(_stored: StoredDestination, _secrets: dict[str, str]) -> RemotePostgres:
                opened.append(await RemotePostgres.connect(self.elsewhere, world.pool, this.id))
                return opened[-1]

            world.parts = replace(world.parts, open_destination=open_elsewhere)
            yield world
            for destination in opened:
                await destination.close()

    async def back_up(self) -> str:
        """Copy the ledger as it stands and return the copy's address."""
        name = self.ledger.partition("?")[0].rsplit("/", 1)[1]
        await execute(at(self.ledger, "postgres"), f"create database {name}_backup template {name}")
        return at(self.ledger, f"{name}_backup")

    async def delivered(self, tenant: str) -> list[int]:
        """Return the ids of a tenant's rows at the destination."""
        connection = await asyncpg.connect(self.elsewhere)
        try:
            rows = await connection.fetch("select id from synced.fake_orders where tenant_id = $1 order by id", tenant)
        finally:
            await connection.close()
        return [row["id"] for row in rows]


@pytest.fixture
def deployment(database_url: str, empty_database_url: str) -> Iterator[Deployment]:
    """A ledger and a destination; the backup that a story makes is dropped after it."""
    made = Deployment(database_url, empty_database_url, {})
    yield made
    if made.ledger != database_url:
        name = made.ledger.partition("?")[0].rsplit("/", 1)[1]
        asyncio.run(execute(at(database_url, "postgres"), f"drop database {name} with (force)"))


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def drain(world: World) -> None:
    """Work until no run is left that could go on, letting leases expire and retries come up."""
    for _ in range(20):
        await world.tick()
        world.clock.advance(minutes=5)
        if not await world.pool.fetchval("select count(*) from runs where state in ('queued', 'running', 'retrying')"):
            return
        from tidegate.engine.sweeper import sweep

        await sweep(world.parts, world.clock.now())
    raise AssertionError([dict(run) for run in await world.runs()])


async def numbers_given_twice(deployment: Deployment) -> dict[str, list[int]]:
    """Let a run number belong to acme, and after the restore to beta; return what is delivered to both."""
    async with deployment.at_work(FIRST - DAY) as world:
        for tenant in ("acme", "beta"):
            await world.install(tenant)
        world.shop.put(1, FIRST - DAY)
        world.clock.set(FIRST)
        await world.tick()
    backup = await deployment.back_up()
    async with deployment.at_work(FIRST + DAY) as world:
        world.shop.page_size = 100  # one batch: it is complete, says its note
        for number in range(2, 6):
            world.shop.put(number, FIRST)
        await drain(world)
        lost = {run["id"]: run["tenant_id"] for run in await world.runs()}
    deployment.ledger = backup
    async with deployment.at_work(FIRST + DAY) as world:
        world.shop.put(9, FIRST)  # shown since the work that is lost
        await installations.pause(world.parts, "acme", "sync")
        await drain(world)
        again = {run["id"]: run["tenant_id"] for run in await world.runs()}
        assert any(lost.get(number, tenant) != tenant for number, tenant in again.items()), "the story is about this"
        await installations.resume(world.parts, "acme", "sync")
        await drain(world)
        for number in range(6, 9):
            world.shop.put(number, world.clock.now())
        world.clock.advance(days=1)
        await drain(world)
        covered = await world.pool.fetch("select max(period_end) as upto from coverage group by chain_id")
        assert {row["upto"] for row in covered} == {datetime(2026, 7, 17, tzinfo=UTC)}
        for run in await world.runs():
            counted = run["inserted_count"] + run["updated_count"] + run["unchanged_count"]
            assert (run["state"], run["read_count"]) == ("succeeded", counted)
    return {tenant: await deployment.delivered(tenant) for tenant in ("acme", "beta")}


def test_a_number_given_twice_never_takes_one_runs_notes_for_anothers(deployment: Deployment) -> None:
    """The note of a run that is no more says "all delivered" of records that this run has yet to fetch."""
    assert asyncio.run(numbers_given_twice(deployment)) == {"acme": list(range(1, 10)), "beta": list(range(1, 10))}


def test_without_asking_whose_note_it_is_records_are_lost(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail."""
    monkeypatch.setattr(execution, "asked_of", lambda *_of: "anything")
    with pytest.raises(AssertionError):
        assert asyncio.run(numbers_given_twice(deployment))["beta"] == list(range(1, 10))


def test_an_epoch_behind_the_destinations_is_overtaken(deployment: Deployment) -> None:
    """The destination refuses every epoch up to the one it has seen; the restored run must not fail for that."""

    async def story() -> None:
        async with deployment.at_work(FIRST - DAY) as world:
            chain_id = await world.install()
            world.clock.set(FIRST)
            await plan_due(world.parts, world.clock.now())
        backup = await deployment.back_up()
        async with deployment.at_work(FIRST) as world:
            for number in range(1, 6):
                world.shop.put(number, FIRST - DAY)
            world.shop.on_page = lambda number: SourceUnavailable("reset") if number in (2, 4) else None
            await drain(world)
            (run,) = await world.runs()
            assert (run["state"], run["epoch"]) == ("succeeded", 3)
        deployment.ledger = backup
        async with deployment.at_work(FIRST) as world:
            world.shop.put(6, FIRST - DAY)
            await drain(world)
            (run,) = await world.runs()
            assert (run["state"], run["epoch"], run["read_count"]) == ("succeeded", 4, 6)
            assert await world.covered(chain_id) == [
                (datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 7, 15, tzinfo=UTC))
            ]
        assert await deployment.delivered("acme") == list(range(1, 7))

    asyncio.run(story())


def test_a_copy_with_an_id_of_its_own_is_another_ledger(deployment: Deployment) -> None:
    """SPEC 5, fencing: two ledgers that share a schema give the same run numbers, and neither's notes are the other's."""

    async def story() -> None:
        async with deployment.at_work(FIRST - DAY) as world:
            await world.install()
            world.clock.set(FIRST)
            await plan_due(world.parts, world.clock.now())
        copy = await deployment.back_up()
        async with deployment.at_work(FIRST) as world:
            for number in range(1, 6):
                world.shop.put(number, FIRST - DAY)
            world.shop.on_page = lambda number: SourceUnavailable("reset") if number in (2, 4) else None
            await drain(world)
            (run,) = await world.runs()
            assert (run["state"], run["epoch"]) == ("succeeded", 3)
        deployment.ledger = copy
        await execute(copy, "update tidegate.ledger set id = gen_random_uuid()")
        async with deployment.at_work(FIRST) as world:
            world.shop.put(6, FIRST - DAY)
            await drain(world)
            (run,) = await world.runs()
            assert (run["state"], run["epoch"], run["read_count"]) == ("succeeded", 1, 6), "nothing to be overtaken"
        assert await deployment.delivered("acme") == list(range(1, 7))

    asyncio.run(story())


def test_a_worker_that_has_lost_its_lease_overtakes_nobody(deployment: Deployment) -> None:
    """Only the holder of the lease may: for a zombie the ledger's epoch has moved on."""

    async def story() -> None:
        from tidegate.store import leases

        async with deployment.at_work(FIRST - DAY) as world:
            await world.install()
            world.clock.set(FIRST)
            await plan_due(world.parts, FIRST)
            await world.pool.execute("update runs set state = 'queued'")
            (old,) = await leases.lease(world.pool, [1], FIRST, FIRST, "old")
            await leases.reclaim(world.pool, FIRST + DAY, 9)
            await world.pool.execute("update runs set state = 'queued'")
            (new,) = await leases.lease(world.pool, [1], FIRST, FIRST, "new")
            assert not await leases.overtake(world.pool, old, 7, FIRST)
            assert await leases.overtake(world.pool, new, 7, FIRST)
            (run,) = await world.runs()
            assert (run["state"], run["epoch"], run["attempt"]) == ("retrying", 7, 1)

    asyncio.run(story())


def test_notes_elsewhere_go_when_their_runs_ended_long_ago(deployment: Deployment) -> None:
    """Also those of runs that this ledger knows nothing of; those of other ledgers stay."""

    async def story() -> None:
        async with deployment.at_work(FIRST - DAY) as world:
            await world.install()
            world.shop.put(1, FIRST - DAY)
            world.clock.set(FIRST)
            await world.tick()
            other = await asyncpg.connect(deployment.elsewhere)
            try:
                await other.execute(
                    """insert into synced.tidegate_commits (ledger_id, run_id, epoch)
                       select ledger_id, 999, 1 from synced.tidegate_commits union all values (gen_random_uuid(), 999, 1)"""
                )
                noted = "select array_agg(run_id order by run_id) from synced.tidegate_commits"
                assert await other.fetchval(noted) == [1, 999, 999]
                assert (await prune(world.parts, FIRST))[-1].count == 1
                assert await other.fetchval(noted) == [1, 999], "another ledger's note is none of ours"
                assert (await prune(world.parts, FIRST + 8 * DAY))[-1].count == 1
                assert await other.fetchval(noted) == [999]
            finally:
                await other.close()

    asyncio.run(story())
