"""Execution: one leased run, from its workflow to its end: trigger, fetch, blocks, deliver (SPEC 6).

There is one path, whatever stands between fetch and deliver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial

import msgspec

from tidegate.blocks.base import Block
from tidegate.destinations.base import Writer
from tidegate.domain.errors import InternalError
from tidegate.domain.fetch import Page
from tidegate.domain.run import RunState
from tidegate.domain.workflow import PLAIN_SYNC, Workflow
from tidegate.engine.attempt.delivery import Checkpoint, Delivery, ahead, asked_of, place_of
from tidegate.engine.attempt.fetching import fetch, request_for
from tidegate.engine.observing import PageFetched
from tidegate.engine.parts import Ends, Parts, target_of
from tidegate.store import leases
from tidegate.store.leases import LeasedRun


async def execute(parts: Parts, ends: Ends, run: LeasedRun, stopping: asyncio.Event) -> RunState:
    """Fetch and deliver a run's period, finish it in the ledger and return how it ended.

    Raises Stopped if ``stopping`` is set meanwhile, LeaseLost if the run is not ours any more, or the error that ended
    the attempt.
    """
    source, stream, connector = ends.source(run)
    destination = await ends.destination(run)
    writer = destination.writer(target_of(run, connector, stream), run.id, run.epoch)
    since = await leases.change_token(parts.pool, run) if stream.change_feed else None
    ask = partial(request_for, stream, run.period, run.coverage_start, changes_since=since, bounded=run.bounded)
    now = parts.clock.now()
    asked = _Once(lambda: asked_of(run, source.listing(ask(now, None))))
    place = place_of(run, destination)
    resumed, unentered, taken = await _resume(run, writer, asked, place)
    stop_after = resumed.stop_after if resumed else now
    delivery = Delivery(ends, run, writer, asked, stop_after, resumed, taken, place)
    if taken > run.batch and not unentered:
        await leases.number_after(parts.pool, run, taken)
    if resumed and unentered:
        await delivery.enter(resumed, unentered)
        if resumed.complete:
            return _ended(delivery)
    request = ask(stop_after, resumed.token if resumed else None)
    settings = parts.settings
    async with aclosing(fetch(source, request, run.period, partial(_tell, parts, run))) as fetched:
        through = _through(blocks_of(workflow_of(run)), fetched)
        async with ahead(through, settings.pages_ahead, settings.bytes_ahead, writer.ready) as pages:
            await delivery.deliver(pages, stopping)
    return _ended(delivery)


class _Once:
    """A text that is made when it is first called for, and then kept: most runs need it nowhere."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], str]) -> None:
        self._make, self._made = make, ""

    def __call__(self) -> str:
        self._made = self._made or self._make()
        return self._made


def _ended(delivery: Delivery) -> RunState:
    assert delivery.state is not None, "the last batch ends the run"
    return delivery.state


def workflow_of(run: LeasedRun) -> Workflow:
    """Return the workflow that a run executes. Raises InternalError for one that this revision does not know."""
    if run.workflow != PLAIN_SYNC.name:
        raise InternalError(f"Run {run.id} wants the workflow {run.workflow!r}, which is not known here.")
    return PLAIN_SYNC


def blocks_of(workflow: Workflow) -> list[Block]:
    """Return the blocks between fetch and deliver. Raises InternalError for a kind that is not known."""
    for block in workflow.between:
        raise InternalError(f"The block {block.kind!r} of workflow {workflow.name!r} is not known here.")
    return []


def _through(blocks: list[Block], pages: AsyncIterator[Page]) -> AsyncIterator[Page]:
    for block in blocks:
        pages = block(pages)
    return pages


def _tell(parts: Parts, run: LeasedRun, page: Page) -> None:
    parts.signal("page.fetched")
    parts.observe(PageFetched(run, len(page.records), page.requested_at, parts.clock.now()))


async def _resume(
    run: LeasedRun, writer: Writer, asked: Callable[[], str], place: str
) -> tuple[Checkpoint | None, bytes | None, int]:
    """Return where the run goes on; if the process died between two commits, the batch the ledger does not know; and the
    last batch number that is taken.

    Rows that are elsewhere commit before their ledger entry (SPEC 5). What committed there up to the ledger's own batch
    says nothing new: a run that is planned anew begins anew (HOLE s). So does one whose installation has meanwhile been
    given another destination: what it delivered is not there. So does one that would be ``asked`` for another way now, by
    a declaration that was corrected or a setting that was changed: its page token is a place in another listing. And what
    is not the very next batch of the very same request was committed under a ledger that is no more, one newer than the
    backup that was restored: to go on from it could skip what this ledger's run has to fetch.
    """
    committed = await writer.committed()
    taken = run.batch
    if committed is not None:
        elsewhere = msgspec.json.decode(committed, type=Checkpoint)
        if elsewhere.batch == run.batch + 1 and elsewhere.asked == asked():
            return elsewhere, committed, elsewhere.batch
        taken = max(taken, elsewhere.batch)
    if run.checkpoint is None:
        return None, None, taken
    known = msgspec.json.decode(run.checkpoint, type=Checkpoint)
    here = (known.destination_id, known.place) == (run.destination_id, place)
    return (known if here and known.asked == asked() else None), None, taken
