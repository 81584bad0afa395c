"""The demo's week: three tenants in three zones, their shops on localhost, and seven days that pass in a minute.

The week ends now, so that everything the command line says afterwards is about today.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import yaml

from tidegate.bootstrap import Options, assemble
from tidegate.demo import folder
from tidegate.demo.shop import Shop
from tidegate.demo.shop_cost import Bucket
from tidegate.demo.shop_server import ACCESS_TOKEN, serve
from tidegate.destinations.postgres.reading import cursor_values
from tidegate.domain.retry import RetryPolicy
from tidegate.engine.configuring.applying import apply
from tidegate.engine.configuring.configuration import load, read_file
from tidegate.engine.parts import Parts
from tidegate.engine.settings import Settings
from tidegate.store import chains

WEEK = timedelta(days=7)
BEFORE = timedelta(days=14)
"""How long the shops have been open when the week begins: the first sync has history to fetch."""
STREAMS = ("orders", "customers", "products")
TOKEN_VARIABLE = "SHOP_TOKEN"  # noqa: S105, a variable's name
SCHEMA = "synced"


@dataclass(frozen=True, slots=True)
class DemoTenant:
    """One of the demo's tenants: where it is, when it wants its data, how busy its shop is."""

    id: str
    name: str
    time_zone: str
    rule: Mapping[str, object]
    orders_per_day: float

    def told(self) -> str:
        """Return the schedule in a few words."""
        kind, value = next(iter(self.rule.items()))
        return {"daily": "daily at 00:00", "every": f"every {value}", "cron": f"cron {value}"}[kind]


TENANTS = (
    DemoTenant("harbour", "Harbour Books", "Europe/London", {"daily": True}, 20),
    DemoTenant("lantern", "Lantern Coffee", "America/New_York", {"every": "6h"}, 30),
    DemoTenant("kea", "Kea Outdoor", "Pacific/Auckland", {"cron": "30 7,19 * * *"}, 15),
)


class AcceleratedClock:
    """Stands at ``start`` until it is set going, runs ``factor`` times as fast as the real one, and stops at ``end``.

    Sleepers wake in real time all along.
    """

    def __init__(self, start: datetime, end: datetime, factor: float) -> None:
        self._start = start
        self._end = end
        self._factor = factor
        self._since: float | None = None

    def go(self) -> None:
        """Let the time run."""
        self._since = asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """Return the demo's present."""
        if self._since is None:
            return self._start
        passed = (asyncio.get_running_loop().time() - self._since) * self._factor
        return min(self._start + timedelta(seconds=passed), self._end)

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of the demo's time."""
        await asyncio.sleep(seconds / self._factor)


@dataclass(frozen=True, slots=True)
class Week:
    """The demo while it runs."""

    parts: Parts
    shops: Mapping[str, Shop]
    begins_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Comparison:
    """One stream's destination beside its source, at the watermark.

    ``due``: records of the source whose last change is before the watermark; ``missing`` of them are not in the table at
    that version or a newer one. ``rows``: what the table holds; some of it early, before its own due date.
    """

    tenant_id: str
    stream: str
    watermark: datetime | None
    due: int
    missing: int
    rows: int

    @property
    def agrees(self) -> bool:
        """Return whether nothing is missing."""
        return self.watermark is not None and not self.missing


@asynccontextmanager
async def open_week(data_dir: Path, seconds: float, ends_at: datetime) -> AsyncGenerator[Week]:
    """Yield a fresh demo in ``data_dir``; its week takes ``seconds`` of real time.

    What an earlier demo has left there is removed. Raises InvalidInput if the folder holds anything else.
    """
    folder.fresh(data_dir)
    factor = WEEK.total_seconds() / seconds
    begins_at = ends_at - WEEK
    async with AsyncExitStack() as stack:
        clock = AcceleratedClock(begins_at, ends_at, factor)
        options = Options(data_dir, allow_private_addresses=True, settings=accelerated(Settings(), factor), clock=clock)
        parts = await stack.enter_async_context(assemble(options))
        shops = {tenant.id: _shop(clock, tenant, begins_at) for tenant in TENANTS}
        addresses = {
            tenant_id: await stack.enter_async_context(serve(shop, bucket=Bucket(20_000, 1_000)))
            for tenant_id, shop in shops.items()
        }
        await _configure(parts, addresses, (begins_at - BEFORE).date(), data_dir)
        clock.go()
        yield Week(parts, shops, begins_at, ends_at)


def accelerated(settings: Settings, factor: float) -> Settings:
    """Return ``settings`` with every duration ``factor`` times as long, as long in real time as before, and without alerts."""
    return replace(
        settings,
        lease=settings.lease * factor,
        renew_every=settings.renew_every * factor,
        stop_grace=settings.stop_grace * factor,
        sweep_every=settings.sweep_every * factor,
        tick_every=settings.tick_every * factor / 5,
        dispatch_pause=settings.dispatch_pause * factor,
        requeue_after=settings.requeue_after * factor,
        batch_age=settings.batch_age * factor,
        watch_every=timedelta(days=365),  # alerts count minutes that pass for people, and these pass in no time
        retry=RetryPolicy(base=timedelta(seconds=0.2) * factor, cap=timedelta(seconds=5) * factor),
    )


def _shop(clock: AcceleratedClock, tenant: DemoTenant, begins_at: datetime) -> Shop:
    seed = sum(tenant.id.encode())
    return Shop(clock, seed, opened_at=begins_at - BEFORE, orders_per_day=tenant.orders_per_day)


async def _configure(parts: Parts, addresses: Mapping[str, str], start_on: date, data_dir: Path) -> None:
    """Apply the demo's configuration the way anybody's is applied, and leave it beside the data to look at."""
    document = {
        "destinations": {"own": {"kind": "postgresql", "settings": {"schema": SCHEMA}}},
        "tenants": {tenant.id: _tenant(tenant, addresses[tenant.id], start_on) for tenant in TENANTS},
    }
    path = data_dir / "demo.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), "utf-8")
    configuration = await load([read_file(path)], {TOKEN_VARIABLE: ACCESS_TOKEN}, parts)
    await apply(parts, configuration)


def _tenant(tenant: DemoTenant, address: str, start_on: date) -> dict[str, object]:
    return {
        "name": tenant.name,
        "connections": {
            "shop": {
                "connector": "shopify",
                "account": f"{tenant.id}.example",
                "settings": {"base_url": address, "order_history": "all"},
                "secrets": {"access_token": f"${{{TOKEN_VARIABLE}}}"},
            }
        },
        "installations": {
            "shop": {
                "connection": "shop",
                "destination": "own",
                "streams": ["orders", "customers", "products"],
                "schedule": {
                    **tenant.rule,
                    "time_zone": tenant.time_zone,
                    "start_date": start_on.isoformat(),
                    "settle": "1m",
                },
            }
        },
    }


async def compare(week: Week) -> list[Comparison]:
    """Return every stream's destination beside its source."""
    found = []
    for chain in await chains.chains(week.parts.pool):
        table = await rows(week.parts, chain.tenant_id, chain.stream)
        source = {}
        if chain.watermark is not None:
            source = week.shops[chain.tenant_id].snapshot(chain.stream, chain.watermark)
        missing = sum(
            1
            for record_id, updated_at in source.items()
            if record_id not in table or table[record_id] < datetime.fromisoformat(updated_at)
        )
        found.append(Comparison(chain.tenant_id, chain.stream, chain.watermark, len(source), missing, len(table)))
    return found


async def rows(parts: Parts, tenant_id: str, stream: str) -> dict[str, datetime]:
    """Return the cursor values by id of what a tenant's table holds; none if there is no table yet."""
    return await cursor_values(parts.pool, SCHEMA, "shopify", stream, tenant_id)
