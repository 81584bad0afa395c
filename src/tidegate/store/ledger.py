"""Table `ledger`: the one row that says which ledger this database is, among those that note commits elsewhere (SPEC 5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool


@dataclass(frozen=True, slots=True)
class Identity:
    """A ledger's own ``id``, the same in every backup of it.

    ``alone``: whether no worker is left of a revision that notes commits without it.
    """

    id: UUID
    alone: bool


async def identity(connection: Connection | Pool, now: datetime) -> Identity:
    """Return which ledger this database is. Raises LookupError if its row is gone."""
    row = await connection.fetchrow("select id, alone_from <= $1 as alone from ledger", now)
    if row is None:
        raise LookupError("the table ledger has lost its row")
    return Identity(**row)
