"""Rows: COPY text into a temporary staging table and from there under the version rule into the stream's table; what is
known to be new goes straight there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

import asyncpg

from tidegate.destinations.base import Target
from tidegate.destinations.postgres.layout import NULL, Column, Layout
from tidegate.destinations.postgres.names import quoted, staging_name
from tidegate.destinations.postgres.refusals import found_there
from tidegate.destinations.postgres.values import escaped

_OURS: Final = (
    Column("_tidegate_misfits", "json", None),
    Column("_tidegate_cursor", "timestamptz", None),
    Column("_tidegate_hash", "bigint", None),
)
"""What follows the record's columns in a line, in the order of `Layout.heads`."""
_PAGE: Final = "_tidegate_page"
"""Says of a staged row which page it came from, from 1: a small number is read for less than the page's time in each row."""
_STAGED: Final = (*_OURS, Column(_PAGE, "int", None))
"""What a line of the staging table ends with."""
_PLACE: Final = "_tidegate_place"
"""Numbers the staged rows in the order in which they were read."""
_DIRECT: Final = ("_tidegate_requested_at", "_tidegate_run_id", "tenant_id", "account_id")

_PATIENCE: Final = "SET LOCAL lock_timeout = '30s'; SET LOCAL idle_in_transaction_session_timeout = '10s'"
"""A worker that is idle for 10 s inside the transaction is frozen or cut off; its locks must not stop its successor."""

_BY_CURSOR: Final = """
   t._tidegate_cursor IS NULL OR t._tidegate_cursor < excluded._tidegate_cursor
   OR (t._tidegate_cursor = excluded._tidegate_cursor AND t._tidegate_hash <> excluded._tidegate_hash
       AND t._tidegate_requested_at <= excluded._tidegate_requested_at)"""
_BY_CONTENT: Final = """
   t._tidegate_hash <> excluded._tidegate_hash AND t._tidegate_requested_at <= excluded._tidegate_requested_at"""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows were written."""

    inserted: int = 0
    updated: int = 0


@dataclass(frozen=True)
class Upsert:
    """The statements that write lines of one layout into one table."""

    schema: str
    name: str
    layout: Layout

    @property
    def table(self) -> str:
        """Return the table's name as SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @cached_property
    def _staged(self) -> tuple[Column, ...]:
        return (*self.layout.columns, *_STAGED)

    @cached_property
    def _staging(self) -> str:
        return staging_name(",".join(f"{column.name} {column.sql_type}" for column in self._staged))

    @cached_property
    def _prepare(self) -> str:
        """Return what makes the staging table: one per connection and shape, empty at the start of every transaction."""
        columns = ", ".join(f"{quoted(column.name)} {column.sql_type}" for column in self._staged)
        return (
            f"{_PATIENCE}; SET LOCAL client_min_messages = warning; "
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {self._staging} "
            f"({_PLACE} bigint GENERATED ALWAYS AS IDENTITY, {columns}) ON COMMIT DELETE ROWS"
        )

    @cached_property
    def _statement(self) -> str:
        """Return the upsert: rows in key order, so that two writers never wait for each other in a circle.

        Within a batch the greatest cursor value wins, of equal ones the record that was read last; against the table the
        version rule of SPEC 4. Parameters: tenant, account, run, and by page its `requested_at`.
        """
        names = [quoted(column.name) for column in (*self.layout.columns, *_OURS)]
        keys = [quoted(key) for key in self.layout.keys]
        kept = [name for name in (*names, "_tidegate_requested_at", "_tidegate_run_id") if name not in keys]
        return f"""
WITH written AS (
  INSERT INTO {self.table} AS t (tenant_id, account_id, _tidegate_run_id, _tidegate_requested_at, {", ".join(names)})
  SELECT DISTINCT ON ({", ".join(keys)}) $1, $2, $3::bigint, ($4::timestamptz[])[{_PAGE}], {", ".join(names)}
  FROM pg_temp.{self._staging}
  ORDER BY {", ".join(keys)}, _tidegate_cursor DESC NULLS LAST, {_PLACE} DESC
  ON CONFLICT (tenant_id, account_id, {", ".join(keys)}) DO UPDATE
  SET {", ".join(f"{name} = excluded.{name}" for name in kept)}
  WHERE {_BY_CONTENT if self.layout.stream.cursor is None else _BY_CURSOR}
  RETURNING xmax = 0 AS inserted
)
SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM written"""

    async def stage(self, connection: asyncpg.Connection, pages: Sequence[tuple[datetime, list[bytes]]]) -> None:
        """Copy records, by page with the page's `requested_at`, into the staging table of the caller's transaction, to `write`.

        Nobody else sees them, and nobody waits for them. Raises asyncpg's errors.
        """
        await connection.execute(self._prepare)
        await connection.copy_to_table(
            self._staging,
            schema_name="pg_temp",
            source=_chunks((heads, f"\t{number}\n") for number, (_, heads) in enumerate(pages, start=1)),
            columns=[column.name for column in self._staged],
            null=NULL,
        )

    async def write(
        self, connection: asyncpg.Connection, pages: Sequence[tuple[datetime, list[bytes]]], target: Target, run_id: int
    ) -> Counts:
        """Write ``pages``, which were staged in this transaction, under the version rule. Raises asyncpg's errors."""
        requested = [at for at, _ in pages]
        row = await connection.fetchrow(self._statement, target.tenant_id, target.account_id, run_id, requested)
        return Counts(*row) if row is not None else Counts()

    async def insert(
        self, connection: asyncpg.Connection, pages: Sequence[tuple[datetime, list[bytes]]], target: Target, run_id: int
    ) -> Counts:
        """Copy records, none of whose keys is in the table, straight into it: the version rule has nothing to decide.

        Raises NotNew if a key is there after all, or twice in ``pages``; otherwise asyncpg's errors.
        """
        named = f"{run_id}\t{escaped(target.tenant_id)}\t{escaped(target.account_id)}\n"
        await connection.execute(_PATIENCE)
        with found_there():
            await connection.copy_to_table(
                self.name,
                schema_name=self.schema,
                source=_chunks((heads, f"\t{at.isoformat()}\t{named}") for at, heads in pages),
                columns=[*(column.name for column in (*self.layout.columns, *_OURS)), *_DIRECT],
                null=NULL,
            )
        return Counts(inserted=sum(len(heads) for _, heads in pages))


async def _chunks(pages: Iterable[tuple[list[bytes], str]]) -> AsyncIterator[bytes]:
    """Yield each page's lines, all of which end alike."""
    for heads, ended in pages:
        if heads:
            ending = ended.encode()
            yield ending.join([*heads, b""])
