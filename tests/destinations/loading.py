"""What the destination's tests share: streams, pages, and a writer with a ledger that can be told to refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from tidegate.destinations.base import DeliveryKey, Target, Writer, Written, at_once
from tidegate.destinations.postgres.local import LocalPostgres
from tidegate.destinations.postgres.remote import RemotePostgres
from tidegate.domain.cursor import CursorField
from tidegate.domain.errors import LeaseLost
from tidegate.domain.fetch import FetchReport, Page
from tidegate.domain.stream import Stream

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
BEGINNING = datetime(2026, 7, 1, tzinfo=UTC)
ORDERS = Stream("orders", cursor=CursorField(("updated_at",)))
LISTED = Stream("orders")
TABLE = "synced.shop_orders"
LEDGER = UUID(int=1)


def target(stream: Stream = ORDERS, tenant: str = "acme", account: str = "acme-shop") -> Target:
    """Return the records of one tenant's account at the connector `shop`."""
    return Target(tenant, account, "shop", stream)


def at(second: int) -> str:
    """Return a cursor value ``second`` seconds into the tests' time, as a source writes it."""
    return (BEGINNING + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")


def page(*records: object, requested: float = 0) -> Page:
    """Return a page of ``records``, each a value to encode or bytes taken as they are."""
    encoded = [record if isinstance(record, bytes) else msgspec.json.encode(record) for record in records]
    return Page(
        b"[" + b",".join(encoded) + b"]", None, BEGINNING + timedelta(seconds=requested), FetchReport(None, None)
    )


@dataclass
class Ledger:
    """Notes what it was told; raises LeaseLost while ``lost``, breaks off while ``broken``."""

    entries: list[Written] = field(default_factory=list)
    lost: bool = False
    broken: bool = False

    async def __call__(self, connection: asyncpg.Connection, written: Written) -> None:
        """Be the ledger of one batch."""
        if self.lost:
            raise LeaseLost("another worker holds the run")
        if self.broken:
            raise ConnectionError("the process died here")
        self.entries.append(written)


@dataclass
class Run:
    """One run at one destination: numbers its batches and keeps its ledger."""

    writer: Writer
    run_id: int = 1
    epoch: int = 1
    batch: int = 0
    ledger: Ledger = field(default_factory=Ledger)

    async def write(self, *pages: Page, checkpoint: bytes | None = None) -> Written:
        """Deliver ``pages`` as the next batch."""
        self.batch += 1
        key = DeliveryKey(self.run_id, self.epoch, self.batch)
        return await self.writer.write(pages, key, checkpoint or str(self.batch).encode(), self.ledger, at_once)


@asynccontextmanager
async def pool_of(url: str, size: int = 4) -> AsyncIterator[Pool]:
    """Lend a pool of connections."""
    pool = await asyncpg.create_pool(url, min_size=1, max_size=size)
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def local(url: str) -> AsyncIterator[tuple[LocalPostgres, Pool]]:
    """Lend a destination in the database at ``url`` and that database's pool."""
    async with pool_of(url) as pool:
        yield LocalPostgres(pool), pool


@asynccontextmanager
async def remote(
    url: str, ledger_url: str, ledger_id: UUID = LEDGER, *, alone: bool = True
) -> AsyncIterator[tuple[RemotePostgres, Pool]]:
    """Lend a destination at ``url`` whose ledger is at ``ledger_url``, and the former's pool to look with."""
    async with pool_of(ledger_url) as ledger_pool, pool_of(url) as looking:
        destination = await RemotePostgres.connect(url, ledger_pool, ledger_id, alone=alone)
        try:
            yield destination, looking
        finally:
            await destination.close()


async def rows(pool: Pool, columns: str = "*", table: str = TABLE, order: str = "id") -> list[dict[str, Any]]:
    """Return the table's rows."""
    return [dict(row) for row in await pool.fetch(f"SELECT {columns} FROM {table} ORDER BY {order}")]


async def column_types(pool: Pool, table: str = TABLE) -> dict[str, str]:
    """Return the SQL type of each column."""
    found: Sequence[asyncpg.Record] = await pool.fetch(
        "SELECT attname, format_type(atttypid, atttypmod) AS kind FROM pg_attribute "
        "WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped",
        table,
    )
    return {row["attname"]: row["kind"] for row in found}
