"""What every destination is: a place that takes batches under a delivery key (SPEC 5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias, runtime_checkable

import asyncpg

from tidegate.domain.fetch import Page
from tidegate.domain.outgoing import Answer, Sending
from tidegate.domain.stream import Stream


@dataclass(frozen=True, slots=True)
class Target:
    """Whose records of which stream: rows of different tenants or platform accounts never meet."""

    tenant_id: str
    account_id: str
    connector: str
    stream: Stream


@dataclass(frozen=True, slots=True)
class DeliveryKey:
    """The stable name of one batch: the run, its lease's epoch and the batch's number, from 1."""

    run_id: int
    epoch: int
    batch: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that could not be delivered: ``reason`` for people, ``record`` its JSON text as the source sent it."""

    reason: str
    record: bytes


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one batch: ``read = inserted + updated + unchanged + len(quarantined)``.

    ``misfits``: values kept in the side column because they do not fit theirs (their rows are delivered).
    """

    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    misfits: int = 0
    quarantined: tuple[Quarantined, ...] = ()


Ledger: TypeAlias = Callable[[asyncpg.Connection, Written], Awaitable[None]]
"""Writes a batch's checkpoint (and, for the last one, coverage) on the given connection, inside its transaction.

Raises LeaseLost if the run's epoch has moved on; the destination then rolls its rows back."""


Turn: TypeAlias = Callable[[], Awaitable[None]]
"""Returns once the batch before has committed, in the ledger too; raises if it has not, and then nothing may be written."""


async def at_once() -> None:
    """Be the turn of a batch that has none before it."""


class Writer(Protocol):
    """One run's way into one target."""

    async def committed(self) -> bytes | None:
        """Fence out older epochs and return the last checkpoint that committed with rows, None if the ledger knows all.

        Called once when a run starts or resumes. If the ledger does not know that checkpoint, its batch is written next:
        under its own number, with the same checkpoint and no pages. Raises LeaseLost if a newer epoch has been here; its
        values say which, as ``newest_epoch``.
        """
        ...

    def ready(self, page: Page) -> None:
        """Do ahead what needs no I/O for a page that a later `write` will deliver; never raises, and may do nothing."""
        ...

    async def write(
        self, pages: Sequence[Page], key: DeliveryKey, checkpoint: bytes, ledger: Ledger, turn: Turn
    ) -> Written:
        """Deliver ``pages`` and their ledger entry exactly once in effect, or raise and leave nothing half-written.

        The batch before may still be on its way: before ``turn`` is awaited nothing may commit, and nothing may be locked
        that the batch before could still have to wait for. Raises LeaseLost, a DestinationError or what ``turn`` raises.
        """
        ...


class Destination(Protocol):
    """Where records go."""

    def writer(self, target: Target, run_id: int, epoch: int) -> Writer:
        """Return the writer of one run; does no I/O."""
        ...

    async def close(self) -> None:
        """Release what the destination holds open."""
        ...


@runtime_checkable
class Reachable(Protocol):
    """A destination that can be asked whether it answers."""

    async def reach(self) -> None:
        """Return if it answers now, having changed nothing. Raises a DestinationError if not."""
        ...


@runtime_checkable
class Sends(Protocol):
    """A destination whose batches wait in the outbox until a sender has sent them."""

    @property
    def retry_for(self) -> timedelta | None:
        """Return how long a batch is tried before it goes to the dead letter; None for as long as it takes."""
        ...

    async def send(self, sending: Sending, now: datetime) -> Answer:
        """Send once, at ``now``, and return what the other side said; never raises for what it may say, or not say.

        Sending the same again has the same effect as once, for a receiver that keeps ids.
        """
        ...


@runtime_checkable
class KeepsNotes(Protocol):
    """A destination that notes each run's last commit beside the rows, in a database that is not Tidegate's."""

    async def forget(self, ended: Callable[[Sequence[int]], Awaitable[Sequence[int]]]) -> int:
        """Delete the notes of runs that have ended long ago; ``ended`` says of some run ids which have. Return how many.

        Raises a DestinationError.
        """
        ...
