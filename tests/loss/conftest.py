"""One database for all stories: each leaves it empty."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from tests.conftest import at


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def stage_url(postgres: str, migrated_template: str) -> Iterator[str]:
    """The address of the stories' database."""
    asyncio.run(_execute(postgres, f"create database loss template {migrated_template}"))
    yield at(postgres, "loss")
    asyncio.run(_execute(postgres, "drop database loss with (force)"))
