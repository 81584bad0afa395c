"""The queue's consumer: batches, room, signs of life, and no log of its own (SPEC 7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from tidegate.store import database, queue, schema

Pool = Any
LOST_AFTER = timedelta(hours=1)


class Hands:
    """What a consumer has handed over, by run id, and how each is said to be done."""

    def __init__(self) -> None:
        self.held: dict[int, Callable[[], None]] = {}
        self.batches: list[list[int]] = []
        self._began = asyncio.Event()

    async def begin(self, connection: Any, jobs: Mapping[int, int], done: Callable[[int], None]) -> None:
        assert await connection.fetchval("select count(*) from pgqueuer where status = 'picked'") >= len(jobs)
        for job_id, run_id in jobs.items():
            self.held[run_id] = lambda job_id=job_id: done(job_id)  # type: ignore[misc]
        self.batches.append(sorted(jobs.values()))
        self._began.set()

    async def until(self, count: int) -> None:
        while sum(map(len, self.batches)) < count:
            self._began.clear()
            await self._began.wait()

    def end(self, *run_ids: int) -> None:
        for run_id in run_ids:
            self.held.pop(run_id)()


def with_pool(database_url: str, story: Callable[[Pool], Awaitable[None]]) -> None:
    async def whole() -> None:
        pool = await database.open_pool(database_url, size=6)
        try:
            async with asyncio.timeout(60):
                await story(pool)
        finally:
            await pool.close()

    asyncio.run(whole())


async def enqueue(pool: Pool, *run_ids: int) -> None:
    async with pool.acquire() as connection:
        await queue.enqueue(connection, [(run_id, 0, True) for run_id in run_ids])


@asynccontextmanager
async def consuming(pool: Pool, hands: Hands, slots: int) -> AsyncGenerator[queue.Consumer]:
    consumer = queue.Consumer(pool, hands.begin, slots, "here:1", lost_after=LOST_AFTER)
    working = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        consumer.stop()
        hands.end(*hands.held)
        await working


async def jobs_left(pool: Pool) -> int:
    left: int = await pool.fetchval("select count(*) from pgqueuer")
    return left


def test_no_more_is_taken_than_there_is_room_for(database_url: str) -> None:
    """SPEC 7: at most ``slots`` in hand; what is done leaves the queue, and its room is taken."""

    async def story(pool: Pool) -> None:
        await enqueue(pool, 1, 2, 3, 4, 5)
        hands = Hands()
        async with consuming(pool, hands, 2):
            await hands.until(2)
            assert hands.batches == [[1, 2]]
            assert await pool.fetchval("select count(*) from pgqueuer where status = 'picked'") == 2
            hands.end(1, 2)
            await hands.until(4)
            assert hands.batches == [[1, 2], [3, 4]], "both at once: jobs are taken in batches"
            assert await jobs_left(pool) == 3
            hands.end(3, 4)
            await hands.until(5)
        assert await jobs_left(pool) == 0

    with_pool(database_url, story)


def test_a_stop_waits_for_what_is_in_hand_and_takes_nothing_more(database_url: str) -> None:
    """SPEC 7: a graceful stop."""

    async def story(pool: Pool) -> None:
        await enqueue(pool, 1, 2)
        hands = Hands()
        consumer = queue.Consumer(pool, hands.begin, 1, "here:1", lost_after=LOST_AFTER)
        working = asyncio.create_task(consumer.run())
        await hands.until(1)
        consumer.stop()
        await asyncio.sleep(0)
        assert not working.done()
        hands.end(1)
        await working
        assert hands.batches == [[1]]
        assert await jobs_left(pool) == 1

    with_pool(database_url, story)


def test_an_idle_consumer_is_told_of_new_jobs(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start lag: nobody waits for the next look."""
    monkeypatch.setattr(queue, "LOOK_EVERY", timedelta(days=1))

    async def story(pool: Pool) -> None:
        hands = Hands()
        async with consuming(pool, hands, 2):
            for run_id in range(1, 6):
                await enqueue(pool, run_id)
                await hands.until(run_id)
                hands.end(run_id)

    with_pool(database_url, story)


def test_jobs_are_taken_and_ended_over_the_connection_that_listens(database_url: str) -> None:
    """Two connections are all there are, and one is in use elsewhere: what a turn asks is prepared once in a process."""

    async def story(_: Pool) -> None:
        pool = await database.open_pool(database_url, size=2)
        hands = Hands()
        async with pool.acquire() as busy, asyncio.timeout(30):
            await queue.enqueue(busy, [(run_id, 0, True) for run_id in (1, 2, 3)])
            consumer = queue.Consumer(pool, hands.begin, 1, "here:1", lost_after=LOST_AFTER)
            working = asyncio.create_task(consumer.run())
            for run_id in (1, 2, 3):
                await hands.until(run_id)
                hands.end(run_id)
            while await busy.fetchval("select count(*) from pgqueuer"):
                await asyncio.sleep(0)
        consumer.stop()
        await working
        await pool.close()

    with_pool(database_url, story)


def test_a_stop_with_nothing_in_hand_asks_the_database_nothing(database_url: str) -> None:
    """A graceful stop while no connection is to be had."""

    async def story(_: Pool) -> None:
        pool = await database.open_pool(database_url, size=2)
        async with pool.acquire(), asyncio.timeout(30):
            consumer = queue.Consumer(pool, Hands().begin, 1, "here:1", lost_after=LOST_AFTER)
            working = asyncio.create_task(consumer.run())
            await asyncio.sleep(0)
            consumer.stop()
            await working
        await pool.close()

    with_pool(database_url, story)


def test_jobs_of_a_consumer_that_is_no_more_are_handed_out_again(database_url: str) -> None:
    """SPEC 7: kill -9 of a worker; its jobs show no sign of life."""

    async def story(pool: Pool) -> None:
        await enqueue(pool, 1, 2)
        lost, hands = Hands(), Hands()
        dying = queue.Consumer(pool, lost.begin, 2, "there:2", lost_after=LOST_AFTER)
        working = asyncio.create_task(dying.run())
        await lost.until(2)
        await pool.execute("update pgqueuer set heartbeat = now() - interval '2 hours'")
        async with consuming(pool, hands, 2):
            await hands.until(2)
            assert hands.batches == [[1, 2]]
        lost.end(1, 2)
        dying.stop()
        await working
        assert await jobs_left(pool) == 0

    with_pool(database_url, story)


def test_jobs_in_hand_show_signs_of_life(database_url: str) -> None:
    """SPEC 7: a long run's job is not handed out again while its worker lives."""

    async def story(pool: Pool) -> None:
        await enqueue(pool, 1)
        hands = Hands()
        consumer = queue.Consumer(pool, hands.begin, 2, "here:1", lost_after=timedelta(seconds=0.2))
        working = asyncio.create_task(consumer.run())
        await hands.until(1)
        taken_at = await pool.fetchval("select heartbeat from pgqueuer")
        while await pool.fetchval("select heartbeat from pgqueuer") == taken_at:
            await asyncio.sleep(0.01)
        assert hands.batches == [[1]]
        hands.end(1)
        consumer.stop()
        await working

    with_pool(database_url, story)


def test_the_queue_keeps_no_log(database_url: str) -> None:
    """SPEC 7: `runs` is the only truth about work; a database of the revision before is brought there too."""

    async def story(pool: Pool) -> None:
        await pool.execute("drop trigger no_log on pgqueuer_log")
        assert await schema.migrate(pool) == []
        await enqueue(pool, 1)
        hands = Hands()
        async with consuming(pool, hands, 1):
            await hands.until(1)
        assert await jobs_left(pool) == 0
        assert await pool.fetchval("select count(*) from pgqueuer_log") == 0

    with_pool(database_url, story)
