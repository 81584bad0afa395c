"""`tidegate up`: the engine in the foreground, with a screen of what it does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from tidegate.cli.metrics import LOOPBACK, MetricsHost, MetricsPort, probed, watched_by_probes
from tidegate.cli.output import AsJson, err, instant
from tidegate.cli.process import with_parts
from tidegate.domain.duration import humanised

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType

    from tidegate.bootstrap import Options
    from tidegate.engine.parts import Parts
    from tidegate.signals.probes import Probes

app = typer.Typer()
REFRESH_SECONDS = 1.0
SHOWN_RUNS = 8


@app.command()
def up(metrics_port: MetricsPort = None, metrics_host: MetricsHost = LOOPBACK, as_json: AsJson = False) -> None:
    """Keep everything in sync until you press Ctrl-C.

    Uses the database at TIDEGATE_DATABASE_URL, or an embedded one in the data directory. SIGTERM and the first Ctrl-C
    end it gracefully, the second Ctrl-C at once.
    """
    from tidegate.bootstrap import from_environment
    from tidegate.domain.errors import InvalidInput

    try:
        options = from_environment()
    except InvalidInput as error:
        from tidegate.cli.output import fail

        fail(error, as_json=as_json)
    screen = sys.stderr.isatty() and not as_json
    options, probes = watched_by_probes(options, metrics_port)

    async def work(parts: Parts) -> None:
        async with probed(probes, parts, metrics_host, metrics_port) as port:
            await _up(parts, options, probes, port, screen=screen)

    with_parts(work, as_json=as_json, options=options, fast=True)


async def _up(parts: Parts, options: Options, probes: Probes | None, port: int | None, *, screen: bool) -> None:
    import structlog

    from tidegate.cli.engine_process import serve
    from tidegate.engine.engine import Engine

    log = structlog.get_logger()
    where = where_data_is(options)
    engine = Engine(parts)
    if screen:
        console = err()
        await serve(engine, _screen(parts, where, console), console.print, probes)
        console.print("Stopped.")
    else:
        log.info("up", data=where, worker=parts.worker, slots=parts.settings.slots, metrics_port=port)
        await serve(engine, _nothing(), lambda text: log.info("stopping", note=text), probes)
        log.info("stopped")


def where_data_is(options: Options) -> str:
    """Return where the data is, for people; never with a password."""
    if options.database_url:
        return options.mask.text(options.database_url)
    return f"{_short(options.data_dir)} (embedded PostgreSQL)"


def _short(path: Path) -> str:
    from pathlib import Path

    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


async def _nothing() -> None:
    """Show nothing."""


async def _screen(parts: Parts, where: str, console: Console) -> None:
    """Keep a status of one screen at the terminal's end until cancelled; log lines scroll above it."""
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            live.update(await _status(parts, where), refresh=True)
            await parts.clock.sleep(REFRESH_SECONDS)


async def _status(parts: Parts, where: str) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from tidegate.cli.runs import table_of
    from tidegate.engine import queries
    from tidegate.store import fleet, schedules

    now = parts.clock.now()
    standing = await fleet.standing(parts.pool, now)
    next_due_at = await schedules.next_due_at(parts.pool)
    recent = await queries.list_runs(parts, limit=SHOWN_RUNS)
    coming = "nothing is scheduled" if next_due_at is None else f"next due {instant(next_due_at)}"
    if next_due_at is not None and next_due_at > now:
        coming += f", in {humanised((next_due_at - now).total_seconds())}"
    lines: list[RenderableType] = [
        Text(f"Tidegate is up at {instant(now)}. Data: {where}", style="bold"),
        Text(f"{standing.running} running, {standing.queued} queued, {standing.ready} waiting; {coming}"),
    ]
    if recent:
        lines += [Text(), table_of(recent)]
    hint = "In another terminal: tidegate status · runs · coverage" if recent or next_due_at else _FIRST
    return Group(*lines, Text(), Text(f"{hint} · Ctrl-C stops", style="dim"))


_FIRST = "Nothing is installed yet. In another terminal: tidegate apply -f FILE"
