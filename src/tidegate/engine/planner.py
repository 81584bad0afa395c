"""Planner: due schedules become runs, and the next due date is computed, in one transaction (SPEC 2, 3)."""

from __future__ import annotations

from datetime import datetime

import msgspec

from tidegate.domain.capacity import not_before
from tidegate.domain.run import Trigger
from tidegate.domain.schedule import Schedule, latest_due, next_due
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.parts import Parts
from tidegate.store import runs, schedules
from tidegate.store.runs import PlannedRun
from tidegate.store.schedules import DueSchedule


async def plan_due(parts: Parts, now: datetime) -> int:
    """Plan every schedule due by ``now`` and return how many there were.

    Under `coalesce` each becomes one run up to the latest due date passed (SPEC 2.8). Due dates are computed from the
    rule here and now: one stored under older zone rules is moved, not obeyed (SPEC 2.12, HOLE jj).
    """
    planned = 0
    while True:
        count = await _plan_batch(parts, now)
        planned += count
        if count < parts.settings.plan_batch:
            return planned


async def _plan_batch(parts: Parts, now: datetime) -> int:
    async with parts.pool.acquire() as connection, connection.transaction():
        due = await schedules.take_due(connection, now, parts.settings.plan_batch)
        if not due:
            return 0
        outcomes = [_plan_one(schedule, now) for schedule in due]
        await runs.plan(connection, [run for run, _ in outcomes if run is not None])
        await schedules.advance(connection, [move for _, move in outcomes])
    parts.signal("schedules.planned")
    return len(due)


def _plan_one(due: DueSchedule, now: datetime) -> tuple[PlannedRun | None, tuple[int, datetime, datetime | None]]:
    """Return the run that a due schedule becomes, if one of its due dates has really passed, and where it stands then."""
    schedule = parse_schedule(msgspec.json.decode(due.rule))
    due_at = latest_due(schedule, due.planned_until, now)
    following = next_due(schedule, now)
    if due_at is None:
        return None, (due.chain_id, due.planned_until, following)
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
