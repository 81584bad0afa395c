"""`tidegate status`: where every stream stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, instant, out, print_json
from tidegate.cli.process import with_parts
from tidegate.domain.duration import humanised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tidegate.engine.parts import Parts
    from tidegate.engine.queries import StreamStatus, Summary, UncoveredStretch

app = typer.Typer()


@app.command()
def status(
    tenant: Annotated[str, typer.Option(metavar="TENANT", help="Only this tenant.")] = "",
    only_summary: Annotated[bool, typer.Option("--summary", help="Only the sum: how many wait for what.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show per stream: covered to when, how stale, next due when, what is due but not covered and why; and the sum."""

    async def work(parts: Parts) -> tuple[list[StreamStatus], Summary]:
        from tidegate.engine import queries

        found = [] if only_summary else await queries.status(parts, tenant or None)
        return found, await queries.summary(parts, tenant or None)

    found, summary = with_parts(work, as_json=as_json)
    if as_json:
        print_json(summary if only_summary else found)
    elif not summary.streams and not found:
        out().print("Nothing is installed yet: `tidegate apply -f FILE`.")
    else:
        if found:
            out().print(table_of(found))
            out().print()
        for line in lines_of(summary):
            out().print(line, markup=False)


def lines_of(summary: Summary) -> list[str]:
    """Return the sum in words: how many streams, what due runs wait for, the worst lag and staleness, open alerts."""
    counts = [f"{summary.streams:,} streams"]
    counts += [f"{summary.paused:,} paused"] if summary.paused else []
    counts += [f"{summary.nothing_covered_yet:,} not covered at all yet"] if summary.nothing_covered_yet else []
    counts += [f"worst staleness {humanised(summary.worst_staleness_seconds)}"]
    lines = [", ".join(counts), *waiting_lines(summary)]
    if summary.waiting:
        lines.append(f"worst lag of what waits {humanised(summary.worst_lag_seconds)}")
    if summary.open_alerts:
        lines.append(f"{summary.open_alerts:,} open alerts: `tidegate alerts`")
    return lines


def waiting_lines(summary: Summary) -> list[str]:
    """Return for what due runs wait, a line for each reason."""
    return [
        f"{each.runs:,} due wait: {each.reason.replace('_', ' ')}, the oldest due {instant(each.oldest_due_at)}"
        for each in summary.waiting
    ]


def table_of(found: Sequence[StreamStatus]) -> Table:
    """Return the table of where streams stand."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("installation", "stream", "covered to", "staleness", "next due", "last run", "due but not covered"):
        table.add_column(heading, overflow="fold")
    for each in found:
        table.add_row(
            escape(f"{each.tenant_id}/{each.installation}"),
            escape(each.stream),
            instant(each.watermark, "nothing yet"),
            humanised(each.staleness_seconds),
            escape(_next_due(each)),
            each.state or "–",
            escape(_uncovered(each)),
            style="dim" if each.paused or each.retired else "yellow" if each.uncovered or each.in_front else None,
        )
    return table


def _next_due(each: StreamStatus) -> str:
    if each.retired:
        return f"retired ({each.account})"
    return f"paused: {each.paused_reason}" if each.paused else instant(each.next_due_at)


def _uncovered(each: StreamStatus) -> str:
    return "\n".join(_stretch(found) for found in (each.in_front, each.uncovered) if found) or "nothing"


def _stretch(found: UncoveredStretch) -> str:
    when = f"; planned for {instant(found.planned_at)}" if found.planned_at else ""
    return f"{instant(found.start)} to {instant(found.end)}: {found.reason}{when}"
