"""Small runs: how many installations a second can be found to have nothing new?

    python -m benchmarks.small_runs [--installations 10000]

10,000 installations of one static source, durable settings, one worker, and then two: claim through pgqueuer, one request,
nothing found, one transaction for chain row, run and epoch. Beside it, in the same run, dlt in its own process, doing the same
for one pipeline at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter, process_time

import asyncpg
import uvloop

from benchmarks import cpu, peers
from benchmarks.small_runs.settings import options
from tidegate.bootstrap import assemble, collect_rarely
from tidegate.domain.schedule import next_due, start_instant
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.engine import Engine, Role
from tidegate.engine.parts import Parts
from tidegate.store import chains, directory, schedules
from tidegate.store.directory import StoredConnection, StoredDestination

HERE = Path(__file__).parent
TENANTS = 1000
DLT_RUNS = 20


def main() -> None:
    """Measure both and print the ratio."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--installations", type=int, default=10_000)
    count = arguments.parse_args().installations
    with static_source() as url, tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        rate = uvloop.run(measure(Path(folder) / "one", url, count))
        print(f"Tidegate, one worker      {rate:9,.0f} runs/s   {1000 / rate:8.2f} ms a run", flush=True)
        pair = uvloop.run(measure(Path(folder) / "two", url, count, further_workers=1))
        print(f"Tidegate, two workers     {pair:9,.0f} runs/s   (to reach: 3,000)", flush=True)
        dlt_seconds = measure_dlt(url)
    print(f"dlt, in process           {1 / dlt_seconds:9,.1f} runs/s   {1000 * dlt_seconds:8.2f} ms a run")
    print(
        f"Tidegate takes 1/{dlt_seconds * rate:.0f} of dlt's time a run (to reach: 1/50), at {rate:,.0f} runs/s (to reach: 800)"
    )


async def measure(data_dir: Path, url: str, count: int, *, further_workers: int = 0) -> float:
    """Return runs per second from the moment the engine starts, all being due, until all are covered.

    ``further_workers``: processes that are up by then and do nothing but work.
    """
    data_dir.mkdir(exist_ok=True)
    async with assemble(options(data_dir)) as parts:
        await install(parts, url, count)
        with ExitStack() as stack:
            for _ in range(further_workers):
                stack.enter_context(further_worker(data_dir))
            return await _measured(parts, data_dir, count)


async def _measured(parts: Parts, data_dir: Path, count: int) -> float:
    durable = [await parts.pool.fetchval(f"show {name}") for name in ("fsync", "synchronous_commit")]
    assert durable == ["on", "on"], durable
    engine = Engine(parts, frozenset(Role))
    collect_rarely()
    used = used_seconds(data_dir)
    began = perf_counter()
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
        f"  CPU a run: engine {own:.0f} us, further worker and source {others:.0f} us, server {server:.0f} us"
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
def further_worker(data_dir: Path) -> Iterator[None]:
    """Run a further worker in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.small_runs.further_worker", str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    try:
        yield
    finally:
        assert process.stdin is not None
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
