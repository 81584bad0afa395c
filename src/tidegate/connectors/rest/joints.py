"""How a counted page joins the one before it: whether a record may have been passed over between them (HOLE gg).

Two pages are believed if the first of them shows the same before and after the second was read, and the second one does when
it is read again in its turn. So one movement between them is noticed, and one that is taken back as well; three that cancel one
another out are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from tidegate.connectors.rest.pagers import PageRepeated, PageSeen, Position


def shown(seen: PageSeen, *, ends: bool = False) -> Position:
    """Return what a page shows, as a position remembers it: the text as well where the keys do not tell records apart.

    ``ends``: only how it begins and ends, if it can be told. What looks alike then is compared in whole (`require_another`).
    """
    if ends and seen.glances.ends_digest:
        return {"ends": seen.glances.ends_digest}
    digest = seen.glances.places_digest
    return {"keys": digest} if _told_apart(seen) else {"keys": digest, "text": _text(seen)}


def remembered(position: Position, seen: PageSeen) -> Position:
    """Return what the position of the next page holds of the one at ``position``, for `doubts` and `moved`."""
    if seen.envelope.empty:
        return shown(seen)
    unproven = is_unproven(position, seen)
    places = seen.glances.places
    joint = {"after": position["tail"], "first": places[0]} if unproven and "tail" in position else {}
    return {**shown(seen), "last": seen.glances.marks[-1], "tail": places[-1], **joint}


def is_unproven(position: Position, seen: PageSeen) -> bool:
    """Return whether a record may have been passed over between the page before and the one at ``position``.

    None has where the last record before the page, unedited, is now on it: records have only moved towards the end.
    """
    return "keys" in position and not (position.get("last") and position["last"] in seen.glances.marks)


def doubts(position: Position, seen: PageSeen, before: Position, itself: Position, *, ends: bool) -> list[Position]:
    """Return the pages to read again, in this order, before the one at ``position`` is believed.

    The one before it, if records may have moved towards the beginning, if how that one joins its own predecessor is still
    to be seen (``first`` came right ``after`` another), or if both pages show the same. And itself, if with it the pages end
    that are joined so: no other one will show how it joins.
    """
    unproven = is_unproven(position, seen)
    again = unproven or "first" in position or repeats(position, seen)
    return [*([before] if again else []), *([itself] if unproven and ends else [])]


def moved(position: Position, seen: PageSeen, again: Sequence[PageSeen]) -> bool:
    """Return whether the page before the one at ``position``, read ``again``, does not show the same records any more.

    That its last one is still there does not suffice: it may have moved away and back. Nor do the keys in a list in the order
    of its cursor field: all records before a page may have been edited and stand there once more, in the same order.
    """
    before, *itself = again
    if is_unproven(position, seen) and before.glances.places_digest != position["keys"]:
        return True
    if "first" in position and not _joins(before.glances.places, position["after"], position["first"]):
        return True
    first = next(iter(seen.glances.places), None)
    return not all(
        _joins(page.glances.places, position.get("tail"), first) if first is not None else page.envelope.empty
        for page in itself
    )


def repeats(position: Position, seen: PageSeen) -> bool:
    """Return whether the page at ``position`` shows the records that the page before it did; records may just have moved."""
    if seen.envelope.empty:
        return False
    if "ends" in position:
        return position["ends"] == seen.glances.ends_digest
    if position.get("keys") != seen.glances.places_digest:
        return False
    return "text" not in position or position["text"] == _text(seen)


def require_another(whose: str, position: Position, seen: PageSeen, before: PageSeen) -> None:
    """Raise PageRepeated if the page ``before`` the one at ``position`` shows the same records now, and did when first read."""
    if repeats(position, seen) and repeats(position, before) and _same(seen, before):
        raise PageRepeated(
            f"Two pages in a row show the same records: the source ignores {whose}, or shows its last page for ever.",
            remedy="Correct the pager, or declare what says that a page is the last one.",
        )


def _same(one: PageSeen, other: PageSeen) -> bool:
    return one.keys == other.keys and (_told_apart(one) or _text(one) == _text(other))


def _told_apart(seen: PageSeen) -> bool:
    return all(seen.keys) and len(set(seen.keys)) == len(seen.keys)


def _text(seen: PageSeen) -> str:
    return blake2b(seen.envelope.records, digest_size=12).hexdigest()


def _joins(places: Sequence[str], after: object, first: object) -> bool:
    """Return whether ``places`` begin with ``first``, or show it right ``after`` the record that was the last one before it."""
    at = places.index(str(first)) if first in places else -1
    return at == 0 or (at > 0 and places[at - 1] == after)
