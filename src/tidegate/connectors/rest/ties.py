"""Whether records keep their order from page to page: where it is not fixed, one that comes twice hides another (HOLE gg).

A source that orders by the cursor field alone is free to order the records of one value anew for each page. The places of
such a group are shown once each, over all pages that it reaches over; so if no record comes twice all have been shown, and if
one does another one has not. That is exact as long as nothing moves meanwhile, which the pagers see to. A record that comes
again with a greater cursor value has been edited and is another one here.

Records that are pushed towards the end come twice as well, and hide none (`tidegate.connectors.rest.pushed`). An offset page
shows the last ones before it again, and as many more as that page was too short.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import takewhile

import msgspec

from tidegate.connectors.rest.counting import overlap
from tidegate.connectors.rest.pagers import FIRST, Drifted, PageSeen, Position
from tidegate.connectors.rest.records import WRITTEN_OUT, Glance

REMEMBERED = 50_000  # at least so many records of a listing are known again, at most twice as many are kept
CARRIED = 250  # at most so many of the open group are known again by a fetch that is resumed
NO_CHANCE = 12  # so many keys in order are so by no accident: 12! is 479,001,600
_DIGEST_BYTES = 8
_VALUE = re.compile(rb'"?-?[0-9]')
"""How a cursor value begins. A record that has none may stand in any group, wherever the source puts it: in the open one."""


class Tied(Drifted):
    """Records came twice although nothing moved: others were not shown."""


class Group(msgspec.Struct, frozen=True, omit_defaults=True):
    """The records at a page's end that share one cursor value, in a page token; without cursor field all are one group.

    ``begun``: the page on which it began. ``marks``: digests of the last of them. ``order``: 1 if their keys ascend, -1 if they
    descend, 0 if neither; ``last``: the last key. In order none can come twice, however many there are.
    """

    value: str = ""
    count: int = 0
    order: int = 0
    last: tuple[str, ...] = ()
    marks: str = ""
    begun: Position = FIRST

    @property
    def lost(self) -> bool:
        """Return whether too little is known of the group to go on in the middle of it."""
        return bool(self.value) and not self.order and self.count > CARRIED


def counted(position: Position) -> bool:
    """Return whether the page at ``position`` stands at a place that is counted, be it by the source itself.

    Links and numeric tokens mostly name a page or an offset. A keyset counts within one cursor value only.
    """
    named = not position.keys().isdisjoint(("page", "offset", "link", "within"))
    return named or str(position.get("token", "")).isdecimal()


def overlaps(at: Position) -> bool:
    """Return whether the page ``at`` shows records of the one before again, though none moved."""
    return "offset" in at and overlap(at) > 0


class Ties:
    """What one counted stretch of a listing has shown so far. ``stable``: of a source that promises not to move.

    Then, if there is a cursor field, only the groups at the ends of pages are looked at: that suffices in its order.
    """

    def __init__(self, group: Group | None, *, stable: bool) -> None:
        self._ends_only = stable
        self._longest = 0
        self._begin()
        if group is not None:
            self._take_up(group)

    def forget(self) -> None:
        """Begin another stretch."""
        if self._begun:
            self._begin()

    def _begin(self) -> None:
        self._begun = False
        self._recent: set[int] = set()
        self._older: set[int] = set()
        self._carried: frozenset[bytes] = frozenset()
        self._ambiguous: set[bytes] = set()  # come twice on one page: they do not tell records apart
        self._marks: deque[bytes] = deque(maxlen=CARRIED)
        self._group = Group()
        self._blind = False  # in a group whose beginning is not remembered; its keys have been in order
        self._before: tuple[Position, PageSeen] | None = None

    def _take_up(self, group: Group) -> None:
        self._begun = True
        raw = b64decode(group.marks)
        self._carried = frozenset(raw[at : at + _DIGEST_BYTES] for at in range(0, len(raw), _DIGEST_BYTES))
        self._group, self._blind = group, group.count > CARRIED

    @property
    def before(self) -> tuple[Position, PageSeen] | None:
        """Return the page before and where it stands, None if this fetch has not read it."""
        return self._before

    @property
    def begun(self) -> Position:
        """Return the page on which the open group began."""
        return self._group.begun

    @property
    def too_many(self) -> bool:
        """Return whether the open group is too large to be remembered, and not in the order of its keys."""
        return bool(self._group.value) and not self._group.order and self._group.count > REMEMBERED

    def repeated(self, at: Position, seen: PageSeen) -> Sequence[bytes]:
        """Return the records of the page ``at`` that came before, nothing if they are no more than its place explains."""
        self._measure(at, seen)
        glances = list(self._leading(seen))
        ambiguous = self._ambiguous | _ambiguous(glances)
        found = [mark for mark in self._known(glances) if mark not in ambiguous]
        return found if len(found) > self.shown_again(at) else ()

    def by_key(self, seen: PageSeen) -> bool:
        """Return whether all that is ``seen`` again is of the open group, and that in the order of its keys, by no chance."""
        group, value = self._group, self._group.value
        last, count = group.last, group.count
        for glance in seen.glances:
            if self._is_known(version_of(glance)):
                if _text(glance.cursor) != value:
                    return False
            elif _text(glance.cursor) == value:
                key = _texts(glance)
                if _order(last, key) != group.order:
                    return False
                last, count = key, count + 1
        return bool(group.order) and count >= NO_CHANCE

    def shown_again(self, at: Position) -> int:
        """Return how many records an offset page shows again although none moved."""
        if "offset" not in at:
            return 0
        short = 0 if self._before is None else self._longest - len(self._before[1].glances)
        return short + overlap(at)

    def _known(self, glances: Iterable[Glance]) -> list[bytes]:
        last, found = self._group.last, []
        for glance in glances:
            mark = version_of(glance)
            if not mark:
                continue
            if self._is_known(mark):
                found.append(mark)
            elif self._blind and _text(glance.cursor) == self._group.value:
                key = _texts(glance)
                if _order(last, key) != self._group.order:
                    found.append(mark)
                last = key
        return found

    def _is_known(self, mark: bytes) -> bool:
        number = hash(mark)
        if number in self._recent or number in self._older:
            return True
        return bool(self._carried) and _digest(mark) in self._carried

    def keep(self, at: Position, seen: PageSeen) -> None:
        """Remember the page ``at``, before the next one of the same stretch."""
        self._begun = True
        glances = list(self._trailing(seen))
        if len(self._ambiguous) < CARRIED:
            self._ambiguous |= _ambiguous(glances)
        for glance in glances:
            mark = version_of(glance)
            if not mark or self._is_known(mark):
                continue
            self._join(at, glance, mark)
            if len(self._recent) >= REMEMBERED:
                self._recent, self._older = set(), self._recent
            self._recent.add(hash(mark))
        self._measure(at, seen)
        self._before = at, seen

    def _measure(self, at: Position, seen: PageSeen) -> None:
        """Note how long pages are, which matters where they stand at offsets: to count records is to read them all."""
        if "page" not in at:
            self._longest = max(self._longest, len(seen.glances))

    def _join(self, at: Position, glance: Glance, mark: bytes) -> None:
        group, key = self._group, _texts(glance)
        value = _text(glance.cursor) if _VALUE.match(glance.cursor) else group.value
        if not group.count or group.value not in ("", value):
            self._marks.clear()
            self._carried, self._blind = frozenset(), False
            self._group = Group(value, 1, 0, key, begun=at)
        else:
            order = _order(group.last, key)
            kept = order if group.count == 1 or order == group.order else 0
            self._group = Group(value, group.count + 1, kept, key, begun=group.begun)
        self._marks.append(mark)

    def _leading(self, seen: PageSeen) -> Iterable[Glance]:
        if not self._ends_only:
            return seen.glances
        return takewhile(
            lambda glance: _text(glance.cursor) == self._group.value or not _VALUE.match(glance.cursor), seen.glances
        )

    def _trailing(self, seen: PageSeen) -> Iterable[Glance]:
        if not self._ends_only or seen.envelope.empty:
            return seen.glances
        value = next((glance.cursor for glance in reversed(seen.glances) if _VALUE.match(glance.cursor)), b"")
        group = takewhile(
            lambda glance: glance.cursor == value or not _VALUE.match(glance.cursor), reversed(seen.glances)
        )
        return reversed(list(group))

    def group(self) -> Group:
        """Return what a resumed fetch has to know."""
        known = [_digest(mark) for mark in self._marks]
        known += sorted(self._carried)[: CARRIED - len(known)]
        if self._group.order and self._group.count > CARRIED:
            known = known[len(self._marks) - 1 :][:1] if self._marks else known
        return msgspec.structs.replace(self._group, marks=b64encode(b"".join(known)).decode())


def version_of(glance: Glance) -> bytes:
    """Return what tells one version of a record from others, b"" for a record without a key."""
    return b",".join(glance.key) + b" " + glance.cursor if glance.key else b""


def _ambiguous(glances: Sequence[Glance]) -> set[bytes]:
    marks = [version_of(glance) for glance in glances]
    return set() if len(set(marks)) == len(marks) else {mark for mark, times in Counter(marks).items() if times > 1}


def _digest(mark: bytes) -> bytes:
    return blake2b(mark, digest_size=_DIGEST_BYTES).digest()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", WRITTEN_OUT)


def _texts(glance: Glance) -> tuple[str, ...]:
    return tuple(map(_text, glance.key))


def _order(before: tuple[str, ...], after: tuple[str, ...]) -> int:
    """Return 1 if ``after`` is the greater key, -1 if it is the lesser, 0 if they cannot be told apart."""
    for one, other in zip(before, after, strict=False):
        if one != other:
            if one.isdecimal() != other.isdecimal():
                return 0
            ascends = (len(one), one) < (len(other), other) if one.isdecimal() else one < other
            return 1 if ascends else -1
    return 0
