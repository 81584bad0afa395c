"""Whether sources and destinations answer: one page of a stream that is really synced, one connection (`tidegate doctor`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import TypeVar, cast

from tidegate.destinations.base import Reachable
from tidegate.domain.errors import (
    DestinationError,
    InvalidInput,
    RateLimited,
    SourceUnavailable,
    TidegateError,
    Unauthorised,
)
from tidegate.domain.fetch import FetchRequest, Page
from tidegate.engine.checkup.checks import Check, well, wrong
from tidegate.engine.parts import Ends, Parts, stream_of
from tidegate.store import directory, reports
from tidegate.store.directory import StoredConnection, StoredDestination

MOST_ASKED = 20
"""Sources that are asked, each a different platform account: a checkup is not a sync."""
AT_ONCE = 5
PATIENCE_SECONDS = 10.0
REACH = timedelta(hours=1)
MOST_SKEW = timedelta(seconds=5)
"""A source tells its clock in whole seconds, and its reply was under way."""
Asked = TypeVar("Asked")


async def check_sources(parts: Parts) -> list[Check]:
    """Return a check per source: of up to twenty platform accounts, one page of a stream that has a schedule.

    A connection is asked for a stream of its own: others of its account may have other connectors.
    """
    streams = {
        (each.tenant_id, each.connection): each.stream for each in reversed(await reports.scheduled_chains(parts.pool))
    }
    accounts: dict[tuple[str, str], StoredConnection] = {}
    for made in await directory.connections(parts.pool):
        if (made.tenant_id, made.name) in streams and made.unauthorised_at is None:
            accounts.setdefault((made.connector, made.account), made)
    asked = list(accounts.values())[:MOST_ASKED]
    ends = Ends(parts)
    try:
        found = await _each(asked, lambda made: _source(ends, made, streams[made.tenant_id, made.name]))
    finally:
        await ends.close()
    if len(accounts) > len(asked):
        found.append(well("sources", f"{len(asked)} of {len(accounts)} platform accounts were asked"))
    return found


async def check_destinations(parts: Parts) -> list[Check]:
    """Return a check per destination."""
    return await _each(await directory.destinations(parts.pool), lambda stored: _destination(parts, stored))


async def _each(asked: Sequence[Asked], check: Callable[[Asked], Awaitable[Check]]) -> list[Check]:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(each: Asked) -> Check:
        async with slots:
            return await check(each)

    return list(await asyncio.gather(*(one(each) for each in asked)))


async def _source(ends: Ends, made: StoredConnection, stream: str) -> Check:
    parts = ends.parts
    name = f"source {made.tenant_id}/{made.name}"
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            page = await _first_page(ends, made, stream)
    except TimeoutError:
        return _unreachable(name, f"has not answered within {PATIENCE_SECONDS:.0f} s")
    except RateLimited:
        return well(name, "answers, and asks for fewer requests just now")
    except TidegateError as error:
        parts.mask.error(error)
        return _refusal(name, error)
    if page is None or page.source_at is None:
        return well(name, f"shows its {stream}; it does not tell its clock")
    ahead = page.source_at - parts.clock.now()
    if abs(ahead) > MOST_SKEW:
        seconds = ahead.total_seconds()
        finding = f"its clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the database's"
        remedy = (
            "Let the database's machine keep time by NTP; if it does, runs wait for the source's clock to catch up."
        )
        return wrong(name, "source_clock_skew", finding, remedy)
    return well(name, f"shows its {stream}")


async def _first_page(ends: Ends, made: StoredConnection, stream: str) -> Page | None:
    ends.allowances.learn(made.account_id, made.rate_limit)
    connector, source = ends.open_source(made)
    now: datetime = ends.parts.clock.now()
    lower = None if stream_of(connector, stream).cursor is None else now - REACH
    request = FetchRequest(stream, lower=lower, upper=None, stop_after=now)
    async with aclosing(cast(AsyncGenerator[Page], source.fetch(request))) as pages:
        return await anext(pages, None)


def _unreachable(name: str, finding: str) -> Check:
    remedy = "Look whether it is up and its address is right; runs are tried again until it answers."
    return wrong(name, "source_unreachable", finding, remedy)


def _refusal(name: str, error: TidegateError) -> Check:
    if isinstance(error, SourceUnavailable):
        return _unreachable(name, error.message)
    if isinstance(error, Unauthorised):
        return wrong(name, "source_refuses", error.message, error.remedy)
    remedy = error.remedy or "`tidegate connector check` shows what it sends and what is understood of it."
    return wrong(name, "source_broken", error.message, remedy)


async def _destination(parts: Parts, stored: StoredDestination) -> Check:
    name = f"destination {stored.name}"
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            secrets = parts.sealer.unseal(stored.sealed, directory.destination_place(stored.name))
            destination = await parts.open_destination(stored, secrets)
            try:
                if isinstance(destination, Reachable):
                    await destination.reach()
            finally:
                await destination.close()
    except TimeoutError:
        finding = f"has not answered within {PATIENCE_SECONDS:.0f} s"
        return wrong(name, "destination_unreachable", finding, "Look whether it is up and its address is right.")
    except (DestinationError, InvalidInput) as error:
        parts.mask.error(error)
        code = "destination_unreachable" if error.retryable else "destination_refuses"
        return wrong(name, code, error.message, error.remedy or "Look whether it is up and its address is right.")
    return well(name, "answers")
