"""Planner: due schedules become runs, and the next due date is computed, in one transaction (SPEC 2, 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TypeAlias

import msgspec
import structlog

from tidegate.domain.capacity import not_before
from tidegate.domain.catch_up import Piece, Standing, in_order, next_pieces
from tidegate.domain.errors import InvalidInput
from tidegate.domain.run import Trigger
from tidegate.domain.schedule import Schedule, latest_due, next_due
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.parts import Parts
from tidegate.store import database, runs, schedules
from tidegate.store.runs import PlannedRun
from tidegate.store.schedules import DueSchedule, Move

log = structlog.get_logger()

AT_ONCE = 2
"""Batches planned side by side: while the database writes one, the due dates of the other are computed."""
UNREADABLE_AGAIN = timedelta(hours=1)
"""When a stored rule that this revision cannot read is looked at again."""


async def plan_due(parts: Parts, now: datetime) -> int:
    """Plan every schedule due by ``now`` and return how many there were.

    Under `coalesce` each becomes one run up to the latest due date passed; under `each`, and where periods are cut, the
    next pieces of a row of runs, at most ``plan_ahead`` of which wait at once (SPEC 2.8). Due dates are computed from the
    rule here and now: one stored under older zone rules is moved, not obeyed (SPEC 2.12, HOLE jj).
    """
    if not await schedules.any_due(parts.pool, now):
        return 0
    return sum(await asyncio.gather(*[_plan_batches(parts, now) for _ in range(AT_ONCE)]))


async def _plan_batches(parts: Parts, now: datetime) -> int:
    planned = 0
    while True:
        count = await _plan_batch(parts, now)
        planned += count
        if count < parts.settings.plan_batch:
            return planned


async def _plan_batch(parts: Parts, now: datetime) -> int:
    async with parts.pool.acquire() as connection, connection.transaction():
        await database.plan_statements_anew(connection)
        due = await schedules.take_due(connection, now, parts.settings.plan_batch)
        if not due:
            return 0
        rules = {one.chain_id: rule for one in due if (rule := _readable(one)) is not None}
        ordered = [chain_id for chain_id, rule in rules.items() if in_order(rule)]
        standings = await runs.standings(connection, ordered, now)
        outcomes = [
            _plan_safely(one, rules.get(one.chain_id), standings, now, parts.settings.plan_ahead) for one in due
        ]
        await runs.plan(connection, [run for planned, _ in outcomes for run in planned])
        merging = [run.chain_id for planned, _ in outcomes for run in planned if run.chain_id not in standings]
        await runs.coalesce(connection, merging, now)
        await schedules.advance(connection, [move for _, move in outcomes])
    parts.signal("schedules.planned")
    return len(due)


Outcome: TypeAlias = tuple[list[PlannedRun], Move]
"""The runs that a due schedule becomes, if any, and where its planning then stands."""


def _readable(due: DueSchedule) -> Schedule | None:
    """Return the rule of a due schedule, None (and a log line) if this revision cannot read it."""
    try:
        return _schedule(due.rule)
    except (InvalidInput, ValueError, ArithmeticError) as error:
        log.error("schedule not readable", chain_id=due.chain_id, error=str(error))
        return None


def _plan_safely(
    due: DueSchedule, schedule: Schedule | None, standings: Mapping[int, Standing], now: datetime, most: int
) -> Outcome:
    """Return what becomes of a due schedule; one that cannot be read is looked at again later and stops no other."""
    again = Move(due.chain_id, due.planned_until, now + UNREADABLE_AGAIN)
    if schedule is None:
        return [], again
    standing = standings.get(due.chain_id)
    try:
        if due.paused or standing is None:
            return _plan_one(due, schedule, now)
        return _plan_pieces(due, schedule, standing, now, most)
    except (ValueError, ArithmeticError) as error:
        log.error("schedule not readable", chain_id=due.chain_id, error=str(error))
        return [], again


@lru_cache(maxsize=10_000)
def _schedule(rule: str) -> Schedule:
    """Return the schedule of a stored rule; thousands of installations often share one."""
    return parse_schedule(msgspec.json.decode(rule))


def _plan_one(due: DueSchedule, schedule: Schedule, now: datetime) -> Outcome:
    """Return the run of a schedule one of whose due dates has really passed; a paused one only goes on to the next."""
    due_at = latest_due(schedule, due.planned_until, now)
    following = next_due(schedule, now)
    if due_at is None:
        return [], Move(due.chain_id, due.planned_until, following)
    if due.paused:
        return [], Move(due.chain_id, due_at, following)
    first_due_at = next_due(schedule, due.planned_until)
    assert first_due_at is not None
    run = PlannedRun(
        chain_id=due.chain_id,
        trigger=Trigger.SCHEDULE,
        first_due_at=first_due_at,
        due_at=due_at,
        period_end=due_at,
        not_before_at=planned_run_date(schedule, due_at, following, due.seed),
    )
    return [run], Move(due.chain_id, due_at, following)


def _plan_pieces(due: DueSchedule, schedule: Schedule, standing: Standing, now: datetime, most: int) -> Outcome:
    """Return the next runs of a row; each but the first waits for the one before it to be covered (SPEC 2.8, 2.9)."""
    planned = [
        _piece_run(due, schedule, piece, standing)
        for piece in next_pieces(schedule, standing, due.received_at, now, most)
    ]
    ends = [run.period_end for run in planned]
    taken_until = max([due.received_at, standing.covered_until, standing.taken_until or due.received_at, *ends])
    first_unplanned, following = next_due(schedule, taken_until), next_due(schedule, now)
    behind = first_unplanned is not None and first_unplanned <= now
    held_until = (following or now + UNREADABLE_AGAIN) if behind else None
    passed = latest_due(schedule, due.planned_until, now) or due.planned_until
    return planned, Move(due.chain_id, passed, first_unplanned, held_until)


def _piece_run(due: DueSchedule, schedule: Schedule, piece: Piece, standing: Standing) -> PlannedRun:
    following = next_due(schedule, piece.due_at)
    return PlannedRun(
        chain_id=due.chain_id,
        trigger=Trigger.SCHEDULE,
        first_due_at=piece.first_due_at,
        due_at=piece.due_at,
        period_end=piece.period_end,
        not_before_at=planned_run_date(schedule, piece.due_at, following, due.seed),
        bounded=piece.bounded,
        follows_at=piece.period_start if piece.period_start > standing.covered_until else None,
    )


def planned_run_date(schedule: Schedule, due_at: datetime, following: datetime | None, seed: str) -> datetime:
    """Return ``due_at + settle + spread`` (SPEC 3)."""
    return not_before(due_at, following, settle=schedule.settle, spread_window=schedule.spread_window, seed=seed)
