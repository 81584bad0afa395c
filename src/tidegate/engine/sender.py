"""Sender: posts what waits in the outbox, route by route and in order, and ends the runs that waited for it (SPEC 5)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from tidegate.destinations.base import Sends
from tidegate.domain.errors import DestinationUnavailable, InternalError, LeaseLost, TidegateError
from tidegate.domain.outgoing import Answer, MessageState, Sending, Verdict
from tidegate.engine import failing
from tidegate.engine.commands import installations
from tidegate.engine.observing import BatchesSent, Outcome, RunDelivered, SendOutcome
from tidegate.engine.parts import Ends, Parts
from tidegate.store import sending as store
from tidegate.store.sending import LeasedRoute

if TYPE_CHECKING:
    from tidegate.store.database import Connection

log = structlog.get_logger()


class Sender:
    """Sends on up to ``settings.routes_at_once`` routes; ``on_end`` is called when a run may have ended by it.

    A route is under a lease with an epoch while it is sent on: of two senders only one settles its batches.
    """

    def __init__(self, parts: Parts, on_end: Callable[[], None]) -> None:
        self._parts = parts
        self._on_end = on_end
        self._ends = Ends(parts)
        self._stopping = False
        self._held: dict[int, tuple[int, asyncio.Task[None]]] = {}
        self._destinations: dict[int, int] = {}

    async def step(self, now: datetime) -> int:
        """Begin with the routes that have something to send, and end the runs that wait for nothing more.

        Returns how many routes were begun with and runs ended.
        """
        settings = self._parts.settings
        begun, room = 0, settings.routes_at_once - len(self._held)
        if room > 0 and not self._stopping:
            held = Counter(self._destinations.values())
            for route in await store.take(self._parts.pool, now, now + settings.lease, self._parts.worker, room, held):
                task = asyncio.create_task(self._work(route))
                self._held[route.id] = (route.epoch, task)
                self._destinations[route.id] = route.destination_id
                begun += 1
        if ended := await self._end_delivered(now):
            self._on_end()
        return begun + ended

    async def renew(self, now: datetime) -> int:
        """Extend the leases of the routes in hand, and return how many are; one that is not ours any more is let go."""
        held = {route_id: epoch for route_id, (epoch, _) in self._held.items()}
        if not held:
            return 0
        ours = await store.renew(self._parts.pool, list(held.items()), now + self._parts.settings.lease)
        for route_id, epoch in held.items():
            if route_id not in ours and self._held.get(route_id, (None,))[0] == epoch:
                self._held[route_id][1].cancel()
        return len(ours)

    async def idle(self) -> None:
        """Return when the routes in hand have been let go."""
        await asyncio.gather(*(task for _, task in self._held.values()), return_exceptions=True)

    def stop(self) -> None:
        """Ask the sender to end gracefully: the request that is on its way is waited for, nothing more is sent."""
        self._stopping = True

    async def close(self) -> None:
        """Wait for what is on its way, up to ``stop_grace``; what is then cut off is sent again under the same id."""
        self._stopping = True
        if self._held:
            grace = asyncio.ensure_future(self._parts.clock.sleep(self._parts.settings.stop_grace.total_seconds()))
            idle = asyncio.ensure_future(self.idle())
            await asyncio.wait({grace, idle}, return_when=asyncio.FIRST_COMPLETED)
            ending = [grace, idle, *(task for _, task in self._held.values())]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
        await self._ends.close()

    async def _work(self, route: LeasedRoute) -> None:
        try:
            await self._send_on(route)
        except LeaseLost as error:
            log.warning("lease lost", route_id=route.id, epoch=error.values.get("epoch"))
        except TidegateError as error:
            await self._stumbled(route, error)
        except Exception as error:
            log.exception("internal error", route_id=route.id)
            await self._stumbled(route, InternalError(f"{type(error).__name__}: {error}"))
        finally:
            del self._held[route.id], self._destinations[route.id]
            self._on_end()

    async def _send_on(self, route: LeasedRoute) -> None:
        """Send the route's batches in order until there is none, one has to wait, or others have their turn."""
        destination = await self._ends.destination_of(route.destination_id, route.destination_fingerprint)
        if not isinstance(destination, Sends):
            raise InternalError(f"Destination {route.destination_id} has batches in the outbox and cannot send them.")
        for _ in range(self._parts.settings.batches_a_turn):
            following = None if self._stopping else await store.following(self._parts.pool, route)
            if following is None:
                break
            if await self._send(route, destination, following) is SendOutcome.RETRYING:
                return
            self._parts.signal("delivery.settled")
            await self._end_delivered(self._parts.clock.now(), route.id)
        await store.release(self._parts.pool, route, self._parts.clock.now())

    async def _send(self, route: LeasedRoute, destination: Sends, sending: Sending) -> SendOutcome:
        """Send once and settle what came of it; where it is to be sent again, the route has been let go until then."""
        self._parts.signal("delivery.sending")
        began_at = self._parts.clock.now()
        answer = await destination.send(sending, began_at)
        answer = replace(answer, detail=self._parts.mask.text(answer.detail))
        self._parts.signal("delivery.answered")
        answered_at = self._parts.clock.now()
        outcome, wait = await self._settled(route, destination, sending, answer, answered_at)
        kind, status, wrong = route.destination_kind, answer.status, answer.detail
        self._parts.observe(BatchesSent(kind, sending, began_at, answered_at, outcome, status, wrong, wait))
        return outcome

    async def _end_delivered(self, now: datetime, route_id: int | None = None) -> int:
        async def refused(connection: Connection, run_id: int) -> None:
            log.error("coverage refused", run_id=run_id)
            await failing.note_failed(self._parts, connection, [run_id], now)

        ended = await store.end_delivered(self._parts.pool, now, refused, route_id)
        for run, state in ended:
            self._parts.observe(RunDelivered(run, now, Outcome(state)))
        return len(ended)

    async def _settled(
        self, route: LeasedRoute, destination: Sends, sent: Sending, answer: Answer, now: datetime
    ) -> tuple[SendOutcome, timedelta | None]:
        """Settle what was sent, and return what became of it and when it is sent again."""
        until = now + self._parts.settings.lease
        if answer.verdict is Verdict.ACKNOWLEDGED:
            await store.settle(self._parts.pool, route, sent, MessageState.ACKNOWLEDGED, answer, now, until)
            return SendOutcome.ACKNOWLEDGED, None
        if answer.verdict is Verdict.AGAIN and not _given_up(destination, route, sent, now):
            return SendOutcome.RETRYING, await self._later(route, sent, answer, now)
        ids = [batch.message_id for batch in sent.batches]
        log.error(
            "dead letter", tenant_id=sent.tenant_id, installation=sent.installation, ids=ids, detail=answer.detail
        )
        await store.settle(self._parts.pool, route, sent, MessageState.DEAD, answer, now, until)
        if answer.verdict is Verdict.GONE:
            await self._pause(sent, now)
        return SendOutcome.DEAD, None

    async def _later(self, route: LeasedRoute, sent: Sending, answer: Answer, now: datetime) -> timedelta:
        attempt = sent.batches[0].attempts + 1
        retry = self._parts.settings.retry
        wait = retry.wait_or_longer(attempt, self._parts.chance(), answer.retry_after_seconds)
        error = DestinationUnavailable(answer.detail, remedy="It is sent again by itself.")
        log.info("send failed", tenant_id=sent.tenant_id, route_id=route.id, error=answer.detail, retry_in=wait)
        await store.put_back(self._parts.pool, route, sent, answer, error, now, now + wait)
        return wait

    async def _pause(self, sent: Sending, now: datetime) -> None:
        reason = "its receiver answered 410 Gone"
        async with self._parts.pool.acquire() as connection, connection.transaction():
            await installations.pause_in(connection, sent.tenant_id, sent.installation, reason, now)
        log.error("paused", tenant_id=sent.tenant_id, installation=sent.installation, reason=reason)

    async def _stumbled(self, route: LeasedRoute, error: TidegateError) -> None:
        """Let go of a route that could not be sent on for a reason of ours; it is tried again, and nothing is given up."""
        self._parts.mask.error(error)
        now = self._parts.clock.now()
        again = now + self._parts.settings.retry.cap * (1 - self._parts.chance())
        log.error("route stumbled", route_id=route.id, code=error.code, error=str(error))
        try:
            answer = Answer(Verdict.AGAIN, detail=error.message)
            await store.put_back(self._parts.pool, route, None, answer, error, now, again)
        except Exception:  # the database is away: the lease expires by itself
            log.exception("route not put back", route_id=route.id)


def _given_up(destination: Sends, route: LeasedRoute, sent: Sending, now: datetime) -> bool:
    """Return whether a batch has been tried for as long as its destination wants.

    Counted from when the receiver began to fail, or from the batch's making if that was later: one that waited behind
    others has its own time, and those that waited for a dead receiver together go together.
    """
    if destination.retry_for is None or route.failing_since is None:
        return False
    since = max(route.failing_since, min(batch.created_at for batch in sent.batches))
    return now - since >= destination.retry_for
