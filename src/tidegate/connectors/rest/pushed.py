"""Whether records that came twice on two pages were only pushed towards the end, and hide none (HOLE gg).

A record that comes again while the page it stood on shows it no more looks pushed. But where records of one cursor value come
in another order on each page, it may hide one all the same, and have left its page afterwards: edited, or pushed only then. So
in a list that is in its cursor field's order it takes more: that the value at the joint stands whole on one page, with another
value on either side of it; or that nothing moves any more while both pages are read again, and then they share no record.

A list in another order does not show its groups. There it has to do that the records kept their order, as far as it was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from tidegate.connectors.rest.pagers import PageSeen
from tidegate.connectors.rest.records import Glance
from tidegate.connectors.rest.ties import version_of


@dataclass(frozen=True, slots=True)
class Pushed:
    """Two pages as they were read, of which the second shows records of the first one again.

    ``expected``: how many it shows again although none moved. ``begun``: the group at the joint began on the first of them.
    """

    before: PageSeen
    page: PageSeen
    expected: int
    begun: bool
    instant: Callable[[Glance], datetime | None]

    @property
    def ordered(self) -> bool:
        """Return whether the list is in the order of its cursor field, as far as the two pages show."""
        values = [self._values(seen) for seen in (self.before, self.page)]
        return all(values) and (
            all(earlier <= later for page in values for earlier, later in pairwise(page))
            or all(earlier >= later for page in values for earlier, later in pairwise(page))
        )

    def _values(self, seen: PageSeen) -> list[datetime]:
        return [value for value in map(self.instant, seen.glances) if value is not None]

    def whole(self, seen: PageSeen) -> bool:
        """Return whether the second page, as ``seen``, shows all records of the value that the first one ended in, and no new one.

        In an ordered list all records of a value are on a page that has another one before and after them.
        """
        values = self._values(self.before)
        if not values or not len(seen.glances):
            return False
        places = [place for place, glance in enumerate(seen.glances) if self.instant(glance) == values[-1]]
        ends = [self.instant(seen.glances[0]), self.instant(seen.glances[-1])]
        if not places or None in ends or values[-1] in ends:
            return False
        known = {*_marks(self.before), *_marks(self.page)}
        return known.issuperset(map(version_of, seen.glances[: places[-1] + 1])) and self.ordered

    def left(self, repeated: Iterable[bytes], again: PageSeen) -> bool:
        """Return whether the first page, read ``again``, shows the ``repeated`` records no more."""
        left = set(_marks(self.before)).difference(_marks(again))
        return sum(one not in left for one in repeated) <= self.expected

    def kept_order(self, again: PageSeen) -> bool:
        """Return whether the records that came twice were the first page's last ones and came first on the second, in order."""
        before, page, now = _marks(self.before), _marks(self.page), _marks(again)
        shown, kept = [one for one in before if one in set(page)], [one for one in before if one in set(now)]
        if page[: len(shown)] != shown or [one for one in now if one in set(kept)] != kept:
            return False
        return not shown or not kept or before.index(kept[-1]) < before.index(shown[0]) + self.expected

    def quiet(self, again: PageSeen, itself: PageSeen, finally_: PageSeen) -> bool:
        """Return whether both pages, read again in turn, show that records were pushed before the second one was first read.

        Nothing has moved since, they share no record, and all that left the first page, its last ones, are on the second.
        """
        before, page, now = _marks(self.before), _marks(self.page), _marks(again)
        kept = [one for one in now if one in set(before)]
        return (
            self.begun
            and _marks(itself) == page
            and _marks(finally_) == now
            and len(set(now).intersection(page)) <= self.expected
            and kept == before[: len(kept)]
            and set(page).issuperset(before[len(kept) :])
        )


def _marks(seen: PageSeen) -> list[bytes]:
    return [one for one in map(version_of, seen.glances) if one]
