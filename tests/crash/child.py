"""A Tidegate process as it is in production, but that it dies when ordered and takes its time from the harness.

Processes are forked from a server that has everything imported, so that a thousand of them start in no time; each is a
process of its own with its own connections, and SIGKILL ends it as it ends any.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, TypeAlias

from tests.crash.points import Orders, Points, tap
from tidegate.bootstrap import Options, assemble
from tidegate.cli import logs
from tidegate.domain.retry import RetryPolicy
from tidegate.engine.engine import Engine, Role
from tidegate.engine.settings import Settings

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
Offset: TypeAlias = "Synchronized[float]"
"""Seconds between the machine's clock and the harness's; shared by all processes of a world."""

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.crash.child", "tests.crash.source", "tests.crash.harness"])


class ShiftedClock:
    """The machine's clock, shifted by an offset that the harness moves."""

    def __init__(self, offset: Offset) -> None:
        self._offset = offset

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self._offset.value, UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Child:
    """A process of the engine, seen from the harness."""

    def __init__(
        self, dsn: str, offset: Offset, settings: Settings, roles: frozenset[Role], log: Path, orders: Orders
    ) -> None:
        self.roles = roles
        self.ready = False
        self.died_at: float | None = None
        self.trace: list[tuple[str, str]] = []
        self._pipe, far = FORKED.Pipe()
        self.process: ForkServerProcess = FORKED.Process(
            target=_main, args=(dsn, offset, settings, roles, log, far, orders), daemon=True
        )
        self.process.start()
        far.close()

    @property
    def alive(self) -> bool:
        """Return whether it lives; having taken in what it told."""
        alive = self.process.is_alive()
        try:
            while self._pipe.poll():
                self._hear(self._pipe.recv())
        except (EOFError, OSError):
            pass
        return alive

    def _hear(self, message: tuple[Any, ...]) -> None:
        match message:
            case ("ready",):
                self.ready = True
            case ("dying", float(when)):
                self.died_at = when
            case ("passed", str(side), str(name)):
                self.trace.append((side, name))

    def order(self, orders: Orders) -> None:
        """Make it count its points anew, and do as ordered from now on; nothing if it has died meanwhile."""
        self.trace.clear()
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(orders)

    def kill(self) -> None:
        """kill -9."""
        if self.alive:
            self.died_at = time.monotonic()
            self.process.kill()
            self.process.join()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)

    def close(self) -> int | None:
        """Make sure that it is gone; return its exit code."""
        self.process.kill()
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        self._pipe.close()
        return code


def _main(
    dsn: str, offset: Offset, settings: Settings, roles: frozenset[Role], log: Path, pipe: Connection, orders: Orders
) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, sys.stdout.fileno())
    os.dup2(out, sys.stderr.fileno())
    logs.set_up(as_json=True)
    faulthandler.register(signal.SIGUSR2)
    points = Points(pipe.send)
    points.order(orders)
    tap(points)
    options = Options(
        data_dir=log.parent,
        database_url=dsn,
        key_source={"TIDEGATE_KEY": KEY},
        allow_private_addresses=True,
        settings=settings,
        clock=ShiftedClock(offset),
        signal=points.signal,
    )
    asyncio.run(_live(options, roles, points, pipe))


async def _live(options: Options, roles: frozenset[Role], points: Points, pipe: Connection) -> None:
    def hear() -> None:
        try:
            orders = pipe.recv()
        except EOFError:
            os._exit(3)  # the harness is gone
        points.order(orders)

    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), hear)
    async with assemble(options) as parts:
        engine = Engine(parts, roles)
        loop.add_signal_handler(signal.SIGTERM, engine.stop)
        loop.add_signal_handler(signal.SIGUSR1, _show_tasks)
        pipe.send(("ready",))
        await engine.run()
    loop.remove_reader(pipe.fileno())


def _show_tasks() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


QUICK = Settings(
    lease=timedelta(seconds=2),
    renew_every=timedelta(seconds=0.5),
    sweep_every=timedelta(seconds=0.5),
    tick_every=timedelta(seconds=0.1),
    requeue_after=timedelta(seconds=3),
    batch_bytes=1,
    retry=RetryPolicy(base=timedelta(seconds=0.2), cap=timedelta(seconds=1)),
)
"""Leases of 2 s, and every page a batch of its own."""
