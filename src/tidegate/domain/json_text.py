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
_BRACKET = re.compile(rb"[\[{]")
_DEEPEST = 16
"""How many levels below the outermost value a container is tried as a whole; further down each token is looked at."""
_CLOSED_BY = {b"[": b"]", b"{": b"}"}


def _nothing(_: object) -> None:
    """Stand for any value: only where it ends is asked."""


_SCAN = json.JSONDecoder(
    strict=False, object_pairs_hook=_nothing, parse_float=_nothing, parse_int=_nothing, parse_constant=_nothing
).raw_decode


class _Wholes:
    """Where containers end, found by the decoder of the standard library: some ten times as fast as token by token.

    It reads bytes as Latin-1, so that places are places in the text; what it does not take is looked at more closely.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text.decode("latin-1")

    def end(self, start: int, depth: int) -> int | None:
        """Return where the container that begins at ``start`` ends, None if it is to be looked at more closely."""
        if depth > _DEEPEST:
            return None
        try:
            return int(_SCAN(self._text, start)[1])
        except (ValueError, RecursionError):
            return None


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
    opening = _BRACKET.search(text)
    wholes, depth, start = _Wholes(text), 1, opening.end() if opening else len(text)
    at = start
    while token := _PUNCTUATION.search(text, at):
        mark, at = token[0][:1], token.end()
        if mark in _CLOSED_BY:
            end = wholes.end(token.start(), depth)
            depth, at = (depth, end) if end else (depth + 1, at)
        elif mark in (b"]", b"}"):
            depth -= 1
            if depth == 0:
                yield text[start : token.start()].strip()
                return
        elif mark == b"," and depth == 1:
            yield text[start : token.start()].strip()
            start = at
    raise CutOff("is never closed")


def require_structure(text: bytes) -> None:
    """Raise ValueError unless brackets, commas, colons and names stand where one JSON value has them; CutOff if it ends early.

    So what is taken apart is what the sender meant: a stray quotation mark cannot hide what follows it.
    """
    wholes, open_, wanted, at = _Wholes(text), list[bytes](), "value", 0
    while token := _TOKEN.search(text, at):
        word, mark, at = token[0], token[0][:1], token.end()
        if mark in _CLOSED_BY and wanted in ("value", "first value"):
            end = wholes.end(token.start(), len(open_))
            if end:
                wanted, at = "more" if open_ else "end", end
                continue
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
