"""Retention: what ended long ago goes, here and in the databases delivered to (docs/reference/retention.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from tidegate.destinations.base import KeepsNotes
from tidegate.domain.errors import DestinationError, InvalidInput
from tidegate.engine.parts import Parts
from tidegate.store import database, directory, retention

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many of one kind went, or would go; ``keep`` is None for what is kept for ever."""

    what: str
    keep: timedelta | None
    count: int


async def prune(parts: Parts, now: datetime) -> list[Pruned]:
    """Delete what is older than it is to be kept, in small batches, and return how many of each kind went.

    One process does it at a time; to the others nothing is old. Destinations that cannot be reached are left for the next
    time.
    """
    async with database.alone(parts.pool, database.PRUNE_LOCK) as alone:
        if not alone:
            return []
        found = []
        for ageing in retention.AGEINGS:
            keep = _keep(parts, ageing.what)
            found.append(Pruned(ageing.what, keep, 0 if keep is None else await _delete(parts, ageing, now - keep)))
        keep = _keep(parts, retention.COMMITS)
        found.append(Pruned(retention.COMMITS, keep, 0 if keep is None else await _forget_notes(parts, now - keep)))
    for pruned in found:
        if pruned.count:
            log.info("pruned", what=pruned.what, count=pruned.count)
    return found


async def would_go(parts: Parts, now: datetime) -> list[Pruned]:
    """Return how many rows of this database `prune` would delete; it deletes none."""
    found = []
    for ageing in retention.AGEINGS:
        keep = _keep(parts, ageing.what)
        count = 0 if keep is None else await ageing.count(parts.pool, now - keep)
        found.append(Pruned(ageing.what, keep, count))
    return found


def _keep(parts: Parts, what: str) -> timedelta | None:
    keeps: Mapping[str, timedelta | None] = parts.settings.keep
    return keeps[what] if what in keeps else retention.kept_for()[what]


async def _delete(parts: Parts, ageing: retention.Ageing, before: datetime) -> int:
    gone = 0
    while (count := await ageing.delete(parts.pool, before)) > 0:
        gone += count
    return gone


async def _forget_notes(parts: Parts, before: datetime) -> int:
    """Let every destination with a database of its own forget the notes of runs that ended before ``before``."""
    gone = 0
    for stored in await directory.destinations(parts.pool):
        try:
            secrets = parts.sealer.unseal(stored.sealed, directory.destination_place(stored.name))
            destination = await parts.open_destination(stored, secrets)
            try:
                if isinstance(destination, KeepsNotes):
                    gone += await destination.forget(lambda ids: retention.ended(parts.pool, ids, before))
            finally:
                await destination.close()
        except (DestinationError, InvalidInput) as error:
            log.warning("notes not pruned", destination=stored.name, error=str(error))
    return gone
