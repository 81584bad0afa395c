"""What faces read, in few queries: where each stream stands, its runs, its coverage as stretches, and the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidegate.domain.coverage import LinkKind
from tidegate.domain.period import Period
from tidegate.domain.run import Lane, RunState, Trigger
from tidegate.store.database import from_json

if TYPE_CHECKING:
    import asyncpg

    from tidegate.store.database import Connection, Pool


@dataclass(frozen=True, slots=True)
class ScheduledChain:
    """A chain that has a schedule, of the connection's present platform account or of an earlier one."""

    chain_id: int
    tenant_id: str
    installation: str
    stream: str
    connection: str
    connector: str
    account: str
    start_at: datetime
    watermark: datetime | None
    rule: Mapping[str, Any]


async def scheduled_chains(connection: Connection | Pool) -> list[ScheduledChain]:
    """Return every chain that has a schedule."""
    rows = await connection.fetch(
        """select c.id as chain_id, c.tenant_id, i.name as installation, c.stream, n.name as connection, a.connector,
                  a.name as account, c.start_at,
                  (select max(period_end) from coverage where chain_id = c.id) as watermark, s.rule::text as rule
             from schedules s
             join chains c on c.id = s.chain_id
             join installations i on i.id = c.installation_id
             join connections n on n.id = i.connection_id
             join accounts a on a.id = c.account_id
            order by c.id"""
    )
    return [ScheduledChain(**{**dict(row), "rule": from_json(row["rule"])}) for row in rows]


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as faces show it. ``error`` is the last failure, as TidegateError.as_json() wrote it.

    ``dead_count``: how many of its records are in the dead letter now.
    """

    id: int
    chain_id: int
    tenant_id: str
    installation: str
    stream: str
    lane: Lane
    trigger: Trigger
    state: RunState
    due_at: datetime
    not_before_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    period_start: datetime | None
    period_end: datetime
    attempt: int
    epoch: int
    batch: int
    read_count: int
    inserted_count: int
    updated_count: int
    unchanged_count: int
    misfit_count: int
    quarantined_count: int
    dead_count: int
    error: Mapping[str, Any] | None
    shortfall: str
    filters: Mapping[str, Any]
    remarks: Mapping[str, int]


_RUN = """
select r.id, r.chain_id, r.tenant_id, i.name as installation, c.stream, r.lane, r.trigger, r.state, r.due_at,
       r.not_before_at, r.started_at, r.finished_at, r.period_start, r.period_end, r.attempt, r.epoch, r.batch, r.read_count,
       r.inserted_count, r.updated_count, r.unchanged_count, r.misfit_count, r.quarantined_count,
       (select coalesce(sum(o.records), 0)::bigint from outbox o
         where o.chain_id = r.chain_id and o.run_id = r.id and o.state = 'dead') as dead_count,
       r.error::text as error,
       coalesce(r.report ->> 'shortfall', '') as shortfall, coalesce(r.report -> 'filters', '{}')::text as filters,
       coalesce(r.report -> 'remarks', '{}')::text as remarks
  from runs r join chains c on c.id = r.chain_id join installations i on i.id = c.installation_id
"""


def _run(row: asyncpg.Record) -> RunRow:
    values = dict(row)
    values.update(lane=Lane(row["lane"]), trigger=Trigger(row["trigger"]), state=RunState(row["state"]))
    values.update(error=from_json(row["error"]), filters=from_json(row["filters"]), remarks=from_json(row["remarks"]))
    return RunRow(**values)


async def runs(
    connection: Connection | Pool,
    *,
    tenant_id: str | None = None,
    installation: str | None = None,
    states: Sequence[RunState] = (),
    limit: int,
) -> list[RunRow]:
    """Return up to ``limit`` runs, newest first; None and no states mean all."""
    rows = await connection.fetch(
        _RUN
        + """ where ($1::text is null or r.tenant_id = $1) and ($2::text is null or i.name = $2)
                and (cardinality($3::text[]) = 0 or r.state = any($3)) order by r.id desc limit $4""",
        tenant_id, installation, list(states), limit,
    )  # fmt: skip
    return [_run(row) for row in rows]


async def runs_by_id(connection: Connection | Pool, run_ids: Sequence[int]) -> list[RunRow]:
    """Return these runs, in the order of their ids."""
    return [
        _run(row) for row in await connection.fetch(_RUN + " where r.id = any($1::bigint[]) order by r.id", run_ids)
    ]


async def runs_ended_since(connection: Connection | Pool, since: datetime) -> list[RunRow]:
    """Return the runs that had started and ended at or after ``since``, in the order of their ids."""
    rows = await connection.fetch(_RUN + " where r.finished_at >= $1 and r.started_at is not null order by r.id", since)
    return [_run(row) for row in rows]


async def latest_runs(connection: Connection | Pool, chain_ids: Sequence[int]) -> dict[int, RunRow]:
    """Return the newest live run of each chain that has one which was not dropped, by chain id."""
    rows = await connection.fetch(
        f"""select r.* from unnest($1::bigint[]) as k(chain_id)
             cross join lateral ({_RUN} where r.chain_id = k.chain_id and r.lane = 'live' and r.state <> 'dropped'
                                 order by r.period_end desc limit 1) r""",
        chain_ids,
    )
    return {row["chain_id"]: _run(row) for row in rows}


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring links of one kind, taken together; ``reason`` is the last waiver's."""

    chain_id: int
    kind: LinkKind
    period: Period
    links: int
    records: int
    reason: str


async def stretches(connection: Connection | Pool, chain_ids: Sequence[int]) -> list[Stretch]:
    """Return the coverage of these chains, oldest first, neighbours of one kind as one: a chain has no gaps."""
    rows = await connection.fetch(
        """select chain_id, kind, min(period_start) as period_start, max(period_end) as period_end, sum(periods)::bigint as links,
                  sum(records)::bigint as records, (array_agg(reason order by period_end desc))[1] as reason
             from (select *, row_number() over (partition by chain_id order by period_end)
                           - row_number() over (partition by chain_id, kind order by period_end) as island
                     from coverage where chain_id = any($1::bigint[])) numbered
            group by chain_id, kind, island order by chain_id, min(period_start)""",
        chain_ids,
    )
    return [
        Stretch(
            row["chain_id"],
            LinkKind(row["kind"]),
            Period(row["period_start"], row["period_end"]),
            row["links"],
            row["records"],
            row["reason"],
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """How many streams there are, how many of them are paused or not covered at all, and the oldest watermark."""

    streams: int
    paused: int
    nothing_covered_yet: int
    oldest_watermark: datetime | None


async def stream_counts(connection: Connection | Pool, tenant_id: str | None = None) -> StreamCounts:
    """Return the counts of one tenant's current streams, or of all: of the connection's present account."""
    row = await connection.fetchrow(
        """select count(*) as streams, count(s.paused_at) as paused, count(*) - count(b.watermark) as nothing_covered_yet,
                  min(b.watermark) as oldest_watermark
             from schedules s join chains c on c.id = s.chain_id
             join installations i on i.id = c.installation_id
             join connections n on n.id = i.connection_id and n.account_id = c.account_id
            cross join lateral (select max(period_end) as watermark from coverage where chain_id = c.id) b
            where $1::text is null or c.tenant_id = $1""",
        tenant_id,
    )
    assert row is not None
    return StreamCounts(**row)
