"""Compaction: old neighbours of one kind in table `coverage` become one row, their counts summed (SPEC 5).

A year at five-minute cadence is 105,120 rows of a stream; what is asked of old coverage is from where to where, and how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tidegate.store.coverage import FOLLOWS

if TYPE_CHECKING:
    import asyncpg

    from tidegate.store.database import Pool

CHAINS, ROWS = 100, 500
"""Chains looked at in one transaction, and rows of each, so that none takes long."""
AGAIN = timedelta(days=1)
"""When a chain whose old coverage is compact is looked at again."""

_CHOOSE = """
select id from chains where compact_at <= $1 order by compact_at limit $2 for no key update skip locked
"""

_ROWS = """
select k.chain_id, k.kind, k.reason, k.period_start, k.period_end, k.previous_end, k.records, k.periods,
       row_number() over (partition by k.chain_id order by k.period_end)
       - row_number() over (partition by k.chain_id, k.kind, k.reason order by k.period_end) as island
  from unnest($1::bigint[]) as c(id)
 cross join lateral (select * from coverage where chain_id = c.id and period_end <= $2 order by period_end limit $3) k
"""

_GROUPS = f"""
select chain_id, min(period_start) as period_start, max(period_end) as period_end,
       (array_agg(previous_end order by period_end))[1] as previous_end, sum(records)::bigint as records,
       sum(periods)::int as periods, count(*)::int as rows
  from ({_ROWS}) k
 group by chain_id, kind, reason, island having count(*) > 1
"""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What one transaction did: chains looked at, and rows that became fewer."""

    chains: int
    rows: int


async def compact(pool: Pool, now: datetime, older_than: timedelta) -> Compacted:
    """Merge neighbours of one kind that ended ``older_than`` ago or longer, of some chains, in one transaction.

    Waivers are neighbours of one kind if their reasons are the same. The row that stays is the newest: it keeps its run,
    and counts how many periods it stands for. Chains that others are changing are passed over. The foreign key along the
    chain is checked at the end, so at every instant every reader sees a whole chain.
    """
    async with pool.acquire() as connection, connection.transaction():
        chosen = [row["id"] for row in await connection.fetch(_CHOOSE, now, CHAINS)]
        if not chosen:
            return Compacted(0, 0)
        await connection.execute(f"set constraints {FOLLOWS} deferred")
        groups = await connection.fetch(_GROUPS, chosen, now - older_than, ROWS)
        if groups:
            await _merge(connection, groups)
        await connection.execute(
            """update chains set compact_at = case when id = any($2::bigint[]) then $3::timestamptz else $4 end
                where id = any($1::bigint[])""",
            chosen, list({group["chain_id"] for group in groups}), now, now + AGAIN,
        )  # fmt: skip
    return Compacted(len(chosen), sum(group["rows"] - 1 for group in groups))


async def _merge(
    connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record], groups: Sequence[asyncpg.Record]
) -> None:
    spans = [[group[name] for group in groups] for name in ("chain_id", "period_start", "period_end")]
    await connection.execute(
        """delete from coverage k using unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[])
                                        as g(chain_id, period_start, period_end)
            where k.chain_id = g.chain_id and k.period_end > g.period_start and k.period_end < g.period_end""",
        *spans,
    )
    await connection.execute(
        """update coverage k set period_start = g.period_start, previous_end = g.previous_end, records = g.records,
                                 periods = g.periods
             from unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::bigint[], $6::int[])
                  as g(chain_id, period_start, period_end, previous_end, records, periods)
            where k.chain_id = g.chain_id and k.period_end = g.period_end""",
        *spans,
        *([group[name] for group in groups] for name in ("previous_end", "records", "periods")),
    )
