"""Where a fetch stands: all that a resumed one needs, and what a page's token holds."""

from __future__ import annotations

from datetime import datetime

import msgspec

from tidegate.connectors.rest.pagers import FIRST, Position
from tidegate.connectors.rest.ties import Group
from tidegate.domain.errors import ContractBroken
from tidegate.domain.fetch import PageToken


class Trail(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a fetch stands, before the page ``at`` the pager's position.

    ``listing``: 1, and one more each time the listing had to begin again. ``page``: the page's number in it.
    ``anchor``: the position remembered at the last page whose number was a power of two: a source that runs in a
    circle, however long, meets it again (Brent's algorithm), in constant memory and across resumes. ``since``: the
    oldest instant that the source serves, as the first request found it. ``drifted``: the last listing allowed moved
    as well. ``tied``: records came twice in it, ``group``: the records open at the end of the page before, of a listing that
    is counted. ``unordered``: the stream is declared ascending and is not. ``pager``: the kind that made the positions.
    ``feed``: the change token that the listing goes on from, "" for a listing in full; ``expired``: it is in full because the
    source did not know the token any more.
    """

    pager: str
    at: Position = FIRST
    listing: int = 1
    page: int = 1
    anchor: Position = FIRST
    since: datetime | None = None
    drifted: bool = False
    tied: bool = False
    group: Group | None = None
    unordered: bool = False
    feed: str = ""
    expired: bool = False

    @classmethod
    def from_token(cls, token: PageToken, pager: str) -> Trail | None:
        """Return the trail that ``token`` holds, None if it is not one of this kind of pager (any more)."""
        try:
            trail = msgspec.convert(dict(token), cls)
        except msgspec.ValidationError:
            return None
        return trail if trail.pager == pager else None

    def token(self) -> PageToken:
        """Return the trail as a JSON-ready page token."""
        token: PageToken = msgspec.to_builtins(self)
        return token

    def onward(self, at: Position, group: Group | None = None) -> Trail:
        """Return the trail at the next page; raises ContractBroken if the source runs in a circle (SPEC 4)."""
        if at == self.anchor:
            raise ContractBroken(f"The source gave the same page token twice: {dict(at)}.")
        page = self.page + 1
        anchor = at if page & (page - 1) == 0 else self.anchor
        return msgspec.structs.replace(self, at=at, page=page, anchor=anchor, group=group)

    def again(self) -> Trail:
        """Return the trail at the beginning of one more listing."""
        return msgspec.structs.replace(self, at=FIRST, listing=self.listing + 1, page=1, anchor=FIRST, group=None)

    def back_to(self, at: Position) -> Trail:
        """Return the trail at a page that was passed, for a fetch that cannot go on where it broke off."""
        return msgspec.structs.replace(self, at=at, page=1, anchor=FIRST, group=None)

    def in_full(self) -> Trail:
        """Return the trail at the beginning of a listing in full, for a change token that has expired."""
        return msgspec.structs.replace(self.again(), feed="", expired=True)

    def after_drift(self) -> Trail:
        """Return the trail of a listing that goes on although it moved, and will say so."""
        return msgspec.structs.replace(self, drifted=True)

    def after_ties(self) -> Trail:
        """Return the trail of a listing that goes on although records came twice in it, and will say so."""
        return msgspec.structs.replace(self, tied=True)

    def found_unordered(self) -> Trail:
        """Return the trail of a stream that turned out not to be ascending."""
        return msgspec.structs.replace(self, unordered=True)
