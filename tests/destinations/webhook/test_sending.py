"""Webhooks are posted in order, coverage waits for them, and what the receiver answers decides (SPEC 5)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest
import structlog

from tests.destinations.webhook.receiver import SECRET, Reply, receiving
from tests.destinations.webhook.world import Sending, in_sending
from tests.engine.doubles import ORDERS
from tests.engine.test_fleet import rows_read
from tidegate import bootstrap
from tidegate.connectors.http import open_session
from tidegate.destinations.base import DeliveryKey, Target
from tidegate.destinations.records import Seen, read
from tidegate.destinations.webhook.message import messages as messages_of
from tidegate.domain.errors import InternalError, InvalidInput, LeaseLost, SourceUnavailable
from tidegate.domain.fetch import FetchReport, Page
from tidegate.domain.outgoing import Answer, MessageState, Verdict
from tidegate.domain.retry import RetryPolicy
from tidegate.engine import queries
from tidegate.engine.commands import backfilling
from tidegate.engine.commands.messages import replay
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.engine.retention import prune
from tidegate.engine.sender import Sender
from tidegate.engine.watch import watch
from tidegate.engine.worker import Worker
from tidegate.store import chains, messages, outbox
from tidegate.store import sending as store
from tidegate.store.messages import Choice


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


def test_a_run_tells_the_sender_only_of_what_it_may_have_left(database_url: str) -> None:
    """SPEC 5: what is in the outbox is sent at once, and thousands of runs without anything wake nobody."""

    async def story(sending: Sending) -> None:
        left: list[str] = []
        await prepare(sending, records=2)
        for state, told in (("delivering", ["left"]), ("succeeded", [])):
            left.clear()
            await plan_due(sending.world.parts, sending.world.clock.now())
            assert await dispatch_ready(sending.world.parts, sending.world.clock.now()) == 1
            worker = Worker(sending.world.parts, on_end=lambda: None, on_left=lambda: left.append("left"))
            await worker.handle((await sending.world.runs())[-1]["id"])
            assert (await states(sending))[-1] == state
            assert left == told
            await sending.send()
            sending.world.clock.set(utc(15))

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


PASSING = [0, 408, 425, 429, 500, 502, 503, 504, 599]
REFUSING = [301, 307, 400, 401, 403, 404, 409, 413, 422, 451]


def test_what_may_pass_is_sent_again(database_url: str) -> None:
    """SPEC 5: network errors, 408, 425, 429 and 5xx; the batch stays first, under its id, with a fresh timestamp."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1)
        sending.receiver.answer = lambda number: ([*PASSING, 200][number - 1], {}, "")
        for attempt, status in enumerate(PASSING, start=1):
            await sending.tick()
            (waiting,) = await sending.outbox()
            assert (waiting["state"], waiting["attempts"], waiting["status"]) == ("open", attempt, status or None)
            sending.world.clock.advance(minutes=15)
        await sending.tick()
        assert len({(one.id, one.body) for one in sending.receiver.received}) == 1
        assert len({one.headers["webhook-timestamp"] for one in sending.receiver.received}) == len(PASSING) + 1
        assert await states(sending) == ["succeeded"]

    in_sending(database_url, story)


def test_what_will_not_pass_goes_to_the_dead_letter_and_the_next_goes_on(database_url: str) -> None:
    """SPEC 5: other 4xx at once; redirects are never followed; coverage waits for the dead letter, and says so."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending, records=2 * len(REFUSING) + 1)
        elsewhere = {"Location": sending.receiver.url}
        sending.receiver.answer = lambda number: ([*REFUSING, 200][number - 1], elsewhere, "no, thank you")
        await sending.tick()
        outbox = await sending.outbox()
        assert [row["status"] for row in outbox] == [*REFUSING, 200]
        assert [row["state"] for row in outbox] == ["dead"] * len(REFUSING) + ["acknowledged"]
        assert len(sending.receiver.received) == len(REFUSING) + 1
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14))]
        (coverage,) = await queries.coverage(sending.world.parts)
        assert coverage.dead_records == 2 * len(REFUSING)
        dead = await messages.messages(sending.pool, Choice(states=[MessageState.DEAD]), 99)
        assert all(each.answer.endswith(". no, thank you") for each in dead)
        said = {each.status: each.answer for each in dead}
        assert {status for status in REFUSING if said[status] == f"The receiver answered {status}. no, thank you"} == {
            status for status in REFUSING if status >= 400 and status != 413
        }
        redirected = [answer for status, answer in said.items() if status is not None and status < 400]
        assert all(f"it points to {sending.receiver.url}, " in answer for answer in redirected)
        assert "max_body_bytes" in said[413]

    in_sending(database_url, story)


def test_a_status_counts_though_its_body_cannot_be_read(database_url: str) -> None:
    """SPEC 5 "other 4xx go to the dead letter at once": not tried for days because the reply says gzip and is none."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1)
        sending.receiver.answer = lambda _number: (400, {"Content-Encoding": "gzip"}, "not gzip")
        await sending.tick()
        (dead,) = await sending.outbox()
        assert (dead["state"], dead["status"], dead["answer"]) == ("dead", 400, "The receiver answered 400.")

    in_sending(database_url, story)


def test_an_answer_that_postgresql_refuses_reaches_the_dead_letter(database_url: str) -> None:
    """SPEC 5: a NUL in a receiver's answer is shown as U+FFFD; the batch is not sent again for ever."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1)
        sending.receiver.answer = lambda _number: (400, {}, "no\x00\x1b[31m\r\nreally")
        await sending.tick()
        (dead,) = await sending.outbox()
        assert (dead["state"], dead["answer"]) == ("dead", "The receiver answered 400. no\ufffd\ufffd[31m\nreally")

    in_sending(database_url, story)


def test_a_receiver_that_is_gone_pauses_its_installation(database_url: str) -> None:
    """Decision 0007: 410 is the dead letter for what is there, and nothing new is fetched until a person resumes."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=2)
        sending.receiver.answer = lambda _number: (410, {}, "moved away")
        await sending.tick()
        assert [row["state"] for row in await sending.outbox()] == ["dead"]
        paused = await sending.pool.fetchrow("select paused_at, paused_reason from installations")
        assert paused is not None
        assert (paused["paused_at"], paused["paused_reason"]) == (utc(14), "its receiver answered 410 Gone")
        await watch(sending.world.parts, utc(14))
        (alert,) = await queries.list_alerts(sending.world.parts)
        assert "and is paused (its receiver answered 410 Gone)" in alert.message
        assert "`tidegate resume acme/sync`" in alert.remedy
        sending.world.clock.set(utc(15))
        await sending.tick()
        assert await states(sending) == ["succeeded"]

    in_sending(database_url, story)


def test_after_days_of_failures_a_batch_is_given_up_and_not_before(database_url: str) -> None:
    """SPEC 5 "retries for days": what waited together for a dead receiver goes together; the run ends, the reason is kept."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending, retry_for_days=1)
        sending.receiver.answer = lambda _number: (503, {}, "")
        while (now := sending.world.clock.now()) < utc(15):
            await (sending.send() if now > utc(14) else sending.tick())
            assert [row["state"] for row in await sending.outbox()] == ["open"] * 3
            sending.world.clock.set(max(await sending.pool.fetchval("select not_before_at from routes"), now))
        attempts = len(sending.receiver.received)
        assert attempts > 24 * 4, "at least every 15 minutes on average"
        await sending.send()
        assert [row["state"] for row in await sending.outbox()] == ["dead"] * 3
        assert len(sending.receiver.received) == attempts + 3
        assert await states(sending) == ["succeeded"]
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14))]

    in_sending(database_url, story)


def test_a_batch_made_while_its_receiver_fails_has_days_of_its_own(database_url: str) -> None:
    """docs/reference/webhooks.md "the rest have their own days": only those that have waited as long go with the first."""

    async def story(sending: Sending) -> None:
        sending.world.with_settings(retry=RetryPolicy(base=timedelta(hours=6), cap=timedelta(hours=6)))
        await prepare(sending, records=1, retry_for_days=1)
        sending.receiver.answer = lambda _number: (503, {}, "")

        async def later(until: datetime) -> list[str]:
            """Let the receiver fail up to then, and return what has become of the batches."""
            while (at := await sending.pool.fetchval("select min(not_before_at) from routes")) and at <= until:
                sending.world.clock.set(at)
                await sending.send()
            sending.world.clock.set(until)
            await sending.tick()
            return [row["state"] for row in await sending.outbox()]

        await sending.tick()
        assert await later(utc(14, 12)) == ["open"]
        sending.world.shop.put(2, utc(14, 13))
        assert await later(utc(15, 6)) == ["dead", "open"], "made when the receiver had failed for a day, tried once"
        assert [row["attempts"] for row in await sending.outbox()][1] == 1
        made_at = (await sending.outbox())[1]["created_at"]
        assert await later(made_at + timedelta(hours=23)) == ["dead", "open"]
        assert await later(made_at + timedelta(hours=31)) == ["dead", "dead"]

    in_sending(database_url, story)


def test_an_old_message_that_is_replayed_has_its_days_again(database_url: str) -> None:
    """SPEC 5 "retries for days": counted from when the receiver began to fail, not from when the message was made."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1, retry_for_days=1)
        sending.receiver.answer = lambda number: (400 if number == 1 else 503, {}, "")
        await sending.tick()
        sending.world.clock.advance(days=3)
        assert await replay(sending.world.parts, Choice(tenant_id="acme", installation="sync")) == 1
        for _ in range(2):
            await sending.send()
            (message,) = await sending.outbox()
            assert (message["state"], message["status"]) == ("open", 503)
            sending.world.clock.set(await sending.pool.fetchval("select not_before_at from routes"))

    in_sending(database_url, story)


def test_while_a_period_waits_nothing_more_is_fetched_and_then_all_is_caught_up(database_url: str) -> None:
    """SPEC 2.8, 2.9, decision 0007: a delivering run is active, takes no slot, and the due dates behind it coalesce."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending, records=1)
        sending.receiver.answer = lambda _number: (503, {}, "")
        for day in (14, 15, 16, 17):
            sending.world.clock.set(utc(day, 1))
            sending.world.shop.put(day, utc(day))
            await sending.tick()
        assert await states(sending) == ["delivering", "waiting"]
        reasons = dict(await chains.uncovered(sending.pool, sending.world.clock.now()))
        assert reasons[chain].reason == (
            "delivering: 1 batches wait for their acknowledgement; The receiver answered 503."
        )
        sending.receiver.answer = lambda _number: (200, {}, "")
        sending.world.clock.set(utc(17, 2))
        await sending.tick()
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14)), (utc(14), utc(17))]
        assert [record["id"] for record in sending.receiver.records()] == [1, 14, 15, 16, 17]

    in_sending(database_url, story)


def test_a_destination_that_hangs_does_not_keep_another_waiting(database_url: str) -> None:
    """SPEC 3 "fairness": however many routes of one are due, and for however long, the others have their turn."""

    async def story(sending: Sending) -> None:
        for tenant in ("one", "two", "three", "four", "five"):
            await sending.world.install(tenant)
        await sending.install("late")
        sending.world.shop.put(1, utc(13, 16))
        sending.world.clock.set(utc(14))
        await sending.world.tick()
        late = await sending.pool.fetchval(
            """with other as (insert into destinations (name, kind, settings, sealed, fingerprint)
                              select 'other', kind, settings, sealed, fingerprint from destinations returning id)
               update routes set destination_id = other.id, not_before_at = $1 from other
                where chain_id = (select id from chains where tenant_id = 'late') returning routes.id""",
            utc(15),
        )
        now, until = utc(15), utc(15, 1)
        hanging = await store.take(sending.pool, now, until, "one", 2)
        assert late in {route.id for route in hanging}, "each destination has its turn"
        await sending.pool.execute("update routes set lease_until = null")
        (destination,) = {route.destination_id for route in hanging if route.id != late}
        (route,) = await store.take(sending.pool, now, until, "one", 1, {destination: 2})
        assert route.id == late, "whoever holds routes of the one takes one of the other first"
        others = await store.take(sending.pool, now, until, "one", 9, {destination: 2})
        assert {route.destination_id for route in others} == {destination}, "and none is left idle"
        assert len(others) == 5

    in_sending(database_url, story)


def test_a_look_of_the_sender_costs_what_it_takes_however_many_destinations_have_something_due(
    database_url: str,
) -> None:
    """SPEC 7, "the same code at every scale": at midnight a thousand receivers have messages to be sent."""

    async def story(sending: Sending) -> None:
        chain = await sending.world.install()
        await sending.pool.execute(
            """with made as (insert into destinations (name, kind, settings, sealed, fingerprint)
                             select 'd' || n, kind, settings, sealed, fingerprint from destinations, generate_series(1, 3000) n
                             returning id)
               insert into routes (chain_id, destination_id, whole_periods, not_before_at) select $1, id, false, $2 from made""",
            chain, utc(14),
        )  # fmt: skip
        await sending.pool.execute("analyze routes")
        await sending.pool.expire_connections()
        async with sending.pool.acquire() as connection, connection.transaction():
            taken = {route.id for route in await store.take(connection, utc(15), utc(15, 1), "one", 20)}
            assert len(taken) == 20
            assert sum((await rows_read(connection))["routes"]) < 1500
        for _ in range(200):
            taken |= {route.id for route in await store.take(sending.pool, utc(15), utc(15, 1), "one", 500)}
            if len(taken) == 3000:
                break
        assert len(taken) == 3000, "whatever the look begins with, all have their turn"

    in_sending(database_url, story)


def test_a_sender_tells_of_which_destinations_it_holds_routes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 3 "fairness": the turns count what is in hand."""
    told: list[dict[int, int]] = []
    real = store.take

    async def take(*arguments: Any) -> list[store.LeasedRoute]:
        told.append(dict(arguments[-1]))
        return await real(*arguments)

    async def story(sending: Sending) -> None:
        await prepare(sending)
        await sending.world.tick()
        monkeypatch.setattr(store, "take", take)
        sending.receiver.stall = asyncio.Event()
        sender = Sender(sending.world.parts, on_end=lambda: None)
        await sender.step(sending.world.clock.now())
        await sender.step(sending.world.clock.now())
        sending.receiver.stall.set()
        await sender.idle()
        await sender.step(sending.world.clock.now())
        await sender.close()
        assert [list(held.values()) for held in told] == [[], [1], []]

    in_sending(database_url, story)


def test_two_senders_never_interleave_a_stream(database_url: str) -> None:
    """SPEC 5 "Fencing": a route has one holder; one whose lease was taken over settles nothing."""

    async def story(sending: Sending) -> None:
        await prepare(sending)
        await sending.world.tick()
        now = sending.world.clock.now
        one = await store.take(sending.pool, now(), now() + timedelta(seconds=15), "one", 9)
        assert len(one) == 1
        assert await store.take(sending.pool, now(), now() + timedelta(seconds=15), "two", 9) == []
        following = await store.following(sending.pool, one[0])
        assert following is not None
        sending.world.clock.advance(seconds=16)
        (two,) = await store.take(sending.pool, now(), now() + timedelta(seconds=15), "two", 9)
        answer = Answer(Verdict.REFUSED, 400, "late")
        with pytest.raises(LeaseLost):
            await store.settle(sending.pool, one[0], following, MessageState.DEAD, answer, now(), now())
        with pytest.raises(LeaseLost):
            await store.put_back(sending.pool, one[0], following, answer, InternalError("late"), now(), now())
        await store.release(sending.pool, one[0], now())
        assert await store.renew(sending.pool, [(one[0].id, one[0].epoch)], now()) == set()
        assert await store.renew(sending.pool, [(two.id, two.epoch)], now()) == {two.id}
        assert {row["attempts"] for row in await sending.outbox()} == {0}
        await store.release(sending.pool, two, now())
        await sending.tick()
        assert [record["id"] for record in sending.receiver.records()] == [1, 2, 3, 4, 5, 6]
        assert {row["state"] for row in await sending.outbox()} == {"acknowledged"}

    in_sending(database_url, story)


@pytest.mark.parametrize("point", ["delivery.sending", "delivery.answered", "delivery.settled"])
def test_a_sender_that_dies_repeats_the_id_and_loses_nothing(point: str, database_url: str) -> None:
    """SPEC 5, HOLE s: at least once; a receiver that keeps ids has each batch once, in order."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending)
        await sending.world.tick()
        await sending.die_at(point, nth=2)
        sent = [one.id for one in sending.receiver.received]
        await sending.tick()
        assert [one.id for one in sending.receiver.received] == sent, "the lease of the dead is respected"
        sending.world.clock.advance(seconds=16)
        await sending.tick()
        ids = [one.id for one in sending.receiver.received]
        assert len(ids) == 3 + (point == "delivery.answered")
        assert [one.data["position"] for one in sending.receiver.taken] == [1, 2, 3]
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14))]

    in_sending(database_url, story)


def test_a_replay_sends_the_same_again_in_order(database_url: str) -> None:
    """SPEC 5 "replay by id or range": same ids, same bodies; the dead letter empties when the receiver takes it."""

    async def story(sending: Sending) -> None:
        await prepare(sending)
        sending.receiver.answer = lambda number: (400, {}, "") if number == 2 else (200, {}, "")
        await sending.tick()
        first = list(sending.receiver.received)
        parts = sending.world.parts
        everything = Choice(tenant_id="acme", installation="sync")
        assert await replay(parts, replace(everything, since=utc(14, 0, 1))) == 0
        assert await replay(parts, replace(everything, states=[MessageState.DEAD])) == 1
        await sending.tick()
        assert [one.id for one in sending.receiver.received[3:]] == [first[1].id]
        assert await messages.dead_by_chain(sending.pool, [1]) == {}
        assert await replay(parts, replace(everything, until=utc(15))) == 3
        await sending.tick()
        assert [(one.id, one.body) for one in sending.receiver.received[4:]] == [(one.id, one.body) for one in first]
        assert await replay(parts, Choice(ids=[first[2].id, first[0].id])) == 2
        assert await replay(parts, Choice(ids=[first[2].id])) == 0, "it waits already"
        await sending.tick()
        assert [one.id for one in sending.receiver.received[7:]] == [first[0].id, first[2].id]
        for wrong in (Choice(ids=["msg_unknown"]), Choice(), Choice(tenant_id="acme", installation="none")):
            with pytest.raises(InvalidInput):
                await replay(parts, wrong)

    in_sending(database_url, story)


def test_a_receiver_at_another_address_gets_what_is_replayed_and_not_what_is_fetched_again(database_url: str) -> None:
    """SPEC 4, 5: what `apply` says of a receiver that moves: the `delivered` table remembers versions, not addresses."""

    async def story(sending: Sending) -> None:
        sending.world.shop.streams = {"orders": replace(ORDERS, lookback=timedelta(days=1))}
        await prepare(sending, records=2)
        await sending.tick()
        async with receiving(sending.world.clock.now) as moved:
            await sending.configure("webhook", {"url": moved.url}, {"signing_secrets": SECRET})
            await backfilling.request_backfill(sending.world.parts, "acme", "sync", "orders", utc(13), utc(14))
            await sending.tick()
            assert moved.received == []
            assert await replay(sending.world.parts, Choice(tenant_id="acme", installation="sync")) > 0
            await sending.send()
            assert [record["id"] for record in moved.records()] == [1, 2]

    in_sending(database_url, story)


def test_acknowledged_messages_are_kept_for_a_week_and_the_dead_letter_for_good(database_url: str) -> None:
    """Replays need the bodies; what nobody has taken is never thrown away."""

    async def story(sending: Sending) -> None:
        await prepare(sending)
        sending.receiver.answer = lambda number: (400, {}, "") if number == 2 else (200, {}, "")
        await sending.tick()
        sending.world.clock.advance(days=6)
        await prune(sending.world.parts, sending.world.clock.now())
        assert len(await sending.outbox()) == 3
        sending.world.clock.advance(days=200)
        await prune(sending.world.parts, sending.world.clock.now())
        assert [row["state"] for row in await sending.outbox()] == ["dead"]
        assert await states(sending) == ["succeeded"], "the run of a message stays"

    in_sending(database_url, story)


def test_a_run_that_begins_anew_and_fails_again_leaves_its_coverage_to_the_next(database_url: str) -> None:
    """SPEC 2.7: batches of a failed run are sent all the same, and the period that covers them waits for them."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending)
        sending.world.with_settings(retry=RetryPolicy(attempts=1))
        sending.receiver.answer = lambda _number: (503, {}, "")
        sending.world.shop.on_page = lambda number: SourceUnavailable("away") if number == 3 else None
        await sending.tick()
        assert await states(sending) == ["failed"]
        sending.world.shop.on_page = lambda _number: None
        sending.world.shop.orders = {}
        sending.world.clock.set(utc(15))
        await sending.tick()
        assert await states(sending) == ["failed", "delivering"], "nothing of its own, but what it skips must arrive"
        assert await sending.world.covered(chain) == []
        sending.receiver.answer = lambda _number: (200, {}, "")
        sending.world.clock.advance(minutes=15)
        await sending.tick()
        assert [record["id"] for record in sending.receiver.records()] == [1, 2, 3, 4]
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(15))]

    in_sending(database_url, story)


def test_an_unproven_run_stays_unproven_when_all_is_acknowledged(database_url: str) -> None:
    """SPEC 5 "The ledger cannot lie": acknowledgements do not prove what the source did not show."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending)
        sending.world.shop.shortfall = "only the last 60 days are shown"
        await sending.world.tick()
        assert await states(sending) == ["delivering"]
        await sending.send()
        assert await states(sending) == ["unproven"]
        assert await sending.world.covered(chain) == []

    in_sending(database_url, story)


def test_private_addresses_are_refused_and_nothing_is_lost_by_it(database_url: str) -> None:
    """A receiver's name must not lead into the operator's own network, whatever it resolves to, unless allowed."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1)
        parts = sending.world.parts
        async with open_session() as guarded:
            guarded_open = partial(
                bootstrap.open_destination,
                parts.pool,
                guarded,
                parts.clock,
            )
            sending.world.parts = replace(parts, open_destination=guarded_open)
            await sending.tick()
        assert sending.receiver.received == []
        (waiting,) = await sending.outbox()
        assert waiting["state"] == "open"
        assert "is not a public address" in waiting["answer"]
        assert "set TIDEGATE_ALLOW_PRIVATE_ADDRESSES=1" in waiting["answer"]
        sending.world.parts = parts
        sending.world.clock.advance(minutes=15)
        await sending.tick()
        assert await states(sending) == ["succeeded"]

    in_sending(database_url, story)


def test_a_receiver_that_does_not_answer_is_given_up_on_in_time(database_url: str) -> None:
    """SPEC 5: a time-out is a network error; the setting bounds it."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1, timeout_seconds=1)
        sending.receiver.stall = asyncio.Event()
        await sending.tick()
        (waiting,) = await sending.outbox()
        assert (waiting["state"], waiting["answer"]) == ("open", "No answer within 1 s.")
        sending.receiver.stall.set()
        sending.world.clock.advance(minutes=15)
        await sending.tick()
        assert await states(sending) == ["succeeded"]

    in_sending(database_url, story)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", "It cut the connection before it had answered."),
        (b"HTTP/1.1 200 O", "It cut the connection before it had answered."),
        (b"sesame\r\n\r\n", "Its answer is no HTTP: Bad status line."),
        (None, "It cannot be connected to: "),
    ],
)
def test_why_there_was_no_answer_is_told_in_words(said: bytes | None, told: str, database_url: str) -> None:
    """SPEC 5: network errors are sent again; a person reads in `status` what it was."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said or b"")
        await writer.drain()
        writer.close()

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1)
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if said is None:
            server.close()
        await sending.configure("webhook", {"url": f"http://127.0.0.1:{port}/"}, {"signing_secrets": SECRET})
        await sending.tick()
        server.close()
        (waiting,) = await sending.outbox()
        assert (waiting["state"], waiting["status"]) == ("open", None)
        assert waiting["answer"].startswith(told)

    in_sending(database_url, story)


SECRET_PATH = "/services/T024BE7LD/b0t:kjh3kjh5/kjhkjhkjhkjhkjhkjh%2B"
ECHOES = [
    "you sent {origin}{path} signed with {secret}",
    "<pre>Cannot POST {path}</pre>",  # Express
    "no route for {path}?x=1",
    "<pre>Cannot POST /T024BE7LD/b0t:kjh3kjh5/kjhkjhkjhkjhkjhkjh+</pre>",  # a router mounted at /services, decoded
    '{{"error": "no route", "at": "\\/services\\/T024BE7LD\\/b0t:kjh3kjh5\\/kjhkjhkjhkjhkjhkjh%2B"}}',  # PHP
]


@pytest.mark.parametrize("echo", ECHOES)
def test_secrets_in_an_answer_are_not_kept(echo: str, database_url: str) -> None:
    """SPEC 5 "secrets masked": a receiver may echo anything of the request, its path without the host too."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1)
        origin = sending.receiver.url.removesuffix("/hooks/tidegate")
        await sending.configure("webhook", {}, {"url": f"{origin}{SECRET_PATH}", "signing_secrets": SECRET})
        said = echo.format(origin=origin, path=SECRET_PATH, secret=SECRET)
        sending.receiver.answer = lambda _number: (400, {}, said + "x" * 9999)
        with structlog.testing.capture_logs() as logged:
            await sending.tick()
        (dead,) = await sending.outbox()
        for text in (dead["answer"], str(logged)):
            assert "***" in text
            assert not [secret for secret in ("T024", "kjh", SECRET.removeprefix("whsec_")) if secret in text]
        assert len(dead["answer"]) < 600

    in_sending(database_url, story)


def test_secrets_in_a_redirect_are_not_kept(database_url: str) -> None:
    """SPEC 5 "secrets masked": a redirect repeats the path that is a secret, and adds another to it."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1)
        origin = sending.receiver.url.removesuffix("/hooks/tidegate")
        await sending.configure("webhook", {}, {"url": f"{origin}{SECRET_PATH}", "signing_secrets": SECRET})
        there = f"https://user:kjhpw@app.example{SECRET_PATH}/x?session=kjh"
        sending.receiver.answer = lambda _number: (308, {"Location": there}, "")
        await sending.tick()
        (dead,) = await sending.outbox()
        assert dead["state"] == "dead"
        assert not [secret for secret in ("T024", "kjh", "session") if secret in dead["answer"]]
        assert "it points to https://" in dead["answer"]

    in_sending(database_url, story)


def test_a_restored_ledger_gives_no_id_to_another_body(database_url: str) -> None:
    """A receiver that keeps ids must not take a batch made after a restore, with more in it, for the one it has."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1)
        await sending.tick()
        async with sending.pool.acquire() as connection, connection.transaction():
            route = await outbox.enter(connection, 1, 1, whole_periods=False)
        target, key = Target("acme", "acme.example", "fake", ORDERS), DeliveryKey(1, 1, 1)
        one, again, other = (messages_of(target, route, key, seen(count), 1 << 20) for count in (2, 2, 3))
        assert [message.id for message in one] == [message.id for message in again]
        assert one[0].id != other[0].id

    in_sending(database_url, story)


def seen(count: int) -> list[Seen]:
    """Return so many records, as a page would show them."""
    records = [{"id": number, "updated_at": "2026-07-01T00:00:00Z"} for number in range(count)]
    return read([Page(msgspec.json.encode(records), None, utc(14), FetchReport(None, None))], ORDERS)[0]


@pytest.mark.parametrize("below", [None, timedelta(days=2)])
def test_what_a_source_shows_below_the_bound_is_sent_once(below: timedelta | None, database_url: str) -> None:
    """SPEC 4: what was delivered is forgotten only where no fetch shows it again: without a filter, or with a wide one."""

    async def story(sending: Sending) -> None:
        sending.world.shop.streams = {"orders": replace(ORDERS, lookback=timedelta(0), overshoot=below)}
        await sending.install()
        for number in range(1, 6):
            sending.world.shop.put(number, utc(13, 16, number))
        for day in range(14, 19):
            sending.world.clock.set(utc(day))
            await sending.tick()
            sending.world.shop.put(100 + day, utc(day, 16))
        sent = [record["id"] for record in sending.receiver.records()]
        assert sent == [1, 2, 3, 4, 5, 114, 115, 116, 117]
        assert await states(sending) == ["succeeded"] * 5
        kept = await sending.pool.fetchval("select count(*) from delivered")
        assert kept == (9 if below is None else 3), "what is below its reach is forgotten"

    in_sending(database_url, story)
