"""Filters never lose a record: a source that compares as it pleases still shows all that was asked for (HOLE j)."""

from __future__ import annotations

import asyncio
import itertools
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.connectors.rest.sources import NOW, Handler, LeapingClock, Record, asked, declaration, fetched, ids, replied
from tidegate.connectors.rest.declaration import BoundParam, Meaning
from tidegate.connectors.rest.filters import overshoot, render_lower, render_upper
from tidegate.connectors.rest.listing import HISTORY_MARGIN
from tidegate.domain.cursor import EPOCH, CursorField, CursorFormat
from tidegate.domain.period import Period
from tidegate.domain.zone_data import zone_info

SECOND = timedelta(seconds=1)
ZONES = ["Etc/UTC", "Europe/London", "America/New_York", "Australia/Lord_Howe", "Pacific/Auckland", "Asia/Kolkata"]
# Around every kind of clock change these zones have, and an ordinary week.
MOMENTS = [
    datetime(2026, 3, 29, tzinfo=UTC),
    datetime(2026, 10, 24, 12, tzinfo=UTC),
    datetime(2026, 11, 1, tzinfo=UTC),
    datetime(2026, 4, 4, tzinfo=UTC),
    datetime(2026, 7, 13, tzinfo=UTC),
]
instants = st.builds(
    lambda moment, offset: moment + timedelta(microseconds=offset),
    st.sampled_from(MOMENTS),
    st.one_of(
        st.integers(0, 172_800_000_000),
        st.integers(0, 192).map(lambda quarters: quarters * 900_000_000),
        st.integers(0, 172_800).map(lambda seconds: seconds * 1_000_000),
    ),
)


def _written(cursor: CursorField, true: datetime) -> object:
    """A record changed at ``true`` as the source shows it: cut to its grain."""
    if cursor.format is CursorFormat.DATE:
        return true.astimezone(zone_info(cursor.time_zone)).date().isoformat()
    if cursor.format is CursorFormat.LOCAL:
        wall = true.astimezone(zone_info(cursor.time_zone)).replace(tzinfo=UTC, fold=0)
        return _cut(wall, cursor.precision).replace(tzinfo=None).isoformat()
    cut = _cut(true, cursor.precision)
    if cursor.format is CursorFormat.EPOCH_SECONDS:
        return (cut - EPOCH) // SECOND
    if cursor.format is CursorFormat.EPOCH_MILLISECONDS:
        return (cut - EPOCH) // timedelta(milliseconds=1)
    return cut.isoformat()


def _cut(instant: datetime, grain: timedelta) -> datetime:
    return EPOCH + (instant - EPOCH) // grain * grain


def _comparable(bound: BoundParam, cursor: CursorField, true: datetime, *, hidden: bool) -> object:
    """The value that the source compares with the parameter: in its own terms, exact (``hidden``) or as shown."""
    zone = zone_info(bound.time_zone)
    value = true if hidden else cursor.parse(_written(cursor, true))
    if bound.format is CursorFormat.DATE:
        return value.astimezone(zone).date()
    if bound.format is CursorFormat.LOCAL:
        if not hidden and cursor.format is CursorFormat.LOCAL:
            return datetime.fromisoformat(str(_written(cursor, true)))  # the wall's reading is all it has
        return value.astimezone(zone).replace(tzinfo=None, fold=0)
    return value


def _parameter(bound: BoundParam, text: str) -> object:
    match bound.format:
        case CursorFormat.DATE:
            return date.fromisoformat(text)
        case CursorFormat.LOCAL | CursorFormat.ISO:
            return datetime.fromisoformat(text)
        case CursorFormat.EPOCH_SECONDS:
            return EPOCH + int(text) * SECOND
        case CursorFormat.EPOCH_MILLISECONDS:
            return EPOCH + int(text) * timedelta(milliseconds=1)


GRAINS = {
    CursorFormat.ISO: timedelta(microseconds=1),
    CursorFormat.LOCAL: timedelta(microseconds=1),
    CursorFormat.EPOCH_SECONDS: SECOND,
    CursorFormat.EPOCH_MILLISECONDS: timedelta(milliseconds=1),
    CursorFormat.DATE: timedelta(days=1),
}


@st.composite
def sides(draw: st.DrawFn) -> tuple[CursorField, BoundParam]:
    zone = draw(st.sampled_from(ZONES))
    kind = draw(st.sampled_from(list(CursorFormat)))
    precision = max(
        GRAINS[kind], draw(st.sampled_from([timedelta(microseconds=1), SECOND, 60 * SECOND, 3600 * SECOND]))
    )
    cursor = CursorField(("at",), kind, zone, precision)
    param = draw(st.sampled_from(list(CursorFormat)))
    grain = max(GRAINS[param], precision, draw(st.sampled_from([timedelta(microseconds=1), SECOND, 60 * SECOND])))
    return cursor, BoundParam("p", draw(st.sampled_from(list(Meaning))), param, grain, zone)


# What could be lost lies within a few hours of the bound where clocks change, within a day where values are dates.
near = st.one_of(st.integers(-16, 16), st.integers(-120, 120)).map(lambda quarters: timedelta(minutes=15 * quarters))


@given(sides(), instants, near, st.booleans())
def test_every_change_from_the_lower_bound_on_is_shown(
    side: tuple[CursorField, BoundParam], lower: datetime, later: timedelta, hidden: bool
) -> None:
    cursor, bound = side
    true = lower + later
    text, shown_from = render_lower(bound, cursor, lower)
    assert shown_from <= lower
    if true < lower and cursor.parse(_written(cursor, true)) < shown_from:
        return
    value, parameter = _comparable(bound, cursor, true, hidden=hidden), _parameter(bound, text)
    if bound.meaning is Meaning.INCLUSIVE:
        assert value >= parameter  # type: ignore[operator]
    else:
        assert value > parameter  # type: ignore[operator]


@given(
    sides(), instants, st.one_of(near, st.integers(-120, 0).map(lambda hours: timedelta(hours=hours))), st.booleans()
)
def test_no_lower_bound_reaches_back_further_than_it_says(
    side: tuple[CursorField, BoundParam], lower: datetime, later: timedelta, hidden: bool
) -> None:
    """SPEC 4: what was delivered may be forgotten only where no fetch shows it again."""
    cursor, bound = side
    true = lower + later
    value = _comparable(bound, cursor, true, hidden=hidden)
    parameter = _parameter(bound, render_lower(bound, cursor, lower)[0])
    shown = value >= parameter if bound.meaning is Meaning.INCLUSIVE else value > parameter  # type: ignore[operator]
    reach = overshoot(bound)
    assert reach is not None
    if shown:
        assert cursor.parse(_written(cursor, true)) >= cursor.floor(lower) - reach


@given(sides(), instants, near, st.booleans())
def test_every_record_before_the_upper_bound_is_shown(
    side: tuple[CursorField, BoundParam], upper: datetime, later: timedelta, hidden: bool
) -> None:
    cursor, bound = side
    true = upper + later
    if cursor.parse(_written(cursor, true)) >= upper:
        return
    value, parameter = (
        _comparable(bound, cursor, true, hidden=hidden),
        _parameter(bound, render_upper(bound, cursor, upper)),
    )
    if bound.meaning is Meaning.INCLUSIVE:
        assert value <= parameter  # type: ignore[operator]
    else:
        assert value < parameter  # type: ignore[operator]


@pytest.mark.parametrize("upper", ["2026-11-01T05:00:00.000001", "2026-11-01T05:30:00", "2026-11-01T06:59:59"])
def test_an_upper_bound_inside_a_repeated_hour_reaches_its_second_end(upper: str) -> None:
    """HOLES i, j: 01:45 on New York's wall, the second time, reads as before the bound and lies after it."""
    cursor = CursorField(("at",), CursorFormat.LOCAL, "America/New_York", timedelta(microseconds=1))
    bound = BoundParam("p", Meaning.EXCLUSIVE, CursorFormat.ISO, timedelta(microseconds=1), "Etc/UTC")
    true = datetime(2026, 11, 1, 6, 45, tzinfo=UTC)
    instant = datetime.fromisoformat(upper).replace(tzinfo=UTC)
    assert cursor.parse("2026-11-01T01:45:00") < instant
    assert datetime.fromisoformat(render_upper(bound, cursor, instant)) > true


LONDON = CursorField(("at",), CursorFormat.LOCAL, "Europe/London", SECOND)
ON_THE_WALL = BoundParam("p", Meaning.INCLUSIVE, CursorFormat.LOCAL, SECOND, "Europe/London")


@pytest.mark.parametrize(
    ("instant", "wall"),
    [
        ("2026-10-24T22:45:00", "2026-10-24T22:45:00"),  # British summer time still, but clocks go back within the day
        ("2026-10-25T00:45:00", "2026-10-25T00:00:00"),  # first pass of 01:45; a change at 01:10Z will read 01:10
        ("2026-10-25T02:00:00", "2026-10-25T02:00:00"),
        ("2026-07-13T12:00:00", "2026-07-13T13:00:00"),
    ],
)
def test_a_lower_bound_in_wall_time_reaches_what_the_repeated_hour_will_show(instant: str, wall: str) -> None:
    """HOLE b and j: after the first pass of 01:45 comes 01:00 again, which a bound of 01:45 would never show."""
    assert render_lower(ON_THE_WALL, LONDON, datetime.fromisoformat(instant).replace(tzinfo=UTC))[0] == wall


@pytest.mark.parametrize(
    ("instant", "wall"),
    [
        ("2026-10-25T01:15:00", "2026-10-25T02:15:00"),  # second pass of 01:15; the first reached 01:59:59
        ("2026-10-25T00:15:00", "2026-10-25T01:15:00"),
        ("2026-07-13T12:00:00", "2026-07-13T13:00:00"),
    ],
)
def test_an_upper_bound_in_wall_time_is_above_the_whole_first_pass(instant: str, wall: str) -> None:
    """HOLE b and j."""
    assert render_upper(ON_THE_WALL, LONDON, datetime.fromisoformat(instant).replace(tzinfo=UTC)) == wall


def test_an_upper_bound_for_dates_reaches_the_end_of_the_day_where_the_source_is() -> None:
    """A record dated July 10 in New York may have been written until July 11, 04:00 UTC."""
    cursor = CursorField(("on",), CursorFormat.DATE, "America/New_York", timedelta(days=1))
    bound = BoundParam("p", Meaning.EXCLUSIVE, CursorFormat.EPOCH_SECONDS, SECOND, "America/New_York")
    text = render_upper(bound, cursor, datetime(2026, 7, 10, 5, tzinfo=UTC))
    assert int(text) >= datetime(2026, 7, 11, 4, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(("low", "high"), [*itertools.product(["gt", "gte"], ["lt", "lte"])])
def test_records_at_the_bounds_are_shown_once_over_two_neighbouring_periods(low: str, high: str) -> None:
    """HOLE j: ties at the boundary, with every combination of inclusive and exclusive parameters."""
    meaning = {"gt": "exclusive", "lt": "exclusive", "gte": "inclusive", "lte": "inclusive"}
    yaml = declaration(f"""
    path: /events
    records: data
    cursor: {{field: created, format: epoch_seconds, changes: false}}
    lower: {{param: "created[{low}]", meaning: {meaning[low]}}}
    upper: {{param: "created[{high}]", meaning: {meaning[high]}}}
""")
    middle = int(NOW.timestamp())
    records = [{"id": n, "created": middle + offset} for n, offset in enumerate([-2, -1, 0, 0, 0, 1, 2])]

    async def source(request: web.Request) -> web.Response:
        compare = {"gt": int.__gt__, "gte": int.__ge__, "lt": int.__lt__, "lte": int.__le__}
        kept = [
            record
            for record in records
            if all(compare[name[8:-1]](int(str(record["created"])), int(text)) for name, text in request.query.items())
        ]
        return replied({"data": kept})

    before = asked(NOW - timedelta(hours=1), NOW)
    after = asked(NOW, NOW + timedelta(hours=1))
    first, second = asyncio.run(fetched(source, yaml, before)), asyncio.run(fetched(source, yaml, after))
    assert set(ids(first)) >= {0, 1}
    assert set(ids(second)) >= {2, 3, 4, 5, 6}
    assert first[-1].report.proves(Period(NOW - timedelta(hours=1), NOW))
    assert second[-1].report.proves(Period(NOW, NOW + timedelta(hours=1)))


async def _empty(request: web.Request) -> web.Response:
    return replied([])


def test_a_source_without_filters_is_listed_in_full_and_the_report_says_so() -> None:
    yaml = declaration("    path: /orders\n    cursor: {field: updated_at}")
    report = asyncio.run(fetched(_empty, yaml, asked(NOW - timedelta(days=1), NOW)))[0].report
    assert (report.lower, report.upper, report.filters) == (None, None, {})


def test_a_source_that_serves_sixty_days_says_from_where_it_could_show() -> None:
    """HOLE w: requested against available; the report must not prove the months that were not served."""
    yaml = declaration("""
    path: /orders
    history_seconds: 5184000
    cursor: {field: updated_at}
    lower: {param: since, meaning: inclusive}
""")
    asks: list[str] = []

    async def source(request: web.Request) -> web.Response:
        asks.append(request.query["since"])
        return replied([])

    half_a_year_ago = NOW - timedelta(days=180)
    report = asyncio.run(fetched(source, yaml, asked(half_a_year_ago)))[0].report
    assert report.lower == NOW - timedelta(days=60) + HISTORY_MARGIN
    assert not report.proves(Period(half_a_year_ago, NOW))
    uneven = LeapingClock(NOW + timedelta(milliseconds=500))
    report = asyncio.run(fetched(source, yaml, asked(half_a_year_ago), clock=uneven))[0].report
    shown_from = uneven.now() - timedelta(days=60) + HISTORY_MARGIN
    assert report.lower == shown_from, "asking from a rounded instant shows no older records"
    recent = asyncio.run(fetched(source, yaml, asked(NOW - timedelta(days=2))))[0].report
    assert recent.proves(Period(NOW - timedelta(days=2), NOW))
    assert asks == ["2026-05-14T16:00:00Z", "2026-05-14T16:00:00Z", "2026-07-11T16:00:00Z"]


@pytest.mark.parametrize("margin", [timedelta(minutes=1), timedelta(minutes=30)])
def test_what_expires_while_it_is_listed_newest_first_is_not_called_shown(margin: timedelta) -> None:
    """HOLE w: the oldest page is read last, and by then the edge of what the source serves has moved on."""
    yaml = declaration("""
    path: /events
    records: data
    history_seconds: 2592000
    cursor: {field: created, format: epoch_seconds, changes: false}
    lower: {param: since, meaning: inclusive}
    upper: {param: before, meaning: exclusive}
    pager: {type: last_id, param: after, has_more: has_more}
""")
    clock = LeapingClock()
    start = NOW - timedelta(days=30) + margin
    events: list[Record] = [
        {"id": f"e{n}", "created": int((start + timedelta(minutes=n)).timestamp())} for n in range(6)
    ][::-1]

    async def source(request: web.Request) -> web.Response:
        alive = [
            event for event in events if int(str(event["created"])) >= (clock.now() - timedelta(days=30)).timestamp()
        ]
        after = request.query.get("after")
        at = next((n + 1 for n, event in enumerate(alive) if event["id"] == after), 0)
        await clock.sleep(120)  # the time that a page takes
        return replied({"data": alive[at : at + 2], "has_more": at + 2 < len(alive)})

    pages = asyncio.run(fetched(source, yaml, asked(start, NOW), clock=clock))
    proven = all(page.report.proves(Period(start, NOW)) for page in pages)
    assert (len(ids(pages)), proven) == ((6, True) if margin > timedelta(minutes=6) else (5, False))


def test_declared_filters_are_sent_and_reported_and_keep_the_run_unproven() -> None:
    """SPEC 5: a fetch reports the filters that took effect."""
    yaml = declaration("    path: /orders\n    params: {limit: 50}\n    filters: {status: open}")
    asks: list[str] = []

    async def source(request: web.Request) -> web.Response:
        asks.append(request.query_string)
        return replied([])

    report = asyncio.run(fetched(source, yaml))[0].report
    assert asks == ["limit=50&status=open"]
    assert report.filters == {"status": "open"}
    assert not report.proves(Period(NOW - timedelta(days=1), NOW))


ASCENDING = declaration("""
    path: /orders
    records: data
    cursor: {field: updated_at, ascending: true}
    lower: {param: since, meaning: inclusive}
    pager: {type: cursor, param: after, token: next, stable: true}
""")


def _at(seconds: int) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


def _pages_of(listed: list[list[int]]) -> tuple[list[int], Handler]:
    asks: list[int] = []

    async def source(request: web.Request) -> web.Response:
        number = int(request.query.get("after", 0))
        asks.append(number)
        records = [{"id": f"{number}.{place}", "updated_at": _at(at)} for place, at in enumerate(listed[number])]
        return replied({"data": records, "next": number + 1 if number + 1 < len(listed) else None})

    return asks, source


def test_an_ascending_stream_stops_once_it_has_passed_the_clock_read_before() -> None:
    """HOLE hh: an open-ended listing of a busy shop does not chase new records for ever."""
    asks, source = _pages_of([[-9, -5], [-3, 0], [1, 4], [5, 6], [7, 8]])
    pages = asyncio.run(fetched(source, ASCENDING, asked(NOW - timedelta(days=1))))
    assert asks == [0, 1, 2]
    assert pages[-1].token is None
    assert pages[-1].report.upper == NOW
    assert pages[-1].report.proves(Period(NOW - timedelta(days=1), NOW))
    assert pages[0].report.upper is None


def test_ties_at_the_clock_are_all_shown_before_an_ascending_stream_stops() -> None:
    asks, source = _pages_of([[-1, 0], [0, 0], [0, 1], [2, 3]])
    asyncio.run(fetched(source, ASCENDING, asked(NOW - timedelta(days=1))))
    assert asks == [0, 1, 2]


@pytest.mark.parametrize(
    "listed",
    [
        [[-30, -29], [-9, -20, 5], [-3, -1]],  # disorder within the page that has passed the clock
        [[-30, -5], [-9, -7], [3, 4], [-2, -1]],  # disorder between two pages, before one that has passed it
        [[9, 8], [7, 6], [-1, -2]],  # newest first
    ],
)
def test_a_stream_declared_ascending_that_is_not_is_read_to_the_end(listed: list[list[int]]) -> None:
    """SPEC 4: only order makes stopping safe; from the first disorder seen on, all pages are read."""
    asks, source = _pages_of(listed)
    pages = asyncio.run(fetched(source, ASCENDING, asked(NOW - timedelta(days=1))))
    assert asks == list(range(len(listed)))
    assert pages[-1].report.upper is None


@pytest.mark.usefixtures("another_system")
def test_wall_time_and_dates_go_by_the_pinned_zone_data_whatever_the_system_has() -> None:
    """SPEC 2.12, 4: one installation, one answer; a system whose rules are years old would shift bounds by an hour."""
    assert ZoneInfo("America/Havana").utcoffset(datetime(2026, 7, 1)) == timedelta(hours=9)
    local = CursorField(("at",), CursorFormat.LOCAL, "America/Havana", changes=False)
    day = CursorField(("at",), CursorFormat.DATE, "America/Havana", timedelta(days=1))
    noon = datetime(2026, 7, 1, 16, tzinfo=UTC)
    assert local.parse("2026-07-01 12:00:00") == noon
    assert day.parse("2026-07-01") == datetime(2026, 7, 1, 4, tzinfo=UTC)
    bound = BoundParam("to", Meaning.INCLUSIVE, CursorFormat.LOCAL, timedelta(seconds=1), "America/Havana")
    assert render_lower(bound, local, noon) == ("2026-07-01T12:00:00", noon)
    assert render_upper(bound, local, noon) == "2026-07-01T12:00:00"


@pytest.fixture
def another_system(tmp_path: Path) -> Iterator[None]:
    """A system whose file for Havana has Tokyo's rules."""
    (tmp_path / "America").mkdir()
    tokyo = resources.files("tzdata").joinpath("zoneinfo", "Asia", "Tokyo").read_bytes()
    (tmp_path / "America" / "Havana").write_bytes(tokyo)
    ZoneInfo.clear_cache()
    zoneinfo.reset_tzpath(to=[tmp_path])
    yield
    zoneinfo.reset_tzpath()
    ZoneInfo.clear_cache()
