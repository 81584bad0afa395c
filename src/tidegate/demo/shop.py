"""The sandbox shop: a small store that lives in memory and grows as its clock runs.

It shows itself as Shopify does (the newest 60 days of orders unless the app may read all, orders listed oldest
change first), and tells on request what it truly holds, so that a destination can be compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from tidegate.demo.shop_goods import Record
from tidegate.demo.shop_life import Life
from tidegate.demo.shop_search import Search
from tidegate.demo.shop_table import Table
from tidegate.domain.clock import Clock

ORDER_HISTORY = timedelta(days=60)
EVERY_SCOPE = frozenset({"read_orders", "read_all_orders", "read_customers", "read_products"})
PAGING_LIMIT = 25_000


@dataclass(frozen=True, slots=True)
class Slice:
    """One page of records: each with its position in the order asked for, and whether more follow."""

    rows: list[tuple[tuple[int, int], Record]]
    more: bool


class Shop:
    """A store opened at ``opened_at`` with the given average number of orders a day; 0 for one where nothing happens.

    ``scopes``: what the app may read. ``index_lag``: how long after a change the shop starts to show it (HOLE l).
    The same seed, opening and rate give the same shop, however it is looked at.
    """

    def __init__(
        self,
        clock: Clock,
        seed: int = 1,
        *,
        opened_at: datetime,
        orders_per_day: float = 60.0,
        scopes: frozenset[str] = EVERY_SCOPE,
        index_lag: timedelta = timedelta(0),
        paging_limit: int = PAGING_LIMIT,
    ) -> None:
        self.clock = clock
        self.scopes = scopes
        self.paging_limit = paging_limit
        self._index_lag = index_lag
        self._tables = {"orders": Table(1001), "customers": Table(1), "products": Table(1)}
        self._life = Life(seed, int(opened_at.timestamp()), orders_per_day, self._tables)

    def advance(self, now: datetime | None = None) -> None:
        """Let everything happen that has happened by ``now``, the clock's time if not given."""
        self._life.advance(int(((now or self.clock.now()) - self._index_lag).timestamp()))

    def add_order(self, *, at: datetime | None = None, line_items: int | None = None) -> str:
        """Place an order and return its id."""
        number = self._life.add_order(self._stamp(at), line_items)
        return str(self._tables["orders"].get(number)["id"])  # type: ignore[index]

    def edit(self, stream: str, record_id: str, *, at: datetime | None = None, **changes: object) -> None:
        """Change a record's fields. Raises KeyError if there is no such record."""
        self._tables[stream].edit(_number(record_id), self._stamp(at), **changes)

    def get(self, stream: str, record_id: str) -> Record | None:
        """Return a record as the app may see it, None if there is none or it is too old to be shown."""
        record = self._tables[stream].get(_number(record_id))
        return record if record is not None and self._shown(stream, record) else None

    def counts(self) -> dict[str, int]:
        """Return how many records of each stream the shop holds now, shown or not."""
        self.advance()
        return {stream: len(table) for stream, table in self._tables.items()}

    def snapshot(self, stream: str, until: datetime) -> dict[str, str]:
        """Return ``updatedAt`` by id of every record whose last change as of now is before ``until``, shown or not.

        A destination covered to ``until`` holds each of them at this version (SPEC, the promise).
        """
        self.advance()
        rows = self._tables[stream].by_updated_at()
        return {
            record["id"]: record["updatedAt"]
            for _, record in rows
            if datetime.fromisoformat(record["updatedAt"]) < until
        }

    def page(
        self, stream: str, search: Search, *, after: tuple[int, int] | None, first: int, by_updated_at: bool
    ) -> Slice:
        """Return the ``first`` records behind position ``after`` that the app may see and that ``search`` matches."""
        table = self._tables[stream]
        found: Iterator[tuple[tuple[int, int], Record]] = (
            (position, record)
            for position, record in (table.by_updated_at(after) if by_updated_at else table.by_number(after))
            if search.matches(record) and self._shown(stream, record)
        )
        rows = list(islice(found, first))
        return Slice(rows, more=next(found, None) is not None)

    def _shown(self, stream: str, record: Record) -> bool:
        if stream != "orders" or "read_all_orders" in self.scopes:
            return True
        return datetime.fromisoformat(record["createdAt"]) >= self.clock.now() - ORDER_HISTORY

    def _stamp(self, at: datetime | None) -> int:
        return int((at or self.clock.now()).timestamp())


def _number(record_id: str) -> int:
    """Return the number in a global id. Raises KeyError if there is none."""
    tail = record_id.rpartition("/")[2]
    if not tail.isdigit():
        raise KeyError(record_id)
    return int(tail)
