"""One record that is not clean JSON costs nobody else on its page anything (SPEC 4: it must not stop a tenant)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest
from aiohttp import web

from tests.connectors.rest.sources import Handler, asked, declaration, fetched
from tidegate.domain.errors import ContractBroken, SourceError, SourceUnavailable
from tidegate.domain.fetch import Page

POISON = {
    "not a number": b'{"id": 2, "at": "2026-07-02T00:00:00Z", "x": NaN}',
    "infinity": b'{"id": 2, "at": "2026-07-02T00:00:00Z", "x": -Infinity}',
    "half of a surrogate pair": b'{"id": 2, "at": "2026-07-02T00:00:00Z", "x": "\\ud800"}',
    "half of a pair as key": b'{"id": "\\udc00", "at": "2026-07-02T00:00:00Z"}',
    "a control character": b'{"id": 2, "at": "2026-07-02T00:00:00Z", "x": "a\x01\nb"}',
    "no UTF-8 in the key": b'{"id": "\xff\xfe", "at": "2026-07-02T00:00:00Z"}',
    "no UTF-8 in the cursor value": b'{"id": 2, "at": "\xff"}',
    "an escape that there is not": b'{"id": 2, "at": "2026-07-02T00:00:00Z", "x": "\\x41"}',
    "a leading zero": b'{"id": 007, "at": "2026-07-02T00:00:00Z"}',
    "deep": b'{"id": 2, "at": "2026-07-02T00:00:00Z", "x": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    "a deep cursor value": b'{"id": 2, "at": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    "deep objects": b'{"id": 2, "at": "2026-07-02T00:00:00Z", "x": ' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}",
    "brackets in a text": b'{"id": 2, "at": "2026-07-02T00:00:00Z", "x": "]},{[\\"", "y": NaN}',
}
BEFORE, AFTER = (
    b'{"id": %d, "at": "2026-07-0%dT00:00:00Z", "x": "caf\xc3\xa9"}' % (number, number) for number in (1, 3)
)
LAST = b'{"id": 4, "at": "2026-07-04T00:00:00Z"}'

STREAM = """
    path: /orders
    records: page.data
    cursor: {field: at, ascending: true}
    lower: {param: since, meaning: inclusive}
"""
PAGERS = {
    "none": ("{type: none}", "", ""),
    "cursor": ("{type: cursor, param: go, token: page.next, has_more: page.more}", "", "next"),
    "last_id": ("{type: last_id, param: go, has_more: page.more}", "", "3"),
    "page": ("{type: page, param: go, has_more: page.more}", "1", "2"),
    "offset": ("{type: offset, param: go, has_more: page.more}", "0", "2"),
    "keyset": ("{type: keyset, within: {type: page, param: go, has_more: page.more}}", "1", ""),
}


def two_pages(first: bytes, pager: str) -> Handler:
    """A listing of two pages, the poison on the first; one page for a source without pages."""
    _, begin, _ = PAGERS[pager]

    async def source(request: web.Request) -> web.Response:
        moved = request.query.get("since", "") > "2026-07-02"
        there = request.query.get("go", begin) == begin and not moved
        last = {"keyset": [AFTER, LAST], "offset": [AFTER, LAST]}.get(pager, [LAST])
        records = b",\n ".join(first_page(first) if there else last)
        more = b"true" if there and pager != "none" else b"false"
        return web.Response(body=b'{"page": {"next": "next", "more": %b, "data": [%b]}}' % (more, records))

    return source


def first_page(poison: bytes) -> list[bytes]:
    return [BEFORE, poison, AFTER]


def fetch(source: Handler, yaml: str) -> list[Page]:
    return asyncio.run(fetched(source, yaml, asked(lower=datetime(2026, 7, 1, tzinfo=UTC))))


@pytest.mark.parametrize("pager", PAGERS)
@pytest.mark.parametrize("kind", POISON)
def test_a_record_that_is_not_clean_is_handed_on_and_the_listing_goes_on(kind: str, pager: str) -> None:
    pages = fetch(two_pages(POISON[kind], pager), declaration(STREAM + f"    pager: {PAGERS[pager][0]}\n"))
    assert b",\n ".join(first_page(POISON[kind])) in pages[0].records
    assert pager == "none" or LAST in pages[-1].records
    assert pages[-1].report.shortfall == ""


@pytest.mark.parametrize("kind", POISON)
def test_a_page_that_ends_with_such_a_record_goes_on_after_the_last_key_there_is(kind: str) -> None:
    """A key that is sound is gone on after, whatever else is in its record; one that cannot be sent is passed over."""
    after: list[str] = []

    async def source(request: web.Request) -> web.Response:
        after.append(request.query.get("go", ""))
        return web.Response(body=b"[%b]" % (b"" if after[-1] else BEFORE + b"," + POISON[kind]))

    fetch(source, declaration("    path: /orders\n    pager: {type: last_id, param: go}\n"))
    unsound = kind in ("half of a pair as key", "no UTF-8 in the key")
    assert after == ["", "1" if unsound else "007" if kind == "a leading zero" else "2"]


@pytest.mark.parametrize("kind", POISON)
def test_records_inside_elements_and_children_are_handed_on_too(kind: str) -> None:
    async def source(request: web.Request) -> web.Response:
        return web.Response(body=b'{"orders": [{"id": 1, "lines": [%b]}]}' % b",".join(first_page(POISON[kind])))

    yaml = """
name: hostile
base_url: '{settings.url}'
settings: {url: null}
streams:
  baskets: {path: /orders, records: orders}
  orders: {parent: {stream: baskets, each: lines}}
"""
    (page,) = fetch(source, yaml)
    found = [POISON[kind].removeprefix(b"{"), BEFORE.removeprefix(b"{"), AFTER.removeprefix(b"{")]
    assert all(b'{"parent_id":1,' + record in page.records for record in found)
    assert page.report.shortfall == ""


@pytest.mark.parametrize("kind", POISON)
def test_graphql_errors_beside_such_a_record_are_still_errors(kind: str) -> None:
    """Partial data are never taken; and elements that hold a record inside are taken apart as well."""
    told: list[bytes] = [b'"errors": [{"message": "no", "extensions": {"code": "PART_LEFT_OUT"}}], ', b'"errors": [], ']

    async def source(request: web.Request) -> web.Response:
        edges = b",".join(b'{"node": %b}' % record for record in first_page(POISON[kind]))
        page = b'{"edges": [%b, null], "pageInfo": {"hasNextPage": false, "endCursor": null}}' % edges
        return web.Response(body=b'{%b"data": {"orders": %b}}' % (told.pop(0), page))

    yaml = declaration("""
    graphql:
      connection: orders
      query: "query ($after: String) { orders(after: $after) { edges { node { id at } } pageInfo { hasNextPage endCursor } } }"
""")
    with pytest.raises(ContractBroken, match="PART_LEFT_OUT"):
        fetch(source, yaml)
    (page,) = fetch(source, yaml)
    assert page.records == b"[" + b",".join([*first_page(POISON[kind]), b"null"]) + b"]"


@pytest.mark.parametrize("kind", POISON)
def test_deletions_beside_such_a_record_are_seen(kind: str) -> None:
    async def source(request: web.Request) -> web.Response:
        return web.Response(body=b'{"data": [%b], "gone": [{"id": 9, "x": NaN}, 8], "token": "t"}' % POISON[kind])

    yaml = declaration("    path: /c\n    records: data\n    changes: {param: since, token: token, removed: gone}\n")
    (page,) = asyncio.run(fetched(source, yaml))
    assert page.records == b'[%b,{"id":9,"x":NaN,"deleted":true},{"id":8,"deleted":true}]' % POISON[kind]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"data": [{"id": 1, "x": NaN}, {"id": 2', SourceUnavailable),
        (b'{"data": [{"id": 1, "x": "\\ud800"}], "more": "no', SourceUnavailable),
        (b'{"data": [{"id": 1, "x": "\\ud800"}], "more": "no\\"', SourceUnavailable),
        (b'{"data": [{"id": 1, "x": ' + b"[" * 3000, SourceUnavailable),
        (b'<html>{"data": [NaN]}', SourceUnavailable),
        (b'{"data": [{"id": 1, "x": "5" screw"}], "next": "t", "also": [{"b": "6" nut"}]}', ContractBroken),
        (b'{"data": [{"id": 1,,}]}', ContractBroken),
        (b'{"data": [{"id": 1, "x": NaN}]} {}', ContractBroken),
        (b'{"data": [{"id": 1, "x": NaN}}', ContractBroken),
        (b'{"data": {"0": NaN}}', ContractBroken),
        (b'{"date": [NaN]}', ContractBroken),
        (b"[NaN]", ContractBroken),
        (b"NaN", ContractBroken),
    ],
)
def test_a_reply_that_is_broken_itself_is_no_page(body: bytes, kind: type[SourceError]) -> None:
    """SPEC 5: a stray quotation mark must not hide the next page's token, nor a cut connection end a listing."""

    async def source(request: web.Request) -> web.Response:
        return web.Response(body=body)

    with pytest.raises(kind) as caught:
        fetch(
            source, declaration("    path: /o\n    records: data\n    pager: {type: cursor, param: go, token: next}\n")
        )
    assert type(caught.value) is kind


@pytest.mark.parametrize("token", [b'"\xff"', b'"\\ud800"', b"[1]", b"NaN\xff"])
def test_a_token_that_cannot_be_sent_back_is_a_broken_contract(token: bytes) -> None:
    async def source(request: web.Request) -> web.Response:
        return web.Response(body=b'{"data": [{"id": 1}], "next": %b}' % token)

    with pytest.raises(ContractBroken, match="next"):
        fetch(
            source, declaration("    path: /o\n    records: data\n    pager: {type: cursor, param: go, token: next}\n")
        )


@pytest.mark.parametrize("target", ["http://[bad", "mailto:a@b", "http://a:99999999/", "//"])
def test_a_link_that_is_no_address_is_a_broken_contract(target: str) -> None:
    async def source(request: web.Request) -> web.Response:
        return web.Response(body=b'[{"id": 1}]', headers={"Link": f'<{target}>; rel="next"'})

    with pytest.raises(ContractBroken, match="link"):
        fetch(source, declaration("    path: /o\n    pager: {type: link}\n"))


def test_a_byte_order_mark_before_a_reply_is_ignored() -> None:
    """RFC 8259, 8.1: a parser may."""

    async def source(request: web.Request) -> web.Response:
        return web.Response(body=b"\xef\xbb\xbf" + msgspec.json.encode([{"id": 1}]))

    (page,) = fetch(source, declaration("    path: /o\n"))
    assert page.records == b'[{"id":1}]'
