"""The careful way: one record after another, every value fitted, set aside or quarantined; nothing dropped (SPEC 4, 5)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, TypeAlias

import msgspec

from tidegate.destinations.base import Quarantined
from tidegate.destinations.postgres import pieces
from tidegate.destinations.postgres.layout import Layout, Unfit, cursor_reader
from tidegate.destinations.postgres.values import Misfit, fitted, inferred, key_text
from tidegate.domain.stream import ColumnType, Stream

_PLAIN: Final = msgspec.json.Decoder(list[dict[str, Any]])
_BY_TYPE: Final[Mapping[type, set[ColumnType]]] = {
    str: {ColumnType.TEXT},
    int: {ColumnType.BIGINT},
    float: {ColumnType.NUMERIC},
    bool: {ColumnType.BOOLEAN},
    dict: {ColumnType.JSON},
    list: {ColumnType.JSON},
    type(None): set(),
}


class Poison(ValueError):
    """A record that cannot be delivered; the message is the reason for people."""


@dataclass(frozen=True, slots=True)
class PageLines:
    """Records of the ``number``-th page of a batch, from 1: their lines up to the hash, and their places in the page, from 0."""

    number: int
    heads: list[bytes]
    places: Sequence[int]


Origin: TypeAlias = tuple[int, int]
"""A record: the number of its page in the batch, and its place in the page."""


@dataclass(slots=True)
class Rendered:
    """Lines of COPY text by page, what was quarantined on the way, and how many values of which record were set aside."""

    pages: list[PageLines] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    misfits: dict[Origin, int] = field(default_factory=dict)
    read: int = 0

    def add_heads(self, heads: list[bytes], number: int) -> None:
        """Add a page that the fast way took."""
        self.pages.append(PageLines(number, heads, range(len(heads))))
        self.read += len(heads)

    def add_page(self, layout: Layout, page: bytes, number: int, *, trusting: bool) -> None:
        """Add every record of ``page``, one by one; ``trusting``: those that the fast way takes go that way still."""
        records = pieces.records(page)
        heads, places = list[bytes](), list[int]()
        for place, record in enumerate(records):
            try:
                head, misfits = _head(layout, record, trusting=trusting)
            except Poison as reason:
                self.quarantined.append(Quarantined(str(reason), record))
                continue
            heads.append(head)
            places.append(place)
            if misfits:
                self.misfits[number, place] = misfits
        self.pages.append(PageLines(number, heads, places))
        self.read += len(records)

    def each(self) -> list[tuple[Origin, bytes]]:
        """Return every record's origin and line."""
        return [
            ((page.number, place), head)
            for page in self.pages
            for place, head in zip(page.places, page.heads, strict=True)
        ]

    def without(self, refused: Mapping[Origin, Quarantined]) -> Rendered:
        """Return the same with the records of ``refused`` in quarantine."""
        return Rendered(
            by_page([(origin, head) for origin, head in self.each() if origin not in refused]),
            [*self.quarantined, *refused.values()],
            {name: count for name, count in self.misfits.items() if name not in refused},
            self.read,
        )


def by_page(lines: Iterable[tuple[Origin, bytes]]) -> list[PageLines]:
    """Return lines, given in order with their origins, as pages."""
    pages = list[PageLines]()
    for number, group in groupby(lines, key=lambda line: line[0][0]):
        ours = list(group)
        pages.append(PageLines(number, [head for _, head in ours], [place for (_, place), _ in ours]))
    return pages


def _head(layout: Layout, record: bytes, *, trusting: bool) -> tuple[bytes, int]:
    """Return a record's line and the number of its misfits. Raises Poison."""
    if trusting:
        with suppress(Unfit):
            return layout.single(record), 0
    return _line(layout, record)


def _line(layout: Layout, record: bytes) -> tuple[bytes, int]:
    members = _members(record)
    values: dict[str, object] = dict(_keys(layout, members))
    cursor = _cursor(layout.stream, members)
    kinds = {column.name: column.kind for column in layout.columns}
    misfits: dict[str, bytes] = {}
    for name, raw in members.items():
        column = layout.fields.get(name)
        if raw == b"null" or (column is not None and (column in layout.keys or column == layout.cursor_column)):
            continue
        kind = kinds[column] if column is not None else None
        if column is None or kind is None:
            misfits[name] = raw
            continue
        try:
            values[column] = fitted(kind, raw)
        except Misfit:
            misfits[name] = raw
    return layout.head(values, cursor, _side_column(misfits)), len(misfits)


def _members(record: bytes) -> dict[str, bytes]:
    if record[:1] != b"{":
        raise Poison("The record is not an object.")
    try:
        return pieces.fields(record)
    except (ValueError, RecursionError) as error:
        raise Poison(f"The record is not valid JSON: {error}.") from error


def _keys(layout: Layout, members: Mapping[str, bytes]) -> Iterable[tuple[str, int | str]]:
    for path, column in zip(layout.stream.key, layout.key_columns, strict=True):
        raw = pieces.nested(members, tuple(path.split(".")))
        if not raw:
            raise Poison(f"The key {path!r} is missing.")
        try:
            yield column.name, key_text(raw, integer=column.kind is ColumnType.BIGINT)
        except Misfit as error:
            raise Poison(f"The key {path!r} {error}.") from error


def _cursor(stream: Stream, members: Mapping[str, bytes]) -> str | None:
    if stream.cursor is None:
        return None
    path = ".".join(stream.cursor.path)
    raw = pieces.nested(members, stream.cursor.path)
    if not raw:
        raise Poison(f"The cursor value {path!r} is missing.")
    try:
        return cursor_reader(stream.cursor)(msgspec.json.decode(raw))
    except (ValueError, RecursionError) as error:
        raise Poison(f"The cursor value {path!r} cannot be read: {error}.") from error


def _side_column(misfits: Mapping[str, bytes]) -> str | None:
    """Return the misfits as a JSON object, each value as the source wrote it; what is no JSON at all becomes a string."""
    if not misfits:
        return None
    return "{" + ", ".join(f"{json.dumps(name)}: {_valid(misfits[name])}" for name in sorted(misfits)) + "}"


def _valid(raw: bytes) -> str:
    text = raw.decode(errors="backslashreplace")
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(text)
    return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@dataclass(frozen=True, slots=True)
class Found:
    """What the data says about fields that have no column yet.

    ``kinds``: the types each field's values ask for, none if only null was seen. ``keys``: the same of the key's parts, by path.
    """

    kinds: dict[str, set[ColumnType]]
    keys: dict[str, set[ColumnType]]


def discovered(stream: Stream, pages: Iterable[bytes], known: Iterable[str]) -> Found:
    """Return what ``pages`` tell about fields that are not among ``known`` and about the key's parts."""
    found = Found({}, {path: set() for path in stream.key})
    skipped = frozenset(known)
    for page in pages:
        try:
            records = _PLAIN.decode(page)
        except (ValueError, RecursionError):
            _discover_hostile(found, page, skipped)
        else:
            _discover(found, records, skipped)
    return found


def _discover(found: Found, records: list[dict[str, Any]], skipped: frozenset[str]) -> None:
    members = ((name, type(value)) for record in records for name, value in record.items() if name not in skipped)
    for name, kind in dict.fromkeys(members):  # in the order of the data, as the columns will be
        values = (record.get(name) for record in records)
        found.kinds.setdefault(name, set()).update(_asked_for(kind, values))
    for path, seen in found.keys.items():
        parts = [_reached(record, path.split(".")) for record in records]
        for kind in {type(part) for part in parts}:
            seen.update(_asked_for(kind, parts) - {ColumnType.JSON})


def _asked_for(kind: type, values: Iterable[object]) -> set[ColumnType]:
    """Return the type of column for values of one Python type; of ``values``, only integers matter: do all have 64 bits?"""
    if kind is int and any(type(value) is int and not -(2**63) <= value < 2**63 for value in values):
        return {ColumnType.NUMERIC}
    return _BY_TYPE[kind]


def _reached(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _discover_hostile(found: Found, page: bytes, skipped: frozenset[str]) -> None:
    """Do the same for a page that is no plain list of objects."""
    for record in pieces.records(page):
        try:
            members = _members(record)
        except Poison:
            continue
        for name, raw in members.items():
            if name not in skipped:
                found.kinds.setdefault(name, set()).update(inferred(raw))
        for path, seen in found.keys.items():
            raw = pieces.nested(members, tuple(path.split(".")))
            seen.update(inferred(raw) - {ColumnType.JSON})
