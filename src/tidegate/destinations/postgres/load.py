"""A load: one run's way from pages to rows, the same in Tidegate's own database and in any other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, cast

import asyncpg

from tidegate.destinations.base import Quarantined, Target, Written
from tidegate.destinations.postgres import pieces
from tidegate.destinations.postgres.careful import Rendered, discovered, origin
from tidegate.destinations.postgres.layout import Layout, Unfit, placed
from tidegate.destinations.postgres.refusals import (
    FAILURES,
    LayoutChanged,
    RecordsRefused,
    rows_refused,
    translated,
)
from tidegate.destinations.postgres.tables import Tables
from tidegate.destinations.postgres.upsert import Counts, Upsert
from tidegate.domain.errors import DestinationRejected, DestinationUnavailable
from tidegate.domain.fetch import Page

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

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


@dataclass(frozen=True, slots=True)
class Batch:
    """Pages made ready for one transaction: nothing of them is in the database yet."""

    pages: tuple[Page, ...]
    layout: Layout | None
    rendered: Rendered

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

    def __init__(self, tables: Tables, target: Target, run_id: int) -> None:
        self._tables = tables
        self._target = target
        self._run_id = run_id
        self._layout: Layout | None = None
        self._fresh = False
        self._ready: dict[int, tuple[Page, Layout, list[str]]] = {}

    def ready(self, page: Page) -> None:
        """Render ``page`` now, if the table is known and no record of it needs a closer look; its batch is written later."""
        if self._layout is not None:
            with suppress(Unfit):
                self._ready[id(page)] = (page, self._layout, self._layout.heads(page.records))

    async def refresh(self, pool: Pool) -> None:
        """Read the table's columns as they are now. Raises a DestinationError."""
        async with connected(pool) as connection:
            self._layout = await self._tables.layout(connection, self._target)
            self._fresh = True

    async def delivered(
        self, pool: Pool, pages: Sequence[Page], commit: Callable[[Batch], Awaitable[Written]]
    ) -> Written:
        """Return what ``commit`` made of ``pages``, having quarantined the records that PostgreSQL itself refuses.

        ``commit`` writes the batch's `rows` and whatever belongs to them in one transaction, and is called again with less
        after RecordsRefused. Raises what it raises, or a DestinationError.
        """
        if not self._fresh:
            await self.refresh(pool)
        try:
            return await commit(await self._prepared(pool, pages))
        except LayoutChanged:
            await self.refresh(pool)
        except RecordsRefused:
            pass
        batch = await self._prepared(pool, pages, careful=True)
        while True:
            try:
                return await commit(batch)
            except RecordsRefused:
                batch = await self._without_refused(pool, batch)
            except LayoutChanged as error:
                raise DestinationUnavailable(f"{self._tables.name(self._target)} keeps changing: {error}.") from error

    async def rows(self, connection: asyncpg.Connection, batch: Batch) -> Written:
        """Write the batch's rows inside the caller's transaction. Raises RecordsRefused, LayoutChanged, asyncpg's errors."""
        if batch.layout is None or not batch.rendered.lines:
            return batch.written(Counts())
        upsert = Upsert(self._tables.name(self._target), batch.layout)
        requested_at = [page.requested_at for page in batch.pages]
        with rows_refused():
            return batch.written(
                await upsert.write(connection, batch.rendered.lines, self._target, self._run_id, requested_at)
            )

    async def _prepared(self, pool: Pool, pages: Sequence[Page], *, careful: bool = False) -> Batch:
        """Return ``pages`` rendered for the table, which by then has a column for every field seen that it has room for."""
        ordered = tuple(sorted(pages, key=lambda page: page.requested_at))
        fast = [None if careful else self._fast(page, number) for number, page in enumerate(ordered, start=1)]
        unfit = [page.records for page, lines in zip(ordered, fast, strict=True) if lines is None]
        if unfit and await self._grown(pool, unfit):
            fast = [None if careful else self._fast(page, number) for number, page in enumerate(ordered, start=1)]
        layout, rendered = self._layout or Layout.provisional(self._target.stream), Rendered()
        for number, (page, lines) in enumerate(zip(ordered, fast, strict=True), start=1):
            if lines is None:
                rendered.add_page(layout, page.records, number, trusting=not careful)
            else:
                rendered.add_lines(lines)
        return Batch(ordered, self._layout, rendered)

    def _fast(self, page: Page, number: int) -> list[str] | None:
        """Return the page's lines, rendered ahead or now; None if a record of it needs a closer look."""
        layout = self._layout
        if layout is None:
            return None
        _, rendered_for, heads = self._ready.pop(id(page), (None, None, []))
        try:
            return placed(heads, number) if rendered_for is layout else layout.lines(page.records, number)
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
        return True

    async def _without_refused(self, pool: Pool, batch: Batch) -> Batch:
        """Return ``batch`` with every record in quarantine that PostgreSQL refuses, found by halving."""
        refused: dict[tuple[int, int], Quarantined] = {}
        async with connected(pool) as connection:
            suspects = [batch.rendered.lines]
            while suspects:
                lines = suspects.pop()
                reason = await self._refusal(connection, batch, lines)
                if reason and len(lines) > 1:
                    suspects += [lines[: len(lines) // 2], lines[len(lines) // 2 :]]
                elif reason:
                    number, position = origin(lines[0])
                    record = pieces.records(batch.pages[number - 1].records)[position]
                    refused[number, position] = Quarantined(f"PostgreSQL refuses the record: {reason}.", record)
                if len(refused) > _MAX_REFUSED:
                    raise DestinationRejected(
                        f"PostgreSQL refuses more than {_MAX_REFUSED} records of one batch: {reason}.",
                        remedy=f"Check the constraints and triggers of {self._tables.name(self._target)}.",
                    )
        return replace(batch, rendered=batch.rendered.without(refused))

    async def _refusal(self, connection: asyncpg.Connection, batch: Batch, lines: list[str]) -> str:
        """Return why PostgreSQL refuses ``lines``, "" if it does not; nothing is written either way."""
        trial = replace(batch, rendered=Rendered(lines, read=len(lines)))
        transaction = connection.transaction()
        await transaction.start()
        try:
            await self.rows(connection, trial)
        except RecordsRefused as refusal:
            return str(refusal)
        finally:
            await transaction.rollback()
        return ""
