"""Where one connection's OAuth tokens are kept: a Protocol, for connectors know nothing of databases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias

Held: TypeAlias = Mapping[str, str]
"""What a vault keeps for its connection: named texts, all of them secret. Empty where nothing has been kept yet."""

Renewal: TypeAlias = Callable[[Held], Awaitable[Held]]
"""Makes new contents out of the present ones; returning the same object means that nothing has to change."""


class TokenVault(Protocol):
    """One connection's tokens, the same for every process that uses the connection."""

    async def read(self) -> Held:
        """Return what is kept now."""
        ...

    async def renew(self, renewal: Renewal) -> Held:
        """Hand what is kept to ``renewal``, keep what that returns, and return it once it is safe.

        One renewal at a time, over all processes; the next one is handed what this one returned. A renewal that has begun
        is carried through although its caller is cancelled: it may hold the only token that is still valid (RFC 9700,
        4.14.2). What ``renewal`` raises is raised, and nothing is changed.
        """
        ...


class MemoryVault:
    """A vault that lasts as long as its process: for tests, and for grants that can be made anew at any time."""

    def __init__(self, held: Held | None = None) -> None:
        self._held: Held = held or {}
        self._renewing = asyncio.Lock()

    async def read(self) -> Held:
        """Return what is kept now."""
        return self._held

    async def renew(self, renewal: Renewal) -> Held:
        """Keep what ``renewal`` returns; see `TokenVault`."""
        return await asyncio.shield(asyncio.ensure_future(self._renew(renewal)))

    async def _renew(self, renewal: Renewal) -> Held:
        async with self._renewing:
            self._held = await renewal(self._held)
            return self._held
