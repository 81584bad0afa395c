"""Tables `routes` and `outbox`, as senders use them: a route is leased, its batches are settled in order, its runs end.

Every statement that changes a route's batches carries the epoch of the sender's lease, so two senders never interleave on
one route (SPEC 5, "Fencing").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg

from tidegate.domain.errors import LeaseLost, TidegateError
from tidegate.domain.outgoing import Answer, MessageState, Sending, SentRun, Waiting
from tidegate.domain.period import Period
from tidegate.domain.run import Lane, RunState
from tidegate.store import coverage
from tidegate.store.database import to_json

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool


@dataclass(frozen=True, slots=True)
class LeasedRoute:
    """A route that a sender holds. ``failing_since``: its first failed attempt since the last acknowledgement, or None."""

    id: int
    epoch: int
    chain_id: int
    destination_id: int
    destination_fingerprint: str
    whole_periods: bool
    failing_since: datetime | None
    destination_kind: str = ""


_SENDABLE = """
       t.not_before_at <= $1 and (not t.whole_periods or exists (
           select 1 from runs r where r.waits_for_route = t.id and r.state = 'delivering'))
"""
"""Whole periods wait for the end of a run; everything else only for its time."""

_SHARES = 4
"""How many times its share of what is taken is looked at of a destination: others may have less that is due."""
_FREE = f"{_SENDABLE} and (t.lease_until is null or t.lease_until < $1)"

_TAKE = f"""
with recursive start as materialized (
    select floor(random() * (1 + max(destination_id)))::bigint as id from routes where not_before_at is not null
),
around as (  -- destinations with something due, from any one on and round to it again, one look at the index each
    select coalesce((select r.destination_id from routes r where r.not_before_at <= $1
                        and r.destination_id >= (select id from start) order by r.destination_id limit 1),
                    (select r.destination_id from routes r where r.not_before_at <= $1
                      order by r.destination_id limit 1)) as destination_id
    union
    select coalesce((select r.destination_id from routes r where r.not_before_at <= $1
                        and r.destination_id > a.destination_id order by r.destination_id limit 1),
                    (select r.destination_id from routes r where r.not_before_at <= $1
                      order by r.destination_id limit 1))
      from around a where a.destination_id is not null
),
awake as materialized (  -- of more than these the others have their turn at another look
    select destination_id from around where destination_id is not null limit {_SHARES} * $4 + 100
),
due as (
    select x.id, x.not_before_at, coalesce(h.held, 0) + row_number() over (partition by a.destination_id
                                                                              order by x.not_before_at) as turn
      from awake a
     cross join lateral (select t.id, t.not_before_at from routes t where t.destination_id = a.destination_id and {_FREE}
                          order by t.destination_id, t.not_before_at
                          limit $4 * {_SHARES} / greatest((select count(*) from awake), 1) + 1) x
      left join unnest($5::bigint[], $6::bigint[]) as h(destination_id, held) using (destination_id)
),
first as materialized (
    select array(select id from due order by turn, not_before_at limit 2 * $4) as ids
),
chosen as (
    select t.id from first, routes t where t.id = any(first.ids) and {_FREE}
     order by array_position(first.ids, t.id) limit $4 for update of t skip locked
)
update routes t set epoch = t.epoch + 1, lease_until = $2, sender = $3
  from chosen, destinations d where t.id = chosen.id and d.id = t.destination_id
returning t.id, t.epoch, t.chain_id, t.destination_id, d.fingerprint as destination_fingerprint,
          d.kind as destination_kind, t.whole_periods, t.failing_since
"""


async def take(
    pool: Connection | Pool,
    now: datetime,
    until: datetime,
    sender: str,
    most: int,
    held: Mapping[int, int] | None = None,
) -> list[LeasedRoute]:
    """Lease up to ``most`` routes that have something to send by ``now`` and that no living sender holds.

    Destinations take turns, by how many routes of each the sender has: ``held``, by destination. So one that answers
    slowly, or not at all, does not keep the others waiting, however many of its routes are due (SPEC 3, fairness).
    """
    there = held or {}
    rows = await pool.fetch(_TAKE, now, until, sender, most, list(there), list(there.values()))
    return [LeasedRoute(**row) for row in rows]


async def renew(pool: Pool, leases: Sequence[tuple[int, int]], until: datetime) -> set[int]:
    """Extend the leases (route id, epoch) and return the ids of those still held."""
    rows = await pool.fetch(
        """update routes t set lease_until = $3 from unnest($1::bigint[], $2::int[]) as l(id, epoch)
            where t.id = l.id and t.epoch = l.epoch and t.lease_until is not null returning t.id""",
        [route_id for route_id, _ in leases], [epoch for _, epoch in leases], until,
    )  # fmt: skip
    return {row["id"] for row in rows}


_RUN = """r.id as run_id, r.chain_id, r.tenant_id, i.name as installation, c.workflow, c.stream, a.name as account_name,
       r.lane, r.period_start, r.period_end, r.due_at, r.started_at"""
"""Of run r, chain c, installation i and account a: what `_run` reads."""

_NEXT = f"""
with due as (
    select r.id, r.waits_for_position as upto from runs r
     where r.waits_for_route = $1 and r.state = 'delivering' order by r.waits_for_position, r.id limit 1
),
chosen as (
    (select o.position, null::bigint as run_id from outbox o
      where not $2 and o.route_id = $1 and o.state = 'open' order by o.position limit 1)
    union all
    select o.position, due.id from outbox o, due
     where $2 and o.route_id = $1 and o.state = 'open' and o.position <= due.upto
)
select o.message_id, o.position, o.records, o.created_at, o.attempts, {_RUN}
  from chosen
  join outbox o on o.route_id = $1 and o.position = chosen.position
  join runs r on r.id = coalesce(chosen.run_id, o.run_id)
  join chains c on c.id = r.chain_id
  join installations i on i.id = c.installation_id
  join accounts a on a.id = c.account_id
 order by o.position
"""


async def following(pool: Pool, route: LeasedRoute) -> Sending | None:
    """Return what is to be sent next on a route: its oldest open batch, or all of a period; None if there is nothing."""
    rows = await pool.fetch(_NEXT, route.id, route.whole_periods)
    if not rows:
        return None

    async def body(batch: Waiting) -> bytes:
        found: bytes = await pool.fetchval(
            "select body from outbox where route_id = $1 and position = $2", route.id, batch.position
        )
        return found

    batches = tuple(
        Waiting(row["message_id"], row["position"], row["records"], row["created_at"], row["attempts"]) for row in rows
    )
    first = rows[0]
    run = _run(first)
    period = run.period if run else None
    return Sending(
        first["tenant_id"], first["installation"], first["stream"], Lane(first["lane"]), period, batches, body, run
    )


def _run(row: asyncpg.Record) -> SentRun | None:
    """Return the run of a row, None if it has not started."""
    if row["period_start"] is None:
        return None
    return SentRun(
        row["run_id"], row["chain_id"], row["tenant_id"], row["installation"], row["workflow"], row["stream"],
        row["account_name"], Lane(row["lane"]), Period(row["period_start"], row["period_end"]), row["due_at"],
        row["started_at"],
    )  # fmt: skip


_SETTLE = """
update outbox set state = $3, settled_at = $4, attempted_at = $4, attempts = attempts + 1, status = $5, answer = $6,
       dropped_at = null, dropped_reason = ''
 where route_id = $1 and position = any($2::bigint[]) and state = 'open'
"""


async def settle(
    pool: Pool,
    route: LeasedRoute,
    sending: Sending,
    state: MessageState,
    answer: Answer,
    now: datetime,
    until: datetime,
) -> None:
    """Settle what was sent, and keep the lease up to ``until``: acknowledged, or in the dead letter with its reason.

    An acknowledgement ends the route's being failing. What a destination of whole periods has taken is not kept.
    Raises LeaseLost.
    """
    positions = [batch.position for batch in sending.batches]
    async with pool.acquire() as connection, connection.transaction():
        await _hold(connection, route, until, well=state is MessageState.ACKNOWLEDGED)
        if route.whole_periods and state is MessageState.ACKNOWLEDGED:
            await connection.execute(
                "delete from outbox where route_id = $1 and position = any($2::bigint[])", route.id, positions
            )
        else:
            await connection.execute(_SETTLE, route.id, positions, state, now, answer.status, answer.detail)


async def _hold(connection: Connection, route: LeasedRoute, until: datetime, *, well: bool) -> None:
    status = await connection.execute(
        """update routes set lease_until = $3, failing_since = case when $4 then null else failing_since end,
                  error = case when $4 then null else error end
            where id = $1 and epoch = $2 and lease_until is not null""",
        route.id, route.epoch, until, well,
    )  # fmt: skip
    if status != "UPDATE 1":
        raise _lost(route)


async def put_back(
    pool: Pool,
    route: LeasedRoute,
    sending: Sending | None,
    answer: Answer,
    error: TidegateError,
    now: datetime,
    at: datetime,
) -> None:
    """Let go of the route until ``at``; what was sent stays where it is, its attempt noted. Raises LeaseLost.

    Without ``sending`` nothing was sent, for a reason of ours: the receiver does not count as failing.
    """
    positions = [batch.position for batch in sending.batches] if sending else []
    async with pool.acquire() as connection, connection.transaction():
        status = await connection.execute(
            """update routes set lease_until = null, not_before_at = $3, error = $5::text::jsonb,
                      failing_since = case when $6 then coalesce(failing_since, $4) else failing_since end
                where id = $1 and epoch = $2 and lease_until is not null""",
            route.id, route.epoch, at, now, to_json(error.as_json()), sending is not None,
        )  # fmt: skip
        if status != "UPDATE 1":
            raise _lost(route)
        await connection.execute(
            """update outbox set attempts = attempts + 1, attempted_at = $3, status = $4, answer = $5
                where route_id = $1 and position = any($2::bigint[]) and state = 'open'""",
            route.id, positions, now, answer.status, answer.detail,
        )  # fmt: skip


async def release(pool: Pool, route: LeasedRoute, now: datetime) -> None:
    """Let go of a route; it sleeps if nothing on it is open. A route that is not ours any more is left alone."""
    async with pool.acquire() as connection, connection.transaction():
        ours = await connection.fetchval(
            "select 1 from routes where id = $1 and epoch = $2 and lease_until is not null for update",
            route.id,
            route.epoch,
        )
        if ours:  # a statement of its own: it sees what writers have committed while the lock was waited for
            await connection.execute(
                """update routes set lease_until = null, not_before_at = case when exists (
                          select 1 from outbox where route_id = $1 and state = 'open') then $2::timestamptz end
                    where id = $1""",
                route.id, now,
            )  # fmt: skip


def _lost(route: LeasedRoute) -> LeaseLost:
    return LeaseLost(
        f"Route {route.id} is no longer ours: its lease of epoch {route.epoch} was taken over.",
        remedy="Nothing to do: the sender that took it over goes on with the same batch.",
        route_id=route.id, epoch=route.epoch,
    )  # fmt: skip


_COMPLETE = f"""
select {_RUN}
  from runs r
  join chains c on c.id = r.chain_id join installations i on i.id = c.installation_id join accounts a on a.id = c.account_id
 where r.state = 'delivering' and ($1::bigint is null or r.waits_for_route = $1)
   and not exists (select 1 from outbox o where o.route_id = r.waits_for_route and o.position <= r.waits_for_position
                                            and o.state = 'open')
 order by r.period_end
"""

_END = """
with ended as (
    update runs r set state = r.ends_as, finished_at = $2, ends_as = null, waits_for_route = null, waits_for_position = null
     where r.id = $1 and r.state = 'delivering'
    returning r.id, r.chain_id, r.lane, r.period_start, r.period_end, r.read_count, r.state
),
looked_at as (
    update schedules s set held_until = null
      from ended f where s.chain_id = f.chain_id and s.held_until is not null and f.state = 'succeeded'
),
covered as (
    insert into coverage (chain_id, period_start, period_end, previous_end, kind, run_id, records, committed_at)
    select f.chain_id, f.period_start, f.period_end,
           (select max(c.period_end) from coverage c where c.chain_id = f.chain_id), 'covered', f.id, f.read_count, $2
      from ended f where f.state = 'succeeded' and f.lane = 'live'
)
select state from ended
"""

_REFUSE = """
update runs set state = 'failed', finished_at = $2, ends_as = null, waits_for_route = null, waits_for_position = null,
       error = $3::text::jsonb
 where id = $1 and state = 'delivering'
"""


async def end_delivered(
    pool: Pool, now: datetime, refused: Callable[[Connection, int], Awaitable[None]], route_id: int | None = None
) -> list[tuple[SentRun, RunState]]:
    """End the delivering runs all of whose batches are acknowledged or in the dead letter; return them and how they ended.

    As succeeded with coverage, or as unproven without. One whose coverage the chain refuses ends as failed, so that it
    holds up no other: its period is inside the next one; ``refused`` is told its id, in the transaction that fails it.
    """
    ended: list[tuple[SentRun, RunState]] = []
    for run in map(_run, await pool.fetch(_COMPLETE, route_id)):
        assert run is not None, "a delivering run has started"
        try:
            async with pool.acquire() as connection, connection.transaction():
                state = await connection.fetchval(_END, run.id, now)
                await coverage.backfill(connection, run.id, now)
        except asyncpg.IntegrityConstraintViolationError as error:
            state = None
            told = {"code": "coverage_refused", "message": f"The chain refuses the period: {error}."}
            async with pool.acquire() as connection, connection.transaction():
                if await connection.execute(_REFUSE, run.id, now, to_json(told)) == "UPDATE 1":
                    state = RunState.FAILED
                    await refused(connection, run.id)
        if state is not None:  # else another sender ended it
            ended.append((run, RunState(state)))
    return ended


async def outstanding(pool: Pool, now: datetime) -> int:
    """Return how many routes have something to send by ``now``, or are being sent on."""
    count: int = await pool.fetchval(f"select count(*) from routes t where t.lease_until >= $1 or {_SENDABLE}", now)
    return count


async def unsent(pool: Pool, now: datetime) -> tuple[int, datetime | None]:
    """Return how many routes could be sent on by ``now`` and are held by no living sender, and since when the first could."""
    row = await pool.fetchrow(
        f"""select count(*), min(greatest(t.not_before_at, t.lease_until)) from routes t
             where {_SENDABLE} and (t.lease_until is null or t.lease_until < $1)""",
        now,
    )
    assert row is not None
    return row[0], row[1]


@dataclass(frozen=True, slots=True)
class FailingDestination:
    """A destination that does not take what is sent to it; ``since``, ``error``: of the route that has failed for longest."""

    name: str
    routes: int
    since: datetime
    error: str


async def failing(pool: Pool) -> list[FailingDestination]:
    """Return the destinations whose last answer to a batch that still waits was a failure, longest first."""
    rows = await pool.fetch(
        """select d.name, count(*) as routes, min(t.failing_since) as since,
                  (array_agg(t.error ->> 'message' order by t.failing_since))[1] as error
             from routes t join destinations d on d.id = t.destination_id
            where t.failing_since is not null and t.not_before_at is not null group by d.name order by since"""
    )
    return [FailingDestination(row["name"], row["routes"], row["since"], row["error"] or "") for row in rows]
