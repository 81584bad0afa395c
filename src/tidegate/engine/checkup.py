"""Checkup: is everything well, and if not, what to do (`tidegate doctor`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import metadata

from tidegate.domain.errors import InvalidInput
from tidegate.domain.zone_data import read_zone, zone_names
from tidegate.engine.parts import Parts
from tidegate.store import directory, reports, schema
from tidegate.store.reports import Backlog, ServerFacts

MOST_SKEW = timedelta(seconds=2)
PATIENCE = timedelta(minutes=1)
"""Work that should have moved for longer than this stands still."""
ZONE_DATA_AGE_YEARS = 1


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found, and the remedy if it is not well."""

    name: str
    ok: bool
    finding: str
    remedy: str = ""


async def check_all(parts: Parts, system_now: datetime) -> list[Check]:
    """Return every check of a process whose database answers. ``system_now``: this machine's own clock."""
    asked_at = parts.clock.now()
    facts = await reports.server_facts(parts.pool)
    backlog = await reports.backlog(parts.pool, asked_at)
    return [
        Check("database", True, f"PostgreSQL {facts.version} answers"),
        _migrations(facts),
        _skew(facts, system_now, parts.clock.now() - asked_at),
        _zone_data(asked_at),
        *_standing_still(backlog, asked_at),
        await _key(parts),
        *[check async for check in _connections(parts)],
    ]


def _migrations(facts: ServerFacts) -> Check:
    known = {name for name, _ in schema.migrations()}
    newer = [name for name in facts.migrations if name not in known]
    missing = sorted(known.difference(facts.migrations))
    if newer:
        return Check(
            "schema", False, f"has {', '.join(newer)}, which this version does not know", "Upgrade Tidegate here."
        )
    if missing:
        return Check(
            "schema",
            False,
            f"lacks {', '.join(missing)}",
            "Run any command that opens the database, such as `tidegate status`.",
        )
    return Check("schema", True, f"at {facts.migrations[-1]}")


def _skew(facts: ServerFacts, system_now: datetime, round_trip: timedelta) -> Check:
    skew = abs(facts.now - system_now)
    seconds = f"{skew.total_seconds():.1f} s between the database's clock and this machine's"
    if skew <= MOST_SKEW + round_trip:
        return Check("clocks", True, seconds)
    return Check("clocks", False, seconds, "Let both machines keep time by NTP; Tidegate goes by the database's clock.")


def _zone_data(now: datetime) -> Check:
    version = metadata.version("tzdata")
    for name in ("Europe/London", "Pacific/Apia"):
        if name not in zone_names() or not read_zone(name).transitions:
            return Check("time zones", False, f"tzdata {version} lacks {name}", "Install the package tzdata anew.")
    if int(version.split(".")[0]) < now.year - ZONE_DATA_AGE_YEARS:
        return Check(
            "time zones", False, f"tzdata {version} is old", "Upgrade the package tzdata: zones change their rules."
        )
    return Check("time zones", True, f"tzdata {version}, {len(zone_names())} zones")


def _standing_still(backlog: Backlog, now: datetime) -> Iterator[Check]:
    start = "Start the engine: `tidegate up` or `tidegate worker`."
    kinds = (
        ("planner", backlog.overdue_schedules, "schedules due and not planned", backlog.oldest_due_at),
        ("dispatcher", backlog.overdue_runs, "runs ready to start", backlog.oldest_not_before_at),
        ("queue", backlog.queued, "runs handed to the queue", backlog.oldest_queued_at),
    )
    for name, count, what, oldest in kinds:
        age = timedelta(0) if oldest is None else now - oldest
        finding = f"{count} {what}" + (f", the oldest for {age.total_seconds():.0f} s" if count else "")
        remedy = start if name != "dispatcher" else f"{start} If it runs: all slots or account limits are taken."
        yield Check(name, age <= PATIENCE, finding, "" if age <= PATIENCE else remedy)
    expired = backlog.expired_leases
    finding = f"{backlog.running} runs at work, {expired} with an expired lease"
    yield Check("leases", not expired, finding, f"{start} It takes them over within seconds." if expired else "")


async def _key(parts: Parts) -> Check:
    """Check that sealing works and that all stored secrets open."""
    probe = {"probe": "what the checkup seals"}
    if parts.sealer.unseal(parts.sealer.seal(probe, "checkup"), "checkup") != probe:
        return Check(
            "key", False, "what it seals does not open again", "Make a new key and apply the configuration again."
        )
    stored = [(made.place, made.sealed) for made in await directory.connections(parts.pool)]
    stored += [
        (directory.destination_place(made.name), made.sealed) for made in await directory.destinations(parts.pool)
    ]
    shut = []
    for place, sealed in stored:
        try:
            parts.sealer.unseal(sealed, place)
        except InvalidInput:
            shut.append(place)
    if shut:
        remedy = "Set TIDEGATE_KEY to the key they were sealed with, or apply the configuration again."
        return Check("key", False, f"does not open {', '.join(shut[:5])}{', …' * (len(shut) > 5)}", remedy)
    return Check("key", True, f"opens the secrets of all {len(stored)} connections and destinations")


async def _connections(parts: Parts) -> AsyncIterator[Check]:
    refused = [made for made in await directory.connections(parts.pool) if made.unauthorised_at is not None]
    for made in refused:
        yield Check(
            f"connection {made.tenant_id}/{made.name}",
            False,
            f"refused by {made.account}: {made.unauthorised_reason}",
            "Renew its secrets and apply the configuration again, or resume its installations to try once more.",
        )
    if not refused:
        yield Check("connections", True, "none is refused by its source")
