"""Starts, first due dates and first periods (SPEC 2.1, 2.2, 2.5 to 2.7, 2.10, 2.13; HOLES c, f, x, y, z, aa, dd)."""

from __future__ import annotations

from datetime import timedelta, timezone

import pytest

from tests.domain.calendar.examples import at, cron, daily, texts
from tidegate.domain.period import Period
from tidegate.domain.schedule import due_dates, latest_due, next_due, preview, start_instant
from tidegate.domain.schedule_document import parse_schedule


def test_the_seeds_worked_example() -> None:
    """SPEC 2.13: received July 13 16:00, start May 1, daily at 00:00; the run at 03:00 appears nowhere."""
    first, second = preview(daily("Etc/UTC", "2026-05-01"), at("2026-07-13 16:00"), 2)
    assert first.due_at == at("2026-07-14 00:00")
    assert first.period == Period(at("2026-05-01 00:00"), at("2026-07-14 00:00"))
    assert second.period == Period(at("2026-07-14 00:00"), at("2026-07-15 00:00"))


def test_the_seeds_configuration_means_local_hours() -> None:
    """SPEC 2.1, HOLE c: ``syncHourUtc`` is local; read as UTC, an hour of sales would be on the wrong day."""
    schedule = parse_schedule(
        {
            "selectedFrequency": "Daily",
            "frequencyOptions": ["Daily", "Monthly"],
            "startDate": "2022-06-15",
            "syncHourUtc": 0,
            "timeZone": "Europe/London",
        }
    )
    assert start_instant(schedule) == at("2022-06-14 23:00")


def test_a_start_in_the_future_has_nothing_due_before_it() -> None:
    """SPEC 2.6, HOLE f: and the start itself is not a due date, so no period is empty or negative."""
    first, second = preview(daily("Europe/London", "2026-09-01"), at("2026-07-13 16:00"), 2)
    assert first.period == Period(at("2026-08-31 23:00"), at("2026-09-01 23:00"))
    assert second.period.start == first.due_at
    assert latest_due(daily("Europe/London", "2026-09-01"), at("2026-07-13 16:00"), at("2026-08-31 23:00")) is None


@pytest.mark.parametrize(
    ("received_at", "hour", "due"),
    [
        ("2026-07-13 23:30", 0, "2026-07-14 23:00"),  # 14 July 00:30 in London: the next local midnight is the 15th's
        ("2026-07-13 22:30", 0, "2026-07-13 23:00"),
        ("2026-07-13 23:00", 0, "2026-07-14 23:00"),  # received on the due date itself: strictly after
        ("2026-07-14 01:00", 6, "2026-07-14 05:00"),  # 02:00 in London: today at 06:00, not tomorrow
    ],
)
def test_the_first_due_date_is_the_first_strictly_after_receipt(received_at: str, hour: int, due: str) -> None:
    """SPEC 2.6, HOLE y: days are local days."""
    schedule = daily("Europe/London", "2026-05-01", sync_hour=hour)
    assert texts(due_dates(schedule, at(received_at), 1)) == [due]


def test_the_first_period_starts_at_the_sync_hour() -> None:
    """SPEC 2.2, HOLE aa: with sync hour 6 the six hours of May 1 before it belong to nobody."""
    schedule = daily("Europe/London", "2026-05-01", sync_hour=6)
    assert start_instant(schedule) == at("2026-05-01 05:00")


@pytest.mark.parametrize("suffix", ["", "T00:00:00Z", "T00:00:00", "T00:00:00.000Z", "T00:00Z"])
def test_an_appended_midnight_is_not_part_of_a_date(suffix: str) -> None:
    """SPEC 2.2, HOLE z: the date as written, in the zone: not 14 June 20:00 in New York."""
    schedule = parse_schedule(
        {"selectedFrequency": "Daily", "startDate": f"2022-06-15{suffix}", "timeZone": "America/New_York"}
    )
    assert start_instant(schedule) == at("2022-06-15 04:00")


def test_an_edited_zone_bridges_from_the_watermark() -> None:
    """SPEC 2.10, HOLE x: London to New York; the next period runs from the watermark to the new rule's due date."""
    watermark = next_due(daily("Europe/London"), at("2026-07-13 16:00"))
    assert watermark == at("2026-07-13 23:00")
    edited_at = at("2026-07-14 02:00")
    due_at = next_due(daily("America/New_York"), max(edited_at, watermark))
    assert due_at == at("2026-07-14 04:00")
    assert Period(watermark, due_at).duration == timedelta(hours=5)


def test_weekly_falls_on_the_start_dates_weekday() -> None:
    """SPEC 2.5: 2026-01-07 was a Wednesday; the clock change does not move it."""
    schedule = parse_schedule({"weekly": True, "time_zone": "Europe/London", "start_date": "2026-01-07"})
    assert texts(due_dates(schedule, at("2026-03-20 00:00"), 2)) == ["2026-03-25 00:00", "2026-03-31 23:00"]


@pytest.mark.parametrize(
    ("start", "due"),
    [
        ("2027-01-31", ["02-28", "03-31", "04-30", "05-31"]),
        ("2027-01-30", ["02-28", "03-30", "04-30", "05-30"]),
        ("2028-01-29", ["02-29", "03-29", "04-29", "05-29"]),
    ],
)
def test_monthly_clamps_without_drifting(start: str, due: list[str]) -> None:
    """SPEC 2.5, HOLE dd: after February the 31st is the 31st again."""
    schedule = parse_schedule({"monthly": True, "start_date": start})
    found = due_dates(schedule, start_instant(schedule), 4)
    assert [f"{each:%m-%d}" for each in found] == due


def test_a_start_instant_anchors_by_its_local_date() -> None:
    """SPEC 2.5: 2026-01-31T23:30Z is 1 February in Auckland."""
    schedule = parse_schedule({"monthly": True, "time_zone": "Pacific/Auckland", "start_at": "2026-01-31T23:30:00Z"})
    assert texts(due_dates(schedule, at("2026-02-02 00:00"), 1)) == ["2026-02-28 11:00"]


def test_without_a_start_a_schedule_starts_at_receipt_once_pinned() -> None:
    """A start that is not pinned would move with every question, so no question is answered before."""
    unstarted = parse_schedule({"every": "5m"})
    with pytest.raises(ValueError, match=r"started\(received_at\)"):
        next_due(unstarted, at("2026-07-13 16:00"))
    started = unstarted.started(at("2026-07-13 16:02"))
    assert started.started(at("2027-01-01 00:00")) is started
    assert parse_schedule(started.as_json()) == started
    assert texts(due_dates(started, at("2026-07-13 16:09"), 2)) == ["2026-07-13 16:12", "2026-07-13 16:17"]
    assert preview(unstarted, at("2026-07-13 16:02"), 1)[0].period.start == at("2026-07-13 16:02")


@pytest.mark.parametrize("after", ["0001-01-01 00:00", "1899-12-31 23:59", "9999-12-31 23:59"])
@pytest.mark.parametrize("start", ["1900-01-01", "2399-12-31"])
@pytest.mark.parametrize("rule", [{"daily": True}, {"monthly": True}, {"every": "7d"}, {"cron": "0 0 29 2 *"}])
def test_nothing_overflows_at_the_ends_of_time(rule: dict[str, object], start: str, after: str) -> None:
    """A start far away, or a question far away, has an answer or none; never an error."""
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        schedule = parse_schedule({**rule, "time_zone": zone, "start_date": start})
        due_at = next_due(schedule, at(after))
        assert due_at is None or due_at > max(at(after), start_instant(schedule))
        assert due_dates(schedule, at(after), 3)[:1] == ([] if due_at is None else [due_at])
        assert due_at is None or latest_due(schedule, at(after), due_at) == due_at
        latest = latest_due(schedule, at("0001-01-01 00:00"), at(after))
        assert latest is None or start_instant(schedule) < latest <= at(after)
        following = None if latest is None else next_due(schedule, latest)
        assert following is None or following > at(after)
        assert latest is not None or after < start or start == "2399-12-31"


def test_answers_do_not_depend_on_how_the_instant_is_written() -> None:
    """An instant with an offset is the same instant; a naive one is refused."""
    schedule = cron("0 6 * * *", "Asia/Tokyo")
    tokyo = at("2026-07-13 16:00").astimezone(timezone(timedelta(hours=9)))
    assert next_due(schedule, tokyo) == next_due(schedule, at("2026-07-13 16:00"))
    with pytest.raises(TypeError):
        next_due(schedule, at("2026-07-13 16:00").replace(tzinfo=None))
