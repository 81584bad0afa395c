"""A page's records and a record's fields as raw JSON, even where the text is more hostile than a decoder will take."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tidegate.domain import json_text

_RECORDS = msgspec.json.Decoder(list[msgspec.Raw])
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def records(page: bytes) -> list[bytes]:
    """Return the elements of the JSON array ``page``, each as the source wrote it.

    Lone surrogates, NaN, invalid UTF-8 and any depth of nesting are let through. Raises ValueError if it is no array.
    """
    try:
        return [bytes(record) for record in _RECORDS.decode(page)]
    except (ValueError, RecursionError):
        return json_text.elements(page)


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
    return json_text.members(record)


def nested(members: Mapping[str, bytes], path: tuple[str, ...]) -> bytes:
    """Return the raw value at ``path``; b"" where there is none."""
    value = members.get(path[0], b"")
    for step in path[1:]:
        if value[:1] != b"{":
            return b""
        value = fields(value).get(step, b"")
    return value
