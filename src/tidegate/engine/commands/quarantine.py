"""Quarantine: what a person does with records that could not be delivered (SPEC 4, HOLE d)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from tidegate.connectors.http import ReplyRules
from tidegate.destinations.base import DeliveryKey, Destination, Target, Written, at_once
from tidegate.domain.errors import InvalidInput
from tidegate.domain.fetch import FetchReport, Page
from tidegate.domain.spelling import spellings
from tidegate.engine.parts import Parts, stream_of
from tidegate.engine.queries import require_known, require_stream
from tidegate.store import directory, quarantine
from tidegate.store.quarantine import Chosen, Exit, Gone, Kept, Poisoned

if TYPE_CHECKING:
    from tidegate.store.database import Connection

CANNOT_TELL = frozenset({"webhook", "files"})
"""Kinds of destination that cannot tell whether a newer version has been there: what was handed over is forgotten beyond the
lookback (SPEC 4), and a later message counts as the newer one. Only what the source shows now is safe to hand over."""

AT_ONCE = 50
"""Records delivered in one transaction."""

MOST_TRIES = 3
"""Times that a batch is tried of which others have let a part out meanwhile."""

LARGEST_NUMBER = 2**63 - 1
HIDDEN = "(hidden: the secrets of its connection cannot be opened, see `tidegate doctor`)"

Row = TypeVar("Row", Kept, Exit)


@dataclass(frozen=True, slots=True)
class Shown:
    """A record in quarantine with its text, secrets masked."""

    kept: Kept
    record: str


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of one record: it was delivered, or stays for this reason."""

    id: int
    delivered: bool
    reason: str


async def listing(parts: Parts, chosen: Chosen, limit: int = 100) -> list[Kept]:
    """Return up to ``limit`` of the chosen records, oldest first, secrets masked.

    A reason is hidden if its connection's secrets cannot be opened. Raises InvalidInput for a tenant, installation or
    stream there is none of, and for an installation without its tenant.
    """
    await _require_known(parts, chosen)
    return await _masked(parts, await quarantine.listed(parts.pool, chosen, limit))


async def show(parts: Parts, record_id: int) -> Shown:
    """Return one record. Raises InvalidInput if it is not in quarantine, or its connection's secrets cannot be opened."""
    _require_numbers((record_id,))
    found = await quarantine.listed(parts.pool, Chosen(ids=(record_id,)), 1)
    texts = await quarantine.records(parts.pool, [record_id])
    if not found or record_id not in texts:
        raise _not_there((record_id,))
    rules = await _mask_of(parts, found[0].chain_id)
    text = texts[record_id].record.decode(errors="backslashreplace")
    return Shown(replace(found[0], reason=rules.mask(found[0].reason)), rules.mask(text))


async def retry(parts: Parts, chosen: Chosen, person: str, note: str = "retried") -> list[Retried]:
    """Deliver the chosen records again, by the path and the version rule of every delivery, and say what became of each.

    A record leaves the quarantine in the transaction in which it lands, or stays with its new reason. Where rows are
    elsewhere, they commit first: a crash between leaves the record in quarantine, and the next retry finds it landed.
    Raises InvalidInput if nothing is meant or named, or the destination cannot tell whether a newer version is there; a
    DestinationError if it cannot take any of them.
    """
    by_chain = await _meant(parts, chosen)
    outcomes: list[Retried] = []
    for chain_id, ids in by_chain.items():
        async with AsyncExitStack() as open_ends:
            delivery = await _Delivery.open(parts, chain_id, person, note, open_ends)
            for first in range(0, len(ids), AT_ONCE):
                outcomes += await delivery.deliver(ids[first : first + AT_ONCE])
    return outcomes


async def drop(parts: Parts, chosen: Chosen, person: str, note: str) -> int:
    """Let the chosen records out undelivered and for good, with who, when and why; return how many.

    All or none. Raises InvalidInput without a reason, or if nothing is meant or named.
    """
    if not note.strip():
        raise InvalidInput("reason", note, "is empty", "Say why these records are not wanted; it is kept.")
    by_chain = await _meant(parts, chosen)
    ids = [each for ids in by_chain.values() for each in ids]
    async with parts.pool.acquire() as connection, connection.transaction():
        await quarantine.drop(connection, ids, person, note, parts.clock.now())
    return len(ids)


async def exits(parts: Parts, chosen: Chosen, limit: int = 100) -> list[Exit]:
    """Return up to ``limit`` of the chosen records that were let out, the last first; masks and raises as `listing`."""
    await _require_known(parts, chosen)
    return await _masked(parts, await quarantine.exits(parts.pool, chosen, limit))


async def _require_known(parts: Parts, chosen: Chosen) -> None:
    _require_numbers(chosen.ids or ())
    if chosen.tenant_id is not None:
        await require_known(parts, chosen.tenant_id, chosen.installation)
    elif chosen.installation is not None:
        remedy = "Write TENANT/INSTALLATION: others may have one of that name."
        raise InvalidInput("installation", chosen.installation, "is named without its tenant", remedy)
    await require_stream(parts, chosen.tenant_id, chosen.installation, chosen.stream)


def _require_numbers(ids: Sequence[int]) -> None:
    if impossible := tuple(each for each in ids if not 0 <= each <= LARGEST_NUMBER):
        raise _not_there(impossible)


async def _meant(parts: Parts, chosen: Chosen) -> dict[int, list[int]]:
    await _require_known(parts, chosen)
    if chosen == Chosen():
        raise InvalidInput("records", None, "are not chosen", "Name their numbers, or a tenant, stream or reason.")
    found = await quarantine.ids_by_chain(parts.pool, chosen)
    missing = set(chosen.ids or ()).difference(*found.values())
    if missing:
        raise _not_there(tuple(sorted(missing)))
    return found


def _not_there(ids: tuple[int, ...]) -> InvalidInput:
    return InvalidInput("records", list(ids), "are not in quarantine", "`tidegate quarantine list` shows what is.")


async def _masked(parts: Parts, found: Sequence[Row]) -> list[Row]:
    masks: dict[int, ReplyRules | None] = {}
    for chain_id in {each.chain_id for each in found}:
        try:
            masks[chain_id] = await _mask_of(parts, chain_id)
        except InvalidInput:  # sealed under another key: what its secrets are nobody can tell
            masks[chain_id] = None
    return [
        replace(each, reason=HIDDEN if (m := masks[each.chain_id]) is None else m.mask(each.reason)) for each in found
    ]


async def _mask_of(parts: Parts, chain_id: int) -> ReplyRules:
    """Return what hides the secrets of a chain's connection, however they are spelt. Raises InvalidInput."""
    whose = await quarantine.whose(parts.pool, chain_id)
    (stored,) = await directory.connections_by_id(parts.pool, [(whose.tenant_id, whose.connection_id)])
    secrets = parts.sealer.unseal(stored.sealed, stored.place).values()
    return ReplyRules(secrets=tuple({spelling for secret in secrets for spelling in spellings(secret)}))


@dataclass(frozen=True, slots=True)
class _Delivery:
    """The way of one chain's records out of quarantine."""

    parts: Parts
    destination: Destination
    target: Target
    person: str
    note: str

    @classmethod
    async def open(cls, parts: Parts, chain_id: int, person: str, note: str, open_ends: AsyncExitStack) -> _Delivery:
        """Open the destination that the chain's installation has now; ``open_ends`` closes it."""
        whose = await quarantine.whose(parts.pool, chain_id)
        (stored,) = await directory.connections_by_id(parts.pool, [(whose.tenant_id, whose.connection_id)])
        connector = parts.connector(stored.connector)
        stream = stream_of(connector, whose.stream)
        place = await directory.destination_by_id(parts.pool, whose.destination_id)
        if place.kind in CANNOT_TELL:
            raise InvalidInput(
                "records",
                place.name,
                f"is a destination of kind {place.kind}, into which stored versions cannot be retried: a newer one may be there",
                "Correct the cause and `tidegate backfill` its period: the source shows the newest version. Then drop this one.",
            )
        secrets = parts.sealer.unseal(place.sealed, directory.destination_place(place.name))
        destination = await parts.open_destination(place, secrets)
        open_ends.push_async_callback(destination.close)
        return cls(parts, destination, Target(whose.tenant_id, whose.account, connector.name, stream), person, note)

    async def deliver(self, ids: Sequence[int]) -> list[Retried]:
        """Deliver what of ``ids`` is still in quarantine in one transaction. Raises Gone if others keep letting them out."""
        for _ in range(MOST_TRIES - 1):
            try:
                return await self._deliver(await quarantine.records(self.parts.pool, ids))
            except Gone:
                continue
        return await self._deliver(await quarantine.records(self.parts.pool, ids))

    async def _deliver(self, records: Mapping[int, Poisoned]) -> list[Retried]:
        if not records:
            return []
        outcomes: list[Retried] = []

        async def ledger(connection: Connection, written: Written) -> None:
            again = {each.record: each.reason for each in written.quarantined}
            stays = [(each, again[kept.record]) for each, kept in records.items() if kept.record in again]
            delivered = [each for each, kept in records.items() if kept.record not in again]
            await quarantine.settle(connection, delivered, stays, self.person, self.note, self.parts.clock.now())
            outcomes[:] = [Retried(each, True, "") for each in delivered] + [
                Retried(each, False, why) for each, why in stays
            ]

        number = await quarantine.delivery_number(self.parts.pool)
        writer = self.destination.writer(self.target, number, 1)
        await writer.committed()
        pages = [_page(kept) for kept in records.values()]
        await writer.write(pages, DeliveryKey(number, 1, 1), b"", ledger, at_once)
        return sorted(outcomes, key=lambda each: each.id)


def _page(kept: Poisoned) -> Page:
    """Return a page of one record, so that none can hurt another."""
    assert kept.requested_at is not None
    return Page(b"[" + kept.record + b"]", None, kept.requested_at, FetchReport(None, None))
