"""`tidegate schedule`: what a schedule's due dates and periods will be, before anything runs (SPEC 8).

The root command mounts `app` and puts the composition root's Clock into the context's ``obj``; it is read only
where the arguments leave the present open.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, fail, out
from tidegate.domain.duration import render_duration
from tidegate.domain.errors import InvalidInput
from tidegate.domain.instant import render_instant

if TYPE_CHECKING:
    from tidegate.domain.clock import Clock
    from tidegate.domain.schedule import Preview, Schedule
    from tidegate.domain.zone import ClockChange, Zone

MOST = 10_000
DAY = timedelta(days=1)

app = typer.Typer(no_args_is_help=True)


@app.callback()
def schedule() -> None:
    """Look at schedules."""


@app.command("preview")
def preview_command(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON or YAML, or - for standard input.")],
    received_at: Annotated[str, typer.Option(metavar="T", help="Instant of receipt; default: --now.")] = "",
    now: Annotated[str, typer.Option(metavar="T", help="What is due by then is marked; default: the present.")] = "",
    count: Annotated[int, typer.Option(metavar="N", help=f"How many due dates, 1 to {MOST}.")] = 10,
    stream: Annotated[str, typer.Option(metavar="NAME", help="Of an installation: this stream's schedule.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show the due dates to come and their periods, each as if the one before had succeeded. Changes nothing."""
    try:
        _preview(context.obj, _schedule_in(_read(file), stream), received_at, now, count, as_json=as_json)
    except InvalidInput as error:
        fail(error, as_json=as_json)


def _preview(clock: Clock, rule: object, received_text: str, now_text: str, count: int, *, as_json: bool) -> None:
    from tidegate.domain.schedule import preview
    from tidegate.domain.schedule_document import parse_instant, parse_schedule

    if not 1 <= count <= MOST:
        raise InvalidInput("--count", count, f"is not between 1 and {MOST}", "Ask for fewer due dates at a time.")
    parsed = parse_schedule(rule)
    now = parse_instant(now_text, "--now") if now_text else None
    if now is None and not (as_json and received_text):
        now = clock.now()
    received_at = parse_instant(received_text, "--received-at") if received_text else now
    assert received_at is not None
    found = preview(parsed, received_at, count)
    if as_json:
        typer.echo(json.dumps([_as_json(each) for each in found], indent=2))
    else:
        assert now is not None
        _print_table(found, parsed, now)


def _as_json(each: Preview) -> dict[str, object]:
    period = {"start": render_instant(each.period.start), "end": render_instant(each.period.end)}
    return {"due_at": render_instant(each.due_at), "period": period}


def _read(file: str) -> object:
    """Return what FILE holds. Raises InvalidInput."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not text"
        raise InvalidInput("FILE", file, f"cannot be read: {reason}", "Give a JSON or YAML file.") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _read_yaml(text, file)


def _read_yaml(text: str, file: str) -> object:
    import yaml

    from tidegate.domain import plain_yaml

    try:
        return plain_yaml.read(plain_yaml.compose(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else f" ({error})" if isinstance(error, ValueError) else ""
        raise InvalidInput("FILE", file, f"is neither JSON nor YAML{where}", "Correct its syntax.") from error


def _schedule_in(document: object, stream: str) -> object:
    """Return the schedule in a document: of an installation the stream's own, if it has one. Raises InvalidInput."""
    written = document if isinstance(document, dict) else {}
    if not stream:
        return written.get("schedule", document)
    streams = written.get("streams")
    if not isinstance(streams, (dict, list)) or stream not in streams:
        known = ", ".join(map(str, streams)) if isinstance(streams, (dict, list)) else ""
        remedy = f"It has: {known}." if known else "Give a file with `streams:` and `schedule:`."
        raise InvalidInput("--stream", stream, "is not a stream of this installation", remedy)
    own = streams[stream] if isinstance(streams, dict) else None
    found = own.get("schedule") if isinstance(own, dict) else None
    return written.get("schedule") if found is None else found


def _print_table(found: Sequence[Preview], parsed: Schedule, now: datetime) -> None:
    from rich.table import Table

    from tidegate.domain.zone import find_zone

    zone = find_zone(parsed.time_zone)
    table = Table(caption="● due by now" if any(each.due_at <= now for each in found) else None)
    for heading in ("", "due (UTC)", f"due ({zone.name})", "period starts (UTC)", "lasts", "notes"):
        table.add_column(heading, no_wrap=heading != "notes")
    for each in found:
        table.add_row(
            "●" if each.due_at <= now else "",
            _minutes(each.due_at.replace(tzinfo=None)),
            _minutes(zone.local(each.due_at)),
            _minutes(each.period.start.replace(tzinfo=None)),
            _lasts(each.period.duration),
            "\n".join(_notes(each, zone, parsed)),
        )
    out().print(table if found else "Nothing is due before the year 2400, where the calendar ends.")


def _minutes(wall: datetime) -> str:
    return wall.isoformat(" ", timespec="minutes" if not wall.second else "seconds")


def _lasts(duration: timedelta) -> str:
    rest = render_duration(duration % DAY)
    return rest if duration < DAY else f"{duration.days} d" if not duration % DAY else f"{duration.days} d {rest}"


def _notes(each: Preview, zone: Zone, parsed: Schedule) -> list[str]:
    """Return what clock changes did to the period, and to its due date."""
    changes = zone.clock_changes(each.period.start, each.due_at)
    if len(changes) > 2:
        return [f"{len(changes)} clock changes", *_due_notes(each.due_at, zone, parsed)]
    shown = [_change(change, each) for change in changes if change.forward_by < DAY]
    return shown + _due_notes(each.due_at, zone, parsed)


def _change(change: ClockChange, each: Preview) -> str:
    forward = change.forward_by > timedelta(0)
    note = f"clocks go {'forward' if forward else 'back'} {change.wall_before:%H:%M}→{change.wall_after:%H:%M}"
    one_day = each.period.duration - DAY == -change.forward_by
    return f"{note}: {_hours(each.period.duration)} h day" if one_day else note


def _hours(duration: timedelta) -> str:
    return f"{duration / timedelta(hours=1):g}"


def _due_notes(due_at: datetime, zone: Zone, parsed: Schedule) -> list[str]:
    """Return why the due date is not simply the one instant with its wall time (SPEC 2.4)."""
    from tidegate.domain.recurrence import Every

    if isinstance(parsed.recurrence, Every):
        return []
    wall = zone.local(due_at)
    notes = []
    for change in zone.clock_changes(due_at - DAY, due_at + DAY):
        gap = change.forward_by
        wanted = wall - gap
        if gap >= DAY and wall - change.wall_after < DAY:
            notes.append(f"{change.wall_before.date()} does not exist here and has no due date")
        elif change.wall_before <= wanted < change.wall_after <= wall and _falls_on(wanted, parsed):
            notes.append(f"{wanted:%H:%M} does not exist that day, so {wall:%H:%M}")
        if change.wall_after <= wall < change.wall_before and due_at < change.at:
            notes.append(f"{wall:%H:%M} occurs twice, this is the first")
    return notes


def _falls_on(wall: datetime, parsed: Schedule) -> bool:
    from tidegate.domain.recurrence import Cron

    second = wall.hour * 3600 + wall.minute * 60
    times = parsed.recurrence.times if isinstance(parsed.recurrence, Cron) else (parsed.sync_hour * 3600,)
    return second in times
