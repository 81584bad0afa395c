"""The hour that occurs twice, for a source that writes wall time without an offset (HOLES b, i)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.loss.harness import play
from tests.loss.story import Story
from tidegate.domain.cursor import CursorField, CursorFormat

LONDON = CursorField(("updated_at",), CursorFormat.LOCAL, "Europe/London", timedelta(seconds=1))


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2026-10-25 01:50:00", "2026-10-25 01:10:00"),  # at 00:50 and at 01:10 UTC
        ("2026-10-25 00:59:59", "2026-10-25 01:00:00"),
        ("2026-10-25 01:10:00", "2026-10-25 02:00:00"),
    ],
)
def test_an_edit_in_the_second_pass_is_not_taken_for_an_older_version(earlier: str, later: str) -> None:
    """SPEC 4 "Versions": a greater cursor value wins, and with an equal one the page requested later.

    Order 7 is edited at 01:50 summer time and again twenty minutes later, at 01:10: were 01:10 read as the smaller cursor
    value, the second edit would be refused and lost for ever.
    """
    assert LONDON.parse(earlier) <= LONDON.parse(later)


def test_no_edit_is_lost_when_the_clocks_go_back(stage_url: str) -> None:
    """HOLE b: edits all through the repeated hour, in New York, listed newest first."""
    story = Story(
        7, "local_newest", "every 60 minutes", begins=2, changes=0.3, slowest=60.0, skew=-40, remote=True, ticks=8
    )
    assert play(stage_url, story).violations == []
