"""How each kind of source divides a listing into pages, and what says that a page is the last one.

    none      the one page is the whole listing
    cursor    the reply names the next page's token; no token, or `has_more: false`, is the end
    last_id   the next page starts after the last record's key; `has_more: false` is the end, and where the source
              has no such field an empty page is: nothing comes after the last key
    link      the reply, or its Link header (RFC 8288), names the next page's address; none is the end
    page      `has_more`, the number of the last page or of the records, or the Link header says the end; where the source
              says nothing, an empty page does, or the refusal declared as `past_end`
    keyset    the next page asks from the last record's cursor value on (`tidegate.connectors.rest.keyset`)
    offset    `has_more`, or the number of records, says the end; where the source says neither, a page without a
              further record

A short page never ends a listing, and an empty one only where this table says so. A pager that counts
(page, offset) is blind to records that move while it reads (HOLE gg); it raises Drifted where one may have been skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol, TypeAlias

from multidict import CIMultiDictProxy
from yarl import URL

from tidegate.connectors.rest.declaration import PagerDeclaration, PagerKind
from tidegate.connectors.rest.envelope import Envelope, scalar_text, whole_number
from tidegate.connectors.rest.records import Glances
from tidegate.domain.cursor import Path
from tidegate.domain.errors import ContractBroken

Position: TypeAlias = Mapping[str, object]
"""Where a page starts, JSON-ready; empty for the first page."""

FIRST: Position = {}


class Drifted(Exception):
    """The listing moved while it was read, and a record may have been skipped: it must be read again (HOLE gg).

    ``onward``: where the next page would start for a reader who goes on all the same, None if there is none.
    """

    def __init__(self, reason: str, onward: Position | None) -> None:
        super().__init__(reason)
        self.onward = onward


class PageRepeated(ContractBroken):
    """A source shows one page again and again, whichever it is asked for."""


@dataclass(frozen=True, slots=True)
class PageSeen:
    """One page as a pager sees it. ``url``: the address that answered. ``glances`` are made when asked for."""

    envelope: Envelope
    headers: CIMultiDictProxy[str]
    url: URL
    _read: Callable[[bytes], Glances]
    _made: list[Glances] = field(default_factory=list)

    @property
    def glances(self) -> Glances:
        """Return one glance per record."""
        if not self._made:
            self._made.append(self._read(self.envelope.records))
        return self._made[0]

    @property
    def keys(self) -> list[str]:
        """Return the records' keys as text, in the page's order."""
        return self.glances.keys


class Pager(Protocol):
    """The rule of one stream's pages. Pagers hold no state: the position is all there is to resume from."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return where in the reply it reads."""
        ...

    def asks(self, position: Position) -> Mapping[str, str | int]:
        """Return the parameters that ask for the page at ``position``."""
        ...

    def following(self, position: Position, seen: PageSeen) -> Position | None:
        """Return where the next page starts, None if the page at ``position`` is the last one.

        Raises ContractBroken for a reply that contradicts itself, Drifted if records may have been skipped.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoPager:
    """The whole listing is one page."""

    paths: tuple[Path, ...] = ()

    def asks(self, position: Position) -> Mapping[str, str | int]:
        """Return no parameters."""
        return {}

    def following(self, position: Position, seen: PageSeen) -> Position | None:
        """Return None."""
        return None


@dataclass(frozen=True, slots=True)
class CursorPager:
    """Pages by a token that the reply holds."""

    param: str
    token: Path
    has_more: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the paths of the token and of ``has_more``."""
        return (self.token,) if self.has_more is None else (self.token, self.has_more)

    def asks(self, position: Position) -> Mapping[str, str | int]:
        """Return the token."""
        return {self.param: str(position["token"])} if position else {}

    def following(self, position: Position, seen: PageSeen) -> Position | None:
        """Return the reply's token; a promise of more without a token is a broken one."""
        if self.has_more is not None and not seen.envelope.flag(self.has_more):
            return None
        token = seen.envelope.text(self.token)
        if token is None and self.has_more is not None:
            raise ContractBroken(f"The source says there is more and gives no token at {'.'.join(self.token)}.")
        return None if token is None else {"token": token}


@dataclass(frozen=True, slots=True)
class LastIdPager:
    """Pages by the last record's key. Notices a source that restarts at page one when it does not know the key."""

    param: str
    has_more: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the path of ``has_more``."""
        return () if self.has_more is None else (self.has_more,)

    def asks(self, position: Position) -> Mapping[str, str | int]:
        """Return the key to start after."""
        return {self.param: str(position["after"])} if position else {}

    def following(self, position: Position, seen: PageSeen) -> Position | None:
        """Return the last key; Drifted if the page shows again what the listing began with, or ``after`` itself."""
        onward = self._onward(position, seen)
        if position and not {position["first"], position["last"]}.isdisjoint(filter(None, seen.keys)):
            raise Drifted("the source does not know the record to go on after and began again", onward)
        return onward

    def _onward(self, position: Position, seen: PageSeen) -> Position | None:
        keys = seen.keys
        if self.has_more is not None and not seen.envelope.flag(self.has_more):
            return None
        if not keys:
            if self.has_more is not None:
                raise ContractBroken("The source says there is more and shows no record to go on after.")
            return None
        for last in (glance.key for glance in reversed(seen.glances) if glance.key):
            after = sendable(last[0])
            if after is not None:
                return {"after": after, "last": last[0].decode(), "first": position.get("first", keys[0])}
        raise ContractBroken("No record of a page has a key to go on after.")


def sendable(key: bytes) -> str | None:
    """Return a key's JSON text as it is sent back, None for one that cannot be: its record goes to quarantine."""
    try:
        return scalar_text(key, ("key",))
    except ContractBroken:
        return None


@dataclass(frozen=True, slots=True)
class LinkPager:
    """Pages by the next page's address, on the same host only: at ``url`` in the reply, or the Link header's rel="next"."""

    url: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the path of the address."""
        return () if self.url is None else (self.url,)

    def asks(self, position: Position) -> Mapping[str, str | int]:
        """Return no parameters: the link holds them all."""
        return {}

    def following(self, position: Position, seen: PageSeen) -> Position | None:
        """Return the link without its origin; raises ContractBroken if it leads to another one."""
        header = ",".join(seen.headers.getall("Link", ()))
        link = next_link(header) if self.url is None else seen.envelope.text(self.url)
        if link is None:
            return None
        try:
            target = seen.url.join(URL(link, encoded=True))
            origin = str(target.origin())  # the port is read when it is written out
        except ValueError as error:
            raise ContractBroken(f"The next page's link is no address: {link[:80]!r}.") from error
        if origin != str(seen.url.origin()):
            raise ContractBroken(
                f"The next page's link leads from {seen.url.origin()} to {origin}.",
                remedy="Declare the host that serves the pages as base_url.",
            )
        return {"link": target.raw_path_qs}


VALUE = r"(?:\"(?:[^\"\\]|\\.)*\"|[^\s;,\"]*)"
LINK = re.compile(rf"<([^>]*)>((?:\s*;\s*[^\s=;,]+(?:\s*=\s*{VALUE})?)*)")
ATTRIBUTE = re.compile(rf";\s*([^\s=;,]+)(?:\s*=\s*({VALUE}))?")


def next_link(header: str) -> str | None:
    """Return the target of rel="next" in a Link header (RFC 8288), None if there is none."""
    for target, attributes in LINK.findall(header):
        relations = [value.strip('"') for name, value in ATTRIBUTE.findall(attributes) if name.lower() == "rel"]
        if relations and "next" in relations[0].lower().split():
            return str(target)
    return None


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
        onward: Position = {"page": number + 1, **counted, **_shown(seen)}
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
        moved = self._is_unproven(position, seen) and _digest(before) != position["keys"]
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


def _digest(seen: PageSeen) -> str:
    """Return what tells whether a page shows the same records in the same order."""
    return blake2b("\n".join(seen.keys).encode(), digest_size=12).hexdigest()


def _text(seen: PageSeen) -> str:
    return blake2b(seen.envelope.records, digest_size=12).hexdigest()


def _shown(seen: PageSeen) -> Position:
    """Return what a page shows, as a position remembers it: the text as well where the keys do not tell records apart."""
    told_apart = all(seen.keys) and len(set(seen.keys)) == len(seen.keys)
    return {"keys": _digest(seen)} if told_apart else {"keys": _digest(seen), "text": _text(seen)}


def _joins(keys: Sequence[str], after: object, first: object) -> bool:
    """Return whether ``keys`` begin with ``first``, or show it right ``after`` the record that was the last one before it."""
    at = keys.index(str(first)) if first in keys else -1
    return at == 0 or (at > 0 and keys[at - 1] == after)


def _repeats(position: Position, seen: PageSeen) -> bool:
    """Return whether the page at ``position`` shows the records that the page before it did; records may just have moved."""
    if seen.envelope.empty or position.get("keys") != _digest(seen):
        return False
    return "text" not in position or position["text"] == _text(seen)


def _require_another(param: str, position: Position, seen: PageSeen, before: PageSeen) -> None:
    """Raise PageRepeated if the page ``before`` the one at ``position`` shows the same records now, and did when first read."""
    if _repeats(position, seen) and _repeats(position, before):
        raise PageRepeated(
            f"Two pages in a row show the same records: the source ignores {param!r}, or shows its last page for ever.",
            remedy="Correct the pager's `param`, or declare what says that a page is the last one.",
        )


def pager(declaration: PagerDeclaration) -> Pager:
    """Return the pager that ``declaration`` describes."""
    match declaration.kind:
        case PagerKind.NONE:
            return NoPager()
        case PagerKind.CURSOR:
            assert declaration.token is not None
            return CursorPager(declaration.param, declaration.token, declaration.has_more)
        case PagerKind.LAST_ID:
            return LastIdPager(declaration.param, declaration.has_more)
        case PagerKind.LINK:
            return LinkPager(declaration.token)
        case PagerKind.PAGE:
            return PagePager(
                declaration.param,
                declaration.first,
                declaration.has_more,
                declaration.total_pages,
                declaration.total_pages_header,
                declaration.stable,
                declaration.next_link,
                declaration.total_records,
            )
        case PagerKind.OFFSET:
            return OffsetPager(declaration.param, declaration.has_more, declaration.total_records, declaration.stable)
        case PagerKind.KEYSET:
            raise AssertionError("a keyset pager is made for its stream (tidegate.connectors.rest.keyset)")
