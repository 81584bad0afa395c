"""The run date: when a due run may start at the earliest, and how fast a platform account may be asked (SPEC 3)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta


def not_before(
    due_at: datetime,
    next_due_at: datetime | None,
    *,
    settle: timedelta,
    spread_window: timedelta,
    seed: str,
) -> datetime:
    """Return ``due_at + settle + spread``, the planned run date.

    ``spread`` is a deterministic hash of ``seed`` (the installation and stream) inside ``spread_window``, so that
    thousands due at one midnight do not start together and the same seed gives the same plan (HOLE kk). The spread
    never carries a run past its next due date. The period is not touched by any of this.
    """
    settled = due_at + settle
    room = spread_window if next_due_at is None else min(spread_window, next_due_at - settled)
    if room <= timedelta(0):
        return settled
    return settled + room * fraction(seed)


def fraction(seed: str) -> float:
    """Return a number in [0, 1) that depends on ``seed`` alone, evenly spread over seeds."""
    digest = hashlib.blake2b(seed.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How fast a source may be asked: ``burst`` requests at once, then ``per_second``."""

    per_second: float
    burst: int


SHARE_OF_RATE = 0.98
"""Of what a source allows, used: clocks drift apart, and a bucket that is never quite full forgives."""

SHARE_OF_BURST = 0.5
"""Of a source's burst, ours to bunch; the rest absorbs what the network and busy processes bunch."""


def lateness_allowed(limit: RateLimit) -> timedelta:
    """Return how late a granted request may still be sent: the other part of the burst, at least a gap.

    Later it would bunch with those after it; it is given up, and another one asked for.
    """
    return timedelta(seconds=max(1.0, limit.burst * (1 - SHARE_OF_BURST)) / limit.per_second)
