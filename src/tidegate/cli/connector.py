"""`tidegate connector`: what the connectors are, and what one understands of its source."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Annotated

import msgspec
import typer

from tidegate.cli.host_clock import HostClock
from tidegate.cli.output import BAD_INPUT, FAILED
from tidegate.connectors.base import ConnectionSettings, Connector
from tidegate.connectors.http import open_session
from tidegate.connectors.registry import find_connector, names
from tidegate.connectors.rest.examination import Examined, examine
from tidegate.connectors.rest.section import suggest
from tidegate.domain.errors import InvalidInput, TidegateError

app = typer.Typer(help="Look at connectors.", no_args_is_help=True)


@app.callback()
def connector() -> None:
    """Look at connectors."""


@app.command("list")
def list_connectors(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the names of the shipped connectors."""
    found = names()
    typer.echo(msgspec.json.encode(found).decode() if json else "\n".join(found))


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="FILE_OR_NAME", help="A declaration's .yaml file, or a name.")],
    setting: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting; repeatable.")] = None,
    secret_env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VARIABLE", help="A secret, read from the environment; repeatable.")
    ] = None,
    stream: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this stream; repeatable.")] = None,
    allow_private_addresses: Annotated[bool, typer.Option(help="Let the source be on a private network.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fetch one page of each stream and show what was understood.

    Exit code 0: every page was understood; 1: a fetch failed; 2: the declaration or an argument is not usable.
    """
    try:
        settings, variables = _pairs("--setting", setting), _pairs("--secret-env", secret_env)
        connection = ConnectionSettings(settings, {secret: _secret(secret, env) for secret, env in variables.items()})
        found = find_connector(name)
        results = asyncio.run(_check(found, connection, stream or [], allow_private_addresses))
    except InvalidInput as error:
        _refuse(error, json)
        raise typer.Exit(BAD_INPUT) from None
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode({"connector": found.name, "streams": results})).decode())
    else:
        for result in results:
            typer.echo(_shown(result))
    if any(result.error for result in results):
        raise typer.Exit(FAILED)


async def _check(
    found: Connector, connection: ConnectionSettings, chosen: list[str], allow_private_addresses: bool
) -> list[Examined]:
    for stream in chosen:
        if stream not in found.streams:
            raise InvalidInput("--stream", stream, "is unknown", suggest(stream, found.streams))
    clock = HostClock()
    async with open_session(allow_private_addresses=allow_private_addresses) as session:
        source = found.open(connection, session, clock)
        return [await examine(found, source, found.streams[stream], clock) for stream in chosen or found.streams]


def _pairs(option: str, given: list[str] | None) -> Mapping[str, str]:
    pairs = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(option, text, "is not NAME=VALUE", "Write the name, an equals sign and the value.")
        pairs[name] = value
    return pairs


def _secret(name: str, variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise InvalidInput(f"--secret-env {name}", variable, "is not set in the environment", f"Set {variable} first.")
    return value


def _refuse(error: TidegateError, json: bool) -> None:
    typer.echo(msgspec.json.encode(error.as_json()).decode() if json else f"error: {error}", err=not json)


def _shown(result: Examined) -> str:
    lines = [
        result.stream,
        *([f"  listing  {result.listing}"] if result.listing else []),
        f"  key      {', '.join(result.key)}",
        f"  cursor   {result.cursor}",
        f"  filters  {_filters(result.sample_filters)}",
        f"  pager    {result.pager}",
    ]
    if result.error:
        return "\n".join([*lines, f"  FAILED   {result.error}", ""])
    lines.append(f"  records  {result.records} on the first page")
    lines += [f"  sample   {written} is {instant}" for written, instant in result.cursor_samples]
    lines += [f"  column   {name}: {kind}" for name, kind in result.columns.items()]
    lines += [f"  warning  {warning}" for warning in result.warnings]
    return "\n".join([*lines, ""])


def _filters(rendered: Mapping[str, str]) -> str:
    if not rendered:
        return "none: every fetch lists everything"
    return "for the last day: " + ", ".join(f"{name}={value}" for name, value in rendered.items())
