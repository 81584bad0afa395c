"""`tidegate apply`: make the database what the configuration says."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, fail, instant, out, print_json
from tidegate.cli.process import interrupted, with_parts
from tidegate.domain.duration import humanised
from tidegate.domain.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

    from tidegate.engine.configuring.changes import Bridge, Change, FieldChange, Outcome
    from tidegate.engine.configuring.document import DocumentFile
    from tidegate.engine.parts import Parts

app = typer.Typer()
MARKS = {"added": ("+", "green"), "changed": ("~", "yellow"), "retired": ("-", "red")}
MOST_NAMES = 10


@app.command()
def apply(
    file: Annotated[list[Path], typer.Option("--file", "-f", metavar="FILE", help="A YAML file; repeatable.")],
    dry_run: Annotated[bool, typer.Option(help="Show what would change, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before changing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make tenants, connections, destinations and installations what the files say.

    All or nothing, in one transaction; applying again changes nothing. What the files do not name is left alone. At a
    terminal it asks first.
    """
    from tidegate.engine.configuring.configuration import read_file

    try:
        files = [read_file(path) for path in file]
    except InvalidInput as error:
        fail(error, as_json=as_json)
    asks = not (yes or dry_run or as_json) and sys.stdin.isatty()
    outcome = _applied(files, dry_run=dry_run or asks, as_json=as_json)
    if as_json:
        print_json(outcome)
        return
    show(outcome, out())
    if asks and outcome.changes:
        if not _agreed():
            out().print("Nothing was changed.")
            return
        outcome = _applied(files, expected=outcome, as_json=as_json)
    if outcome.applied and outcome.changes:
        out().print("Applied. `tidegate status` shows what is due when; `tidegate up` keeps it in sync.")


def _agreed() -> bool:
    """Return whether a person wants these changes. Asks outside the event loop, which would keep Ctrl-C to itself."""
    try:
        return typer.confirm("Apply these changes?")
    except typer.Abort:
        interrupted()


def _applied(
    files: list[DocumentFile], *, dry_run: bool = False, expected: Outcome | None = None, as_json: bool
) -> Outcome:
    """Return what applying changes; ``expected``: what was shown, without which nothing is changed."""

    async def work(parts: Parts) -> Outcome:
        from tidegate.engine.configuring import applying, configuration

        wanted = await configuration.load(files, os.environ, parts)
        return await applying.apply(parts, wanted, dry_run=dry_run, expected=expected)

    return with_parts(work, as_json=as_json)


def show(outcome: Outcome, console: Console) -> None:
    """Print an outcome: added, changed field by field, retired; then warnings and what was left alone."""
    for change in outcome.changes:
        _show_change(change, console)
    if not outcome.changes:
        console.print("Nothing to change.")
    for bridge in outcome.bridges:
        _show_bridge(bridge, console)
    for warning in outcome.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)
    if outcome.left_alone:
        names = ", ".join(outcome.left_alone[:MOST_NAMES])
        more = len(outcome.left_alone) - MOST_NAMES
        console.print(
            f"Left alone, not in these files: {names}{f' and {more} more' if more > 0 else ''}.", markup=False
        )


def _show_change(change: Change, console: Console) -> None:
    mark, colour = MARKS[change.action]
    streams = f" ({', '.join(change.streams)})" if change.streams else ""
    note = ": no longer planned, its coverage stays" if change.action == "retired" else ""
    console.print(f"{mark} {change.kind} {change.name}{streams}{note}", style=colour, markup=False)
    if change.action != "retired":
        for field in change.fields:
            console.print(f"    {_field(field, added=change.action == 'added')}", markup=False)


def _show_bridge(bridge: Bridge, console: Console) -> None:
    """Print how a stream whose rule changes goes on, before it is saved (SPEC 2.10)."""
    watermark = f"covered to {instant(bridge.watermark)}" if bridge.watermark else "nothing covered yet"
    runs = "1 waiting run is" if bridge.dropped == 1 else f"{bridge.dropped} waiting runs are"
    dropped = f", {runs} planned anew" if bridge.dropped else ""
    console.print(f"  {bridge.installation} {bridge.stream}: {watermark}{dropped}", markup=False)
    if bridge.in_front:
        span = f"{instant(bridge.in_front.start)} to {instant(bridge.in_front.end)}"
        console.print(f"    backfill in front of what is covered: {span}", markup=False)
    console.print(f"    next due {instant(bridge.next_due_at, 'never')}", markup=False)
    if bridge.period:
        span = f"{instant(bridge.period.start)} to {instant(bridge.period.end)}"
        console.print(f"    its period {span}, {humanised(bridge.period.duration.total_seconds())}", markup=False)


def _field(field: FieldChange, *, added: bool) -> str:
    if field.field.startswith("secrets"):
        return f"{field.field}: {field.after}"
    if added:
        return f"{field.field}: {_value(field.after)}"
    return f"{field.field}: {_value(field.before)} → {_value(field.after)}"


def _value(value: object) -> str:
    import msgspec

    if value is None:
        return "(none)"
    return value if isinstance(value, str) and value else msgspec.json.encode(value).decode()
