"""Requests: what a session asks of sources, seen from inside the HTTP client, so that connectors need not tell."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING

import aiohttp

from tidegate.domain.clock import Clock
from tidegate.domain.outgoing import TO_RECEIVER

if TYPE_CHECKING:
    from yarl import URL

    from tidegate.store.leases import LeasedRun

current_run: ContextVar[LeasedRun | None] = ContextVar("current_run", default=None)
"""The run whose attempt the present task belongs to: set where an attempt starts, inherited by the tasks it makes."""


@dataclass(frozen=True, slots=True)
class RequestSent:
    """A request and what came of it: ``status`` of the reply, at its headers, or the ``error`` that came instead.

    The query is left out: it may hold a secret. ``run``: on whose behalf, None outside of runs.
    """

    run: LeasedRun | None
    method: str
    host: str
    path: str
    began_at: datetime
    ended_at: datetime
    status: int | None = None
    error: str = ""


def watched_requests(tell: Callable[[RequestSent], None], clock: Clock) -> aiohttp.TraceConfig:
    """Return the configuration of a session that tells of each of its requests."""

    async def began(_session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
        context.began_at = clock.now()

    def seen(context: SimpleNamespace, method: str, url: URL, status: int | None, error: str) -> None:
        if context.trace_request_ctx == TO_RECEIVER:
            return
        run, began_at = current_run.get(), context.began_at
        tell(RequestSent(run, method, url.host or "", url.path, began_at, clock.now(), status, error))

    async def ended(
        _session: aiohttp.ClientSession, context: SimpleNamespace, end: aiohttp.TraceRequestEndParams
    ) -> None:
        seen(context, end.method, end.url, end.response.status, "")

    async def broke(
        _session: aiohttp.ClientSession, context: SimpleNamespace, end: aiohttp.TraceRequestExceptionParams
    ) -> None:
        seen(context, end.method, end.url, None, type(end.exception).__name__)

    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(began)
    tracing.on_request_end.append(ended)
    tracing.on_request_exception.append(broke)
    return tracing
