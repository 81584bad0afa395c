"""A secret as texts may repeat it, and how it is blotted out of them: the one place that knows (docs/reference/logs.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import escape
from urllib.parse import quote, quote_plus, unquote, urlsplit

MASK = "***"
LEAST_CHARACTERS = 4
"""Masking shorter ones would blot out ordinary text."""
TELLING_CHARACTERS = 8
"""From here on a piece of an address may be its secret, if it has a digit or a capital letter in it..."""
LONG_CHARACTERS = 16
"""...and from here on whatever is in it."""
_PLAIN_IN_QUERIES = "?/:@-._~!$'()*,"
"""What a query may hold as it is (RFC 3986, 3.4), but for the four that forms give a meaning."""


def spellings(secret: str) -> frozenset[str]:
    """Return ``secret`` as texts may repeat it: plain, in an address, in a form, in JSON, in HTML.

    Of a web address also what a server repeats of it: its path, with its query and without, and the pieces of both that
    may be the secret in it. One with a user or a password in it has its secret there, and is taken as a whole.
    """
    return frozenset(spelt for text in (secret, *_pieces(secret)) for spelt in _spelt(text))


def _spelt(text: str) -> Iterable[str]:
    yield text
    yield escape(text)
    yield from (quote(text, safe=""), quote_plus(text), quote_plus(text, safe=_PLAIN_IN_QUERIES))
    for ascii_only in (True, False):
        in_json = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield from (in_json, in_json.replace("/", "\\/"))


def is_web_address(text: str) -> bool:
    """Return whether ``text`` is an http(s) address without a user and a password in it."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and "@" not in parts.netloc


def _pieces(text: str) -> set[str]:
    if not is_web_address(text):
        return set()
    parts = urlsplit(text)
    after_host = f"{parts.path}?{parts.query}" if parts.query else parts.path
    pieces = {after_host, parts.path, *filter(_may_be_secret, re.split(r"[/?&=;]", after_host))}
    return {spelt for piece in pieces if piece for spelt in (piece, unquote(piece))}


def _may_be_secret(piece: str) -> bool:
    """Return whether a piece of an address is no ordinary word: those would be blotted out of every text."""
    if len(piece) < TELLING_CHARACTERS:
        return False
    return len(piece) >= LONG_CHARACTERS or any(each.isdigit() or each.isupper() for each in piece)


def masked(text: str, hidden: Iterable[str]) -> str:
    """Return ``text`` with everything ``hidden`` that has four or more characters replaced by ``***``, longest first."""
    for spelling in sorted(hidden, key=len, reverse=True):
        if len(spelling) >= LEAST_CHARACTERS:
            text = text.replace(spelling, MASK)
    return text
