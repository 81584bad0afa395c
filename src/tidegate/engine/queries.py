"""Queries: what the faces read. Instants are aware UTC, durations in seconds (SPEC 1, "Spelling")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tidegate.domain.coverage import Link, Uncovered
from tidegate.domain.errors import InvalidInput
from tidegate.domain.run import Lane, RunState
from tidegate.domain.waiting import Wait, WaitingFor, summed_up
from tidegate.engine.parts import Parts
from tidegate.store import alerts, chains, directory, messages, reports, waiting
from tidegate.store.alerts import Alert
from tidegate.store.chains import Chain
from tidegate.store.reports import RunRow, Stretch

WAITING_STATES = frozenset({RunState.WAITING, RunState.QUEUED, RunState.RETRYING})


@dataclass(frozen=True, slots=True)
class UncoveredStretch:
    """A due but uncovered stretch, why it is, and when the run that will cover it is planned to start, if one is."""

    start: datetime
    end: datetime
    reason: str
    planned_at: datetime | None


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """Where one stream stands. ``staleness_seconds``: now - watermark, None where nothing is covered yet.

    ``retired``: nothing more is planned for it. ``uncovered`` is due and not covered, ``in_front`` likewise, where the start
    was moved earlier (SPEC 2.10).
    """

    tenant_id: str
    installation: str
    stream: str
    account: str
    start_at: datetime
    watermark: datetime | None
    staleness_seconds: float | None
    next_due_at: datetime | None
    paused: bool
    paused_reason: str
    state: RunState | None
    retired: bool
    uncovered: UncoveredStretch | None
    in_front: UncoveredStretch | None
    waits: Wait | None


async def status(parts: Parts, tenant_id: str | None = None, installation: str | None = None) -> list[StreamStatus]:
    """Return where every stream of one tenant stands, or of all. Raises InvalidInput if there is no such installation."""
    now = parts.clock.now()
    found = await chosen_chains(parts, tenant_id, installation)
    paused = {
        (stored.tenant_id, stored.name): stored for stored in await directory.installations(parts.pool, tenant_id)
    }
    latest = await reports.latest_runs(parts.pool, [chain.id for chain in found])
    behind, in_front = _by_side(await chains.uncovered(parts.pool, now, tenant_id))
    told = await waiting.explain(parts.pool, now, tenant_id)
    waits = {each.chain_id: each.wait for each in reversed(told) if each.lane is Lane.LIVE}
    of_runs: dict[int | None, Wait] = {each.run_id: each.wait for each in told if each.run_id is not None}
    return [
        StreamStatus(
            tenant_id=chain.tenant_id,
            installation=chain.installation,
            stream=chain.stream,
            account=chain.account,
            start_at=chain.start_at,
            watermark=chain.watermark,
            staleness_seconds=None if chain.watermark is None else (now - chain.watermark).total_seconds(),
            next_due_at=chain.next_due_at,
            paused=chain.paused_at is not None,
            paused_reason=paused[chain.tenant_id, chain.installation].paused_reason,
            state=latest[chain.id].state if chain.id in latest else None,
            retired=chain.retired,
            uncovered=_stretch(behind.get(chain.id), waits.get(chain.id)),
            in_front=_stretch(front := in_front.get(chain.id), of_runs.get(front.run_id) if front else None),
            waits=waits.get(chain.id),
        )
        for chain in found
    ]


def _by_side(found: Sequence[tuple[int, Uncovered]]) -> tuple[dict[int, Uncovered], dict[int, Uncovered]]:
    """Return what is uncovered behind the watermark and what is in front of the head, by chain."""
    behind = {chain_id: stretch for chain_id, stretch in found if not stretch.in_front}
    return behind, {chain_id: stretch for chain_id, stretch in found if stretch.in_front}


def _stretch(found: Uncovered | None, wait: Wait | None) -> UncoveredStretch | None:
    if found is None:
        return None
    reason = f"{found.reason}: {wait}" if wait is not None and found.reason == RunState.WAITING else found.reason
    return UncoveredStretch(found.period.start, found.period.end, reason, None if wait is None else wait.planned_at)


@dataclass(frozen=True, slots=True)
class Summary:
    """Where all streams of one tenant, or of all, stand. Durations are in seconds, None where there is nothing to tell.

    ``worst_lag_seconds``: the longest that a due run has been waiting; ``worst_staleness_seconds``: the oldest watermark's.
    """

    streams: int
    paused: int
    nothing_covered_yet: int
    waiting: tuple[WaitingFor, ...]
    worst_lag_seconds: float | None
    worst_staleness_seconds: float | None
    open_alerts: int


async def summary(parts: Parts, tenant_id: str | None = None) -> Summary:
    """Return how many streams wait for what, and the worst of it. Raises InvalidInput if there is no such tenant."""
    if tenant_id is not None:
        await require_known(parts, tenant_id, None)
    now = parts.clock.now()
    found = await reports.stream_counts(parts.pool, tenant_id)
    waits = await waiting.explain(parts.pool, now, tenant_id)
    oldest = min((each.due_at for each in waits), default=None)
    return Summary(
        streams=found.streams,
        paused=found.paused,
        nothing_covered_yet=found.nothing_covered_yet,
        waiting=tuple(summed_up((each.wait.reason, each.due_at) for each in waits)),
        worst_lag_seconds=None if oldest is None else (now - oldest).total_seconds(),
        worst_staleness_seconds=None
        if found.oldest_watermark is None
        else (now - found.oldest_watermark).total_seconds(),
        open_alerts=len(await alerts.listed(parts.pool, tenant_id=tenant_id)),
    )


async def chosen_chains(parts: Parts, tenant_id: str | None = None, installation: str | None = None) -> list[Chain]:
    """Return the chains of a tenant or installation, or all, retired ones too: their ledger can still be looked at.

    Raises InvalidInput if a named one is not there.
    """
    found = await chains.chains(parts.pool, tenant_id, installation, retired=True)
    if not found and tenant_id is not None:
        await require_known(parts, tenant_id, installation)
    return found


async def require_known(parts: Parts, tenant_id: str, installation: str | None) -> None:
    """Raise InvalidInput naming what there is, if there is no such tenant or installation."""
    tenants = await directory.tenants(parts.pool)
    if tenant_id not in tenants:
        raise InvalidInput("tenant", tenant_id, "does not exist", _there(list(tenants)))
    names = [stored.name for stored in await directory.installations(parts.pool, tenant_id)]
    if installation is not None and installation not in names:
        raise InvalidInput("installation", f"{tenant_id}/{installation}", "does not exist", _there(names))


async def _require_named(parts: Parts, tenant_id: str | None, installation: str | None) -> None:
    """Raise InvalidInput naming what there is, if one that is named is not there; an installation of any tenant counts."""
    if tenant_id is not None:
        await require_known(parts, tenant_id, installation)
    elif installation is not None:
        names = dict.fromkeys(stored.name for stored in await directory.installations(parts.pool))
        if installation not in names:
            raise InvalidInput("installation", installation, "does not exist", _there(list(names)))


async def require_stream(parts: Parts, tenant_id: str | None, installation: str | None, stream: str | None) -> None:
    """Raise InvalidInput naming what there is, if ``stream`` is given and none of these has one of that name."""
    there = [] if stream is None else await chains.streams(parts.pool, tenant_id, installation)
    if stream is not None and stream not in there:
        raise InvalidInput("stream", stream, "does not exist", _there(there))


def _there(names: Sequence[str]) -> str:
    if not names:
        return "There is none yet: `tidegate apply -f FILE` makes them."
    return f"There are: {', '.join(names[:20])}{', …' * (len(names) > 20)}."


async def list_alerts(
    parts: Parts, tenant_id: str | None = None, *, resolved: bool = False, limit: int = 100
) -> list[Alert]:
    """Return up to ``limit`` open alerts, ``resolved`` ones too if wanted. Raises InvalidInput for an unknown tenant."""
    if tenant_id is not None:
        await require_known(parts, tenant_id, None)
    return await alerts.listed(parts.pool, tenant_id=tenant_id, resolved=resolved, limit=limit)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run with what it lags behind its due date: ``start_lag_seconds = started_at - due_at``, None before its start.

    ``waits``: why it has not started, or does not go on; None if nothing keeps it.
    """

    run: RunRow
    start_lag_seconds: float | None
    waits: Wait | None


async def list_runs(
    parts: Parts,
    tenant_id: str | None = None,
    installation: str | None = None,
    states: Sequence[RunState] = (),
    limit: int = 20,
) -> list[RunStatus]:
    """Return up to ``limit`` runs, newest first. Raises InvalidInput if a named tenant or installation is not there."""
    rows = await reports.runs(parts.pool, tenant_id=tenant_id, installation=installation, states=states, limit=limit)
    if not rows:
        await _require_named(parts, tenant_id, installation)
    waits = {}
    if any(row.state in WAITING_STATES for row in rows):
        waits = {each.run_id: each.wait for each in await waiting.explain(parts.pool, parts.clock.now(), tenant_id)}
    return [
        RunStatus(
            row,
            None if row.started_at is None else (row.started_at - row.due_at).total_seconds(),
            waits.get(row.id),
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class StreamCoverage:
    """One stream's ledger as stretches, and as ``links`` if asked for.

    ``uncovered`` is due and not covered, ``in_front`` likewise, where the start was moved earlier (SPEC 2.10).
    ``link_count`` counts the periods that were committed, whether compacted since or not. ``dead_records``: of what is
    covered, so many records were not acknowledged but are in the dead letter or dropped (SPEC 5).
    """

    chain: Chain
    stretches: tuple[Stretch, ...]
    uncovered: Uncovered | None
    link_count: int
    dead_records: int = 0
    links: tuple[Link, ...] = ()
    in_front: Uncovered | None = None


async def coverage(
    parts: Parts, tenant_id: str | None = None, installation: str | None = None, *, with_links: bool = False
) -> list[StreamCoverage]:
    """Return the coverage of every stream chosen. Raises InvalidInput if a named tenant or installation is not there."""
    found = await chosen_chains(parts, tenant_id, installation)
    by_chain: dict[int, list[Stretch]] = {}
    for stretch in await reports.stretches(parts.pool, [chain.id for chain in found]):
        by_chain.setdefault(stretch.chain_id, []).append(stretch)
    behind, in_front = _by_side(await chains.uncovered(parts.pool, parts.clock.now(), tenant_id))
    dead = await messages.dead_by_chain(parts.pool, [chain.id for chain in found])
    return [
        StreamCoverage(
            chain=chain,
            stretches=tuple(by_chain.get(chain.id, ())),
            uncovered=behind.get(chain.id),
            in_front=in_front.get(chain.id),
            link_count=sum(stretch.links for stretch in by_chain.get(chain.id, ())),
            dead_records=dead.get(chain.id, 0),
            links=tuple(await chains.links(parts.pool, chain.id)) if with_links else (),
        )
        for chain in found
    ]
