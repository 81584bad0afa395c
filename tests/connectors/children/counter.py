"""A shop over HTTP whose orders have items: in the order's record, cut off there, or by a request per order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime

from aiohttp import web

from tests.connectors.rest.sources import replied, serve


@dataclass
class Order:
    """One order, changed as a whole: editing an item is editing the order."""

    updated_at: datetime
    items: list[int]


@dataclass
class Counter:
    """The shop. ``shown``: items shown inside an order; ``meddle`` is called with each request's path before it is answered.

    ``clock`` says what the shop's own clock says in the answer to a path, None for no clock.
    """

    orders: dict[int, Order] = field(default_factory=dict)
    page_size: int = 2
    shown: int = 100
    meddle: Callable[[str], int | None] = lambda _path: None
    clock: Callable[[str], datetime | None] = lambda _path: None
    gate: asyncio.Event | None = None
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)

    def put(self, number: int, updated_at: datetime, *items: int) -> None:
        self.orders[number] = Order(updated_at, list(items))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        at, response = self.clock(request.path), await self._answer(request)
        if at is not None:
            response.headers["Date"] = format_datetime(at, usegmt=True)
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.gate is not None and "items" in request.path:
            self.waiting.set()
            await self.gate.wait()
        status = self.meddle(request.path)
        if status is not None:
            return replied({"error": "told to"}, status=status)
        if request.path == "/orders":
            return self._orders(request)
        return self._items(int(request.path.split("/")[2]), int(request.query.get("after", 0)))

    def _orders(self, request: web.Request) -> web.Response:
        since = datetime.fromisoformat(request.query.get("since", "1970-01-01T00:00:00+00:00"))
        after = request.query.get("after", "")
        rows = sorted((f"{order.updated_at.isoformat()}|{number:06}", number) for number, order in self.orders.items())
        rows = [row for row in rows if row[0] > after and self.orders[row[1]].updated_at >= since]
        page = rows[: self.page_size]
        more = len(rows) > len(page)
        return replied({"orders": [self._order(number) for _, number in page], "next": page[-1][0] if more else None})

    def _order(self, number: int) -> dict[str, object]:
        order = self.orders[number]
        return {
            "id": number,
            "updated_at": order.updated_at.astimezone(UTC).isoformat(),
            "currency": "EUR",
            "lines": {"list": self._lines(number, order.items[: self.shown]), "more": len(order.items) > self.shown},
        }

    def _lines(self, number: int, items: list[int]) -> list[dict[str, object]]:
        at = self.orders[number].updated_at
        return [{"id": item, "label": f"{number}/{item} {at:%d %H:%M:%S}"} for item in items]

    def _items(self, number: int, start: int) -> web.Response:
        if number not in self.orders:
            return replied({"error": "no such order"}, status=404)
        items = self.orders[number].items
        end = start + self.page_size
        return replied({"items": self._lines(number, items[start:end]), "next": end if end < len(items) else None})


@asynccontextmanager
async def serving(counter: Counter) -> AsyncIterator[str]:
    """Yield the base address of ``counter``."""
    async with serve(counter.answer) as url:
        yield url


DECLARATION = """
name: counter
base_url: {url}
streams:
  orders:
    path: /orders
    records: orders
    cursor: {{field: updated_at, precision_seconds: 1, ascending: true}}
    lookback_seconds: 60
    lower: {{param: since, meaning: inclusive}}
    pager: {{type: cursor, param: after, token: next}}
    columns: {{id: bigint}}
  items:
{items}
"""
NESTED = "    parent: {stream: orders, prefix: order_, each: lines.list, has_more: lines.more, fields: [currency]}"
ASKED = """
    parent: {stream: orders, prefix: order_}
    path: /orders/{parent.id}/items
    records: items
    pager: {type: cursor, param: after, token: next}
"""
BOTH = ASKED.replace("prefix: order_}", "prefix: order_, each: lines.list, has_more: lines.more}")


def declaration(url: str, items: str) -> str:
    return DECLARATION.format(url=url, items=items)
