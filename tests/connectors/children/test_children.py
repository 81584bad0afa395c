"""Children of a parent's records: in its record, by a request per parent, or both (SPEC 4, 5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tests.connectors.children.counter import ASKED, BOTH, NESTED, Counter, declaration, serving
from tests.connectors.rest.sources import NOW, LeapingClock
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.rest.connector import RestConnector, RestSource
from tidegate.connectors.rest.family import Family, Parent
from tidegate.connectors.rest.loader import load
from tidegate.domain.errors import ContractBroken, SourceUnavailable
from tidegate.domain.fetch import FetchRequest, Page, PageToken
from tidegate.domain.period import Period

JULY = Period(datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 7, 13, tzinfo=UTC))
WAYS = pytest.mark.parametrize("way", [NESTED, ASKED, BOTH], ids=["nested", "asked", "both"])


def a_counter(**settings: Any) -> Counter:
    counter = Counter(**settings)
    counter.put(1, datetime(2026, 7, 1, 1, tzinfo=UTC), 1, 2, 3, 4, 5)
    counter.put(2, datetime(2026, 7, 1, 2, tzinfo=UTC))
    counter.put(3, datetime(2026, 7, 1, 3, tzinfo=UTC), 1)
    counter.put(4, datetime(2026, 7, 1, 3, tzinfo=UTC), 7, 8, 9)
    counter.put(5, datetime(2026, 7, 1, 5, tzinfo=UTC), 6)
    return counter


ALL = [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (3, 1), (4, 7), (4, 8), (4, 9), (5, 6)]


@asynccontextmanager
async def opened(counter: Counter, way: str) -> AsyncIterator[RestSource]:
    async with serving(counter) as url, open_session(allow_private_addresses=True) as session:
        yield RestConnector(load(declaration(url, way))).open(ConnectionSettings(), session, LeapingClock())


async def fetch(source: RestSource, resume: PageToken | None = None) -> list[Page]:
    request = FetchRequest("items", datetime(2026, 7, 1, tzinfo=UTC), None, NOW, resume)
    return [page async for page in source.fetch(request)]


def records(pages: list[Page]) -> list[dict[str, Any]]:
    return [record for page in pages for record in msgspec.json.decode(page.records)]


def keys(pages: list[Page]) -> list[tuple[int, int]]:
    return [(record["order_id"], record["id"]) for record in records(pages)]


def fetched(counter: Counter, way: str) -> list[Page]:
    async def run() -> list[Page]:
        async with opened(counter, way) as source:
            return await fetch(source)

    return asyncio.run(run())


@WAYS
def test_every_child_of_every_parent_comes_once_with_its_parents_key_and_cursor(way: str) -> None:
    """SPEC 4: the child's key is its parent's and its own, its cursor value is its parent's."""
    pages = fetched(a_counter(), way)
    assert keys(pages) == ALL
    first = records(pages)[0]
    assert first["order_updated_at"] == "2026-07-01T01:00:00+00:00"
    assert all(page.report.proves(JULY) for page in pages)
    stream = load(declaration("http://x.example", way)).streams["items"].stream
    assert stream.key == ("order_id", "id")
    assert stream.cursor is not None
    assert stream.cursor.path == ("order_updated_at",)
    assert stream.lookback.total_seconds() == 60


def test_a_nested_child_costs_no_request_and_carries_the_fields_asked_for() -> None:
    counter = a_counter()
    pages = fetched(counter, NESTED)
    assert set(counter.asked) == {"/orders"}
    assert {record["order_currency"] for record in records(pages)} == {"EUR"}


@pytest.mark.parametrize("limit", ["has_more: lines.more", "at_most: 3", "has_more: lines.missing"])
def test_a_list_cut_off_in_its_parent_is_never_taken_for_whole(limit: str) -> None:
    """SPEC 5: without a way to ask for the rest the fetch is short, visibly, and proves no coverage."""
    way = NESTED.replace("has_more: lines.more", limit)
    pages = fetched(a_counter(shown=3), way)
    assert not any(page.report.proves(JULY) for page in pages if page.report.shortfall)
    assert "do not hold their whole list of lines.list" in "".join(page.report.shortfall for page in pages)


@pytest.mark.parametrize("limit", ["has_more: lines.more", "at_most: 3"])
def test_a_list_cut_off_in_its_parent_is_asked_for_where_it_can_be(limit: str) -> None:
    """SPEC 4: parents that show all their children cost no request, the others one listing each."""
    counter = a_counter(shown=3)
    pages = fetched(counter, BOTH.replace("has_more: lines.more", limit))
    assert sorted(keys(pages)) == ALL
    assert all(page.report.proves(JULY) for page in pages)
    asked = {path for path in counter.asked if "items" in path}
    assert asked == ({"/orders/1/items"} if "more" in limit else {"/orders/1/items", "/orders/4/items"})


def test_a_parent_whose_record_lacks_the_list_is_not_taken_for_childless() -> None:
    """SPEC 5: a path that names nothing makes a fetch short, never quietly empty."""
    pages = fetched(a_counter(), NESTED.replace("lines.list", "lines.lost"))
    assert records(pages) == []
    assert all(page.report.shortfall for page in pages)


def test_a_record_without_the_list_may_be_declared_childless() -> None:
    """Some sources leave empty lists out; only the declaration can tell that from a path that is wrong."""
    pages = fetched(a_counter(), NESTED.replace("lines.list, has_more: lines.more", "lines.lost, optional: true"))
    assert records(pages) == []
    assert all(page.report.proves(JULY) for page in pages)


def test_a_parent_without_the_fields_to_ask_by_is_left_to_the_quarantine() -> None:
    """SPEC 4: one poison record must not stop a tenant: it comes as a record that no destination can hold."""
    counter = a_counter()
    pages = fetched(counter, ASKED.replace("{parent.id}", "{parent.code}"))
    assert len(records(pages)) == 5
    assert all(set(record) == {"orders"} for record in records(pages))
    assert all(page.report.proves(JULY) for page in pages)


def test_asking_for_children_holds_the_declared_pace() -> None:
    """SPEC 3: the limits of the account hold for children's requests as for their parents'."""

    async def check() -> float:
        counter, clock = a_counter(), LeapingClock()
        async with serving(counter) as url, open_session(allow_private_addresses=True) as session:
            yaml = declaration(url, ASKED) + "rate_limit: {requests_per_second: 2, burst: 1}"
            source = RestConnector(load(yaml)).open(ConnectionSettings(), session, clock)
            assert keys(await fetch(source)) == ALL
            return sum(clock.slept) - (len(counter.asked) - 1) / 2

    assert abs(asyncio.run(check())) < 0.01


def test_the_carried_fields_stand_in_front_of_whatever_the_child_is() -> None:
    """Spacing, empty objects, and the carried name inside a value or further down, are all the source's own business."""
    declared = load(declaration("http://x.example", NESTED)).streams["items"].parent
    assert declared is not None
    family = Family(declared, (), can_ask=False)
    parent = Parent({"id": "7", "currency": "null"})
    for own in ("{ }", '{"id" : 1}', '{"id": 1, "note": "order_id", "in": {"order_id": 2}}', '{\n"id":1}'):
        (child,) = msgspec.json.decode(family.adopted(f"[{own}]".encode(), parent), type=list[dict[str, Any]])
        assert child == {"order_id": 7, "order_currency": None, **msgspec.json.decode(own)}
    assert family.adopted(b'["text", null, 4]', parent) == b'["text",null,4]'
    with pytest.raises(ContractBroken, match="of its own"):
        family.adopted(b'[{"order_id" : 1}]', parent)


@WAYS
def test_whatever_page_a_fetch_ends_at_it_resumes_after(way: str) -> None:
    """SPEC 4: the page token is a parent's position and a page of its children; resuming shows just the rest."""

    async def check() -> None:
        async with opened(a_counter(shown=2), way) as source:
            whole = await fetch(source)
            for number, page in enumerate(whole[:-1]):
                token = msgspec.json.decode(msgspec.json.encode(page.token))
                assert keys(await fetch(source, token)) == keys(whole[number + 1 :])
                rest = await fetch(source, token)
                assert [later.report for later in rest] == [later.report for later in whole[number + 1 :]]

    asyncio.run(check())


def test_a_page_token_of_another_declaration_begins_again() -> None:
    """A checkpoint may outlive the declaration it was made under; what was delivered is known by its version."""
    tokens: list[PageToken] = [{"children": {"left": [{"texts": {}}]}}, {"children": 7}, {"pager": "cursor"}]

    async def check() -> None:
        async with opened(a_counter(), ASKED) as source:
            for token in tokens:
                assert keys(await fetch(source, token)) == ALL

    asyncio.run(check())


def test_parents_deleted_meanwhile_are_passed_over_and_counted() -> None:
    """SPEC 4: 404 for one parent's children is not the end of the fetch."""
    counter = a_counter()

    def meddle(path: str) -> None:
        if path == "/orders/3/items":
            del counter.orders[3], counter.orders[4]

    counter.meddle = meddle
    pages = fetched(counter, ASKED)
    assert keys(pages) == [key for key in ALL if key[0] not in (3, 4)]
    assert sum(sum(page.report.remarks.values()) for page in pages) == 2
    assert all(page.report.proves(JULY) for page in pages)


def test_a_path_under_which_no_parent_has_children_proves_nothing() -> None:
    """SPEC 5: if all parents asked are gone the path is more likely wrong than the parents."""
    pages = fetched(a_counter(), ASKED.replace("/orders/{parent.id}/items", "/orders/9{parent.id}/items"))
    assert records(pages) == []
    assert "is the path of the children right" in pages[-1].report.shortfall


def test_a_failure_in_the_middle_of_a_parents_children_is_raised_after_what_came_before() -> None:
    counter = a_counter()
    counter.meddle = lambda path: 503 if path == "/orders/4/items" else None
    got: list[Page] = []

    async def check() -> None:
        async with opened(counter, ASKED) as source:
            with pytest.raises(SourceUnavailable):
                [page async for page in _noted(source, got)]
            counter.meddle = lambda _path: None
            assert keys(got) + keys(await fetch(source, got[-1].token)) == ALL

    asyncio.run(check())


async def _noted(source: RestSource, got: list[Page]) -> AsyncIterator[Page]:
    """Put each page into ``got`` as it comes: what came before an error counts."""
    async for page in source.fetch(FetchRequest("items", None, None, NOW)):
        got.append(page)
        yield page


def test_a_child_with_a_field_of_the_carried_name_asks_for_another_prefix() -> None:
    """Nothing a record holds is hidden by what it carries of its parent."""
    with pytest.raises(ContractBroken, match="'id' of its own"):
        fetched(a_counter(), NESTED.replace("prefix: order_", 'prefix: ""'))
