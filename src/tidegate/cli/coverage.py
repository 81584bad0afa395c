"""`tidegate coverage`: each stream's ledger, drawn."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, fail, instant, out, print_json, split_installation
from tidegate.cli.process import with_parts
from tidegate.domain.coverage import LinkKind
from tidegate.domain.errors import InvalidInput

if TYPE_CHECKING:
    from datetime import datetime

    from rich.text import Text

    from tidegate.engine.parts import Parts
    from tidegate.engine.queries import StreamCoverage

app = typer.Typer()
BAR_CELLS = 60
COVERED, WAIVED, UNCOVERED, NOT_DUE = "█", "▒", "·", " "
COLOURS = {COVERED: "green", WAIVED: "yellow", UNCOVERED: "red"}


@app.command()
def coverage(
    of: Annotated[str, typer.Argument(metavar="[TENANT[/INSTALLATION]]", help="Whose; default: all.")] = "",
    links: Annotated[bool, typer.Option("--links", help="List every period of the ledger too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw what is covered, waived, and due but not covered, from each stream's start to now."""
    try:
        tenant_id, installation = split_installation(of, whole=False) if of else (None, None)
    except InvalidInput as error:
        fail(error, as_json=as_json)

    async def work(parts: Parts) -> tuple[list[StreamCoverage], datetime]:
        from tidegate.engine import queries

        return await queries.coverage(parts, tenant_id, installation, with_links=links), parts.clock.now()

    found, now = with_parts(work, as_json=as_json)
    if as_json:
        print_json([_as_json(each, links=links) for each in found])
    elif not found:
        out().print("Nothing is installed yet: `tidegate apply -f FILE`.")
    else:
        _draw(found, now, links=links)


def _as_json(each: StreamCoverage, *, links: bool) -> dict[str, object]:
    chain = each.chain
    uncovered, in_front = each.uncovered, each.in_front
    document: dict[str, object] = {
        "tenant_id": chain.tenant_id,
        "installation": chain.installation,
        "stream": chain.stream,
        "account": chain.account,
        "retired": chain.retired,
        "start_at": chain.start_at,
        "watermark": chain.watermark,
        "link_count": each.link_count,
        "dead_records": each.dead_records,
        "stretches": [
            {"kind": s.kind, "period": s.period, "links": s.links, "records": s.records, "reason": s.reason}
            for s in each.stretches
        ],
        "uncovered": None if uncovered is None else {"period": uncovered.period, "reason": uncovered.reason},
        "in_front": None if in_front is None else {"period": in_front.period, "reason": in_front.reason},
    }
    return document | ({"links": each.links} if links else {})


def _draw(found: list[StreamCoverage], now: datetime, *, links: bool) -> None:
    console = out()
    for each in found:
        chain = each.chain
        console.print(
            f"{chain.tenant_id}/{chain.installation} {chain.stream} ({chain.account})", style="bold", markup=False
        )
        console.print(coloured(bar(each, now)))
        watermark = f"covered to {instant(chain.watermark)}" if chain.watermark else "nothing covered yet"
        retired = ", retired: nothing more is planned" if chain.retired else ""
        count = f"{each.link_count} {'link' if each.link_count == 1 else 'links'}"
        console.print(f" from {instant(chain.start_at)}, {watermark}, {count}{retired}", markup=False)
        if each.dead_records:
            see = "`tidegate webhook list --state dead --state dropped`"
            console.print(f" not acknowledged: {each.dead_records:,} records, see {see}")
        for missing in (each.in_front, each.uncovered):
            if missing:
                period = missing.period
                told = f" due but not covered: {instant(period.start)} to {instant(period.end)}: {missing.reason}"
                console.print(told, markup=False)
        for link in each.links if links else ():
            by = f"run {link.run_id}, {link.records:,} records" if link.kind is LinkKind.COVERED else link.reason
            span = f"{instant(link.period.start)} to {instant(link.period.end)}"
            console.print(f"   {link.kind:8} {span}  {by}", markup=False)
    console.print(f"{COVERED} covered  {WAIVED} waived  {UNCOVERED} due but not covered", style="dim")


def bar(each: StreamCoverage, now: datetime, cells: int = BAR_CELLS) -> str:
    """Return one stream's ledger from its start to ``now`` as ``cells`` characters.

    A cell shows the worst of what it stands for: due but not covered, then waived, then covered; else it is not due yet.
    """
    start = each.chain.start_at
    end = max(now, each.chain.watermark or now, start + timedelta(seconds=1))
    width = (end - start) / cells
    return "".join(_cell(each, start + width * index, start + width * (index + 1)) for index in range(cells))


def _cell(each: StreamCoverage, start: datetime, end: datetime) -> str:
    missing = [m.period for m in (each.in_front, each.uncovered) if m]
    if any(period.start < end and start < period.end for period in missing):
        return UNCOVERED
    inside = [s for s in each.stretches if s.period.start < end and start < s.period.end]
    if any(s.kind is LinkKind.WAIVED for s in inside):
        return WAIVED
    return COVERED if inside else NOT_DUE


def coloured(cells: str) -> Text:
    """Return a bar between its ends, in colour."""
    from rich.text import Text

    text = Text(" ▕")
    for cell in cells:
        text.append(cell, style=COLOURS.get(cell))
    return text.append("▏")
