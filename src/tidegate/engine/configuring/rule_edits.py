"""Editing the rule of a chain: what changes at once, what waits, what is refused (SPEC 2.10)."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import TYPE_CHECKING

from tidegate.domain.errors import InvalidInput
from tidegate.domain.instant import render_instant
from tidegate.domain.period import Period
from tidegate.domain.recurrence import Frequency
from tidegate.domain.schedule import CatchUp, Schedule, latest_due, next_due, same_due_dates, start_instant
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.commands import installations
from tidegate.engine.configuring.changes import Action, Bridge, Change, FieldChange, differences
from tidegate.engine.configuring.document import Mistakes
from tidegate.store import chains, runs, schedules
from tidegate.store.reports import ScheduledChain
from tidegate.store.schedules import Move

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
    bridges: list[Bridge] = field(default_factory=list)
    _edited: dict[tuple[FieldChange, ...], list[str]] = field(default_factory=dict)
    _in_front: dict[int, Period] = field(default_factory=dict)

    def changes(self) -> list[Change]:
        """Return the edits made, those alike in all streams as one."""
        return [
            Change(Action.CHANGED, "schedule", self.name, fields, tuple(streams))
            for fields, streams in self._edited.items()
        ]

    async def begin(self, chain_id: int, stream: str, wanted: Schedule, *, new: bool) -> None:
        """Give a chain its first rule, or one that was retired a rule again, which is told as an edit is."""
        watermark = None
        if not new:
            start_at = await chains.start(self.connection, chain_id)
            watermark = await chains.watermark(self.connection, chain_id)
            at_start = _starting(wanted, None, start_at)
            settled = await self._with_start(chain_id, stream, start_at, watermark, at_start, wanted)
            if settled is None:
                return
            wanted = settled
        dropped, next_due_at = await self._put(chain_id, wanted, watermark)
        await installations.extend_to_start(self.connection, chain_id, self.now)
        if watermark is not None:
            self._tell(chain_id, stream, watermark, wanted, dropped, next_due_at)

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
        await schedules.rule_of(self.connection, chain.chain_id, hold=True)  # before the chain, as everyone does
        settled = await self._with_start(chain.chain_id, chain.stream, chain.start_at, chain.watermark, stored, wanted)
        if settled is None or settled == stored:
            return
        begun = chain.watermark is not None or start_instant(settled) == chain.start_at
        if begun and same_due_dates(settled, stored):
            dropped, next_due_at = await self._keep(chain, stored, settled)
        else:
            dropped, next_due_at = await self._put(chain.chain_id, settled, chain.watermark)
        fields = tuple(differences(stored.as_json(), settled.as_json()))
        self._edited.setdefault(fields, []).append(chain.stream)
        self._tell(chain.chain_id, chain.stream, chain.watermark, settled, dropped, next_due_at)

    def _tell(
        self,
        chain_id: int,
        stream: str,
        watermark: datetime | None,
        rule: Schedule,
        dropped: int,
        next_due_at: datetime | None,
    ) -> None:
        begin = watermark or start_instant(rule)
        self.bridges.append(
            Bridge(
                installation=self.name,
                stream=stream,
                watermark=watermark,
                dropped=dropped,
                next_due_at=next_due_at,
                period=Period(begin, next_due_at) if next_due_at is not None and begin < next_due_at else None,
                in_front=self._in_front.get(chain_id),
            )
        )

    async def _put(self, chain_id: int, rule: Schedule, watermark: datetime | None) -> tuple[int, datetime | None]:
        """Store the rule first, which waits for a planner that holds it, then drop what was planned by the old one."""
        next_due_at = next_due(rule, max(self.now, watermark or self.now))
        await schedules.put(self.connection, chain_id, rule.as_json(), self.now, next_due_at)
        return await self._drop_planned(chain_id), next_due_at

    async def _keep(self, chain: ScheduledChain, stored: Schedule, rule: Schedule) -> tuple[int, datetime | None]:
        """Store a rule with the same due dates; those not covered yet are planned anew if the way to catch up differs.

        Return how many runs that drops, and the due date of the run that comes next: of one for all that have passed, the latest.
        """
        kept = await schedules.rule_of(self.connection, chain.chain_id)
        assert kept is not None
        await schedules.set_rule(self.connection, chain.chain_id, rule.as_json())
        after = max(kept.received_at, chain.watermark or kept.received_at)
        next_due_at = next_due(rule, after)
        passed = latest_due(rule, after, self.now) if rule.catch_up is CatchUp.COALESCE else None
        if (stored.catch_up, stored.max_period) == (rule.catch_up, rule.max_period):
            return 0, passed or next_due_at
        await schedules.advance(self.connection, [Move(chain.chain_id, after, next_due_at)])
        return await self._drop_planned(chain.chain_id), passed or next_due_at

    async def _drop_planned(self, chain_id: int) -> int:
        return await runs.drop_waiting(self.connection, [chain_id], self.now, only_planned=True)

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
        head = await chains.head(self.connection, chain_id)
        assert head is not None
        if wanted_at <= head:
            return wanted if await self._extend(chain_id, stream, wanted, wanted_at, head) else None
        self._offer_waiver(stream, wanted_at, watermark)
        return _starting(wanted, stored.start_on, stored.start_at)

    async def _extend(self, chain_id: int, stream: str, wanted: Schedule, wanted_at: datetime, head: datetime) -> bool:
        """Let the chain start earlier: the missing range in front becomes a backfill, in place of one that waits."""
        if not await runs.drop_backfill(self.connection, chain_id, head, self.now):
            remedy = "Apply again when it has ended."
            self._refuse(stream, wanted, "cannot change while the backfill in front of the coverage is active", remedy)
            return False
        await chains.move_start(self.connection, chain_id, wanted_at)
        await installations.extend_to_start(self.connection, chain_id, self.now)
        if wanted_at < head:
            self._in_front[chain_id] = Period(wanted_at, head)
        return True

    def _offer_waiver(self, stream: str, wanted_at: datetime, watermark: datetime) -> None:
        told = f"{self.name} {stream}: the later start {render_instant(wanted_at)} changes nothing by itself"
        if wanted_at <= watermark:
            self.warnings.append(f"{told}, for it is covered to {render_instant(watermark)}.")
            return
        command = f"tidegate waive {self.name} {stream} --until {render_instant(wanted_at)} --reason TEXT"
        when = " (once that has come)" if wanted_at > self.now else ""
        self.warnings.append(
            f"{told}: the next period starts at {render_instant(watermark)}. To leave the time before it out, waive it{when}: "
            f"`{command}`."
        )

    def _refuse(self, stream: str, wanted: Schedule, problem: str, remedy: str) -> None:
        key = "start_date" if wanted.start_on is not None else "start_at"
        value = wanted.start_on.isoformat() if wanted.start_on else render_instant(start_instant(wanted))
        where = f"{self.path}.streams.{stream}" if stream in self.own else self.path
        self.mistakes.add(InvalidInput(f"{where}.schedule.{key}", value, f"({stream}) {problem}", remedy))


def _starting(schedule: Schedule, start_on: date | None, start_at: datetime | None) -> Schedule:
    """Return the schedule with another start; a sync hour that would mean nothing with it goes."""
    meaningless = start_on is None and not isinstance(schedule.recurrence, Frequency)
    return replace(schedule, start_on=start_on, start_at=start_at, sync_hour=0 if meaningless else schedule.sync_hour)
