"""Coverage: what a chain of periods promises, as pure rules (SPEC 1, 2.7, 5).

The database keeps the chain (store/migrations); here stand the same rules as values, for the faces to draw
and for tests to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from tidegate.domain.period import Period


class LinkKind(StrEnum):
    """How a stretch of the chain came to be: by a run that succeeded, or by an explicit waiver."""

    COVERED = "covered"
    WAIVED = "waived"


@dataclass(frozen=True, slots=True)
class Link:
    """One period of a chain."""

    period: Period
    kind: LinkKind = LinkKind.COVERED
    run_id: int | None = None
    reason: str = ""
    records: int = 0


def watermark(links: Sequence[Link]) -> datetime | None:
    """Return the end of the chain, None if nothing is covered yet."""
    return links[-1].period.end if links else None


def breaks(links: Sequence[Link]) -> list[tuple[Link, Link]]:
    """Return the neighbours that do not meet; empty for every chain the database has accepted."""
    return [(a, b) for a, b in pairwise(links) if a.period.end != b.period.start]


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A due but uncovered stretch of one stream, and why it is not covered (SPEC 5: one query names them all).

    ``in_front``: it ends where the coverage begins, for the start was moved earlier (SPEC 2.10).
    """

    period: Period
    reason: str
    run_id: int | None = None
    in_front: bool = False
