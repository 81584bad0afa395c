"""The outbox, as the destinations see it that are sent to later; the composition root hands it in (SPEC 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Protocol

import asyncpg

from tidegate.destinations.base import DeliveryKey, Ledger, Quarantined, Target, Turn, Written
from tidegate.destinations.records import Seen, read
from tidegate.domain.clock import Clock
from tidegate.domain.fetch import Page
from tidegate.domain.outgoing import Message, Route, Version


class Outbox(Protocol):
    """Tables of Tidegate's own database; what each call guarantees stands in the store."""

    async def enter(
        self, connection: asyncpg.Connection, run_id: int, destination_id: int, *, whole_periods: bool
    ) -> Route:
        """Return the route of the run's chain to the destination, locked until the transaction ends."""
        ...

    async def newer(
        self, connection: asyncpg.Connection, route_id: int, versions: Sequence[Version]
    ) -> dict[bytes, bool]:
        """Note versions as delivered; return by key hash those that were not, and whether the key is new."""
        ...

    async def forget(self, connection: asyncpg.Connection, route_id: int, before: datetime) -> None:
        """Forget delivered versions before a cursor value."""
        ...

    async def add(
        self,
        connection: asyncpg.Connection,
        route: Route,
        run_id: int,
        batch: int,
        messages: Sequence[Message],
        now: datetime,
    ) -> None:
        """Put messages behind those that wait."""
        ...


@dataclass(frozen=True, slots=True)
class Handing:
    """How one destination's batches enter the outbox.

    ``render`` makes messages of the records of one batch, on the route and under the key. ``refusal`` says why a record
    cannot be sent at all, "" if it can. ``whole_periods``: they wait until a run is complete.
    """

    pool: asyncpg.Pool[asyncpg.Record]
    outbox: Outbox
    clock: Clock
    destination_id: int
    whole_periods: bool
    render: Callable[[Target, Route, DeliveryKey, Sequence[Seen]], Sequence[Message]]
    refusal: Callable[[Seen], str]


def message_id(route: Route, key: DeliveryKey, part: int, body: bytes) -> str:
    """Return the id of one part of one batch: the same on every attempt, another for every other part, batch, run or route.

    And for another body: a ledger restored from a backup makes the same batches again, perhaps with more in them, and a
    receiver that keeps ids must not take those for the ones it has.
    """
    name = f"{route.seed}/{key.run_id}/{key.batch}/{part}/{sha256(body).hexdigest()}"
    return f"msg_{sha256(name.encode()).hexdigest()[:32]}"


class OutboxWriter:
    """One run's way into the outbox: messages, delivered versions and the ledger's entry commit together, or not at all."""

    def __init__(self, handing: Handing, target: Target, run_id: int) -> None:
        self._handing = handing
        self._target = target
        self._run_id = run_id
        self._forgotten = False

    async def committed(self) -> bytes | None:
        """Return None: what committed is in the ledger. Does no I/O."""
        return None

    def ready(self, page: Page) -> None:
        """Do nothing ahead."""

    async def write(
        self, pages: Sequence[Page], key: DeliveryKey, checkpoint: bytes, ledger: Ledger, turn: Turn
    ) -> Written:
        """Put the records of ``pages`` that are not delivered at their version yet into the outbox, with ``ledger``.

        Raises what ``turn`` and ``ledger`` raise (LeaseLost), and asyncpg's errors: the database is Tidegate's own.
        """
        seen, quarantined, count = read(pages, self._target.stream)
        sendable: list[Seen] = []
        for one in seen:
            if reason := self._handing.refusal(one):
                quarantined.append(Quarantined(reason, one.record))
            else:
                sendable.append(one)
        await turn()
        async with self._handing.pool.acquire() as connection, connection.transaction():
            inserted, updated = await self._hand_over(connection, key, sendable)  # type: ignore[arg-type]
            written = Written(
                read=count,
                inserted=inserted,
                updated=updated,
                unchanged=count - inserted - updated - len(quarantined),
                quarantined=tuple(quarantined),
            )
            await ledger(connection, written)  # type: ignore[arg-type]
        return written

    async def _hand_over(
        self, connection: asyncpg.Connection, key: DeliveryKey, seen: Sequence[Seen]
    ) -> tuple[int, int]:
        """Add what is new to the outbox; return how many records have a new key, and how many a newer version."""
        outbox = self._handing.outbox
        route = await outbox.enter(
            connection, self._run_id, self._handing.destination_id, whole_periods=self._handing.whole_periods
        )
        await self._forget(connection, route)
        newer = await outbox.newer(connection, route.id, [one.version for one in seen])
        chosen = [one for one in seen if one.version.key_hash in newer]
        if chosen:
            messages = self._handing.render(self._target, route, key, chosen)
            await outbox.add(connection, route, self._run_id, key.batch, messages, self._handing.clock.now())
        inserted = sum(newer.values())
        return inserted, len(newer) - inserted

    async def _forget(self, connection: asyncpg.Connection, route: Route) -> None:
        """Forget, once per run, the versions that no fetch reaches any more; where every fetch reaches all, all are kept."""
        if route.watermark is None or self._forgotten:
            return
        self._forgotten = True
        before = self._target.stream.reread_from(route.watermark)
        if before is not None:
            await self._handing.outbox.forget(connection, route.id, before)
