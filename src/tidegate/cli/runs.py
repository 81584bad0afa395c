"""`tidegate runs`: what ran, when it was due, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, fail, instant, out, print_json, split_installation
from tidegate.cli.process import with_parts
from tidegate.domain.duration import humanised
from tidegate.domain.errors import InvalidInput
from tidegate.domain.run import Lane, RunState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tidegate.engine.parts import Parts
    from tidegate.engine.queries import RunStatus
    from tidegate.store.reports import RunRow

app = typer.Typer()


@app.command()
def runs(
    of: Annotated[str, typer.Argument(metavar="[TENANT[/INSTALLATION]]", help="Whose; default: all.")] = "",
    tenant: Annotated[str, typer.Option(metavar="TENANT", help="Only this tenant's.")] = "",
    installation: Annotated[str, typer.Option(metavar="NAME", help="Only this installation's.")] = "",
    state: Annotated[list[RunState] | None, typer.Option(help="Only in this state; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first: due date, run date, the lag between them, period, counts, state, error, what it waits for."""
    try:
        whose, which = split_installation(of, whole=False) if of else (tenant or None, installation or None)
        if of and (tenant or installation):
            raise InvalidInput(
                "installation", of, "and an option name whose runs", "Leave out --tenant and --installation."
            )
    except InvalidInput as error:
        fail(error, as_json=as_json)

    async def work(parts: Parts) -> list[RunStatus]:
        from tidegate.engine import queries

        return await queries.list_runs(parts, whose, which, state or (), limit)

    found = with_parts(work, as_json=as_json)
    if as_json:
        print_json([_as_json(each) for each in found])
    elif not found:
        out().print("No runs.")
    else:
        out().print(table_of(found))


def _as_json(each: RunStatus) -> dict[str, object]:
    return run_json(each.run) | {"start_lag_seconds": each.start_lag_seconds, "waits": each.waits}


def run_json(run: RunRow) -> dict[str, object]:
    """Return a run as JSON-ready values."""
    import msgspec

    values: dict[str, object] = msgspec.to_builtins(run)
    return values


def table_of(found: Sequence[RunStatus]) -> Table:
    """Return the table of runs."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("run", "stream", "due", "started", "lag", "period", "records", "state"):
        table.add_column(heading, overflow="fold")
    for each in found:
        run = each.run
        period = f"{instant(run.period_start, 'watermark')} to {instant(run.period_end)}"
        table.add_row(
            str(run.id),
            escape(f"{run.tenant_id}/{run.installation} {run.stream}{' (backfill)' * (run.lane == Lane.BACKFILL)}"),
            instant(run.due_at),
            instant(run.started_at, f"planned {instant(each.waits.planned_at if each.waits else run.not_before_at)}"),
            humanised(each.start_lag_seconds),
            period,
            counts_of(run),
            escape(f"{run.state}: {each.waits}" if each.waits else state_of(run)),
            style={"failed": "red", "unproven": "yellow", "retrying": "yellow"}.get(run.state),
        )
    return table


def counts_of(run: RunRow) -> str:
    """Return what became of a run's records, in words."""
    written = run.inserted_count + run.updated_count
    parts = [f"{run.read_count:,} read", f"{written:,} written"]
    parts += [f"{run.quarantined_count:,} quarantined"] if run.quarantined_count else []
    parts += [f"{run.dead_count:,} in the dead letter"] if run.dead_count else []
    parts += [f"{run.misfit_count:,} misfits"] if run.misfit_count else []
    parts += [f"{count:,} {remark}" for remark, count in run.remarks.items()]
    return ", ".join(parts)


def state_of(run: RunRow) -> str:
    """Return a run's state with the reason, if it is one that needs one."""
    if run.state == RunState.UNPROVEN:
        why = run.shortfall or f"filtered by {', '.join(run.filters)}" if run.filters or run.shortfall else "bounds"
        return f"unproven: {why}"
    if run.error and run.state in (RunState.FAILED, RunState.RETRYING):
        return f"{run.state}: {run.error.get('message') or run.error.get('code')}"
    return run.state
