"""The version rule against a model in ten lines (SPEC 4): any pages, ties, duplicates and poison, on either way through."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.destinations.loading import BEGINNING, LISTED, ORDERS, Run, at, local, page, rows, target
from tidegate.destinations.base import Written
from tidegate.domain.stream import Stream

POISON = b'{"id": null}'


@dataclass(frozen=True, slots=True)
class Seen:
    """One record of a page: which one, its cursor value, its content; poison if ``key`` is 0, a misfit if content is 3."""

    key: int
    cursor: int
    content: int

    def encoded(self, stream: Stream) -> object:
        """Return the record as its source sends it."""
        if self.key == 0:
            return POISON
        content: object = {3: ["misfit"], 4: "tab\t\\"}.get(self.content, f"plain {self.content}")
        cursor = {} if stream.cursor is None else {"updated_at": at(self.cursor)}
        return {"id": self.key, "content": content, **cursor}


Batch = list[tuple[int, list[Seen]]]
"""Pages, each with the second it was requested in."""

SEEN = st.builds(Seen, st.integers(0, 4), st.integers(0, 2), st.integers(0, 4))
BATCHES = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.lists(SEEN, max_size=6)), min_size=1, max_size=3), max_size=5
)


class Model:
    """What the table must hold: by key the cursor value, content and time of request of the version that won."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.held: dict[int, tuple[int, int, int]] = {}

    def take(self, batch: Batch) -> Written:
        """Return what must become of ``batch``, quarantine and misfits left out."""
        best: dict[int, tuple[int, int, int]] = {}
        for requested, records in sorted(batch, key=lambda one: one[0]):
            for seen in records:
                cursor = 0 if self.stream.cursor is None else seen.cursor
                if seen.key and (seen.key not in best or cursor >= best[seen.key][0]):
                    best[seen.key] = (cursor, seen.content, requested)
        inserted = len(best.keys() - self.held.keys())
        newer = {key: new for key, new in best.items() if key in self.held and self._wins(self.held[key], new)}
        self.held |= {key: new for key, new in best.items() if key not in self.held} | newer
        return Written(inserted=inserted, updated=len(newer))

    @staticmethod
    def _wins(old: tuple[int, int, int], new: tuple[int, int, int]) -> bool:
        return new[0] > old[0] or (new[0] == old[0] and new[1] != old[1] and new[2] >= old[2])


async def compare(url: str, stream: Stream, batches: list[Batch]) -> None:
    """Deliver ``batches`` in one run and compare counts and table with the model."""
    async with local(url) as (destination, pool):
        await pool.execute("DROP SCHEMA IF EXISTS synced CASCADE")
        model, run = Model(stream), Run(destination.writer(target(stream), 1, 1))
        await run.write(page(Seen(9, 0, 0).encoded(stream)))
        for batch in batches:
            written = await run.write(
                *(
                    page(*(seen.encoded(stream) for seen in records), requested=requested)
                    for requested, records in batch
                )
            )
            expected, read = model.take(batch), [seen for _, records in batch for seen in records]
            assert (written.inserted, written.updated) == (expected.inserted, expected.updated)
            assert written.read == len(read)
            assert len(written.quarantined) == sum(seen.key == 0 for seen in read)
            assert written.misfits == sum(seen.key != 0 and seen.content == 3 for seen in read)
            assert written.read == written.inserted + written.updated + written.unchanged + len(written.quarantined)
        found = {row["id"]: row for row in await rows(pool) if row["id"] != 9}
        assert found.keys() == model.held.keys()
        for key, (cursor, content, requested) in model.held.items():
            expected_record = Seen(key, cursor, content).encoded(stream)
            assert isinstance(expected_record, dict)
            assert found[key]["content"] == (None if content == 3 else expected_record["content"])
            assert (found[key]["_tidegate_misfits"] is None) == (content != 3)
            assert found[key]["_tidegate_requested_at"] == BEGINNING + timedelta(seconds=requested)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_a_greater_cursor_value_wins_and_of_equal_ones_the_page_requested_later(
    database_url: str, batches: list[Batch]
) -> None:
    """SPEC 4: two edits in one second are common; a backfill's old page overwrites nothing newer."""
    asyncio.run(compare(database_url, ORDERS, batches))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_without_a_cursor_the_content_requested_later_wins(database_url: str, batches: list[Batch]) -> None:
    """SPEC 4: a stream listed in full each time; unchanged records are not written."""
    asyncio.run(compare(database_url, LISTED, batches))


def test_an_unchanged_record_is_not_touched(database_url: str) -> None:
    """SPEC 4: seen again within the lookback, a record is not delivered again: its row is the very same tuple."""

    async def run() -> None:
        async with local(database_url) as (destination, pool):
            first = Run(destination.writer(target(), 1, 1))
            await first.write(page({"id": 1, "updated_at": at(0), "n": 1}))
            before = await rows(pool, "ctid, xmin, _tidegate_run_id")
            second = Run(destination.writer(target(), 2, 1), run_id=2)
            again = await second.write(page({"n": 1, "id": 1, "updated_at": at(0)}, requested=60))
            assert (again.unchanged, again.updated) == (1, 0)
            assert await rows(pool, "ctid, xmin, _tidegate_run_id") == before

    asyncio.run(run())


def test_a_new_column_makes_no_old_record_new(database_url: str) -> None:
    """The content hash ends at the last value that is not null: another tenant's new field rewrites nobody's rows."""

    async def run() -> None:
        async with local(database_url) as (destination, _):
            one = Run(destination.writer(target(tenant="one"), 1, 1))
            two = Run(destination.writer(target(tenant="two"), 2, 1), run_id=2)
            await one.write(page({"id": 1, "updated_at": at(0)}))
            await two.write(page({"id": 1, "updated_at": at(0), "new": 1, "newer": None}))
            assert (await one.write(page({"id": 1, "updated_at": at(0)}, requested=9))).unchanged == 1
            other = Run(destination.writer(target(tenant="one"), 3, 1), run_id=3)
            await other.writer.committed()
            assert (await other.write(page({"id": 1, "updated_at": at(0), "new": None}, requested=9))).unchanged == 1

    asyncio.run(run())


def test_rows_of_tenants_and_accounts_never_meet(database_url: str) -> None:
    """SPEC 1, 2.12: the same key of another tenant, or of another platform account, is another record."""

    async def run() -> None:
        async with local(database_url) as (destination, pool):
            for number, (tenant, account) in enumerate((("a", "x"), ("a", "y"), ("b", "x")), start=1):
                run = Run(destination.writer(target(tenant=tenant, account=account), number, 1), run_id=number)
                assert (await run.write(page({"id": 1, "updated_at": at(0), "n": number}))).inserted == 1
            assert [row["n"] for row in await rows(pool, "n", order="n")] == [1, 2, 3]

    asyncio.run(run())
