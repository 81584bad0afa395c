"""`tidegate apply`: make the database what the configuration says."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, fail, instant, out, print_json
from tidegate.cli.process import with_parts
from tidegate.domain.duration import humanised
from tidegate.domain.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

    from tidegate.engine.changes import Bridge, Change, FieldChange, Outcome
    from tidegate.engine.document import DocumentFile
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
    from tidegate.engine.configuration import read_file

    try:
        files = [read_file(path) for path in file]
    except InvalidInput as error:
        fail(error, as_json=as_json)
    asks = not (yes or dry_run or as_json) and sys.stdin.isatty()
    outcome = with_parts(lambda parts: _apply(parts, files, dry_run=dry_run, asks=asks), as_json=as_json)
    if as_json:
        print_json(outcome)
    elif not asks:
        show(outcome, out())
    if not as_json and outcome.applied and outcome.changes:
        out().print("Applied. `tidegate status` shows what is due when; `tidegate up` keeps it in sync.")


async def _apply(parts: Parts, files: list[DocumentFile], *, dry_run: bool, asks: bool) -> Outcome:
    from tidegate.engine import applying, configuration

    wanted = await configuration.load(files, os.environ, parts)
    if not asks:
        return await applying.apply(parts, wanted, dry_run=dry_run)
    shown = await applying.apply(parts, wanted, dry_run=True)
    show(shown, out())
    if not shown.changes:
        return shown
    if not typer.confirm("Apply these changes?"):
        out().print("Nothing was changed.")
        return shown
    return await applying.apply(parts, wanted, expected=shown)


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
    dropped = f", {bridge.dropped} waiting runs are planned anew" if bridge.dropped else ""
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
