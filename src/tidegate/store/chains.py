"""Tables `chains` and `coverage`: the ledger that the database itself keeps without gap or overlap (SPEC 5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.domain.coverage import Link, LinkKind, Uncovered
from tidegate.domain.errors import InvalidInput
from tidegate.domain.period import Period
from tidegate.domain.schedule import next_due
from tidegate.domain.schedule_document import parse_schedule
from tidegate.store.database import from_json

if TYPE_CHECKING:
    from asyncpg import Record

    from tidegate.store.database import Connection, Pool


@dataclass(frozen=True, slots=True)
class Chain:
    """One stream's chain, with the watermark derived from its coverage; ``retired``: nothing more is planned for it."""

    id: int
    tenant_id: str
    installation: str
    workflow: str
    stream: str
    account: str
    start_at: datetime
    watermark: datetime | None
    next_due_at: datetime | None
    paused_at: datetime | None
    retired: bool = False


_CHAINS = """
select c.id, c.tenant_id, i.name as installation, c.workflow, c.stream, a.name as account, c.start_at,
       (select max(period_end) from coverage where chain_id = c.id) as watermark, s.next_due_at, s.paused_at,
       s.chain_id is null as retired
  from chains c
  join installations i on i.id = c.installation_id
  join accounts a on a.id = c.account_id
  join connections n on n.id = i.connection_id
  left join schedules s on s.chain_id = c.id
 where ($1::text is null or c.tenant_id = $1) and ($2::text is null or i.name = $2) and ($3::text is null or c.stream = $3)
   and case when s.chain_id is null then $4 else n.account_id = c.account_id end
 order by c.tenant_id, i.name, c.workflow, c.stream, retired, c.id
"""


async def chains(
    connection: Connection | Pool,
    tenant_id: str | None = None,
    installation: str | None = None,
    stream: str | None = None,
    *,
    retired: bool = False,
) -> list[Chain]:
    """Return the current chains in order: of the connection's present account, and with a schedule; None means all.

    ``retired``: those for which nothing more is planned as well, of whatever account: their ledger stays.
    """
    rows = await connection.fetch(_CHAINS, tenant_id, installation, stream, retired)
    return [Chain(**row) for row in rows]


async def streams(connection: Connection | Pool, tenant_id: str | None, installation: str | None) -> list[str]:
    """Return the names of the streams there are, of one tenant or one of its installations if given."""
    rows = await connection.fetch(
        """select distinct c.stream from chains c join installations i on i.id = c.installation_id
            where ($1::text is null or c.tenant_id = $1) and ($2::text is null or i.name = $2) order by c.stream""",
        tenant_id, installation,
    )  # fmt: skip
    return [row["stream"] for row in rows]


async def ensure(
    connection: Connection,
    tenant_id: str,
    installation_id: int,
    workflow: str,
    stream: str,
    account_id: int,
    start_at: datetime,
) -> tuple[int, bool]:
    """Return (id, whether it is new) of the chain of one stream of an installation."""
    chain_id: int | None = await connection.fetchval(
        """insert into chains (tenant_id, installation_id, workflow, stream, account_id, start_at)
           values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning id""",
        tenant_id, installation_id, workflow, stream, account_id, start_at,
    )  # fmt: skip
    if chain_id is not None:
        return chain_id, True
    found: int = await connection.fetchval(
        "select id from chains where installation_id = $1 and workflow = $2 and stream = $3 and account_id = $4",
        installation_id, workflow, stream, account_id,
    )  # fmt: skip
    return found, False


async def set_start(connection: Connection, chain_id: int, start_at: datetime) -> bool:
    """Replace the start of a chain of which nothing is covered and nothing active; return whether it was (SPEC 2.10).

    The chain is locked first: a worker that takes a lease meanwhile either is seen here, or sees the new start.
    """
    await connection.execute("select 1 from chains where id = $1 for update", chain_id)
    status = await connection.execute(
        """update chains c set start_at = $2 where id = $1
              and not exists (select 1 from coverage where chain_id = c.id)
              and not exists (select 1 from runs where chain_id = c.id
                                 and state in ('queued', 'running', 'retrying', 'delivering'))""",
        chain_id,
        start_at,
    )
    return status == "UPDATE 1"


async def start(connection: Connection | Pool, chain_id: int) -> datetime:
    """Return where the chain starts. Raises LookupError if there is no such chain."""
    found: datetime | None = await connection.fetchval("select start_at from chains where id = $1", chain_id)
    if found is None:
        raise LookupError(f"there is no chain {chain_id}")
    return found


async def head(connection: Connection | Pool, chain_id: int) -> datetime | None:
    """Return where the coverage of a chain begins, None if nothing is covered."""
    found: datetime | None = await connection.fetchval(
        "select period_start from coverage where chain_id = $1 and previous_end is null", chain_id
    )
    return found


async def move_start(connection: Connection, chain_id: int, start_at: datetime) -> None:
    """Let a chain of which something is covered start at or before its head; what is missing in front is then named."""
    await connection.execute("update chains set start_at = $2 where id = $1", chain_id, start_at)


async def watermark(connection: Connection | Pool, chain_id: int) -> datetime | None:
    """Return the end of the chain, None if nothing is covered."""
    found: datetime | None = await connection.fetchval(
        "select max(period_end) from coverage where chain_id = $1", chain_id
    )
    return found


async def links(connection: Connection | Pool, chain_id: int) -> list[Link]:
    """Return the chain's periods, oldest first."""
    rows = await connection.fetch(
        "select period_start, period_end, kind, run_id, reason, records from coverage where chain_id = $1 order by period_end",
        chain_id,
    )
    return [
        Link(
            Period(row["period_start"], row["period_end"]),
            LinkKind(row["kind"]),
            row["run_id"],
            row["reason"],
            row["records"],
        )
        for row in rows
    ]


WHY_UNPROVEN = """coalesce(
               nullif(r.report ->> 'shortfall', ''),
               'filtered by ' || nullif((select string_agg(key, ', ') from jsonb_object_keys(r.report -> 'filters') key), ''),
               'the source did not show the whole period')
               || coalesce(' (' || (select string_agg(value || ' ' || key, ', ' order by key)
                                      from jsonb_each_text(r.report -> 'remarks')) || ')', '')"""
"""SQL: what run ``r`` itself says of why it has not proven its period, in words."""

_REASON = f"""
            when r.state = 'dropped' and i.paused_at is not null then 'dropped when the installation was paused'
            when r.state = 'dropped' then 'dropped'
            when r.state = 'waiting' then 'waiting'
            when r.state = 'delivering' then 'delivering: ' || (
                 select count(*) || ' batches wait for their acknowledgement'
                        || coalesce('; ' || (select t.error ->> 'message' from routes t where t.id = r.waits_for_route), '')
                   from outbox o where o.route_id = r.waits_for_route and o.state = 'open')
            when r.error is not null then r.state || ': ' || coalesce(r.error ->> 'message', r.error ->> 'code')
            when r.state = 'unproven' then 'unproven: ' || {WHY_UNPROVEN}
            else r.state end as reason"""

_UNCOVERED = f"""
select c.id as chain_id, coalesce(b.watermark, c.start_at) as period_start, p.until as period_end, r.id as run_id,
       false as in_front,
       case when r.id is null and i.paused_at is not null then 'paused: ' || i.paused_reason
            when r.id is null and s.paused_at is not null then 'paused'
            when r.id is null then 'not planned yet'{_REASON},
       case when l.passed then s.rule::text end as rule, s.received_at
  from chains c
  join installations i on i.id = c.installation_id
  left join schedules s on s.chain_id = c.id
 cross join lateral (select max(period_end) as watermark from coverage where chain_id = c.id) b
 cross join lateral (
       select greatest(case when s.next_due_at <= $1 then s.next_due_at end,
                       case when s.planned_until > s.received_at then s.planned_until end,
                       (select max(due_at) from runs
                         where chain_id = c.id and lane = 'live' and due_at <= $1
                           and due_at > coalesce(b.watermark, '-infinity')
                           and period_end >= coalesce(b.watermark, '-infinity'))) as until) p  -- an index finds those
  left join lateral (  -- the run at it; else one that can start; else the last that ended, unless it was held back by another
       select id, state, error, waits_for_route, report from runs
        where chain_id = c.id and lane = 'live' and period_end > coalesce(b.watermark, '-infinity')
        order by case when state in ('queued', 'running', 'retrying', 'delivering') then 1
                      when state in ('waiting', 'dropped') and follows_at > coalesce(b.watermark, c.start_at) then 4
                      when state = 'waiting' then 2 else 3 end,
                 finished_at desc, period_end desc limit 1) r on true
 cross join lateral (  -- the due date that is known is covered, and no planner has looked for the next one
       select coalesce(s.next_due_at <= least($1, b.watermark), false) as passed) l
 where (l.passed or p.until > coalesce(b.watermark, c.start_at)) and ($2::text is null or c.tenant_id = $2)
union all
select c.id, c.start_at, h.period_start, r.id, true, case when r.id is null then 'not planned yet'{_REASON}, null, null
  from chains c
  join installations i on i.id = c.installation_id
  join coverage h on h.chain_id = c.id and h.previous_end is null
  left join runs r on r.chain_id = c.id and r.lane = 'backfill' and r.period_end = h.period_start
 where h.period_start > c.start_at and ($2::text is null or c.tenant_id = $2)
 order by chain_id, period_start
"""


async def uncovered(
    connection: Connection | Pool, now: datetime, tenant_id: str | None = None
) -> list[tuple[int, Uncovered]]:
    """Return every (chain id, due but uncovered stretch) with the reason, in one query (SPEC 5).

    Of a chain that is at most the stretch behind its watermark and the one in front of its head (SPEC 2.10).
    """
    rows = await connection.fetch(_UNCOVERED, now, tenant_id)
    found = [(row, _until(row, now)) for row in rows]
    return [
        (
            row["chain_id"],
            Uncovered(Period(row["period_start"], until), row["reason"], row["run_id"], row["in_front"]),
        )
        for row, until in found
        if until is not None and row["period_start"] < until
    ]


def _until(row: Record, now: datetime) -> datetime | None:
    """Return to where a stretch is due; where no planner has looked yet, to its first due date at least.

    A rule that this revision cannot read names none: the planner says so, and it must not hide the other chains.
    """
    until: datetime | None = row["period_end"]
    if row["rule"] is None:
        return until
    try:
        first = next_due(parse_schedule(from_json(row["rule"])), max(row["period_start"], row["received_at"]))
    except (InvalidInput, ValueError, ArithmeticError):
        return until
    return first if first is not None and first <= now and (until is None or until < first) else until
