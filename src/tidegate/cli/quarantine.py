"""`tidegate quarantine`: records that could not be delivered: list, show, retry, drop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, fail, instant, out, print_json, split_installation
from tidegate.cli.process import exit_unless, with_parts
from tidegate.domain.errors import InvalidInput
from tidegate.domain.http_reply import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tidegate.engine.commands.quarantine import Retried, Shown
    from tidegate.engine.parts import Parts
    from tidegate.store.quarantine import Chosen, Exit, Kept

app = typer.Typer(no_args_is_help=True)
MOST_SHOWN = 4000
"""Characters of a record shown at a terminal; --json shows all."""

OfTenant = Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Only this tenant's.")]
OfInstallation = Annotated[
    str, typer.Option("--installation", metavar="[TENANT/]INSTALLATION", help="Only this installation's.")
]
OfStream = Annotated[str, typer.Option("--stream", metavar="NAME", help="Only this stream's.")]
OfReason = Annotated[str, typer.Option("--matching", metavar="TEXT", help="Only reasons that contain this.")]
Ids = Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Records by their numbers.")]
By = Annotated[str, typer.Option("--by", metavar="NAME", help="Who does it; default: this computer's user.")]


@app.callback()
def quarantine() -> None:
    """Look at records that could not be delivered, and deliver them again or drop them."""


@app.command("list")
def list_(
    tenant: OfTenant = "",
    installation: OfInstallation = "",
    stream: OfStream = "",
    matching: OfReason = "",
    gone: Annotated[bool, typer.Option("--gone", help="What was delivered or dropped, and by whom.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, oldest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List records in quarantine with their reasons; with --gone, what became of those that were."""

    async def work(parts: Parts) -> tuple[list[Kept], list[Exit]]:
        from tidegate.engine.commands import quarantine

        chosen = _chosen(tenant, installation, stream, matching)
        if gone:
            return [], await quarantine.exits(parts, chosen, limit)
        return await quarantine.listing(parts, chosen, limit), []

    kept, exits = with_parts(work, as_json=as_json)
    if as_json:
        print_json(exits if gone else kept)
    elif not kept and not exits:
        out().print("Nothing was let out." if gone else "The quarantine is empty.")
    else:
        out().print(_table_of_exits(exits) if gone else _table_of(kept))


@app.command()
def show(number: Annotated[int, typer.Argument(metavar="NUMBER")], as_json: AsJson = False) -> None:
    """Show one record as its source sent it, and why it is in quarantine; secrets are masked."""

    async def work(parts: Parts) -> Shown:
        from tidegate.engine.commands import quarantine

        return await quarantine.show(parts, number)

    found = with_parts(work, as_json=as_json)
    if as_json:
        print_json(found)
        return
    kept, rest = found.kept, len(found.record) - MOST_SHOWN
    out().print(
        f"{kept.tenant_id}/{kept.installation} {kept.stream}, run {kept.run_id}, {instant(kept.quarantined_at)}"
    )
    out().print(printable(kept.reason), markup=False)
    out().print(printable(found.record[:MOST_SHOWN]), markup=False)
    if rest > 0:
        out().print(f"… and {rest:,} more characters: --json shows all.")


@app.command()
def retry(
    numbers: Ids = None,
    tenant: OfTenant = "",
    installation: OfInstallation = "",
    stream: OfStream = "",
    matching: OfReason = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Deliver records again, under the version rule. What lands leaves the quarantine; exit code 1 if something stays."""

    async def work(parts: Parts) -> list[Retried]:
        from tidegate.engine.commands import quarantine

        chosen = _chosen(tenant, installation, stream, matching, numbers)
        return await quarantine.retry(parts, chosen, by or _user())

    outcomes = with_parts(work, as_json=as_json)
    stays = [each for each in outcomes if not each.delivered]
    if as_json:
        print_json(outcomes)
    else:
        out().print(f"{len(outcomes) - len(stays):,} delivered, {len(stays):,} stay.")
        for each in stays:
            out().print(f"✗ {each.id}: {each.reason}", markup=False)
    exit_unless(not stays)


@app.command()
def drop(
    numbers: Ids = None,
    tenant: OfTenant = "",
    installation: OfInstallation = "",
    stream: OfStream = "",
    matching: OfReason = "",
    reason: Annotated[str, typer.Option("--reason", help="Why they are not wanted; kept with who and when.")] = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Let records out undelivered and for good: read again, they do not come back."""
    if not reason.strip():
        fail(InvalidInput("--reason", reason, "is empty", "Say why they are not wanted; it is kept."), as_json=as_json)

    async def work(parts: Parts) -> int:
        from tidegate.engine.commands import quarantine

        chosen = _chosen(tenant, installation, stream, matching, numbers)
        return await quarantine.drop(parts, chosen, by or _user(), reason)

    count = with_parts(work, as_json=as_json)
    if as_json:
        print_json({"dropped": count})
    else:
        out().print(f"{count:,} dropped.")


def _chosen(tenant: str, installation: str, stream: str, matching: str, numbers: Sequence[int] | None = None) -> Chosen:
    from tidegate.store.quarantine import Chosen

    ids = tuple(numbers) if numbers else None
    whose, name = (tenant, installation) if tenant or not installation else split_installation(installation)
    return Chosen(whose or None, name or None, stream or None, matching or None, ids)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in passwd
        remedy = "Say who does it: --by NAME."
        raise InvalidInput("--by", "", "is missing, and this computer's user has no name", remedy) from None


def _table_of(found: Sequence[Kept]) -> Table:
    rows = [
        (
            str(each.id),
            f"{each.tenant_id}/{each.installation} {each.stream}",
            instant(each.quarantined_at),
            str(each.run_id),
            f"{each.size:,}",
            str(each.retries),
            each.reason,
        )
        for each in found
    ]
    return _table(("record", "stream", "since", "run", "bytes", "retries", "reason"), rows)


def _table_of_exits(found: Sequence[Exit]) -> Table:
    rows = [
        (
            str(each.quarantine_id),
            f"{each.tenant_id}/{each.installation} {each.stream}",
            each.action,
            instant(each.at),
            each.person,
            each.note,
            each.reason,
        )
        for each in found
    ]
    return _table(("record", "stream", "became", "at", "by", "why", "had been there because"), rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
