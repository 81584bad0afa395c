"""How runs end whose fetch is complete: in the ledger, under their leases, alone or many at once (SPEC 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg

from tidegate.domain.errors import LeaseLost
from tidegate.domain.fetch import FetchReport
from tidegate.domain.run import Lane, RunState
from tidegate.store import coverage
from tidegate.store.database import numbers, to_json
from tidegate.store.leases import Counts, LeasedRun, lost

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool


NOTHING = Counts()


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a run: its last ``batch`` with its ``counts``, and whether its ``report`` proves its period."""

    run: LeasedRun
    batch: int
    report: FetchReport
    proven: bool
    now: datetime
    counts: Counts = NOTHING


_FINISH = """
with asked as (
    select a.*, w.route_id, w.position
      from unnest($1::text::bigint[], $2::text::int[], $3::text::int[], $4::text[], $5::timestamptz[], $6::text[],
                  $7::text::bigint[], $8::text::bigint[], $9::bigint[], $10::bigint[],
                  $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[])
               as a(id, epoch, batch, state, finished_at, report, chain_id, destination_id,
                    read, inserted, updated, unchanged, misfits, quarantined)
      left join lateral (
           select t.id as route_id, o.position
             from routes t
            cross join lateral (select max(position) as position from outbox where route_id = t.id and state = 'open') o
            where t.chain_id = a.chain_id and t.destination_id = a.destination_id and o.position is not null) w on true
),
finished as (
    update runs r set state = case when a.route_id is null then a.state else 'delivering' end,
       ends_as = case when a.route_id is not null then a.state end, waits_for_route = a.route_id,
       waits_for_position = a.position, finished_at = case when a.route_id is null then a.finished_at end,
       batch = a.batch, lease_until = null, checkpoint = null, error = null, report = a.report::jsonb,
       read_count = read_count + coalesce(a.read, 0), inserted_count = inserted_count + coalesce(a.inserted, 0),
       updated_count = updated_count + coalesce(a.updated, 0), unchanged_count = unchanged_count + coalesce(a.unchanged, 0),
       misfit_count = misfit_count + coalesce(a.misfits, 0), quarantined_count = quarantined_count + coalesce(a.quarantined, 0)
      from asked a
     where r.id = a.id and r.epoch = a.epoch and r.lease_until is not null  -- running, but not by the index of all in hand
    returning r.id, r.chain_id, r.lane, r.period_start, r.period_end, r.read_count, r.state, a.finished_at
),
covered as (
    insert into coverage (chain_id, period_start, period_end, previous_end, kind, run_id, records, committed_at)
    select f.chain_id, f.period_start, f.period_end,
           (select max(c.period_end) from coverage c where c.chain_id = f.chain_id), 'covered', f.id, f.read_count,
           f.finished_at
      from finished f where f.state = 'succeeded' and f.lane = 'live'
),
looked_at as (
    update schedules s set held_until = null
      from finished f where s.chain_id = f.chain_id and s.held_until is not null and f.state = 'succeeded'
)
select id, state from finished
"""
"""Ends runs, live ones with their coverage; while batches of its stream wait to be acknowledged, one is *delivering* instead."""


async def finish(connection: Connection, end: Finish) -> RunState:
    """End a run whose fetch is complete: as succeeded with its coverage, or as unproven without (SPEC 5). Return its state.

    While batches of its stream wait for their acknowledgement it becomes *delivering* instead, and `store.sending` ends
    it. One transaction with whatever else the caller has open on ``connection``; a live run's end is one statement. Raises
    LeaseLost if the epoch has moved on; the chain's constraints refuse a live period that does not begin at the watermark.
    """
    if end.run.lane is not Lane.BACKFILL:
        return await _finish_one(connection, end)
    async with connection.transaction():
        state = await _finish_one(connection, end)
        await coverage.backfill(connection, end.run.id, end.now)
        return state


async def _finish_one(connection: Connection, end: Finish) -> RunState:
    state = (await _finish(connection, [end])).get(end.run.id)
    if state is None:
        raise lost(end.run)
    return state


async def _finish(connection: Connection | Pool, asked: Sequence[Finish]) -> dict[int, RunState]:
    """Return the states that runs have ended in, by id; those whose epoch has moved on are not among them."""
    counted = [one.counts for one in asked] if any(one.counts is not NOTHING for one in asked) else []
    rows = await connection.fetch(
        _FINISH,
        numbers(one.run.id for one in asked),
        numbers(one.run.epoch for one in asked),
        numbers(one.batch for one in asked),
        [RunState.SUCCEEDED if one.proven else RunState.UNPROVEN for one in asked],
        [one.now for one in asked],
        [to_json(one.report) for one in asked],
        numbers(one.run.chain_id for one in asked),
        numbers(one.run.destination_id for one in asked),
        [counts.read for counts in counted],
        [counts.inserted for counts in counted],
        [counts.updated for counts in counted],
        [counts.unchanged for counts in counted],
        [counts.misfits for counts in counted],
        [counts.quarantined for counts in counted],
    )
    return {row["id"]: RunState(row["state"]) for row in rows}


async def finish_many(pool: Pool, asked: Sequence[Finish]) -> list[RunState | Exception]:
    """End several runs in one transaction; return the state of each, LeaseLost where the epoch has moved on.

    If the database refuses one of them, whatever for, they are asked for in two halves, and so on until it stands alone:
    none fails its neighbours. A backfill, which may change rows of its chain, always has a transaction of its own.
    """
    if len(asked) > 1 and any(one.run.lane is Lane.BACKFILL for one in asked):
        return await _finish_halves(pool, asked)
    if asked[0].run.lane is Lane.BACKFILL:
        return [await _finish_backfill(pool, asked[0])]
    try:
        ended = await _finish(pool, asked)
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        return [error] if len(asked) == 1 else await _finish_halves(pool, asked)
    return [ended[one.run.id] if one.run.id in ended else lost(one.run) for one in asked]


async def _finish_halves(pool: Pool, asked: Sequence[Finish]) -> list[RunState | Exception]:
    middle = len(asked) // 2
    return [*await finish_many(pool, asked[:middle]), *await finish_many(pool, asked[middle:])]


async def _finish_backfill(pool: Pool, one: Finish) -> RunState | Exception:
    try:
        async with pool.acquire() as connection:
            return await finish(connection, one)
    except (LeaseLost, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        return error
