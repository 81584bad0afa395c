"""Names in PostgreSQL: which table a stream has, which column a field has; never two things under one name."""

from __future__ import annotations

import re

import xxhash

from tidegate.domain.errors import InvalidInput

MAX_BYTES = 63
"""PostgreSQL cuts longer identifiers silently, which would let two fields share a column."""

OURS = frozenset({"tenant_id", "account_id"})
_SYSTEM = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
_HASHED = re.compile(r"_[0-9a-f]{12}\Z")


def quoted(identifier: str) -> str:
    """Return ``identifier`` as SQL; case is preserved."""
    return '"' + identifier.replace('"', '""') + '"'


def check_schema(name: object) -> str:
    """Return ``name`` if a schema of ours can have it. Raises InvalidInput naming ``settings.schema``."""
    if not isinstance(name, str):
        raise InvalidInput("settings.schema", name, "is not text", "Write it in quotes.")
    if not name or not name.isprintable() or not _encodable(name) or len(name.encode()) > MAX_BYTES:
        problem = f"is not a name of 1 to {MAX_BYTES} bytes"
        raise InvalidInput("settings.schema", name, problem, "PostgreSQL cuts longer ones; choose a shorter one.")
    if name.startswith("pg_") or name == "information_schema":
        raise InvalidInput("settings.schema", name, "is PostgreSQL's own", "Choose another one.")
    return name


def column_name(field: str) -> str | None:
    """Return the column of a record's field: its own name wherever PostgreSQL can hold it, otherwise a hashed one.

    Injective: hashed are names that are empty, too long, ours, PostgreSQL's own, or that look hashed. None if no column
    can bear the name (NUL, a lone surrogate): such a field goes to the side column.
    """
    if "\x00" in field or not _encodable(field):
        return None
    taken = field in OURS or field in _SYSTEM or field.startswith("_tidegate_")
    if field and not taken and len(field.encode()) <= MAX_BYTES and not _HASHED.search(field):
        return field
    return _with_hash(field, field)


def table_name(connector: str, stream: str) -> str:
    """Return ``connector_stream``, or ``connector__stream`` if the connector's name has an underscore of its own.

    Injective: (a_b, c) and (a, b_c) get different tables; names this cannot tell apart are hashed.
    """
    plain = "__" not in f"{connector}/{stream}" and not connector.endswith("_") and not stream.startswith("_")
    name = f"{connector}{'__' if '_' in connector else '_'}{stream}"
    if plain and connector and stream and len(name.encode()) <= MAX_BYTES and not _HASHED.search(name):
        return name
    return _with_hash(name, f"{connector}\x00{stream}")


def staging_name(fingerprint: str) -> str:
    """Return the name of the temporary table for rows of the shape that ``fingerprint`` describes."""
    return f"tidegate_staging_{xxhash.xxh3_64_hexdigest(fingerprint.encode())}"


def lock_number(name: str) -> int:
    """Return the advisory lock (a signed 64-bit number) that guards definitions of ``name``."""
    return xxhash.xxh3_64_intdigest(b"tidegate definitions of " + name.encode()) - 2**63


def _with_hash(readable: str, identity: str) -> str:
    kept = readable.encode()[: MAX_BYTES - 13].decode(errors="ignore")
    return f"{kept}_{xxhash.xxh3_64_hexdigest(identity.encode())[:12]}"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
