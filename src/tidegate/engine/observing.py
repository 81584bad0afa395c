"""What the engine tells whoever watches it: facts about the life of runs, once they are so (docs/reference/signals.md).

An observer is handed in by the composition root. It must return at once, it may lose a fact when its process dies, and
what it raises never reaches the run: it watches, and has no say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from tidegate.domain.errors import TidegateError
    from tidegate.domain.outgoing import Sending, SentRun
    from tidegate.store.leases import Counts, LeasedRun


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    UNPROVEN = "unproven"
    DELIVERING = "delivering"  # all is in the outbox; the sender ends the run
    RETRYING = "retrying"  # it failed, and the run is tried again
    FAILED = "failed"  # it failed, and so did the run
    RELEASED = "released"  # given back by a graceful stop
    LOST = "lost"  # another worker has the run


class AttemptStarted(msgspec.Struct, frozen=True):
    """A worker has taken a run's lease at ``at``."""

    run: LeasedRun
    at: datetime


class PageFetched(msgspec.Struct, frozen=True):
    """A page of ``size`` bytes has been read: asked for at ``began_at``, there at ``ended_at``."""

    run: LeasedRun
    size: int
    began_at: datetime
    ended_at: datetime


class BatchCommitted(msgspec.Struct, frozen=True):
    """A batch is done: its rows were written at ``written_at``, and they and the ledger's entry stood at ``ended_at``.

    Without records there was nothing to write: ``written_at`` is ``began_at``.
    """

    run: LeasedRun
    batch: int
    counts: Counts
    began_at: datetime
    written_at: datetime
    ended_at: datetime


class AttemptEnded(msgspec.Struct, frozen=True):
    """A worker has let go of a run. ``error``: why, its secrets masked; ``retry_in``: when it is tried again."""

    run: LeasedRun
    at: datetime
    outcome: Outcome
    error: TidegateError | None = None
    retry_in: timedelta | None = None


class SendOutcome(StrEnum):
    """What became of one attempt to send."""

    ACKNOWLEDGED = "acknowledged"
    RETRYING = "retrying"  # it is sent again
    DEAD = "dead"  # it is in the dead letter


@dataclass(frozen=True, slots=True)
class BatchesSent:
    """A sender has sent a batch, or a period's, to a destination of a ``kind``, and what came of it is in the outbox.

    Sent at ``began_at``, answered at ``answered_at`` with ``status`` (HTTP's, None without a reply). ``wrong``: why it was not
    acknowledged, secrets masked; ``retry_in``: when it is sent again.
    """

    kind: str
    sending: Sending
    began_at: datetime
    answered_at: datetime
    outcome: SendOutcome
    status: int | None = None
    wrong: str = ""
    retry_in: timedelta | None = None


@dataclass(frozen=True, slots=True)
class RunDelivered:
    """A run that was *delivering* has ended at ``at``: as succeeded, unproven or, where the chain refused it, failed."""

    run: SentRun
    at: datetime
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Stepped:
    """A loop of the engine has ended one step, or shown that it is alive; the next comes after ``every`` at the latest.

    ``error``: what it stumbled over.
    """

    loop: str
    at: datetime
    every: timedelta
    took: timedelta
    done: int = 0
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class LeasesReclaimed:
    """The sweeper took back expired leases."""

    count: int


Fact: TypeAlias = (
    AttemptStarted
    | PageFetched
    | BatchCommitted
    | AttemptEnded
    | BatchesSent
    | RunDelivered
    | Stepped
    | LeasesReclaimed
)
Observe: TypeAlias = Callable[[Fact], None]


def unobserved(fact: Fact) -> None:
    """Watch nothing."""
