"""A secret as texts may repeat it, and how it is blotted out of them: the one place that knows (docs/reference/logs.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "***"
LEAST_CHARACTERS = 4
"""Masking shorter ones would blot out ordinary text."""
_PLAIN_IN_QUERIES = "?/:@-._~!$'()*,"
"""What a query may hold as it is (RFC 3986, 3.4), but for the four that forms give a meaning."""


def spellings(secret: str) -> frozenset[str]:
    """Return ``secret`` as texts may repeat it: plain, in an address, in a form, in JSON."""
    in_addresses = (quote(secret, safe=""), quote_plus(secret), quote_plus(secret, safe=_PLAIN_IN_QUERIES))
    in_json = (json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
    return frozenset((secret, *in_addresses, *in_json))


def masked(text: str, hidden: Iterable[str]) -> str:
    """Return ``text`` with everything ``hidden`` that has four or more characters replaced by ``***``, longest first."""
    for spelling in sorted(hidden, key=len, reverse=True):
        if len(spelling) >= LEAST_CHARACTERS:
            text = text.replace(spelling, MASK)
    return text
