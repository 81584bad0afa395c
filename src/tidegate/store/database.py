"""The connection to PostgreSQL: pool, JSON, advisory locks, and what frozen processes leave behind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
import msgspec

from tidegate.domain.errors import DestinationUnavailable, InvalidInput

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]

SCHEMA = "tidegate"
APPLICATION = "tidegate"
"""The name under which Tidegate's sessions show in pg_stat_activity."""


BY_KEY = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
"""Settings of a session whose statements find every row by its key, however many rows there are, and are planned once."""


async def open_pool(dsn: str, *, size: int = 10, by_key: bool = False) -> Pool:
    """Return a pool whose connections live in Tidegate's schema and keep UTC.

    Work is done on a few rows by key of tables that are in memory for the most part; with the server's default cost of a
    random page such a statement reads all of a table of ten thousand rows instead. ``by_key``: for statements that do
    nothing else, a hundred rows or so at a time and again and again (`BY_KEY`); such a pool opens what it needs when it
    needs it, beside one that is open.

    Raises DestinationUnavailable if the server cannot be reached, InvalidInput if ``dsn`` is not a PostgreSQL address
    or the server is older than 14.
    """
    try:
        pool = await asyncpg.create_pool(
            dsn,
            min_size=0 if by_key else 1,
            max_size=size,
            reset=_keep,
            command_timeout=300,
            server_settings={
                "search_path": f"{SCHEMA}, public",
                "application_name": APPLICATION,
                "timezone": "UTC",
                "random_page_cost": "1.1",
                **(BY_KEY if by_key else {}),
            },
        )
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise DestinationUnavailable(
            f"PostgreSQL cannot be reached: {error}.", remedy="Check TIDEGATE_DATABASE_URL and that the server runs."
        ) from error
    except (ValueError, asyncpg.InterfaceError, asyncpg.InvalidCatalogNameError) as error:
        raise InvalidInput(
            "TIDEGATE_DATABASE_URL",
            _without_password(dsn),
            f"is not usable: {error}",
            "Write postgresql://user:password@host:5432/database.",
        ) from error
    if not by_key:
        await _require_version(pool)
    return pool


async def _keep(connection: Connection) -> None:
    """Nothing in the session needs a reset between uses, and the round trip for it would cost every statement."""


async def _require_version(pool: Pool) -> None:
    async with pool.acquire() as connection:
        version = connection.get_server_version()
    if version.major < 14:
        await pool.close()
        raise InvalidInput(
            "TIDEGATE_DATABASE_URL",
            f"PostgreSQL {version.major}",
            "is too old",
            "Use PostgreSQL 14 or later, or leave the variable unset for the embedded server.",
        )


async def end_frozen(connection: Connection | Pool, after: timedelta) -> int:
    """End Tidegate's sessions in a database that have kept a transaction waiting for their process ``after`` or longer; return
    how many.

    Such a process is frozen or cut off. It may come back; until then what it has locked would stop all the others. The
    server waits for it between statements, in the middle of a COPY, before the second message of a statement that is
    being prepared, or with rows that nobody takes.
    """
    ended: int = await connection.fetchval(
        """select count(pg_terminate_backend(pid)) from pg_stat_activity
            where datname = current_database() and usename = current_user and application_name = $1
              and xact_start is not null and state_change < clock_timestamp() - $2::interval
              and (state = 'idle in transaction' or wait_event_type = 'Client')""",
        APPLICATION,
        after,
    )
    return ended


def to_json(value: object) -> str:
    """Return ``value`` as JSON text, the form in which asyncpg takes a jsonb parameter."""
    return msgspec.json.encode(value).decode()


def numbers(values: Iterable[int]) -> str:
    """Return whole numbers as the text of an array: made in a fraction of the time that asyncpg takes for each element."""
    return f"{{{','.join(map(str, values))}}}"


def from_json(text: str | None) -> Any:
    """Return the value of a jsonb column as asyncpg gives it; None for SQL NULL."""
    return None if text is None else msgspec.json.decode(text)


def _without_password(dsn: str) -> str:
    head, at, tail = dsn.rpartition("@")
    return f"{head.split('://')[0]}://…{at}{tail}" if at else dsn


DISPATCH_LOCK = 7_249_316_002
"""Advisory lock key of the one dispatcher at work."""


APPLY_LOCK = 7_249_316_003
"""Advisory lock key under which one configuration at a time is applied; other commands share it, and wait for its end."""


WATCH_LOCK = 7_249_316_004
"""Advisory lock key of the one process that raises and resolves alerts."""


PRUNE_LOCK = 7_249_316_007
"""Advisory lock key of the one process that deletes what is old."""


@asynccontextmanager
async def alone(pool: Pool, key: int) -> AsyncGenerator[bool]:
    """Yield whether this process has an advisory lock, which it keeps while inside, across transactions."""
    async with pool.acquire() as connection:
        taken: bool = await connection.fetchval("select pg_try_advisory_lock($1)", key)
        try:
            yield taken
        finally:
            if taken:
                await connection.execute("select pg_advisory_unlock($1)", key)


async def find_by_index(connection: Connection, *without: str, plan_once: bool = False) -> None:
    """Let the server find what the statements of this transaction ask for through indexes, never by reading whole tables.

    They then cost what the rows they ask for cost, however large the tables are and whatever the server, or a plan that it
    keeps, believes of them. ``without``: what else it is to do without, such as "hashjoin" where all are found by key.
    Without "sort" a statement that asks for an order finds its rows by the index that has it: where a server believes that
    hardly a row matches a partial index, it would read all of that rather than ask it for each of thousands of keys, and
    believe so still at the midnight at which a hundred thousand match.
    (To let it plan each statement anew would not do: it then plans a foreign key's look-up anew for every row inserted.)
    ``plan_once``: keep the first plan that a session makes of a statement; by default it makes five before it keeps one.
    """
    settings = [f"set local enable_{name} = off" for name in ("seqscan", "bitmapscan", *without)]
    settings += ["set local plan_cache_mode = force_generic_plan"] * plan_once
    await connection.execute("; ".join([*settings, "set local jit = off"]))


@asynccontextmanager
async def sorting(connection: Connection) -> AsyncGenerator[None]:
    """While inside, let statements sort what they have found, in a transaction that is to `find_by_index` without "sort"."""
    await connection.execute("set local enable_sort = on")
    yield
    await connection.execute("set local enable_sort = off")


async def lock(connection: Connection, key: int, *, shared: bool = False) -> None:
    """Take an advisory lock until the transaction ends, waiting for whoever has it; with others who share it if ``shared``."""
    await connection.execute(f"select pg_advisory_xact_lock{'_shared' * shared}($1)", key)


async def try_lock(connection: Connection, key: int, *, shared: bool = False) -> bool:
    """Take an advisory lock until the transaction ends, or return False if another process has it, ``shared`` or not."""
    taken: bool = await connection.fetchval(f"select pg_try_advisory_xact_lock{'_shared' * shared}($1)", key)
    return taken
