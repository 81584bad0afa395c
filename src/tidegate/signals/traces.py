"""Traces: one per run, from its due date to commit or acknowledgement, through every process that works on it (OpenTelemetry).

Trace and root span have ids that follow from the run itself (docs/decisions/0012-signals.md), so each process hangs its
spans on the same root without being told. Spans carry the times of the engine's clock, which is the database's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from threading import Thread
from typing import TypeAlias

import structlog
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from tidegate.domain.errors import TidegateError
from tidegate.domain.instant import render_instant
from tidegate.domain.masking import Mask
from tidegate.domain.outgoing import SentRun
from tidegate.engine.observing import (
    AttemptEnded,
    AttemptStarted,
    BatchCommitted,
    BatchesSent,
    Outcome,
    PageFetched,
    RunDelivered,
    SendOutcome,
)
from tidegate.signals.requests import RequestSent, current_run
from tidegate.signals.watching import Seen
from tidegate.store.leases import LeasedRun

FLUSH_SECONDS = 5.0
"""How long the end of a process waits for the collector to take the last spans."""
ENDS = frozenset({Outcome.SUCCEEDED, Outcome.UNPROVEN, Outcome.FAILED})
Attributes = Mapping[str, str | int | float | bool]
Named: TypeAlias = LeasedRun | SentRun
"""A run by all that its trace depends on."""


@dataclass(slots=True)
class _Attempt:
    """An attempt under way, and what its batches have delivered so far."""

    span: Span
    inside: Context
    counts: dict[str, int] = field(default_factory=dict)


class _Ids(RandomIdGenerator):
    """Random ids, but for the one root span that is being made."""

    root: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        return self.root[0] if self.root else super().generate_trace_id()

    def generate_span_id(self) -> int:
        return self.root[1] if self.root else super().generate_span_id()


class Traces:
    """Makes spans of facts. ``processor`` exports them; `close` sends what it still holds."""

    def __init__(self, processor: SpanProcessor, mask: Mask, worker: str) -> None:
        self._ids = _Ids()
        self._provider = TracerProvider(
            resource=_resource(worker), id_generator=self._ids, shutdown_on_exit=False
        )  # the sampler is that of OTEL_TRACES_SAMPLER
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("tidegate", version("tidegate"))
        self._mask = mask
        self._attempts: dict[tuple[int, int], _Attempt] = {}

    def observe(self, fact: Seen) -> None:
        """Begin, or end, the span that ``fact`` tells of."""
        match fact:
            case AttemptStarted():
                self._started(fact)
            case PageFetched():
                self._page(fact)
            case RequestSent():
                self._request(fact)
            case BatchCommitted():
                self._batch(fact)
            case AttemptEnded():
                self._ended(fact)
            case BatchesSent():
                self._sent(fact)
            case RunDelivered():
                self._run(fact.run, fact.outcome, fact.at)
            case _:
                pass

    def close(self) -> None:
        """Send the spans that wait, for five seconds at most."""
        flushing = Thread(target=self._provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)

    def _started(self, fact: AttemptStarted) -> None:
        run = fact.run
        root = self._root(run)
        if run.queued_at <= run.started_at:  # its first attempt
            self._span("wait", run.due_at, run.queued_at, root, {"tidegate.not_before_at": _at(run.not_before_at)})
        self._span("queue", run.queued_at, fact.at, root, {"tidegate.epoch": run.epoch})
        described = {**_described(run), "tidegate.attempt": run.attempt, "tidegate.epoch": run.epoch}
        span = self._begin("attempt", fact.at, root, described)
        self._attempts[run.id, run.epoch] = _Attempt(span, set_span_in_context(span, Context()))
        current_run.set(run)
        structlog.contextvars.bind_contextvars(trace_id=f"{trace_id_of(run):032x}")

    def _page(self, fact: PageFetched) -> None:
        self._child(fact.run, "fetch page", fact.began_at, fact.ended_at, {"tidegate.page.bytes": fact.size})

    def _request(self, fact: RequestSent) -> None:
        if fact.run is None:
            return
        attributes: dict[str, str | int] = {
            "http.request.method": fact.method,
            "server.address": fact.host,
            "url.path": self._mask.text(fact.path),
        }
        wrong = fact.error or ("" if fact.status is None or fact.status < 400 else str(fact.status))
        if fact.status is not None:
            attributes["http.response.status_code"] = fact.status
        if wrong:
            attributes["error.type"] = wrong
        self._child(fact.run, fact.method, fact.began_at, fact.ended_at, attributes, kind=SpanKind.CLIENT, wrong=wrong)

    def _batch(self, fact: BatchCommitted) -> None:
        counts = {
            "read": fact.counts.read, "inserted": fact.counts.inserted, "updated": fact.counts.updated,
            "unchanged": fact.counts.unchanged, "misfits": fact.counts.misfits, "quarantined": fact.counts.quarantined,
        }  # fmt: skip
        attributes = {"tidegate.batch": fact.batch, **{f"tidegate.records.{name}": n for name, n in counts.items()}}
        if counts["read"]:
            self._child(fact.run, "deliver batch", fact.began_at, fact.written_at, attributes)
        self._child(fact.run, "commit", fact.written_at, fact.ended_at, {"tidegate.batch": fact.batch})
        if attempt := self._attempts.get((fact.run.id, fact.run.epoch)):
            attempt.counts = {name: attempt.counts.get(name, 0) + n for name, n in counts.items()}

    def _ended(self, fact: AttemptEnded) -> None:
        run = fact.run
        attempt = self._attempts.pop((run.id, run.epoch), None)
        if attempt is None:
            return
        attempt.span.set_attribute("tidegate.outcome", fact.outcome)
        attempt.span.set_attributes({f"tidegate.records.{name}": n for name, n in attempt.counts.items()})
        if fact.retry_in is not None:
            attempt.span.set_attribute("tidegate.retry_in_seconds", fact.retry_in.total_seconds())
        self._fail(attempt.span, fact.error, fact.at)
        attempt.span.end(_ns(fact.at))
        if fact.outcome in ENDS:
            self._run(run, fact.outcome, fact.at, fact.error)

    def _sent(self, fact: BatchesSent) -> None:
        run, batches = fact.sending.run, fact.sending.batches
        if run is None:
            return
        root = self._root(run)
        if first := [batch.created_at for batch in batches if not batch.attempts]:
            self._span("outbox", min(first), fact.began_at, root, {"tidegate.batches": len(first)})
        attributes: dict[str, str | int | float] = {
            "tidegate.destination.kind": fact.kind,
            "tidegate.batches": len(batches),
            "tidegate.records.sent": sum(batch.records for batch in batches),
            "tidegate.attempt": batches[0].attempts + 1,
            "tidegate.outcome": fact.outcome,
        }
        if len(batches) == 1:
            attributes["tidegate.message_id"] = batches[0].message_id
        if fact.status is not None:
            attributes["http.response.status_code"] = fact.status
        if fact.retry_in is not None:
            attributes["tidegate.retry_in_seconds"] = fact.retry_in.total_seconds()
        wrong = "" if fact.outcome is SendOutcome.ACKNOWLEDGED else self._mask.text(fact.wrong)
        if wrong:
            attributes["error.type"] = str(fact.status or "no_answer")
        self._span("send batch", fact.began_at, fact.answered_at, root, attributes, kind=SpanKind.CLIENT, wrong=wrong)

    def _run(self, run: Named, state: Outcome, at: datetime, error: TidegateError | None = None) -> None:
        """Make the root span, of which all others have known the id."""
        self._ids.root = (trace_id_of(run), _root_id_of(run))
        try:
            attributes = {**_described(run), "tidegate.state": str(state)}
            began_at = min(run.due_at, run.started_at)
            span = self._begin("run", began_at, Context(), attributes)
        finally:
            self._ids.root = None
        self._fail(span, error, at)
        span.end(_ns(at))

    def _fail(self, span: Span, error: TidegateError | None, at: datetime) -> None:
        if error is None:
            return
        message = self._mask.text(error.message)
        attributes = {"exception.type": error.code, "exception.message": message}
        span.add_event("exception", attributes, timestamp=_ns(at))
        span.set_attribute("error.type", error.code)
        span.set_status(Status(StatusCode.ERROR, message))

    def _root(self, run: Named) -> Context:
        """Return the context of a run's root span, sampled or not as every process will find."""
        trace_id = trace_id_of(run)
        decision = self._provider.sampler.should_sample(None, trace_id, "run").decision
        flags = TraceFlags(TraceFlags.SAMPLED if decision == Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT)
        there = SpanContext(trace_id, _root_id_of(run), is_remote=True, trace_flags=flags)
        return set_span_in_context(NonRecordingSpan(there), Context())

    def _child(
        self, run: LeasedRun, name: str, began_at: datetime, ended_at: datetime, attributes: Attributes,
        *, kind: SpanKind = SpanKind.INTERNAL, wrong: str = "",
    ) -> None:  # fmt: skip
        if attempt := self._attempts.get((run.id, run.epoch)):
            self._span(name, began_at, ended_at, attempt.inside, attributes, kind=kind, wrong=wrong)

    def _span(
        self, name: str, began_at: datetime, ended_at: datetime, inside: Context, attributes: Attributes,
        *, kind: SpanKind = SpanKind.INTERNAL, wrong: str = "",
    ) -> None:  # fmt: skip
        span = self._begin(name, min(began_at, ended_at), inside, attributes, kind)
        if wrong:
            span.set_status(Status(StatusCode.ERROR, wrong))
        span.end(_ns(ended_at))

    def _begin(
        self, name: str, at: datetime, inside: Context, attributes: Attributes, kind: SpanKind = SpanKind.INTERNAL
    ) -> Span:
        return self._tracer.start_span(name, inside, kind, attributes, start_time=_ns(at))


def trace_id_of(run: Named) -> int:
    """Return the trace id that every process gives a run: its identity (SPEC 2.12) and its run date decide it.

    A run that ended without covering and is planned anew has another run date, and so a trace of its own.
    """
    return int.from_bytes(_digest(run)[:16])


def _root_id_of(run: Named) -> int:
    return int.from_bytes(_digest(run)[16:24])


def _digest(run: Named) -> bytes:
    identity = (run.chain_id, run.lane, run.period.end.isoformat(), run.started_at.isoformat())
    return hashlib.sha256("/".join(map(str, identity)).encode()).digest()


def _described(run: Named) -> dict[str, str | int | float]:
    return {
        "tidegate.tenant": run.tenant_id,
        "tidegate.installation": run.installation,
        "tidegate.workflow": run.workflow,
        "tidegate.stream": run.stream,
        "tidegate.chain_id": run.chain_id,
        "tidegate.account": run.account_name,
        "tidegate.lane": str(run.lane),
        "tidegate.run_id": run.id,
        "tidegate.period.start": _at(run.period.start),
        "tidegate.period.end": _at(run.period.end),
        "tidegate.due_at": _at(run.due_at),
        "tidegate.started_at": _at(run.started_at),
        "tidegate.start_lag_seconds": (run.started_at - run.due_at).total_seconds(),
    }


def _at(instant: datetime) -> str:
    return render_instant(instant)


def _ns(instant: datetime) -> int:
    """Return nanoseconds since 1970, exactly: a float holds no microseconds of today."""
    return int(instant.timestamp()) * 1_000_000_000 + instant.microsecond * 1000


def _resource(worker: str) -> Resource:
    """Return what the process is; the standard OTEL_ variables have the last word."""
    ours = Resource({"service.name": "tidegate", "service.version": version("tidegate"), "service.instance.id": worker})
    return Resource.create().merge(ours).merge(OTELResourceDetector().detect())
