"""Records of pages with their keys and versions, for destinations that cannot tell what they already have (SPEC 4)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Final

import msgspec

from tidegate.destinations.base import Quarantined
from tidegate.destinations.postgres import pieces
from tidegate.destinations.postgres.values import Misfit, key_text
from tidegate.domain.fetch import Page
from tidegate.domain.instant import render_comparable
from tidegate.domain.outgoing import Version
from tidegate.domain.stream import Stream

HASH_BYTES: Final = 16
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")
"""Between values a line's end means nothing in JSON, and inside a string there is none."""
_EXACT: Final = msgspec.json.Decoder(float_hook=Decimal)
_CANONICAL: Final = msgspec.json.Encoder(order="sorted", decimal_format="number")


class Poison(ValueError):
    """A record that cannot be delivered; ``str`` of it is the reason."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One record as a page showed it: ``record`` is its JSON text as the source wrote it, ``key`` by path the same."""

    key: Mapping[str, bytes]
    version: Version
    record: bytes


def entry(seen: Seen) -> bytes:
    """Return a record with its key and version as a JSON object on one line, the record's values as their source wrote them.

    Its cursor value is written so that a receiver may compare texts. ``content_hash`` is equal for equal contents of one
    key; it means nothing else.
    """
    cursor = seen.version.cursor_at
    names = b",".join(msgspec.json.encode(path) + b":" + raw for path, raw in seen.key.items())
    at = "null" if cursor is None else f'"{render_comparable(cursor)}"'
    version = f'{{"cursor":{at},"content_hash":"{seen.version.content_hash.hex()}"}}'
    made = b'{"key":{' + names + b'},"version":' + version.encode() + b',"record":' + seen.record + b"}"
    return made.translate(_ONE_LINE)


def read(pages: Sequence[Page], stream: Stream) -> tuple[list[Seen], list[Quarantined], int]:
    """Return of each key the newest version, in the order of the pages; what cannot be delivered; and how many were read.

    Of versions with one cursor value the page requested later wins, and in one page the record further down. A key is its
    spelling: 7 and "7" are the same.
    """
    newest: dict[bytes, Seen] = {}
    quarantined: list[Quarantined] = []
    count = 0
    for page in sorted(pages, key=lambda page: page.requested_at):
        for record in pieces.records(page.records):
            count += 1
            try:
                seen = _seen(record, stream, page.requested_at)
            except Poison as reason:
                quarantined.append(Quarantined(str(reason), record))
                continue
            before = newest.get(seen.version.key_hash)
            if before is None or _wins(seen.version, before.version):
                newest.pop(seen.version.key_hash, None)
                newest[seen.version.key_hash] = seen
    return list(newest.values()), quarantined, count


def _wins(later: Version, earlier: Version) -> bool:
    return later.cursor_at is None or earlier.cursor_at is None or later.cursor_at >= earlier.cursor_at


def _seen(record: bytes, stream: Stream, requested_at: datetime) -> Seen:
    """Return what is known of ``record``. Raises Poison."""
    content = _canonical(record)
    members = pieces.fields(record)
    key = dict(_key(stream, members))
    texts = [str(key_text(raw, integer=False)) for raw in key.values()]
    version = Version(_hash(msgspec.json.encode(texts)), _cursor(stream, members), _hash(content), requested_at)
    return Seen(key, version, record)


def _hash(content: bytes) -> bytes:
    return blake2b(content, digest_size=HASH_BYTES).digest()


def _canonical(record: bytes) -> bytes:
    """Return a text that is equal for equal contents whatever the order of fields; numbers keep every digit.

    Raises Poison if ``record`` is no JSON object.
    """
    if record[:1] != b"{":
        raise Poison("The record is not an object.")
    try:
        return _CANONICAL.encode(_EXACT.decode(record))
    except (ValueError, RecursionError):
        pass
    try:  # what one decoder will not take may still be JSON: an unpaired surrogate is
        json.loads(record.decode(), parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Poison(f"The record is not valid JSON: {error}.") from error
    return record


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _key(stream: Stream, members: Mapping[str, bytes]) -> Iterable[tuple[str, bytes]]:
    for path in stream.key:
        raw = pieces.nested(members, tuple(path.split(".")))
        if not raw:
            raise Poison(f"The key {path!r} is missing.")
        try:
            key_text(raw, integer=False)
        except Misfit as error:
            raise Poison(f"The key {path!r} {error}.") from error
        yield path, raw


def _cursor(stream: Stream, members: Mapping[str, bytes]) -> datetime | None:
    if stream.cursor is None:
        return None
    path = ".".join(stream.cursor.path)
    raw = pieces.nested(members, stream.cursor.path)
    if not raw:
        raise Poison(f"The cursor value {path!r} is missing.")
    try:
        return stream.cursor.parse(msgspec.json.decode(raw))
    except (ValueError, RecursionError) as error:
        raise Poison(f"The cursor value {path!r} cannot be read: {error}.") from error
