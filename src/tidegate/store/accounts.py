"""Table `accounts`: what each platform account allows, shared by all runs in all processes (SPEC 3).

The allowance is a bucket kept as one instant: ``free_at``, when every request granted so far has had its turn. Granting
moves it on by one gap per request, in one statement, whoever asks; nobody waits but for the row itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tidegate.domain.capacity import SHARE_OF_BURST, SHARE_OF_RATE

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool


@dataclass(frozen=True, slots=True)
class Granted:
    """What one account granted: ``count`` requests, one every ``gap`` from ``first_at`` on.

    ``again_at``: when to ask for more. ``held_until``: until when its source asked for a pause, None if it did not.
    """

    account_id: int
    count: int
    first_at: datetime
    gap: timedelta
    again_at: datetime
    held_until: datetime | None


_RESERVE = """
with asked as (
    select * from unnest($1::bigint[], $2::int[]) as a(id, wanted)
),
locked as (
    select a.id, k.wanted, case when a.hold_until > $3 then a.hold_until end as held_until,
           greatest(a.free_at, $3) as base,
           interval '1 s' / (a.rate_per_second * $5) as gap,
           greatest(1, floor(a.rate_burst * $6)) as burst
      from accounts a join asked k on k.id = a.id
     where a.rate_per_second is not null
     order by a.id for update of a
),
granted as (
    select *, case when held_until is not null then 0 else least(wanted, greatest(0, ceil(
                  extract(epoch from $3 + $4::interval + burst * gap - base) / extract(epoch from gap)))) end::int as count
      from locked
),
taken as (
    update accounts a set free_at = g.base + g.count * g.gap from granted g where a.id = g.id and g.count > 0
)
select id as account_id, count, base + gap - burst * gap as first_at, gap, held_until,
       coalesce(held_until, base + (count + 1) * gap - burst * gap - $4::interval / 2) as again_at
  from granted
"""


async def reserve(
    pool: Pool, wanted: Sequence[tuple[int, int]], now: datetime, horizon: timedelta
) -> dict[int, Granted]:
    """Reserve up to so many requests of each account, (id, how many), due within ``horizon``; none while it is held.

    One statement for all. An account without a rate is not among what is returned.
    """
    rows = await pool.fetch(
        _RESERVE,
        [account_id for account_id, _ in wanted],
        [count for _, count in wanted],
        now,
        horizon,
        SHARE_OF_RATE,
        SHARE_OF_BURST,
    )
    return {row["account_id"]: Granted(**row) for row in rows}


async def hold(connection: Connection | Pool, account_id: int, until: datetime, reason: str) -> None:
    """Hold back everything of an account until then; an earlier end than one already told changes nothing.

    Afterwards it starts without a burst: whoever asked for a pause has an empty bucket.
    """
    await connection.execute(
        """update accounts
              set hold_until = $2, hold_reason = $3,
                  free_at = greatest(free_at, $2 + coalesce(rate_burst * interval '1 s' / rate_per_second, interval '0'))
            where id = $1 and (hold_until is null or hold_until < $2)""",
        account_id,
        until,
        reason,
    )


async def held(pool: Pool, now: datetime) -> dict[int, datetime]:
    """Return until when accounts are held back, those that are now."""
    rows = await pool.fetch("select id, hold_until from accounts where hold_until > $1", now)
    return {row["id"]: row["hold_until"] for row in rows}
