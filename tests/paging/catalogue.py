"""Every dialect, and every list that is played in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, permutations, product

from tests.paging.dialects import Dialect, Names
from tests.paging.movements import FIRST_VALUE, GRAIN, NOW, Order, Record

_PAGES, _OFFSETS, _KEYS, _BOOKMARKS = Names
_OLDEST, _NEWEST, _ID, _ID_DOWN, _OTHER = Order
_CALENDAR = (_OLDEST, _NEWEST, _ID, _OTHER)


def _dialects() -> Iterator[Dialect]:
    for order in _CALENDAR:
        cursor = order is not _OTHER
        yield Dialect("page", "total", order, cursor=cursor)
        yield Dialect("page", "empty", order, cursor=cursor)
        yield Dialect("offset", "total", order, param="offset", cursor=cursor)
        yield Dialect("offset", "", order, param="offset", cursor=cursor)
        yield Dialect("cursor", "more", order, _PAGES, cursor=cursor)
        yield Dialect("link", "", order, _OFFSETS, "offset", cursor=cursor)
        yield Dialect("cursor", "", order, _BOOKMARKS, "after", cursor=cursor)
    for ends in ("more", "header", "records", "link", "refusal"):
        yield Dialect("page", ends)
    yield Dialect("offset", "more", param="offset")
    for dense, order in product((True, False), (_ID, _ID_DOWN)):
        yield Dialect("last_id", "more", order, param="after", dense=dense)
        yield Dialect("last_id", "empty", order, param="after", dense=dense)
        for param in ("after", "page", "since_id"):
            yield Dialect("cursor", "", order, _KEYS, param, dense=dense)
            yield Dialect("link", "url", order, _KEYS, param, dense=dense)
    for names, param in product((_PAGES, _OFFSETS), ("after", "page")):
        yield Dialect("cursor", "", _OLDEST, names, param, dense=True)
        yield Dialect("link", "url", _ID, names, param, dense=True)
    for inner in (
        Dialect("page", "total"),
        Dialect("page", "empty"),
        Dialect("page", "link"),
        Dialect("cursor", "", _OLDEST, _PAGES),
        Dialect("cursor", "more", _OLDEST, _OFFSETS, "after"),
        Dialect("cursor", "", _OLDEST, _BOOKMARKS, "after"),
    ):
        yield _keyset(inner)
    yield _keyset(Dialect("cursor", "", _OLDEST, _OFFSETS, "after"), by_key=True)


def _keyset(inner: Dialect, **changed: bool) -> Dialect:
    return Dialect(inner.pager, inner.ends, inner.order, inner.names, inner.param, moves=True, **changed)


def _shuffled() -> Iterator[Dialect]:
    for order in (_OLDEST, _NEWEST):
        yield Dialect("page", "total", order, shuffles=True)
        yield Dialect("offset", "total", order, param="offset", shuffles=True)
        yield Dialect("cursor", "more", order, _PAGES, shuffles=True)
    yield Dialect("page", "empty", shuffles=True)
    yield Dialect("offset", "", param="offset", shuffles=True)
    yield Dialect("page", "total", _OTHER, shuffles=True, cursor=False)
    yield Dialect("page", "total", moves=True, shuffles=True)
    yield Dialect("cursor", "", _OLDEST, _OFFSETS, "after", moves=True, shuffles=True)
    yield Dialect("cursor", "", _OLDEST, _OFFSETS, "after", moves=True, by_key=True, shuffles=True)


DIALECTS = tuple(_dialects())
SHUFFLED = tuple(_shuffled())


def lists(dialect: Dialect, length: int) -> Iterator[tuple[Record, ...]]:
    """All lists of that length, each in the dialect's order, without those that differ in nothing but names.

    In the order of the cursor field each record has the value of the one before it, or a greater one; in another order the
    values go any way. The last ones may be newer than our clock, as a source shows them whose own clock is ahead. Where ids run
    on from 1, so that a token may name one by chance, the names make a difference too: then each order of up to four of
    them is a list.
    """
    any_order = dialect.dense and dialect.order.by_value and length <= 4
    for values in dict.fromkeys(_values(dialect, length)):
        for ids in permutations(range(1, length + 1)) if any_order else [range(1, length + 1)]:
            grain = 1 if dialect.dense else GRAIN
            yield dialect.order.listed([Record(n * grain, value) for n, value in zip(ids, values, strict=True)])


def _values(dialect: Dialect, length: int) -> Iterator[tuple[int, ...]]:
    if not length:
        yield ()
        return
    if dialect.order is Order.OTHER and not dialect.shuffles:
        yield tuple(FIRST_VALUE + n * GRAIN for n in range(length))
        return
    if not dialect.order.by_value:
        for values in product(range(2), repeat=length):
            yield tuple(FIRST_VALUE + value * GRAIN for value in values)
        return
    for steps in product((1, 0), repeat=length - 1):
        made = tuple(FIRST_VALUE + value * GRAIN for value in accumulate((0, *steps)))
        yield made
        if dialect.order is Order.OLDEST:
            for behind in range(1, length):
                yield (*made[: length - behind], *(value + NOW for value in made[length - behind :]))
