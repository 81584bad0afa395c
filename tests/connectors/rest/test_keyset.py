"""Keyset paging by the cursor field: edits, ties and ceilings lose nothing (HOLES gg, w), and bodies carry what is asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from aiohttp import web

from tests.connectors.rest.sources import NOW, asked, declaration, fetched, ids, opened, read, replied
from tidegate.connectors.rest.bodies import fill_body
from tidegate.connectors.rest.loader import load
from tidegate.domain.errors import ContractBroken, InvalidInput
from tidegate.domain.fetch import Page
from tidegate.domain.period import Period

START = NOW - timedelta(days=1)
BY_PAGE = declaration("""
    path: /orders
    params: {sort: updated}
    cursor: {field: at, ascending: true}
    lower: {param: since, meaning: inclusive}
    pager: {type: keyset, within: {type: page, param: page, next_link: true}}
""")
BY_KEY = declaration("""
    path: /search
    method: POST
    records: results
    page_size: {param: limit, value: 10}
    cursor: {field: at, ascending: true}
    lower: {param: from, meaning: inclusive}
    body:
      limit: "{limit}"
      filterGroups: [{filters: [{name: at, operator: GTE, value: "{from}"}]}]
      sorts: [{name: at}]
    pager:
      type: keyset
      within: {type: cursor, param: after, token: paging.next.after}
      ties:
        param: id_after
        body:
          limit: "{limit}"
          filterGroups:
            - filters: [{name: at, operator: EQ, value: "{from}"}, {name: id, operator: GT, value: "{id_after}"}]
          sorts: [{name: id}]
""")


class Shop:
    """Orders by the second of their last edit, listed in its order, ten a page, and no further than ``ceiling``."""

    def __init__(self, seconds: list[int], *, ceiling: int = 30) -> None:
        self.orders = dict(enumerate(seconds, 1))
        self.ceiling = ceiling
        self.requests: list[object] = []
        self.after_page: Callable[[], None] = lambda: None

    def _shown(self, order: int) -> dict[str, object]:
        return {"id": order, "at": (START + timedelta(seconds=self.orders[order])).isoformat()}

    def _sorted(self, since: str) -> list[int]:
        lower = datetime.fromisoformat(since)
        found = [order for order, second in self.orders.items() if START + timedelta(seconds=second) >= lower]
        return sorted(found, key=lambda order: (self.orders[order], hash(order) % 7))

    async def paged(self, request: web.Request) -> web.Response:
        self.requests.append(dict(request.query))
        found, page = self._sorted(request.query["since"]), int(request.query["page"])
        if page * 10 > self.ceiling:
            return web.Response(status=422, text="only the first 30 results are available")
        headers = {"Link": '<x>; rel="next"'} if page * 10 < len(found) else {}
        answer = replied([self._shown(order) for order in found[page * 10 - 10 : page * 10]], headers)
        self.after_page()
        return answer

    async def searched(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        filters = {one["operator"]: one["value"] for one in body["filterGroups"][0]["filters"]}
        if "EQ" in filters:
            second = round((datetime.fromisoformat(filters["EQ"]) - START).total_seconds())
            found = sorted(
                order for order, at in self.orders.items() if at == second and order > int(filters.get("GT", 0))
            )
        else:
            found = self._sorted(filters["GTE"])
        more = {"paging": {"next": {"after": "10"}}} if len(found) > body["limit"] else {}
        answer = replied({"results": [self._shown(order) for order in found[: body["limit"]]], **more})
        self.after_page()
        return answer


def _fetch(shop: Shop, yaml: str) -> list[Page]:
    handler = shop.searched if "search" in yaml else shop.paged
    return asyncio.run(fetched(handler, yaml, asked(START)))


@pytest.mark.parametrize("yaml", [BY_PAGE, BY_KEY], ids=["within a page pager", "ties by key"])
@pytest.mark.parametrize(
    "seconds",
    [[], [5], list(range(95)), [3] * 25, [0] * 10 + [1] * 10, [1, 1, 2, *[7] * 21, 8], [*range(40), *[40] * 20]],
    ids=["none", "one", "distinct", "one tie", "tied pages", "a tie in the middle", "a tie at the end"],
)
def test_every_record_is_shown_beyond_any_ceiling(yaml: str, seconds: list[int]) -> None:
    """HOLE w: a listing that ends at 30 records shows 95, for the bound moves on."""
    pages = _fetch(Shop(seconds), yaml)
    assert set(ids(pages)) == set(range(1, len(seconds) + 1))
    assert pages[-1].report.proves(Period(START, NOW))
    assert len(ids(pages)) <= 2 * len(seconds) + 20, "pages overlap by the records of one cursor value, no more"


@pytest.mark.parametrize("yaml", [BY_PAGE, BY_KEY], ids=["within a page pager", "ties by key"])
@pytest.mark.parametrize("seed", range(12))
def test_records_edited_while_they_are_listed_hide_no_other(yaml: str, seed: int) -> None:
    """HOLE gg: each edit takes a record from where it was to the end; those behind it move up by one."""
    chance = random.Random(seed)
    shop = Shop([chance.randrange(12) for _ in range(80)], ceiling=90)
    untouched = set(shop.orders)

    def edit() -> None:
        for order in chance.sample(sorted(shop.orders), 2):
            shop.orders[order] = max(shop.orders.values()) + 1
            untouched.discard(order)

    budget = iter(range(6))
    shop.after_page = lambda: edit() if next(budget, None) is not None else None
    pages = _fetch(shop, yaml)
    assert pages[-1].report.shortfall == ""
    assert set(ids(pages)) == set(range(1, 81))


def test_a_fetch_resumes_where_the_bound_had_moved_to() -> None:
    async def check() -> None:
        shop = Shop([*range(30), *[30] * 25, 31])
        async with opened(shop.searched, BY_KEY) as source:
            whole = await read(source, asked(START))
            for number, page in enumerate(whole[:-1], 1):
                rest = await read(source, asked(START, resume=page.token))
                assert ids(rest) == ids(whole[number:])

    asyncio.run(check())


def test_a_page_out_of_order_goes_on_without_moving_the_bound() -> None:
    """The records before the page's last one would be lost if the bound moved to it."""
    shop = Shop(list(range(25)))
    shop._sorted = lambda since: [*range(25, 0, -1)]  # type: ignore[method-assign]
    assert set(ids(_fetch(shop, BY_PAGE))) == set(range(1, 26))
    shop = Shop(list(range(25)))
    shop._sorted = lambda since: [*range(25, 0, -1)]  # type: ignore[method-assign]
    with pytest.raises(ContractBroken, match="not in the order of at"):
        _fetch(shop, BY_KEY)


def test_the_last_page_is_believed_when_the_link_header_says_so() -> None:
    shop = Shop([1, 2, 3])
    _fetch(shop, BY_PAGE)
    assert len(shop.requests) == 1


def test_what_is_not_sent_leaves_its_list_item_or_member_out() -> None:
    tree = msgspec.json.decode(
        b'{"limit": "{limit}", "after": "{after}", "deep": {"x": "{after}", "y": 1}, "text": "id > {limit}",'
        b' "groups": [{"all": [{"v": "{from}"}, {"v": "{after}"}]}, "{after}"], "sorts": ["a"]}'
    )
    assert fill_body(tree, {"limit": 10, "from": "x"}) == {
        "limit": 10,
        "deep": {"y": 1},
        "text": "id > 10",
        "groups": [{"all": [{"v": "x"}]}],
        "sorts": ["a"],
    }


@pytest.mark.parametrize(
    ("yaml", "before", "after", "field", "said"),
    [
        (BY_PAGE, "ascending: true", "ascending: false", "streams.orders.pager", "ascending: true"),
        (BY_PAGE, "    lower: {param: since, meaning: inclusive}\n", "", "streams.orders.pager", "lower"),
        (
            BY_PAGE,
            "type: page, param: page, next_link: true",
            "type: link",
            "streams.orders.pager.within",
            "cursor or page",
        ),
        (BY_PAGE, "param: page", "param: since", "streams.orders.params", "sent twice"),
        (BY_KEY, "method: POST", "method: GET", "streams.orders.body", "method: POST"),
        (BY_KEY, 'operator: GTE, value: "{from}"', "operator: GTE, value: 1", "streams.orders.body", "no place for"),
        (BY_KEY, '"{id_after}"', '"{id_aftr}"', "streams.orders.pager", "Did you mean 'id_after'"),
        (BY_KEY, 'limit: "{limit}"', 'limit: "{secrets.key}"', "streams.orders.body", "no parameter of this stream"),
        (BY_KEY, "meaning: inclusive", "meaning: inclusive, grain_seconds: 60", "streams.orders.pager", "as fine as"),
        (
            BY_KEY,
            "meaning: inclusive",
            'meaning: inclusive, value: ">={instant}"',
            "streams.orders.pager",
            "no other text",
        ),
        (
            BY_PAGE,
            "type: page, param: page, next_link: true",
            "type: offset, param: offset",
            "streams.orders.pager.within",
            "`type: offset` without keyset, ordered by the key",
        ),
    ],
)
def test_a_keyset_or_body_that_cannot_work_is_refused(
    yaml: str, before: str, after: str, field: str, said: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(yaml.replace(before, after, 1))
    assert caught.value.field == field
    assert said in str(caught.value)


@pytest.mark.parametrize("edited", [4, 5, 11], ids=["less than a page", "a page", "more"])
def test_a_list_that_is_newest_first_after_all_loses_nothing(edited: int) -> None:
    """The parameter that orders it was forgotten, and what was edited last was edited in bulk: the first page has one value,
    which is in order whichever way the list goes (HOLE gg)."""
    orders = [*range(40), *[50] * (edited * 2)]

    async def newest_first(request: web.Request) -> web.Response:
        since, page = datetime.fromisoformat(request.query["since"]), int(request.query["page"])
        found = sorted(((START + timedelta(seconds=at), n) for n, at in enumerate(orders)), reverse=True)
        shown = [{"id": n, "at": at.isoformat()} for at, n in found if at >= since]
        headers = {"Link": '<x>; rel="next"'} if page * 10 < len(shown) else {}
        return replied(shown[page * 10 - 10 : page * 10], headers)

    pages = asyncio.run(fetched(newest_first, BY_PAGE, asked(START)))
    assert set(ids(pages)) == set(range(len(orders)))


def test_a_bound_moves_on_once_two_values_were_seen_be_it_on_two_pages() -> None:
    """A bulk edit of just two pages at the period's start, then a bulk edit of another one: beyond any ceiling all the same."""
    shop = Shop([*[3] * 20, *[4] * 20, *range(5, 40)], ceiling=30)
    pages = _fetch(shop, BY_PAGE)
    assert set(ids(pages)) == set(range(1, 76))
    assert pages[-1].report.proves(Period(START, NOW))


class Wall(Shop):
    """Orders at wall times of London, before the night in which clocks go back."""

    def _shown(self, order: int) -> dict[str, object]:
        at = datetime(2025, 10, 25, 20) + timedelta(seconds=self.orders[order])
        return {"id": order, "at": at.isoformat(sep=" ")}

    def _sorted(self, since: str) -> list[int]:
        lower = (datetime.fromisoformat(since) - datetime(2025, 10, 25, 20)).total_seconds()
        found = [order for order, second in self.orders.items() if second >= lower]
        return sorted(found, key=lambda order: (self.orders[order], order))


def test_before_clocks_go_back_the_bound_moves_by_more_than_it_shows_again() -> None:
    """The bound reaches an hour further back there; moved by each page it would read each hour once for each of its pages."""
    yaml = BY_PAGE.replace("field: at,", "field: at, format: local, time_zone: Europe/London, precision_seconds: 1,")
    shop = Wall([20 * n for n in range(400)], ceiling=250)  # an hour's are 180
    pages = asyncio.run(fetched(shop.paged, yaml, asked(datetime(2025, 10, 25, 18, 30, tzinfo=UTC))))
    assert {*ids(pages)} == {*range(1, 401)}
    assert not pages[-1].report.shortfall
    assert len(shop.requests) < 10 * 40, "of 40 pages each twice, five times over"


@pytest.mark.parametrize("back", [1, 5], ids=["a grain", "more than a grain"])
def test_a_keyset_whose_bound_shows_a_little_more_may_still_stop_early(
    back: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that begins a grain before its bound is no sign that the list is out of order; further back it is (SPEC 4)."""
    shop = Shop([*range(40), *range(5000, 5040)])

    async def lenient(request: web.Request) -> web.Response:
        since = (datetime.fromisoformat(request.query["since"]) - timedelta(seconds=back)).isoformat()
        return await shop.paged(request.clone(rel_url=request.rel_url.update_query(since=since)))

    stop = START + timedelta(seconds=100)
    pages = asyncio.run(fetched(lenient, BY_PAGE, asked(START, stop_after=stop)))
    assert set(range(1, 41)) <= set(ids(pages))
    assert (max(map(int, map(str, ids(pages)))) == 80) is (back > 1)
