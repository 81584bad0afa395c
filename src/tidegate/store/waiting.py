"""Why due runs wait: one text of SQL decides who may start, and the dispatcher and `explain` both read it (SPEC 3).

So what is told cannot differ from what is done. ``$1`` is now in all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.domain.run import Lane
from tidegate.domain.waiting import Wait, WaitReason

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool

_IN_HAND = """
in_hand as materialized (
    select chain_id, account_id, tenant_id, queued_at from runs where state in ('queued', 'running')
),
of_account as (select account_id, count(*) as runs from in_hand group by account_id),
of_tenant as (select tenant_id, count(*) as runs from in_hand group by tenant_id),
of_connection as (  -- looked at only where a connection has a limit of its own
    select i.connection_id, count(*) as runs
      from in_hand h join chains c on c.id = h.chain_id join installations i on i.id = c.installation_id
     where (select exists (select 1 from connections where concurrency_limit is not null))
     group by i.connection_id
),
held as (select id from accounts where hold_until > $1),
full_accounts as (
    select a.id from of_account h join accounts a on a.id = h.account_id where h.runs >= a.concurrency_limit
),
full_connections as (
    select n.id from of_connection h join connections n on n.id = h.connection_id where h.runs >= n.concurrency_limit
)"""

HELD_BACK = """r.follows_at is not null and r.follows_at > (select start_at from chains h where h.id = r.chain_id)
           and not exists (select 1 from coverage k where k.chain_id = r.chain_id and k.period_end >= r.follows_at)"""
"""SQL: run ``r`` follows on a period that is not covered. What lies before the chain's start need not be (SPEC 2.10)."""

_BLOCKS = (
    (
        "another_run",
        """exists (select 1 from runs o where o.chain_id = r.chain_id and o.lane = r.lane and o.id <> r.id
                                         and o.state in ('queued', 'running', 'retrying', 'delivering'))""",
    ),
    (
        "period_failed",
        f"""{HELD_BACK} and not exists (
             select 1 from runs o where o.chain_id = r.chain_id and o.lane = r.lane and o.period_end <= r.follows_at
                and o.state in ('waiting', 'queued', 'running', 'retrying', 'delivering'))""",
    ),
    ("another_run", HELD_BACK),
    ("account_held", "r.account_id in (select id from held)"),
    ("account_limit", "r.account_id in (select id from full_accounts)"),
    (
        "connection_limit",
        """(select exists (select 1 from full_connections)) and exists (
             select 1 from chains c join installations i on i.id = c.installation_id
               join full_connections f on f.id = i.connection_id where c.id = r.chain_id)""",
    ),
)
"""What keeps a run ``r`` back whatever the others that wait do; the first that holds is told."""

_BLOCKED_BY = "case " + " ".join(f"when {condition} then '{reason}'" for reason, condition in _BLOCKS) + " end"
_FREE = " and ".join(f"not ({condition})" for _, condition in _BLOCKS)

_FREE_BUT_FOR_ROOM = " and ".join(
    f"not ({condition})" for reason, condition in _BLOCKS if not reason.endswith("_limit")
)

_TURNS = """
first_of_chain as (
    select distinct on (chain_id, lane)
           id, chain_id, tenant_id collate "C" as tenant_id, account_id, lane = 'live' as live, not_before_at
      from free order by chain_id, lane, period_end
),
turns as materialized (  -- tenants take turns, and what a tenant has in hand counts
    select f.id, f.account_id, f.live, f.not_before_at, n.connection_id, n.concurrency_limit as limit_of_connection,
           coalesce(t.runs, 0)
                + row_number() over (partition by f.tenant_id order by live desc, f.not_before_at, f.id) as turn
      from first_of_chain f
      left join of_tenant t on t.tenant_id = f.tenant_id
      left join lateral (  -- at most one; the limit keeps it from being looked up where no connection has a limit
           select n.id as connection_id, n.concurrency_limit
             from chains c join installations i on i.id = c.installation_id join connections n on n.id = i.connection_id
            where c.id = f.chain_id and n.concurrency_limit is not null
              and (select exists (select 1 from connections where concurrency_limit is not null)) limit 1) n on true
),
beyond_connections as materialized (
    select t.id
      from (select id, connection_id, limit_of_connection, row_number() over (
                       partition by connection_id order by live desc, turn, not_before_at, id) as nth
              from turns where connection_id is not null) t
      left join of_connection h on h.connection_id = t.connection_id
     where t.nth > t.limit_of_connection - coalesce(h.runs, 0)
),
nth_of_accounts as (
    select t.*, row_number() over (
               partition by account_id, beyond_connection order by live desc, turn, not_before_at, id) as nth
      from (select turns.*, id in (select id from beyond_connections) as beyond_connection from turns) t
),
of_accounts as (  -- an account has room for one at least, so that of most no limit is looked up
    select t.*, case when t.nth + coalesce(h.runs, 0) > 1 then
               t.nth + coalesce(h.runs, 0) > (select concurrency_limit from accounts a where a.id = t.account_id)
           else false end as beyond_account
      from nth_of_accounts t left join of_account h on h.account_id = t.account_id
),
startable as (select * from of_accounts where not beyond_connection and not beyond_account)"""

_READY = "select id, chain_id, lane, tenant_id, account_id, not_before_at, period_end"
_OF_READY = "from runs r where state in ('waiting', 'retrying') and not_before_at <= $1"

DISPATCH = f"""
with recursive {_IN_HAND},
oldest as materialized (  -- the index of what is to be dispatched is read until there are enough of them, and no further
    {_READY} {_OF_READY} and {_FREE} order by not_before_at limit $2 * 8 + 1000
),
legs as (  -- if there may be more: round all tenants, from behind the one whose run was queued last
    select lane, low, high
      from (values ('live'), ('backfill')) l (lane),
           (select coalesce((select tenant_id from in_hand order by queued_at desc, tenant_id desc limit 1), '') as id) n,
           lateral (values (n.id, null), ('', n.id)) b (low, high)
     where (select count(*) from oldest) >= $2 * 8 + 1000
),
tenants_round (lane, tenant_id, high, nth) as (  -- one look at an index for each tenant that has a run to be dispatched
    select l.lane, n.tenant_id, l.high, 1
      from legs l cross join lateral (
           select tenant_id {_OF_READY} and lane = l.lane and tenant_id > l.low
            order by tenant_id, not_before_at limit 1) n
     where l.high is null or n.tenant_id <= l.high
    union all
    select t.lane, n.tenant_id, t.high, t.nth + 1
      from tenants_round t cross join lateral (
           select tenant_id {_OF_READY} and lane = t.lane and tenant_id > t.tenant_id
            order by tenant_id, not_before_at limit 1) n
     where t.nth < $2 * 4 + 100 and (t.high is null or n.tenant_id <= t.high)
),
newest as (select max(not_before_at) as at from oldest),
lacking as (  -- each tenant is to be there with its share of them, which the oldest ones may give it already
    select t.lane, t.tenant_id, share - coalesce(o.runs - o.newest, 0) as most
      from tenants_round t
     cross join (select greatest(1, least($2, ($2 * 8 + 1000) / nullif(count(*), 0))) as share from tenants_round) s
      left join (select lane, tenant_id, count(*) as runs, count(*) filter (where not_before_at = at) as newest
                   from oldest, newest group by lane, tenant_id) o on o.lane = t.lane and o.tenant_id = t.tenant_id
     where share > coalesce(o.runs, 0)
),
free as materialized (  -- so that neither a lane nor a tenant is out of sight behind the older runs of another
    select * from oldest
    union all
    select f.* from lacking l cross join lateral (  -- those that are as old as the newest of the oldest may be there twice
        {_READY} {_OF_READY} and r.lane = l.lane and r.tenant_id = l.tenant_id
            and not_before_at >= (select at from newest) and {_FREE} order by not_before_at limit l.most) f
     where not exists (select 1 from oldest o where o.id = f.id)
),
{_TURNS},
chosen as (
    select id from startable order by live desc, turn, not_before_at, id limit $2
),
locked as (  -- in one order, and only what still waits: a pause or an edit may have dropped it meanwhile
    select id from runs where id = any(array(select id from chosen)) and state in ('waiting', 'retrying')
     order by id for update skip locked
)
update runs r set state = 'queued', queued_at = $1 from locked where r.id = locked.id
returning r.id, r.epoch, r.lane = 'live' as live
"""
"""Queues up to ``$2`` runs that may start now (`store.runs.dispatch`)."""

_GIVING_WAY = f"""
with {_IN_HAND},
mine as (
    select r.id, r.account_id, i.connection_id, r.started_at
      from runs r join chains c on c.id = r.chain_id join installations i on i.id = c.installation_id
     where r.id = any($2::bigint[]) and r.state = 'running' and r.lane = 'backfill'
),
for_room as (  -- a live run starts if this one is gone
    select distinct on (account_id) id from mine m
     where (account_id in (select id from full_accounts) or connection_id in (select id from full_connections))
       and exists (
           select 1 from runs r join chains c on c.id = r.chain_id join installations i on i.id = c.installation_id
             left join full_connections f on f.id = i.connection_id
            where r.account_id = m.account_id and r.lane = 'live' and r.state in ('waiting', 'retrying')
              and r.not_before_at <= $1 and {_FREE_BUT_FOR_ROOM} and (f.id is null or f.id = m.connection_id)
              and (f.id is not null or r.account_id in (select id from full_accounts)))
     order by account_id, started_at desc, id
),
for_a_slot as (
    select id from mine
     where $3 and exists (select 1 from runs where state = 'queued' and lane = 'live' and queued_at <= $4)
     order by started_at desc, id limit 1
)
select id from for_room union select id from for_a_slot
"""

_OF_RUNS = f"""
with {_IN_HAND},
ready as materialized ({_READY}, {_BLOCKED_BY} as blocked_by {_OF_READY}),
free as (select * from ready where blocked_by is null),
{_TURNS},
told as (
    select r.id, case
        when r.state = 'queued' then 'slots'
        when r.not_before_at > $1 and r.error ->> 'code' = 'account_held' and a.hold_until > $1 then 'account_held'
        when r.not_before_at > $1 and r.state = 'retrying' then 'retrying'
        when r.not_before_at > $1 and $1 < r.due_at + coalesce((s.rule ->> 'settle')::interval, interval '0') then 'settle'
        when r.not_before_at > $1 then 'spread'
        when q.blocked_by is not null then q.blocked_by
        when f.id is null then 'another_run'
        when f.beyond_connection then 'connection_limit'
        when f.beyond_account then 'account_limit'
        else 'slots' end as reason
      from runs r
      join accounts a on a.id = r.account_id
      left join schedules s on s.chain_id = r.chain_id
      left join ready q on q.id = r.id
      left join of_accounts f on f.id = r.id
     where r.state in ('waiting', 'queued', 'retrying')
)
select r.id as run_id, r.chain_id, r.lane, r.due_at, t.reason,
       case t.reason
            when 'retrying' then format('attempt %s, after: %s', r.attempt + 1, coalesce(r.error ->> 'message', 'a stop'))
            when 'another_run' then coalesce('run ' || coalesce(
                (select id from runs o where o.chain_id = r.chain_id and o.lane = r.lane and o.id <> r.id
                                         and o.state in ('queued', 'running', 'retrying', 'delivering')),
                (select id from runs o where o.chain_id = r.chain_id and o.lane = r.lane and o.period_end < r.period_end
                                         and o.state = 'waiting' order by o.period_end limit 1)), 'the period before it')
            when 'period_failed' then coalesce('tried again at ' || to_char(coalesce(s.held_until, s.next_due_at),
                'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'never tried again by itself')
            when 'account_held' then format('%s: %s', a.name, a.hold_reason)
            when 'account_limit' then format('%s: %s at once', a.name, a.concurrency_limit)
            when 'connection_limit' then format('%s: %s at once', n.name, n.concurrency_limit)
            when 'slots' then case r.state when 'queued' then 'handed to the queue' else 'ready' end
            else '' end as detail,
       case t.reason when 'account_held' then greatest(r.not_before_at, a.hold_until)
                     when 'period_failed' then coalesce(s.held_until, s.next_due_at)
                     else r.not_before_at end as planned_at
  from told t
  join runs r on r.id = t.id
  join accounts a on a.id = r.account_id
  join chains c on c.id = r.chain_id
  join installations i on i.id = c.installation_id
  join connections n on n.id = i.connection_id
  left join schedules s on s.chain_id = r.chain_id
 where $2::text is null or r.tenant_id = $2
"""

_WITHOUT_RUN = """
select null::bigint as run_id, s.chain_id, 'live' as lane,
       case when s.paused_at is null then s.next_due_at else s.planned_until end as due_at,
       case when s.paused_at is null and s.held_until > $1 then 'period_failed' when s.paused_at is null then 'unplanned'
            when i.paused_by = 'unauthorised' then 'unauthorised' else 'paused' end as reason,
       case when s.paused_at is not null then i.paused_reason when s.held_until > $1
            then 'tried again at ' || to_char(s.held_until, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') else '' end as detail,
       case when s.paused_at is null and s.held_until > $1 then s.held_until end as planned_at
  from schedules s join chains c on c.id = s.chain_id join installations i on i.id = c.installation_id
 where (s.paused_at is null and s.next_due_at <= $1 or s.paused_at is not null and s.planned_until > greatest(
            s.received_at, (select max(period_end) from coverage where chain_id = s.chain_id)))
   and not exists (select 1 from runs r where r.chain_id = s.chain_id and r.lane = 'live'
                                          and r.state in ('waiting', 'queued', 'running', 'retrying', 'delivering'))
   and ($2::text is null or c.tenant_id = $2)
"""


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A due run that has not started, or is to go on. ``run_id`` is None where a due date has not become a run."""

    run_id: int | None
    chain_id: int
    lane: Lane
    due_at: datetime
    wait: Wait


async def giving_way(
    connection: Connection | Pool, now: datetime, run_ids: Sequence[int], *, full: bool, since: datetime
) -> set[int]:
    """Return which of these running backfills are in the way of a live run, one of each platform account at most (SPEC 3).

    ``full``: they leave their worker no free slot; then one gives way to a live run that was handed to the queue ``since``.
    """
    return {row["id"] for row in await connection.fetch(_GIVING_WAY, now, run_ids, full, since)}


async def explain(connection: Connection | Pool, now: datetime, tenant_id: str | None = None) -> list[WaitingRun]:
    """Return why each due run of one tenant, or of all, waits; the oldest due date first (SPEC 3)."""
    rows = await connection.fetch(
        f"select * from ({_OF_RUNS}) of_runs union all select * from ({_WITHOUT_RUN}) without_run order by due_at, run_id",
        now,
        tenant_id,
    )
    return [
        WaitingRun(
            row["run_id"],
            row["chain_id"],
            Lane(row["lane"]),
            row["due_at"],
            Wait(WaitReason(row["reason"]), row["detail"], row["planned_at"]),
        )
        for row in rows
    ]
