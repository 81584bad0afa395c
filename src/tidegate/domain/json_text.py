"""JSON text taken apart by its brackets and commas alone: where a decoder refuses one value, its neighbours are still had.

What stands between them is not judged: NaN, half of a surrogate pair, control characters, bytes that are no UTF-8 and any
depth of nesting are let through, for whoever reads that very value to say what is wrong with it (SPEC 4).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_PUNCTUATION = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]', re.DOTALL)
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},:]|[^\s"\[\]{},:]+', re.DOTALL)
_CLOSED_BY = {b"[": b"]", b"{": b"}"}


class CutOff(ValueError):
    """The text ends before its outermost value does."""


def elements(text: bytes) -> list[bytes]:
    """Return the elements of the JSON array ``text``, each as it is written. Raises ValueError if it is no array."""
    if text.strip()[:1] != b"[":
        raise ValueError("is not an array")
    return [element for element in _parts(text) if element]


def members(text: bytes) -> dict[str, bytes]:
    """Return the members of the JSON object ``text`` by name, values as they are written; of equal names the last wins.

    Raises ValueError if it is no object, or a name is no JSON.
    """
    if text.strip()[:1] != b"{":
        raise ValueError("is not an object")
    found: dict[str, bytes] = {}
    for member in filter(None, _parts(text)):
        name = _PUNCTUATION.match(member)
        if name is None or member[name.end() :].lstrip()[:1] != b":":
            raise ValueError("is not valid JSON")
        found[str(json.loads(name[0]))] = member[name.end() :].lstrip()[1:].strip()
    return found


def _parts(text: bytes) -> Iterator[bytes]:
    """Yield what stands between the commas of the outermost array or object. Raises CutOff if it never closes."""
    depth, start = 0, 0
    for token in _PUNCTUATION.finditer(text):
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
    raise CutOff("is never closed")


def require_structure(text: bytes) -> None:
    """Raise ValueError unless brackets, commas, colons and names stand where one JSON value has them; CutOff if it ends early.

    So what is taken apart is what the sender meant: a stray quotation mark cannot hide what follows it.
    """
    open_, wanted = list[bytes](), "value"
    for token in _TOKEN.finditer(text):
        word, mark = token[0], token[0][:1]
        if mark == b'"' and (len(word) == 1 or word[-1:] != b'"' or _ends_escaped(word)):
            raise CutOff("ends inside a string")
        wanted = _next_wanted(wanted, mark, open_, token.start())
    if open_ or wanted != "end":
        raise CutOff("ends early")


def _ends_escaped(word: bytes) -> bool:
    """Return whether the quotation mark at the end of ``word`` is escaped, and so does not end the string."""
    inside = word[1:-1]
    return (len(inside) - len(inside.rstrip(b"\\"))) % 2 == 1


def _next_wanted(wanted: str, mark: bytes, open_: list[bytes], at: int) -> str:
    """Return what may follow a token that begins with ``mark``; ``open_`` holds what is still to be closed."""
    if wanted == "colon" and mark == b":":
        return "value"
    if wanted in ("name", "first name") and mark == b'"':
        return "colon"
    if wanted in ("value", "first value") and mark in _CLOSED_BY:
        open_.append(_CLOSED_BY[mark])
        return "first value" if mark == b"[" else "first name"
    if wanted in ("value", "first value") and mark not in b"]},:":
        return "more" if open_ else "end"
    if wanted in ("more", "first value", "first name") and open_ and mark == open_[-1]:
        open_.pop()
        return "more" if open_ else "end"
    if wanted == "more" and mark == b",":
        return "name" if open_[-1] == b"}" else "value"
    raise ValueError(f"has {mark.decode(errors='replace')!r} where it cannot stand (byte {at})")
