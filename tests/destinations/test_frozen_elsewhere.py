"""A process that freezes inside a transaction of another database does not stop who takes its run over (SPEC 5, 7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg

from tests.destinations.loading import LEDGER, TABLE, Pool, Run, at, page, pool_of, rows, target
from tidegate.destinations.postgres.remote import RemotePostgres

COLUMNS = (
    "tenant_id",
    "account_id",
    "id",
    "_tidegate_cursor",
    "_tidegate_hash",
    "_tidegate_requested_at",
    "_tidegate_run_id",
)
LINE = "acme\tacme-shop\t{id}\t2026-07-13T00:00:00Z\t1\t2026-07-13T00:00:00Z\t1\n"
NAMED = f"tidegate {LEDGER.hex[:12]} run 1 epoch 1"
MANY = range(2, 4002)
"""More than the server gathers before it writes them."""
PATIENCE_SECONDS = 20.0
"""Less than what a writer waits for a lock."""


async def frozen_in_a_copy(url: str, looking: Pool) -> tuple[asyncpg.Connection, asyncio.Task[str]]:
    """Return a session that has sent half of a batch of new records; PostgreSQL waits for the rest, which it calls active."""
    session = await asyncpg.connect(url, server_settings={"application_name": "tidegate"})
    await session.execute(
        f"BEGIN; SET LOCAL application_name = '{NAMED}'; SET LOCAL idle_in_transaction_session_timeout = '10s'"
    )

    async def lines() -> AsyncIterator[bytes]:
        yield "".join(LINE.format(id=number) for number in MANY).encode()
        await asyncio.Event().wait()

    schema, name = TABLE.split(".")
    copying = asyncio.create_task(
        session.copy_to_table(name, schema_name=schema, columns=list(COLUMNS), source=lines())
    )
    waits = """SELECT max(tuples_processed) FROM pg_stat_progress_copy JOIN pg_stat_activity USING (pid)
                WHERE wait_event_type = 'Client'"""
    while (await looking.fetchval(waits) or 0) < len(MANY):
        assert not copying.done(), copying.exception()
        await asyncio.sleep(0.01)
    return session, copying


def test_who_takes_a_run_over_frees_what_a_frozen_process_holds_there(
    database_url: str, empty_database_url: str
) -> None:
    """SPEC 5, "Fencing": its rows are not committed and never will be; the successor's are not made to wait for them."""

    async def story() -> None:
        async with pool_of(database_url) as ledger_pool, pool_of(empty_database_url) as looking:
            destination = await RemotePostgres.connect(empty_database_url, ledger_pool, LEDGER)
            first = Run(destination.writer(target(), 1, 1))
            assert await first.writer.committed() is None
            await first.write(page({"id": 1, "updated_at": at(1)}))
            session, copying = await frozen_in_a_copy(empty_database_url, looking)
            successor = Run(destination.writer(target(), 1, 2), epoch=2, batch=1)
            assert await successor.writer.committed() == b"1"
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert (await successor.write(page({"id": 2, "updated_at": at(2)}))).inserted == 1
            assert [row["id"] for row in await rows(looking, "id")] == [1, 2]
            copying.cancel()
            await asyncio.wait({copying})
            session.terminate()
            await destination.close()

    asyncio.run(story())
