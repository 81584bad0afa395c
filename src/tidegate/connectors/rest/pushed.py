"""Whether a page that shows records again hides none: they were pushed towards the end, or stand on both pages (HOLE gg).

A record that comes again while the page it stood on shows it no more looks pushed. But where records of one cursor value come
in another order on each page, it may hide one all the same, and have left its page afterwards: edited, or pushed only then. Nor
is the record that an offset page shows once more proof that nothing moved: chance may have put it there. So in a list that is
in its cursor field's order it takes more: that the value at the joint begins on the second page, behind another value; or that
nothing moves while both pages are read again in turn, and then they share no record.

A list in another order does not show its groups. There it has to do that the records kept their order, as far as it was seen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from tidegate.connectors.rest import joints
from tidegate.connectors.rest.pagers import PageSeen, Position
from tidegate.connectors.rest.records import Glance
from tidegate.connectors.rest.ties import Ties, version_of

Instant = Callable[[Glance], datetime | None]
Read = Callable[[Position], Awaitable[PageSeen]]


async def hides_none(
    ties: Ties, at: Position, seen: PageSeen, repeated: Sequence[bytes], read: Read, instant: Instant
) -> bool:
    """Return whether the page ``at``, ``seen`` to show ``repeated`` records again, cannot hide one: it is read again if need be.

    ``repeated`` is empty for an offset page that shows no more of the one before than it has to.
    """
    if ties.before is None:
        return not repeated and (_follows(at, seen, instant) or await _still_there(at, read))
    place, before = ties.before
    joint = Joint(before, seen, ties.shown_again(at), ties.begun == place, instant)
    if joint.begins_on(seen) or (not repeated and not joint.ordered):
        return True
    by_key = ties.by_key(seen)
    if by_key and not repeated:
        return True
    again = await read(place)
    if by_key or not joint.ordered or not joint.left(repeated, again):
        return joint.left(repeated, again) and (by_key or joint.kept_order(again))
    itself = await read(at)
    if joint.stands_whole_on(itself) or (not repeated and joint.unmoved(again, itself)):
        return True
    return joint.quiet(again, itself, await read(place))


def _follows(at: Position, seen: PageSeen, instant: Instant) -> bool:
    """Return whether the value that the unknown page before ended in begins on this one, or the list has another order."""
    glances, last = seen.glances, instant(seen.glances[seen.glances.marks.index(str(at["last"]))])
    first = instant(glances[0])
    if first is not None and last is not None and first != last:
        return True
    return not any(_in_order(seen, instant, ascending=ascending) for ascending in (True, False))


async def _still_there(at: Position, read: Read) -> bool:
    return "before" in at and joints.shown(await read({"offset": at["before"]}))["keys"] == at.get("keys")


@dataclass(frozen=True, slots=True)
class Joint:
    """Two pages as they were read, of which the second shows records of the first one again.

    ``expected``: how many it shows again although none moved. ``begun``: the open group began on the first of them.
    """

    before: PageSeen
    page: PageSeen
    expected: int
    begun: bool
    instant: Instant

    @property
    def ordered(self) -> bool:
        """Return whether the list is in the order of its cursor field, as far as the two pages show."""
        return self._ordered(self.page, ascending=True) or self._ordered(self.page, ascending=False)

    def _ordered(self, seen: PageSeen, *, ascending: bool) -> bool:
        return all(_in_order(one, self.instant, ascending=ascending) for one in (self.before, seen))

    @property
    def _value(self) -> datetime | None:
        """Return the value that the first page ends in."""
        values = (self.instant(self.before.glances[place]) for place in range(-1, -len(self.before.glances) - 1, -1))
        return next((value for value in values if value is not None), None)

    def begins_on(self, seen: PageSeen) -> bool:
        """Return whether the value that the first page ends in has all its records from ``seen``, the second one, on."""
        value, first = self._value, self.instant(seen.glances[0]) if len(seen.glances) else None
        if value is None or first is None or first == value:
            return False
        return self._ordered(seen, ascending=first < value)

    def stands_whole_on(self, itself: PageSeen) -> bool:
        """Return whether that value begins on the second page, read again as ``itself``, and it shows no new record of it."""
        value, known = self._value, {*_marks(self.before), *_marks(self.page)}
        places = [place for place, glance in enumerate(itself.glances) if self.instant(glance) == value]
        return (
            self.begins_on(itself)
            and bool(places)
            and known.issuperset(map(version_of, itself.glances[: places[-1] + 1]))
        )

    def left(self, repeated: Sequence[bytes], again: PageSeen) -> bool:
        """Return whether the first page, read ``again``, shows the ``repeated`` records no more."""
        left = set(_marks(self.before)).difference(_marks(again))
        return sum(one not in left for one in repeated) <= self.expected

    def kept_order(self, again: PageSeen) -> bool:
        """Return whether the records that came twice were the first page's last ones and came first on the second, in order."""
        before, page, now = _marks(self.before), _marks(self.page), _marks(again)
        on_page, there = set(page), set(now)
        shown, kept = [one for one in before if one in on_page], [one for one in before if one in there]
        if page[: len(shown)] != shown or [one for one in now if one in set(kept)] != kept:
            return False
        if now[-1:] != kept[-1:] or len(on_page & there) > self.expected:
            return False  # what it ends in now is new to us: it came from behind, if not from the second page
        return not shown or not kept or before.index(kept[-1]) < before.index(shown[0]) + self.expected

    def unmoved(self, again: PageSeen, itself: PageSeen) -> bool:
        """Return whether both pages, read again in turn, show what they did."""
        return _marks(again) == _marks(self.before) and _marks(itself) == _marks(self.page)

    def quiet(self, again: PageSeen, itself: PageSeen, finally_: PageSeen) -> bool:
        """Return whether both pages, read again in turn, show that records were pushed before the second one was first read.

        Nothing has moved since, they share no record, and all that left the first page, its last ones, are on the second. What
        pushed them has another value: else it may be the one that was hidden.
        """
        before, page, now = _marks(self.before), _marks(self.page), _marks(again)
        known, on_page = set(before), set(page)
        kept = [one for one in now if one in known]
        value, pushing = self._value, [one for one in again.glances if version_of(one) not in known]
        return (
            self.begun
            and all(self.instant(one) != value for one in pushing)
            and _marks(itself) == page
            and _marks(finally_) == now
            and len(on_page.intersection(now)) <= self.expected
            and kept == before[: len(kept)]
            and on_page.issuperset(before[len(kept) :])
        )


def _in_order(seen: PageSeen, instant: Instant, *, ascending: bool) -> bool:
    """Return whether the cursor values of a page are in order; texts of one length mostly tell."""
    texts = [mark[len(key) :].lstrip() for key, mark in zip(seen.keys, seen.glances.marks, strict=True)]
    if not any(texts):
        return False
    if len(set(map(len, texts))) == 1 and texts == sorted(texts, reverse=not ascending):
        return True
    values = (value for value in map(instant, seen.glances) if value is not None)
    return all(one == other or (one < other) is ascending for one, other in pairwise(values))


def _marks(seen: PageSeen) -> list[bytes]:
    return [one for one in map(version_of, seen.glances) if one]
