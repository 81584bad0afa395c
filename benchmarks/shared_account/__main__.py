"""Shared account: do sixteen processes keep to one account's rate, use it, and share it fairly?

    python -m benchmarks.shared_account [--processes 16] [--tenants 1000] [--rate 200] [--burst 40] [--pages 4]

Real processes (`tidegate worker --role worker`, and one that plans, dispatches and sweeps), one PostgreSQL, one HTTP server
with a leaky bucket. All tenants are due at the
same instant, every two minutes: a first round warms up, the second is the baseline, and in the third one more tenant is
fetching 1,000,000 records in 4,000 pages. Printed: the share of 429 answers, the use of the allowed rate once a round is
under way, and the others' start lag with and without the big tenant.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.shared_account.source import BIG, BIG_PAGE, BIG_RECORDS
from tidegate.bootstrap import Options, assemble
from tidegate.domain.capacity import RateLimit
from tidegate.domain.schedule import next_due, start_instant
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.commands import installations
from tidegate.engine.parts import Parts
from tidegate.store import chains, directory, schedules
from tidegate.store.directory import StoredConnection, StoredDestination
from tidegate.store.embedded import EmbeddedServer

HERE = Path(__file__).parent
INTERVAL = timedelta(minutes=2)
HEAD_START = timedelta(seconds=8)
"""The big tenant's, before the others are due."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the world is. ``slots``: runs that one process has in hand; ``pages`` of each tenant's listing."""

    processes: int = 16
    tenants: int = 1000
    slots: int = 4
    limit: RateLimit = field(default_factory=lambda: RateLimit(200, 40))
    pages: int = 4


@dataclass(frozen=True, slots=True)
class Round:
    """What one due date of all tenants came to: ``use`` of the allowed rate, start lags in seconds."""

    served: int
    refused: int
    use: float
    p50_lag: float
    p99_lag: float
    last_lag: float


def main() -> None:
    """Measure three rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--burst", type=int, default=40)
    parser.add_argument("--pages", type=int, default=4)
    given = parser.parse_args()
    scale = Scale(given.processes, given.tenants, 4, RateLimit(given.rate, given.burst), given.pages)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-", ignore_cleanup_errors=True) as folder:
        _, baseline, fair = asyncio.run(measure(Path(folder), scale, rounds=3, with_big=True))
    for name, each in (("1,000 tenants alone", baseline), ("and one with 1,000,000 records", fair)):
        share = each.refused / (each.served + each.refused)
        print(
            f"{name:32} {each.served:7,} served, {each.refused} refused (429: {share:.3%}; to reach: under 0.1 %), "
            f"{each.use:.1%} of the allowed rate (to reach: 90 %), start lag p50 {each.p50_lag:.2f} s, p99 {each.p99_lag:.2f} s"
        )
    print(
        f"the others' p99 start lag is {fair.p99_lag / baseline.p99_lag:.2f} times its baseline (to reach: at most 2)"
    )


async def measure(folder: Path, scale: Scale, *, rounds: int, with_big: bool) -> list[Round]:
    """Return what each round came to, in a fresh database below ``folder``."""
    await make_room(folder)
    server = EmbeddedServer(folder)
    try:
        with ExitStack() as processes:
            url = processes.enter_context(source(scale))
            async with assemble(Options(data_dir=folder, database_url=server.dsn, key_source={})) as parts:
                first_due = await install(parts, url, scale)
                environment = {
                    "TIDEGATE_DATABASE_URL": server.dsn,
                    "TIDEGATE_DATA_DIR": str(folder),
                    "TIDEGATE_ALLOW_PRIVATE_ADDRESSES": "1",
                }
                for number in range(scale.processes):
                    roles = ["worker"]
                    processes.enter_context(worker(environment, roles, scale.slots, folder / f"worker-{number}.log"))
                roles = ["planner", "dispatcher", "sweeper"]
                processes.enter_context(worker(environment, roles, scale.slots, folder / "others.log"))
                found = []
                for number in range(rounds):
                    due_at = first_due + number * INTERVAL
                    if with_big and number == rounds - 1:
                        await asyncio.sleep(max(0, (due_at - HEAD_START - datetime.now(UTC)).total_seconds()))
                        await installations.request_runs(parts, BIG, "sync")
                    found.append(await play(parts, url, scale, due_at))
                    print(f"due {due_at:%H:%M:%S}: {found[-1]}", file=sys.stderr)
                if with_big:
                    await require_big_at_work(parts, found[-1])
    finally:
        server.release()
    return found


async def make_room(folder: Path) -> None:
    """Let the server take the connections of sixteen processes; it starts again with that."""
    server = EmbeddedServer(folder)
    connection = await asyncpg.connect(server.dsn)
    await connection.execute("alter system set max_connections = 400")
    await connection.close()
    server.release()


async def play(parts: Parts, url: str, scale: Scale, due_at: datetime) -> Round:
    """Wait until all tenants are covered to ``due_at`` and return what that took. Raises TimeoutError if they never are."""
    before = await asyncio.to_thread(stats, url)
    async with asyncio.timeout((due_at + INTERVAL - datetime.now(UTC)).total_seconds() + 60):
        while (
            await parts.pool.fetchval(
                """select count(*) from coverage c join chains h on h.id = c.chain_id
                    where c.period_end >= $1 and h.tenant_id <> $2""",
                due_at, BIG,
            )
        ) < scale.tenants:  # fmt: skip
            await asyncio.sleep(0.5)
    after = await asyncio.to_thread(stats, url)
    served = {tenth: count - before["served"].get(tenth, 0) for tenth, count in after["served"].items()}
    refused = sum(after["refused"].values()) - sum(before["refused"].values())
    lags = await parts.pool.fetch(
        """select extract(epoch from started_at - due_at)::float8 as lag from runs
            where due_at = $1 and tenant_id <> $2 and started_at is not null order by 1""",
        due_at, BIG,
    )  # fmt: skip
    sorted_lags = [row["lag"] for row in lags]
    return Round(
        served=sum(served.values()),
        refused=refused,
        use=use_of(served, due_at, scale),
        p50_lag=sorted_lags[len(sorted_lags) // 2],
        p99_lag=sorted_lags[int(len(sorted_lags) * 0.99)],
        last_lag=sorted_lags[-1],
    )


def use_of(served: dict[int, int], due_at: datetime, scale: Scale) -> float:
    """Return the share of the allowed rate that was used, from two seconds after the due date until 95 % were served."""
    first = int(due_at.timestamp() * 10) + 20
    enough, total, last = 0.95 * sum(n for tenth, n in served.items() if tenth >= first - 20), 0, first
    for tenth in sorted(served):
        if tenth >= first - 20 and total < enough:
            total, last = total + served[tenth], tenth
    counted = sum(count for tenth, count in served.items() if first <= tenth < last)
    return counted / ((last - first) / 10 * scale.limit.per_second)


async def require_big_at_work(parts: Parts, others: Round) -> None:
    """Make sure that the big tenant was at it while the others were to start, and say how far it has come."""
    row = await parts.pool.fetchrow("select * from runs where tenant_id = $1 order by id limit 1", BIG)
    last = await parts.pool.fetchval("select max(started_at) from runs where tenant_id <> $1", BIG)
    assert row is not None
    assert row["started_at"] < last, "the big tenant started first"
    until = row["finished_at"] or datetime.now(UTC)
    print(
        f"the big tenant: {row['state']}, {row['read_count'] // BIG_PAGE:,} of {BIG_RECORDS // BIG_PAGE:,} pages in "
        f"{(until - row['started_at']).total_seconds():.0f} s; the others started within {others.last_lag:.0f} s"
    )


async def install(parts: Parts, url: str, scale: Scale) -> datetime:
    """Set up the tenants on one account and return their first due date, some time from now."""
    received = datetime.now(UTC)
    first_due = (received + timedelta(seconds=10 + 2 * scale.processes)).replace(microsecond=0)
    start = (first_due - INTERVAL).isoformat().replace("+00:00", "Z")
    due = parse_schedule({"every": "2m", "start_at": start})
    never = parse_schedule(
        {"every": "365d", "start_at": (first_due - timedelta(days=1)).isoformat().replace("+00:00", "Z")}
    )
    async with parts.pool.acquire() as connection, connection.transaction():
        place = directory.destination_place("own")
        sealed = parts.sealer.seal({}, place)
        await directory.put_destination(connection, StoredDestination(0, "own", "postgresql", {}, sealed, "f"))
        for tenant in [BIG, *(f"t{number}" for number in range(scale.tenants))]:
            schedule = never if tenant == BIG else due
            await directory.put_tenant(connection, tenant, "", received)
            await directory.put_connection(
                connection,
                StoredConnection(
                    0, tenant, "shop", str(HERE / "orders.yaml"), "shared", scale.processes * scale.slots,
                    {"base_url": url, "tenant": tenant}, parts.sealer.seal({}, directory.connection_place(tenant, "shop")),
                    "f", None, "", platform="shared", rate_limit=scale.limit,
                ),
            )  # fmt: skip
            installation, account = await directory.put_installation(connection, tenant, "sync", "shop", "own")
            chain, _ = await chains.ensure(
                connection, tenant, installation, "sync", "orders", account, start_instant(schedule)
            )
            await schedules.put(connection, chain, schedule.as_json(), received, next_due(schedule, received))
    return first_due


@contextmanager
def source(scale: Scale) -> Iterator[str]:
    """Yield the address of the platform, in a process of its own."""
    arguments = [str(scale.limit.per_second), str(scale.limit.burst), str(scale.pages)]
    command = [sys.executable, "-m", "benchmarks.shared_account.source", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def worker(environment: dict[str, str], roles: list[str], slots: int, log: Path) -> Iterator[None]:
    """Run an engine process of these roles, logging to a file."""
    command = [sys.executable, "-m", "tidegate", "worker", "--slots", str(slots), "--json"]
    command += [argument for role in roles for argument in ("--role", role)]
    with (
        log.open("w") as output,
        subprocess.Popen(command, env={**os.environ, **environment}, stderr=output) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def stats(url: str) -> dict[str, Any]:
    """Return the platform's own counts by tenths of seconds."""
    with urllib.request.urlopen(f"{url}/_stats") as reply:
        counted = json.load(reply)
    return {name: {int(tenth): count for tenth, count in counts.items()} for name, counts in counted.items()}


if __name__ == "__main__":
    main()
