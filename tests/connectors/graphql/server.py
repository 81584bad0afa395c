"""A real GraphQL server (Strawberry on aiohttp) over records in memory, polite or hostile as told."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import strawberry
from aiohttp import web
from graphql import GraphQLError
from strawberry.aiohttp.views import GraphQLView


class Hostility(StrEnum):
    """What the server does wrong."""

    NOTHING = ""
    REPEATED_CURSOR = "endCursor never moves on"
    NULL_CURSOR = "hasNextPage with endCursor null"
    EMPTY_MIDDLE = "the second page is empty"
    PARTIAL = "one record's total cannot be resolved"
    CODED = "the listing fails with `code`"


@dataclass
class Till:
    """The records behind the server. ``asked``: the variables of every query, in order."""

    orders: dict[int, datetime] = field(default_factory=dict)
    items: dict[int, list[int]] = field(default_factory=dict)
    page_size: int = 2
    hostility: Hostility = Hostility.NOTHING
    code: str = ""
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    forgets: int = 0  # an order that is listed, and not there when it is asked for by itself

    def page(self, since: datetime | None, after: str | None, first: int) -> tuple[list[int], bool]:
        rows = sorted((at, number) for number, at in self.orders.items() if since is None or at >= since)
        if after is not None:
            at, number = json.loads(base64.b64decode(after))
            rows = [row for row in rows if row > (datetime.fromisoformat(at), number)]
        return [number for _, number in rows[:first]], len(rows) > first

    def place(self, number: int) -> str:
        return base64.b64encode(json.dumps([self.orders[number].isoformat(), number]).encode()).decode()


def _till(info: strawberry.Info[Any, Any]) -> Till:
    till = info.context["till"]
    assert isinstance(till, Till)
    return till


@strawberry.type
class PageInfo:
    has_next_page: bool
    end_cursor: str | None


@strawberry.type
class Item:
    id: int
    name: str


@strawberry.type
class ItemConnection:
    nodes: list[Item]
    page_info: PageInfo


@strawberry.type
class Order:
    id: int
    updated_at: datetime

    @strawberry.field
    def total(self, info: strawberry.Info[Any, Any]) -> str | None:
        if _till(info).hostility is Hostility.PARTIAL and self.id == 2:
            raise GraphQLError("the till of order 2 is stuck")
        return f"{self.id}.00"

    @strawberry.field
    def items(self, info: strawberry.Info[Any, Any], first: int, after: str | None = None) -> ItemConnection:
        till, start = _till(info), int(after or 0)
        all_of_them = till.items.get(self.id, [])
        shown = all_of_them[start : start + min(first, till.page_size)]
        end = start + len(shown)
        nodes = [Item(id=number, name=f"item {number}") for number in shown]
        return ItemConnection(
            nodes=nodes, page_info=PageInfo(has_next_page=end < len(all_of_them), end_cursor=str(end))
        )


@strawberry.type
class OrderEdge:
    cursor: str
    node: Order | None


@strawberry.type
class OrderConnection:
    edges: list[OrderEdge]
    nodes: list[Order]
    page_info: PageInfo


def _connection(till: Till, numbers: list[int], end: str | None, *, more: bool) -> OrderConnection:
    orders = [Order(id=number, updated_at=till.orders[number]) for number in numbers]
    edges = [OrderEdge(cursor=till.place(order.id), node=order) for order in orders]
    return OrderConnection(edges=edges, nodes=orders, page_info=PageInfo(has_next_page=more, end_cursor=end))


@strawberry.type
class Query:
    @strawberry.field
    def orders(
        self, info: strawberry.Info[Any, Any], first: int, after: str | None = None, since: datetime | None = None
    ) -> OrderConnection:
        till = _till(info)
        if till.hostility is Hostility.CODED:
            raise GraphQLError("not today", extensions={"code": till.code} if till.code else None)
        if after == "pause":
            return _connection(till, [], till.place(sorted(till.orders)[till.page_size - 1]), more=True)
        numbers, more = till.page(since, after, min(first, till.page_size))
        end = till.place(numbers[-1]) if numbers else None
        match till.hostility:
            case Hostility.REPEATED_CURSOR:
                end, more = till.place(min(till.orders)), True
            case Hostility.NULL_CURSOR:
                end = None if more else end
            case Hostility.EMPTY_MIDDLE if after is None:
                end = "pause"
        return _connection(till, numbers, end, more=more)

    @strawberry.field
    def order(self, info: strawberry.Info[Any, Any], id: int) -> Order | None:
        till = _till(info)
        return Order(id=id, updated_at=till.orders[id]) if id in till.orders and id != till.forgets else None


SCHEMA = strawberry.Schema(query=Query)


class _View(GraphQLView[Any, Any]):
    """Strawberry's own view, told of the till, noting what is asked."""

    def __init__(self, till: Till) -> None:
        super().__init__(schema=SCHEMA, graphql_ide=None)
        self._till = till

    async def get_context(self, request: web.Request, response: Any) -> Any:
        body = await request.json()
        self._till.asked.append(body.get("variables") or {})
        return {"till": self._till}


@asynccontextmanager
async def serving(till: Till) -> AsyncIterator[str]:
    """Yield the base address of a server over ``till``."""
    app = web.Application()
    app.router.add_route("*", "/graphql", _View(till))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
