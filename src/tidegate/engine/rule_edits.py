"""Editing the rule of a chain: what changes at once, what waits, what is refused (SPEC 2.10)."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from tidegate.domain.errors import InvalidInput
from tidegate.domain.instant import render_instant
from tidegate.domain.recurrence import Frequency
from tidegate.domain.schedule import Schedule, next_due, start_instant
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.changes import Action, Change, FieldChange, differences
from tidegate.engine.document import Mistakes
from tidegate.store import chains, runs, schedules
from tidegate.store.reports import ScheduledChain

if TYPE_CHECKING:
    from tidegate.store.database import Connection


@dataclass(slots=True)
class RuleEdits:
    """The edits of one installation's schedules, in the caller's transaction.

    ``path``: where the installation stands in the document; ``name``: what to call it. ``own``: the streams whose schedule
    stands in the document with the stream itself.
    """

    connection: Connection
    now: datetime
    mistakes: Mistakes
    warnings: list[str]
    path: str
    name: str
    own: Set[str] = frozenset()
    _edited: dict[tuple[FieldChange, ...], list[str]] = field(default_factory=dict)

    def changes(self) -> list[Change]:
        """Return the edits made, those alike in all streams as one."""
        return [
            Change(Action.CHANGED, "schedule", self.name, fields, tuple(streams))
            for fields, streams in self._edited.items()
        ]

    async def begin(self, chain_id: int, stream: str, wanted: Schedule, *, new: bool) -> None:
        """Give a chain its first rule, or one that was retired a rule again."""
        watermark = None
        if not new:
            start_at = await chains.start(self.connection, chain_id)
            watermark = await chains.watermark(self.connection, chain_id)
            at_start = _starting(wanted, None, start_at)
            settled = await self._with_start(chain_id, stream, start_at, watermark, at_start, wanted)
            if settled is None:
                return
            wanted = settled
        await self._put(chain_id, wanted, watermark)

    async def edit(self, chain: ScheduledChain, wanted: Schedule) -> None:
        """Replace the rule of a chain by ``wanted``, or by as much of it as its coverage allows; the same rule stays.

        A rule without a start keeps the one it has. Frequency, hour and zone: the next due date is the first of the new
        rule strictly after both the edit and the watermark, and planned runs that wait are planned anew. Settle and
        spread hold from the next due date on.
        """
        stored = parse_schedule(chain.rule)
        if wanted.start_on is None and wanted.start_at is None:
            wanted = _starting(wanted, stored.start_on, stored.start_at)
        if wanted == stored:
            return
        settled = await self._with_start(chain.chain_id, chain.stream, chain.start_at, chain.watermark, stored, wanted)
        if settled is None or settled == stored:
            return
        if _due_dates_of(settled) == _due_dates_of(stored):
            await schedules.set_rule(self.connection, chain.chain_id, settled.as_json())
        else:
            await self._put(chain.chain_id, settled, chain.watermark)
        fields = tuple(differences(stored.as_json(), settled.as_json()))
        self._edited.setdefault(fields, []).append(chain.stream)

    async def _put(self, chain_id: int, rule: Schedule, watermark: datetime | None) -> None:
        """Store the rule first, which waits for a planner that holds it, then drop what was planned by the old one."""
        next_due_at = next_due(rule, max(self.now, watermark or self.now))
        await schedules.put(self.connection, chain_id, rule.as_json(), self.now, next_due_at)
        await runs.drop_waiting(self.connection, [chain_id], self.now, only_planned=True)

    async def _with_start(
        self,
        chain_id: int,
        stream: str,
        start_at: datetime,
        watermark: datetime | None,
        stored: Schedule,
        wanted: Schedule,
    ) -> Schedule | None:
        """Return ``wanted`` with a start the chain can have, None (and a mistake) if there is none (SPEC 2.10)."""
        wanted_at = start_instant(wanted)
        if watermark is None:
            if wanted_at != start_at and not await chains.set_start(self.connection, chain_id, wanted_at):
                self._refuse(
                    stream, wanted, "cannot change while the first run is active", "Apply again when it has ended."
                )
                return None
            return wanted
        if (wanted.start_on, wanted.start_at) == (stored.start_on, stored.start_at) or wanted_at == start_at:
            return wanted
        if wanted_at < start_at:
            problem = f"is before {render_instant(start_at)}, where the coverage of {stream} begins"
            remedy = (
                "A backfill that extends coverage to the front comes with a later version; keep the start until then."
            )
            self._refuse(stream, wanted, problem, remedy)
            return None
        self.warnings.append(
            f"{self.name} {stream}: the later start {render_instant(wanted_at)} changes nothing by itself, it is covered "
            f"to {render_instant(watermark)}. To leave time out, a waiver will be the way, in a later version."
        )
        return _starting(wanted, stored.start_on, stored.start_at)

    def _refuse(self, stream: str, wanted: Schedule, problem: str, remedy: str) -> None:
        key = "start_date" if wanted.start_on is not None else "start_at"
        value = wanted.start_on.isoformat() if wanted.start_on else render_instant(start_instant(wanted))
        where = f"{self.path}.streams.{stream}" if stream in self.own else self.path
        self.mistakes.add(InvalidInput(f"{where}.schedule.{key}", value, f"({stream}) {problem}", remedy))


def _starting(schedule: Schedule, start_on: date | None, start_at: datetime | None) -> Schedule:
    """Return the schedule with another start; a sync hour that would mean nothing with it goes."""
    meaningless = start_on is None and not isinstance(schedule.recurrence, Frequency)
    return replace(schedule, start_on=start_on, start_at=start_at, sync_hour=0 if meaningless else schedule.sync_hour)


def _due_dates_of(schedule: Schedule) -> Schedule:
    """Return the schedule without what moves no due date."""
    return replace(schedule, settle=timedelta(0), spread_window=timedelta(0))
