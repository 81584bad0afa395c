"""The whole path against the real localstripe server: command line, engine, source, table, ledger; twice."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from tests.connectors.stripe import test_localstripe
from tests.connectors.stripe.test_localstripe import KEY, Shop
from tidegate.connectors.http import open_session

stripe = test_localstripe.stripe

CONFIGURATION = """
destinations:
  own: {kind: postgresql}
tenants:
  acme:
    connections:
      stripe: {connector: stripe, settings: {base_url: "${URL}"}, secrets: {api_key: "${KEY}"}}
    installations:
      pay:
        connection: stripe
        destination: own
        streams: [charges, customers]
        schedule: {daily: true, time_zone: Europe/London, start_date: "START"}
"""


def test_two_runs_bring_everything_once_and_then_only_what_is_new(
    stripe: str, database_url: str, tmp_path: Path
) -> None:
    """Issue 1 "Show when done": the counts of source and table agree; the second run inserts only what is new."""
    start = datetime.now(UTC) - timedelta(days=2)
    (tmp_path / "pay.yaml").write_text(CONFIGURATION.replace("START", f"{start:%Y-%m-%d}"), "utf-8")
    given = {"TIDEGATE_DATABASE_URL": database_url, "TIDEGATE_DATA_DIR": str(tmp_path), "URL": stripe, "KEY": KEY}
    environment = {**os.environ, **given, "TIDEGATE_ALLOW_PRIVATE_ADDRESSES": "1"}

    def tidegate(*arguments: str) -> Any:
        command = [sys.executable, "-m", "tidegate", *arguments, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    tidegate("apply", "-f", str(tmp_path / "pay.yaml"), "--yes")
    asyncio.run(_sell(stripe, 250, ago=timedelta(hours=2)))
    first = {run["stream"]: run for run in tidegate("run", "acme/pay")}
    assert (first["charges"]["inserted_count"], first["customers"]["inserted_count"]) == (250, 1)
    assert asyncio.run(_rows(database_url)) == {"charges": 250, "customers": 1}

    asyncio.run(_sell(stripe, 30, ago=timedelta(0)))
    second = {run["stream"]: run for run in tidegate("run", "acme/pay")}
    assert (second["charges"]["inserted_count"], second["customers"]["inserted_count"]) == (30, 1)
    assert second["charges"]["read_count"] == 30
    assert asyncio.run(_rows(database_url)) == {"charges": 280, "customers": 2}

    for stream in tidegate("coverage", "acme/pay"):
        assert (stream["link_count"], stream["uncovered"]) == (2, None)


async def _sell(url: str, count: int, *, ago: timedelta) -> None:
    async with open_session(allow_private_addresses=True) as session:
        shop = Shop(session, url)
        await shop.clock(datetime.now(UTC) - ago)
        await shop.charges(count)
        await shop.clock(datetime.now(UTC))


async def _rows(dsn: str) -> dict[str, int]:
    connection = await asyncpg.connect(dsn)
    try:
        return {
            name: await connection.fetchval(f"select count(*) from synced.stripe_{name}")
            for name in ("charges", "customers")
        }
    finally:
        await connection.close()
