"""What the engine is given by the composition root, and the sources and destinations it keeps open."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp

from tidegate.connectors.base import ConnectionSettings, Connector, Source
from tidegate.destinations.base import Destination, Target
from tidegate.domain.clock import Clock
from tidegate.domain.errors import InternalError, InvalidInput
from tidegate.domain.masking import Mask
from tidegate.domain.run import RunState
from tidegate.domain.stream import Stream
from tidegate.engine.allowance import Allowances
from tidegate.engine.observing import Observe, unobserved
from tidegate.engine.settings import Settings
from tidegate.engine.together import Together
from tidegate.store import directory, ending
from tidegate.store.directory import StoredConnection, StoredDestination
from tidegate.store.ending import Finish
from tidegate.store.leases import LeasedRun
from tidegate.store.seal import Sealer
from tidegate.store.vaults import Vaults

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool

OPEN_SOURCES = 10_000
"""Connections whose source is kept open, with its pacing and its token; the least recently used one goes first."""


def nothing(point: str) -> None:
    """Ignore the signal."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one process.

    ``by_key``: a pool of the same database for what is done to many runs in one statement (`store.database.open_pool`); the
    ordinary one unless given. ``chance`` yields random numbers in [0, 1).
    ``signal`` is called with the name of every point of a run's life that
    docs/reference/signals.md lists; tests wait for them, and crash there. ``observe`` is told what has become so. ``mask`` knows
    every secret that this process has sealed or unsealed.
    """

    pool: Pool
    clock: Clock
    session: aiohttp.ClientSession
    sealer: Sealer
    connector: Callable[[str], Connector]
    open_destination: Callable[[StoredDestination, dict[str, str]], Awaitable[Destination]]
    chance: Callable[[], float]
    worker: str
    settings: Settings = field(default_factory=Settings)
    signal: Callable[[str], None] = nothing
    observe: Observe = unobserved
    mask: Mask = field(default_factory=Mask)
    by_key: Pool | None = None

    @property
    def keyed(self) -> Pool:
        """Return the pool for what is done to many runs in one statement."""
        return self.by_key or self.pool

    @property
    def pools(self) -> tuple[Pool, ...]:
        """Return all pools of this process on Tidegate's database."""
        return (self.pool,) if self.by_key is None else (self.pool, self.by_key)


@dataclass(slots=True)
class Ends:
    """The two ends of runs, opened once and kept: sources by connection, destinations by id.

    ``finishing`` ends the runs that found nothing new, many in one transaction. ``vaults``: where sources keep tokens.
    ``allowances``: what their platform accounts allow.
    """

    parts: Parts
    finishing: Together[Finish, RunState] = field(init=False)
    vaults: Vaults = field(init=False)
    allowances: Allowances = field(init=False)
    _sources: OrderedDict[int, tuple[str, int, Connector, Source]] = field(default_factory=OrderedDict)
    _read: dict[int, StoredConnection] = field(default_factory=dict)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _destinations: dict[int, tuple[str, Destination]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.finishing = Together(lambda asked: ending.finish_many(self.parts.keyed, asked))
        self.vaults = Vaults(self.parts.pool, self.parts.sealer, self.parts.clock)
        self.allowances = Allowances(self.parts.pool, self.parts.clock)

    async def prepare(self, connection: Connection | Pool, leased: Sequence[LeasedRun]) -> None:
        """Read the connections of these runs in one statement, those whose source is not open yet."""
        wanted = {(run.tenant_id, run.connection_id) for run in leased if not self._is_open(run)}
        if wanted:
            for stored in await directory.connections_by_id(connection, sorted(wanted)):
                self._read[stored.id] = stored

    def source(self, run: LeasedRun) -> tuple[Source, Stream, str]:
        """Return the source of a run that has been prepared, its stream's declaration and its connector's name.

        Raises InvalidInput if the connector or stream is not there any more, or a setting or secret is missing.
        """
        self.allowances.learn(run.account_id, run.rate_limit)
        stored = self._read.pop(run.connection_id, None)
        if stored is not None:
            connector, source = self.open_source(stored)
            self._sources[run.connection_id] = (stored.fingerprint, stored.account_id, connector, source)
            if len(self._sources) > OPEN_SOURCES:
                self._sources.popitem(last=False)
        if run.connection_id not in self._sources:
            raise InternalError(
                f"The source of run {run.id} could not be opened: another run of its connection failed to."
            )
        self._sources.move_to_end(run.connection_id)
        *_, connector, source = self._sources[run.connection_id]
        return source, stream_of(connector, run.stream), connector.name

    def _is_open(self, run: LeasedRun) -> bool:
        kept = self._sources.get(run.connection_id)
        return kept is not None and kept[:2] == (run.connection_fingerprint, run.account_id)

    def open_source(self, stored: StoredConnection) -> tuple[Connector, Source]:
        """Return a connection's connector and its source, with the tokens and the allowance that all processes share.

        Raises InvalidInput if the connector is not there any more, or a setting or secret is missing.
        """
        connector = self.parts.connector(stored.connector)
        secrets = self.parts.sealer.unseal(stored.sealed, stored.place)
        settings = ConnectionSettings(
            settings=stored.settings,
            secrets=secrets,
            vault=self.vaults.of(stored),
            allowance=self.allowances.of(stored.account_id),
        )
        source = connector.open(settings, self.parts.session, self.parts.clock)
        return connector, source

    async def destination(self, run: LeasedRun) -> Destination:
        """Return the run's destination, opened anew if its settings or secrets have changed."""
        return await self.destination_of(run.destination_id, run.destination_fingerprint)

    async def destination_of(self, destination_id: int, fingerprint: str) -> Destination:
        """Return a destination, opened anew if its fingerprint is another one now."""
        kept = self._destinations.get(destination_id)
        if kept is not None and kept[0] == fingerprint:
            return kept[1]
        async with self._opening:  # one at a time, so that no destination is opened twice
            return await self._destination(destination_id, fingerprint)

    async def _destination(self, destination_id: int, fingerprint: str) -> Destination:
        kept = self._destinations.get(destination_id)
        if kept is not None and kept[0] == fingerprint:
            return kept[1]
        stored = await directory.destination_by_id(self.parts.pool, destination_id)
        secrets = self.parts.sealer.unseal(stored.sealed, directory.destination_place(stored.name))
        destination = await self.parts.open_destination(stored, secrets)
        self._destinations[destination_id] = (stored.fingerprint, destination)
        if kept is not None:
            await kept[1].close()
        return destination

    async def close(self) -> None:
        """Wait for tokens that are being renewed, and close every destination."""
        await self.vaults.settled()
        for _, destination in self._destinations.values():
            await destination.close()
        self._destinations.clear()


def stream_of(connector: Connector, name: str) -> Stream:
    """Return a connector's stream. Raises InvalidInput naming the streams there are."""
    try:
        return connector.streams[name]
    except KeyError:
        raise InvalidInput(
            "stream",
            name,
            f"is not a stream of {connector.name}",
            f"Use one of: {', '.join(sorted(connector.streams))}.",
        ) from None


def target_of(run: LeasedRun, connector: str, stream: Stream) -> Target:
    """Return whose records of which stream the run delivers."""
    return Target(tenant_id=run.tenant_id, account_id=run.account_name, connector=connector, stream=stream)
