"""Real PostgreSQL for every test that asks for it: one embedded server, a fresh migrated database per test.

``TIDEGATE_TEST_SERVER=postgresql://postgres:@127.0.0.1:5414/postgres`` tries another server, such as one of an older version.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tidegate.store import database, schema
from tidegate.store.embedded import EmbeddedServer

_numbers = itertools.count(1)
TEMPLATE = f"tidegate_template_{os.getpid()}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server's own database, for the whole session: an embedded one if no other is named.

    Not under pytest's own directory: its next session closes that to other users, such as the server's when run by root.
    """
    if given := os.environ.get("TIDEGATE_TEST_SERVER"):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="tidegate-tests-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedServer(Path(folder))
        yield server.dsn
        server.release()


@pytest.fixture(scope="session")
def migrated_template(postgres: str) -> Iterator[str]:
    """The name of a database with Tidegate's schema, to make others from."""

    async def make() -> None:
        await _execute(postgres, f"create database {TEMPLATE}")
        pool = await database.open_pool(at(postgres, TEMPLATE), size=2)
        await schema.migrate(pool)
        await pool.close()

    asyncio.run(make())
    yield TEMPLATE
    asyncio.run(_execute(postgres, f"drop database {TEMPLATE} with (force)"))


@pytest.fixture
def database_url(postgres: str, migrated_template: str) -> Iterator[str]:
    """The address of a fresh database with Tidegate's schema."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    asyncio.run(_execute(postgres, f"create database {name} template {migrated_template}"))
    yield at(postgres, name)
    asyncio.run(_execute(postgres, f"drop database {name} with (force)"))


@pytest.fixture
def empty_database_url(postgres: str) -> Iterator[str]:
    """The address of a fresh, empty database: another one than Tidegate's own."""
    name = f"other_{os.getpid()}_{next(_numbers)}"
    asyncio.run(_execute(postgres, f"create database {name}"))
    yield at(postgres, name)
    asyncio.run(_execute(postgres, f"drop database {name} with (force)"))


def at(dsn: str, database_name: str) -> str:
    """Return ``dsn`` with another database's name."""
    head, _, tail = dsn.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{database_name}?{tail}"


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
