"""The fewest rows that a chain needs to stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import asyncpg

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

TENANT = """
with tenant as (insert into tenants (id, created_at) values ($1, now()) returning id),
account as (insert into accounts (connector, name, concurrency_limit) values ('shop', $1, 4) returning id)
insert into connections (tenant_id, name, connector, account_id, settings, sealed, fingerprint)
select tenant.id, 'shop', 'shop', account.id, '{}', '', '' from tenant, account returning id
"""
DESTINATION = """
insert into destinations (name, kind, settings, sealed, fingerprint) values ('rows', 'postgresql', '{}', '', '') returning id
"""
INSTALLATION = """
insert into installations (tenant_id, name, connection_id, destination_id) values ($1, $2, $3, $4) returning id
"""
CHAIN = """
insert into chains (tenant_id, installation_id, workflow, stream, account_id, start_at)
select $1, $2, 'sync', 'orders', min(id), '2026-07-01T00:00Z' from accounts returning id
"""
RUN = """
insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end, not_before_at)
select id, tenant_id, account_id, 'live', 'manual', 'succeeded', start_at, start_at, start_at + interval '1 day', start_at
  from chains where id = $1 returning id
"""


@asynccontextmanager
async def connected(dsn: str) -> AsyncGenerator[Connection]:
    """Yield a connection into Tidegate's schema."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "tidegate", "timezone": "UTC"})
    try:
        yield connection
    finally:
        await connection.close()


def on(dsn: str, story: Callable[[Connection], Awaitable[T]]) -> T:
    """Run ``story`` on one connection and return what it returns."""

    async def run() -> T:
        async with connected(dsn) as connection:
            return await story(connection)

    return asyncio.run(run())


async def chain(connection: Connection) -> tuple[int, int]:
    """Insert a tenant with one chain and one run; return both ids."""
    link = await connection.fetchval(TENANT, "acme")
    target = await connection.fetchval(DESTINATION)
    installation = await connection.fetchval(INSTALLATION, "acme", "sync", link, target)
    chain_id = await connection.fetchval(CHAIN, "acme", installation)
    return chain_id, await connection.fetchval(RUN, chain_id)
