"""What of an installation moves to another server: its chains with their coverage, and its quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import asyncpg
import msgspec

from tidegate.domain.run import RunState
from tidegate.store.database import from_json, to_json

if TYPE_CHECKING:
    from tidegate.store.database import Connection

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""Read from a file it has its offset; without one it would be the host's time."""
REFUSED = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)
"""What the database raises for chains that no ledger can hold."""


@dataclass(frozen=True, slots=True)
class MovedLink:
    """One row of a chain's coverage; ``periods``: how many compaction made it of."""

    period_start: Instant
    period_end: Instant
    kind: str
    reason: str
    records: int
    committed_at: Instant
    periods: int = 1


@dataclass(frozen=True, slots=True)
class MovedRecord:
    """One record in quarantine, with the run that set it aside."""

    reason: str
    record: bytes
    quarantined_at: Instant
    run: dict[str, Any]
    requested_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class MovedDrop:
    """A person's decision that a record is not wanted: read again, it stays out of quarantine. ``digest``: of the record."""

    digest: bytes
    reason: str
    note: str
    person: str
    at: Instant


@dataclass(frozen=True, slots=True)
class MovedChain:
    """One chain. ``rule`` is its schedule's native JSON, None where nothing more is planned.

    ``last_run``: the run that covers up to the watermark; its report has what the next one goes on from.
    """

    workflow: str
    stream: str
    start_at: Instant
    rule: dict[str, Any] | None
    received_at: Instant | None
    coverage: tuple[MovedLink, ...]
    last_run: dict[str, Any] | None = None
    quarantine: tuple[MovedRecord, ...] = ()
    dropped: tuple[MovedDrop, ...] = ()


_END_WAITING = """
with these as (
    select r.id, r.state from runs r join chains c on c.id = r.chain_id
     where c.installation_id = $1 and r.state in ('queued', 'running', 'retrying', 'delivering') for update of r
),
ended as (
    update runs r set state = 'failed', finished_at = $2,
           error = '{"code": "moved", "message": "The installation was moved to another server."}'
      from these t where t.id = r.id and t.state = 'retrying'
)
select id, state from these where state <> 'retrying' order by state = 'delivering', id
"""


async def end_retrying(connection: Connection, installation_id: int, now: datetime) -> list[tuple[int, RunState]]:
    """End the runs of an installation that wait for another attempt; return those that are really at work, delivering ones last.

    What they did not cover is inside the next period, wherever that will be.
    """
    found = await connection.fetch(_END_WAITING, installation_id, now)
    return [(row["id"], RunState(row["state"])) for row in found]


async def read_chains(connection: Connection, installation_id: int, *, with_quarantine: bool) -> list[MovedChain]:
    """Return the chains of an installation that are of its connection's present platform account."""
    rows = await connection.fetch(
        """select c.id, c.workflow, c.stream, c.start_at, s.rule::text as rule, s.received_at
             from chains c
             join installations i on i.id = c.installation_id
             join connections n on n.id = i.connection_id and n.account_id = c.account_id
             left join schedules s on s.chain_id = c.id
            where c.installation_id = $1 order by c.workflow, c.stream""",
        installation_id,
    )
    return [
        MovedChain(
            row["workflow"],
            row["stream"],
            row["start_at"],
            from_json(row["rule"]),
            row["received_at"],
            await _coverage(connection, row["id"]),
            await _last_run(connection, row["id"]),
            await _quarantine(connection, row["id"]) if with_quarantine else (),
            await _dropped(connection, row["id"]),
        )
        for row in rows
    ]


async def has_tokens(connection: Connection, installation_id: int) -> bool:
    """Return whether the installation's connection has OAuth tokens that were renewed here."""
    found: bool = await connection.fetchval(
        """select exists (select 1 from connection_tokens t join installations i on i.connection_id = t.connection_id
                           where i.id = $1 and t.sealed is not null)""",
        installation_id,
    )
    return found


async def dead_records(connection: Connection, installation_id: int) -> int:
    """Return how many records of an installation are in the dead letter."""
    found: int = await connection.fetchval(
        """select coalesce(sum(records), 0)::bigint from outbox
            where state = 'dead' and dropped_at is null and chain_id in (select id from chains where installation_id = $1)""",
        installation_id,
    )
    return found


async def _coverage(connection: Connection, chain_id: int) -> tuple[MovedLink, ...]:
    rows = await connection.fetch(
        """select period_start, period_end, kind, reason, records, committed_at, periods from coverage
            where chain_id = $1 order by period_end""",
        chain_id,
    )
    return tuple(MovedLink(**row) for row in rows)


_RUN_COLUMNS = """lane, trigger, state, first_due_at, due_at, period_start, period_end, not_before_at, started_at,
    finished_at, read_count, inserted_count, updated_count, unchanged_count, misfit_count, quarantined_count,
    report"""


async def _last_run(connection: Connection, chain_id: int) -> dict[str, Any] | None:
    found: str | None = await connection.fetchval(
        f"""select to_jsonb(x)::text from (
                select {_RUN_COLUMNS} from runs where id = (
                    select run_id from coverage where chain_id = $1 order by period_end desc limit 1)) x""",
        chain_id,
    )
    last: dict[str, Any] | None = from_json(found)
    return last


async def _quarantine(connection: Connection, chain_id: int) -> tuple[MovedRecord, ...]:
    rows = await connection.fetch(
        f"""select q.reason, q.record, q.quarantined_at, q.requested_at, r.run::text as run
              from quarantine q
              join lateral (select to_jsonb(x) as run from (select {_RUN_COLUMNS} from runs where id = q.run_id) x) r on true
             where q.chain_id = $1 order by q.id""",
        chain_id,
    )
    return tuple(
        MovedRecord(row["reason"], row["record"], row["quarantined_at"], from_json(row["run"]), row["requested_at"])
        for row in rows
    )


async def _dropped(connection: Connection, chain_id: int) -> tuple[MovedDrop, ...]:
    rows = await connection.fetch(
        """select distinct on (digest) digest, reason, note, person, at from quarantine_exits
            where chain_id = $1 and action = 'dropped' order by digest, id desc""",
        chain_id,
    )
    return tuple(MovedDrop(**row) for row in rows)


async def insert_coverage(connection: Connection, chain_id: int, links: Sequence[MovedLink]) -> None:
    """Give an empty chain its coverage. Runs stay where they were made: a covered row gets a number that no run has."""
    await connection.execute(
        """insert into coverage (chain_id, period_start, period_end, previous_end, kind, run_id, reason, records, committed_at,
                                 periods)
           select $1, g.period_start, g.period_end, case when g.nth > 1 then g.period_start end, g.kind,
                  case when g.kind = 'covered' then nextval(pg_get_serial_sequence('runs', 'id')) end, g.reason, g.records,
                  g.committed_at, g.periods
             from unnest($2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[], $8::int[])
                  with ordinality as g(period_start, period_end, kind, reason, records, committed_at, periods, nth)""",
        chain_id,
        [link.period_start for link in links],
        [link.period_end for link in links],
        [link.kind for link in links],
        [link.reason for link in links],
        [link.records for link in links],
        [link.committed_at for link in links],
        [link.periods for link in links],
    )


async def insert_run(connection: Connection, chain_id: int, run: dict[str, Any]) -> int:
    """Insert a run that ended elsewhere, or find it under its identity; return its number here."""
    columns = [name.strip() for name in _RUN_COLUMNS.split(",")]
    run_id: int = await connection.fetchval(
        f"""insert into runs (chain_id, tenant_id, account_id, {_RUN_COLUMNS})
            select c.id, c.tenant_id, c.account_id, {", ".join(f"w.{name}" for name in columns)}
              from chains c, jsonb_populate_record(null::runs, $2::text::jsonb) w where c.id = $1
            on conflict (chain_id, lane, period_end) do update set state = excluded.state returning id""",
        chain_id,
        to_json(run),
    )
    return run_id


async def insert_last_run(connection: Connection, chain_id: int, run: dict[str, Any]) -> None:
    """Insert the run that covers up to the chain's watermark, and let its coverage say so."""
    await connection.execute(
        """update coverage set run_id = $2
            where chain_id = $1 and period_end = (select max(period_end) from coverage where chain_id = $1)""",
        chain_id,
        await insert_run(connection, chain_id, run),
    )


async def insert_quarantine(connection: Connection, chain_id: int, records: Sequence[MovedRecord]) -> None:
    """Give a chain its quarantine, each record with the run that set it aside, under a number of this server."""
    for record in records:
        await connection.execute(
            """insert into quarantine (tenant_id, chain_id, run_id, reason, record, quarantined_at, requested_at)
               select tenant_id, id, $2, $3, $4, $5, $6 from chains where id = $1 on conflict (chain_id, digest) do nothing""",
            chain_id, await insert_run(connection, chain_id, record.run), record.reason, record.record, record.quarantined_at,
            record.requested_at,
        )  # fmt: skip


async def insert_dropped(connection: Connection, chain_id: int, drops: Sequence[MovedDrop]) -> None:
    """Give a chain what a person decided elsewhere. The record and its run get numbers that none here has."""
    await connection.execute(
        """insert into quarantine_exits (quarantine_id, tenant_id, chain_id, run_id, action, digest, reason, note, person, at)
           select nextval(pg_get_serial_sequence('quarantine', 'id')), c.tenant_id, c.id,
                  nextval(pg_get_serial_sequence('runs', 'id')), 'dropped', d.digest, d.reason, d.note, d.person, d.at
             from chains c, unnest($2::bytea[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
                  as d(digest, reason, note, person, at) where c.id = $1 order by d.at""",
        chain_id,
        [drop.digest for drop in drops],
        [drop.reason for drop in drops],
        [drop.note for drop in drops],
        [drop.person for drop in drops],
        [drop.at for drop in drops],
    )
