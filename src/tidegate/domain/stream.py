"""A stream: one kind of record of a connector, and what is known of its records (SPEC 1, 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from tidegate.domain.cursor import CursorField


class ColumnType(StrEnum):
    """The type of a record's field, as declared by a connector or inferred from the data."""

    TEXT = "text"
    BIGINT = "bigint"
    NUMERIC = "numeric"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"  # an instant, aware
    DATE = "date"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Stream:
    """What a connector declares about one kind of record.

    ``key``: the paths of the fields that identify a record, dotted where nested. ``cursor``: None for a stream
    that is listed in full each time. ``lookback``: re-read before a period's start. ``columns``: declared types;
    a field not named here is inferred. ``change_feed``: after a first listing in full the source itself says what has
    changed since the last succeeded run, by a change token; such a stream has no cursor. ``overshoot``: how far below the lower
    bound that a fetch asks for its source may show records all the same; None if it shows all there are, whatever it is
    asked for.
    """

    name: str
    key: tuple[str, ...] = ("id",)
    cursor: CursorField | None = None
    lookback: timedelta = timedelta(0)
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    change_feed: bool = False
    overshoot: timedelta | None = timedelta(0)

    def reread_from(self, watermark: datetime) -> datetime | None:
        """Return the cursor value below which no fetch of a later period shows records any more, None if there is none."""
        if self.cursor is None or self.overshoot is None:
            return None
        return self.cursor.floor(watermark - self.lookback) - self.overshoot

    @property
    def open_ended(self) -> bool:
        """Return whether a fetch must not be bounded above: its records are edited (SPEC 4)."""
        return self.cursor is None or self.cursor.changes
