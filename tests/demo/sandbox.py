"""A clock that moves only when somebody waits on it, and a sandbox shop opened the way the connector opens one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.shopify import ShopifyConnector
from tidegate.connectors.shopify.source import ShopifySource
from tidegate.demo.shop import Shop
from tidegate.demo.shop_cost import Bucket
from tidegate.demo.shop_server import ACCESS_TOKEN, Meddler, leave_alone, serve
from tidegate.domain.fetch import FetchRequest, Page, PageToken

NOW = datetime(2026, 7, 14, 3, 0, tzinfo=UTC)
OPENED_AT = NOW - timedelta(days=200)


@dataclass
class FakeClock:
    """Stands still except while somebody sleeps on it; ``slept`` keeps every wait, in seconds."""

    at: datetime = NOW
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += timedelta(seconds=seconds)


def quiet_shop(clock: FakeClock, **options: Any) -> Shop:
    """Return a shop where nothing happens by itself; its twelve products are as old as the shop."""
    return Shop(clock, opened_at=OPENED_AT, orders_per_day=0, **options)


@asynccontextmanager
async def opened(
    shop: Shop,
    clock: FakeClock,
    *,
    meddle: Meddler = leave_alone,
    bucket: Bucket | None = None,
    settings: dict[str, object] | None = None,
    access_token: str = ACCESS_TOKEN,
) -> AsyncIterator[ShopifySource]:
    """Serve ``shop`` and yield the connector's source of it."""
    async with (
        serve(shop, meddle=meddle, bucket=bucket) as base_url,
        open_session(allow_private_addresses=True) as session,
    ):
        connection = ConnectionSettings({"base_url": base_url, **(settings or {})}, {"access_token": access_token})
        yield ShopifyConnector().open(connection, session, clock)


def request(
    stream: str = "orders",
    lower: datetime | None = OPENED_AT,
    upper: datetime | None = None,
    *,
    stop_after: datetime = NOW + timedelta(days=1),
    resume: PageToken | None = None,
) -> FetchRequest:
    """Return a request, by default for all orders."""
    return FetchRequest(stream, lower, upper, stop_after, resume)


async def all_pages(source: ShopifySource, asked: FetchRequest) -> list[Page]:
    """Return every page of a fetch."""
    return [page async for page in source.fetch(asked)]


def records(pages: list[Page]) -> list[dict[str, Any]]:
    """Return the records of ``pages`` in order."""
    return [record for page in pages for record in json.loads(page.records)]


def versions(pages: list[Page]) -> dict[str, str]:
    """Return updatedAt by id, the version delivered last."""
    return {record["id"]: record["updatedAt"] for record in records(pages)}
