"""Random stories of one chain: the real planner, dispatcher, leases and PostgreSQL, a scripted source, simulated time.

After every step the ledger must be a chain, the identities must hold, what was promised must have been delivered, and what
is due and not covered must be named. In the end everything is covered, or names its gap.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.engine.world import open_world
from tests.model import ledger
from tests.model.ledger import Look
from tidegate.domain.errors import ContractBroken, InvalidInput, LeaseLost, SourceUnavailable, Unauthorised
from tidegate.domain.fetch import FetchReport
from tidegate.engine.commands import backfilling, installations, waiving
from tidegate.engine.configuring import applying
from tidegate.engine.configuring.configuration import load
from tidegate.engine.configuring.document import DocumentFile
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.engine.sweeper import sweep
from tidegate.store import compaction, ending, leases
from tidegate.store.ending import Finish
from tidegate.store.leases import LeasedRun

T = TypeVar("T")
TABLES = "tenants, accounts, connections, destinations, installations, chains, schedules, runs, coverage, quarantine"
NOON = datetime(2026, 7, 13, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ROUNDS_TO_SETTLE = 60

recurrences = st.sampled_from(
    [
        {"daily": True},
        {"daily": True, "sync_hour": 6},
        {"every": "6h"},
        {"every": "1h"},
        {"cron": "30 */8 * * *"},
        {"weekly": True},
    ]
)
rules = st.builds(
    lambda recurrence, catch_up, longest, settle, zone, start: {
        **recurrence, "catch_up": catch_up, "settle": settle, "time_zone": zone, "start_date": f"2026-07-{start:02}",
        **({"max_period": longest} if longest else {}),
    },
    recurrences, st.sampled_from(["coalesce", "each"]), st.sampled_from([None, "10h", "30h"]),
    st.sampled_from(["0s", "40m"]), st.sampled_from(["Etc/UTC", "America/New_York"]), st.integers(8, 12),
)  # fmt: skip
jumps = st.sampled_from([timedelta(minutes=1), timedelta(minutes=50), 7 * HOUR, DAY, 3 * DAY])
hows = st.sampled_from(["well", "well", "well", "badly", "for a while", "in part", "unproven"])
hours_ago = st.integers(0, 100)


class ChainStory(RuleBasedStateMachine):
    """One installation of one stream. ``dsn`` is set before; ``done`` counts what happened in all stories."""

    dsn = ""
    done: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.opened = open_world(self.dsn, plan_ahead=5)
        self.world = self.wait(self.opened.__aenter__())
        self.wait(self.world.pool.execute(f"truncate {TABLES} restart identity cascade"))
        self.wait(self.world.pool.execute("truncate delivered_rows, transitions"))
        self.world.clock.set(NOON + 4 * HOUR)
        self.abandoned: list[LeasedRun] = []
        self.last: Look | None = None
        self.planned_at: datetime | None = None
        self.orders = 0

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @property
    def now(self) -> datetime:
        return self.world.clock.now()

    @property
    def instant(self) -> datetime:
        """The present to the whole hour, so that requests meet the ends of periods now and then."""
        return self.now.replace(minute=0, second=0, microsecond=0)

    def tell(self, what: str) -> None:
        self.done[what] += 1
        self.look()

    def look(self) -> None:
        """Hold the ledger against its rules, and against what it was a step before."""
        look = self.wait(ledger.look(self.world))
        ledger.check(look, self.last, settled=self.planned_at == self.now)
        self.last = look

    def ask(self, what: str, work: Coroutine[Any, Any, object]) -> None:
        """Do what a person asks for; if it is refused nothing may have changed."""
        refusal = None
        try:
            self.wait(work)
        except InvalidInput as error:
            refusal = error
        if refusal is not None:
            look = self.wait(ledger.look(self.world))
            assert self.last is None or (look.links, look.runs) == (self.last.links, self.last.runs), str(refusal)
            assert refusal.remedy
        else:
            self.planned_at = None
        self.tell(what if refusal is None else f"{what}, refused")

    async def _apply(self, schedule: dict[str, Any]) -> None:
        document = {
            "destinations": {"table": {"kind": "postgresql"}},
            "tenants": {"acme": {
                "connections": {"shop": {"connector": "fake", "account": "acme.example"}},
                "installations": {"sync": {
                    "connection": "shop", "destination": "table", "streams": ["orders"], "schedule": schedule,
                }},
            }},
        }  # fmt: skip
        text = yaml.safe_dump(document)
        parts = self.world.parts
        await applying.apply(parts, await load([DocumentFile("t.yaml", text, Path("/"))], {}, parts))

    @initialize(schedule=rules)
    def install(self, schedule: dict[str, Any]) -> None:
        self.wait(self._apply(schedule))
        self.tell("installed")

    @rule(schedule=rules)
    def edit(self, schedule: dict[str, Any]) -> None:
        """Frequency, hour, zone, start and policies at once (SPEC 2.10)."""
        self.ask("edited", self._apply(schedule))

    @rule(duration=jumps)
    def pass_time(self, duration: timedelta) -> None:
        """Time passes, or the clock jumps forward over an outage."""
        self.world.clock.set(self.now + duration)
        self.tell("time passed")

    @rule(edits=st.booleans())
    def sell(self, edits: bool) -> None:
        """A record is created at the source now, or the oldest one is edited (HOLE e)."""
        self.orders += not (edits and self.orders)
        self.world.shop.put(1 if edits else self.orders, self.now, amount=self.done.total())
        self.tell("edited a record" if edits else "created a record")

    @rule()
    def plan(self) -> None:
        self.wait(plan_due(self.world.parts, self.now))
        self.planned_at = self.now
        self.tell("planned")

    @rule(duration=jumps, how=hows)
    def go_on(self, duration: timedelta, how: str) -> None:
        """A record is created, time passes, what is due is planned, and what can start is executed."""
        self.sell(edits=False)
        self.world.clock.set(self.now + duration)
        self.plan()
        self.work(how)

    @rule(duration=jumps)
    def go_on_well(self, duration: timedelta) -> None:
        self.go_on(duration, "well")

    @rule(how=hows)
    def work(self, how: str) -> None:
        """What can start is chosen and executed; it ends well, or as sources end."""
        shop = self.world.shop
        if how == "badly":
            shop.on_page = lambda _number: ContractBroken("not what was promised")
        if how == "for a while":
            shop.on_page = lambda _number: SourceUnavailable("away")
        if how == "in part":
            served = shop.pages_served
            shop.on_page = lambda number: SourceUnavailable("away") if number > served + 1 else None
        shop.shortfall = "sixty days only" if how == "unproven" else ""

        chosen = self.wait(self._choose_and_work())
        shop.on_page, shop.shortfall = lambda _number: None, ""
        self.tell(f"worked {how}" if chosen else "worked on nothing")

    async def _choose_and_work(self) -> int:
        chosen = await dispatch_ready(self.world.parts, self.now)
        await self.world.work()
        return chosen

    @rule(duration=jumps)
    def crash(self, duration: timedelta) -> None:
        """Time passes; a worker takes the leases of what is due then, and is never heard of again."""
        self.world.clock.set(self.now + duration)
        self.plan()

        async def take() -> list[LeasedRun]:
            await dispatch_ready(self.world.parts, self.now)
            queued = await self.world.pool.fetch("select id from runs where state = 'queued'")
            until = self.now + self.world.parts.settings.lease
            return await leases.lease(self.world.pool, [row["id"] for row in queued], self.now, until, "dead")

        taken = self.wait(take())
        self.abandoned += taken
        self.tell("crashed" if taken else "nothing to crash")

    @rule(late=st.booleans())
    def sweep(self, late: bool) -> None:
        """Leases that have expired are taken back."""
        self.world.clock.advance(minutes=late)
        self.wait(sweep(self.world.parts, self.now))
        self.tell("swept")

    @precondition(lambda self: self.abandoned)
    @rule()
    def come_back(self) -> None:
        """A worker given up for dead wants to finish: it must not, once its lease was taken over (SPEC 5)."""
        run = self.abandoned.pop()

        async def finish() -> bool:
            held = await self.world.pool.fetchval(
                "select state = 'running' and epoch = $2 from runs where id = $1", run.id, run.epoch
            )
            if held:
                return False
            async with self.world.pool.acquire() as connection:
                try:
                    await ending.finish(connection, Finish(run, 99, FetchReport(None, None), True, self.now))
                except LeaseLost:
                    return True
            raise AssertionError(f"{run} was finished under a lease that was lost")

        self.tell("came back too late" if self.wait(finish()) else "was not away")

    @rule()
    def pause(self) -> None:
        self.ask("paused", installations.pause(self.world.parts, "acme", "sync"))

    @rule()
    def resume(self) -> None:
        self.ask("resumed", installations.resume(self.world.parts, "acme", "sync"))

    @rule(duration=jumps)
    def be_refused(self, duration: timedelta) -> None:
        """Time passes, and the source refuses the credentials: the installation is paused (SPEC 5)."""
        self.world.clock.set(self.now + duration)
        self.plan()
        self.world.shop.on_page = lambda _number: Unauthorised("revoked")
        chosen = self.wait(self._choose_and_work())
        self.world.shop.on_page = lambda _number: None
        self.tell("refused" if chosen else "refused nothing")

    @rule(duration=jumps)
    def resume_well(self, duration: timedelta) -> None:
        """Somebody who has corrected the cause resumes it: what failed before is not left for a later due date."""
        self.world.clock.set(self.now + duration)
        paused = self.last is not None and self.last.paused

        async def resume() -> None:
            await sweep(self.world.parts, self.now)
            await installations.resume(self.world.parts, "acme", "sync")
            await self.world.tick()

        self.wait(resume())
        self.planned_at = self.now
        self.tell("resumed well")
        if paused and self.last is not None and self.last.due_until is not None:
            told = self.last.uncovered
            assert told is None or not told.reason.startswith(("failed", "unproven")), told

    @rule(ago=st.integers(0, 3))
    def run_by_hand(self, ago: int) -> None:
        asked = installations.request_runs(self.world.parts, "acme", "sync", end=self.instant - ago * HOUR)
        self.ask("run by hand", asked)

    @rule(ago=hours_ago)
    def waive(self, ago: int) -> None:
        until = self.instant - ago * HOUR
        self.ask("waived", waiving.waive(self.world.parts, "acme", "sync", "orders", until, "booked by hand"))

    @rule(ago=hours_ago, hours=st.integers(0, 80), touching=st.booleans())
    def backfill(self, ago: int, hours: int, touching: bool) -> None:
        """Anywhere; where ``touching``, up to the head of the chain."""
        end = self.instant - ago * HOUR
        if touching and self.last is not None and self.last.links:
            end = self.last.links[0].period.start
        asked = backfilling.request_backfill(self.world.parts, "acme", "sync", "orders", end - hours * HOUR, end)
        self.ask("backfill asked for", asked)

    @rule(older=hours_ago)
    def compact(self, older: int) -> None:
        async def compact() -> int:
            await self.world.pool.execute("update chains set compact_at = '-infinity'")
            return (await compaction.compact(self.world.pool, self.now, older * HOUR)).rows

        rows = self.wait(compact())
        if rows:
            self.last = None  # fewer rows say the same: ledger.check compares what they say
        self.tell("compacted" if rows else "nothing to compact")

    def teardown(self) -> None:
        """All is well from now on: everything due is covered, and what a person must ask for again is named."""
        try:
            if self.last is not None:
                self.wait(self._settle())
        finally:
            self.wait(self.opened.__aexit__(None, None, None))
            self.runner.close()

    async def _settle(self) -> None:
        await installations.resume(self.world.parts, "acme", "sync")
        for _ in range(ROUNDS_TO_SETTLE):
            self.world.clock.advance(hours=9)
            await sweep(self.world.parts, self.now)
            await self.world.tick()
            look = await ledger.look(self.world)
            ledger.check(look, self.last, settled=True)
            self.last = look
            if look.at_rest:
                break
        ledger.check_at_rest(look)
        if look.in_front is not None:  # its backfill has failed: that is named, and asking for it again covers it
            await installations.pause(self.world.parts, "acme", "sync")
            await installations.resume(self.world.parts, "acme", "sync")
            await self.world.tick()
            look = await ledger.look(self.world)
        assert look.in_front is None
        ledger.check(look, self.last, settled=True)
