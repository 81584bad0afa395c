"""`tidegate query`: look at the records, wherever Tidegate's own database is."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidegate.cli.output import AsJson, err, fail, instant, out, print_json
from tidegate.cli.process import with_parts
from tidegate.domain.errors import InvalidInput
from tidegate.domain.http_reply import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidegate.engine.parts import Parts
    from tidegate.store.reading import Answer

app = typer.Typer()
LONGEST_SECONDS = 300
GAP = 2
"""Blanks between columns."""


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="[SQL]", help="One SELECT, or - for standard input.")] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="Rows at most.")] = 100,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, max=LONGEST_SECONDS, help="How long it may take.")
    ] = 30,
    as_json: AsJson = False,
) -> None:
    """Show what a SELECT finds in Tidegate's own database; without SQL, the tables there are. Changes nothing.

    Tables need no schema before their names. Exit code 2 if PostgreSQL refuses the statement, 1 if it takes too long.
    """
    statement = sys.stdin.read() if sql == "-" else sql

    async def work(parts: Parts) -> Answer:
        from tidegate.engine import records

        return await records.query(parts, statement, seconds=timeout, most=limit)

    found = with_parts(work, as_json=as_json)
    if as_json:
        print_json({"rows": _objects(found, statement), "more": found.more})
        return
    _show(found)
    if found.more:
        err().print(f"There are more than these {limit:,} rows: --limit N shows more.")


def _objects(found: Answer, statement: str) -> list[dict[str, Any]]:
    """Return the rows as objects; ends with 2 where two columns have one name."""
    twice = next((name for name in found.columns if found.columns.count(name) > 1), None)
    if twice is not None:
        error = InvalidInput("SQL", statement, f"returns two columns named {twice!r}", "Name them apart with AS.")
        fail(error, as_json=True)
    return [dict(zip(found.columns, map(_plain, row), strict=True)) for row in found.rows]


def _plain(value: object) -> object:
    """Return a value that JSON can hold; types of PostgreSQL that it does not know become text."""
    import msgspec

    try:
        return msgspec.to_builtins(value)
    except TypeError:
        return str(value)


def _show(found: Answer) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not found.rows:
        out().print(
            "No rows." if found.columns != ("table", "columns") else "No tables yet: nothing was delivered here."
        )
        return
    cells = [[_cell(value) for value in row] for row in found.rows]
    widths = [max(map(len, column)) for column in zip(found.columns, *cells, strict=True)]
    if sum(widths) + GAP * len(widths) > out().width:
        _show_one_by_one(found.columns, cells)
        return
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for at, name in enumerate(found.columns):
        number = all(isinstance(row[at], int | float) for row in found.rows)
        table.add_column(escape(name), justify="right" if number else "left")
    for row in cells:
        table.add_row(*map(escape, row))
    out().print(table)


def _show_one_by_one(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Print each row by itself, a line for each column: for rows that are wider than the screen."""
    from rich.markup import escape
    from rich.table import Table

    for number, row in enumerate(cells, 1):
        out().print(f"row {number}", style="dim")
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, cell in zip(columns, row, strict=True):
            table.add_row(escape(name), escape(cell))
        out().print(table)


def _cell(value: object) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return instant(value)
    if value is None:
        return "–"
    if isinstance(value, dict | list | bool):
        import msgspec

        return printable(msgspec.json.encode(value).decode())
    return printable(str(value))
