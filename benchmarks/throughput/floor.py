"""The floor, written before the destination it measures. FROZEN: do not edit, or the ratios lose their meaning.

What the same work costs by hand when the 25 fields are known beforehand: aiohttp, typed decoding by msgspec, text COPY
into a temporary staging table, one guarded upsert ordered by key, one connection, 10,000 records per transaction. No
quarantine, no inference, no content hash, no ledger, no counts, no checkpoint.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import aiohttp
import asyncpg
import msgspec

BATCH_PAGES = 40


class Order(msgspec.Struct):
    """One record, typed; instants and the date stay text, PostgreSQL parses them."""

    id: int
    number: str
    status: str
    currency: str
    customer_id: int
    customer_email: str
    customer_name: str
    ship_street: str
    ship_city: str
    ship_postcode: str
    ship_country: str
    subtotal: Decimal
    shipping: Decimal
    tax: Decimal
    discount: Decimal
    total: Decimal
    item_count: int
    weight_grams: int
    paid: bool
    test: bool
    channel: str
    note: str | None
    due_on: str
    created_at: str
    updated_at: str


class Reply(msgspec.Struct):
    """One page."""

    orders: list[Order]
    next_page: int | None


COLUMNS = (
    "id bigint, number text, status text, currency text, customer_id bigint, customer_email text, customer_name text, "
    "ship_street text, ship_city text, ship_postcode text, ship_country text, subtotal numeric, shipping numeric, "
    "tax numeric, discount numeric, total numeric, item_count bigint, weight_grams bigint, paid boolean, test boolean, "
    "channel text, note text, due_on date, created_at timestamptz, updated_at timestamptz"
)
NAMES = tuple(part.strip().split(" ")[0] for part in COLUMNS.split(","))
UPSERT = (
    f"INSERT INTO floor_orders AS t (tenant_id, account_id, {', '.join(NAMES)}) "
    f"SELECT DISTINCT ON (id) 'tenant', 'account', {', '.join(NAMES)} FROM floor_staging ORDER BY id, updated_at DESC "
    "ON CONFLICT (tenant_id, account_id, id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in NAMES if name != "id")
    + " WHERE t.updated_at < excluded.updated_at"
)


def line(o: Order) -> str:
    """Return one record as a line of COPY text; this data holds nothing that needs escaping."""
    return (
        f"{o.id}\t{o.number}\t{o.status}\t{o.currency}\t{o.customer_id}\t{o.customer_email}\t{o.customer_name}\t"
        f"{o.ship_street}\t{o.ship_city}\t{o.ship_postcode}\t{o.ship_country}\t{o.subtotal}\t{o.shipping}\t{o.tax}\t"
        f"{o.discount}\t{o.total}\t{o.item_count}\t{o.weight_grams}\t{o.paid}\t{o.test}\t{o.channel}\t"
        f"{'None' if o.note is None else o.note}\t{o.due_on}\t{o.created_at}\t{o.updated_at}\n"
    )


async def write(connection: asyncpg.Connection, orders: list[Order]) -> None:
    """Upsert ``orders`` in one transaction."""

    async def chunks() -> AsyncIterator[bytes]:
        for first in range(0, len(orders), 250):
            yield "".join([line(order) for order in orders[first : first + 250]]).encode()

    async with connection.transaction():
        await connection.copy_to_table("floor_staging", source=chunks(), columns=NAMES, null="None")
        await connection.execute(UPSERT)


async def run(dsn: str, base_url: str) -> int:
    """Load every record of the source at ``base_url`` and return how many there were."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("DROP TABLE IF EXISTS floor_orders")
    await connection.execute(
        f"CREATE TABLE floor_orders (tenant_id text, account_id text, {COLUMNS}, "
        "PRIMARY KEY (tenant_id, account_id, id))"
    )
    await connection.execute(f"CREATE TEMP TABLE floor_staging ({COLUMNS}) ON COMMIT DELETE ROWS")
    decoder, orders, total, page = msgspec.json.Decoder(Reply), list[Order](), 0, 1
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{base_url}/orders?page={page}") as response:
                reply = decoder.decode(await response.read())
            orders += reply.orders
            if reply.next_page is None or len(orders) >= BATCH_PAGES * 250:
                await write(connection, orders)
                total += len(orders)
                orders = []
            if reply.next_page is None:
                break
            page = reply.next_page
    await connection.close()
    return total
