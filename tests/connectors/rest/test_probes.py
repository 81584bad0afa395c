"""The mistakes that `connector check` catches by asking a little more, each with its remedy; and right ones that it lets be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from zoneinfo import ZoneInfo

import pytest
from aiohttp import web

from tests.connectors.rest.sources import NOW, LeapingClock, declaration, replied, serve
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.rest.connector import RestConnector
from tidegate.connectors.rest.examination import Examined, examine
from tidegate.connectors.rest.loader import load

GOOD = declaration("""
    path: /orders
    records: data
    page_size: {param: limit, value: 10}
    cursor: {field: at, ascending: true}
    lower: {param: since, meaning: inclusive}
    pager: {type: page, param: page, total_pages: pages}
""")


@dataclass
class Platform:
    """40 orders, ten a page, oldest first, by `since` and `page`; what it is told to do wrong it does."""

    ignores: frozenset[str] = frozenset()
    exclusive: bool = False
    newest_first: bool = False
    one_key: bool = False
    finer: bool = False
    pages_unsaid: bool = False
    now: datetime = NOW

    async def answer(self, request: web.Request) -> web.Response:
        since = "" if "since" in self.ignores else request.query.get("since", "")
        page = 1 if "page" in self.ignores else int(request.query.get("page", 1))
        records = [record for record in self._all() if self._within(str(record["at"]), since)]
        if self.newest_first:
            records.reverse()
        pages = {} if self.pages_unsaid else {"pages": -(-len(records) // 10)}
        return replied({"data": records[page * 10 - 10 : page * 10], **pages, "next": None})

    def _all(self) -> list[dict[str, object]]:
        tick = timedelta(hours=1, milliseconds=3 if self.finer else 0)
        ats = [(self.now - timedelta(days=5) + n * tick).isoformat().replace("+00:00", "Z") for n in range(40)]
        return [{"id": 1 if self.one_key else n, "at": at} for n, at in enumerate(ats)]

    def _within(self, at: str, since: str) -> bool:
        return not since or at > since or (at == since and not self.exclusive)


def check(platform: Platform, yaml: str = GOOD) -> Examined:
    async def run() -> Examined:
        connector = RestConnector(load(yaml))
        async with serve(platform.answer) as url, open_session(allow_private_addresses=True) as session:
            clock = LeapingClock(platform.now)
            source = connector.open(ConnectionSettings({"url": url}), session, clock)
            return await examine(connector, source, connector.streams["orders"], clock)

    return asyncio.run(run())


def warnings(platform: Platform, yaml: str = GOOD) -> list[str]:
    found = check(platform, yaml)
    assert found.error == ""
    return [warning for warning in found.warnings if "source's clock" not in warning]


def test_a_right_declaration_is_not_warned_of() -> None:
    assert warnings(Platform()) == []
    newest_first = GOOD.replace("ascending: true", "ascending: false")
    assert warnings(Platform(newest_first=True), newest_first) == []
    assert warnings(Platform(exclusive=True), GOOD.replace("inclusive", "exclusive")) == []
    assert warnings(Platform(), GOOD.replace("inclusive", "exclusive")) == []


KEYSET = "type: keyset, within: {type: page, param: page, total_pages: pages}"


@pytest.mark.parametrize(
    ("platform", "before", "after", "seen", "remedy"),
    [
        (Platform(ignores=frozenset({"since"})), "", "", "since has no effect", "Correct `lower.param`"),
        (Platform(), "param: since", "param: sinc", "sinc has no effect", "leave `lower:` out"),
        (Platform(exclusive=True), "", "", "exactly the value asked for", "declare `meaning: exclusive`"),
        (Platform(newest_first=True), "", "", "does not ascend", "ask for its order, or declare `ascending: false`"),
        (Platform(finer=True), "", "", "finer than the declared 1 s", "smaller precision_seconds"),
        (Platform(one_key=True), "", "", "share their id", "name more fields in `key:`"),
        (Platform(ignores=frozenset({"page"})), "", "", "page has no effect", "Name the parameter"),
        (Platform(), "param: page", "param: pag", "pag has no effect", "Name the parameter"),
        (Platform(ignores=frozenset({"since"})), "type: page, param: page, total_pages: pages", KEYSET, "since has no effect",
         "Name the parameter"),
        (Platform(), "pager: {type: page, param: page, total_pages: pages}", "pager: {type: none}", "10 records and no pager",
         "Declare `pager:`"),
        (Platform(), "type: page, param: page, total_pages: pages", "type: cursor, param: after, token: next",
         "at next nothing says that there is more", "check `pager:`"),
        (Platform(), "type: page, param: page, total_pages: pages", "type: link", "in the Link header nothing says",
         "check `pager:`"),
    ],
)  # fmt: skip
def test_a_mistake_is_caught_and_says_what_to_write(
    platform: Platform, before: str, after: str, seen: str, remedy: str
) -> None:
    assert before in GOOD
    found = warnings(platform, GOOD.replace(before, after) if before else GOOD)
    assert any(seen in warning and remedy in warning for warning in found), found


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("second", [1, 60])
@pytest.mark.parametrize(
    "pager",
    [
        "{type: offset, param: offset}",
        "{type: page, param: page}",
        "{type: keyset, within: {type: page, param: page}}",
        "{type: last_id, param: after}",
    ],
)
def test_a_list_that_fits_on_one_page_is_not_warned_of(pager: str, second: int, count: int) -> None:
    """Its second page shows the end of the first again, or nothing: that is how the pager makes sure of it."""

    class Small(Platform):
        async def answer(self, request: web.Request) -> web.Response:
            start = int(request.query.get("offset", (int(request.query.get("page", 1)) - 1) * 10))
            start = max(start, int(request.query.get("after", -1)) + 1)
            at = [
                (NOW - timedelta(days=5) + timedelta(seconds=n // 2 * second)).isoformat().replace("+00:00", "Z")
                for n in range(count)
            ]
            shown = [{"id": n, "at": at[n]} for n in range(count) if at[n] >= request.query.get("since", "")]
            return replied({"data": shown[start : start + 10]})

    found = warnings(Small(), GOOD.replace("{type: page, param: page, total_pages: pages}", pager))
    assert [warning for warning in found if "shows no record" not in warning] == []


def _posts(request: web.Request, seconds: list[int], size: int) -> web.Response:
    """A page of posts by the second of their last edit, those of one second in another order for each filter and page."""
    since, page = request.query.get("since", ""), int(request.query.get("page", 1))
    at = [
        (NOW - timedelta(days=5) + timedelta(seconds=second)).isoformat().replace("+00:00", "Z") for second in seconds
    ]
    found = [n for n in range(len(seconds)) if at[n] >= since]
    found.sort(key=lambda n: blake2b(f"{n} {since} {page}".encode(), digest_size=4).digest())
    found.sort(key=lambda n: seconds[n])
    shown = [{"id": n, "at": at[n]} for n in found[page * size - size : page * size]]
    return replied({"data": shown, "pages": -(-len(found) // size)})


@pytest.mark.parametrize("pager", ["{type: page, param: page, total_pages: pages}", f"{{{KEYSET}}}"])
@pytest.mark.parametrize(
    ("seconds", "said"),
    [([3] * 25, "come in another order on each page"), ([1, 2, *[3] * 6, *range(4, 30)], "when asked for again")],
    ids=["a group of more than a page", "a group on the first page"],
)
def test_equals_in_no_fixed_order_are_warned_of(pager: str, seconds: list[int], said: str) -> None:
    """HOLE gg: keys repeated on the two pages fetched, or records of one cursor value that come in another order again."""

    class Unordered(Platform):
        async def answer(self, request: web.Request) -> web.Response:
            return _posts(request, seconds, 10)

    found = warnings(Unordered(), GOOD.replace("{type: page, param: page, total_pages: pages}", pager))
    assert any(said in warning and "unique field too" in warning for warning in found), found


@pytest.mark.parametrize(
    ("pager", "said"),
    [
        ("total_pages: pages", "Correct where the pager's total stands"),
        ("has_more: more", "Correct `has_more:`"),
    ],
)
def test_a_total_that_is_missing_fails_with_its_remedy(pager: str, said: str) -> None:
    found = check(Platform(pages_unsaid=True), GOOD.replace("total_pages: pages", pager))
    assert said in found.error
    assert found.records == 0


class Site(Platform):
    """A platform in London: `at` in the site's time without offset; its `since` is in UTC all the same."""

    def _all(self) -> list[dict[str, object]]:
        ats = [self.now - timedelta(days=330) + timedelta(days=3) * n for n in range(110)]
        london = ZoneInfo("Europe/London")
        return [{"id": n, "at": at.astimezone(london).replace(tzinfo=None).isoformat()} for n, at in enumerate(ats)]

    def _within(self, at: str, since: str) -> bool:
        utc = datetime.fromisoformat(at).replace(tzinfo=ZoneInfo("Europe/London")).astimezone(UTC)
        return not since or utc.replace(tzinfo=None).isoformat() >= since


LOCAL = GOOD.replace("field: at,", "field: at, format: local, time_zone: Europe/London,")


def test_a_zone_that_is_wrong_in_summer_only_is_seen_in_winter_too() -> None:
    """The filter is asked around the last change of clocks as well, where London is not UTC."""
    site = Site(now=datetime(2027, 1, 13, 16, tzinfo=UTC))
    found = warnings(site, LOCAL)
    (said,) = found
    assert said.startswith("Before the clocks changed on 2026-10-25: since leaves out a record")
    assert "`time_zone`" in said
    right = LOCAL.replace("meaning: inclusive", "meaning: inclusive, time_zone: Etc/UTC")
    assert warnings(site, right) == []


def test_a_keyset_whose_bound_is_read_in_another_zone_is_told_of_the_zone() -> None:
    """`ascending: false`, which a keyset refuses, is no remedy."""

    class Ahead(Platform):
        def _within(self, at: str, since: str) -> bool:
            return not since or at >= (datetime.fromisoformat(since) - timedelta(hours=5)).isoformat()

    keyset = GOOD.replace("type: page, param: page, total_pages: pages", KEYSET)
    for platform in (Ahead(), Platform(newest_first=True)):
        (found,) = [each for each in warnings(platform, keyset) if "goes back" in each or "does not ascend" in each]
        assert "ascending: false" not in found
        assert "`time_zone` of `lower:`" in found


@pytest.mark.parametrize("meaning", ["inclusive", "exclusive"])
@pytest.mark.parametrize(
    ("pager", "newest_first"),
    [
        ("type: page, param: page, total_pages: pages", False),
        ("type: page, param: page, total_pages: pages", True),
        (KEYSET, False),
    ],
)
def test_a_filter_that_is_taken_for_equality_is_caught(pager: str, newest_first: bool, meaning: str) -> None:
    """HOLE j: Redmine wants `updated_on=>=…`. Without the operator a run reads nothing, or one second, and covers its period."""

    class Redmine(Platform):
        def _within(self, at: str, since: str) -> bool:
            return at >= since[2:] if since.startswith(">=") else not since or at == since

    yaml = GOOD.replace("type: page, param: page, total_pages: pages", pager).replace("inclusive", meaning)
    platform = Redmine(newest_first=newest_first)
    if newest_first:
        yaml = yaml.replace("ascending: true", "ascending: false")
    found = warnings(platform, yaml)
    assert any("since hides what is later" in warning and "`lower.value`" in warning for warning in found), found
    right = yaml.replace("param: since,", 'param: since, value: ">={instant}",')
    assert warnings(platform, right) == []


def test_a_page_size_that_the_platform_cuts_is_told_of() -> None:
    """Pages of 10 that are counted as pages of 500 leave out 490 records each: only the platform knows how it counts."""
    larger = GOOD.replace("value: 10", "value: 500")
    (said,) = warnings(Platform(), larger)
    assert said.startswith("10 records came where 500 were asked for, though there are more")
    assert "`value: 10`" in said


def test_a_short_list_is_not_taken_for_a_cut_page() -> None:
    class Short(Platform):
        def _all(self) -> list[dict[str, object]]:
            return Platform._all(self)[:4]

    for pager in ("{type: page, param: page}", "{type: page, param: page, total_pages: pages}"):
        assert warnings(Short(), GOOD.replace("{type: page, param: page, total_pages: pages}", pager)) == []


def test_a_bound_that_shows_a_grain_more_is_in_order_all_the_same() -> None:
    """Redmine compares with the second before, and keeps fractions: a keyset's next page begins a second before its bound."""

    class Lenient(Platform):
        def _all(self) -> list[dict[str, object]]:
            return [
                {
                    "id": n,
                    "at": (self.now - timedelta(days=5) + timedelta(seconds=n // 2)).isoformat().replace("+00:00", "Z"),
                }
                for n in range(40)
            ]

        def _within(self, at: str, since: str) -> bool:
            return not since or at >= (datetime.fromisoformat(since) - timedelta(seconds=1)).isoformat().replace(
                "+00:00", "Z"
            )

    assert warnings(Lenient(), GOOD.replace("type: page, param: page, total_pages: pages", KEYSET)) == []


def test_order_that_breaks_between_two_pages_is_noticed() -> None:
    class Shuffled(Platform):
        def _all(self) -> list[dict[str, object]]:
            return [*Platform._all(self)[20:30], *Platform._all(self)[:20]]

    found = warnings(Shuffled())
    assert any("goes back from the first page to the second" in warning for warning in found), found


def test_a_further_request_that_fails_is_a_warning_and_not_the_end() -> None:
    class Limited(Platform):
        async def answer(self, request: web.Request) -> web.Response:
            if request.query.get("page") == "2":
                return web.Response(status=503)
            return await Platform.answer(self, request)

    found = warnings(Limited())
    assert any("not everything could be tried: source_unavailable" in warning for warning in found), found


@pytest.mark.parametrize("bare_first", [True, False])
def test_records_without_a_cursor_value_until_their_first_edit_are_told_of(bare_first: bool) -> None:
    """SPEC 4: Directus leaves `date_updated` null until then. No bound ever shows such a record: the run covers 971 of 1,300."""

    class Directus(Platform):
        async def answer(self, request: web.Request) -> web.Response:
            edited = [
                record for record in self._all() if self._within(str(record["at"]), request.query.get("since", ""))
            ]
            bare = [{"id": 100 + n, "at": None} for n in range(5 if "since" not in request.query else 0)]
            page, records = int(request.query.get("page", 1)), [*bare, *edited] if bare_first else [*edited[:3], *bare]
            return replied({"data": records[page * 10 - 10 : page * 10], "pages": -(-len(records) // 10)})

    found = warnings(Directus())
    assert any("5 of " in warning and "have no readable at where all are asked for" in warning for warning in found), (
        found
    )
    assert any("leave `cursor:` and `lower:` out" in warning for warning in found), found


@pytest.mark.parametrize("inner", ["{type: page, param: _page}", "{type: page, param: _page, total_pages: pages}"])
def test_a_keyset_whose_inner_page_is_ignored_is_told_of(inner: str) -> None:
    """SPEC 4: the bound moves all the same, so two pages look right, and each run fails where the listing ends."""
    keyset = GOOD.replace("{type: page, param: page, total_pages: pages}", f"{{type: keyset, within: {inner}}}")
    (said,) = warnings(Platform(), keyset)
    assert said.startswith("_page has no effect: within one cursor value the second page repeats the first")
    assert warnings(Platform(), keyset.replace("param: _page", "param: page")) == []


class Filled(Platform):
    """An account that was filled for a trial: all its records are of one second."""

    def _all(self) -> list[dict[str, object]]:
        at = (self.now - timedelta(days=5)).isoformat().replace("+00:00", "Z")
        return [{"id": n, "at": at} for n in range(40)]


@pytest.mark.parametrize("meaning", ["inclusive", "exclusive"])
def test_records_of_one_moment_tell_of_a_filter_too(meaning: str) -> None:
    """HOLE j: epoch seconds where a platform takes milliseconds, and a misspelt parameter, show everything each time."""
    yaml = GOOD.replace("inclusive", meaning)
    assert warnings(Filled(), yaml) == []
    (said,) = warnings(Filled(ignores=frozenset({"since"})), yaml)
    assert said.startswith("since has no effect: asked from 2026-07-13")
    assert "40 of" not in said


def test_records_of_one_moment_tell_of_a_filter_that_compares_for_equality() -> None:
    """HOLE j: the run that asks from a day before shows none of them, and is covered."""

    class Equal(Filled):
        def _within(self, at: str, since: str) -> bool:
            return not since or at == since

    (said,) = warnings(Equal())
    assert said.startswith("since hides what is later")
    assert "none of 10 records" in said


@pytest.mark.parametrize(
    ("pager", "said"),
    [
        ("{type: page, param: page, total_pages: pages}", "since hides 2 of 6 pages"),
        ("{type: page, param: page, total_records: total}", "since hides 15 of 55 records"),
        ("{type: keyset, within: {type: page, param: page, total_records: total}}", "since hides 15 of 55 records"),
    ],
)
def test_records_that_no_bound_shows_are_counted_where_they_stand_last(pager: str, said: str) -> None:
    """SPEC 4: PostgreSQL orders what is null last, so that no first page shows it."""

    class NullsLast(Platform):
        async def answer(self, request: web.Request) -> web.Response:
            since, page = request.query.get("since", ""), int(request.query.get("page", 1))
            edited = [record for record in self._all() if self._within(str(record["at"]), since)]
            records = [*edited, *([] if since else [{"id": 100 + n, "at": None} for n in range(15)])]
            counts = {"pages": -(-len(records) // 10), "total": len(records)}
            return replied({"data": records[page * 10 - 10 : page * 10], **counts})

    (found,) = warnings(NullsLast(), GOOD.replace("{type: page, param: page, total_pages: pages}", pager))
    assert found.startswith(said)
    assert "leave `cursor:` and `lower:` out" in found


def test_what_is_deleted_while_the_check_counts_is_not_hidden() -> None:
    gone: list[str] = []

    class Shrinking(Platform):
        async def answer(self, request: web.Request) -> web.Response:
            since, page = request.query.get("since", ""), int(request.query.get("page", 1))
            gone.extend([since] * 5 if since.startswith("2000") else [])
            records = [record for record in self._all()[len(gone) :] if self._within(str(record["at"]), since)]
            return replied({"data": records[page * 10 - 10 : page * 10], "total": len(records)})

    assert warnings(Shrinking(), GOOD.replace("total_pages: pages", "total_records: total")) == []
    assert len(gone) == 5


FEED = declaration("""
    path: /orders
    records: data
    pager: {type: page, param: page, total_pages: pages}
    changes: {param: token, token: {header: ETag}}
""")


@pytest.mark.parametrize("count", [0, 1, 40])
def test_a_change_token_without_effect_is_told_of(count: int) -> None:
    """SPEC 4: Kinto shows what is deleted only to who asks since; a misspelt parameter lists everything each time."""

    class Feed(Platform):
        async def answer(self, request: web.Request) -> web.Response:
            page = int(request.query.get("page", 1))
            records = [] if request.query.get("token") == "7" else self._all()[:count]
            body = {"data": records[page * 10 - 10 : page * 10], "pages": max(1, -(-len(records) // 10))}
            return replied(body, {"ETag": "7"})

    found = warnings(Feed(), FEED.replace("param: token", "param: tokn"))
    said = [each for each in found if each.startswith("tokn has no effect: asked for what has changed since")]
    assert len(said) == (1 if count == 40 else 0), found
    right = [warning for warning in warnings(Feed(), FEED) if "shows no record" not in warning]
    assert right == []
