"""What a stream's table holds, for whoever compares it with its source."""

from __future__ import annotations

from datetime import UTC, datetime

from tidegate.destinations.postgres.load import Pool
from tidegate.destinations.postgres.names import quoted, table_name


async def cursor_values(pool: Pool, schema: str, connector: str, stream: str, tenant_id: str) -> dict[str, datetime]:
    """Return the cursor values by id of what one tenant's records are held at; none if there is no table yet.

    For streams whose key is ``id``.
    """
    table = f"{quoted(schema)}.{quoted(table_name(connector, stream))}"
    if await pool.fetchval("select to_regclass($1)", table) is None:
        return {}
    found = await pool.fetch(f"select id, _tidegate_cursor as at from {table} where tenant_id = $1", tenant_id)
    return {row["id"]: row["at"].astimezone(UTC) for row in found}
