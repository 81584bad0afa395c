"""A million schedules in the real store (issue figure 6): planning, an idle tick, start lag, and a chain's year.

Durable settings, the embedded server. What is measured is the engine's own code: `plan_due`, and whole engines for the
start lag. The machine's load is printed beside each figure; CPU seconds tell what a figure would be without it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import uvloop

from benchmarks.fleet.stage import live_a_year, make_due, make_steady, settle_in
from benchmarks.small_runs.__main__ import static_source
from tidegate.bootstrap import Options, assemble
from tidegate.domain.run import Trigger
from tidegate.engine import queries
from tidegate.engine.engine import Engine
from tidegate.engine.parts import Parts
from tidegate.engine.planner import plan_due
from tidegate.engine.settings import Settings
from tidegate.store import chains, leases, runs
from tidegate.store.runs import PlannedRun

SMALL = 10_000
IDLE_TICKS = 500


def main() -> None:
    """Measure everything and print it beside what is to be reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--due", type=int, default=100_000, help="how many are planned at once")
    parser.add_argument("--rate", type=int, default=500, help="due dates a second, for the start lag")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--engines", type=int, default=2, help="processes that work on them")
    parser.add_argument("--engine", metavar="DATA_DIR", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        uvloop.run(engine(Path(arguments.engine)))
        return
    for count in (SMALL, arguments.schedules):
        with static_source() as url, tempfile.TemporaryDirectory(prefix="tidegate-fleet-") as folder:
            Path(folder).chmod(0o755)
            uvloop.run(measure(Path(folder), url, count, arguments))


def options(data_dir: Path) -> Options:
    """Return the options of every process."""
    settings = Settings(slots=64, queue_depth=2000, tick_every=timedelta(seconds=0.2))
    return Options(data_dir=data_dir, allow_private_addresses=True, settings=settings)


async def measure(data_dir: Path, url: str, count: int, arguments: argparse.Namespace) -> None:
    """Measure a fleet of ``count``; start lag and the year only in the large one."""
    async with assemble(options(data_dir)) as parts:
        assert await parts.pool.fetchval("show fsync") == "on"
        began = perf_counter()
        await settle_in(parts, url, count, parts.clock.now())
        say(f"{count:,} schedules made in {perf_counter() - began:.0f} s")
        await show_idle(parts, count)
        await show_planning(parts, data_dir, min(arguments.due, count // 2))
        await show_planning(parts, data_dir, 100)
        if count > SMALL:
            await show_lag(parts, data_dir, arguments)
            await show_year(parts)


def say(text: str) -> None:
    """Print a line with the machine's load."""
    print(f"{text}   [load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores]", flush=True)


async def show_idle(parts: Parts, count: int) -> None:
    """Print what a tick costs when nothing is due."""
    times = []
    for _ in range(IDLE_TICKS):
        began = perf_counter()
        assert await plan_due(parts, parts.clock.now()) == 0
        times.append(perf_counter() - began)
    say(f"{count:,} schedules: an idle tick takes {1000 * median(times):.2f} ms (median; to reach: 0.5)")


async def show_planning(parts: Parts, data_dir: Path, due: int) -> None:
    """Print how fast due schedules become runs."""
    await make_due(parts.pool, due, parts.clock.now())
    own, servers, began = process_time(), server_seconds(data_dir), perf_counter()
    planned = await plan_due(parts, parts.clock.now())
    took = perf_counter() - began
    cpu = process_time() - own + server_seconds(data_dir) - servers
    assert planned == due
    say(
        f"  {due:,} due: {due / took:,.0f} planned a second (to reach: 15,000), {1000 * took:.1f} ms,"
        f" {1e6 * cpu / due:.0f} us of CPU each"
    )
    await parts.pool.execute("delete from runs", timeout=600)


def server_seconds(data_dir: Path) -> float:
    """Return the CPU seconds that the live processes of the server of ``data_dir`` have used."""
    postmaster = (data_dir / "postgresql" / "postmaster.pid").read_text().split()[0]
    ticks = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if postmaster in (entry.name, fields[1]):
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def show_lag(parts: Parts, data_dir: Path, arguments: argparse.Namespace) -> None:
    """Print how long after its due date a run starts, at a steady rate, with engines in processes of their own."""
    begin = parts.clock.now()
    await make_steady(parts.pool, arguments.rate, begin)
    command = [sys.executable, "-m", "benchmarks.fleet", "--engine", str(data_dir)]
    engines = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(arguments.engines)]
    await asyncio.sleep(arguments.seconds)
    until = parts.clock.now() - timedelta(seconds=2)
    for process in engines:
        process.terminate()
    for process in engines:
        await asyncio.to_thread(process.wait)
    warm = begin + timedelta(seconds=arguments.seconds / 3)
    row = await parts.pool.fetchrow(
        """select count(*) as due, count(started_at) as started, count(distinct date_trunc('second', due_at)) as seconds,
                  percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from started_at - due_at)) as lag
             from runs where due_at between $1 and $2""",
        warm, until, timeout=600,
    )  # fmt: skip
    assert row is not None
    middle, high = row["lag"] or (float("nan"), float("nan"))
    say(
        f"  {row['due'] / max(1, row['seconds']):,.0f} due a second, {arguments.engines} processes: due to started {middle:.2f} s"
        f" at the median, {high:.2f} s at p99 (to reach: 1); {row['started']:,} of {row['due']:,} started"
    )


async def engine(data_dir: Path) -> None:
    """Be one process of the fleet until terminated."""
    import signal

    async with assemble(options(data_dir)) as parts:
        working = Engine(parts)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.stop)
        await working.run()


async def show_year(parts: Parts) -> None:
    """Print how large one chain's year is, and what is asked of it in the course of work."""
    await parts.pool.execute("delete from coverage", timeout=600)
    await parts.pool.execute("delete from runs", timeout=600)
    await parts.pool.execute("vacuum full runs", timeout=600)
    await parts.pool.execute("vacuum full coverage", timeout=600)
    chain_id = await parts.pool.fetchval("select min(id) from chains")
    now = parts.clock.now().replace(microsecond=0)
    rows = await live_a_year(parts.pool, chain_id, now)
    await parts.pool.execute("vacuum analyze runs, coverage", timeout=600)
    sizes = [
        await parts.pool.fetchval("select pg_total_relation_size($1::regclass)", name) for name in ("coverage", "runs")
    ]
    say(
        f"A chain's year at five minutes: {rows:,} rows; coverage {sizes[0] / 2**20:.1f} MiB ({sizes[0] / rows:.0f} bytes each),"
        f" runs {sizes[1] / 2**20:.1f} MiB ({sizes[1] / rows:.0f} bytes each), indexes included"
    )
    planned = PlannedRun(chain_id, Trigger.SCHEDULE, now, now, now + timedelta(minutes=5), now)
    asked: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("watermark", lambda: chains.watermark(parts.pool, chain_id)),
        ("plan one run", lambda: _plan(parts, planned)),
        ("lease it", lambda: _lease(parts)),
        ("coverage of the tenant, as stretches", lambda: queries.coverage(parts, "t0", "i0")),
        ("every link of it", lambda: chains.links(parts.pool, chain_id)),
        ("its newest runs", lambda: queries.list_runs(parts, "t0", "i0")),
    ]
    for what, ask in asked:
        times = []
        for _ in range(5):
            began = perf_counter()
            await ask()
            times.append(perf_counter() - began)
        say(f"  {what}: {1000 * median(times):.2f} ms")


async def _plan(parts: Parts, planned: PlannedRun) -> None:
    async with parts.pool.acquire() as connection, connection.transaction():
        await runs.plan(connection, [planned])
        await runs.coalesce(connection, [planned.chain_id], parts.clock.now())


async def _lease(parts: Parts) -> None:
    now = parts.clock.now()
    run_id = await parts.pool.fetchval(
        "update runs set state = 'queued', lease_until = null where state in ('waiting', 'running') returning id"
    )
    (leased,) = await leases.lease(parts.pool, [run_id], now, now + timedelta(days=1), "benchmark")
    assert leased.id == run_id


if __name__ == "__main__":
    main()
