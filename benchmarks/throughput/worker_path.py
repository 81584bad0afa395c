"""Tidegate's real path: a due run of a declared REST stream, claimed by a worker, delivered, covered.

As a program, `python -m benchmarks.throughput.worker_path DSN BASE_URL COUNT DATA_DIR`, it does that once in a process of its
own and prints the seconds taken and the process's peak memory in MiB.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import uvloop

from tidegate.bootstrap import Options, assemble
from tidegate.domain.schedule import next_due, start_instant
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.engine import Engine, Role
from tidegate.engine.parts import Parts
from tidegate.store import chains, directory, schedules
from tidegate.store.directory import StoredConnection, StoredDestination

DECLARATION = Path(__file__).with_name("orders.yaml")
TABLE = "synced.bench_orders"


async def run(dsn: str, base_url: str, count: int, data_dir: Path) -> float:
    """Return the seconds from the engine's start, one run being due, until its coverage is committed.

    The database must be empty; all ``count`` records must have arrived.
    """
    async with assemble(Options(data_dir=data_dir, database_url=dsn, allow_private_addresses=True)) as parts:
        await _install(parts, base_url)
        engine = Engine(parts, frozenset(Role))
        began = perf_counter()
        working = asyncio.create_task(engine.run())
        while not await parts.pool.fetchval("select exists (select from coverage)"):
            if working.done():
                break
            await asyncio.sleep(0.02)
        elapsed = perf_counter() - began
        engine.stop()
        await working
        arrived = await parts.pool.fetchval(f"select count(*) from {TABLE}")
        assert arrived == count, f"{arrived} of {count} records arrived"
    return elapsed


async def _install(parts: Parts, base_url: str) -> None:
    received = datetime.now(UTC) - timedelta(minutes=2)
    start = (received - timedelta(days=1, minutes=-1)).isoformat(timespec="seconds").replace("+00:00", "Z")
    schedule = parse_schedule({"every": "1d", "start_at": start})
    seal = parts.sealer.seal
    async with parts.pool.acquire() as connection, connection.transaction():
        sealed = seal({}, directory.destination_place("own"))
        await directory.put_destination(connection, StoredDestination(0, "own", "postgresql", {}, sealed, "f"))
        await directory.put_tenant(connection, "tenant", "", received)
        sealed = seal({}, directory.connection_place("tenant", "shop"))
        settings = {"base_url": base_url}
        stored = StoredConnection(0, "tenant", "shop", str(DECLARATION), "shop", 4, settings, sealed, "f", None, "")
        await directory.put_connection(connection, stored)
        installation, account = await directory.put_installation(connection, "tenant", "sync", "shop", "own")
        first = start_instant(schedule)
        chain, _ = await chains.ensure(connection, "tenant", installation, "sync", "orders", account, first)
        await schedules.put(connection, chain, schedule.as_json(), received, next_due(schedule, received))


if __name__ == "__main__":
    seconds = uvloop.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
