"""Migrations: Tidegate's schema, brought up to date by numbered SQL files."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from tidegate.store import queue
from tidegate.store.database import SCHEMA

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool

MIGRATION_LOCK = 7_249_316_001
"""Advisory lock key under which one process at a time migrates."""


async def migrate(pool: Pool) -> list[str]:
    """Bring the schema up to date and return the names of the migrations that ran, in order.

    Safe to run twice and from two processes at once: one migrates, the others wait and find nothing to do. Each
    migration commits with its own record, or not at all.
    """
    async with pool.acquire() as connection:
        await connection.execute("select pg_advisory_lock($1)", MIGRATION_LOCK)
        try:
            return await _migrate(connection)
        finally:
            await connection.execute("select pg_advisory_unlock($1)", MIGRATION_LOCK)


async def _migrate(connection: Connection) -> list[str]:
    await connection.execute(f"create schema if not exists {SCHEMA}")
    await connection.execute(
        f"create table if not exists {SCHEMA}.migrations (name text primary key, applied_at timestamptz not null default now())"
    )
    done = {row["name"] for row in await connection.fetch(f"select name from {SCHEMA}.migrations")}
    ran = []
    for name, statements in migrations():
        if name in done:
            continue
        async with connection.transaction():
            await connection.execute(statements)
            await connection.execute(f"insert into {SCHEMA}.migrations (name) values ($1)", name)
        ran.append(name)
    if await queue.install(connection):
        ran.append("pgqueuer")
    return ran


def migrations() -> list[tuple[str, str]]:
    """Return the numbered migrations as (name, SQL), in order."""
    folder = resources.files("tidegate.store") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(file.name.removesuffix(".sql"), file.read_text()) for file in files]
