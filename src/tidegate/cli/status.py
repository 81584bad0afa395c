"""`tidegate status`: where every stream stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, humanised, instant, out, print_json
from tidegate.cli.process import with_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tidegate.engine.parts import Parts
    from tidegate.engine.queries import StreamStatus

app = typer.Typer()


@app.command()
def status(
    tenant: Annotated[str, typer.Option(metavar="TENANT", help="Only this tenant.")] = "", as_json: AsJson = False
) -> None:
    """Show per stream: covered to when, how stale, next due when, and what is due but not covered and why."""

    async def work(parts: Parts) -> list[StreamStatus]:
        from tidegate.engine import queries

        return await queries.status(parts, tenant or None)

    found = with_parts(work, as_json=as_json)
    if as_json:
        print_json(found)
    elif not found:
        out().print("Nothing is installed yet: `tidegate apply -f FILE`.")
    else:
        out().print(table_of(found))


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
            escape(f"paused: {each.paused_reason}") if each.paused else instant(each.next_due_at),
            each.state or "–",
            escape(_uncovered(each)),
            style="dim" if each.paused else "yellow" if each.uncovered else None,
        )
    return table


def _uncovered(each: StreamStatus) -> str:
    if each.uncovered is None:
        return "nothing"
    planned = each.uncovered.planned_at
    when = f"; planned for {instant(planned)}" if planned else ""
    return f"{instant(each.uncovered.start)} to {instant(each.uncovered.end)}: {each.uncovered.reason}{when}"
