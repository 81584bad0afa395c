"""The pinned zone data, read by Tidegate and by the standard library (HOLES b, jj, mm)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from tests.domain.calendar import oracle
from tests.domain.calendar.examples import at, daily
from tidegate.domain.errors import InvalidInput
from tidegate.domain.instant import instant_of
from tidegate.domain.schedule import next_due
from tidegate.domain.zone import Zone, find_zone
from tidegate.domain.zone_data import zone_names

SAMPLE = [
    "Africa/Casablanca", "Africa/Monrovia", "America/Nuuk", "America/Santiago", "America/Scoresbysund",
    "America/St_Johns", "Antarctica/Troll", "Asia/Beirut", "Asia/Gaza", "Australia/Lord_Howe", "Europe/Dublin",
    "Europe/London", "Pacific/Apia", "Pacific/Kwajalein",
]  # fmt: skip


def test_every_zone_is_read() -> None:
    """Every name of the package, in order of time, and with the invariants that the due dates lean on."""
    assert sorted(zone_names()) == sorted(oracle.all_zone_names())
    for name in zone_names():
        _check_invariants(find_zone(name))


def _check_invariants(zone: Zone) -> None:
    for row in (zone.changes, zone.starts, zone.begins, zone.ends):
        assert all(earlier < later for earlier, later in pairwise(row)), zone.name
    assert all(earlier != later for earlier, later in pairwise(zone.offsets)), zone.name
    assert len(zone.offsets) == len(zone.ends) == len(zone.starts) - 1 == len(zone.begins) - 1 == len(zone.changes) + 1


@pytest.mark.parametrize("name", SAMPLE)
def test_offsets_agree_with_the_standard_library(name: str) -> None:
    """At both sides of every change from 1850 to 2399, and between."""
    zone, other = find_zone(name), oracle.zone_info(name)
    seconds = [change + apart for change in zone.changes for apart in (-1, 0, 1, 2_000_000)]
    assert len(seconds) > 3
    for each in seconds:
        instant = instant_of(each)
        if instant.year < 2399:
            assert zone.local(instant) == instant.astimezone(other).replace(tzinfo=None), (name, instant)


@pytest.mark.parametrize("name", ["Pacific/Apia", "America/Nuuk", "Europe/Dublin", "Africa/Casablanca"])
def test_clock_changes_are_those_that_bisection_finds(name: str) -> None:
    """None is missing, and `[start, end)` holds at both ends."""
    first, last = datetime(1990, 1, 1, tzinfo=UTC), datetime(2039, 12, 31, tzinfo=UTC)
    expected = oracle.transitions(oracle.zone_info(name), first, last)
    assert [change.at for change in find_zone(name).clock_changes(first, last)] == expected
    one = expected[0]
    second = timedelta(microseconds=1)
    assert len(find_zone(name).clock_changes(one, one + second)) == 1
    assert find_zone(name).clock_changes(one - second, one) == []
    assert find_zone(name).clock_changes(one + second, one + 2 * second) == []


def test_the_systems_own_zone_files_are_not_consulted() -> None:
    """Cuba kept summer time through November 2026 (2026f): the pinned package knows, older system files do not (HOLE jj).

    The expectation is what the package itself says, so that an update of it does not break this test.
    """
    pinned: ZoneInfo = oracle.zone_info("America/Havana")
    expected = oracle.first_instant(datetime(2026, 11, 2), pinned)
    assert next_due(daily("America/Havana"), at("2026-11-01 12:00")) == expected


@pytest.mark.parametrize("name", ["ETC/Utc", "etc/utc", "Etc/UTC", "ETC/UTC"])
def test_a_zone_name_is_taken_in_any_case(name: str) -> None:
    """HOLE mm: the seed prints its default as ``ETC/Utc``, which no case-sensitive system knows."""
    assert find_zone(name).name == "Etc/UTC"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Europe/Londn", "Europe/London"),
        ("London", "Europe/London"),
        ("Lonon", "Europe/London"),
        ("America/New York", "America/New_York"),
        ("+02:00", "Write a name"),
        ("", "Write a name"),
        (None, "Write a name"),
        (7, "Write a name"),
        ("../../../etc/passwd", "Write a name"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest_name(name: object, near: str) -> None:
    """Names field, value and remedy."""
    with pytest.raises(InvalidInput) as refused:
        find_zone(name)
    assert refused.value.field == "time_zone"
    assert refused.value.value == name
    assert near in refused.value.remedy
