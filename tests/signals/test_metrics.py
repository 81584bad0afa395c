"""Metrics and health: what operators scrape (docs/reference/metrics.md)."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.conftest import CommandLine
from tests.cli.orders_api import OrdersApi
from tests.cli.test_commands import make_due
from tests.cli.test_processes import started, wait_for
from tests.engine.world import World, in_world
from tidegate.domain.errors import InvalidInput, RateLimited
from tidegate.engine.engine import Engine
from tidegate.signals.gauges import FleetGauges
from tidegate.signals.metrics import Metrics
from tidegate.signals.probes import Probes, served
from tidegate.signals.watching import watch
from tidegate.store import fleet

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def samples(text: str) -> dict[str, float]:
    """Return every sample by name and labels, as Prometheus' own parser reads them."""
    return {
        each.name.removeprefix("tidegate_")
        + "".join(f",{key}={value}" for key, value in sorted(each.labels.items())): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


class Scraped:
    """A process that is watched, and what a scrape of it shows."""

    def __init__(self, world: World) -> None:
        self.probes = Probes()
        world.parts = replace(world.parts, observe=watch(self.probes.observers))
        self._gauges = FleetGauges(world.parts, self.probes.metrics.registry)

    async def text(self) -> str:
        await self._gauges.look()
        await self._gauges.looked()
        return (await self.probes.text(self._gauges)).decode()

    async def samples(self) -> dict[str, float]:
        return samples(await self.text())


def test_what_a_run_does_is_counted(database_url: str) -> None:
    """SPEC 3, 5: lag, records and what became of them, pages, batches."""

    async def story(world: World) -> None:
        await world.install()
        scraped = Scraped(world)
        for number in range(5):
            world.shop.put(number, world.clock.now() - timedelta(days=1))
        world.clock.advance(hours=8, minutes=10)
        await world.tick()
        seen = await scraped.samples()
        assert seen["start_lag_seconds_sum,lane=live"] == 600.0
        assert seen["start_lag_seconds_count,lane=live"] == 1
        assert seen["attempts_total,outcome=succeeded"] == 1
        assert seen["attempts_at_work"] == 0
        assert (seen["records_read_total"], seen["records_total,outcome=inserted"]) == (5, 5)
        assert (seen["pages_total"], seen["batch_seconds_count"]) == (3, 1)
        assert seen["fleet_seen"] == 1
        assert seen["runs,state=running"] == 0
        assert seen["streams,state=planned"] == 1
        assert seen["staleness_seconds,installation=sync,stream=orders,tenant=acme"] == 600.0

    in_world(database_url, story)


def test_failures_and_retries_are_counted_by_code_and_lag_once(database_url: str) -> None:
    """A source that throttles shows as `rate_limited`; the run's second attempt has no lag of its own."""

    async def story(world: World) -> None:
        await world.install()
        scraped = Scraped(world)
        world.shop.on_page = lambda n: RateLimited("slow down", retry_after_seconds=30) if n == 1 else None
        world.clock.advance(days=1)
        await world.tick()
        seen = await scraped.samples()
        assert seen["retries_total,code=rate_limited"] == seen["attempt_failures_total,code=rate_limited"] == 1
        assert seen["runs,state=retrying"] == 1
        world.clock.advance(hours=1)
        await world.tick()
        seen = await scraped.samples()
        assert seen["attempts_total,outcome=retrying"] == seen["attempts_total,outcome=succeeded"] == 1
        assert seen["start_lag_seconds_count,lane=live"] == 1

    in_world(database_url, story)


def test_what_stands_still_shows_with_its_age(database_url: str) -> None:
    """No planner, then no worker, then a dead one: each has a gauge of its own."""

    async def story(world: World) -> None:
        await world.install()
        world.clock.advance(days=1)  # due at midnight, eight hours later
        found = await fleet.standing(world.pool, world.clock.now())
        assert (found.overdue_schedules, found.oldest_due_at) == (1, world.clock.now().replace(hour=0))
        world.shop.on_page = lambda _n: RateLimited("slow down", retry_after_seconds=30)
        await world.tick()
        world.clock.advance(minutes=5)
        found = await fleet.standing(world.pool, world.clock.now())
        assert (found.overdue_schedules, found.retrying, found.ready) == (0, 1, 1)
        await world.pool.execute("update runs set state = 'queued', queued_at = $1", world.clock.now())
        await world.pool.execute("update runs set state = 'running', lease_until = $1", world.clock.now())
        world.clock.advance(minutes=1)
        found = await fleet.standing(world.pool, world.clock.now())
        assert (found.running, found.expired_leases) == (1, 1)

    in_world(database_url, story)


def test_the_stalest_streams_are_named_and_no_more(database_url: str) -> None:
    """The number of series is bounded, whatever the number of tenants; a paused stream pages nobody."""

    async def story(world: World) -> None:
        for number in range(5):
            await world.install(tenant=f"t{number}")
        await world.pool.execute("update chains set start_at = start_at - interval '1 day' where tenant_id = 't3'")
        await world.pool.execute(
            "update schedules set paused_at = now() where chain_id = (select id from chains where tenant_id = 't0')"
        )
        found = await fleet.streams(world.pool, world.clock.now(), 2)
        assert (found.planned, found.paused) == (4, 1)
        assert found.stalest[0].tenant_id == "t3"
        assert len(found.stalest) == 2
        assert (await fleet.streams(world.pool, world.clock.now() - timedelta(days=999), 2)).planned == 4

    in_world(database_url, story)


def test_a_look_is_not_repeated_before_its_time(database_url: str) -> None:
    """Ten scrapers do not cost ten looks; a database that is away shows as not seen, and nothing stale is shown."""

    async def story(world: World) -> None:
        await world.install()
        metrics = Metrics()
        gauges = FleetGauges(world.parts, metrics.registry)
        await gauges.look()
        await gauges.looked()
        before = [family.name for family in gauges.collect()]
        assert "tidegate_runs" in before
        await world.pool.execute("alter table runs rename to runs_gone")
        await gauges.look()
        assert [family.name for family in gauges.collect()] == before, "still fresh"
        world.clock.advance(seconds=5)
        await gauges.look()
        await gauges.looked()
        await world.pool.execute("alter table runs_gone rename to runs")
        shown = {family.name: family.samples[0].value for family in gauges.collect() if family.samples}
        assert shown["tidegate_fleet_seen"] == 0
        assert "tidegate_runs" not in shown

    in_world(database_url, story)


def test_the_page_lists_every_metric_with_its_type_and_labels(database_url: str) -> None:
    """docs/reference/metrics.md and the code say the same, in both directions."""
    listed = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(
            r"^\| `(\w+)` \| (counter|gauge|histogram) \| (.*?) \|", PAGE.read_text(), re.M
        )
    }

    async def story(world: World) -> str:
        await world.install()
        scraped = Scraped(world)
        world.clock.advance(days=1)
        await world.tick()
        return await scraped.text()

    text = in_world(database_url, story)
    there = dict(re.findall(r"^# TYPE tidegate_(\w+) (\w+)$", text, re.M))
    assert {name: kind for name, (kind, _) in listed.items()} == there
    declared = {each._name: each._labelnames for each in _declared(Metrics())}
    for name, (_, labels) in listed.items():
        bare = f"tidegate_{name.removesuffix('_total')}"
        if bare in declared:
            assert declared[bare] == labels, name


def _declared(metrics: Metrics) -> list[Any]:
    return [each for each in vars(metrics).values() if hasattr(each, "_labelnames")]


def get(port: object, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def test_a_worker_serves_metrics_and_health_on_its_port(cli: CommandLine, api: OrdersApi) -> None:
    """The real process: requests counted by status, ready only while the database answers and it does not stop."""
    cli.apply()
    make_due(cli)
    with started(cli, "worker", "--metrics-port", "0") as process:
        port = wait_for(process, "up")["metrics_port"]
        assert get(port, "/healthz") == (200, '{"alive": true}')
        seen: dict[str, float] = {}
        for _ in range(200):
            status, text = get(port, "/metrics")
            seen = samples(text)
            if seen.get("attempts_total,outcome=succeeded"):
                break
        # three pages, each of them twice: `after=20` behind the orders 1 to 20 may be a place
        assert (status, seen["requests_total,status=200"], seen["records_total,outcome=inserted"]) == (200, 6, 45)
        assert "s3cr3t-token" not in text
        assert get(port, "/readyz") == (200, '{"ready": true, "wrong": {}}')
        assert get(port, "/nothing")[0] == 404


def test_not_ready_without_a_database_or_without_life(database_url: str) -> None:
    """`/readyz` names what is wrong, and is well again when it is."""

    async def story(world: World) -> None:
        probes = Probes()
        world.parts = replace(world.parts, observe=watch(probes.observers))
        async with served(probes, world.parts, "127.0.0.1", 0) as port:

            async def ready() -> tuple[int, Any]:
                status, text = await asyncio.to_thread(get, port, "/readyz")
                return status, json.loads(text)["wrong"]

            assert await ready() == (503, {"engine": "has not begun"})
            engine = Engine(world.parts)
            working = asyncio.create_task(engine.run())
            while {"planner", "dispatcher", "sweeper", "worker"} - probes.pulse.loops:
                await asyncio.sleep(0.01)
            assert await ready() == (200, {})
            probes.stopping = True
            assert await ready() == (503, {"engine": "is stopping"})
            probes.stopping = False
            engine.stop()
            world.clock.advance(seconds=30)
            await working
            world.clock.advance(minutes=5)
            status, wrong = await ready()
            assert status == 503
            assert set(wrong) >= {"planner", "dispatcher", "sweeper", "worker"}
            assert "retention" not in wrong, "its next step is an hour away"
            connections = [world.pool.acquire() for _ in range(12)]
            held = [await each for each in connections]
            assert "database" in (await ready())[1], "the pool is exhausted: it cannot work"
            for each in held:
                await world.pool.release(each)

    in_world(database_url, story)


def test_a_port_that_is_taken_is_refused_with_2(database_url: str, cli: CommandLine) -> None:
    """SPEC 8: bad input, not a traceback."""

    async def story(world: World) -> None:
        async with served(Probes(), world.parts, "127.0.0.1", 0) as port:
            with pytest.raises(InvalidInput, match="cannot be listened at"):
                async with served(Probes(), world.parts, "127.0.0.1", port):
                    pass
            refused = await asyncio.to_thread(cli, "worker", "--metrics-port", str(port))
            assert refused.exit_code == 2

    in_world(database_url, story)


def test_the_command_prints_the_fleet_once(cli: CommandLine) -> None:
    """Without a running engine: for a cron job, or a look."""
    cli.apply()
    make_due(cli)
    seen = samples(cli.ok("metrics"))
    assert seen["schedules_overdue"] == 1
    assert seen["staleness_seconds,installation=orders,stream=orders,tenant=acme"] > 0
    as_json = {each["name"] for each in cli.json("metrics")}
    assert {"tidegate_runs", "tidegate_schedules_overdue"} <= as_json
