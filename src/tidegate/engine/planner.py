"""Planner: due schedules become runs, and the next due date is computed, in one transaction (SPEC 2, 3)."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TypeAlias

import msgspec
import structlog

from tidegate.domain.capacity import not_before
from tidegate.domain.errors import InvalidInput
from tidegate.domain.run import Trigger
from tidegate.domain.schedule import Schedule, latest_due, next_due
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.parts import Parts
from tidegate.store import database, runs, schedules
from tidegate.store.runs import PlannedRun
from tidegate.store.schedules import DueSchedule

log = structlog.get_logger()

AT_ONCE = 2
"""Batches planned side by side: while the database writes one, the due dates of the other are computed."""
UNREADABLE_AGAIN = timedelta(hours=1)
"""When a stored rule that this revision cannot read is looked at again."""


async def plan_due(parts: Parts, now: datetime) -> int:
    """Plan every schedule due by ``now`` and return how many there were.

    Under `coalesce` each becomes one run up to the latest due date passed (SPEC 2.8). Due dates are computed from the
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
        outcomes = [_plan_safely(schedule, now) for schedule in due]
        await runs.plan(connection, [run for run, _ in outcomes if run is not None], now)
        await schedules.advance(connection, [move for _, move in outcomes])
    parts.signal("schedules.planned")
    return len(due)


Outcome: TypeAlias = tuple[PlannedRun | None, tuple[int, datetime, datetime | None]]
"""The run that a due schedule becomes, if any, and (chain id, planned until, next due date)."""


def _plan_safely(due: DueSchedule, now: datetime) -> Outcome:
    """Return what becomes of a due schedule; one that cannot be read is looked at again later and stops no other."""
    try:
        return _plan_one(due, now)
    except (InvalidInput, ValueError, ArithmeticError) as error:
        log.error("schedule not readable", chain_id=due.chain_id, error=str(error))
        return None, (due.chain_id, due.planned_until, now + UNREADABLE_AGAIN)


@lru_cache(maxsize=10_000)
def _schedule(rule: str) -> Schedule:
    """Return the schedule of a stored rule; thousands of installations often share one."""
    return parse_schedule(msgspec.json.decode(rule))


def _plan_one(due: DueSchedule, now: datetime) -> Outcome:
    """Return the run of a schedule one of whose due dates has really passed; a paused one only goes on to the next."""
    schedule = _schedule(due.rule)
    due_at = latest_due(schedule, due.planned_until, now)
    following = next_due(schedule, now)
    if due_at is None:
        return None, (due.chain_id, due.planned_until, following)
    if due.paused:
        return None, (due.chain_id, due_at, following)
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
    return run, (due.chain_id, due_at, following)


def planned_run_date(schedule: Schedule, due_at: datetime, following: datetime | None, seed: str) -> datetime:
    """Return ``due_at + settle + spread`` (SPEC 3)."""
    return not_before(due_at, following, settle=schedule.settle, spread_window=schedule.spread_window, seed=seed)
