"""Tables and columns: what is there, and how what is missing gets made while other runs use the same table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg

from tidegate.destinations.base import Target
from tidegate.destinations.postgres.careful import Found
from tidegate.destinations.postgres.layout import Column, Layout, declared
from tidegate.destinations.postgres.names import column_name, lock_number, quoted, table_name
from tidegate.destinations.postgres.values import COLUMN_TYPES, SQL_TYPES, united
from tidegate.domain.errors import DestinationRejected, DestinationUnavailable
from tidegate.domain.stream import ColumnType, Stream

OURS: Final = {
    "tenant_id": 'text COLLATE "C" NOT NULL',
    "account_id": 'text COLLATE "C" NOT NULL',
    "_tidegate_cursor": "timestamptz",
    "_tidegate_hash": "bigint NOT NULL",
    "_tidegate_requested_at": "timestamptz NOT NULL",
    "_tidegate_run_id": "bigint NOT NULL",
    "_tidegate_misfits": "json",
}
"""The columns that are not the record's. `json`, not `jsonb`: it keeps every value as written, `\\u0000` included."""

MAX_COLUMNS: Final = 1_600
"""PostgreSQL's limit for one table; dropped columns count."""

_EDITED_FILL: Final = 50
"""How full, in per cent, pages of a table are made whose records are edited: a row's next version then has room beside it, and
no entry of the index changes."""

_INTEGER_KEY: Final = "bigint NOT NULL"
_TEXT_KEY: Final = 'text COLLATE "C" NOT NULL'
_ATTEMPTS: Final = 10
_LOCK_TIMEOUT: Final = "2s"
_RACES: Final = (asyncpg.DuplicateTableError, asyncpg.DuplicateColumnError, asyncpg.DuplicateSchemaError)

_CATALOG: Final = """
SELECT attname AS name, format_type(atttypid, atttypmod) AS sql_type, attisdropped AS dropped,
       attgenerated <> '' OR attidentity = 'a' AS generated
FROM pg_catalog.pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0
ORDER BY attnum
"""


@dataclass(frozen=True, slots=True)
class Table:
    """One table as the catalog shows it: the columns that records can fill, in stored order; all names that are taken,
    those of generated columns among them; and how many more columns it can have."""

    columns: tuple[Column, ...]
    taken: frozenset[str]
    room: int


class Tables:
    """The tables of one schema. Remembers their layouts; the catalog is read anew for each run and each new field."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self._layouts: dict[str, Layout] = {}

    def name(self, target: Target) -> str:
        """Return the table of ``target`` as SQL, schema included."""
        return f"{quoted(self.schema)}.{quoted(self.unquoted(target))}"

    def unquoted(self, target: Target) -> str:
        """Return the table of ``target`` as the catalog spells it, without its schema."""
        return table_name(target.connector, target.stream.name)

    async def layout(self, connection: asyncpg.Connection, target: Target) -> Layout | None:
        """Return the layout of ``target`` by the catalog as it is now; None if the table does not exist yet."""
        table = await self._table(connection, self.name(target))
        return None if table is None else self._laid_out(target, table, {})

    async def extend(self, connection: asyncpg.Connection, target: Target, found: Found) -> Layout:
        """Return the layout once the table exists and holds a column for every field found that it has room for.

        Runs of other tenants may do the same at the same time. Raises DestinationUnavailable if the table's lock cannot be
        had, else asyncpg's errors.
        """
        for _ in range(_ATTEMPTS):
            try:
                return await self._extend(connection, target, found)
            except (asyncpg.LockNotAvailableError, asyncpg.UniqueViolationError, *_RACES) as error:
                last = error
        raise DestinationUnavailable(f"Table {self.name(target)} is locked by others: {last}.") from last

    async def _extend(self, connection: asyncpg.Connection, target: Target, found: Found) -> Layout:
        name = self.name(target)
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", lock_number(self.schema))
            table = await self._table(connection, name)
            if table is None:
                await self._create(connection, target, found)
            elif wanted := _added(table, target.stream, found):
                await connection.execute(f"ALTER TABLE {name} {', '.join(f'ADD COLUMN {column}' for column in wanted)}")
            table = await self._table(connection, name)
        if table is None:
            raise DestinationUnavailable(f"Table {name} was dropped while it was being made.")
        return self._laid_out(target, table, found.kinds)

    async def _create(self, connection: asyncpg.Connection, target: Target, found: Found) -> None:
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", quoted(self.schema)):
            await connection.execute(f"CREATE SCHEMA {quoted(self.schema)}")
        columns = ", ".join(_created(target.stream, found))
        room = f" WITH (fillfactor = {_EDITED_FILL})" if target.stream.open_ended else ""
        await connection.execute(f"CREATE TABLE {self.name(target)} ({columns}){room}")

    async def _table(self, connection: asyncpg.Connection, name: str) -> Table | None:
        rows = await connection.fetch(_CATALOG, name)
        if not rows:
            return None
        there = {row["name"] for row in rows}
        if missing := [column for column in OURS if column not in there]:
            raise DestinationRejected(
                f"Table {name} exists and lacks the columns {', '.join(missing)}.",
                remedy="It is not Tidegate's: rename it, or choose another schema for the destination.",
            )
        columns = tuple(
            Column(row["name"], row["sql_type"], COLUMN_TYPES.get(row["sql_type"]))
            for row in rows
            if not row["dropped"] and row["name"] not in OURS and not row["generated"]
        )
        taken = frozenset(row["name"] for row in rows if not row["dropped"])
        return Table(columns, taken, MAX_COLUMNS - len(rows))

    def _laid_out(self, target: Target, table: Table, kinds: Mapping[str, set[ColumnType]]) -> Layout:
        """Return the layout of ``table``: the one remembered if nothing has changed, so that it is compiled once."""
        stream, name = target.stream, self.name(target)
        known = self._layouts.get(name)
        parts = key_columns(stream)
        _check_keys(name, table, parts)
        named = {} if known is None else {column: source for source, column in known.fields.items()}
        named |= {column: source for source in (*declared(stream), *kinds) if (column := column_name(source))}
        nested = {column for path, column in parts.items() if "." in path}
        fields = {
            named.get(column.name, column.name): column.name
            for column in table.columns
            if column.name not in nested and (column.name in named or column_name(column.name) == column.name)
        }
        undecided = {source for source, seen in kinds.items() if not seen}
        overflow = kinds.keys() - undecided
        if known is not None:
            undecided |= known.undecided
            overflow |= known.overflow
        undecided = set(sorted(undecided - fields.keys() - overflow)[:MAX_COLUMNS])
        layout = Layout(
            stream,
            table.columns,
            fields,
            tuple(parts.values()),
            frozenset(undecided),
            frozenset(overflow - fields.keys()),
        )
        if known != layout:
            self._layouts[name] = known = layout
        return known


def key_columns(stream: Stream) -> dict[str, str]:
    """Return the column of each part of the key, by path; a nested part's column bears the dotted path."""
    return {path: column_name(path) or "" for path in stream.key}


def _created(stream: Stream, found: Found) -> list[str]:
    """Return the definitions of a new table: ours, the key, what the stream declares, what the data shows."""
    stated = declared(stream)
    columns = {name: f"{quoted(name)} {definition}" for name, definition in OURS.items()}
    parts = key_columns(stream)
    for path, name in parts.items():
        integers = stated.get(path) is ColumnType.BIGINT or (
            path not in stated and found.keys[path] == {ColumnType.BIGINT}
        )
        columns[name] = f"{quoted(name)} {_INTEGER_KEY if integers else _TEXT_KEY}"
    for name, sql_type in (*_typed(stream, stated), *_typed(stream, found.kinds)):
        if name not in columns and len(columns) < MAX_COLUMNS:
            columns[name] = f"{quoted(name)} {sql_type}"
    primary = ", ".join(quoted(name) for name in ("tenant_id", "account_id", *parts.values()))
    return [*columns.values(), f"PRIMARY KEY ({primary})"]


def _added(table: Table, stream: Stream, found: Found) -> list[str]:
    """Return the definitions of the columns that fields found still lack, as many as there is room for."""
    wanted = [f"{quoted(name)} {kind}" for name, kind in _typed(stream, found.kinds) if name not in table.taken]
    return wanted[: max(0, table.room)]


def _typed(stream: Stream, fields: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield column name and SQL type of each field: declared, or by the types seen; nothing for null and impossible names.

    ``fields``: by name, a set of the types seen; for a declared field that does not matter.
    """
    stated = declared(stream)
    for source, seen in fields.items():
        name = column_name(source)
        kind = stated.get(source) or (united(seen) if isinstance(seen, set) and seen else None)
        if name is not None and kind is not None:
            yield name, SQL_TYPES[kind]


def _check_keys(name: str, table: Table, parts: Mapping[str, str]) -> None:
    kinds = {column.name: column.kind for column in table.columns}
    for path, column in parts.items():
        if kinds.get(column) not in (ColumnType.BIGINT, ColumnType.TEXT):
            raise DestinationRejected(
                f"Table {name} has no bigint or text column {column!r} for the key {path!r}.",
                remedy="A stream's key cannot change under its table: rename the table away, or declare the old key.",
            )
