"""Batches under way: one that has its turn, and one behind it that is made ready meanwhile (SPEC 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from tidegate.destinations.base import Turn, at_once

Write: TypeAlias = Callable[[Turn], Coroutine[Any, Any, None]]
"""Writes a batch; what others can see only once the given turn has come."""


class Overtaken(Exception):
    """The batch before did not commit, so this one must not."""


class Underway:
    """The batches of one run that are being written. They commit in order: none without the one before it."""

    def __init__(self) -> None:
        self._writing: asyncio.Task[None] | None = None
        self._behind: asyncio.Task[None] | None = None

    async def add(self, write: Write, *, last: bool) -> None:
        """Begin to write a batch, and return when at most one is still under way, or none after the ``last``.

        Raises what an earlier batch has failed with, or this one if it is the last.
        """
        before = self._writing
        if before is None and last:
            await write(at_once)
            return
        self._behind = asyncio.create_task(write(_turn_after(before)))
        if before is not None:
            await before
        self._writing, self._behind = self._behind, None
        if last:
            await self.settled()

    async def settled(self) -> None:
        """Return when every batch has committed. Raises what one has failed with."""
        if self._writing is not None:
            await self._writing
            self._writing = None

    async def abandon(self) -> None:
        """Let go of what is still under way: nothing of it will commit any more."""
        tasks = [task for task in (self._behind, self._writing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._writing = self._behind = None


def _turn_after(before: asyncio.Task[None] | None) -> Turn:
    if before is None:
        return at_once

    async def turn() -> None:
        await asyncio.wait({before})
        if before.cancelled() or before.exception() is not None:
            raise Overtaken

    return turn
