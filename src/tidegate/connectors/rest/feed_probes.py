"""A change feed whose token has no effect: each run would list in full, and see no deletion."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime

from tidegate.connectors import json_parts
from tidegate.connectors.base import Source
from tidegate.connectors.rest.declaration import StreamDeclaration
from tidegate.connectors.rest.probes import at
from tidegate.domain.errors import SourceError
from tidegate.domain.fetch import FetchRequest, Page

MOST_PAGES = 20
"""Of a longer listing the token is not waited for."""


async def of_a_token_without_effect(source: Source, declared: StreamDeclaration, now: datetime) -> tuple[str, ...]:
    """Return what is wrong if a listing's token asks for all of that listing again."""
    if declared.changes is None:
        return ()
    try:
        listed, token = await _listed(source, declared, FetchRequest(declared.stream.name, None, None, now))
        if len(listed) < 2 or not token:
            return ()
        since = FetchRequest(declared.stream.name, None, None, now, changes_since=token)
        again, _ = await _listed(source, declared, since)
    except SourceError as error:
        return (f"A further request failed, so not everything could be tried: {error.code}: {error}",)
    if not listed <= again:
        return ()
    return (
        f"{declared.changes.param} has no effect: asked for what has changed since the listing, all {len(listed)} records are"
        " shown again, and deletions would not be. Correct `param` or `token` of `changes:`.",
    )


async def _listed(source: Source, declared: StreamDeclaration, request: FetchRequest) -> tuple[set[str], str]:
    """Return the keys of all records listed, and the token at the end; no token if there are too many pages."""
    keys: set[str] = set()
    fetched: AsyncGenerator[Page] = source.fetch(request)  # type: ignore[assignment]
    async with aclosing(fetched) as pages:
        number = 0
        async for page in pages:
            number += 1
            records = json_parts.decoded(page.records)
            keys.update(repr([at(record, part.split(".")) for part in declared.stream.key]) for record in records)
            if page.token is None or number == MOST_PAGES:
                return keys, page.report.change_token
    return keys, ""
