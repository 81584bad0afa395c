"""What of a declaration defines a listing: the page tokens of a listing of any other shape are none of it."""

from __future__ import annotations

from dataclasses import asdict, replace

from tidegate.connectors.listings import shape_of
from tidegate.connectors.rest.declaration import Declaration, StreamDeclaration


def declared_shape(declaration: Declaration, stream: str) -> bytes:
    """Return all of ``declaration`` that shapes the requests for ``stream`` and how its pages follow one another.

    Settings and secrets stand in it by name. Rate limits, what errors mean, and columns are not in it: they change neither.
    """
    declared = declaration.streams[stream]
    parent = [] if declared.parent is None else [_shape(declaration.streams[declared.parent.stream])]
    return shape_of(declaration.base_url, declaration.headers, _shape(declared), parent)


def _shape(declared: StreamDeclaration) -> dict[str, object]:
    """Return a stream's declaration as plain values: of its records only the key and the cursor, of its query the text."""
    cursor = declared.stream.cursor
    return asdict(replace(declared, query=None)) | {
        "stream": (declared.stream.key, None if cursor is None else asdict(cursor)),
        "query": None if declared.query is None else declared.query.text,
    }
