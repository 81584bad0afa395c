"""The sandbox shop's records of one kind, kept in order of their last change."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from tidegate.demo.shop_goods import Record, iso


class Table:
    """Records by number, and an index of (updated_at in epoch seconds, number)."""

    def __init__(self, first_number: int) -> None:
        self._first_number = first_number
        self._records: dict[int, Record] = {}
        self._updated: dict[int, int] = {}
        self._index: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._records)

    @property
    def next_number(self) -> int:
        """Return the number the next record gets; numbers have no gaps."""
        return self._first_number + len(self._records)

    def get(self, number: int) -> Record | None:
        """Return the record, None if there is none of that number."""
        return self._records.get(number)

    def add(self, record: Record, at: int) -> int:
        """Add a record under the next number, stamped as updated ``at`` (epoch seconds), and return the number."""
        number = self.next_number
        self._records[number] = record
        self._stamp(number, at)
        return number

    def edit(self, number: int, at: int, **changes: object) -> None:
        """Change fields of a record, stamped as updated ``at``, never before its last change.

        Raises KeyError if there is none of that number.
        """
        self._records[number].update(changes)
        known_at = self._updated[number]
        del self._index[bisect_left(self._index, (known_at, number))]
        self._stamp(number, max(at, known_at))

    def _stamp(self, number: int, at: int) -> None:
        insort(self._index, (at, number))
        self._updated[number] = at
        self._records[number]["updatedAt"] = iso(at)

    def by_updated_at(self, after: tuple[int, int] | None = None) -> Iterator[tuple[tuple[int, int], Record]]:
        """Yield (position, record) in order of (updated_at, number), those behind ``after``."""
        start = 0 if after is None else bisect_left(self._index, (after[0], after[1] + 1))
        for place in range(start, len(self._index)):
            position = self._index[place]
            yield position, self._records[position[1]]

    def by_number(self, after: tuple[int, int] | None = None) -> Iterator[tuple[tuple[int, int], Record]]:
        """Yield (position, record) in order of number, those behind ``after``."""
        start = self._first_number if after is None else after[1] + 1
        for number in range(start, self.next_number):
            yield (number, number), self._records[number]
