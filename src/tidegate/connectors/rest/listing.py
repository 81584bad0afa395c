"""One fetch: pages asked for, checked and yielded until the source says that there are no more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise

import msgspec
import structlog
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from tidegate.connectors.graphql import ErrorCodes, QueryRefused, require_no_errors, require_there
from tidegate.connectors.http import Reply
from tidegate.connectors.rest.bodies import fill_body
from tidegate.connectors.rest.client import Answer, Client
from tidegate.connectors.rest.counting import OffsetPager, PagePager, overlap
from tidegate.connectors.rest.declaration import INSTANT, BoundParam, Param, StreamDeclaration
from tidegate.connectors.rest.envelope import NO_CONTENT, EnvelopeReader
from tidegate.connectors.rest.feed import Feed
from tidegate.connectors.rest.filters import bounds, overshoot
from tidegate.connectors.rest.keyset import KeysetPager, drifted, inner, moved_to, outer
from tidegate.connectors.rest.pagers import Drifted, Pager, PageSeen, Position
from tidegate.connectors.rest.paging import pager
from tidegate.connectors.rest.placed import PlacedPager
from tidegate.connectors.rest.pushed import hides_none
from tidegate.connectors.rest.records import Glance, RecordReader
from tidegate.connectors.rest.ties import Tied, Ties, counted, overlaps
from tidegate.connectors.rest.trail import Trail
from tidegate.domain.clock import Clock
from tidegate.domain.cursor import CursorField, CursorFormat
from tidegate.domain.errors import ContractBroken
from tidegate.domain.fetch import FetchReport, FetchRequest, Page

MAX_LISTINGS = 3
HISTORY_MARGIN = timedelta(minutes=1)
UNKNOWN_TOKEN = frozenset({400, 404, 409, 410, 416, 422})  # how sources refuse a page token they no longer know
DRIFTED = f"records moved between pages in each of {MAX_LISTINGS} listings, some may not have been shown"
TIED = (
    "records {whose} come in another order on each page, or moved while they were read, some may not have been shown: have the"
    " source order by a unique field too, such as the key, if it does not yet{or_else}"
)

COUNTED = (CursorFormat.EPOCH_SECONDS, CursorFormat.EPOCH_MILLISECONDS)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Filled:
    """A stream's request with its settings filled in."""

    path: str
    params: Mapping[str, Param]
    filters: Mapping[str, Param]
    settings: Mapping[str, Param] = field(default_factory=dict)  # as a body names them: settings.NAME


class ListedStream:
    """What stays the same between fetches of one stream: its declaration and the readers made from it."""

    def __init__(self, declared: StreamDeclaration, error_codes: ErrorCodes) -> None:
        self.declared = declared
        self.error_codes = error_codes
        self.judge = partial(require_no_errors, error_codes)
        self.pager: Pager = _pager(declared)
        self.feed = None if declared.changes is None else Feed(declared.changes, declared.stream.key)
        paths = (*self.pager.paths, *(self.feed.paths if self.feed is not None else ()))
        self.envelopes = EnvelopeReader(declared.records, paths, declared.inside, declared.empty)
        self.records = RecordReader(declared.stream)
        self.stable = (declared.pager.within or declared.pager).stable
        self.tied = _tied(declared.stream.cursor)
        self.numbers = _numbers(declared)
        keyset = isinstance(self.pager, KeysetPager)
        self.out_of_order = "ask the source for its order, oldest first" if keyset else "declare `ascending: false`"

    def is_past_end(self, at: Position, error: ContractBroken) -> bool:
        """Return whether ``error`` is how the source refuses a page after the last one; the first page never is that."""
        declared = self.declared.pager.within or self.declared.pager
        past_end = declared.past_end
        if past_end is None or "page" not in (inner(at) if self.declared.pager.within is not None else at):
            return False
        said = f"{error.values.get('response', '')}".lower()
        return error.values.get("status") in past_end.statuses and past_end.text.lower() in said


class Listing:
    """One fetch of one stream."""

    def __init__(
        self, listed: ListedStream, filled: Filled, request: FetchRequest, client: Client, clock: Clock
    ) -> None:
        self._listed, self._filled, self._request, self._client = listed, filled, request, client
        self._clock = clock
        self._resumed = False
        self._trail = self._begin()
        stable = listed.stable and listed.declared.stream.cursor is not None
        self._ties = Ties(self._trail.group, stable=stable)
        self._bounds = bounds(request, listed.declared, self._trail.since)
        self._report = FetchReport(self._bounds.lower, self._bounds.upper, filled.filters)
        self._newest: datetime | None = None  # the cursor value of the last record seen, in an ascending stream

    def _begin(self) -> Trail:
        declared, token = self._listed.declared, self._request.resume
        since = None if declared.history is None else self._clock.now() - declared.history
        fresh = Trail(declared.pager.kind, since=since, feed=self._request.changes_since or "")
        if token is None:
            return fresh
        resumed = Trail.from_token(token, declared.pager.kind)
        if resumed is None:
            self._note("the page token was made under another declaration")
            return fresh
        if resumed.group is not None and resumed.group.lost:
            self._note("the fetch broke off among more records of one cursor value than a page token holds")
            return resumed.back_to(resumed.group.begun)
        self._resumed = True
        return resumed

    def _note(self, reason: str) -> None:
        log.warning("listing_begun_again", stream=self._request.stream, reason=reason)

    async def pages(self) -> AsyncGenerator[Page]:
        """Yield the pages; see `tidegate.connectors.base.Source.fetch`."""
        while True:
            try:
                answer, seen = await self._read(self._trail.at)
                passed = self._has_passed(self._request.stop_after, seen)
                await self._check_boundary(seen, ends=passed)
                following = self._listed.pager.following(self._trail.at, seen)
                await self._check_order(seen, following)
            except ContractBroken as error:
                if self._listed.feed is not None and self._trail.feed and self._listed.feed.has_expired(error):
                    self._trail = self._trail.in_full()
                    self._resumed = False
                    self._note("the source no longer knows the change token")
                    continue
                if not self._resumed or not _may_mean_an_unknown_token(error):
                    raise
                self._begin_again("the source no longer knows the page token")
                continue
            except Drifted as drift:
                if self._trail.listing < MAX_LISTINGS:
                    self._begin_again(str(drift))
                    continue
                following = drift.onward
                self._trail = self._trail.after_ties() if isinstance(drift, Tied) else self._trail.after_drift()
            self._resumed = False
            page = self._page(answer, seen, following, passed=passed)
            yield page
            if page.token is None:
                return

    async def total(self) -> int | None:
        """Return how many records, or pages of them, the source says there are, by one request; None if it does not say."""
        declared = self._listed.declared.pager.within or self._listed.declared.pager
        place = declared.total_records or declared.total_pages
        if place is None:
            return None
        _, seen = await self._read(self._trail.at)
        return seen.envelope.number(place)

    def _begin_again(self, reason: str) -> None:
        self._trail = self._trail.again()
        self._resumed, self._newest = False, None
        self._ties.forget()
        self._note(reason)

    async def _read(self, at: Position) -> tuple[Answer, PageSeen]:
        if "link" in at:  # of a pager of its own: a keyset's inner one is never a link
            answer = await self._client.follow(str(at["link"]))
        else:
            feed = self._listed.feed
            since = {} if feed is None else feed.asks(self._trail.feed)
            asked_at = self._clock.now()
            try:
                answer = await self._ask({**self._bounding(at), **since, **self._listed.pager.asks(at)}, at)
            except ContractBroken as error:
                if not self._listed.is_past_end(at, error):
                    raise
                return self._past_end(asked_at)
        envelope = self._listed.envelopes.read(answer.reply, self._client.rules)
        return answer, PageSeen(envelope, answer.reply.headers, answer.url, self._listed.records.read)

    def _past_end(self, asked_at: datetime) -> tuple[Answer, PageSeen]:
        """Return the refusal of a page after the last one as a page without records."""
        reply = Reply(NO_CONTENT, CIMultiDictProxy(CIMultiDict()), b"", None)
        seen = PageSeen(self._listed.envelopes.ended(), reply.headers, URL(), self._listed.records.read)
        return Answer(reply, seen.url, asked_at), seen

    def _bounding(self, at: Position) -> Mapping[str, Param]:
        """Return the parameters that shape and bound the listing, from where a keyset has moved its bound to."""
        bounded, since = self._bounds, moved_to(at)
        if since is not None:
            bounded = bounds(replace(self._request, lower=since), self._listed.declared, self._trail.since)
        return {**self._filled.params, **self._filled.filters, **bounded.params}

    async def _ask(self, params: Mapping[str, Param], at: Position) -> Answer:
        declared = self._listed.declared
        if declared.query is None:
            tree = declared.pager.ties if "tie" in at else declared.body
            params = _typed(params, self._listed.numbers)
            sent = params if tree is None else fill_body(tree, {**self._filled.settings, **params})
            return await self._client.ask(declared.method, self._filled.path, sent)
        body = {"query": declared.query.text, "variables": _typed(params, self._listed.numbers)}
        answer = await self._client.ask("POST", self._filled.path, body, self._listed.judge)
        if declared.parent is not None:
            require_there(answer.reply, declared.records, self._client.rules)
        return answer

    async def _check_boundary(self, seen: PageSeen, *, ends: bool) -> None:
        """Raise Drifted if records may have been passed over. ``ends``: the fetch stops here, whatever the source says."""
        at, counted = self._trail.at, self._listed.pager
        if self._trail.feed:
            return  # changes are told in their own order, and stay where they are
        if isinstance(counted, KeysetPager):
            leaves = ends or "within" not in (counted.following(at, seen) or {})
            within = await self._recheck(counted.within, inner(at), seen, lambda place: outer(at, place), ends=leaves)
            if within is not None:
                raise drifted(within, at)
            return
        drift = await self._recheck(counted, at, seen, lambda position: position, ends=ends)
        try:
            if drift is not None:
                raise drift
        finally:
            del drift  # its traceback holds this frame, and so the pages

    async def _recheck(
        self, counted: Pager, at: Position, seen: PageSeen, whole: Callable[[Position], Position], *, ends: bool
    ) -> Drifted | None:
        """Return how a counted listing moved, None if it did not: pages are read again where need be."""
        if not isinstance(counted, PagePager | OffsetPager | PlacedPager):
            return None
        try:
            again = [(await self._read(whole(place)))[1] for place in counted.doubts(at, seen, last=ends)]
        except ContractBroken as error:
            if not isinstance(counted, PlacedPager):
                raise
            if _may_mean_an_unknown_token(error):
                return None  # a token that is good for one request only: nothing more can be known
            return Drifted("a page could not be read again", counted.following(at, seen))
        if not again:
            return None
        try:
            counted.verify(at, seen, again)
        except Drifted as drift:
            return drift
        return None

    async def _check_order(self, seen: PageSeen, following: Position | None) -> None:
        """Raise Tied if records of a counted listing came before, and may hide others (HOLE gg)."""
        at = self._trail.at
        if not counted(at) or self._trail.feed:
            self._ties.forget()
            return
        repeated = self._ties.repeated(at, seen)
        if not repeated and (self._listed.stable or not overlaps(at)):
            return
        if self._listed.stable or not await self._hides_none(repeated, seen):
            raise Tied(self._listed.tied, following)

    async def _hides_none(self, repeated: Sequence[bytes], seen: PageSeen) -> bool:
        async def read(at: Position) -> PageSeen:
            return (await self._read(at))[1]

        with suppress(ContractBroken):  # a token that is good for one request only: nothing can be known
            return await hides_none(self._ties, self._trail.at, seen, repeated, read, self._instant)
        return False

    def _page(self, answer: Answer, seen: PageSeen, following: Position | None, *, passed: bool) -> Page:
        report = self._of_what_is_left()
        if self._trail.drifted or self._trail.tied:
            short = [DRIFTED] * self._trail.drifted + [self._listed.tied] * self._trail.tied
            report = replace(report, shortfall="; ".join(short))
        if following is not None and passed:
            following = None
            upper = self._request.stop_after if report.upper is None else min(report.upper, self._request.stop_after)
            report = replace(report, upper=upper)
        token = None
        if following is not None:
            self._trail = self._onward(self._client.without_credentials(following), seen)
            token = self._trail.token()
        records = seen.envelope.records
        if self._listed.feed is not None:
            records = self._listed.feed.with_removed(seen.envelope)
            if token is None:
                report = self._listed.feed.ended(report, seen.envelope, expired=self._trail.expired)
        return Page(records, token, answer.requested_at, report, answer.reply.source_at)

    def _onward(self, following: Position, seen: PageSeen) -> Trail:
        if not counted(following) or self._trail.feed:
            return self._trail.onward(following)
        self._ties.keep(self._trail.at, seen)
        if self._ties.too_many:
            self._trail = self._trail.after_ties()
        return self._trail.onward(following, self._ties.group())

    def _of_what_is_left(self) -> FetchReport:
        """Return the report, from where on the source still served all when the page was answered (HOLE w).

        What expires while it is listed may have been gone before its page was asked for. The ``HISTORY_MARGIN`` is for clocks
        that differ.
        """
        history = self._listed.declared.history
        if history is None:
            return self._report
        oldest = self._clock.now() - history + HISTORY_MARGIN
        return replace(self._report, lower=oldest if self._report.lower is None else max(self._report.lower, oldest))

    def _has_passed(self, stop_after: datetime, seen: PageSeen) -> bool:
        """Return whether all later pages hold cursor values after ``stop_after``: only an ascending stream can tell."""
        cursor = self._listed.declared.stream.cursor
        if cursor is None or not cursor.ascending or self._trail.unordered or seen.envelope.empty:
            return False
        glances = seen.glances
        begin = glances[min(max(overlap(self._trail.at) - 1, 0), len(glances) - 1)]  # an offset shows more again
        ends = [value for value in (self._instant(begin), self._instant(glances[-1])) if value is not None]
        ordered = _ascending(ends if self._newest is None else [self._newest - self._shown_again(), *ends])
        self._newest = ends[-1] if ends else self._newest
        passed = bool(ends) and ends[-1] > stop_after
        if ordered and passed:
            ordered = _ascending([value for value in map(self._instant, glances) if value is not None])
        if not ordered:
            self._trail = self._trail.found_unordered()
            log.warning("stream_not_ascending", stream=self._request.stream, remedy=self._listed.out_of_order)
        return ordered and passed

    def _shown_again(self) -> timedelta:
        """Return how far before the last record the next page may rightly begin: where a bound is asked from, it reaches back."""
        moved = isinstance(self._listed.pager, KeysetPager) and "within" not in self._trail.at
        return (overshoot(self._listed.declared.lower) if moved else None) or timedelta(0)

    def _instant(self, glance: Glance) -> datetime | None:
        cursor = self._listed.declared.stream.cursor
        if cursor is None or not glance.cursor:
            return None
        try:
            return cursor.parse(msgspec.json.decode(glance.cursor))
        except (ValueError, RecursionError):
            return None


def _pager(declared: StreamDeclaration) -> Pager:
    made, cursor = declared.pager, declared.stream.cursor
    sizes = frozenset(
        int(value) for value in map(str, declared.params.values()) if value.isdecimal() and len(value) < 10
    )
    if made.within is None:
        return pager(made, change_token=None if declared.changes is None else declared.changes.token, sizes=sizes)
    assert cursor is not None
    assert declared.lower is not None
    return KeysetPager(cursor, declared.lower, pager(made.within, sizes=sizes), made.param)


def _tied(cursor: CursorField | None) -> str:
    """Return what to say of records that came twice although nothing moved."""
    if cursor is None:
        return TIED.format(whose="", or_else="").replace("  ", " ")
    name = ".".join(cursor.path)
    or_else = f", or raise the page size above the number of records that share one {name}"
    return TIED.format(whose=f"with the same {name}", or_else=or_else)


def _numbers(declared: StreamDeclaration) -> frozenset[str]:
    """Return the bounds that are numbers in a body: of a GraphQL query all that count since 1970."""
    return frozenset(
        bound.param
        for bound in (declared.lower, declared.upper)
        if bound is not None and (bound.number or (declared.query is not None and _is_a_number(bound)))
    )


def _is_a_number(bound: BoundParam) -> bool:
    return bound.format in COUNTED and bound.value == INSTANT


def _typed(params: Mapping[str, Param], numbers: frozenset[str]) -> Mapping[str, Param]:
    """Return ``params`` with those that are ``numbers`` as such."""
    return {name: int(value) if name in numbers else value for name, value in params.items()} if numbers else params


def _may_mean_an_unknown_token(error: ContractBroken) -> bool:
    return isinstance(error, QueryRefused) or error.values.get("status") in UNKNOWN_TOKEN


def _ascending(values: list[datetime]) -> bool:
    return all(earlier <= later for earlier, later in pairwise(values))
