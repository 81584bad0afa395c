"""A small list of records and every movement that it can make between two requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

GRAIN = 64  # between two values, so that others fit in between
FIRST_VALUE = 10 * GRAIN
NOW = 100 * GRAIN  # what is edited or created meanwhile has this value, or a greater one


class Record(NamedTuple):
    """One record. ``value``: its cursor value, in seconds; in a list of another order, its place there, and not shown."""

    id: int
    value: int


class Order(Enum):
    """How a list is sorted; records of one value by their ids."""

    OLDEST = "oldest first"
    NEWEST = "newest first"
    ID = "by id"
    ID_DOWN = "by id, greatest first"
    OTHER = "by another field"

    @property
    def by_value(self) -> bool:
        """Whether an edit moves a record."""
        return self not in (Order.ID, Order.ID_DOWN)

    @property
    def down(self) -> bool:
        """Whether the greatest come first."""
        return self in (Order.NEWEST, Order.ID_DOWN)

    def place(self, record: Record) -> tuple[int, int]:
        """What the list is sorted by, upwards or downwards."""
        return (record.value, record.id) if self.by_value else (record.id, 0)

    def listed(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """The records in this order."""
        return tuple(sorted(records, key=self.place, reverse=self.down))


class Shop(NamedTuple):
    """What a source has, and may still do. ``records``: as they are listed. ``gone``: earlier versions, which may come back.

    ``left``: how many movements. ``kept``: the ids of those that were there from the first request on, and were not touched.
    """

    records: tuple[Record, ...]
    gone: tuple[Record, ...]
    left: int
    kept: frozenset[int]


def opened(records: Sequence[Record], left: int) -> Shop:
    """The shop before the first request."""
    return Shop(tuple(records), (), left, frozenset(record.id for record in records))


@lru_cache(maxsize=200_000)
def moves(shop: Shop, order: Order, dense: bool) -> tuple[tuple[str, Shop], ...]:
    """Every movement that ``shop`` can make, and what it leads to. ``dense``: new ids follow the greatest one, without gaps."""
    if not shop.left:
        return ()
    return (
        *_deletions(shop, order),
        *_edits(shop, order),
        *_returns(shop, order),
        *((f"insert {new.id}@{new.value}", _with(shop, order, new)) for new in _new(shop, order, dense)),
    )


def _with(shop: Shop, order: Order, new: Record, old: Record | None = None, *, back: bool = False) -> Shop:
    """The shop after ``new`` has come, in place of ``old`` or ``back`` from what is gone."""
    records = (*(one for one in shop.records if one.id != new.id), new)
    gone = tuple(one for one in shop.gone if one != new) if back else (*shop.gone, *([old] if old else ()))
    return Shop(order.listed(records), _worth(gone, shop), shop.left - 1, shop.kept - {new.id})


def _worth(gone: tuple[Record, ...], shop: Shop) -> tuple[Record, ...]:
    return gone if shop.left > 1 else ()


def _deletions(shop: Shop, order: Order) -> Iterator[tuple[str, Shop]]:
    for old in shop.records:
        records = tuple(one for one in shop.records if one != old)
        yield f"delete {old.id}", Shop(records, _worth((*shop.gone, old), shop), shop.left - 1, shop.kept - {old.id})


def _edits(shop: Shop, order: Order) -> Iterator[tuple[str, Shop]]:
    """An edited record has the newest cursor value; in another order it may as well move to the front."""
    newest, least = _newest(shop), min((one.value for one in shop.records), default=FIRST_VALUE)
    for old in shop.records:
        yield f"edit {old.id}", _with(shop, order, old._replace(value=newest), old)
        if order is Order.OTHER:
            yield f"move {old.id} to the front", _with(shop, order, old._replace(value=least - GRAIN), old)


def _returns(shop: Shop, order: Order) -> Iterator[tuple[str, Shop]]:
    """What is gone may come back as it was; in the order of a cursor field an edit cannot, for time does not."""
    there = {one.id for one in shop.records}
    for old in shop.gone:
        if order is not Order.OTHER and old.id in there:
            continue
        yield f"take back what became of {old.id}", _with(shop, order, old, back=True)


def _newest(shop: Shop) -> int:
    return max(NOW, *(one.value + GRAIN for one in shop.records)) if shop.records else NOW


def _new(shop: Shop, order: Order, dense: bool) -> Iterator[Record]:
    """A new record for each place of the list: at either end, between two neighbours, and beside one of its own value."""
    ids = [one.id for one in (*shop.records, *shop.gone)]
    fresh, newest = max(ids, default=0) + (1 if dense else GRAIN), _newest(shop)
    yield Record(fresh, newest)
    upwards = sorted(shop.records, key=order.place)
    if not upwards:
        return
    if not order.by_value:
        if not dense:
            yield Record(upwards[0].id - GRAIN // 2, newest)
            yield from (Record((one.id + next_.id) // 2, newest) for one, next_ in pairwise(upwards))
        return
    yield Record(fresh, upwards[0].value - GRAIN)
    for one, next_ in pairwise(upwards):
        if one.value != next_.value:
            yield Record(fresh, (one.value + next_.value) // 2)
        elif next_.id - one.id > 1:
            yield Record((one.id + next_.id) // 2, one.value)
    if order is not Order.OTHER:
        yield from (Record(fresh, value) for value in sorted({one.value for one in upwards}))
