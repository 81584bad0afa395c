"""The engine: its loops in one process, or in as many as wanted (SPEC 7). All of them run the same code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from tidegate.domain.errors import InvalidInput
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.observing import Stepped
from tidegate.engine.parts import Parts
from tidegate.engine.planner import plan_due
from tidegate.engine.retention import prune
from tidegate.engine.sender import Sender
from tidegate.engine.sweeper import sweep
from tidegate.engine.watch import watch
from tidegate.engine.worker import Worker
from tidegate.store import queue, runs, schedules, schema, sending

log = structlog.get_logger()

DRAIN_LOOK_SECONDS = 0.05


class Role(StrEnum):
    """What a process does; by default everything."""

    PLANNER = "planner"
    DISPATCHER = "dispatcher"
    WORKER = "worker"
    SWEEPER = "sweeper"
    SENDER = "sender"


class Engine:
    """The loops of one process."""

    def __init__(self, parts: Parts, roles: frozenset[Role] = frozenset(Role)) -> None:
        self._parts = parts
        self._roles = roles
        self._stopping = asyncio.Event()
        self._dispatch_now = asyncio.Event()
        self._news = asyncio.Event()
        self._first_done = asyncio.Event()
        self._send_now = asyncio.Event()
        self._ready_anew = False
        self._looked_at: datetime | None = None
        self._plan_at: datetime | None = None
        self._worker = Worker(parts, on_end=self._run_ended, on_left=self._send_now.set)
        self._sender = Sender(parts, on_end=self._dispatch_now.set)
        self._outdated: InvalidInput | None = None

    async def run(self) -> None:
        """Run until `stop` is called, then end gracefully: pages in hand are delivered, runs given back.

        Ends so by itself when a newer revision has migrated the database, and raises InvalidInput that says so.
        """
        settings = self._parts.settings
        loops: list[Awaitable[None]] = []
        if Role.PLANNER in self._roles:
            loops.append(
                self._repeat(
                    "planner",
                    self._plan,
                    settings.tick_every,
                    rest=settings.dispatch_pause,
                    until=lambda: self._plan_at,
                )
            )
        if Role.DISPATCHER in self._roles:
            loops.append(
                self._repeat(
                    "dispatcher",
                    self._dispatch,
                    settings.tick_every,
                    self._dispatch_now,
                    settings.dispatch_pause,
                    news=self._news,
                )
            )
            if Role.WORKER not in self._roles:
                loops.append(self._hear_of_room())
        if Role.SWEEPER in self._roles:
            loops.append(self._keep_house("sweeper", self._sweep, settings.sweep_every))
            loops.append(self._watch_later())
            loops.append(self._keep_house("retention", self._prune, settings.prune_every))
        loops.append(self._repeat("guard", self._guard, settings.sweep_every))
        if Role.WORKER in self._roles:
            loops.append(self._worker.run())
        if Role.SENDER in self._roles:
            loops.append(self._repeat("sender", self._sender.step, settings.tick_every, self._send_now))
            loops.append(self._repeat("sender's leases", self._sender.renew, settings.renew_every))
        try:
            await asyncio.gather(*loops)
        finally:
            await self._sender.close()
        if self._outdated is not None:
            raise self._outdated

    def stop(self) -> None:
        """Ask `run`, or `drain`, to end gracefully; once is enough."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._dispatch_now.set()
        self._worker.stop()
        self._sender.stop()

    async def _keep_house(self, name: str, step: Callable[[datetime], Awaitable[int]], every: timedelta) -> None:
        """Call ``step`` every so often, first when nothing is due or one run of what is has ended, after a tick in any case.

        What is due has waited longest when a process begins, and the database has enough to do for it. ``step`` is called
        once however soon the process is stopped: some do nothing but what is due, again and again (`drain`).
        """
        if {Role.PLANNER, Role.DISPATCHER, Role.WORKER} <= self._roles:
            await self._pause(self._parts.settings.tick_every, self._first_done)
        if self._stopping.is_set():
            await self._step(name, step, every)
        await self._repeat(name, step, every)

    def _run_ended(self) -> None:
        """Let the dispatcher look, after its rest: there is room for another run."""
        self._dispatch_now.set()
        self._first_done.set()

    def _dispatch_anew(self) -> None:
        """Let the dispatcher look, after its rest: there may be runs that were not ready before."""
        self._ready_anew = True
        self._dispatch_now.set()

    def _dispatch_at_once(self) -> None:
        """Let the dispatcher look without rest: there are runs that were not ready before."""
        self._dispatch_anew()
        self._news.set()

    async def drain(self) -> None:
        """Do all that is due, then stop and return (`tick`).

        Runs that wait for a later run date (settle, spread, retry) are left for later.
        """
        working = asyncio.create_task(self.run())
        try:
            while not working.done() and not self._stopping.is_set():
                now = self._parts.clock.now()
                await plan_due(self._parts, now)
                await dispatch_ready(self._parts, now)
                look_at = await schedules.next_look_at(self._parts.pool)  # another planner may hold it: asked first
                outstanding, _ = await runs.outstanding(self._parts.pool, now)
                outstanding += await sending.outstanding(self._parts.pool, now)
                if not outstanding and (look_at is None or look_at > now):
                    break
                await asyncio.wait({working}, timeout=DRAIN_LOOK_SECONDS)
            if Role.SWEEPER in self._roles and not self._stopping.is_set():
                await watch(self._parts, self._parts.clock.now())
        finally:
            self.stop()
            await working

    async def _plan(self, now: datetime) -> int:
        """Plan what is due, and note when to be there for what is due next: at its due date, not a tick later."""
        self._plan_at = None
        planned = await plan_due(self._parts, now, on_batch=self._dispatch_at_once)
        look_at = await schedules.look_at(self._parts.pool)
        if planned or (look_at is not None and look_at > now):  # else another planner has it in hand
            self._plan_at = look_at
        if not planned:
            self._first_done.set()
        return planned

    async def _dispatch(self, now: datetime) -> int:
        """Dispatch what is ready; while another process does so, ask again: it may not have seen what is ready by now.

        A run that has ended makes room for another: that is worth a look once half of the queue is free, for the workers
        have the other half to go on with, and after a tick in any case.
        """
        settings = self._parts.settings
        anew, self._ready_anew = self._ready_anew, False
        if anew or self._looked_at is None or now - self._looked_at >= settings.tick_every:
            self._looked_at = now
            return await dispatch_ready(self._parts, now, if_taken=self._dispatch_anew)
        least = max(1, settings.queue_depth // 2)
        return await dispatch_ready(self._parts, now, if_taken=self._dispatch_now.set, least=least)

    async def _hear_of_room(self) -> None:
        """Wake the dispatcher when runs end elsewhere, also where no worker of this process listens to the queue."""
        hearing = asyncio.create_task(self._keep_hearing())
        await self._stopping.wait()
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)

    async def _keep_hearing(self) -> None:
        while True:
            try:
                await queue.hear_of_room(self._parts.pool, self._dispatch_now.set)
            except Exception:
                log.exception("queue lost")
            await self._parts.clock.sleep(self._parts.settings.tick_every.total_seconds())

    async def _sweep(self, now: datetime) -> int:
        if helped := await sweep(self._parts, now):
            self._dispatch_at_once()
        return helped

    async def _watch_later(self) -> None:
        """Look for alerts once the process has had time to do what became due while none ran, and every so often."""
        every = self._parts.settings.watch_every
        await self._pause(every)
        await self._repeat("watch", self._watch, every)

    async def _watch(self, now: datetime) -> int:
        changed = await watch(self._parts, now)
        return len(changed.raised) + len(changed.resolved)

    async def _prune(self, now: datetime) -> int:
        return sum(pruned.count for pruned in await prune(self._parts, now))

    async def _guard(self, _now: datetime) -> int:
        try:
            await schema.require_known(self._parts.pool)
        except InvalidInput as error:
            log.error("stopping", note=str(error))
            self._outdated = error
            self.stop()
        return 0

    async def _repeat(
        self,
        name: str,
        step: Callable[[datetime], Awaitable[int]],
        every: timedelta,
        wake: asyncio.Event | None = None,
        rest: timedelta = timedelta(0),
        until: Callable[[], datetime | None] = lambda: None,
        news: asyncio.Event | None = None,
    ) -> None:
        """Call ``step`` every so often, at ``until`` if that is sooner, or when woken, after a ``rest`` at the earliest,
        which ``news`` cut short.

        Trouble is logged and the loop goes on.
        """
        wake, news = wake or asyncio.Event(), news or asyncio.Event()
        while not self._stopping.is_set():
            wake.clear()
            news.clear()
            await self._step(name, step, every)
            if rest:
                await self._pause(rest, news)
            at = until()
            if at is None or (wait := at - self._parts.clock.now()) > every:
                wait = every
            if wait > timedelta(0):
                await self._pause(wait, wake)

    async def _step(self, name: str, step: Callable[[datetime], Awaitable[int]], every: timedelta) -> None:
        began_at = self._parts.clock.now()
        done, trouble = 0, None
        try:
            done = await step(began_at)
        except Exception as error:
            log.exception("step failed", loop=name)
            trouble = error
        ended_at = self._parts.clock.now()
        self._parts.observe(Stepped(name, ended_at, every, ended_at - began_at, done, trouble))

    async def _pause(self, duration: timedelta, wake: asyncio.Event | None = None) -> None:
        """Wait for ``duration``, or less if woken or stopped."""
        events = [self._stopping] if wake is None else [self._stopping, wake]
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(event.wait()) for event in events]
        waits.append(asyncio.ensure_future(self._parts.clock.sleep(duration.total_seconds())))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
