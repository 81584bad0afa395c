"""Serves the sandbox shop on localhost with Shopify's Admin GraphQL interface: token, points, Date, errors and all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import format_datetime
from enum import StrEnum
from typing import Any, TypeAlias

from aiohttp import web

from tidegate.demo.shop import Shop
from tidegate.demo.shop_cost import SINGLE_QUERY_LIMIT, Bucket
from tidegate.demo.shop_graphql import actual_cost, read_query, requested_cost, run_query

API_VERSION = "2026-10"
ACCESS_TOKEN = "shpat_sandbox"  # noqa: S105, it opens nothing but the sandbox
_PATH = f"/admin/api/{API_VERSION}/graphql.json"


class Fault(StrEnum):
    """What can go wrong on request."""

    TOO_MANY_REQUESTS = "429"
    SERVER_ERROR = "500"
    INTERNAL_ERROR = "INTERNAL_SERVER_ERROR"  # HTTP 200, as GraphQL has it
    THROTTLED = "THROTTLED"
    EXPIRED_CURSOR = "expired cursor"
    RESET = "reset"


Meddler: TypeAlias = Callable[[int, Mapping[str, Any]], Fault | None]
"""Called with a request's number, from 1, and its body, before it is answered; may change the shop or return a fault."""


def leave_alone(_number: int, _body: Mapping[str, Any]) -> None:
    """Let every request pass."""


@asynccontextmanager
async def serve(
    shop: Shop,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    access_token: str = ACCESS_TOKEN,
    bucket: Bucket | None = None,
    meddle: Meddler = leave_alone,
) -> AsyncIterator[str]:
    """Serve ``shop`` while the context is open and yield its base URL; port 0 takes a free one.

    Times are the shop's clock's, in the Date header too, so that a shop can live faster than its host.
    """
    front = _Front(shop, access_token, bucket or Bucket(), meddle)
    app = web.Application()
    app.router.add_post(_PATH, front.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class _Front:
    shop: Shop
    access_token: str
    bucket: Bucket
    meddle: Meddler
    requests: int = field(default=0)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("X-Shopify-Access-Token") != self.access_token:
            message = "[API] Invalid API key or access token (unrecognized login or wrong password)"
            return self._reply({"errors": message}, status=401)
        body = await request.json()
        self.requests += 1
        fault = self.meddle(self.requests, body)
        if fault is Fault.RESET and request.transport is not None:
            request.transport.abort()
        if fault is not None:
            return self._faulty(fault)
        return self._reply(self._execute(body, explain_search="Shopify-Search-Query-Debug" in request.headers))

    def _execute(self, body: Mapping[str, Any], *, explain_search: bool) -> dict[str, Any]:
        variables = body.get("variables") or {}
        document, problems = read_query(str(body.get("query", "")))
        if document is None or problems:
            return {"errors": [{"message": problem} for problem in problems]}
        cost = requested_cost(document, variables)
        if cost > SINGLE_QUERY_LIMIT:
            message = f"Query cost is {cost}, which exceeds the single query max cost limit ({SINGLE_QUERY_LIMIT})."
            return self._refused("MAX_COST_EXCEEDED", message, cost)
        if cost > self.bucket.available(self.shop.clock.now()):
            return self._refused("THROTTLED", "Throttled", cost)
        self.shop.advance()
        outcome = run_query(self.shop, document, variables)
        actual = actual_cost(document, variables, outcome)
        self.bucket.spend(actual, self.shop.clock.now())
        reply: dict[str, Any] = {"data": outcome.data, "extensions": {"cost": self._cost(cost, actual)}}
        if outcome.errors:
            reply["errors"] = outcome.errors
        if outcome.searches and explain_search:
            reply["extensions"]["search"] = outcome.searches
        return reply

    def _refused(self, code: str, message: str, cost: int = 0) -> dict[str, Any]:
        errors = [{"message": message, "extensions": {"code": code}}]
        return {"errors": errors, "extensions": {"cost": self._cost(cost, None)}}

    def _cost(self, requested: int, actual: int | None) -> dict[str, Any]:
        status = self.bucket.status(self.shop.clock.now())
        return {"requestedQueryCost": requested, "actualQueryCost": actual, "throttleStatus": status}

    def _faulty(self, fault: Fault) -> web.Response:
        match fault:
            case Fault.TOO_MANY_REQUESTS:
                return self._reply({"errors": "Too many requests"}, status=429, headers={"Retry-After": "2.0"})
            case Fault.INTERNAL_ERROR | Fault.THROTTLED:
                return self._reply(
                    self._refused(fault.value, "Internal error" if fault != "THROTTLED" else "Throttled")
                )
            case Fault.EXPIRED_CURSOR:
                return self._reply(self._refused("BAD_REQUEST", "Invalid cursor for current pagination sort."))
            case _:
                return self._reply({"errors": "Internal Server Error"}, status=500)

    def _reply(
        self, body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        date = format_datetime(self.shop.clock.now().replace(microsecond=0), usegmt=True)
        return web.json_response(body, status=status, headers={"Date": date, **(headers or {})})
