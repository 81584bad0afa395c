"""Gauges: where the whole fleet stands, read from the database when somebody asks, and not more often than it bears."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import asyncpg
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from tidegate.engine.parts import Parts
from tidegate.store import fleet
from tidegate.store.fleet import Outbox, Standing, Streams

log = structlog.get_logger()

STANDING_AGE = timedelta(seconds=3)
"""How old a look at the runs in hand may be before another one is taken; of all streams, at least the next."""
STREAMS_AGE = timedelta(seconds=15)
SHARE = 50
"""A look that may take long is repeated after this many times the time it took: 2 % of one connection at most."""
MOST_STALE = 20
"""Streams that are named with their staleness: the stalest. A series for each would drown the one that matters."""
PATIENCE_SECONDS = 60.0
Found = TypeVar("Found")


class FleetGauges:
    """Collects what `look` has seen last. Without a database it shows nothing but that it could not look."""

    def __init__(self, parts: Parts, registry: CollectorRegistry, most_stale: int = MOST_STALE) -> None:
        self._parts = parts
        self._most_stale = most_stale
        self._standing: Standing | None = None
        self._outboxes: Sequence[Outbox] | None = None
        self._streams: Streams | None = None
        self._looked_at = datetime.min.replace(tzinfo=parts.clock.now().tzinfo)
        self._streams_again_at = self._outboxes_again_at = self._looked_at
        self._seen = True
        self._looking: asyncio.Task[None] | None = None
        registry.register(self)

    async def look(self) -> None:
        """Look at the database, unless what is known is fresh enough; nobody waits for the long look at every stream."""
        now = self._parts.clock.now()
        if now - self._looked_at < STANDING_AGE:
            return
        self._looked_at = now
        self._standing = await self._seen_of(fleet.standing(self._parts.pool, now))
        self._seen = self._standing is not None
        if now >= self._outboxes_again_at:
            self._outboxes = await self._seen_of(fleet.outboxes(self._parts.pool))
            self._outboxes_again_at = now + SHARE * (self._parts.clock.now() - now)
        if now >= self._streams_again_at and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look_at_streams(now))

    async def looked(self) -> None:
        """Return once the look at every stream that is under way has ended."""
        if self._looking is not None:
            await asyncio.wait({self._looking})

    async def close(self) -> None:
        """Break off a look that is under way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look_at_streams(self, now: datetime) -> None:
        self._streams = await self._seen_of(fleet.streams(self._parts.pool, now, self._most_stale))
        took = self._parts.clock.now() - now
        self._streams_again_at = now + max(STREAMS_AGE, SHARE * took)

    async def _seen_of(self, asking: Awaitable[Found]) -> Found | None:
        """Return what is asked for, None if the database does not tell."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asking
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("fleet not seen", error=f"{type(error).__name__}: {error}")
            return None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges as of the last look."""
        now = self._parts.clock.now()
        yield _gauge("fleet_seen", "1 if the last look at the database succeeded, else 0", float(self._seen))
        yield from self._of_the_pool()
        if self._standing is not None:
            yield from _of_runs(self._standing, now)
        if self._outboxes is not None:
            yield from _of_outboxes(self._outboxes, now)
        if self._streams is not None:
            yield from _of_streams(self._streams, now)

    def _of_the_pool(self) -> Iterator[GaugeMetricFamily]:
        pools = self._parts.pools
        idle, size = sum(pool.get_idle_size() for pool in pools), sum(pool.get_size() for pool in pools)
        uses = {"in_use": size - idle, "idle": idle, "unopened": sum(pool.get_max_size() for pool in pools) - size}
        yield _gauges("pool_connections", "This process's connections to the database", "use", uses)


def _of_runs(standing: Standing, now: datetime) -> Iterator[GaugeMetricFamily]:
    states = {name: getattr(standing, name) for name in ("waiting", "queued", "running", "retrying", "delivering")}
    yield _gauges("runs", "Runs that have not ended", "state", states)
    yield _gauge("runs_ready", "Runs whose planned run date has come and that are not queued yet", standing.ready)
    yield _gauge(
        "oldest_ready_seconds", "How long the oldest of them has been ready", _age(standing.oldest_ready_at, now)
    )
    yield _gauge(
        "oldest_queued_seconds",
        "How long the oldest queued run waits for a worker",
        _age(standing.oldest_queued_at, now),
    )
    yield _gauge(
        "schedules_overdue", "Schedules whose due date has passed and is not planned yet", standing.overdue_schedules
    )
    yield _gauge(
        "oldest_overdue_seconds", "How long ago the oldest of these due dates passed", _age(standing.oldest_due_at, now)
    )
    yield _gauge(
        "leases_expired", "Runs whose worker has fallen silent and that nobody has taken over", standing.expired_leases
    )
    yield _gauge("queue_jobs", "Jobs in the queue: nudges, one per queued or running run", standing.jobs)
    yield _gauge(
        "queue_jobs_orphaned", "Jobs whose consumer has shown no sign of life for a minute", standing.orphaned_jobs
    )


def _of_outboxes(outboxes: Sequence[Outbox], now: datetime) -> Iterator[GaugeMetricFamily]:
    batches = GaugeMetricFamily(
        "tidegate_outbox_batches",
        "Batches that are not acknowledged: open or in the dead letter",
        labels=("kind", "state"),
    )
    oldest = GaugeMetricFamily(
        "tidegate_outbox_oldest_seconds", "How long ago the oldest open batch was made", labels=("kind",)
    )
    for each in outboxes:
        batches.add_metric((each.kind, "open"), each.open)
        batches.add_metric((each.kind, "dead"), each.dead)
        oldest.add_metric((each.kind,), _age(each.oldest_at, now))
    yield from (batches, oldest)


def _of_streams(streams: Streams, now: datetime) -> Iterator[GaugeMetricFamily]:
    yield _gauges("streams", "Streams with a schedule", "state", {"planned": streams.planned, "paused": streams.paused})
    says = "Now minus watermark (or start) of the stalest planned streams"
    stale = GaugeMetricFamily("tidegate_staleness_seconds", says, labels=("tenant", "installation", "stream"))
    for each in streams.stalest:
        stale.add_metric((each.tenant_id, each.installation, each.stream), _age(each.covered_to, now))
    yield stale


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def _gauge(name: str, says: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tidegate_{name}", says, value=value)


def _gauges(name: str, says: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"tidegate_{name}", says, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
