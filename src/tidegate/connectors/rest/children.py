"""One fetch of a child stream: its parents are listed as they always are, and their children are taken or asked for.

Children that stand in their parent's record cost no request. Where there are none, or where the record says that its list
was cut off, they are asked for parent by parent; those still to be asked for are part of the page token, so that a resumed
fetch goes on with the very next page, whatever has become of the parents' listing meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from tidegate.connectors.graphql import NothingThere
from tidegate.connectors.rest.client import Client
from tidegate.connectors.rest.declaration import Param, StreamDeclaration
from tidegate.connectors.rest.envelope import scalar_text
from tidegate.connectors.rest.family import Family, Parent
from tidegate.connectors.rest.listing import Filled, ListedStream, Listing
from tidegate.connectors.rest.template import PARENT, parent_fields
from tidegate.domain.clock import Clock
from tidegate.domain.cursor import Path
from tidegate.domain.errors import ContractBroken
from tidegate.domain.fetch import FetchReport, FetchRequest, Page, PageToken

GONE = frozenset({404, 410})
GONE_REMARK = "parents gone before their children were asked for"


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a fetch of children stands; as a mapping it is the page token.

    ``parents``: the token of the next page of parents, None if there is none. ``left``: the parents of the page before it
    whose children are still to be asked for, the first of them ``at`` a page of its own. ``report`` and ``source_at``: what
    that page of parents reported, and when by the source's own clock. ``asked``, ``gone``: parents so far.
    """

    parents: dict[str, Any] | None = None
    left: tuple[Parent, ...] = ()
    at: dict[str, Any] | None = None
    report: FetchReport = FetchReport(None, None)
    source_at: datetime | None = None
    asked: int = 0
    gone: int = 0

    @classmethod
    def from_token(cls, token: PageToken | None, family: Family) -> Waiting | None:
        """Return where ``token`` says that a fetch stands, None if it was not made under this declaration."""
        if token is None or "children" not in token:
            return None
        try:
            place = msgspec.convert(token["children"], cls)
        except msgspec.ValidationError:
            return None
        return place if all(family.can_ask_for(parent) for parent in place.left) else None

    def token(self) -> PageToken | None:
        """Return the place as a JSON-ready page token, None if nothing is left."""
        if self.parents is None and not self.left:
            return None
        return {"children": msgspec.to_builtins(self)}

    def past(self, own: PageToken | None, *, gone: bool = False) -> Waiting:
        """Return the place after a page of the first parent left; ``own`` is that page's token, None after the last."""
        if own is not None:
            return msgspec.structs.replace(self, at=dict(own))
        return msgspec.structs.replace(
            self, left=self.left[1:], at=None, asked=self.asked + 1, gone=self.gone + (1 if gone else 0)
        )


@dataclass(frozen=True, slots=True)
class ChildStream:
    """What stays the same between fetches of one child stream."""

    parent: ListedStream
    own: ListedStream
    family: Family

    @classmethod
    def made(cls, declared: StreamDeclaration, parent: ListedStream) -> ChildStream:
        """Return the child stream that ``declared`` is, of a parent that is listed as ``parent``."""
        assert declared.parent is not None
        # As the source shows them, before they carry anything of their parent.
        alone = replace(declared, stream=replace(declared.stream, key=declared.parent.own_key, cursor=None))
        texts = [declared.path, *map(str, declared.params.values()), *map(str, declared.filters.values())]
        wanted = [path for text in texts for path in parent_fields(text)]
        own = ListedStream(alone, parent.error_codes)
        return cls(parent, own, Family(declared.parent, wanted, can_ask=bool(declared.path)))


class ChildListing:
    """One fetch of one child stream. ``filled``: the child's request, its settings filled in; ``parents``: its parent's."""

    def __init__(
        self, stream: ChildStream, filled: Filled, parents: Filled, request: FetchRequest, client: Client, clock: Clock
    ) -> None:
        self._stream, self._filled, self._parents = stream, filled, parents
        self._request, self._client, self._clock = request, client, clock
        self._place = Waiting.from_token(request.resume, stream.family) or Waiting()

    async def pages(self) -> AsyncGenerator[Page]:
        """Yield the pages; see `tidegate.connectors.base.Source.fetch`."""
        resumed = bool(self._place.left)
        async for page in self._asked():
            yield page
        if resumed and self._place.parents is None:
            return
        async for listed in self._listing(self._place.parents).pages():
            found = self._stream.family.split(listed.records)
            self._place = msgspec.structs.replace(
                self._place,
                parents=_kept(listed.token),
                left=found.to_ask,
                report=_short(listed.report, found.shortfall),
                source_at=listed.source_at,
            )
            if found.children or not found.to_ask:
                yield self._page(found.records(), listed.requested_at)
            async for page in self._asked():
                yield page

    def _listing(self, resume: PageToken | None) -> Listing:
        request = replace(self._request, stream=self._stream.parent.declared.stream.name, resume=resume)
        return Listing(self._stream.parent, self._parents, request, self._client, self._clock)

    async def _asked(self) -> AsyncIterator[Page]:
        """Yield the children of all parents left."""
        while self._place.left:
            parent = self._place.left[0]
            try:
                async for page in self._children(parent, self._place.at):
                    self._place = self._place.past(page.token)
                    records = self._stream.family.adopted(page.records, parent)
                    yield self._page(records, page.requested_at, page.report)
            except ContractBroken as error:
                if not _says_gone(error):
                    raise
                self._place = self._place.past(None, gone=True)
                yield self._page(b"[]", self._clock.now(), FetchReport(None, None, remarks={GONE_REMARK: 1}))

    def _children(self, parent: Parent, resume: PageToken | None) -> AsyncIterator[Page]:
        request = FetchRequest(self._request.stream, None, None, self._request.stop_after, resume)
        return Listing(self._stream.own, _of(self._filled, parent), request, self._client, self._clock).pages()

    def _page(self, records: bytes, requested_at: datetime, own: FetchReport | None = None) -> Page:
        """Return a page of children. The source's clock is that of its parents' page: that had to be past the period's end."""
        place = self._place
        report = place.report if own is None else place.report.and_then(own)
        token = place.token()
        if token is None and place.gone and place.gone == place.asked:
            report = _short(report, f"all {place.gone} parents asked are gone: is the path of the children right?")
        return Page(records, token, requested_at, report, place.source_at)


def _says_gone(error: ContractBroken) -> bool:
    return isinstance(error, NothingThere) or error.values.get("status") in GONE


def _kept(token: PageToken | None) -> dict[str, Any] | None:
    return None if token is None else dict(token)


def _short(report: FetchReport, shortfall: str) -> FetchReport:
    return replace(report, shortfall=report.shortfall or shortfall) if shortfall else report


def _of(filled: Filled, parent: Parent) -> Filled:
    """Return a request with the fields of ``parent`` filled in."""
    return Filled(
        PARENT.sub(lambda found: _in_path(parent, tuple(found[1].split("."))), filled.path),
        {name: _in_param(value, parent) for name, value in filled.params.items()},
        {name: _in_param(value, parent) for name, value in filled.filters.items()},
        filled.settings,
    )


def _in_path(parent: Parent, path: Path) -> str:
    text = _text(parent, path)
    if not text.strip("."):
        raise ContractBroken(f"A parent's {'.'.join(path)} is {text!r}, which cannot stand in an address.")
    return quote(text, safe="")


def _in_param(value: Param, parent: Parent) -> Param:
    """Return a parameter filled in; one that is a single field keeps that field's type."""
    if not isinstance(value, str):
        return value
    whole = PARENT.fullmatch(value)
    if whole is not None:
        decoded: Param = msgspec.json.decode(parent.texts[whole[1]])
        return decoded
    return PARENT.sub(lambda found: _text(parent, tuple(found[1].split("."))), value)


def _text(parent: Parent, path: Path) -> str:
    return scalar_text(parent.texts[".".join(path)].encode(), path) or ""
