"""What a few requests more than one tell of a declaration: filters that do nothing, pages that repeat, keys that do not tell.

Each finding names what was seen and what to write instead. Nothing here is certain: a source may have too few records to
tell, and then nothing is said.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import msgspec

from tidegate.connectors.base import Source
from tidegate.connectors.rest.declaration import BoundParam, Meaning, PagerKind, StreamDeclaration
from tidegate.connectors.rest.pagers import PageRepeated
from tidegate.domain.cursor import CursorField, CursorFormat
from tidegate.domain.errors import SourceError
from tidegate.domain.fetch import FetchRequest, Page
from tidegate.domain.stream import Stream

USUAL_PAGE_SIZES = frozenset({10, 20, 25, 30, 50, 100, 200, 250, 500, 1000})


@dataclass(frozen=True, slots=True)
class Shown:
    """One page as a probe sees it: its records, decoded, and whether it is the last one."""

    records: list[object]
    last: bool

    def keys(self, stream: Stream) -> list[str]:
        """Return the records' keys as text, those that have one."""
        keys = [[at(record, part.split(".")) for part in stream.key] for record in self.records]
        return [repr(key) for key in keys if None not in key]

    def values(self, cursor: CursorField) -> list[datetime]:
        """Return the cursor values that can be read, in the page's order."""
        return [value for record in self.records if (value := parsed(cursor, record)) is not None]


async def probe(source: Source, declared: StreamDeclaration, now: datetime) -> tuple[str, ...]:
    """Return what is wrong with a declared stream, by its first two pages and a page from a bound on."""
    stream, findings = declared.stream, []
    try:
        pages = await _pages(source, FetchRequest(stream.name, None, None, now), 2)
        findings += [*_of_keys(stream, pages[0]), *_of_the_end(declared, pages), *_of_the_next_page(declared, pages)]
        if stream.cursor is not None and declared.lower is not None:
            findings += await _of_the_filter(source, stream.cursor, declared.lower, declared, pages[0], now)
    except PageRepeated:
        findings.append(_repeated(declared.pager.param or "the page's number"))
    except SourceError as error:
        findings.append(f"A further request failed, so not everything could be tried: {error.code}: {error}")
    return tuple(findings)


async def _pages(source: Source, request: FetchRequest, most: int) -> list[Shown]:
    shown: list[Shown] = []
    async with aclosing(_closable(source.fetch(request))) as pages:
        async for page in pages:
            shown.append(Shown(msgspec.json.decode(page.records, type=list[object]), page.token is None))
            if len(shown) == most:
                break
    return shown


async def _closable(pages: AsyncIterator[Page]) -> AsyncGenerator[Page]:
    async for page in pages:
        yield page


def _of_keys(stream: Stream, page: Shown) -> list[str]:
    keys = page.keys(stream)
    repeated = len(keys) - len(set(keys))
    if not repeated:
        return []
    name = ", ".join(stream.key)
    return [f"{repeated} records of one page share their {name} with another: name more fields in `key:`, as a list."]


def _of_the_end(declared: StreamDeclaration, pages: list[Shown]) -> list[str]:
    """A full page that claims to be the last one deserves a second look."""
    first, pager = pages[0], declared.pager
    sizes = {value for name, value in declared.params.items() if isinstance(value, int) and value == len(first.records)}
    full = bool(sizes) or (pager.kind is PagerKind.NONE and len(first.records) in USUAL_PAGE_SIZES)
    if not first.last or not full:
        return []
    count = len(first.records)
    if pager.kind is PagerKind.NONE:
        return [f"{count} records and no pager: this looks like a first page of more. Declare `pager:`."]
    told = pager.token or pager.has_more or pager.total_pages or pager.total_records
    where = f"at {'.'.join(told)}" if told else "in the Link header"
    return [f"The page is full, {count} records, and {where} nothing says that there is more: check `pager:`."]


def _repeated(param: str) -> str:
    return f"The second page repeats the first: {param} has no effect. Name the parameter that asks for the next page."


def _of_the_next_page(declared: StreamDeclaration, pages: list[Shown]) -> list[str]:
    if len(pages) < 2:
        return []
    stream, cursor = declared.stream, declared.stream.cursor
    first, second = (page.keys(stream) for page in pages)
    if second and set(second) <= set(first) and len(first) > 1:
        moved = declared.lower.param if declared.pager.kind is PagerKind.KEYSET and declared.lower else ""
        param = moved or declared.pager.param or "the link"
        return [_repeated(param)]
    if cursor is not None and cursor.ascending:
        ends = [*pages[0].values(cursor), *pages[1].values(cursor)]
        within = all(earlier <= later for earlier, later in pairwise(pages[0].values(cursor)))
        if within and any(earlier > later for earlier, later in pairwise(ends)):
            name = ".".join(cursor.path)
            return [
                f"{name} goes back from the first page to the second: ask for its order, or declare `ascending: false`."
            ]
    return []


async def _of_the_filter(
    source: Source,
    cursor: CursorField,
    lower: BoundParam,
    declared: StreamDeclaration,
    unfiltered: Shown,
    now: datetime,
) -> list[str]:
    """Ask from the newest value of the unfiltered page on: nothing older may be shown, and that record must be."""
    values, grain = unfiltered.values(cursor), _grain(lower)
    if not values or min(values) >= max(values) - grain:
        return []
    newest = max(values)
    (filtered,) = await _pages(source, FetchRequest(declared.stream.name, newest, None, now), 1)
    shown = filtered.values(cursor)
    older = sum(value < newest - grain for value in shown)
    name = ".".join(cursor.path)
    if older:
        return [
            f"{lower.param} has no effect: asked from {newest.isoformat()} on, {older} of {len(shown)} records are older by"
            f" {name}. Correct `lower.param`, its `format` or `time_zone`, or leave `lower:` out to list in full."
        ]
    if newest not in shown and (filtered.last or cursor.ascending):
        remedy = "Declare `meaning: exclusive`." if lower.meaning is Meaning.INCLUSIVE else "Check its format and zone."
        return [f"{lower.param} leaves out a record whose {name} is exactly the value asked for. {remedy}"]
    return []


def _grain(lower: BoundParam) -> timedelta:
    """Return how much more than asked for may rightly be shown."""
    slack = timedelta(days=2) if lower.format in (CursorFormat.DATE, CursorFormat.LOCAL) else timedelta(0)
    return slack + 2 * lower.grain


def at(record: object, path: Iterable[str]) -> object:
    """Return the value at ``path`` in a decoded record, None if there is none."""
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def parsed(cursor: CursorField, record: object) -> datetime | None:
    """Return a decoded record's cursor value, None if it cannot be read."""
    try:
        return cursor.parse(at(record, cursor.path))
    except ValueError:
        return None
