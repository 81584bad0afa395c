"""A layout: how the records of one stream are written to the columns of one table, compiled once and used for every page.

The fast way decodes a whole page into a typed struct and renders each record with one generated f-string, as a line of COPY
text whose null is the word None. Whatever it cannot take without a doubt it refuses, and `careful` goes record by record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from operator import attrgetter
from typing import Annotated, Any, TypeAlias

import msgspec
from xxhash import xxh3_64_intdigest

from tidegate.destinations.postgres.values import DECODED, KEY_LENGTH, LONG, OF_NUMBERS, escaped, instant, json_text
from tidegate.domain.cursor import CursorField, CursorFormat
from tidegate.domain.stream import ColumnType, Stream

NULL = "None"
"""How COPY text spells null here: what an f-string makes of None. The word itself is escaped as `\\None`."""

_NULL_AT_END = f"\t{NULL}".encode()
_AS_SPELLED = str.strip
"""Returns the spelling of a number, in which there is nothing to strip, as it is: a method is called faster than `str`."""
_PLAIN_INSTANTS = re.compile(
    r"(?:(?!0000)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ\n)*"
)
"""Instants in the commonest spelling; whether the month has so many days is left to PostgreSQL."""
_NUMBERS = "".join(sorted(OF_NUMBERS)).encode()
_NUMBERS_AND_NULLS = _NUMBERS + "".join(sorted(set(NULL) - OF_NUMBERS)).encode()
_UNNAMEABLE = re.compile(r'[\x00-\x1f"\\\ud800-\udfff]')
"""What no field of a msgspec struct can be renamed to."""

_DECODED: dict[ColumnType, Any] = DECODED | {ColumnType.NUMERIC: Any}
"""What the fast way decodes to: a number as it is spelled. What else comes is found in the text of the whole page."""

_KEY_TYPES = {
    ColumnType.BIGINT: LONG,
    ColumnType.TEXT: Annotated[str, msgspec.Meta(max_length=KEY_LENGTH)],
}


Content: TypeAlias = Callable[[Any, str | None], str]
"""From a struct and its cursor value to the columns' COPY text."""


class Unfit(Exception):
    """The fast way does not take this page; nothing was rendered."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that holds a field of the records. ``kind``: None for an SQL type that Tidegate does not write."""

    name: str
    sql_type: str
    kind: ColumnType | None


@dataclass(frozen=True)
class Layout:
    """The columns of a table in their stored order, and which field of the stream's records goes into which.

    ``fields``: top-level field to column name. ``undecided``: fields seen only as null, which have no column yet.
    ``overflow``: fields that can have none: the table is full, or their name cannot be a column's.
    """

    stream: Stream
    columns: tuple[Column, ...]
    fields: Mapping[str, str]
    keys: tuple[str, ...]
    undecided: frozenset[str] = frozenset()
    overflow: frozenset[str] = frozenset()

    @classmethod
    def provisional(cls, stream: Stream) -> Layout:
        """Return the layout of a table that does not exist because no record with a key has been seen."""
        columns = tuple(Column(path, "text", ColumnType.TEXT) for path in stream.key)
        return cls(stream, columns, {}, stream.key)

    @cached_property
    def key_columns(self) -> tuple[Column, ...]:
        """Return the columns of the stream's key, in the key's order."""
        named = {column.name: column for column in self.columns}
        return tuple(named[name] for name in self.keys)

    @cached_property
    def attributes(self) -> Mapping[str, str]:
        """Return the struct's attribute for each column; positions, so that no name of a source gets into code."""
        return {column.name: f"c{number}" for number, column in enumerate(self.columns)}

    @cached_property
    def cursor_column(self) -> str | None:
        """Return the column that shows the cursor's own field as an instant, None if none does."""
        cursor = self.stream.cursor
        if cursor is None or len(cursor.path) > 1:
            return None
        name = self.fields.get(cursor.path[0])
        return next((c.name for c in self.columns if c.name == name and c.kind is ColumnType.TIMESTAMP), None)

    @cached_property
    def record(self) -> type[msgspec.Struct]:
        """Return the struct that a record is decoded to: keys required, every other field optional, no field unknown.

        A column whose field is not known, or has a name that no struct can have, is there for `line` alone.
        """
        names = {column: name for name, column in self.fields.items() if not _UNNAMEABLE.search(name)}
        stand_in = "\x7f" * (1 + max(map(len, self.fields), default=0))
        members: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        for column in self.columns:
            attribute = self.attributes[column.name]
            rename[attribute] = names.get(column.name, stand_in + attribute)
            if column.name in self.keys:
                members.append((attribute, _KEY_TYPES[column.kind or ColumnType.TEXT], msgspec.NODEFAULT))
            else:
                members.append((attribute, *self._member(column, known=column.name in names)))
        for number, name in enumerate(sorted(self.undecided)):
            if not _UNNAMEABLE.search(name):
                members.append((f"u{number}", None, None))
                rename[f"u{number}"] = name
        return msgspec.defstruct("Record", members, rename=rename, forbid_unknown_fields=True, kw_only=True, gc=False)

    def _member(self, column: Column, *, known: bool) -> tuple[Any, Any]:
        if column.kind is None or not known:
            return None, None
        if column.kind is ColumnType.JSON:
            return msgspec.Raw, msgspec.Raw(b"null")
        if column.name == self.cursor_column:
            return str | int | float | None, None
        return _DECODED[column.kind] | None, None

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[list[Any]] | None:
        """Return the page decoder; None where only `careful` will do: a nested key or cursor value, or one no struct can name."""
        cursor = self.stream.cursor
        named = {name for name in self.fields if not _UNNAMEABLE.search(name)}
        if not named.issuperset(self.stream.key):
            return None
        if cursor is not None and (len(cursor.path) > 1 or cursor.path[0] not in named):
            return None
        return msgspec.json.Decoder(list[self.record], float_hook=_AS_SPELLED)  # type: ignore[name-defined]

    @cached_property
    def _contents(self) -> dict[tuple[bool, bool], Content]:
        return {}

    def _content(self, *, escape: bool, read: bool) -> Content:
        """Return a function from a struct and its cursor value to the columns' COPY text: one expression, joined by tabs.

        ``escape``: texts may need it. ``read``: instants may be spelled in any way.
        """
        made = self._contents.get((escape, read))
        if made is None:
            parts = "".join(f"{self._text(column, escape, read)}, " for column in self.columns)
            scope = {"escaped": escaped, "instant": instant, "json_text": json_text, "joined": "\t".join}
            made = eval(f"lambda r, cursor: joined(({parts}))", scope)  # noqa: S307 - attribute positions, nothing else
            self._contents[escape, read] = made
        return made

    def _text(self, column: Column, escape: bool, read: bool) -> str:
        """Return the expression of a column's COPY text. What is text or null already is not put through `str` again."""
        value = self._expression(column, escape, read)
        as_it_is = column.kind is ColumnType.TEXT or (column.kind is ColumnType.TIMESTAMP and not read)
        if as_it_is and value.startswith("r."):
            return f"{value} if {value} is not None else {NULL!r}"
        return f'f"{{{value}!s}}"'

    def _expression(self, column: Column, escape: bool, read: bool) -> str:
        if column.name == self.cursor_column:
            return "cursor"
        value = f"r.{self.attributes[column.name]}"
        match column.kind:
            case ColumnType.TEXT if escape:
                return f"escaped({value})"
            case ColumnType.JSON:
                return f"json_text({value})"
            case ColumnType.TIMESTAMP if read:
                return f"None if {value} is None else instant({value})"
        return value

    @cached_property
    def _instants(self) -> list[Callable[[Any], Any]]:
        """Return functions from a struct to its instants, that of the cursor left out."""
        names = [c.name for c in self.columns if c.kind is ColumnType.TIMESTAMP and c.name != self.cursor_column]
        return [attrgetter(self.attributes[name]) for name in names]

    @cached_property
    def _cursors_of(self) -> Callable[[list[Any]], Iterable[str | None]]:
        """Return a function from a page's structs to their cursor values as COPY text. It raises ValueError."""
        cursor = self.stream.cursor
        if cursor is None:
            return lambda records: [None] * len(records)
        get = attrgetter(self.attributes[self.fields[cursor.path[0]]])
        read = cursor_reader(cursor)
        if cursor.format is not CursorFormat.ISO:
            return lambda records: [read(get(record)) for record in records]

        def instants(records: list[Any]) -> list[str]:
            values = [get(record) for record in records]
            return values if _plain_instants(values) else [read(value) for value in values]

        return instants

    @cached_property
    def _numbers(self) -> tuple[Callable[[list[Any]], str], Callable[[list[Any]], str]] | None:
        """Return functions from a page's structs to the text of all their numbers, nulls as None or left out; None without."""
        values = [f"r.{self.attributes[column.name]}" for column in self.columns if column.kind is ColumnType.NUMERIC]
        if not values:
            return None
        plain = "".join(f"{{{value}}}" for value in values)
        without = "".join(f"{{'' if {value} is None else {value}}}" for value in values)
        return _joined(plain), _joined(without)

    def heads(self, page: bytes) -> list[bytes]:
        """Return the records of ``page`` as lines of COPY text up to the content's hash; what follows is the batch's.

        Raises Unfit if any record of it needs a closer look.
        """
        escapes = b"\\" in page
        if self._decoder is None or (escapes and b"\\u0000" in page):
            raise Unfit
        try:
            return self._heads(self._decoder.decode(page), escape=escapes or _mentions_null(page))
        except (ValueError, RecursionError) as error:
            raise Unfit from error

    def single(self, record: bytes) -> bytes:
        """Return one record as `heads` would. Raises Unfit."""
        return self.heads(b"[" + record + b"]")[0]

    def _heads(self, records: list[Any], *, escape: bool) -> list[bytes]:
        if self._numbers and not _all_numbers(self._numbers[escape](records), nulls=not escape):
            raise Unfit
        read = not all(_plain_instants([v for v in map(get, records) if v is not None]) for get in self._instants)
        content, heads = self._content(escape=escape, read=read), list[bytes]()
        for record, cursor in zip(records, self._cursors_of(records), strict=True):
            line = content(record, cursor).encode()
            heads.append(line + f"\t{NULL}\t{cursor}\t{content_hash(line)}".encode())
        return heads

    def head(self, values: Mapping[str, object], cursor: str | None, misfits: str | None) -> bytes:
        """Return one record, given by column, as the fast way would render it."""
        record = self.record(**{self.attributes[name]: value for name, value in values.items()})
        line, aside = self._content(escape=True, read=True)(record, cursor).encode(), escaped(misfits)
        digest = content_hash(line, b"" if misfits is None else f"\t\t{aside}".encode())
        return line + f"\t{aside}\t{cursor}\t{digest}".encode()


def _mentions_null(page: bytes) -> bool:
    """Return whether `NULL` stands somewhere in ``page``; from the end, for its first letter is rarer than its last."""
    return page.rfind(NULL.encode()) >= 0


def _joined(text: str) -> Callable[[list[Any]], str]:
    """Return a function from structs ``r`` to the f-strings ``text`` of them all, one after the other."""
    joined: Callable[[list[Any]], str] = eval(f"lambda records: ''.join([f\"{text}\" for r in records])", {})  # noqa: S307
    return joined


def _plain_instants(values: list[Any]) -> bool:
    try:
        return _PLAIN_INSTANTS.fullmatch("\n".join(values) + "\n") is not None
    except TypeError:  # one of them is no string
        return False


def _all_numbers(text: str, *, nulls: bool) -> bool:
    """Return whether ``text`` is made of what numbers (and None, for ``nulls``) are made of; the grammar is left to PostgreSQL.

    So no string brings a NaN, an infinity, a tab or another spelling into a numeric column.
    """
    return not text.encode().translate(None, _NUMBERS_AND_NULLS if nulls else _NUMBERS)


def content_hash(line: bytes, aside: bytes = b"") -> int:
    """Return the hash that tells two contents of one version apart: XXH3, as a signed 64-bit integer.

    It covers the columns up to the last that is not null, and what is set aside: a new column at a table's end changes no
    old record's hash.
    """
    while line.endswith(_NULL_AT_END):
        line = line[: -len(_NULL_AT_END)]
    return xxh3_64_intdigest(line + aside) - 2**63


def cursor_reader(cursor: CursorField) -> Callable[[object], str]:
    """Return a function from a decoded cursor value to its instant as COPY text; it raises ValueError as `parse` does."""

    def read(value: object) -> str:
        if type(value) is str and iso:
            return instant(value)
        if isinstance(value, msgspec.Raw):
            value = msgspec.json.decode(value)
        return str(cursor.parse(str(value) if isinstance(value, date) else value))

    iso = cursor.format is CursorFormat.ISO
    return read


def declared(stream: Stream) -> dict[str, ColumnType]:
    """Return the field types that ``stream`` states: its columns, and its cursor's field where its format tells."""
    kinds = dict(stream.columns)
    cursor = stream.cursor
    if cursor is not None and len(cursor.path) == 1 and cursor.format is CursorFormat.ISO:
        kinds.setdefault(cursor.path[0], ColumnType.TIMESTAMP)
    return kinds
