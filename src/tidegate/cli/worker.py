"""`tidegate worker`: the engine without a screen, in as many processes as wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.metrics import LOOPBACK, MetricsHost, MetricsPort, probed, watched_by_probes
from tidegate.cli.output import AsJson, fail
from tidegate.cli.process import with_parts

if TYPE_CHECKING:
    from tidegate.bootstrap import Options
    from tidegate.engine.parts import Parts
    from tidegate.signals.probes import Probes

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
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
    as_json: AsJson = False,
) -> None:
    """Run the engine without a screen, logging to stderr, until SIGTERM.

    Start as many as you like on one database: each does everything, or only the roles you name.
    """
    from tidegate.bootstrap import from_environment
    from tidegate.domain.errors import InvalidInput

    try:
        options = from_environment()
    except InvalidInput as error:
        fail(error, as_json=as_json)
    if slots is not None:
        options = replace(options, settings=replace(options.settings, slots=slots))
    options, probes = watched_by_probes(options, metrics_port)

    async def work(parts: Parts) -> None:
        async with probed(probes, parts, metrics_host, metrics_port) as port:
            await _work(parts, options, role or list(ROLES), probes, port)

    with_parts(work, as_json=as_json, options=options, fast=True)


async def _work(
    parts: Parts, options: Options, roles: list[str], probes: Probes | None, metrics_port: int | None
) -> None:
    import structlog

    from tidegate.cli.engine_process import serve
    from tidegate.cli.up import where_data_is
    from tidegate.engine.engine import Engine, Role

    log = structlog.get_logger()
    where, slots = where_data_is(options), parts.settings.slots
    log.info("up", data=where, worker=parts.worker, slots=slots, roles=roles, metrics_port=metrics_port)
    engine = Engine(parts, frozenset(Role(role) for role in roles))
    await serve(engine, _nothing(), lambda text: log.info("stopping", note=text), probes)
    log.info("stopped")


async def _nothing() -> None:
    """Show nothing."""
