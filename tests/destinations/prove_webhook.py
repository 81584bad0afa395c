"""`python -m tests.destinations.prove_webhook`: a receiver's bad day, replayed, and what became of it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

import structlog

from tests.destinations.webhook.day import Day, Report, replay_day
from tidegate.store import database, schema
from tidegate.store.embedded import EmbeddedServer


def main() -> int:
    """Replay the day and print what happened; exit code 1 if anything was lost, out of order or not covered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the waits' jitter")
    seed = parser.parse_args().seed
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidegate-day-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedServer(Path(folder))
        try:
            asyncio.run(_migrate(server.dsn))
            report = asyncio.run(replay_day(server.dsn, Day(seed=seed)))
        finally:
            server.release()
    _print(report, time.monotonic() - began)
    return 1 if report.lost or report.out_of_order or report.uncovered else 0


async def _migrate(dsn: str) -> None:
    pool = await database.open_pool(dsn, size=2)
    await schema.migrate(pool)
    await pool.close()


def _print(report: Report, seconds: float) -> None:
    print(
        "A day and four hours of simulated time, 2 tenants, every 5 minutes, a record a minute and an edit in seven:\n"
    )
    print("| the receiver | answers | requests |\n|---|---|---|")
    for phase in ("up", "away", "slow", "patience", "up again"):
        for (there, status), count in sorted(report.requests.items()):
            if there == phase:
                print(f"| {phase} | {status or 'connection cut'} | {count} |")
    assert report.recovered_after is not None
    print(
        f"\n{report.records_made} records made per tenant, {report.versions_taken} versions in {report.messages} messages taken;"
        f" {report.lost} lost, {report.out_of_order} out of order, {report.repeated} repeated,"
        f" {report.uncovered} streams not covered to the end.\nFirst message taken {report.recovered_after} after the receiver"
        f" was back. All {sum(report.requests.values())} requests verified by standardwebhooks. {seconds:.0f} s."
    )


if __name__ == "__main__":
    sys.exit(main())
