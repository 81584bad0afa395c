"""Why a due run has not started: the reasons, in the order in which they are looked for (SPEC 3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class WaitReason(StrEnum):
    """What a due run waits for. The first that holds is told; docs/concepts/waiting.md says what ends each."""

    UNAUTHORISED = "unauthorised"  # its connection is refused by the source: no run is made until it is renewed
    PAUSED = "paused"  # its installation is paused: no run is made until it is resumed
    UNPLANNED = "unplanned"  # the planner has not come to its due date
    RETRYING = "retrying"  # an attempt failed; the next one starts at the planned run date
    SETTLE = "settle"  # the source is given time to settle
    SPREAD = "spread"  # its place in the window that keeps thousands from starting together
    ANOTHER_RUN = "another_run"  # of the same stream and lane: never two at once, the oldest period first
    PERIOD_FAILED = "period_failed"  # the period before it has failed: it is tried again first, at the next due date
    ACCOUNT_HELD = "account_held"  # the platform account asked for a pause (Retry-After)
    ACCOUNT_LIMIT = "account_limit"  # as many runs of its platform account as it allows are in hand
    CONNECTION_LIMIT = "connection_limit"  # as many runs of its connection as it allows are in hand
    SLOTS = "slots"  # nothing but its turn, and a worker with a free slot


@dataclass(frozen=True, slots=True)
class Wait:
    """Why one due run waits. ``detail``: what exactly, for people. ``planned_at``: its planned run date, None if none is."""

    reason: WaitReason
    detail: str
    planned_at: datetime | None

    def __str__(self) -> str:
        """Return it in words, without the planned run date."""
        words = self.reason.replace("_", " ")
        return f"{words} ({self.detail})" if self.detail else words


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """How many due runs wait for one thing, and the oldest due date among them."""

    reason: WaitReason
    runs: int
    oldest_due_at: datetime


def summed_up(waits: Iterable[tuple[WaitReason, datetime]]) -> list[WaitingFor]:
    """Return (reason, due date) counted by reason, in the order of `WaitReason`."""
    counts: dict[WaitReason, list[datetime]] = {}
    for reason, due_at in waits:
        counts.setdefault(reason, []).append(due_at)
    return [WaitingFor(reason, len(counts[reason]), min(counts[reason])) for reason in WaitReason if reason in counts]


def worst(durations: Iterable[timedelta]) -> timedelta | None:
    """Return the longest of ``durations``, None if there is none."""
    return max(durations, default=None)
