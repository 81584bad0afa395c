"""What both ends read from an HTTP reply: dates, the wait it asks for, and its beginning with secrets masked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from tidegate.domain.spelling import masked

EXCERPT_CHARACTERS = 500
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@lru_cache(maxsize=256)
def http_date(text: str) -> datetime | None:
    """Return an HTTP date (RFC 9110, 5.6.7) as a UTC instant, None if it is not one."""
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def wait_asked_for(retry_after: str, replied_at: datetime | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for: a number, or a date counted from the reply's own Date.

    None if there is none, or a date with no Date to count from (our clock is not the other side's). Never negative.
    """
    text = retry_after.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    until = http_date(text)
    if until is None or replied_at is None:
        return None
    return max(0.0, (until - replied_at).total_seconds())


def printable(text: str) -> str:
    """Return ``text`` with control characters (C0 but for line feed and tab, DEL, C1) as U+FFFD; CR LF is a line feed.

    What others send must not steer a terminal, and PostgreSQL takes no NUL in a text or in JSON.
    """
    return _CONTROLS.sub("\ufffd", text.replace("\r\n", "\n"))


def excerpt(body: bytes, secrets: Iterable[str]) -> str:
    """Return the beginning of ``body`` for people; masked before it is cut, so that no half secret remains.

    Control characters are shown as U+FFFD: what others sent us must not steer a terminal, and PostgreSQL takes no NUL.
    """
    hidden = tuple(secrets)
    longest = max(map(len, hidden), default=0)
    text = body[: EXCERPT_CHARACTERS * 4 + longest].decode("utf-8", "replace")
    return printable(masked(text, hidden)[:EXCERPT_CHARACTERS])
