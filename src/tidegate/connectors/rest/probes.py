"""What a few requests more than one tell of a declaration: filters that do nothing, pages that repeat, keys that do not tell.

Each finding names what was seen and what to write instead. Nothing here is certain: a source may have too few records to
tell, and then nothing is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise, takewhile

from tidegate.connectors import json_parts
from tidegate.connectors.base import Source
from tidegate.connectors.rest.declaration import BoundParam, Meaning, PagerKind, StreamDeclaration, at_place
from tidegate.connectors.rest.filters import overshoot
from tidegate.connectors.rest.pagers import PageRepeated
from tidegate.domain.cursor import CursorField, CursorFormat
from tidegate.domain.errors import SourceError
from tidegate.domain.fetch import FetchRequest, Page, PageToken
from tidegate.domain.stream import Stream
from tidegate.domain.zone import find_zone

DAY = timedelta(days=1)
YEAR = timedelta(days=366)
BEFORE_CHANGE = timedelta(days=30)
"""How far before a change of clocks records are looked for that the other offset holds for."""
NEAR_CHANGE = timedelta(days=2)
"""So near to a change of clocks bounds in wall time are taken more widely."""
USUAL_PAGE_SIZES = frozenset({10, 20, 25, 30, 50, 100, 200, 250, 500, 1000})


@dataclass(frozen=True, slots=True)
class Shown:
    """One page as a probe sees it: its records, decoded, where the next one starts, and why some may not be shown."""

    records: list[object]
    token: PageToken | None = None
    shortfall: str = ""

    @property
    def last(self) -> bool:
        """Return whether there is no page after it."""
        return self.token is None

    def keys(self, stream: Stream) -> list[str]:
        """Return the records' keys as text, those that have one."""
        keys = [[at(record, part.split(".")) for part in stream.key] for record in self.records]
        return [repr(key) for key in keys if None not in key]

    def values(self, cursor: CursorField) -> list[datetime]:
        """Return the cursor values that can be read, in the page's order."""
        return [value for record in self.records if (value := parsed(cursor, record)) is not None]


async def probe(source: Source, declared: StreamDeclaration, now: datetime) -> tuple[str, ...]:
    """Return what is wrong with a declared stream, by its first two pages and two from a bound on."""
    stream, findings = declared.stream, []
    pages, failure = await _pages(source, FetchRequest(stream.name, None, None, now), 2)
    if pages:
        findings += [*_of_keys(stream, pages[0]), *_of_the_end(declared, pages), *_of_the_next_page(declared, pages)]
        findings += [*_of_what_has_no_value(declared, pages[0]), *_of_the_size(declared, pages)]
        findings += [*dict.fromkeys(page.shortfall for page in pages if page.shortfall)]
    if pages and failure is None and stream.cursor is not None and declared.lower is not None:
        found, failure = await _of_an_equality(source, declared, pages[0], now)
        if not found and failure is None:
            found, failure = await _of_the_filter(source, declared, pages[0].values(stream.cursor), now)
        if not found and failure is None:
            found, failure = await _of_a_bound_that_is_now(source, declared, now)
        findings += found
    if pages and failure is None and not findings and declared.lower is not None:
        found, failure = await _of_the_order(source, stream, pages[0], now)
        findings += found
    if pages and failure is None and not findings and stream.cursor is not None and declared.lower is not None:
        found, failure = await _of_another_season(source, declared, now)
        findings += found
    if failure is None and not findings:
        found, failure = await _of_the_inner_page(source, declared, pages, now)
        findings += found
    if isinstance(failure, PageRepeated):
        findings.append(_repeated(declared.pager.param or "the page's number"))
    elif failure is not None:
        findings.append(f"A further request failed, so not everything could be tried: {failure.code}: {failure}")
    return tuple(findings)


async def of_a_stranger(source: Source, stream: Stream, now: datetime) -> tuple[str, ...]:
    """Return what is wrong if ``source``, opened with wrong secrets, is answered with records."""
    pages, _ = await _pages(source, FetchRequest(stream.name, None, None, now), 1)
    count = len(pages[0].records) if pages else 0
    if not count:
        return ()
    return (
        f"A wrong key is answered too, with {count} records on the first page: once the key is withdrawn, runs would go on with"
        " what everybody may see, and cover it. Name a path that is refused then in `authentication.verify`.",
    )


async def _pages(source: Source, request: FetchRequest, most: int) -> tuple[list[Shown], SourceError | None]:
    """Return the first pages of a listing, of its last beginning if it began again, and why there are no more of them."""
    shown: list[Shown] = []
    listing: object = None
    try:
        async with aclosing(_closable(source.fetch(request))) as pages:
            async for page in pages:
                if page.token is not None and page.token.get("listing") != listing:
                    listing = page.token.get("listing")
                    shown.clear()
                records = json_parts.decoded(page.records)
                shown.append(Shown(records, page.token, page.report.shortfall))
                if len(shown) == most:
                    break
    except SourceError as failure:
        return shown, failure
    return shown, None


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
    where = at_place(told) if told else "in the Link header"
    another = "" if told else " If another header says it, name it: `url: {header: NAME}`."
    return [f"The page is full, {count} records, and {where} nothing says that there is more: check `pager:`.{another}"]


def _of_the_size(declared: StreamDeclaration, pages: list[Shown]) -> list[str]:
    """Pages smaller than asked for, where the platform counts pages of the size asked for, leave out what is between."""
    if declared.page_size is None or declared.parent is not None or len(pages) < 2:
        return []
    count = len(pages[0].records)
    first, second = (set(page.keys(declared.stream)) for page in pages)
    if count >= declared.page_size or not second - first:
        return []
    return [
        f"{count} records came where {declared.page_size} were asked for, though there are more: if the platform allows no more,"
        f" write `value: {count}` in `page_size:`; else correct its `param`."
    ]


def _of_what_has_no_value(declared: StreamDeclaration, page: Shown) -> list[str]:
    """A record without a cursor value until its first edit is in no listing from a bound on, and no run says so (SPEC 4)."""
    cursor, lower = declared.stream.cursor, declared.lower
    if cursor is None or lower is None:
        return []
    bare = len(page.records) - len(page.values(cursor))
    if not bare:
        return []
    name = ".".join(cursor.path)
    return [
        f"{bare} of {len(page.records)} records have no readable {name} where all are asked for: asked from an instant on, the"
        f" platform may hide them, and no run would fetch them. If a record has none until its first edit, name a field that is"
        f" set from the start, or leave `cursor:` and `lower:` out to list in full."
    ]


async def _of_the_inner_page(
    source: Source, declared: StreamDeclaration, pages: list[Shown], now: datetime
) -> tuple[list[str], SourceError | None]:
    """Ask for the next page by number from where a keyset's second page began: it must not show that one again.

    Else each run would fail, at the end of its listing or at the first page of one cursor value.
    """
    within = declared.pager.within
    onward = pages[0].token.get("at") if pages and pages[0].token is not None else None
    numbered = (
        within is not None and within.kind is PagerKind.PAGE and declared.pager.ties is None and declared.parent is None
    )
    if within is None or not numbered or len(pages) < 2 or not isinstance(onward, dict) or "within" in onward:
        return [], None
    resume = {**(pages[0].token or {}), "at": {**onward, "within": {"page": within.first + 1}}}
    further, failure = await _pages(source, FetchRequest(declared.stream.name, None, None, now, resume), 1)
    shown = [page.keys(declared.stream) for page in (pages[1], *further)]
    if len(shown) < 2 or not shown[1] or shown[0] != shown[1]:
        return [], failure
    return [
        f"{within.param} has no effect: within one cursor value the second page repeats the first, and runs would fail there."
        " Name the parameter that asks for the next page in `within:`, or use the platform's own token or link without a keyset."
    ], None


def _repeated(param: str, remedy: str = "") -> str:
    name_it = "Name the parameter that asks for the next page"
    return f"The second page repeats the first: {param} has no effect. {name_it}{remedy}."


def _of_the_next_page(declared: StreamDeclaration, pages: list[Shown]) -> list[str]:
    if len(pages) < 2:
        return []
    stream, cursor = declared.stream, declared.stream.cursor
    first, second = (page.keys(stream) for page in pages)
    if _repeats(first, second, pages[0].values(cursor) if cursor is not None else []):
        moved = declared.lower.param if declared.pager.kind is PagerKind.KEYSET and declared.lower else ""
        param = moved or declared.pager.param or "the link"
        return [_repeated(param, ", or correct the `format` or `time_zone` of `lower:`" if moved else "")]
    if cursor is not None and cursor.ascending:
        before, after = (page.values(cursor) for page in pages)
        if declared.pager.kind is PagerKind.OFFSET:
            after = after[len(list(takewhile(set(first).__contains__, second))) :]
        reaches_back = (overshoot(declared.lower) if declared.pager.kind is PagerKind.KEYSET else None) or timedelta(0)
        ordered = all(earlier <= later for earlier, later in pairwise(before))
        if ordered and before and not _goes_on(before[-1] - reaches_back, after):
            name = ".".join(cursor.path)
            return [f"{name} goes back from the first page to the second: {out_of_order(declared)}"]
    return []


def _goes_on(reached: datetime, values: list[datetime]) -> bool:
    return all(earlier <= later for earlier, later in pairwise([reached, *values]))


def out_of_order(declared: StreamDeclaration) -> str:
    """Return what to do where records do not come in the order of the cursor field that is declared."""
    if declared.pager.kind is not PagerKind.KEYSET:
        return "ask for its order, or declare `ascending: false`."
    return (
        "ask for its order, oldest first. If it has that order, the platform reads the bound of the next page as another instant:"
        " correct the `format` or `time_zone` of `lower:`. Where there is no such order, declare another pager."
    )


def _repeats(first: list[str], second: list[str], values: list[datetime]) -> bool:
    """Return whether the second page shows the first again, and not just its end, as offsets and keysets rightly do."""
    if not second or not set(second) <= set(first):
        return False
    if len(second) < len(first):
        return set(second) != set(first[-len(second) :])
    return len(first) > 1 and (not values or min(values) < max(values))


async def _of_an_equality(
    source: Source, declared: StreamDeclaration, first: Shown, now: datetime
) -> tuple[list[str], SourceError | None]:
    """Ask from the oldest cursor value of the ``first`` page on: of the later ones some must be shown.

    A filter that is taken for equality shows all else that a probe asks for, and a run next to nothing (HOLE j).
    """
    cursor, lower = declared.stream.cursor, declared.lower
    assert cursor is not None
    assert lower is not None
    values = first.values(cursor)
    if not values:
        return [], None
    oldest = min(values)
    if oldest >= max(values) - _grain(lower):  # all of one moment, as in an account that was filled for a trial
        oldest -= _grain(lower) + DAY
    pages, failure = await _pages(source, FetchRequest(declared.stream.name, oldest, None, now), 1)
    if not pages:
        return [], failure
    shown = pages[0].values(cursor)
    whole = pages[0].last or len(pages[0].records) < len(first.records)
    if not whole or any(value > oldest + _grain(lower) for value in shown):
        return [], None
    name = ".".join(cursor.path)
    later = sum(value > oldest + _grain(lower) for value in values)
    return [
        f"{lower.param} hides what is later: asked from {oldest.isoformat()} on, none of {later} records with a later {name} is"
        " shown. If the platform wants an operator in front of the instant, write it in `lower.value`, such as"
        ' ">={instant}"; else correct `lower.param` or its `format`, or leave `lower:` out to list in full.'
    ], None


async def _of_the_filter(
    source: Source, declared: StreamDeclaration, values: Sequence[datetime], now: datetime
) -> tuple[list[str], SourceError | None]:
    """Ask from the newest of a page's ``values`` on: nothing older may be shown, and that record must be."""
    cursor, lower = declared.stream.cursor, declared.lower
    assert cursor is not None
    assert lower is not None
    grain = _grain(lower)
    if not values or min(values) >= max(values) - grain:
        return [], None
    newest = max(values)
    pages, failure = await _pages(source, FetchRequest(declared.stream.name, newest, None, now), 1)
    if not pages:
        return [], failure
    filtered, shown = pages[0], pages[0].values(cursor)
    name = ".".join(cursor.path)
    if no_effect := _of_older(cursor, lower, shown, newest):
        return no_effect, None
    if newest not in shown and (filtered.last or cursor.ascending):
        remedy = "Correct its `format` or `time_zone`"
        remedy += ", or declare `meaning: exclusive`." if lower.meaning is Meaning.INCLUSIVE else "."
        return [f"{lower.param} leaves out a record whose {name} is exactly the value asked for. {remedy}"], None
    return [], None


async def _of_a_bound_that_is_now(
    source: Source, declared: StreamDeclaration, now: datetime
) -> tuple[list[str], SourceError | None]:
    """Ask from ``now`` on: nothing older may be shown, however close to one another the records' cursor values are."""
    cursor, lower = declared.stream.cursor, declared.lower
    assert cursor is not None
    assert lower is not None
    pages, failure = await _pages(source, FetchRequest(declared.stream.name, now, None, now), 1)
    return (_of_older(cursor, lower, pages[0].values(cursor), now) if pages else []), failure


def _of_older(cursor: CursorField, lower: BoundParam, shown: Sequence[datetime], asked_from: datetime) -> list[str]:
    older = sum(value < asked_from - _grain(lower) for value in shown)
    if not older:
        return []
    return [
        f"{lower.param} has no effect: asked from {asked_from.isoformat()} on, {older} of {len(shown)} records are older by"
        f" {'.'.join(cursor.path)}. Correct `lower.param`, its `format` or `time_zone`, or leave `lower:` out to list in full."
    ]


async def _of_the_order(
    source: Source, stream: Stream, first: Shown, now: datetime
) -> tuple[list[str], SourceError | None]:
    """Ask from the cursor value on that most records of the first page share: they should come in the same order again."""
    cursor = stream.cursor
    counts = Counter([] if cursor is None else first.values(cursor))
    if cursor is None or max(counts.values(), default=0) < 2:
        return [], None
    value = counts.most_common(1)[0][0]
    pages, failure = await _pages(source, FetchRequest(stream.name, value, None, now), 1)
    if not pages:
        return [], failure
    before, after = (
        Shown([record for record in page.records if parsed(cursor, record) == value]).keys(stream)
        for page in (first, pages[0])
    )
    both = set(before) & set(after)
    if [key for key in before if key in both] == [key for key in after if key in both]:
        return [], None
    name = ".".join(cursor.path)
    return [
        f"Records with the same {name} come in another order when asked for again: pages may hide some of them. Ask for an"
        " order by a unique field too, or by the key alone."
    ], None


async def _of_another_season(
    source: Source, declared: StreamDeclaration, now: datetime
) -> tuple[list[str], SourceError | None]:
    """Ask again around the last change of clocks: in winter London is UTC, and a zone that is wrong cannot be told."""
    cursor, lower = declared.stream.cursor, declared.lower
    assert cursor is not None
    assert lower is not None
    zones = [find_zone(name) for name in dict.fromkeys((lower.time_zone, cursor.time_zone))]
    changes = [change.at for zone in zones for change in zone.clock_changes(now - YEAR, now)]
    if not changes:
        return [], None
    changed_at = max(changes)
    pages, failure = await _pages(source, FetchRequest(declared.stream.name, changed_at - BEFORE_CHANGE, None, now), 1)
    if not pages:
        return [], failure
    values = [value for value in pages[0].values(cursor) if value < changed_at - NEAR_CHANGE]
    found, failure = await _of_the_filter(source, declared, values, now)
    return [f"Before the clocks changed on {changed_at.date()}: {finding}" for finding in found], failure


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
