"""`tidegate tick`: do all that is due, then exit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from tidegate.cli.output import AsJson, instant, out
from tidegate.cli.process import exit_unless, interrupted, with_parts
from tidegate.cli.run import GOOD_ENDS, LOOK_EVERY_SECONDS, progress_of, say_stopping, show_ended
from tidegate.domain.run import RunState

if TYPE_CHECKING:
    from datetime import datetime

    from tidegate.cli.run import Display
    from tidegate.engine.parts import Parts
    from tidegate.engine.queries import Summary
    from tidegate.store.reports import RunRow

app = typer.Typer()
MOST_RETRYING = 10_000


@app.command()
def tick(as_json: AsJson = False) -> None:
    """Do all that is due, then exit: for cron, or to try things out.

    What waits for a later run date, a retry among them, is left to the next tick. Exit code 1 if a run did not cover its
    period, an attempt failed, or a receiver has not acknowledged everything.
    """

    async def work(parts: Parts) -> tuple[list[RunRow], Summary, datetime | None]:
        from tidegate.engine import queries
        from tidegate.store import schedules

        ran = await _tick(parts, shown=not as_json)
        return ran, await queries.summary(parts), await schedules.next_due_at(parts.pool)

    ran, summary, next_due_at = with_parts(work, as_json=as_json, fast=True)
    show_ended(ran, as_json=as_json)
    if not as_json and not ran:
        _show_idle(summary, next_due_at)
    exit_unless(all(each.state in GOOD_ENDS or _only_waits(each) for each in ran))


def _show_idle(summary: Summary, next_due_at: datetime | None) -> None:
    """Say why nothing ran: nothing is due, or what is due waits (SPEC 3)."""
    from tidegate.cli.status import waiting_lines

    lines = waiting_lines(summary)
    out().print("Nothing that is due can start now:" if lines else "Nothing is due.")
    for line in lines:
        out().print(f"  {line}", markup=False)
    if lines:
        out().print("`tidegate status` says which streams, and `tidegate runs` when each is planned.")
    out().print(f"Next due {instant(next_due_at, 'never: nothing is scheduled')}.")


async def _tick(parts: Parts, *, shown: bool) -> list[RunRow]:
    """Drain what is due and return the runs that ended, wait for a receiver, or whose attempt failed meanwhile.

    At SIGINT or SIGTERM it delivers the pages in hand, gives its runs back and exits with 130; at the second at once.
    """
    from tidegate.cli.engine_process import stopped_by_signals
    from tidegate.engine.engine import Engine
    from tidegate.store import reports

    began_at = parts.clock.now()
    before = {each.id: each.epoch for each in await _retrying(parts)}
    engine = Engine(parts)
    draining = asyncio.create_task(engine.drain())
    with stopped_by_signals(engine, say_stopping) as asked:
        async with progress_of(shown=shown) as display:
            try:
                await _watch(parts, display, draining, began_at)
            finally:
                if not draining.done():
                    draining.cancel()
                await asyncio.gather(draining, return_exceptions=True)
    draining.result()
    if asked():
        interrupted()
    ended = await reports.runs_ended_since(parts.pool, began_at)
    waiting = await reports.runs(parts.pool, states=[RunState.DELIVERING], limit=MOST_RETRYING)
    again = [each for each in await _retrying(parts) if each.epoch != before.get(each.id) and each.error]
    return ended + waiting + again


async def _watch(parts: Parts, display: Display, draining: asyncio.Task[None], began_at: datetime) -> None:
    from tidegate.store import reports

    while not draining.done():
        at_work = await reports.runs(parts.pool, states=[RunState.RUNNING], limit=20)
        display.update([*at_work, *await reports.runs_ended_since(parts.pool, began_at)])
        await asyncio.wait({draining}, timeout=LOOK_EVERY_SECONDS)


async def _retrying(parts: Parts) -> list[RunRow]:
    from tidegate.store import reports

    return await reports.runs(parts.pool, states=[RunState.RETRYING], limit=MOST_RETRYING)


def _only_waits(each: RunRow) -> bool:
    """Return whether a run was put back only because the source's clock has not come to its period's end."""
    return each.state == RunState.RETRYING and (each.error or {}).get("code") == "source_clock_behind"
