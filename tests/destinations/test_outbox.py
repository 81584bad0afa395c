"""The `delivered` table against a model in ten lines, and what never leaves for a destination that cannot tell (SPEC 4)."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.destinations.loading import BEGINNING, LISTED, ORDERS, page
from tests.destinations.test_versions import BATCHES, Batch, Model
from tests.destinations.webhook.receiver import SECRET
from tests.destinations.webhook.world import Sending, in_sending
from tests.engine.doubles import ORDERS as SHOP_ORDERS
from tests.engine.world import World, open_world
from tidegate.destinations.base import DeliveryKey, Written, at_once
from tidegate.destinations.records import Seen, entry, read
from tidegate.destinations.webhook.settings import LEAST_BODY_BYTES, WebhookSettings
from tidegate.destinations.webhook.webhook import Webhook
from tidegate.domain.cursor import CursorField
from tidegate.domain.errors import InvalidInput
from tidegate.domain.stream import Stream
from tidegate.engine.commands import backfilling, quarantine
from tidegate.store import outbox
from tidegate.store.quarantine import Chosen


def utc(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 7, day, hour, minute, tzinfo=UTC)


async def empty(world: World) -> None:
    for statement in ("delete from outbox", "delete from delivered", "delete from routes"):
        await world.pool.execute(statement)


async def sent(world: World) -> list[dict[str, Any]]:
    """Return the records in the outbox, in order."""
    bodies = await world.pool.fetch("select body from outbox order by position")
    return [entry["record"] for row in bodies for entry in json.loads(row["body"])["data"]["records"]]


async def ledger(_connection: object, _written: Written) -> None:
    """Be a ledger that has nothing to say."""


@dataclass
class Deliveries:
    """One run's writer in a world whose run 1 exists."""

    world: World
    stream: Stream
    batch: int = 0

    async def write(self, batch: Batch) -> Written:
        from tests.destinations.loading import target

        settings_ = WebhookSettings.parse({"url": "https://receiver.example/"}, {"signing_secrets": SECRET})
        parts = self.world.parts
        webhook = Webhook(settings_, 1, parts.session, parts.pool, outbox, parts.clock)
        self.batch += 1
        pages = [page(*(seen.encoded(self.stream) for seen in records), requested=at) for at, records in batch]
        writer = webhook.writer(target(self.stream), 1, 1)
        return await writer.write(pages, DeliveryKey(1, 1, self.batch), b"", ledger, at_once)


RUN = """
insert into runs (id, chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_start, period_end,
                  not_before_at) overriding system value
select 1, id, tenant_id, account_id, 'live', 'schedule', 'waiting', $1, $1, $1::timestamptz - interval '1 d', $1, $1 from chains
"""


def test_what_is_handed_over_is_what_a_table_would_have_written(database_url: str) -> None:
    """SPEC 4 "Versions": the same rule as for SQL, whatever comes in which order; every record is accounted for."""
    with asyncio.Runner() as runner:
        entered = AsyncExitStack()
        world = runner.run(entered.enter_async_context(open_world(database_url)))
        runner.run(world.install())
        runner.run(world.pool.execute(RUN, BEGINNING))

        @settings(max_examples=30, deadline=None)
        @given(stream=st.sampled_from([ORDERS, LISTED]), batches=BATCHES)
        def compare_all(stream: Stream, batches: list[Batch]) -> None:
            runner.run(empty(world))
            runner.run(compare(world, stream, batches))

        try:
            compare_all()
        finally:
            runner.run(entered.aclose())


async def compare(world: World, stream: Stream, batches: list[Batch]) -> None:
    model, deliveries = Model(stream), Deliveries(world, stream)
    for batch in batches:
        written = await deliveries.write(batch)
        expected, records = model.take(batch), [seen for _, seen_ in batch for seen in seen_]
        assert (written.inserted, written.updated) == (expected.inserted, expected.updated)
        assert len(written.quarantined) == sum(seen.key == 0 for seen in records)
        assert written.read == len(records)
        assert written.read == written.inserted + written.updated + written.unchanged + len(written.quarantined)
    latest = {record["id"]: record for record in await sent(world)}
    assert latest.keys() == model.held.keys()
    for key, (cursor, content, _) in model.held.items():
        wanted = {3: ["misfit"], 4: "tab\t\\"}.get(content, f"plain {content}")
        assert latest[key]["content"] == wanted
        assert stream.cursor is None or datetime.fromisoformat(latest[key]["updated_at"]) == BEGINNING + timedelta(
            seconds=cursor
        )


def test_what_is_seen_again_within_the_lookback_is_not_sent_again(database_url: str) -> None:
    """SPEC 4: and an edit is; the table forgets what no fetch reaches any more."""

    async def story(sending: Sending) -> None:
        shop = sending.world.shop
        shop.streams = {"orders": replace(SHOP_ORDERS, lookback=timedelta(hours=6))}
        await sending.install()
        shop.put(1, utc(13, 10))
        shop.put(2, utc(13, 20))
        shop.put(3, utc(13, 23))
        for day in (14, 15, 16):
            sending.world.clock.set(utc(day, 1))
            await sending.tick()
            if day == 14:
                shop.put(3, utc(13, 23), note="edited in the same second")
        assert len(shop.asked) == 3
        assert shop.asked[1].lower == utc(13, 18)
        runs = [
            (run["inserted_count"], run["updated_count"], run["unchanged_count"]) for run in await sending.world.runs()
        ]
        assert runs == [(3, 0, 0), (0, 1, 1), (0, 0, 0)]
        assert [record["id"] for record in sending.receiver.records()] == [1, 2, 3, 3]
        kept = await sending.pool.fetch("select cursor_at from delivered order by cursor_at")
        assert [row["cursor_at"] for row in kept] == [utc(13, 20), utc(13, 23)], "of 1 nothing is kept since the 15th"

    in_sending(database_url, story)


def test_coarse_cursor_values_are_not_forgotten_too_early(database_url: str) -> None:
    """SPEC 4, HOLE j: a day's records have its midnight; they are read again all day long, and sent once."""

    async def story(sending: Sending) -> None:
        days = CursorField(("updated_at",), precision=timedelta(days=1), ascending=True)
        sending.world.shop.streams = {"orders": replace(SHOP_ORDERS, cursor=days)}
        await sending.world.install(rule={"every": "1h", "start_at": "2026-07-13T00:00:00Z"})
        await sending.configure("webhook", {"url": sending.receiver.url}, {"signing_secrets": SECRET})
        shop = sending.world.shop
        shop._within = lambda _request: list(shop.orders.values())  # type: ignore[assignment,method-assign]
        for hour in range(17, 21):
            shop.orders[hour] = {"id": hour, "updated_at": "2026-07-13T00:00:00+00:00"}
            sending.world.clock.set(utc(13, hour))
            await sending.tick()
        assert len(await sending.world.runs()) == 4
        assert [record["id"] for record in sending.receiver.records()] == [17, 18, 19, 20]

    in_sending(database_url, story)


def test_a_stream_without_cursor_keeps_the_last_version_of_every_key(database_url: str) -> None:
    """SPEC 4: it is listed in full each time, and sent only what has changed."""

    async def story(sending: Sending) -> None:
        shop = sending.world.shop
        shop.streams = {"orders": replace(SHOP_ORDERS, cursor=None)}
        shop._within = lambda _request: list(shop.orders.values())  # type: ignore[assignment,method-assign]
        await sending.install()
        for day in (14, 15, 16):
            shop.put(1, utc(1), name="same")
            shop.put(2, utc(1), name=f"day {day // 2}")
            sending.world.clock.set(utc(day, 1))
            await sending.tick()
        assert [(record["id"], record["name"]) for record in sending.receiver.records()] == [
            (1, "same"), (2, "day 7"), (2, "day 8"),
        ]  # fmt: skip

    in_sending(database_url, story)


@pytest.mark.parametrize("edited", [False, True])
def test_a_record_in_quarantine_reaches_a_receiver_by_a_backfill(database_url: str, edited: bool) -> None:
    """SPEC 4: once the cause is corrected, as the source shows it then, and never an older version after a newer one."""

    async def story(sending: Sending) -> None:
        await sending.install(max_body_bytes=8192)
        shop, parts = sending.world.shop, sending.world.parts
        shop.put(1, utc(13, 10), note="small")
        shop.put(2, utc(13, 11), note="x" * 9000)
        sending.world.clock.set(utc(14, 1))
        await sending.tick()
        assert [record["id"] for record in sending.receiver.records()] == [1]
        (kept,) = await quarantine.listing(parts, Chosen(tenant_id="acme"))
        with pytest.raises(InvalidInput, match="a newer one may be there"):
            await quarantine.retry(parts, Chosen(ids=(kept.id,)), "ann")
        if edited:
            shop.put(2, utc(13, 11), note="small now, in the same second")
        await sending.configure(
            "webhook", {"url": sending.receiver.url, "max_body_bytes": 65536}, {"signing_secrets": SECRET}
        )
        await backfilling.request_backfill(parts, "acme", "sync", "orders", utc(13), utc(14))
        await sending.tick()
        (record,) = [record for record in sending.receiver.records() if record["id"] == 2]
        assert len(record["note"]) == (29 if edited else 9000)
        assert await quarantine.drop(parts, Chosen(ids=(kept.id,)), "ann", "delivered by a backfill") == 1

    in_sending(database_url, story)


def test_the_least_body_that_is_accepted_holds_records(database_url: str) -> None:
    """HOLE d: a setting that `apply` takes quarantines no ordinary record; a smaller one of before harms no worker."""

    async def story(sending: Sending) -> None:
        await sending.install(max_body_bytes=LEAST_BODY_BYTES)
        sending.world.shop.put(1, utc(13, 17), note="x" * 12_000)
        sending.world.clock.set(utc(14, 1))
        await sending.tick()
        assert [record["id"] for record in sending.receiver.records()] == [1]
        stored = {"url": sending.receiver.url, "max_body_bytes": 4096 + 200}
        with pytest.raises(InvalidInput, match="16384") as refusal:
            WebhookSettings.parse(stored, {"signing_secrets": SECRET})
        assert refusal.value.remedy
        await sending.configure("webhook", stored, {"signing_secrets": SECRET})
        sending.world.shop.put(2, utc(14, 17))
        sending.world.clock.set(utc(15, 1))
        await sending.tick()
        assert [record["id"] for record in sending.receiver.records()] == [1, 2]
        assert [run["state"] for run in await sending.world.runs()] == ["succeeded"] * 2

    in_sending(database_url, story)


def test_a_batch_is_split_where_it_grows_too_large_and_a_record_alone_is_quarantined(database_url: str) -> None:
    """The receiver's limit holds for every request; parts have ids of their own; no record stops a tenant (HOLE d)."""

    async def story(sending: Sending) -> None:
        sending.world.shop.page_size = 100
        chain = await sending.install(max_body_bytes=8192)
        for number in range(1, 21):
            sending.world.shop.put(number, utc(13, 17, number), note="x" * (1000 if number != 7 else 5000))
        sending.world.clock.set(utc(14, 1))
        await sending.tick()
        got = sending.receiver.received
        assert [record["id"] for record in sending.receiver.records()] == [n for n in range(1, 21) if n != 7]
        assert len(got) > 3
        assert all(len(one.body) <= 8192 for one in got)
        assert [(one.data["batch"], one.data["part"], one.data["position"]) for one in got] == [
            (1, part, part) for part in range(1, len(got) + 1)
        ]
        assert len({one.id for one in got}) == len(got)
        (run,) = await sending.world.runs()
        assert (run["read_count"], run["inserted_count"], run["quarantined_count"]) == (20, 19, 1)
        assert "more than a message of 8192 bytes" in await sending.pool.fetchval("select reason from quarantine")
        assert len(await sending.world.covered(chain)) == 1

    in_sending(database_url, story)


POISON = [b'{"id": null}', b'{"updated_at": "2026-07-01T00:00:00Z"}', b'{"id": 1}', b'{"id": 1, "updated_at": "soon"}', b"7",
          b'{"id": [1], "updated_at": "2026-07-01T00:00:00Z"}', b'{"id": 1, "updated_at": "2026-07-01T00:00:00Z", "x": NaN}',
          b'{"id": 1, "updated_at": "2026-07-01T00:00:00Z", "x": "\xff"}']  # fmt: skip


@pytest.mark.parametrize("record", POISON, ids=range(len(POISON)))
def test_what_cannot_be_sent_goes_to_quarantine_as_it_is(record: bytes) -> None:
    """SPEC 4: key or cursor value missing or unreadable, or no JSON; its neighbours go on."""
    good = b'{"id": 2, "updated_at": "2026-07-01T00:00:00Z"}'
    seen, quarantined, count = read([page(record, good)], ORDERS)
    assert ([one.record for one in seen], count) == ([good], 2)
    assert [one.record for one in quarantined] == [record]
    assert quarantined[0].reason.endswith(".")


def one(record: bytes) -> Seen:
    """Return a record that can be sent, as it is seen."""
    (seen,), quarantined, _ = read([page(record)], LISTED)
    assert not quarantined
    return seen


def test_equal_contents_have_equal_hashes_and_different_ones_have_not() -> None:
    """SPEC 4: an edit that no hash shows would be an edit lost; the order of fields is none, the last digit is one."""
    base = b'{"id": 1, "a": 12345678901234567890.1, "b": {"c": 1, "d": "x"}}'
    same = b'{"b":{"d":"x",\n"c":1},"a":12345678901234567890.1,"id":1}'
    assert one(base).version == one(same).version
    others = [
        base.replace(b"890.1", b"890.2"),
        base.replace(b'"c": 1', b'"c": "1"'),
        base.replace(b'"c": 1', b'"c": 1.0'),
        base.replace(b'"c": 1', b'"c": true'),
        base.replace(b'"c": 1', b'"c": 123456789012345678901234567890'),
        base.replace(b'"c": 1', b'"c": 123456789012345678901234567891'),
        base.replace(b'"x"', b"null"),
        base.replace(b'"x"', rb'"\ud800"'),
        base.replace(b'"x"', rb'"\ud801"'),
    ]
    hashes = {one(record).version.content_hash for record in [base, *others]}
    assert len(hashes) == 1 + len(others)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)
"""A key that holds a NUL is poison, as for a table."""


@given(content=JSON, key=st.integers() | KEYS, indent=st.sampled_from([None, 2]))
def test_an_entry_is_one_line_that_holds_the_record_as_it_was(content: object, key: object, indent: int | None) -> None:
    """SPEC 5 "record versions in the body": nothing of a record is changed on the way, line ends between values aside."""
    record = {"id": key, "content": content}
    text = entry(one(json.dumps(record, indent=indent).encode()))
    assert b"\n" not in text
    told = json.loads(text)
    assert told["record"] == record
    assert told["key"] == {"id": key}
    assert told["version"]["cursor"] is None
    assert len(msgspec.json.decode(text)["version"]["content_hash"]) == 32
