"""What a JSON value may become: the type of its column, and whether it fits a column that exists.

Both ways through (typed decoding of whole pages, record by record) take their rules from here, so that the same record
renders to the same text on either.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec

from tidegate.domain.stream import ColumnType

SQL_TYPES: Final = {
    ColumnType.TEXT: "text",
    ColumnType.BIGINT: "bigint",
    ColumnType.NUMERIC: "numeric",
    ColumnType.DOUBLE: "double precision",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.TIMESTAMP: "timestamp with time zone",
    ColumnType.DATE: "date",
    ColumnType.JSON: "jsonb",
}
"""The column type that Tidegate creates for each declared or inferred type, as `format_type` spells it."""

COLUMN_TYPES: Final = {sql: kind for kind, sql in SQL_TYPES.items()} | {"json": ColumnType.JSON}
"""What may be written to an existing column; any other SQL type leaves its values in the side column."""

KEY_LENGTH: Final = 500
"""The longest text key, in characters: an index entry of PostgreSQL holds about 2,700 bytes."""

LONG: Final = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
DECODED: Final[dict[ColumnType, Any]] = {
    ColumnType.TEXT: str,
    ColumnType.BIGINT: LONG,
    ColumnType.NUMERIC: Decimal,
    ColumnType.DOUBLE: float,
    ColumnType.BOOLEAN: bool,
    ColumnType.TIMESTAMP: str,
    ColumnType.DATE: date,
    ColumnType.JSON: msgspec.Raw,
}
"""The Python type that a value is decoded to; a value that does not decode to it does not fit."""

_DECODERS: Final = {kind: msgspec.json.Decoder(decoded) for kind, decoded in DECODED.items()}
OF_NUMBERS: Final = frozenset("0123456789.+-eE")
"""What a number is spelled with, as every version of PostgreSQL reads it."""
_AS_SPELLED: Final = msgspec.json.Decoder(float_hook=str)
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_INTEGER: Final = re.compile(rb"-?\d{1,19}\Z")
_HUGE: Final = re.compile(r"[eE][+-]?\d{4}|\d{9999}")
_from_iso: Final = datetime.fromisoformat
_MAX_WHOLE_DIGITS: Final = 131_072
_MAX_FRACTION_DIGITS: Final = 16_383


class Misfit(ValueError):
    """A value that does not fit its column."""


def inferred(raw: bytes) -> set[ColumnType]:
    """Return the type of column that the JSON value ``raw`` asks for; the empty set for null, which tells nothing.

    Integers of 64 bits become bigint, all other numbers numeric (exact), objects and arrays jsonb; strings stay text,
    nothing is guessed to be a date.
    """
    match raw[:1]:
        case b"" | b"n":
            return set()
        case b'"':
            return {ColumnType.TEXT}
        case b"t" | b"f":
            return {ColumnType.BOOLEAN}
        case b"{" | b"[":
            return {ColumnType.JSON}
    if _INTEGER.match(raw) and -(2**63) <= int(raw) < 2**63:
        return {ColumnType.BIGINT}
    return {ColumnType.NUMERIC}


def united(kinds: set[ColumnType]) -> ColumnType:
    """Return the narrowest type that holds values of all ``kinds``: integers among numbers are numbers, a mixture jsonb."""
    if len(kinds) == 1:
        return next(iter(kinds))
    return ColumnType.NUMERIC if kinds == {ColumnType.BIGINT, ColumnType.NUMERIC} else ColumnType.JSON


def fitted(kind: ColumnType, raw: bytes) -> Any:
    """Return the JSON value ``raw`` decoded for a column of ``kind``. Raises Misfit if PostgreSQL could not hold it there."""
    try:
        value = _DECODERS[kind].decode(raw)
    except (ValueError, RecursionError) as error:
        raise Misfit(str(error)) from error
    match kind:
        case ColumnType.TEXT if "\x00" in value:
            raise Misfit("PostgreSQL holds no NUL character")
        case ColumnType.NUMERIC:
            _check_number(value)
            spelled = _AS_SPELLED.decode(raw)
            return spelled if OF_NUMBERS.issuperset(str(spelled)) else value
        case ColumnType.TIMESTAMP:
            instant(value)
        case ColumnType.JSON:
            _check_json(raw)
    return value


def _check_number(value: Decimal) -> None:
    if not value.is_finite():
        raise Misfit(f"{value} is not a number")
    if value.adjusted() >= _MAX_WHOLE_DIGITS or -int(value.as_tuple().exponent) > _MAX_FRACTION_DIGITS:
        raise Misfit("PostgreSQL holds at most 131072 digits before and 16383 after the decimal point")


def _check_json(raw: bytes) -> None:
    if b"\\u0000" in raw:
        raise Misfit("PostgreSQL's jsonb holds no NUL character")
    try:
        text = raw.decode()
        if _HUGE.search(text):
            json.loads(text, parse_float=_checked_number, parse_int=_checked_number)
    except (ValueError, RecursionError) as error:
        raise Misfit(str(error)) from error


def _checked_number(text: str) -> str:
    _check_number(Decimal(text))
    return text


def instant(value: str) -> str:
    """Return an ISO 8601 instant in a form that PostgreSQL reads as the same microsecond, cutting what is finer.

    The common spelling, 2026-07-01T12:00:00Z, stays as it is. Raises Misfit without an offset or outside years 1 to 9999.
    """
    try:
        parsed = _from_iso(value)
        if parsed.tzinfo is UTC and len(value) == 20 and value[7] == "-" and value[13] == ":":
            return value
        if parsed.tzinfo is None:
            raise Misfit(f"{value!r} has no offset")
        return str(parsed.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise Misfit(str(error)) from error


def escaped(value: str | None) -> str | None:
    """Return ``value`` as it stands in COPY text whose null is the word None. Raises Misfit for a NUL character."""
    if value is None:
        return None
    if value.isprintable() and "\\" not in value:
        return value if value != "None" else "\\None"
    if "\x00" in value:
        raise Misfit("PostgreSQL holds no NUL character")
    return value.translate(_ESCAPES)


def json_text(value: msgspec.Raw) -> str | None:
    """Return a JSON value as it stands in COPY text; null is None. Raises UnicodeDecodeError."""
    text = bytes(value).decode()
    return None if text == "null" else escaped(text)


def key_text(raw: bytes, *, integer: bool) -> int | str:
    """Return a key for its column: a key is its spelling, so 7 and "7" are the same key.

    Raises Misfit saying why ``raw`` is no key: null, not a scalar, a NUL or an unpaired surrogate, too long, or not a 64-bit
    integer where the column holds integers.
    """
    match raw[:1]:
        case b"n" | b"{" | b"[" | b"":
            raise Misfit("is null" if raw[:1] == b"n" else "is not a string or a number")
        case b'"':
            text: str = fitted(ColumnType.TEXT, raw)
        case _:
            text = raw.decode()
    if integer:
        canonical = text.lstrip("-").isdecimal() and len(text) < 21 and str(int(text)) == text
        if not canonical or not -(2**63) <= int(text) < 2**63:
            raise Misfit(f"{text[:60]!r} does not fit its column, which holds 64-bit integers")
        return int(text)
    if len(text) > KEY_LENGTH:
        raise Misfit(f"is longer than {KEY_LENGTH} characters")
    return text
