"""A million schedules in the real store (issue figure 6): planning, an idle tick, start lag, and a chain's year.

Durable settings, the embedded server. What is measured is the engine's own code: `plan_due`, and whole engines for the
start lag. The machine's load is printed beside each figure; CPU seconds tell what a figure would be without it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import uvloop

from benchmarks.fleet.stage import NEVER_SOON, end_day, live_a_year, make_due, make_steady, point_at, settle_in
from benchmarks.small_runs.__main__ import static_source
from tidegate.bootstrap import Options, assemble, collect_rarely
from tidegate.domain.run import Trigger
from tidegate.engine import queries
from tidegate.engine.engine import Engine
from tidegate.engine.parts import Parts
from tidegate.engine.planner import plan_due
from tidegate.engine.retention import prune
from tidegate.engine.settings import Settings
from tidegate.store import chains, compaction, leases, runs
from tidegate.store.runs import PlannedRun

PARTS = ("idle", "planning", "wear", "lag", "year")
IDLE_TICKS = 500
STARTING_SECONDS, MADE_A_SECOND = 6, 50_000
"""How long engines take to start, and how many schedules are looked through a second to make the load steady."""


def main() -> None:
    """Measure what is asked for and print it beside what is to be reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part, or several; all of them if not given")
    parser.add_argument("--due", type=int, default=100_000, help="how many are planned at once")
    parser.add_argument(
        "--days", type=int, default=30, help="on how many days in a row the same are planned, for the wear"
    )
    parser.add_argument("--rate", type=int, default=500, help="due dates a second, for the start lag")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--slots", type=int, default=Settings().slots, help="runs that an engine has in hand at once")
    parser.add_argument("--engines", type=int, default=2, help="processes that work on them")
    parser.add_argument("--data-dir", type=Path, help="keep the fleet there, and take the one that is there already")
    parser.add_argument("--engine", metavar="DATA_DIR", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        uvloop.run(engine(Path(arguments.engine), arguments.slots))
        return
    with static_source() as url, fleet_folder(arguments.data_dir) as folder:
        uvloop.run(measure(folder, url, arguments.only or PARTS, arguments))


@contextlib.contextmanager
def fleet_folder(kept: Path | None) -> Iterator[Path]:
    """Yield the data directory: one that is kept, or one that is gone in the end."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="tidegate-fleet-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def measure(data_dir: Path, url: str, only: Sequence[str], arguments: argparse.Namespace) -> None:
    """Measure the parts asked for on one fleet."""
    async with assemble(Options(data_dir=data_dir, allow_private_addresses=True)) as parts:
        assert await parts.pool.fetchval("show fsync") == "on"
        count = await parts.pool.fetchval("select count(*) from schedules", timeout=600)
        if not count:
            began = perf_counter()
            count = arguments.schedules
            await settle_in(parts, url, count, parts.clock.now())
            say(f"{count:,} schedules made in {perf_counter() - began:.0f} s")
        await point_at(parts.pool, url)
        collect_rarely()
        if "idle" in only:
            await show_idle(parts, count)
        if "planning" in only:
            for each_its_own in (False, True):
                for due in (min(arguments.due, count), 100):
                    await show_planning(parts, data_dir, due, each_its_own=each_its_own)
        if "wear" in only:
            await show_wear(parts, data_dir, min(arguments.due, count), arguments.days)
        if "lag" in only:
            await show_lag(parts, data_dir, arguments)
        if "year" in only:
            await show_year(parts)


def say(text: str) -> None:
    """Print a line with the machine's load."""
    print(f"{text}   [load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores]", flush=True)


async def show_idle(parts: Parts, count: int) -> None:
    """Print what a tick costs when nothing is due."""
    await make_due(parts.pool, 0, parts.clock.now())
    times = []
    for _ in range(IDLE_TICKS):
        began = perf_counter()
        assert await plan_due(parts, parts.clock.now()) == 0
        times.append(perf_counter() - began)
    say(f"{count:,} schedules: an idle tick takes {1000 * median(times):.2f} ms (median; to reach: 0.5)")


async def show_planning(parts: Parts, data_dir: Path, due: int, *, each_its_own: bool) -> None:
    """Print how fast due schedules become runs, all of one rule or each of its own."""
    await parts.pool.execute("truncate runs cascade", timeout=600)
    await make_due(parts.pool, due, parts.clock.now(), each_its_own=each_its_own)
    own, servers, began = process_time(), server_seconds(data_dir), perf_counter()
    planned = await plan_due(parts, parts.clock.now())
    took = perf_counter() - began
    own, servers = process_time() - own, server_seconds(data_dir) - servers
    assert planned == due == await parts.pool.fetchval("select count(*) from runs")
    say(
        f"  {due:,} due, {'each of its own rule' if each_its_own else 'all of one rule'}: {due / took:,.0f} planned a second"
        f" (to reach: 15,000), {1000 * took:.1f} ms, {1e6 * own / due:.0f} + {1e6 * servers / due:.0f} us of CPU each"
    )


async def show_wear(parts: Parts, data_dir: Path, due: int, days: int) -> None:
    """Print how fast the same schedules are planned day after day, at first and at last."""
    await parts.pool.execute("truncate runs cascade", timeout=600)
    await make_due(parts.pool, due, parts.clock.now())
    await parts.pool.execute(
        "update schedules set next_due_at = 'infinity' where next_due_at > $1", parts.clock.now(), timeout=600
    )
    now, tenth, spent = parts.clock.now(), max(1, days // 10), [0.0, 0.0, 0.0]
    for day in range(1, days + 1):
        own, servers, began = process_time(), server_seconds(data_dir), perf_counter()
        assert await plan_due(parts, now) == due
        took = perf_counter() - began, process_time() - own, server_seconds(data_dir) - servers
        spent = [one + other for one, other in zip(spent, took, strict=True)]
        await end_day(parts.pool, day, now)
        now += timedelta(days=1)
        if day % tenth == 0:
            planned = due * tenth
            sizes = await parts.pool.fetchval(
                "select string_agg(pg_size_pretty(pg_total_relation_size(n)), ' + ') from unnest($1::regclass[]) n",
                ["schedules", "runs"],
            )
            say(
                f"  {due:,} due for the {day}th day: {planned / spent[0]:,.0f} planned a second, {1e6 * spent[1] / planned:.0f}"
                f" + {1e6 * spent[2] / planned:.0f} us of CPU each; schedules + runs {sizes}"
            )
            spent = [0.0, 0.0, 0.0]
    await parts.pool.execute(
        "update schedules set next_due_at = $1 where next_due_at = 'infinity'",
        parts.clock.now() + NEVER_SOON,
        timeout=600,
    )


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
    await parts.pool.execute("truncate runs, coverage, pgqueuer cascade", timeout=600)
    await make_due(parts.pool, 0, parts.clock.now())
    command = [sys.executable, "-m", "benchmarks.fleet", "--engine", str(data_dir), "--slots", str(arguments.slots)]
    engines = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(arguments.engines)]
    count = await parts.pool.fetchval("select count(*) from schedules", timeout=600)
    begin = parts.clock.now() + timedelta(seconds=STARTING_SECONDS + count / MADE_A_SECOND)
    await make_steady(parts.pool, arguments.rate, begin)
    await asyncio.sleep((begin - parts.clock.now()).total_seconds())
    servers = server_seconds(data_dir)
    await asyncio.sleep(arguments.seconds)
    until = parts.clock.now() - timedelta(seconds=2)
    servers = server_seconds(data_dir) - servers
    for process in engines:
        process.terminate()
    for process in engines:
        await asyncio.to_thread(process.wait)
    warm = begin + timedelta(seconds=arguments.seconds / 4)
    row = await parts.pool.fetchrow(
        """select count(*) as due, count(started_at) as started, count(distinct date_trunc('second', due_at)) as seconds,
                  percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from started_at - due_at)) as lag,
                  percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from queued_at - due_at)) as queued
             from runs where due_at between $1 and $2""",
        warm, until, timeout=600,
    )  # fmt: skip
    assert row is not None
    middle, high = row["lag"] or (float("nan"), float("nan"))
    say(
        f"  {row['due'] / max(1, row['seconds']):,.0f} due a second, {arguments.engines} processes: due to started {middle:.2f} s"
        f" at the median, {high:.2f} s at p99 (to reach: 1); {row['started']:,} of {row['due']:,} started"
    )
    used = os.times()
    queued = row["queued"] or (float("nan"), float("nan"))
    say(
        f"    of that to the queue {queued[0]:.2f} s and {queued[1]:.2f} s;"
        f" CPU: engines {used.children_user + used.children_system:.0f} s, server {servers:.0f} s of {arguments.seconds} s"
    )


async def engine(data_dir: Path, slots: int) -> None:
    """Be one process of the fleet until terminated, with the settings that it has by default but for ``slots``."""
    options = Options(data_dir=data_dir, allow_private_addresses=True, migrate=False, settings=Settings(slots=slots))
    async with assemble(options) as parts:
        working = Engine(parts)
        collect_rarely()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.stop)
        await working.run()


async def show_year(parts: Parts) -> None:
    """Print how large one chain's year is, and what is asked of it in the course of work; then, compacted."""
    await parts.pool.execute("truncate runs, coverage cascade", timeout=600)
    chain_id = await parts.pool.fetchval("select min(id) from chains")
    now = parts.clock.now().replace(microsecond=0)
    rows = await live_a_year(parts.pool, chain_id, now)
    say(f"A chain's year at five minutes: {rows:,} periods")
    await show_ledger(parts, chain_id, now)
    await parts.pool.execute("update chains set compact_at = 'infinity' where id <> $1", chain_id, timeout=600)
    steps, longest, began = 0, 0.0, perf_counter()
    while True:
        step = perf_counter()
        done = await compaction.compact(parts.pool, now, parts.settings.compact_after)
        steps, longest = steps + bool(done.rows), max(longest, perf_counter() - step)
        if not done.rows:
            break
    say(
        f"  compacted, what is older than {parts.settings.compact_after.days} days: {perf_counter() - began:.2f} s in"
        f" {steps} steps, the longest {1000 * longest:.0f} ms"
    )
    await show_ledger(parts, chain_id, now)
    await parts.pool.execute("update chains set compact_at = '-infinity'", timeout=600)
    began = perf_counter()
    pruned = await prune(parts, now)
    say(
        f"  retention: {', '.join(f'{one.count:,} {one.what}' for one in pruned if one.count)} in {perf_counter() - began:.1f} s"
    )
    await show_ledger(parts, chain_id, now)


async def show_ledger(parts: Parts, chain_id: int, now: datetime) -> None:
    """Print the size of one chain's ledger and the time of what is asked of it."""
    await parts.pool.execute("vacuum (full, analyze) runs", timeout=600)
    await parts.pool.execute("vacuum (full, analyze) coverage", timeout=600)
    for name in ("coverage", "runs"):
        size, rows = await parts.pool.fetchrow(  # type: ignore[misc]
            f"select pg_total_relation_size('{name}'), (select count(*) from {name})"
        )
        say(
            f"    {name}: {rows:,} rows, {size / 2**20:.1f} MiB, {size / max(1, rows):.0f} bytes a row, indexes included"
        )
    planned = PlannedRun(chain_id, Trigger.SCHEDULE, now, now, now + timedelta(minutes=5), now)
    await _plan(parts, planned)
    run_id = await _queue(parts, planned)
    asked: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("watermark", lambda: chains.watermark(parts.pool, chain_id)),
        ("plan one run", lambda: _plan(parts, planned)),
        ("queue and lease it", lambda: _lease(parts, run_id)),
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
        say(f"    {what}: {1000 * median(times):.2f} ms")


async def _plan(parts: Parts, planned: PlannedRun) -> None:
    async with parts.pool.acquire() as connection, connection.transaction():
        await runs.plan(connection, [planned])
        await runs.coalesce(connection, [planned.chain_id], parts.clock.now())


async def _queue(parts: Parts, planned: PlannedRun) -> int:
    run_id: int = await parts.pool.fetchval(
        """update runs set state = 'queued', lease_until = null where chain_id = $1 and lane = 'live' and period_end = $2
           returning id""",
        planned.chain_id, planned.period_end,
    )  # fmt: skip
    return run_id


async def _lease(parts: Parts, run_id: int) -> None:
    now = parts.clock.now()
    await parts.pool.execute("update runs set state = 'queued', lease_until = null where id = $1", run_id)
    (leased,) = await leases.lease(parts.pool, [run_id], now, now + timedelta(days=1), "benchmark")
    assert leased.id == run_id


if __name__ == "__main__":
    main()
