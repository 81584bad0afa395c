"""Allowances: when the next request of a platform account may be sent, agreed among all processes (SPEC 3).

A source waits here before each request. Turns are granted by the database a moment ahead, in one statement for all that
wait in this process; a pause that one run was asked for holds all of them back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from tidegate.domain.capacity import RateLimit, lateness_allowed
from tidegate.domain.clock import Clock
from tidegate.domain.errors import AccountHeld
from tidegate.engine.together import Together
from tidegate.store import accounts

if TYPE_CHECKING:
    from tidegate.store.database import Pool

log = structlog.get_logger()

HORIZON = timedelta(seconds=0.5)
"""How far ahead turns are granted: what a pause, or the death of a process, finds already granted."""

LOOK_EVERY = timedelta(seconds=0.5)
"""How often a process looks for pauses that runs elsewhere were asked for."""

PATIENCE = timedelta(seconds=5)
"""The longest pause that a fetch sits out in its worker's slot; for a longer one the run is put back."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A request may be sent at ``at``; or, if that is None, a turn is to be asked for again at ``again_at``."""

    at: datetime | None
    again_at: datetime


@dataclass(slots=True)
class Allowances:
    """The allowances of this process, by platform account. ``limits`` holds the accounts that have a rate."""

    pool: Pool
    clock: Clock
    _limits: dict[int, RateLimit] = field(default_factory=dict)
    _held: dict[int, datetime] = field(default_factory=dict)
    _turns: Together[int, Turn] = field(init=False)

    def __post_init__(self) -> None:
        self._turns = Together(self._grant)

    def of(self, account_id: int) -> Allowance:
        """Return the allowance of one account."""
        return Allowance(self, account_id)

    def learn(self, account_id: int, limit: RateLimit | None) -> None:
        """Go by this rate from here on, None for none."""
        if limit is None:
            self._limits.pop(account_id, None)
        else:
            self._limits[account_id] = limit

    def hold(self, account_id: int, until: datetime) -> None:
        """Send nothing of this account before ``until``; the database tells the other processes."""
        self._held[account_id] = max(until, self._held.get(account_id, until))

    async def wait(self, account_id: int) -> None:
        """Return when a request of this account may be sent. Raises AccountHeld if that is not to be soon.

        A turn that this process was too busy to take is given up, once: a machine that is always busy still gets on.
        """
        given_up = False
        while True:
            await self._sit_out(account_id)
            limit = self._limits.get(account_id)
            if limit is None:
                return
            turn = await self._turns.ask(account_id)
            await self._sleep_until(turn.again_at if turn.at is None else turn.at)
            if turn.at is None or self._is_held(account_id):
                continue
            if given_up or self.clock.now() - turn.at <= lateness_allowed(limit):
                return
            given_up = True

    def _is_held(self, account_id: int) -> bool:
        until = self._held.get(account_id)
        return until is not None and until > self.clock.now()

    async def _sit_out(self, account_id: int) -> None:
        while self._is_held(account_id):
            left = self._held[account_id] - self.clock.now()
            if left > PATIENCE:
                raise AccountHeld(
                    f"The platform account asked for a pause of another {left.total_seconds():.0f} s.",
                    retry_after_seconds=left.total_seconds(),
                )
            await self.clock.sleep(left.total_seconds())

    async def _sleep_until(self, instant: datetime) -> None:
        seconds = (instant - self.clock.now()).total_seconds()
        if seconds > 0:
            await self.clock.sleep(seconds)

    async def _grant(self, asked: list[int]) -> Sequence[Turn]:
        """Return a turn for each account id asked about, in order; several for one account are one reservation."""
        wanted = Counter(asked)
        now = self.clock.now()
        granted = await accounts.reserve(self.pool, sorted(wanted.items()), now, HORIZON)
        arrived = self.clock.now()  # what the database took to answer is not a turn missed
        taken: Counter[int] = Counter()
        turns = []
        for account_id in asked:
            got = granted.get(account_id)
            if got is None:  # no rate any more
                self._limits.pop(account_id, None)
                turns.append(Turn(arrived, arrived))
                continue
            if got.held_until is not None:
                self.hold(account_id, got.held_until)
            nth, taken[account_id] = taken[account_id], taken[account_id] + 1
            at = max(arrived, got.first_at + nth * got.gap) if nth < got.count else None
            turns.append(Turn(at, got.again_at))
        return turns

    async def watch(self) -> None:
        """Look for pauses again and again, until cancelled."""
        while True:
            await self.clock.sleep(LOOK_EVERY.total_seconds())
            try:
                await self.look()
            except Exception:
                log.exception("pauses not read")

    async def look(self) -> None:
        """Take in the pauses that all processes were asked for; those that are over are forgotten."""
        now = self.clock.now()
        self._held = {account_id: until for account_id, until in self._held.items() if until > now}
        for account_id, until in (await accounts.held(self.pool, now)).items():
            self.hold(account_id, until)


@dataclass(frozen=True, slots=True)
class Allowance:
    """One platform account's, as its sources see it (connectors.base.Allowance)."""

    allowances: Allowances
    account_id: int

    async def wait(self) -> None:
        """Return when the next request may be sent. Raises AccountHeld if that is not to be soon."""
        await self.allowances.wait(self.account_id)
