"""`tidegate_commits`: which batch of which run has committed in a PostgreSQL that is not Tidegate's (SPEC 5, HOLE s).

One row per run: the newest epoch that was here, the last batch, its checkpoint and its counts. The row changes in the
transaction of the batch's rows, so recovery reads the truth, and an older epoch finds its claim gone and rolls back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from tidegate.destinations.base import DeliveryKey, Written
from tidegate.destinations.postgres.names import lock_number, quoted
from tidegate.domain.errors import InternalError, LeaseLost

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS {table} (
  run_id bigint PRIMARY KEY, epoch bigint NOT NULL, batch int NOT NULL DEFAULT 0, checkpoint bytea, written json
)"""
_CLAIM: Final = """
INSERT INTO {table} AS t (run_id, epoch) VALUES ($1, $2)
ON CONFLICT (run_id) DO UPDATE SET epoch = excluded.epoch WHERE t.epoch <= excluded.epoch
RETURNING checkpoint"""
_LAST: Final = "SELECT epoch, batch, checkpoint, written FROM {table} WHERE run_id = $1"
_COMMIT: Final = """
UPDATE {table} SET batch = $3, checkpoint = $4, written = $5
WHERE run_id = $1 AND epoch = $2 AND batch < $3 RETURNING batch"""
_NOTED: Final = "SELECT run_id FROM {table} WHERE run_id > $1 ORDER BY run_id LIMIT 1000"
_FORGET: Final = (
    "WITH gone AS (DELETE FROM {table} WHERE run_id = ANY($1::bigint[]) RETURNING 1) SELECT count(*) FROM gone"
)


class Commits:
    """The commits of one schema, on connections that the caller hands in. Raises asyncpg's errors besides those named."""

    def __init__(self, schema: str) -> None:
        self._schema = quoted(schema)
        self._table = f"{self._schema}.tidegate_commits"

    async def claim(self, connection: asyncpg.Connection, run_id: int, epoch: int) -> bytes | None:
        """Shut out epochs older than ``epoch`` and return the checkpoint of the run's last batch here, None if none.

        Waits for an older epoch's transaction that is just committing. Raises LeaseLost, with the ``newest_epoch`` among
        its values, if a newer one has been here.
        """
        if await connection.fetchval("SELECT to_regclass($1)", self._table) is None:
            await self._create(connection)
        row = await connection.fetchrow(_CLAIM.format(table=self._table), run_id, epoch)
        if row is None:
            newest = await connection.fetchval(_LAST.format(table=self._table), run_id)
            raise LeaseLost(f"Run {run_id} has been taken over: epoch {epoch} is not the newest.", newest_epoch=newest)
        checkpoint: bytes | None = row["checkpoint"]
        return checkpoint

    async def _create(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", lock_number(self._schema))
            if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", self._schema):
                await connection.execute(f"CREATE SCHEMA {self._schema}")
            await connection.execute(_CREATE.format(table=self._table))

    async def repeated(self, connection: asyncpg.Connection, key: DeliveryKey, checkpoint: bytes) -> Written | None:
        """Return what became of the batch if it has committed already, None if it is still to be written.

        Raises LeaseLost as `claim` does, and InternalError if the batch committed with another checkpoint: whoever writes
        it has not resumed from what `claim` returned, and its pages must not be taken for those that committed.
        """
        row = await connection.fetchrow(_LAST.format(table=self._table), key.run_id)
        if row is None or row["epoch"] != key.epoch:
            raise LeaseLost(f"Run {key.run_id} has been taken over: epoch {key.epoch} holds no claim.")
        if row["batch"] < key.batch:
            return None
        if row["batch"] > key.batch or row["checkpoint"] != checkpoint:
            raise InternalError(
                f"Batch {key.batch} of run {key.run_id} has committed with another checkpoint; resume from it."
            )
        return msgspec.json.decode(row["written"], type=Written)

    async def commit(
        self, connection: asyncpg.Connection, key: DeliveryKey, checkpoint: bytes, written: Written
    ) -> None:
        """Note the batch in the transaction of its rows. Raises LeaseLost, and the rows must roll back."""
        note = msgspec.json.encode(written).decode()
        statement = _COMMIT.format(table=self._table)
        if await connection.fetchval(statement, key.run_id, key.epoch, key.batch, checkpoint, note) is None:
            raise LeaseLost(f"Run {key.run_id} has been taken over: epoch {key.epoch} commits nothing more.")

    async def noted(self, connection: asyncpg.Connection, after_run_id: int) -> list[int]:
        """Return the next run ids that have a commit noted, ascending; none at the end, or where nothing ever committed."""
        if await connection.fetchval("SELECT to_regclass($1)", self._table) is None:
            return []
        return [row["run_id"] for row in await connection.fetch(_NOTED.format(table=self._table), after_run_id)]

    async def forget(self, connection: asyncpg.Connection, run_ids: Sequence[int]) -> int:
        """Delete the commits of these runs; return how many there were. Only finished runs may be among them."""
        return int(await connection.fetchval(_FORGET.format(table=self._table), list(run_ids)))
