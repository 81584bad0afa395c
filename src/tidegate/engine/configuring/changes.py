"""What an `apply` changes, as values to show: field by field, secrets only as "changed"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tidegate.domain.period import Period


class Action(StrEnum):
    """What becomes of something."""

    ADDED = "added"
    CHANGED = "changed"
    RETIRED = "retired"  # nothing more is planned for it; its coverage stays


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field's value before and after; None is absent. A secret's values are never here, only that it changed."""

    field: str
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one thing: ``kind`` and ``name`` say which (connection acme/shop); ``streams`` if to only some."""

    action: Action
    kind: str
    name: str
    fields: tuple[FieldChange, ...] = ()
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bridge:
    """What an edited rule means for one stream (SPEC 2.10): from what is covered to the new rule's next due date.

    ``dropped``: runs that waited by the old rule, to be planned anew. ``next_due_at``, ``period``: the next due date and the
    period that it will account for, None if there is no further one. ``in_front``: the range that an earlier start
    adds in front of the coverage, as a backfill.
    """

    installation: str
    stream: str
    watermark: datetime | None
    dropped: int
    next_due_at: datetime | None
    period: Period | None
    in_front: Period | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one `apply` did, or with ``applied`` false would have done.

    ``warnings``: what was not done, and why. ``left_alone``: what the database has and the files do not name. ``bridges``:
    how each stream whose rule changes goes on.
    """

    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    left_alone: tuple[str, ...]
    applied: bool
    bridges: tuple[Bridge, ...] = ()


def differences(before: Mapping[str, object], after: Mapping[str, object], prefix: str = "") -> list[FieldChange]:
    """Return the fields that differ, in the order of ``after``, then those that are gone."""
    names = [*after, *(name for name in before if name not in after)]
    return [
        FieldChange(f"{prefix}{name}", before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


def secret_differences(before: Mapping[str, str] | None, after: Mapping[str, str]) -> list[FieldChange]:
    """Return which secrets differ, without their values; ``before`` is None if they could not be opened."""
    known = before or {}
    names = [*after, *(name for name in known if name not in after)]
    return [
        FieldChange(f"secrets.{name}", None, "removed" if name not in after else "changed" if name in known else "set")
        for name in names
        if known.get(name) != after.get(name)
    ]
