"""Plays a story: the real engine, connector and destination against the hostile source, and every promise checked.

The promise is checked after each run, not only at the end; the end waits until the source has been quiet for longer than
its lookback, and then compares everything.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

from tests.destinations.webhook.receiver import SECRET, Receiver, receiving
from tests.destinations.webhook.world import Sending
from tests.engine.world import World, open_world
from tests.loss import evidence, receiver, tap
from tests.loss.dialects import dialect
from tests.loss.evidence import Found, Violation
from tests.loss.history import History
from tests.loss.hostile_source import HostileSource, Temper, serve
from tests.loss.receiver import Moods, OverheardWebhook
from tests.loss.story import Story
from tests.loss.tap import OverheardDestination
from tidegate.connectors.rest.connector import RestConnector
from tidegate.connectors.rest.loader import load
from tidegate.destinations.base import Destination
from tidegate.destinations.postgres.local import LocalPostgres
from tidegate.destinations.postgres.remote import RemotePostgres
from tidegate.destinations.webhook.settings import WebhookSettings
from tidegate.destinations.webhook.webhook import Webhook
from tidegate.domain.retry import RetryPolicy
from tidegate.domain.schedule import Schedule, start_instant
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.store import chains, ledger, outbox, schedules
from tidegate.store.directory import StoredDestination

_numbers = itertools.count(1)
FEW_ATTEMPTS = RetryPolicy(attempts=4, base=timedelta(seconds=2), cap=timedelta(minutes=5))
ROUNDS_TO_SETTLE = 8


@dataclass
class Outcome:
    """What came of a story: the promises broken, and how much happened."""

    violations: list[Violation] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    pages: int = 0
    versions: int = 0
    written: int = 0

    @property
    def kinds(self) -> set[str]:
        """The kinds of promises broken."""
        return {violation.kind for violation in self.violations}


@dataclass
class Stage:
    """A story while it is played."""

    story: Story
    world: World
    source: HostileSource
    overheard: OverheardDestination
    schema: str
    schedule: Schedule
    chain_id: int
    sending: Sending | None = None
    moods: Moods | None = None
    checked_to: datetime | None = None
    settled: bool = True
    violations: list[Violation] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        """The present of the simulation."""
        return self.world.clock.now()

    async def live_until(self, until: datetime) -> None:
        """Let time pass; the source goes on living unless it is calm."""
        until = max(until, self.now)
        if self.source.temper.changes or self.source.temper.faults:
            due_at = await schedules.next_due_at(self.world.pool)
            events = self.source.random.randrange(6)
            self.source.history.live(self.now, until, events, [due_at] if due_at is not None else [])
        self.world.clock.set(until)

    async def tick(self) -> None:
        """Plan what is due and execute it, checking the promise after each run and whatever it sent."""
        await self.send()
        await plan_due(self.world.parts, self.now)
        while await dispatch_ready(self.world.parts, self.now):
            await self.world.work()
            await self.check()
            await self.send()

    async def send(self) -> None:
        """Send what waits in the outbox and is due."""
        if self.sending is not None:
            await self.sending.send()
            await self.check()

    async def found(self) -> Found:
        """Return what is in the destination."""
        if self.sending is not None:
            return await receiver.found(self.world.pool, self.sending.receiver)
        return await evidence.found(self.world.pool, self.schema)

    async def writes(self) -> dict[int, list[int]]:
        """Return the revisions that the destination was given of each record, in order."""
        if self.sending is not None:
            return receiver.writes(self.sending.receiver)
        return await tap.writes(self.world.pool, self.schema)

    async def next_run_date(self) -> datetime | None:
        """Return when the run that comes next may start, None if none waits; what is tried again comes first."""
        if waiting := await self.world.pool.fetchval("select min(not_before_at) from routes"):
            again: datetime = waiting
            return again
        found: datetime | None = await self.world.pool.fetchval(
            """select greatest(r.not_before_at, a.hold_until) from runs r join accounts a on a.id = r.account_id
                where state in ('waiting', 'retrying') order by state = 'retrying' desc, not_before_at limit 1"""
        )
        return found

    async def check(self) -> None:
        """Check what *covered to W* promises, as soon as a run has covered to it."""
        links = await chains.links(self.world.pool, self.chain_id)
        if not links or links[-1].period.end == self.checked_to:
            return
        self.checked_to = links[-1].period.end
        begun_at = await self.world.pool.fetchval("select started_at from runs where id = $1", links[-1].run_id)
        there = await self.found()
        start = start_instant(self.schedule)
        self.violations += evidence.kept_promise(
            self.source.history, there, self.now, start, self.checked_to, begun_at
        )  # fmt: skip

    async def go_on(self) -> None:
        """Let the story go on for its number of ticks, each at a run date of its own."""
        random = self.source.random
        for _ in range(self.story.ticks):
            due_at = await schedules.next_due_at(self.world.pool)
            if due_at is not None:
                every = due_at - self.now
                delay = random.choice((0.0, 0.0, 0.3, 1.0, 3.0)) * random.random() * max(every, timedelta(minutes=1))
                await self.live_until(max(due_at, self.now) + delay)
            await self.tick()
            while (run_date := await self.next_run_date()) is not None and random.random() < 0.8:
                await self.live_until(run_date + timedelta(seconds=random.choice((0, 0, 1, 100))))
                await self.tick()

    async def settle(self) -> None:
        """Let the source be quiet for longer than its lookback, and everything be covered."""
        dialect = self.source.dialect
        self.source.calm()
        if self.moods is not None:
            self.moods.calm()
        quiet_at = self.now + abs(self.source.history.skew) + timedelta(seconds=dialect.lookback) + dialect.grain
        for _ in range(ROUNDS_TO_SETTLE):
            next_date = await self.next_run_date() or await schedules.next_due_at(self.world.pool)
            await self.live_until(max(quiet_at, next_date or quiet_at))
            await self.tick()
            watermark = await chains.watermark(self.world.pool, self.chain_id)
            if watermark is not None and watermark >= quiet_at:
                return
        if dialect.shuffles:  # what such a source hides may stay hidden, as long as nothing is called covered
            self.settled = False
        else:
            self.violations.append(Violation("stuck", f"covered to {watermark}, quiet since {quiet_at}"))

    async def end(self) -> None:
        """Compare everything."""
        history, delivered = self.source.history, self.overheard.delivered
        there = await self.found()
        if self.settled:
            self.violations += evidence.all_there(history, there, self.now, start_instant(self.schedule))
        self.violations += evidence.stored_once(delivered, await self.writes(), history)
        if self.sending is not None:
            self.violations += receiver.in_order(self.sending.receiver)
        self.violations += evidence.quarantined(delivered, there, history)
        shown_again = (
            history.dialect.may_begin_again or history.dialect.moves
        )  # a keyset's bound, one grain back, shows it again
        if not shown_again and not self.source.faults["repeated page token"]:
            self.violations += evidence.pages_once(delivered)
        self.violations += evidence.chained(await chains.links(self.world.pool, self.chain_id), self.schedule)

    async def outcome(self) -> Outcome:
        """Count what happened."""
        states = await self.world.pool.fetch("select state, count(*) as runs from runs group by state")
        return Outcome(
            self.violations,
            Counter({row["state"]: row["runs"] for row in states}),
            self.source.faults,
            self.source.requests,
            sum(len(batch.pages) for batch in self.overheard.delivered),
            sum(map(len, self.source.history.versions.values())),
            sum(map(len, (await self.writes()).values())),
        )


@asynccontextmanager
async def staged(dsn: str, story: Story) -> AsyncIterator[Stage]:
    """Set the stage on the database at ``dsn``, whose other stories are over, and clear it in the end."""
    schema = f"story_{next(_numbers)}"
    batch_bytes = 1 if story.paged else 1 << 30
    settings = {"batch_bytes": batch_bytes, "batch_age": timedelta(days=9999), "retry": FEW_ATTEMPTS}
    settings |= {"pause_after_failing_days": 9999}  # whatever happens, it goes on until all is quiet
    async with open_world(dsn, **settings) as world:
        await tap.audit_writes(world.pool)
        world.clock.set(story.beginning)
        source = _source(story, world)
        async with serve(source) as url, receiving(world.clock.now) as posted:
            connector = RestConnector(load(source.dialect.declaration(url, page_size=story.page_size)))

            async def open_destination(_stored: StoredDestination, _secrets: dict[str, str]) -> Destination:
                return stage.overheard

            chance = Random(story.seed).random
            world.parts = replace(
                world.parts, connector=lambda _name: connector, open_destination=open_destination, chance=chance
            )  # fmt: skip
            chain = await world.install("acme", story.rule())
            stage = Stage(
                story, world, source, await _destination(story, world, schema, posted), schema,
                parse_schedule(story.rule()), chain,
            )  # fmt: skip
            if story.webhook:
                stage.moods = Moods(story.silence, Random(story.seed))
                posted.answer = stage.moods.answer
                stage.sending = Sending(world, posted)
            try:
                yield stage
            finally:
                await tap.clear(world.pool, schema)


async def _destination(story: Story, world: World, schema: str, posted: Receiver) -> OverheardDestination:
    if story.webhook:
        settings = WebhookSettings.parse({"url": posted.url, "retry_for_days": 60}, {"signing_secrets": SECRET})
        number = await world.pool.fetchval("select id from destinations")
        parts = world.parts
        return OverheardWebhook(Webhook(settings, number, parts.session, parts.pool, outbox, parts.clock))
    if story.remote:
        this = await ledger.identity(world.pool, world.clock.now())
        return OverheardDestination(RemotePostgres(world.pool, world.pool, this.id, schema=schema))
    return OverheardDestination(LocalPostgres(world.pool, schema=schema))


def _source(story: Story, world: World) -> HostileSource:
    spoken, random = dialect(story.dialect), Random(story.seed)
    skew = timedelta(seconds=story.skew)
    lookback = timedelta(seconds=spoken.lookback)
    lag = lookback if spoken.sends_date else lookback - abs(skew)
    history = History(spoken, skew, max(lag, timedelta(0)), story.poison, random)
    history.live(story.beginning - timedelta(hours=6), story.beginning, random.randrange(5, 25))
    temper = Temper(story.faults, story.changes, story.slowest, story.circle)
    most_requests = 120 if story.circle else 2000
    return HostileSource(spoken, history, world.clock, random, temper, story.page_size, most_requests)


async def _play(dsn: str, story: Story) -> Outcome:
    async with staged(dsn, story) as stage:
        await stage.go_on()
        await stage.settle()
        await stage.end()
        return await stage.outcome()


def play(dsn: str, story: Story) -> Outcome:
    """Play a story and return what came of it; without violations nothing was lost, doubled or claimed falsely."""
    return asyncio.run(_play(dsn, story))
