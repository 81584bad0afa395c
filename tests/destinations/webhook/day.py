"""A receiver's bad day, replayed in simulated time against a real HTTP server: up, away, slow, asking for patience, up."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from tests.destinations.webhook.receiver import SECRET, Received, Reply
from tests.destinations.webhook.world import Sending, open_sending

BEGIN = datetime(2026, 7, 13, 16, tzinfo=UTC)
TENANTS = ("acme", "belle")
SLOW_SECONDS = 0.05
RETRY_AFTER_SECONDS = 300


@dataclass(frozen=True)
class Day:
    """How long each phase takes, in simulated time; ``every``: the schedule's cadence."""

    up: timedelta = timedelta(hours=1)
    away: timedelta = timedelta(days=1)
    slow: timedelta = timedelta(hours=1)
    patience: timedelta = timedelta(hours=1)
    every: timedelta = timedelta(minutes=5)
    seed: int = 1

    def phase(self, now: datetime) -> str:
        """Return what the receiver is doing at ``now``."""
        since = now - BEGIN
        for name, length in (("up", self.up), ("away", self.away), ("slow", self.slow), ("patience", self.patience)):
            if since < length:
                return name
            since -= length
        return "up again"

    @property
    def end(self) -> datetime:
        """Return when the last record is made; what is due then has an hour to arrive."""
        return BEGIN + self.up + self.away + self.slow + self.patience + self.up


@dataclass
class Report:
    """What happened: requests by (phase, status), and what was found wrong."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    messages: int = 0
    records_made: int = 0
    versions_taken: int = 0
    lost: int = 0
    out_of_order: int = 0
    repeated: int = 0
    uncovered: int = 0
    recovered_after: timedelta | None = None
    received: list[Received] = field(default_factory=list)


async def replay_day(dsn: str, day: Day) -> Report:
    """Play the day and return what happened. Every request was verified by the official verifier when it arrived."""
    chance = random.Random(day.seed)
    async with open_sending(dsn) as sending:
        clock = sending.world.clock
        sending.world.parts = replace(sending.world.parts, chance=chance.random)
        for tenant in TENANTS:
            rule = {"every": f"{int(day.every.total_seconds())}s", "start_at": "2026-07-13T16:00:00Z"}
            await sending.world.install(tenant, rule=rule)
        await sending.configure(
            "webhook", {"url": sending.receiver.url, "timeout_seconds": 5}, {"signing_secrets": SECRET}
        )
        calls = Counter[str]()

        def answer(_number: int) -> Reply:
            phase = day.phase(clock.now())
            calls[phase] += 1
            if phase == "away":
                return (0 if calls[phase] % 2 else 503, {}, "")
            if phase == "patience" and calls[phase] % 3:
                return 429, {"Retry-After": str(RETRY_AFTER_SECONDS)}, "slow down"
            return 204, {}, ""

        sending.receiver.answer = answer
        sending.receiver.delay = lambda: SLOW_SECONDS if day.phase(clock.now()) == "slow" else 0.0
        made = 0
        while clock.now() < day.end + timedelta(hours=1):
            upto = min(clock.now(), day.end)
            while BEGIN + made * timedelta(minutes=1) < upto:
                made += 1
                at = BEGIN + made * timedelta(minutes=1) - timedelta(seconds=30)
                sending.world.shop.put(made, at)
                if made % 7 == 0:
                    sending.world.shop.put(made - 5, at, note=f"edited at {at:%H:%M}")
            await sending.tick()
            await _advance(sending, day.end + timedelta(hours=1))
        return await _report(sending, day, made)


async def _advance(sending: Sending, end: datetime) -> None:
    """Move the clock to whatever is due next."""
    now = sending.world.clock.now()
    later = await sending.pool.fetchval(
        """select min(at) from (select next_due_at as at from schedules union all select not_before_at from routes
                                union all select not_before_at from runs where state in ('waiting', 'retrying')) due
            where at > $1""",
        now,
    )
    sending.world.clock.set(min(later or end, end))


async def _report(sending: Sending, day: Day, made: int) -> Report:
    report = Report(records_made=made, received=sending.receiver.received)
    report.requests = Counter((day.phase(one.at), one.status) for one in sending.receiver.received)
    taken = sending.receiver.taken
    report.messages = len(taken)
    report.repeated = sum(1 for one in sending.receiver.received if one.status == 204) - len(taken)
    back = BEGIN + day.up + day.away
    report.recovered_after = min((one.at for one in taken if one.at >= back), default=back) - back
    for tenant in TENANTS:
        ours = [one for one in taken if one.data["tenant_id"] == tenant]
        positions = [one.data["position"] for one in ours]
        report.out_of_order += sum(b != a + 1 for a, b in pairwise(positions))
        newest: dict[int, Any] = {}
        for one in ours:
            for entry in one.data["records"]:
                newest[entry["record"]["id"]] = entry["record"]
                report.versions_taken += 1
        report.lost += sum(newest.get(number) != record for number, record in sending.world.shop.orders.items())
    watermarks = await sending.pool.fetch("select max(period_end) as until from coverage group by chain_id")
    report.uncovered = sum(row["until"] < day.end for row in watermarks) + len(TENANTS) - len(watermarks)
    return report
