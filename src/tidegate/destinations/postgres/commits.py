"""`tidegate_commits`: which batch of which run has committed in a PostgreSQL that is not Tidegate's (SPEC 5, HOLE s).

One row per ledger and run: the newest epoch that was here, the last batch, its checkpoint and its counts. The row changes in
the transaction of the batch's rows, so recovery reads the truth, and an older epoch finds its claim gone and rolls back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from tidegate.destinations.base import DeliveryKey, Written
from tidegate.destinations.postgres.names import lock_number, quoted
from tidegate.domain.errors import InternalError, LeaseLost

_COLUMNS: Final = "epoch bigint NOT NULL, batch int NOT NULL DEFAULT 0, checkpoint bytea, written json"
_CREATE: Final = """
CREATE TABLE {table} (ledger_id uuid NOT NULL, run_id bigint NOT NULL, {columns}, PRIMARY KEY (ledger_id, run_id))"""
_CREATE_OLDER: Final = "CREATE TABLE {table} (run_id bigint PRIMARY KEY, {columns})"
_ADMIT_LEDGERS: Final = """
ALTER TABLE {table} ADD COLUMN ledger_id uuid NOT NULL DEFAULT '{ledger_id}';
CREATE UNIQUE INDEX tidegate_commits_of_ledger ON {table} (ledger_id, run_id)"""
"""The older shape's key stays, and its statements go on: what they note is this ledger's."""
_CLOSE: Final = """
ALTER TABLE {table} DROP CONSTRAINT {key}, ALTER COLUMN ledger_id DROP DEFAULT;
ALTER TABLE {table} ADD CONSTRAINT {key} PRIMARY KEY USING INDEX tidegate_commits_of_ledger"""
_OLDER_KEY: Final = """
SELECT quote_ident(c.conname) FROM pg_catalog.pg_constraint c
 WHERE c.conrelid = to_regclass($1) AND c.contype = 'p' AND cardinality(c.conkey) = 1"""
_READY: Final = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'ledger_id')"""
_CLAIM: Final = """
INSERT INTO {table} AS t (ledger_id, run_id, epoch) VALUES ($1, $2, $3)
ON CONFLICT (ledger_id, run_id) DO UPDATE SET epoch = excluded.epoch WHERE t.epoch <= excluded.epoch
RETURNING checkpoint"""
_LAST: Final = "SELECT epoch, batch, checkpoint, written FROM {table} WHERE ledger_id = $1 AND run_id = $2"
_COMMIT: Final = """
UPDATE {table} SET batch = $4, checkpoint = $5, written = $6
WHERE ledger_id = $1 AND run_id = $2 AND epoch = $3 AND batch < $4 RETURNING batch"""
_NOTED: Final = "SELECT run_id FROM {table} WHERE ledger_id = $1 AND run_id > $2 ORDER BY run_id LIMIT 1000"
_FORGET: Final = """
WITH gone AS (DELETE FROM {table} WHERE ledger_id = $1 AND run_id = ANY($2::bigint[]) RETURNING 1)
SELECT count(*) FROM gone"""
_LOCK_TIMEOUT: Final = "2s"
_TRIES: Final = 10


class Commits:
    """One ledger's commits in one schema, on connections that the caller hands in. Raises asyncpg's errors besides those named.

    A table of the older shape, whose key is the run's number alone, is moved over in two steps: the first claim lets several
    ledgers in and leaves the older key, by which workers of the revision before go on; `forget` takes it away once this
    ledger is ``alone``, and `claim` as soon as a number of another ledger stands in the way.
    """

    def __init__(self, schema: str, ledger_id: UUID, *, alone: bool = True) -> None:
        self._schema = quoted(schema)
        self._table = f"{self._schema}.tidegate_commits"
        self.ledger_id = ledger_id
        self._alone = alone

    async def claim(self, connection: asyncpg.Connection, run_id: int, epoch: int) -> bytes | None:
        """Shut out epochs older than ``epoch`` and return the checkpoint of the run's last batch here, None if none.

        Waits for an older epoch's transaction that is just committing. Raises LeaseLost, with the ``newest_epoch`` among
        its values, if a newer one has been here.
        """
        if not await connection.fetchval(_READY, self._table):
            await self._define(connection, self._make_ready)
        row = await self._claimed(connection, run_id, epoch)
        if row is None:
            newest = await connection.fetchval(_LAST.format(table=self._table), self.ledger_id, run_id)
            raise LeaseLost(f"Run {run_id} has been taken over: epoch {epoch} is not the newest.", newest_epoch=newest)
        checkpoint: bytes | None = row["checkpoint"]
        return checkpoint

    async def _claimed(self, connection: asyncpg.Connection, run_id: int, epoch: int) -> asyncpg.Record | None:
        """Return the run's row once it bears ``epoch``, None if it bears a newer one.

        The older key refuses two that claim the same run at once, which passes, and another ledger's number, which does not.
        """
        statement = _CLAIM.format(table=self._table)
        for tried in range(3):
            try:
                return await connection.fetchrow(statement, self.ledger_id, run_id, epoch)
            except asyncpg.UniqueViolationError:
                if tried:
                    await self._define(connection, self._close)
        raise InternalError(f"The note of run {run_id} is refused.")

    async def _define(
        self, connection: asyncpg.Connection, change: Callable[[asyncpg.Connection], Awaitable[None]]
    ) -> None:
        """Change definitions in a transaction that waits for a lock only briefly: who comes after would wait behind it."""
        for tried in range(1, _TRIES + 1):
            try:
                async with connection.transaction():
                    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", lock_number(self._schema))
                    await change(connection)
            except asyncpg.LockNotAvailableError:
                if tried == _TRIES:
                    raise
            else:
                return

    async def _make_ready(self, connection: asyncpg.Connection) -> None:
        """Let there be a table that several ledgers share, and older workers too unless there are none."""
        if await connection.fetchval(_READY, self._table):
            return
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", self._schema):
            await connection.execute(f"CREATE SCHEMA {self._schema}")
        if await connection.fetchval("SELECT to_regclass($1) IS NULL", self._table):
            create = _CREATE if self._alone else _CREATE_OLDER
            await connection.execute(create.format(table=self._table, columns=_COLUMNS))
        if not await connection.fetchval(_READY, self._table):
            await connection.execute(_ADMIT_LEDGERS.format(table=self._table, ledger_id=self.ledger_id))

    async def _close(self, connection: asyncpg.Connection) -> None:
        """Take away the key of the older shape, if it is there."""
        key = await connection.fetchval(_OLDER_KEY, self._table)
        if key is not None:
            await connection.execute(_CLOSE.format(table=self._table, key=key))

    async def repeated(self, connection: asyncpg.Connection, key: DeliveryKey, checkpoint: bytes) -> Written | None:
        """Return what became of the batch if it has committed already, None if it is still to be written.

        Raises LeaseLost as `claim` does, and InternalError if the batch committed with another checkpoint: whoever writes
        it has not resumed from what `claim` returned, and its pages must not be taken for those that committed.
        """
        row = await connection.fetchrow(_LAST.format(table=self._table), self.ledger_id, key.run_id)
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
        values = (self.ledger_id, key.run_id, key.epoch, key.batch, checkpoint, note)
        if await connection.fetchval(statement, *values) is None:
            raise LeaseLost(f"Run {key.run_id} has been taken over: epoch {key.epoch} commits nothing more.")

    async def settle(self, connection: asyncpg.Connection) -> bool:
        """Return whether there is a table with this ledger's notes; without the older key, if this ledger is alone."""
        if not await connection.fetchval(_READY, self._table):
            return False
        if self._alone and await connection.fetchval(_OLDER_KEY, self._table) is not None:
            await self._define(connection, self._close)
        return True

    async def noted(self, connection: asyncpg.Connection, after_run_id: int) -> list[int]:
        """Return the next run ids of which this ledger has a commit noted, ascending; none at the end."""
        rows = await connection.fetch(_NOTED.format(table=self._table), self.ledger_id, after_run_id)
        return [row["run_id"] for row in rows]

    async def forget(self, connection: asyncpg.Connection, run_ids: Sequence[int]) -> int:
        """Delete the commits of these runs; return how many there were. Only finished runs may be among them."""
        return int(await connection.fetchval(_FORGET.format(table=self._table), self.ledger_id, list(run_ids)))
