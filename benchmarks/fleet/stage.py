"""A fleet in the real store, made by the thousand: tenants, connections, chains and schedules; and a chain's year."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.domain.instant import render_instant
from tidegate.engine.parts import Parts
from tidegate.store import directory
from tidegate.store.database import to_json

if TYPE_CHECKING:
    from tidegate.store.database import Pool

STATIC = str(Path(__file__).parents[1] / "small_runs" / "static.yaml")
PER_TENANT = 1000
AT_ONCE = 50_000
NEVER_SOON = timedelta(days=30)
RUNS_KEPT = timedelta(days=90)


async def settle_in(parts: Parts, url: str, count: int, now: datetime) -> None:
    """Make ``count`` installations of a static source, all next due in a month."""
    tenants = [f"t{number}" for number in range(-(-count // PER_TENANT))]
    sealed = [parts.sealer.seal({}, directory.connection_place(tenant, "c")) for tenant in tenants]
    own = parts.sealer.seal({}, directory.destination_place("own"))
    async with parts.pool.acquire() as connection, connection.transaction():
        await connection.execute("insert into tenants select unnest($1::text[]), '', $2", tenants, now)
        await connection.execute(
            "insert into accounts (connector, name, concurrency_limit) select $2, unnest($1::text[]), 1000",
            tenants,
            STATIC,
        )
        await connection.execute(
            """insert into connections (tenant_id, name, connector, account_id, settings, sealed, fingerprint)
               select g.tenant, 'c', $3, a.id, $4::text::jsonb, g.sealed, 'f'
                 from unnest($1::text[], $2::bytea[]) as g(tenant, sealed) join accounts a on a.name = g.tenant""",
            tenants, sealed, STATIC, to_json({"base_url": url}),
        )  # fmt: skip
        await connection.execute(
            "insert into destinations (name, kind, settings, sealed, fingerprint) values ('own', 'postgresql', '{}', $1, 'f')",
            own,
        )
    for first in range(0, count, AT_ONCE):
        await _chains(parts.pool, first, min(AT_ONCE, count - first), now)
    await parts.pool.execute("analyze tenants, connections, installations, chains, schedules", timeout=600)


async def _chains(pool: Pool, first: int, count: int, now: datetime) -> None:
    await pool.execute(
        """with made as (
               insert into installations (tenant_id, name, connection_id, destination_id)
               select n.tenant_id, 'i' || g, n.id, d.id
                 from generate_series($1::int, $1::int + $2::int - 1) g
                 join connections n on n.tenant_id = 't' || g / $3::int cross join destinations d
               returning id, tenant_id, connection_id
           ),
           linked as (
               insert into chains (tenant_id, installation_id, workflow, stream, account_id, start_at)
               select m.tenant_id, m.id, 'sync', 'orders', n.account_id, $4::timestamptz - interval '2 days'
                 from made m join connections n on n.id = m.connection_id
               returning id
           )
           insert into schedules (chain_id, rule, received_at, planned_until, next_due_at)
           select id, $5::text::jsonb, $4, $4, $4::timestamptz + $6::interval from linked""",
        first, count, PER_TENANT, now,
        to_json({"every": "1d", "start_at": render_instant((now - timedelta(days=2)).replace(microsecond=0))}),
        NEVER_SOON, timeout=600,
    )  # fmt: skip


async def point_at(pool: Pool, url: str) -> None:
    """Let every connection ask the source at ``url``."""
    await pool.execute("update connections set settings = $1::text::jsonb", to_json({"base_url": url}))


async def make_due(pool: Pool, count: int, now: datetime, *, each_its_own: bool = False) -> None:
    """Let the first ``count`` schedules, and no other, be due: at one instant and of one rule, or each of its own."""
    start_at = (now - timedelta(days=2)).replace(microsecond=0)
    await pool.execute(
        """update schedules set next_due_at = $1::timestamptz + $2::interval
            where next_due_at < $1::timestamptz + $2::interval / 2""",
        now, NEVER_SOON, timeout=600,
    )  # fmt: skip
    await pool.execute(
        """update schedules s
              set rule = jsonb_build_object('every', '1d', 'start_at', $3::timestamptz - $4::interval * nth),
                  next_due_at = $2::timestamptz - interval '1 s' - $4::interval * nth,
                  planned_until = $2::timestamptz - interval '1 day' - interval '1 s' - $4::interval * nth
             from (select chain_id, row_number() over (order by chain_id) % 80000 as nth
                     from (select chain_id from schedules order by chain_id limit $1) s) n
            where s.chain_id = n.chain_id""",
        count, now, start_at, timedelta(seconds=1 if each_its_own else 0), timeout=600,
    )  # fmt: skip
    await pool.execute("vacuum analyze schedules", timeout=600)


async def make_steady(pool: Pool, rate: int, begin: datetime) -> None:
    """Let ``rate`` schedules fall due each second from ``begin`` on: sixty seconds' worth of them, each every minute."""
    begin = begin.replace(microsecond=0)
    rules = [
        to_json({"every": "1m", "start_at": render_instant(begin - timedelta(hours=1) + timedelta(seconds=second))})
        for second in range(60)
    ]
    await pool.execute(
        """with chosen as (select chain_id, row_number() over (order by chain_id desc) % 60 as second
                           from (select chain_id from schedules order by chain_id desc limit $1) s)
           update schedules s set rule = ($2::text[])[chosen.second + 1]::jsonb, received_at = $3, planned_until = $3,
                  next_due_at = $3::timestamptz + interval '1 s' * chosen.second
             from chosen where s.chain_id = chosen.chain_id""",
        rate * 60, rules, begin, timeout=600,
    )  # fmt: skip
    await pool.execute("vacuum analyze schedules", timeout=600)


async def end_day(pool: Pool, day: int, now: datetime) -> None:
    """Let what was planned on this day of many succeed, what is old go, and the server tidy up as it would by itself: it
    does so once a fifth of a table has changed, and looks at its contents once a tenth has.
    """
    await pool.execute("update runs set state = 'queued', queued_at = $1 where state = 'waiting'", now, timeout=600)
    await pool.execute(
        "update runs set state = 'succeeded', started_at = $1, finished_at = $1 where state = 'queued'",
        now,
        timeout=600,
    )
    await pool.execute("delete from runs where finished_at < $1", now - RUNS_KEPT, timeout=600)
    await pool.execute("vacuum analyze schedules", timeout=600)
    if day % 6 == 0:
        await pool.execute("vacuum runs", timeout=600)
    if day % 9 == 0:
        await pool.execute("analyze runs", timeout=600)


async def live_a_year(pool: Pool, chain_id: int, now: datetime) -> int:
    """Give one chain a year of runs and coverage at a cadence of five minutes; return how many."""
    return int(
        await pool.fetchval(
            """with due as (
                   select row_number() over (order by g) as nth, g as due_at
                     from generate_series($2::timestamptz - interval '365 days' + interval '5 minutes', $2, '5 minutes') g
               ),
               made as (
                   insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_start,
                                     period_end, not_before_at, queued_at, started_at, finished_at, epoch, batch, report)
                   select c.id, c.tenant_id, c.account_id, 'live', 'schedule', 'succeeded', due_at, due_at,
                          due_at - interval '5 minutes', due_at, due_at, due_at, due_at, due_at, 1, 1, '{"complete": true}'
                     from due cross join chains c where c.id = $1 order by nth returning id, period_start, period_end
               ),
               kept as (
                   insert into coverage (chain_id, period_start, period_end, previous_end, kind, run_id, records, committed_at)
                   select $1, period_start, period_end, lag(period_end) over (order by period_end), 'covered', id, 3, period_end
                     from made
               )
               select count(*) from made""",
            chain_id, now, timeout=600,
        )
    )  # fmt: skip
