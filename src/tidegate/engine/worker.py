"""Worker: takes the lease of a run, executes it, and says how it ended (SPEC 5, 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars

from tidegate.domain.errors import (
    AccountHeld,
    InternalError,
    InvalidInput,
    LeaseLost,
    SourceClockBehind,
    TidegateError,
    Unauthorised,
)
from tidegate.domain.run import Lane
from tidegate.engine import failing
from tidegate.engine.attempt.delivery import Stopped
from tidegate.engine.attempt.execution import execute
from tidegate.engine.observing import AttemptEnded, AttemptStarted, Outcome, Stepped
from tidegate.engine.parts import Ends, Parts
from tidegate.store import accounts, directory, leases, runs, schedules, waiting
from tidegate.store.leases import LeasedRun
from tidegate.store.queue import Consumer

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool

log = structlog.get_logger()

NOTHING_LEFT = frozenset({Outcome.SUCCEEDED, Outcome.UNPROVEN})
"""How a run ends whose batches are not in the outbox, or not any more: it would be *delivering* otherwise."""


class Worker:
    """Executes the runs that the queue hands to this process, at most ``settings.slots`` at a time.

    ``on_end`` is called whenever a run has left a worker's hands, this one's or another process's: there is room for another.
    ``on_left`` is called if it may have left something in the outbox.
    """

    def __init__(self, parts: Parts, on_end: Callable[[], None], on_left: Callable[[], None] = lambda: None) -> None:
        self._parts = parts
        self._on_end, self._on_left = on_end, on_left
        self._ends = Ends(parts)
        self._stopping = asyncio.Event()
        self._held: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._cut: set[tuple[int, int]] = set()
        self._backfills: dict[tuple[int, int], asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._consumer: Consumer | None = None
        self._cutting: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Work until `stop` is called; then deliver the pages in hand, give the runs back and return.

        If the queue's connection is lost the worker takes a new one; runs in hand go on, or their leases expire.
        """
        settings = self._parts.settings
        renewing = asyncio.create_task(self._renew_leases())
        watching = asyncio.create_task(self._ends.allowances.watch())
        try:
            while not self._stopping.is_set():
                self._consumer = Consumer(
                    self._parts.keyed,
                    self._begin,
                    settings.slots,
                    self._parts.worker,
                    lost_after=settings.lease,
                    on_room=self._on_end,
                )
                try:
                    await self._consumer.run()
                except Exception:
                    log.exception("queue lost")
                    await self._parts.clock.sleep(settings.tick_every.total_seconds())
        finally:
            ending = [task for task in (renewing, watching, self._cutting) if task is not None]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            await self._ends.close()

    def stop(self) -> None:
        """Ask the worker to end gracefully (SIGTERM): no new runs, and a checkpoint after the page in hand."""
        self._stopping.set()
        for stop in self._backfills.values():
            stop.set()
        if self._consumer is not None:
            self._consumer.stop()
        self._cutting = asyncio.create_task(self._cut_off())

    async def _cut_off(self) -> None:
        """Let go of what has not come to a checkpoint within ``stop_grace``: a source that is silent, a slow batch."""
        await self._parts.clock.sleep(self._parts.settings.stop_grace.total_seconds())
        for held in list(self._held):
            self._cancel(held)

    def _cancel(self, held: tuple[int, int]) -> None:
        """Cut off the attempt at a run; `_execute` lets go of it."""
        self._cut.add(held)
        self._held[held].cancel()

    async def _begin(self, connection: Connection, jobs: Mapping[int, int], done: Callable[[int], None]) -> None:
        """Begin the runs of a batch of jobs that are ours to begin, each in a task of its own; the other jobs are done.

        A job too many is harmless.
        """
        leased: dict[int, LeasedRun] = {}
        try:
            if not self._stopping.is_set():
                leased = {run.id: run for run in await self._take_leases(connection, sorted(set(jobs.values())))}
        except Exception:
            log.exception("leases not taken")
        finally:
            for job_id, run_id in jobs.items():
                if (run := leased.pop(run_id, None)) is not None:
                    self._keep(asyncio.create_task(self._to_its_end(run)), partial(done, job_id))
                else:
                    done(job_id)

    def _keep(self, task: asyncio.Task[None], ended: Callable[[], None]) -> None:
        """Keep a task until it has ended, however it ends, and then call ``ended``."""

        def forget(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            ended()

        self._tasks.add(task)
        task.add_done_callback(forget)

    async def _to_its_end(self, run: LeasedRun) -> None:
        bind_contextvars(**_names(run))  # in every line that this task logs from here on
        try:
            await self._execute(run)
        except Exception:
            log.exception("run let go")  # its lease expires

    async def handle(self, run_id: int) -> None:
        """Execute a run if it still waits for a worker."""
        for run in await self._take_leases(self._parts.pool, [run_id]):
            with bound_contextvars(**_names(run)):
                await self._execute(run)

    async def _execute(self, run: LeasedRun) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._parts.signal("run.leased")
        held = (run.id, run.epoch)
        self._held[held] = task
        try:
            await self._attempt(run)
        except asyncio.CancelledError:
            if held not in self._cut:
                raise
            task.uncancel()
            await self._let_go(run)
        finally:
            del self._held[held]
            self._cut.discard(held)
            self._on_end()
        self._parts.signal("run.ended")

    async def _let_go(self, run: LeasedRun) -> None:
        """End an attempt that was cut off: a graceful stop has no more patience, or the lease is not ours any more."""
        if self._stopping.is_set():
            await leases.release(self._parts.pool, run, self._parts.clock.now())
            self._ended(run, Outcome.RELEASED)
        else:
            self._lost(run)

    def _lost(self, run: LeasedRun) -> None:
        log.warning("lease lost")
        self._ended(run, Outcome.LOST)

    def _ended(
        self, run: LeasedRun, outcome: Outcome, error: TidegateError | None = None, retry_in: timedelta | None = None
    ) -> None:
        self._parts.observe(AttemptEnded(run, self._parts.clock.now(), outcome, error, retry_in))
        if outcome not in NOTHING_LEFT:
            self._on_left()

    async def _attempt(self, run: LeasedRun) -> None:
        self._parts.observe(AttemptStarted(run, self._parts.clock.now()))
        try:
            if run.lane is Lane.LIVE or self._stopping.is_set():
                state = await execute(self._parts, self._ends, run, self._stopping)
            else:
                with self._stop_of(run) as stop:
                    state = await execute(self._parts, self._ends, run, stop)
            self._ended(run, Outcome(state))
        except Stopped:
            await leases.release(self._parts.pool, run, self._parts.clock.now())
            self._ended(run, Outcome.RELEASED)
        except LeaseLost as error:
            await self._behind(run, error)
        except InvalidInput as error:  # what this process was given (key, connector file): another one may do better
            await self._give_back(run, InternalError(error.message, remedy=error.remedy))
        except TidegateError as error:
            await self._give_back(run, error)
        except Exception as error:
            log.exception("internal error")
            await self._give_back(run, InternalError(f"{type(error).__name__}: {error}"))

    @contextmanager
    def _stop_of(self, run: LeasedRun) -> Generator[asyncio.Event]:
        """Yield what asks a backfill to stop at its next checkpoint: the worker's end, or a live run that wants its place."""
        held = (run.id, run.epoch)
        self._backfills[held] = asyncio.Event()
        try:
            yield self._backfills[held]
        finally:
            del self._backfills[held]

    async def _make_way(self) -> None:
        """Live first: ask the backfills in hand that are in the way of a live run to stop at their next checkpoint.

        They are put back as by a graceful stop, and go on once there is room.
        """
        going_on = {run_id: stop for (run_id, _), stop in self._backfills.items() if not stop.is_set()}
        if not going_on:
            return
        settings, now = self._parts.settings, self._parts.clock.now()
        full = len(self._held) >= settings.slots
        for run_id in await waiting.giving_way(
            self._parts.pool, now, sorted(going_on), full=full, since=now - settings.renew_every
        ):
            log.info("backfill gives way", run_id=run_id)
            going_on[run_id].set()

    async def _behind(self, run: LeasedRun, error: LeaseLost) -> None:
        """Walk away, unless the ledger says that the run is ours after all: then it is younger than what a destination
        remembers, restored from a backup, and the run goes on under an epoch that is new there too (SPEC 5, fencing).
        """
        newest = error.values.get("newest_epoch")
        now = self._parts.clock.now()
        if isinstance(newest, int) and await leases.overtake(self._parts.pool, run, newest, now):
            log.warning("epoch behind the destination's", newest_epoch=newest)
            self._ended(run, Outcome.RELEASED)
        else:
            self._lost(run)

    async def _give_back(self, run: LeasedRun, error: TidegateError) -> None:
        """Let the run be tried again, or end it as failed: its error's type decides (SPEC 5, "Failures")."""
        self._parts.mask.error(error)
        now = self._parts.clock.now()
        wait = self._parts.settings.retry.next_wait(error, run.attempt, self._parts.chance())
        log.info("attempt failed", code=error.code, error=str(error), retry_in=wait)
        if wait is not None:
            await self._put_back(run, error, now, wait)
            self._ended(run, Outcome.RETRYING, error, wait)
        elif isinstance(error, Unauthorised):
            self._ended(run, await self._refused(run, error, now), error)
        else:
            async with self._parts.pool.acquire() as connection, connection.transaction():
                if await leases.fail(connection, run, error, now):
                    await failing.note_failed(self._parts, connection, [run.id], now)
            self._ended(run, Outcome.FAILED, error)

    async def _put_back(self, run: LeasedRun, error: TidegateError, now: datetime, wait: timedelta) -> None:
        """Let the run be tried again; what its source asked for is asked of all runs of its platform account (SPEC 3)."""
        counted = not isinstance(error, SourceClockBehind | AccountHeld)
        pause = self._parts.settings.pause_asked_for(error)
        async with self._parts.pool.acquire() as connection, connection.transaction():
            await leases.retry(connection, run, error, now + wait, counted=counted)
            if pause is not None:
                await accounts.hold(connection, run.account_id, now + pause, f"{error.code}, said to run {run.id}")
        if pause is not None:
            self._ends.allowances.hold(run.account_id, now + pause)

    async def _refused(self, run: LeasedRun, error: Unauthorised, now: datetime) -> Outcome:
        """End the run, mark its connection and pause its installations; with newer credentials, try those instead."""
        async with self._parts.pool.acquire() as connection, connection.transaction():
            paused = await directory.mark_unauthorised(
                connection, run.connection_id, run.connection_fingerprint, error.message, now
            )
            if paused is None:
                await leases.retry(connection, run, error, now, counted=True)
                return Outcome.RETRYING
            if await leases.fail(connection, run, error, now):
                await failing.note_failed(self._parts, connection, [run.id], now)
            await schedules.pause(connection, paused, now)
            await runs.drop_waiting(connection, paused, now)
        return Outcome.FAILED

    async def _take_leases(self, connection: Connection | Pool, run_ids: Sequence[int]) -> list[LeasedRun]:
        now = self._parts.clock.now()
        until = now + self._parts.settings.lease
        leased = await leases.lease(connection, run_ids, now, until, self._parts.worker)
        await self._ends.prepare(connection, leased)
        return leased

    async def _renew_leases(self) -> None:
        """Renew all leases in one statement every ``renew_every``; a run that is not ours any more is let go."""
        settings = self._parts.settings
        while True:
            self._parts.observe(
                Stepped("worker", self._parts.clock.now(), settings.renew_every, timedelta(0), len(self._held))
            )
            await self._parts.clock.sleep(settings.renew_every.total_seconds())
            held = list(self._held)
            if not held:
                continue
            try:
                ours = await leases.renew(self._parts.pool, held, self._parts.clock.now() + settings.lease)
            except Exception:
                log.exception("leases not renewed")
                continue
            for run_id, epoch in held:
                if run_id not in ours and (run_id, epoch) in self._held:
                    self._cancel((run_id, epoch))
            try:
                await self._make_way()
            except Exception:
                log.exception("no way made for live runs")


def _names(run: LeasedRun) -> dict[str, object]:
    """Return what tells a run's log lines from all others (docs/reference/logs.md)."""
    return {
        "run_id": run.id, "tenant_id": run.tenant_id, "installation": run.installation, "stream": run.stream,
        "attempt": run.attempt, "epoch": run.epoch,
    }  # fmt: skip
