"""The work queue: pgqueuer, on the same database. A job is a nudge that carries a run id (SPEC 7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import NAMESPACE_URL, uuid5

import structlog
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.domain.settings import db_settings
from pgqueuer.models import Job
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.queries import Queries
from pgqueuer.types import JobId, QueueEntrypoint, QueueManagerId

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool

ENTRYPOINT = QueueEntrypoint("run")
LIVE_PRIORITY, BACKFILL_PRIORITY = 1, 0
LOOK_EVERY = timedelta(seconds=2)
"""How often a worker looks for jobs that nobody told it of, such as those of a consumer that is no more."""
GATHER_SECONDS = 0.005
"""How long a worker that is nearly full waits for more of its runs to end, so that it takes and ends jobs in batches."""

JOBS_CAME, JOBS_LEFT, LOST = "insert", "delete", "lost"
"""What a listener is told: the first two as the queue's own trigger names them."""

log = structlog.get_logger()


async def install(connection: Connection) -> bool:
    """Create or upgrade the queue's tables in the connection's schema; return whether anything was created."""
    queries = Queries(AsyncpgDriver(cast(Any, connection)))
    if installed := await queries.schema_is_installed():
        await queries.upgrade()
    else:
        await queries.install(create_schema=False)
    await _keep_no_log(connection)
    return not installed


async def _keep_no_log(connection: Connection) -> None:
    """Let the queue's own log stay empty: it would be three rows a run that nobody reads, for `runs` tells all there is."""
    table = db_settings().qualified.queue_table_log
    there = await connection.fetchval(
        "select exists (select 1 from pg_trigger where tgname = 'no_log' and tgrelid = $1::text::regclass)", table
    )
    if not there:
        await connection.execute(
            f"""create or replace function no_log() returns trigger language plpgsql as $$ begin return null; end $$;
                create or replace trigger no_log before insert on {table} for each row execute function no_log()"""
        )


async def enqueue(connection: Connection, runs: Sequence[tuple[int, int, bool]]) -> None:
    """Enqueue a job per (run id, epoch, live), inside the caller's transaction.

    Asking again for a run and epoch whose job is still there adds nothing.
    """
    if not runs:
        return
    queries = Queries(AsyncpgDriver(cast(Any, connection)))
    await queries.enqueue(
        [ENTRYPOINT] * len(runs),
        [str(run_id).encode() for run_id, _, _ in runs],
        [LIVE_PRIORITY if live else BACKFILL_PRIORITY for _, _, live in runs],
        dedupe_key=[f"{run_id}:{epoch}" for run_id, epoch, _ in runs],
        on_conflict="skip",
    )


class Consumer:
    """Takes jobs off the queue and hands them to ``begin``, at most ``slots`` in hand at a time.

    ``begin`` is called with the jobs of a batch, as run ids by job id, and sees to it that `done` is called for each of
    them. It may ask the database over the connection that it is given until it returns, and no further batch is taken
    before. Jobs that are done leave the queue with the next batch that is taken, in one transaction. A job whose consumer
    has shown no sign of life for ``lost_after`` is handed out again. ``on_room`` is called when jobs have left the queue,
    by whichever process.
    """

    def __init__(
        self,
        pool: Pool,
        begin: Callable[[Connection, Mapping[int, int], Callable[[int], None]], Awaitable[None]],
        slots: int,
        worker: str,
        *,
        lost_after: timedelta,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._begin = begin
        self._on_room = on_room
        self._slots = slots
        self._name = QueueManagerId(uuid5(NAMESPACE_URL, worker))
        self._lost_after = lost_after
        self._look_every = min(LOOK_EVERY, lost_after / 4).total_seconds()
        self._beat_every = (lost_after / 4).total_seconds()
        self._beat_at = 0.0
        self._queries: tuple[Connection, Queries] | None = None
        self._jobs: dict[JobId, Job] = {}
        self._done: list[Job] = []
        self._stopping = False
        self._changed = asyncio.Event()
        self._maybe_more = True

    async def run(self) -> None:
        """Work until `stop` is called, then return when the jobs in hand are done.

        Raises what the database raises; the jobs in hand are waited for then too.
        """
        async with _listening(self._pool, self._told) as listener:
            try:
                while not self._stopping:
                    if listener.is_closed():
                        raise ConnectionError("the connection that tells of new jobs is lost")
                    await self._turn(listener)
                    await self._wait()
            finally:
                self._stopping = True
                while self._jobs:
                    await self._wait()
                    try:
                        await self._turn()
                    except Exception:
                        await asyncio.sleep(self._look_every)
                await self._turn()

    def stop(self) -> None:
        """Take no further jobs."""
        self._stopping = True
        self._changed.set()

    def done(self, job_id: int) -> None:
        """Let a job leave the queue: its run has ended, or is not ours to begin."""
        job = self._jobs.pop(JobId(job_id), None)
        if job is not None:
            self._done.append(job)
            self._changed.set()

    async def _turn(self, listener: Connection | None = None) -> None:
        """In one transaction let the jobs that are done leave, show that the others live, and take as many as there is
        room for.

        It is the ``listener``'s, which has these statements prepared; without one, for that may be lost, any other's.
        """
        ended, self._done = self._done, []
        now = asyncio.get_running_loop().time()
        beating = sorted(self._jobs) if now >= self._beat_at else []
        room = self._slots - len(self._jobs) if self._maybe_more and not self._stopping else 0
        if not ended and not beating and not room:
            return
        if room:
            self._maybe_more = False  # whoever tells us from here on tells us of others
        session: AbstractAsyncContextManager[Connection]
        session = self._pool.acquire() if listener is None else nullcontext(listener)
        async with session as connection:
            try:
                taken = await self._turned(connection, ended, beating, room)
            except BaseException:
                self._done += ended
                raise
            if beating or not self._jobs:
                self._beat_at = now + self._beat_every
            self._maybe_more |= len(taken) == room > 0
            await self._take(connection, taken)

    async def _turned(
        self, connection: Connection, ended: Sequence[Job], beating: Sequence[JobId], room: int
    ) -> Sequence[Job]:
        async with connection.transaction():
            queries = self._queries_over(connection)
            if ended:
                await queries.log_jobs([(job, "successful", None) for job in ended])
            if beating:
                await queries.update_heartbeat(list(beating))
            return await self._dequeue(queries, room) if room else []

    def _queries_over(self, connection: Connection) -> Queries:
        """Return pgqueuer's queries over ``connection``; it composes its statements once for each of these."""
        if self._queries is None or self._queries[0] is not connection:
            self._queries = connection, Queries(AsyncpgDriver(cast(Any, connection)))
        return self._queries[1]

    async def _take(self, connection: Connection, jobs: Sequence[Job]) -> None:
        new = {
            job.id: job for job in jobs if job.id not in self._jobs
        }  # we may have been too busy to show that we live
        self._jobs |= new
        if new:
            await self._begin(connection, {job.id: int(job.payload or b"0") for job in new.values()}, self.done)

    async def _dequeue(self, queries: Queries, most: int) -> list[Job]:
        return await queries.dequeue(
            batch_size=most,
            entrypoints={ENTRYPOINT: EntrypointExecutionParameter(concurrency_limit=0)},
            queue_manager_id=self._name,
            global_concurrency_limit=None,
            heartbeat_timeout=self._lost_after,
        )

    async def _wait(self) -> None:
        """Return when there is something to do: jobs are done, or there may be new ones, or it is time to look."""
        self._changed.clear()
        if not self._done and not (self._maybe_more and len(self._jobs) < self._slots and not self._stopping):
            try:
                await asyncio.wait_for(self._changed.wait(), self._look_every)
            except TimeoutError:
                self._maybe_more = True
        if len(self._jobs) > self._slots // 2:
            await asyncio.sleep(GATHER_SECONDS)

    def _told(self, what: str) -> None:
        if what == JOBS_LEFT:
            self._on_room()
            return
        self._maybe_more |= what == JOBS_CAME
        self._changed.set()


async def hear_of_room(pool: Pool, on_room: Callable[[], None]) -> None:
    """Call ``on_room`` whenever jobs have left the queue, by whichever process, until cancelled: for one that takes none.

    Calls it as well when it begins to listen, and raises ConnectionError when it cannot hear any more.
    """
    lost = asyncio.Event()

    def told(what: str) -> None:
        if what == JOBS_LEFT:
            on_room()
        elif what == LOST:
            lost.set()

    async with _listening(pool, told):
        on_room()
        await lost.wait()
        raise ConnectionError("the connection that tells of room in the queue is lost")


@asynccontextmanager
async def _listening(pool: Pool, told: Callable[[str], None]) -> AsyncGenerator[Connection]:
    """Be told ``JOBS_CAME``, ``JOBS_LEFT`` or ``LOST`` over the connection yielded, while inside."""

    def changed(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        for what in (JOBS_CAME, JOBS_LEFT):
            if f'"{what}"' in str(payload):
                told(what)

    def lost(_connection: object) -> None:
        told(LOST)

    channel = db_settings().channel
    async with pool.acquire() as connection:
        connection.add_termination_listener(lost)
        await connection.add_listener(channel, changed)
        try:
            yield connection
        finally:
            connection.remove_termination_listener(lost)
            if not connection.is_closed():
                await connection.remove_listener(channel, changed)


async def prune(connection: Connection | Pool) -> None:
    """Empty the queue's own log of finished jobs: `runs` is the only truth about work."""
    await Queries(AsyncpgDriver(cast(Any, connection))).clear_queue_log(ENTRYPOINT)
