"""`tidegate worker`: the engine without a screen, in as many processes as wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, fail
from tidegate.cli.process import with_parts

if TYPE_CHECKING:
    from tidegate.bootstrap import Options
    from tidegate.engine.parts import Parts

app = typer.Typer()
ROLES = ("planner", "dispatcher", "worker", "sweeper", "sender")


def _known_roles(roles: list[str] | None) -> list[str] | None:
    for role in roles or ():
        if role not in ROLES:
            raise typer.BadParameter(f"{role!r} is not a role; use {', '.join(ROLES)}.")
    return roles


@app.command()
def worker(
    role: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(ROLES), callback=_known_roles, help="What to do; repeatable; default: all."),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Runs in hand at once; default: TIDEGATE_SLOTS.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the engine without a screen, logging to stderr, until SIGTERM.

    Start as many as you like on one database: each does everything, or only the roles you name.
    """
    from tidegate.bootstrap import from_environment
    from tidegate.cli import logs
    from tidegate.domain.errors import InvalidInput

    logs.set_up(as_json=as_json)
    try:
        options = from_environment()
    except InvalidInput as error:
        fail(error, as_json=as_json)
    if slots is not None:
        options = replace(options, settings=replace(options.settings, slots=slots))
    with_parts(lambda parts: _work(parts, options, role or list(ROLES)), as_json=as_json, options=options, fast=True)


async def _work(parts: Parts, options: Options, roles: list[str]) -> None:
    import structlog

    from tidegate.cli.engine_process import serve
    from tidegate.cli.up import where_data_is
    from tidegate.engine.engine import Engine, Role

    log = structlog.get_logger()
    log.info("up", data=where_data_is(options), worker=parts.worker, slots=parts.settings.slots, roles=roles)
    engine = Engine(parts, frozenset(Role(role) for role in roles))
    await serve(engine, _nothing(), lambda text: log.info("stopping", note=text))
    log.info("stopped")


async def _nothing() -> None:
    """Show nothing."""
