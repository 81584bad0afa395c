"""`tidegate demo`: the main job in about a minute, on shops of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import FAILED, INTERRUPTED, AsJson, err, fail, out, print_json

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import RenderableType
    from rich.table import Table

    from tidegate.demo.week import Comparison, Week
    from tidegate.domain.clock import Clock
    from tidegate.engine.queries import StreamCoverage, StreamStatus

app = typer.Typer()
REFRESH_SECONDS = 0.25
SLOW_LOOK_SECONDS = 2.0
BAR_CELLS = 40


@app.command()
def demo(
    context: typer.Context,
    seconds: Annotated[float, typer.Option(min=5, max=3600, help="How long its week takes.")] = 50,
    data_dir: Annotated[Path, typer.Option(help="Where its data goes; an earlier demo's is removed.")] = Path(
        ".tidegate/demo"
    ),
    as_json: AsJson = False,
) -> None:
    """Watch three tenants in three zones being kept in sync: a week passes in about a minute.

    An embedded PostgreSQL, a sandbox shop for each tenant with orders placed and edited all the time, and the same engine
    as always, on an accelerated clock. Ends with the coverage of every stream and its counts beside the source's.
    """
    from tidegate.cli import logs
    from tidegate.domain.errors import TidegateError

    logs.set_up(as_json=as_json)
    clock: Clock = context.obj
    try:
        finished, found, covered = asyncio.run(_demo(data_dir.absolute(), seconds, clock.now(), as_json=as_json))
    except TidegateError as error:
        fail(error, as_json=as_json)
    except KeyboardInterrupt:
        err().print("\nStopped. Nothing is left running.")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json([_as_json(each) for each in found])
    else:
        _tell(found, covered, data_dir, finished=finished)
    if not finished:
        raise typer.Exit(INTERRUPTED)
    if not all(each.agrees for each in found):
        raise typer.Exit(FAILED)


async def _demo(
    data_dir: Path, seconds: float, ends_at: datetime, *, as_json: bool
) -> tuple[bool, list[Comparison], list[tuple[StreamCoverage, datetime]]]:
    """Run the week; return whether it came to its end, and what the ledger and the tables say then."""
    from tidegate.demo.week import compare, open_week
    from tidegate.engine import queries

    if not as_json:
        err().print("Starting PostgreSQL and three sandbox shops …")
    async with open_week(data_dir, seconds, ends_at) as week:
        finished = await _watch(week, as_json=as_json)
        now = week.parts.clock.now()
        return finished, await compare(week), [(each, now) for each in await queries.coverage(week.parts)]


async def _watch(week: Week, *, as_json: bool) -> bool:
    """Run the engine until the week has passed and all that was due in it is done, or a signal comes."""
    from tidegate.cli.engine_process import handling
    from tidegate.engine.engine import Engine

    interrupted = asyncio.Event()
    engine = Engine(week.parts)
    working = asyncio.create_task(engine.run())
    showing = asyncio.create_task(_show(week) if not as_json else asyncio.sleep(0))
    with handling(interrupted.set):
        passed = asyncio.create_task(_passed(week))
        stopped = asyncio.create_task(interrupted.wait())
        await asyncio.wait({passed, stopped, working}, return_when=asyncio.FIRST_COMPLETED)
        engine.stop()
        await working
        for task in (showing, passed, stopped):
            task.cancel()
        await asyncio.gather(showing, passed, stopped, return_exceptions=True)
    return not interrupted.is_set()


async def _passed(week: Week) -> None:
    """Return once the week is over and nothing that was to start by then is left to do."""
    from tidegate.store import runs

    remaining = (week.ends_at - week.parts.clock.now()).total_seconds()
    await week.parts.clock.sleep(remaining)
    while True:
        outstanding, _ = await runs.outstanding(week.parts.pool, week.ends_at)
        if not outstanding:
            return
        await asyncio.sleep(REFRESH_SECONDS)


async def _show(week: Week) -> None:
    """Keep one screen of what happens: on a terminal live, elsewhere a line every few seconds."""
    from rich.live import Live

    console = err()
    if not console.is_terminal:
        while True:
            await asyncio.sleep(SLOW_LOOK_SECONDS)
            console.print(await _line(week))
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(await _screen(week), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)


async def _line(week: Week) -> str:
    from tidegate.engine import queries

    runs = await queries.list_runs(week.parts, limit=100_000)
    read = sum(each.run.read_count for each in runs)
    now = week.parts.clock.now()
    return f"{now:%a %d %b %H:%M} UTC: {len(runs)} runs, {read:,} records read"


async def _screen(week: Week) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    from tidegate.engine import queries

    now = week.parts.clock.now()
    streams = await queries.status(week.parts)
    runs = await queries.list_runs(week.parts, limit=100_000)
    read = sum(each.run.read_count for each in runs)
    passed = (now - week.begins_at) / (week.ends_at - week.begins_at)
    head = Text.assemble(
        (f"{now:%A %d %B %H:%M} UTC", "bold"), f"   {len(runs)} runs, {read:,} records read   Ctrl-C ends the demo"
    )
    return Group(head, ProgressBar(total=1, completed=passed, width=100), await _table(week, streams))


async def _table(week: Week, streams: list[StreamStatus]) -> Table:
    from rich.table import Table

    from tidegate.demo.week import TENANTS, rows
    from tidegate.domain.zone_data import zone_info

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("tenant", "its schedule", "stream", "covered to (local)", "in the shop", "in the table", "state"):
        table.add_column(heading, justify="right" if heading.startswith("in the") else "left", no_wrap=True)
    tenants = {tenant.id: tenant for tenant in TENANTS}
    last = ""
    for each in streams:
        tenant = tenants[each.tenant_id]
        watermark = each.watermark.astimezone(zone_info(tenant.time_zone)) if each.watermark else None
        held = len(await rows(week.parts, each.tenant_id, each.stream))
        table.add_row(
            tenant.name if tenant.id != last else "",
            f"{tenant.told()}, {tenant.time_zone}" if tenant.id != last else "",
            each.stream,
            f"{watermark:%a %d %b %H:%M}" if watermark else "–",
            f"{week.shops[tenant.id].counts()[each.stream]:,}",
            f"{held:,}",
            str(each.state or "not due yet"),
        )
        last = tenant.id
    return table


def _tell(
    found: list[Comparison], covered: list[tuple[StreamCoverage, datetime]], data_dir: Path, *, finished: bool
) -> None:
    """Print the ledger of every stream, its counts beside the source's, and what to type next."""
    from rich.table import Table

    from tidegate.cli.coverage import bar, coloured
    from tidegate.cli.output import instant

    console = out()
    console.print("The week is over.\n" if finished else "Stopped before the week was over.\n", style="bold")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("stream", "coverage, from its start to now", "covered to"):
        table.add_column(heading, no_wrap=True)
    for heading in ("source, due", "missing", "table", "early"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each, (coverage, now) in zip(found, covered, strict=True):
        table.add_row(
            f"{each.tenant_id} {each.stream}",
            coloured(bar(coverage, now, BAR_CELLS)),
            instant(each.watermark),
            f"{each.due:,}",
            f"{each.missing:,}",
            f"{each.rows:,}",
            f"{each.rows - each.due + each.missing:,}",
        )
    console.print(table)
    due, missing = sum(each.due for each in found), sum(each.missing for each in found)
    console.print(
        f"\nOf {due:,} records that changed in a covered period, {missing:,} are missing in the tables. "
        "Early ones changed since and were seen anyway."
    )
    console.print("\nNow look at it yourself (the shops are closed, the data is still there):", style="bold")
    looks = (
        "coverage harbour --links",
        "runs --limit 10",
        'query "select tenant_id, name, email, _tidegate_cursor as changed_at from shopify_orders limit 5"',
        "doctor",
    )
    for command in looks:
        console.print(f"  TIDEGATE_DATA_DIR={data_dir} .venv/bin/tidegate {command}", markup=False)
    console.print("Then sync something of your own: docs/guides/first-sync.md", markup=False)


def _as_json(each: Comparison) -> dict[str, object]:
    return {
        "tenant_id": each.tenant_id,
        "stream": each.stream,
        "watermark": each.watermark,
        "source_due": each.due,
        "missing": each.missing,
        "table_rows": each.rows,
    }
