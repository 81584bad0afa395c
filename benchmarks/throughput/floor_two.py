"""The floor over two connections, written before what it measures. FROZEN: do not edit, or the ratios lose their meaning.

The same hand-written work as in `floor`, with the next batch fetched, rendered and copied to its staging table while the last one
is upserted on the other connection. Still no quarantine, no inference, no content hash, no ledger, no counts, no checkpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import asyncpg
import msgspec

from benchmarks.throughput.floor import BATCH_PAGES, COLUMNS, NAMES, UPSERT, Order, Reply, line


async def write(connection: asyncpg.Connection, rendered: list[bytes], before: asyncio.Task[None] | None) -> None:
    """Copy a batch to this connection's staging table, and upsert it once the batch ``before`` is done."""

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in rendered:
            yield chunk

    async with connection.transaction():
        await connection.copy_to_table("floor_staging", source=chunks(), columns=NAMES, null="None")
        if before is not None:
            await before
        await connection.execute(UPSERT)


def render(orders: list[Order]) -> bytes:
    """Return a page as COPY text."""
    return "".join([line(order) for order in orders]).encode()


async def run(dsn: str, base_url: str) -> int:
    """Load every record of the source at ``base_url`` and return how many there were."""
    pair = [await asyncpg.connect(dsn), await asyncpg.connect(dsn)]
    await pair[0].execute("DROP TABLE IF EXISTS floor_orders")
    await pair[0].execute(
        f"CREATE TABLE floor_orders (tenant_id text, account_id text, {COLUMNS}, "
        "PRIMARY KEY (tenant_id, account_id, id))"
    )
    for connection in pair:
        await connection.execute(f"CREATE TEMP TABLE floor_staging ({COLUMNS}) ON COMMIT DELETE ROWS")
    decoder, rendered, total, page = msgspec.json.Decoder(Reply), list[bytes](), 0, 1
    writing: list[asyncio.Task[None]] = []
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{base_url}/orders?page={page}") as response:
                reply = decoder.decode(await response.read())
            rendered.append(render(reply.orders))
            total += len(reply.orders)
            if reply.next_page is None or len(rendered) >= BATCH_PAGES:
                before = writing[-1] if writing else None
                if len(writing) > 1:
                    await writing[-2]
                writing.append(asyncio.create_task(write(pair[len(writing) % 2], rendered, before)))
                rendered = []
            if reply.next_page is None:
                break
            page = reply.next_page
    await writing[-1]
    for connection in pair:
        await connection.close()
    return total
