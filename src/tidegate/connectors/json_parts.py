"""Arrays and objects of a reply as raw JSON, read fast where a decoder takes them and taken apart with care where not."""

from __future__ import annotations

from typing import Final

import msgspec

from tidegate.domain import json_text

_ELEMENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
NOTHING: Final = msgspec.Raw(b"")


def elements(text: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """Return the elements of the JSON array ``text``, each as the source wrote it. Raises ValueError if it is no array."""
    try:
        return _ELEMENTS.decode(text)
    except (ValueError, RecursionError):
        return [msgspec.Raw(element) for element in json_text.elements(bytes(text))]


def members(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of the JSON object ``text``, as the source wrote them. Raises ValueError if it is no object."""
    try:
        return _MEMBERS.decode(text)
    except (ValueError, RecursionError):
        return {name: msgspec.Raw(value) for name, value in json_text.members(bytes(text)).items()}


def decoded(text: bytes) -> list[object]:
    """Return the elements of the JSON array ``text`` as values, None for one that no decoder takes."""
    return [_decoded(element) for element in elements(text)]


def _decoded(element: msgspec.Raw) -> object:
    try:
        value: object = msgspec.json.decode(element)
    except (ValueError, RecursionError):
        return None
    return value
