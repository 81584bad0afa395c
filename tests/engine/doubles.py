"""Fakes written once: a source whose records are a dict, and a destination that is one plain table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import asyncpg
import msgspec

from tidegate.connectors.base import Allowance, ConnectionSettings, Source
from tidegate.destinations.base import DeliveryKey, Ledger, Target, Turn, Written
from tidegate.domain.capacity import RateLimit
from tidegate.domain.clock import Clock
from tidegate.domain.cursor import CursorField
from tidegate.domain.fetch import FetchReport, FetchRequest, Page
from tidegate.domain.stream import Stream

ORDERS = Stream("orders", key=("id",), cursor=CursorField(("updated_at",), ascending=True))
EVENTS = Stream("events", key=("id",), cursor=CursorField(("created_at",), changes=False, ascending=True))


@dataclass
class FakeShop:
    """A platform with two streams; ``orders`` maps id to record. It remembers what it was asked."""

    clock: Clock
    orders: dict[int, dict[str, Any]] = field(default_factory=dict)
    page_size: int = 2
    clock_behind: timedelta = timedelta(0)
    shortfall: str = ""
    asked: list[FetchRequest] = field(default_factory=list)
    on_page: Callable[[int], Exception | None] = lambda _number: None
    gate: asyncio.Event | None = None
    name: str = "fake"
    streams: Mapping[str, Stream] = field(default_factory=lambda: {"orders": ORDERS, "events": EVENTS})
    pages_served: int = 0
    rate_limit: RateLimit | None = None
    identity: Mapping[str, str | None] = field(default_factory=dict)
    declared: str = "as first declared"
    """What defines its listings."""
    raw: bytes | None = None
    """The text of every page, whatever there is to show."""

    def put(self, order_id: int, updated_at: datetime, **fields: Any) -> None:
        """Create or edit an order."""
        self.orders[order_id] = {"id": order_id, "updated_at": updated_at.isoformat(), **fields}

    def open(self, connection: ConnectionSettings, session: aiohttp.ClientSession, clock: Clock) -> Source:
        return OpenedShop(self, connection.allowance)

    async def fetch(self, request: FetchRequest, allowance: Allowance) -> AsyncIterator[Page]:
        self.asked.append(request)
        after: Any = dict(request.resume or {}).get("after", ["", 0])
        while True:
            if self.gate is not None:
                await self.gate.wait()
            await allowance.wait()
            self.pages_served += 1
            if error := self.on_page(self.pages_served):
                raise error
            requested_at = self.clock.now()
            rows = sorted(self._within(request), key=lambda row: (row["updated_at"], row["id"]))
            rest = [row for row in rows if [row["updated_at"], row["id"]] > after]
            rows, more = rest[: self.page_size], len(rest) > self.page_size
            if rows:
                after = [rows[-1]["updated_at"], rows[-1]["id"]]
            yield Page(
                records=msgspec.json.encode(rows) if self.raw is None else self.raw,
                token={"after": after} if more else None,
                requested_at=requested_at,
                report=FetchReport(lower=request.lower, upper=request.upper, shortfall=self.shortfall),
                source_at=(self.clock.now() - self.clock_behind).replace(microsecond=0),
            )
            if not more:
                return

    def _within(self, request: FetchRequest) -> list[dict[str, Any]]:
        below = self.streams[request.stream].overshoot
        lower = None if request.lower is None or below is None else request.lower - below

        def inside(row: dict[str, Any]) -> bool:
            at = datetime.fromisoformat(row["updated_at"])
            return (lower is None or at >= lower) and (request.upper is None or at < request.upper)

        return [row for row in self.orders.values() if inside(row)]


@dataclass
class OpenedShop:
    """One connection to the platform; it waits for its account's allowance before each page."""

    shop: FakeShop
    allowance: Allowance

    def fetch(self, request: FetchRequest) -> AsyncIterator[Page]:
        return self.shop.fetch(request, self.allowance)

    def listing(self, request: FetchRequest) -> str:
        return f"{self.shop.declared} {request.lower} {request.upper}"


class TableDestination:
    """Writes (id, updated_at, body) into `delivered_rows` with the version rule, in the ledger's own transaction."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    def writer(self, target: Target, run_id: int, epoch: int) -> TableWriter:
        return TableWriter(self._pool, target)

    async def close(self) -> None:
        pass

    @staticmethod
    async def create(pool: asyncpg.Pool[asyncpg.Record]) -> None:
        await pool.execute(
            "create table if not exists delivered_rows (tenant_id text, id bigint, updated_at text, body text, "
            "versions int not null default 1, primary key (tenant_id, id))"
        )


class TableWriter:
    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], target: Target) -> None:
        self._pool = pool
        self._target = target

    async def committed(self) -> bytes | None:
        return None

    def ready(self, page: Page) -> None:
        pass

    async def write(
        self, pages: Sequence[Page], key: DeliveryKey, checkpoint: bytes, ledger: Ledger, turn: Turn
    ) -> Written:
        await turn()
        rows = [row for page in pages for row in msgspec.json.decode(page.records)]
        changed = 0
        async with self._pool.acquire() as connection, connection.transaction():
            for row in rows:
                status = await connection.execute(
                    """insert into delivered_rows values ($1, $2, $3, $4)
                       on conflict (tenant_id, id) do update set updated_at = excluded.updated_at, body = excluded.body,
                              versions = delivered_rows.versions + 1
                        where excluded.updated_at > delivered_rows.updated_at
                           or (excluded.updated_at = delivered_rows.updated_at and excluded.body <> delivered_rows.body)""",
                    self._target.tenant_id, row["id"], row["updated_at"], msgspec.json.encode(row).decode(),
                )  # fmt: skip
                changed += status == "INSERT 0 1"
            written = Written(read=len(rows), inserted=changed, unchanged=len(rows) - changed)
            await ledger(connection, written)  # type: ignore[arg-type]
        return written
