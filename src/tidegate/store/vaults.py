"""Table `connection_tokens`: a connection's OAuth tokens, sealed, renewed by one process at a time.

Whoever renews holds the connection's row from before the token endpoint is asked until its answer is committed; the others
wait for the row and find the new tokens in it. The configuration that the tokens were renewed under is locked too, so that
`apply` cannot change it meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import asyncpg
import structlog

from tidegate.domain.clock import Clock
from tidegate.domain.errors import InternalError, InvalidInput
from tidegate.store.seal import Sealer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tidegate.store.database import Connection, Pool
    from tidegate.store.directory import StoredConnection

    Held: TypeAlias = Mapping[str, str]
    Renewal: TypeAlias = Callable[[Held], Awaitable[Held]]

T = TypeVar("T")

log = structlog.get_logger(__name__)

AT_ONCE = 3
"""Renewals of one process that go on at once: each keeps a database connection while the token endpoint answers."""
OF_ONE_PLATFORM = 2
"""Of them those of one platform: where its token endpoint hangs, the others' connections go on."""
HEARTBEAT_SECONDS = 3.0
"""How often a waiting renewal shows that its process is not frozen (`database.end_frozen`)."""
LATE_WAITS_SECONDS = (0.1, 0.5, 2.0, 5.0)
"""Waits before tokens that could not be committed are tried again, in their own transaction."""
PATIENCE_SECONDS = 30.0
"""How long a process that stops waits for renewals that have begun."""

_GONE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


def tokens_place(tenant_id: str, name: str) -> str:
    """Return what a connection's tokens are sealed for."""
    return f"tokens/{tenant_id}/{name}"


class Vaults:
    """The vaults of all connections that one process has open."""

    def __init__(self, pool: Pool, sealer: Sealer, clock: Clock) -> None:
        self.pool, self.sealer, self.clock = pool, sealer, clock
        self.at_once = asyncio.Semaphore(AT_ONCE)
        self.of_platform: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(OF_ONE_PLATFORM))
        self.uncommitted: dict[int, tuple[bytes | None, Held]] = {}
        self._renewing: set[asyncio.Task[Held]] = set()

    def of(self, stored: StoredConnection) -> ConnectionVault:
        """Return the vault of a connection, for as long as its configuration is the one ``stored``."""
        return ConnectionVault(self, stored)

    async def carried_through(self, renewal: Awaitable[Held]) -> Held:
        """Return what ``renewal`` does, which goes on although whoever waits for it is cancelled."""
        task = asyncio.ensure_future(renewal)
        self._renewing.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Held]) -> None:
        self._renewing.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits is told; if nobody does, nothing is left to say

    async def settled(self) -> None:
        """Wait for the renewals that have begun: they may hold the only tokens that are still valid."""
        if self._renewing:
            await asyncio.wait(self._renewing, timeout=PATIENCE_SECONDS)


class ConnectionVault:
    """One connection's vault, as `tidegate.connectors.tokens.TokenVault` says."""

    def __init__(self, vaults: Vaults, stored: StoredConnection) -> None:
        self._vaults, self._id, self._fingerprint = vaults, stored.id, stored.fingerprint
        self._place, self._platform = tokens_place(stored.tenant_id, stored.name), stored.connector

    async def read(self) -> Held:
        """Return what is kept now, empty if there is nothing or it was sealed under another key."""
        return self._opened(
            await self._vaults.pool.fetchval("select sealed from connection_tokens where connection_id = $1", self._id)
        )

    def _opened(self, sealed: bytes | None) -> Held:
        if sealed is None:
            return {}
        try:
            return self._vaults.sealer.unseal(sealed, self._place)
        except InvalidInput:  # the connection itself was sealed anew since, or it could not have been opened
            log.warning("tokens sealed under another key", place=self._place)
            return {}

    async def renew(self, renewal: Renewal) -> Held:
        """Keep what ``renewal`` returns, one process at a time.

        Raises InternalError, to be tried again, if the connection's configuration is another one by now, or if the
        database is gone; tokens that could not be committed are committed first of all at the next renewal.
        """
        return await self._vaults.carried_through(self._renew(renewal))

    async def _renew(self, renewal: Renewal) -> Held:
        async with self._vaults.of_platform[self._platform], self._vaults.at_once:
            if self._id in self._vaults.uncommitted:
                await self._commit_late()
            seen: bytes | None = None
            renewed: Held | None = None
            try:
                async with self._vaults.pool.acquire() as connection, connection.transaction():
                    seen = await self._lock(connection)
                    held = self._opened(seen)
                    renewed = await _kept_alive(connection, renewal(held))
                    if renewed is not held:
                        await self._put(connection, renewed)
                return renewed
            except _GONE as error:
                if renewed is None:
                    raise InternalError(f"The database failed before a token was renewed: {error}") from error
            self._vaults.uncommitted[self._id] = (seen, renewed)
            return await self._commit_late()

    async def _commit_late(self) -> Held:
        """Commit tokens whose transaction was lost, unless another process has renewed them since."""
        seen, renewed = self._vaults.uncommitted[self._id]
        for wait in LATE_WAITS_SECONDS:
            try:
                async with self._vaults.pool.acquire() as connection, connection.transaction():
                    now = await self._lock(connection, under_any=True)
                    if now == seen:
                        await self._put(connection, renewed)
                    else:  # ours after all, or another process's
                        renewed = self._opened(now)
            except _GONE as error:
                log.warning("tokens not committed", place=self._place, error=type(error).__name__)
                await self._vaults.clock.sleep(wait)
            else:
                del self._vaults.uncommitted[self._id]
                return renewed
        raise InternalError("A renewed token could not be committed: the database is gone. It is kept until it can be.")

    async def _lock(self, connection: Connection, *, under_any: bool = False) -> bytes | None:
        await connection.execute(
            "insert into connection_tokens (connection_id) values ($1) on conflict do nothing", self._id
        )
        sealed: bytes | None = await connection.fetchval(
            "select sealed from connection_tokens where connection_id = $1 for update", self._id
        )
        fingerprint = await connection.fetchval("select fingerprint from connections where id = $1 for share", self._id)
        if fingerprint != self._fingerprint and not under_any:
            raise InternalError(
                "The connection was changed before its token could be renewed.",
                remedy="Nothing to do: the run is tried again with the new configuration.",
            )
        return sealed

    async def _put(self, connection: Connection, renewed: Held) -> None:
        await connection.execute(
            "update connection_tokens set sealed = $2, renewed_at = $3 where connection_id = $1",
            self._id,
            self._vaults.sealer.seal(renewed, self._place),
            self._vaults.clock.now(),
        )


async def _kept_alive(connection: Connection, work: Awaitable[T]) -> T:
    """Return what ``work`` does; meanwhile show the server that whoever holds the transaction is not frozen.

    A connection that is lost meanwhile does not stop the work: what it brings is committed on another one.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=HEARTBEAT_SECONDS))[0]:
            try:
                await connection.execute("select 1")
            except _GONE:
                break
        return await task
    finally:
        task.cancel()
