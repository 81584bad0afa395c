"""The shipped Stripe declaration against the real localstripe server: complete, incremental, never fooled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import msgspec
import pytest

from tests.connectors.rest.sources import LeapingClock, ids
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.registry import find_connector
from tidegate.domain.errors import Unauthorised
from tidegate.domain.fetch import FetchRequest, Page, PageToken
from tidegate.domain.period import Period

NOON = datetime(2026, 7, 13, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
KEY = "sk_test_0123456789"
CARD = {"card[number]": "4242424242424242", "card[exp_month]": "12", "card[exp_year]": "2030", "card[cvc]": "123"}


@pytest.fixture
def stripe() -> Iterator[str]:
    """The address of a fresh localstripe."""
    script = Path(__file__).with_name("localstripe_on_loopback.py")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port.isdigit(), "localstripe did not start"
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


class Shop:
    """Makes objects at localstripe through its own API."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def post(self, path: str, data: dict[str, str] | None = None) -> dict[str, object]:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with self._session.post(self._url + path, data=data or {}, headers=headers) as response:
            body = await response.read()
            assert response.status == 200, body
            return msgspec.json.decode(body, type=dict[str, object]) if body else {}

    async def delete(self, path: str) -> None:
        async with self._session.delete(self._url + path, headers={"Authorization": f"Bearer {KEY}"}) as response:
            assert response.status == 200

    async def clock(self, instant: datetime) -> None:
        await self.post(f"/_config/clock?seconds={int(instant.timestamp())}")

    async def customers(self, count: int) -> list[str]:
        return [str((await self.post("/v1/customers", {"name": f"c{n}"}))["id"]) for n in range(count)]

    async def charges(self, count: int) -> set[object]:
        token = await self.post("/v1/tokens", CARD)
        customer = await self.post("/v1/customers", {"source": str(token["id"])})
        sold = {"customer": str(customer["id"]), "currency": "eur"}
        return {(await self.post("/v1/charges", {**sold, "amount": str(n + 1)}))["id"] for n in range(count)}


async def _fetch(
    session: aiohttp.ClientSession,
    url: str,
    stream: str,
    lower: datetime | None = None,
    upper: datetime | None = None,
    *,
    resume: PageToken | None = None,
    key: str = KEY,
) -> list[Page]:
    connection = ConnectionSettings({"base_url": url}, {"api_key": key})
    clock = LeapingClock(LATER + timedelta(hours=1))
    source = find_connector("stripe").open(connection, session, clock)
    return [page async for page in source.fetch(FetchRequest(stream, lower, upper, clock.now(), resume))]


def test_every_charge_and_customer_is_shown(stripe: str) -> None:
    """SPEC 4: 230 charges are three pages; the counts agree, and so do the ids."""

    async def check() -> None:
        async with open_session(allow_private_addresses=True) as session:
            shop = Shop(session, stripe)
            await shop.clock(NOON)
            charges = await shop.charges(230)
            pages = await _fetch(session, stripe, "charges", NOON - timedelta(days=1))
            assert len(pages) == 3
            assert sorted(map(str, ids(pages))) == sorted(map(str, charges))
            assert pages[-1].report.proves(Period(NOON - timedelta(days=1), LATER))
            assert all(page.source_at is not None for page in pages)
            customers = await shop.customers(120)
            shown = ids(await _fetch(session, stripe, "customers"))
            assert len(shown) == len(set(shown)) == 121
            assert set(shown) >= set(customers)

    asyncio.run(check())


def test_a_later_period_shows_what_is_new_and_a_tie_at_its_start(stripe: str) -> None:
    """HOLE j: `created[gt]` is exclusive, and charges of the very second of the boundary are not lost."""

    async def check() -> None:
        async with open_session(allow_private_addresses=True) as session:
            shop = Shop(session, stripe)
            await shop.clock(NOON)
            old = await shop.charges(5)
            await shop.clock(LATER)
            tied = await shop.charges(3)
            await shop.clock(LATER + timedelta(minutes=1))
            new = await shop.charges(4)
            assert set(ids(await _fetch(session, stripe, "charges", LATER))) == tied | new
            assert set(ids(await _fetch(session, stripe, "charges", NOON))) == old | tied | new

    asyncio.run(check())


def test_events_are_bounded_on_both_sides(stripe: str) -> None:
    """Neighbouring periods share no event and miss none (HOLE j)."""

    async def check() -> None:
        async with open_session(allow_private_addresses=True) as session:
            shop = Shop(session, stripe)
            for minute in (0, 30, 60, 90):
                await shop.clock(NOON + timedelta(minutes=minute))
                await shop.customers(3)
            first = ids(await _fetch(session, stripe, "events", NOON, LATER))
            second = ids(await _fetch(session, stripe, "events", LATER, LATER + timedelta(hours=1)))
            assert (len(first), len(second)) == (6, 6)
            assert set(first).isdisjoint(second)
            pages = await _fetch(session, stripe, "events", NOON - timedelta(days=90))
            assert not pages[-1].report.proves(Period(NOON - timedelta(days=90), NOON)), "events are kept for 30 days"

    asyncio.run(check())


def test_the_silent_restart_at_an_unknown_id_is_noticed(stripe: str) -> None:
    """localstripe answers page one after an id that it does not know; nothing may be skipped, nor go on for ever."""

    async def check() -> None:
        async with open_session(allow_private_addresses=True) as session:
            shop = Shop(session, stripe)
            customers = await shop.customers(250)
            source = find_connector("stripe").open(
                ConnectionSettings({"base_url": stripe}, {"api_key": KEY}), session, LeapingClock()
            )
            pages = []
            async for page in source.fetch(FetchRequest("customers", None, None, NOON)):
                pages.append(page)
                if len(pages) == 1:
                    await shop.delete(f"/v1/customers/{customers[99]}")
            assert set(ids(pages)) == set(customers)
            listings = [page.token["listing"] for page in pages if page.token and "listing" in page.token]
            assert set(listings) == {2}, "begun again once, visibly"
            assert pages[-1].report.shortfall == ""

    asyncio.run(check())


def test_a_fetch_resumes_at_its_checkpoint(stripe: str) -> None:
    async def check() -> None:
        async with open_session(allow_private_addresses=True) as session:
            shop = Shop(session, stripe)
            customers = await shop.customers(230)
            whole = await _fetch(session, stripe, "customers")
            rest = await _fetch(session, stripe, "customers", resume=whole[0].token)
            assert ids(rest) == customers[100:]

    asyncio.run(check())


def test_a_refused_key_marks_the_connection_and_is_not_shown(stripe: str) -> None:
    """SPEC 5: authorisation failures are told apart, secrets masked."""

    async def check() -> None:
        async with open_session(allow_private_addresses=True) as session:
            with pytest.raises(Unauthorised) as caught:
                await _fetch(session, stripe, "charges", NOON, key="wrong_0123456789")
            assert "wrong_0123456789" not in f"{caught.value} {caught.value.as_json()}"

    asyncio.run(check())
