"""Table `outbox`, as people see it: batches with what became of them, replays, and what nobody wants any more."""

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
    ``dropped_at`` is when a person dropped it, None if nobody has, and ``dropped_reason`` is theirs.
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
    dropped_at: datetime | None
    dropped_reason: str


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


_STATE = "case when o.dropped_at is null or o.state <> 'dead' then o.state else 'dropped' end"

_CHOSEN = """
  from outbox o
  join routes t on t.id = o.route_id
  join destinations d on d.id = t.destination_id
  join chains c on c.id = o.chain_id
  join installations i on i.id = c.installation_id
 where not t.whole_periods
   and (cardinality($1::text[]) = 0 or o.message_id = any($1)) and (cardinality($2::text[]) = 0
        or o.state = any($2) and o.dropped_at is null or 'dropped' = any($2) and o.dropped_at is not null)
   and ($3::text is null or o.tenant_id = $3) and ($4::text is null or i.name = $4)
   and ($5::text is null or c.stream = $5)
   and ($6::timestamptz is null or o.created_at >= $6) and ($7::timestamptz is null or o.created_at < $7)
"""

_LIST = f"""
select o.message_id, {_STATE} as state, o.tenant_id, i.name as installation, c.stream, d.name as destination, o.run_id, o.batch,
       o.part, o.position, o.records, octet_length(o.body) as bytes, o.created_at, o.attempts, o.attempted_at, o.settled_at,
       case when o.state = 'open' and not exists (select 1 from outbox b where b.route_id = o.route_id
                                                     and b.state = 'open' and b.position < o.position)
            then t.not_before_at end as next_attempt_at,
       o.status, o.answer, o.dropped_at, o.dropped_reason
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


_REPLAYED = f"{_CHOSEN} and o.state <> 'open' and (o.dropped_at is null or cardinality($1::text[]) > 0)"


async def replay(connection: Connection, choice: Choice, now: datetime) -> int:
    """Open the chosen settled batches again, to be sent under their ids and in their order; return how many.

    Those that were dropped only if they are chosen by their ids: they are dropped no more then. A route on which something
    is replayed is tried at once, and its receiver counts as failing from its next failure.
    """
    routes = await connection.fetch(
        f"""update routes r set not_before_at = $8, failing_since = null
             where r.id in (select t.id {_REPLAYED}) returning r.id""",
        *choice.parameters, now,
    )  # fmt: skip
    status = await connection.execute(
        f"""update outbox m set state = 'open', settled_at = null, attempts = 0, dropped_at = null, dropped_reason = ''
             where m.route_id = any($8::bigint[]) and m.state <> 'open'
               and (m.route_id, m.position) in (select o.route_id, o.position {_REPLAYED})""",
        *choice.parameters, [row["id"] for row in routes],
    )  # fmt: skip
    return int(status.split()[-1])


_DROP = f"""
with chosen as (
    select o.route_id, o.position, o.state {_CHOSEN} and o.dropped_at is null
       and (o.state = 'dead' or o.state = 'open' and (t.lease_until is null or t.lease_until < $8))
),
dropped as (
    update outbox m set state = 'dead', settled_at = coalesce(m.settled_at, $8), dropped_at = $8, dropped_reason = $9
      from chosen c where m.route_id = c.route_id and m.position = c.position
    returning m.message_id, m.route_id, m.position, c.state as was
),
given_up as (
    select g.route_id, exists (select from outbox b where b.route_id = g.route_id and b.state = 'open'
                                                      and b.position < g.first) as behind_others
      from (select route_id, min(position) as first from dropped where was = 'open' group by route_id) g
),
fenced as (
    update routes r set epoch = r.epoch + 1, lease_until = null,
           not_before_at = case when g.behind_others then r.not_before_at else $8 end,
           failing_since = case when g.behind_others then r.failing_since end
      from given_up g where r.id = g.route_id
)
select message_id from dropped
"""


async def drop(connection: Connection, choice: Choice, reason: str, now: datetime) -> set[str]:
    """Mark the chosen batches as dropped that are dead, or open and in no sender's hands; return their ids.

    An open one is dead in the same moment, and its route goes on: what comes next in order is tried at once, and its receiver
    counts as failing from its next failure; what waits before it keeps its time. A sender whose lease had run out loses the
    route by it, and settles nothing more.
    """
    await connection.execute(  # first: what is read then has been settled by no other meanwhile
        f"select from routes r where r.id in (select t.id {_CHOSEN}) order by r.id for update", *choice.parameters
    )
    return {row["message_id"] for row in await connection.fetch(_DROP, *choice.parameters, now, reason)}


async def dead_by_chain(connection: Connection | Pool, chain_ids: Sequence[int]) -> dict[int, int]:
    """Return how many records of each chain are in the dead letter or were dropped, chains without left out."""
    rows = await connection.fetch(
        """select chain_id, sum(records)::bigint as records from outbox
            where state = 'dead' and chain_id = any($1::bigint[]) group by chain_id""",
        chain_ids,
    )
    return {row["chain_id"]: row["records"] for row in rows}


def _message(row: asyncpg.Record) -> MessageRow:
    return MessageRow(**{**dict(row), "state": MessageState(row["state"])})
