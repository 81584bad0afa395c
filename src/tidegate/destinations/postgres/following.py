"""Batches of one run that follow each other: the next one's rows are written while the one before commits (SPEC 5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tidegate.destinations.base import Turn, at_once


class Place:
    """One batch's place behind the batch before it.

    ``turn`` returns once that one has committed, in the ledger too. Its rows may be written earlier: once the one before has
    written its own and so waits for nobody's rows any more. It is then bound to them (``followed``): to write them a second
    time would be to wait for this batch, which waits for it.
    """

    def __init__(self, turn: Turn = at_once, before: Place | None = None) -> None:
        self._turn = turn
        self._before = before
        self._known = asyncio.Event()
        self._written = False
        self._held: asyncio.Semaphore | None = None
        self.followed = False

    @asynccontextmanager
    async def early(self, allowed: asyncio.Semaphore) -> AsyncIterator[None]:
        """Hold one of ``allowed`` inside, but no longer than until it is this batch's turn; wait for that if none is free."""
        if self._before is None or allowed.locked():
            await self.commit()
        else:
            await allowed.acquire()
            self._held = allowed
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        if self._held is not None:
            self._held.release()
            self._held = None

    async def rows(self) -> None:
        """Return once the rows may be written. Raises what the turn raises."""
        before = self._before
        if before is not None:
            await before._known.wait()
            if before._written:
                before.followed = True
                return
        await self._turn()

    async def commit(self) -> None:
        """Return once the batch may commit. Raises what the turn raises, and then nothing of it may."""
        await self._turn()
        self._before = None
        self._release()

    def written(self) -> None:
        """Tell the batch behind that the rows are written, and that what is left is to commit them."""
        self._written = True
        self._known.set()

    def anew(self) -> bool:
        """Return whether the rows may be written once more: nobody has gone by what `written` told, and nobody will."""
        self._written = False
        return not self.followed

    def ended(self) -> None:
        """Let the batch behind go by its turn, which tells it how this one has ended."""
        self._known.set()
