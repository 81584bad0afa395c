"""Delivery: pages become batches, and every batch commits with its checkpoint, the last one with coverage (SPEC 5)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from tidegate.destinations.base import DeliveryKey, Destination, Sends, Turn, Writer, Written
from tidegate.domain.fetch import FetchReport, Page
from tidegate.domain.instant import render_instant
from tidegate.domain.run import RunState
from tidegate.engine.attempt.underway import Underway
from tidegate.engine.observing import BatchCommitted
from tidegate.engine.parts import Ends
from tidegate.store import ending, leases, quarantine
from tidegate.store.ending import Finish
from tidegate.store.leases import Counts, LeasedRun
from tidegate.store.quarantine import Poisoned

if TYPE_CHECKING:
    from tidegate.store.database import Connection

EMPTY = b"[]"
SMALL_BATCHES = 3
"""So many batches at a run's beginning are smaller than the rest: an eighth of the size, a quarter, a half."""


class Checkpoint(msgspec.Struct, frozen=True):
    """Where an unfinished run resumes: after which page, with which clock, and what its pages so far have reported.

    ``asked``: what the run was asked for, as `asked_of` says it. ``place``: where its records are, as `place_of` says it.
    """

    batch: int
    token: dict[str, Any] | None
    stop_after: datetime
    report: FetchReport
    destination_id: int
    asked: str = ""
    place: str = ""

    @property
    def complete(self) -> bool:
        """Return whether the last page has been delivered, so that only the ledger's entry is missing."""
        return self.token is None


def asked_of(run: LeasedRun, listing: str) -> str:
    """Return what a run is asked for, in names: its identity (SPEC 2.12), where its period starts, and the ``listing``.

    Numbers of runs and chains are one ledger's. Another database may remember those of a ledger that is no more: a newer
    one than the backup that was restored, or the one that an installation was moved from.
    """
    whose = f"{run.tenant_id}/{run.installation}/{run.workflow}/{run.stream} of {run.account_name}"
    period = f"{render_instant(run.period.start)}/{render_instant(run.period.end)}"
    return f"{whose} {run.lane} {period} by {listing}"


def place_of(run: LeasedRun, destination: Destination) -> str:
    """Return what tells whether records delivered before are where the next ones go: "" if none stay in a destination.

    What waits in the outbox is sent wherever the destination then is.
    """
    return "" if _sends(destination) else run.destination_fingerprint


_SENDING: dict[type, bool] = {}


def _sends(destination: Destination) -> bool:
    """Return whether ``destination`` is one of `Sends`: a kind is looked at once, for a Protocol looks at every member."""
    kind = type(destination)
    known = _SENDING.get(kind)
    if known is None:
        known = _SENDING[kind] = isinstance(destination, Sends)
    return known


class Stopped(Exception):
    """The process is asked to stop; all that was fetched is delivered and the checkpoint stands."""


class Delivery:
    """Delivers the pages of one leased run. ``state``: how the run has ended, once it has.

    ``asked`` returns what the run is asked for; ``taken`` is the last batch number that is not free,
    ``place`` what `place_of` says.
    """

    def __init__(
        self,
        ends: Ends,
        run: LeasedRun,
        writer: Writer,
        asked: Callable[[], str],
        stop_after: datetime,
        resumed: Checkpoint | None,
        taken: int,
        place: str,
    ) -> None:
        self._parts = ends.parts
        self._finishing = ends.finishing
        self._run = run
        self._writer = writer
        self._asked, self._place = asked, place
        self._stop_after = stop_after
        self._batch = self._first = taken
        self._report = resumed.report if resumed else None
        self._underway = Underway()
        self.state: RunState | None = None

    async def deliver(self, pages: AsyncIterator[Page], stopping: asyncio.Event) -> None:
        """Deliver every page and finish the run.

        Raises Stopped after committing what is in hand if ``stopping`` is set before the last page; LeaseLost, a
        DestinationError or whatever the pages raise otherwise. What came before an error is committed first.
        """
        try:
            await self._deliver(pages, stopping)
        finally:
            await self._underway.abandon()

    async def _deliver(self, pages: AsyncIterator[Page], stopping: asyncio.Event) -> None:
        held: list[Page] = []
        held_since = self._parts.clock.now()
        while (page := await self._next(pages, held)) is not None:
            held.append(page)
            if page.token is None:
                await self._commit(held, final=True)
                return
            if stopping.is_set() or self._full(held, held_since):
                batch, held, held_since = held, [], self._parts.clock.now()
                await self._commit(batch, final=False)
            if stopping.is_set():
                await self._underway.settled()
                raise Stopped

    async def _next(self, pages: AsyncIterator[Page], held: list[Page]) -> Page | None:
        """Return the next page; if there is none for an error, commit what is held and raise the error."""
        try:
            return await anext(pages, None)
        except Exception:
            if held:
                await self._commit(held, final=False)
            await self._underway.settled()
            raise

    def _full(self, held: list[Page], since: datetime) -> bool:
        """Return whether it is time to commit: by size or by age. The first batches are small, so that what they teach the
        destination (its table, its columns) is known early.
        """
        settings = self._parts.settings
        size = settings.batch_bytes >> max(0, SMALL_BATCHES - (self._batch - self._first))
        age: timedelta = self._parts.clock.now() - since
        return sum(len(page.records) for page in held) >= size or age >= settings.batch_age

    async def enter(self, last: Checkpoint, position: bytes) -> None:
        """Enter in the ledger, with its counts, a batch whose rows committed elsewhere just before a crash (SPEC 5)."""
        report = last.report if last.complete else None
        await self._underway.add(partial(self._write, [], last.batch, position, report), last=True)

    async def _commit(self, pages: list[Page], *, final: bool) -> None:
        self._batch += 1
        so_far = self._reported(pages)
        filled = [page for page in pages if page.records != EMPTY]
        if filled:
            position = self._position(pages[-1], so_far)
            report = so_far if final else None
            await self._underway.add(partial(self._write, filled, self._batch, position, report), last=final)
            return
        await self._underway.settled()
        await self._note(pages[-1], so_far, final=final)
        self._parts.signal("batch.committed")

    async def _note(self, last: Page, report: FetchReport, *, final: bool) -> None:
        """Enter a batch without records."""
        began_at = self._parts.clock.now()
        if final:
            proven = report.proves(self._run.period)
            self.state = await self._finishing.ask(Finish(self._run, self._batch, report, proven, began_at))
        else:
            position = self._position(last, report)
            await leases.checkpoint(self._parts.pool, self._run, self._batch, position, Counts())
        self._tell(self._batch, Counts(), began_at, began_at)

    async def _write(
        self, pages: list[Page], batch: int, position: bytes, report: FetchReport | None, turn: Turn
    ) -> None:
        began_at = written_at = self._parts.clock.now()
        counts = Counts()

        async def ledger(connection: Connection, written: Written) -> None:
            nonlocal counts, written_at
            counts, written_at = counts_of(written), self._parts.clock.now()
            self._parts.signal("batch.written")
            await self.record(connection, batch, position, written, report, pages)
            self._parts.signal("batch.recorded")

        await self._writer.write(pages, DeliveryKey(self._run.id, self._run.epoch, batch), position, ledger, turn)
        self._tell(batch, counts, began_at, written_at)
        self._parts.signal("batch.committed")

    def _tell(self, batch: int, counts: Counts, began_at: datetime, written_at: datetime) -> None:
        ended_at = self._parts.clock.now()
        self._parts.observe(BatchCommitted(self._run, batch, counts, began_at, written_at, ended_at))

    async def record(
        self,
        connection: Connection,
        batch: int,
        position: bytes,
        written: Written,
        report: FetchReport | None,
        pages: list[Page],
    ) -> None:
        """Write the ledger's entry of one batch: its checkpoint or, with a ``report``, the end of the run."""
        now = self._parts.clock.now()
        counts = counts_of(written)
        if report is None:
            await leases.checkpoint(connection, self._run, batch, position, counts)
        else:
            proven = report.proves(self._run.period)
            self.state = await ending.finish(connection, Finish(self._run, batch, report, proven, now, counts))
        if written.quarantined:
            records = [
                Poisoned(each.reason, each.record, _requested_at(each.record, pages)) for each in written.quarantined
            ]
            await quarantine.add(connection, self._run, records, now)

    def _reported(self, pages: list[Page]) -> FetchReport:
        """Return what all pages up to now report together: a shortfall of one is a shortfall of the fetch (SPEC 5)."""
        for page in pages:
            if page.report.remarks or page.report != self._report:
                self._report = page.report if self._report is None else self._report.and_then(page.report)
        assert self._report is not None
        return self._report

    def _position(self, last: Page, report: FetchReport) -> bytes:
        token = None if last.token is None else dict(last.token)
        to = self._run.destination_id
        return msgspec.json.encode(
            Checkpoint(self._batch, token, self._stop_after, report, to, self._asked(), self._place)
        )


def _requested_at(record: bytes, pages: list[Page]) -> datetime | None:
    """Return when the page that ``record`` stands in was asked for, None if it is not at hand any more."""
    return next((page.requested_at for page in pages if record in page.records), None)


def counts_of(written: Written) -> Counts:
    """Return what the ledger counts of a batch."""
    return Counts(
        read=written.read, inserted=written.inserted, updated=written.updated, unchanged=written.unchanged,
        misfits=written.misfits, quarantined=len(written.quarantined),
    )  # fmt: skip


@asynccontextmanager
async def ahead(
    pages: AsyncIterator[Page], count: int, size: int, ready: Callable[[Page], None]
) -> AsyncGenerator[AsyncIterator[Page]]:
    """Fetch up to ``count`` pages ahead of the one in hand, so that source and destination work at the same time.

    No further one is fetched than the one after those that hold ``size`` bytes of records: pages may be large. ``ready`` is
    called with each, in order, once the next one has been asked for: the writer begins with it while the source answers and
    its own server works on the batch in hand.

    An error of the pages is raised where the page would have come, after those before it. The first page is waited for
    here: most listings have no other, and need neither task nor queue.
    """
    first = await anext(pages, None)
    if first is None or first.token is None:
        if first is not None:
            ready(first)
        yield _Only(first)
        return
    queue = _Ahead(count, size, ready)
    queue.later(first)
    task = asyncio.create_task(_pump(pages, queue))
    try:
        yield _drain(first, queue)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Only:
    """The one page of a listing, or none: an iterator that costs next to nothing, for most runs have no other."""

    def __init__(self, page: Page | None) -> None:
        self._page = page

    def __aiter__(self) -> _Only:
        return self

    async def __anext__(self) -> Page:
        page, self._page = self._page, None
        if page is None:
            raise StopAsyncIteration
        return page


class _Ahead(asyncio.Queue["Page | Exception | None"]):
    """A queue that is full with ``count`` items, and with pages of ``size`` bytes. Calls ``ready`` with each page in it."""

    def __init__(self, count: int, size: int, ready: Callable[[Page], None]) -> None:
        super().__init__(count)
        self._size, self._held = size, 0
        self._ready, self._raw = ready, deque[Page]()

    def full(self) -> bool:
        """Return whether the next item has to wait."""
        return super().full() or self._held >= self._size

    def later(self, page: Page) -> None:
        """Make ``page`` ready as soon as whoever calls this waits for something."""
        self._raw.append(page)
        asyncio.get_running_loop().call_soon(self._make_ready)

    def now(self, page: Page) -> None:
        """Make ``page`` ready, unless it is: those before it are."""
        if self._raw and self._raw[0] is page:
            self._make_ready()

    def _make_ready(self) -> None:
        if self._raw:
            self._ready(self._raw.popleft())

    def _put(self, item: Page | Exception | None) -> None:
        self._held += len(item.records) if isinstance(item, Page) else 0
        super()._put(item)

    def _get(self) -> Page | Exception | None:
        item = super()._get()
        self._held -= len(item.records) if isinstance(item, Page) else 0
        return item


async def _pump(pages: AsyncIterator[Page], queue: _Ahead) -> None:
    try:
        async for page in pages:
            queue.later(page)
            await queue.put(page)
        await queue.put(None)
    except Exception as error:
        await queue.put(error)


async def _drain(first: Page, queue: _Ahead) -> AsyncIterator[Page]:
    item: Page | Exception | None = first
    while item is not None:
        if isinstance(item, Exception):
            raise item
        queue.now(item)
        yield item
        item = await queue.get()
