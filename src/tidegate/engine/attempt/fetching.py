"""Fetching: the block `fetch` lists one stream for one period (SPEC 3, 4)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from typing import cast

from tidegate.connectors.base import Source
from tidegate.domain.duration import humanised
from tidegate.domain.errors import SourceClockBehind
from tidegate.domain.fetch import FetchRequest, Page, PageToken
from tidegate.domain.period import Period
from tidegate.domain.stream import Stream


def request_for(
    stream: Stream,
    period: Period,
    coverage_start: datetime,
    stop_after: datetime,
    resume: PageToken | None,
    changes_since: str | None = None,
    *,
    bounded: bool = False,
) -> FetchRequest:
    """Return what to ask of a source for ``period`` (SPEC 4).

    The fetch begins at ``period.start - lookback``, never before the coverage's own start (HOLES k, l). It is bounded
    by the period's end only if records never change after creation, or if the run is ``bounded``, for a later one follows
    that is not; else it is open-ended (HOLE e). ``stop_after`` is
    the clock read before the first page, and never before the period's end (HOLES a, hh). A change feed goes on from the
    token with which the run that covers up to the period's start ended.
    """
    if stream.cursor is None:
        return FetchRequest(
            stream.name, lower=None, upper=None, stop_after=stop_after, resume=resume, changes_since=changes_since
        )
    return FetchRequest(
        stream.name,
        lower=max(period.start - stream.lookback, coverage_start),
        upper=None if stream.open_ended and not bounded else period.end,
        stop_after=max(stop_after, period.end),
        resume=resume,
    )


async def fetch(
    source: Source, request: FetchRequest, period: Period, tell: Callable[[Page], None]
) -> AsyncGenerator[Page]:
    """Yield the pages of ``request``, the first one only if the source's own clock has passed the period's end (SPEC 3).

    ``tell`` is called with each before it is yielded.
    Raises SourceClockBehind with the seconds to wait otherwise (HOLES k, ff), or what the source raises.
    """
    fresh = request.resume is None
    async with aclosing(cast(AsyncGenerator[Page], source.fetch(request))) as pages:
        async for page in pages:
            if fresh and page.source_at is not None and page.source_at < period.end:
                behind = (period.end - page.source_at).total_seconds()
                raise SourceClockBehind(
                    f"The source's clock says {page.source_at:%Y-%m-%d %H:%M:%S} UTC and the period ends"
                    f" {humanised(behind)} later.",
                    wait_seconds=behind,
                )
            fresh = False
            tell(page)
            yield page
