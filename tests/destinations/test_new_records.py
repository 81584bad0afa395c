"""Batches that are thought to be all new, and batches made ready before their turn: the same rows as ever (SPEC 4, 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import asyncpg
import pytest

from tests.destinations.loading import ORDERS, Ledger, Pool, Run, at, local, page, pool_of, rows, target
from tidegate.destinations.base import DeliveryKey, Target, Written
from tidegate.destinations.postgres.careful import Found, PageLines, Rendered
from tidegate.destinations.postgres.following import Place
from tidegate.destinations.postgres.layout import Layout
from tidegate.destinations.postgres.load import Batch, Load, staging
from tidegate.destinations.postgres.local import LocalPostgres
from tidegate.destinations.postgres.refusals import LayoutChanged
from tidegate.destinations.postgres.tables import Tables
from tidegate.domain.cursor import CursorField
from tidegate.domain.errors import DestinationUnavailable, LeaseLost
from tidegate.domain.fetch import Page
from tidegate.domain.stream import Stream

Story = Callable[[LocalPostgres, Pool], Awaitable[None]]


def order(number: int, second: int = 0, **fields: object) -> dict[str, object]:
    return {"id": number, "updated_at": at(second), "n": second, **fields}


def orders(*numbers: int, second: int = 0) -> Page:
    return page(*(order(number, second) for number in numbers))


def told(database_url: str, story: Story) -> None:
    async def run() -> None:
        async with local(database_url) as (destination, pool):
            await story(destination, pool)

    asyncio.run(run())


def test_what_was_thought_to_be_new_obeys_the_version_rule_if_it_is_not(database_url: str) -> None:
    """SPEC 4: after a batch of new records comes one with a newer, an older and an equal version of some of them."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        run = Run(destination.writer(target(), 1, 1))
        assert (await run.write(orders(1, 2, 3, second=5))).inserted == 3
        assert (await run.write(orders(4, 5, second=5))).inserted == 2
        written = await run.write(page(order(1, 9), order(2, 1), order(3, 5), order(6, 5)))
        assert written == Written(read=4, inserted=1, updated=1, unchanged=2)
        found = [(row["id"], row["n"]) for row in await rows(pool, "id, n")]
        assert found == [(1, 9), (2, 5), (3, 5), (4, 5), (5, 5), (6, 5)]
        assert (await run.write(orders(7, second=5))).inserted == 1
        assert (await run.write(orders(8, second=5))).inserted == 1

    told(database_url, story)


def test_a_record_twice_in_a_batch_of_new_ones_is_one_row(database_url: str) -> None:
    """SPEC 4: the greater cursor value wins; of equal ones the record read last."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        run = Run(destination.writer(target(), 1, 1))
        await run.write(orders(1))
        written = await run.write(
            page(order(2, 7), order(2, 3), order(3, 4)), page(order(3, 4, note="read last"), requested=1)
        )
        assert (written.inserted, written.unchanged) == (2, 2)
        assert [(row["id"], row["n"], row["note"]) for row in await rows(pool, "id, n, note")][1:] == [
            (2, 7, None),
            (3, 4, "read last"),
        ]

    told(database_url, story)


def test_another_writer_of_the_same_new_keys_is_waited_for(database_url: str) -> None:
    """SPEC 4: two runs of different lanes meet in one row; the newer version stays, whichever commits first."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        live, backfill = Run(destination.writer(target(), 1, 1)), Run(destination.writer(target(), 2, 1), run_id=2)
        await live.write(orders(1))
        await backfill.write(orders(2))
        async with pool_of(database_url) as others, others.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(
                """insert into synced.shop_orders (tenant_id, account_id, id, updated_at, n, _tidegate_cursor, _tidegate_hash,
                                                   _tidegate_requested_at, _tidegate_run_id)
                   select tenant_id, account_id, 3, updated_at, -1, updated_at, 1, _tidegate_requested_at, 9
                     from synced.shop_orders where id = 1"""
            )
            writing = asyncio.create_task(live.write(orders(3, 4, second=8)))
            while not await others.fetchval("select count(*) from pg_locks where not granted"):
                await asyncio.sleep(0)
            await transaction.commit()
        assert await writing == Written(read=2, inserted=1, updated=1)
        assert [(row["id"], row["n"]) for row in await rows(pool, "id, n")] == [(1, 0), (2, 0), (3, 8), (4, 8)]

    told(database_url, story)


HOSTILE = (
    '"None"', '"1_000"', '" 12 "', '"0x1F"', '"NaN"', '"-inf"', '"1\\t2"', '"1\\\\t2"', "true", "[1]", '{"a": 1}', '""', '"."',
    "null", '"5."', "-0", "-0.0", "1e3", "123456789012345678901234567890.5", '"12.50"', "1E400000",
)  # fmt: skip


def test_the_word_for_null_and_null_are_two_things(database_url: str) -> None:
    """SPEC 5: nothing dropped: in pages where nothing else asks for a closer look, staged or not."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        run = Run(destination.writer(target(), 1, 1))
        await run.write(page(order(1, at=at(1), price=1.5, note="Note", flag=True)))
        await run.write(page(order(2, note="None"), order(3, note=None, at=None, price=None, flag=None)))
        edited = order(2, 1, note=None), order(3, 1, note="None")
        await run.write(page(*edited), page(order(1, 1, note=None, price=2.5, flag=False), order(4)))
        found = [(row["note"], row["price"], row["flag"]) for row in await rows(pool, "note, price::text, flag")]
        assert found == [(None, "2.5", False), (None, None, None), ("None", None, None), (None, None, None)]

    told(database_url, story)


@pytest.mark.parametrize("raw", HOSTILE)
def test_a_number_is_the_same_however_it_comes_in(database_url: str, raw: str) -> None:
    """SPEC 5: a value that does not fit is set aside; the fast way and the careful one agree, down to the content's hash."""
    odd = f'{{"id": 2, "updated_at": "{at(0)}", "n": {raw}}}'.encode()
    forcing = f'{{"id": 3, "updated_at": "{at(0)}", "n": 1.5, "m": "\\u0000"}}'.encode()
    seen = "n, _tidegate_misfits::text as misfits, _tidegate_hash as hash"

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        for run_id, (tenant, with_it) in enumerate([("plain", ()), ("careful", (forcing,))], start=1):
            run = Run(destination.writer(target(ORDERS, tenant), run_id, 1), run_id=run_id)
            await run.write(page({"id": 1, "updated_at": at(0), "n": 0.5, "m": "x"}))
            assert (await run.write(page(odd, *with_it))).quarantined == ()
        plain, careful = await rows(pool, seen, "synced.shop_orders where id = 2", "tenant_id desc")
        assert plain == careful
        assert (plain["n"] is None) == (plain["misfits"] is not None or raw == "null")

    told(database_url, story)


@pytest.mark.parametrize("value", ["2026-02-30T00:00:00Z", "2026-07-01T24:00:00Z", "0000-01-01T00:00:00Z"])
def test_an_instant_that_does_not_exist_is_poison(database_url: str, value: str) -> None:
    """SPEC 4: one record without a valid cursor value stops nobody."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        run = Run(destination.writer(target(), 1, 1))
        await run.write(orders(1))
        written = await run.write(page(order(2), {**order(3), "updated_at": value}, order(4)))
        assert (written.inserted, [each.reason for each in written.quarantined]) == (
            2,
            [f"The cursor value 'updated_at' cannot be read: {written.quarantined[0].reason.split('read: ')[1]}"],
        )
        assert [row["id"] for row in await rows(pool, "id")] == [1, 2, 4]

    told(database_url, story)


def test_before_its_turn_a_batch_locks_nothing_and_shows_nothing(database_url: str) -> None:
    """SPEC 5: a batch is made ready while the one before is written; that one may touch the very same rows."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        run = Run(destination.writer(target(), 1, 1))
        await run.write(orders(1, 2))
        await run.write(orders(1, 2, second=1))
        ready, come = asyncio.Event(), asyncio.Event()

        async def turn() -> None:
            ready.set()
            await come.wait()

        behind = asyncio.create_task(
            run.writer.write([orders(1, 3, second=4)], DeliveryKey(1, 1, 4), b"", run.ledger, turn)
        )
        await ready.wait()
        before = await run.write(orders(1, 2, second=3))
        assert before.updated == 2
        assert [(row["id"], row["n"]) for row in await rows(pool, "id, n")] == [(1, 3), (2, 3)]
        come.set()
        assert (await behind).updated == 1
        assert [(row["id"], row["n"]) for row in await rows(pool, "id, n")] == [(1, 4), (2, 3), (3, 4)]

    told(database_url, story)


def test_a_batch_whose_turn_never_comes_leaves_nothing(database_url: str) -> None:
    """SPEC 5: no batch commits without the one before it."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        run = Run(destination.writer(target(), 1, 1))

        async def turn() -> None:
            raise LeaseLost("the batch before failed")

        for known in ([], [1], [1, 2]):
            with pytest.raises(LeaseLost):
                await run.writer.write([orders(7)], DeliveryKey(1, 1, 9), b"", run.ledger, turn)
            assert [row["id"] for row in await rows(pool, "id")] == known if known else True
            await run.write(orders(len(known) + 1))
        assert len(run.ledger.entries) == 3

    told(database_url, story)


def test_two_batches_meet_a_table_that_does_not_exist_yet(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 5: the second looks the table up before the first has made it, and must not take that for the truth after."""
    made, plain_layout, plain_extend = asyncio.Event(), Tables.layout, Tables.extend
    looks = list[Layout | None]()

    async def layout(self: Tables, connection: asyncpg.Connection, of: Target) -> Layout | None:
        found = await plain_layout(self, connection, of)
        looks.append(found)
        if len(looks) == 2:
            await made.wait()
        return found

    async def extend(self: Tables, connection: asyncpg.Connection, of: Target, found: Found) -> Layout:
        answer = await plain_extend(self, connection, of, found)
        made.set()
        return answer

    monkeypatch.setattr(Tables, "layout", layout)
    monkeypatch.setattr(Tables, "extend", extend)

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        run = Run(destination.writer(target(), 1, 1))
        first = asyncio.create_task(run.write(orders(1, 2)))

        async def turn() -> None:
            await asyncio.wait({first})

        second = run.writer.write([orders(3)], DeliveryKey(1, 1, 2), b"", run.ledger, turn)
        written = await asyncio.gather(first, second)
        assert [each.inserted for each in written] == [2, 1]
        assert [row["id"] for row in await rows(pool, "id")] == [1, 2, 3]

    told(database_url, story)


def test_records_without_a_table_to_go_to_are_an_error(database_url: str) -> None:
    """SPEC 5: nothing is dropped; a batch that has lines and no layout would be."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        load = Load(Tables("synced"), target(), 1, staging(pool))
        batch = Batch((orders(1),), None, Rendered([PageLines(1, [b"1"], [0])], read=1))
        async with pool.acquire() as connection:
            with pytest.raises(LayoutChanged):
                await load.rows(connection, batch, Place())  # type: ignore[arg-type]

    told(database_url, story)


def test_a_table_that_takes_no_copy_gets_its_records_all_the_same(database_url: str) -> None:
    """SPEC 4: PostgreSQL refuses COPY into a table with row security; the ordinary way writes it."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        await Run(destination.writer(target(), 1, 1)).write(orders(1))
        role = f"narrow_{await pool.fetchval('select current_database()')}"
        await pool.execute(
            f"""create role "{role}"; grant usage on schema synced to "{role}";
                grant all on all tables in schema synced to "{role}"; alter table synced.shop_orders enable row level security;
                create policy theirs on synced.shop_orders to "{role}" using (true)"""
        )
        try:
            async with asyncpg.create_pool(
                database_url, min_size=1, max_size=4, server_settings={"role": role}
            ) as narrow:
                run = Run(LocalPostgres(narrow).writer(target(), 2, 1), run_id=2)
                assert (await run.write(orders(2))).inserted == 1
                assert (await run.write(orders(3, 4))).inserted == 2
        finally:
            await pool.execute(f'drop owned by "{role}"; drop role "{role}"')
        assert [row["id"] for row in await rows(pool, "id")] == [1, 2, 3, 4]

    told(database_url, story)


@dataclass
class Deadlocking(Ledger):
    """Is chosen to end a deadlock, ``times`` times."""

    times: int = 1

    async def __call__(self, connection: asyncpg.Connection, written: Written) -> None:
        """Be the ledger of one batch."""
        if self.times:
            self.times -= 1
            raise asyncpg.DeadlockDetectedError("deadlock detected")
        await super().__call__(connection, written)


def test_a_batch_that_a_deadlock_has_ended_is_written_again_once(database_url: str) -> None:
    """SPEC 5: the other writer has gone on meanwhile; a run's attempt is not spent on it."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        for number, times in enumerate((1, 2), start=1):
            run = Run(destination.writer(target(), number, 1), number, ledger=Deadlocking(times=times))
            if times == 1:
                assert (await run.write(orders(1, 2))).inserted == 2
                continue
            with pytest.raises(DestinationUnavailable):
                await run.write(orders(3))
        assert [row["id"] for row in await rows(pool, "id")] == [1, 2]

    told(database_url, story)


def test_a_batch_that_waits_shows_that_it_lives_well_within_a_lease_of_two_seconds(database_url: str) -> None:
    """SPEC 7: what shows nothing for a whole lease is taken for frozen and ended (`database.end_frozen`)."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        run = Run(destination.writer(target(), 1, 1))
        await run.write(orders(1))
        await run.write(orders(1, second=1))
        ready, come = asyncio.Event(), asyncio.Event()

        async def turn() -> None:
            ready.set()
            await come.wait()

        waiting = asyncio.create_task(
            run.writer.write([orders(1, second=4)], DeliveryKey(1, 1, 4), b"", run.ledger, turn)
        )
        await ready.wait()
        seen = set[datetime]()
        while len(seen) < 3:
            at_rest = await pool.fetchval(
                """select state_change from pg_stat_activity
                    where datname = current_database() and state = 'idle in transaction'"""
            )
            seen |= {at_rest} - {None}
            await asyncio.sleep(0.02)
        come.set()
        assert (await waiting).updated == 1
        last, before = sorted(seen)[-1], sorted(seen)[-2]
        assert last - before < timedelta(seconds=1.8)

    told(database_url, story)


@dataclass
class Holding(Ledger):
    """Does not commit before it is told to, or breaks off then."""

    entered: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    fails: BaseException | None = None

    async def __call__(self, connection: asyncpg.Connection, written: Written) -> None:
        """Be the ledger of one batch."""
        if not self.entered.is_set():
            self.entered.set()
            await self.let_go.wait()
            if self.fails is not None:
                raise self.fails
        await super().__call__(connection, written)


_WRITERS = """select count(distinct pid) from pg_locks
              where relation = to_regclass('synced.shop_orders') and mode = 'RowExclusiveLock'"""


async def _begun_behind(
    destination: LocalPostgres, pool: Pool, ledger: Holding, behind: Page
) -> tuple[asyncio.Task[Written], asyncio.Task[Written]]:
    """Return a batch of 3 and 4 that has been written and is not committed, and one that has begun behind it."""
    run = Run(destination.writer(target(), 1, 1), ledger=ledger)
    ledger.entered.set()
    await run.write(orders(1, 2))
    ledger.entered.clear()
    first = asyncio.create_task(run.write(orders(3, 4)))

    async def turn() -> None:
        await asyncio.wait({first})
        if first.exception() is not None:
            raise LeaseLost("the batch before did not commit")

    await ledger.entered.wait()
    second = asyncio.create_task(run.writer.write([behind], DeliveryKey(1, 1, 3), b"", run.ledger, turn))
    async with asyncio.timeout(30):
        while await pool.fetchval(_WRITERS) < 2:
            await asyncio.sleep(0)
    return first, second


def test_rows_are_written_while_the_batch_before_commits(database_url: str) -> None:
    """SPEC 5: they commit in order all the same."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        ledger = Holding()
        first, second = await _begun_behind(destination, pool, ledger, orders(5, 6))
        assert [row["id"] for row in await rows(pool, "id")] == [1, 2]
        ledger.let_go.set()
        assert [each.inserted for each in await asyncio.gather(first, second)] == [2, 2]
        assert [row["id"] for row in await rows(pool, "id")] == [1, 2, 3, 4, 5, 6]

    told(database_url, story)


def test_rows_written_early_go_with_the_batch_before(database_url: str) -> None:
    """SPEC 5: a batch that has written its rows and fails takes the one behind it along."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        ledger = Holding(fails=LeaseLost("another worker holds the run"))
        first, second = await _begun_behind(destination, pool, ledger, orders(5, 6))
        ledger.let_go.set()
        assert [type(each) for each in await asyncio.gather(first, second, return_exceptions=True)] == [LeaseLost] * 2
        assert [row["id"] for row in await rows(pool, "id")] == [1, 2]

    told(database_url, story)


def test_the_same_record_in_the_batch_behind_waits_and_then_obeys_the_version_rule(database_url: str) -> None:
    """SPEC 4: thought to be new like the batch before, it meets that batch's rows before they have committed."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        ledger = Holding()
        first, second = await _begun_behind(destination, pool, ledger, page(order(4, 7), order(5, 7)))
        while not await pool.fetchval("select count(*) from pg_locks where not granted"):
            await asyncio.sleep(0)
        ledger.let_go.set()
        assert list(await asyncio.gather(first, second)) == [
            Written(read=2, inserted=2),
            Written(read=2, inserted=1, updated=1),
        ]
        assert [(row["id"], row["n"]) for row in await rows(pool, "id, n")][2:] == [(3, 0), (4, 7), (5, 7)]

    told(database_url, story)


def test_a_deadlock_after_the_next_batch_has_begun_is_the_end_of_both(database_url: str) -> None:
    """SPEC 5: to write the rows again would be to wait for the next batch, which waits for this one."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        ledger = Holding(fails=asyncpg.DeadlockDetectedError("deadlock detected"))
        first, second = await _begun_behind(destination, pool, ledger, orders(5, 6))
        ledger.let_go.set()
        with pytest.raises(DestinationUnavailable):
            await first
        with pytest.raises(LeaseLost):
            await second
        assert [row["id"] for row in await rows(pool, "id")] == [1, 2]

    told(database_url, story)


def test_a_table_just_made_is_filled_without_a_staging_table(database_url: str) -> None:
    """SPEC 5: the version rule has nothing to decide in an empty table; what is twice in the first batch is still one row."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        run = Run(destination.writer(target(), 1, 1))
        assert (await run.write(orders(1, 2))).inserted == 2
        assert not await pool.fetchval("select count(*) from pg_class where relname like 'tidegate_staging%'")
        other = Run(destination.writer(target(Stream("refunds", cursor=ORDERS.cursor)), 2, 1), run_id=2)
        written = await other.write(page(order(1, 3), order(1, 4), order(1, 2)))
        assert (written.inserted, written.unchanged) == (1, 2)
        assert [row["n"] for row in await rows(pool, "n", "synced.shop_refunds", "n")] == [4]

    told(database_url, story)


@pytest.mark.parametrize("edited", [True, False])
def test_rows_of_records_that_are_edited_have_room_beside_them(database_url: str, edited: bool) -> None:
    """SPEC 5: every row of a table is updated and no entry of its index is new; what is never edited is packed."""

    async def story(destination: LocalPostgres, pool: Pool) -> None:
        stream = ORDERS if edited else Stream("orders", cursor=CursorField(("updated_at",), changes=False))
        run, index = Run(destination.writer(target(stream), 1, 1)), "select pg_indexes_size('synced.shop_orders')"
        await run.write(orders(*range(1000)))
        before = await pool.fetchval(index)
        assert (await run.write(orders(*range(1000), second=1))).updated == 1000
        assert (await pool.fetchval(index) == before) == edited

    told(database_url, story)
