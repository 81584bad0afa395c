"""Out of quarantine: retried under the version rule, dropped for good, shown without secrets (SPEC 4, HOLE d)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from time import process_time

import asyncpg
import pytest

from tests.engine.world import World, in_world
from tidegate.destinations.base import Destination
from tidegate.destinations.postgres import pieces
from tidegate.destinations.postgres.local import LocalPostgres
from tidegate.destinations.postgres.remote import RemotePostgres
from tidegate.domain.errors import InvalidInput
from tidegate.domain.stream import Stream
from tidegate.engine.commands import quarantine
from tidegate.engine.commands.quarantine import Retried
from tidegate.store import ledger
from tidegate.store import quarantine as stored
from tidegate.store.directory import StoredDestination
from tidegate.store.quarantine import Chosen
from tidegate.store.seal import Sealer

TABLE = "synced.fake_orders"
ALL = Chosen(tenant_id="acme")
Story = Callable[[World, asyncpg.Connection], Awaitable[None]]


def utc(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 7, day, hour, minute, tzinfo=UTC)


@pytest.fixture(params=["same", "another"])
def play(request: pytest.FixtureRequest, database_url: str, empty_database_url: str) -> Callable[[Story], None]:
    """Plays a story with rows in Tidegate's own database, and with rows in another one."""
    there = empty_database_url if request.param == "another" else database_url

    def play(story: Story) -> None:
        async def whole(world: World) -> None:
            opened: list[Destination] = []
            this = await ledger.identity(world.pool, world.clock.now())

            async def open_destination(_kept: StoredDestination, _secrets: dict[str, str]) -> Destination:
                if there == database_url:
                    return LocalPostgres(world.pool)
                opened.append(await RemotePostgres.connect(there, world.pool, this.id))
                return opened[-1]

            world.parts = replace(world.parts, open_destination=open_destination)
            rows: asyncpg.Connection = await asyncpg.connect(there)
            try:
                await story(world, rows)
            finally:
                await rows.close()
                for destination in opened:
                    await destination.close()

        in_world(database_url, whole)

    return play


async def with_a_poison_record(world: World, rows: asyncpg.Connection) -> int:
    """Sync one order, let the table refuse large ones, sync a large one among good ones, and return its number."""
    await world.install()
    world.shop.put(1, utc(13, 17), amount=1)
    world.clock.set(utc(14))
    await world.tick()
    await rows.execute(f"alter table {TABLE} add constraint small check (amount < 100)")
    for number, amount in ((2, 2), (3, 300), (4, 4), (5, 5)):
        world.shop.put(number, utc(14, 1, number), amount=amount)
    world.clock.set(utc(15))
    await world.tick()
    (kept,) = await quarantine.listing(world.parts, ALL)
    assert (kept.tenant_id, kept.installation, kept.stream) == ("acme", "sync", "orders")
    assert "small" in kept.reason
    assert await amounts(rows) == {1: 1, 2: 2, 4: 4, 5: 5}, "its page was delivered"
    return kept.id


async def amounts(rows: asyncpg.Connection) -> dict[int, int]:
    return {row["id"]: row["amount"] for row in await rows.fetch(f"select id, amount from {TABLE}")}


def test_what_is_refused_again_stays_with_its_new_reason_and_what_lands_leaves(play: Callable[[Story], None]) -> None:
    """SPEC 4: the record leaves the quarantine as its row lands; who let it out is kept."""

    async def story(world: World, rows: asyncpg.Connection) -> None:
        number = await with_a_poison_record(world, rows)
        await rows.execute(f"alter table {TABLE} drop constraint small, add constraint tiny check (amount < 200)")
        (outcome,) = await quarantine.retry(world.parts, ALL, "ann")
        assert (outcome.id, outcome.delivered) == (number, False)
        (kept,) = await quarantine.listing(world.parts, ALL)
        assert (kept.retries, kept.retried_at) == (1, utc(15))
        assert "tiny" in kept.reason
        assert 3 not in await amounts(rows)

        await rows.execute(f"alter table {TABLE} drop constraint tiny")
        assert await quarantine.retry(world.parts, Chosen(ids=(number,)), "ann") == [Retried(number, True, "")]
        assert await amounts(rows) == {1: 1, 2: 2, 3: 300, 4: 4, 5: 5}
        assert await quarantine.listing(world.parts, ALL) == []
        (gone,) = await quarantine.exits(world.parts, Chosen())
        assert (gone.quarantine_id, gone.action, gone.person, gone.at) == (number, "delivered", "ann", utc(15))

    play(story)


def test_a_newer_version_that_has_landed_meanwhile_is_not_undone(play: Callable[[Story], None]) -> None:
    """SPEC 4 "Versions": the stored record is as old as when its page was asked for, not as its retry."""

    async def story(world: World, rows: asyncpg.Connection) -> None:
        await with_a_poison_record(world, rows)
        world.shop.put(3, utc(14, 1, 3), amount=30)  # the same second, edited again
        world.shop.put(6, utc(15, 1), amount=6)
        await world.pool.execute("update schedules set next_due_at = $1, planned_until = $2", utc(16), utc(15))
        async with world.pool.acquire() as connection:  # the source shows it within the lookback
            world.shop.streams = {"orders": replace(world.shop.streams["orders"], lookback=utc(3) - utc(1))}
            del connection
        world.clock.set(utc(16))
        await world.tick()
        assert (await amounts(rows))[3] == 30
        await rows.execute(f"alter table {TABLE} drop constraint small")
        (outcome,) = await quarantine.retry(world.parts, ALL, "ann")
        assert outcome.delivered
        assert (await amounts(rows))[3] == 30
        assert await quarantine.listing(world.parts, ALL) == []

    play(story)


def test_two_who_retry_at_once_let_it_out_once(play: Callable[[Story], None]) -> None:
    """SPEC 5 "Fencing": the row in quarantine is the fence; whoever comes second finds nothing to do."""

    async def story(world: World, rows: asyncpg.Connection) -> None:
        number = await with_a_poison_record(world, rows)
        await rows.execute(f"alter table {TABLE} drop constraint small")
        outcomes = await asyncio.gather(*(quarantine.retry(world.parts, ALL, who) for who in ("ann", "bob", "cy")))
        assert sorted(len(each) for each in outcomes) == [0, 0, 1]
        assert [each.quarantine_id for each in await quarantine.exits(world.parts, Chosen())] == [number]
        assert (await amounts(rows))[3] == 300

    play(story)


def test_a_crash_in_the_middle_loses_nothing(play: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 5, HOLE s: rows and quarantine go together, or the record stays and the next retry finds its row there."""

    async def story(world: World, rows: asyncpg.Connection) -> None:
        number = await with_a_poison_record(world, rows)
        await rows.execute(f"alter table {TABLE} drop constraint small")

        async def die(*_: object) -> None:
            raise ConnectionResetError("the process died")

        with monkeypatch.context() as broken:
            broken.setattr(stored, "settle", die)
            with pytest.raises(Exception, match="died"):
                await quarantine.retry(world.parts, ALL, "ann")
        elsewhere = await rows.fetchval("select current_database()") != await world.pool.fetchval(
            "select current_database()"
        )
        assert (3 in await amounts(rows)) == elsewhere
        assert [each.id for each in await quarantine.listing(world.parts, ALL)] == [number]
        assert await quarantine.retry(world.parts, ALL, "ann") == [Retried(number, True, "")]
        assert (await amounts(rows))[3] == 300

    play(story)


def test_what_is_dropped_stays_dropped_and_says_by_whom(play: Callable[[Story], None]) -> None:
    """Issue 2 "Quarantine": read again within the lookback, or in a full listing, it does not come back."""

    async def story(world: World, rows: asyncpg.Connection) -> None:
        number = await with_a_poison_record(world, rows)
        world.shop.streams = {"orders": Stream("orders")}  # listed in full each time
        for reason in ("", "  "):
            with pytest.raises(InvalidInput, match="is empty"):
                await quarantine.drop(world.parts, Chosen(ids=(number,)), "ann", reason)
        assert await quarantine.drop(world.parts, Chosen(stream="orders"), "ann", "a test order") == 1
        world.clock.set(utc(16))
        await world.tick()
        assert await quarantine.listing(world.parts, ALL) == []
        (gone,) = await quarantine.exits(world.parts, Chosen(tenant_id="acme"))
        assert (gone.action, gone.person, gone.note, gone.at) == ("dropped", "ann", "a test order", utc(15))
        assert "small" in gone.reason
        world.shop.put(3, utc(14, 1, 3), amount=301)  # another version is another record
        world.clock.set(utc(17))
        await world.tick()
        assert len(await quarantine.listing(world.parts, ALL)) == 1

    play(story)


def test_what_is_not_there_or_not_named_is_refused(database_url: str) -> None:
    """Issue 2: bad input changes nothing, and names the remedy; never everything by accident."""

    async def story(world: World) -> None:
        await world.install()
        with pytest.raises(InvalidInput, match="are not chosen"):
            await quarantine.retry(world.parts, Chosen(), "ann")
        with pytest.raises(InvalidInput, match="are not in quarantine"):
            await quarantine.drop(world.parts, Chosen(ids=(7,)), "ann", "why not")
        with pytest.raises(InvalidInput, match="are not in quarantine"):
            await quarantine.show(world.parts, 7)
        with pytest.raises(InvalidInput, match="does not exist"):
            await quarantine.listing(world.parts, Chosen(tenant_id="nobody"))
        with pytest.raises(InvalidInput, match="'ordres' does not exist"):
            await quarantine.listing(world.parts, Chosen(stream="ordres"))
        for look in (quarantine.listing, quarantine.exits):
            with pytest.raises(InvalidInput, match="without its tenant"):
                await look(world.parts, Chosen(installation="sync"))
        with pytest.raises(InvalidInput, match="without its tenant"):
            await quarantine.drop(world.parts, Chosen(installation="sync"), "ann", "why not")
        for number in (2**63, -(2**70)):
            with pytest.raises(InvalidInput, match="are not in quarantine"):
                await quarantine.show(world.parts, number)
            with pytest.raises(InvalidInput, match="are not in quarantine"):
                await quarantine.retry(world.parts, Chosen(ids=(number,)), "ann")

    in_world(database_url, story)


@pytest.mark.parametrize("kind", ["webhook", "files"])
def test_a_destination_that_cannot_tell_what_is_there_says_so(database_url: str, kind: str) -> None:
    """SPEC 4 "Versions": a newer version may have been handed over and forgotten; refused with what to do, the record stays."""

    async def story(world: World) -> None:
        chain = await world.install()
        world.clock.set(utc(14))
        await world.tick()
        (run,) = await world.runs()
        await world.pool.execute(
            "insert into quarantine (tenant_id, chain_id, run_id, reason, record, quarantined_at) "
            "values ('acme', $1, $2, 'no key', '{}', $3)",
            chain, run["id"], utc(14),
        )  # fmt: skip
        await world.pool.execute("update destinations set kind = $1", kind)
        with pytest.raises(InvalidInput, match=f"of kind {kind}.*a newer one may be there.*tidegate backfill"):
            await quarantine.retry(world.parts, ALL, "ann")
        assert len(await quarantine.listing(world.parts, ALL)) == 1

    in_world(database_url, story)


def test_a_record_is_shown_without_its_connections_secrets(database_url: str) -> None:
    """SPEC 5 "secrets masked": a source that repeats a token in its records does not show it to whoever looks."""

    async def story(world: World) -> None:
        chain = await world.install()
        secret = 'to"ken-17'
        sealed = world.parts.sealer.seal({"token": secret}, "connection/acme/shop")
        await world.pool.execute("update connections set sealed = $1", sealed)
        world.clock.set(utc(14))
        await world.tick()
        (run,) = await world.runs()
        await world.pool.execute(
            "insert into quarantine (tenant_id, chain_id, run_id, reason, record, quarantined_at) "
            "values ('acme', $1, $2, $3, $4, $5)",
            chain, run["id"], f"no key beside {secret}", b'{"url": "https://x/?t=to\\"ken-17", "a": "\xff"}', utc(14),
        )  # fmt: skip
        (kept,) = await quarantine.listing(world.parts, Chosen(reason="NO KEY"))
        shown = await quarantine.show(world.parts, kept.id)
        assert shown.record == '{"url": "https://x/?t=***", "a": "\\xff"}'
        assert kept.reason == shown.kept.reason == "no key beside ***"
        await quarantine.drop(world.parts, Chosen(ids=(kept.id,)), "ann", "not wanted")
        (gone,) = await quarantine.exits(world.parts, Chosen(tenant_id="acme", stream=kept.stream, reason="no key"))
        assert gone.reason == "no key beside ***"
        assert await quarantine.exits(world.parts, Chosen(reason="another")) == []
        other_key = Sealer(bytes(range(32))).seal({"token": secret}, "connection/acme/shop")
        await world.pool.execute("update connections set sealed = $1", other_key)
        (gone,) = await quarantine.exits(world.parts, Chosen())
        assert gone.reason == quarantine.HIDDEN

    in_world(database_url, story)


HOSTILE = [
    b"7",
    b"null",
    b'{"updated_at": "2026-07-14T01:00:00+00:00"}',
    b'{"id": null, "updated_at": "2026-07-14T01:00:00+00:00"}',
    b'{"id": "\\u0000", "updated_at": "2026-07-14T01:00:00+00:00"}',
    b'{"id": "\\ud800", "updated_at": "2026-07-14T01:00:00+00:00"}',
    b'{"id": {"a": 1}, "updated_at": "2026-07-14T01:00:00+00:00"}',
    b'{"id": "' + b"k" * 5000 + b'", "updated_at": "2026-07-14T01:00:00+00:00"}',
    b'{"id": 90, "updated_at": "yesterday"}',
    b'{"id": 91, "updated_at": "999999-01-01T00:00:00Z"}',
    b'{"id": 92}',
    b'{"id": NaN, "updated_at": NaN}',
    b"[" * 3000 + b"]" * 3000,
    b'"' + b"x" * 2_000_000 + b'"',
]


def test_no_page_is_lost_to_hostile_records_and_each_can_be_retried(play: Callable[[Story], None]) -> None:
    """SPEC 4, HOLE d: poison keys, poison cursors, no JSON at all, a huge one: quarantined one by one; the others land."""
    fine = b'{"id": 50, "updated_at": "2026-07-13T18:00:00+00:00", "amount": 1}'

    async def story(world: World, rows: asyncpg.Connection) -> None:
        await world.install()
        for day, page in ((14, HOSTILE), (15, [*HOSTILE[:7], fine, *HOSTILE[7:]])):
            world.shop.raw = b"[" + b",".join(page) + b"]"
            world.clock.set(utc(day))
            await world.tick()
            run = (await world.runs())[-1]
            assert (run["state"], run["quarantined_count"]) == ("succeeded", len(HOSTILE))
            assert run["inserted_count"] == page.count(fine)
        assert {int(number) for number in await amounts(rows)} == {50}, "the good one landed"
        assert len(await quarantine.listing(world.parts, ALL)) == len(HOSTILE), "read twice, kept once"
        outcomes = await quarantine.retry(world.parts, ALL, "ann")
        assert {(each.delivered, bool(each.reason)) for each in outcomes} == {(False, True)}
        assert len(outcomes) == len(HOSTILE)
        assert {each.retries for each in await quarantine.listing(world.parts, ALL)} == {1}

    play(story)


def test_a_huge_record_on_a_hostile_page_is_found_in_the_time_a_lease_has() -> None:
    """SPEC 4, HOLE d: what no decoder takes is cut by hand, and that must not stop the leases' renewal."""
    page = b'[NaN, "' + b"x" * 16_000_000 + b'", {"id": 1}]'
    began = process_time()  # not the wall clock: the machine may have more to do
    assert [len(record) for record in pieces.records(page)] == [3, 16_000_002, 9]
    assert process_time() - began < 2
