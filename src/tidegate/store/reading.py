"""A person's own SELECT, executed so that it can change nothing and does not go on for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from tidegate.domain.errors import DestinationUnavailable, InvalidInput
from tidegate.store.database import from_json

if TYPE_CHECKING:
    from tidegate.store.database import Pool

_TABLES = """
select table_schema || '.' || table_name as "table", string_agg(column_name, ', ' order by ordinal_position) as columns
  from information_schema.columns
 where table_schema = any($1::text[])
 group by table_schema, table_name order by table_schema, table_name
"""
_AT_FAULT = (
    asyncpg.SyntaxOrAccessError,
    asyncpg.DataError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.InvalidTransactionStateError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)
"""Errors of whoever wrote the statement: what is not there or not allowed, cannot be computed, or would change something."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement returned: ``columns``, and of each row its values; ``more``: there are rows beyond these.

    Documents (json, jsonb) are decoded.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool


async def read(pool: Pool, statement: str, schemas: Sequence[str], *, seconds: float, most: int) -> Answer:
    """Return up to ``most`` rows of one statement, in a transaction that cannot write; ``schemas`` are its search_path.

    Raises InvalidInput if PostgreSQL refuses the statement, DestinationUnavailable if it takes longer than ``seconds``.
    """
    path = ", ".join('"' + schema.replace('"', '""') + '"' for schema in schemas)
    try:
        async with pool.acquire() as connection:
            transaction = connection.transaction(readonly=True)
            await transaction.start()
            try:
                await connection.execute(
                    "select set_config('search_path', $1, true), set_config('statement_timeout', $2, true)",
                    path, str(int(seconds * 1000)),
                )  # fmt: skip
                return await _answer(connection, statement, most)
            finally:
                await transaction.rollback()  # before PostgreSQL 16 "read only" lets some functions write
    except asyncpg.QueryCanceledError as error:
        remedy = "Ask for less, or let it take longer with --timeout."
        raise DestinationUnavailable(f"The query took longer than {seconds:g} s.", remedy=remedy) from error
    except (*_AT_FAULT, asyncpg.InterfaceError) as error:
        said = str(getattr(error, "message", None) or error)
        hint = getattr(error, "hint", None) or "`tidegate query` without SQL lists the tables and their columns."
        raise InvalidInput("SQL", statement, f"is refused by PostgreSQL: {said}", hint) from error
    except (OverflowError, ValueError) as error:
        remedy = "Show what is before the year 1 or after 9999 as text: value::text."
        raise InvalidInput("SQL", statement, f"finds a value that cannot be shown ({error})", remedy) from error


async def tables(pool: Pool, schemas: Sequence[str]) -> Answer:
    """Return the tables of these schemas, each with the names of its columns."""
    rows = await pool.fetch(_TABLES, list(schemas))
    return Answer(("table", "columns"), tuple(tuple(row) for row in rows), more=False)


async def _answer(connection: Any, statement: str, most: int) -> Answer:
    prepared = await connection.prepare(statement)
    attributes = prepared.get_attributes()
    if not attributes:  # COPY … TO PROGRAM executes something even where nothing can be written
        remedy = "Write one SELECT; this is read-only."
        raise InvalidInput("SQL", statement, "shows no rows", remedy)
    cursor = await prepared.cursor()
    found = await cursor.fetch(most + 1)
    documents = [attribute.type.name in ("json", "jsonb") for attribute in attributes]
    rows = tuple(
        tuple(from_json(value) if document else value for value, document in zip(row, documents, strict=True))
        for row in found[:most]
    )
    return Answer(tuple(attribute.name for attribute in attributes), rows, more=len(found) > most)
