"""Kill -9 among children and changes: real processes, real sources over HTTP, the real engine, PostgreSQL.

    python -m tests.connectors.prove_kills [ROUNDS] [SEED]

In each round orders and contacts change, manual runs are requested, and the one engine process is killed at up to three requests
chosen at random, each time followed by a new one. Then the tables must hold what the sources hold, the chains must be unbroken,
and no request for a parent's children may have been repeated but those in hand, or not yet committed, when a process died.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
from collections import Counter as Tally
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.connectors.changes import feed_server
from tests.connectors.children import counter as orders
from tests.connectors.rest.sources import serve
from tidegate.bootstrap import Options, assemble
from tidegate.engine.commands import installations
from tidegate.engine.configuring import applying, configuration
from tidegate.engine.configuring.document import DocumentFile
from tidegate.engine.engine import Engine
from tidegate.engine.settings import Settings
from tidegate.store.embedded import EmbeddedServer

KEY = {"TIDEGATE_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}
QUICK = Settings(
    lease=timedelta(seconds=1.5),
    renew_every=timedelta(seconds=0.4),
    sweep_every=timedelta(seconds=0.3),
    tick_every=timedelta(seconds=0.2),
    requeue_after=timedelta(seconds=3),
    batch_bytes=1,
    pages_ahead=1,
)
INSTALLED = """
destinations: {{own: {{kind: postgresql}}}}
tenants:
  acme:
    connections:
      shop: {{connector: {folder}/counter.yaml}}
      book: {{connector: {folder}/book.yaml}}
    installations:
      items: {{connection: shop, destination: own, streams: [items], schedule: {rule}}}
      contacts: {{connection: book, destination: own, schedule: {rule}}}
"""
STABLE = orders.ASKED.replace("token: next}", "token: next, stable: true}")
"""Its tokens are places, which are asked for twice unless the source promises what this one keeps: so requests can be counted."""
RULE = "{cron: '0 0 1 1 *', start_at: 2026-01-01T00:00:00Z}"


def options(dsn: str, folder: Path) -> Options:
    """Return what the harness and the killed processes are started with."""
    return Options(folder, dsn, KEY, allow_private_addresses=True, settings=QUICK)


async def work(dsn: str, folder: Path) -> None:
    """Be one engine process until killed."""
    async with assemble(options(dsn, folder)) as parts:
        await Engine(parts).run()


@dataclass
class Trap:
    """Kills the engine at the requests with the numbers ``at``, and notes what was asked."""

    at: list[int] = field(default_factory=list)
    seen: int = 0
    process: asyncio.subprocess.Process | None = None
    kills: int = 0

    def step(self, *_request: object) -> None:
        self.seen += 1
        if self.at and self.seen >= self.at[0] and self.process is not None and self.process.returncode is None:
            self.at.pop(0)
            self.kills += 1
            self.process.send_signal(signal.SIGKILL)


@dataclass
class Proof:
    """The sources, the database and the figures."""

    dsn: str
    folder: Path
    chance: random.Random
    shop: orders.Counter
    book: feed_server.Book
    trap: Trap
    repeated: int = 0
    asked: int = 0

    async def round(self, parts: Any) -> None:
        """Change the sources, request runs, and keep the engine alive until both have succeeded."""
        self._live()
        await asyncio.sleep(1.1)  # manual runs end at whole seconds
        before, fed = len(self.shop.asked), len(self.book.asked)
        ids = await installations.request_runs(parts, "acme", "items") + await installations.request_runs(
            parts, "acme", "contacts"
        )
        self.trap.at = sorted(self.chance.randint(1, 40) + self.trap.seen for _ in range(self.chance.randint(1, 3)))
        await self._until_ended(parts.pool, ids)
        tally = Tally(path for path in self.shop.asked[before:] if "items" in path)
        pages = sum(max(1, -(-len(order.items) // self.shop.page_size)) for order in self.shop.orders.values())
        self.asked += sum(tally.values())
        attempts = await parts.pool.fetchval("select epoch from runs where id = $1", ids[0])
        allowed = pages + 4 * (attempts - 1)  # of each attempt that ended: asked for, ahead, queued, not yet committed
        said = f"{sum(tally.values())} requests for {pages} pages in {attempts} attempts: it began again"
        assert sum(tally.values()) <= allowed, said
        self.repeated += max(0, sum(tally.values()) - pages)
        assert fed == 0 or all("since" in asked for asked in self.book.asked[fed:]), "a token was lost"
        await self._check(parts.pool)

    def _live(self) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        for number in range(1, 13):  # all are edited, so that all are in the round's listing
            self.shop.put(number, now, *self.chance.sample(range(1, 20), self.chance.randint(0, 7)))
        for _ in range(self.chance.randint(5, 25)):
            number = self.chance.randint(1, 30)
            if number in self.book.names and self.chance.random() < 0.3:
                self.book.delete(number)
            else:
                self.book.put(number, f"{number} {len(self.book.log)}")

    async def _until_ended(self, pool: Any, ids: list[int]) -> None:
        while True:
            states = [
                row["state"] for row in await pool.fetch("select state from runs where id = any($1::bigint[])", ids)
            ]
            if all(state == "succeeded" for state in states):
                return
            assert set(states) <= {"waiting", "queued", "running", "retrying", "succeeded"}, states
            process = self.trap.process
            if process is None or process.returncode is not None:
                self.trap.process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    __spec__.name,
                    "--work",
                    self.dsn,
                    str(self.folder),
                    stdout=asyncio.subprocess.DEVNULL,
                )
            await asyncio.sleep(0.05)

    async def _check(self, pool: Any) -> None:
        rows = await pool.fetch("select order_id, id, label from synced.counter_items")
        there = {(row["order_id"], row["id"]): row["label"] for row in rows}
        for number, order in self.shop.orders.items():
            for item in order.items:
                assert there.get((number, item)) == f"{number}/{item} {order.updated_at:%d %H:%M:%S}"
        named = {
            r["id"]: r["name"] for r in await pool.fetch("select * from synced.book_contacts where deleted is not true")
        }
        assert named == self.book.names
        assert await pool.fetchval("select count(*) from quarantine") == 0


async def play(proof: Proof, parts: Any, rounds: int) -> None:
    """Play ``rounds``; the engine process ends with them, however they end."""
    trap = proof.trap
    try:
        for number in range(1, rounds + 1):
            await proof.round(parts)
            asked = len(proof.shop.asked)
            print(f"round {number}: {trap.kills} kills so far, {asked} requests for orders and items", flush=True)
    finally:
        if trap.process is not None and trap.process.returncode is None:
            trap.process.kill()
            await trap.process.wait()


async def prove(rounds: int, seed: int) -> None:
    """Play ``rounds`` and print the figures."""
    with tempfile.TemporaryDirectory(prefix="tidegate-kills-", ignore_cleanup_errors=True) as name:
        folder, trap = Path(name), Trap()
        server = EmbeddedServer(folder)
        shop, book = orders.Counter(), feed_server.Book()

        async def count(request: web.Request) -> web.StreamResponse:
            trap.step()
            return await (shop.answer(request) if "orders" in request.path else book.answer(request))

        async with serve(count) as url:
            (folder / "counter.yaml").write_text(orders.declaration(url, STABLE))
            (folder / "book.yaml").write_text(feed_server.DECLARATION.format(url=url))
            proof = Proof(server.dsn, folder, random.Random(seed), shop, book, trap)
            async with assemble(options(server.dsn, folder)) as parts:
                document = DocumentFile("kills.yaml", INSTALLED.format(folder=folder, rule=RULE), folder)
                await applying.apply(parts, await configuration.load([document], {}, parts))
                await play(proof, parts, rounds)
        full = sum("since" not in asked and "page" not in asked for asked in book.asked)
        print(
            f"{rounds} rounds, {trap.kills} kills: nothing lost, no deletion missed, "
            f"{proof.repeated} of {proof.asked} requests for children repeated, "
            f"contacts listed from the beginning {full} times, all of them in the first round"
        )
        server.release()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        asyncio.run(work(sys.argv[2], Path(sys.argv[3])))
    else:
        given = [int(argument) for argument in sys.argv[1:]]
        asyncio.run(prove(given[0] if given else 20, given[1] if len(given) > 1 else 1))
