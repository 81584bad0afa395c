"""The run date: settle, spread, slots, account limits, fairness, pausing, manual runs (SPEC 2.9, 2.11, 3)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.engine.world import DAILY, World, in_world
from tidegate.domain.errors import InvalidInput, SourceUnavailable
from tidegate.engine.commands import installations
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.engine.worker import Worker
from tidegate.store import chains, leases, runs


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
        await installations.request_runs(world.parts, "acme", "sync")
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
            await installations.request_runs(world.parts, "acme", "sync", end=utc(14, month=8))
        with pytest.raises(InvalidInput, match="not after the start"):
            await installations.request_runs(world.parts, "later", "sync")
        with pytest.raises(InvalidInput, match="is not a stream"):
            await installations.request_runs(world.parts, "acme", "sync", "orderz")
        with pytest.raises(InvalidInput, match="does not exist"):
            await installations.request_runs(world.parts, "acme", "nothing")
        first = await installations.request_runs(world.parts, "acme", "sync")
        assert await installations.request_runs(world.parts, "acme", "sync") == first
        await world.tick()
        with pytest.raises(InvalidInput, match="covered already"):
            await installations.request_runs(world.parts, "acme", "sync", end=utc(12))
        assert len(await world.runs()) == 1

    in_world(database_url, story)


def test_pausing_drops_what_waits_and_resuming_catches_up(database_url: str) -> None:
    """SPEC 2.11: the due date dropped by the pause is caught up at once on resuming, not at the next due date."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**DAILY, "settle": "1h"})
        world.clock.set(utc(14, 0, 30))
        await plan_due(world.parts, world.clock.now())
        assert await installations.pause(world.parts, "acme", "sync", "stocktaking") == 1
        assert [run["state"] for run in await world.runs()] == ["dropped"]
        stretches = [(gap.period.end, gap.reason) for _, gap in await chains.uncovered(world.pool, world.clock.now())]
        assert stretches == [(utc(14), "dropped when the installation was paused")]
        with pytest.raises(InvalidInput, match="stocktaking"):
            await installations.request_runs(world.parts, "acme", "sync")
        world.clock.set(utc(14, 6))
        await world.tick()
        assert await world.covered(chain) == []
        await installations.resume(world.parts, "acme", "sync")
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


def test_a_clock_that_goes_back_ends_no_listing_before_its_period_does(database_url: str) -> None:
    """SPEC 4, HOLE a: an ascending listing stops where our clock was, and what the source shows behind that would be covered
    and never read: another process's clock is ahead, or a fail-over has put the database's back.
    """

    async def story(world: World) -> None:
        await world.install()
        world.shop.clock_behind = timedelta(hours=-3)
        world.clock.set(utc(14))
        await plan_due(world.parts, world.clock.now())
        await dispatch_ready(world.parts, world.clock.now())
        world.clock._now = utc(13, 22)
        await world.work()
        assert [request.stop_after for request in world.shop.asked] == [utc(14)]

    in_world(database_url, story)


def test_a_settle_longer_than_the_interval_delays_runs_and_starves_none(database_url: str) -> None:
    """SPEC 3: a newer due date never pushes back a run date that was planned already."""

    async def story(world: World) -> None:
        chain = await world.install(rule={"every": "1m", "start_at": "2026-07-13T00:00:00Z", "settle": "5m"})
        for _ in range(30):
            world.clock.advance(minutes=1)
            await world.tick()
        assert (await world.covered(chain))[-1][1] == world.clock.now() - timedelta(minutes=5)
        assert all(
            run["started_at"] - run["due_at"] == timedelta(minutes=5) for run in await world.runs() if run["started_at"]
        )

    in_world(database_url, story)


def test_what_waits_behind_an_active_run_is_merged_however_long_it_takes(database_url: str) -> None:
    """Issue 1 "Engine", SPEC 2.8: a source that is away for hours leaves no queue behind, settle or not."""

    async def story(world: World) -> None:
        await world.install(rule={"every": "1m", "start_at": "2026-07-13T00:00:00Z", "settle": "2m"})
        world.shop.on_page = lambda _number: SourceUnavailable("away")
        for _ in range(180):
            world.clock.advance(minutes=1)
            await world.tick()
        assert len(await world.runs()) <= 5
        world.shop.on_page = lambda _number: None
        world.clock.advance(hours=1)
        await world.tick()
        world.clock.advance(minutes=2)
        await world.tick()
        last = [run for run in await world.runs() if run["state"] == "succeeded"][-1]
        assert last["first_due_at"] < last["due_at"]
        assert await chains.uncovered(world.pool, world.clock.now()) != [], "what is still settling is named"

    in_world(database_url, story)


def test_a_run_dropped_while_the_dispatcher_looks_stays_dropped(database_url: str) -> None:
    """SPEC 2.11: a pause in another transaction wins over a dispatcher that has read the run before."""

    async def story(world: World) -> None:
        chain = await world.install()
        world.clock.set(utc(14))
        await plan_due(world.parts, world.clock.now())
        async with world.pool.acquire() as connection, connection.transaction():
            assert await runs.drop_waiting(connection, [chain], world.clock.now()) == 1
            assert await dispatch_ready(world.parts, world.clock.now()) == 0
        assert [run["state"] for run in await world.runs()] == ["dropped"]

    in_world(database_url, story)


def test_a_saturated_account_holds_nobody_else_back(database_url: str) -> None:
    """SPEC 3 fairness: runs that cannot start are not in the way of those that can."""

    async def story(world: World) -> None:
        world.with_settings(queue_depth=1)
        await world.install("busy", account="shared.example", limit=1)
        for number in range(12):
            await world.install("busy", stream=f"extra{number}", account="shared.example", limit=1)
        world.clock.set(utc(14))
        await plan_due(world.parts, world.clock.now())
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        await world.install("idle", rule={"every": "1m", "start_at": "2026-07-13T00:00:00Z"})
        world.clock.advance(minutes=1)
        await plan_due(world.parts, world.clock.now())
        world.with_settings(queue_depth=2)
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        assert {run["tenant_id"] for run in await world.runs() if run["state"] == "queued"} == {"busy", "idle"}

    in_world(database_url, story)


def test_a_start_that_a_worker_has_begun_with_is_not_replaced(database_url: str) -> None:
    """SPEC 2.10: the start is replaced before anything is covered, and a lease taken meanwhile is seen."""

    async def story(world: World) -> None:
        chain = await world.install()
        world.clock.set(utc(14))
        await plan_due(world.parts, world.clock.now())
        await dispatch_ready(world.parts, world.clock.now())
        (run,) = await world.runs()
        until = world.clock.now() + timedelta(seconds=15)
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute("select 1 from chains where id = $1 for update", chain)
            leasing = asyncio.create_task(leases.lease(world.pool, [run["id"]], world.clock.now(), until, "w"))
            await asyncio.wait({leasing}, timeout=0.3)
            assert not leasing.done(), "a lease waits for an edit of the start"
            await connection.execute("update chains set start_at = $2 where id = $1", chain, utc(1, month=6))
        (leased,) = await leasing
        assert leased.period.start == utc(1, month=6)
        async with world.pool.acquire() as connection, connection.transaction():
            assert not await chains.set_start(connection, chain, utc(1, month=4))

    in_world(database_url, story)


def test_a_rule_that_cannot_be_read_stops_no_other_tenant(database_url: str) -> None:
    """SPEC 3 fairness: one bad row is logged, looked at again later, and named as uncovered."""

    async def story(world: World) -> None:
        bad, good = await world.install("bad"), await world.install("good")
        await world.pool.execute("update schedules set rule = '{\"never\": true}' where chain_id = $1", bad)
        world.clock.set(utc(14))
        await world.tick()
        assert len(await world.covered(good)) == 1
        assert await world.pool.fetchval("select next_due_at from schedules where chain_id = $1", bad) == utc(14, 1)

    in_world(database_url, story)


def test_the_whole_stretch_missed_in_a_pause_is_named(database_url: str) -> None:
    """SPEC 5: one query names every due but uncovered stretch and its reason."""

    async def story(world: World) -> None:
        await world.install(rule={"every": "1h", "start_at": "2026-07-13T00:00:00Z"})
        await installations.pause(world.parts, "acme", "sync", "stocktaking")
        world.clock.advance(days=10)
        await world.tick()
        ((_, gap),) = await chains.uncovered(world.pool, world.clock.now())
        assert (gap.period.start, gap.period.end, gap.reason) == (utc(13), utc(23, 16), "paused: stocktaking")
        await installations.resume(world.parts, "acme", "sync")
        await world.tick()
        assert await chains.uncovered(world.pool, world.clock.now()) == []

    in_world(database_url, story)


def test_what_the_store_plans_for_one_midnight_is_spread_and_repeatable(database_url: str) -> None:
    """SPEC 3, HOLE kk, issue 2 figure 4: 2,000 installations, one midnight, a window of 20 minutes; by five minutes."""

    async def story(world: World) -> None:
        count, window = 2000, timedelta(minutes=20)
        await world.install(rule={**DAILY, "spread": "20m"})
        await world.pool.execute(
            """with made as (
                   insert into installations (tenant_id, name, connection_id, destination_id)
                   select 'acme', 'sync' || n, connection_id, destination_id
                     from installations, generate_series(2, $1::int) n returning id, tenant_id),
               chained as (
                   insert into chains (tenant_id, installation_id, workflow, stream, account_id, start_at)
                   select m.tenant_id, m.id, 'sync', 'orders', c.account_id, c.start_at from made m, chains c returning id)
               insert into schedules (chain_id, rule, received_at, planned_until, next_due_at)
               select h.id, s.rule, s.received_at, s.planned_until, s.next_due_at from chained h, schedules s""",
            count,
        )
        world.clock.set(utc(14))
        plans = []
        for _ in range(2):
            await plan_due(world.parts, world.clock.now())
            plans.append({run["chain_id"]: run["not_before_at"] for run in await world.runs()})
            await world.pool.execute("delete from runs")
            await world.pool.execute("update schedules set next_due_at = $1, planned_until = received_at", utc(14))
        assert plans[0] == plans[1]
        dates = list(plans[0].values())
        assert len(dates) == count
        assert all(utc(14) <= date < utc(14) + window for date in dates)
        by_five_minutes = [sum(1 for date in dates if (date - utc(14)).seconds // 300 == part) for part in range(4)]
        assert max(by_five_minutes) <= 1.5 * count / 4

    in_world(database_url, story)
