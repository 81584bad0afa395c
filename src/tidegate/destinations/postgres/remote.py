"""Tables in any other PostgreSQL: rows commit there with their commit note, then the ledger in Tidegate's (SPEC 5, HOLE s)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from tidegate.destinations.base import DeliveryKey, Ledger, Target, Turn, Written
from tidegate.destinations.postgres.commits import Commits
from tidegate.destinations.postgres.following import Place
from tidegate.destinations.postgres.load import Batch, Load, Pool, connected, staging
from tidegate.destinations.postgres.local import DEFAULT_SCHEMA
from tidegate.destinations.postgres.refusals import FAILURES, translated
from tidegate.destinations.postgres.tables import Tables
from tidegate.domain.errors import InvalidInput
from tidegate.domain.fetch import Page

COMMAND_SECONDS: Final = 300.0
"""The longest a statement may take there: a destination that has gone quiet must not hold a run for ever."""

_NAMED: Final = "SELECT set_config('application_name', $1, true)"
_END_OLDER: Final = """
SELECT count(pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity
 WHERE datname = current_database() AND usename = current_user AND starts_with(application_name, $1)
   AND substr(application_name, length($1) + 1)::bigint < $2"""
"""Ends what older epochs of a run have open. They will never commit, and whoever froze there, in a COPY even, which the server
takes for active, would keep the newer one waiting for its rows.
"""


def require_address(dsn: str) -> None:
    """Raise InvalidInput if ``dsn`` is not the address of a PostgreSQL database; its text is never shown."""
    try:
        address = urlsplit(dsn)
        usable = address.scheme in ("postgres", "postgresql") and bool(address.netloc or address.query)
        _ = address.port
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput(
            "secrets.url",
            "(hidden)",
            "is not a PostgreSQL address",
            "Write postgresql://user:password@host:5432/database, special characters in it percent-encoded.",
        )


class RemotePostgres:
    """The destination in a database of its own: ``pool`` leads there and is closed with it, ``ledger_pool`` to Tidegate's.

    ``ledger_id`` tells that one's notes from those of others that share the schema; ``alone``: whether no worker of it is
    left that notes commits without.
    """

    def __init__(
        self, pool: Pool, ledger_pool: Pool, ledger_id: UUID, *, alone: bool = True, schema: str = DEFAULT_SCHEMA
    ) -> None:
        self._pool = pool
        self._ledger_pool = ledger_pool
        self._tables = Tables(schema)
        self._commits = Commits(schema, ledger_id, alone=alone)
        self._staging = staging(pool)

    @classmethod
    async def connect(
        cls,
        dsn: str,
        ledger_pool: Pool,
        ledger_id: UUID,
        *,
        alone: bool = True,
        schema: str = DEFAULT_SCHEMA,
        size: int = 4,
    ) -> RemotePostgres:
        """Return the destination at ``dsn``, holding at most ``size`` connections. Raises a DestinationError.

        Raises InvalidInput if ``dsn`` is not an address; its text is never shown.
        """
        require_address(dsn)
        try:
            pool = await asyncpg.create_pool(dsn, min_size=0, max_size=size, command_timeout=COMMAND_SECONDS)
        except FAILURES as error:
            raise translated(error) from error
        return cls(pool, ledger_pool, ledger_id, alone=alone, schema=schema)

    def writer(self, target: Target, run_id: int, epoch: int) -> RemoteWriter:
        """Return the writer of one run; does no I/O."""
        load = Load(self._tables, target, run_id, self._staging)
        return RemoteWriter(self._pool, self._ledger_pool, self._commits, load, DeliveryKey(run_id, epoch, 0))

    async def reach(self) -> None:
        """Return if the database answers now. Raises a DestinationError if not."""
        async with connected(self._pool) as connection:
            await connection.execute("select 1")

    async def forget(self, ended: Callable[[Sequence[int]], Awaitable[Sequence[int]]]) -> int:
        """Delete this ledger's notes of runs that have ended long ago, as ``ended`` says of some run ids; return how many.

        A worker that still believes to run one of them loses its claim with it. Raises a DestinationError.
        """
        gone, after = 0, 0
        async with connected(self._pool) as connection:
            if not await self._commits.settle(connection):
                return 0
            while noted := await self._commits.noted(connection, after):
                gone += await self._commits.forget(connection, await ended(noted))
                after = noted[-1]
        return gone

    async def close(self) -> None:
        """Close the connections to the destination."""
        await self._pool.close()


class RemoteWriter:
    """One run's way into one target."""

    def __init__(self, pool: Pool, ledger_pool: Pool, commits: Commits, load: Load, claim: DeliveryKey) -> None:
        self._pool = pool
        self._ledger_pool = ledger_pool
        self._commits = commits
        self._load = load
        self._claim = claim

    @property
    def _session(self) -> str:
        """Return what the sessions of the run's batches are called there while they write, but for the epoch."""
        return f"tidegate {self._commits.ledger_id.hex[:12]} run {self._claim.run_id} epoch "

    async def committed(self) -> bytes | None:
        """Claim the epoch and return the checkpoint that committed with rows last, None if none has.

        If the ledger does not know that checkpoint, the process died between the two commits: `write` the same batch with
        it and no pages, and the ledger gets the counts. Raises LeaseLost or a DestinationError.
        """
        async with connected(self._pool) as connection:
            if self._claim.epoch > 1:
                await connection.execute(_END_OLDER, self._session, self._claim.epoch)
            return await self._commits.claim(connection, self._claim.run_id, self._claim.epoch)

    def ready(self, page: Page) -> None:
        """Render ``page`` ahead of its batch."""
        self._load.ready(page)

    async def write(
        self, pages: Sequence[Page], key: DeliveryKey, checkpoint: bytes, ledger: Ledger, turn: Turn
    ) -> Written:
        """Commit ``pages`` with their note, then the ledger's entry; a batch that has committed is only entered.

        Raises LeaseLost, DestinationUnavailable or DestinationRejected; InternalError if the batch committed with another
        checkpoint.
        """
        place = self._load.follow(turn)
        try:
            async with connected(self._pool) as connection:
                written = await self._commits.repeated(connection, key, checkpoint)
            if written is None:
                written = await self._load.delivered(self._pool, pages, partial(self._commit, key, checkpoint), place)
            else:
                await turn()
            async with connected(self._ledger_pool) as connection, connection.transaction():
                await ledger(connection, written)
        finally:
            place.ended()
        return written

    async def _commit(self, key: DeliveryKey, checkpoint: bytes, batch: Batch, place: Place) -> Written:
        async with connected(self._pool) as connection, connection.transaction():
            await connection.execute(_NAMED, f"{self._session}{self._claim.epoch}")
            written = await self._load.rows(connection, batch, place)
            await self._commits.commit(connection, key, checkpoint, written)
        return written
