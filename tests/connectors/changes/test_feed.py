"""Change feeds: what a token asks for, what a listing ends with, deletions, and tokens that expire (SPEC 4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.connectors.changes.feed_server import DECLARATION, Book, serving
from tests.connectors.rest.sources import NOW, LeapingClock, replied, serve
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.rest.connector import RestConnector, RestSource
from tidegate.connectors.rest.feed import EXPIRED_REMARK
from tidegate.connectors.rest.loader import load
from tidegate.domain.errors import ContractBroken, InvalidInput
from tidegate.domain.fetch import FetchRequest, Page, PageToken


@asynccontextmanager
async def opened(url: str, yaml: str = DECLARATION) -> AsyncIterator[RestSource]:
    async with open_session(allow_private_addresses=True) as session:
        yield RestConnector(load(yaml.format(url=url))).open(ConnectionSettings(), session, LeapingClock())


async def fetch(source: RestSource, since: str | None = None, resume: PageToken | None = None) -> list[Page]:
    request = FetchRequest("contacts", None, None, NOW, resume, since)
    return [page async for page in source.fetch(request)]


def records(pages: list[Page]) -> list[dict[str, Any]]:
    return [record for page in pages for record in msgspec.json.decode(page.records)]


def a_book(count: int = 5) -> Book:
    book = Book()
    for number in range(1, count + 1):
        book.put(number, f"contact {number}")
    return book


def test_the_first_listing_is_in_full_and_its_token_asks_for_what_changed_since() -> None:
    """SPEC 4: the token of the last page is what the next fetch begins with; every other page has none."""

    async def check() -> None:
        book = a_book()
        async with serving(book) as url, opened(url) as source:
            first = await fetch(source)
            assert [record["id"] for record in records(first)] == [1, 2, 3, 4, 5]
            assert [page.report.change_token for page in first] == ["", "", "5"]
            assert all("since" not in asked for asked in book.asked)

            book.put(2, "two")
            book.put(9, "nine")
            book.delete(4)
            second = await fetch(source, first[-1].report.change_token)
            assert records(second) == [{"id": 2, "name": "two"}, {"id": 9, "name": "nine"}, {"id": 4, "deleted": True}]
            assert second[-1].report.change_token == "8"
            assert all(asked["since"] == "5" for asked in book.asked[3:])

            third = await fetch(source, "8")
            assert (records(third), third[-1].report.change_token) == ([], "8")

    asyncio.run(check())


def test_a_deletion_may_be_a_bare_key() -> None:
    async def check() -> None:
        book = a_book(2)
        book.bare_keys = True
        book.delete(1)
        async with serving(book) as url, opened(url) as source:
            assert records(await fetch(source, "2")) == [{"id": 1, "deleted": True}]

    asyncio.run(check())


def test_an_expired_token_lists_in_full_again_and_the_report_says_so_once() -> None:
    """SPEC 4: 410 is no failure: everything is there again, but for deletions, which the remark admits."""

    async def check() -> None:
        book = a_book()
        book.remembered = 2
        async with serving(book) as url, opened(url) as source:
            pages = await fetch(source, "1")
            assert [record["id"] for record in records(pages)] == [1, 2, 3, 4, 5]
            assert [page.report.remarks for page in pages] == [{}, {}, {EXPIRED_REMARK: 1}]
            assert pages[-1].report.change_token == "5"

    asyncio.run(check())


def test_a_graphql_feed_says_by_a_code_that_its_token_has_expired() -> None:
    """Status 200 and an error: the code tells an expired token from a query that is wrong."""
    yaml = """
name: book
base_url: {url}
streams:
  contacts:
    graphql: {{query: "query ($since: String) {{ changes(since: $since) {{ contacts {{ id }} token }} }}"}}
    records: data.changes.contacts
    changes: {{param: since, token: data.changes.token, expired_codes: [SINCE_TOO_OLD]}}
"""
    code = "SINCE_TOO_OLD"

    async def source(request: web.Request) -> web.Response:
        if "since" in (await request.json())["variables"]:
            return replied({"data": None, "errors": [{"message": "no", "extensions": {"code": code}}]})
        return replied({"data": {"changes": {"contacts": [{"id": 1}], "token": "t"}}})

    async def check() -> None:
        nonlocal code
        async with serve(source) as url, opened(url, yaml) as listed:
            (page,) = await fetch(listed, "old")
            assert (page.report.change_token, page.report.remarks) == ("t", {EXPIRED_REMARK: 1})
            code = "SINCE_IS_NONSENSE"
            with pytest.raises(ContractBroken, match="SINCE_IS_NONSENSE"):
                await fetch(listed, "old")

    asyncio.run(check())


def test_a_token_that_expires_in_the_middle_of_a_listing_lists_in_full() -> None:
    async def check() -> None:
        book = a_book()
        async with serving(book) as url, opened(url) as source:
            book.meddle = lambda request: 410 if request.query.get("page") == "3" else None
            pages = await fetch(source, "1")
            assert [record["id"] for record in records(pages)] == [2, 3, 1, 2, 3, 4, 5]
            assert pages[-1].report.remarks == {EXPIRED_REMARK: 1}

    asyncio.run(check())


@pytest.mark.parametrize("since", [None, "0", "stale"])
def test_whatever_page_a_listing_ends_at_it_resumes_after(since: str | None) -> None:
    """SPEC 4, HOLE s: what a resumed fetch goes on with, and its last token, are those of the fetch it goes on."""

    async def check() -> None:
        book = a_book(7)
        book.remembered = 1000
        async with serving(book) as url, opened(url) as source:
            token = since
            if since == "stale":
                book.remembered, token = 3, "1"
            whole = await fetch(source, token)
            for number, page in enumerate(whole[:-1]):
                rest = await fetch(source, token, msgspec.json.decode(msgspec.json.encode(page.token)))
                assert records(rest) == records(whole[number + 1 :])
                assert rest[-1].report == whole[-1].report

    asyncio.run(check())


def test_one_token_for_pages_and_for_changes() -> None:
    """Some sources answer every page with the one token that goes on, be it now or next week."""
    yaml = DECLARATION.replace(
        "{{type: cursor, param: page, token: next}}", "{{type: cursor, param: since, token: token, has_more: more}}"
    )
    asks: list[str | None] = []

    async def source(request: web.Request) -> web.Response:
        asks.append(request.query.get("since"))
        at = int(request.query.get("since", 0))
        return replied(
            {"contacts": [{"id": at + 1}] if at < 3 else [], "gone": None, "token": str(min(at + 1, 3)), "more": at < 2}
        )

    async def check() -> None:
        async with serve(source) as url, opened(url, yaml) as listed:
            pages = await fetch(listed)
            assert [record["id"] for record in records(pages)] == [1, 2, 3]
            assert pages[-1].report.change_token == "3"
            assert records(await fetch(listed, "3")) == []
        assert asks == [None, "1", "2", "3"]

    asyncio.run(check())


def test_a_change_token_may_stand_in_a_header_beside_a_list() -> None:
    """SPEC 4: Kinto's `_since` takes the `ETag` of the listing before, quotes and all."""
    asks: list[str | None] = []

    async def source(request: web.Request) -> web.Response:
        asks.append(request.query.get("_since"))
        return replied([{"id": len(asks)}], {"ETag": f'"{len(asks)}"'})

    yaml = """
name: kinto
base_url: {url}
streams:
  contacts:
    path: /records
    changes: {{param: _since, token: {{header: ETag}}}}
"""

    async def check() -> None:
        async with serve(source) as url, opened(url, yaml) as listed:
            first = await fetch(listed)
            assert first[-1].report.change_token == '"1"'
            second = await fetch(listed, '"1"')
            assert second[-1].report.change_token == '"2"'
        assert asks == [None, '"1"']

    asyncio.run(check())


@pytest.mark.parametrize(
    ("gives_token", "gone", "said"),
    [(False, [], "without a change token at token"), (True, {}, "gone should be a list")],
)
def test_a_listing_that_ends_without_what_was_declared_is_an_error(gives_token: bool, gone: object, said: str) -> None:
    """SPEC 5: without a token every later run would be in full, quietly; deletions of another form would be lost."""

    async def source(_request: web.Request) -> web.Response:
        return replied({"contacts": [], "gone": gone, "token": "7" if gives_token else None})

    async def check() -> None:
        async with serve(source) as url, opened(url) as listed:
            with pytest.raises(ContractBroken, match=said):
                await fetch(listed)

    asyncio.run(check())


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("    columns:", "    cursor: {{field: at}}\n    columns:", "bounds by time"),
        ("param: since", "param: page, expird_statuses: [410]", "expired_statuses"),
        ("removed: gone", "removed: contacts.gone", "beside each other"),
        ("token: token,", "", "is missing"),
        ("streams:", "streams:\n  lines: {{parent: {{stream: contacts, each: lines}}}}", "is a change feed"),
    ],
)
def test_mistakes_are_refused_with_the_remedy(written: str, instead: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        load(DECLARATION.replace(written, instead, 1).format(url="http://x.example"))
