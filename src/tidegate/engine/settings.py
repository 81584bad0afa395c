"""What an operator may set of the engine; all durations are of the engine's Clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from tidegate.domain.errors import AccountHeld, RateLimited, SourceUnavailable, TidegateError
from tidegate.domain.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Settings:
    """The engine's settings with their defaults.

    After the death of a worker its runs go on elsewhere within ``lease + sweep_every`` and a moment: 20 s by default.
    """

    slots: int = 10
    """Runs that one worker process has in hand at once."""
    queue_depth: int = 100
    """Runs handed to the queue and not yet taken: small, so that the order is decided late."""
    lease: timedelta = timedelta(seconds=15)
    renew_every: timedelta = timedelta(seconds=4)
    stop_grace: timedelta = timedelta(seconds=10)
    """How long a graceful stop waits for a checkpoint; what is then still in hand is let go, and resumed elsewhere."""
    sweep_every: timedelta = timedelta(seconds=5)
    tick_every: timedelta = timedelta(seconds=1)
    """How often planner and dispatcher look again when nothing wakes them; the next due date wakes the planner."""
    compact_after: timedelta = timedelta(days=90)
    """Neighbouring periods of one kind that ended so long ago become one row of the ledger."""
    requeue_after: timedelta = timedelta(seconds=30)
    """A queued run that no worker took for so long is handed to the queue again."""
    dispatch_pause: timedelta = timedelta(seconds=0.05)
    """The least time between two looks of the dispatcher, however often it is woken, and of the planner."""
    prune_every: timedelta = timedelta(hours=1)
    """How often what is old is deleted."""
    keep: Mapping[str, timedelta | None] = field(default_factory=dict)
    """For how long ended things are kept, by kind, where it is not the default; None: for ever (engine.retention)."""
    plan_batch: int = 4000
    """Schedules planned in one transaction at most, and runs, but for the last schedule's, that they become in it."""
    plan_ahead: int = 100
    """Runs of one stream that wait at once where due dates or long periods stay runs of their own (`each`, `max_period`)."""
    batch_bytes: int = 4 * 1024 * 1024
    """Pages are committed together up to about this many bytes of records …"""
    batch_age: timedelta = timedelta(seconds=5)
    """… or after this long, so that slow sources still make progress that a crash cannot undo."""
    pages_ahead: int = 16
    """Pages fetched ahead of the batch being written, as long as they hold less than `bytes_ahead`."""
    routes_at_once: int = 20
    """Routes that one sender process sends on at once."""
    batches_a_turn: int = 50
    """Batches sent on one route before others have their turn."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    throttle_pause: timedelta = timedelta(seconds=2)
    """How long a platform account is left alone that throttled a request and did not say for how long."""
    pause_after_failing_days: int = 31
    """An installation one of whose streams has failed for so many days is paused, unless it has a number of its own."""
    alert_failing_after: timedelta = timedelta(hours=24)
    """A stream that has failed or been retried for so long since its due date is worth a person's look."""
    starved_after: timedelta = timedelta(minutes=5)
    """Runs that could start and have found no worker for so long are starved."""
    watch_every: timedelta = timedelta(seconds=30)
    """How often alerts are raised and resolved."""

    @property
    def bytes_ahead(self) -> int:
        """Return how many bytes of records are fetched ahead before the next page waits: two batches."""
        return 2 * self.batch_bytes

    def pause_asked_for(self, error: TidegateError) -> timedelta | None:
        """Return the pause that an answer asks of everything of its platform account, None if it asks for none.

        Bounded as what one run waits is (`RetryPolicy.longest`).
        """
        if isinstance(error, AccountHeld) or not isinstance(error, RateLimited | SourceUnavailable):
            return None
        if error.retry_after_seconds is not None:
            return timedelta(seconds=min(error.retry_after_seconds, self.retry.longest.total_seconds()))
        return self.throttle_pause if isinstance(error, RateLimited) else None
