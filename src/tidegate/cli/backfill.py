"""`tidegate backfill`: a past range of a stream, fetched and delivered again or for the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, OfInstallation, fail, instant, out, print_json, split_installation
from tidegate.cli.process import with_parts
from tidegate.domain.errors import InvalidInput

if TYPE_CHECKING:
    from tidegate.domain.period import Period
    from tidegate.engine.commands.backfilling import Backfill
    from tidegate.engine.parts import Parts

app = typer.Typer()


@app.command()
def backfill(
    installation: OfInstallation,
    stream: Annotated[str, typer.Argument(metavar="STREAM")],
    start: Annotated[str, typer.Option("--from", metavar="T", help="Begin of the range, an instant.")],
    end: Annotated[str, typer.Option("--to", metavar="T", help="Its end, not included.")],
    as_json: AsJson = False,
) -> None:
    """Request a backfill: inside what is covered, or adjoining in front of it. Scheduled runs go first.

    Executed by `tidegate up`, workers or the next `tidegate tick`; `tidegate runs` shows it.
    """
    from tidegate.domain.schedule_document import parse_instant

    try:
        tenant_id, name = split_installation(installation)
        begin, until = parse_instant(start, "--from"), parse_instant(end, "--to")
    except InvalidInput as error:
        fail(error, as_json=as_json)

    async def work(parts: Parts) -> Backfill:
        from tidegate.engine.commands import backfilling

        return await backfilling.request_backfill(parts, tenant_id, name or "", stream, begin, until)

    asked = with_parts(work, as_json=as_json)
    if as_json:
        print_json(asked)
        return
    out().print(f"Run {asked.run_id} backfills {installation} {stream}: {_span(asked.period)}.", markup=False)
    if asked.in_front:
        out().print(f"  It extends the coverage to the front: {_span(asked.in_front)}.", markup=False)
    for period in asked.waived:
        out().print(f"  It covers what was waived: {_span(period)}.", markup=False)
    if not asked.in_front and not asked.waived:
        out().print("  All of it is covered already: the ledger does not change.")


def _span(period: Period) -> str:
    return f"{instant(period.start)} to {instant(period.end)}"
