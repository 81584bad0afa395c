"""What commands print: results on stdout, progress and errors on stderr; JSON if asked for."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tidegate.domain.errors import TidegateError
    from tidegate.domain.masking import Mask

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
WIDTH_OF_PIPES = 180
"""Columns where the output is no terminal: enough for every table, and the same everywhere."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]
OfInstallation = Annotated[str, typer.Argument(metavar="TENANT/INSTALLATION")]


def out() -> Console:
    """Return the console of results."""
    return _console(stderr=False)


def err() -> Console:
    """Return the console of progress and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_OF_PIPES
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False, emoji=False)


def print_json(value: object) -> None:
    """Print ``value`` as one line of JSON on stdout; instants in UTC with Z."""
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())


def fail(error: TidegateError, *, as_json: bool, mask: Mask | None = None) -> NoReturn:
    """Print an error with its remedy on stderr and exit: with 2 for bad input, with 1 for anything else.

    ``mask`` takes its secrets out; by default those that are known by their form.
    """
    from tidegate.domain.errors import InvalidInput
    from tidegate.domain.masking import Mask

    hide = mask or Mask()
    hide.error(error)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(hide.value(error.as_json()), enc_hook=str).decode(), err=True)
    else:
        for line in _lines(error):
            typer.echo(hide.text(line), err=True)
    raise typer.Exit(BAD_INPUT if isinstance(error, InvalidInput) else FAILED)


def _lines(error: TidegateError) -> list[str]:
    from tidegate.engine.configuring.document import InvalidConfiguration

    if isinstance(error, InvalidConfiguration):
        return [line for inner in error.errors for line in _lines(inner)]
    return [f"✗ {error.message}", f"  → {error.remedy}"] if error.remedy else [f"✗ {error.message}"]


def instant(value: datetime | None, none: str = "–") -> str:
    """Return an instant in UTC with Z, to the second."""
    from tidegate.domain.instant import render_instant

    return none if value is None else render_instant(value.replace(microsecond=0))


def split_installation(name: str, *, whole: bool = True) -> tuple[str, str | None]:
    """Return (tenant, installation) of ``TENANT/INSTALLATION``; unless ``whole``, the second part may be missing.

    Raises InvalidInput.
    """
    from tidegate.domain.errors import InvalidInput

    tenant_id, slash, installation = name.partition("/")
    if not tenant_id or ((slash or whole) and (not installation or "/" in installation)):
        form = "TENANT/INSTALLATION" if whole else "TENANT or TENANT/INSTALLATION"
        raise InvalidInput("installation", name, f"is not {form}", "`tidegate status` lists them.")
    return tenant_id, installation or None
