"""Planner: due schedules become runs, and the next due date is computed, in one transaction (SPEC 2, 3)."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
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
LISTED = 25
"""Batches' worth of due schedules that are looked up at once."""
FIRST_BATCHES = 8
"""So many times smaller than the others the first batch is, and each that follows twice as large: workers begin at once."""
UNREADABLE_AGAIN = timedelta(hours=1)
"""When a stored rule that this revision cannot read is looked at again."""


async def plan_due(parts: Parts, now: datetime, on_batch: Callable[[], None] = lambda: None) -> int:
    """Plan every schedule due by ``now`` and return how many there were.

    ``on_batch`` is called whenever some of them are planned: at a midnight of many these need not wait for the last.

    Under `coalesce` each becomes one run up to the latest due date passed; under `each`, and where periods are cut, the
    next pieces of a row of runs, at most ``plan_ahead`` of which wait at once (SPEC 2.8). Due dates are computed from the
    rule here and now: one stored under older zone rules is moved, not obeyed (SPEC 2.12, HOLE jj).
    """
    look_at = await schedules.look_at(parts.pool)
    if look_at is None or look_at > now:
        return 0
    planned, most, take = 0, LISTED * parts.settings.plan_batch, max(1, parts.settings.plan_batch // FIRST_BATCHES)
    while True:
        listed = await _due(parts, now, most)
        due = deque(listed)
        done = sum(await asyncio.gather(*[_plan_batches(parts, due, now, take, on_batch) for _ in range(AT_ONCE)]))
        planned, take = planned + done, parts.settings.plan_batch
        if not done or len(listed) < most:
            return planned


async def _due(parts: Parts, now: datetime, most: int) -> list[int]:
    async with parts.pool.acquire() as connection, connection.transaction():
        await database.find_by_index(connection, "sort")
        return await schedules.due(connection, now, most)


async def _plan_batches(parts: Parts, due: deque[int], now: datetime, take: int, on_batch: Callable[[], None]) -> int:
    """Plan what is ``due`` batch by batch, of ``take`` schedules to begin with; one that has taken more than it could plan is
    followed by one that takes fewer.
    """
    planned = 0
    while due:
        done, left = await _plan_batch(parts, [due.popleft() for _ in range(min(take, len(due)))], now)
        due.extendleft(reversed(left))
        planned += done
        if done:
            on_batch()
        take = min(2 * done, parts.settings.plan_batch) or take
    return planned


async def _plan_batch(parts: Parts, chain_ids: Sequence[int], now: datetime) -> tuple[int, list[int]]:
    """Plan these schedules in one transaction, to up to about ``plan_batch`` runs; return how many were planned, and those
    left, which are due still, and the next batch's: a transaction must not outlast a lease. What another planner has in
    hand, or has planned since these were found to be due, is neither.
    """
    async with parts.pool.acquire() as connection, connection.transaction():
        await database.find_by_index(connection, "hashjoin", "mergejoin", "sort")
        due = await schedules.take_due(connection, chain_ids, now)
        if not due:
            return 0, []
        groups = _alike(due)
        standings = await runs.standings(
            connection, [some[0].chain_id for rule, some in groups if _a_row(rule, some)], now
        )
        planned, moves = _planned(parts, groups, standings, now)
        merging = await runs.with_waiting(connection, [run.chain_id for run in planned]) - standings.keys()
        await runs.plan(connection, planned)
        await runs.coalesce(connection, [run.chain_id for run in planned if run.chain_id in merging], now)
        await schedules.advance(connection, moves)
        paused = {one.chain_id for one in due if one.paused}
        await runs.backfill_again(connection, [move for move in moves if move.chain_id not in paused], now)
    parts.signal("schedules.planned")
    done = {move.chain_id for move in moves} if len(moves) < len(due) else None
    return len(moves), [] if done is None else [one.chain_id for one in due if one.chain_id not in done]


Group: TypeAlias = tuple[Schedule | None, list[DueSchedule]]
"""Due schedules of one rule, None if it cannot be read, that are planned up to one instant: what is due of them is the same."""
Outcome: TypeAlias = tuple[list[PlannedRun], list[Move]]
"""The runs that due schedules become, if any, and where their planning then stands."""


def _alike(due: Sequence[DueSchedule]) -> list[Group]:
    """Return due schedules in groups whose due dates are computed once; one whose runs are a row is alone."""
    found: dict[tuple[str, datetime, bool], list[DueSchedule]] = defaultdict(list)
    for one in due:
        found[one.rule, one.planned_until, one.paused].append(one)
    groups: list[Group] = []
    for some in found.values():
        rule = _readable(some[0])
        groups += [(rule, [one]) for one in some] if _a_row(rule, some) else [(rule, some)]
    return groups


def _a_row(rule: Schedule | None, some: Sequence[DueSchedule]) -> bool:
    """Return whether what is due depends on what has become of the runs before it: they follow one another piece by piece."""
    return rule is not None and in_order(rule) and not some[0].paused


def _readable(due: DueSchedule) -> Schedule | None:
    """Return the rule of a due schedule, None (and a log line) if this revision cannot read it."""
    try:
        return _schedule(due.rule)
    except (InvalidInput, ValueError, ArithmeticError) as error:
        log.error("schedule not readable", chain_id=due.chain_id, error=str(error))
        return None


def _planned(parts: Parts, groups: Sequence[Group], standings: Mapping[int, Standing], now: datetime) -> Outcome:
    """Return what becomes of the groups, of as many as make up a batch of runs; each of their schedules has a move."""
    planned: list[PlannedRun] = []
    moves: list[Move] = []
    for rule, some in groups:
        if len(planned) >= parts.settings.plan_batch:
            break
        runs_of, moves_of = _plan_safely(some, rule, standings, now, parts.settings.plan_ahead)
        planned += runs_of
        moves += moves_of
    return planned, moves


def _plan_safely(
    some: Sequence[DueSchedule], rule: Schedule | None, standings: Mapping[int, Standing], now: datetime, most: int
) -> Outcome:
    """Return what becomes of a group; one that cannot be read is looked at again later and stops no other."""
    try:
        if rule is not None:
            standing = standings.get(some[0].chain_id)
            if standing is None:
                return _plan_alike(some, rule, now)
            return _plan_pieces(some[0], rule, standing, now, most)
    except (ValueError, ArithmeticError) as error:
        log.error("schedule not readable", chain_id=some[0].chain_id, error=str(error))
    return [], [Move(one.chain_id, one.planned_until, now + UNREADABLE_AGAIN) for one in some]


@lru_cache(maxsize=10_000)
def _schedule(rule: str) -> Schedule:
    """Return the schedule of a stored rule; thousands of installations often share one."""
    return parse_schedule(msgspec.json.decode(rule))


def _plan_alike(some: Sequence[DueSchedule], rule: Schedule, now: datetime) -> Outcome:
    """Return a run for each of a group one of whose due dates has really passed; a paused one only goes on to the next."""
    planned_until = some[0].planned_until
    due_at, following = latest_due(rule, planned_until, now), next_due(rule, now)
    moves = [Move(one.chain_id, due_at or planned_until, following) for one in some]
    if due_at is None or some[0].paused:
        return [], moves
    first_due_at = next_due(rule, planned_until)
    assert first_due_at is not None
    run_dates = [due_at + rule.settle] * len(some)
    if rule.spread_window:
        run_dates = [planned_run_date(rule, due_at, following, one.seed) for one in some]
    return [
        PlannedRun(one.chain_id, Trigger.SCHEDULE, first_due_at, due_at, due_at, not_before_at)
        for one, not_before_at in zip(some, run_dates, strict=True)
    ], moves


def _plan_pieces(due: DueSchedule, schedule: Schedule, standing: Standing, now: datetime, most: int) -> Outcome:
    """Return the next runs of a row; each but the first waits for the one before it to be covered (SPEC 2.8, 2.9)."""
    planned = [
        _piece_run(due, schedule, piece, standing)
        for piece in next_pieces(schedule, standing, due.received_at, due.planned_until, now, most)
    ]
    ends = [run.period_end for run in planned]
    taken_until = max([due.received_at, standing.covered_until, standing.taken_until or due.received_at, *ends])
    first_unplanned, following = next_due(schedule, taken_until), next_due(schedule, now)
    behind = first_unplanned is not None and first_unplanned <= now
    held_until = (following or now + UNREADABLE_AGAIN) if behind else None
    passed = latest_due(schedule, due.planned_until, now) or due.planned_until
    return planned, [Move(due.chain_id, passed, first_unplanned, held_until)]


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
