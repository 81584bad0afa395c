"""The rate of a platform account holds across processes, and so does a pause it asks for (SPEC 3; issue 2 "Waiting")."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tests.engine.doubles import OpenedShop
from tests.engine.world import World, in_world
from tidegate.domain.capacity import SHARE_OF_BURST, SHARE_OF_RATE, RateLimit
from tidegate.domain.errors import AccountHeld, RateLimited, SourceUnavailable
from tidegate.engine.allowance import HORIZON, Allowances
from tidegate.engine.commands import installations
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.parts import Ends
from tidegate.engine.planner import plan_due
from tidegate.engine.worker import Worker
from tidegate.store import accounts, leases


def utc(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 7, day, hour, minute, tzinfo=UTC)


async def account_of(world: World) -> int:
    found: int = await world.pool.fetchval("select id from accounts")
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Return once ``condition`` holds; what it waits for is other tasks' work, which takes its own time."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("the awaited condition did not come true")


def test_whoever_asks_the_account_grants_no_more_than_its_rate(database_url: str) -> None:
    """Issue 2 figure 3: in no stretch of time more than the burst and the rate allow, and nearly all of it is used."""

    async def story(world: World) -> None:
        limit = RateLimit(200, 40)
        await world.install(rate=limit)
        account, chance = await account_of(world), random.Random(7)
        sent: list[datetime] = []
        while world.clock.now() < datetime(2026, 7, 13, 16, 0, 5, tzinfo=UTC):  # 16 processes, asking when they like
            wanted = chance.choice([0, 1, 1, 4, 10, 60])
            got = (await accounts.reserve(world.pool, [(account, wanted)], world.clock.now(), HORIZON))[account]
            assert got.count <= wanted
            turns = [max(world.clock.now(), got.first_at + nth * got.gap) for nth in range(got.count)]
            assert all(turn <= world.clock.now() + HORIZON + got.gap for turn in turns)
            sent += turns
            world.clock.advance(seconds=chance.random() * 0.05)
        sent.sort()
        seconds = [(instant - sent[0]).total_seconds() for instant in sent]
        rate, burst = limit.per_second * SHARE_OF_RATE, limit.burst * SHARE_OF_BURST
        for first in range(len(seconds)):
            for last in range(first, len(seconds), 7):
                assert last - first + 1 <= burst + rate * (seconds[last] - seconds[first]) + 1.001
        assert len(sent) >= 0.95 * rate * seconds[-1]

    in_world(database_url, story)


def test_sixteen_at_once_get_each_turn_once(database_url: str) -> None:
    """SPEC 3: the row decides, so that processes that ask in the same moment share and do not double."""

    async def story(world: World) -> None:
        await world.install(rate=RateLimit(10, 4))
        account, now = await account_of(world), world.clock.now()
        asked = [accounts.reserve(world.pool, [(account, 3)], now, timedelta(seconds=2)) for _ in range(16)]
        granted = [each[account] for each in await asyncio.gather(*asked)]
        turns = sorted(got.first_at + nth * got.gap for got in granted for nth in range(got.count))
        assert len(set(turns)) == len(turns)
        assert len(turns) == 2 + int(2 * 10 * SHARE_OF_RATE), "half the burst at once, and the rate for two seconds"
        assert any(got.count == 0 and got.again_at > now for got in granted)

    in_world(database_url, story)


def test_an_account_without_a_rate_costs_nothing(database_url: str) -> None:
    """SPEC 3: no statement, no wait."""

    async def story(world: World) -> None:
        await world.install()
        allowances = Allowances(world.pool, world.clock)
        account = await account_of(world)
        allowances.learn(account, None)
        async with asyncio.timeout(5):
            for _ in range(1000):
                await allowances.of(account).wait()
        assert await world.pool.fetchval("select free_at = '-infinity' from accounts")

    in_world(database_url, story)


def test_a_turn_that_was_missed_is_given_up(database_url: str) -> None:
    """Issue 2 figure 3: a process that was held up does not send what has piled up in one bunch."""

    async def story(world: World) -> None:
        limit = RateLimit(2, 2)
        await world.install(rate=limit)
        account = await account_of(world)
        allowances = Allowances(world.pool, world.clock)
        allowances.learn(account, limit)
        await allowances.wait(account)
        late = asyncio.create_task(allowances.wait(account))
        await until(lambda: bool(world.clock._sleepers))
        world.clock.advance(seconds=30)  # the machine slept
        await until(lambda: late.done() or bool(world.clock._sleepers))
        assert late.done(), "the bucket is full again, so the new turn is at once"
        first_free: datetime = await world.pool.fetchval("select free_at from accounts")
        assert first_free > world.clock.now(), "it was a new turn, and is accounted for"

    in_world(database_url, story)


def test_a_process_that_is_always_late_still_gets_on(database_url: str) -> None:
    """Issue 2 figure 3: a turn is given up once at most, so that a busy machine is slow and not stuck."""

    async def story(world: World) -> None:
        limit = RateLimit(2, 2)
        await world.install(rate=limit)
        account = await account_of(world)
        allowances = Allowances(world.pool, world.clock)
        allowances.learn(account, limit)
        await allowances.wait(account)
        late = asyncio.create_task(allowances.wait(account))
        await until(lambda: bool(world.clock._sleepers))
        later = world.clock.now() + timedelta(seconds=30)
        await accounts.reserve(world.pool, [(account, 1)], later, HORIZON)  # so that the next turn has to be waited for
        world.clock.set(later)
        await until(lambda: late.done() or bool(world.clock._sleepers))
        assert not late.done(), "the first turn was given up"
        world.clock.advance(seconds=30)
        await until(late.done)

    in_world(database_url, story)


def test_a_pause_stops_fetches_under_way_in_other_processes(database_url: str) -> None:
    """SPEC 3: a short one is sat out where it is; the other process knows of it within one look."""

    async def story(world: World) -> None:
        await world.install()
        account = await account_of(world)
        here, there = Allowances(world.pool, world.clock), Allowances(world.pool, world.clock)
        await accounts.hold(world.pool, account, world.clock.now() + timedelta(seconds=3), "429")
        here.hold(account, world.clock.now() + timedelta(seconds=3))
        await there.look()
        for allowances in (here, there):
            waiting = asyncio.create_task(allowances.wait(account))
            await until(lambda: bool(world.clock._sleepers))
            assert not waiting.done()
            world.clock.advance(seconds=3)
            async with asyncio.timeout(5):
                await waiting
            await accounts.hold(world.pool, account, world.clock.now() + timedelta(seconds=3), "429")
            await there.look()

    in_world(database_url, story)


def test_a_long_pause_gives_the_slot_back_and_counts_as_no_failure(database_url: str) -> None:
    """SPEC 3, 5: all runs of the account wait until then, resume from their checkpoints, and only one had been refused."""

    async def story(world: World) -> None:
        chains = [await world.install(tenant, account="shared.example") for tenant in ("a", "b", "c")]
        for number in range(1, 7):
            world.shop.put(number, utc(13, 16, number))
        world.clock.set(utc(14))
        await plan_due(world.parts, world.clock.now())
        await dispatch_ready(world.parts, world.clock.now())
        world.shop.on_page = lambda number: RateLimited("slow", retry_after_seconds=600) if number == 2 else None
        here, there = Worker(world.parts, on_end=lambda: None), Worker(world.parts, on_end=lambda: None)
        first, second, third = [run["id"] for run in await world.runs()]
        await here.handle(first)
        await there._ends.allowances.look()
        await asyncio.gather(here.handle(second), there.handle(third))
        runs = await world.runs()
        assert {(run["state"], run["not_before_at"]) for run in runs} == {("retrying", utc(14, 0, 10))}
        codes = [run["error"].split('"code": "')[1].split('"')[0] for run in runs]
        assert codes == ["rate_limited", "account_held", "account_held"]
        assert [run["attempt"] for run in runs[1:]] == [0, 0], "what was never asked has not failed"
        assert world.shop.pages_served == 2
        world.shop.on_page = lambda _number: None
        world.clock.set(utc(14, 0, 10))
        await world.tick()
        assert all([len(await world.covered(chain)) == 1 for chain in chains])

    in_world(database_url, story)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (RateLimited("slow", retry_after_seconds=90), 90),
        (RateLimited("slow"), 2),
        (RateLimited("slow", retry_after_seconds=1e12), 86_400),
        (SourceUnavailable("maintenance", retry_after_seconds=30), 30),
        (SourceUnavailable("reset"), None),
        (AccountHeld("another run's", retry_after_seconds=90), None),
    ],
)
def test_what_asks_for_a_pause_and_for_how_long(database_url: str, error: Exception, seconds: int | None) -> None:
    """SPEC 5 "Failures", 3: what a source states is honoured for all of its account, bounded; a mere failure is one run's."""

    async def story(world: World) -> None:
        await world.install()
        world.shop.on_page = lambda _number: error
        await installations.request_runs(world.parts, "acme", "sync")
        await dispatch_ready(world.parts, world.clock.now())
        await world.work()
        until = await world.pool.fetchval("select hold_until from accounts")
        assert until == (None if seconds is None else world.clock.now() + timedelta(seconds=seconds))

    in_world(database_url, story)


def test_a_connection_that_has_moved_to_another_account_waits_for_that_ones_turns(database_url: str) -> None:
    """SPEC 3: its settings and secrets are the same, so what is kept open looks right; its allowance is not."""

    async def story(world: World) -> None:
        await world.install()
        world.clock.set(utc(14))
        await plan_due(world.parts, world.clock.now())
        await dispatch_ready(world.parts, world.clock.now())
        (run,) = await world.runs()
        now = world.clock.now()
        (held,) = await leases.lease(world.pool, [run["id"]], now, now + timedelta(seconds=15), "w")
        ends = Ends(world.parts)
        await ends.prepare(world.pool, [held])
        first, _, _ = ends.source(held)
        other = await world.pool.fetchval(
            "insert into accounts (connector, name, concurrency_limit) values ('fake', 'other.example', 4) returning id"
        )
        await world.pool.execute("update connections set account_id = $1", other)
        moved = msgspec.structs.replace(held, account_id=other)
        await ends.prepare(world.pool, [moved])
        second, _, _ = ends.source(moved)
        assert isinstance(first, OpenedShop)
        assert isinstance(second, OpenedShop)
        assert first.allowance == ends.allowances.of(held.account_id)
        assert second.allowance == ends.allowances.of(other)
        await ends.prepare(world.pool, [moved])
        assert ends.source(moved)[0] is second, "opened anew once"

    in_world(database_url, story)
