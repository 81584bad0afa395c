"""An upgrade beneath work: workers of the first revision, with its schema, go on while this revision migrates and takes over.

    python -m tests.upgrade.prove_upgrade

The first revision's source comes from git. Its workers deliver a shop that never rests; this revision migrates the database
beneath them, works beside them for a while, and then alone. In the end the destination must equal the source, the chain must
be whole, and no run may have failed. Prints what happened, and the longest time in which no run ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import asyncpg

from tests.cli.conftest import CONFIGURATION
from tests.cli.orders_api import CONNECTOR, PAGE, OrdersApi, serving
from tests.conftest import at
from tidegate.store.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]
FIRST_REVISION = "4b52d86"
PHASE_SECONDS = 12.0
EVERY_SECONDS = 0.2
PATIENCE_SECONDS = 60.0
ASK = """
insert into tidegate.runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end, not_before_at)
select id, tenant_id, account_id, 'live', 'manual', 'waiting', now(), now(), now(), now() from tidegate.chains
on conflict do nothing
"""
GAPS = """
select count(*) from (select period_start, lag(period_end) over (order by period_end) as before from tidegate.coverage) c
 where before <> period_start
"""
SLOWEST = """
select max(extract(epoch from finished_at - before)) from (
    select finished_at, lag(finished_at) over (order by finished_at) as before from tidegate.runs where finished_at > $1) r
"""


@dataclass
class LiveShop(OrdersApi):
    """Gets an order whenever it is told, at that instant."""

    orders: list[str] = field(default_factory=list)

    def sell(self) -> None:
        self.orders.append(datetime.now(UTC).isoformat().replace("+00:00", "Z"))

    def reply(self, query: dict[str, str]) -> dict[str, object]:
        since, after = query.get("updated_since", ""), int(query.get("after", 0))
        rows = [{"id": number, "updated_at": when} for number, when in enumerate(self.orders) if when >= since]
        page = rows[after : after + PAGE]
        return {"orders": page, "customers": [], "next": str(after + PAGE) if after + PAGE < len(rows) else None}


def main() -> None:
    """Upgrade once and exit with 1 if anything was lost."""
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-upgrade-", ignore_cleanup_errors=True) as folder,
        serving(LiveShop()) as shop,
    ):
        assert isinstance(shop, LiveShop)
        Path(folder).chmod(0o755)
        server = EmbeddedServer(Path(folder) / "server")
        try:
            asyncio.run(upgrade(Path(folder), server.dsn, shop))
        finally:
            server.release()


async def upgrade(folder: Path, dsn: str, shop: LiveShop) -> None:
    """Go through the phases: old alone, migrated beneath, both, new alone."""
    archive = subprocess.run(
        ["git", "archive", FIRST_REVISION, "src"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as packed:
        packed.extractall(folder / "first", filter="data")
    (folder / "shop.yaml").write_text(CONNECTOR)
    (folder / "tidegate.yaml").write_text(CONFIGURATION.replace("every: 1m", "every: 1000d"))
    connection = await asyncpg.connect(dsn)
    await connection.execute("create database upgraded")
    await connection.close()
    environment = {
        **os.environ, "TIDEGATE_DATABASE_URL": at(dsn, "upgraded"), "TIDEGATE_DATA_DIR": str(folder / "data"),
        "TIDEGATE_ALLOW_PRIVATE_ADDRESSES": "1", "SHOP_URL": shop.url, "SHOP_TOKEN": "token",
    }  # fmt: skip
    old, new = ({**environment, "PYTHONPATH": str(path)} for path in (folder / "first" / "src", ROOT / "src"))
    tidegate = [sys.executable, "-m", "tidegate"]
    subprocess.run(
        [*tidegate, "apply", "-y", "-f", str(folder / "tidegate.yaml")], env=old, check=True, capture_output=True
    )
    ledger = await asyncpg.connect(environment["TIDEGATE_DATABASE_URL"])
    print(f"schema of {FIRST_REVISION}: {await migrations(ledger)}")
    trading = asyncio.create_task(trade(environment["TIDEGATE_DATABASE_URL"], shop))
    workers: list[subprocess.Popen[bytes]] = []

    def start(env: dict[str, str]) -> None:
        log = (folder / "workers.log").open("ab")
        workers.extend(subprocess.Popen([*tidegate, "worker"], env=env, stderr=log) for _ in range(2))

    try:
        start(old)
        await phase(ledger, "old workers, old schema")
        began = time.monotonic()
        done = await asyncio.to_thread(subprocess.run, [*tidegate, "status"], env=new, capture_output=True, check=True)
        assert done.returncode == 0
        print(
            f"migrated beneath them in {time.monotonic() - began:.1f} s (start-up included): {await migrations(ledger)}"
        )
        await phase(ledger, "old workers, new schema")
        start(new)
        await phase(ledger, "old and new workers")
        await stop(workers[:2])
        await phase(ledger, "new workers")
        trading.cancel()
        await asyncio.gather(trading, return_exceptions=True)
        await ledger.execute(ASK)
        while await ledger.fetchval("select count(*) from tidegate.runs where finished_at is null"):
            await asyncio.sleep(0.1)
        await judge(ledger, shop)
    finally:
        trading.cancel()
        await stop(workers)
        await ledger.close()


async def trade(dsn: str, shop: LiveShop) -> None:
    """Sell an order and ask for a run, again and again."""
    connection = await asyncpg.connect(dsn)
    while True:
        shop.sell()
        await connection.execute(ASK)
        await asyncio.sleep(EVERY_SECONDS)


async def phase(ledger: asyncpg.Connection[asyncpg.Record], name: str) -> None:
    """Let time pass and say what was done in it. Raises AssertionError if nothing was."""
    count = "select count(*) from tidegate.coverage where committed_at > $1"
    since = await ledger.fetchval("select clock_timestamp()")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await ledger.fetchval(count, since):  # processes take a moment to start
        assert time.monotonic() < deadline, name
        await asyncio.sleep(EVERY_SECONDS)
    since = await ledger.fetchval("select clock_timestamp()")
    await asyncio.sleep(PHASE_SECONDS)
    covered = await ledger.fetchval(count, since)
    slowest = await ledger.fetchval(SLOWEST, since)
    print(
        f"{name}: {covered} periods covered in {PHASE_SECONDS:g} s, at most {float(slowest or 0):.1f} s between two ends"
    )
    assert covered, name


async def migrations(ledger: asyncpg.Connection[asyncpg.Record]) -> str:
    """Return the names of the migrations that have run."""
    return str(await ledger.fetchval("select string_agg(name, ', ' order by name) from tidegate.migrations"))


async def stop(workers: list[subprocess.Popen[bytes]]) -> None:
    """End processes gracefully, and those that do not end, at once."""
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    for worker in workers:
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(worker.wait, 60)
        worker.kill()


async def judge(ledger: asyncpg.Connection[asyncpg.Record], shop: LiveShop) -> None:
    """Print the verdict. Raises AssertionError if anything was lost."""
    delivered = await ledger.fetchval("select count(*) from shop.shop_orders")
    gaps = await ledger.fetchval(GAPS)
    states = await ledger.fetch("select state, count(*) from tidegate.runs group by state order by state")
    print(f"{len(shop.orders)} orders sold, {delivered} delivered; {gaps} gaps; runs: {[tuple(row) for row in states]}")
    assert (delivered, gaps) == (len(shop.orders), 0)
    assert not {row["state"] for row in states} - {"succeeded", "superseded", "dropped"}


if __name__ == "__main__":
    main()
