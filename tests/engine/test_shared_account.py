"""One account, several engines, a real server with a leaky bucket: nobody is refused (SPEC 3; issue 2 figure 3, in small).

At full size with sixteen processes: `python -m benchmarks.shared_account`.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

import pytest

from benchmarks.shared_account.__main__ import Scale, install, source, stats
from tidegate.bootstrap import Options, assemble
from tidegate.domain.capacity import RateLimit
from tidegate.engine.allowance import Allowances
from tidegate.engine.commands import installations
from tidegate.engine.engine import Engine, Role
from tidegate.engine.settings import Settings

SCALE = Scale(processes=3, tenants=30, slots=8, limit=RateLimit(100, 20), pages=5)
REQUESTS = SCALE.tenants * SCALE.pages


async def play(folder: Path, database_url: str) -> tuple[int, int, float]:
    """Let three engines sync thirty tenants; return (served, refused, seconds)."""
    options = Options(
        data_dir=folder, database_url=database_url, allow_private_addresses=True, settings=Settings(slots=SCALE.slots)
    )
    async with AsyncExitStack() as stack:
        url = stack.enter_context(source(SCALE))
        parts = [await stack.enter_async_context(assemble(options)) for _ in range(SCALE.processes)]
        await install(parts[0], url, SCALE)
        for number in range(SCALE.tenants):
            await installations.request_runs(parts[0], f"t{number}", "sync")
        engines = [
            Engine(each, frozenset({Role.DISPATCHER, Role.WORKER, Role.SWEEPER})) for each in parts
        ]  # every run is asked for by hand
        began = perf_counter()
        working = [asyncio.create_task(engine.run()) for engine in engines]
        async with asyncio.timeout(60):
            while await parts[0].pool.fetchval("select count(*) from coverage") < SCALE.tenants:
                await asyncio.wait(working, timeout=0.05)
        took = perf_counter() - began
        for engine in engines:
            engine.stop()
        await asyncio.gather(*working)
        counted = await asyncio.to_thread(stats, url)
    return sum(counted["served"].values()), sum(counted["refused"].values()), took


def test_three_engines_share_one_accounts_rate(tmp_path: Path, database_url: str) -> None:
    """Issue 2 figure 3: every request is served, and no faster than the account allows.

    A machine that stands still for a moment sends in one burst what was spread over that moment, so one or two may be refused.
    """
    served, refused, took = asyncio.run(play(tmp_path, database_url))
    assert served == REQUESTS
    assert refused <= REQUESTS // 50
    assert took >= (REQUESTS - SCALE.limit.burst) / SCALE.limit.per_second


def test_without_the_shared_allowance_they_are_refused(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: the same story without waiting for turns runs into 429s."""

    async def at_once(_self: Allowances, _account_id: int) -> None:
        """Wait for nothing."""

    monkeypatch.setattr(Allowances, "wait", at_once)
    _, refused, _ = asyncio.run(play(tmp_path, database_url))
    assert refused > REQUESTS // 5
