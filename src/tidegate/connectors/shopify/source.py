"""Lists one stream of a shop, oldest change first, without losing a record (SPEC 4; HOLES e, j, w, gg, hh)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

import msgspec

from tidegate.connectors.listings import listing_name, shape_of
from tidegate.connectors.rest.family import Family
from tidegate.connectors.shopify.admin import AdminAPI, Answer, CursorExpired, TooCostly
from tidegate.connectors.shopify.queries import ALL_ORDERS_SCOPE, API_VERSION, CHILDREN, LISTINGS, Listing, Nested
from tidegate.connectors.shopify.replies import Connection, ListingData, NestedData
from tidegate.domain.cursor import CursorField
from tidegate.domain.errors import ContractBroken, InvalidInput
from tidegate.domain.fetch import FetchReport, FetchRequest, Page, PageToken

ORDER_HISTORY = timedelta(days=59)
"""Age up to which orders are surely shown to apps without the scope read_all_orders. Shopify says 60 days, but not
from which hour of a day it counts them: one less, so that no hour is called shown that was not."""

MAX_DEPTH = 20_000
"""Records after which a listing starts anew further on, well before PAGING_LIMIT."""

PAGING_LIMIT = 25_000
"""Records; Shopify pages no deeper into one listing, and says that it has ended."""

_LISTING = msgspec.json.Decoder(ListingData)
_NESTED = msgspec.json.Decoder(NestedData)
_CONNECTION = msgspec.json.Decoder(Connection)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])

Fields: TypeAlias = dict[str, msgspec.Raw]
"""A record: the source's own text of each field, by name."""


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a listing goes on; as a mapping it is the page token.

    ``lower``: cursor value the listing starts from, None for the request's own. ``after``: Shopify's position in
    it. ``depth``: records listed since its start. ``reach``: a cursor value up to which all has been listed.
    """

    lower: str | None = None
    after: str | None = None
    depth: int = 0
    reach: str | None = None

    def restarted(self) -> Position:
        """Return the same place as the start of a new listing; records around it are listed again, none is skipped."""
        return Position(lower=self.reach or self.lower, reach=self.reach)

    def as_token(self) -> PageToken:
        """Return the position as a JSON-ready mapping."""
        token: dict[str, object] = msgspec.to_builtins(self)
        return token


@dataclass(frozen=True, slots=True)
class _Listed:
    """One answered listing query, unpacked."""

    answer: Answer
    data: ListingData
    records: list[Fields]
    cursor_values: list[datetime]


class ShopifySource:
    """One shop's streams. ``max_depth`` is in records. ``address``: of the shop, by which its listings are told apart."""

    def __init__(
        self,
        api: AdminAPI,
        cursor: CursorField,
        *,
        all_orders_expected: bool,
        max_depth: int = MAX_DEPTH,
        address: str = "",
    ) -> None:
        self._api = api
        self._cursor = cursor
        self._all_orders_expected = all_orders_expected
        self._max_depth = max_depth
        self._address = address

    def listing(self, request: FetchRequest) -> str:
        """Return what tells one listing from another: the shop, the API's version, and the queries of this revision."""
        parent = CHILDREN.get(request.stream)
        listed = LISTINGS.get(request.stream if parent is None else parent.stream)
        return listing_name(shape_of(self._address, API_VERSION, listed, parent), request)

    async def fetch(self, request: FetchRequest) -> AsyncIterator[Page]:
        """Yield the pages of a stream, a child's as those of its parent with the children in the place of the records."""
        parent = CHILDREN.get(request.stream)
        if parent is None:
            async for page in self._pages(request):
                yield page
            return
        family = Family(parent, (), can_ask=False)
        async for page in self._pages(replace(request, stream=parent.stream)):
            found = family.split(page.records)
            report = replace(page.report, shortfall=page.report.shortfall or found.shortfall)
            yield replace(page, records=found.records(), report=report)

    async def _pages(self, request: FetchRequest) -> AsyncIterator[Page]:
        """Yield pages in ascending ``updatedAt`` until the listing is complete or has passed ``stop_after``.

        A record edited meanwhile moves behind the position and is listed again at its new version. A position that
        Shopify has forgotten restarts the listing, once, from the last cursor value reached. Raises InvalidInput
        for an unknown stream, else a SourceError.
        """
        listing = LISTINGS.get(request.stream)
        if listing is None:
            raise InvalidInput(
                "stream",
                request.stream,
                "is not a stream of shopify",
                f"Choose one of {', '.join([*LISTINGS, *CHILDREN])}.",
            )
        position: Position | None = _resumed(request.resume)
        restarted = False
        visited: set[tuple[str | None, str | None]] = set()
        while position is not None:
            place = (position.lower, position.after)
            if place in visited:
                raise ContractBroken(f"Shopify gave the page token {position.after!r} twice.")
            visited.add(place)
            try:
                listed = await self._list(listing, request, position)
            except CursorExpired:
                if restarted or position.after is None:
                    raise
                position, restarted = position.restarted(), True
                continue
            passed = _all_after(listed.cursor_values, request.stop_after)
            report = self._report(request, position, listed, passed=passed)
            position = None if passed else self._next(position, listed)
            yield Page(
                records=msgspec.json.encode(listed.records),
                token=None if position is None else position.as_token(),
                requested_at=listed.answer.requested_at,
                report=report,
                source_at=listed.answer.source_at,
            )

    async def _list(self, listing: Listing, request: FetchRequest, position: Position) -> _Listed:
        answer = await self._ask(listing, {"query": self._search(listing, request, position), "after": position.after})
        data = self._api.decode(answer.data, _LISTING)
        records = []
        for node in data.listing.nodes:
            fields = self._api.decode(node, _FIELDS)
            if await self._complete(fields, listing.nested):
                records.append(fields)
        return _Listed(answer, data, records, [value for fields in records for value in self._cursor_value(fields)])

    async def _ask(self, listing: Listing, variables: dict[str, object]) -> Answer:
        size = self._api.page_size(listing.query, listing.page_size)
        while True:
            try:
                return await self._api.ask(listing.query, {**variables, "first": size}, size)
            except TooCostly:
                if size == 1:
                    raise
                size = max(1, size // 2)

    def _search(self, listing: Listing, request: FetchRequest, position: Position) -> str:
        """Return the search terms: the lower bound included and rounded down, the upper excluded and rounded up."""
        terms = [listing.filter] if listing.filter else []
        lower = position.lower or (request.lower and self._cursor.render(request.lower))
        if lower:
            terms.append(f"updated_at:>='{lower}'")
        if request.upper is not None:
            terms.append(f"updated_at:<'{self._cursor.render(_ceiling(request.upper))}'")
        return " ".join(terms)

    async def _complete(self, fields: Fields, nested: tuple[Nested, ...]) -> bool:
        """Replace each nested page by the whole list, and return whether the record still exists.

        If it is edited between two of the queries, its lists may be newer than the rest of it; the edit moves it
        behind the position, so it comes again, whole.
        """
        for part in nested:
            connection = self._api.decode(fields.get(part.field, msgspec.Raw(b"null")), _CONNECTION)
            items = connection.nodes
            while connection.page_info.has_next_page:
                after = connection.page_info.end_cursor
                following = await self._following(part, fields, after)
                if following is None:
                    return False
                if following.page_info.has_next_page and following.page_info.end_cursor == after:
                    raise ContractBroken(f"Shopify gave the page token {after!r} of {part.field} twice.")
                items = items + following.nodes
                connection = following
            fields[part.field] = msgspec.Raw(msgspec.json.encode(items))
        return True

    async def _following(self, part: Nested, fields: Fields, after: str | None) -> Connection | None:
        variables = {"id": fields.get("id"), "first": part.page_size, "after": after}
        answer = await self._api.ask(part.query, variables, part.page_size)
        record = self._api.decode(answer.data, _NESTED).record
        return None if record is None else record.items

    def _next(self, position: Position, listed: _Listed) -> Position | None:
        page_info = listed.data.listing.page_info
        if not page_info.has_next_page:
            return None
        if page_info.end_cursor is None:
            raise ContractBroken("Shopify promised another page but gave no page token.")
        values = listed.cursor_values
        reach = self._cursor.render(min(values)) if values else position.reach
        following = Position(
            lower=position.lower,
            after=page_info.end_cursor,
            depth=position.depth + len(listed.data.listing.nodes),
            reach=None if reach is None else str(reach),
        )
        if following.depth < self._max_depth or following.reach == position.lower:
            return following
        return following.restarted()

    def _cursor_value(self, fields: Fields) -> list[datetime]:
        """Return the record's cursor value, or nothing if it has none: whoever delivers it will quarantine it."""
        try:
            return [self._cursor.parse(msgspec.json.decode(fields["updatedAt"]))]
        except (KeyError, ValueError):
            return []

    def _report(self, request: FetchRequest, position: Position, listed: _Listed, *, passed: bool) -> FetchReport:
        """Return what this page proves: never more than the shop was willing to show at that moment (HOLE w)."""
        lower, upper, problems = request.lower, request.upper, list(listed.answer.search_warnings)
        if passed:
            upper = request.stop_after if upper is None else min(upper, request.stop_after)
        if listed.data.installation is not None and not _may_read_all_orders(listed.data):
            oldest = (listed.answer.source_at or listed.answer.requested_at) - ORDER_HISTORY
            lower = oldest if lower is None else max(lower, oldest)
            if self._all_orders_expected:
                problems.append(f"orders created before {oldest:%Y-%m-%d} are hidden: no scope {ALL_ORDERS_SCOPE}")
        if not passed and position.depth + len(listed.data.listing.nodes) >= PAGING_LIMIT:
            problems.append(f"{PAGING_LIMIT} records or more follow {position.lower} too closely to list them all")
        return FetchReport(lower=lower, upper=upper, shortfall="; ".join(problems))


def _resumed(token: PageToken | None) -> Position:
    """Return the position that ``token`` names; a token of an unknown form lists from the start, which loses nothing."""
    try:
        return msgspec.convert(token or {}, Position)
    except msgspec.ValidationError:
        return Position()


def _may_read_all_orders(data: ListingData) -> bool:
    scopes = data.installation.access_scopes if data.installation is not None else []
    return any(scope.handle == ALL_ORDERS_SCOPE for scope in scopes)


def _all_after(cursor_values: list[datetime], instant: datetime) -> bool:
    """Return whether a whole page is past ``instant``.

    All of it, because a record edited while it is being read may show a newer value than the place it stands at.
    """
    return bool(cursor_values) and min(cursor_values) > instant


def _ceiling(instant: datetime) -> datetime:
    return instant if instant.microsecond == 0 else instant.replace(microsecond=0) + timedelta(seconds=1)
