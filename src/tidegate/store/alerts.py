"""Table `alerts`: what is the case now is compared with what is open, in one statement (SPEC 5, "Failures").

Only what can be wrong is looked at: runs not ended, chains that fail, paused installations, unproven runs, quarantine, the
dead letter.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tidegate.domain.alert import AlertKind, Severity
from tidegate.store.chains import WHY_UNPROVEN

if TYPE_CHECKING:
    import asyncpg

    from tidegate.store.database import Connection, Pool

_TROUBLED = """
not_ended as (
    select chain_id, min(due_at) as due_at, max(id) as run_id,
           min(due_at) filter (where state in ('retrying', 'running') and error is not null) as erring_since,
           max(error ->> 'message') filter (where state in ('retrying', 'running') and error is not null) as message
      from runs where state in ('waiting', 'queued', 'running', 'retrying', 'delivering') and lane = 'live' group by chain_id
),
troubled as (
    select chain_id from not_ended
     union select id from chains where failing_since is not null
     union select chain_id from schedules
            where next_due_at <= $1 and paused_at is null and (held_until is null or held_until <= $1)
     union select distinct chain_id from runs where state = 'unproven'
),
looked_at as (
    select c.id as chain_id, c.tenant_id, c.installation_id, c.stream, c.tenant_id || '/' || i.name as name, i.paused_by,
           b.watermark, case when c.failing_end > coalesce(b.watermark, '-infinity') then c.failing_since end as failing_since,
           e.run_id, e.erring_since, e.message,
           case when s.planned_until > s.received_at then coalesce(s.held_until, s.next_due_at) - s.planned_until end as interval,
           coalesce(b.watermark, greatest(c.start_at, s.received_at)) as fresh_to
      from troubled t join chains c on c.id = t.chain_id join installations i on i.id = c.installation_id
      join schedules s on s.chain_id = c.id
      left join not_ended e on e.chain_id = c.id
     cross join lateral (select max(period_end) as watermark from coverage where chain_id = c.id) b
     where s.paused_at is null
)"""

_CASES = f"""
cases as (
    select 'connection_unauthorised' as kind, 'critical' as severity, n.id::text as subject, n.tenant_id,
           null::bigint as installation_id, null::bigint as chain_id, null::bigint as run_id,
           format('%s/%s is refused by %s: %s', n.tenant_id, n.name, a.name, n.unauthorised_reason) as message,
           'Renew its secrets and apply the configuration; or, if only its source was wrong, resume its installations.'
               as remedy
      from connections n join accounts a on a.id = n.account_id where n.unauthorised_at is not null
    union all
    select 'paused_by_failures', 'critical', id::text, tenant_id, id, null, null,
           format('%s/%s is paused: %s', tenant_id, name, paused_reason),
           format('Correct the cause, then `tidegate resume %s/%s`: what was missed is caught up.', tenant_id, name)
      from installations where paused_at is not null and paused_by = 'failing'
    union all
    select 'failing', 'warning', chain_id::text, tenant_id, installation_id, chain_id, run_id,
           format('%s %s has been failing since %s: %s', name, stream,
                  to_char(least(failing_since, erring_since), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                  coalesce(message, (select error ->> 'message' from runs r where r.chain_id = looked_at.chain_id
                                        and r.state = 'failed' order by r.period_end desc limit 1), 'see its runs')),
           format('`tidegate runs --tenant %s` shows the error and its remedy.', tenant_id)
      from looked_at where least(failing_since, erring_since) < $1 - $2::interval
    union all
    select 'failing', 'warning', c.id || '/front', c.tenant_id, c.installation_id, c.id, r.id,
           format('%s/%s %s: the backfill in front of what is covered has been failing since %s: %s', c.tenant_id, i.name,
                  c.stream, to_char(r.first_due_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                  coalesce(r.error ->> 'message', 'see its runs')),
           format('`tidegate runs --tenant %s` shows the error and its remedy.', c.tenant_id)
      from (select * from runs where lane = 'backfill' and state in ('failed', 'unproven')
             union all
            select * from runs where lane = 'backfill' and state in ('waiting', 'retrying')
                                 and (error is not null or due_at > first_due_at)
             union all
            select * from runs where lane = 'backfill' and state in ('queued', 'running')
                                 and (error is not null or due_at > first_due_at)) r
      join chains c on c.id = r.chain_id join installations i on i.id = c.installation_id
      join coverage h on h.chain_id = c.id and h.previous_end is null and h.period_start = r.period_end
     where h.period_start > c.start_at and i.paused_at is null and r.first_due_at < $1 - $2::interval
    union all
    select 'stale', 'warning', chain_id::text, tenant_id, installation_id, chain_id, run_id,
           format('%s %s is covered to %s: more than two of its intervals ago', name, stream,
                  coalesce(to_char(watermark, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'no date yet')),
           format('`tidegate status --tenant %s` says what it waits for.', tenant_id)
      from looked_at where interval > interval '0' and $1 - fresh_to > 2 * interval
    union all
    select 'unproven', 'warning', chain_id::text, tenant_id, installation_id, chain_id, u.id,
           format('%s %s: run %s delivered what it found, but its period is not covered: %s', name, stream, u.id, u.why),
           format('Correct that; the next run fetches this period again. `tidegate runs --tenant %s` shows this one.', tenant_id)
      from looked_at join lateral (
           select id, {WHY_UNPROVEN} as why from runs r where r.chain_id = looked_at.chain_id and r.state = 'unproven'
              and r.period_end > coalesce(watermark, '-infinity') order by r.period_end desc limit 1) u on true
    union all
    select 'quarantine_grew', 'warning', q.chain_id::text, c.tenant_id, c.installation_id, q.chain_id, q.run_id,
           format('%s/%s %s has %s records in quarantine', c.tenant_id, i.name, c.stream, q.records),
           format('`tidegate quarantine list --tenant %s`: correct the cause and retry, or drop them.', c.tenant_id)
      from (select chain_id, count(*) as records, max(run_id) as run_id from quarantine group by chain_id) q
      join chains c on c.id = q.chain_id join installations i on i.id = c.installation_id
    union all
    select 'dead_letter', 'warning', o.chain_id::text, c.tenant_id, c.installation_id, o.chain_id, last.run_id,
           format('%s/%s %s has %s records in the dead letter%s: %s', c.tenant_id, i.name, c.stream, o.records,
                  case when i.paused_at is not null then format(', and is paused (%s)', i.paused_reason) else '' end,
                  left(last.answer, 200)),
           format('`tidegate webhook dead-letters %1$s/%2$s` shows why. Correct it, then `tidegate webhook replay --dead '
                  '--installation %1$s/%2$s`%3$s. `tidegate webhook drop` takes out what is not wanted.', c.tenant_id, i.name,
                  case when i.paused_at is not null then format(' and `tidegate resume %s/%s`', c.tenant_id, i.name) else '' end)
      from (select chain_id, sum(records) as records from outbox
             where state = 'dead' and dropped_at is null group by chain_id) o
      join chains c on c.id = o.chain_id join installations i on i.id = c.installation_id
     cross join lateral (select run_id, answer from outbox
                          where chain_id = o.chain_id and state = 'dead' and dropped_at is null
                          order by settled_at desc, position desc limit 1) last
    union all
    select 'queue_starved', 'critical', '', null, null, null, min(id),
           format('%s runs were handed to the queue and no worker takes them, the oldest since %s', count(*),
                  to_char(min(queued_at), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
           'Start workers (`tidegate worker`), or give them more slots: `tidegate doctor` says which.'
      from runs where state = 'queued' having min(queued_at) < $1 - $3::interval
    union all
    select 'queue_starved', 'critical', 'planner', null, null, null, null,
           format('%s schedules are due and nobody plans them, the oldest since %s', count(*),
                  to_char(min(next_due_at), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
           'Start the engine (`tidegate up`), or a worker with the role planner.'
      from schedules where next_due_at <= $1 and paused_at is null and (held_until is null or held_until <= $1)
    having min(next_due_at) < $1 - $3::interval
)"""

_WATCH = f"""
with {_TROUBLED}, {_CASES},
resolved as (
    update alerts a set resolved_at = $1
     where a.resolved_at is null and not exists (select 1 from cases c where c.kind = a.kind and c.subject = a.subject)
    returning a.id
),
told_anew as (  -- the same alert: only its words go with the times
    update alerts a set message = c.message, run_id = c.run_id
      from cases c where a.resolved_at is null and c.kind = a.kind and c.subject = a.subject and a.message <> c.message
),
raised as (
    insert into alerts (kind, severity, subject, tenant_id, installation_id, chain_id, run_id, message, remedy, raised_at)
    select kind, severity, subject, tenant_id, installation_id, chain_id, run_id, message, remedy, $1 from cases
    on conflict (kind, subject) where resolved_at is null do nothing
    returning id
)
select id, true as raised from raised union all select id, false from resolved order by id
"""


@dataclass(frozen=True, slots=True)
class Changed:
    """The ids of the alerts that one look has raised and resolved: the seam for whoever passes them on."""

    raised: tuple[int, ...]
    resolved: tuple[int, ...]


async def watch(
    connection: Connection, now: datetime, *, failing_after: timedelta, starved_after: timedelta
) -> Changed:
    """Raise what is the case and not open, resolve what is open and not the case any more; return what changed."""
    rows = await connection.fetch(_WATCH, now, failing_after, starved_after)
    return Changed(
        tuple(row["id"] for row in rows if row["raised"]), tuple(row["id"] for row in rows if not row["raised"])
    )


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert as faces show it; ``resolved_at`` is None while it is open."""

    id: int
    kind: AlertKind
    severity: Severity
    tenant_id: str | None
    installation: str | None
    stream: str | None
    run_id: int | None
    message: str
    remedy: str
    raised_at: datetime
    resolved_at: datetime | None


_ALERT = """
select a.id, a.kind, a.severity, a.tenant_id, i.name as installation, c.stream, a.run_id, a.message, a.remedy, a.raised_at,
       a.resolved_at
  from alerts a left join installations i on i.id = a.installation_id left join chains c on c.id = a.chain_id
"""


async def listed(
    connection: Connection | Pool, *, tenant_id: str | None = None, resolved: bool = False, limit: int = 1000
) -> list[Alert]:
    """Return up to ``limit`` open alerts of one tenant or of all, ``resolved`` ones too if wanted, newest first."""
    rows = await connection.fetch(
        _ALERT
        + """ where ($1::text is null or a.tenant_id = $1) and ($2 or a.resolved_at is null)
              order by a.resolved_at is null desc, a.id desc limit $3""",
        tenant_id, resolved, limit,
    )  # fmt: skip
    return [_alert(row) for row in rows]


async def by_id(connection: Connection | Pool, ids: tuple[int, ...]) -> list[Alert]:
    """Return these alerts in the order of their ids."""
    return [
        _alert(row) for row in await connection.fetch(_ALERT + " where a.id = any($1::bigint[]) order by a.id", ids)
    ]


def _alert(row: asyncpg.Record) -> Alert:
    return Alert(**{**dict(row), "kind": AlertKind(row["kind"]), "severity": Severity(row["severity"])})
