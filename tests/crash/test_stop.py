"""A graceful stop (SIGTERM, SIGINT) of the real command: what is in hand is delivered, nothing is lost (SPEC 5, issue 1)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.crash.audit import rows_are_the_shops
from tests.crash.child import KEY
from tests.crash.harness import BEGIN, PERIOD, POLL_SECONDS, Form, World, open_world

STOP_SECONDS = 5.0
INTERRUPTED = 130
Story = Callable[[World], Coroutine[Any, Any, None]]


@asynccontextmanager
async def command(world: World) -> AsyncGenerator[Process]:
    """Yield a running `tidegate worker` on the world's database; gone at the end in any case."""
    environment = {
        **os.environ,
        "TIDEGATE_DATABASE_URL": world.dsn,
        "TIDEGATE_KEY": KEY,
        "TIDEGATE_DATA_DIR": str(world.root),
        "TIDEGATE_ALLOW_PRIVATE_ADDRESSES": "1",
    }
    with (world.root / "command.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("tidegate"), "worker", env=environment, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def until(world: World, query: str, what: str, deadline_seconds: float = 30) -> None:
    """Wait until a query of the ledger says true."""
    deadline = time.monotonic() + deadline_seconds
    while not await world.ledger.fetchval(query):
        assert time.monotonic() < deadline, f"{what}: not within {deadline_seconds:g} s"
        await asyncio.sleep(POLL_SECONDS)


RUNNING = "select count(*) = 2 from runs where state = 'running'"
DONE = "select count(*) = 2 from coverage"


@pytest.fixture
def in_world(postgres: str, migrated_template: str, tmp_path: Path) -> Callable[[Story], None]:
    """Play a story in a world whose shop has done ten periods of business and whose clock is the machine's."""

    def run(story: Story) -> None:
        async def whole() -> None:
            root = tmp_path / "world"
            async with open_world(postgres, "stop_world", migrated_template, Form.SAME, root) as world:
                for number in range(10):
                    world.shop.trade(BEGIN + number * PERIOD, BEGIN + (number + 1) * PERIOD)
                world.offset.value = 0
                await story(world)

        asyncio.run(whole())

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_stop_delivers_what_is_in_hand(number: signal.Signals, in_world: Callable[[Story], None]) -> None:
    """Issue 1 "Engine": exit 0 within seconds, a checkpoint kept, the attempt uncounted; the next process goes on."""

    async def story(world: World) -> None:
        world.source.slow_down(timedelta(seconds=0.4))
        async with command(world) as process:
            await until(world, RUNNING, "runs are in hand")
            await asyncio.sleep(1)  # some pages of the many: the stop must come in mid-run
            asked = time.monotonic()
            process.send_signal(number)
            assert await asyncio.wait_for(process.wait(), STOP_SECONDS) == 0
            assert time.monotonic() - asked < STOP_SECONDS
        runs = await world.ledger.fetch("select state, checkpoint, read_count, attempt, worker from runs")
        assert [run["state"] for run in runs] == ["retrying", "retrying"]
        assert all(run["checkpoint"] and run["read_count"] and run["attempt"] == 0 for run in runs)
        world.source.slow_down(timedelta(0))
        async with command(world) as process:
            await until(world, DONE, "the runs are finished")
            process.send_signal(number)
            assert await asyncio.wait_for(process.wait(), STOP_SECONDS) == 0
        await _nothing_lost(world)

    in_world(story)


def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(in_world: Callable[[Story], None]) -> None:
    """As if the power had gone: exit 130, no half-written rows; leases expire and others go on."""

    async def story(world: World) -> None:
        async with command(world) as process:
            world.source.hold()
            await until(world, RUNNING, "runs are in hand")
            process.send_signal(signal.SIGTERM)
            await until_logged(world, "stopping")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), STOP_SECONDS) == INTERRUPTED
            world.source.release()
        world.spawn()
        await until(world, DONE, "another process finishes the runs")
        await _nothing_lost(world)

    in_world(story)


async def until_logged(world: World, word: str) -> None:
    """Wait until the command's log holds ``word``."""
    await world.until(lambda: word in (world.root / "command.log").read_text(), f"{word} is logged")


async def _nothing_lost(world: World) -> None:
    """Rows are the shop's; an order edited before the first run was never shown at its older versions."""
    shown = {
        (stream, record["id"], at, revision)
        for stream, records in world.shop.records.items()
        for record in records
        for known, number, at, revision in world.shop.versions
        if "id" in record and (known, number, revision) == (stream, record["id"], record["rev"])
    }
    world.shop.versions = shown
    await rows_are_the_shops(world.rows, world.shop)
    links = await world.ledger.fetch("select period_start, previous_end from coverage")
    assert [tuple(link) for link in links] == [(BEGIN, None), (BEGIN, None)]
