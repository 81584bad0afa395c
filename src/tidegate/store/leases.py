"""Table `runs`, in a worker's hands: leases and checkpoints. Every statement carries the lease's epoch (SPEC 5).

How a run that is complete ends stands in `store.ending`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from tidegate.domain.capacity import RateLimit
from tidegate.domain.errors import LeaseLost, TidegateError
from tidegate.domain.period import Period
from tidegate.domain.run import Lane, RunState
from tidegate.store.database import to_json

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool


class LeasedRun(msgspec.Struct, frozen=True):
    """All that a worker needs to know of a run it holds the lease of."""

    id: int
    epoch: int
    attempt: int
    lane: Lane
    due_at: datetime
    period: Period
    bounded: bool
    coverage_start: datetime
    chain_id: int
    tenant_id: str
    account_id: int
    account_name: str
    rate_limit: RateLimit | None
    workflow: str
    stream: str
    installation: str
    connection_id: int
    connection_fingerprint: str
    destination_id: int
    destination_fingerprint: str
    batch: int
    checkpoint: bytes | None
    not_before_at: datetime
    queued_at: datetime
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the records of one batch; the names are those of destinations.base.Written."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    misfits: int = 0
    quarantined: int = 0


_LEASE = """
with asked as (
    select r.id, case when r.lane = 'live' then coalesce(b.watermark, c.start_at) else r.period_start end as period_start,
           least(coalesce(b.head, c.start_at), r.period_start) as coverage_start,
           (r.lane = 'live' and r.period_end <= coalesce(b.watermark, c.start_at)) or n.account_id <> c.account_id as covered,
           c.id as chain_id, c.workflow, c.stream, a.name as account_name, a.id as account_id,
           a.rate_per_second, a.rate_burst, i.name as installation, i.connection_id,
           n.fingerprint as connection_fingerprint, i.destination_id, d.fingerprint as destination_fingerprint
      from runs r
      join chains c on c.id = r.chain_id
      join installations i on i.id = c.installation_id
      join accounts a on a.id = c.account_id
      join connections n on n.id = i.connection_id
      join destinations d on d.id = i.destination_id
     cross join lateral (
           select (select max(period_end) from coverage where chain_id = c.id) as watermark,
                  (select period_start from coverage where chain_id = c.id and previous_end is null) as head
             offset 0) b  -- looked up once, however often it is asked for
     where r.id = any($1::bigint[]) and r.state = $5  -- a parameter: else all that is in hand may be read for it
       for update of r skip locked for share of c
)
update runs r
   set state        = case when covered then 'superseded' else 'running' end,
       period_start = case when not covered then asked.period_start end,
       started_at   = case when covered then r.started_at else coalesce(r.started_at, $2) end,
       finished_at  = case when covered then $2 end,
       lease_until  = case when not covered then $3::timestamptz end,
       worker       = $4,
       attempt      = r.attempt + 1,
       epoch        = r.epoch + 1
  from asked
 where r.id = asked.id
returning r.id, r.epoch, r.attempt, r.lane, r.due_at, r.period_start, r.period_end, r.bounded, r.tenant_id, r.batch,
          r.checkpoint, r.not_before_at, coalesce(r.queued_at, $2) as queued_at, r.started_at,
          asked.covered, asked.coverage_start, asked.chain_id, asked.workflow, asked.stream, asked.account_name,
          asked.account_id, asked.rate_per_second, asked.rate_burst, asked.installation, asked.connection_id,
          asked.connection_fingerprint, asked.destination_id, asked.destination_fingerprint
"""


async def lease(
    connection: Connection | Pool, run_ids: Sequence[int], now: datetime, until: datetime, worker: str
) -> list[LeasedRun]:
    """Take the leases of those runs that are queued, and return them.

    The period's start is computed here, when the run starts: the watermark, or the chain's start (SPEC 2.7). A run
    whose period has meanwhile been covered, or whose connection now points at another platform account (SPEC 2.12), ends
    as superseded and is not returned; nor is one that is not queued.
    """
    rows = await connection.fetch(_LEASE, run_ids, now, until, worker, RunState.QUEUED)
    return [
        LeasedRun(
            id=row["id"], epoch=row["epoch"], attempt=row["attempt"], lane=Lane(row["lane"]), due_at=row["due_at"],
            period=Period(row["period_start"], row["period_end"]), bounded=row["bounded"],
            coverage_start=row["coverage_start"], chain_id=row["chain_id"], tenant_id=row["tenant_id"],
            account_id=row["account_id"], account_name=row["account_name"],
            rate_limit=RateLimit(row["rate_per_second"], row["rate_burst"]) if row["rate_per_second"] else None,
            workflow=row["workflow"], stream=row["stream"], installation=row["installation"],
            connection_id=row["connection_id"], connection_fingerprint=row["connection_fingerprint"],
            destination_id=row["destination_id"], destination_fingerprint=row["destination_fingerprint"],
            batch=row["batch"], checkpoint=row["checkpoint"], not_before_at=row["not_before_at"],
            queued_at=row["queued_at"], started_at=row["started_at"],
        )
        for row in rows if not row["covered"]
    ]  # fmt: skip


async def renew(pool: Pool, leases: Sequence[tuple[int, int]], until: datetime) -> set[int]:
    """Extend the leases (run id, epoch) and return the ids of those not lost: still held, or ended under their own epoch.

    Never waits: a run whose row another statement has in hand, such as one that ends many runs, keeps the lease that it has
    until the next time. Two statements that each wait for rows of the other would be a deadlock.
    """
    rows = await pool.fetch(
        """with asked as (select * from unnest($1::bigint[], $2::int[]) as l(id, epoch)),
                free as materialized (
                    select r.id from runs r join asked l on l.id = r.id and l.epoch = r.epoch
                     where r.state = 'running' for no key update of r skip locked
                ),
                renewed as (update runs r set lease_until = $3 from free f where r.id = f.id)
           select r.id from asked l join runs r on r.id = l.id and r.epoch = l.epoch
            where r.state not in ('waiting', 'queued', 'retrying')""",
        [run_id for run_id, _ in leases], [epoch for _, epoch in leases], until,
    )  # fmt: skip
    return {row["id"] for row in rows}


async def change_token(pool: Pool, run: LeasedRun) -> str | None:
    """Return the change token that the run which covers up to this one's period ended with, None if there is none.

    It stands in that run's report, which was written by the statement that wrote its coverage, and is found through that
    coverage: a token never advances without it (SPEC 5, HOLE s).
    """
    token: str | None = await pool.fetchval(
        """select nullif(r.report ->> 'change_token', '') from coverage c join runs r on r.id = c.run_id
            where c.chain_id = $1 and c.period_end = $2""",
        run.chain_id, run.period.start,
    )  # fmt: skip
    return token


_COUNT = """
       read_count = read_count + $4, inserted_count = inserted_count + $5, updated_count = updated_count + $6,
       unchanged_count = unchanged_count + $7, misfit_count = misfit_count + $8,
       quarantined_count = quarantined_count + $9"""


async def checkpoint(
    connection: Connection | Pool, run: LeasedRun, batch: int, position: bytes, counts: Counts
) -> None:
    """Record that a batch is delivered and where the run resumes; progress starts the count of attempts anew.

    Batches are entered without a gap. Raises LeaseLost if the epoch has moved on.
    """
    status = await connection.execute(
        f"""update runs set batch = $3, checkpoint = $10, attempt = 0, {_COUNT}
             where id = $1 and epoch = $2 and state = 'running' and batch = $3 - 1""",
        run.id, run.epoch, batch, counts.read, counts.inserted, counts.updated, counts.unchanged, counts.misfits,
        counts.quarantined, position,
    )  # fmt: skip
    _require_one(status, run)


async def retry(
    pool: Pool | Connection, run: LeasedRun, error: TidegateError, not_before_at: datetime, *, counted: bool
) -> None:
    """Put a run that could not go on back, to resume from its checkpoint at ``not_before_at``.

    ``counted``: whether this attempt counts towards giving up. A run that is not ours any more is left alone.
    """
    await pool.execute(
        """update runs set state = 'retrying', lease_until = null, not_before_at = $3, error = $4::text::jsonb,
                  attempt = attempt - $5
            where id = $1 and epoch = $2 and state = 'running'""",
        run.id, run.epoch, not_before_at, to_json(error.as_json()), 0 if counted else 1,
    )  # fmt: skip


async def release(pool: Pool, run: LeasedRun, now: datetime) -> None:
    """Give a run back, unharmed and uncounted, to be resumed by any worker (a graceful stop)."""
    await pool.execute(
        """update runs set state = 'retrying', lease_until = null, not_before_at = $3, attempt = greatest(attempt - 1, 0)
            where id = $1 and epoch = $2 and state = 'running'""",
        run.id, run.epoch, now,
    )  # fmt: skip


async def number_after(pool: Pool, run: LeasedRun, taken: int) -> None:
    """Let the run's batches be numbered after ``taken``: another database remembers batches of its number up to that, made
    under a ledger that is no more. Raises LeaseLost if the epoch has moved on.
    """
    status = await pool.execute(
        "update runs set batch = $3 where id = $1 and epoch = $2 and state = 'running'", run.id, run.epoch, taken
    )
    _require_one(status, run)


async def overtake(pool: Pool, run: LeasedRun, epoch: int, now: datetime) -> bool:
    """Give a run back whose next lease is to be newer than ``epoch``, if its lease is ours after all; return whether it is.

    Another database has seen that epoch and this one has not given it: the ledger is one restored from a backup.
    """
    status = await pool.execute(
        """update runs set state = 'retrying', lease_until = null, not_before_at = $4, epoch = greatest(epoch, $3),
                  attempt = greatest(attempt - 1, 0)
            where id = $1 and epoch = $2 and state = 'running'""",
        run.id, run.epoch, epoch, now,
    )  # fmt: skip
    return status == "UPDATE 1"


async def fail(connection: Connection | Pool, run: LeasedRun, error: TidegateError, now: datetime) -> bool:
    """End a run as failed; its period stays uncovered and is inside the next one (SPEC 2.7). False if it is not ours."""
    status = await connection.execute(
        """update runs set state = 'failed', lease_until = null, finished_at = $3, error = $4::text::jsonb
            where id = $1 and epoch = $2 and state = 'running'""",
        run.id, run.epoch, now, to_json(error.as_json()),
    )  # fmt: skip
    return status == "UPDATE 1"


async def reclaim(connection: Connection | Pool, now: datetime, most_attempts: int) -> list[int]:
    """Take back the runs whose lease has expired, to be resumed; return their ids.

    At once for the first attempts in a row, then after growing waits; a run that has taken its worker with it
    ``most_attempts`` times without progress ends as failed.
    """
    rows = await connection.fetch(
        """update runs set state = case when attempt >= $2 then 'failed' else 'retrying' end,
                  finished_at = case when attempt >= $2 then $1::timestamptz end,
                  error = case when attempt >= $2 then
                      '{"code": "worker_lost", "message": "Its worker died or froze, again and again."}'::jsonb else error end,
                  lease_until = null,
                  not_before_at = $1 + case when attempt <= 3 then interval '0'
                                            else least(interval '1 s' * 2 ^ least(attempt, 20), interval '15 min') end
            where id in (select id from runs where state = 'running' and lease_until < $1 order by id for update skip locked)
           returning id""",
        now,
        most_attempts,
    )
    return [row["id"] for row in rows]


def _require_one(status: str, run: LeasedRun) -> None:
    if status != "UPDATE 1":
        raise lost(run)


def lost(run: LeasedRun) -> LeaseLost:
    """Return the error of a worker whose lease was taken over."""
    return LeaseLost(
        f"Run {run.id} is no longer ours: its lease of epoch {run.epoch} was taken over.",
        remedy="Nothing to do: the worker that took it over goes on from the last checkpoint.",
        run_id=run.id, epoch=run.epoch,
    )  # fmt: skip
