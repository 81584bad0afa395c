"""One page of each stream, and what Tidegate understood of it: for whoever writes a declaration."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from tidegate.connectors import json_parts
from tidegate.connectors.base import Connector, Source
from tidegate.connectors.rest.connector import RestConnector, RestSource
from tidegate.connectors.rest.declaration import PagerDeclaration, PagerKind, StreamDeclaration, at_place, place_text
from tidegate.connectors.rest.feed_probes import of_a_token_without_effect
from tidegate.connectors.rest.filters import bounds
from tidegate.connectors.rest.hidden import of_what_a_bound_hides
from tidegate.connectors.rest.probes import at, of_a_stranger, out_of_order, parsed, probe
from tidegate.domain.clock import Clock
from tidegate.domain.cursor import CursorField
from tidegate.domain.errors import SourceError
from tidegate.domain.fetch import FetchRequest, Page
from tidegate.domain.stream import Stream

REACH = timedelta(days=30)  # a first look goes back so far, with the stream's own filters
SAMPLE = timedelta(days=1)
SKEW = timedelta(seconds=5)
SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Examined:
    """What was understood of one stream. ``error``: why no page could be had, "" if one was.

    ``since_days``: the first page was asked for from so many days ago on, None if it is that of the whole listing.
    """

    stream: str
    key: tuple[str, ...]
    cursor: str
    pager: str
    sample_filters: Mapping[str, str]
    listing: str = ""
    records: int = 0
    since_days: int | None = None
    cursor_samples: tuple[tuple[str, str], ...] = ()  # as the source writes it, and in UTC
    columns: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str = ""


async def examine(
    connector: Connector, source: Source, stream: Stream, clock: Clock, stranger: Source | None = None
) -> Examined:
    """Return what one page of ``stream`` shows, and what a few more requests tell of its declaration.

    ``stranger``: the same source, opened with wrong secrets. A source's failure is in the result, not raised.
    """
    now = clock.now()
    streams = connector.declaration.streams if isinstance(connector, RestConnector) else {}
    declared = streams.get(stream.name)
    listed = declared if declared is None or declared.parent is None else streams[declared.parent.stream]
    understood = Examined(
        stream=stream.name,
        key=stream.key,
        cursor=_describe_order(stream),
        pager="written in Python" if declared is None else describe_pager(declared.pager),
        sample_filters={} if listed is None else sample_filters(listed, now),
        listing="" if declared is None else describe_listing(declared),
    )
    try:
        recent = await _first_page(source, FetchRequest(stream.name, now - REACH, None, now))
        page = recent if _records(recent) else await _first_page(source, FetchRequest(stream.name, None, None, now))
    except SourceError as error:
        return replace(understood, error=f"{error.code}: {error}")
    records = _records(page)
    probed = () if declared is None else await probe(source, declared, now)
    if declared is not None and not probed:
        probed += await of_a_token_without_effect(source, declared, now)
    if declared is not None and not probed and isinstance(source, RestSource):
        probed += await of_what_a_bound_hides(source, declared, now)
    if stranger is not None and records:
        probed += await of_a_stranger(stranger, stream, now)
    return replace(
        understood,
        records=len(records),
        since_days=REACH.days if page is recent and listed is not None and listed.lower is not None else None,
        cursor_samples=_samples(stream.cursor, records),
        columns=_columns(records),
        warnings=(*_clock_warnings(page), *_record_warnings(stream, declared, records), *probed),
    )


async def _first_page(source: Source, request: FetchRequest) -> Page:
    async with aclosing(source.fetch(request)) as pages:  # type: ignore[type-var]
        return await anext(pages)


def _records(page: Page) -> list[object]:
    return json_parts.decoded(page.records)


def sample_filters(declared: StreamDeclaration, now: datetime) -> Mapping[str, str]:
    """Return the bounding parameters for the day before ``now``."""
    return bounds(FetchRequest(declared.stream.name, now - SAMPLE, now, now), declared, None).params


def _describe_order(stream: Stream) -> str:
    cursor = stream.cursor
    if cursor is None and stream.change_feed:
        return "none: listed in full once, then the source says what has changed since"
    if cursor is None:
        return "none: listed in full each time"
    zone = "" if cursor.time_zone == "Etc/UTC" else f" in {cursor.time_zone}"
    changes = "changes with every edit" if cursor.changes else "never changes after creation"
    order = "listed oldest first" if cursor.ascending else "in any order"
    grain = f"to {cursor.precision.total_seconds():g} s"
    return f"{'.'.join(cursor.path)}, {cursor.format}{zone} {grain}, {changes}, {order}"


def describe_listing(declared: StreamDeclaration) -> str:
    """Return what is asked for, and where the reply holds the records."""
    query, parent, changes = declared.query, declared.parent, declared.changes
    records = ".".join(declared.records) or "the reply itself"
    if parent is not None and not declared.path:
        return f"in each of {parent.stream}, at {'.'.join(parent.each or ())}"
    what = f"{declared.method} {declared.path}"
    if query is not None:
        what += f", query {query.name or 'without a name'}({', '.join(f'${name}' for name in query.variables)})"
    what += f", records at {records}{f', in each its {declared.inside}' if declared.inside else ''}"
    if parent is not None:
        whom = "each" if parent.each is None else f"those that do not hold all at {'.'.join(parent.each)}"
        what += f", for {whom} of {parent.stream}"
    if changes is not None:
        what += f"; changes since {changes.param}=<{place_text(changes.token)} of the last page>"
    return what


def describe_pager(pager: PagerDeclaration) -> str:
    """Return how pages are asked for and what says that one is the last."""
    if pager.within is not None:
        ties = f"by ?{pager.param}=<last key>; its end is that of " if pager.ties else ""
        return f"from the last record's cursor value on; within one value {ties}{_describe(pager.within)}"
    return _describe(pager)


def _describe(pager: PagerDeclaration) -> str:
    at = {name: place_text(place) for name in ("token", "has_more", "total_pages", "total_records")
          if (place := getattr(pager, name)) is not None}  # fmt: skip
    has_more = f"{at['has_more']}: false" if "has_more" in at else ""
    match pager.kind:
        case PagerKind.NONE:
            return "one page; it is the whole listing"
        case PagerKind.CURSOR:
            return f"?{pager.param}=<{at['token']}>; the end is {has_more or 'a page without that token'}"
        case PagerKind.LAST_ID:
            return f"?{pager.param}=<last key>; the end is {has_more or 'an empty page'}"
        case PagerKind.LINK:
            where = (
                f"the address {at_place(pager.token)}" if pager.token is not None else 'the Link header\'s rel="next"'
            )
            return f"{where}; the end is a page without one"
        case PagerKind.PAGE:
            last, total = at.get("total_pages"), at.get("total_records")
            ends = (last and f"page {last}", total and f"{total} records", pager.next_link and 'no rel="next"')
            return f"?{pager.param}=<number>; the end is {has_more or next(filter(None, ends), 'an empty page')}"
        case PagerKind.OFFSET | PagerKind.KEYSET:
            total = at.get("total_records")
            end = has_more or (total and f"{total} records") or "a page without a further record"
            return f"?{pager.param}=<count>; the end is {end}"


def _samples(cursor: CursorField | None, records: list[object]) -> tuple[tuple[str, str], ...]:
    if cursor is None:
        return ()
    samples = []
    for record in records[:SAMPLES]:
        instant = parsed(cursor, record)
        shown = "cannot be read" if instant is None else instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
        samples.append((repr(at(record, cursor.path)), shown))
    return tuple(samples)


def _clock_warnings(page: Page) -> list[str]:
    if page.source_at is None:
        return ["The reply has no Date header: whether the source's clock has passed a period's end cannot be seen."]
    skew = page.source_at - page.requested_at
    if abs(skew) > SKEW:
        side = "ahead of" if skew > timedelta(0) else "behind"
        return [f"The source's clock is {abs(skew).total_seconds():.0f} s {side} ours."]
    return []


def _record_warnings(stream: Stream, declared: StreamDeclaration | None, records: list[object]) -> list[str]:
    if not records:
        return ["The source shows no record: keys, cursor values and columns could not be checked."]
    warnings = []
    for key in stream.key:
        missing = sum(at(record, key.split(".")) is None for record in records)
        if missing:
            warnings.append(
                f"{missing} of {len(records)} records have no {key}: they would go to quarantine. Correct `key:`."
            )
    if stream.cursor is not None:
        warnings += _cursor_warnings(stream.cursor, declared, records)
    return warnings


def _cursor_warnings(cursor: CursorField, declared: StreamDeclaration | None, records: list[object]) -> list[str]:
    warnings = []
    values = [value for record in records if (value := parsed(cursor, record)) is not None]
    name = ".".join(cursor.path)
    if len(values) < len(records):
        unreadable = len(records) - len(values)
        warnings.append(f"{unreadable} of {len(records)} records have no readable {name}: they would go to quarantine.")
    if any(cursor.floor(value) != value for value in values):
        precision = cursor.precision.total_seconds()
        warnings.append(f"{name} is finer than the declared {precision:g} s: declare a smaller precision_seconds.")
    if cursor.ascending and any(earlier > later for earlier, later in pairwise(values)):
        remedy = "declare `ascending: false`." if declared is None else out_of_order(declared)
        warnings.append(f"{name} does not ascend though declared so: {remedy}")
    return warnings


def _columns(records: list[object]) -> dict[str, str]:
    found: dict[str, dict[str, None]] = {}
    for record in records:
        if isinstance(record, dict):
            for name, value in record.items():
                kinds = found.setdefault(name, {})
                if value is not None:
                    kinds[_kind(value)] = None
    return {name: " or ".join(kinds) or "always null" for name, kinds in found.items()}


def _kind(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "bigint" if -(2**63) <= value < 2**63 else "numeric"
        case float():
            return "double"
        case str():
            return _kind_of_text(value)
        case _:
            return "json"


def _kind_of_text(value: str) -> str:
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return "text"
    if len(value) == len("2026-07-13"):
        return "date" if value[4] == "-" else "text"
    return "timestamp" if parsed.tzinfo is not None else "text"
