"""The engine in the foreground of this process: signals, the graceful stop and the stop at once."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from tidegate.cli.output import INTERRUPTED, err

if TYPE_CHECKING:
    from tidegate.engine.engine import Engine
    from tidegate.signals.probes import Probes

STOPPING = "Stopping: pages in hand are delivered first. Once more to stop at once."
STOPS = (signal.SIGINT, signal.SIGTERM)


async def serve(
    engine: Engine, beside: Coroutine[Any, Any, None], say: Callable[[str], None], probes: Probes | None = None
) -> None:
    """Run the engine until SIGINT or SIGTERM, with ``beside`` (a screen) next to it; ``probes`` are told of the stop.

    The first signal ends it gracefully: pages in hand are delivered and runs given back. The second ends the process at
    once.
    """
    working = asyncio.create_task(engine.run())
    showing = asyncio.create_task(beside)

    def told(text: str) -> None:
        if probes is not None:
            probes.stopping = True
        say(text)

    with stopped_by_signals(engine, told):
        try:
            await working
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)


@contextlib.contextmanager
def stopped_by_signals(engine: Engine, say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Stop the engine gracefully at the first SIGINT or SIGTERM while inside, and the process at once at the second.

    Yields whether a signal has come.
    """
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:
            end_at_once()
        asked = True
        say(STOPPING)
        engine.stop()

    with handling(stop):
        yield lambda: asked


def end_at_once() -> NoReturn:
    """End the process with 130 and wait for nothing but the embedded server's stop.

    It is what a power cut would be: leases expire by themselves, and other workers go on from the last checkpoints.
    """
    err().show_cursor(True)
    atexit._run_exitfuncs()
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def handling(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at SIGINT and SIGTERM while inside."""
    loop = asyncio.get_running_loop()
    for number in STOPS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in STOPS:
            loop.remove_signal_handler(number)
