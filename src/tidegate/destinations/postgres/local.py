"""Tables in Tidegate's own database: rows and ledger entry are one transaction on one connection (SPEC 5, HOLE s)."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.destinations.base import DeliveryKey, Ledger, Target, Turn, Written
from tidegate.destinations.postgres.following import Place
from tidegate.destinations.postgres.load import Batch, Load, Pool, connected, staging
from tidegate.destinations.postgres.tables import Tables
from tidegate.domain.fetch import Page

DEFAULT_SCHEMA = "synced"
"""Where tables are made unless configured: a schema of their own, so that no stream can meet one of Tidegate's tables."""


class LocalPostgres:
    """The destination in the database that ``pool`` leads to, which is Tidegate's; the pool stays its owner's."""

    def __init__(self, pool: Pool, *, schema: str = DEFAULT_SCHEMA) -> None:
        self._pool = pool
        self._tables = Tables(schema)
        self._staging = staging(pool)

    def writer(self, target: Target, run_id: int, epoch: int) -> LocalWriter:
        """Return the writer of one run; ``epoch`` is the ledger's affair here. Does no I/O."""
        return LocalWriter(self._pool, Load(self._tables, target, run_id, self._staging))

    async def close(self) -> None:
        """Do nothing: the pool is not ours."""


class LocalWriter:
    """One run's way into one target."""

    def __init__(self, pool: Pool, load: Load) -> None:
        self._pool = pool
        self._load = load

    async def committed(self) -> bytes | None:
        """Return None: what committed is in the ledger. Does no I/O, so that a run that finds nothing costs nothing here."""
        return None

    def ready(self, page: Page) -> None:
        """Render ``page`` ahead of its batch."""
        self._load.ready(page)

    async def write(
        self, pages: Sequence[Page], key: DeliveryKey, checkpoint: bytes, ledger: Ledger, turn: Turn
    ) -> Written:
        """Commit ``pages`` and what ``ledger`` writes together, or neither.

        Raises what ``ledger`` raises (LeaseLost), DestinationUnavailable or DestinationRejected.
        """

        async def commit(batch: Batch, place: Place) -> Written:
            async with connected(self._pool) as connection, connection.transaction():
                written = await self._load.rows(connection, batch, place)
                await ledger(connection, written)
            return written

        place = self._load.follow(turn)
        try:
            return await self._load.delivered(self._pool, pages, commit, place)
        finally:
            place.ended()
