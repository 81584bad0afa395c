"""Pagers that count: page numbers and offsets, blind to what moves while they read, so they look twice (HOLE gg)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tidegate.connectors.rest.envelope import whole_number
from tidegate.connectors.rest.pagers import Drifted, PageRepeated, PageSeen, Position, next_link
from tidegate.domain.cursor import Path
from tidegate.domain.errors import ContractBroken


@dataclass(frozen=True, slots=True)
class PagePager:
    """Pages by number. The page before is read again after each one, unless the source promises a ``stable`` listing.

    Two pages are believed if the first of them shows the same before and after the second was read, and the second one does
    when it is read again in its turn. So one movement between them is noticed, and one that is taken back as well; three
    that cancel one another out are not.
    """

    param: str
    first: int
    has_more: Path | None
    total_pages: Path | None
    total_pages_header: str | None
    stable: bool
    next_link: bool
    total_records: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
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
        onward: Position = {"page": number + 1, **counted, **_shown(seen, ends=self.stable)}
        if self.stable or seen.envelope.empty:
            return onward
        unproven = self._is_unproven(position, seen)
        joint = {"after": position["tail"], "first": seen.keys[0]} if unproven and "tail" in position else {}
        return {**onward, "last": seen.glances.marks[-1], "tail": seen.keys[-1], **joint}

    def _ends(self, number: int, position: Position, seen: PageSeen) -> bool:
        if self.has_more is not None:
            return not seen.envelope.flag(self.has_more)
        if self.total_pages is not None:
            return number - self.first + 1 >= seen.envelope.number(self.total_pages)
        if self.total_pages_header is not None:
            said = whole_number(seen.headers.get(self.total_pages_header), self.total_pages_header)
            return number - self.first + 1 >= said
        if self.total_records is not None:
            reached = _reached(position, seen)
            ends = reached >= seen.envelope.number(self.total_records)
            if not ends and seen.envelope.empty:
                raise ContractBroken(f"The source says there is more after {reached} records and shows none.")
            return ends
        if self.next_link:
            return next_link(",".join(seen.headers.getall("Link", ()))) is None
        return seen.envelope.empty

    def doubts(self, position: Position, seen: PageSeen) -> list[Position]:
        """Return the pages to read again, in this order, before the one at ``position`` is believed.

        The one before it, if records may have moved towards the beginning, if how that one joins its own predecessor is still
        to be seen (``first`` came right ``after`` another), or if both pages show the same. And the last page itself: no other
        one will show how it joins.
        """
        number, unproven = self._number(position), self._is_unproven(position, seen)
        before = unproven or "first" in position or _repeats(position, seen)
        itself = unproven and (seen.envelope.ended or self._ends(number, position, seen))
        return [{"page": each} for each in [*([number - 1] if before else []), *([number] if itself else [])]]

    def _is_unproven(self, position: Position, seen: PageSeen) -> bool:
        """Return whether a record may have been passed over between the page before and the one at ``position``.

        None has where the last record before the page, unedited, is now on it: records have only moved towards the end.
        """
        if self.stable or "keys" not in position:
            return False
        return not (position.get("last") and position["last"] in seen.glances.marks)

    def verify(self, position: Position, seen: PageSeen, again: Sequence[PageSeen]) -> None:
        """Raise Drifted unless the page before the one at ``position`` still shows the same records, read ``again``.

        That its last one is still there does not suffice: it may have moved away and back. Raises ContractBroken if it shows
        what the page does: the source ignores the number, or shows its last page for ever.
        """
        before, *itself = again
        _require_another(self.param, position, seen, before)
        moved = self._is_unproven(position, seen) and before.glances.keys_digest != position["keys"]
        if "first" in position:
            moved = moved or not _joins(before.keys, position["after"], position["first"])
        for page in itself:
            shown = seen.keys[0] if seen.keys else None
            moved = moved or not (
                _joins(page.keys, position.get("tail"), shown) if shown is not None else page.envelope.empty
            )
        if moved:
            raise Drifted("records moved between two pages", self.following(position, seen))


@dataclass(frozen=True, slots=True)
class OffsetPager:
    """Pages by a count of records. Each page begins with the last record of the one before, or the listing drifted."""

    param: str
    has_more: Path | None
    total_records: Path | None
    stable: bool

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the paths of ``has_more`` and ``total_records``."""
        return tuple(path for path in (self.has_more, self.total_records) if path is not None)

    def asks(self, position: Position) -> Mapping[str, str | int]:
        """Return the offset, one record back for the overlap."""
        return {self.param: self._offset(position)}

    def _offset(self, position: Position) -> int:
        return self._passed(position) - (1 if position.get("last") else 0)

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
        last = "" if self.stable else marks[-1]
        return {"offset": reached, "last": last, "before": self._offset(position), **_shown(seen)}

    def doubts(self, position: Position, seen: PageSeen) -> list[Position]:
        """Return the page before, to be read again, if the page at ``position`` goes on and shows what that one did."""
        further = self._offset(position) + len(seen.keys) > self._passed(position)
        return [{"offset": position["before"]}] if further and _repeats(position, seen) else []

    def verify(self, position: Position, seen: PageSeen, again: Sequence[PageSeen]) -> None:
        """Raise ContractBroken if the page before, read ``again``, shows what the page does: the source ignores the offset."""
        _require_another(self.param, position, seen, again[0])


def _reached(position: Position, seen: PageSeen) -> int:
    """Return how many records the numbered pages have shown, this one's among them."""
    before = position.get("seen", 0)
    assert isinstance(before, int)
    return before + len(seen.glances)


def _text(seen: PageSeen) -> str:
    return blake2b(seen.envelope.records, digest_size=12).hexdigest()


def _shown(seen: PageSeen, *, ends: bool = False) -> Position:
    """Return what a page shows, as a position remembers it: the text as well where the keys do not tell records apart.

    ``ends``: only how it begins and ends, if it can be told. What looks alike then is compared in whole (`_same`).
    """
    if ends and seen.glances.ends_digest:
        return {"ends": seen.glances.ends_digest}
    digest = seen.glances.keys_digest
    return {"keys": digest} if _told_apart(seen) else {"keys": digest, "text": _text(seen)}


def _told_apart(seen: PageSeen) -> bool:
    return all(seen.keys) and len(set(seen.keys)) == len(seen.keys)


def _joins(keys: Sequence[str], after: object, first: object) -> bool:
    """Return whether ``keys`` begin with ``first``, or show it right ``after`` the record that was the last one before it."""
    at = keys.index(str(first)) if first in keys else -1
    return at == 0 or (at > 0 and keys[at - 1] == after)


def _repeats(position: Position, seen: PageSeen) -> bool:
    """Return whether the page at ``position`` shows the records that the page before it did; records may just have moved."""
    if seen.envelope.empty:
        return False
    if "ends" in position:
        return position["ends"] == seen.glances.ends_digest
    if position.get("keys") != seen.glances.keys_digest:
        return False
    return "text" not in position or position["text"] == _text(seen)


def _same(one: PageSeen, other: PageSeen) -> bool:
    return one.keys == other.keys and (_told_apart(one) or _text(one) == _text(other))


def _require_another(param: str, position: Position, seen: PageSeen, before: PageSeen) -> None:
    """Raise PageRepeated if the page ``before`` the one at ``position`` shows the same records now, and did when first read."""
    if _repeats(position, seen) and _repeats(position, before) and _same(seen, before):
        raise PageRepeated(
            f"Two pages in a row show the same records: the source ignores {param!r}, or shows its last page for ever.",
            remedy="Correct the pager's `param`, or declare what says that a page is the last one.",
        )
