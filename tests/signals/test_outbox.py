"""What is sent from the outbox is seen: in the trace of its run, and in metrics by kind of destination (SPEC 5)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from opentelemetry.trace import SpanKind, StatusCode

from tests.destinations.webhook.receiver import receiving
from tests.destinations.webhook.world import Sending, in_sending
from tests.signals.test_metrics import Scraped
from tests.signals.test_traces import Process, names, one, trace_ids
from tidegate import bootstrap
from tidegate.domain.clock import Clock
from tidegate.domain.outgoing import TO_RECEIVER
from tidegate.engine.commands.messages import drop
from tidegate.signals.requests import RequestSent, watched_requests
from tidegate.signals.watching import watch
from tidegate.store import fleet
from tidegate.store.messages import Choice


def utc(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 7, day, hour, minute, tzinfo=UTC)


async def prepared(sending: Sending, **settings: Any) -> int:
    """Install a sync of orders into the receiver, with three of them due on the 14th at midnight."""
    chain = await sending.install(**settings)
    for number in range(3):
        sending.world.shop.put(number, utc(13, 10))
    sending.world.clock.set(utc(14, 0, 10))
    return chain


def test_the_trace_of_a_run_ends_when_its_batches_are_acknowledged(database_url: str) -> None:
    """From due date to acknowledgement, in another process than the worker's, which knows nothing but the run."""

    async def story(sending: Sending) -> None:
        await prepared(sending)
        sending.receiver.answer = lambda n: (503 if n == 1 else 204, {}, "later")
        worker, sender = Process(sending.world), Process(sending.world)
        calm = sending.world.parts
        sending.world.parts = worker.parts
        await sending.world.tick()
        assert "run" not in names(worker.spans), "it has not ended: nothing is acknowledged yet"
        assert one(worker.spans, "attempt").attributes["tidegate.outcome"] == "delivering"
        sending.world.parts = replace(sender.parts, mask=calm.mask)
        sending.world.clock.set(utc(14, 0, 11))
        await sending.send()
        sending.world.clock.set(utc(14, 1))
        await sending.send()
        assert names(sender.spans) == ["outbox", "run", "send batch", "send batch"]
        assert trace_ids(sender.spans) == trace_ids(worker.spans)
        run, outbox = one(sender.spans, "run"), one(sender.spans, "outbox")
        assert one(worker.spans, "attempt").parent.span_id == run.context.span_id
        assert {span.parent.span_id for span in sender.spans if span.parent} == {run.context.span_id}
        assert run.attributes["tidegate.state"] == "succeeded"
        assert run.attributes["tidegate.start_lag_seconds"] == 600.0
        assert run.end_time - run.start_time == 3600 * 10**9, "from midnight to the acknowledgement at one"
        assert outbox.end_time - outbox.start_time == 60 * 10**9
        first, second = (span for span in sender.spans if span.name == "send batch")
        (row,) = await sending.outbox()
        assert first.kind is SpanKind.CLIENT
        assert (first.attributes or {}) == {
            "tidegate.destination.kind": "webhook", "tidegate.batches": 1, "tidegate.records.sent": 3, "tidegate.attempt": 1,
            "tidegate.outcome": "retrying", "tidegate.message_id": row["message_id"], "http.response.status_code": 503,
            "tidegate.retry_in_seconds": (first.attributes or {})["tidegate.retry_in_seconds"], "error.type": "503",
        }  # fmt: skip
        assert (first.status.status_code, first.status.description) == (
            StatusCode.ERROR, "The receiver answered 503. later",
        )  # fmt: skip
        told = second.attributes or {}
        assert (told["tidegate.outcome"], told["tidegate.attempt"], second.status.status_code) == (
            "acknowledged", 2, StatusCode.UNSET,
        )  # fmt: skip

    in_sending(database_url, story)


def test_a_run_that_the_chain_refuses_at_the_end_has_a_trace_too(database_url: str) -> None:
    """It failed, and its trace says so."""

    async def story(sending: Sending) -> None:
        chain = await prepared(sending)
        process = Process(sending.world)
        sending.world.parts = process.parts
        await sending.world.tick()
        await sending.pool.execute(
            """insert into coverage (chain_id, period_start, period_end, kind, reason, committed_at)
               values ($1, $2, $3, 'waived', 'by hand', now())""",
            chain, utc(1), utc(14),
        )  # fmt: skip
        await sending.send()
        assert one(process.spans, "run").attributes["tidegate.state"] == "failed"

    in_sending(database_url, story)


def test_attempts_are_counted_by_outcome_and_kind(database_url: str, tmp_path: Path) -> None:
    """And how long a send takes, and how long it was from the making of a batch to its acknowledgement."""

    async def story(sending: Sending) -> None:
        await prepared(sending)
        scraped = Scraped(sending.world)
        sending.receiver.answer = lambda n: ({1: 503, 2: 400}.get(n, 204), {}, "")
        await sending.tick()
        seen = await scraped.samples()
        assert seen["sends_total,kind=webhook,outcome=retrying"] == 1
        assert (seen["outbox_batches,kind=webhook,state=open"], seen["outbox_oldest_seconds,kind=webhook"]) == (1, 0)
        assert seen["runs,state=delivering"] == 1, "it has not ended"
        sending.world.clock.set(utc(14, 2))
        seen = await scraped.samples()
        assert seen["outbox_oldest_seconds,kind=webhook"] == 110 * 60
        await sending.tick()
        sending.world.clock.advance(minutes=1)
        seen = await scraped.samples()
        assert seen["sends_total,kind=webhook,outcome=dead"] == 1
        assert (seen["outbox_batches,kind=webhook,state=dead"], seen["outbox_oldest_seconds,kind=webhook"]) == (1, 0)
        assert "delivery_seconds_count,kind=webhook" not in seen, "nothing was acknowledged"
        await drop(sending.world.parts, Choice(ids=[(await sending.outbox())[0]["message_id"]]), "not wanted")
        sending.world.clock.advance(minutes=1)
        assert "outbox_batches,kind=webhook,state=dead" not in await scraped.samples(), "nobody has to look any more"
        await sending.configure("files", {"root": str(tmp_path)}, {})
        sending.world.shop.put(9, utc(14, 10))
        sending.world.clock.set(utc(15, 1))
        await sending.world.tick()
        sending.world.clock.advance(seconds=30)
        await sending.send()
        seen = await scraped.samples()
        assert seen["sends_total,kind=files,outcome=acknowledged"] == 1
        assert (seen["send_seconds_count,kind=files"], seen["delivery_seconds_sum,kind=files"]) == (1, 30)
        assert seen["send_seconds_count,kind=webhook"] == 2

    in_sending(database_url, story)


def test_a_message_is_no_request_to_a_source(database_url: str) -> None:
    """`requests_total` is about sources: what is sent from the outbox has counters of its own."""

    async def story(sending: Sending) -> None:
        told: list[RequestSent] = []
        clock: Clock = sending.world.clock
        watched = watched_requests(told.append, clock)
        async with aiohttp.ClientSession(trace_configs=[watched]) as session, receiving(clock.now) as other:
            await session.get(other.url)
            await session.get(other.url, trace_request_ctx=TO_RECEIVER)
            assert len(told) == 1
            parts = sending.world.parts
            opening = partial(bootstrap.open_destination, parts.pool, session, parts.clock)
            sending.world.parts = replace(parts, open_destination=opening)
            await prepared(sending)
            await sending.tick()
            assert len(sending.receiver.received) == 1
            assert len(told) == 1

    in_sending(database_url, story)


async def plan(pool: asyncpg.Pool[asyncpg.Record], statement: str) -> str:
    """Return the plan of a statement over tables as large as they are."""
    return "\n".join(row[0] for row in await pool.fetch(f"explain {statement}"))


def test_the_look_at_the_outbox_reads_no_acknowledged_batch(database_url: str) -> None:
    """However many there are: partial indexes find those that are open or dead, and the routes that are awake."""

    async def story(sending: Sending) -> None:
        await prepared(sending)
        sending.receiver.answer = lambda _n: (400, {}, "")
        await sending.tick()
        await sending.pool.execute(
            """insert into outbox (route_id, position, message_id, chain_id, tenant_id, run_id, batch, part, records, body, state,
                                   created_at, settled_at)
               select route_id, 1000 + n, n::text, chain_id, tenant_id, run_id, 1000 + n, 1, 1, '', 'acknowledged', now(), now()
                 from outbox, generate_series(1, 20000) n"""
        )
        await sending.pool.execute(
            """insert into chains (tenant_id, installation_id, workflow, stream, account_id, start_at)
               select tenant_id, installation_id, workflow, n::text, account_id, start_at
                 from chains, generate_series(1, 5000) n"""
        )
        await sending.pool.execute(
            """insert into routes (chain_id, destination_id, whole_periods)
               select c.id, d.id, false from chains c, destinations d on conflict do nothing"""
        )
        await sending.pool.execute("vacuum analyze outbox")
        await sending.pool.execute("vacuum analyze routes")
        planned = await plan(sending.pool, fleet._OUTBOXES)
        assert "Seq Scan on outbox" not in planned
        assert "Seq Scan on routes" not in planned
        assert await fleet.outboxes(sending.pool) == [fleet.Outbox("webhook", 0, None, 1)]

    in_sending(database_url, story)


def test_an_observer_that_fails_harms_no_delivery(database_url: str) -> None:
    """It watches, and has no say."""

    class Broken:
        def observe(self, fact: object) -> None:
            raise RuntimeError("cannot see")

    async def story(sending: Sending) -> None:
        chain = await prepared(sending)
        sending.world.parts = replace(sending.world.parts, observe=watch([Broken()]))
        await sending.tick()
        assert len(await sending.world.covered(chain)) == 1

    in_sending(database_url, story)
