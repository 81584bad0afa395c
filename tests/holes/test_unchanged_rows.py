"""What has been delivered is not delivered again, whatever else arrives (HOLE h, SPEC 4 "Versions")."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg

from tidegate.destinations.base import DeliveryKey, Target, Written, at_once
from tidegate.destinations.postgres.local import LocalPostgres
from tidegate.domain.cursor import CursorField
from tidegate.domain.fetch import FetchReport, Page
from tidegate.domain.stream import Stream
from tidegate.store import database

TARGET = Target("acme", "acme.example", "shop", Stream("orders", cursor=CursorField(("updated_at",))))
NOW = datetime(2026, 7, 13, 16, tzinfo=UTC)
ODD = b'{"id": 1, "updated_at": "2026-07-13T15:00:00Z", "note": "a\\u0000b"}'
WIDE = b'{"id": 2, "updated_at": "2026-07-13T15:00:01Z", "note": "fine", "colour": "blue"}'


def test_a_record_with_a_value_set_aside_is_not_rewritten_when_a_column_is_added(database_url: str) -> None:
    """HOLE h: order 1 holds a NUL character; then a new field adds a column; order 1 is seen again within the lookback."""

    async def deliver(destination: LocalPostgres, number: int, *records: bytes) -> Written:
        async def ledger(_connection: asyncpg.Connection, _written: Written) -> None:
            return None

        writer = destination.writer(TARGET, run_id=number, epoch=1)
        await writer.committed()
        page = Page(b"[" + b",".join(records) + b"]", None, NOW + timedelta(hours=number), FetchReport(None, None))
        return await writer.write([page], DeliveryKey(number, 1, 1), b"", ledger, at_once)

    async def story() -> list[Written]:
        pool = await database.open_pool(database_url, size=2)
        destination = LocalPostgres(pool)
        written = [
            await deliver(destination, 1, ODD),
            await deliver(destination, 2, WIDE),
            await deliver(destination, 3, ODD),
        ]
        await pool.close()
        return written

    first, second, again = asyncio.run(story())
    assert (first.inserted, first.misfits, second.inserted) == (1, 1, 1)
    assert (again.updated, again.unchanged) == (0, 1)
