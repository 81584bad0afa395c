"""What being seen costs: the fleet's queries on a big ledger, a mask that knows much, and the facts of a run.

python -m tests.signals.prove_cost [CHAINS] [RUNS]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from tidegate.domain.masking import Mask
from tidegate.domain.outgoing import Sending, SentRun, Waiting
from tidegate.domain.period import Period
from tidegate.domain.run import Lane
from tidegate.engine.observing import (
    AttemptEnded,
    AttemptStarted,
    BatchCommitted,
    BatchesSent,
    Outcome,
    PageFetched,
    RunDelivered,
    SendOutcome,
    unobserved,
)
from tidegate.signals.metrics import Metrics
from tidegate.signals.traces import Traces
from tidegate.signals.watching import Observer, watch
from tidegate.store import database, fleet, schema
from tidegate.store.embedded import EmbeddedServer
from tidegate.store.leases import Counts, LeasedRun

FILL = """
insert into tenants select 't' || n, '', now() from generate_series(1, {tenants}) n;
insert into accounts (connector, name, concurrency_limit) values ('c', 'a', 4);
insert into connections (tenant_id, name, connector, account_id, settings, sealed, fingerprint)
     select id, 'c', 'c', 1, '{{}}', '', '' from tenants;
insert into destinations (name, kind, settings, sealed, fingerprint) values ('d', 'postgresql', '{{}}', '', '');
insert into installations (tenant_id, name, connection_id, destination_id) select tenant_id, 'i', id, 1 from connections;
insert into chains (tenant_id, installation_id, workflow, stream, account_id, start_at)
     select i.tenant_id, i.id, 'sync', 's' || s, 1, now() - interval '1 year' from installations i, generate_series(1, 10) s;
insert into schedules (chain_id, rule, received_at, planned_until, next_due_at)
     select id, '{{}}', now(), now(), now() + interval '1 hour' from chains;
insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_start, period_end,
                  not_before_at)
     select c.id, c.tenant_id, 1, 'live', 'schedule', 'succeeded', e, e, e - interval '1 hour', e, e
       from chains c, generate_series(1, {each}) n, lateral (select date_trunc('hour', now()) - n * interval '1 hour' as e) p;
insert into coverage (chain_id, period_start, period_end, previous_end, kind, run_id, committed_at)
     select chain_id, period_start, period_end,
            case when row_number() over (partition by chain_id order by period_end) > 1 then period_start end,
            'covered', id, period_end
       from runs order by chain_id, period_end;
update runs set state = 'waiting', not_before_at = now() where id % 10000 = 0;
insert into destinations (name, kind, settings, sealed, fingerprint) values ('w', 'webhook', '{{}}', '', '');
insert into routes (chain_id, destination_id, whole_periods, last_position) select id, 2, false, {each} from chains;
insert into outbox (route_id, position, message_id, chain_id, tenant_id, run_id, batch, part, records, body, state, created_at,
                    settled_at)
     select t.id, row_number() over (partition by t.id order by r.id), r.id::text, r.chain_id, r.tenant_id, r.id, 1, 1, 1, '',
            case when r.id % {sparse} = 0 then 'open' when r.id % {sparse} = 1 then 'dead' else 'acknowledged' end, now(),
            case when r.id % {sparse} <> 0 then now() end
       from runs r join routes t on t.chain_id = r.chain_id;
update routes t set not_before_at = now() where exists (select from outbox where route_id = t.id and state = 'open');
analyze;
"""
SECRETS = 10_000
ROUNDS = 2_000
LINE = "GET api.example/orders answered 503. The service is busy; try again with the token that you were given. " * 2


async def ledger(chains: int, runs: int) -> None:
    """Print what the looks at the fleet take."""
    with tempfile.TemporaryDirectory(prefix="tidegate-cost-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedServer(Path(folder))
        pool = await database.open_pool(server.dsn, size=2)
        await schema.migrate(pool)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("set local synchronous_commit = off; set constraints all deferred", timeout=900)
            await connection.execute(
                FILL.format(tenants=chains // 10, each=runs // chains, sparse=max(3, runs // 1000)), timeout=900
            )
        print(f"{chains:,} streams, {runs:,} runs, {await pool.fetchval('select count(*) from coverage'):,} links")
        now = datetime.now(UTC)
        print(f"  runs in hand:     {await _median(lambda: fleet.standing(pool, now)):8.2f} ms")
        outboxes = await fleet.outboxes(pool)
        print(f"  outbox:           {await _median(lambda: fleet.outboxes(pool)):8.2f} ms: {outboxes}")
        print(f"  every stream:     {await _median(lambda: fleet.streams(pool, now, 20)):8.2f} ms")
        await _plan(pool, fleet._STANDING.replace("$1", f"'{now.isoformat()}'::timestamptz"))
        await _plan(pool, fleet._OUTBOXES)
        await pool.close()
        server.release()


async def _plan(pool: asyncpg.Pool[asyncpg.Record], statement: str) -> None:
    rows = await pool.fetch(f"explain (format text) {statement}")
    scans = [row[0].strip(" ->") for row in rows if "Scan" in row[0]]
    print("  by: " + "; ".join(scan.split("  (")[0] for scan in scans))


async def _median(ask: object) -> float:
    took = []
    for _ in range(7):
        began = time.perf_counter()
        await ask()  # type: ignore[operator]
        took.append((time.perf_counter() - began) * 1000)
    return sorted(took)[3]


class Nowhere(SpanExporter):
    """Takes spans and drops them."""

    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def facts() -> None:
    """Print what the five facts of a small run cost, by who listens."""
    mask = Mask()
    mask.learn(*(f"secret-number-{number}" for number in range(SECRETS)))
    traces = Traces(BatchSpanProcessor(Nowhere()), mask, "cost")
    listeners: dict[str, list[Observer]] = {
        "nobody": [],
        "metrics": [Metrics()],
        "metrics and traces": [Metrics(), traces],
    }
    for name, observers in listeners.items():
        tell = watch(observers) if observers else unobserved
        began = time.process_time()
        for number in range(ROUNDS):
            _small_run(tell, number)
        print(f"  facts of a run, {name + ':':20} {(time.process_time() - began) / ROUNDS * 1e6:7.1f} µs")
        began = time.process_time()
        for number in range(ROUNDS):
            _sent_batch(tell, number)
        print(f"  a batch sent,   {name + ':':20} {(time.process_time() - began) / ROUNDS * 1e6:7.1f} µs")
    traces.close()


def _small_run(tell: object, number: int) -> None:
    at = datetime(2026, 7, 13, tzinfo=UTC) + timedelta(seconds=number)
    run = LeasedRun(
        id=number, epoch=1, attempt=1, lane=Lane.LIVE, due_at=at, period=Period(at - timedelta(hours=1), at),
        coverage_start=at, chain_id=number, tenant_id="acme", account_id=1, account_name="a", rate_limit=None,
        workflow="sync", stream="orders",
        installation="sync", connection_id=1, connection_fingerprint="", destination_id=1, destination_fingerprint="",
        batch=0, checkpoint=None, bounded=False, not_before_at=at, queued_at=at, started_at=at,
    )  # fmt: skip
    assert callable(tell)
    tell(AttemptStarted(run, at))
    tell(PageFetched(run, 100, at, at))
    tell(BatchCommitted(run, 1, Counts(read=1, inserted=1), at, at, at))
    tell(AttemptEnded(run, at, Outcome.SUCCEEDED))


def _sent_batch(tell: object, number: int) -> None:
    at = datetime(2026, 7, 13, tzinfo=UTC) + timedelta(seconds=number)
    period = Period(at - timedelta(hours=1), at)
    run = SentRun(number, number, "acme", "sync", "sync", "orders", "a", Lane.LIVE, period, at, at)
    batches = (Waiting("msg_1", 1, 1, at, 0),)

    async def body(_: Waiting) -> bytes:
        return b""

    assert callable(tell)
    sending = Sending("acme", "sync", "orders", Lane.LIVE, period, batches, body, run)
    tell(BatchesSent("webhook", sending, at, at, SendOutcome.ACKNOWLEDGED, 204))
    tell(RunDelivered(run, at, Outcome.SUCCEEDED))


def masking() -> None:
    """Print what a text costs, by how much the mask knows."""
    for count in (0, 10, SECRETS):
        mask = Mask()
        mask.learn(*(f"{number:06}-secret" for number in range(count)))
        began = time.process_time()
        for _ in range(ROUNDS):
            mask.text(LINE)
        each = (time.process_time() - began) / ROUNDS * 1e6
        print(f"  {len(LINE)} characters, {count:6,} secrets known: {each:7.1f} µs")


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    facts()
    masking()
    asyncio.run(ledger(*(numbers or (100_000, 1_000_000))))
