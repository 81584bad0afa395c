"""Table `runs`, before a worker has them: due dates become waiting runs, and waiting runs are queued (SPEC 2, 3, 7).

`runs` is the only truth about work. What is done to a run under a lease stands in `store.leases`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from tidegate.domain.catch_up import Standing
from tidegate.domain.period import Period
from tidegate.domain.run import Lane, RunState, Trigger
from tidegate.store import database
from tidegate.store.schedules import Move
from tidegate.store.waiting import DISPATCH, HELD_BACK

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool


class PlannedRun(NamedTuple):
    """A due date that has become a run.

    ``bounded``: fetched to its end only, whatever its stream. ``follows_at``: it starts only once the chain is covered to
    there; None for at once.
    """

    chain_id: int
    trigger: Trigger
    first_due_at: datetime
    due_at: datetime
    period_end: datetime
    not_before_at: datetime
    lane: Lane = Lane.LIVE
    bounded: bool = False
    follows_at: datetime | None = None


_ANEW = """
on conflict (chain_id, lane, period_end) do update
   set state = 'waiting', trigger = excluded.trigger, first_due_at = excluded.first_due_at, due_at = excluded.due_at,
       not_before_at = excluded.not_before_at, attempt = 0, started_at = null, finished_at = null, period_start = null,
       checkpoint = null, error = null, report = null, read_count = 0, inserted_count = 0, updated_count = 0,
       unchanged_count = 0, misfit_count = 0, quarantined_count = 0, bounded = excluded.bounded,
       follows_at = excluded.follows_at
 where runs.state in ('dropped', 'failed', 'unproven', 'superseded')
"""
"""A run that ended without covering its period is planned anew under its own identity, from the beginning."""

_PLAN = (
    """
insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end, not_before_at,
                  bounded, follows_at)
select p.chain_id, c.tenant_id, c.account_id, p.lane, p.trigger, 'waiting', p.first_due_at, p.due_at, p.period_end,
       p.not_before_at, p.bounded, p.follows_at
  from unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
              $7::text[], $8::boolean[], $9::timestamptz[])
       as p(chain_id, trigger, first_due_at, due_at, period_end, not_before_at, lane, bounded, follows_at)
  join chains c on c.id = p.chain_id
"""
    + _ANEW
)

STILL_WAITS = "state || '' = 'waiting'"
"""Of runs found by id: written so that no index of waiting runs can be read in place of asking for the ids."""

_COALESCE = f"""
with ready as (
    select id, row_number() over newest as nth, min(first_due_at) over whole as first_due_at,
           min(not_before_at) over whole as not_before_at
      from runs
     where id = any($1::bigint[]) and {STILL_WAITS} and trigger = 'schedule' and epoch = 0 and not_before_at <= $2
    window whole as (partition by chain_id, lane), newest as (whole order by period_end desc)
),
merged as (
    delete from runs r using ready where r.id = ready.id and ready.nth > 1 and r.{STILL_WAITS}
)
update runs r set first_due_at = ready.first_due_at, not_before_at = ready.not_before_at
  from ready where r.id = ready.id and ready.nth = 1 and r.{STILL_WAITS} and r.first_due_at > ready.first_due_at
"""


async def plan(connection: Connection, runs: Sequence[PlannedRun]) -> None:
    """Turn due dates into waiting runs.

    A due date whose run exists already, under the identity of SPEC 2.12, adds nothing; if that run ended without covering,
    it is planned anew.
    """
    if runs:
        await connection.execute(_PLAN, *zip(*runs, strict=True))


async def with_waiting(connection: Connection, chain_ids: Sequence[int]) -> set[int]:
    """Return those of the chains of which a run waits."""
    return {chain_id for chain_id, _ in await _those(connection, chain_ids, "state = 'waiting'")}


async def _those(connection: Connection, chain_ids: Sequence[int], condition: str) -> list[tuple[int, int]]:
    """Return (chain, id) of the runs of these chains of which ``condition``, that of an index by chain, holds.

    In a transaction that may not sort (`database.find_by_index`) those of other chains cost nothing, however many the server
    believes there are.
    """
    if not chain_ids:
        return []
    rows = await connection.fetch(
        f"select chain_id, id from runs where chain_id = any($1::bigint[]) and {condition} order by chain_id", chain_ids
    )
    return [(row[0], row[1]) for row in rows]


async def coalesce(connection: Connection, chain_ids: Sequence[int], now: datetime) -> None:
    """Merge the planned runs of each chain whose run date has come without their having started (SPEC 2.8).

    What is merged is one run up to the newest of these due dates, which remembers the oldest.
    """
    if waiting := await _those(connection, chain_ids, "state = 'waiting'"):
        async with database.sorting(connection):
            await connection.execute(_COALESCE, [run_id for _, run_id in waiting], now)


_STANDING = """
select c.id, coalesce(b.watermark, c.start_at) as covered_until, l.*
  from chains c
 cross join lateral (select max(period_end) as watermark from coverage where chain_id = c.id) b
 cross join lateral (
       select max(period_end) filter (where state in ('waiting', 'queued', 'running', 'retrying', 'delivering')) as taken_until,
              count(*) filter (where state = 'waiting') as waiting,
              count(*) filter (where state in ('queued', 'running', 'retrying', 'delivering')) as active,
              (array_agg(follows_at order by period_end) filter (where state = 'waiting'))[1] as front_until,
              count(*) filter (where state in ('failed', 'unproven')) > 0 as failed,
              max(started_at) filter (where state in ('failed', 'unproven')) as tried_at
         from runs where chain_id = c.id and lane = 'live' and period_end > coalesce(b.watermark, c.start_at)) l
 where c.id = any($1::bigint[])
"""


async def standings(connection: Connection, chain_ids: Sequence[int], now: datetime) -> dict[int, Standing]:
    """Return where these chains stand, by id; runs that wait for a period covered meanwhile end as superseded."""
    if not chain_ids:
        return {}
    await supersede(connection, chain_ids, now)
    rows = await connection.fetch(_STANDING, chain_ids)
    return {row["id"]: Standing(**{name: value for name, value in row.items() if name != "id"}) for row in rows}


async def supersede(connection: Connection, chain_ids: Sequence[int], now: datetime) -> None:
    """End the live runs that have not started and whose period has been covered or waived meanwhile (SPEC 2.7)."""
    if waiting := await _those(connection, chain_ids, "state = 'waiting'"):
        await connection.execute(
            f"""update runs r set state = 'superseded', finished_at = $2
                 where id = any($1::bigint[]) and lane = 'live' and {STILL_WAITS}
                   and period_end <= (select max(k.period_end) from coverage k where k.chain_id = r.chain_id)""",
            [run_id for _, run_id in waiting], now,
        )  # fmt: skip


async def request(connection: Connection, run: PlannedRun) -> int:
    """Insert a run that a person asked for, or return the one that exists for the same chain, lane and end (HOLE r)."""
    await connection.execute(
        """insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end,
                             not_before_at, bounded, follows_at)
           select c.id, c.tenant_id, c.account_id, $2, $3, 'waiting', $4, $4, $5, $6, $7, $8 from chains c where c.id = $1"""
        + _ANEW,
        run.chain_id, run.lane, run.trigger, run.due_at, run.period_end, run.not_before_at, run.bounded, run.follows_at,
    )  # fmt: skip
    run_id: int = await connection.fetchval(
        "select id from runs where chain_id = $1 and lane = $2 and period_end = $3",
        run.chain_id, run.lane, run.period_end,
    )  # fmt: skip
    return run_id


@dataclass(frozen=True, slots=True)
class BackfillRun:
    """The run of the backfill lane that ends at one instant, as it stands."""

    id: int
    period_start: datetime
    state: RunState


async def request_backfill(connection: Connection, chain_id: int, period: Period, now: datetime) -> BackfillRun:
    """Insert a backfill that a person asked for, or return the one that exists for the same chain and end (HOLE r).

    One that has ended is done anew from ``period.start``, under its identity (SPEC 2.12).
    """
    await connection.execute(
        """insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_start,
                             period_end, not_before_at, bounded)
           select c.id, c.tenant_id, c.account_id, 'backfill', 'manual', 'waiting', $4, $4, $2, $3, $4, true
             from chains c where c.id = $1
           on conflict (chain_id, lane, period_end) do update
              set state = 'waiting', first_due_at = excluded.first_due_at, due_at = excluded.due_at,
                  period_start = excluded.period_start, not_before_at = excluded.not_before_at, attempt = 0,
                  started_at = null, finished_at = null, checkpoint = null, error = null, report = null, read_count = 0,
                  inserted_count = 0, updated_count = 0, unchanged_count = 0, misfit_count = 0, quarantined_count = 0
            where runs.state in ('dropped', 'failed', 'unproven', 'succeeded', 'superseded')""",
        chain_id, period.start, period.end, now,
    )  # fmt: skip
    row = await connection.fetchrow(
        "select id, period_start, state from runs where chain_id = $1 and lane = 'backfill' and period_end = $2",
        chain_id, period.end,
    )  # fmt: skip
    assert row is not None
    return BackfillRun(row["id"], row["period_start"], RunState(row["state"]))


async def backfill_again(connection: Connection, moves: Sequence[Move], now: datetime) -> None:
    """Do the backfills anew that lead from a chain's start to its head, and were last tried before a due date that has
    passed (SPEC 2.8, 2.10): nobody but the planner asks for those again.
    """
    planned_until = {move.chain_id: move.planned_until for move in moves}
    failed = await _those(connection, list(planned_until), "lane = 'backfill' and state in ('failed', 'unproven')")
    if not failed:
        return
    await connection.execute(
        """update runs r
              set state = 'waiting', due_at = greatest($3, r.first_due_at), period_start = c.start_at, not_before_at = $3,
                  attempt = 0, started_at = null, finished_at = null, checkpoint = null, error = null, report = null,
                  read_count = 0, inserted_count = 0, updated_count = 0, unchanged_count = 0, misfit_count = 0,
                  quarantined_count = 0
             from unnest($1::bigint[], $2::timestamptz[]) m (run_id, planned_until), chains c, coverage h
            where r.id = m.run_id and r.state || '' in ('failed', 'unproven')
              and coalesce(r.started_at, r.finished_at) < m.planned_until and c.id = r.chain_id
              and h.chain_id = r.chain_id and h.previous_end is null and h.period_start = r.period_end
              and h.period_start > c.start_at""",
        [run_id for _, run_id in failed], [planned_until[chain_id] for chain_id, _ in failed], now,
    )  # fmt: skip


async def drop_backfill(connection: Connection, chain_id: int, period_end: datetime, now: datetime) -> bool:
    """Drop the backfill that ends there if it has not been chosen yet; return whether none is active now."""
    await connection.execute(
        """update runs set state = 'dropped', finished_at = $3
            where chain_id = $1 and lane = 'backfill' and period_end = $2 and state = 'waiting'""",
        chain_id, period_end, now,
    )  # fmt: skip
    active: bool = await connection.fetchval(
        """select exists (select 1 from runs where chain_id = $1 and lane = 'backfill' and period_end = $2
                                               and state in ('queued', 'running', 'retrying', 'delivering'))""",
        chain_id, period_end,
    )  # fmt: skip
    return not active


async def hold_waiting(connection: Connection, chain_id: int) -> bool:
    """Keep the waiting runs of a chain from being chosen until the transaction ends; return whether none is active."""
    await connection.execute(
        "select 1 from runs where chain_id = $1 and state = 'waiting' order by id for update", chain_id
    )
    active: bool = await connection.fetchval(
        """select exists (select 1 from runs
                           where chain_id = $1 and state in ('queued', 'running', 'retrying', 'delivering'))""",
        chain_id,
    )
    return not active


async def dispatch(connection: Connection, now: datetime, room: int) -> list[tuple[int, int, bool]]:
    """Choose up to ``room`` runs whose planned run date has come, mark them queued, return (id, epoch, live) of each.

    Live before backfill; within a lane the tenants take turns; no platform account and no connection gets more than its
    limit, none while its source asked for a pause; of one chain only the oldest period, and none while another run of it
    is active (SPEC 2.9, 3).
    """
    rows = await connection.fetch(DISPATCH, now, room)
    return [(row["id"], row["epoch"], row["live"]) for row in rows]


async def count_queued(connection: Connection) -> int:
    """Return how many runs have been handed to the queue and not been taken by a worker yet."""
    count: int = await connection.fetchval("select count(*) from runs where state = 'queued'")
    return count


async def stale_queued(connection: Connection, now: datetime, age: timedelta) -> list[tuple[int, int, bool]]:
    """Return (id, epoch, live) of runs that were handed to the queue longer than ``age`` ago and not taken."""
    rows = await connection.fetch(
        "select id, epoch, lane = 'live' as live from runs where state = 'queued' and queued_at < $1 limit 1000",
        now - age,
    )
    return [(row["id"], row["epoch"], row["live"]) for row in rows]


async def drop_waiting(
    connection: Connection, chain_ids: Sequence[int], now: datetime, *, only_planned: bool = False
) -> int:
    """Drop the runs of these chains that have not started (pause, SPEC 2.11); return how many.

    ``only_planned``: those that a schedule made and the dispatcher has not chosen yet (edit of a rule, SPEC 2.10).
    """
    status = await connection.execute(
        """update runs set state = 'dropped', finished_at = $2
            where chain_id = any($1::bigint[]) and state in ('waiting', 'queued') and started_at is null
              and (not $3 or (state = 'waiting' and trigger = 'schedule'))""",
        chain_ids, now, only_planned,
    )  # fmt: skip
    return int(status.split()[-1])


async def drop_stranded(connection: Connection | Pool, run_ids: Sequence[int], now: datetime) -> int:
    """Drop those of these manual runs that wait behind one of them that has ended without covering; return how many.

    None of them could start: each waits until the chain is covered to where it begins (SPEC 2.8, `max_period`).
    """
    status = await connection.execute(
        f"""update runs r set state = 'dropped', finished_at = $2
            where id = any($1::bigint[]) and state = 'waiting' and trigger = 'manual' and {HELD_BACK}
              and exists (select 1 from runs b where b.id = any($1::bigint[]) and b.chain_id = r.chain_id and b.lane = r.lane
                             and b.period_end < r.period_end and b.state in ('failed', 'unproven', 'dropped'))""",
        run_ids, now,
    )  # fmt: skip
    return int(status.split()[-1])


async def outstanding(connection: Connection | Pool, now: datetime) -> tuple[int, datetime | None]:
    """Return how many runs are to be started by ``now`` or in hand, and the earliest planned run date of the others.

    A run behind one of its chain that is put back until later, behind a period that is not covered, or of an account that
    is held (SPEC 3), cannot start by ``now``.
    """
    row = await connection.fetchrow(
        f"""select count(*) filter (where state in ('queued', 'running') or startable_at <= $1 and not exists (
                      select 1 from runs a where a.chain_id = r.chain_id and a.lane = r.lane and a.id <> r.id
                                             and (a.state = 'retrying' and a.not_before_at > $1 or a.state = 'delivering'))
                  and not ({HELD_BACK})) as now,
                  min(startable_at) filter (where state in ('waiting', 'retrying') and startable_at > $1) as later
             from runs r join accounts h on h.id = r.account_id
            cross join lateral (select greatest(r.not_before_at, h.hold_until) as startable_at) s
            where state in ('waiting', 'queued', 'running', 'retrying')""",
        now,
    )
    assert row is not None
    return row["now"], row["later"]
