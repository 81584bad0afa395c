"""A world to kill in: a shop, Tidegate's database, perhaps another one for the rows, and processes that come back.

A round is a period of business, one or more deaths, and the way back; `World.check` then holds the world against what
must be true of it (docs/concepts/crash-safety.md).
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import asyncpg

from tests.conftest import at
from tests.crash.audit import AUDIT, Violation, inspect
from tests.crash.child import FORKED, KEY, QUICK, Child
from tests.crash.points import LIVE, Orders
from tests.crash.source import DECLARATION, Shop, SourceProcess
from tidegate.domain.schedule import next_due, start_instant
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.engine import Role
from tidegate.engine.settings import Settings
from tidegate.store import chains, database, directory, schedules
from tidegate.store.directory import StoredConnection, StoredDestination
from tidegate.store.seal import Sealer, load_key

BEGIN = datetime(2026, 7, 1, tzinfo=UTC)
PERIOD = timedelta(hours=1)
RULE = {"every": "1h", "start_at": "2026-07-01T00:00:00Z"}
POLL_SECONDS = 0.03
ALL = frozenset(Role)
PLANNING = ALL - {Role.WORKER}


class Form(StrEnum):
    """Where the rows go: one transaction with the ledger, or another database with `tidegate_commits` (SPEC 5)."""

    SAME = "same database"
    OTHER = "another database"


class Cast(StrEnum):
    """Which processes there are."""

    ONE = "one process"
    TWO = "two equal processes"
    SPLIT = "planning and working apart"

    @property
    def roles(self) -> list[frozenset[Role]]:
        """Return the roles of each process."""
        match self:
            case Cast.ONE:
                return [ALL]
            case Cast.TWO:
                return [ALL, ALL]
            case Cast.SPLIT:
                return [PLANNING, frozenset({Role.WORKER})]


@dataclass(frozen=True, slots=True)
class Fallen:
    """A process that ended: when it was killed (time.monotonic), None if nobody did, and its exit code."""

    killed_at: float | None
    exit_code: int | None


@dataclass
class World:
    """One shop synced by some processes. Times are the harness's: ``offset`` ahead of the machine's clock."""

    form: Form
    dsn: str
    other_dsn: str
    root: Path
    settings: Settings
    shop: Shop
    source: SourceProcess
    offset: Synchronized[float]
    ledger: asyncpg.Connection[asyncpg.Record]
    rows: asyncpg.Connection[asyncpg.Record]
    children: list[Child] = field(default_factory=list)
    rounds: int = 0
    fallen: list[Fallen] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        """Return the world's present."""
        return datetime.fromtimestamp(time.time() + self.offset.value, UTC)

    @property
    def end(self) -> datetime:
        """Return the end of the round's period."""
        return BEGIN + self.rounds * PERIOD

    def spawn(self, roles: frozenset[Role] = ALL, orders: Orders = LIVE) -> Child:
        """Start a process of the engine."""
        child = Child(self.dsn, self.offset, self.settings, roles, self.root / "children.log", orders)
        self.children.append(child)
        return child

    def revive(self, orders: Orders = LIVE) -> bool:
        """Put a fresh process in the place of every dead one; return whether there was one. ``orders`` is for the first."""
        dead = [child for child in self.children if not child.alive]
        for child in dead:
            at = self.children.index(child)
            self.spawn(child.roles, orders)
            self.children[at] = self.children.pop()
            orders = LIVE
            self.fallen.append(Fallen(child.died_at, child.close()))
        return bool(dead)

    def trade(self) -> None:
        """Let a period of business pass, to a second after its end."""
        assert self.now < self.end + PERIOD, "a round takes less than a period"
        self.rounds += 1
        self.shop.trade(self.end - PERIOD, self.end)
        self.offset.value = self.end.timestamp() + 1 - time.time()

    async def covered(self) -> bool:
        """Return whether both streams are covered to the round's end."""
        ends = await self.ledger.fetch(
            "select max(v.period_end) as upto from chains c left join coverage v on v.chain_id = c.id group by c.id"
        )
        return all(row["upto"] == self.end for row in ends)

    async def until(self, condition: Callable[[], bool], what: str, deadline_seconds: float = 20) -> None:
        """Wait for something that the processes tell. Raises Violation at the deadline."""
        deadline = time.monotonic() + deadline_seconds
        while not condition():
            if time.monotonic() > deadline:
                await self._show_tasks()
                raise Violation(f"{what}: not within {deadline_seconds:g} s")
            await asyncio.sleep(POLL_SECONDS)

    async def ready(self) -> None:
        """Wait until all processes are up, replacing the dead."""

        def up() -> bool:
            return not self.revive() and all(child.ready for child in self.children)

        await self.until(up, "processes come up")

    async def settle(self, deadline_seconds: float = 40, *, revive: bool = True, orders: Orders = LIVE) -> float:
        """Wait until the round's period is covered, replacing the dead; return when it was (time.monotonic).

        ``orders``: for the first replacement. Raises Violation at the deadline.
        """
        deadline = time.monotonic() + deadline_seconds
        while not await self.covered():
            if revive and self.revive(orders):
                orders = LIVE
            if time.monotonic() > deadline:
                await self._show_tasks()
                runs = await self.ledger.fetch("select id, state, epoch, attempt, error::text from runs order by id")
                raise Violation(f"not covered within {deadline_seconds:g} s: {[dict(run) for run in runs[-4:]]}")
            await asyncio.sleep(POLL_SECONDS)
        return time.monotonic()

    async def _show_tasks(self) -> None:
        """Let every process that still can write to its log where it stands."""
        for child in self.children:
            child.send(signal.SIGUSR1)
            child.send(signal.SIGUSR2)
        await asyncio.sleep(0.5)

    async def check(self) -> None:
        """Hold the world against what must be true once a round is covered. Raises Violation."""
        await inspect(self.ledger, self.rows, self.shop, BEGIN, PERIOD, self.rounds, elsewhere=self.form is Form.OTHER)

    async def terminate_backend(self) -> bool:
        """End one of the server processes that work for Tidegate (pg_terminate_backend); False if there was none."""
        name = await self.ledger.fetchval(
            """select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and application_name = 'tidegate' order by random() limit 1"""
        )
        return bool(name)


@asynccontextmanager
async def open_world(
    server: str, name: str, template: str, form: Form, root: Path, settings: Settings = QUICK
) -> AsyncGenerator[World]:
    """Yield a world in fresh databases of the PostgreSQL at ``server``, its clock at the beginning, nothing running."""
    root.mkdir(parents=True, exist_ok=True)
    admin = await asyncpg.connect(server)
    other = f"{name}_rows"
    await admin.execute(f"create database {name} template {template}")
    if form is Form.OTHER:
        await admin.execute(f"create database {other}")
    dsn = at(server, name)
    other_dsn = at(server, other) if form is Form.OTHER else dsn
    ledger = await asyncpg.connect(dsn, server_settings={"search_path": "tidegate"})
    rows = await asyncpg.connect(other_dsn)
    await rows.execute(AUDIT)
    offset: Any = FORKED.Value("d", BEGIN.timestamp() - time.time(), lock=False)
    shop = Shop(root / "shop.json")
    source = SourceProcess(shop.file, offset)
    world = World(form, dsn, other_dsn, root, settings, shop, source, offset, ledger, rows)
    try:
        await _install(world)
        yield world
    finally:
        for child in world.children:
            child.close()
        source.kill()
        await ledger.close()
        await rows.close()
        await admin.execute(f"drop database {name} with (force)")
        await admin.execute(f"drop database if exists {other} with (force)")
        await admin.close()


async def _install(world: World) -> None:
    declaration = world.root / "crash.yaml"
    declaration.write_text(DECLARATION)
    sealer = Sealer(load_key({"TIDEGATE_KEY": KEY}, world.root))
    schedule = parse_schedule(RULE).started(BEGIN)
    secrets = {"url": world.other_dsn} if world.form is Form.OTHER else {}
    shop = StoredConnection(
        0, "acme", "shop", str(declaration), "acme.example", 4, {"url": world.source.url},
        sealer.seal({}, directory.connection_place("acme", "shop")), "f", None, "",
    )  # fmt: skip
    target = StoredDestination(
        0, "rows", "postgresql", {}, sealer.seal(secrets, directory.destination_place("rows")), "f"
    )
    pool = await database.open_pool(world.dsn, size=1)
    async with pool.acquire() as connection, connection.transaction():
        await directory.put_tenant(connection, "acme", "Acme", BEGIN)
        await directory.put_connection(connection, shop)
        await directory.put_destination(connection, target)
        installation, account = await directory.put_installation(connection, "acme", "sync", "shop", "rows")
        for stream in world.shop.records:
            chain, _ = await chains.ensure(
                connection, "acme", installation, "sync", stream, account, start_instant(schedule)
            )
            await schedules.put(connection, chain, schedule.as_json(), BEGIN, next_due(schedule, BEGIN))
    await pool.close()
