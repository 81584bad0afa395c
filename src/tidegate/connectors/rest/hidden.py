"""Records that no bound shows, told by the counts that a source gives: those without a cursor value, wherever they stand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from tidegate.connectors.rest.connector import RestSource
from tidegate.connectors.rest.declaration import StreamDeclaration
from tidegate.domain.errors import SourceError
from tidegate.domain.fetch import FetchRequest

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def of_what_a_bound_hides(source: RestSource, declared: StreamDeclaration, now: datetime) -> tuple[str, ...]:
    """Return what is wrong if the source counts fewer records from long ago on than where all are asked for (SPEC 4).

    All are asked for before and after, so that what is deleted meanwhile is not taken for hidden. A count that cannot be had
    says nothing: a run that needs it fails.
    """
    cursor, lower, counted = declared.stream.cursor, declared.lower, declared.pager.within or declared.pager
    if cursor is None or lower is None or declared.history is not None:
        return ()
    whole = FetchRequest(declared.stream.name, None, None, now)
    try:
        before = await source.total(whole)
        bounded = None if before is None else await source.total(replace(whole, lower=LONG_AGO))
        after = None if bounded is None or before is None or bounded >= before else await source.total(whole)
    except SourceError:
        return ()
    if before is None or bounded is None or after is None or bounded >= min(before, after):
        return ()
    least, name = min(before, after), ".".join(cursor.path)
    what = "records" if counted.total_records is not None else "pages"
    return (
        f"{lower.param} hides {least - bounded} of {least} {what}, asked from {LONG_AGO.date()} on: no run would fetch them. If a"
        f" record has no {name} until its first edit, name a field that is set from the start, or leave `cursor:` and `lower:`"
        " out to list in full.",
    )
