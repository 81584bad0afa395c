"""Change feeds through the real engine: a token never advances without its coverage (SPEC 4, 5; HOLE s)."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from tests.connectors.changes.feed_server import DECLARATION, Book, serving
from tests.connectors.whole_path import on_whole_path, rows, with_declaration
from tests.engine.world import World
from tidegate.connectors.rest.feed import EXPIRED_REMARK
from tidegate.engine.parts import Parts
from tidegate.engine.sweeper import sweep
from tidegate.store import reports

EVERY_HOUR = {"every": "1h", "start_at": "2026-07-13T00:00:00Z"}
CONTACTS = "select id, name, coalesce(deleted, false) from synced.book_contacts order by id"


async def started(world: World, url: str, book: Book, count: int = 5) -> int:
    await with_declaration(world, DECLARATION.format(url=url))
    for number in range(1, count + 1):
        book.put(number, f"contact {number}")
    return await world.install(rule=EVERY_HOUR, stream="contacts")


def since(book: Book, first: int = 0) -> list[str]:
    return [asked.get("since", "") for asked in book.asked[first:] if "page" not in asked]


def test_each_run_begins_with_the_token_of_the_run_that_covers_up_to_it(database_url: str) -> None:
    """SPEC 4: a full listing first, then what changed; deletions keep their row, marked; periods stay due dates."""

    async def story(world: World) -> None:
        book = Book()
        async with serving(book) as url:
            chain = await started(world, url, book)
            world.clock.advance(hours=1)
            await world.tick()
            book.put(2, "two")
            book.delete(3)
            world.clock.advance(hours=1)
            await world.tick()
            world.clock.advance(hours=1)
            await world.tick()
            assert since(book) == ["", "5", "7"]
            assert await rows(world, CONTACTS) == [
                (1, "contact 1", False), (2, "two", False), (3, None, True), (4, "contact 4", False), (5, "contact 5", False)
            ]  # fmt: skip
            assert len(await world.covered(chain)) == 3
            assert [run["read_count"] for run in await world.runs(chain)] == [5, 2, 0]

    on_whole_path(database_url, story)


@pytest.mark.parametrize("how", ["failed", "killed", "unproven"])
def test_a_run_that_covers_nothing_advances_no_token(database_url: str, how: str) -> None:
    """HOLE s: the next run begins with the token of the last one that covered, however far the other had come."""

    async def story(world: World) -> None:
        book = Book()
        async with serving(book) as url:
            chain = await started(world, url, book)
            world.clock.advance(hours=1)
            await world.tick()
            for number in range(10, 20):
                book.put(number, "new")
            if how == "unproven":
                yaml = DECLARATION.format(url=url).replace("    columns", "    filters: {kind: some}\n    columns")
                await with_declaration(world, yaml)
            else:
                book.meddle = lambda request: 418 if request.query.get("page") == "9" else None
            if how == "killed":
                held = asyncio.Event()
                world.parts = _crashing(world, held)
            world.clock.advance(hours=1)
            if how == "killed":
                working = asyncio.create_task(world.tick())
                await held.wait()
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            else:
                await world.tick()
            states = [run["state"] for run in await world.runs(chain)]
            assert states == ["succeeded", {"killed": "running"}.get(how, how)]
            assert len(await world.covered(chain)) == 1

            book.meddle = lambda _request: None
            await with_declaration(world, DECLARATION.format(url=url))
            asked_before = len(book.asked)
            world.clock.advance(hours=1)
            await sweep(world.parts, world.clock.now())
            await world.tick()
            await world.tick()
            assert set(filter(None, (asked.get("since") for asked in book.asked[asked_before:]))) <= {"5", "15"}
            assert book.asked[asked_before]["since"] == "5"
            assert len(await rows(world, CONTACTS)) == 15
            assert (await world.runs(chain))[-1]["state"] == "succeeded"

    on_whole_path(database_url, story, batch_bytes=1)


def _crashing(world: World, held: asyncio.Event) -> Parts:
    def tell(point: str) -> None:
        if point == "batch.committed":
            held.set()

    return replace(world.parts, signal=tell)


def test_an_expired_token_is_told_in_the_run_and_covers_all_the_same(database_url: str) -> None:
    async def story(world: World) -> None:
        book = Book()
        async with serving(book) as url:
            chain = await started(world, url, book)
            world.clock.advance(hours=1)
            await world.tick()
            book.put(6, "six")
            book.put(7, "seven")
            book.remembered = 1
            world.clock.advance(hours=1)
            await world.tick()
            assert [name for _, name, _ in await rows(world, CONTACTS)][-2:] == ["six", "seven"]
            last = (await world.runs(chain))[-1]
            (shown,) = await reports.runs_by_id(world.pool, [last["id"]])
            assert (shown.state, shown.remarks) == ("succeeded", {EXPIRED_REMARK: 1})
            assert len(await world.covered(chain)) == 2

    on_whole_path(database_url, story)


def test_after_a_waived_stretch_everything_is_listed_again(database_url: str) -> None:
    """No token belongs to a waiver, and listing in full loses nothing."""

    async def story(world: World) -> None:
        book = Book()
        async with serving(book) as url:
            chain = await started(world, url, book)
            world.clock.advance(hours=1)
            await world.tick()
            await world.pool.execute(
                """insert into coverage (chain_id, period_start, period_end, previous_end, kind, reason, committed_at)
                   select chain_id, period_end, period_end + interval '1 minute', period_end, 'waived', 'by hand', now()
                     from coverage where chain_id = $1""",
                chain,
            )
            world.clock.advance(hours=1)
            await world.tick()
            assert since(book) == ["", ""]
            assert len(await world.covered(chain)) == 3

    on_whole_path(database_url, story)


@pytest.mark.parametrize("seed", range(5))
def test_no_change_is_lost_between_any_two_requests(database_url: str, seed: int) -> None:
    """SPEC 4, 5: edits, deletions, failures, resumes and expired tokens at random; at rest the table is the book."""

    async def story(world: World) -> None:
        chance = random.Random(seed)
        book = Book(remembered=chance.choice([6, 1000]))

        def live(_request: object) -> int | None:
            for _ in range(chance.choice([0, 0, 1, 2])):
                number = chance.randint(1, 12)
                if number in book.names and chance.random() < 0.2:
                    book.delete(number)
                else:
                    book.put(number, f"{number} {len(book.log)}")
            return 503 if chance.random() < 0.15 else None

        async with serving(book) as url:
            chain = await started(world, url, book)
            book.meddle = live
            for _ in range(8):
                world.clock.advance(hours=1)
                for _ in range(10):
                    await world.tick()
                    world.clock.advance(minutes=2)
            book.meddle = lambda _request: None
            world.clock.advance(hours=2)
            await world.tick()
            shown = {number: name for number, name, deleted in await rows(world, CONTACTS) if not deleted}
            assert book.names.items() <= shown.items()
            in_full = [run for run in await reports.runs_by_id(world.pool, range(1, 100)) if run.remarks]
            if not in_full:
                assert shown == book.names, "what was deleted is marked"
            assert len(await world.covered(chain)) >= 5

    on_whole_path(database_url, story, batch_bytes=1)
