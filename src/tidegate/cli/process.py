"""One command's process: assembles the parts, does its work and says how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from tidegate.cli.output import FAILED, INTERRUPTED, fail
from tidegate.domain.errors import DestinationUnavailable, TidegateError

if TYPE_CHECKING:
    from tidegate.bootstrap import Options
    from tidegate.engine.parts import Parts

Result = TypeVar("Result")


def with_parts(
    work: Callable[[Parts], Awaitable[Result]], *, as_json: bool, options: Options | None = None, fast: bool = False
) -> Result:
    """Return what ``work`` returns, given the parts of this process, whose logs are set up here.

    A TidegateError is printed with its remedy and ends the process with 2 for bad input and 1 otherwise; an unreachable
    database is 1. Ctrl-C ends it with 130 once ``work`` has cleaned up. ``fast``: for processes that serve, on the faster
    event loop, which takes a moment to import, and with a garbage collector that looks less often.
    """
    import asyncpg

    from tidegate.bootstrap import assemble, collect_rarely, from_environment
    from tidegate.cli import logs

    async def whole(given: Options) -> Result:
        async with assemble(given) as parts:
            if fast:
                collect_rarely()
            return await work(parts)

    try:
        given = options or from_environment()
    except TidegateError as error:
        fail(error, as_json=as_json)
    logs.set_up(as_json=as_json, mask=given.mask)
    try:
        with asyncio.Runner(loop_factory=_fast_loop if fast else None) as runner:
            return runner.run(whole(given))
    except TidegateError as error:
        fail(error, as_json=as_json, mask=given.mask)
    except asyncpg.DeadlockDetectedError as error:
        told = DestinationUnavailable(
            f"Another process changed the same at the same moment and went first: {error}.", remedy="Do it again."
        )
        fail(told, as_json=as_json, mask=given.mask)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError) as error:
        told = DestinationUnavailable(
            f"The database failed: {type(error).__name__}: {error}.", remedy="Look with `tidegate doctor`."
        )
        fail(told, as_json=as_json, mask=given.mask)
    except KeyboardInterrupt:
        interrupted()


def _fast_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


def interrupted() -> NoReturn:
    """Exit with 130: a signal came before the work was done."""
    typer.echo("\nInterrupted.", err=True)
    raise typer.Exit(INTERRUPTED)


def exit_unless(well: bool) -> None:
    """Exit with 1 if the work failed."""
    if not well:
        raise typer.Exit(FAILED)
