"""Table `outbox`, as people see it: batches with what became of them, and replays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.domain.outgoing import MessageState

if TYPE_CHECKING:
    import asyncpg

    from tidegate.store.database import Connection, Pool


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A batch in the outbox. ``next_attempt_at`` is None unless it is the next one to be sent on its route.

    ``status`` and ``answer`` are the last attempt's: HTTP's status, None without a reply; and why it failed, for people.
    """

    message_id: str
    state: MessageState
    tenant_id: str
    installation: str
    stream: str
    destination: str
    run_id: int
    batch: int
    part: int
    position: int
    records: int
    bytes: int
    created_at: datetime
    attempts: int
    attempted_at: datetime | None
    settled_at: datetime | None
    next_attempt_at: datetime | None
    status: int | None
    answer: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which batches: None and no ids mean all. ``since`` and ``until`` bound `created_at`, half-open."""

    ids: Sequence[str] = ()
    states: Sequence[MessageState] = ()
    tenant_id: str | None = None
    installation: str | None = None
    stream: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def parameters(self) -> tuple[object, ...]:
        """Return the values of `_CHOSEN`."""
        return (
            list(self.ids), list(self.states), self.tenant_id, self.installation, self.stream, self.since, self.until,
        )  # fmt: skip


_CHOSEN = """
  from outbox o
  join routes t on t.id = o.route_id
  join destinations d on d.id = t.destination_id
  join chains c on c.id = o.chain_id
  join installations i on i.id = c.installation_id
 where not t.whole_periods
   and (cardinality($1::text[]) = 0 or o.message_id = any($1)) and (cardinality($2::text[]) = 0 or o.state = any($2))
   and ($3::text is null or o.tenant_id = $3) and ($4::text is null or i.name = $4)
   and ($5::text is null or c.stream = $5)
   and ($6::timestamptz is null or o.created_at >= $6) and ($7::timestamptz is null or o.created_at < $7)
"""

_LIST = f"""
select o.message_id, o.state, o.tenant_id, i.name as installation, c.stream, d.name as destination, o.run_id, o.batch,
       o.part, o.position, o.records, octet_length(o.body) as bytes, o.created_at, o.attempts, o.attempted_at, o.settled_at,
       case when o.state = 'open' and not exists (select 1 from outbox b where b.route_id = o.route_id
                                                     and b.state = 'open' and b.position < o.position)
            then t.not_before_at end as next_attempt_at,
       o.status, o.answer
{_CHOSEN}
 order by o.created_at desc, o.route_id, o.position desc limit $8
"""


async def messages(connection: Connection | Pool, choice: Choice, limit: int) -> list[MessageRow]:
    """Return up to ``limit`` of the chosen batches, newest first."""
    return [_message(row) for row in await connection.fetch(_LIST, *choice.parameters, limit)]


async def body(connection: Connection | Pool, message_id: str) -> bytes:
    """Return a batch's body as it is sent. Raises LookupError."""
    found: bytes | None = await connection.fetchval("select body from outbox where message_id = $1", message_id)
    if found is None:
        raise LookupError(f"there is no message {message_id}")
    return found


async def replay(connection: Connection, choice: Choice, now: datetime) -> int:
    """Open the chosen settled batches again, to be sent under their ids and in their order; return how many.

    A route on which something is replayed is tried at once, and its receiver counts as failing from its next failure.
    """
    routes = await connection.fetch(
        f"""update routes r set not_before_at = $8, failing_since = null
             where r.id in (select t.id {_CHOSEN} and o.state <> 'open') returning r.id""",
        *choice.parameters, now,
    )  # fmt: skip
    status = await connection.execute(
        f"""update outbox m set state = 'open', settled_at = null, attempts = 0
             where m.route_id = any($8::bigint[]) and m.state <> 'open'
               and (m.route_id, m.position) in (select o.route_id, o.position {_CHOSEN})""",
        *choice.parameters, [row["id"] for row in routes],
    )  # fmt: skip
    return int(status.split()[-1])


async def dead_by_chain(connection: Connection | Pool, chain_ids: Sequence[int]) -> dict[int, int]:
    """Return how many records of each chain are in the dead letter, chains without left out."""
    rows = await connection.fetch(
        """select chain_id, sum(records)::bigint as records from outbox
            where state = 'dead' and chain_id = any($1::bigint[]) group by chain_id""",
        chain_ids,
    )
    return {row["chain_id"]: row["records"] for row in rows}


def _message(row: asyncpg.Record) -> MessageRow:
    return MessageRow(**{**dict(row), "state": MessageState(row["state"])})
