"""`tidegate schedule preview` (SPEC 8): pure, exact, and clear about bad input."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.domain.calendar.examples import at
from tidegate.cli.schedule import app

SEED = """{"selectedFrequency": "Daily", "frequencyOptions": ["Daily", "Monthly"], "startDate": "2026-05-01",
           "syncHourUtc": 0, "timeZone": null}"""


class StoppedClock:
    """Tells one instant and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def now(self) -> datetime:
        self.asked += 1
        return at("2026-07-13 16:00")


def preview(tmp_path: Path, text: str, *arguments: str, clock: StoppedClock | None = None) -> Result:
    """Run the command on a file that holds ``text``, mounted as the root command mounts it."""
    file = tmp_path / "schedule.yaml"
    file.write_text(text)
    return run(str(file), *arguments, clock=clock)


def run(*arguments: str, clock: StoppedClock | None = None, stdin: str = "") -> Result:
    """Run `schedule preview` with these arguments."""
    root = typer.Typer()
    root.add_typer(app, name="schedule")

    @root.callback()
    def put_clock(context: typer.Context) -> None:
        context.obj = clock or StoppedClock()

    return CliRunner().invoke(root, ["schedule", "preview", *arguments], input=stdin)


def test_json_is_exactly_the_list_of_due_dates_and_periods(tmp_path: Path) -> None:
    """SPEC 2.13, 8: the worked example; with receipt given, no clock is read."""
    clock = StoppedClock()
    arguments = ("--received-at", "2026-07-13T16:00:00Z", "--count", "2", "--json")
    result = preview(tmp_path, SEED, *arguments, clock=clock)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == [
        {"due_at": "2026-07-14T00:00:00Z", "period": {"start": "2026-05-01T00:00:00Z", "end": "2026-07-14T00:00:00Z"}},
        {"due_at": "2026-07-15T00:00:00Z", "period": {"start": "2026-07-14T00:00:00Z", "end": "2026-07-15T00:00:00Z"}},
    ]
    assert clock.asked == 0


@pytest.mark.parametrize(
    "arguments", [(), ("--now", "2026-07-13T18:00:00+02:00"), ("--received-at", "2026-07-13T16:00:00Z")]
)
def test_receipt_is_now_unless_it_is_given(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Three ways to say the same instant."""
    result = preview(tmp_path, SEED, "--json", "--count", "1", *arguments)
    assert [each["due_at"] for each in json.loads(result.stdout)] == ["2026-07-14T00:00:00Z"]


@pytest.mark.parametrize(
    "text",
    [
        "schedule:\n  daily: true\n  start_date: 2026-05-01\n  time_zone: etc/utc\n",
        "daily: true\nstart_date: 2026-05-01T00:00:00Z\n",
        '{"schedule": {"daily": true, "start_date": "2026-05-01"}, "name": "shop"}',
        SEED,
    ],
)
def test_the_file_is_json_or_yaml_the_schedule_or_an_object_with_one(tmp_path: Path, text: str) -> None:
    """SPEC 8; YAML's own dates are not made instants of another zone."""
    result = preview(tmp_path, text, "--json", "--count", "1")
    assert json.loads(result.stdout)[0]["period"] == {"start": "2026-05-01T00:00:00Z", "end": "2026-07-14T00:00:00Z"}


def test_the_table_shows_local_times_and_what_clock_changes_do(tmp_path: Path) -> None:
    """SPEC 8, HOLE b: the missing hour, the repeated one, the short and the long day; what is due by now is marked."""
    london = "daily: true\nsync_hour: 1\ntime_zone: Europe/London\nstart_date: 2026-03-01\n"
    spring = preview(tmp_path, london, "--received-at", "2026-03-28T12:00:00Z", "--now", "2026-03-29T12:00:00Z").stdout
    lines = [line for line in spring.splitlines() if "2026-03" in line]
    assert "●" in lines[0]
    assert "2026-03-29 02:00" in lines[0]
    assert "01:00 does not exist that day, so 02:00" in lines[0]
    assert "●" not in lines[1]
    assert "clocks go forward 01:00→02:00: 23 h day" in lines[1]
    autumn = preview(tmp_path, london, "--received-at", "2026-10-24T12:00:00Z").stdout
    assert "01:00 occurs twice, this is the first" in autumn
    assert "clocks go back 02:00→01:00: 25 h day" in autumn
    apia = "daily: true\ntime_zone: Pacific/Apia\nstart_date: 2011-12-28\n"
    shown = preview(tmp_path, apia, "--received-at", "2011-12-28T00:00:00Z").stdout
    assert "2011-12-30 does not exist here and has no due date" in shown


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("daily: true\ntime_zone: Lonon\n", (), 'Did you mean "Europe/London"?'),
        ("daily: true\nsync_hour: 08\n", (), "0 to 23"),
        ("every: 1:30\n", (), "is not a duration"),
        ("[1, 2]", (), "is not an object"),
        ("", (), "is not an object"),
        ("{daily: true\n", (), "is neither JSON nor YAML (line 2)"),
        ("&a [*a]", (), "is neither JSON nor YAML"),
        (SEED, ("--count", "0"), "is not between 1"),
        (SEED, ("--count", "10001"), "is not between 1"),
        (SEED, ("--received-at", "yesterday"), "is not an instant"),
        (SEED, ("--received-at", "2026-07-13T16:00:00"), "offset"),
        (SEED, ("--now", "2026-07-13"), "is not an instant"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_to_do(
    tmp_path: Path, text: str, arguments: tuple[str, ...], words: str
) -> None:
    """SPEC 8: on stderr, and as JSON if asked for; nothing on stdout."""
    for flags in ((), ("--json",)):
        result = preview(tmp_path, text, *arguments, *flags)
        assert result.exit_code == 2
        assert result.stdout == ""
        shown = json.loads(result.stderr) if flags else {"code": "invalid_input", "all": result.stderr}
        assert shown["code"] == "invalid_input"
        assert words in " ".join(str(value) for value in shown.values())


def test_a_file_that_cannot_be_read_is_bad_input(tmp_path: Path) -> None:
    """Exit code 2, naming the file and the reason."""
    for file, reason in ((tmp_path / "absent.yaml", "No such file"), (tmp_path, "Is a directory")):
        result = run(str(file), "--json")
        assert result.exit_code == 2
        assert reason in json.loads(result.stderr)["message"]
    (tmp_path / "latin.yaml").write_bytes(b"daily: \xff")
    assert "it is not text" in run(str(tmp_path / "latin.yaml"), "--json").stderr


def test_standard_input_is_a_file_too() -> None:
    """A dash, as elsewhere."""
    result = run("-", "--json", "--count", "1", stdin=SEED)
    assert [each["due_at"] for each in json.loads(result.stdout)] == ["2026-07-14T00:00:00Z"]


INSTALLATION = """
schedule: {daily: true, start_at: 2026-07-13T00:00:00Z}
streams:
  orders: {schedule: {every: 1h, start_at: 2026-07-13T00:00:00Z}}
  customers:
"""


def test_of_an_installation_a_streams_own_schedule_is_shown(tmp_path: Path) -> None:
    """SPEC 8: a schedule per stream can be looked at before it is applied."""
    file = tmp_path / "installation.yaml"
    file.write_text(INSTALLATION)

    def first_due(*stream: str) -> str:
        result = run(str(file), "--received-at", "2026-07-13T00:00:00Z", "--count", "1", "--json", *stream)
        assert result.exit_code == 0, result.output
        return str(json.loads(result.stdout)[0]["due_at"])

    assert first_due("--stream", "orders") == "2026-07-13T01:00:00Z"
    assert first_due("--stream", "customers") == "2026-07-14T00:00:00Z" == first_due()
    refused = run(str(file), "--stream", "order")
    assert refused.exit_code == 2
    assert "It has: orders, customers" in refused.output
