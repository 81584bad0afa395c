"""Migrations: Tidegate's schema, brought up to date by numbered SQL files while other processes work.

A migration takes nothing away but indexes that others replace: the revision before it goes on working on its schema
(docs/guides/upgrade.md). It waits for a lock no longer than `LOCK_SECONDS`, for whoever asks after it would wait behind it,
and then tries again. What takes long on a large table, such as an index, stands in a file of its own that begins with
`OUTSIDE` and holds no lock that stops work.
"""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import TYPE_CHECKING, Final

import asyncpg

from tidegate.domain.errors import DestinationUnavailable, InvalidInput
from tidegate.store import queue
from tidegate.store.database import SCHEMA

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool

MIGRATION_LOCK = 7_249_316_001
"""Advisory lock key under which one process at a time migrates."""
LOCK_SECONDS: Final = 2.0
"""The longest a migration waits for a table's lock before it lets others pass and tries again."""
PAUSE_SECONDS: Final = 0.5
TRIES: Final = 60
OUTSIDE: Final = "-- outside a transaction\n"
"""First line of a migration whose statements run one by one, each of which can run again after a crash."""
LONGEST_SECONDS: Final = 86_400.0


async def migrate(pool: Pool) -> list[str]:
    """Bring the schema up to date and return the names of the migrations that ran, in order.

    Safe to run twice, from two processes at once, and while others work: one migrates, the others wait and find nothing
    to do. Each migration commits with its own record, or not at all. Raises InvalidInput if a newer revision has migrated
    this database, DestinationUnavailable if others hold a table for so long that all tries fail.
    """
    async with pool.acquire() as connection:
        await _take_turn(connection)
        try:
            return await _migrate(connection)
        finally:
            await connection.execute("select pg_advisory_unlock($1)", MIGRATION_LOCK)


async def _take_turn(connection: Connection) -> None:
    """Wait for the lock by asking, never inside a statement: an index that is built waits for every statement to end."""
    while True:
        if await connection.fetchval("select pg_try_advisory_lock($1)", MIGRATION_LOCK):
            return
        await asyncio.sleep(PAUSE_SECONDS / 5)


async def _migrate(connection: Connection) -> list[str]:
    await connection.execute(f"create schema if not exists {SCHEMA}")
    await connection.execute(
        f"create table if not exists {SCHEMA}.migrations (name text primary key, applied_at timestamptz not null default now())"
    )
    await require_known(connection)
    done = await _done(connection)
    ran = []
    for name, statements in migrations():
        if name in done:
            continue
        if statements.startswith(OUTSIDE):
            await _run_outside(connection, name, statements)
        else:
            await _run(connection, name, statements)
        ran.append(name)
    if await queue.install(connection):
        ran.append("pgqueuer")
    return ran


async def _run(connection: Connection, name: str, statements: str) -> None:
    """Run a migration in one transaction; where a table is taken, let its users finish and try again."""
    for _ in range(TRIES):
        try:
            async with connection.transaction():
                await connection.execute(f"set local lock_timeout = '{LOCK_SECONDS:g}s'")
                await connection.execute(statements)
                await _note(connection, name)
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return
    raise DestinationUnavailable(
        f"Migration {name} found its tables taken {TRIES} times; nothing of it was done.",
        remedy="Look for a long transaction in pg_stat_activity, end it, and start again.",
    )


async def _run_outside(connection: Connection, name: str, statements: str) -> None:
    """Run a migration's statements one by one. An index that a crash has left half-built is built anew."""
    for row in await connection.fetch(
        """select indexrelid::regclass::text as name from pg_index i join pg_class c on c.oid = i.indexrelid
            where not i.indisvalid and c.relnamespace = $1::regnamespace""",
        SCHEMA,
    ):
        await connection.execute(f"drop index concurrently {row['name']}", timeout=LONGEST_SECONDS)
    for statement in statements.removeprefix(OUTSIDE).split(";\n"):
        if statement.strip():
            await connection.execute(statement, timeout=LONGEST_SECONDS)
    await _note(connection, name)


async def _note(connection: Connection, name: str) -> None:
    await connection.execute(f"insert into {SCHEMA}.migrations (name) values ($1)", name)


async def _done(connection: Connection | Pool) -> set[str]:
    return {row["name"] for row in await connection.fetch(f"select name from {SCHEMA}.migrations")}


async def require_known(connection: Connection | Pool) -> None:
    """Raise InvalidInput if a newer revision has migrated the database: this one must not work on what it cannot know."""
    newer = sorted(await _done(connection) - {name for name, _ in migrations()})
    if newer:
        raise InvalidInput(
            "schema",
            ", ".join(newer),
            "was migrated by a newer version of Tidegate than this one",
            "Upgrade Tidegate here. Nothing is lost: the newer processes go on with the work.",
        )


def migrations() -> list[tuple[str, str]]:
    """Return the numbered migrations as (name, SQL), in order."""
    folder = resources.files("tidegate.store") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(file.name.removesuffix(".sql"), file.read_text()) for file in files]
