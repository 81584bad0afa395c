"""Probes: `/metrics`, `/healthz` and `/readyz` on a small port of one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import asyncpg
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from tidegate.domain.errors import InvalidInput
from tidegate.engine.observing import Stepped
from tidegate.engine.parts import Parts
from tidegate.signals.gauges import FleetGauges
from tidegate.signals.metrics import Metrics
from tidegate.signals.watching import Seen

SILENCE = timedelta(minutes=2)
"""A loop that is so late with the end of a step is not alive; a step of the planner may take its time."""
PING_SECONDS = 2.0


class Pulse:
    """Remembers when each loop of this process last showed that it is alive."""

    def __init__(self) -> None:
        self._seen: dict[str, Stepped] = {}

    def observe(self, fact: Seen) -> None:
        """Take note of a step."""
        if isinstance(fact, Stepped):
            self._seen[fact.loop] = fact

    def silent(self, now: datetime) -> dict[str, float]:
        """Return the loops that are not alive, with the seconds since they last were."""
        ages = {loop: (now - last.at, last.every) for loop, last in self._seen.items()}
        return {loop: age.total_seconds() for loop, (age, every) in ages.items() if age > every + SILENCE}

    @property
    def loops(self) -> frozenset[str]:
        """Return the loops that have been seen at all."""
        return frozenset(self._seen)


class Probes:
    """What one process shows of itself. ``pulse`` and ``metrics`` are told by its engine (`Options.observers`)."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.pulse = Pulse()
        self.stopping = False

    @property
    def observers(self) -> tuple[Metrics, Pulse]:
        """Return who is to be told of facts."""
        return self.metrics, self.pulse

    async def text(self, gauges: FleetGauges) -> bytes:
        """Return all metrics in Prometheus' text format 0.0.4."""
        await gauges.look()
        return generate_latest(self.metrics)

    async def ready(self, parts: Parts) -> dict[str, object]:
        """Return what stands in the way of being ready, empty if nothing does."""
        wrong: dict[str, object] = {"engine": "is stopping"} if self.stopping else {}
        try:
            async with asyncio.timeout(PING_SECONDS):  # a pool with nothing free does not answer either
                await parts.pool.fetchval("select 1")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            wrong["database"] = f"does not answer ({type(error).__name__})"
        if not self.pulse.loops:
            wrong["engine"] = "has not begun"
        for loop, seconds in self.pulse.silent(parts.clock.now()).items():
            wrong[loop] = f"has been silent for {seconds:.0f} s"
        return wrong


@asynccontextmanager
async def served(probes: Probes, parts: Parts, host: str, port: int) -> AsyncGenerator[int]:
    """Serve the probes while inside; yield the port (``port`` 0 takes a free one). Raises InvalidInput if it is taken."""
    gauges = FleetGauges(parts, probes.metrics.registry)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=await probes.text(gauges), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def alive(_request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def ready(_request: web.Request) -> web.Response:
        wrong = await probes.ready(parts)
        return _answer(wrong)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", alive), web.get("/readyz", ready)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise InvalidInput(
                "--metrics-port", f"{host}:{port}", f"cannot be listened at ({error.strerror})", "Choose another."
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
        await gauges.close()


def _answer(wrong: Mapping[str, object]) -> web.Response:
    return web.json_response({"ready": not wrong, "wrong": wrong}, status=503 if wrong else 200)
