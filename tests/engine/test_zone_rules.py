"""A zone's rules change under stored due dates (SPEC 2.12, HOLE jj): they are computed anew when they come up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from tests.engine.world import DAILY, World, in_world
from tidegate.domain import zone, zone_data
from tidegate.domain.zone_data import Transition, ZoneData
from tidegate.engine import planner
from tidegate.store import chains

BEIRUT = {**DAILY, "start_date": "2026-07-10", "time_zone": "Asia/Beirut", "settle": "3h"}
"""Midnight in Beirut in July is 21:00 UTC by the pinned data, and 22:00 once clocks have been put back."""


def utc(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 7, day, hour, tzinfo=UTC)


@contextmanager
def put_back_on(day: int) -> Iterator[None]:
    """Processes that start now have zone data by which Beirut ends its summer time on that day of July, at noon."""

    def read(name: str) -> ZoneData:
        data = zone_data.read_zone(name)
        at = int(utc(day, 12).timestamp())
        kept = [transition for transition in data.transitions if transition.at < at]
        return ZoneData(data.first_offset, (*kept, Transition(at, 7200)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zone, "read_zone", read)
        _restart()
        yield
    _restart()


def _restart() -> None:
    zone._zone.cache_clear()
    planner._schedule.cache_clear()


def ends(covered: list[tuple[datetime, datetime]]) -> list[datetime]:
    assert [start for start, _ in covered[1:]] == [end for _, end in covered[:-1]]
    return [end for _, end in covered]


@pytest.mark.parametrize("catch_up", ["coalesce", "each"])
def test_a_due_date_that_new_rules_move_later_is_obeyed_where_it_is_now(catch_up: str, database_url: str) -> None:
    """HOLE jj: the stored one wakes the planner, and nothing is due yet."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**BEIRUT, "catch_up": catch_up, "settle": "0s"})
        world.clock.set(utc(14))
        await world.tick()
        with put_back_on(14):
            world.clock.set(utc(14, 21))
            await world.tick()
            assert ends(await world.covered(chain)) == [utc(13, 21)]
            assert await world.pool.fetchval("select next_due_at from schedules") == utc(14, 22)
            world.clock.set(utc(15, 22))
            await world.tick()
        assert ends(await world.covered(chain))[-1] == utc(15, 22)
        assert len(await world.covered(chain)) == (3 if catch_up == "each" else 2)

    in_world(database_url, story)


def test_a_due_date_that_new_rules_move_earlier_is_late_and_right(database_url: str) -> None:
    """HOLE jj: the run starts when the stored one comes up; its period ends where the calendar now says."""

    async def story(world: World) -> None:
        with put_back_on(14):
            chain = await world.install(rule={**BEIRUT, "settle": "0s"})
            world.clock.set(utc(14))
            await world.tick()
            assert await world.pool.fetchval("select next_due_at from schedules") == utc(14, 22)
        world.clock.set(utc(14, 22))
        await world.tick()
        assert ends(await world.covered(chain)) == [utc(13, 21), utc(14, 21)]
        assert await world.pool.fetchval("select next_due_at from schedules") == utc(15, 21)

    in_world(database_url, story)


@pytest.mark.parametrize("catch_up", ["coalesce", "each"])
def test_what_waits_keeps_its_period_and_its_run_date(catch_up: str, database_url: str) -> None:
    """SPEC 2.12: its due date has passed by the rules of that day; the next period starts where it ends."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**BEIRUT, "catch_up": catch_up})
        world.clock.set(utc(14, 1))
        await world.tick()
        world.clock.set(utc(14, 21))
        await world.tick()
        (waiting,) = [run for run in await world.runs() if run["state"] == "waiting"]
        with put_back_on(14):
            world.clock.set(utc(14, 23))
            await world.tick()
            (still,) = [run for run in await world.runs() if run["id"] == waiting["id"]]
            assert (still["period_end"], still["not_before_at"]) == (utc(14, 21), utc(15))
            for hours in (24, 50):
                world.clock.set(utc(14) + timedelta(hours=hours))
                await world.tick()
        got = ends(await world.covered(chain))
        assert got[:2] == [utc(13, 21), utc(14, 21)], "closed periods never change"
        assert got[-1] == utc(15, 22)
        assert await chains.uncovered(world.pool, world.clock.now()) == []

    in_world(database_url, story)
