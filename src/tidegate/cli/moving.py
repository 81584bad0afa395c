"""`tidegate export` and `tidegate import`: an installation moves to another server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, OfInstallation, fail, out, print_json, split_installation
from tidegate.cli.process import with_parts
from tidegate.domain.errors import InvalidInput

if TYPE_CHECKING:
    from tidegate.engine.configuring.changes import Outcome
    from tidegate.engine.configuring.moving import Exported
    from tidegate.engine.parts import Parts

app = typer.Typer()
ELSEWHERE = "What it has delivered so far stays in the tables of the old server's database: copy those too (pg_dump)."
AUTHORISE_ANEW = (
    "! ITS CONNECTION HAS OAUTH TOKENS THAT WERE RENEWED AT THE OLD SERVER, AND THEY ARE NOT IN THE FILE: the refresh token it "
    "was set up with may be used up.\n  → Authorise anew at the new server: get a new refresh token and set that, in {variables}."
)
DEAD_STAY = (
    "! {count} RECORDS ARE IN THE DEAD LETTER OF THE OLD SERVER, AND NOT IN THE FILE: their periods count as covered.\n"
    "  → Correct the cause and replay them there: tidegate webhook replay --dead --installation {name}"
)


@app.command()
def export(
    installation: OfInstallation,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; must not exist.")],
    with_quarantine: Annotated[
        bool, typer.Option("--with-quarantine", help="Records in quarantine too; they are not encrypted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write an installation into a file, to go on at another server; here it is paused."""
    try:
        tenant_id, name = split_installation(installation)
    except InvalidInput as error:
        fail(error, as_json=as_json)

    async def work(parts: Parts) -> Exported:
        from tidegate.engine.configuring import moving

        return await moving.export(parts, tenant_id, name or "", output, with_quarantine=with_quarantine)

    exported = with_parts(work, as_json=as_json)
    needed = _variables(exported)
    _tell_what_stays(exported)
    if as_json:
        print_json({"installation": installation, "file": str(output), "environment": needed, "paused": True})
        return
    out().print(f"Exported {installation} into {output}. It is paused here.", markup=False)
    out().print("Go on at the other server: tidegate import FILE", markup=False)
    if needed:
        out().print(f"Its secrets are not in the file; set there: {', '.join(needed)}.", markup=False)
    if _at_home(exported):
        out().print(ELSEWHERE)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `tidegate export` wrote.")],
    as_json: AsJson = False,
) -> None:
    """Take over an installation from another server, exactly where it stopped."""

    async def work(parts: Parts) -> tuple[Outcome, Exported]:
        import os

        from tidegate.engine.configuring import moving

        return await moving.import_(parts, file, os.environ), moving.read_export(file)

    outcome, exported = with_parts(work, as_json=as_json)
    name = f"{exported.tenant}/{exported.installation}"
    _tell_what_stays(exported)
    if as_json:
        print_json({"installation": name, "changes": outcome.changes, "warnings": outcome.warnings})
        return
    out().print(f"Imported {name}; it goes on where it stopped.", markup=False)
    if _at_home(exported):
        out().print(ELSEWHERE)


def _variables(exported: Exported) -> list[str]:
    """Return the environment variables that the file takes secrets from."""
    (tenant,) = exported.configuration["tenants"].values()
    owners = [*exported.configuration["destinations"].values(), *tenant["connections"].values()]
    return sorted(name for owner in owners for name in _names(owner["secrets"]))


def _tell_what_stays(exported: Exported) -> None:
    """Say on stderr how many records stay in the dead letter, and, where OAuth tokens do, which secret is to be got anew."""
    if exported.dead_records:
        name = f"{exported.tenant}/{exported.installation}"
        typer.echo(DEAD_STAY.format(count=exported.dead_records, name=name), err=True)
    if exported.has_tokens:
        (tenant,) = exported.configuration["tenants"].values()
        (link,) = tenant["connections"].values()
        typer.echo(AUTHORISE_ANEW.format(variables=" or ".join(sorted(_names(link["secrets"])))), err=True)


def _names(secrets: dict[str, str]) -> list[str]:
    return [value[2:-1] for value in secrets.values()]


def _at_home(exported: Exported) -> bool:
    """Return whether it delivers into Tidegate's own database."""
    (destination,) = exported.configuration["destinations"].values()
    return destination["kind"] == "postgresql" and not destination["secrets"]
