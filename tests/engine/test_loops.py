"""The loops of a whole process, on a real queue and in real time: nothing here waits longer than the work takes."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.engine.world import World, in_world
from tidegate.domain.errors import RateLimited
from tidegate.engine import engine as loops
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.engine import Engine, Role
from tidegate.engine.planner import plan_due
from tidegate.store import runs
from tidegate.store.queue import Consumer

DEADLINE_SECONDS = 30
OTHERS = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


async def until(condition: object) -> None:
    """Return once ``condition`` holds; fail after the deadline."""
    assert callable(condition)
    for _ in range(DEADLINE_SECONDS * 50):
        if await condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("the awaited condition did not come true")


def test_drain_does_all_that_is_due_and_returns(database_url: str) -> None:
    """SPEC 8 `tick`: due runs are executed through the queue, and what is due later is left."""

    async def story(world: World) -> None:
        chains = [await world.install(f"t{number}") for number in range(12)]
        later = await world.install("later", rule={"daily": True, "start_date": "2026-07-20"})
        world.shop.put(1, world.clock.now())
        world.clock.advance(days=1)
        await Engine(world.parts).drain()
        assert all([len(await world.covered(chain)) == 1 for chain in chains])
        assert await world.covered(later) == []

    in_world(database_url, story)


def test_roles_split_over_engines_do_the_same_work(database_url: str) -> None:
    """SPEC 7: planner and workers are the same code at every scale, one process or many."""

    async def story(world: World) -> None:
        chains = [await world.install(f"t{number}") for number in range(6)]
        world.clock.advance(days=1)
        engines = [
            Engine(world.parts, frozenset({role})) for role in (Role.PLANNER, Role.DISPATCHER, Role.WORKER, Role.WORKER)
        ]
        tasks = [asyncio.create_task(engine.run()) for engine in engines]

        async def covered() -> bool:
            world.clock.advance(seconds=1)
            return all([await world.covered(chain) for chain in chains])

        await until(covered)
        for engine in engines:
            engine.stop()
        await asyncio.gather(*tasks)
        assert {run["epoch"] for run in await world.runs()} == {1}

    in_world(database_url, story)


@pytest.mark.parametrize("beside", [frozenset[Role](), frozenset({Role.WORKER})], ids=["alone", "beside a worker"])
def test_a_dispatcher_fills_the_room_that_runs_leave_in_another_process(
    database_url: str, beside: frozenset[Role]
) -> None:
    """SPEC 3: an account that lets one run go at once is used again as soon as that one has ended, not a tick later."""

    async def story(world: World) -> None:
        chains = [await world.install(f"t{number}", account="shared.example", limit=1) for number in range(4)]
        world.clock.advance(days=1)
        await plan_due(world.parts, world.clock.now())
        idle = replace(world.parts, settings=replace(world.parts.settings, slots=0))
        engines = [
            Engine(idle, frozenset({Role.DISPATCHER}) | beside),
            Engine(world.parts, frozenset({Role.WORKER})),
        ]
        tasks = [asyncio.create_task(engine.run()) for engine in engines]

        async def covered() -> bool:
            world.clock.advance(seconds=0.1)
            return all([await world.covered(chain) for chain in chains])

        await until(covered)
        for engine in engines:
            engine.stop()
        await asyncio.gather(*tasks)

    in_world(database_url, story, tick_every=timedelta(days=1))


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # what asyncpg leaves of a cut connection
def test_the_engine_outlives_the_loss_of_its_database_connections(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 5: a PostgreSQL restart or a cut connection stops nothing for good."""
    listening, turn = asyncio.Event(), Consumer._turn

    async def turned(consumer: Consumer, *listener: Any) -> None:
        await turn(consumer, *listener)
        listening.set()

    monkeypatch.setattr(Consumer, "_turn", turned)

    async def story(world: World) -> None:
        chain = await world.install()
        engine = Engine(world.parts)
        working = asyncio.create_task(engine.run())
        await asyncio.wait_for(listening.wait(), DEADLINE_SECONDS)
        await world.pool.execute(f"select pg_terminate_backend(pid) {OTHERS}")
        world.shop.put(1, world.clock.now())
        world.clock.advance(days=1)

        async def covered() -> bool:
            world.clock.advance(seconds=1)
            assert not working.done()
            try:
                return bool(await world.covered(chain))
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                return False

        await until(covered)
        engine.stop()
        await working

    in_world(database_url, story, sweep_every=timedelta(seconds=1))
    gc.collect()  # of this test, not of the next one


def test_drain_leaves_what_a_held_account_lets_nobody_start(database_url: str) -> None:
    """SPEC 3, 8 `tick`: of two runs of one account one is told to come back in an hour, and the other waits with it."""

    async def story(world: World) -> None:
        for tenant in ("a", "b"):
            await world.install(tenant, account="shared.example", limit=1)
        world.shop.on_page = lambda _number: RateLimited("slow", retry_after_seconds=3600)
        world.clock.advance(days=1)
        await asyncio.wait_for(Engine(world.parts).drain(), timeout=DEADLINE_SECONDS)
        assert sorted(run["state"] for run in await world.runs()) == ["retrying", "waiting"]
        now = world.clock.now()
        assert await runs.outstanding(world.pool, now) == (0, now + timedelta(hours=1))

    in_world(database_url, story)


def test_what_has_just_become_due_waits_for_no_rest_of_the_dispatcher(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 3: the dispatcher that has just looked and found nothing looks again when something is planned, not a rest later."""
    looked = asyncio.Event()

    async def plan_after_its_look(*asked: Any, **named: Any) -> int:
        await looked.wait()
        return await plan_due(*asked, **named)

    async def look(*asked: Any, **named: Any) -> int:
        found = await dispatch_ready(*asked, **named)
        looked.set()
        return found

    monkeypatch.setattr(loops, "plan_due", plan_after_its_look)
    monkeypatch.setattr(loops, "dispatch_ready", look)

    async def story(world: World) -> None:
        chain = await world.install()
        world.clock.advance(days=1)
        whole = Engine(world.parts)
        working = asyncio.create_task(whole.run())

        async def covered() -> bool:
            return bool(await world.covered(chain))

        await until(covered)  # by a clock that stands still
        whole.stop()
        await working

    in_world(database_url, story)


def test_a_process_keeps_house_when_what_is_due_has_begun_to_be_done_and_once_in_any_case(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 7: lost runs and retention wait for a run that is due, and are seen to by every process, however short."""
    covered_before = list[int]()

    async def story(world: World) -> None:
        async def keep_house(*_asked: object) -> Any:
            covered_before.append(len(await world.covered(chain)))
            return ()

        monkeypatch.setattr(loops, "prune", keep_house)
        chain = await world.install()
        world.clock.advance(days=1)
        whole = Engine(world.parts)
        working = asyncio.create_task(whole.run())

        async def kept() -> bool:
            return bool(covered_before)

        await until(kept)
        whole.stop()
        await working
        short = Engine(world.parts)
        short.stop()
        await short.run()
        assert covered_before == [1, 1]

    in_world(database_url, story)
