"""The WooCommerce declaration against a double that compares times as the plugin's own code does.

No WooCommerce is to be had from a package registry. The double follows the plugin's controllers: ``modified_after`` is
exclusive, to the second; a value with an offset is converted to the shop's zone before it is compared; lists are ordered by
id; an offset past the end shows nothing; customers have a role, and the default is one of them.
"""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import resources
from zoneinfo import ZoneInfo

import pytest
from aiohttp import web

from tests.connectors.rest.sources import LeapingClock, ids, replied, serve
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.registry import find_connector
from tidegate.connectors.rest.connector import RestConnector
from tidegate.connectors.rest.loader import load
from tidegate.domain.errors import Unauthorised
from tidegate.domain.fetch import FetchRequest, Page
from tidegate.domain.period import Period

NOON = datetime(2026, 7, 13, 12, tzinfo=UTC)
AUCKLAND = ZoneInfo("Pacific/Auckland")
SECRETS = {"consumer_key": "ck_0123456789", "consumer_secret": "cs_9876543210"}
LIST_PARAMETERS = {"context", "page", "per_page", "search", "after", "before", "modified_after", "modified_before",
                   "dates_are_gmt", "exclude", "include", "offset", "order", "orderby", "status"}  # fmt: skip
CUSTOMER_PARAMETERS = {
    "context",
    "page",
    "per_page",
    "search",
    "exclude",
    "include",
    "offset",
    "order",
    "orderby",
    "role",
}


@dataclass
class Shop:
    """A shop in Auckland: orders by the second of their last edit."""

    orders: dict[int, datetime] = field(default_factory=dict)
    customers: dict[int, str] = field(default_factory=dict)
    requests: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        pair = base64.b64encode(f"{SECRETS['consumer_key']}:{SECRETS['consumer_secret']}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {pair}":
            return replied({"code": "woocommerce_rest_cannot_view"}, status=401)
        customers = request.path == "/wp-json/wc/v3/customers"
        assert customers or request.path in ("/wp-json/wc/v3/orders", "/wp-json/wc/v3/products")
        unknown = set(request.query) - (CUSTOMER_PARAMETERS if customers else LIST_PARAMETERS)
        assert not unknown, f"the plugin would ignore {unknown}"
        records = self._customers(request) if customers else self._orders(request)
        size, offset = int(request.query.get("per_page", 10)), int(request.query["offset"])
        if not 1 <= size <= 100:
            return replied({"code": "rest_invalid_param"}, status=400)
        pages = -(-len(records) // size)
        return replied(
            records[offset : offset + size],
            {"X-WP-Total": str(len(records)), "X-WP-TotalPages": str(pages)},
        )

    def _orders(self, request: web.Request) -> list[dict[str, object]]:
        assert (request.query["orderby"], request.query["order"]) == ("id", "asc")
        after = request.query.get("modified_after")
        gmt = request.query.get("dates_are_gmt") == "true"
        shown = []
        for number, at in sorted(self.orders.items()):
            wall = at.astimezone(UTC if gmt else AUCKLAND).replace(tzinfo=None)
            if after is None or wall > _wall(after):
                utc, local = at.replace(tzinfo=None), at.astimezone(AUCKLAND).replace(tzinfo=None)
                shown.append({"id": number, "date_modified": local.isoformat(), "date_modified_gmt": utc.isoformat()})
        return shown

    def _customers(self, request: web.Request) -> list[dict[str, object]]:
        assert (request.query["orderby"], request.query["order"]) == ("id", "asc")
        role = request.query.get("role", "customer")
        return [{"id": n, "role": has} for n, has in sorted(self.customers.items()) if role in ("all", has)]


def _wall(text: str) -> datetime:
    """What the plugin compares with: wall time as written, but a value with an offset in the shop's own zone."""
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo is None else parsed.astimezone(AUCKLAND).replace(tzinfo=None)


async def _fetch(
    shop: Shop, stream: str, lower: datetime | None, connector: RestConnector | None = None, key: str = ""
) -> list[Page]:
    found = connector or find_connector("woocommerce")
    secrets = {**SECRETS, "consumer_key": key or SECRETS["consumer_key"]}
    async with serve(shop.answer) as url, open_session(allow_private_addresses=True) as session:
        source = found.open(ConnectionSettings({"base_url": url}, secrets), session, LeapingClock())
        request = FetchRequest(stream, lower, None, NOON + timedelta(days=3))
        return [page async for page in source.fetch(request)]


def _shop() -> Shop:
    """130 orders of one second, one every hour around them, one in the second of a period's boundary."""
    tied = dict.fromkeys(range(1000, 1130), NOON + timedelta(hours=30, seconds=7))
    hourly = {100 + n: NOON + timedelta(hours=n) for n in range(48)}
    return Shop({**hourly, **tied})


@pytest.mark.parametrize("stream", ["orders", "products"])
@pytest.mark.parametrize("hours", [0, 1, 13, 30, 47])
def test_everything_from_the_lower_bound_on_is_shown_whatever_the_shops_zone(stream: str, hours: int) -> None:
    """HOLES i, j: wall time in UTC, exclusive to the second; a tie of more than a page."""
    shop, lower = _shop(), NOON + timedelta(hours=hours)
    pages = asyncio.run(_fetch(shop, stream, lower))
    wanted = {order for order, at in shop.orders.items() if at >= lower}
    assert wanted <= set(ids(pages))
    assert len(set(ids(pages)) - wanted) <= 1, "no more than the second before"
    assert pages[-1].report.proves(Period(lower, lower + timedelta(days=1)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("format: local, precision_seconds: 1", "format: iso, precision_seconds: 1"),
        (", dates_are_gmt: true", ""),
    ],
    ids=["a value with Z", "without dates_are_gmt"],
)
def test_the_double_would_notice_a_wrong_clock(before: str, after: str) -> None:
    """An offset in the value moves the bound by the shop's zone, half a day here; so does the shop's own wall time."""
    text = resources.files("tidegate.connectors").joinpath("declarations", "woocommerce.yaml").read_text("utf-8")
    assert before in text
    wrong = text.replace(before, after)
    if "iso" in after:
        wrong = wrong.replace(
            "{param: modified_after, meaning: exclusive}", "{param: modified_after, meaning: exclusive, format: iso}"
        )
        wrong = wrong.replace("format: iso, precision_seconds: 1", "format: local, precision_seconds: 1")
    shop, lower = _shop(), NOON + timedelta(hours=13)
    shown = set(ids(asyncio.run(_fetch(shop, "orders", lower, RestConnector(load(wrong))))))
    wanted = {order for order, at in shop.orders.items() if at >= lower}
    assert (wanted - shown) or len(shown - wanted) > 10


def test_customers_of_every_role_are_listed_in_full() -> None:
    """HOLE w: the shop's own default leaves out whoever has another role."""
    shop = Shop(customers={n: ("customer", "subscriber", "shop_manager")[n % 3] for n in range(1, 251)})
    pages = asyncio.run(_fetch(shop, "customers", None))
    assert set(ids(pages)) == set(range(1, 251))


def test_a_refused_key_is_not_shown() -> None:
    with pytest.raises(Unauthorised) as caught:
        asyncio.run(_fetch(_shop(), "orders", NOON, key="ck_wrong_0123456789"))
    assert not re.search("ck_|cs_", str(caught.value.as_json()))
