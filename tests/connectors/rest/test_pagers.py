"""Listings end when the source says so and not before, and show every record (SPEC 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest
from aiohttp import web

from tests.connectors.rest.sources import asked, declaration, fetched, ids, opened, read, replied
from tidegate.connectors.rest.pagers import next_link
from tidegate.domain.errors import ContractBroken, SourceUnavailable
from tidegate.domain.fetch import PageToken

CURSOR = declaration(
    """
    path: /orders
    records: data.items
    pager: {type: cursor, param: after, token: page.next, has_more: page.more}
"""
)
LAST_ID = declaration(
    """
    path: /orders
    records: data
    pager: {type: last_id, param: starting_after, has_more: has_more}
"""
)
LINK = declaration(
    """
    path: /orders
    params: {status: any}
    pager: {type: link}
"""
)
PAGE = declaration(
    """
    path: /orders
    records: data
    pager: {type: page, param: page, total_pages: pages}
"""
)


def test_cursor_pages_go_on_over_empty_and_short_pages_until_the_source_says_the_end() -> None:
    """SPEC 4: an empty or short page in the middle is not the end unless the source says so."""
    shown = {"": ([1, 2], "a"), "a": ([], "b"), "b": ([3], "c"), "c": ([4, 5], "")}

    async def source(request: web.Request) -> web.Response:
        records, token = shown[request.query.get("after", "")]
        page = {"next": token or None, "more": bool(token)}
        return replied({"data": {"items": [{"id": n} for n in records]}, "page": page})

    pages = asyncio.run(fetched(source, CURSOR))
    assert ids(pages) == [1, 2, 3, 4, 5]
    assert [page.records for page in pages][1] == b"[]"
    assert [page.token is None for page in pages] == [False, False, False, True]


@pytest.mark.parametrize("circle", [1, 2, 3, 7])
def test_a_page_token_that_comes_again_is_an_error_however_long_the_circle(circle: int) -> None:
    """SPEC 4: a repeated page token is an error."""
    numbers = count()

    async def source(request: web.Request) -> web.Response:
        number = next(numbers)
        assert number < 100, "ran on in a circle"
        return replied({"data": {"items": [{"id": number}]}, "page": {"next": f"t{number % circle}", "more": True}})

    with pytest.raises(ContractBroken, match="same page token twice"):
        asyncio.run(fetched(source, CURSOR))


def test_a_circle_is_found_even_if_the_fetch_is_resumed_at_every_page() -> None:
    """SPEC 4: what is remembered of earlier tokens is in the token itself."""
    order = {"": "a", "a": "b", "b": "c", "c": "a"}

    async def source(request: web.Request) -> web.Response:
        token = order[request.query.get("after", "")]
        return replied({"data": {"items": [{"id": token}]}, "page": {"next": token, "more": True}})

    async def page_by_page() -> None:
        resume = None
        async with opened(source, CURSOR) as opened_source:
            for _ in range(50):
                resume = (await anext(opened_source.fetch(asked(resume=resume)))).token

    with pytest.raises(ContractBroken, match="same page token twice"):
        asyncio.run(page_by_page())


def test_more_without_a_token_is_a_broken_contract_and_not_the_end() -> None:
    async def source(request: web.Request) -> web.Response:
        return replied({"data": {"items": [{"id": 1}]}, "page": {"more": True}})

    with pytest.raises(ContractBroken, match=r"no token at page\.next"):
        asyncio.run(fetched(source, CURSOR))


def test_a_missing_has_more_is_a_broken_contract_and_not_the_end() -> None:
    async def source(request: web.Request) -> web.Response:
        return replied({"data": {"items": [{"id": 1}]}, "page": {"next": "a"}})

    with pytest.raises(ContractBroken, match=r"page\.more should be true or false and is missing"):
        asyncio.run(fetched(source, CURSOR))


def _after(records: list[object], known: object, size: int) -> list[object]:
    """A page as localstripe cuts it: after an id it does not know comes page one."""
    start = records.index(known) + 1 if known in records else 0
    return records[start : start + size]


def test_a_source_that_silently_restarts_at_an_unknown_id_is_noticed_and_read_again() -> None:
    """The record to go on after is deleted while the listing runs; nothing behind it is lost."""
    records: list[object] = [f"ch_{n}" for n in range(9)]
    listings: list[str] = []

    async def source(request: web.Request) -> web.Response:
        after = request.query.get("starting_after", "")
        listings.append(after)
        page = _after(records, after, 3)
        if after == "ch_2" and "ch_5" in records:
            records.remove("ch_5")  # gone before it can be gone on after
        return replied({"data": [{"id": n} for n in page], "has_more": page[-1:] != records[-1:]})

    pages = asyncio.run(fetched(source, LAST_ID))
    assert set(ids(pages)) == {f"ch_{n}" for n in range(9)}
    assert listings.count("") == 2, "the listing should have begun again once"
    assert pages[-1].report.shortfall == ""


def test_a_source_that_ignores_the_last_id_altogether_is_an_error_not_an_endless_listing() -> None:
    asks: list[str] = []

    async def source(request: web.Request) -> web.Response:
        asks.append(request.query.get("starting_after", ""))
        assert len(asks) < 50, "ran on for ever"
        return replied({"data": [{"id": 1}, {"id": 2}], "has_more": True})

    with pytest.raises(ContractBroken, match="same page token twice"):
        asyncio.run(fetched(source, LAST_ID))


def test_a_last_id_beyond_64_bits_is_sent_digit_by_digit() -> None:
    big = 2**70 + 1
    seen: list[str] = []

    async def source(request: web.Request) -> web.Response:
        seen.append(request.query.get("starting_after", ""))
        first = b'{"data":[{"id":%d}],"has_more":true}' % big
        body = first if len(seen) == 1 else b'{"data":[],"has_more":false}'
        return web.Response(body=body, content_type="application/json")

    asyncio.run(fetched(source, LAST_ID))
    assert seen == ["", str(big)]


def test_a_page_that_ends_with_a_record_without_a_key_goes_on_after_the_one_before() -> None:
    """SPEC 4: one poison record must not stop a tenant."""
    asks: list[str] = []

    async def source(request: web.Request) -> web.Response:
        asks.append(request.query.get("starting_after", ""))
        records = [{"id": 1}, {"name": "poison"}] if len(asks) == 1 else [{"name": "poison"}, {"id": 2}]
        return replied({"data": records, "has_more": len(asks) == 1})

    assert len(asyncio.run(fetched(source, LAST_ID))) == 2
    assert asks == ["", "1"]


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<https://x/2>; rel="next"', "https://x/2"),
        ('<https://x/1>; rel="prev", <https://x/3>; rel="next"', "https://x/3"),
        ("</2?a=1,2>; rel=next", "/2?a=1,2"),
        ('<https://x/2>; title="a, b; rel=prev"; rel="next"', "https://x/2"),
        ('<https://x/2>; REL="last next"', "https://x/2"),
        ('<https://x/2>; rel="prev"; rel="next"', None),
        ('<https://x/2>; title="x; rel=next"', None),
        ("<https://x/2>", None),
        ("", None),
    ],
)
def test_link_headers_as_they_come(header: str, target: str | None) -> None:
    """RFC 8288: the first rel counts, quoted text is text, one relation may have several names."""
    assert next_link(header) == target


def test_links_are_followed_on_the_same_host_with_their_own_query() -> None:
    asks: list[str] = []

    async def source(request: web.Request) -> web.Response:
        asks.append(request.path_qs)
        if "cursor" in request.query:
            return replied([{"id": 2}])
        return replied([{"id": 1}], {"Link": f'<{request.url.origin()}/orders?cursor=a%2Fb&x=1>; rel="next"'})

    assert ids(asyncio.run(fetched(source, LINK))) == [1, 2]
    assert asks == ["/orders?status=any", "/orders?cursor=a%2Fb&x=1"]


@pytest.mark.parametrize("elsewhere", ["https://evil.example/orders", "//evil.example/x", "http://127.0.0.1:1/orders"])
def test_a_link_to_another_host_is_refused(elsewhere: str) -> None:
    """A page token that is a URL stays on its origin: credentials go nowhere else."""

    async def source(request: web.Request) -> web.Response:
        return replied([{"id": 1}], {"Link": f'<{elsewhere}>; rel="next"'})

    with pytest.raises(ContractBroken, match="link leads from"):
        asyncio.run(fetched(source, LINK))


def test_a_link_holds_no_credentials_when_kept_and_has_them_when_sent() -> None:
    """Secrets are never in tokens, even if the source repeats them in its links."""
    top = "authentication: {type: query, name: api_key, value: '{secrets.key}'}"
    keys: list[str] = []

    async def source(request: web.Request) -> web.Response:
        keys.append(request.query["api_key"])
        if "cursor" in request.query:
            return replied([{"id": 2}])
        return replied([{"id": 1}], {"Link": '</orders?api_key=s3cret-key&cursor=c>; rel="next"'})

    yaml = declaration("    path: /orders\n    pager: {type: link}", top)
    pages = asyncio.run(fetched(source, yaml, secrets={"key": "s3cret-key"}))
    assert keys == ["s3cret-key", "s3cret-key"]
    assert pages[0].token is not None
    assert "s3cret-key" not in repr(pages[0].token)
    assert "cursor=c" in repr(pages[0].token)


@pytest.mark.parametrize(
    ("pager", "envelope"),
    [
        ("{type: page, param: page}", {}),
        ("{type: page, param: page, has_more: more}", {"more": True}),
        ("{type: page, param: page, total_pages: pages}", {"pages": 3}),
    ],
)
def test_page_numbers_end_where_the_source_says(pager: str, envelope: dict[str, object]) -> None:
    yaml = declaration(f"    path: /orders\n    records: data\n    pager: {pager}")

    async def source(request: web.Request) -> web.Response:
        number = int(request.query["page"])
        records = {1: [1, 2], 2: [3, 4], 3: [5]}.get(number, [])
        said = {**envelope, "more": number < 3} if "more" in envelope else envelope
        return replied({"data": [{"id": n} for n in records], **said})

    assert ids(asyncio.run(fetched(source, yaml))) == [1, 2, 3, 4, 5]


def test_a_total_in_a_header_ends_the_pages() -> None:
    yaml = declaration(
        "    path: /orders\n    pager: {type: page, param: page, total_pages: {header: X-Pages}, first: 0}"
    )
    asks: list[str] = []

    async def source(request: web.Request) -> web.Response:
        asks.append(request.query["page"])
        return replied([{"id": int(request.query["page"])}], {"X-Pages": "2"})

    assert ids(asyncio.run(fetched(source, yaml))) == [0, 1]
    assert asks[0] == "0"


def test_a_fetch_resumes_after_every_page_and_shows_the_rest() -> None:
    """SPEC 4: a failed page is retried from the checkpoint."""
    records = list(range(10))

    async def source(request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        return replied({"data": [{"id": n} for n in records[offset : offset + 3]], "total": len(records)})

    yaml = declaration(
        "    path: /orders\n    records: data\n    pager: {type: offset, param: offset, total_records: total}"
    )

    async def check() -> None:
        async with opened(source, yaml) as opened_source:
            whole = await read(opened_source)
            for number, page in enumerate(whole[:-1]):
                rest = await read(opened_source, asked(resume=page.token))
                assert ids(rest) == ids(whole[number + 1 :])

    asyncio.run(check())


def test_a_token_that_the_source_no_longer_knows_begins_the_listing_again_once() -> None:
    """A checkpoint may outlive the source's page tokens."""

    async def source(request: web.Request) -> web.Response:
        after = request.query.get("after", "")
        if after == "expired":
            return replied({"error": "invalid cursor"}, status=400)
        token = "" if after else "b"
        items = [{"id": 2}] if after else [{"id": 1}]
        return replied({"data": {"items": items}, "page": {"next": token or None, "more": bool(token)}})

    expired = {"pager": "cursor", "at": {"token": "expired"}, "page": 5, "anchor": {"token": "x"}}
    pages = asyncio.run(fetched(source, CURSOR, asked(resume=expired)))
    assert ids(pages) == [1, 2]
    assert pages[0].token is not None
    assert pages[0].token["listing"] == 2, "the new beginning should be visible"


@pytest.mark.parametrize(
    "token", [{"pager": "offset", "at": {"offset": 9}}, {"at": 7}, {}, {"pager": "cursor", "page": "x"}]
)
def test_a_token_made_under_another_declaration_begins_the_listing(token: PageToken) -> None:
    """A checkpoint may outlive the declaration it was made under; what was delivered is known by its version."""

    async def source(request: web.Request) -> web.Response:
        assert "after" not in request.query
        return replied({"data": {"items": [{"id": 1}]}, "page": {"next": None, "more": False}})

    assert ids(asyncio.run(fetched(source, CURSOR, asked(resume=token)))) == [1]


def test_a_source_that_refuses_the_first_page_too_is_an_error() -> None:
    async def source(request: web.Request) -> web.Response:
        return replied({"error": "no"}, status=400)

    with pytest.raises(ContractBroken, match="answered 400"):
        asyncio.run(fetched(source, CURSOR, asked(resume={"pager": "cursor", "at": {"token": "expired"}})))


def test_a_source_that_is_down_on_resuming_is_tried_again_and_not_begun_again() -> None:
    async def source(request: web.Request) -> web.Response:
        return web.Response(status=503)

    with pytest.raises(SourceUnavailable):
        asyncio.run(fetched(source, CURSOR, asked(resume={"pager": "cursor", "at": {"token": "good"}})))


def _numbers(start: int, size: int) -> Iterator[dict[str, object]]:
    return ({"id": n} for n in range(start, start + size))


def test_post_sends_the_parameters_as_a_json_body_with_their_types() -> None:
    bodies: list[object] = []

    async def source(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return replied({"data": list(_numbers(0, 2))})

    yaml = declaration("    path: /search\n    method: POST\n    records: data\n    params: {limit: 100, kind: sale}")
    asyncio.run(fetched(source, yaml))
    assert bodies == [{"limit": 100, "kind": "sale"}]


@pytest.mark.parametrize(
    ("pager", "said"),
    [
        ("{type: link, url: {header: Next-Page}}", {}),
        ("{type: cursor, param: page, token: {header: X-Next}}", {}),
        ("{type: cursor, param: page, token: {header: X-Next}, has_more: {header: X-More}}", {}),
        ("{type: page, param: page, has_more: {header: X-More}}", {}),
        ("{type: page, param: page, total_pages: {header: x-pages}}", {"X-Pages": "3"}),
        ("{type: page, param: page, total_records: {header: X-Total}}", {"X-Total": "5"}),
        ("{type: offset, param: offset, total_records: {header: X-Total}}", {"X-Total": "5"}),
    ],
)
def test_what_says_how_a_listing_goes_on_may_stand_in_a_header(pager: str, said: dict[str, str]) -> None:
    """SPEC 4: a listing ends where its source says so, and a reply that is a list itself has no other place to say it.

    Kinto names the next page in `Next-Page`, GitLab its number in `X-Next-Page`, many sources the count in `X-Total-Count`.
    """
    records = [{"id": n} for n in range(5)]

    async def source(request: web.Request) -> web.Response:
        number = int(request.query.get("page", 1))
        start = int(request.query.get("offset", number * 2 - 2))
        more = start + 2 < len(records)
        onward = {"Next-Page": f"{request.url.with_query(page=number + 1)}", "X-Next": f"{number + 1}"} if more else {}
        return replied(records[start : start + 2], {**said, **onward, "X-More": f"{more}"})

    pages = asyncio.run(fetched(source, declaration(f"    path: /orders\n    pager: {pager}")))
    assert sorted({*map(str, ids(pages))}) == ["0", "1", "2", "3", "4"]
    assert pages[-1].report.shortfall == ""


@pytest.mark.parametrize(
    ("pager", "headers", "said"),
    [
        (
            "{type: page, param: page, total_pages: {header: X-Pages}}",
            {},
            "the header X-Pages should be a whole number",
        ),
        (
            "{type: page, param: page, has_more: {header: X-More}}",
            {"X-More": "y"},
            "the header X-More should be true or",
        ),
        (
            "{type: cursor, param: page, token: {header: X-Next}, has_more: {header: X-More}}",
            {"X-More": "true"},
            "gives no token in the header X-Next",
        ),
    ],
)
def test_a_header_that_does_not_say_it_is_an_error_and_no_end(pager: str, headers: dict[str, str], said: str) -> None:
    async def source(_request: web.Request) -> web.Response:
        return replied([{"id": 1}], headers)

    with pytest.raises(ContractBroken, match=said):
        asyncio.run(fetched(source, declaration(f"    path: /orders\n    pager: {pager}")))
