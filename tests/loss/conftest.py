"""One database for all stories: each leaves it empty."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator

import asyncpg
import pytest
import structlog

from tests.conftest import at

_numbers = itertools.count(1)


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def stage_url(postgres: str, migrated_template: str) -> Iterator[str]:
    """The address of the stories' database."""
    name = f"loss_{next(_numbers)}"
    asyncio.run(_execute(postgres, f"create database {name} template {migrated_template}"))
    yield at(postgres, name)
    asyncio.run(_execute(postgres, f"drop database {name} with (force)"))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of failed attempts are what is wanted here, and not worth a line each."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()
