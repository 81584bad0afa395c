"""Small runs: how many installations a second can be found to have nothing new?

    python -m benchmarks.small_runs [--installations 10000]

10,000 installations of one static source, durable settings, one worker, and then two. *From the queue*: claim through
pgqueuer, one request, nothing found, one transaction for chain row, run and epoch. *From the due date*: the same processes plan
and dispatch them as well meanwhile. Beside it, in the same run, dlt in its own process, doing the same for one pipeline at a
time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter, process_time
from typing import TypeAlias

import asyncpg
import uvloop

from benchmarks import cpu, peers
from benchmarks.small_runs.settings import QUEUE_DEPTH, options
from tidegate.bootstrap import assemble, collect_rarely
from tidegate.domain.schedule import next_due, start_instant
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.engine import Engine, Role
from tidegate.engine.parts import Parts
from tidegate.engine.planner import plan_due
from tidegate.store import chains, directory, schedules
from tidegate.store.directory import StoredConnection, StoredDestination

HERE = Path(__file__).parent
TENANTS = 1000
DLT_RUNS = 20

Begin: TypeAlias = Callable[[], None]


def main() -> None:
    """Measure both and print the ratio."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--installations", type=int, default=10_000)
    count = arguments.parse_args().installations
    with static_source() as url, tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        rates = [
            uvloop.run(measure(Path(folder) / str(number), url, count, setting))
            for number, setting in enumerate(SETTINGS, start=1)
        ]
        dlt_seconds = measure_dlt(url)
    print(f"{'dlt, in process':<36} {1 / dlt_seconds:9,.1f} runs/s   {1000 * dlt_seconds:8.2f} ms a run")
    print(
        f"Tidegate takes 1/{dlt_seconds * rates[0]:.0f} of dlt's time a run (to reach: 1/50), at {rates[0]:,.0f} runs/s"
        f" (to reach: 800); with two workers {rates[1]:,.0f} (to reach: 3,000)"
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """Who does what while it is measured. ``queued``: all runs are in the queue by then, and nothing is left to be planned."""

    workers: int
    queued: bool

    def __str__(self) -> str:
        workers = "one worker" if self.workers == 1 else f"{self.workers} workers"
        return f"Tidegate, {workers}, from the {'queue' if self.queued else 'due date'}"


SETTINGS = (Setting(1, queued=True), Setting(2, queued=True), Setting(1, queued=False), Setting(2, queued=False))


async def measure(data_dir: Path, url: str, count: int, setting: Setting) -> float:
    """Return runs per second from the moment the workers, which are up by then, begin until all are covered; print it."""
    data_dir.mkdir(exist_ok=True)
    async with assemble(options(data_dir, count if setting.queued else QUEUE_DEPTH)) as parts:
        await install(parts, url, count)
        if setting.queued:
            now = parts.clock.now()
            assert (await plan_due(parts, now), await dispatch_ready(parts, now)) == (count, count)
        with ExitStack() as stack:
            further = [stack.enter_context(further_worker(data_dir)) for _ in range(setting.workers - 1)]
            roles = frozenset({Role.WORKER}) if setting.queued else frozenset(Role)
            rate = await _measured(parts, data_dir, count, Engine(parts, roles), further)
    print(f"{setting!s:<36} {rate:9,.0f} runs/s   {1000 / rate:8.2f} ms a run", flush=True)
    return rate


async def _measured(parts: Parts, data_dir: Path, count: int, engine: Engine, further: Sequence[Begin]) -> float:
    durable = [await parts.pool.fetchval(f"show {name}") for name in ("fsync", "synchronous_commit")]
    assert durable == ["on", "on"], durable
    collect_rarely()
    used = used_seconds(data_dir)
    began = perf_counter()
    for begin in further:
        begin()
    working = asyncio.create_task(engine.run())
    while (covered := await covered_count(parts.pool)) < count:
        done = perf_counter() - began
        print(f"\r{covered:,} of {count:,} covered, {covered / done:,.0f} a second", end="", file=sys.stderr)
        await asyncio.sleep(
            max(0.01, min(0.25, (count - covered) * done / max(1, covered)))
        )  # to see the last one at once
    elapsed = perf_counter() - began
    own, server, others = (1e6 * (now - then) / count for now, then in zip(used_seconds(data_dir), used, strict=True))
    print("\r" + " " * 60, end="\r", file=sys.stderr)
    print(
        f"  CPU a run: one worker {own:.0f} us, further worker and source {others:.0f} us, server {server:.0f} us"
        f"   [load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores]"
    )
    engine.stop()
    await working
    states = await parts.pool.fetch("select state, count(*) from runs group by state")
    assert [tuple(row) for row in states] == [("succeeded", count)], states
    return count / elapsed


def used_seconds(data_dir: Path) -> tuple[float, float, float]:
    """Return the CPU seconds of this process, of its server, and of the other processes that it has started."""
    return process_time(), cpu.server_seconds(data_dir), cpu.children_seconds()


async def covered_count(pool: asyncpg.Pool[asyncpg.Record]) -> int:
    """Return how many chains are covered."""
    found: int = await pool.fetchval("select count(*) from coverage")
    return found


async def install(parts: Parts, url: str, count: int) -> None:
    """Set up ``count`` installations of the static source, all due since a minute."""
    received = datetime.now(UTC) - timedelta(minutes=2)
    schedule = parse_schedule(
        {
            "every": "1d",
            "start_at": (received - timedelta(days=1, minutes=-1)).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
    )
    connector = str(HERE / "static.yaml")
    async with parts.pool.acquire() as connection, connection.transaction():
        place = directory.destination_place("own")
        await directory.put_destination(
            connection, StoredDestination(0, "own", "postgresql", {}, parts.sealer.seal({}, place), "f")
        )
        for number in range(count):
            tenant, name = f"t{number % TENANTS}", f"c{number}"
            if number < TENANTS:
                await directory.put_tenant(connection, tenant, "", received)
            sealed = parts.sealer.seal({}, directory.connection_place(tenant, name))
            stored = StoredConnection(0, tenant, name, connector, name, 4, {"base_url": url}, sealed, "f", None, "")
            await directory.put_connection(connection, stored)
            installation, account = await directory.put_installation(connection, tenant, name, name, "own")
            chain, _ = await chains.ensure(
                connection, tenant, installation, "sync", "orders", account, start_instant(schedule)
            )
            await schedules.put(connection, chain, schedule.as_json(), received, next_due(schedule, received))


@contextmanager
def further_worker(data_dir: Path) -> Iterator[Begin]:
    """Run a further worker in a process of its own; it is up, and begins to work when what is yielded is called."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.small_runs.further_worker", str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "up\n"
    begin = process.stdin

    def go() -> None:
        begin.write("begin\n")
        begin.flush()

    try:
        yield go
    finally:
        process.stdin.close()
        process.wait()


@contextmanager
def static_source() -> Iterator[str]:
    """Yield the address of a static source in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.small_runs.source"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def measure_dlt(url: str) -> float:
    """Return seconds a run of a dlt pipeline that finds nothing new, in a process of its own, warmed up."""
    python = peers.environment("dlt", peers.DLT) / "python"
    command = [str(python), str(HERE / "dlt_peer.py"), url, str(DLT_RUNS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
