"""Commands: what a person asks of the engine. Each is one transaction, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from tidegate.domain.catch_up import cut
from tidegate.domain.errors import InvalidInput
from tidegate.domain.failing import PausedBy
from tidegate.domain.instant import render_instant
from tidegate.domain.period import Period
from tidegate.domain.run import Trigger
from tidegate.domain.schedule import next_due
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.parts import Parts
from tidegate.store import chains, database, directory, failures, runs, schedules
from tidegate.store.chains import Chain
from tidegate.store.directory import StoredInstallation
from tidegate.store.runs import PlannedRun
from tidegate.store.schedules import Move

if TYPE_CHECKING:
    from tidegate.store.database import Connection

MOST_PIECES = 1000
"""Runs that one request makes of one stream at most."""


async def request_runs(
    parts: Parts, tenant_id: str, installation: str, stream: str | None = None, *, end: datetime | None = None
) -> list[int]:
    """Request a manual run `[watermark or start, end)` of every stream, or of one, and return the runs' ids (SPEC 2.11).

    ``end`` is now if not given, to the whole second; `max_period` makes several runs of one period.
    Asking twice for the same end gives the same runs (HOLE r).
    Raises InvalidInput if the installation or stream is not there, is paused, ``end`` is in the future (HOLE m), not
    after the start, or not after the watermark (HOLE n).
    """
    now = parts.clock.now()
    until = (end or now).replace(microsecond=0)
    if until > now:
        raise InvalidInput("end", render_instant(until), "is in the future", "Leave it out for a run up to now.")
    async with parts.pool.acquire() as connection, connection.transaction():
        await database.lock(connection, database.APPLY_LOCK, shared=True)
        await require_not_paused(connection, tenant_id, installation)
        of = await find_chains(connection, tenant_id, installation, stream)
        for chain in of:
            _require_after(chain, until)
        planned = [run for chain in of for run in await _manual(connection, chain, until, now)]
        return [await runs.request(connection, run) for run in planned]


async def give_up_behind(parts: Parts, run_ids: Sequence[int]) -> None:
    """Drop the pieces of a manual run that wait behind one that has ended without covering: they could never start."""
    await runs.drop_stranded(parts.pool, run_ids, parts.clock.now())


async def require_not_paused(connection: Connection, tenant_id: str, installation: str) -> None:
    """Raise InvalidInput if an installation is paused or not there."""
    found = await find_installation(connection, tenant_id, installation)
    if found.paused_at is not None:
        name = f"{tenant_id}/{installation}"
        remedy = f"Resume it first: `tidegate resume {name}`."
        raise InvalidInput("installation", name, f"is paused ({found.paused_reason})", remedy)


async def _manual(connection: Connection, chain: Chain, until: datetime, now: datetime) -> list[PlannedRun]:
    """Return the run up to ``until``, cut where the schedule says so; each piece waits for the one before it."""
    kept = await schedules.rule_of(connection, chain.id)
    longest = parse_schedule(kept.rule).max_period if kept else None
    begin = chain.watermark or chain.start_at
    ends = list(islice(cut(begin, until, longest), MOST_PIECES + 1))
    if len(ends) > MOST_PIECES:
        remedy = f"Choose an earlier end: {render_instant(ends[-2])} at the latest."
        raise InvalidInput("end", render_instant(until), f"makes more than {MOST_PIECES} runs of max_period", remedy)
    return [
        PlannedRun(
            chain_id=chain.id, trigger=Trigger.MANUAL, first_due_at=until, due_at=until, period_end=end,
            not_before_at=now, bounded=end < until, follows_at=before,
        )
        for before, end in zip([None, *ends], ends, strict=False)
    ]  # fmt: skip


def _require_after(chain: Chain, until: datetime) -> None:
    name = f"{chain.tenant_id}/{chain.installation} {chain.stream}"
    if until <= chain.start_at:
        raise InvalidInput(
            "end",
            render_instant(until),
            f"is not after the start of {name}",
            f"It starts at {render_instant(chain.start_at)}.",
        )
    if chain.watermark is not None and until <= chain.watermark:
        raise InvalidInput(
            "end",
            render_instant(until),
            f"is covered already for {name}",
            f"It is covered to {render_instant(chain.watermark)}: nothing to do.",
        )


async def pause(parts: Parts, tenant_id: str, installation: str, reason: str = "paused by hand") -> int:
    """Pause an installation: the active run finishes, waiting runs are dropped (SPEC 2.11); return how many were."""
    async with parts.pool.acquire() as connection, connection.transaction():
        await database.lock(connection, database.APPLY_LOCK, shared=True)
        return await pause_in(connection, tenant_id, installation, reason, parts.clock.now())


async def pause_in(
    connection: Connection,
    tenant_id: str,
    installation: str,
    reason: str,
    now: datetime,
    by: PausedBy = PausedBy.PERSON,
) -> int:
    """Pause an installation inside the caller's transaction; one that is paused already keeps its reason.

    A person's pause takes the place of one by a refusal or by failing days: nothing but a person ends it.
    """
    await directory.hold_installation(connection, tenant_id, installation)
    found = await find_installation(connection, tenant_id, installation)
    if found.paused_at is None or (by is PausedBy.PERSON and found.paused_by is not by):
        await directory.set_paused(connection, found.id, found.paused_at or now, by, reason)
    ids = [chain.id for chain in await chains.chains(connection, tenant_id, installation)]
    await schedules.pause(connection, ids, now)
    return await runs.drop_waiting(connection, ids, now)


EXPORTED = "exported"
"""How the reason begins for which an exported installation is paused (engine.moving)."""


async def resume(parts: Parts, tenant_id: str, installation: str, *, not_imported: bool = False) -> None:
    """Resume an installation; the due dates missed meanwhile are caught up (SPEC 2.11).

    One that was exported is resumed only by whoever says that it was ``not_imported`` elsewhere: InvalidInput otherwise.
    """
    async with parts.pool.acquire() as connection, connection.transaction():
        await database.lock(connection, database.APPLY_LOCK, shared=True)
        await resume_in(connection, tenant_id, installation, parts.clock.now(), not_imported=not_imported)


async def resume_in(
    connection: Connection,
    tenant_id: str,
    installation: str,
    now: datetime,
    *,
    not_imported: bool = False,
    paused_by: PausedBy | None = None,
) -> None:
    """Resume an installation inside the caller's transaction; one that is not paused is left as it is, and so is
    one that is not ``paused_by`` that, if given.

    Its streams count failing days anew, and its connection may try again (SPEC 5, "Failures").
    """
    await directory.hold_installation(connection, tenant_id, installation, with_connection=True)
    found = await find_installation(connection, tenant_id, installation)
    if found.paused_at is None or paused_by not in (None, found.paused_by):
        return
    if found.paused_reason.startswith(EXPORTED) and not not_imported:
        name = f"{tenant_id}/{installation}"
        remedy = f"If it was not imported anywhere: tidegate resume {name} --not-imported"
        raise InvalidInput("installation", name, f"was {found.paused_reason}", remedy)
    await directory.set_resumed(connection, found.id)
    await directory.clear_unauthorised(connection, tenant_id, found.connection)
    of = await chains.chains(connection, tenant_id, installation)
    moves = [await _caught_up(connection, chain) for chain in of]
    await schedules.resume(connection, [move for move in moves if move is not None])
    await failures.forget(connection, found.id)  # chains after schedules, as everyone does
    for chain in of:
        await extend_to_start(connection, chain.id, now)


async def extend_to_start(connection: Connection, chain_id: int, now: datetime) -> None:
    """Request the backfill from a chain's start to its head, if the start was moved there (SPEC 2.10)."""
    start_at, head = await chains.start(connection, chain_id), await chains.head(connection, chain_id)
    if head is not None and start_at < head:
        await runs.request_backfill(connection, chain_id, Period(start_at, head), now)


async def _caught_up(connection: Connection, chain: Chain) -> Move | None:
    """Return from where planning goes on: the watermark, if there is one."""
    kept = await schedules.rule_of(connection, chain.id)
    if kept is None:
        return None
    after = max(kept.received_at, chain.watermark or kept.received_at)
    return Move(chain.id, after, next_due(parse_schedule(kept.rule), after))


async def find_installation(connection: Connection, tenant_id: str, name: str) -> StoredInstallation:
    """Return an installation. Raises InvalidInput naming those there are."""
    found = await directory.installations(connection, tenant_id, name)
    if not found:
        there = [i.name for i in await directory.installations(connection, tenant_id)]
        raise InvalidInput(
            "installation",
            f"{tenant_id}/{name}",
            "does not exist",
            f"Tenant {tenant_id} has: {', '.join(there)}." if there else f"Tenant {tenant_id} has none.",
        )
    return found[0]


async def find_chains(connection: Connection, tenant_id: str, installation: str, stream: str | None) -> Sequence[Chain]:
    """Return the chains of one stream of an installation, or of all. Raises InvalidInput naming those there are."""
    found = await chains.chains(connection, tenant_id, installation)
    if not found:
        name = f"{tenant_id}/{installation}"
        remedy = f"Apply a file that names its streams. `tidegate coverage {name}` shows what is covered."
        raise InvalidInput("installation", name, "has no stream that is planned", remedy)
    chosen = [chain for chain in found if stream in (None, chain.stream)]
    if not chosen:
        raise InvalidInput(
            "stream",
            stream,
            f"is not a stream of {tenant_id}/{installation}",
            f"Use one of: {', '.join(chain.stream for chain in found)}.",
        )
    return chosen
