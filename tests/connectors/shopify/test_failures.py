"""What goes wrong on the way to a shop, what it is called, and that a resumed fetch is whole (SPEC 4, 5)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import aiohttp
import msgspec
import pytest
from aiohttp import web

from tests.demo.sandbox import NOW, FakeClock, all_pages, opened, quiet_shop, records, request, versions
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.shopify import ShopifyConnector
from tidegate.connectors.shopify.admin import AdminAPI, Answer, CursorExpired
from tidegate.connectors.shopify.queries import LISTINGS
from tidegate.connectors.shopify.source import ShopifySource
from tidegate.demo import shop_server
from tidegate.demo.shop import EVERY_SCOPE, Shop
from tidegate.demo.shop_cost import Bucket
from tidegate.demo.shop_server import ACCESS_TOKEN, Fault
from tidegate.domain.errors import (
    ContractBroken,
    InvalidInput,
    RateLimited,
    SourceError,
    SourceUnavailable,
    Unauthorised,
)
from tidegate.domain.fetch import Page

DAY = timedelta(days=1)


def forty_orders(clock: FakeClock) -> Shop:
    shop = quiet_shop(clock)
    for number in range(40):
        shop.add_order(at=NOW - DAY + timedelta(seconds=number // 2), line_items=7 if number % 20 == 3 else 2)
    return shop


def with_faults(fault: Fault, *numbers: int) -> list[Page]:
    """Fetch forty orders from a shop where the requests of these numbers fail; raises what the connector raises."""
    clock = FakeClock()

    async def run() -> list[Page]:
        def meddle(number: int, _body: Mapping[str, Any]) -> Fault | None:
            return fault if number in numbers else None

        async with opened(forty_orders(clock), clock, meddle=meddle) as source:
            return await all_pages(source, request())

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.TOO_MANY_REQUESTS, RateLimited),
        (Fault.THROTTLED, RateLimited),
        (Fault.SERVER_ERROR, SourceUnavailable),
        (Fault.INTERNAL_ERROR, SourceUnavailable),
        (Fault.RESET, SourceUnavailable),
    ],
)
def test_passing_fault_is_named_and_retryable(fault: Fault, expected: type[SourceError]) -> None:
    with pytest.raises(expected) as caught:
        with_faults(fault, 2)
    assert caught.value.retryable


def test_http_429_says_when_to_come_back() -> None:
    with pytest.raises(RateLimited) as caught:
        with_faults(Fault.TOO_MANY_REQUESTS, 1)
    assert caught.value.retry_after_seconds == 2.0


@pytest.mark.parametrize("failing", range(1, 7))
def test_fetch_resumed_after_a_failure_at_any_request_is_whole(failing: int) -> None:
    """SPEC 4: a failed page is retried from the checkpoint; follow-up queries for line items fail here, too."""
    clock = FakeClock()
    shop = forty_orders(clock)
    pages: list[Page] = []
    requests: list[int] = []

    def meddle(number: int, _body: Mapping[str, Any]) -> Fault | None:
        requests.append(number)
        return Fault.RESET if number == failing else None

    async def keep(fetch: AsyncIterator[Page]) -> None:
        async for page in fetch:
            pages.append(page)  # noqa: PERF401, a comprehension would lose the pages before the failure

    async def run() -> None:
        async with opened(shop, clock, meddle=meddle) as source:
            with pytest.raises(SourceUnavailable):
                await keep(source.fetch(request()))
            resume = pages[-1].token if pages else None
            stored = json.loads(json.dumps(resume))  # as a checkpoint keeps it
            pages.extend(await all_pages(source, request(resume=stored)))

    asyncio.run(run())
    assert len(requests) > failing
    assert versions(pages) == shop.snapshot("orders", NOW)
    assert len(records(pages)) == 40
    assert all(len(record["lineItems"]) in (2, 7) for record in records(pages))


def test_token_of_an_unknown_form_lists_from_the_start() -> None:
    clock = FakeClock()
    shop = forty_orders(clock)

    async def run() -> list[Page]:
        async with opened(shop, clock) as source:
            return await all_pages(source, request(resume={"after": 7}))

    assert versions(asyncio.run(run())) == shop.snapshot("orders", NOW)


def test_position_forgotten_twice_is_a_broken_contract() -> None:
    with pytest.raises(CursorExpired):
        with_faults(Fault.EXPIRED_CURSOR, 2, 4)


def test_throttled_query_says_when_there_will_be_room() -> None:
    """A bucket drained by another worker: 1000 points needed, 100 there, 50 a second."""
    clock = FakeClock()
    bucket = Bucket(maximum=1000, restore_rate=50)
    bucket.spend(900, clock.now())

    async def run() -> None:
        async with opened(quiet_shop(clock), clock, bucket=bucket) as source:
            await all_pages(source, request("products"))

    with pytest.raises(RateLimited) as caught:
        asyncio.run(run())
    assert caught.value.retry_after_seconds is not None
    assert 0 < caught.value.retry_after_seconds <= (1000 - 100) / 50
    clock.at += timedelta(seconds=caught.value.retry_after_seconds)
    asyncio.run(run())  # and not a second longer


def test_requests_wait_for_room_in_the_bucket_and_are_never_throttled() -> None:
    """Paced by the shop's own figures on the clock handed in: no refusal, no wait when there is room."""
    clock = FakeClock()
    shop = quiet_shop(clock)
    for number in range(300):
        shop.add_order(at=NOW - DAY + timedelta(seconds=number))

    async def run(bucket: Bucket) -> list[Page]:
        async with opened(shop, clock, bucket=bucket) as source:
            return [page for stream in ("orders", "customers") for page in await all_pages(source, request(stream))]

    assert len(records(asyncio.run(run(Bucket(maximum=10**6, restore_rate=1000))))) > 300
    assert clock.slept == []
    assert len(records(asyncio.run(run(Bucket(maximum=1000, restore_rate=50))))) > 300
    assert sum(clock.slept) > 100


def test_page_size_shrinks_when_shopify_finds_a_query_too_costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real prices may be above the documented ones: 10 orders would be 700 points and more, and 200 are the limit."""
    monkeypatch.setattr(shop_server, "SINGLE_QUERY_LIMIT", 200)
    clock = FakeClock()
    shop = forty_orders(clock)
    sizes: list[int] = []

    def meddle(_number: int, body: Mapping[str, Any]) -> None:
        if "query" in body["variables"]:
            sizes.append(body["variables"]["first"])

    async def run() -> list[Page]:
        async with opened(shop, clock, meddle=meddle, bucket=Bucket(maximum=400, restore_rate=100)) as source:
            return await all_pages(source, request(lower=NOW - timedelta(seconds=DAY.total_seconds() - 15)))

    pages = asyncio.run(run())
    assert len(records(pages)) == 10
    assert sizes[:3] == [10, 5, 2]
    assert max(sizes[2:]) == 2


def test_page_size_grows_when_records_turn_out_cheap() -> None:
    clock = FakeClock()
    sizes: list[int] = []

    def meddle(_number: int, body: Mapping[str, Any]) -> None:
        sizes.append(body["variables"]["first"])

    async def run() -> None:
        shop = Shop(clock, opened_at=NOW - 20 * DAY, orders_per_day=60)
        async with opened(shop, clock, meddle=meddle) as source:
            await all_pages(source, request("customers"))

    asyncio.run(run())
    assert sizes[0] == 100
    assert 100 < max(sizes) <= 250


def test_missing_scope_and_wrong_token_are_unauthorised() -> None:
    clock = FakeClock()

    async def run(shop: Shop, token: str) -> None:
        async with opened(shop, clock, access_token=token) as source:
            await all_pages(source, request())

    with pytest.raises(Unauthorised, match="read_orders"):
        asyncio.run(run(quiet_shop(clock, scopes=EVERY_SCOPE - {"read_orders"}), ACCESS_TOKEN))
    with pytest.raises(Unauthorised):
        asyncio.run(run(quiet_shop(clock), "shpat_wrong"))


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, '{"errors": [{"message": "bad token shpat_secret_1234"}]}'),
        (200, '{"data": {"listing": "shpat_secret_1234"}}'),
        (200, "shpat_secret_1234"),
        (403, "shpat_secret_1234 is not allowed"),
        (404, "no shop for shpat_secret_1234"),
        (500, "shpat_secret_1234"),
    ],
)
def test_no_error_shows_the_access_token(status: int, text: str) -> None:
    """SPEC 5: contract failures show the offending response, secrets masked."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, content_type="application/json")

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with open_session(allow_private_addresses=True) as session:
                settings = {"base_url": f"http://127.0.0.1:{runner.addresses[0][1]}"}
                connection = ConnectionSettings(settings, {"access_token": "shpat_secret_1234"})
                await all_pages(ShopifyConnector().open(connection, session, FakeClock()), request())
        finally:
            await runner.cleanup()

    with pytest.raises(SourceError) as caught:
        asyncio.run(run())
    shown = f"{caught.value} {caught.value.as_json()}"
    assert "secret_1234" not in shown
    assert "***" in shown or status == 403


class StubbornAPI:
    """Answers every query with the same page, whatever position it is asked for."""

    def __init__(self, page_info: str) -> None:
        self.page_info = page_info

    async def ask(self, _query: str, _variables: Mapping[str, object], _size: int) -> Answer:
        node = '{"id": "gid://shopify/Customer/1", "updatedAt": "2026-07-01T00:00:00Z"}'
        data = f'{{"listing": {{"nodes": [{node}], "pageInfo": {self.page_info}}}}}'
        return Answer(msgspec.Raw(data.encode()), NOW, NOW, ())

    def page_size(self, _query: str, initial: int) -> int:
        return initial

    decode = AdminAPI.decode


@pytest.mark.parametrize(
    ("page_info", "said"),
    [
        ('{"hasNextPage": true, "endCursor": "same"}', "twice"),
        ('{"hasNextPage": true, "endCursor": null}', "no page token"),
    ],
)
def test_repeated_or_missing_page_token_is_an_error(page_info: str, said: str) -> None:
    """SPEC 4: a repeated page token is an error, else the listing would never end."""
    cursor = ShopifyConnector().streams["customers"].cursor
    assert cursor is not None
    source = ShopifySource(cast(AdminAPI, StubbornAPI(page_info)), cursor, all_orders_expected=False)
    with pytest.raises(ContractBroken, match=said):
        asyncio.run(all_pages(source, request("customers")))


@pytest.mark.parametrize(
    ("settings", "secrets", "field"),
    [
        ({"shop": "a-shop.myshopify.com"}, {}, "secrets.access_token"),
        ({"shop": "a-shop.myshopify.com"}, {"access_token": "line\nbreak"}, "secrets.access_token"),
        ({}, {"access_token": "shpat_x"}, "settings.shop"),
        ({"shop": "evil.example/x.myshopify.com"}, {"access_token": "shpat_x"}, "settings.shop"),
        ({"shop": "a-shop.myshopify.com.evil.example"}, {"access_token": "shpat_x"}, "settings.shop"),
        ({"base_url": "file:///etc/passwd"}, {"access_token": "shpat_x"}, "settings.base_url"),
        ({"shop": "a.myshopify.com", "order_history": "90"}, {"access_token": "shpat_x"}, "settings.order_history"),
    ],
)
def test_open_names_the_setting_that_is_wrong(settings: dict[str, object], secrets: dict[str, str], field: str) -> None:
    async def run() -> None:
        async with open_session() as session:
            ShopifyConnector().open(ConnectionSettings(settings, secrets), session, FakeClock())

    with pytest.raises(InvalidInput) as caught:
        asyncio.run(run())
    assert caught.value.field == field
    assert "line\nbreak" not in str(caught.value)


def test_unknown_stream_is_refused() -> None:
    clock = FakeClock()

    async def run() -> None:
        async with opened(quiet_shop(clock), clock) as source:
            await all_pages(source, request("refunds"))

    with pytest.raises(InvalidInput, match="refunds"):
        asyncio.run(run())


def test_a_query_changed_between_revisions_makes_another_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOLE s: Shopify's position is one in the query that it was given for; a run does not go on from it under another."""
    session: aiohttp.ClientSession = None  # type: ignore[assignment]

    def named(stream: str, shop: str = "one") -> str:
        connection = ConnectionSettings({"shop": f"{shop}.myshopify.com"}, {"access_token": "shpat_1"})
        source = ShopifyConnector().open(connection, session, FakeClock())
        return source.listing(replace(request(), stream=stream))

    names = {stream: named(stream) for stream in ("orders", "order_line_items", "customers")}
    assert named("orders", "two") != names["orders"]
    changed = replace(LISTINGS["orders"], filter="status:open")
    monkeypatch.setitem(LISTINGS, "orders", changed)
    after = {stream: named(stream) for stream in names}
    assert [stream for stream in names if names[stream] != after[stream]] == ["orders", "order_line_items"]
