"""Pagers that count: page numbers and offsets, blind to what moves while they read, so they look twice (HOLE gg)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate.connectors.rest import joints
from tidegate.connectors.rest.declaration import Place
from tidegate.connectors.rest.pagers import Drifted, PageSeen, Position, next_link
from tidegate.domain.errors import ContractBroken


@dataclass(frozen=True, slots=True)
class PagePager:
    """Pages by number. The page before is read again after each one, unless the source promises a ``stable`` listing."""

    param: str
    first: int
    has_more: Place | None
    total_pages: Place | None
    stable: bool
    next_link: bool
    total_records: Place | None = None

    @property
    def paths(self) -> tuple[Place, ...]:
        """Return the paths of ``has_more``, ``total_pages`` and ``total_records``."""
        return tuple(path for path in (self.has_more, self.total_pages, self.total_records) if path is not None)

    def asks(self, position: Position) -> Mapping[str, str | int]:
        """Return the page's number."""
        return {self.param: self._number(position)}

    def _number(self, position: Position) -> int:
        number = position.get("page", self.first)
        assert isinstance(number, int)
        return number

    def following(self, position: Position, seen: PageSeen) -> Position | None:
        """Return the next number, with the last record and all keys seen, by which `doubts` and `verify` notice drift."""
        number = self._number(position)
        if seen.envelope.ended or self._ends(number, position, seen):
            return None
        counted = {} if self.total_records is None else {"seen": _reached(position, seen)}
        kept = joints.shown(seen, ends=True) if self.stable else joints.remembered(position, seen)
        return {"page": number + 1, **counted, **kept}

    def _ends(self, number: int, position: Position, seen: PageSeen) -> bool:
        if self.has_more is not None:
            return not seen.envelope.flag(self.has_more)
        if self.total_pages is not None:
            return number - self.first + 1 >= seen.envelope.number(self.total_pages)
        if self.total_records is not None:
            reached = _reached(position, seen)
            ends = reached >= seen.envelope.number(self.total_records)
            if not ends and seen.envelope.empty:
                raise ContractBroken(f"The source says there is more after {reached} records and shows none.")
            return ends
        if self.next_link:
            return next_link(",".join(seen.headers.getall("Link", ()))) is None
        return seen.envelope.empty

    def doubts(self, position: Position, seen: PageSeen, *, last: bool = False) -> list[Position]:
        """Return the pages to read again before the one at ``position`` is believed (`joints.doubts`).

        ``last``: there will be no further one, whatever the source says.
        """
        number = self._number(position)
        before: Position = {"page": number - 1}
        if self.stable:
            return [before] if joints.repeats(position, seen) else []
        ends = last or seen.envelope.ended or self._ends(number, position, seen)
        return joints.doubts(position, seen, before, {"page": number}, ends=ends)

    def verify(self, position: Position, seen: PageSeen, again: Sequence[PageSeen]) -> None:
        """Raise Drifted unless the page before the one at ``position`` still shows the same records, read ``again``.

        Raises ContractBroken if it shows what the page does: the source ignores the number, or shows its last page for ever.
        """
        joints.require_another(repr(self.param), position, seen, again[0])
        if not self.stable and joints.moved(position, seen, again):
            raise Drifted("records moved between two pages", self.following(position, seen))


@dataclass(frozen=True, slots=True)
class OffsetPager:
    """Pages by a count of records. Each page begins with the last record of the one before, or the listing drifted.

    Where there is room for it, one with another cursor value is shown again in front of it, and all between: then every record
    of the last one's value is on the new page or behind it, in whichever order (HOLE gg). A page of one record has no room for
    its last one and a further one: the next page is asked for without it, and shows something only if the source's pages are
    that small.
    """

    param: str
    has_more: Place | None
    total_records: Place | None
    stable: bool

    @property
    def paths(self) -> tuple[Place, ...]:
        """Return the paths of ``has_more`` and ``total_records``."""
        return tuple(path for path in (self.has_more, self.total_records) if path is not None)

    def asks(self, position: Position) -> Mapping[str, str | int]:
        """Return the offset, a record or more back for the overlap."""
        return {self.param: self._offset(position)}

    def _offset(self, position: Position) -> int:
        return self._passed(position) - overlap(position)

    @staticmethod
    def _passed(position: Position) -> int:
        passed = position.get("offset", 0)
        assert isinstance(passed, int)
        return passed

    def following(self, position: Position, seen: PageSeen) -> Position | None:
        """Return the offset after this page's records; Drifted if the overlapping record, unedited, is not on it.

        Further down on the page is no loss: records have only moved towards the end.
        """
        onward = self._onward(position, seen)
        last = position.get("last", "")
        if last and last not in seen.glances.marks:
            raise Drifted("records moved between two pages", onward)
        if position.get("alone") and seen.glances.marks:
            raise Drifted("pages of one record do not show whether records move between them", onward)
        return onward

    def _onward(self, position: Position, seen: PageSeen) -> Position | None:
        marks = seen.glances.marks
        reached = self._offset(position) + len(marks)
        further = reached > self._passed(position)
        if self.has_more is not None:
            ends = not seen.envelope.flag(self.has_more)
        elif self.total_records is not None:
            ends = reached >= seen.envelope.number(self.total_records)
        else:
            ends = not further
        if ends:
            return None
        if not further:
            raise ContractBroken(f"The source says there is more after {reached} records and shows none.")
        alone = not self.stable and len(marks) == 1 and not position.get("last")
        last = "" if self.stable or alone else marks[-1]
        back = _back(seen) if last else 1
        noted = {"alone": True} if alone else {"back": back} if back > 1 else {}
        return {"offset": reached, "last": last, "before": self._offset(position), **noted, **joints.shown(seen)}

    def doubts(self, position: Position, seen: PageSeen, *, last: bool = False) -> list[Position]:
        """Return the page before, to be read again, if the page at ``position`` goes on and shows what that one did."""
        further = self._offset(position) + len(seen.keys) > self._passed(position)
        return [{"offset": position["before"]}] if further and joints.repeats(position, seen) else []

    def verify(self, position: Position, seen: PageSeen, again: Sequence[PageSeen]) -> None:
        """Raise ContractBroken if the page before, read ``again``, shows what the page does: the source ignores the offset."""
        joints.require_another(repr(self.param), position, seen, again[0])


def overlap(position: Position) -> int:
    """Return how many records of the page before the offset page at ``position`` shows again."""
    back = position.get("back", 1)
    assert isinstance(back, int)
    return back if position.get("last") else 0


def _back(seen: PageSeen) -> int:
    """Return how many records the next page is to show again: those of the last one's cursor value and one before them.

    Only the last one if the page has no other value, no room for so many, or no cursor.
    """
    last, most = seen.glances[-1].cursor, min(max(2, len(seen.glances) // 2), len(seen.glances) - 1)
    for back in range(2, most + 1):
        if last and seen.glances[-back].cursor not in (last, b""):
            return back
    return 1


def _reached(position: Position, seen: PageSeen) -> int:
    """Return how many records the numbered pages have shown, this one's among them."""
    before = position.get("seen", 0)
    assert isinstance(before, int)
    return before + len(seen.glances)
