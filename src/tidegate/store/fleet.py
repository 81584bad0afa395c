"""The fleet at a glance: what all processes of one database have in hand, for metrics and `doctor`.

Cheap by construction: `standing` reads only runs that have not ended, through the partial indexes of `runs`; `outboxes`
only batches that are not acknowledged, through those of `routes` and `outbox`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool


@dataclass(frozen=True, slots=True)
class Standing:
    """Runs that have not ended, as counts and the oldest instants, None where there is none."""

    waiting: int
    retrying: int
    ready: int
    oldest_ready_at: datetime | None
    queued: int
    oldest_queued_at: datetime | None
    running: int
    expired_leases: int
    delivering: int
    overdue_schedules: int
    oldest_due_at: datetime | None
    jobs: int
    orphaned_jobs: int
    stuck: int


_STANDING = """
select * from
    (select count(*) filter (where state = 'waiting') as waiting, count(*) filter (where state = 'retrying') as retrying,
            count(*) filter (where not_before_at <= $1) as ready,
            min(not_before_at) filter (where not_before_at <= $1) as oldest_ready_at,
            count(*) filter (where state = 'retrying' and due_at < $1 - interval '1 day') as stuck
       from runs where state in ('waiting', 'retrying')) pending,
    (select count(*) filter (where state = 'queued') as queued,
            min(queued_at) filter (where state = 'queued') as oldest_queued_at,
            count(*) filter (where state = 'running') as running,
            count(*) filter (where state = 'running' and lease_until < $1) as expired_leases
       from runs where state in ('queued', 'running')) in_hand,
    (select count(*) as delivering from runs where state = 'delivering') delivering,
    (select count(*) as overdue_schedules, min(next_due_at) as oldest_due_at
       from schedules where next_due_at <= $1 and paused_at is null and (held_until is null or held_until <= $1)) due,
    (select count(*) as jobs,
            count(*) filter (where status = 'picked' and heartbeat < clock_timestamp() - interval '1 minute') as orphaned_jobs
       from pgqueuer) jobs
"""


async def standing(connection: Connection | Pool, now: datetime) -> Standing:
    """Return what has not ended and what should have moved by ``now``.

    ``ready``: runs whose planned run date has come and that are not queued. ``stuck``: runs that are tried again and again
    a day after their due date. ``orphaned_jobs``: jobs whose consumer has shown no sign of life for a minute.
    """
    row = await connection.fetchrow(_STANDING, now)
    assert row is not None
    return Standing(**row)


@dataclass(frozen=True, slots=True)
class Outbox:
    """The batches for one kind of destination that are not acknowledged; ``oldest_at``: when the first open one was made."""

    kind: str
    open: int
    oldest_at: datetime | None
    dead: int


_OUTBOXES = """
select d.kind, sum(x.open)::bigint as open, min(x.oldest_at) as oldest_at, sum(x.dead)::bigint as dead
  from (select t.destination_id, 0 as dead,
               (select count(*) from outbox o where o.route_id = t.id and o.state = 'open') as open,
               (select created_at from outbox o
                 where o.route_id = t.id and o.state = 'open' order by position limit 1) as oldest_at
          from routes t where t.not_before_at is not null
         union all
        select (select destination_id from routes t where t.id = o.route_id), o.dead, 0, null
          from (select route_id, count(*) as dead from outbox where state = 'dead' and dropped_at is null
                 group by route_id) o) x
  join destinations d on d.id = x.destination_id
 group by d.kind order by d.kind
"""


async def outboxes(connection: Connection | Pool) -> list[Outbox]:
    """Return what is open or in the dead letter, by kind of destination; a kind with neither may be left out."""
    return [Outbox(**row) for row in await connection.fetch(_OUTBOXES)]


@dataclass(frozen=True, slots=True)
class StaleStream:
    """A stream and how far it is covered: to its watermark, or not beyond its start."""

    tenant_id: str
    installation: str
    stream: str
    covered_to: datetime


@dataclass(frozen=True, slots=True)
class Streams:
    """How many streams are planned or paused, and which planned ones are the stalest, stalest first."""

    planned: int
    paused: int
    stalest: tuple[StaleStream, ...]


async def streams(connection: Connection | Pool, now: datetime, most: int) -> Streams:
    """Return the ``most`` stalest streams that are planned and have started; one look at each chain's newest link."""
    rows = await connection.fetch(
        """with found as (
               select c.tenant_id, c.installation_id, c.stream, s.paused_at is not null as paused,
                      coalesce((select max(period_end) from coverage where chain_id = c.id), c.start_at) as covered_to
                 from schedules s join chains c on c.id = s.chain_id)
           select f.*, i.name as installation, (select count(*) from found where not paused) as planned,
                  (select count(*) from found where paused) as paused_count
             from (select * from found where not paused and covered_to <= $1 order by covered_to limit $2) f
             join installations i on i.id = f.installation_id
            order by f.covered_to""",
        now, most,
    )  # fmt: skip
    if not rows:
        planned, paused = await connection.fetchrow(  # type: ignore[misc]
            "select count(*) filter (where paused_at is null), count(*) filter (where paused_at is not null) from schedules"
        )
        return Streams(planned, paused, ())
    stalest = (StaleStream(row["tenant_id"], row["installation"], row["stream"], row["covered_to"]) for row in rows)
    return Streams(rows[0]["planned"], rows[0]["paused_count"], tuple(stalest))
