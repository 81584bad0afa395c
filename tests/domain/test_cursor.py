"""Cursor values: parsed with the precision and zone that the connector states (SPEC 4), never to a later instant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.cursor import CursorField, CursorFormat

AT = ("updated_at",)
SECOND = timedelta(seconds=1)


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (CursorFormat.ISO, "2026-07-13T16:00:00Z", "2026-07-13T16:00:00"),
        (CursorFormat.ISO, "2026-07-13T12:00:00-04:00", "2026-07-13T16:00:00"),
        (CursorFormat.ISO, "2026-07-13 16:00:00.25+00:00", "2026-07-13T16:00:00.25"),
        (CursorFormat.ISO, "2026-07-13T16:00:00.123456789Z", "2026-07-13T16:00:00.123456"),
        (CursorFormat.ISO, "20260713T160000Z", "2026-07-13T16:00:00"),
        (CursorFormat.EPOCH_SECONDS, 1_783_958_400, "2026-07-13T16:00:00"),
        (CursorFormat.EPOCH_SECONDS, "1783958400", "2026-07-13T16:00:00"),
        (CursorFormat.EPOCH_SECONDS, 1_783_958_400.5, "2026-07-13T16:00:00.5"),
        (CursorFormat.EPOCH_SECONDS, 0, "1970-01-01T00:00:00"),
        (CursorFormat.EPOCH_SECONDS, -1, "1969-12-31T23:59:59"),
        (CursorFormat.EPOCH_MILLISECONDS, 1_783_958_400_123, "2026-07-13T16:00:00.123"),
        (CursorFormat.EPOCH_MILLISECONDS, "1783958400123", "2026-07-13T16:00:00.123"),
    ],
)
def test_each_format_is_read(kind: CursorFormat, value: object, expected: str) -> None:
    assert CursorField(AT, kind).parse(value) == _utc(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (CursorFormat.ISO, "2026-07-13T16:00:00"),
        (CursorFormat.ISO, "2026-07-13"),
        (CursorFormat.ISO, "yesterday"),
        (CursorFormat.ISO, ""),
        (CursorFormat.ISO, 1_783_958_400),
        (CursorFormat.ISO, ["2026-07-13T16:00:00Z"]),
        (CursorFormat.ISO, "2026-02-30T00:00:00Z"),
        (CursorFormat.ISO, "0001-01-01T00:00:00+14:00"),
        (CursorFormat.EPOCH_SECONDS, True),
        (CursorFormat.EPOCH_SECONDS, None),
        (CursorFormat.EPOCH_SECONDS, {}),
        (CursorFormat.EPOCH_SECONDS, "soon"),
        (CursorFormat.EPOCH_SECONDS, float("nan")),
        (CursorFormat.EPOCH_SECONDS, float("inf")),
        (CursorFormat.EPOCH_SECONDS, 2**80),
        (CursorFormat.EPOCH_MILLISECONDS, -(2**80)),
        (CursorFormat.LOCAL, 20260713),
        (CursorFormat.DATE, "2026-07-13T16:00:00"),
        (CursorFormat.DATE, 20260713),
        (CursorFormat.DATE, "13.7.2026"),
    ],
)
def test_what_is_no_cursor_value_is_a_value_error_for_quarantine(kind: CursorFormat, value: object) -> None:
    """SPEC 4: such a record goes to quarantine with its reason, so nothing but ValueError may come out."""
    with pytest.raises(ValueError, match=r"."):
        CursorField(AT, kind).parse(value)


@pytest.mark.parametrize(
    ("zone", "wall", "expected"),
    [
        ("Europe/London", "2026-07-13 16:00:00", "2026-07-13T15:00:00"),
        ("Europe/London", "2026-10-25T01:30:00", "2026-10-25T00:00:00"),  # occurs twice: the beginning of the first
        ("America/New_York", "2026-11-01T01:30:00", "2026-11-01T05:00:00"),
        ("Europe/London", "2026-03-29T01:30:00", "2026-03-29T01:30:00"),  # does not exist: forward by the gap
        ("Asia/Kolkata", "2026-07-13T00:15:00", "2026-07-12T18:45:00"),
        ("Europe/London", "2026-07-13T16:00:00+00:00", "2026-07-13T16:00:00"),  # an offset says it better
    ],
)
def test_wall_time_means_the_declared_zone(zone: str, wall: str, expected: str) -> None:
    """SPEC 2.4: a wall time that occurs twice means the first; earlier is safe, later could lose."""
    assert CursorField(AT, CursorFormat.LOCAL, zone).parse(wall) == _utc(expected)


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        ("Europe/London", "2026-07-13", "2026-07-12T23:00:00"),
        ("America/Santiago", "2026-09-06", "2026-09-06T04:00:00"),  # midnight does not exist
        ("America/Havana", "2026-11-01", "2026-11-01T04:00:00"),  # midnight occurs twice: the first
    ],
)
def test_a_date_is_midnight_in_the_declared_zone(zone: str, day: str, expected: str) -> None:
    """HOLE b."""
    assert CursorField(AT, CursorFormat.DATE, zone).parse(day) == _utc(expected)


@pytest.mark.parametrize(
    ("kind", "precision", "written"),
    [
        (CursorFormat.ISO, SECOND, "2026-07-13T16:00:01Z"),
        (CursorFormat.ISO, timedelta(milliseconds=1), "2026-07-13T16:00:01.987Z"),
        (CursorFormat.ISO, timedelta(microseconds=1), "2026-07-13T16:00:01.987654Z"),
        (CursorFormat.EPOCH_SECONDS, SECOND, 1_783_958_401),
        (CursorFormat.EPOCH_MILLISECONDS, timedelta(milliseconds=1), 1_783_958_401_987),
        (CursorFormat.LOCAL, SECOND, "2026-07-13T17:00:01"),
        (CursorFormat.DATE, timedelta(days=1), "2026-07-13"),
    ],
)
def test_an_instant_is_written_cut_to_the_grain(kind: CursorFormat, precision: timedelta, written: str | int) -> None:
    cursor = CursorField(AT, kind, "Europe/London", precision)
    assert cursor.render(_utc("2026-07-13T16:00:01.987654")) == written


ZONES = ["Etc/UTC", "Europe/London", "Australia/Lord_Howe", "America/Havana", "America/Santiago", "Asia/Kolkata"]
fields = st.builds(
    lambda kind, zone, precision: CursorField(
        AT, kind, zone, timedelta(days=1) if kind is CursorFormat.DATE else precision
    ),
    st.sampled_from(list(CursorFormat)),
    st.sampled_from(ZONES),
    st.sampled_from([timedelta(microseconds=1), SECOND, timedelta(minutes=1), timedelta(hours=1)]),
)
instants = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given(fields, instants)
def test_a_grain_begins_at_or_before_every_instant_in_it_and_ends_after(field: CursorField, instant: datetime) -> None:
    """HOLE j: a lower bound from `floor` never excludes the grain's own records, an upper from `ceiling` neither."""
    floor, ceiling = field.floor(instant), field.ceiling(instant)
    assert floor <= instant <= ceiling
    assert floor.utcoffset() == ceiling.utcoffset() == timedelta(0)
    if field.format is not CursorFormat.LOCAL:
        assert field.floor(floor) == floor
        assert field.ceiling(ceiling) == ceiling


FORMAT_GRAIN = {
    CursorFormat.EPOCH_SECONDS: SECOND,
    CursorFormat.EPOCH_MILLISECONDS: timedelta(milliseconds=1),
}


@given(fields, instants)
def test_what_is_written_reads_back_as_the_grains_beginning(field: CursorField, instant: datetime) -> None:
    """A value survives the way through a source that shows it in its own format; wall time may repeat, so not there."""
    if field.format is CursorFormat.LOCAL:
        return
    cut = field.floor(instant)
    back = field.parse(field.render(cut))
    lost = cut - back
    assert timedelta(0) <= lost < max(FORMAT_GRAIN.get(field.format, timedelta(0)), timedelta(microseconds=1))
