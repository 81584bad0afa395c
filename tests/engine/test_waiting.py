"""Waiting, explained: what is told is what the dispatcher does (SPEC 3; issue 2 "Waiting, explained").

Each story brings one reason about. The dispatcher must not start the run while it is told; once the reason is gone, it must.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.engine.world import DAILY, World, in_world
from tidegate.domain.errors import ContractBroken, RateLimited, SourceUnavailable, Unauthorised
from tidegate.domain.waiting import WaitReason
from tidegate.engine import queries
from tidegate.engine.commands import installations
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.store import accounts, waiting
from tidegate.store.waiting import WaitingRun

EVERY_HOUR = {"every": "1h", "start_at": "2026-07-13T00:00:00Z"}
Story = Callable[[World], Awaitable[None]]


def utc(day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    return datetime(2026, 7, day, hour, minute, second, tzinfo=UTC)


async def told(world: World, chain: int) -> WaitingRun:
    """Return what is told of the chain's one wait, once the dispatcher has done all it can."""
    (found,) = [each for each in await waiting.explain(world.pool, world.clock.now()) if each.chain_id == chain]
    return found


async def starts(world: World, chain: int) -> bool:
    """Let the dispatcher do all it can, and return whether a run of the chain is now handed to the queue."""
    before = {run["id"] for run in await world.runs(chain) if run["state"] == "queued"}
    while await dispatch_ready(world.parts, world.clock.now()):
        pass
    return bool({run["id"] for run in await world.runs(chain) if run["state"] == "queued"} - before)


async def due(world: World) -> None:
    world.clock.set(utc(14))
    await plan_due(world.parts, world.clock.now())


async def settle(world: World) -> None:
    chain = await world.install(rule={**DAILY, "settle": "10m", "spread": "1h"})
    await due(world)
    assert not await starts(world, chain)
    wait = (await told(world, chain)).wait
    assert wait.reason == WaitReason.SETTLE
    assert wait.planned_at is not None
    assert utc(14, 0, 10) <= wait.planned_at < utc(14, 1, 10)
    world.clock.set(utc(14, 0, 10))
    assert not await starts(world, chain)
    assert (await told(world, chain)).wait.reason == WaitReason.SPREAD
    world.clock.set(wait.planned_at)
    assert await starts(world, chain)


async def slots(world: World) -> None:
    await world.install("first")
    chain = await world.install("second")
    await due(world)
    world.with_settings(queue_depth=1)
    states = [await starts(world, chain), (await told(world, chain)).wait.reason]
    assert states == [False, WaitReason.SLOTS]
    await world.work()
    assert await starts(world, chain)
    assert (await told(world, chain)).wait.detail == "handed to the queue"


async def account_limit(world: World) -> None:
    await world.install("first", account="shared.example", limit=1)
    chain = await world.install("second", account="shared.example", limit=1)
    await due(world)
    assert not await starts(world, chain)
    wait = (await told(world, chain)).wait
    assert (wait.reason, wait.detail) == (WaitReason.ACCOUNT_LIMIT, "shared.example: 1 at once")
    await world.work()
    assert await starts(world, chain)


async def connection_limit(world: World) -> None:
    await world.install(own_limit=1)
    chain = await world.install(stream="events", own_limit=1)
    await world.install("other", account="acme.example")
    await due(world)
    assert not await starts(world, chain)
    wait = (await told(world, chain)).wait
    assert (wait.reason, wait.detail) == (WaitReason.CONNECTION_LIMIT, "shop: 1 at once")
    await world.work()
    assert await starts(world, chain)


async def account_held(world: World) -> None:
    await world.install("first", account="shared.example")
    chain = await world.install("second", account="shared.example", rule=EVERY_HOUR)
    world.shop.on_page = lambda _number: RateLimited("slow down", retry_after_seconds=5400)
    world.clock.set(utc(13, 17))
    await installations.request_runs(world.parts, "first", "sync")
    await dispatch_ready(world.parts, world.clock.now())
    await world.work()
    await plan_due(world.parts, world.clock.now())
    assert not await starts(world, chain)
    wait = (await told(world, chain)).wait
    assert (wait.reason, wait.planned_at) == (WaitReason.ACCOUNT_HELD, utc(13, 18, 30))
    assert "rate_limited" in wait.detail
    world.clock.set(utc(13, 18, 29, 59))
    await plan_due(world.parts, world.clock.now())
    assert not await starts(world, chain)
    world.clock.set(utc(13, 18, 30))
    assert await starts(world, chain)


async def another_run(world: World) -> None:
    chain = await world.install(rule=EVERY_HOUR)
    world.clock.set(utc(13, 17))
    await plan_due(world.parts, world.clock.now())
    assert await starts(world, chain)
    (active,) = await world.runs()
    world.clock.set(utc(13, 18))
    await plan_due(world.parts, world.clock.now())
    assert not await starts(world, chain)
    waits = [each for each in await waiting.explain(world.pool, world.clock.now()) if each.run_id != active["id"]]
    assert [(each.wait.reason, each.wait.detail) for each in waits] == [(WaitReason.ANOTHER_RUN, f"run {active['id']}")]
    await world.work()
    assert await starts(world, chain)


async def period_failed(world: World) -> None:
    chain = await world.install(rule={**DAILY, "start_date": "2026-07-12", "max_period": "1d"})
    await due(world)
    world.shop.on_page = lambda _number: ContractBroken("no records")
    assert await starts(world, chain)
    await world.work()
    await plan_due(world.parts, world.clock.now())
    assert not await starts(world, chain)
    wait = (await told(world, chain)).wait
    assert (wait.reason, wait.planned_at) == (WaitReason.PERIOD_FAILED, utc(15))
    assert wait.detail == "tried again at 2026-07-15T00:00:00Z"
    world.shop.on_page = lambda _number: None
    world.clock.set(utc(15))
    await plan_due(world.parts, world.clock.now())
    assert await starts(world, chain)


async def retrying(world: World) -> None:
    chain = await world.install()
    await due(world)
    world.shop.on_page = lambda _number: SourceUnavailable("away")
    assert await starts(world, chain)
    await world.work()
    assert not await starts(world, chain)
    wait = (await told(world, chain)).wait
    assert (wait.reason, wait.detail) == (WaitReason.RETRYING, "attempt 2, after: away")
    assert wait.planned_at is not None
    world.clock.set(wait.planned_at)
    assert await starts(world, chain)


async def paused(world: World) -> None:
    chain = await world.install()
    await installations.pause(world.parts, "acme", "sync", "stocktaking")
    await due(world)
    assert not await starts(world, chain)
    found = await told(world, chain)
    assert (found.run_id, found.due_at, found.wait.reason) == (None, utc(14), WaitReason.PAUSED)
    assert found.wait.detail == "stocktaking"
    await installations.resume(world.parts, "acme", "sync")
    assert (await told(world, chain)).wait.reason == WaitReason.UNPLANNED
    await plan_due(world.parts, world.clock.now())
    assert await starts(world, chain)


async def unauthorised(world: World) -> None:
    chain = await world.install()
    await due(world)
    world.shop.on_page = lambda _number: Unauthorised("scope withdrawn")
    assert await starts(world, chain)
    await world.work()
    assert not await starts(world, chain)
    found = await told(world, chain)
    assert (found.due_at, found.wait.reason) == (utc(14), WaitReason.UNAUTHORISED)
    await installations.resume(world.parts, "acme", "sync")
    await plan_due(world.parts, world.clock.now())
    assert await starts(world, chain)


STORIES: list[Story] = [
    settle, slots, account_limit, connection_limit, account_held, another_run, period_failed, retrying, paused, unauthorised,
]  # fmt: skip


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_what_is_told_is_what_the_dispatcher_does(database_url: str, story: Story) -> None:
    """SPEC 3: the run waits while the reason is told and no longer."""
    in_world(database_url, story)


def test_every_reason_has_its_story() -> None:
    """Issue 2: no reason is told that nobody has seen come and go. Settle's story tells of spread, paused's of unplanned."""
    beside = {"settle": ["spread"], "paused": ["unplanned"]}
    seen = [reason for story in STORIES for reason in [story.__name__, *beside.get(story.__name__, [])]]
    assert sorted(seen) == sorted(WaitReason)


def test_the_sum_counts_each_due_run_once(database_url: str) -> None:
    """SPEC 3, issue 2: `status` sums up how many wait for what, the oldest, the worst lag and staleness."""

    async def story(world: World) -> None:
        for number in range(5):
            await world.install(f"t{number}", account="shared.example", limit=2)
        await world.install("still", rule={**DAILY, "settle": "2h"})
        await due(world)
        await dispatch_ready(world.parts, world.clock.now())
        world.clock.advance(minutes=90)
        found = await queries.summary(world.parts)
        assert [(each.reason, each.runs) for each in found.waiting] == [
            (WaitReason.SETTLE, 1),
            (WaitReason.ACCOUNT_LIMIT, 3),
            (WaitReason.SLOTS, 2),
        ]
        assert {each.oldest_due_at for each in found.waiting} == {utc(14)}
        assert (found.streams, found.nothing_covered_yet, found.worst_lag_seconds) == (6, 6, 5400)
        (listed,) = await queries.list_runs(world.parts, "still")
        assert listed.waits is not None
        assert listed.waits.reason == WaitReason.SETTLE
        (stream,) = await queries.status(world.parts, "still")
        assert stream.waits == listed.waits
        assert stream.uncovered is not None
        assert stream.uncovered.reason == "waiting: settle"
        await world.work()
        world.clock.set(utc(14, 3))
        await world.tick()
        assert (await queries.summary(world.parts)).waiting == ()
        assert (await queries.summary(world.parts)).worst_staleness_seconds == 3 * 3600

    in_world(database_url, story)


def test_the_last_run_of_a_paused_installation_is_the_last_that_ran(database_url: str) -> None:
    """SPEC 2.11: what was dropped has not run; `status` tells of the run before it."""

    async def story(world: World) -> None:
        await world.install("acme", rule={**DAILY, "settle": "2h"})
        await due(world)
        world.clock.advance(hours=2)
        await world.tick()
        world.clock.advance(hours=22)
        await plan_due(world.parts, world.clock.now())
        await installations.pause(world.parts, "acme", "sync", "for the summer")
        assert [run["state"] for run in await world.runs()] == ["succeeded", "dropped"]
        (stream,) = await queries.status(world.parts, "acme")
        assert stream.state == "succeeded"

    in_world(database_url, story)


def test_tenants_of_one_account_take_turns(database_url: str) -> None:
    """SPEC 3 fairness: a tenant with many streams does not take a shared account's limit for itself."""

    async def story(world: World) -> None:
        for number in range(8):
            await world.install("a", stream=f"extra{number}", account="shared.example", limit=2)
        await world.install("z", account="shared.example", limit=2)
        await due(world)
        assert await dispatch_ready(world.parts, world.clock.now()) == 2
        assert sorted(run["tenant_id"] for run in await world.runs() if run["state"] == "queued") == ["a", "z"]

    in_world(database_url, story)


def test_what_a_tenant_has_in_hand_counts(database_url: str) -> None:
    """SPEC 3 fairness: whose runs are at work already comes after those who have none."""

    async def story(world: World) -> None:
        for number in range(4):
            await world.install("a", stream=f"extra{number}", limit=9)
        await due(world)
        world.with_settings(queue_depth=2)
        assert await dispatch_ready(world.parts, world.clock.now()) == 2
        for tenant in ("y", "z"):
            await world.install(tenant)
            await installations.request_runs(world.parts, tenant, "sync")
        world.with_settings(queue_depth=4)
        assert await dispatch_ready(world.parts, world.clock.now()) == 2
        assert sorted(run["tenant_id"] for run in await world.runs() if run["state"] == "queued") == [
            "a",
            "a",
            "y",
            "z",
        ]

    in_world(database_url, story)


def test_a_pause_is_asked_of_all_and_never_shortened(database_url: str) -> None:
    """SPEC 3, issue 2: `Retry-After` of one run holds back the account; a shorter one told later does not end it."""

    async def story(world: World) -> None:
        await world.install()
        account: int = await world.pool.fetchval("select id from accounts")
        now = world.clock.now()
        await accounts.hold(world.pool, account, now + timedelta(minutes=10), "long")
        await accounts.hold(world.pool, account, now + timedelta(minutes=1), "short")
        assert await accounts.held(world.pool, now) == {account: now + timedelta(minutes=10)}
        assert await accounts.held(world.pool, now + timedelta(minutes=10)) == {}

    in_world(database_url, story)
