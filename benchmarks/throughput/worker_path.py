"""Tidegate's real path: a due run of a declared REST stream, claimed by a worker, delivered, covered.

As a program, `python -m benchmarks.throughput.worker_path DSN BASE_URL COUNT DATA_DIR [again]`, it does that once in a process of
its own and prints the seconds taken and the process's peak memory in MiB; with `again`, the seconds of a second run, which
finds every record edited.
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
from tidegate.engine.commands.installations import request_runs
from tidegate.engine.engine import Engine, Role
from tidegate.engine.parts import Parts
from tidegate.store import chains, directory, schedules
from tidegate.store.directory import StoredConnection, StoredDestination

DECLARATION = Path(__file__).with_name("orders.yaml")
TABLE = "synced.bench_orders"


async def run(dsn: str, base_url: str, count: int, data_dir: Path, *, again: bool = False) -> float:
    """Return the seconds from the engine's start, one run being due, until its coverage is committed.

    The database must be empty; all ``count`` records must have arrived. ``again``: those of a second run that updates them all.
    """
    async with assemble(Options(data_dir=data_dir, database_url=dsn, allow_private_addresses=True)) as parts:
        await _install(parts, base_url)
        elapsed = await _covered(parts, 1)
        if again:
            await _edit(parts, f"{base_url}/later")
            elapsed = await _covered(parts, 2)
            updated = await parts.pool.fetchval("select max(updated_count) from runs")
            assert updated == count, f"{updated} of {count} records were updated"
        arrived = await parts.pool.fetchval(f"select count(*) from {TABLE}")
        assert arrived == count, f"{arrived} of {count} records arrived"
    return elapsed


async def _covered(parts: Parts, periods: int) -> float:
    """Return how long the engine takes until so many periods are covered."""
    engine = Engine(parts, frozenset(Role))
    began = perf_counter()
    working = asyncio.create_task(engine.run())
    while await parts.pool.fetchval("select count(*) from coverage") < periods:
        if working.done():
            break
        await asyncio.sleep(0.02)
    elapsed = perf_counter() - began
    engine.stop()
    await working
    return elapsed


async def _edit(parts: Parts, base_url: str) -> None:
    """Let the source show every record edited, and ask for a run."""
    async with parts.pool.acquire() as connection, connection.transaction():
        await directory.put_connection(connection, _connection(parts, base_url, "edited"))
    await request_runs(parts, "tenant", "sync")
    await parts.pool.execute("checkpoint")


def _connection(parts: Parts, base_url: str, fingerprint: str) -> StoredConnection:
    sealed = parts.sealer.seal({}, directory.connection_place("tenant", "shop"))
    settings = {"base_url": base_url}
    return StoredConnection(0, "tenant", "shop", str(DECLARATION), "shop", 4, settings, sealed, fingerprint, None, "")


async def _install(parts: Parts, base_url: str) -> None:
    received = datetime.now(UTC) - timedelta(minutes=2)
    start = (received - timedelta(days=1, minutes=-1)).isoformat(timespec="seconds").replace("+00:00", "Z")
    schedule = parse_schedule({"every": "1d", "start_at": start})
    seal = parts.sealer.seal
    async with parts.pool.acquire() as connection, connection.transaction():
        sealed = seal({}, directory.destination_place("own"))
        await directory.put_destination(connection, StoredDestination(0, "own", "postgresql", {}, sealed, "f"))
        await directory.put_tenant(connection, "tenant", "", received)
        await directory.put_connection(connection, _connection(parts, base_url, "new"))
        installation, account = await directory.put_installation(connection, "tenant", "sync", "shop", "own")
        first = start_instant(schedule)
        chain, _ = await chains.ensure(connection, "tenant", installation, "sync", "orders", account, first)
        await schedules.put(connection, chain, schedule.as_json(), received, next_due(schedule, received))


if __name__ == "__main__":
    twice = sys.argv[5:] == ["again"]
    seconds = uvloop.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), again=twice))
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
