"""`tidegate connector`: what the connectors are, the beginning of a new one, and what one understands of its source."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.host_clock import HostClock
from tidegate.cli.output import FAILED, AsJson, fail, print_json
from tidegate.cli.token_file import TokenFile
from tidegate.connectors.base import ConnectionSettings, Connector
from tidegate.connectors.http import open_session
from tidegate.connectors.registry import find_connector, names
from tidegate.connectors.rest.connector import RestConnector
from tidegate.connectors.rest.declaration import Authentication, AuthenticationKind, Grant
from tidegate.connectors.rest.examination import Examined, examine
from tidegate.connectors.rest.section import suggest
from tidegate.connectors.skeletons import KINDS, skeleton
from tidegate.connectors.tokens import MemoryVault, TokenVault
from tidegate.domain.errors import InvalidInput

KEYS = (AuthenticationKind.BEARER, AuthenticationKind.HEADER, AuthenticationKind.QUERY)
"""Ways to sign in that lock nobody out if it is tried with a wrong key."""
WRONG_KEY = "wrong-on-purpose"

app = typer.Typer(help="Look at connectors, and begin a new one.", no_args_is_help=True)


@app.callback()
def connector() -> None:
    """Look at connectors, and begin a new one."""


@app.command("list")
def list_connectors(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the names of the shipped connectors."""
    found = names()
    if json:
        print_json(found)
    else:
        typer.echo("\n".join(found))


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The connector's name; NAME.yaml is written.")],
    from_example: Annotated[
        str,
        typer.Option(metavar="KIND", help=f"{', '.join(KINDS)}, or the name of a shipped declaration."),
    ] = KINDS[0],
    json: AsJson = False,
) -> None:
    """Write the commented beginning of a declaration to NAME.yaml, here. Overwrites nothing.

    Exit code 0: written; 2: there is such a file, or the name or the kind is not usable.
    """
    try:
        file = _written(Path(f"{name}.yaml"), skeleton(name, from_example))
    except InvalidInput as error:
        fail(error, as_json=json)
    if json:
        print_json({"file": str(file), "kind": from_example})
    else:
        do = "Fill in what is marked with <-" if from_example in KINDS else "Change what is to be another"
        typer.echo(f"{file} is written. {do}, then: tidegate connector check {file}")


def _written(file: Path, text: str) -> Path:
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise InvalidInput("file", str(file), "exists already", "Choose another name, or move it away.") from None
    except OSError as error:
        raise InvalidInput(
            "file", str(file), f"cannot be written ({error.strerror})", "Go to another folder."
        ) from None
    return file


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="FILE_OR_NAME", help="A declaration's .yaml file, or a name.")],
    setting: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting; repeatable.")] = None,
    secret_env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VARIABLE", help="A secret, read from the environment; repeatable.")
    ] = None,
    stream: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this stream; repeatable.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where OAuth tokens are kept between checks, readable by you only."),
    ] = None,
    allow_private_addresses: Annotated[bool, typer.Option(help="Let the source be on a private network.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fetch a page or two of each stream, show what was understood and warn of what does not fit.

    Exit code 0: every page was understood; 1: a fetch failed; 2: the declaration or an argument is not usable.
    """
    try:
        settings, variables = _pairs("--setting", setting), _pairs("--secret-env", secret_env)
        found = find_connector(name)
        secrets = {secret: _secret(secret, env) for secret, env in variables.items()}
        connection = ConnectionSettings(settings, secrets, _vault(found, token_file))
        results = asyncio.run(_check(found, connection, stream or [], allow_private_addresses))
    except InvalidInput as error:
        fail(error, as_json=json)
    if json:
        print_json({"connector": found.name, "streams": results})
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
        source, stranger = found.open(connection, session, clock), None
        if isinstance(found, RestConnector) and _locks_nobody_out(found.declaration.authentication):
            wrong = replace(connection, secrets=dict.fromkeys(connection.secrets, WRONG_KEY))
            stranger = found.open(wrong, session, clock)
        streams = [found.streams[name] for name in chosen or found.streams]
        return [await examine(found, source, stream, clock, stranger) for stream in streams]


def _locks_nobody_out(signing: Authentication) -> bool:
    """Return whether wrong secrets are no wrong password of somebody: of a name and a password both have to be wrong."""
    return signing.kind in KEYS or (signing.kind is AuthenticationKind.BASIC and "{secrets." in signing.username)


def _vault(found: Connector, token_file: Path | None) -> TokenVault:
    """Return where the tokens are kept. Raises InvalidInput where a look would use up the only refresh token."""
    if token_file is not None:
        return TokenFile(token_file)
    if isinstance(found, RestConnector):
        oauth = found.declaration.authentication.oauth
        if oauth is not None and oauth.grant is Grant.REFRESH_TOKEN:
            raise InvalidInput(
                "--token-file",
                None,
                "is missing",
                "A refresh may use the refresh token up: name a file for the new one, and apply what it says at `refresh`.",
            )
    return MemoryVault()


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


def _shown(result: Examined) -> str:
    lines = [
        result.stream,
        *([f"  listing  {result.listing}"] if result.listing else []),
        f"  key      {', '.join(result.key)}",
        f"  cursor   {result.cursor}",
        *([] if result.cursor.startswith("none") else [f"  filters  {_filters(result.sample_filters)}"]),
        f"  pager    {result.pager}",
    ]
    if result.error:
        return "\n".join([*lines, f"  FAILED   {result.error}", ""])
    since = "" if result.since_days is None else f" of the last {result.since_days} days"
    lines.append(f"  records  {result.records} on the first page{since}")
    lines += [f"  sample   {written} is {instant}" for written, instant in result.cursor_samples]
    lines += [f"  column   {name}: {kind}" for name, kind in result.columns.items()]
    lines += [f"  warning  {warning}" for warning in result.warnings]
    return "\n".join([*lines, ""])


def _filters(rendered: Mapping[str, str]) -> str:
    if not rendered:
        return "none: every fetch lists everything"
    return "for the last day: " + ", ".join(f"{name}={value}" for name, value in rendered.items())
