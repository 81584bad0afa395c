"""How things are shown: durations, the coverage bar, masked secrets (SPEC 1 "Spelling", 8)."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from tidegate.cli import logs
from tidegate.cli.coverage import bar
from tidegate.cli.output import instant
from tidegate.domain.coverage import LinkKind, Uncovered
from tidegate.domain.duration import humanised
from tidegate.domain.masking import Mask
from tidegate.domain.period import Period
from tidegate.domain.spelling import MASK
from tidegate.engine.queries import StreamCoverage
from tidegate.store.chains import Chain
from tidegate.store.reports import Stretch


def utc(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 7, day, hour, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"), (0, "0 s"), (0.4, "0 s"), (59, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"),
        (7500, "2 h 5 min"), (86_400 * 3 + 3600 * 4 + 59, "3 d 4 h"), (-90, "-1 min 30 s"), (86_400 + 59, "1 d"),
    ],
)  # fmt: skip
def test_durations_in_their_two_largest_units(seconds: float | None, shown: str) -> None:
    """The lag is for people."""
    assert humanised(seconds) == shown


def test_instants_are_utc_with_z_to_the_second() -> None:
    """SPEC 8, whatever zone the value came in."""
    paris = datetime.fromisoformat("2026-07-14T02:00:00.75+02:00")
    assert instant(paris) == "2026-07-14T00:00:00Z"


def coverage(*stretches: tuple[LinkKind, int, int], uncovered: tuple[int, int] | None = None) -> StreamCoverage:
    watermark = utc(stretches[-1][2]) if stretches else None
    chain = Chain(1, "t", "i", "sync", "s", "a", utc(1), watermark, None, None)
    return StreamCoverage(
        chain=chain,
        stretches=tuple(Stretch(1, kind, Period(utc(a), utc(b)), 1, 0, "") for kind, a, b in stretches),
        uncovered=Uncovered(Period(utc(uncovered[0]), utc(uncovered[1])), "failed") if uncovered else None,
        link_count=len(stretches),
    )


def test_the_bar_shows_covered_waived_uncovered_and_not_due() -> None:
    """One cell a day here; a cell shows the worst of what it stands for."""
    drawn = coverage((LinkKind.COVERED, 1, 4), (LinkKind.WAIVED, 4, 6), (LinkKind.COVERED, 6, 7), uncovered=(7, 9))
    assert bar(drawn, utc(11), cells=10) == "███▒▒█··  "
    assert bar(drawn, utc(11), cells=5) == "█▒▒· "


def test_the_bar_of_a_start_in_the_future_is_empty() -> None:
    """SPEC 2.6: nothing is due before it, and nothing divides by zero."""
    assert bar(coverage(), utc(1) - timedelta(days=30), cells=4) == "    "


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token", "abcdef"),
        ("Authorization", "abcdef"),
        ("error", "GET https://x.example/?access_token=abcdef&page=2 failed"),
        ("data", "postgresql://user:abcdef@host:5432/db"),
        ("data", "postgresql://:abcdef@host/db"),
        ("event", "sent Authorization: Bearer abcdef"),
        ("nested", {"password": "abcdef", "list": ["x://u:abcdef@h"]}),
        ("event", "token shpat_abcdef was refused"),
    ],
)  # fmt: skip
def test_secrets_are_masked_in_logs_by_name_and_by_form(name: str, value: object) -> None:
    """Whatever a library puts into a message."""
    shown = str(Mask().value(value, name))
    assert "abcdef" not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Digest a=1, b=2\nnext", "Authorization: ***\nnext"),
        ('{"Authorization": "Own abc def", "x": 1}', '{"Authorization": "***", "x": 1}'),
        ("sent Basic dXNlcjpwYXNz to it", "sent Basic *** to it"),
        ("sent Bearer abc123def to it", "sent Bearer *** to it"),
        ("X-Api-Key: abcdef", "X-Api-Key: ***"),
        ('{"accessToken":"abcdef","x":1}', '{"accessToken":"***","x":1}'),
        ("{'refreshToken': 'ab cd'}", "{'refreshToken': '***'}"),
        ('{"clientSecret" : "abcdef"', '{"clientSecret" : "***"'),
        ('{"authToken":"abc', '{"authToken":"***'),
        ("refreshToken: abcdef, x", "refreshToken: ***, x"),
        ("refresh_token: abcdef", "refresh_token: ***"),
        ("client_secret: abcdef", "client_secret: ***"),
        ('"userPassword":"abcdef"', '"userPassword":"***"'),
        ('"secretKey":"abcdef"', '"secretKey":"***"'),
        ("Cookie: session=abc; other=d\nnext", "Cookie: ***\nnext"),
        ("Set-Cookie: session=abc; Path=/", "Set-Cookie: ***"),
        ("X-Shop-Access-Token: abcdef", "X-Shop-Access-Token: ***"),
        ("api-key=abcdef&page=2", "api-key=***&page=2"),
        ("privateKey='ab cd' x", "privateKey='***' x"),
        ("private_key: abcdef", "private_key: ***"),
        ('passphrase = "two words", x', 'passphrase = "***", x'),
        ("password: abcdef", "password: ***"),
        ('{"password": "it\'s, here", "n": 1}', '{"password": "***", "n": 1}'),
        ("postgresql://u:p@ss@host:5432/db", "postgresql://u:***@host:5432/db"),
    ],
)
def test_a_secret_is_known_by_its_form_to_its_end(text: str, shown: str) -> None:
    """SPEC 5 "secrets masked": headers, pairs and addresses, whatever is inside; masked again it stays as it is."""
    assert Mask().text(text) == shown
    assert Mask().text(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "unauthorised: token revoked", "a Basic subscription", "Basic authentication is refused", "Bearer tokens are refused",
        "the Bearer authentication failed.", "the primary key is missing", "no password given", "https://x.example/a@b",
    ],
)  # fmt: skip
def test_prose_about_secrets_is_not_masked(text: str) -> None:
    """An error that hides its words helps nobody."""
    assert Mask().text(text) == text


def test_what_libraries_log_has_the_same_form_and_masks(capsys: pytest.CaptureFixture[str]) -> None:
    """The queue's and the HTTP client's warnings too: one JSON object a line, nothing secret."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.set_up(as_json=True)
        logging.getLogger("pgqueuer").warning("lost %s", "postgresql://u:abcdef@h/db")
        structlog.get_logger().info("hello", token="abcdef")
        first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        structlog.reset_defaults()
    assert (first["event"], first["logger"], first["level"]) == (
        f"lost postgresql://u:{MASK}@h/db",
        "pgqueuer",
        "warning",
    )
    assert (second["event"], second["token"]) == ("hello", MASK)


def test_what_is_no_secret_is_not_masked() -> None:
    """A log that hides everything helps nobody; durations are seconds (SPEC 1 "Spelling")."""
    event = {
        "event": "attempt failed",
        "run_id": 7,
        "retry_in": timedelta(seconds=90),
        "url": "https://x.example/a?page=2",
    }
    assert Mask().value(event) == {**event, "retry_in": 90.0}
