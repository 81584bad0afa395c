"""The work queue: pgqueuer, on the same database. A job is a nudge that carries a run id (SPEC 7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from pgqueuer import QueueManager
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool

ENTRYPOINT = "run"
LIVE_PRIORITY, BACKFILL_PRIORITY = 1, 0


async def install(connection: Connection) -> bool:
    """Create or upgrade the queue's tables in the connection's schema; return whether anything was created."""
    queries = Queries(AsyncpgDriver(cast(Any, connection)))
    if await queries.schema_is_installed():
        await queries.upgrade()
        return False
    await queries.install(create_schema=False)
    return True


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
    """Takes jobs off the queue and hands each one's run id to ``handle``, at most ``slots`` at a time.

    A job whose consumer has shown no sign of life for ``lost_after`` is handed out again.
    """

    def __init__(
        self, pool: Pool, handle: Callable[[int], Awaitable[None]], slots: int, *, lost_after: timedelta
    ) -> None:
        self._manager = QueueManager(Queries(AsyncpgPoolDriver(cast(Any, pool))))
        self._slots = slots
        self._lost_after = lost_after

        async def entrypoint(job: Job) -> None:
            if job.payload is not None:
                await handle(int(job.payload))

        self._manager.entrypoint(ENTRYPOINT, accepts_context=False)(entrypoint)

    async def run(self) -> None:
        """Work until `stop` is called, then return when the jobs in hand are done."""
        batch = max(1, self._slots // 2)
        await self._manager.run(
            dequeue_timeout=min(timedelta(seconds=2), self._lost_after / 2),
            batch_size=batch,
            max_concurrent_tasks=max(self._slots, 2 * batch),
            heartbeat_timeout=self._lost_after,
        )

    def stop(self) -> None:
        """Take no further jobs."""
        self._manager.shutdown.set()


async def prune(connection: Connection | Pool) -> None:
    """Empty the queue's own log of finished jobs: `runs` is the only truth about work."""
    await Queries(AsyncpgDriver(cast(Any, connection))).clear_queue_log(ENTRYPOINT)
