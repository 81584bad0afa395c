"""Metrics: what this process has done, as counters in its own registry (docs/reference/metrics.md lists them all)."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

from tidegate.engine.observing import (
    AttemptEnded,
    AttemptStarted,
    BatchCommitted,
    BatchesSent,
    LeasesReclaimed,
    Outcome,
    PageFetched,
    SendOutcome,
    Stepped,
)
from tidegate.signals.requests import RequestSent
from tidegate.signals.watching import Seen
from tidegate.store.leases import Counts

LAG_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 86_400)
SHORT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counts the facts of one process. ``registry`` holds nothing else, and nothing global."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"tidegate_{name}", says, labels, registry=registry)

        def histogram(name: str, says: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"tidegate_{name}", says, labels, buckets=buckets, registry=registry)

        self._lag = histogram("start_lag_seconds", "Run date minus due date, per run", LAG_BUCKETS, "lane")
        self._attempts = counter("attempts", "Attempts ended", "outcome")
        self._failures = counter("attempt_failures", "Attempts that failed, by the error's code", "code")
        self._retries = counter("retries", "Failed attempts whose run is tried again", "code")
        self._at_work = Gauge("tidegate_attempts_at_work", "Runs this process has in hand", registry=registry)
        self._records_read = counter("records_read", "Records read from sources")
        self._records = counter("records", "What became of the records read", "outcome")
        self._misfits = counter("misfits", "Values kept aside because they do not fit their column")
        self._pages = counter("pages", "Pages read from sources")
        self._page_bytes = counter("page_bytes", "Bytes of records in those pages")
        self._page_seconds = histogram("page_seconds", "From asking for a page to having it", SHORT_BUCKETS)
        self._requests = counter("requests", "Requests to sources; status is a number, or error", "status")
        self._request_seconds = histogram(
            "request_seconds", "From sending a request to its reply's headers", SHORT_BUCKETS
        )
        self._batch_seconds = histogram("batch_seconds", "From rendered rows to the commit of a batch", SHORT_BUCKETS)
        self._sends = counter("sends", "Attempts to send what is in the outbox", "kind", "outcome")
        self._send_seconds = histogram("send_seconds", "From sending a batch to its answer", SHORT_BUCKETS, "kind")
        self._delivery_seconds = histogram(
            "delivery_seconds", "From the making of a batch to its acknowledgement", LAG_BUCKETS, "kind"
        )
        self._reclaimed = counter("leases_reclaimed", "Expired leases taken back by this process")
        self._lost = counter("leases_lost", "Leases of this process that others took over")
        self._steps = histogram("step_seconds", "One step of planner, dispatcher or sweeper", SHORT_BUCKETS, "loop")
        self._steps_failed = counter("steps_failed", "Steps that stumbled and are tried again", "loop")
        self._done = counter("step_items", "Schedules planned, runs queued, runs helped", "loop")

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of the registry, without the series that say when each counter was made."""
        for family in self.registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family

    def observe(self, fact: Seen) -> None:
        """Count ``fact``."""
        match fact:
            case AttemptStarted():
                self._started(fact)
            case PageFetched():
                self._pages.inc()
                self._page_bytes.inc(fact.size)
                self._page_seconds.observe((fact.ended_at - fact.began_at).total_seconds())
            case RequestSent():
                self._requests.labels(str(fact.status or "error")).inc()
                self._request_seconds.observe((fact.ended_at - fact.began_at).total_seconds())
            case BatchCommitted():
                self._batch_seconds.observe((fact.ended_at - fact.began_at).total_seconds())
                self._count(fact.counts)
            case AttemptEnded():
                self._ended(fact)
            case BatchesSent():
                self._sent(fact)
            case Stepped():
                self._stepped(fact)
            case LeasesReclaimed():
                self._reclaimed.inc(fact.count)

    def _started(self, fact: AttemptStarted) -> None:
        self._at_work.inc()
        run = fact.run
        if run.queued_at <= run.started_at:  # its first attempt
            self._lag.labels(run.lane).observe(max(0.0, (run.started_at - run.due_at).total_seconds()))

    def _count(self, counts: Counts) -> None:
        self._records_read.inc(counts.read)
        self._misfits.inc(counts.misfits)
        for outcome in ("inserted", "updated", "unchanged", "quarantined"):
            self._records.labels(outcome).inc(getattr(counts, outcome))

    def _ended(self, fact: AttemptEnded) -> None:
        self._at_work.dec()
        self._attempts.labels(fact.outcome).inc()
        if fact.error is not None:
            self._failures.labels(fact.error.code).inc()
        if fact.error is not None and fact.outcome == Outcome.RETRYING:
            self._retries.labels(fact.error.code).inc()
        if fact.outcome == Outcome.LOST:
            self._lost.inc()

    def _sent(self, fact: BatchesSent) -> None:
        self._sends.labels(fact.kind, fact.outcome).inc()
        self._send_seconds.labels(fact.kind).observe((fact.answered_at - fact.began_at).total_seconds())
        if fact.outcome is SendOutcome.ACKNOWLEDGED:
            for batch in fact.sending.batches:
                waited = (fact.answered_at - batch.created_at).total_seconds()
                self._delivery_seconds.labels(fact.kind).observe(max(0.0, waited))

    def _stepped(self, fact: Stepped) -> None:
        if fact.loop == "worker":  # a sign of life, not a step
            return
        self._steps.labels(fact.loop).observe(fact.took.total_seconds())
        self._done.labels(fact.loop).inc(fact.done)
        if fact.error is not None:
            self._steps_failed.labels(fact.loop).inc()
