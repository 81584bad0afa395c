"""Batches under way commit in order, and none without the one before it (SPEC 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from tests.engine.world import open_world
from tidegate.destinations.base import Turn
from tidegate.domain.errors import LeaseLost
from tidegate.engine.attempt.underway import Underway
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.store import leases
from tidegate.store.leases import Counts


class Bench:
    """Writes that are told when to end, and note what happened in which order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.ends: dict[int, asyncio.Future[None]] = {}

    def write(self, number: int) -> Callable[[Turn], Coroutine[Any, Any, None]]:
        async def write(turn: Turn) -> None:
            self.ends[number] = asyncio.get_running_loop().create_future()
            self.told.append(f"staged {number}")
            await turn()
            self.told.append(f"begun {number}")
            await self.ends[number]
            self.told.append(f"committed {number}")

        return write


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_batch_is_made_ready_while_the_one_before_is_written() -> None:
    async def story() -> None:
        bench, underway = Bench(), Underway()
        await underway.add(bench.write(1), last=False)
        adding = asyncio.create_task(underway.add(bench.write(2), last=False))
        await _turns()
        assert bench.told == ["staged 1", "begun 1", "staged 2"]
        assert not adding.done(), "two are under way, no third may be collected"
        bench.ends[1].set_result(None)
        await adding
        await _turns()
        assert bench.told[3:] == ["committed 1", "begun 2"]
        bench.ends[2].set_result(None)
        await underway.settled()
        assert bench.told[-1] == "committed 2"

    asyncio.run(story())


@pytest.mark.parametrize("last", [False, True])
def test_what_comes_after_a_failure_is_let_go(last: bool) -> None:
    async def story() -> None:
        bench, underway = Bench(), Underway()
        await underway.add(bench.write(1), last=False)
        adding = asyncio.create_task(underway.add(bench.write(2), last=last))
        await _turns()
        bench.ends[1].set_exception(LeaseLost("gone"))
        with pytest.raises(LeaseLost):
            await adding
        await underway.abandon()
        assert bench.told == ["staged 1", "begun 1", "staged 2"]

    asyncio.run(story())


def test_what_is_under_way_can_be_abandoned() -> None:
    async def story() -> None:
        bench, underway = Bench(), Underway()
        await underway.add(bench.write(1), last=False)
        await _turns()
        await underway.abandon()
        await _turns()
        assert bench.told == ["staged 1", "begun 1"]
        assert bench.ends[1].cancelled()

    asyncio.run(story())


def test_the_ledger_takes_no_checkpoint_with_a_batch_missing_before_it(database_url: str) -> None:
    """SPEC 5: checkpoints advance over batches without a gap, or whoever resumes there would miss one."""

    async def story() -> None:
        async with open_world(database_url) as world:
            await world.install()
            now = world.clock.now() + timedelta(days=1)
            await plan_due(world.parts, now)
            await dispatch_ready(world.parts, now)
            run_id = await world.pool.fetchval("select id from runs where state = 'queued'")
            (run,) = await leases.lease(world.pool, [run_id], now, now + timedelta(seconds=15), "w")
            await leases.checkpoint(world.pool, run, 1, b"one", Counts(read=1))
            for batch in (1, 3):
                with pytest.raises(LeaseLost):
                    await leases.checkpoint(world.pool, run, batch, b"wrong", Counts(read=1))
            await leases.checkpoint(world.pool, run, 2, b"two", Counts(read=1))
            kept = await world.pool.fetchrow("select batch, checkpoint, read_count from runs where id = $1", run_id)
            assert kept is not None
            assert tuple(kept) == (2, b"two", 2)

    asyncio.run(story())
