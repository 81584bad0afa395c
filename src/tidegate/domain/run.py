"""Runs: the states a run goes through, and the one table of legal transitions (ARCHITECTURE, "domain").

waiting ──▶ queued ──▶ running ──▶ succeeded | unproven | failed | superseded
   │           │ ▲        │  └────▶ delivering ──▶ succeeded | unproven | failed   (a destination that acknowledges later)
   │           │ └─ retrying ◀┘   (after a failure, a lost lease or a graceful stop)
   ▼           ▼
dropped    superseded            (dropped, failed, unproven and superseded runs can be planned anew, and backfills)
"""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands. Only *succeeded* writes coverage (SPEC 5, "The ledger cannot lie")."""

    WAITING = "waiting"  # planned; its run date is `not_before_at` at the earliest
    QUEUED = "queued"  # handed to the queue; the next free worker slot takes it
    RUNNING = "running"  # under a lease
    RETRYING = "retrying"  # begun, stopped, to go on from its checkpoint
    DELIVERING = "delivering"  # all is in the outbox; acknowledgements are outstanding, and no worker is busy with it
    SUCCEEDED = "succeeded"
    UNPROVEN = "unproven"  # delivered what it found, but the source did not show the whole period
    FAILED = "failed"
    SUPERSEDED = "superseded"  # its period was covered before it started
    DROPPED = "dropped"  # its installation was paused before it started


class Lane(StrEnum):
    """Separate queues and identities; live first (SPEC 1)."""

    LIVE = "live"
    BACKFILL = "backfill"


class Trigger(StrEnum):
    """What started a run (SPEC 1)."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    INSTALL = "install"
    EVENT = "event"


TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.WAITING: frozenset({RunState.QUEUED, RunState.DROPPED, RunState.SUPERSEDED}),
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.SUPERSEDED, RunState.DROPPED}),
    RunState.RUNNING: frozenset(
        {
            RunState.RETRYING,
            RunState.DELIVERING,
            RunState.SUCCEEDED,
            RunState.UNPROVEN,
            RunState.FAILED,
            RunState.SUPERSEDED,
        }
    ),
    RunState.RETRYING: frozenset({RunState.QUEUED, RunState.FAILED}),
    RunState.DELIVERING: frozenset({RunState.SUCCEEDED, RunState.UNPROVEN, RunState.FAILED}),
    # A person may ask for the same backfill again (SPEC 2.11); a live period that is covered is never done anew.
    RunState.SUCCEEDED: frozenset({RunState.WAITING}),
    RunState.SUPERSEDED: frozenset({RunState.WAITING}),
    # Ended without covering: resuming a paused installation plans the same due date anew (SPEC 2.11).
    RunState.UNPROVEN: frozenset({RunState.WAITING}),
    RunState.FAILED: frozenset({RunState.WAITING}),
    RunState.DROPPED: frozenset({RunState.WAITING}),
}

ACTIVE = frozenset({RunState.QUEUED, RunState.RUNNING, RunState.RETRYING, RunState.DELIVERING})
"""At most one run per (installation, workflow, stream, lane) is in one of these; the database holds it (SPEC 2.12)."""

FINISHED = frozenset(RunState) - ACTIVE - {RunState.WAITING}
"""A run in one of these does nothing by itself any more."""


def may_follow(before: RunState, after: RunState) -> bool:
    """Return whether a run may go from ``before`` to ``after`` in one step."""
    return after in TRANSITIONS[before]
