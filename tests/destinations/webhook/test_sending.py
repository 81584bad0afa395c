"""Webhooks are posted in order, coverage waits for them, and what the receiver answers decides (SPEC 5)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.destinations.webhook.receiver import Reply
from tests.destinations.webhook.world import Sending, in_sending


def utc(day: int, hour: int = 0, minute: int = 0, month: int = 7) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


async def prepare(sending: Sending, records: int = 6, **settings: object) -> int:
    sending.world.with_settings(batch_bytes=1)
    chain = await sending.install(**settings)  # type: ignore[arg-type]
    for number in range(1, records + 1):
        sending.world.shop.put(number, utc(13, 16, number))
    sending.world.clock.set(utc(14))
    return chain


async def states(sending: Sending) -> list[str]:
    return [row["state"] for row in await sending.world.runs()]


def test_batches_arrive_signed_and_in_order_and_then_the_period_is_covered(database_url: str) -> None:
    """SPEC 5 "Webhook": the thin slice from due date to coverage, every request verified by the official verifier."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending)
        await sending.world.tick()
        assert await states(sending) == ["delivering"]
        assert await sending.world.covered(chain) == []
        await sending.send()
        assert [record["id"] for record in sending.receiver.records()] == [1, 2, 3, 4, 5, 6]
        assert [one.data["position"] for one in sending.receiver.received] == [1, 2, 3]
        assert await states(sending) == ["succeeded"]
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14))]

    in_sending(database_url, story)


def test_a_receiver_that_is_away_is_waited_for_and_nothing_overtakes(database_url: str) -> None:
    """SPEC 5: retried with growing waits under the same id; later batches wait; coverage waits, and says so."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending)
        down: Reply = (503, {}, "down for maintenance")
        sending.receiver.answer = lambda number: down if number <= 3 else (200, {}, "")
        for _ in range(3):
            await sending.tick()
            assert await states(sending) == ["delivering"]
            due = await sending.pool.fetchval("select not_before_at from routes")
            assert due > sending.world.clock.now()
            sending.world.clock.set(due)
        assert len({one.id for one in sending.receiver.received}) == 1
        await sending.tick()
        assert [record["id"] for record in sending.receiver.records()] == [1, 2, 3, 4, 5, 6]
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14))]

    in_sending(database_url, story)


def test_retry_after_is_honoured(database_url: str) -> None:
    """SPEC 5: 429 with Retry-After waits at least so long."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1)
        sending.receiver.answer = lambda number: (429, {"Retry-After": "600"}, "") if number == 1 else (200, {}, "")
        await sending.tick()
        assert await sending.pool.fetchval("select not_before_at from routes") == utc(14) + timedelta(seconds=600)
        sending.world.clock.advance(seconds=599)
        await sending.tick()
        assert len(sending.receiver.received) == 1
        sending.world.clock.advance(seconds=1)
        await sending.tick()
        assert await states(sending) == ["succeeded"]

    in_sending(database_url, story)
