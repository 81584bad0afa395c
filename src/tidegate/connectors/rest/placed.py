"""Tokens and links that are places: page numbers and offsets by another name, as blind to what moves (HOLE gg).

A token or an address that holds the platform's own bookmark is never looked at. But `next_page: 3`, or a Link header with
`page=3` or `offset=200`, is a count of what stands before: a deletion behind the reader passes a record over, as with the
pagers that count themselves, and is noticed in the same way. A place is known by its step from the one before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yarl import URL

from tidegate.connectors.rest import joints
from tidegate.connectors.rest.declaration import Place
from tidegate.connectors.rest.pagers import CursorPager, Drifted, LinkPager, PageSeen, Position

_FIRST_PLACES = frozenset((1, 2))
"""What the second page may be called where the first one has no number: from 0 on, or from 1."""
_FOR_KEYS = re.compile("id|key|after|before|since|last|cursor|marker", re.IGNORECASE)
"""Parameters that take the last record's key, or a place."""
_FOR_KEYS_ONLY = re.compile(
    r"^(?!.*(?i:page|offset|skip)).*(?:(?:^|[_.[-])(?i:id|key)(?:$|[_.\]-])|[a-z](?:I[dD]|Key)$)",
)
"""Parameters that take nothing else."""


@dataclass(frozen=True, slots=True)
class PlacedPager:
    """Pages by a token or link, and reads the page before again wherever that is a place; see `joints`.

    ``sizes``: numbers that each request holds, one of which may be the page's size.
    """

    within: CursorPager | LinkPager
    sizes: frozenset[int] = frozenset()

    @property
    def paths(self) -> tuple[Place, ...]:
        """Return the paths of the pager."""
        return self.within.paths

    def asks(self, position: Position) -> Mapping[str, str | int]:
        """Return what the pager asks."""
        return self.within.asks(position)

    def following(self, position: Position, seen: PageSeen) -> Position | None:
        """Return the next token or link; of a place, with what is to be known of this page."""
        onward = self.within.following(position, seen)
        if onward is None:
            return None
        step, named = self._step(position, onward, seen), self._names_last(position, onward, seen)
        if named and (step is None or "bookmark" in position or _FOR_KEYS_ONLY.search(named)):
            return {**onward, "bookmark": True}
        if step is None:
            return onward
        return {**onward, "step": step, "before": _place(position), **joints.remembered(position, seen)}

    def doubts(self, position: Position, seen: PageSeen, *, last: bool = False) -> list[Position]:
        """Return the pages to read again before the one at ``position`` is believed (`joints.doubts`).

        ``last``: there will be no further one, whatever the source says.
        """
        before = position.get("before")
        if not isinstance(before, Mapping):
            return []
        ends = last or self.within.following(position, seen) is None
        return joints.doubts(position, seen, before, _place(position), ends=ends)

    def verify(self, position: Position, seen: PageSeen, again: Sequence[PageSeen]) -> None:
        """Raise Drifted if records moved, PageRepeated if the source ignores the place."""
        joints.require_another("the place in its own token or link", position, seen, again[0])
        if joints.moved(position, seen, again):
            raise Drifted("records moved between two pages", self.following(position, seen))

    def _step(self, position: Position, onward: Position, seen: PageSeen) -> int | None:
        """Return how far the next place is from this one, None if it is none: a bookmark, or a key that is no such step."""
        here, there = self._numbers(position, seen), self._numbers(onward, seen)
        changed = self._changed(position, onward, seen)
        if not all(map(_is_number, changed.values())):
            return None
        sizes = {int(text) for name, text in there.items() if name not in changed and _is_number(text)}
        steps = {1, len(seen.keys), position.get("step"), *sizes, *self.sizes} - {0}
        for name, text in changed.items():
            before = here.get(name, "0")
            if _is_number(before):
                step = int(text) - int(before)
                if step in steps or (name not in here and step in _FIRST_PLACES):
                    return step
        return None

    def _names_last(self, position: Position, onward: Position, seen: PageSeen) -> str:
        """Return the parameter for keys that has the last record's in the next token or link, "" if none has."""
        last = seen.keys[-1].strip('"') if seen.keys else None
        parts = self._changed(position, onward, seen).items()
        return next((name for name, text in parts if text == last and _FOR_KEYS.search(name)), "")

    def _changed(self, position: Position, onward: Position, seen: PageSeen) -> dict[str, str]:
        """Return the parts of the next address or token that are others than in this one."""
        here, there = self._numbers(position, seen), self._numbers(onward, seen)
        changed = {name: text for name, text in there.items() if here.get(name) != text}
        if position:
            return changed  # the first page's address may be written in another way than a link
        return {name: text for name, text in changed.items() if name[0] != "/" or _is_number(text)}

    def _numbers(self, position: Position, seen: PageSeen) -> dict[str, str]:
        """Return what an address or token is made of, by the names of its parts."""
        if isinstance(self.within, CursorPager):
            return {self.within.param: str(position["token"])} if position else {}
        address = URL(str(position["link"]), encoded=True) if position else seen.url
        parts = {f"/{place}": part for place, part in enumerate(address.path.split("/"))}
        return parts | dict(address.query)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19


def _place(position: Position) -> Position:
    return {name: position[name] for name in ("token", "link") if name in position}
