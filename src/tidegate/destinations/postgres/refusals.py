"""What a PostgreSQL error means: try again, ask a person, or look for the record that caused it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from tidegate.domain.errors import DestinationError, DestinationRejected, DestinationUnavailable


class RecordsRefused(Exception):
    """PostgreSQL refused the data of at least one record of a batch; the batch was rolled back."""


class LayoutChanged(Exception):
    """A column or the table is no longer what the layout says; the batch was rolled back."""


class NotNew(Exception):
    """Of records that were thought to be new, one was there already, or twice in the batch; the batch was rolled back."""


DEADLOCK: Final = "40P01"
_FOUND: Final = ("23505", DEADLOCK, "0A000")
"""Unique violation; deadlock, with another writer of the same new keys; a table with row security, which takes no COPY."""

_DATA: Final = ("21", "22", "23", "54")
"""Classes that a record's content can cause: cardinality, data, integrity, program limits."""

_CHANGED: Final = ("42703", "42P01", "42804")
"""Undefined column, undefined table, datatype mismatch."""

_PASSING: Final = ("08", "25006", "40", "53", "55", "57", "58")
"""Classes (or codes) that pass by themselves or by an operator's hand: connection, fail-over, rollback, resources, locks,
shutdown, I/O."""

_REMEDIES: Final = {
    "28": "Check the destination's user and password.",
    "3D000": "Create the database, or correct its name in the connection string.",
    "42501": "Grant the destination's user USAGE and CREATE on the schema, and ownership of its tables.",
    "3F000": "Create the schema, or grant the destination's user CREATE on the database.",
    "42P10": "The table's primary key must be tenant_id, account_id and the stream's key: rename the table away, or restore it.",
}


@contextmanager
def rows_refused() -> Iterator[None]:
    """Turn errors that a record's content, or a change of the table, can cause into RecordsRefused and LayoutChanged."""
    try:
        yield
    except asyncpg.PostgresError as error:
        code = str(error.sqlstate or "")
        if code in _CHANGED:
            raise LayoutChanged(f"{error} ({code})") from error
        if code.startswith(_DATA):
            raise RecordsRefused(f"{error} ({code})") from error
        raise


@contextmanager
def found_there() -> Iterator[None]:
    """Turn errors that a record's being there already can cause, or a table that takes no COPY, into NotNew."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if error.sqlstate in _FOUND:
            raise NotNew(str(error)) from error
        raise


def translated(error: BaseException) -> DestinationError:
    """Return what ``error`` (from asyncpg or the network) means for the run; the original is for the caller to chain."""
    if not isinstance(error, asyncpg.PostgresError):
        return DestinationUnavailable(f"PostgreSQL cannot be reached: {error or type(error).__name__}.")
    code = str(error.sqlstate or "")
    if code.startswith(_PASSING):
        return DestinationUnavailable(f"PostgreSQL cannot take the batch now: {error} ({code}).", sqlstate=code)
    remedy = _REMEDIES.get(code) or _REMEDIES.get(code[:2]) or "Look the code up in PostgreSQL's appendix A."
    return DestinationRejected(f"PostgreSQL refuses the batch: {error} ({code}).", remedy=remedy, sqlstate=code)


FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
"""What a statement may raise; cancellation is none of it."""
