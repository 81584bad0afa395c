"""No record of a shop is lost between two pages, two periods or two queries (SPEC 4; HOLES e, j, w, gg, hh, k, l)."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
import pytest

from tests.demo.sandbox import NOW, OPENED_AT, FakeClock, all_pages, opened, quiet_shop, records, request, versions
from tidegate.connectors.shopify import source as source_module
from tidegate.connectors.shopify.admin import AdminAPI, Answer, CursorExpired
from tidegate.connectors.shopify.connector import LOOKBACK, ShopifyConnector
from tidegate.connectors.shopify.queries import LISTINGS
from tidegate.connectors.shopify.source import ShopifySource
from tidegate.demo.shop import EVERY_SCOPE, Shop
from tidegate.demo.shop_cost import Bucket
from tidegate.demo.shop_server import Fault
from tidegate.domain.fetch import FetchRequest, Page
from tidegate.domain.period import Period

NO_OLD_ORDERS = EVERY_SCOPE - {"read_all_orders"}
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def fetched(shop: Shop, clock: FakeClock, asked: FetchRequest, **options: Any) -> list[Page]:
    async def run() -> list[Page]:
        async with opened(shop, clock, **options) as source:
            return await all_pages(source, asked)

    return asyncio.run(run())


@pytest.mark.parametrize("stream", ["orders", "customers", "products"])
def test_every_record_is_delivered_at_its_present_version(stream: str) -> None:
    """SPEC, the promise: what the shop holds and what came over are the same, id by id and version by version."""
    clock = FakeClock()
    shop = Shop(clock, opened_at=NOW - 10 * DAY, orders_per_day=20)
    pages = fetched(shop, clock, request(stream))
    assert versions(pages) == shop.snapshot(stream, NOW + DAY)
    assert len(pages) > 1 or stream != "orders"
    updated = [record["updatedAt"] for record in records(pages)]
    assert updated == sorted(updated)
    assert pages[-1].token is None
    assert all(page.token is not None for page in pages[:-1])


def test_page_carries_both_clocks_and_json_text() -> None:
    clock = FakeClock(NOW + timedelta(microseconds=250))
    shop = quiet_shop(clock)
    (page,) = fetched(shop, clock, request("products"))
    assert page.requested_at == clock.at
    assert page.source_at == NOW
    assert isinstance(json.loads(page.records), list)


def test_records_of_one_second_are_not_lost_at_a_page_boundary() -> None:
    """HOLE gg: 35 orders of one second, ten to a page."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    placed = {shop.add_order(at=NOW - DAY) for _ in range(35)}
    pages = fetched(shop, clock, request())
    assert len(pages) >= 3
    assert {record["id"] for record in records(pages)} == placed
    assert len(records(pages)) == 35


def test_order_edited_while_it_is_listed_comes_again_at_its_new_version() -> None:
    """HOLES e, gg: an order listed already, and one not listed yet, are edited between two pages."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    placed = [shop.add_order(at=NOW - DAY + timedelta(minutes=number)) for number in range(40)]

    def meddle(number: int, _body: Mapping[str, Any]) -> None:
        if number == 3:
            shop.edit("orders", placed[0], at=NOW, note="listed before")
            shop.edit("orders", placed[39], at=NOW, note="not listed yet")

    pages = fetched(shop, clock, request(), meddle=meddle)
    assert versions(pages) == shop.snapshot("orders", NOW + DAY)
    assert {record["note"] for record in records(pages)} == {None, "listed before", "not listed yet"}
    assert [record["id"] for record in records(pages)].count(placed[0]) == 2


def test_bounded_listing_would_miss_the_edited_order_so_streams_are_open_ended() -> None:
    """SPEC 4: edited out of its period while it is listed, an order is in no bounded listing at all."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    placed = [shop.add_order(at=NOW - DAY + timedelta(minutes=number)) for number in range(40)]

    def meddle(number: int, _body: Mapping[str, Any]) -> None:
        if number == 2:
            shop.edit("orders", placed[39], at=NOW, note="late")

    assert placed[39] not in versions(fetched(shop, clock, request(upper=NOW), meddle=meddle))


def test_lower_bound_is_included_and_rounded_down_to_shopifys_second() -> None:
    """HOLE j: an order in the very second of the watermark is delivered, the one before it is not."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    shop.add_order(at=NOW - DAY - SECOND)
    kept = [shop.add_order(at=NOW - DAY), shop.add_order(at=NOW - DAY + SECOND)]
    for lower in (NOW - DAY, NOW - DAY + timedelta(milliseconds=700)):
        assert list(versions(fetched(shop, clock, request(lower=lower)))) == kept


def test_upper_bound_is_excluded_and_rounded_up_to_shopifys_second() -> None:
    """HOLE j: an upper bound inside a second keeps that second's orders; on a second it excludes them."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    early = shop.add_order(at=NOW - DAY - SECOND)
    edge = shop.add_order(at=NOW - DAY)
    assert list(versions(fetched(shop, clock, request(upper=NOW - DAY)))) == [early]
    inside = fetched(shop, clock, request(upper=NOW - DAY + timedelta(milliseconds=1)))
    assert list(versions(inside)) == [early, edge]
    assert inside[-1].report.upper == NOW - DAY + timedelta(milliseconds=1)


def test_closed_and_cancelled_orders_are_delivered() -> None:
    """HOLE w: without status:any the shop shows open orders only."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    placed = [shop.add_order(at=NOW - DAY) for _ in range(3)]
    shop.edit("orders", placed[0], closed=True)
    shop.edit("orders", placed[1], cancelledAt="2026-07-14T03:00:00Z")
    assert set(versions(fetched(shop, clock, request()))) == set(placed)


def test_listing_ends_although_orders_keep_coming_in() -> None:
    """HOLE hh: a new order with every request; the listing stops once it has passed the clock read before it."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    early = {shop.add_order(at=NOW - DAY) for _ in range(30)}

    def meddle(number: int, _body: Mapping[str, Any]) -> None:
        assert number < 50, "the listing chases new orders for ever"
        for _ in range(20):
            shop.add_order(at=NOW + number * SECOND)

    pages = fetched(shop, clock, request(stop_after=NOW), meddle=meddle)
    assert early <= set(versions(pages))
    assert pages[-1].token is None
    assert pages[-1].report.upper == NOW
    assert pages[-1].report.proves(Period(NOW - DAY, NOW))
    assert not pages[-1].report.proves(Period(NOW - DAY, NOW + SECOND))


class ScriptedAPI:
    """Answers one query after another with the cursor values given, or by forgetting the position."""

    def __init__(self, *pages: list[datetime] | None) -> None:
        self.pages = list(pages)
        self.searches: list[str] = []

    async def ask(self, _query: str, variables: Mapping[str, object], _size: int) -> Answer:
        self.searches.append(str(variables["query"]))
        values = self.pages.pop(0)
        if values is None:
            raise CursorExpired("forgotten")
        nodes = [{"id": str(value), "updatedAt": value.isoformat()} for value in values]
        info = {"hasNextPage": bool(self.pages), "endCursor": f"before {len(self.pages)} more"}
        data = {"listing": {"nodes": nodes, "pageInfo": info}}
        return Answer(msgspec.Raw(msgspec.json.encode(data)), NOW, NOW, ())

    def page_size(self, _query: str, initial: int) -> int:
        return initial

    decode = AdminAPI.decode


def scripted(api: ScriptedAPI, stop_after: datetime) -> list[Page]:
    cursor = ShopifyConnector().streams["customers"].cursor
    assert cursor is not None
    source = ShopifySource(cast(AdminAPI, api), cursor, all_orders_expected=False)
    return asyncio.run(all_pages(source, request("customers", stop_after=stop_after)))


def test_record_shown_newer_than_its_place_does_not_end_the_listing() -> None:
    """HOLE gg: edited while its page is read, a record shows its new instant at its old place; more are behind it."""
    api = ScriptedAPI([NOW - DAY, NOW + SECOND], [NOW - DAY + SECOND], [NOW + SECOND, NOW + DAY], [NOW + DAY])
    pages = scripted(api, stop_after=NOW)
    assert len(pages) == 3
    assert str(NOW - DAY + SECOND) in versions(pages)
    assert pages[-1].report.upper == NOW


def test_record_shown_newer_than_its_place_does_not_move_the_restart_past_others() -> None:
    """The restart begins at the oldest cursor value of the last page, not at the newest."""
    api = ScriptedAPI([NOW - DAY, NOW + DAY], None, [NOW - DAY + SECOND])
    pages = scripted(api, stop_after=NOW)
    assert api.searches[-1] == "updated_at:>='2026-07-13T03:00:00Z'"
    assert str(NOW - DAY + SECOND) in versions(pages)


def test_lookback_finds_what_the_shop_shows_late() -> None:
    """HOLES k, l: a shop that shows changes 90 s late; without the lookback the next period loses orders."""
    lag, opened_at = timedelta(seconds=90), NOW - timedelta(hours=4)
    assert lag < LOOKBACK

    def undelivered(lookback: timedelta) -> int:
        clock = FakeClock()
        shop = Shop(clock, opened_at=opened_at, orders_per_day=2000, index_lag=lag)
        plenty = Bucket(maximum=10**6, restore_rate=10**6)
        pages = fetched(shop, clock, request(lower=opened_at), bucket=plenty)
        clock.at = NOW + timedelta(minutes=30)
        pages += fetched(shop, clock, request(lower=NOW - lookback), bucket=plenty)
        return len(shop.snapshot("orders", NOW).items() - versions(pages).items())

    assert undelivered(LOOKBACK) == 0
    assert undelivered(timedelta(0)) > 0


def test_long_lists_inside_a_record_are_followed_to_their_end() -> None:
    """5 line items come with an order, 50 with every further query: none of 130 may be cut off."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    wanted = {shop.add_order(at=NOW - DAY, line_items=count): count for count in (1, 5, 6, 55, 56, 130)}
    found = {record["id"]: record["lineItems"] for record in records(fetched(shop, clock, request()))}
    assert {key: len(items) for key, items in found.items()} == wanted
    assert all(len({item["id"] for item in items}) == len(items) for items in found.values())
    shoe = next(r for r in records(fetched(shop, clock, request("products"))) if r["title"] == "Canvas deck shoe")
    assert [variant["title"] for variant in shoe["variants"]] == [str(size) for size in range(38, 50)]


def test_line_items_and_variants_are_streams_of_their_own_and_none_is_cut_off() -> None:
    """SPEC 4: a child's key is its parent's and its own, its cursor value its parent's."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    orders = {shop.add_order(at=NOW - DAY, line_items=count): count for count in (1, 5, 6, 55, 130)}
    items = records(fetched(shop, clock, request("order_line_items")))
    assert Counter(item["order_id"] for item in items) == orders
    assert len({(item["order_id"], item["id"]) for item in items}) == sum(orders.values())
    edited = versions(fetched(shop, clock, request("orders")))
    assert all(item["order_updatedAt"] == edited[item["order_id"]] for item in items)
    variants = records(fetched(shop, clock, request("product_variants")))
    products = records(fetched(shop, clock, request("products")))
    assert len(variants) == sum(len(product["variants"]) for product in products) > len(products)
    declared = ShopifyConnector().streams["order_line_items"]
    assert declared.key == ("order_id", "id")
    assert declared.cursor is not None
    assert declared.cursor.path == ("order_updatedAt",)


def test_record_that_vanishes_before_its_list_is_complete_is_left_out() -> None:
    """It no longer exists for us; delivering the half of it would be a lie."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    old = shop.add_order(at=NOW - 100 * DAY, line_items=9)
    kept = shop.add_order(at=NOW - DAY)

    def meddle(number: int, _body: Mapping[str, Any]) -> None:
        if number == 2:
            shop.scopes = NO_OLD_ORDERS

    assert set(versions(fetched(shop, clock, request()))) == {old, kept}
    assert set(versions(fetched(shop, clock, request(), meddle=meddle))) == {kept}


@pytest.mark.parametrize("expired_at", [2, 3, 4])
def test_forgotten_position_restarts_the_listing_where_it_was(expired_at: int) -> None:
    """Nothing is lost, and the restart begins at the last cursor value, not at the beginning."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    for number in range(40):
        shop.add_order(at=NOW - DAY + timedelta(minutes=number))
    searches: list[str] = []

    def meddle(number: int, body: Mapping[str, Any]) -> Fault | None:
        searches.append(body["variables"]["query"])
        return Fault.EXPIRED_CURSOR if number == expired_at else None

    pages = fetched(shop, clock, request(), meddle=meddle)
    assert versions(pages) == shop.snapshot("orders", NOW)
    assert searches[0] == searches[expired_at - 1] != searches[expired_at]
    assert len(records(pages)) < 40 + 20


def test_listing_deeper_than_shopify_pages_is_continued_in_another() -> None:
    """Shopify pages through 25,000 records and then says there are no more; here the limit is 100."""
    clock = FakeClock()
    shop = quiet_shop(clock, paging_limit=100)
    for number in range(350):
        shop.add_order(at=NOW - DAY + timedelta(seconds=number // 3))

    async def run(max_depth: int) -> list[Page]:
        async with opened(shop, clock) as source:
            deep = ShopifySource(source._api, source._cursor, all_orders_expected=False, max_depth=max_depth)
            return await all_pages(deep, request())

    assert versions(asyncio.run(run(80))) == shop.snapshot("orders", NOW)
    assert len(versions(asyncio.run(run(10**6)))) == 100


def test_more_ties_than_shopify_pages_through_are_never_called_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 5: the ledger cannot lie, not even where the source does."""
    monkeypatch.setattr(source_module, "PAGING_LIMIT", 100)
    clock = FakeClock()
    shop = quiet_shop(clock, paging_limit=100)
    for _ in range(150):
        shop.add_order(at=NOW - DAY)

    async def run() -> list[Page]:
        async with opened(shop, clock) as source:
            deep = ShopifySource(source._api, source._cursor, all_orders_expected=False, max_depth=80)
            return await all_pages(deep, request())

    pages = asyncio.run(run())
    assert "100 records or more" in pages[-1].report.shortfall
    assert not pages[-1].report.proves(Period(OPENED_AT, NOW))


SIX_MONTHS = Period(NOW - 180 * DAY, NOW)
LAST_WEEK = Period(NOW - 7 * DAY, NOW)


def _report(period: Period, scopes: frozenset[str], history: str) -> tuple[datetime | None, bool, str]:
    clock = FakeClock()
    shop = quiet_shop(clock, scopes=scopes)
    shop.add_order(at=NOW - 100 * DAY)
    shop.add_order(at=NOW - DAY)
    asked = request(lower=period.start - LOOKBACK)
    report = fetched(shop, clock, asked, settings={"order_history": history})[-1].report
    return report.lower, report.proves(period), report.shortfall


def test_sixty_days_requested_versus_available() -> None:
    """HOLE w: six months asked for, sixty days shown, of which 59 are sure: no period that starts earlier is proven."""
    assert _report(SIX_MONTHS, NO_OLD_ORDERS, "60_days") == (NOW - 59 * DAY, False, "")
    assert _report(LAST_WEEK, NO_OLD_ORDERS, "60_days") == (LAST_WEEK.start - LOOKBACK, True, "")
    assert _report(SIX_MONTHS, EVERY_SCOPE, "60_days") == (SIX_MONTHS.start - LOOKBACK, True, "")
    assert _report(SIX_MONTHS, EVERY_SCOPE, "all") == (SIX_MONTHS.start - LOOKBACK, True, "")


def test_all_orders_expected_without_the_scope_proves_nothing() -> None:
    """Even last week: an old order refunded yesterday is hidden."""
    for period in (SIX_MONTHS, LAST_WEEK):
        _, proven, shortfall = _report(period, NO_OLD_ORDERS, "all")
        assert not proven
        assert "read_all_orders" in shortfall


def test_full_listing_without_the_scope_reports_its_true_lower_bound() -> None:
    clock = FakeClock()
    shop = quiet_shop(clock, scopes=NO_OLD_ORDERS)
    shop.add_order(at=NOW - DAY)
    assert fetched(shop, clock, request(lower=None))[-1].report.lower == NOW - 59 * DAY
    assert fetched(shop, clock, request("customers", lower=None))[-1].report.lower is None


def test_search_term_that_shopify_ignores_makes_the_fetch_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shopify drops terms it does not know and answers as if they were not there; its warning must not be lost."""
    listing = LISTINGS["orders"]
    changed = type(listing)(listing.query, listing.page_size, "status:whatever", listing.nested)
    monkeypatch.setitem(LISTINGS, "orders", changed)
    clock = FakeClock()
    shop = quiet_shop(clock)
    report = fetched(shop, clock, request())[-1].report
    assert report.shortfall.startswith("status:")
    assert not report.proves(LAST_WEEK)
