"""Runs that end in the same moment share a transaction, and none fails its neighbours (SPEC 5)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg

from tests.engine.world import World, in_world
from tidegate.domain.errors import LeaseLost
from tidegate.domain.fetch import FetchReport
from tidegate.domain.run import RunState
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.store import database, ending, leases
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


async def keyed_plan(pool: asyncpg.Pool[asyncpg.Record], types: str, statement: str, arguments: str) -> str:
    """Return the plan that a session of ``pool`` keeps for a statement."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(f"prepare asked ({types}) as {statement}")
        rows = await connection.fetch(f"explain execute asked ({arguments})")
        await connection.execute("deallocate asked")
    return "\n".join(row[0] for row in rows)


def test_runs_are_taken_and_ended_by_their_keys_however_many_are_in_hand(database_url: str) -> None:
    """SPEC 7: what a batch of runs costs does not grow with what else is queued, whatever the server believes of that."""

    async def story(world: World) -> None:
        held = await leased(world, 7)
        by_key = await database.open_pool(database_url, size=1, by_key=True)
        lease = await keyed_plan(
            by_key, "bigint[], timestamptz, timestamptz, text, text", leases._LEASE,
            "'{1,2}', '2026-07-14', '2026-07-14', 'w', 'queued'",
        )  # fmt: skip
        numbers = ", ".join(["bigint[]"] * 6)
        end = await keyed_plan(
            by_key, f"text, text, text, text[], timestamptz[], text[], text, text, {numbers}", ending._FINISH,
            "'{1,2}', '{1,1}', '{1,1}', '{a,b}', '{2026-07-14,2026-07-14}', '{a,b}', '{1,2}', '{1,1}'" + ", '{}'" * 6,
        )  # fmt: skip
        for plan in (lease, end):
            assert "runs_pkey" in plan
            assert "runs_in_hand" not in plan
            assert "Seq Scan on runs" not in plan
        world.parts = replace(world.parts, by_key=by_key)
        asked = [Finish(run, 1, WHOLE, True, NOW) for run in held]
        assert await ending.finish_many(world.parts.keyed, asked) == [RunState.SUCCEEDED] * 7
        assert await ending.finish_many(world.parts.keyed, asked[:3]) != [RunState.SUCCEEDED] * 3
        kept = await by_key.fetch(
            "select generic_plans, custom_plans from pg_prepared_statements where statement = $1", ending._FINISH
        )
        assert [tuple(row) for row in kept] == [(2, 0)], "planned once"
        assert world.parts.pools == (world.pool, by_key)
        await by_key.close()

    in_world(database_url, story)
