"""Traces: one per run, from due date to commit, across processes (docs/reference/signals.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tests.engine.world import World, in_world
from tidegate.domain.errors import ContractBroken, SourceUnavailable
from tidegate.domain.masking import Mask
from tidegate.signals.traces import Traces
from tidegate.signals.watching import watch


class Process:
    """One process that traces: what it exports is kept in memory."""

    def __init__(self, world: World) -> None:
        self.exporter = InMemorySpanExporter()
        self.traces = Traces(SimpleSpanProcessor(self.exporter), world.parts.mask, "test")
        self.parts = replace(world.parts, observe=watch([self.traces]))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()


def names(spans: Sequence[ReadableSpan]) -> list[str]:
    return sorted(span.name for span in spans)


def one(spans: Sequence[ReadableSpan], name: str) -> Any:
    (found,) = [span for span in spans if span.name == name]
    return found


def trace_ids(spans: Sequence[ReadableSpan]) -> set[int]:
    return {span.context.trace_id for span in spans if span.context}


def test_a_run_is_one_trace_from_its_due_date_to_its_commit(database_url: str) -> None:
    """SPEC 3: due date, run date and the lag between them are in it, on the engine's own clock."""

    async def story(world: World) -> None:
        await world.install()
        for number in range(5):
            world.shop.put(number, world.clock.now() - timedelta(days=1))
        process = Process(world)
        world.parts = process.parts
        world.clock.advance(hours=8, minutes=10)  # due at midnight, started at ten past
        await world.tick()
        spans = process.spans
        assert names(spans) == sorted(
            ["run", "wait", "queue", "attempt", "fetch page", "fetch page", "fetch page", "deliver batch", "commit"]
        )
        run, attempt = one(spans, "run"), one(spans, "attempt")
        assert trace_ids(spans) == {run.context.trace_id}
        assert run.parent is None
        below = {span.name for span in spans if span.parent and span.parent.span_id == run.context.span_id}
        assert below == {"wait", "queue", "attempt"}
        inside = {span.name for span in spans if span.parent and span.parent.span_id == attempt.context.span_id}
        assert inside == {"fetch page", "deliver batch", "commit"}
        assert run.attributes["tidegate.due_at"] == "2026-07-14T00:00:00Z"
        assert run.attributes["tidegate.start_lag_seconds"] == 600.0
        assert (run.attributes["tidegate.tenant"], run.attributes["tidegate.stream"]) == ("acme", "orders")
        assert run.attributes["tidegate.state"] == "succeeded"
        assert run.end_time - run.start_time == 600 * 10**9, "from the due date, in simulated time"
        assert one(spans, "deliver batch").attributes["tidegate.records.inserted"] == 5
        assert attempt.attributes["tidegate.records.read"] == 5

    in_world(database_url, story)


def test_two_processes_of_one_run_share_its_trace(database_url: str) -> None:
    """The second process was told nothing but the run: trace and root follow from its identity (SPEC 2.12)."""

    async def story(world: World) -> None:
        await world.install()
        for number in range(5):
            world.shop.put(number, world.clock.now() - timedelta(days=1))
        first, second = Process(world), Process(world)
        world.clock.advance(days=1)
        world.shop.on_page = lambda n: SourceUnavailable("The source rests.") if n == 2 else None
        world.parts = first.parts
        await world.tick()
        assert names(first.spans) == sorted(["wait", "queue", "attempt", "fetch page", "deliver batch", "commit"])
        failed = one(first.spans, "attempt")
        assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "The source rests.")
        assert failed.attributes["tidegate.outcome"] == "retrying"
        world.clock.advance(minutes=5)
        world.parts = second.parts
        await world.tick()
        assert trace_ids(first.spans) == trace_ids(second.spans)
        assert len(trace_ids(first.spans)) == 1
        root = one(second.spans, "run").context.span_id
        assert failed.parent.span_id == root == one(second.spans, "attempt").parent.span_id
        assert "wait" not in names(second.spans), "it waited for its due date once"

    in_world(database_url, story)


def test_a_run_planned_anew_has_a_trace_of_its_own(database_url: str) -> None:
    """SPEC 2.11: the same identity, another run date."""

    async def story(world: World) -> None:
        await world.install()
        process = Process(world)
        world.parts = process.parts
        world.clock.advance(days=1)
        world.shop.on_page = lambda _n: ContractBroken("No orders here.")
        await world.tick()
        assert one(process.spans, "run").attributes["tidegate.state"] == "failed"
        await world.pool.execute(
            "update runs set state = 'waiting', attempt = 0, started_at = null, finished_at = null"
        )
        world.clock.advance(minutes=1)
        world.shop.on_page = lambda _n: None
        await world.tick()
        roots = [span for span in process.spans if span.name == "run"]
        assert [span.attributes and span.attributes["tidegate.state"] for span in roots] == ["failed", "succeeded"]
        assert len(trace_ids(roots)) == 2

    in_world(database_url, story)


def test_secrets_in_errors_do_not_reach_a_span(database_url: str) -> None:
    """Whatever a source or library puts into its message."""

    async def story(world: World) -> None:
        await world.install(tenant="acme")
        world.parts.mask.learn("hunter2-hunter2")
        process = Process(world)
        world.parts = process.parts
        world.clock.advance(days=1)
        world.shop.on_page = lambda _n: ContractBroken("hunter2-hunter2 was refused; Bearer abcdef123456 too.")
        await world.tick()
        (run,) = await world.runs()
        for shown in (*(span.to_json() for span in process.spans), run["error"]):
            assert "hunter2" not in shown
            assert "abcdef123456" not in shown
        assert one(process.spans, "attempt").status.description == "*** was refused; Bearer *** too."

    in_world(database_url, story)


@pytest.mark.parametrize(("ratio", "expected"), [("0.0", 0), ("1.0", 1)])
def test_the_sampler_decides_once_for_the_whole_run(
    database_url: str, monkeypatch: pytest.MonkeyPatch, ratio: str, expected: int
) -> None:
    """OTEL_TRACES_SAMPLER: no half traces, whichever process asks."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)

    async def story(world: World) -> None:
        await world.install()
        process = Process(world)
        world.parts = process.parts
        world.clock.advance(days=1)
        await world.tick()
        assert len([span for span in process.spans if span.name == "run"]) == expected
        assert (len(process.spans) > 0) == bool(expected)

    in_world(database_url, story)


def test_an_observer_that_fails_harms_no_run(database_url: str) -> None:
    """It watches, and has no say."""

    class Broken:
        def observe(self, fact: object) -> None:
            raise RuntimeError("cannot see")

    async def story(world: World) -> None:
        chain = await world.install()
        traces = Process(world)
        world.parts = replace(world.parts, observe=watch([Broken(), traces.traces]))
        world.clock.advance(days=1)
        await world.tick()
        assert len(await world.covered(chain)) == 1
        assert one(traces.spans, "run")

    in_world(database_url, story)


def test_a_mask_knows_what_it_was_told_in_every_spelling() -> None:
    """As texts repeat it: plain, in an address, in JSON; of an address with a password, the password only."""
    mask = Mask()
    mask.learn('p@ss "w0rd"', "postgresql://user:s3cr%21t@db.example:5432/x", "abc")
    assert mask.text('a p@ss "w0rd" b p%40ss%20%22w0rd%22 c p@ss \\"w0rd\\" d') == "a *** b *** c *** d"
    assert mask.text("user s3cr%21t or s3cr!t at db.example") == "user *** or *** at db.example"
    assert mask.text("abcdef") == "abcdef", "too short to be told from ordinary text"
