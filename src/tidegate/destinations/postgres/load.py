"""A load: one run's way from pages to rows, the same in Tidegate's own database and in any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias, cast

import asyncpg

from tidegate.destinations.base import Quarantined, Target, Turn, Written
from tidegate.destinations.postgres import pieces
from tidegate.destinations.postgres.careful import Origin, Rendered, by_page, discovered
from tidegate.destinations.postgres.following import Place
from tidegate.destinations.postgres.layout import Layout, Unfit
from tidegate.destinations.postgres.refusals import (
    DEADLOCK,
    FAILURES,
    LayoutChanged,
    NotNew,
    RecordsRefused,
    rows_refused,
    translated,
)
from tidegate.destinations.postgres.tables import Tables
from tidegate.destinations.postgres.upsert import Counts, Upsert
from tidegate.domain.errors import DestinationRejected, DestinationUnavailable
from tidegate.domain.fetch import Page

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Commit: TypeAlias = "Callable[[Batch, Place], Awaitable[Written]]"
"""Writes a batch's `rows` and whatever belongs to them in one transaction."""

_ALIVE_SECONDS: Final = 1.0
"""How often a transaction that waits for its turn shows that its process is not frozen: well within the shortest lease."""
_MAX_REFUSED: Final = 100
"""So many records of one batch may be refused by PostgreSQL itself; more is no poison, it is the table."""


@asynccontextmanager
async def connected(pool: Pool) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection of ``pool``; what goes wrong with it or its statements becomes a DestinationError."""
    try:
        async with pool.acquire() as connection:
            yield cast(asyncpg.Connection, connection)
    except FAILURES as error:
        raise translated(error) from error


def staging(pool: Pool) -> asyncio.Semaphore:
    """Return who may hold a connection of ``pool`` while another batch has its turn: a third of the pool, so that those
    whose turn it is always get one.
    """
    return asyncio.Semaphore(pool.get_max_size() // 3)


@dataclass(frozen=True, slots=True)
class Batch:
    """Pages made ready for one transaction: nothing of them is in the database yet."""

    pages: tuple[Page, ...]
    layout: Layout | None
    rendered: Rendered
    new: bool = False
    """Whether its records are thought not to be in the table yet; no harm is done if they are."""

    @property
    def lines(self) -> list[tuple[datetime, list[bytes]]]:
        """Return what is to be written: by page its `requested_at` and its records' lines."""
        return [(self.pages[page.number - 1].requested_at, page.heads) for page in self.rendered.pages]

    def written(self, counts: Counts) -> Written:
        """Return what became of the batch; a record not written was there already, in this version or a later one."""
        quarantined = tuple(self.rendered.quarantined)
        read = self.rendered.read
        return Written(
            read=read,
            inserted=counts.inserted,
            updated=counts.updated,
            unchanged=read - counts.inserted - counts.updated - len(quarantined),
            misfits=sum(self.rendered.misfits.values()),
            quarantined=quarantined,
        )


class Load:
    """Turns the pages of one run into rows of one table."""

    def __init__(self, tables: Tables, target: Target, run_id: int, staging: asyncio.Semaphore) -> None:
        self._tables = tables
        self._staging = staging
        self._target = target
        self._run_id = run_id
        self._layout: Layout | None = None
        self._fresh = False
        self._preparing = asyncio.Lock()
        self._all_new = False
        self._last: Place | None = None
        self._ready: dict[int, tuple[Page, Layout, list[bytes]]] = {}

    def ready(self, page: Page) -> None:
        """Render ``page`` now, if the table is known and no record of it needs a closer look; its batch is written later."""
        if self._layout is not None:
            with suppress(Unfit):
                self._ready[id(page)] = (page, self._layout, self._layout.heads(page.records))

    async def _refresh(self, pool: Pool) -> None:
        """Read the table's columns as they are now. Raises a DestinationError."""
        async with connected(pool) as connection:
            self._layout = await self._tables.layout(connection, self._target)
            self._fresh = True

    def follow(self, turn: Turn) -> Place:
        """Return the place of the next batch, behind the one that was given its own before."""
        self._last = Place(turn, self._last)
        return self._last

    async def delivered(self, pool: Pool, pages: Sequence[Page], commit: Commit, place: Place) -> Written:
        """Return what ``commit`` made of ``pages``, having quarantined the records that PostgreSQL itself refuses.

        ``commit`` is called again after NotNew, and with less after RecordsRefused. Raises what it raises, or a
        DestinationError.
        """
        written = await self._delivered(pool, pages, commit, place)
        self._all_new = 0 < written.inserted == written.read - len(written.quarantined)
        return written

    async def _delivered(self, pool: Pool, pages: Sequence[Page], commit: Commit, place: Place) -> Written:
        batch = await self._prepared(pool, pages)
        try:
            return await self._ahead(batch, commit, place)
        except LayoutChanged:
            self._fresh = False
        except RecordsRefused:
            pass
        await place.commit()
        batch = await self._prepared(pool, pages, careful=True)
        while True:
            try:
                return await _again(commit, batch, Place())
            except RecordsRefused:
                batch = await self._without_refused(pool, batch)
            except LayoutChanged as error:
                raise DestinationUnavailable(f"{self._tables.name(self._target)} keeps changing: {error}.") from error

    async def _ahead(self, batch: Batch, commit: Commit, place: Place) -> Written:
        """Return what ``commit`` made of ``batch``, whose rows may go to the server while the batch before is on its way.

        ``staging`` leaves the pool connections for those whose turn it is. Records that are thought to be new are not staged.
        """
        if batch.new:
            await place.rows()
        async with place.early(self._staging):
            return await self._tried(batch, commit, place)

    async def _tried(self, batch: Batch, commit: Commit, place: Place) -> Written:
        try:
            return await _again(commit, batch, place)
        except NotNew:
            await place.commit()
            return await _again(commit, replace(batch, new=False), Place())

    async def rows(self, connection: asyncpg.Connection, batch: Batch, place: Place) -> Written:
        """Write the batch's rows inside the caller's transaction, and return once it may commit.

        Raises what the turn raises; RecordsRefused, LayoutChanged, NotNew, asyncpg's errors.
        """
        lines = batch.lines
        if not any(heads for _, heads in lines):
            await place.commit()
            return batch.written(Counts())
        if batch.layout is None:
            raise LayoutChanged(f"there is no table {self._tables.name(self._target)} for what was rendered")
        upsert = Upsert(self._tables.schema, self._tables.unquoted(self._target), batch.layout)
        with rows_refused():
            if batch.new:
                counts = await upsert.insert(connection, lines, self._target, self._run_id)
            else:
                await upsert.stage(connection, lines)
                await _patiently(connection, place.rows)
                counts = await upsert.write(connection, lines, self._target, self._run_id)
        place.written()
        await _patiently(connection, place.commit)
        return batch.written(counts)

    async def _prepared(self, pool: Pool, pages: Sequence[Page], *, careful: bool = False) -> Batch:
        """Return ``pages`` rendered for the table, which by then has a column for every field seen that it has room for.

        One batch at a time: each goes on from what the one before has found out about the table.
        """
        async with self._preparing:
            if not self._fresh:
                await self._refresh(pool)
            return await self._rendered(pool, pages, careful=careful)

    async def _rendered(self, pool: Pool, pages: Sequence[Page], *, careful: bool) -> Batch:
        ordered = tuple(sorted(pages, key=lambda page: page.requested_at))
        fast = [None if careful else self._fast(page) for page in ordered]
        unfit = [page.records for page, heads in zip(ordered, fast, strict=True) if heads is None]
        if unfit and await self._grown(pool, unfit):
            fast = [None if careful else self._fast(page) for page in ordered]
        layout, rendered = self._layout or Layout.provisional(self._target.stream), Rendered()
        for number, (page, heads) in enumerate(zip(ordered, fast, strict=True), start=1):
            if heads is None:
                rendered.add_page(layout, page.records, number, trusting=not careful)
            else:
                rendered.add_heads(heads, number)
        return Batch(ordered, self._layout, rendered, new=self._all_new and not careful)

    def _fast(self, page: Page) -> list[bytes] | None:
        """Return the page's lines, rendered ahead or now; None if a record of it needs a closer look."""
        layout = self._layout
        if layout is None:
            return None
        _, rendered_for, heads = self._ready.pop(id(page), (None, None, []))
        try:
            return heads if rendered_for is layout else layout.heads(page.records)
        except Unfit:
            return None

    async def _grown(self, pool: Pool, pages: Sequence[bytes]) -> bool:
        """Make the table, or its columns, that ``pages`` ask for; return whether the layout is another one now."""
        layout = self._layout
        known = () if layout is None else (*layout.fields, *layout.overflow)
        found = discovered(self._target.stream, pages, known)
        if layout is None and not all(found.keys.values()):
            return False
        if layout is not None and not any(kinds or name not in layout.undecided for name, kinds in found.kinds.items()):
            return False
        async with connected(pool) as connection:
            self._layout = await self._tables.extend(connection, self._target, found)
        self._all_new |= layout is None
        return True

    async def _without_refused(self, pool: Pool, batch: Batch) -> Batch:
        """Return ``batch`` with every record in quarantine that PostgreSQL refuses, found by halving."""
        refused: dict[Origin, Quarantined] = {}
        async with connected(pool) as connection:
            suspects = [batch.rendered.each()]
            while suspects:
                lines = suspects.pop()
                reason = await self._refusal(connection, batch, lines)
                if reason and len(lines) > 1:
                    suspects += [lines[: len(lines) // 2], lines[len(lines) // 2 :]]
                elif reason:
                    number, place = origin = lines[0][0]
                    record = pieces.records(batch.pages[number - 1].records)[place]
                    refused[origin] = Quarantined(f"PostgreSQL refuses the record: {reason}.", record)
                if len(refused) > _MAX_REFUSED:
                    raise DestinationRejected(
                        f"PostgreSQL refuses more than {_MAX_REFUSED} records of one batch: {reason}.",
                        remedy=f"Check the constraints and triggers of {self._tables.name(self._target)}.",
                    )
        return replace(batch, rendered=batch.rendered.without(refused))

    async def _refusal(self, connection: asyncpg.Connection, batch: Batch, lines: list[tuple[Origin, bytes]]) -> str:
        """Return why PostgreSQL refuses ``lines``, "" if it does not; nothing is written either way."""
        trial = replace(batch, rendered=Rendered(by_page(lines), read=len(lines)))
        transaction = connection.transaction()
        await transaction.start()
        try:
            await self.rows(connection, trial, Place())
        except RecordsRefused as refusal:
            return str(refusal)
        finally:
            await transaction.rollback()
        return ""


async def _again(commit: Commit, batch: Batch, place: Place) -> Written:
    """Return what ``commit`` made of ``batch``, at its second try if the first was chosen to end a deadlock."""
    try:
        return await commit(batch, place)
    except DestinationUnavailable as error:
        if error.values.get("sqlstate") != DEADLOCK or not place.anew():
            raise
    await place.commit()
    return await commit(batch, Place())


async def _patiently(connection: asyncpg.Connection, turn: Turn) -> None:
    """Wait for ``turn``, showing the server meanwhile that the process at the other end of the transaction is alive."""
    waiting = asyncio.ensure_future(turn())
    try:
        while not (await asyncio.wait({waiting}, timeout=_ALIVE_SECONDS))[0]:
            await connection.execute("SELECT 1")
    finally:
        waiting.cancel()
    waiting.result()
