"""`tidegate waive`: say that a stretch need not be fetched, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, OfInstallation, fail, instant, out, print_json, split_installation
from tidegate.cli.process import with_parts
from tidegate.domain.errors import InvalidInput

if TYPE_CHECKING:
    from tidegate.domain.period import Period
    from tidegate.engine.parts import Parts

app = typer.Typer()


@app.command()
def waive(
    installation: OfInstallation,
    stream: Annotated[str, typer.Argument(metavar="STREAM")],
    until: Annotated[str, typer.Option(metavar="T", help="End of what is waived, an instant; not in the future.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the ledger.")],
    as_json: AsJson = False,
) -> None:
    """Waive a stream from where it is covered up to an instant: it is not fetched, and the next period starts there.

    For days that were booked by hand. A backfill can cover them later.
    """
    from tidegate.domain.schedule_document import parse_instant

    try:
        tenant_id, name = split_installation(installation)
        end = parse_instant(until, "--until")
    except InvalidInput as error:
        fail(error, as_json=as_json)

    async def work(parts: Parts) -> Period:
        from tidegate.engine.commands import waiving

        return await waiving.waive(parts, tenant_id, name or "", stream, end, reason)

    period = with_parts(work, as_json=as_json)
    if as_json:
        print_json({"installation": installation, "stream": stream, "waived": period, "reason": reason})
    else:
        span = f"{instant(period.start)} to {instant(period.end)}"
        out().print(f"Waived {installation} {stream}: {span}; the next period starts there.", markup=False)
