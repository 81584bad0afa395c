"""Rows: lines of COPY text into a temporary staging table, from there under the version rule into the stream's table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

import asyncpg

from tidegate.destinations.base import Target
from tidegate.destinations.postgres.layout import NULL, Column, Layout
from tidegate.destinations.postgres.names import quoted, staging_name

_STAGED: Final = (
    Column("_tidegate_misfits", "json", None),
    Column("_tidegate_cursor", "timestamptz", None),
    Column("_tidegate_hash", "bigint", None),
    Column("_tidegate_page", "int", None),
    Column("_tidegate_position", "int", None),
)
"""What follows the record's columns on a line, in the order of `layout.line`."""

_BY_CURSOR: Final = """
   t._tidegate_cursor IS NULL OR t._tidegate_cursor < excluded._tidegate_cursor
   OR (t._tidegate_cursor = excluded._tidegate_cursor AND t._tidegate_hash <> excluded._tidegate_hash
       AND t._tidegate_requested_at <= excluded._tidegate_requested_at)"""
_BY_CONTENT: Final = """
   t._tidegate_hash <> excluded._tidegate_hash AND t._tidegate_requested_at <= excluded._tidegate_requested_at"""

_LINES_PER_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows were written."""

    inserted: int = 0
    updated: int = 0


@dataclass(frozen=True)
class Upsert:
    """The statements that write lines of one layout into one table."""

    table: str
    layout: Layout

    @cached_property
    def _staged(self) -> tuple[Column, ...]:
        return (*self.layout.columns, *_STAGED)

    @cached_property
    def _staging(self) -> str:
        return staging_name(",".join(f"{column.name} {column.sql_type}" for column in self._staged))

    @cached_property
    def _prepare(self) -> str:
        """Return what makes the staging table: one per connection and shape, empty at the start of every transaction.

        A worker that is idle for 10 s inside the transaction is frozen or cut off; its locks must not stop its successor.
        """
        columns = ", ".join(f"{quoted(column.name)} {column.sql_type}" for column in self._staged)
        return (
            "SET LOCAL lock_timeout = '30s'; SET LOCAL idle_in_transaction_session_timeout = '10s'; "
            "SET LOCAL client_min_messages = warning; "
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {self._staging} ({columns}) ON COMMIT DELETE ROWS"
        )

    @cached_property
    def _statement(self) -> str:
        """Return the upsert: rows in key order, so that two writers never wait for each other in a circle.

        Within a batch the greatest cursor value wins, of equal ones the record that was read last; against the table the
        version rule of SPEC 4. Parameters: tenant, account, run, the pages' `requested_at`.
        """
        names = [quoted(column.name) for column in self.layout.columns]
        ours = ["_tidegate_misfits", "_tidegate_cursor", "_tidegate_hash", "_tidegate_requested_at", "_tidegate_run_id"]
        keys = [quoted(key) for key in self.layout.keys]
        kept = [name for name in (*names, *ours) if name not in keys]
        return f"""
WITH written AS (
  INSERT INTO {self.table} AS t (tenant_id, account_id, {", ".join((*names, *ours))})
  SELECT DISTINCT ON ({", ".join(keys)}) $1, $2, {", ".join(names)}, _tidegate_misfits, _tidegate_cursor, _tidegate_hash,
         ($4::timestamptz[])[_tidegate_page], $3::bigint
  FROM pg_temp.{self._staging}
  ORDER BY {", ".join(keys)}, _tidegate_cursor DESC NULLS LAST, _tidegate_page DESC, _tidegate_position DESC
  ON CONFLICT (tenant_id, account_id, {", ".join(keys)}) DO UPDATE
  SET {", ".join(f"{name} = excluded.{name}" for name in kept)}
  WHERE {_BY_CONTENT if self.layout.stream.cursor is None else _BY_CURSOR}
  RETURNING xmax = 0 AS inserted
)
SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM written"""

    async def write(
        self,
        connection: asyncpg.Connection,
        lines: Sequence[str],
        target: Target,
        run_id: int,
        requested_at: Sequence[datetime],
    ) -> Counts:
        """Write ``lines`` inside the caller's transaction; ``requested_at`` by page number, from 1. Raises asyncpg's errors."""
        await connection.execute(self._prepare)
        await connection.copy_to_table(
            self._staging,
            schema_name="pg_temp",
            source=_chunks(lines),
            columns=[column.name for column in self._staged],
            null=NULL,
        )
        row = await connection.fetchrow(self._statement, target.tenant_id, target.account_id, run_id, requested_at)
        return Counts(*row) if row is not None else Counts()


async def _chunks(lines: Sequence[str]) -> AsyncIterator[bytes]:
    for first in range(0, len(lines), _LINES_PER_CHUNK):
        yield "".join(lines[first : first + _LINES_PER_CHUNK]).encode()
