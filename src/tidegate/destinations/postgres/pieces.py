"""A page's records and a record's fields as raw JSON, even where the text is more hostile than a decoder will take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import msgspec

_RECORDS = msgspec.json.Decoder(list[msgspec.Raw])
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]', re.DOTALL)


def records(page: bytes) -> list[bytes]:
    """Return the elements of the JSON array ``page``, each as the source wrote it.

    Lone surrogates, NaN, invalid UTF-8 and any depth of nesting are let through. Raises ValueError if it is no array.
    """
    try:
        return [bytes(record) for record in _RECORDS.decode(page)]
    except (ValueError, RecursionError):
        if page.strip()[:1] != b"[":
            raise ValueError("a page of records must be a JSON array") from None
        return [element for element in _parts(page, b"[", b"]") if element]


def fields(record: bytes) -> dict[str, bytes]:
    """Return the members of a JSON object by name, values as the source wrote them; of equal names the last wins.

    Raises ValueError if ``record`` is no JSON object in UTF-8.
    """
    try:
        return {name: bytes(value) for name, value in _FIELDS.decode(record).items()}
    except (ValueError, RecursionError):
        return _members(record)


def _members(record: bytes) -> dict[str, bytes]:
    record.decode()
    if record.strip()[:1] != b"{":
        raise ValueError("is not an object")
    members: dict[str, bytes] = {}
    for member in _parts(record, b"{", b"}"):
        name = _TOKEN.match(member)
        if name is None or member[name.end() :].lstrip()[:1] != b":":
            raise ValueError("is not valid JSON")
        members[str(json.loads(name[0]))] = member[name.end() :].lstrip()[1:].strip()
    return members


def _parts(text: bytes, opening: bytes, closing: bytes) -> Iterator[bytes]:
    """Yield what stands between the commas of the outermost array or object; raises ValueError if it never closes."""
    depth, start = 0, 0
    for token in _TOKEN.finditer(text):
        match token[0][:1]:
            case b"[" | b"{":
                depth += 1
                if depth == 1:
                    start = token.end()
            case b"]" | b"}":
                depth -= 1
                if depth == 0:
                    yield text[start : token.start()].strip()
                    return
            case b"," if depth == 1:
                yield text[start : token.start()].strip()
                start = token.end()
    raise ValueError(f"{opening.decode()} is never closed by {closing.decode()}")


def nested(members: Mapping[str, bytes], path: tuple[str, ...]) -> bytes:
    """Return the raw value at ``path``; b"" where there is none."""
    value = members.get(path[0], b"")
    for step in path[1:]:
        if value[:1] != b"{":
            return b""
        value = fields(value).get(step, b"")
    return value
