"""Messages that no receiver will take are given up by hand, and their stream goes on without them (SPEC 5)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from tests.destinations.webhook.receiver import Reply
from tests.destinations.webhook.test_sending import prepare, states, utc
from tests.destinations.webhook.world import Sending, in_sending
from tests.engine.test_fleet import rows_read
from tidegate.domain.errors import InvalidInput, LeaseLost
from tidegate.domain.outgoing import Answer, MessageState, Verdict
from tidegate.engine import queries
from tidegate.engine.commands.messages import drop, list_messages, replay
from tidegate.engine.retention import prune
from tidegate.engine.sender import Sender
from tidegate.engine.watch import watch
from tidegate.store import alerts
from tidegate.store import sending as store
from tidegate.store.messages import Choice

DEAD_LETTER = Choice(states=[MessageState.DEAD], tenant_id="acme", installation="sync")
TAKEN: Reply = (200, {}, "")
REFUSED: Reply = (422, {}, "not that one")
FAILS: Reply = (500, {"Retry-After": "600"}, "it chokes on this one")


async def shown(sending: Sending) -> list[MessageState]:
    """Return the states of all messages as people see them, in order."""
    return [each.state for each in reversed(await list_messages(sending.world.parts, Choice(), 99))]


async def ids(sending: Sending) -> list[str]:
    return [row["message_id"] for row in await sending.outbox()]


async def not_acknowledged(sending: Sending) -> int:
    (coverage,) = await queries.coverage(sending.world.parts)
    return coverage.dead_records


def test_what_no_receiver_will_take_leaves_the_dead_letter_and_a_replay_brings_it_back(database_url: str) -> None:
    """SPEC 5 "coverage waits for the dead letter, and says which": no alert any more, and still not acknowledged."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending)
        sending.receiver.answer = lambda number: REFUSED if number in (1, 3) else TAKEN
        await sending.tick()
        parts, (first, _second, third) = sending.world.parts, await ids(sending)
        assert len((await watch(parts, utc(14))).raised) == 1
        assert await drop(parts, Choice(ids=[first, first]), "the app has no such field") == 1
        await watch(parts, utc(14))
        assert [each.message.split(":")[0] for each in await queries.list_alerts(parts)] == [
            "acme/sync orders has 2 records in the dead letter"
        ]
        sending.world.clock.advance(hours=1)
        assert await drop(parts, DEAD_LETTER, "nor this") == 1
        await watch(parts, utc(14))
        assert await queries.list_alerts(parts) == []
        assert await drop(parts, DEAD_LETTER, "nothing is left") == 0
        assert await shown(sending) == ["dropped", "acknowledged", "dropped"]
        told = await list_messages(parts, Choice(states=[MessageState.DROPPED]), 9)
        assert [(each.message_id, each.settled_at, each.dropped_at, each.dropped_reason) for each in told] == [
            (third, utc(14), utc(14, 1), "nor this"),
            (first, utc(14), utc(14), "the app has no such field"),
        ]
        assert await list_messages(parts, DEAD_LETTER, 9) == []
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14))]
        assert await not_acknowledged(sending) == 4
        assert [run.run.dead_count for run in await queries.list_runs(parts)] == [4]

        assert await replay(parts, replace(DEAD_LETTER, states=[])) == 1, "that which was acknowledged"
        assert await replay(parts, Choice(ids=[first])) == 1
        await sending.send()
        assert await shown(sending) == ["acknowledged", "acknowledged", "dropped"]
        assert [one.id for one in sending.receiver.received[3:]] == (await ids(sending))[:2]
        assert await not_acknowledged(sending) == 2
        assert [each.dropped_at for each in await list_messages(parts, Choice(ids=[first]), 1)] == [None]

        sending.receiver.answer = lambda _number: REFUSED
        assert await replay(parts, Choice(ids=[third])) == 1
        await sending.send()
        assert await shown(sending) == ["acknowledged", "acknowledged", "dead"], "it was refused anew"
        assert len((await watch(parts, utc(15))).raised) == 1

    in_sending(database_url, story)


def test_an_open_message_is_given_up_and_its_stream_goes_on_in_order(database_url: str) -> None:
    """SPEC 5 "batches in order": what stood in the way is not sent again, what is behind it is, and the run ends covered."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending)
        sending.receiver.answer = lambda _number: FAILS
        await sending.tick()
        parts, (first, *behind) = sending.world.parts, await ids(sending)
        assert await states(sending) == ["delivering"]
        sending.world.clock.advance(minutes=1)
        assert await drop(parts, Choice(ids=[first]), "the app chokes on it") == 1
        assert await shown(sending) == ["dropped", "open", "open"]
        assert (await watch(parts, sending.world.clock.now())).raised == ()
        assert await states(sending) == ["delivering"], "two are outstanding"
        sending.receiver.answer = lambda _number: TAKEN
        await sending.send()
        assert [one.id for one in sending.receiver.received] == [first, *behind]
        (given_up, *_) = await sending.outbox()
        assert (given_up["state"], given_up["status"], given_up["attempts"]) == ("dead", 500, 1)
        assert given_up["settled_at"] == given_up["dropped_at"] == utc(14, 0, 1)
        assert await states(sending) == ["succeeded"]
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14))]
        assert await not_acknowledged(sending) == 2
        sending.world.shop.put(7, utc(14, 10))
        sending.world.clock.set(utc(15))
        await sending.tick()
        assert [record["id"] for record in sending.receiver.records()] == [3, 4, 5, 6, 7]

    in_sending(database_url, story)


def test_what_waits_before_a_message_that_is_given_up_keeps_its_time(database_url: str) -> None:
    """SPEC 5 "`Retry-After` honoured": the run ends when the last one is given up, though it is the last of all."""

    async def story(sending: Sending) -> None:
        chain = await prepare(sending)
        sending.receiver.answer = lambda _number: FAILS
        await sending.tick()
        parts, (first, second, third) = sending.world.parts, await ids(sending)
        assert await drop(parts, Choice(ids=[third, second]), "not these") == 2
        await sending.send()
        assert len(sending.receiver.received) == 1
        assert await sending.pool.fetchval("select not_before_at from routes") == utc(14, 0, 10)
        assert await drop(parts, Choice(ids=[first]), "nor this") == 1
        await sending.send()
        assert len(sending.receiver.received) == 1
        assert await sending.pool.fetchval("select not_before_at from routes") is None
        assert await states(sending) == ["succeeded"]
        assert await sending.world.covered(chain) == [(utc(1, month=5), utc(14))]
        assert await not_acknowledged(sending) == 6

    in_sending(database_url, story)


def test_the_failures_of_what_was_given_up_are_not_those_of_the_next(database_url: str) -> None:
    """SPEC 5 "retries for days": a receiver that choked on one message has its days anew for those behind it."""

    async def story(sending: Sending) -> None:
        await prepare(sending, retry_for_days=1)
        sending.receiver.answer = lambda _number: FAILS
        await sending.tick()
        parts, (first, second, third) = sending.world.parts, await ids(sending)
        sending.world.clock.advance(hours=25)
        assert await drop(parts, Choice(ids=[third]), "not this") == 1
        assert await sending.pool.fetchval("select failing_since from routes") == utc(14), "that of the first, still"
        assert await drop(parts, Choice(ids=[first]), "the app chokes on it") == 1
        await sending.send()
        assert sending.receiver.received[-1].id == second
        assert await shown(sending) == ["dropped", "open", "dropped"], "it has been tried once, not for a day"

    in_sending(database_url, story)


def test_nothing_is_dropped_that_a_sender_has_in_hand(database_url: str) -> None:
    """SPEC 5 "Fencing": the receiver may be taking it just now. All or none; what is dead on that route can be dropped."""

    async def story(sending: Sending) -> None:
        await prepare(sending)
        sending.receiver.answer = lambda number: REFUSED if number == 1 else TAKEN
        parts = sending.world.parts
        await sending.world.tick()
        dead, second, third = await ids(sending)
        sending.receiver.stall = asyncio.Event()
        sender = Sender(parts, on_end=lambda: None)
        await sender.step(sending.world.clock.now())
        before = [dict(row) for row in await sending.outbox()]
        for held in (second, third):
            with pytest.raises(InvalidInput, match="in a sender's hands; nothing was dropped"):
                await drop(parts, Choice(ids=[held]), "not this")
        assert [dict(row) for row in await sending.outbox()] == before
        sending.receiver.stall.set()
        await sender.idle()
        await sender.close()
        assert await shown(sending) == ["dead", "acknowledged", "acknowledged"], "and the sender has lost nothing by it"
        assert await replay(parts, Choice(ids=[third])) == 1
        (route,) = await store.take(sending.pool, utc(14), utc(14, 1), "one", 9)
        with pytest.raises(InvalidInput, match=f"{third}' is in a sender's hands"):
            await drop(parts, Choice(ids=[dead, third]), "not these")
        assert await shown(sending) == ["dead", "acknowledged", "open"], "all or none"
        assert await drop(parts, Choice(ids=[dead]), "not this") == 1
        assert await store.renew(sending.pool, [(route.id, route.epoch)], utc(14, 2)) == {route.id}

    in_sending(database_url, story)


def test_a_sender_that_froze_settles_nothing_that_was_given_up_meanwhile(database_url: str) -> None:
    """SPEC 5 "Fencing": its lease has run out, so the route is free; when it wakes, its epoch is an old one."""

    async def story(sending: Sending) -> None:
        await prepare(sending)
        await sending.world.tick()
        now = sending.world.clock.now
        (frozen,) = await store.take(sending.pool, now(), now() + timedelta(seconds=15), "frozen", 9)
        in_hand = await store.following(sending.pool, frozen)
        assert in_hand is not None
        sending.world.clock.advance(seconds=16)
        (first, *_) = await ids(sending)
        assert await drop(sending.world.parts, Choice(ids=[first]), "it hangs") == 1
        answer = Answer(Verdict.ACKNOWLEDGED, 200)
        with pytest.raises(LeaseLost):
            await store.settle(sending.pool, frozen, in_hand, MessageState.ACKNOWLEDGED, answer, now(), now())
        assert await store.renew(sending.pool, [(frozen.id, frozen.epoch)], now()) == set()
        await sending.send()
        assert await shown(sending) == ["dropped", "acknowledged", "acknowledged"]

    in_sending(database_url, story)


def test_a_message_that_is_acknowledged_in_the_same_moment_is_not_dropped(database_url: str) -> None:
    """SPEC 5 "The ledger cannot lie": who comes second sees what the first has committed."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1)
        await sending.world.tick()
        (first,) = await ids(sending)
        async with sending.pool.acquire() as sender:
            async with sender.transaction():
                await sender.execute("update routes set lease_until = null, not_before_at = null")
                await sender.execute("update outbox set state = 'acknowledged', settled_at = $1", utc(14))
                dropping = asyncio.create_task(drop(sending.world.parts, Choice(ids=[first]), "not this"))
                await waiting_for_a_lock(sending.pool)
            with pytest.raises(InvalidInput, match="is acknowledged: its receiver has it; nothing was dropped"):
                await dropping
        assert await shown(sending) == ["acknowledged"]

    in_sending(database_url, story)


async def waiting_for_a_lock(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    while not await pool.fetchval("select exists (select from pg_locks where not granted)"):
        await asyncio.sleep(0.01)


def test_what_is_refused_changes_nothing(database_url: str) -> None:
    """SPEC 8: unknown, acknowledged and dropped ones, no reason, and nothing or too much chosen; all or none."""

    async def story(sending: Sending) -> None:
        await prepare(sending)
        sending.receiver.answer = lambda number: [REFUSED, TAKEN, REFUSED][number - 1]
        await sending.tick()
        parts, (dead, taken, dropped) = sending.world.parts, await ids(sending)
        await drop(parts, Choice(ids=[dropped]), "not this")
        before = [dict(row) for row in await sending.outbox()]
        for choice, reason, told in (
            (Choice(ids=[dead, "msg_unknown"]), "no", "is no message in the outbox"),
            (Choice(ids=[dead, taken]), "no", "is acknowledged: its receiver has it; nothing was dropped"),
            (Choice(ids=[dead, dropped]), "no", "has been dropped already; nothing was dropped"),
            (Choice(ids=[dead]), " ", "is empty"),
            (Choice(), "no", "is missing"),
            (replace(DEAD_LETTER, states=[]), "no", "is missing"),
            (replace(DEAD_LETTER, installation=None), "no", "is missing"),
            (replace(DEAD_LETTER, ids=[dead]), "no", "is not all that is chosen"),
            (replace(DEAD_LETTER, installation="none"), "no", "does not exist"),
            (replace(DEAD_LETTER, stream="ordres"), "no", "does not exist"),
        ):
            with pytest.raises(InvalidInput, match=told):
                await drop(parts, choice, reason)
        assert [dict(row) for row in await sending.outbox()] == before
        assert await drop(parts, replace(DEAD_LETTER, since=utc(15)), "no") == 0

    in_sending(database_url, story)


def test_dropped_messages_are_kept_as_long_as_the_dead_letter(database_url: str) -> None:
    """docs/reference/retention.md: a person may change their mind, and coverage counts them; so does their run."""

    async def story(sending: Sending) -> None:
        await prepare(sending)
        sending.receiver.answer = lambda number: REFUSED if number == 2 else TAKEN
        await sending.tick()
        await drop(sending.world.parts, DEAD_LETTER, "not this")
        sending.world.clock.advance(days=200)
        await prune(sending.world.parts, sending.world.clock.now())
        assert await shown(sending) == ["dropped"]
        assert await states(sending) == ["succeeded"]
        assert await not_acknowledged(sending) == 2

    in_sending(database_url, story)


def test_the_look_at_alerts_costs_nothing_for_what_was_dropped(database_url: str) -> None:
    """The sweeper looks every 30 s, and dropped messages are kept for good: it reads the dead letter by its own index."""

    async def story(sending: Sending) -> None:
        await prepare(sending, records=1)
        sending.receiver.answer = lambda _number: REFUSED
        await sending.tick()
        await sending.pool.execute(
            """insert into outbox (route_id, position, message_id, chain_id, tenant_id, run_id, batch, part, records, body,
                                   state, created_at, settled_at, dropped_at, dropped_reason)
               select route_id, g, g::text, chain_id, tenant_id, run_id, g, part, records, body, 'dead', created_at, settled_at,
                      settled_at, 'not this'
                 from outbox, generate_series(2, 5000) g"""
        )
        await sending.pool.execute("vacuum analyze outbox")
        await sending.pool.expire_connections()  # a new one has no counts of earlier transactions
        async with sending.pool.acquire() as connection, connection.transaction():
            day = timedelta(days=1)
            assert len((await alerts.watch(connection, utc(14), failing_after=day, starved_after=day)).raised) == 1
            assert sum((await rows_read(connection))["outbox"]) < 10

    in_sending(database_url, story)
