"""Runs that end in the same moment share a transaction, and none fails its neighbours (SPEC 5)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg

from tests.engine.world import World, in_world
from tidegate.domain.errors import LeaseLost
from tidegate.domain.fetch import FetchReport
from tidegate.domain.run import RunState
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.store import ending, leases
from tidegate.store.ending import Finish

NOW = datetime(2026, 7, 14, tzinfo=UTC)
WHOLE = FetchReport(None, None)


async def leased(world: World, count: int) -> list[leases.LeasedRun]:
    """Return ``count`` runs of as many tenants, in the hands of one worker."""
    for number in range(count):
        await world.install(tenant=f"t{number}")
    world.clock.set(NOW)
    await plan_due(world.parts, NOW)
    assert await dispatch_ready(world.parts, NOW) == count
    ids = [run["id"] for run in await world.runs()]
    return sorted(
        await leases.lease(world.pool, ids, NOW, NOW + timedelta(seconds=15), "w"), key=lambda run: run.tenant_id
    )


def test_one_refused_run_fails_no_neighbour(database_url: str) -> None:
    """Refused by the chain, by the epoch, and for a text that PostgreSQL cannot hold: each alone."""

    async def story(world: World) -> None:
        held = await leased(world, 7)
        covered, taken, odd = held[1], held[3], held[5]
        await world.pool.execute(
            """insert into coverage (chain_id, period_start, period_end, previous_end, kind, run_id, records, committed_at)
               select chain_id, period_start, period_end, null, 'covered', id, 0, $2 from runs where id = $1""",
            covered.id,
            NOW,
        )
        await world.pool.execute("update runs set epoch = epoch + 1 where id = $1", taken.id)
        asked = [
            Finish(run, 1, FetchReport(None, None, change_token="a\x00b") if run is odd else WHOLE, True, NOW)
            for run in held
        ]
        answers = await ending.finish_many(world.pool, asked)
        assert isinstance(answers[1], asyncpg.IntegrityConstraintViolationError)
        assert isinstance(answers[3], LeaseLost)
        assert isinstance(answers[5], asyncpg.DataError)
        assert [answers[at] for at in (0, 2, 4, 6)] == [RunState.SUCCEEDED] * 4
        states = {run["id"]: run["state"] for run in await world.runs()}
        assert [states[run.id] for run in held] == [
            "succeeded", "running", "succeeded", "running", "succeeded", "running", "succeeded",
        ]  # fmt: skip
        assert await world.pool.fetchval("select count(*) from coverage") == 5

    in_world(database_url, story)


def test_renewing_leases_waits_for_no_run_that_is_being_ended(database_url: str) -> None:
    """SPEC 5: two statements over many runs, each waiting for rows of the other, would be a deadlock, and a second lost.

    The run that another statement has in hand keeps its lease until the next time, and is not let go.
    """

    async def story(world: World) -> None:
        held = await leased(world, 3)
        until = NOW + timedelta(seconds=30)
        async with world.pool.acquire() as other, other.transaction(), asyncio.timeout(30):
            await other.execute("update runs set batch = 1 where id = $1", held[1].id)
            ours = await leases.renew(world.pool, [(run.id, run.epoch) for run in held], until)
        assert ours == {run.id for run in held}
        renewed = {run["id"]: run["lease_until"] == until for run in await world.runs()}
        assert [renewed[run.id] for run in held] == [True, False, True]

    in_world(database_url, story)
