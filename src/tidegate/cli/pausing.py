"""`tidegate pause` and `tidegate resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, OfInstallation, fail, out, print_json, split_installation
from tidegate.cli.process import with_parts
from tidegate.domain.errors import InvalidInput

if TYPE_CHECKING:
    from tidegate.engine.parts import Parts

app = typer.Typer()


@app.command()
def pause(
    installation: OfInstallation,
    reason: Annotated[str, typer.Option(help="Why; shown by `tidegate status`.")] = "paused by hand",
    as_json: AsJson = False,
) -> None:
    """Pause an installation: the active run finishes, waiting runs are dropped."""
    tenant_id, name = _split(installation, as_json=as_json)

    async def work(parts: Parts) -> int:
        from tidegate.engine.commands import installations

        return await installations.pause(parts, tenant_id, name, reason)

    dropped = with_parts(work, as_json=as_json)
    if as_json:
        print_json({"installation": installation, "paused": True, "runs_dropped": dropped})
    else:
        out().print(f"Paused {installation}; {dropped} waiting runs dropped.", markup=False)


@app.command()
def resume(
    installation: OfInstallation,
    not_imported: Annotated[
        bool, typer.Option("--not-imported", help="It was exported, but is not imported anywhere: go on here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Resume an installation: the due dates missed meanwhile are caught up."""
    tenant_id, name = _split(installation, as_json=as_json)

    async def work(parts: Parts) -> None:
        from tidegate.engine.commands import installations

        await installations.resume(parts, tenant_id, name, not_imported=not_imported)

    with_parts(work, as_json=as_json)
    if as_json:
        print_json({"installation": installation, "paused": False})
    else:
        out().print(f"Resumed {installation}; what was missed is caught up.", markup=False)


def _split(installation: str, *, as_json: bool) -> tuple[str, str]:
    try:
        tenant_id, name = split_installation(installation)
    except InvalidInput as error:
        fail(error, as_json=as_json)
    return tenant_id, name or ""
