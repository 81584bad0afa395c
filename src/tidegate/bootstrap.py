"""The composition root: the only module that joins concrete parts, reads the environment and knows the real clock."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import unquote

import aiohttp
import asyncpg

from tidegate.connectors.http import open_session
from tidegate.connectors.registry import find_connector
from tidegate.destinations.base import Destination
from tidegate.destinations.files.files import Files, root_of
from tidegate.destinations.postgres.local import DEFAULT_SCHEMA, LocalPostgres
from tidegate.destinations.postgres.names import check_schema
from tidegate.destinations.postgres.remote import RemotePostgres
from tidegate.destinations.webhook.settings import WebhookSettings
from tidegate.destinations.webhook.webhook import Webhook
from tidegate.domain.clock import Clock
from tidegate.domain.duration import LONGEST
from tidegate.domain.errors import InvalidInput
from tidegate.domain.masking import Mask
from tidegate.engine.parts import Parts, nothing
from tidegate.engine.settings import Settings
from tidegate.signals.requests import watched_requests
from tidegate.signals.watching import Observer, Watch, watch
from tidegate.store import database, ledger, outbox, retention, schema
from tidegate.store.directory import StoredDestination
from tidegate.store.embedded import EmbeddedServer
from tidegate.store.seal import KEY_VARIABLE, Sealer, load_key

if TYPE_CHECKING:
    from tidegate.store.database import Pool

DATABASE_VARIABLE = "TIDEGATE_DATABASE_URL"
DATA_DIR_VARIABLE = "TIDEGATE_DATA_DIR"
SLOTS_VARIABLE = "TIDEGATE_SLOTS"
QUEUE_DEPTH_VARIABLE = "TIDEGATE_QUEUE_DEPTH"
FAILING_DAYS_VARIABLE = "TIDEGATE_PAUSE_AFTER_FAILING_DAYS"
PRIVATE_VARIABLE = "TIDEGATE_ALLOW_PRIVATE_ADDRESSES"
OTLP_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
OTLP_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
MOST = 1_000_000
"""The largest number that a setting takes."""
ANCHOR_SECONDS = 30.0
LEAST_CONNECTIONS = 100
"""To sources and receivers, at once; with more slots one for each, so that no run waits for another's."""
KEYED_CONNECTIONS = 2
"""To the database, for what is done to many runs in one statement: they are taken on one, and ended on the other."""
GARBAGE_THRESHOLDS = (50_000, 20, 20)
"""New objects more than gone ones before the youngest are looked through; and how often before the older ones are."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a process is started with; `from_environment` reads it.

    ``traces``: export traces of runs. ``observers`` are told what becomes so. ``migrate``: bring the schema up to date.
    ``mask`` hides this process's secrets.
    """

    data_dir: Path
    database_url: str | None = None
    key_source: Mapping[str, str] = field(default_factory=dict, repr=False)
    allow_private_addresses: bool = False
    settings: Settings = field(default_factory=Settings)
    clock: Clock | None = None
    signal: Callable[[str], None] = nothing
    traces: bool = False
    observers: tuple[Observer, ...] = ()
    migrate: bool = True
    mask: Mask = field(default_factory=Mask)


def from_environment(environment: Mapping[str, str] | None = None) -> Options:
    """Return the options that the environment asks for (docs/reference/configuration.md lists the variables).

    Raises InvalidInput naming a variable whose value is not usable.
    """
    given = os.environ if environment is None else environment
    mask = Mask()
    mask.learn(*_secrets(given))
    return Options(
        data_dir=Path(given.get(DATA_DIR_VARIABLE, ".tidegate")).absolute(),
        database_url=given.get(DATABASE_VARIABLE) or None,
        key_source=given,
        allow_private_addresses=_flag(given, PRIVATE_VARIABLE),
        settings=Settings(
            slots=_positive(given, SLOTS_VARIABLE, Settings().slots),
            queue_depth=_positive(given, QUEUE_DEPTH_VARIABLE, Settings().queue_depth),
            pause_after_failing_days=_positive(given, FAILING_DAYS_VARIABLE, Settings().pause_after_failing_days),
            keep=_kept(given),
        ),
        traces=_traces(given),
        mask=mask,
    )


@asynccontextmanager
async def assemble(options: Options) -> AsyncGenerator[Parts]:
    """Start or find the database, bring its schema up to date and yield the parts of one process.

    Raises InvalidInput or DestinationUnavailable with what to do next.
    """
    sealer = Sealer(load_key(options.key_source, options.data_dir), options.mask.learn)
    worker = f"{socket.gethostname()}:{os.getpid()}"
    server = None if options.database_url else await asyncio.to_thread(EmbeddedServer, options.data_dir)
    dsn = options.database_url or (server.dsn if server else "")
    try:
        async with _pool(dsn, options.settings.slots + 6 - KEYED_CONNECTIONS) as pool:
            if options.migrate:
                await schema.migrate(pool)
            async with (
                _pool(dsn, KEYED_CONNECTIONS, by_key=True) as by_key,
                anchored_clock(pool) as anchored,
                _watched(options, worker) as observers,
                open_session(
                    allow_private_addresses=options.allow_private_addresses,
                    max_connections=max(LEAST_CONNECTIONS, options.settings.slots),
                    trace_configs=_watching_requests(observers, options.clock or anchored),
                ) as session,
            ):
                clock = options.clock or anchored
                yield Parts(
                    pool=pool,
                    clock=clock,
                    session=session,
                    sealer=sealer,
                    connector=lru_cache(maxsize=1000)(find_connector),
                    open_destination=partial(open_destination, pool, session, clock),
                    chance=random.random,
                    worker=worker,
                    settings=options.settings,
                    signal=options.signal,
                    observe=watch(observers),
                    mask=options.mask,
                    by_key=by_key,
                )
    finally:
        if server is not None:
            await asyncio.to_thread(server.release)


@asynccontextmanager
async def _pool(dsn: str, size: int, *, by_key: bool = False) -> AsyncGenerator[Pool]:
    """Yield a pool; ``by_key``: for what is done to many runs in one statement."""
    pool = await database.open_pool(dsn, size=size, by_key=by_key)
    try:
        yield pool
    finally:
        await asyncio.wait_for(pool.close(), timeout=10)


async def open_destination(
    pool: Pool,
    session: aiohttp.ClientSession,
    clock: Clock,
    stored: StoredDestination,
    secrets: Mapping[str, str],
) -> Destination:
    """Return the destination of a stored kind; one that is to be stored, and is tried out, has the id 0. Raises InvalidInput
    for a kind there is none of and for a setting that is not usable, a DestinationError if it cannot be reached.
    """
    match stored.kind:
        case "postgresql":
            schema = stored.settings.get("schema", DEFAULT_SCHEMA)
            schema = str(schema) if stored.id else check_schema(schema)
            if url := secrets.get("url"):
                this = await ledger.identity(pool, clock.now())
                return await RemotePostgres.connect(url, pool, this.id, alone=this.alone, schema=schema)
            return LocalPostgres(pool, schema=schema)
        case "webhook":
            settings = WebhookSettings.parse(stored.settings, secrets, stored=stored.id > 0)
            return Webhook(settings, stored.id, session, pool, outbox, clock)
        case "files":
            return Files(root_of(stored.settings), stored.id, pool, outbox, clock, _worker())
    known = "Use postgresql, webhook or files."
    raise InvalidInput(f"destinations.{stored.name}.kind", stored.kind, "is not known", known)


def collect_rarely() -> None:
    """Let the garbage collector look less often, and past what is there already: call it once a process is set up to serve.

    An engine keeps its modules and up to ten thousand sources for as long as it lives; looking through them again and again
    took a fifth of the CPU of small runs (docs/reference/benchmarks.md).
    """
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def _worker() -> str:
    """Return this process's name among all of one database."""
    return f"{socket.gethostname()}:{os.getpid()}"


class AnchoredClock:
    """The database's time, told by this process's monotonic clock: all processes of one database agree."""

    def __init__(self) -> None:
        self._anchor = datetime.min.replace(tzinfo=UTC)
        self._since = 0.0

    def anchor(self, now: datetime) -> None:
        """Go by ``now`` from here on; an earlier instant than the one last told is not gone back to."""
        self._anchor = max(now.astimezone(UTC), self.now() if self._since else now.astimezone(UTC))
        self._since = monotonic()

    def now(self) -> datetime:
        """Return the database's present, as far as one round trip at the last look could tell."""
        return self._anchor + timedelta(0, monotonic() - self._since)

    async def sleep(self, seconds: float) -> None:
        """Wait in real time."""
        await asyncio.sleep(seconds)


@asynccontextmanager
async def anchored_clock(pool: Pool) -> AsyncGenerator[AnchoredClock]:
    """Yield a clock set by the database's, and set again every so often: a suspended machine's own clock stands still."""
    clock = AnchoredClock()

    async def look() -> None:
        clock.anchor(await pool.fetchval("select clock_timestamp()"))

    async def keep_looking() -> None:
        while True:
            await asyncio.sleep(ANCHOR_SECONDS)
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await look()

    await look()
    looking = asyncio.create_task(keep_looking())
    try:
        yield clock
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


@asynccontextmanager
async def _watched(options: Options, worker: str) -> AsyncGenerator[tuple[Observer, ...]]:
    """Yield the observers; what the traces still hold is sent at the end. Their SDK is imported only if asked for."""
    if not options.traces:
        yield options.observers
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from tidegate.signals.traces import Traces

    traces = Traces(BatchSpanProcessor(OTLPSpanExporter()), options.mask, worker)
    try:
        yield (*options.observers, traces)
    finally:
        await asyncio.to_thread(traces.close)


def _watching_requests(observers: tuple[Observer, ...], clock: Clock) -> list[aiohttp.TraceConfig]:
    return [watched_requests(Watch(observers), clock)] if observers else []


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """Return what must not be shown of the environment itself."""
    addresses = [environment.get(name, "") for name in (DATABASE_VARIABLE, *OTLP_VARIABLES)]
    headers = [pair for name in OTLP_HEADERS for pair in environment.get(name, "").split(",")]
    return [
        environment.get(KEY_VARIABLE, ""),
        *(address for address in addresses if "@" in address or "?" in address),
        *(unquote(pair.partition("=")[2]).strip() for pair in headers),
    ]


def _traces(environment: Mapping[str, str]) -> bool:
    """Return whether the standard OTEL_ variables ask for traces. Raises InvalidInput for a way there is none of."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if exporter not in ("", "none", "otlp"):
        raise InvalidInput("OTEL_TRACES_EXPORTER", exporter, "is not there", "Use otlp or none.")
    addressed = any(environment.get(name) for name in OTLP_VARIABLES)
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if environment.get(name, "http/protobuf") not in ("", "http/protobuf"):
            raise InvalidInput(name, environment[name], "is not spoken", "Use http/protobuf (port 4318 by convention).")
    return addressed or exporter == "otlp"


def _flag(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name, "").lower()
    if value not in ("", "0", "1", "true", "false", "yes", "no"):
        raise InvalidInput(name, environment[name], "is neither yes nor no", "Write 1 or 0.")
    return value in ("1", "true", "yes")


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not 1 <= _whole(text) <= MOST:
        problem = f"is not a whole number from 1 to {MOST:,}"
        raise InvalidInput(name, text, problem, f"Leave it out for {default}.")
    return int(text)


def _kept(environment: Mapping[str, str]) -> dict[str, timedelta | None]:
    """Return for how long the environment wants things kept: ``TIDEGATE_KEEP_RUNS_DAYS`` and its like, 0 for ever."""
    found: dict[str, timedelta | None] = {}
    for what in retention.kept_for():
        name = f"TIDEGATE_KEEP_{what.upper()}_DAYS"
        text = environment.get(name, "")
        if text and not 0 <= _whole(text) <= LONGEST.days:
            problem = f"is not a whole number of days up to {LONGEST.days:,}"
            raise InvalidInput(name, text, problem, "Write 0 to keep them for ever.")
        if text:
            found[what] = timedelta(days=int(text)) if int(text) else None
    return found


def _whole(text: str) -> int:
    """Return the whole number that ``text`` is, -1 if it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
