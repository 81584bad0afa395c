"""Every protection against loss, and how to take it away: the harness has to notice, or it proves nothing."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from tests.loss.story import Story
from tidegate.connectors.base import Source
from tidegate.connectors.http import Reply, ReplyRules
from tidegate.connectors.rest import filters, listing
from tidegate.connectors.rest.counting import OffsetPager, PagePager
from tidegate.connectors.rest.declaration import BoundParam, Meaning
from tidegate.connectors.rest.envelope import Envelope, EnvelopeReader
from tidegate.connectors.rest.listing import Listing
from tidegate.connectors.rest.pagers import CursorPager, PageSeen, Position
from tidegate.connectors.rest.placed import PlacedPager
from tidegate.connectors.rest.pushed import Joint
from tidegate.connectors.rest.ties import Ties
from tidegate.connectors.rest.trail import Trail
from tidegate.destinations.postgres import careful, upsert
from tidegate.destinations.webhook.signing import SigningKeys
from tidegate.destinations.webhook.webhook import Webhook
from tidegate.domain import cursor
from tidegate.domain.cursor import CursorField
from tidegate.domain.errors import DestinationRejected, SourceUnavailable
from tidegate.domain.fetch import FetchReport, FetchRequest, Page
from tidegate.domain.outgoing import Answer, Verdict, Version
from tidegate.domain.period import Period
from tidegate.domain.stream import Stream
from tidegate.engine.attempt import execution
from tidegate.engine.attempt.fetching import request_for
from tidegate.store import ending, leases, outbox, sending

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Protection:
    """One protection. ``story``: one in which it is needed, at one of a few seeds. ``noticed_as``: what the harness says."""

    name: str
    take_away: Callable[[Patch], None]
    story: Story
    noticed_as: frozenset[str]
    beforehand: Callable[[Patch], None] = lambda _patch: None
    """What makes the protection be needed in a small story; nothing is lost with it alone."""


LOSS = frozenset({"lie", "lost"})
CALM = Story(0, "keyset", changes=0.3, slowest=20.0, ticks=4)
BUSY = replace(CALM, changes=0.5, slowest=2.0)


def _lookback(patch: Patch) -> None:
    def without(stream: Stream, *rest: object) -> FetchRequest:
        return request_for(replace(stream, lookback=stream.lookback * 0), *rest)  # type: ignore[arg-type]

    patch.setattr(execution, "request_for", without)


def _open_end(patch: Patch) -> None:
    patch.setattr(Stream, "open_ended", property(lambda _stream: False))


def _watermark_is_the_due_date(patch: Patch) -> None:
    ended = ending._FINISH.replace("f.period_end,", "greatest(f.period_end, f.finished_at),", 1)
    assert ended != ending._FINISH
    patch.setattr(ending, "_FINISH", ended)


def _watermark_is_not_the_run_date(patch: Patch) -> None:
    started = "(select greatest(started_at, f.period_end) from runs where id = f.id)"
    begun = ending._FINISH.replace("f.period_end,", f"{started},", 1)
    assert begun != ending._FINISH
    patch.setattr(ending, "_FINISH", begun)


def _period_starts_at_the_watermark(patch: Patch) -> None:
    late = leases._LEASE.replace(
        "then coalesce(b.watermark, c.start_at) else", "then r.period_end - interval '1 s' else"
    )
    assert late != leases._LEASE
    patch.setattr(leases, "_LEASE", late)


def _source_clock(patch: Patch) -> None:
    async def unchecked(source: Source, request: FetchRequest, period: Period) -> AsyncIterator[Page]:
        async for page in source.fetch(request):
            yield page

    patch.setattr(execution, "fetch", unchecked)


def _later_request_wins_a_tie(patch: Patch) -> None:
    patch.setattr(upsert, "_BY_CURSOR", "t._tidegate_cursor < excluded._tidegate_cursor")


def _same_version_is_left_alone(patch: Patch) -> None:
    patch.setattr(upsert, "_BY_CURSOR", "t._tidegate_cursor <= excluded._tidegate_cursor")


def _resume_token(patch: Patch) -> None:
    def from_the_beginning(*asked: object, **named: object) -> FetchRequest:
        return replace(request_for(*asked, **named), resume=None)  # type: ignore[arg-type]

    patch.setattr(execution, "request_for", from_the_beginning)


def _circle_check(patch: Patch) -> None:
    onward = Trail.onward

    def round_and_round(trail: Trail, at: Position) -> Trail:
        page = trail.page + 1
        return onward(trail, at) if at != trail.anchor else _moved(trail, at, page)

    patch.setattr(Trail, "onward", round_and_round)


def _moved(trail: Trail, at: Position, page: int) -> Trail:
    return msgspec.structs.replace(trail, at=at, page=page)


def _drift_of_pages(patch: Patch) -> None:
    patch.setattr(PagePager, "doubts", lambda _pager, _position, _seen: [])


def _drift_of_places(patch: Patch) -> None:
    patch.setattr(PlacedPager, "doubts", lambda _pager, _position, _seen: [])


def _drift_of_offsets(patch: Patch) -> None:
    patch.setattr(OffsetPager, "following", lambda pager, position, seen: pager._onward(position, seen))
    patch.setattr(listing, "overlaps", lambda _at: False)


def _left_its_page(patch: Patch) -> None:
    patch.setattr(Joint, "ordered", property(lambda _joint: False))
    patch.setattr(Joint, "kept_order", lambda _joint, _again: True)


def _order_among_equals(patch: Patch) -> None:
    patch.setattr(Ties, "repeated", lambda _ties, _at, _seen: ())


def _quarantine(patch: Patch) -> None:
    line = careful._line

    def refused(*given: object) -> object:
        try:
            return line(*given)  # type: ignore[arg-type]
        except careful.Poison as reason:
            raise DestinationRejected(str(reason)) from reason

    patch.setattr(careful, "_line", refused)


def _one_listing(patch: Patch) -> None:
    patch.setattr(listing, "MAX_LISTINGS", 1)


def _report_must_prove(patch: Patch) -> None:
    patch.setattr(FetchReport, "proves", lambda _report, _period: True)


def _empty_page_is_not_the_end(patch: Patch) -> None:
    following = CursorPager.following

    def ends(pager: CursorPager, position: Position, seen: PageSeen) -> Position | None:
        return None if seen.envelope.empty else following(pager, position, seen)

    patch.setattr(CursorPager, "following", ends)


def _exclusive_bound_steps_back(patch: Patch) -> None:
    render = filters.render_lower

    def as_if_inclusive(bound: BoundParam, field: CursorField, instant: datetime) -> tuple[str, datetime]:
        return render(replace(bound, meaning=Meaning.INCLUSIVE), field, instant)

    patch.setattr(filters, "render_lower", as_if_inclusive)


def _only_an_ascending_listing_stops(patch: Patch) -> None:
    def passed(of: Listing, stop_after: datetime, seen: PageSeen) -> bool:
        instants = [of._instant(glance) for glance in seen.glances]
        return any(instant > stop_after for instant in instants if instant is not None)

    patch.setattr(Listing, "_has_passed", passed)


def _broken_page_is_no_page(patch: Patch) -> None:
    read = EnvelopeReader.read

    def forgiving(reader: EnvelopeReader, reply: Reply, rules: ReplyRules) -> Envelope:
        try:
            return read(reader, reply, rules)
        except SourceUnavailable:
            return Envelope(b"[]", dict.fromkeys(reader._others, b""))

    patch.setattr(EnvelopeReader, "read", forgiving)


def _wall_time_has_a_zone(patch: Patch) -> None:
    patch.setattr(cursor, "zone_info", lambda _name: ZoneInfo("Etc/UTC"))
    patch.setattr(filters, "zone_info", lambda _name: ZoneInfo("Etc/UTC"))


def _handed_over_once(patch: Patch) -> None:
    async def all_new(_connection: object, _route_id: int, versions: Sequence[Version]) -> dict[bytes, bool]:
        return {version.key_hash: True for version in versions}

    patch.setattr(outbox, "newer", all_new)


def _sent_until_acknowledged(patch: Patch) -> None:
    patch.setattr(Webhook, "_judge", lambda _webhook, response, _text: Answer(Verdict.ACKNOWLEDGED, response.status))


def _sent_in_order(patch: Patch) -> None:
    newest_first = sending._NEXT.replace("order by o.position limit 1", "order by o.position desc limit 1")
    assert newest_first != sending._NEXT
    patch.setattr(sending, "_NEXT", newest_first)


def _an_id_is_kept(patch: Patch) -> None:
    headers = SigningKeys.headers

    def another_each_time(keys: SigningKeys, message_id: str, sent_at: datetime, body: bytes) -> dict[str, str]:
        return headers(keys, f"{message_id}{next(_numbers)}", sent_at, body)

    patch.setattr(SigningKeys, "headers", another_each_time)


def _coverage_waits(patch: Patch) -> None:
    patch.setattr(sending, "_COMPLETE", sending._COMPLETE.replace("and o.state = 'open'", "and o.state = 'never'"))


_numbers = itertools.count(1)
POSTED = replace(CALM, webhook=True, silence=0.5)

PROTECTIONS = (
    Protection("lookback (HOLES k, l)", _lookback, replace(CALM, seed=5), LOSS),
    Protection("open-ended fetch (HOLE e)", _open_end, CALM, frozenset({"late"})),
    Protection(
        "watermark is the due date, not the clock after the listing (HOLE a)",
        _watermark_is_the_due_date,
        replace(BUSY, dialect="keyset_prompt", slowest=60.0, seed=1),
        LOSS,
    ),
    Protection(
        "watermark is the due date, not the run date (SPEC 2.7)",
        _watermark_is_not_the_run_date,
        CALM,
        frozenset({"chain"}),
    ),
    Protection(
        "period starts at the watermark (SPEC 2.7)",
        _period_starts_at_the_watermark,
        CALM,
        frozenset({"chain", "stuck"}),
    ),
    Protection("source's own clock (HOLES k, ff)", _source_clock, replace(CALM, skew=-200), LOSS),
    Protection(
        "a later request wins a tie (SPEC 4)",
        _later_request_wins_a_tie,
        replace(CALM, seed=1),
        frozenset({"unstored", "lost"}),
    ),
    Protection(
        "a version already there is not written again (HOLE h)", _same_version_is_left_alone, CALM, frozenset({"twice"})
    ),
    Protection(
        "resuming after the last page delivered (HOLE s)",
        _resume_token,
        replace(CALM, faults=0.3),
        frozenset({"again"}),
    ),
    Protection(
        "repeated page token (SPEC 4)", _circle_check, replace(CALM, circle=True, faults=0.01), frozenset({"stuck"})
    ),
    Protection("drift between numbered pages (HOLE gg)", _drift_of_pages, replace(BUSY, dialect="page", seed=5), LOSS),
    Protection(
        "drift between pages that a link numbers (HOLE gg)",
        _drift_of_places,
        replace(BUSY, dialect="link_of_pages", seed=5),
        LOSS,
    ),
    Protection(
        "drift between offsets (HOLE gg)",
        _drift_of_offsets,
        replace(BUSY, dialect="offset", page_size=2, seed=35),
        LOSS,
    ),
    Protection(
        "records that come twice hide others (HOLE gg)",
        _order_among_equals,
        replace(BUSY, dialect="shuffled_page", seed=1),
        LOSS,
    ),
    Protection(
        "what left its page may have come twice before (HOLE gg)",
        _left_its_page,
        Story(500979, "shuffled_moving", "every minute", 3, changes=0.35, slowest=40.0, skew=-1, page_size=5),
        LOSS,
    ),
    Protection(
        "records that come twice within one cursor value hide others (HOLE gg)",
        _order_among_equals,
        replace(BUSY, dialect="shuffled_moving", seed=1),
        LOSS,
    ),
    Protection("quarantine (HOLE d)", _quarantine, replace(CALM, poison=True, seed=40), frozenset({"stuck"})),
    Protection(
        "the report proves the period (HOLE w)",
        _report_must_prove,
        replace(BUSY, dialect="page_unsaid"),
        LOSS,
        _one_listing,
    ),
    Protection(
        "an empty page is not the end (SPEC 4)", _empty_page_is_not_the_end, replace(CALM, faults=0.4, seed=4), LOSS
    ),
    Protection(
        "an exclusive bound is set one grain back (HOLE j)",
        _exclusive_bound_steps_back,
        replace(CALM, dialect="date_exclusive"),
        LOSS,
    ),
    Protection(
        "only an ascending listing may stop early (HOLE hh)",
        _only_an_ascending_listing_stops,
        replace(CALM, dialect="keyset_newest"),
        LOSS,
    ),
    Protection(
        "a broken-off page is asked for again (SPEC 5)",
        _broken_page_is_no_page,
        replace(CALM, faults=0.3, seed=2),
        LOSS,
    ),
    Protection("wall time has a zone (HOLE i)", _wall_time_has_a_zone, replace(CALM, dialect="local_newest"), LOSS),
    Protection(
        "a version is handed over once (SPEC 4)", _handed_over_once, replace(POSTED, silence=0.0), frozenset({"twice"})
    ),
    Protection(
        "a message is sent until it is acknowledged (SPEC 5)", _sent_until_acknowledged, POSTED, LOSS | {"order"}
    ),
    Protection("messages are sent in order (SPEC 5)", _sent_in_order, POSTED, frozenset({"order"})),
    Protection("a message keeps its id (SPEC 5, HOLE s)", _an_id_is_kept, POSTED, frozenset({"twice"})),
    Protection("coverage waits for the acknowledgement (SPEC 5)", _coverage_waits, POSTED, frozenset({"lie"})),
)
