"""Catching up in pieces: a run for each due date, and long periods cut into consecutive runs (SPEC 2.8, 2.9, 4)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tests.engine.world import DAILY, World, in_world
from tidegate.domain.errors import ContractBroken, InvalidInput, Unauthorised
from tidegate.domain.waiting import WaitReason
from tidegate.engine.commands import backfilling, installations
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.engine import Engine
from tidegate.engine.planner import plan_due
from tidegate.engine.worker import Worker
from tidegate.store import chains, schedules, waiting

EACH = {**DAILY, "start_date": "2026-07-13", "catch_up": "each"}
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def utc(day: int, hour: int = 0, minute: int = 0, month: int = 7) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def told(runs: list[asyncpg.Record]) -> list[tuple[datetime, datetime, str]]:
    return [(run["due_at"], run["period_end"], run["state"]) for run in runs]


async def next_due_at(world: World) -> datetime:
    found: datetime = await world.pool.fetchval("select next_due_at from schedules")
    return found


def test_each_due_date_missed_is_a_run_of_its_own_in_order(database_url: str) -> None:
    """SPEC 2.8, HOLE ee: an outage of three days is three periods, oldest first; only the last is open-ended (SPEC 4)."""

    async def story(world: World) -> None:
        chain = await world.install(rule=EACH)
        world.clock.set(utc(16, 3))
        await world.tick()
        assert await world.covered(chain) == [(utc(day), utc(day + 1)) for day in (13, 14, 15)]
        assert told(await world.runs()) == [(utc(day), utc(day), "succeeded") for day in (14, 15, 16)]
        assert [request.upper for request in world.shop.asked] == [utc(14), utc(15), None]
        assert await next_due_at(world) == utc(17)

    in_world(database_url, story)


def test_under_each_what_is_edited_behind_a_bounded_run_is_delivered_by_the_open_one(database_url: str) -> None:
    """SPEC 4, HOLE e: bounded runs are safe because one that is not bounded follows."""

    async def story(world: World) -> None:
        await world.install(rule=EACH)
        world.shop.put(1, utc(13, 1))
        world.shop.put(2, utc(16, 2))
        world.clock.set(utc(16, 3))
        await world.tick()
        assert set(await world.delivered()) == {1, 2}

    in_world(database_url, story)


def test_the_oldest_failed_period_is_tried_again_first(database_url: str) -> None:
    """SPEC 2.8: what waits behind it does not start, nor grow by it; it is tried once for each due date that passes."""

    async def story(world: World) -> None:
        chain = await world.install(rule=EACH)
        world.shop.on_page = lambda _number: ContractBroken("not what was promised")
        for day in (14, 15, 16):
            world.clock.set(utc(day, 3))
            await world.tick()
            await world.tick()
        assert len(world.shop.asked) == 3
        assert {request.lower for request in world.shop.asked} == {utc(13)}
        ((_, gap),) = await chains.uncovered(world.pool, world.clock.now())
        assert (gap.period.start, gap.period.end) == (utc(13), utc(16))
        assert "not what was promised" in gap.reason
        world.shop.on_page = lambda _number: None
        world.clock.set(utc(17, 3))
        await world.tick()
        assert await world.covered(chain) == [(utc(day), utc(day + 1)) for day in (13, 14, 15, 16)]
        assert len(await world.runs()) == 4, "each under its own identity (SPEC 2.12)"

    in_world(database_url, story)


@pytest.mark.parametrize("unproven", [False, True])
def test_what_failed_is_not_tried_again_before_a_due_date_passes(unproven: bool, database_url: str) -> None:
    """SPEC 2.8: not even when something else of the chain succeeds, here a backfill; it would go on for ever."""

    async def story(world: World) -> None:
        world.with_settings(plan_ahead=1)
        await world.install(rule=EACH)
        world.clock.set(utc(14))
        await world.tick()
        world.clock.set(utc(17))
        world.shop.shortfall = "sixty days" if unproven else ""
        world.shop.on_page = lambda _number: None if unproven else ContractBroken("no")
        await asyncio.wait_for(world.tick(), timeout=60)
        assert len(world.shop.asked) == 2
        world.shop.shortfall = ""
        world.shop.on_page = lambda _number: None
        await backfilling.request_backfill(world.parts, "acme", "sync", "orders", utc(13), utc(14))
        await world.tick()
        assert len(world.shop.asked) == 3
        (told,) = await waiting.explain(world.pool, world.clock.now())
        assert (told.wait.reason, told.wait.planned_at) == (WaitReason.PERIOD_FAILED, utc(18)), "the planner has looked"
        world.clock.set(utc(18))
        await world.tick()
        assert await chains.uncovered(world.pool, world.clock.now()) == []

    in_world(database_url, story)


def test_a_failure_in_the_middle_holds_back_what_waits_behind_it(database_url: str) -> None:
    """SPEC 2.8: in order; a run that was planned behind a failed one starts when that one is covered."""

    async def story(world: World) -> None:
        chain = await world.install(rule=EACH)
        world.clock.set(utc(18))
        world.shop.on_page = lambda _number: ContractBroken("no") if len(world.shop.asked) == 2 else None
        await world.tick()
        assert [state for _, _, state in told(await world.runs())] == ["succeeded", "failed", *["waiting"] * 3]
        world.clock.set(utc(18, 12))
        await world.tick()
        assert len(world.shop.asked) == 2
        world.clock.set(utc(19))
        await world.tick()
        assert await world.covered(chain) == [(utc(day), utc(day + 1)) for day in range(13, 19)]
        assert [request.lower for request in world.shop.asked] == [utc(day) for day in (13, 14, 14, 15, 16, 17, 18)]

    in_world(database_url, story)


def test_under_each_a_due_date_passed_while_a_run_is_active_is_a_run_of_its_own_behind_it(database_url: str) -> None:
    """SPEC 2.9, HOLE g."""

    async def story(world: World) -> None:
        chain = await world.install(rule={"every": "5m", "start_at": "2026-07-13T16:00:00Z", "catch_up": "each"})
        world.shop.gate = asyncio.Event()
        world.clock.advance(minutes=5)
        await plan_due(world.parts, world.clock.now())
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        (first,) = await world.runs()
        active = asyncio.create_task(Worker(world.parts, on_end=lambda: None).handle(first["id"]))
        for _ in range(3):
            world.clock.advance(minutes=5)
            await plan_due(world.parts, world.clock.now())
            assert await dispatch_ready(world.parts, world.clock.now()) == 0
        assert [run["due_at"] for run in await world.runs()] == [utc(13, 16, minute) for minute in (5, 10, 15, 20)]
        world.shop.gate.set()
        await active
        await world.tick()
        assert [end - start for start, end in await world.covered(chain)] == [5 * MINUTE] * 4

    in_world(database_url, story)


def test_due_dates_are_planned_in_bounded_batches(database_url: str) -> None:
    """SPEC 2.8: not a row for each of them at once; the next due date stays at the first that has not become a run."""

    async def story(world: World) -> None:
        world.with_settings(plan_ahead=10)
        chain = await world.install(rule={"every": "1m", "start_at": "2026-07-13T16:00:00Z", "catch_up": "each"})
        world.clock.advance(hours=1)
        assert await plan_due(world.parts, world.clock.now()) == 1
        assert len(await world.runs()) == 10
        assert await next_due_at(world) == utc(13, 16, 11)
        assert await plan_due(world.parts, world.clock.now()) == 0, "held until there is room, or a due date passes"
        ((_, gap),) = await chains.uncovered(world.pool, world.clock.now())
        assert (gap.period.start, gap.period.end) == (utc(13, 16), utc(13, 17))
        await world.tick()
        assert [end - start for start, end in await world.covered(chain)] == [MINUTE] * 60
        assert await next_due_at(world) == utc(13, 17, 1)

    in_world(database_url, story)


def test_a_tick_drains_due_dates_planned_in_batches(database_url: str) -> None:
    """SPEC 8 `tick`: all that is due, also what has not become a run yet; and it ends although something has failed."""

    async def story(world: World) -> None:
        world.with_settings(plan_ahead=3)
        rule = {"every": "1m", "start_at": "2026-07-13T16:00:00Z", "catch_up": "each"}
        good, bad = await world.install(rule=rule), await world.install("belle", rule, "events")
        world.clock.advance(minutes=10)
        world.shop.on_page = lambda _number: ContractBroken("no") if world.shop.asked[-1].stream == "events" else None
        await asyncio.wait_for(Engine(world.parts).drain(), timeout=60)
        assert len(await world.covered(good)) == 10
        assert await world.covered(bad) == []

    in_world(database_url, story)


def test_a_long_period_is_cut_into_consecutive_runs(database_url: str) -> None:
    """SPEC 2.8, 4: oldest first; all carry the due date that caused them, all but the last are bounded and end before it."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**DAILY, "start_date": "2026-07-04", "max_period": "3d"})
        world.clock.set(utc(15, 3))
        await world.tick()
        ends = [utc(7), utc(10), utc(13), utc(15)]
        assert await world.covered(chain) == list(zip([utc(4), *ends], ends, strict=False))
        assert told(await world.runs()) == [(utc(15), end, "succeeded") for end in ends]
        assert [run["first_due_at"] for run in await world.runs()] == [utc(14)] * 4
        assert [(request.lower, request.upper) for request in world.shop.asked] == [
            (utc(4), utc(7)), (utc(7), utc(10)), (utc(10), utc(13)), (utc(13), None),
        ]  # fmt: skip

    in_world(database_url, story)


def test_a_piece_that_fails_is_tried_again_and_those_behind_it_do_not_grow(database_url: str) -> None:
    """SPEC 2.8: max_period holds whatever fails."""

    async def story(world: World) -> None:
        world.with_settings(plan_ahead=4)
        chain = await world.install(rule={**DAILY, "start_date": "2026-07-01", "max_period": "1d"})
        world.clock.set(utc(15, 3))
        world.shop.on_page = lambda _number: ContractBroken("no") if len(world.shop.asked) in (2, 3) else None
        await world.tick()
        assert await world.covered(chain) == [(utc(1), utc(2))]
        for day in (16, 17):
            world.clock.set(utc(day))
            await world.tick()
        assert await world.covered(chain) == [(utc(day), utc(day + 1)) for day in range(1, 17)]
        assert [request.lower for request in world.shop.asked[:4]] == [utc(1), utc(2), utc(2), utc(2)]

    in_world(database_url, story)


def test_each_and_max_period_together(database_url: str) -> None:
    """SPEC 2.8: each due date's period is cut by itself."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**EACH, "max_period": "16h"})
        world.clock.set(utc(15))
        await world.tick()
        assert told(await world.runs()) == [
            (utc(14), utc(13, 16), "succeeded"), (utc(14), utc(14), "succeeded"),
            (utc(15), utc(14, 16), "succeeded"), (utc(15), utc(15), "succeeded"),
        ]  # fmt: skip
        assert [end - start for start, end in await world.covered(chain)] == [16 * HOUR, 8 * HOUR] * 2

    in_world(database_url, story)


def test_a_manual_run_is_cut_too(database_url: str) -> None:
    """SPEC 2.8, 2.11: all pieces carry its end as due date, the last one is open-ended."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**DAILY, "start_date": "2026-07-11", "max_period": "1d"})
        asked = await installations.request_runs(world.parts, "acme", "sync")
        assert await installations.request_runs(world.parts, "acme", "sync") == asked, (
            "asking twice is asking once (HOLE r)"
        )
        await world.tick()
        runs = await world.runs()
        assert [run["id"] for run in runs] == asked
        assert told(runs) == [(utc(13, 16), end, "succeeded") for end in (utc(12), utc(13), utc(13, 16))]
        assert [request.upper for request in world.shop.asked] == [utc(12), utc(13), None]
        assert (await world.covered(chain))[-1] == (utc(13), utc(13, 16))

    in_world(database_url, story)


def test_a_manual_run_covers_what_failed_and_what_waits_behind_it_ends_as_superseded(database_url: str) -> None:
    """SPEC 2.7, 2.11, HOLE p: one chain, whoever asked."""

    async def story(world: World) -> None:
        chain = await world.install(rule=EACH)
        world.clock.set(utc(16))
        world.shop.on_page = lambda _number: ContractBroken("no")
        await world.tick()
        world.shop.on_page = lambda _number: None
        world.clock.set(utc(16, 5))
        await installations.request_runs(world.parts, "acme", "sync")
        await world.tick()
        assert await world.covered(chain) == [(utc(13), utc(16, 5))]
        states = [state for _, _, state in told(await world.runs())]
        assert states == ["failed", "superseded", "superseded", "succeeded"]
        world.clock.set(utc(17))
        await world.tick()
        assert await chains.uncovered(world.pool, world.clock.now()) == []

    in_world(database_url, story)


def test_what_became_due_behind_a_manual_run_is_named_before_a_planner_looks(database_url: str) -> None:
    """SPEC 5: the manual run has covered the due date that the schedule knew; one that has passed since is named."""

    async def story(world: World) -> None:
        chain = await world.install()
        world.clock.set(utc(16, 12))
        for end, missing in ((utc(15, 12), [(utc(15, 12), utc(16), "not planned yet")]), (utc(16, 11), [])):
            await installations.request_runs(world.parts, "acme", "sync", end=end)
            await dispatch_ready(world.parts, world.clock.now())
            await world.work()
            assert (await world.covered(chain))[-1][1] == end
            assert [
                (each.period.start, each.period.end, each.reason)
                for _, each in await chains.uncovered(world.pool, world.clock.now())
            ] == missing
        await world.pool.execute("""update schedules set rule = '{"every": "now and then"}'""")
        assert await chains.uncovered(world.pool, utc(20)) == [], "a rule that cannot be read hides nobody else"

    in_world(database_url, story)


def test_pausing_and_resuming_under_each(database_url: str) -> None:
    """SPEC 2.11: resuming is catch-up, and catch-up is each."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**EACH, "settle": "1h"})
        world.clock.set(utc(15))
        await world.tick()
        await installations.pause(world.parts, "acme", "sync", "stocktaking")
        world.clock.set(utc(17, 2))
        await world.tick()
        await installations.resume(world.parts, "acme", "sync")
        await world.tick()
        assert await world.covered(chain) == [(utc(day), utc(day + 1)) for day in (13, 14, 15, 16)]
        assert await schedules.next_look_at(world.pool) == utc(18)

    in_world(database_url, story)


@pytest.mark.parametrize("rule", [{"catch_up": "each"}, {"max_period": "20d"}, {}])
def test_resuming_tries_what_failed_at_once_whatever_the_policy(rule: dict[str, str], database_url: str) -> None:
    """SPEC 2.11: resuming is catch-up; whoever renews credentials has not to wait for the next due date, here a month."""

    async def story(world: World) -> None:
        chain = await world.install(rule={"monthly": True, "start_date": "2026-07-01", "time_zone": "Etc/UTC", **rule})
        world.shop.on_page = lambda _number: Unauthorised("revoked")
        world.clock.set(datetime(2026, 8, 1, 1, tzinfo=UTC))
        await world.tick()
        asked = len(world.shop.asked)
        await installations.resume(world.parts, "acme", "sync")
        await world.tick()
        await world.tick()
        assert len(world.shop.asked) == asked + 1, "once, and not again by itself"
        world.shop.on_page = lambda _number: None
        await installations.resume(world.parts, "acme", "sync")
        await world.tick()
        assert (await world.covered(chain))[-1][1] == datetime(2026, 8, 1, tzinfo=UTC)

    in_world(database_url, story)


def test_what_is_planned_anew_remembers_nothing_of_its_failure(database_url: str) -> None:
    """SPEC 2.12: under its own identity, from the beginning: no error, no report and no counts of the try before."""

    async def story(world: World) -> None:
        await world.install(rule=EACH)
        for number in range(1, 6):
            world.shop.put(number, utc(13, number))
        world.shop.on_page = lambda number: ContractBroken("not what was promised") if number == 2 else None
        world.clock.set(utc(14))
        await world.tick()
        (failed,) = await world.runs()
        assert (failed["state"], failed["read_count"], failed["error"] is None) == ("failed", 2, False)
        world.clock.set(utc(15))
        await plan_due(world.parts, world.clock.now())
        anew = (await world.runs())[0]
        assert (anew["id"], anew["state"], anew["error"], anew["report"]) == (failed["id"], "waiting", None, None)
        assert [value for name, value in anew.items() if name.endswith("_count")] == [0] * 6

    in_world(database_url, story)


def test_a_manual_run_that_would_be_thousands_is_refused_with_the_end_that_is_not(database_url: str) -> None:
    """SPEC 2.8, 2.11: `max_period` of a minute over a year is half a million runs; that many are never made at once."""

    async def story(world: World) -> None:
        await world.install(rule={**DAILY, "start_date": "2026-07-01", "max_period": "1m"})
        latest = utc(1) + installations.MOST_PIECES * timedelta(minutes=1)
        with pytest.raises(InvalidInput, match="makes more than 1000 runs") as caught:
            await installations.request_runs(world.parts, "acme", "sync")
        assert f"{latest:%Y-%m-%dT%H:%M:%SZ}" in caught.value.remedy
        assert await world.runs() == []
        assert (
            len(await installations.request_runs(world.parts, "acme", "sync", end=latest)) == installations.MOST_PIECES
        )

    in_world(database_url, story)
