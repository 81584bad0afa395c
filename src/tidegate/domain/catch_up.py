"""Catching up in pieces: which runs come next where due dates or long periods stay runs of their own (SPEC 2.8, 2.9).

Under `each` a run stands for one due date; `max_period` cuts what is longer into consecutive runs, oldest first. Either
way a piece starts only when the one before it is covered, so that no period grows by another one's failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from tidegate.domain.schedule import CatchUp, Schedule, latest_due, next_due


@dataclass(frozen=True, slots=True)
class Piece:
    """One run to be planned.

    ``first_due_at``, ``due_at``: the oldest and the newest due date that it stands for; all pieces of a period carry the
    one that caused them. ``period_start``: where it begins if all before it is covered when it starts. ``bounded``:
    another piece follows whose due date has passed too, so this one is fetched to its end only (SPEC 4); what is edited
    behind that end is seen by those that follow, of which the last is open.
    """

    first_due_at: datetime
    due_at: datetime
    period_start: datetime
    period_end: datetime
    bounded: bool


def in_order(schedule: Schedule) -> bool:
    """Return whether the runs of a schedule follow one another piece by piece, instead of merging into one."""
    return schedule.catch_up is CatchUp.EACH or schedule.max_period is not None


def cut(start: datetime, end: datetime, longest: timedelta | None) -> Iterator[datetime]:
    """Yield the ends of the consecutive periods, none longer than ``longest``, that make up `[start, end)`.

    >>> from datetime import UTC
    >>> start, end = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 7, 3, 12, tzinfo=UTC)
    >>> [f"{piece:%d %H:%M}" for piece in cut(start, end, timedelta(days=1))]
    ['02 00:00', '03 00:00', '03 12:00']
    """
    if longest is not None:
        while end - start > longest:
            start += longest
            yield start
    if start < end:
        yield end


def pieces(schedule: Schedule, start: datetime, after: datetime, now: datetime, count: int) -> list[Piece]:
    """Return up to ``count`` pieces from ``start`` on, for the due dates passed in ``(after, now]``, oldest first.

    ``start`` is where what is covered, active or planned ends; ``after`` is not before it, and later if a rule was
    edited since: the first period bridges then (SPEC 2.10). Under `coalesce` the due date is the latest that need not
    settle any more, or else the first.
    """
    return list(islice(_pieces(schedule, start, after, now), count))


def _pieces(schedule: Schedule, start: datetime, after: datetime, now: datetime) -> Iterator[Piece]:
    for first, due_at, last in _due(schedule, after, now):
        for end in cut(start, due_at, schedule.max_period):
            yield Piece(first, due_at, start, end, bounded=not (last and end == due_at))
            start = end


def _due(schedule: Schedule, after: datetime, now: datetime) -> Iterator[tuple[datetime, datetime, bool]]:
    """Yield (oldest, newest due date, whether none of those passed comes later) of each period to be planned."""
    first = next_due(schedule, after)
    if first is None or first > now:
        return
    if schedule.catch_up is CatchUp.COALESCE:
        settled = latest_due(schedule, after, now - schedule.settle - schedule.spread_window)
        yield first, settled or first, True
        return
    due_at: datetime | None = first
    while due_at is not None and due_at <= now:
        following = next_due(schedule, due_at)
        yield due_at, due_at, following is None or following > now
        due_at = following


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a chain stands that is caught up in pieces.

    ``covered_until``: its watermark, or its start. ``taken_until``: the end of the last run that waits or is active, None
    if there is none. ``waiting``, ``active``: how many. ``front_until``: to where the chain must be covered for the first
    that waits to start, None if it can. ``failed``: a run behind what is covered has ended without covering, the last
    that did was begun at ``tried_at``.
    """

    covered_until: datetime
    taken_until: datetime | None = None
    waiting: int = 0
    active: int = 0
    front_until: datetime | None = None
    failed: bool = False
    tried_at: datetime | None = None

    @property
    def stuck(self) -> bool:
        """Return whether nothing that waits can start by itself, for the run in front of it has ended without covering."""
        return not self.active and self.front_until is not None and self.front_until > self.covered_until

    @property
    def front_failed(self) -> bool:
        """Return whether what has ended without covering is what comes next."""
        return self.failed and not self.active and (self.stuck or not self.waiting)


def next_pieces(
    schedule: Schedule, standing: Standing, received_at: datetime, planned_until: datetime, now: datetime, most: int
) -> list[Piece]:
    """Return the pieces to plan now, at most ``most`` waiting at once (SPEC 2.8).

    A period that failed is tried again first, once for every due date that passes, and once if planning begins anew at
    ``planned_until``, before due dates that have passed: somebody has resumed it (SPEC 2.11). Nothing is planned behind it
    meanwhile that could not start. Under `each` due dates are added behind those that wait; otherwise the next period is
    planned when none waits, so that it reaches as far as it can.
    """
    covered = standing.covered_until
    tried_at = standing.tried_at
    if standing.front_failed and tried_at and latest_due(schedule, min(tried_at, planned_until), now) is None:
        return []
    found: list[Piece] = []
    if standing.stuck:
        assert standing.front_until is not None
        found = _again(schedule, covered, max(covered, received_at), standing.front_until, now)
    room = most - standing.waiting - len(found)
    if room > 0 and (schedule.catch_up is CatchUp.EACH or not standing.waiting):
        start = max(covered, standing.taken_until or covered)
        found += pieces(schedule, start, max(start, received_at), now, room)
    return found


def _again(schedule: Schedule, start: datetime, after: datetime, until: datetime, now: datetime) -> list[Piece]:
    """Return the pieces that lead up to ``until``, where what waits begins; all of them bounded."""
    found = []
    for piece in _pieces(schedule, start, after, now):
        if piece.period_end >= until:
            break
        found.append(replace(piece, bounded=True))
        start = piece.period_end
    for end in cut(start, until, schedule.max_period):
        found.append(Piece(until, until, start, end, bounded=True))
        start = end
    return found
