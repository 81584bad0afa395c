"""Sources that do not say in which order records of one cursor value come: another one on each page (HOLE gg, SPEC 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import blake2b

import msgspec
import pytest
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from tests.connectors.rest.sources import NOW, asked, declaration, fetched, ids, opened, read, replied
from tidegate.connectors.rest import ties
from tidegate.connectors.rest.envelope import Envelope
from tidegate.connectors.rest.listing import MAX_LISTINGS
from tidegate.connectors.rest.pagers import PageSeen
from tidegate.connectors.rest.pushed import Joint
from tidegate.connectors.rest.records import RecordReader
from tidegate.domain.cursor import CursorField
from tidegate.domain.fetch import Page
from tidegate.domain.period import Period
from tidegate.domain.stream import Stream

START = NOW - timedelta(days=1)
SIZE = 10
PAGE = "{type: page, param: page, total_pages: pages}"
OFFSET = "{type: offset, param: offset}"
LINK = "{type: link}"
TOKEN = "{type: cursor, param: token, token: next}"
KEYSET = "{type: keyset, within: {type: page, param: page, total_pages: pages}}"
KEYSET_TOKEN = "{type: keyset, within: {type: cursor, param: token, token: next}}"
STABLE = "{type: page, param: page, total_pages: pages, stable: true}"
ALL = [PAGE, OFFSET, LINK, TOKEN, KEYSET, KEYSET_TOKEN, STABLE]
SAME = "come in another order on each page"


class Blog:
    """Posts by the second of their last edit; how the posts of one second are ordered depends on the page asked for.

    That is what a database does with ``ORDER BY modified LIMIT …`` on its own. ``by_id``: the id breaks ties.
    """

    def __init__(self, seconds: list[int], *, by_id: bool = False, descending: bool = False) -> None:
        self.posts = dict(enumerate(seconds, 1))
        self.by_id, self.descending = by_id, descending
        self.asks: list[str] = []
        self.after_reply: Callable[[int], None] = lambda _number: None

    def _tie(self, post: int, start: int) -> object:
        return post if self.by_id else blake2b(f"{post} {start}".encode(), digest_size=4).digest()

    async def answer(self, request: web.Request) -> web.Response:
        self.asks.append(request.query_string)
        assert len(self.asks) < 500, "ran on for ever"
        start = int(request.query.get("offset", (int(request.query.get("page", 1)) - 1) * SIZE))
        start = int(request.query.get("token", start))
        since = request.query.get("since")
        lower = datetime.fromisoformat(since) if since else START
        found = [post for post, second in self.posts.items() if START + timedelta(seconds=second) >= lower]
        found.sort(key=lambda post: self._tie(post, start))  # type: ignore[arg-type,return-value]
        found.sort(key=lambda post: self.posts[post], reverse=self.descending)
        shown = found[start : start + SIZE]
        more = start + SIZE < len(found)
        link = {"Link": f'<{request.rel_url.update_query(page=start // SIZE + 2)}>; rel="next"'} if more else {}
        reply = replied(
            {
                "data": [
                    {"id": post, "at": (START + timedelta(seconds=self.posts[post])).isoformat()} for post in shown
                ],
                "pages": -(-len(found) // SIZE),
                "next": str(start + SIZE) if more else None,
            },
            link,
        )
        self.after_reply(len(self.asks))
        return reply


def _yaml(pager: str, cursor: str = "    cursor: {field: at, ascending: true}\n", lower: bool = True) -> str:
    bound = "    lower: {param: since, meaning: inclusive}\n" if lower and cursor else ""
    return declaration(f"    path: /posts\n    records: data\n{cursor}{bound}    pager: {pager}")


def _fetch(blog: Blog, yaml: str) -> list[Page]:
    return asyncio.run(fetched(blog.answer, yaml, asked(START)))


def _proven(pages: list[Page]) -> bool:
    return pages[-1].report.proves(Period(START, NOW))


TIED = [*range(23), *[30] * 27, *range(40, 58)]
"""27 posts of one second, over three or four pages of ten."""


@pytest.mark.parametrize("pager", ALL)
def test_a_group_in_another_order_on_each_page_is_never_called_complete(pager: str) -> None:
    """HOLE gg: 130 posts of one second, a hundred a page: some come twice and as many are never shown."""
    blog = Blog(TIED)
    pages = _fetch(blog, _yaml(pager))
    assert len(set(ids(pages))) < len(TIED), "the source hides some, or this test tests nothing"
    assert not _proven(pages)
    assert f"records with the same at {SAME}" in pages[-1].report.shortfall
    assert "order by a unique field too" in pages[-1].report.shortfall
    assert "raise the page size above" in pages[-1].report.shortfall


@pytest.mark.parametrize("pager", [PAGE, OFFSET, LINK, TOKEN, STABLE])
@pytest.mark.parametrize("seed", range(6))
def test_without_a_cursor_field_too(pager: str, seed: int) -> None:
    """HOLE gg: a stream that is listed in full each time, ordered by a field that many records share."""
    blog = Blog([n // 25 + seed for n in range(75)])
    pages = _fetch(blog, _yaml(pager, cursor=""))
    assert len(set(ids(pages))) < 75
    assert SAME in pages[-1].report.shortfall


@pytest.mark.parametrize("pager", ALL)
@pytest.mark.parametrize("by_id", [True, False])
@pytest.mark.parametrize("seconds", [[], [7], [3] * 9, [*range(40)], [n // 3 for n in range(45)], [3] * 10, TIED])
def test_what_is_called_complete_is(pager: str, by_id: bool, seconds: list[int]) -> None:
    """With a tie-breaker always, without one only if no record was hidden."""
    pages = _fetch(Blog(seconds, by_id=by_id), _yaml(pager))
    if by_id or (len(seconds) < SIZE and pager != OFFSET):
        assert _proven(pages)
    if _proven(pages):
        assert set(ids(pages)) == set(range(1, len(seconds) + 1))


@pytest.mark.parametrize("pager", [KEYSET, KEYSET_TOKEN])
def test_a_keyset_needs_no_order_among_equals_as_long_as_they_fit_on_a_page(pager: str) -> None:
    """SPEC 4: each value is asked for anew, from its beginning."""
    blog = Blog([n // 8 for n in range(80)])
    pages = _fetch(blog, _yaml(pager))
    assert _proven(pages)
    assert set(ids(pages)) == set(range(1, 81))
    assert not any("page=2" in ask for ask in blog.asks), "no page was counted"


@pytest.mark.parametrize("pager", [PAGE, OFFSET, LINK, TOKEN])
def test_newest_first_too(pager: str) -> None:
    pages = _fetch(Blog(TIED, descending=True), _yaml(pager, "    cursor: {field: at}\n"))
    assert not _proven(pages)
    assert SAME in pages[-1].report.shortfall


@pytest.mark.parametrize("pager", [PAGE, OFFSET, LINK, TOKEN, KEYSET])
def test_records_edited_meanwhile_come_again_and_hide_nothing(pager: str) -> None:
    """A key that comes again with a greater cursor value is an edit: no reason to list again."""
    blog = Blog([*[5] * 15, *range(10, 30)], by_id=True)

    def edit(number: int) -> None:
        if number == 2:
            blog.posts[34] = 90

    blog.after_reply = edit
    pages = _fetch(blog, _yaml(pager))
    assert _proven(pages)
    assert set(ids(pages)) == set(range(1, 36))


@pytest.mark.parametrize("pager", [PAGE, OFFSET, LINK])
def test_records_pushed_towards_the_end_are_no_reason_to_list_again(pager: str) -> None:
    """A busy shop, newest first: what comes twice has left the page on which it stood."""
    blog = Blog([5] * 45, by_id=True, descending=True)

    def insert(number: int) -> None:
        if number < 12:
            blog.posts[100 + number] = 60 + number

    blog.after_reply = insert
    pages = _fetch(blog, _yaml(pager, "    cursor: {field: at}\n"))
    assert _proven(pages)
    assert set(ids(pages)) >= set(range(1, 46))
    assert all("listing" not in page.token for page in pages if page.token is not None), "it was listed once"


def test_short_pages_are_asked_for_again_by_an_offset_and_hide_nothing() -> None:
    """A source that leaves records out of a page after counting them: the next page begins further back."""
    posts = list(range(45))

    async def source(request: web.Request) -> web.Response:
        offset = int(request.query["offset"])
        shown = [n for n in posts[offset : offset + SIZE] if n % 17 != 3]
        return replied({"data": [{"id": n, "at": START.isoformat()} for n in shown]})

    pages = asyncio.run(fetched(source, _yaml(OFFSET), asked(START)))
    assert _proven(pages)
    assert set(ids(pages)) == {n for n in posts if n % 17 != 3}


@pytest.mark.parametrize("pager", [PAGE, OFFSET, KEYSET, KEYSET_TOKEN, LINK, TOKEN])
@pytest.mark.parametrize("carried", [250, 5])
def test_a_fetch_resumed_within_a_group_knows_what_the_group_has_shown(
    monkeypatch: pytest.MonkeyPatch, pager: str, carried: int
) -> None:
    """SPEC 4, HOLES gg, s: the page token holds the open group; one that is too large is begun anew."""
    monkeypatch.setattr(ties, "CARRIED", carried)

    async def page_by_page(blog: Blog) -> list[Page]:
        pages: list[Page] = []
        async with opened(blog.answer, _yaml(pager)) as source:
            while not pages or pages[-1].token is not None:
                resume = pages[-1].token if pages else None
                async for page in source.fetch(asked(START, resume=resume)):
                    pages.append(page)
                    if len(pages) % 6 == 0:
                        break
        return pages

    pages = asyncio.run(page_by_page(Blog(TIED)))
    assert not _proven(pages) or set(ids(pages)) == set(range(1, len(TIED) + 1))
    pages = asyncio.run(page_by_page(Blog(TIED, by_id=True)))
    assert _proven(pages)
    assert set(ids(pages)) == set(range(1, len(TIED) + 1))


@pytest.mark.parametrize("pager", [PAGE, LINK, TOKEN, STABLE])
@pytest.mark.parametrize("carried", [250, 5])
@pytest.mark.parametrize("ordered", [False, True])
def test_what_came_before_the_fetch_was_resumed_and_comes_again_is_noticed(
    monkeypatch: pytest.MonkeyPatch, pager: str, carried: int, ordered: bool
) -> None:
    """HOLES gg, s: page 3 shows half of page 1 again, and the process died after page 2.

    The token knows the group; if that is too large, the fetch goes back to where it began; if it is in the order of its keys,
    the order tells.
    """
    monkeypatch.setattr(ties, "CARRIED", carried)
    first, second = [*range(1, 11)], [*range(11, 21)]
    shown = {1: first, 2: second, 3: [*range(6, 11), *range(21, 26)]}
    if not ordered:
        shown = {1: first[::-1], 2: second, 3: shown[3]}

    async def source(request: web.Request) -> web.Response:
        page = int(request.query.get("page", request.query.get("token", 1)))
        records = [{"id": n, "at": START.isoformat()} for n in shown[page]]
        link = {"Link": f'<{request.rel_url.update_query(page=page + 1)}>; rel="next"'} if page < 3 else {}
        return replied({"data": records, "pages": 3, "next": str(page + 1) if page < 3 else None}, link)

    async def check() -> None:
        async with opened(source, _yaml(pager)) as opened_source:
            pages = opened_source.fetch(asked(START))
            token = [await anext(pages), await anext(pages)][1].token
            rest = await read(opened_source, asked(START, resume=token))
            assert SAME in rest[-1].report.shortfall

    asyncio.run(check())


@pytest.mark.parametrize("pager", [PAGE, OFFSET, KEYSET])
def test_a_group_in_the_order_of_its_keys_is_trusted_however_large(monkeypatch: pytest.MonkeyPatch, pager: str) -> None:
    """What is in the order of a unique key cannot come twice: nothing has to be remembered."""
    monkeypatch.setattr(ties, "REMEMBERED", 20)
    monkeypatch.setattr(ties, "CARRIED", 5)

    async def check() -> None:
        async with opened(Blog([5] * 95, by_id=True).answer, _yaml(pager)) as source:
            pages = await read(source, asked(START))
            assert _proven(pages)
            assert set(ids(pages)) == set(range(1, 96))
            rest = await read(source, asked(START, resume=pages[4].token))
            assert _proven(rest)
            assert len(rest) == len(pages) - 5, "it goes on in the middle of the group"

    asyncio.run(check())


def test_a_group_too_large_to_remember_and_in_no_order_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded memory: beyond it a fixed order that is not the key's cannot be told from none."""
    monkeypatch.setattr(ties, "REMEMBERED", 20)
    blog = Blog([5] * 95)
    blog._tie = lambda post, start: blake2b(f"{post}".encode()).digest()  # type: ignore[method-assign]
    pages = _fetch(blog, _yaml(PAGE))
    assert set(ids(pages)) == set(range(1, 96))
    assert SAME in pages[-1].report.shortfall
    assert blog.asks.count("since=" + blog.asks[0].split("&")[0].removeprefix("since=") + "&page=1") <= 2


def test_what_is_remembered_is_bounded() -> None:
    """However many records of one second there are, a hundred thousand numbers are kept, and 250 marks."""
    glances = RecordReader(Stream("posts", ("id",), CursorField(("at",)), timedelta(0), {}))
    headers: CIMultiDict[str] = CIMultiDict()
    known = ties.Ties(None, stable=False)
    for page in range(30):
        ids_of_page = [blake2b(b"%d %d" % (page, n), digest_size=8).hexdigest() for n in range(5_000)]
        text = msgspec.json.encode([{"id": one, "at": "2026-07-13T14:00:00Z"} for one in ids_of_page])
        seen = PageSeen(Envelope(text, {}), CIMultiDictProxy(headers), URL(), glances.read)
        assert not known.repeated({"page": page}, seen)
        known.keep({"page": page}, seen)
    assert len(known._recent) + len(known._older) <= 2 * ties.REMEMBERED
    assert known.too_many
    assert len(msgspec.json.encode(known.group())) < 4_000


def test_it_is_listed_again_no_more_often_than_a_listing_that_moves() -> None:
    blog = Blog(TIED)
    _fetch(blog, _yaml(PAGE))
    begun = sum(ask.split("&")[-1] == "page=1" for ask in blog.asks)
    assert MAX_LISTINGS <= begun <= MAX_LISTINGS * 2


@pytest.mark.parametrize("pager", [PAGE, OFFSET, KEYSET])
def test_a_fetch_resumed_in_a_group_too_large_for_its_token_begins_the_group_again_not_the_listing(
    monkeypatch: pytest.MonkeyPatch, pager: str
) -> None:
    """SPEC 4, HOLE s: an order that is fixed and not the key's."""
    monkeypatch.setattr(ties, "CARRIED", 5)
    blog = Blog([*range(23), *[30] * 47, *range(40, 58)])
    blog._tie = lambda post, start: blake2b(f"{post}".encode()).digest()  # type: ignore[method-assign]

    async def check() -> None:
        async with opened(blog.answer, _yaml(pager)) as source:
            pages = await read(source, asked(START))
            at = next(n for n in range(4, 9) if "group" in (pages[n].token or {}))
            rest = await read(source, asked(START, resume=pages[at].token))
            assert _proven(rest)
            assert set(ids([*pages[: at + 1], *rest])) == set(range(1, 89))
            assert all("listing" not in page.token for page in rest if page.token is not None)

    asyncio.run(check())


@pytest.mark.parametrize("value", [None, [[1]], "soon"])
def test_a_record_without_a_cursor_value_does_not_end_the_group_that_it_stands_in(value: object) -> None:
    """HOLES gg, s: it stands wherever its source puts it; what a resumed fetch knows of the group about it stays."""
    shown = {1: [*range(1, 11)], 2: [*range(11, 20), 99], 3: [*range(6, 11), *range(21, 26)]}

    async def source(request: web.Request) -> web.Response:
        page = int(request.query.get("page", 1))
        records = [{"id": n, "at": value if n == 99 else START.isoformat()} for n in shown[page]]
        return replied({"data": records, "pages": 3})

    async def check() -> None:
        async with opened(source, _yaml(PAGE)) as opened_source:
            pages = opened_source.fetch(asked(START))
            token = [await anext(pages), await anext(pages)][1].token
            rest = await read(opened_source, asked(START, resume=token))
            assert SAME in rest[-1].report.shortfall

    asyncio.run(check())


ORDER = (7, 2, 5, 1, 9, 3, 8, 4, 6, 10, 11, 12, 13)
"""Thirteen posts of one second, as the first page orders them; the second one, in an order of its own, shows the tenth again."""
HIDING = (7, 2, 5, 1, 9, 3, 8, 4, 6, 13, 10, 11, 12)
BY_CHANCE = (13, 7, 2, 5, 1, 9, 3, 8, 4, 6, 10, 11, 12)
"""A second page that an offset asks for one post earlier, and that begins with the tenth once one of those before it is gone."""


class Scripted(Blog):
    """Posts of one second in one order on the first page and in another on the second; unknown ones come last."""

    def __init__(self, seconds: list[int], first: tuple[int, ...], second: tuple[int, ...]) -> None:
        super().__init__(seconds)
        self.first, self.second = first, second

    def _tie(self, post: int, start: int) -> object:
        order = self.first if start < SIZE // 2 else self.second
        return order.index(post) if post in order else 1000 + post

    def after(self, reply: int, post: int, second: int) -> None:
        """Give a post, be it a new one, another second after that reply."""
        self.after_reply = lambda number: self.posts.update({post: second}) if number == reply else None


@pytest.mark.parametrize("pager", [PAGE, LINK, TOKEN, KEYSET, KEYSET_TOKEN, OFFSET])
@pytest.mark.parametrize("reply", range(1, 8))
@pytest.mark.parametrize(("post", "second"), [(14, 5), (10, 90)], ids=["another one comes", "it is edited"])
@pytest.mark.parametrize("shown", [True, False], ids=["on both pages", "on the first only"])
def test_what_left_its_page_only_after_it_came_twice_was_not_pushed(
    pager: str, reply: int, post: int, second: int, shown: bool
) -> None:
    """HOLE gg: the page that it stood on shows it no more, and yet it had come twice before that, and hid another one.

    Nor was it pushed only, if what pushed it stands on both pages: then that one came twice and hides another.
    """
    behind = (*HIDING[:9], 14, *HIDING[9:]) if shown else (*HIDING, 14)
    if shown and reply == 1:  # three places for 10, 11, 12, 13 and 14, all of which the first page does not show
        behind = (7, 2, 5, 1, 9, 3, 8, 4, 6, 13, 10, 14, 11, 12)
    blog = Scripted([5] * 13, (14, *ORDER), behind)
    blog.after(reply, post, second)
    pages = _fetch(blog, _yaml(pager))
    assert not _proven(pages) or set(ids(pages)) >= set(range(1, 14))


@pytest.mark.parametrize("pager", [PAGE, LINK, TOKEN, OFFSET])
@pytest.mark.parametrize("reply", range(1, 8))
def test_nor_was_it_if_newer_ones_came_only_then(pager: str, reply: int) -> None:
    """HOLE gg: newest first, a new post in front moves every other one; it proves nothing of a page read before."""
    blog = Scripted([5] * 13, ORDER, HIDING)
    blog.descending = True
    blog.after(reply, 20, 90)
    pages = _fetch(blog, _yaml(pager, "    cursor: {field: at}\n"))
    assert not _proven(pages) or set(ids(pages)) >= set(range(1, 14))


@pytest.mark.parametrize("reply", range(1, 6))
@pytest.mark.parametrize("resumed", [True, False])
@pytest.mark.parametrize(
    ("seconds", "orders", "edited"),
    [
        ([5] * 13, (ORDER, BY_CHANCE), 7),
        ([*range(9), 20, 20, *range(30, 34)], ((*range(1, 10), 10, 11), (*range(1, 10), 11, 10)), 3),
        ([20, *range(9), 20, *range(30, 34)], ((1, 11), (11, 1)), 5),
    ],
    ids=["a group", "two of which each page shows the same one", "out of the order of their keys"],
)
def test_an_offsets_overlap_proves_nothing_among_records_of_one_value(
    reply: int, resumed: bool, seconds: list[int], orders: tuple[tuple[int, ...], ...], edited: int
) -> None:
    """HOLE gg: one is edited and leaves, all move up, and by chance the next page shows the last record all the same."""
    blog = Scripted(seconds, *orders)
    blog.after(reply, edited, 90)

    async def check() -> list[Page]:
        async with opened(blog.answer, _yaml(OFFSET)) as source:
            if not resumed:
                return await read(source, asked(START))
            page = await anext(source.fetch(asked(START)))
            return [page, *await read(source, asked(START, resume=page.token))]

    pages = asyncio.run(check())
    assert not _proven(pages) or set(ids(pages)) >= set(range(1, len(seconds) + 1))


@pytest.mark.parametrize(("seconds", "requests"), [([*range(60)], 9), ([n // 3 for n in range(60)], 10), ([5] * 60, 8)])
def test_an_offset_list_of_many_values_is_read_once(seconds: list[int], requests: int) -> None:
    """The overlap reaches into the value before, and so proves the joint on one page; the order of the keys does as well."""
    blog = Blog(seconds, by_id=True)
    pages = _fetch(blog, _yaml("{type: offset, param: offset}"))
    assert set(ids(pages)) == set(range(1, len(seconds) + 1))
    assert _proven(pages)
    assert len(blog.asks) == requests


def test_an_ascending_offset_list_ends_once_it_has_passed_the_clock() -> None:
    """HOLE hh: the overlap is no disorder."""
    day = 24 * 60 * 60
    blog = Blog([*range(day - 15, day + 45)], by_id=True)
    pages = _fetch(blog, _yaml(OFFSET))
    assert len(blog.asks) == 2
    assert pages[-1].report.upper == NOW


@pytest.mark.parametrize("pager", [PAGE, LINK, TOKEN, OFFSET])
def test_a_busy_shop_with_keys_in_no_order_is_listed_once(pager: str) -> None:
    """Newest first, and after every request there is a new one: the values at the joints are seen whole further down."""
    blog = Blog([*range(60)], descending=True)
    blog._tie = lambda post, start: blake2b(f"{post}".encode()).digest()  # type: ignore[method-assign]
    blog.after_reply = lambda number: blog.posts.update({100 + number: 90 + number}) if number < 12 else None
    pages = _fetch(blog, _yaml(pager, "    cursor: {field: at}\n"))
    assert set(ids(pages)) >= set(range(1, 61))
    assert _proven(pages)
    assert all("listing" not in page.token for page in pages if page.token is not None)


@pytest.mark.parametrize("pager", [PAGE, LINK, TOKEN, OFFSET])
def test_a_push_within_a_large_group_in_no_order_is_believed_once_it_is_quiet(pager: str) -> None:
    """Both pages are read again in turn, and nothing moves: so the records were pushed before the second one was read."""
    blog = Blog([5] * 17, descending=True)
    blog._tie = lambda post, start: blake2b(f"{post}".encode()).digest()  # type: ignore[method-assign]
    blog.after_reply = lambda number: blog.posts.update({100: 90}) if number == 1 else None
    pages = _fetch(blog, _yaml(pager, "    cursor: {field: at}\n"))
    assert set(ids(pages)) >= set(range(1, 18))
    assert _proven(pages)
    assert all("listing" not in page.token for page in pages if page.token is not None), "it was listed once"


def _page_of(letters: str) -> PageSeen:
    """Posts of one second, but for x and y, which are newer."""
    reader = RecordReader(Stream("posts", ("id",), CursorField(("at",)), timedelta(0), {}))
    text = msgspec.json.encode([{"id": one, "at": f"2026-07-13T{15 if one in 'xy' else 14}:00:00Z"} for one in letters])
    return PageSeen(Envelope(text, {}), CIMultiDictProxy(CIMultiDict[str]()), URL(), reader.read)


@pytest.mark.parametrize(
    ("page", "again", "itself", "finally_", "begun", "believed"),
    [
        ("efg", "xabcd", "efg", "xabcd", True, True),
        ("efg", "xabcd", "efg", "xabcd", False, False),
        ("efg", "xabcd", "fgh", "xabcd", True, False),
        ("efg", "xabcd", "efg", "yxabc", True, False),
        ("exf", "xabcd", "exf", "xabcd", True, False),
        ("efg", "bcdax", "efg", "bcdax", True, False),
        ("efg", "xyabc", "efg", "xyabc", True, False),
        ("efg", "habcd", "efg", "habcd", True, False),
    ],
    ids=[
        "e was pushed by x", "the group began earlier", "the page moves on", "the page before moves on",
        "x is on both", "another order", "d is on neither", "h may have been hidden",
    ],
)  # fmt: skip
def test_what_two_pages_read_again_in_turn_have_to_show(
    page: str, again: str, itself: str, finally_: str, begun: bool, believed: bool
) -> None:
    """HOLE gg: each of these alone leaves it open that a record of the group was hidden."""
    joint = Joint(
        _page_of("abcde"), _page_of(page), 0, begun, lambda glance: datetime.fromisoformat(glance.cursor[1:-1].decode())
    )
    assert joint.quiet(_page_of(again), _page_of(itself), _page_of(finally_)) is believed
