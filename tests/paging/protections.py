"""The pagers' protections, and how to take each away: the proof has to find a lost record then, or it proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from tests.paging.dialects import Dialect, Names
from tests.paging.exploring import Exploration, Figures
from tests.paging.movements import FIRST_VALUE, GRAIN, NOW, Order, Record
from tests.paging.plan import source
from tidegate.connectors.rest import joints, listing, placed
from tidegate.connectors.rest.counting import OffsetPager, PagePager
from tidegate.connectors.rest.pagers import PageSeen, Position
from tidegate.connectors.rest.placed import PlacedPager
from tidegate.connectors.rest.pushed import Joint
from tidegate.connectors.rest.records import Glances
from tidegate.connectors.rest.ties import Ties
from tidegate.connectors.rest.trail import Trail

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class List:
    """One list, by its ``values`` in grains, and how many movements it makes."""

    dialect: Dialect
    size: int
    values: tuple[int, ...]
    movements: int

    def played(self, *, until_lost: bool = False) -> Figures:
        """What becomes of it."""
        made = [
            Record(n * (1 if self.dialect.dense else GRAIN), FIRST_VALUE + GRAIN * value)
            for n, value in enumerate(self.values, 1)
        ]
        records = self.dialect.order.listed(made)
        return Exploration(source(self.dialect, self.size), records, self.movements).play(until_lost=until_lost)


@dataclass(frozen=True)
class Protection:
    """One protection. ``where`` it is needed. ``beforehand``: what makes it be needed in so small a list."""

    name: str
    take_away: Callable[[Patch], None]
    where: List
    beforehand: Callable[[Patch], None] = lambda _patch: None


def _pages_are_looked_at_again(patch: Patch) -> None:
    patch.setattr(PagePager, "doubts", lambda _pager, _position, _seen, **_last: [])


def _places_are_looked_at_again(patch: Patch) -> None:
    patch.setattr(PlacedPager, "doubts", lambda _pager, _position, _seen, **_last: [])


def _last_keys_are_keys(patch: Patch) -> None:
    patch.setattr(placed, "_FOR_KEYS_ONLY", placed._FOR_KEYS)


def _offsets_overlap(patch: Patch) -> None:
    following = OffsetPager.following
    patch.setattr(OffsetPager, "following", lambda pager, at, seen: following(replace(pager, stable=True), at, seen))


def _the_last_page_is_read_again(patch: Patch) -> None:
    doubts = joints.doubts

    def without(
        position: Position, seen: PageSeen, before: Position, itself: Position, *, ends: bool
    ) -> list[Position]:
        return doubts(position, seen, before, itself, ends=False)

    patch.setattr(joints, "doubts", without)


def _so_is_the_one_it_stops_at(patch: Patch) -> None:
    doubts = PagePager.doubts
    patch.setattr(PagePager, "doubts", lambda pager, position, seen, **_last: doubts(pager, position, seen))


def _how_a_page_joins_its_predecessor(patch: Patch) -> None:
    patch.setattr(joints, "_joins", lambda _places, _after, _first: True)


def _an_edit_moves_a_record(patch: Patch) -> None:
    patch.setattr(Glances, "places", property(lambda glances: glances.keys))


def _what_comes_twice_hides_others(patch: Patch) -> None:
    patch.setattr(Ties, "repeated", lambda _ties, _at, _seen: ())


def _what_comes_twice_was_pushed_in_order(patch: Patch) -> None:
    patch.setattr(Joint, "kept_order", lambda _joint, _again: True)


def _the_report_says_so(patch: Patch) -> None:
    patch.setattr(Trail, "after_drift", lambda trail: trail)


def _one_listing(patch: Patch) -> None:
    patch.setattr(listing, "MAX_LISTINGS", 1)


_PAGE, _EMPTY = Dialect("page", "total"), Dialect("page", "empty")
_OFFSET, _TOKEN = Dialect("offset", "total", param="offset"), Dialect("cursor", "more")
_LINK = Dialect("link", "", Order.ID, Names.OFFSETS, "offset")
_OTHER = Dialect("page", "total", Order.OTHER, cursor=False)
_KEYSET, _SILENT = Dialect("page", "total", moves=True), Dialect("page", "empty", moves=True)
_AHEAD = NOW // GRAIN

PROTECTIONS = (
    Protection("the page before is read again", _pages_are_looked_at_again, List(_PAGE, 2, (0, 1, 2), 1)),
    Protection("so it is within a keyset", _pages_are_looked_at_again, List(_KEYSET, 2, (0, 0, 0, 0), 1)),
    Protection("a token that is a place is one", _places_are_looked_at_again, List(_TOKEN, 2, (0, 1, 2), 1)),
    Protection("a link that is a place is one", _places_are_looked_at_again, List(_LINK, 2, (0, 0, 0), 1)),
    Protection(
        "an offset is no key for being its page's last one",
        _last_keys_are_keys,
        List(Dialect("cursor", names=Names.OFFSETS, param="after", dense=True), 2, (0, 0, 1, 2), 2),
    ),
    Protection("offsets overlap", _offsets_overlap, List(_OFFSET, 2, (0, 1, 2), 1)),
    Protection("the last page is read again itself", _the_last_page_is_read_again, List(_PAGE, 2, (0, 1, 2), 2)),
    Protection("so is the one that the fetch stops at", _so_is_the_one_it_stops_at, List(_EMPTY, 1, (0, 1, _AHEAD), 2)),
    Protection(
        "so is the one that leaves a cursor value", _so_is_the_one_it_stops_at, List(_SILENT, 2, (0, 0, 0, 1), 2)
    ),
    Protection("how a page joins the one before", _how_a_page_joins_its_predecessor, List(_PAGE, 1, (0, 1, 2), 2)),
    Protection("a record that was edited has moved", _an_edit_moves_a_record, List(_PAGE, 1, (0, 1, 2), 2)),
    Protection(
        "records that come twice hide others",
        _what_comes_twice_hides_others,
        List(replace(_PAGE, shuffles=True), 2, (0, 0, 0), 0),
    ),
    Protection(
        "what came twice was pushed only if all is in order",
        _what_comes_twice_was_pushed_in_order,
        List(_OTHER, 1, (0, 1), 1),
    ),
    Protection("the report says that a listing moved", _the_report_says_so, List(_PAGE, 2, (0, 1, 2), 1), _one_listing),
)
