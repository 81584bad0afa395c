"""The records in Tidegate's own database, for whoever wants to look at them."""

from __future__ import annotations

from tidegate.destinations.postgres.local import DEFAULT_SCHEMA
from tidegate.engine.parts import Parts
from tidegate.store import directory, reading
from tidegate.store.reading import Answer


async def query(parts: Parts, statement: str, *, seconds: float, most: int) -> Answer:
    """Return up to ``most`` rows of a SELECT over what is synced; it changes nothing. Without one: the tables there are.

    Tables need no schema before their names: the search_path is the destinations' schemas. Raises InvalidInput for a
    statement that PostgreSQL refuses, DestinationUnavailable for one that takes longer than ``seconds``.
    """
    schemas = await _schemas(parts)
    if not statement.strip():
        return await reading.tables(parts.pool, schemas)
    return await reading.read(parts.pool, statement, schemas, seconds=seconds, most=most)


async def _schemas(parts: Parts) -> list[str]:
    """Return the schemas of the destinations that are PostgreSQL, the one that needs no configuration first."""
    stored = [made for made in await directory.destinations(parts.pool) if made.kind == "postgresql"]
    return list(dict.fromkeys([DEFAULT_SCHEMA, *(str(made.settings.get("schema", DEFAULT_SCHEMA)) for made in stored)]))
