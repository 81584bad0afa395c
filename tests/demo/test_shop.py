"""The sandbox shop is the same however it is looked at, and behaves as Shopify does where a sync could lose records."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from tests.demo.sandbox import NOW, OPENED_AT, FakeClock, quiet_shop
from tidegate.demo.shop import EVERY_SCOPE, Shop
from tidegate.demo.shop_cost import Bucket
from tidegate.demo.shop_life import HOURLY_WEIGHTS
from tidegate.demo.shop_search import parse_search
from tidegate.demo.shop_server import ACCESS_TOKEN, API_VERSION, serve
from tidegate.domain.http_reply import http_date

DAY = timedelta(days=1)
STREAMS = ("orders", "customers", "products")
PATH = f"/admin/api/{API_VERSION}/graphql.json"


def ask(
    shop: Shop, query: str, variables: dict[str, Any] | None = None, *, token: str = ACCESS_TOKEN, **options: Any
) -> tuple[int, dict[str, Any], str]:
    """Send one query and return status, body and Date."""

    async def run() -> tuple[int, dict[str, Any], str]:
        async with serve(shop, **options) as base_url, aiohttp.ClientSession() as session:
            headers = {"X-Shopify-Access-Token": token}
            body = {"query": query, "variables": variables or {}}
            async with session.post(base_url + PATH, json=body, headers=headers) as response:
                return response.status, await response.json(), response.headers["Date"]

    return asyncio.run(run())


def ids(shop: Shop, search: str | None, **arguments: object) -> list[str]:
    query = "query($q: String, $after: String) { orders(first: 250, after: $after, query: $q, sortKey: UPDATED_AT)"
    _, body, _ = ask(shop, query + " { nodes { id } } }", {"q": search, **arguments}, bucket=Bucket(10**6, 10**6))
    return [node["id"] for node in body["data"]["orders"]["nodes"]]


def lived(seed: int, looks: int) -> dict[str, dict[str, str]]:
    """Return everything in a shop 8 days old that was looked at so many times."""
    clock = FakeClock(NOW - 8 * DAY)
    shop = Shop(clock, seed, opened_at=NOW - 8 * DAY, orders_per_day=50)
    for _ in range(looks):
        clock.at += 8 * DAY / looks
        shop.advance()
    assert clock.at == NOW
    return {stream: shop.snapshot(stream, NOW) for stream in STREAMS}


def test_shop_is_the_same_however_often_it_is_looked_at() -> None:
    assert lived(1, looks=1) == lived(1, looks=16) == lived(1, looks=1000)


def test_another_seed_is_another_shop() -> None:
    assert lived(1, looks=1) != lived(2, looks=1)


def test_orders_come_at_the_given_rate_with_a_daily_rhythm() -> None:
    assert sum(HOURLY_WEIGHTS) == pytest.approx(24)
    clock = FakeClock()
    shop = Shop(clock, opened_at=NOW - 30 * DAY, orders_per_day=100)
    assert 2800 < shop.counts()["orders"] < 3200
    created = [
        datetime.fromisoformat(record["createdAt"]).hour
        for record_id in shop.snapshot("orders", NOW)
        if (record := shop.get("orders", record_id)) is not None
    ]
    assert created.count(20) > 5 * created.count(3)


def test_orders_are_edited_as_time_passes() -> None:
    clock = FakeClock(NOW - 3 * DAY)
    shop = Shop(clock, opened_at=NOW - 10 * DAY, orders_per_day=50)
    before = shop.snapshot("orders", clock.now() + DAY)
    clock.at = NOW
    after = shop.snapshot("orders", NOW)
    changed = [key for key in before if after.get(key) != before[key]]
    assert len(after) > len(before)
    assert len(changed) > 10
    assert all(after[key] > before[key] for key in changed)


def test_snapshot_leaves_out_what_changed_at_or_after_its_end() -> None:
    """HOLE j: half-open, as a period is."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    early, edge = shop.add_order(at=NOW - DAY), shop.add_order(at=NOW)
    assert set(shop.snapshot("orders", NOW)) == {early}
    assert set(shop.snapshot("orders", NOW + timedelta(seconds=1))) == {early, edge}
    shop.edit("orders", early, at=NOW + DAY)
    assert shop.snapshot("orders", NOW) == {}


def test_orders_without_a_status_term_are_the_open_ones() -> None:
    """HOLE w: the silent omission that status:any is for."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    fresh, closed, cancelled = (shop.add_order(at=NOW - DAY) for _ in range(3))
    shop.edit("orders", closed, at=NOW - DAY, closed=True)
    shop.edit("orders", cancelled, at=NOW - DAY, cancelledAt="2026-07-13T03:00:00Z")
    assert ids(shop, "updated_at:>='2026-01-01T00:00:00Z'") == ids(shop, None) == [fresh]
    assert ids(shop, "status:any") == [fresh, closed, cancelled]
    assert ids(shop, "status:closed") == [closed]
    assert ids(shop, "status:cancelled") == [cancelled]


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ("updated_at:>='2026-07-13T03:00:00Z'", [1, 2]),
        ("updated_at:>'2026-07-13T03:00:00Z'", [2]),
        ("updated_at:<='2026-07-13T03:00:00Z'", [0, 1]),
        ('updated_at:<"2026-07-13T03:00:00Z"', [0]),
        ("updated_at:'2026-07-13T03:00:00Z'", [1]),
        ("updated_at:>='2026-07-13T05:00:00+02:00' AND updated_at:<='2026-07-13T03:00:00Z'", [1]),
    ],
)
def test_bounds_are_inclusive_where_written_so(terms: str, found: list[int]) -> None:
    """HOLE j: at the precision of a second, in any offset."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    placed = [shop.add_order(at=NOW - DAY + timedelta(seconds=second)) for second in (-1, 0, 1)]
    assert ids(shop, f"status:any {terms}") == [placed[index] for index in found]


def test_unknown_search_term_is_ignored_with_a_warning() -> None:
    search = parse_search("orders", "updated:>='2026-07-13' status:any blue")
    assert [warning["field"] for warning in search.warnings] == ["updated", "blue"]
    assert parse_search("customers", "status:any").warnings


def test_orders_older_than_sixty_days_are_hidden_without_the_scope() -> None:
    """HOLE w: by their creation, even when they were edited yesterday."""
    clock = FakeClock()
    shop = quiet_shop(clock, scopes=EVERY_SCOPE - {"read_all_orders"})
    old = shop.add_order(at=NOW - 61 * DAY)
    young = shop.add_order(at=NOW - 59 * DAY)
    shop.edit("orders", old, at=NOW - DAY)
    assert ids(shop, "status:any") == [young]
    assert shop.get("orders", old) is None
    assert set(shop.snapshot("orders", NOW)) == {old, young}
    shop.scopes = EVERY_SCOPE
    assert ids(shop, "status:any") == [young, old]


def test_date_header_is_the_shops_own_time() -> None:
    """The demo's shop lives faster than its host."""
    _, _, date = ask(quiet_shop(FakeClock()), "{ currentAppInstallation { accessScopes { handle } } }")
    assert http_date(date) == NOW


def test_wrong_token_is_refused() -> None:
    status, body, _ = ask(quiet_shop(FakeClock()), "{ orders(first: 1) { nodes { id } } }", token="shpat_wrong")
    assert status == 401
    assert "data" not in body


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("{ orders(first: 1) { nodes { colour } } }", "colour"),
        ("{ orders { nodes { id } } }", "first or last"),
        ("{ orders(first: 251) { nodes { id } } }", "250"),
        ('{ orders(first: 1, after: "bm9uc2Vuc2U=") { nodes { id } } }', "Invalid cursor"),
        ("{ orders(first: 250) { nodes { lineItems(first: 250) { nodes { id } } } } }", "single query max cost"),
        ("{ orders(first: 1) {", "Syntax Error"),
    ],
)
def test_bad_query_is_answered_with_errors_as_graphql_has_it(query: str, said: str) -> None:
    status, body, _ = ask(quiet_shop(FakeClock()), query)
    assert status == 200
    assert said in body["errors"][0]["message"]


def test_cursor_of_another_order_is_invalid() -> None:
    """Shopify's cursors hold only for the sort they came from."""
    shop = quiet_shop(FakeClock())
    for _ in range(2):
        shop.add_order(at=NOW - DAY)
    _, body, _ = ask(shop, "{ orders(first: 1, sortKey: ID) { pageInfo { endCursor hasNextPage } } }")
    info = body["data"]["orders"]["pageInfo"]
    assert info["hasNextPage"]
    query = "query($after: String) { orders(first: 1, after: $after, sortKey: %s) { nodes { id } } }"
    _, body, _ = ask(shop, query % "ID", {"after": info["endCursor"]})
    assert len(body["data"]["orders"]["nodes"]) == 1
    _, body, _ = ask(shop, query % "UPDATED_AT", {"after": info["endCursor"]})
    assert body["errors"][0]["message"].startswith("Invalid cursor")


def test_reply_tells_requested_and_actual_cost() -> None:
    """Two of five orders there: 2 for the connection, and 1 + 1 for each order and its customer."""
    shop = quiet_shop(FakeClock())
    for _ in range(2):
        shop.add_order(at=NOW - DAY)
    _, body, _ = ask(shop, "{ orders(first: 5) { nodes { id customer { id } } pageInfo { hasNextPage } } }")
    cost = body["extensions"]["cost"]
    assert (cost["requestedQueryCost"], cost["actualQueryCost"]) == (12, 6)
    assert cost["throttleStatus"] == {"maximumAvailable": 2000.0, "currentlyAvailable": 1994.0, "restoreRate": 100.0}


def test_bucket_restores_on_the_shops_clock_and_refuses_when_empty() -> None:
    clock = FakeClock()
    bucket = Bucket(maximum=1000, restore_rate=50)
    bucket.spend(995, clock.now())
    query = "{ orders(first: 5) { nodes { id customer { id } } } }"
    _, body, _ = ask(quiet_shop(clock), query, bucket=bucket)
    assert body["errors"][0]["extensions"]["code"] == "THROTTLED"
    clock.at += timedelta(seconds=1)
    _, body, _ = ask(quiet_shop(clock), query, bucket=bucket)
    assert "errors" not in body
    assert bucket.available(clock.now() + timedelta(hours=1)) == 1000


def test_shop_holds_money_that_adds_up() -> None:
    """An order's total is its line items' and shipping; a customer has spent what the orders say."""
    clock = FakeClock()
    shop = Shop(clock, opened_at=OPENED_AT, orders_per_day=2)
    spent: dict[str, float] = {}
    for record_id in shop.snapshot("orders", datetime.max.replace(tzinfo=UTC)):
        order = shop.get("orders", record_id)
        assert order is not None
        items = sum(float(item["discountedTotalSet"]["shopMoney"]["amount"]) for item in order["lineItems"])
        shipping = float(order["totalShippingPriceSet"]["shopMoney"]["amount"])
        total = float(order["totalPriceSet"]["shopMoney"]["amount"])
        assert items + shipping == pytest.approx(total)
        spent[order["customer"]["id"]] = spent.get(order["customer"]["id"], 0) + total
    assert len(spent) > 50
    for customer_id, amount in spent.items():
        customer = shop.get("customers", customer_id)
        assert customer is not None
        assert float(customer["amountSpent"]["amount"]) == pytest.approx(amount)
