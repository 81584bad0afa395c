"""Points: where a process can be made to die. Every signal of the engine, and every statement that it sends to PostgreSQL.

A statement has three sides, because three states of the world lie around it:

    before   nothing of it has left the process
    sent     it is on its way and will be executed, but its answer is never read
    after    its answer has been read

Statements are seen at the one place that all of them pass, BEGIN, COMMIT and COPY included: asyncpg's protocol object.
(asyncpg's own query loggers see no COPY, and nothing before it has succeeded.)
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

SIGNAL, BEFORE, SENT, AFTER = "signal", "before", "sent", "after"
SIDES = (BEFORE, SENT, AFTER)


@dataclass(frozen=True, slots=True)
class Death:
    """Die with SIGKILL at the ``nth`` time that ``name`` is passed on ``side``, counted from when this was ordered.

    ``name`` is a signal's name or a statement's text; "" is any statement.
    """

    side: str
    name: str
    nth: int = 1

    def __str__(self) -> str:
        what = self.name if len(self.name) <= 60 else self.name[:57] + "…"
        return f"{self.side} {what or 'any statement'} #{self.nth}"


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process is told: how to die, if it shall, and whether to tell of every point it passes."""

    death: Death | None = None
    tracing: bool = False


LIVE = Orders()


class Points:
    """The points of one process. ``tell`` is given ("passed", side, name) if it was ordered, and ("dying", when)."""

    def __init__(self, tell: Callable[[tuple[Any, ...]], None]) -> None:
        self._tell = tell
        self._orders = LIVE
        self._passed = 0

    def order(self, orders: Orders) -> None:
        """Count anew from here, and do as ordered."""
        self._orders = orders
        self._passed = 0

    def signal(self, name: str) -> None:
        """Be told of a point of a run's life; given to the engine."""
        self._reach(SIGNAL, name)

    async def statement(self, text: str, send: Callable[[], Awaitable[Any]]) -> Any:
        """Send a statement, passing its three sides."""
        name = " ".join(text.split())
        self._reach(BEFORE, name)
        if self._counts(SENT, name):
            sending = asyncio.ensure_future(send())
            await asyncio.sleep(0)  # its first step puts the statement on the wire
            self._die()
            return await sending
        answer = await send()
        self._reach(AFTER, name)
        return answer

    def _reach(self, side: str, name: str) -> None:
        if self._orders.tracing:
            self._tell(("passed", side, name))
        if self._counts(side, name):
            self._die()

    def _counts(self, side: str, name: str) -> bool:
        death = self._orders.death
        if death is None or death.side != side or death.name not in ("", name):
            return False
        self._passed += 1
        return self._passed == death.nth

    def _die(self) -> None:
        self._tell(("dying", time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)


class _Tapped:
    """A connection's protocol, with ``points`` around every statement."""

    def __init__(self, protocol: Any, points: Points) -> None:
        self._protocol = protocol
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    async def query(self, text: str, timeout: float | None) -> Any:
        return await self._points.statement(text, lambda: self._protocol.query(text, timeout))

    async def bind_execute(self, *args: Any, **named: Any) -> Any:
        state = args[0] if args else named["state"]
        return await self._points.statement(state.query, lambda: self._protocol.bind_execute(*args, **named))

    async def bind_execute_many(self, *args: Any, **named: Any) -> Any:
        state = args[0] if args else named["state"]
        return await self._points.statement(state.query, lambda: self._protocol.bind_execute_many(*args, **named))

    async def copy_in(self, text: str, *args: Any) -> Any:
        return await self._points.statement(text, lambda: self._protocol.copy_in(text, *args))


def tap(points: Points) -> None:
    """Put ``points`` around every statement of every connection that this process opens from now on."""
    plain = asyncpg.Connection.__init__

    def init(self: asyncpg.Connection, protocol: Any, *rest: Any) -> None:
        plain(self, _Tapped(protocol, points), *rest)  # type: ignore[arg-type]

    asyncpg.Connection.__init__ = init  # type: ignore[assignment,method-assign]
