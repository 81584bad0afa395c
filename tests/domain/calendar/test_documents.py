"""What is accepted as a schedule, and how the rest is refused (SPEC 2, HOLES z, mm)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.errors import InvalidInput
from tidegate.domain.recurrence import Cron, Every, Frequency
from tidegate.domain.schedule import Schedule
from tidegate.domain.schedule_document import FIELDS, parse_schedule
from tidegate.domain.zone_data import zone_names

SEED = {"selectedFrequency": "Daily", "frequencyOptions": ["Daily", "Monthly"], "startDate": "2022-06-15"}
NATIVE = {"daily": True, "start_date": "2022-06-15"}


@pytest.mark.parametrize(
    ("extra", "hour", "zone"),
    [
        ({}, 0, "Etc/UTC"),
        ({"timeZone": None, "syncHourUtc": None}, 0, "Etc/UTC"),
        ({"timeZone": "ETC/Utc", "syncHour": 23}, 23, "Etc/UTC"),
        ({"timeZone": "Europe/London", "syncHourUtc": 6, "syncHour": 6}, 6, "Europe/London"),
        ({"selectedFrequency": "DAILY", "frequencyOptions": "Daily"}, 0, "Etc/UTC"),
        ({"frequencyOptions": None}, 0, "Etc/UTC"),
    ],
)
def test_the_seeds_form_is_accepted_as_it_stands(extra: dict[str, object], hour: int, zone: str) -> None:
    """SPEC 2: with both names of the hour, null, and the string that the seed's table prints (HOLE mm)."""
    expected = Schedule(Frequency.DAILY, zone, hour, start_on=date(2022, 6, 15))
    assert parse_schedule({**SEED, **extra}) == expected


@pytest.mark.parametrize(
    ("name", "recurrence"),
    [
        ("Daily", Frequency.DAILY),
        ("weekly", Frequency.WEEKLY),
        ("Monthly", Frequency.MONTHLY),
        ("Hourly", Every(timedelta(hours=1))),
    ],
)
def test_the_seeds_frequencies(name: str, recurrence: object) -> None:
    """In any case of letters."""
    document = {"selectedFrequency": name, "frequencyOptions": [name], "startDate": "2022-06-15"}
    assert parse_schedule(document).recurrence == recurrence


@pytest.mark.parametrize(
    ("rule", "recurrence"),
    [
        ({"every": "5m"}, Every(timedelta(minutes=5))),
        ({"every": "1h30m"}, Every(timedelta(minutes=90))),
        ({"every": "1h 30m"}, Every(timedelta(minutes=90))),
        ({"every": "PT1H30M"}, Every(timedelta(minutes=90))),
        ({"every": "P1D"}, Every(timedelta(days=1))),
        ({"every": "P2W"}, Every(timedelta(days=14))),
        ({"every": 60}, Every(timedelta(minutes=1))),
        ({"daily": True, "every": None}, Frequency.DAILY),
        ({"weekly": True}, Frequency.WEEKLY),
        ({"monthly": True}, Frequency.MONTHLY),
        ({"cron": " 30  6 * * mon-fri"}, Cron("30 6 * * MON-FRI")),
    ],
)
def test_the_native_recurrences(rule: dict[str, object], recurrence: object) -> None:
    """SPEC 2; null is the same as leaving the key out."""
    assert parse_schedule(rule).recurrence == recurrence


REFUSED = [
    # document, field, part of the sentence
    ({**SEED, "timeZone": "Europe/Londn"}, "timeZone", 'Did you mean "Europe/London"?'),
    ({**SEED, "timeZone": "europe/lodnon"}, "timeZone", 'Did you mean "Europe/London"?'),
    ({**SEED, "syncHourUtc": 24}, "syncHourUtc", "0 to 23"),
    ({**SEED, "syncHourUtc": -1}, "syncHourUtc", "0 to 23"),
    ({**SEED, "syncHour": True}, "syncHour", "0 to 23"),
    ({**SEED, "syncHour": "6"}, "syncHour", "0 to 23"),
    ({**SEED, "syncHour": 6.5}, "syncHour", "0 to 23"),
    ({**SEED, "syncHour": 6, "syncHourUtc": 5}, "syncHour", "both mean the local hour"),
    ({**SEED, "selectedFrequency": "Weekly"}, "selectedFrequency", "is not among"),
    ({**SEED, "selectedFrequency": "Fortnightly"}, "selectedFrequency", "Daily, Weekly, Monthly or Hourly"),
    ({**SEED, "selectedFrequency": None}, "selectedFrequency", "is not a frequency"),
    ({**SEED, "frequencyOptions": []}, "selectedFrequency", "is not among"),
    ({**SEED, "frequencyOptions": [1]}, "frequencyOptions", "is not a list"),
    ({**SEED, "startDate": None}, "startDate", "is missing"),
    ({**SEED, "startDate": "2022-06-15T00:00:00+02:00"}, "startDate", "Write the date alone"),
    ({**SEED, "startDate": "2022-06-15T06:00:00Z"}, "startDate", "Write the date alone"),
    ({**SEED, "startDate": "2022-02-30"}, "startDate", "is not a date"),
    ({**SEED, "startDate": "15/06/2022"}, "startDate", "is not a date"),
    ({**SEED, "startDate": 20220615}, "startDate", "is not a date"),
    ({**SEED, "startDate": "0001-01-01T00:00:00"}, "startDate", "1900 to 2399"),
    ({**SEED, "startDate": "9999-12-31"}, "startDate", "1900 to 2399"),
    ({**SEED, "startDate": "0000-00-00"}, "startDate", "is not a date"),
    ({**SEED, "startdate": "2022-06-15"}, "startdate", 'Did you mean "startDate"?'),
    ({**SEED, "settle": "5m"}, "settle", "the other way"),
    ({**NATIVE, "timeZone": "Europe/London"}, "timeZone", "the other way"),
    ({**NATIVE, "time_zon": "Europe/London"}, "time_zon", 'Did you mean "time_zone"?'),
    ({**NATIVE, "xyzzy": 1}, "xyzzy", "Known are every"),
    ({**NATIVE, "sync_hour": 24}, "sync_hour", "0 to 23"),
    ({**NATIVE, "weekly": True}, "schedule", "more than one"),
    ({"start_date": "2022-06-15"}, "schedule", "no recurrence"),
    ({}, "schedule", "no recurrence"),
    ({"daily": False}, "daily", "is not true"),
    ({"daily": {"sync_hour": 6}}, "daily", "sync_hour beside it"),
    ({"every": "59s"}, "every", '"1m" or more'),
    ({"every": 0}, "every", '"1m" or more'),
    ({"every": -60}, "every", "a hundred years"),
    ({"every": "999999w"}, "every", "a hundred years"),
    ({"every": True}, "every", "is not a duration"),
    ({"every": 90.5}, "every", "is not a duration"),
    ({"every": ""}, "every", "is not a duration"),
    ({"every": "P"}, "every", "is not a duration"),
    ({"every": "P1M"}, "every", "is not a duration"),
    ({"every": "5 minutes"}, "every", "is not a duration"),
    ({"every": "5m", "sync_hour": 6}, "sync_hour", "has no effect"),
    ({**NATIVE, "start_at": "2022-06-15T00:00:00Z"}, "start_at", "Keep one"),
    ({"daily": True, "start_at": "2022-06-15"}, "start_at", "start_date"),
    ({"daily": True, "start_at": "2022-06-15T06:00:00"}, "start_at", "offset"),
    ({"daily": True, "start_at": "0001-01-01T00:00:00+14:00"}, "start_at", "calendar"),
    ({"daily": True, "start_at": "9999-12-31T23:00:00-12:00"}, "start_at", "calendar"),
    ({"daily": True, "start_date": "2022-06-15T06:00:00Z"}, "start_date", "start_at"),
    ({**NATIVE, "settle": "-5m"}, "settle", "is not a duration"),
    ({**NATIVE, "catch_up": 1}, "catch_up", "each"),
    ({**NATIVE, "catch_up": "skip"}, "catch_up", "coalesce"),
    ({**NATIVE, "max_period": "59s"}, "max_period", "shorter than 1 minute"),
    ({**NATIVE, "max_period": "a while"}, "max_period", "is not a duration"),
    ({"cron": "0 0 30 2 *"}, "cron", "never falls on any day"),
    ({"cron": "0 0 31 4,6,9,11 *"}, "cron", "never falls on any day"),
    ({"cron": "0 0 * *"}, "cron", "five fields"),
    ({"cron": "0 0 0 * * *"}, "cron", "five fields"),
    ({"cron": "0 24 * * *"}, "cron", "Bad hour"),
    ({"cron": "0 0 * * MO"}, "cron", "Bad day-of-week"),
    ({"cron": "9" * 5000 + " 0 * * *"}, "cron", "cannot be read"),
    ({"cron": 5}, "cron", "in quotes"),
    ([], "schedule", "is not an object"),
    ("daily", "schedule", "is not an object"),
    (None, "schedule", "is not an object"),
]


@pytest.mark.parametrize("name", ["BST", "IST", "JST", "PST", "CEST", " AEST "])
def test_no_zone_is_guessed_for_an_abbreviation(name: str) -> None:
    """IST is three zones, BST two; the nearest spelling (JST: "MST"?) would be hours away from what was meant."""
    with pytest.raises(InvalidInput) as refused:
        parse_schedule({**SEED, "timeZone": name})
    assert "Did you mean" not in refused.value.remedy
    assert '"Europe/London"' in refused.value.remedy


@pytest.mark.parametrize(("document", "field", "words"), REFUSED)
def test_a_bad_schedule_is_refused_with_field_value_and_remedy(document: object, field: str, words: str) -> None:
    """SPEC 2 and 8: one sentence that a person can act on, and the same for machines."""
    with pytest.raises(InvalidInput) as refused:
        parse_schedule(document)
    assert refused.value.field == field
    assert words in str(refused.value)
    assert refused.value.remedy
    assert json.loads(json.dumps(refused.value.as_json()))["field"] == field


def test_dates_and_instants_of_python_are_accepted() -> None:
    """YAML readers make dates of what looks like one."""
    by_text = parse_schedule({"daily": True, "start_date": "2022-06-15"})
    assert parse_schedule({"daily": True, "start_date": date(2022, 6, 15)}) == by_text
    instant = datetime(2022, 6, 15, 6, tzinfo=UTC)
    assert parse_schedule({"daily": True, "start_at": instant}).start_at == instant


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: Schedule(Frequency.DAILY, settle=timedelta(seconds=-1)), "settle"),
        (lambda: Schedule(Frequency.DAILY, spread_window=timedelta(microseconds=1)), "spread"),
        (lambda: Schedule(Frequency.DAILY, sync_hour=24), "sync_hour"),
        (lambda: Schedule(Frequency.DAILY, "Europe/Londn"), "time_zone"),
        (lambda: Schedule(Every(timedelta(seconds=90.5))), "every"),
    ],
)
def test_a_schedule_that_exists_is_valid(build: Callable[[], Schedule], field: str) -> None:
    """However it was made."""
    with pytest.raises(InvalidInput) as refused:
        build()
    assert refused.value.field == field


def test_a_naive_time_is_never_taken_for_the_hosts() -> None:
    """Not as a start, and not as an instant of receipt."""
    with pytest.raises(TypeError):
        Schedule(Frequency.DAILY, start_at=datetime(2026, 1, 1))
    with pytest.raises(TypeError):
        Schedule(Frequency.DAILY).started(datetime(2026, 1, 1))


@given(
    rule=st.sampled_from(
        [
            {"every": "5m"},
            {"every": "36h1s"},
            {"daily": True},
            {"weekly": True},
            {"monthly": True},
            {"cron": "5 4 * * *"},
        ]
    ),
    zone=st.sampled_from(zone_names()),
    start=st.one_of(
        st.dates(date(1900, 1, 1), date(2399, 12, 31)).map(lambda day: {"start_date": day.isoformat()}),
        st.datetimes(datetime(1900, 1, 2), datetime(2399, 12, 30)).map(lambda at: {"start_at": f"{at.isoformat()}Z"}),
        st.just({}),
    ),
    settle=st.integers(0, 10**6),
)
def test_what_the_store_keeps_reads_back_equal(
    rule: dict[str, object], zone: str, start: dict[str, object], settle: int
) -> None:
    """`as_json` is JSON, in the native form, and loses nothing."""
    schedule = parse_schedule({**rule, **start, "time_zone": zone, "settle": settle, "spread": "15m"})
    kept = json.loads(json.dumps(schedule.as_json()))
    assert parse_schedule(kept) == schedule
    assert parse_schedule(kept).as_json() == kept
    assert set(kept) <= set(FIELDS)


@given(st.dictionaries(st.sampled_from([*FIELDS, *SEED, "syncHour", "x"]), st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.just("2022-06-15"), st.just("5m"),
    st.lists(st.text(max_size=5), max_size=2), st.dictionaries(st.text(max_size=3), st.none(), max_size=1),
), max_size=5))  # fmt: skip
def test_any_object_is_read_or_refused_and_nothing_else(document: dict[str, object]) -> None:
    """Whatever is given, the only error is InvalidInput."""
    try:
        schedule = parse_schedule(document)
    except InvalidInput as refused:
        assert refused.field  # noqa: PT017  both outcomes are correct
    else:
        assert parse_schedule(schedule.as_json()) == schedule
