"""The whole path in simulated time: real engine, declared connector over HTTP, PostgreSQL tables, ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from tests.engine.world import World, open_world
from tidegate.connectors.rest.connector import RestConnector
from tidegate.connectors.rest.loader import load
from tidegate.destinations.postgres.local import LocalPostgres
from tidegate.store.directory import StoredDestination

T = TypeVar("T")


async def with_declaration(world: World, yaml: str) -> None:
    """Let the world's connections be of the platform that ``yaml`` declares, delivering into tables of their own."""
    connector = RestConnector(load(yaml))

    async def open_tables(_stored: StoredDestination, _secrets: dict[str, str]) -> LocalPostgres:
        return LocalPostgres(world.pool)

    world.parts = replace(world.parts, connector=lambda _name: connector, open_destination=open_tables)


async def rows(world: World, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of ``query``, which reads the tables in the schema `synced`."""
    return [tuple(row) for row in await world.pool.fetch(query)]


def on_whole_path(dsn: str, story: Callable[[World], Awaitable[T]], **settings: Any) -> T:
    """Run ``story`` in a fresh world and return what it returns."""

    async def run() -> T:
        async with open_world(dsn, **settings) as world:
            return await story(world)

    return asyncio.run(run())
