"""What waits in the outbox, as values: routes, messages, versions, and what became of sending them (SPEC 4, 5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from tidegate.domain.period import Period
from tidegate.domain.run import Lane


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one record (SPEC 4): ``cursor_at`` is None where the stream has no cursor.

    ``requested_at``: when the page that showed it was asked for, which orders contents of one cursor value.
    """

    key_hash: bytes
    cursor_at: datetime | None
    content_hash: bytes
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class Route:
    """One chain's way to one destination, as one run of it finds it: the run's own ``lane`` and ``period``.

    ``seed`` is the route's own, so that message ids of two databases never meet. ``last_position`` is that of the
    newest batch, 0 for none. ``watermark`` is None where nothing is covered.
    """

    id: int
    seed: str
    last_position: int
    chain_id: int
    tenant_id: str
    installation: str
    workflow: str
    stream: str
    lane: Lane
    period: Period
    watermark: datetime | None


@dataclass(frozen=True, slots=True)
class Message:
    """One batch as it is sent: ``id`` and ``body`` are the same on every attempt."""

    id: str
    position: int
    part: int
    records: int
    body: bytes


class MessageState(StrEnum):
    """Where a batch in the outbox stands."""

    OPEN = "open"  # waits for its first or next attempt
    ACKNOWLEDGED = "acknowledged"
    DEAD = "dead"  # in the dead letter: refused, or given up; a person may replay it, or drop it
    DROPPED = "dropped"  # a person has taken it out of the dead letter; it was not taken, and may still be replayed


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch that is to be sent now; its body is read when it is needed."""

    message_id: str
    position: int
    records: int
    created_at: datetime
    attempts: int


@dataclass(frozen=True, slots=True)
class SentRun:
    """The run whose batches are sent, as signals name it."""

    id: int
    chain_id: int
    tenant_id: str
    installation: str
    workflow: str
    stream: str
    account_name: str
    lane: Lane
    period: Period
    due_at: datetime
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Sending:
    """What is sent at once: one batch, or all that belong to a period.

    ``run`` is the one that completed them, else the one that made the batch, and ``period`` is its period: None if that run
    has been planned anew and not started yet.
    """

    tenant_id: str
    installation: str
    stream: str
    lane: Lane
    period: Period | None
    batches: tuple[Waiting, ...]
    body: Callable[[Waiting], Awaitable[bytes]]
    run: SentRun | None = None


TO_RECEIVER: Final = "to a receiver"
"""What an HTTP request is marked with that is no request to a source: its sender tells what came of it."""


class Verdict(StrEnum):
    """What a destination's answer means for the batch."""

    ACKNOWLEDGED = "acknowledged"
    AGAIN = "again"  # may pass: the batch is sent again, and those behind it wait
    REFUSED = "refused"  # will not pass: dead letter at once, the next batch goes on
    GONE = "gone"  # the receiver is not there any more: dead letter, and the installation is paused


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one attempt. ``status``: HTTP's, None without a reply. ``detail``: for people, secrets masked.

    ``retry_after_seconds`` is what the receiver asked for, None if it did not.
    """

    verdict: Verdict
    status: int | None = None
    detail: str = ""
    retry_after_seconds: float | None = None
