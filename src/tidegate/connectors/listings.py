"""The name of a listing: a page token is a place in one listing, and means another place, or none, in any other."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from tidegate.domain.fetch import FetchRequest


def listing_name(shape: bytes, request: FetchRequest) -> str:
    """Return a short name, the same for the same ``shape`` and the same bounds only.

    ``shape``: all that defines what is listed and in what order, except what the ``request`` itself says.
    """
    bounds = msgspec.json.encode([request.stream, request.lower, request.upper, request.changes_since])
    return blake2b(shape + bounds, digest_size=12).hexdigest()


def shape_of(*defining: object) -> bytes:
    """Return ``defining`` as a text that is the same in every process."""
    return msgspec.json.encode(defining, order="deterministic")
