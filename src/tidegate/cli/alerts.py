"""`tidegate alerts`: what a person should look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, instant, out, print_json
from tidegate.cli.process import with_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tidegate.engine.parts import Parts
    from tidegate.store.alerts import Alert

app = typer.Typer()


@app.command()
def alerts(
    tenant: Annotated[str, typer.Option(metavar="TENANT", help="Only this tenant's.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, open ones first, newest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List what a person should look at, each with its remedy; an alert resolves when its cause is gone."""

    async def work(parts: Parts) -> list[Alert]:
        from tidegate.engine import queries

        return await queries.list_alerts(parts, tenant or None, resolved=everything, limit=limit)

    found = with_parts(work, as_json=as_json)
    if as_json:
        print_json(found)
    elif not found:
        out().print("No alerts.")
    else:
        out().print(table_of(found))


def table_of(found: Sequence[Alert]) -> Table:
    """Return the table of alerts."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("alert", "kind", "raised", "resolved", "what", "what to do"):
        table.add_column(heading, overflow="fold")
    for each in found:
        table.add_row(
            str(each.id),
            each.kind.replace("_", " "),
            instant(each.raised_at),
            instant(each.resolved_at),
            escape(each.message),
            escape(each.remedy),
            style="dim" if each.resolved_at else "red" if each.severity == "critical" else "yellow",
        )
    return table
