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

A short page never ends a listing, and an empty one only where this table says so. A pager that counts (page, offset, and a token
or link that is a place: `tidegate.connectors.rest.placed`) is blind to records that move while it reads (HOLE gg); it raises
Drifted where one may have been skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from multidict import CIMultiDictProxy
from yarl import URL

from tidegate.connectors.rest.declaration import Place, at_place
from tidegate.connectors.rest.envelope import Envelope, scalar_text
from tidegate.connectors.rest.records import Glances
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
    def paths(self) -> tuple[Place, ...]:
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

    paths: tuple[Place, ...] = ()

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
    token: Place
    has_more: Place | None

    @property
    def paths(self) -> tuple[Place, ...]:
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
            raise ContractBroken(f"The source says there is more and gives no token {at_place(self.token)}.")
        return None if token is None else {"token": token}


@dataclass(frozen=True, slots=True)
class LastIdPager:
    """Pages by the last record's key. Notices a source that restarts at page one when it does not know the key."""

    param: str
    has_more: Place | None

    @property
    def paths(self) -> tuple[Place, ...]:
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
        if self.has_more is not None and not seen.envelope.flag(self.has_more):
            return None
        keys = seen.keys
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
    """Pages by the next page's address, on the same host only: at ``url``, or the Link header's rel="next"."""

    url: Place | None = None

    @property
    def paths(self) -> tuple[Place, ...]:
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
