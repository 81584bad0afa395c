"""`tidegate run`: a manual run, executed here and now."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, OfInstallation, err, fail, instant, out, print_json, split_installation
from tidegate.cli.process import exit_unless, interrupted, with_parts
from tidegate.domain.errors import InvalidInput
from tidegate.domain.run import FINISHED, RunState

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tidegate.engine.parts import Parts
    from tidegate.store.reports import RunRow

app = typer.Typer()
LOOK_EVERY_SECONDS = 0.2
GOOD_ENDS = frozenset({RunState.SUCCEEDED, RunState.SUPERSEDED})
BAD_ENDS = FINISHED - GOOD_ENDS


@app.command()
def run(
    installation: OfInstallation,
    stream: Annotated[str, typer.Option(metavar="NAME", help="Only this stream; default: all.")] = "",
    until: Annotated[str, typer.Option(metavar="T", help="End of the period, an instant; default: now.")] = "",
    as_json: AsJson = False,
) -> None:
    """Fetch and deliver an installation's streams from where they are covered to, up to now.

    Executed by this process, and by `tidegate up` or workers if they run. Exit code 1 if a run did not cover its period.
    """
    try:
        tenant_id, name = split_installation(installation)
        end = instant_of(until) if until else None
    except InvalidInput as error:
        fail(error, as_json=as_json)

    async def work(parts: Parts) -> list[RunRow]:
        from tidegate.engine.commands import installations

        ids = await installations.request_runs(parts, tenant_id, name or "", stream or None, end=end)
        return await execute(parts, ids, shown=not as_json)

    ended = with_parts(work, as_json=as_json, fast=True)
    show_ended(ended, as_json=as_json)
    exit_unless(all(each.state in GOOD_ENDS for each in ended))


def instant_of(text: str) -> datetime:
    """Return the instant that ``text`` says. Raises InvalidInput unless it has an offset or Z."""
    from tidegate.domain.schedule_document import parse_instant

    return parse_instant(text, "--until")


async def execute(parts: Parts, run_ids: Sequence[int], *, shown: bool) -> list[RunRow]:
    """Work as one more worker until these runs have ended, and return them; pieces behind one that failed are dropped.

    At SIGINT or SIGTERM it delivers the pages in hand, gives its runs back and exits with 130; at the second at once.
    """
    from tidegate.cli.engine_process import stopped_by_signals
    from tidegate.engine.engine import Engine, Role

    engine = Engine(parts, frozenset({Role.DISPATCHER, Role.WORKER, Role.SWEEPER, Role.SENDER}))
    working = asyncio.create_task(engine.run())
    try:
        async with progress_of(shown=shown) as display:
            with stopped_by_signals(engine, say_stopping):
                return await _until_ended(parts, run_ids, display, working)
    finally:
        engine.stop()
        await working


def say_stopping(text: str) -> None:
    """Tell, on stderr, that a stop has been asked for."""
    err().print(text)


async def _until_ended(
    parts: Parts, run_ids: Sequence[int], display: Display, working: asyncio.Task[None]
) -> list[RunRow]:
    from tidegate.engine.commands import installations
    from tidegate.store import reports

    while True:
        found = await reports.runs_by_id(parts.pool, run_ids)
        display.update(found)
        if any(each.state in BAD_ENDS for each in found) and any(each.state is RunState.WAITING for each in found):
            await installations.give_up_behind(parts, run_ids)
        if all(each.state in FINISHED for each in found):
            return found
        if working.done():
            working.result()
            interrupted()
        await asyncio.wait({working}, timeout=LOOK_EVERY_SECONDS)


@asynccontextmanager
async def progress_of(*, shown: bool) -> AsyncIterator[Display]:
    """Yield a display of runs at work: at a terminal with records and rate, otherwise silent."""
    if not shown or not sys.stderr.isatty():
        yield Display(None)
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[state]}"),
        TextColumn("{task.completed:,.0f} records"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err()) as progress:
        yield Display(progress)


class Display:
    """Rows of runs at work; without a terminal it shows nothing."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._rows: dict[int, TaskID] = {}

    def update(self, found: Sequence[RunRow]) -> None:
        """Show where the runs stand."""
        if self._progress is None:
            return
        for each in found:
            if each.id not in self._rows:
                name = f"{each.tenant_id}/{each.installation} {each.stream}"
                self._rows[each.id] = self._progress.add_task(name, total=None, state="", rate="")
            row = self._rows[each.id]
            if each.state in FINISHED:
                self._progress.stop_task(row)
            speed = self._progress.tasks[row].speed
            rate = f"{speed:,.0f}/s" if speed else ""
            self._progress.update(row, completed=each.read_count, state=each.state, rate=rate)


def show_ended(ended: Sequence[RunRow], *, as_json: bool) -> None:
    """Print how runs ended; of those that were dropped behind one that failed only how many, and up to where."""
    from tidegate.cli.runs import counts_of, run_json, state_of

    if as_json:
        print_json([run_json(each) for each in ended])
        return
    failed = {each.chain_id for each in ended if each.state in BAD_ENDS and each.state is not RunState.DROPPED}
    behind = [each for each in ended if each.state is RunState.DROPPED and each.chain_id in failed]
    for each in ended:
        if each in behind:
            continue
        mark = "✓" if each.state in GOOD_ENDS else "✗"
        took = _rate(each)
        name = f"{each.tenant_id}/{each.installation} {each.stream}"
        out().print(f"{mark} {name}: {state_of(each)}; {counts_of(each)}{took} (run {each.id})", markup=False)

    for chain_id in dict.fromkeys(each.chain_id for each in behind):
        _show_dropped([each for each in behind if each.chain_id == chain_id])


def _show_dropped(behind: Sequence[RunRow]) -> None:
    last = behind[-1]
    name = f"{last.tenant_id}/{last.installation} {last.stream}"
    what = f"{len(behind)} runs behind it were" if len(behind) > 1 else "the run behind it was"
    told = f"{what} dropped, up to {instant(last.period_end)}: nothing is fetched past what is not covered"
    out().print(f"✗ {name}: {told}", markup=False)


def _rate(each: RunRow) -> str:
    if each.started_at is None or each.finished_at is None:
        return ""
    seconds = (each.finished_at - each.started_at).total_seconds()
    rate = f", {each.read_count / seconds:,.0f}/s" if seconds > 0 and each.read_count else ""
    return f" in {seconds:,.1f} s{rate}"
