"""Table `schedules`: the rule of each chain, and the due date that comes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from tidegate.store.database import from_json, to_json

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool


class DueSchedule(NamedTuple):
    """A schedule whose next due date has come. ``rule`` is its native JSON."""

    chain_id: int
    rule: str
    received_at: datetime
    planned_until: datetime
    paused: bool
    seed: str


class Move(NamedTuple):
    """Where the planning of a schedule stands: due dates up to ``planned_until`` have passed.

    ``next_due_at``: the first due date that has not become a run, None if there is none. ``held_until``: planned ahead far
    enough, look again then or when coverage moves on; None to look again at the next due date.
    """

    chain_id: int
    planned_until: datetime
    next_due_at: datetime | None
    held_until: datetime | None = None


async def due(connection: Connection, now: datetime, limit: int) -> list[int]:
    """Return the chains of up to ``limit`` schedules due by ``now``, those first that have been due for longest, and behind them
    those that were planned ahead and are to be looked at again. The ones that are held still are not passed over one by one.

    To be asked for many at once: what was due before stays in the index as long as any transaction on the server might
    still see it, and each look passes over it.
    """
    rows = await connection.fetch(
        """(select chain_id from schedules where held_until is null and next_due_at <= $1 order by next_due_at limit $2)
           union all
           (select chain_id from schedules where held_until <= $1 and next_due_at <= $1 order by held_until limit $2)
           limit $2""",
        now, limit,
    )  # fmt: skip
    return [row[0] for row in rows]


async def take_due(connection: Connection, chain_ids: Sequence[int], now: datetime) -> list[DueSchedule]:
    """Return those of these schedules that are due by ``now`` still, and lock them until the caller's transaction ends.

    Paused ones are among them, so that what they miss is known. Schedules that another planner holds are passed over, so
    planners never wait for one another.
    """
    rows = await connection.fetch(
        """select s.chain_id, s.rule::text as rule, s.received_at, s.planned_until, s.paused_at is not null as paused,
                  c.installation_id || '/' || c.stream as seed
             from schedules s join chains c on c.id = s.chain_id
            where s.chain_id = any($1::bigint[]) and s.next_due_at <= $2 and (s.held_until is null or s.held_until <= $2)
            order by s.chain_id for update of s skip locked""",
        chain_ids, now,
    )  # fmt: skip
    return list(map(DueSchedule._make, rows))


LOOK_AT = """
select least((select min(next_due_at) from schedules where held_until is null),
             (select min(held_until) from schedules where held_until is not null))
"""
"""Each minimum is an index's first entry whatever the server believes; for `exists` a kept plan reads the whole table."""


async def look_at(connection: Connection | Pool) -> datetime | None:
    """Return when `take_due` finds something next, in one look at an index each; None if there is no due date to come."""
    found: datetime | None = await connection.fetchval(LOOK_AT)
    return found


async def advance(connection: Connection, moves: Sequence[Move]) -> None:
    """Set where the planning of schedules stands that `take_due` has taken, in the same transaction."""
    if not moves:
        return
    await connection.execute(
        """update schedules s set planned_until = m.planned_until, next_due_at = m.next_due_at, held_until = m.held_until
             from unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[])
                  as m(chain_id, planned_until, next_due_at, held_until)
            where s.chain_id = m.chain_id""",
        *zip(*moves, strict=True),
    )  # fmt: skip


async def next_due_at(connection: Connection | Pool) -> datetime | None:
    """Return the earliest due date that has not become a run yet, None if there is none."""
    found: datetime | None = await connection.fetchval(
        """select least((select min(next_due_at) from schedules where paused_at is null and held_until is null),
                        (select min(next_due_at) from schedules where paused_at is null and held_until is not null))"""
    )
    return found


async def next_look_at(connection: Connection | Pool) -> datetime | None:
    """Return when the planner has something to do next: `next_due_at`, or later for what is planned ahead far enough."""
    found: datetime | None = await connection.fetchval(
        """select least((select min(next_due_at) from schedules where paused_at is null and held_until is null),
                        (select min(held_until) from schedules where paused_at is null and held_until is not null))"""
    )
    return found


async def put(
    connection: Connection, chain_id: int, rule: Mapping[str, Any], received_at: datetime, next_due_at: datetime | None
) -> None:
    """Insert or replace the rule of a chain; due dates before ``received_at`` are not planned any more."""
    await connection.execute(
        """insert into schedules (chain_id, rule, received_at, planned_until, next_due_at)
           values ($1, $2::text::jsonb, $3, $3, $4)
           on conflict (chain_id) do update
              set rule = excluded.rule, received_at = excluded.received_at, planned_until = excluded.planned_until,
                  next_due_at = excluded.next_due_at, held_until = null""",
        chain_id, to_json(rule), received_at, next_due_at,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeptRule:
    """The native JSON of a chain's rule, and when it was received."""

    rule: Mapping[str, Any]
    received_at: datetime


async def rule_of(connection: Connection, chain_id: int, *, hold: bool = False) -> KeptRule | None:
    """Return a chain's rule, None if it has none; ``hold`` keeps planners from it until the transaction ends."""
    row = await connection.fetchrow(
        "select rule::text as rule, received_at from schedules where chain_id = $1" + " for update" * hold, chain_id
    )
    return None if row is None else KeptRule(from_json(row["rule"]), row["received_at"])


async def set_rule(connection: Connection, chain_id: int, rule: Mapping[str, Any]) -> None:
    """Replace a chain's rule by one with the same due dates: what is planned stays planned."""
    await connection.execute("update schedules set rule = $2::text::jsonb where chain_id = $1", chain_id, to_json(rule))


async def remove(connection: Connection, chain_ids: Sequence[int]) -> None:
    """Plan nothing more for these chains, resumed or not; their coverage stays, and `put` takes them up again."""
    await connection.execute("delete from schedules where chain_id = any($1::bigint[])", chain_ids)


async def pause(connection: Connection, chain_ids: Sequence[int], now: datetime) -> None:
    """Stop planning for these chains."""
    await connection.execute(
        "update schedules set paused_at = $2 where chain_id = any($1::bigint[]) and paused_at is null", chain_ids, now
    )


async def resume(connection: Connection, moves: Sequence[Move]) -> None:
    """Plan again from where ``moves`` say: a due date in the past is catch-up (SPEC 2.11)."""
    await advance(connection, moves)
    await connection.execute(
        "update schedules set paused_at = null where chain_id = any($1::bigint[])", [move.chain_id for move in moves]
    )
