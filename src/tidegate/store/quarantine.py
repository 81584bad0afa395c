"""Tables `quarantine` and `quarantine_exits`: records that could not be delivered, and what became of them (SPEC 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.domain.errors import RunError

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool
    from tidegate.store.leases import LeasedRun


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A record that could not be delivered, as the source sent it; ``requested_at``: when its page was asked for."""

    reason: str
    record: bytes
    requested_at: datetime | None


async def add(connection: Connection, run: LeasedRun, records: Sequence[Poisoned], now: datetime) -> None:
    """Keep the records of one batch. One that is kept already is not kept twice; one that a person dropped stays dropped."""
    await connection.execute(
        """insert into quarantine (tenant_id, chain_id, run_id, reason, record, requested_at, quarantined_at)
           select $1, $2, $3, q.reason, q.record, q.requested_at, $7
             from unnest($4::text[], $5::bytea[], $6::timestamptz[]) as q(reason, record, requested_at)
            where not exists (select 1 from quarantine_exits e
                               where e.chain_id = $2 and e.digest = sha256(q.record) and e.action = 'dropped')
           on conflict (chain_id, digest) do nothing""",
        run.tenant_id, run.chain_id, run.id, [each.reason for each in records], [each.record for each in records],
        [each.requested_at for each in records], now,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which records are meant; None means all. ``reason``: a part of the reason's text, in any case."""

    tenant_id: str | None = None
    installation: str | None = None
    stream: str | None = None
    reason: str | None = None
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A record in quarantine, without its text. ``size``: bytes of it. ``retries``: how often it was tried again."""

    id: int
    tenant_id: str
    installation: str
    stream: str
    chain_id: int
    run_id: int
    reason: str
    size: int
    quarantined_at: datetime
    retries: int
    retried_at: datetime | None


_CHOSEN = """
  from quarantine q join chains c on c.id = q.chain_id join installations i on i.id = c.installation_id
 where ($1::text is null or q.tenant_id = $1) and ($2::text is null or i.name = $2) and ($3::text is null or c.stream = $3)
   and ($4::text is null or position(lower($4) in lower(q.reason)) > 0) and ($5::bigint[] is null or q.id = any($5))
"""


async def listed(connection: Connection | Pool, chosen: Chosen, limit: int) -> list[Kept]:
    """Return up to ``limit`` of the chosen records, oldest first."""
    rows = await connection.fetch(
        """select q.id, q.tenant_id, i.name as installation, c.stream, q.chain_id, q.run_id, q.reason,
                  length(q.record) as size, q.quarantined_at, q.retries, q.retried_at"""
        + _CHOSEN
        + " order by q.id limit $6",
        *_arguments(chosen),
        limit,
    )
    return [Kept(**row) for row in rows]


def _arguments(chosen: Chosen) -> tuple[object, ...]:
    ids = None if chosen.ids is None else list(chosen.ids)
    return chosen.tenant_id, chosen.installation, chosen.stream, chosen.reason, ids


async def ids_by_chain(connection: Connection | Pool, chosen: Chosen) -> dict[int, list[int]]:
    """Return the ids of the chosen records by chain, oldest first."""
    rows = await connection.fetch(
        "select q.id, q.chain_id" + _CHOSEN + " order by q.chain_id, q.id", *_arguments(chosen)
    )
    found: dict[int, list[int]] = {}
    for row in rows:
        found.setdefault(row["chain_id"], []).append(row["id"])
    return found


async def records(connection: Connection | Pool, ids: Sequence[int]) -> dict[int, Poisoned]:
    """Return the records still in quarantine by id; one kept before pages' times were kept has that of its keeping."""
    rows = await connection.fetch(
        """select id, reason, record, coalesce(requested_at, quarantined_at) as requested_at from quarantine
            where id = any($1::bigint[]) order by id""",
        ids,
    )
    return {row["id"]: Poisoned(row["reason"], row["record"], row["requested_at"]) for row in rows}


@dataclass(frozen=True, slots=True)
class Whose:
    """Where a chain's records come from and where they go, as things stand now."""

    tenant_id: str
    stream: str
    account: str
    connection_id: int
    destination_id: int


async def whose(connection: Connection | Pool, chain_id: int) -> Whose:
    """Return whose chain it is. Raises LookupError if there is none."""
    row = await connection.fetchrow(
        """select c.tenant_id, c.stream, a.name as account, i.connection_id, i.destination_id
             from chains c join accounts a on a.id = c.account_id join installations i on i.id = c.installation_id
            where c.id = $1""",
        chain_id,
    )
    if row is None:
        raise LookupError(f"there is no chain {chain_id}")
    return Whose(**row)


async def delivery_number(pool: Pool) -> int:
    """Return a number for one delivery out of quarantine: of the series of runs, so that it is no run's and no other's."""
    number: int = await pool.fetchval("select nextval(pg_get_serial_sequence('runs', 'id'))")
    return number


class Gone(RunError):
    """Some of the records have left the quarantine meanwhile; nothing was written."""

    code = "quarantine_changed"
    retryable = True


async def settle(
    connection: Connection,
    delivered: Sequence[int],
    stays: Sequence[tuple[int, str]],
    person: str,
    note: str,
    now: datetime,
) -> None:
    """Let delivered records out and note why the others stay, in the transaction that delivered them.

    Raises Gone, and that transaction must roll back, if one of them is not in quarantine any more: whoever let it out has
    delivered or dropped it.
    """
    await _let_out(connection, delivered, "delivered", person, note, now)
    status = await connection.execute(
        """update quarantine q set reason = s.reason, retries = retries + 1, retried_at = $3
             from unnest($1::bigint[], $2::text[]) as s(id, reason) where q.id = s.id""",
        [each for each, _ in stays], [reason for _, reason in stays], now,
    )  # fmt: skip
    if status != f"UPDATE {len(stays)}":
        raise Gone("Records have left the quarantine meanwhile.", remedy="List it again.")


async def drop(connection: Connection, ids: Sequence[int], person: str, note: str, now: datetime) -> None:
    """Let records out undelivered, for good: read again, they stay out. Raises Gone as `settle` does."""
    await _let_out(connection, ids, "dropped", person, note, now)


async def _let_out(
    connection: Connection, ids: Sequence[int], action: str, person: str, note: str, now: datetime
) -> None:
    status = await connection.execute(
        """with gone as (delete from quarantine where id = any($1::bigint[]) returning *)
           insert into quarantine_exits (quarantine_id, tenant_id, chain_id, run_id, action, digest, reason, note, person, at)
           select id, tenant_id, chain_id, run_id, $2, digest, reason, $4, $3, $5 from gone""",
        ids, action, person, note, now,
    )  # fmt: skip
    if status != f"INSERT 0 {len(ids)}":
        raise Gone("Records have left the quarantine meanwhile.", remedy="List it again.")


@dataclass(frozen=True, slots=True)
class Exit:
    """What became of a record: who let it out, when, how and why; ``reason`` is why it was in quarantine."""

    quarantine_id: int
    tenant_id: str
    installation: str
    stream: str
    chain_id: int
    run_id: int
    action: str
    reason: str
    note: str
    person: str
    at: datetime


async def exits(connection: Connection | Pool, chosen: Chosen, limit: int) -> list[Exit]:
    """Return up to ``limit`` of the chosen records that were let out, the last first."""
    rows = await connection.fetch(
        """select e.quarantine_id, e.tenant_id, i.name as installation, c.stream, e.chain_id, e.run_id, e.action, e.reason,
                  e.note, e.person, e.at
             from quarantine_exits e join chains c on c.id = e.chain_id join installations i on i.id = c.installation_id
            where ($1::text is null or e.tenant_id = $1) and ($2::text is null or i.name = $2)
              and ($3::text is null or c.stream = $3) and ($4::text is null or position(lower($4) in lower(e.reason)) > 0)
              and ($5::bigint[] is null or e.quarantine_id = any($5))
            order by e.id desc limit $6""",
        *_arguments(chosen),
        limit,
    )
    return [Exit(**row) for row in rows]
