"""A glance into records: the keys and cursor values of a page, without building the records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from operator import attrgetter
from typing import overload

import msgspec

from tidegate.connectors import json_parts
from tidegate.domain.cursor import Path
from tidegate.domain.stream import Stream

ABSENT = msgspec.Raw(b"")
FEW = 4  # so many records at either end of a page are looked at before all are
ATTEMPTS = 20  # so many braces are tried to find where a record ends
WRITTEN_OUT = "backslashreplace"  # what is no UTF-8, so that it still tells records apart


@dataclass(frozen=True, slots=True)
class Glance:
    """One record: ``key``, the JSON text of its key's parts (exact, however large a number), and its cursor's text.

    Either is empty for a record that has none; the destination quarantines it (SPEC 4), a listing passes over it.
    """

    key: tuple[bytes, ...]
    cursor: bytes


NO_GLANCE = Glance((), b"")


class Glances(Sequence[Glance]):
    """The records of one page, each glanced into when asked for.

    Of a stable listing only the ends are asked for: then nothing is read but the first and the last few records.
    """

    def __init__(self, reader: RecordReader, records: bytes) -> None:
        self._reader, self._records = reader, records

    @cached_property
    def _decoded(self) -> list[object]:
        return self._reader.decoded(self._records)

    @cached_property
    def _first(self) -> list[Glance]:
        return list(map(self._reader.glance, islice(self._reader.from_start(self._records), FEW)))

    @cached_property
    def _last(self) -> list[Glance]:
        return list(map(self._reader.glance, islice(self._reader.from_end(self._records), FEW)))

    def __iter__(self) -> Iterator[Glance]:
        few = self._first
        yield from few
        yield from map(self._reader.glance, self._decoded[len(few) :])

    def __reversed__(self) -> Iterator[Glance]:
        few = self._last
        yield from few
        yield from map(self._reader.glance, self._decoded[-1 - len(few) :: -1])

    def __len__(self) -> int:
        return len(self._decoded)

    @overload
    def __getitem__(self, index: int) -> Glance: ...
    @overload
    def __getitem__(self, index: slice) -> list[Glance]: ...
    def __getitem__(self, index: int | slice) -> Glance | list[Glance]:
        if index in (0, -1):
            few = self._last if index else self._first
            if few:
                return few[0]
        if isinstance(index, slice):
            return [self._reader.glance(record) for record in self._decoded[index]]
        return self._reader.glance(self._decoded[index])

    @cached_property
    def marks(self) -> list[str]:
        """Return what tells a record and its place apart, key and cursor, for an edit moves it; "" if it has neither."""
        return [(b",".join(glance.key) + b" " + glance.cursor).decode("utf-8", WRITTEN_OUT).strip() for glance in self]

    @cached_property
    def keys(self) -> list[str]:
        """Return the keys as text, in the page's order; "" for a record without one."""
        return self._reader.keys(self._decoded)

    @property
    def places(self) -> list[str]:
        """Return what tells whether a record stands where it stood: its key, and where an edit moves it, its cursor value too."""
        return self.marks if self._reader.ordered else self.keys

    @cached_property
    def places_digest(self) -> str:
        """Return what tells whether a page shows the same records in the same places."""
        return _digest("\n".join(self.places).encode())

    @cached_property
    def ends_digest(self) -> str:
        """Return what tells whether a page begins and ends with the same records; "" if that are not two with a key each."""
        first, last = (next(iter(end), NO_GLANCE).key for end in (self, reversed(self)))
        return _digest(b"\n".join((*first, *last))) if first and last and first != last else ""


class RecordReader:
    """Glances into the records of one stream. A record of an odd shape, or none that can be read, is an empty glance.

    ``ordered``: the stream is listed in the order of its cursor field, oldest first.
    """

    def __init__(self, stream: Stream) -> None:
        self.ordered = stream.cursor is not None and stream.cursor.ascending
        self._key = tuple(tuple(part.split(".")) for part in stream.key)
        self._cursor: Path = () if stream.cursor is None else stream.cursor.path
        tops = dict.fromkeys(path[0] for path in (*self._key, self._cursor) if path)
        self._attributes = {top: f"f{number}" for number, top in enumerate(tops)}
        fields = [(attribute, msgspec.Raw, ABSENT) for attribute in self._attributes.values()]
        record = msgspec.defstruct("Record", fields, rename={name: top for top, name in self._attributes.items()})
        self._record, self._nothing = record, record()
        simple = len(self._key) == 1 and len(self._key[0]) == 1
        self._only_key = attrgetter(self._attributes[self._key[0][0]]) if simple else None
        self._one: msgspec.json.Decoder[object] = msgspec.json.Decoder(record)
        self._all: msgspec.json.Decoder[list[object]] = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]

    def read(self, records: bytes) -> Glances:
        """Return a glance per record of a JSON array, in its order."""
        return Glances(self, records)

    def decoded(self, records: bytes) -> list[object]:
        """Return the records of a JSON array, decoded for `glance`."""
        try:
            return self._all.decode(records)
        except (msgspec.DecodeError, RecursionError):
            return [self._try(raw) for raw in json_parts.elements(records)]

    def from_start(self, records: bytes) -> Iterator[object]:
        """Yield the first records of a JSON array, decoded, as many as are soon found without reading the rest.

        No JSON object begins with another one: what can be read from a record's beginning up to a brace is the record.
        """
        start, end, left = _next(records, 0, b"["), 0, ATTEMPTS
        while start > 0 and left and (end := records.find(b"}", max(start, end)) + 1):
            left -= 1
            if (record := self._whole(records[start:end])) is not None:
                yield record
                start, left = _next(records, end, b","), ATTEMPTS

    def from_end(self, records: bytes) -> Iterator[object]:
        """Yield the last records of a JSON array, the last one first, as `from_start` does.

        What can be read from a brace up to a record's end is the record. After a brace inside one there is a bracket too many,
        after a brace inside a string an odd number of quotes, or a backslash outside of what are then strings.
        """
        end, left = _before(records, len(records), b"]"), ATTEMPTS
        start = end
        while end > 0 and left and (start := records.rfind(b"{", 0, start)) > 0:
            left -= 1
            if (record := self._whole(records[start:end])) is not None:
                yield record
                end, left = _before(records, start, b","), ATTEMPTS
                start = end

    def _whole(self, text: bytes) -> object | None:
        """Return the record that ``text`` is, None if it is none."""
        try:
            return self._one.decode(text)
        except (ValueError, RecursionError):
            return None

    def _try(self, raw: msgspec.Raw) -> object:
        try:
            return self._one.decode(raw)
        except msgspec.ValidationError:
            return self._nothing
        except (msgspec.DecodeError, RecursionError):
            return self._carefully(raw)

    def _carefully(self, raw: msgspec.Raw) -> object:
        """Return what can be had of a record that no decoder takes: its key and cursor value may be sound all the same."""
        try:
            members = json_parts.members(raw)
        except ValueError:
            return self._nothing
        tops = self._attributes.items()
        return self._record(**{attribute: members[top] for top, attribute in tops if top in members})

    def glance(self, record: object) -> Glance:
        """Return the key and cursor text of one decoded record."""
        return Glance(self.key(record), self._value(record, self._cursor) if self._cursor else b"")

    def key(self, record: object) -> tuple[bytes, ...]:
        """Return the texts of the key's parts, empty unless all are there."""
        parts = tuple([self._value(record, path) for path in self._key])
        return parts if all(parts) else ()

    def keys(self, records: Sequence[object]) -> list[str]:
        """Return the keys of decoded records as text, "" for one without."""
        if self._only_key is None:
            return [b",".join(self.key(record)).decode("utf-8", WRITTEN_OUT) for record in records]
        texts = [str(bytes(raw), "utf-8", WRITTEN_OUT) for raw in map(self._only_key, records)]
        return ["" if text == "null" else text for text in texts] if "null" in texts else texts

    def _value(self, record: object, path: Path) -> bytes:
        raw = bytes(getattr(record, self._attributes[path[0]]))
        for name in path[1:]:
            if raw[:1] != b"{":
                return b""
            try:
                raw = bytes(json_parts.members(raw).get(name, ABSENT))
            except ValueError:
                return b""
        return b"" if raw == b"null" else raw


def _next(text: bytes, at: int, sign: bytes) -> int:
    """Return where the object begins that follows ``sign`` after ``at``, 0 if none does."""
    start = text.find(b"{", at)
    return start if start > 0 and text[at:start].strip() == sign else 0


def _before(text: bytes, at: int, sign: bytes) -> int:
    """Return where the object ends that ``sign`` follows before ``at``, 0 if none does."""
    end = text.rfind(b"}", 0, at) + 1
    return end if text[end:at].strip() == sign else 0


def _digest(text: bytes) -> str:
    return blake2b(text, digest_size=12).hexdigest()
