"""Table `coverage`: what changes a chain beside the live runs that append to it (SPEC 2.11, 5).

Each change locks the chain first and is part of the caller's transaction; where rows are put in front of others the foreign
key is checked at the end of it, so that no one ever sees a chain with a gap or a second head.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.domain.period import Period

if TYPE_CHECKING:
    import asyncpg

    from tidegate.store.database import Connection

FOLLOWS = "coverage_chain_id_previous_end_fkey"
"""The constraint by which each row follows another; it can be deferred to the end of a transaction."""


async def lock(connection: Connection, chain_id: int) -> None:
    """Keep others from changing the chain, and workers from taking leases of its runs, until the transaction ends."""
    await connection.execute("select 1 from chains where id = $1 for no key update", chain_id)


async def waive(connection: Connection, chain_id: int, period: Period, reason: str, now: datetime) -> None:
    """Append a waiver to the end of a chain; its constraints refuse any other place (SPEC 5)."""
    await connection.execute(
        """insert into coverage (chain_id, period_start, period_end, previous_end, kind, reason, committed_at)
           select $1, $2, $3, (select max(period_end) from coverage where chain_id = $1), 'waived', $4, $5""",
        chain_id, period.start, period.end, reason, now,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Backfilled:
    """A backfill that has delivered and proven its period."""

    chain_id: int
    run_id: int
    period: Period
    records: int
    now: datetime


async def backfill(connection: Connection, run_id: int, now: datetime) -> None:
    """Write what a run covers that was not, if it is a backfill and has succeeded, in the transaction in which it did.

    That is the stretch in front of the head, and waived ones; inside what is covered already no row changes (SPEC 2.11).
    Raises IntegrityConstraintViolationError if the chain would break.
    """
    row = await connection.fetchrow(
        """select chain_id, period_start, period_end, read_count from runs
            where id = $1 and lane = 'backfill' and state = 'succeeded'""",
        run_id,
    )
    if row is None:
        return
    period = Period(row["period_start"], row["period_end"])
    await _cover(connection, _Backfilled(row["chain_id"], run_id, period, row["read_count"], now))


async def _cover(connection: Connection, done: _Backfilled) -> None:
    await lock(connection, done.chain_id)
    await connection.execute(f"set constraints {FOLLOWS} deferred")
    await _extend_head(connection, done)
    for link in await connection.fetch(
        """select period_start, period_end, previous_end, reason, committed_at from coverage
            where chain_id = $1 and kind = 'waived' and period_start < $3 and period_end > $2 order by period_end""",
        done.chain_id, done.period.start, done.period.end,
    ):  # fmt: skip
        await _split(connection, done, link)
    await connection.execute(f"set constraints {FOLLOWS} immediate")


_INSERT = """
insert into coverage (chain_id, period_start, period_end, previous_end, kind, run_id, reason, records, committed_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""


async def _extend_head(connection: Connection, done: _Backfilled) -> None:
    head = await connection.fetchval(
        """update coverage set previous_end = period_start
            where chain_id = $1 and previous_end is null and period_start > $2 and period_start <= $3
           returning period_start""",
        done.chain_id, done.period.start, done.period.end,
    )  # fmt: skip
    if head is None:
        return
    await connection.execute(
        _INSERT, done.chain_id, done.period.start, head, None, "covered", done.run_id, "", done.records, done.now
    )
    await connection.execute(
        "update chains set start_at = least(start_at, $2) where id = $1", done.chain_id, done.period.start
    )


_KEEP_END = """
update coverage set period_start = $3, previous_end = $4, kind = $5, run_id = $6, reason = $7, records = $8,
       committed_at = $9, periods = 1
 where chain_id = $1 and period_end = $2
"""


async def _split(connection: Connection, done: _Backfilled, link: asyncpg.Record) -> None:
    """Replace a waived link by the waived parts before and behind the backfill, if any, and the covered one between.

    The records are counted with the first row that the run covers. The row with the link's end stays and becomes the last
    part: a live run that ends meanwhile and appends to it waits, and then finds it; a row made anew it could not see.
    """
    start, end, previous_end = link["period_start"], link["period_end"], link["previous_end"]
    begin, until = max(start, done.period.start), min(end, done.period.end)
    counted = await connection.fetchval(
        "select exists (select 1 from coverage where chain_id = $1 and run_id = $2)", done.chain_id, done.run_id
    )
    waived = ("waived", None, link["reason"], 0, link["committed_at"])
    covered = ("covered", done.run_id, "", 0 if counted else done.records, done.now)
    parts = [
        part for part in ((start, begin, waived), (begin, until, covered), (until, end, waived)) if part[0] < part[1]
    ]
    for period_start, period_end, values in reversed(parts):
        before = previous_end if period_start == start else period_start
        if period_end == end:
            await connection.execute(_KEEP_END, done.chain_id, end, period_start, before, *values)
        else:
            await connection.execute(_INSERT, done.chain_id, period_start, period_end, before, *values)
