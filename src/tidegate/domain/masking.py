"""Masking: secrets never leave the process in a text, whatever the text is for (docs/reference/logs.md)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import parse_qsl, unquote, urlsplit

from tidegate.domain.errors import TidegateError
from tidegate.domain.http_reply import printable
from tidegate.domain.spelling import LEAST_CHARACTERS, MASK, spellings

_NAMES = re.compile(
    r"secret|token(?!s?_)|password|passwd|authori[sz]ation|api[-_]?key|private[-_]?key|passphrase|credential|cookie|signature",
    re.IGNORECASE,
)
_VALUE = r"""(?:(["'])(?!\*\*\*)(?:(?!\2).)+|(?!\*\*\*)[^&\s"',}]+)"""  # to the closing quote, or the end of the word
_TEXTS = (
    (re.compile(r"(\w[\w+.-]{0,40}://[^/\s:@]*):[^/\s]+@"), rf"\1:{MASK}@"),  # a password may have an @ in it
    (re.compile(r"(\bauthorization[\"']?\s*[:=]\s*[\"']?)[^\"'\n]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(\bcookie[\"']?\s*[:=]\s*[\"']?)(?=[\w.-]{1,256}=)[^\"'\n]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\b(Bearer)\s+(?=[\w.~+-]*[\d_~+/=-]|\w+\.\w)[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"\b(Token)\s+(?=\S*[\d=])[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {MASK}"),  # no plain words
    (
        re.compile(
            r"((?:token|secret|signature|(?:\b|_)sig)(?:[\"']?\s*=\s*|[\"']\s*:\s*))" + _VALUE,
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}",
    ),
    (
        re.compile(
            r"((?:api[-_]?key|private[-_]?key|(?:secret|access|signing)[-_]?key|passphrase|password|passwd|(?:\b|_)pwd"
            r"|(?<![\w-])[\w-]{1,60}(?:-key|[-_](?:token|secret))|(?-i:(?<=[a-z0-9])(?:Token|Secret)))[\"']?\s*[:=]\s*)"
            + _VALUE,
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}",
    ),
    (re.compile(r"([?&]key=)[^&\s\"']+", re.IGNORECASE), rf"\1{MASK}"),
    (
        re.compile(
            r"\b(?:shp(?:at|ca|pa|ss)|[sr]k_(?:live|test)|whsec|gh[oprsu]|github_pat|xox[abprs])[_-][\w+/=-]{6,}"
        ),
        MASK,
    ),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), MASK),  # a signed token (RFC 7519)
)

_BASIC = re.compile(r"\b(Basic)\s+([A-Za-z0-9+/_-]{4,}={0,2})", re.IGNORECASE)


class Mask:
    """Replaces secrets in texts: those it has been told of in any usual spelling, and what has a secret's form.

    What it is told it never forgets and never shows. The time for a text does not depend on how many secrets it knows.
    """

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}

    def learn(self, *secrets: str) -> None:
        """Hide these from now on; of an address with a password in it, the password. Below four characters nothing is."""
        for secret in secrets:
            for spelling in _hidden(secret):
                if len(spelling) >= LEAST_CHARACTERS:
                    self._known.setdefault(spelling[:LEAST_CHARACTERS], set()).add(spelling)

    def text(self, text: str) -> str:
        """Return ``text`` without its secrets, and without characters that a terminal obeys or PostgreSQL refuses."""
        text = self._without_known(text) if self._known else text
        for pattern, replacement in _TEXTS:
            text = pattern.sub(replacement, text)
        return printable(_BASIC.sub(_basic, text))

    def value(self, value: object, name: str = "") -> object:
        """Return ``value`` without secrets, ready for JSON: mappings and sequences all through, durations in seconds.

        A text whose ``name``, or key, is a secret's is hidden whole.
        """
        if isinstance(value, str):
            return MASK if value and name and _NAMES.search(name) else self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(inner, str(key)) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(inner, name) for inner in value]
        if isinstance(value, timedelta):
            return value.total_seconds()
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(str(value))

    def error(self, error: TidegateError) -> None:
        """Take the secrets out of an error, before it is kept, logged or shown."""
        error.message, error.remedy = self.text(error.message), self.text(error.remedy)
        error.args = (error.message,)
        error.values = {name: self.value(value) for name, value in error.values.items()}

    def _without_known(self, text: str) -> str:
        shown: list[str] = []
        at = 0
        while at < len(text):
            begins = self._known.get(text[at : at + LEAST_CHARACTERS])
            longest = max((len(secret) for secret in begins if text.startswith(secret, at)), default=0) if begins else 0
            shown.append(MASK if longest else text[at])
            at += longest or 1
        return "".join(shown)


def _basic(found: re.Match[str]) -> str:
    """Mask what is a user's name and password (RFC 7617), and leave plain words."""
    word = found[2].rstrip("=")
    try:
        pair = b":" in base64.b64decode(
            word + "=" * (-len(word) % 4), altchars=b"-_" if set(word) & set("-_") else None
        )
    except ValueError:
        pair = False
    return f"{found[1]} {MASK}" if pair else found[0]


def _hidden(secret: str) -> set[str]:
    """Return what must not be shown of a secret, as texts may repeat it: of an address the passwords in it."""
    plain = (_passwords(secret) if "://" in secret else set()) or {secret}
    return {spelling for text in plain for spelling in spellings(text)}


def _passwords(address: str) -> set[str]:
    try:
        parts = urlsplit(address)
    except ValueError:
        return set()
    found = [parts.password or "", *(value for name, value in parse_qsl(parts.query) if _NAMES.search(name))]
    return {spelling for text in found if text for spelling in (text, unquote(text))}
