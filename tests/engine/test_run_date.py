"""The run date: settle, spread, slots, account limits, fairness, pausing, manual runs (SPEC 2.9, 2.11, 3)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.engine.world import DAILY, World, in_world
from tidegate.domain.errors import InvalidInput
from tidegate.engine import commands
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.engine.worker import Worker
from tidegate.store import chains


def utc(day: int, hour: int = 0, minute: int = 0, second: int = 0, month: int = 7) -> datetime:
    return datetime(2026, month, day, hour, minute, second, tzinfo=UTC)


def test_settle_and_spread_move_the_run_date_and_not_the_period(database_url: str) -> None:
    """SPEC 3, HOLES ff, kk: the same seed gives the same plan; the period stays."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**DAILY, "settle": "10m", "spread": "1h"})
        world.clock.set(utc(14))
        await world.tick()
        (run,) = await world.runs()
        assert run["state"] == "waiting"
        assert utc(14, 0, 10) <= run["not_before_at"] < utc(14, 1, 10)
        world.clock.set(run["not_before_at"])
        await world.tick()
        (run,) = await world.runs()
        assert (run["state"], run["started_at"]) == ("succeeded", run["not_before_at"])
        assert await world.covered(chain) == [(utc(1, month=5), utc(14))]

    in_world(database_url, story)


def test_a_waiting_run_takes_the_newer_due_date_in(database_url: str) -> None:
    """SPEC 2.8 coalesce, 2.9: what has not started is one run up to the latest due date passed."""

    async def story(world: World) -> None:
        chain = await world.install(rule={"every": "1h", "start_at": "2026-07-13T00:00:00Z"})
        world.clock.set(utc(13, 17))
        await plan_due(world.parts, world.clock.now())
        world.clock.set(utc(13, 18))
        await plan_due(world.parts, world.clock.now())
        (run,) = await world.runs()
        assert (run["first_due_at"], run["due_at"], run["period_end"]) == (utc(13, 17), utc(13, 18), utc(13, 18))
        await world.tick()
        assert await world.covered(chain) == [(utc(13), utc(13, 18))]

    in_world(database_url, story)


def test_a_due_date_passed_while_a_run_is_active_belongs_to_the_next_run(database_url: str) -> None:
    """SPEC 2.9, HOLE g: a stream never has two live runs at once."""

    async def story(world: World) -> None:
        chain = await world.install(rule={"every": "5m", "start_at": "2026-07-13T00:00:00Z"})
        world.shop.gate = asyncio.Event()
        world.clock.set(utc(13, 16, 5))
        await plan_due(world.parts, world.clock.now())
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        (first,) = await world.runs()
        active = asyncio.create_task(Worker(world.parts, on_end=lambda: None).handle(first["id"]))
        for minutes in (10, 15, 20):
            world.clock.set(utc(13, 16, minutes))
            await plan_due(world.parts, world.clock.now())
            assert await dispatch_ready(world.parts, world.clock.now()) == 0
        assert len(await world.runs()) == 2
        world.shop.gate.set()
        await active
        await world.tick()
        assert await world.covered(chain) == [(utc(13), utc(13, 16, 5)), (utc(13, 16, 5), utc(13, 16, 20))]

    in_world(database_url, story)


def test_the_limit_of_a_platform_account_holds_for_all_its_tenants(database_url: str) -> None:
    """SPEC 3: capacity decides; live runs of one account never exceed its limit."""

    async def story(world: World) -> None:
        for tenant in ("a", "b", "c", "d"):
            await world.install(tenant, account="shared.example", limit=2)
        await world.install("e")
        world.clock.set(utc(14))
        await plan_due(world.parts, world.clock.now())
        assert await dispatch_ready(world.parts, world.clock.now()) == 3
        assert await dispatch_ready(world.parts, world.clock.now()) == 0
        await world.work()
        assert await dispatch_ready(world.parts, world.clock.now()) == 2

    in_world(database_url, story)


def test_tenants_take_turns(database_url: str) -> None:
    """SPEC 3 fairness: a tenant with many streams does not push the others back."""

    async def story(world: World) -> None:
        await world.install("a")
        world.shop.streams = {**world.shop.streams}
        for number in range(8):
            await world.install("a", stream=f"extra{number}")
        await world.install("z")
        world.clock.set(utc(14))
        await plan_due(world.parts, world.clock.now())
        world.with_settings(queue_depth=2)
        assert await dispatch_ready(world.parts, world.clock.now()) == 2
        queued = [run["tenant_id"] for run in await world.runs() if run["state"] == "queued"]
        assert sorted(queued) == ["a", "z"]

    in_world(database_url, story)


def test_a_manual_run_covers_up_to_now_and_supersedes_what_waited(database_url: str) -> None:
    """SPEC 2.7, 2.11, HOLES p, q: one chain; the waiting run whose period has been covered ends as superseded."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**DAILY, "settle": "1h"})
        world.clock.set(utc(14, 0, 30))
        await plan_due(world.parts, world.clock.now())
        await commands.request_runs(world.parts, "acme", "sync")
        await world.tick()
        world.clock.set(utc(14, 1))
        await world.tick()
        assert [(run["trigger"], run["state"]) for run in await world.runs()] == [
            ("schedule", "superseded"),
            ("manual", "succeeded"),
        ]
        world.clock.set(utc(15, 1))
        await world.tick()
        assert await world.covered(chain) == [(utc(1, month=5), utc(14, 0, 30)), (utc(14, 0, 30), utc(15))]

    in_world(database_url, story)


def test_manual_runs_outside_what_can_be_covered_are_refused(database_url: str) -> None:
    """SPEC 2.11, HOLES m, n, f: not in the future, not before the start, not before the watermark; asking twice is one run."""

    async def story(world: World) -> None:
        await world.install(rule={**DAILY, "start_date": "2026-08-01"}, tenant="later")
        await world.install()
        with pytest.raises(InvalidInput, match="in the future"):
            await commands.request_runs(world.parts, "acme", "sync", end=utc(14, month=8))
        with pytest.raises(InvalidInput, match="not after the start"):
            await commands.request_runs(world.parts, "later", "sync")
        with pytest.raises(InvalidInput, match="is not a stream"):
            await commands.request_runs(world.parts, "acme", "sync", "orderz")
        with pytest.raises(InvalidInput, match="does not exist"):
            await commands.request_runs(world.parts, "acme", "nothing")
        first = await commands.request_runs(world.parts, "acme", "sync")
        assert await commands.request_runs(world.parts, "acme", "sync") == first
        await world.tick()
        with pytest.raises(InvalidInput, match="covered already"):
            await commands.request_runs(world.parts, "acme", "sync", end=utc(12))
        assert len(await world.runs()) == 1

    in_world(database_url, story)


def test_pausing_drops_what_waits_and_resuming_catches_up(database_url: str) -> None:
    """SPEC 2.11: the due date dropped by the pause is caught up at once on resuming, not at the next due date."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**DAILY, "settle": "1h"})
        world.clock.set(utc(14, 0, 30))
        await plan_due(world.parts, world.clock.now())
        assert await commands.pause(world.parts, "acme", "sync", "stocktaking") == 1
        assert [run["state"] for run in await world.runs()] == ["dropped"]
        stretches = [(gap.period.end, gap.reason) for _, gap in await chains.uncovered(world.pool, world.clock.now())]
        assert stretches == [(utc(14), "dropped when the installation was paused")]
        with pytest.raises(InvalidInput, match="stocktaking"):
            await commands.request_runs(world.parts, "acme", "sync")
        world.clock.set(utc(14, 6))
        await world.tick()
        assert await world.covered(chain) == []
        await commands.resume(world.parts, "acme", "sync")
        await world.tick()
        assert await world.covered(chain) == [(utc(1, month=5), utc(14))]
        world.clock.set(utc(15, 2))
        await world.tick()
        assert await world.covered(chain) == [(utc(1, month=5), utc(14)), (utc(14), utc(15))]
        assert await chains.uncovered(world.pool, world.clock.now()) == []

    in_world(database_url, story)


def test_a_due_date_stored_under_older_zone_rules_is_moved_not_obeyed(database_url: str) -> None:
    """SPEC 2.12, HOLE jj: recomputed when it comes up."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**DAILY, "time_zone": "Asia/Beirut"})
        await world.pool.execute("update schedules set next_due_at = $1", utc(13, 20))
        world.clock.set(utc(13, 20, 30))
        await world.tick()
        assert await world.runs() == []
        assert await world.pool.fetchval("select next_due_at from schedules") == utc(13, 21)
        world.clock.set(utc(13, 21))
        await world.tick()
        assert (await world.covered(chain))[-1][1] == utc(13, 21)

    in_world(database_url, story)


def test_two_planners_plan_a_due_date_once(database_url: str) -> None:
    """SPEC 2.12: a run's identity is unique in the database."""

    async def story(world: World) -> None:
        for number in range(40):
            await world.install(f"t{number:02}")
        world.clock.set(utc(14))
        world.with_settings(plan_batch=7)
        await asyncio.gather(*(plan_due(world.parts, world.clock.now()) for _ in range(4)))
        assert len(await world.runs()) == 40

    in_world(database_url, story)


def test_lookback_reaches_back_but_never_before_the_coverages_own_start(database_url: str) -> None:
    """SPEC 4, HOLES k, l: the fetch begins at start - lookback."""
    from dataclasses import replace

    from tests.engine.doubles import ORDERS

    async def story(world: World) -> None:
        await world.install()
        world.shop.streams = {"orders": replace(ORDERS, lookback=timedelta(minutes=5))}
        world.clock.set(utc(14))
        await world.tick()
        world.clock.set(utc(15))
        await world.tick()
        assert [request.lower for request in world.shop.asked] == [utc(1, month=5), utc(13, 23, 55)]

    in_world(database_url, story)
