"""Keyset paging by the cursor field: each page asks from the last record's cursor value on.

Whatever is edited meanwhile moves to the end and is met there; nothing counts records, so none is skipped (HOLE gg), and no
ceiling on a listing's length is reached (HOLE w). It needs a listing in the cursor field's order, oldest first, and a lower
bound. Where a whole page has one cursor value the bound cannot move; then, for that value alone,

    with ``ties``      its records are listed by key: those after the last key, until there are no more
    else               the pager ``within`` goes on to its next page, and the next one, until the value changes

A page that is not in order moves nothing: its listing goes on by ``within``; with ``ties`` it is an error. Nor does a first page
of one value tell that there is an order: until two values were seen, the later one after the earlier, ``within`` goes on there
as well. A list that is newest first after all would else be cut off at its newest value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import msgspec

from tidegate.connectors.rest.declaration import BoundParam, Place
from tidegate.connectors.rest.filters import render_lower, shown_again
from tidegate.connectors.rest.pagers import FIRST, Drifted, Pager, PageSeen, Position, sendable
from tidegate.domain.cursor import CursorField
from tidegate.domain.errors import ContractBroken


@dataclass(frozen=True, slots=True)
class KeysetPager:
    """Pages by the cursor field. A position holds ``from``, the instant that the lower bound has moved to; as long as it has
    not, ``shown``, the only cursor value up to there.

    ``within`` in a position is where the inner pager stands, ``tie`` that the records of that one value are listed by key,
    ``after`` the last key of them, None for the first page. ``param`` carries that key; "" if there are no ``ties``.
    """

    cursor: CursorField
    lower: BoundParam
    within: Pager
    param: str

    @property
    def paths(self) -> tuple[Place, ...]:
        """Return the paths of the inner pager."""
        return self.within.paths

    def asks(self, position: Position) -> Mapping[str, str | int]:
        """Return the inner pager's parameters, or the key to go on after."""
        if "tie" in position:
            return {} if position["after"] is None else {self.param: str(position["after"])}
        return self.within.asks(inner(position))

    def following(self, position: Position, seen: PageSeen) -> Position | None:
        """Return where the next page starts; raises what the inner pager raises."""
        try:
            onward = self.within.following(FIRST if "tie" in position else inner(position), seen)
        except Drifted as drift:
            raise drifted(drift, position) from None
        if "tie" in position:
            return self._after_tie(position, seen, more=onward is not None)
        if onward is None:
            return None
        values, before = self._in_order(position, seen), moved_to(position)
        reached = values[-1] if values else None
        if reached is not None and before is None and not self.param and values[0] == reached:
            return {**outer(position, onward), "shown": reached.isoformat()}
        if reached is not None and (before is None or self._further(reached, before)):
            return {"from": reached.isoformat()}
        if not self.param or seen.envelope.empty:
            return outer(position, onward)
        if reached is None or reached != before:
            raise ContractBroken(
                f"A page is not in the order of {'.'.join(self.cursor.path)}, oldest first.",
                remedy="Ask the source for that order, or declare another pager.",
            )
        return {"from": position["from"], "tie": True, "after": None}

    def _after_tie(self, position: Position, seen: PageSeen, *, more: bool) -> Position:
        keys = [key for glance in seen.glances if glance.key and (key := sendable(glance.key[0])) is not None]
        if more and not keys:
            raise ContractBroken("The source says there is more and shows no record to go on after.")
        if more:
            return {**position, "after": keys[-1]}
        passed = datetime.fromisoformat(str(position["from"])) + self.cursor.precision
        return {"from": passed.isoformat()}

    def _further(self, reached: datetime, before: datetime) -> bool:
        """Return whether asking from ``reached`` on asks for less than from ``before`` on.

        It may not: the bound can be coarser than the values, and wall time near a change of clocks is taken with the smaller
        offset, so that a page may even end before the value that was asked from. There the bound is moved by no less than a
        quarter of what it shows again: moved by each page, it would have each hour's records read as often as it has pages.
        """
        here, there = (render_lower(self.lower, self.cursor, at)[0] for at in (reached, before))
        return reached > before and reached - before >= shown_again(self.lower, reached) / 4 and here != there

    def _in_order(self, position: Position, seen: PageSeen) -> list[datetime]:
        """Return the page's cursor values, what was ``shown`` before in front; empty if they are not in order."""
        values = [datetime.fromisoformat(str(position["shown"]))] if "shown" in position else []
        for glance in seen.glances:
            try:
                values.append(self.cursor.parse(msgspec.json.decode(glance.cursor or b"null")))
            except (ValueError, RecursionError):
                continue  # the destination quarantines the record
        return values if all(earlier <= later for earlier, later in pairwise(values)) else []


def inner(position: Position) -> Position:
    """Return where the inner pager stands."""
    found = position.get("within", FIRST)
    assert isinstance(found, Mapping)
    return found


def outer(position: Position, within: Position) -> Position:
    """Return ``position`` with the inner pager at ``within``."""
    return {**position, "within": within}


def moved_to(position: Position) -> datetime | None:
    """Return the instant that the lower bound has moved to, None if it has not."""
    return datetime.fromisoformat(str(position["from"])) if "from" in position else None


def drifted(drift: Drifted, position: Position) -> Drifted:
    """Return what the inner pager at ``position`` raised as an error of the outer one."""
    return Drifted(str(drift), None if drift.onward is None else outer(position, drift.onward))
