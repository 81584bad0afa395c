"""Checkup: is everything well, and if not, what to do (`tidegate doctor`). Looks, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from tidegate.domain.errors import InvalidInput
from tidegate.domain.instant import render_instant
from tidegate.engine.checkup.checks import Check, well, wrong
from tidegate.engine.checkup.reaching import check_destinations, check_sources
from tidegate.engine.parts import Parts
from tidegate.store import directory, fleet, schema, sending, server
from tidegate.store.fleet import Standing
from tidegate.store.server import ServerFacts

MOST_SKEW = timedelta(seconds=2)
PATIENCE = timedelta(minutes=1)
"""Work that should have moved for longer than this stands still."""
SLOW = timedelta(milliseconds=50)
"""A round trip to the database that costs so much makes small runs slow: each takes about ten of them."""
ROUND_TRIPS = 5


async def check_all(parts: Parts, system_now: datetime, *, outside: bool = True) -> list[Check]:
    """Return every check of a process whose database answers, as far as its schema allows.

    ``system_now``: this machine's own clock. ``outside``: ask sources and destinations too.
    """
    asked_at = parts.clock.now()
    facts = await server.server_facts(parts.pool)
    round_trip = parts.clock.now() - asked_at
    checks = [
        await _database(parts, facts),
        _durability(facts),
        _connections_left(facts, parts),
        _skew(facts, system_now, round_trip),
        _migrations(facts),
    ]
    if not checks[-1].ok:
        return checks
    checks += _standing_still(await fleet.standing(parts.pool, parts.clock.now()), parts.clock.now())
    checks += [await _senders(parts), await _receivers(parts)]
    checks += [await _key(parts), *await _refused(parts)]
    if outside:
        checks += [*await check_sources(parts), *await check_destinations(parts)]
    return checks


async def _database(parts: Parts, facts: ServerFacts) -> Check:
    took = []
    for _ in range(ROUND_TRIPS):
        began_at = parts.clock.now()
        await parts.pool.fetchval("select 1")
        took.append(parts.clock.now() - began_at)
    usual = sorted(took)[ROUND_TRIPS // 2]
    finding = f"PostgreSQL {facts.version} answers in {usual.total_seconds() * 1000:.1f} ms"
    if usual > SLOW:
        return wrong("database", "database_slow", finding, "Bring the workers nearer to the database, or relieve it.")
    return well("database", finding)


def _durability(facts: ServerFacts) -> Check:
    if not facts.unsafe:
        return well("durability", "what is committed survives a crash of the server")
    settings = ", ".join(f"{name} is {value}" for name, value in facts.unsafe)
    lost = "a crash of the server may damage it" if ("synchronous_commit", "off") not in facts.unsafe else ""
    lost = lost or "a crash of the server may undo what was reported as done"
    return wrong("durability", "durability_off", f"{settings}: {lost}", "Turn it on for this database and its server.")


def _connections_left(facts: ServerFacts, parts: Parts) -> Check:
    need = sum(pool.get_max_size() for pool in parts.pools)
    finding = f"{facts.room} of {facts.most} are free; a process here takes up to {need}"
    if facts.room + sum(pool.get_size() for pool in parts.pools) < need:
        remedy = "Raise max_connections (or the limit of this database or user), or lower TIDEGATE_SLOTS."
        return wrong("connections", "connections_short", finding, remedy)
    return well("connections", finding)


def _skew(facts: ServerFacts, system_now: datetime, round_trip: timedelta) -> Check:
    skew = abs(facts.now - system_now)
    seconds = f"{skew.total_seconds():.1f} s between the database's clock and this machine's"
    if skew <= MOST_SKEW + round_trip:
        return well("clocks", seconds)
    remedy = "Let both machines keep time by NTP; Tidegate goes by the database's clock."
    return wrong("clocks", "clock_skew", seconds, remedy)


def _migrations(facts: ServerFacts) -> Check:
    known = [name for name, _ in schema.migrations()]
    if facts.migrations is None:
        return wrong("schema", "schema_missing", "there is none yet", "`tidegate apply -f FILE` makes it.")
    if newer := sorted(set(facts.migrations) - set(known)):
        finding = f"has {', '.join(newer)}, which this version does not know"
        return wrong("schema", "schema_newer", finding, "Upgrade Tidegate here.")
    if missing := [name for name in known if name not in facts.migrations]:
        remedy = "Run any other command that opens the database, such as `tidegate status`."
        return wrong("schema", "schema_behind", f"lacks {', '.join(missing)}", remedy)
    return well("schema", f"at {facts.migrations[-1]}")


def _standing_still(standing: Standing, now: datetime) -> Iterator[Check]:
    start = "Start the engine: `tidegate up` or `tidegate worker`."
    kinds = (
        ("planner", standing.overdue_schedules, "schedules due and not planned", standing.oldest_due_at),
        ("dispatcher", standing.ready, "runs ready to start", standing.oldest_ready_at),
        ("queue", standing.queued, "runs handed to the queue", standing.oldest_queued_at),
    )
    for name, count, what, oldest in kinds:
        age = timedelta(0) if oldest is None else now - oldest
        finding = f"{count} {what}" + (f", the oldest for {age.total_seconds():.0f} s" if count else "")
        remedy = start if name != "dispatcher" else f"{start} If it runs: all slots or account limits are taken."
        yield well(name, finding) if age <= PATIENCE else wrong(name, f"{name}_idle", finding, remedy)
    finding = f"{standing.running} runs at work, {standing.expired_leases} with an expired lease"
    over = f"{start} It takes them over within seconds."
    yield wrong("leases", "leases_expired", finding, over) if standing.expired_leases else well("leases", finding)
    finding = f"{standing.orphaned_jobs} of {standing.jobs} jobs belong to consumers that have fallen silent"
    yield wrong("consumers", "consumers_dead", finding, over) if standing.orphaned_jobs else well("consumers", finding)
    finding = f"{standing.stuck} are tried again and again a day after their due date"
    remedy = "`tidegate runs --state retrying` shows their errors."
    yield wrong("runs", "runs_stuck", finding, remedy) if standing.stuck else well("runs", finding)


async def _senders(parts: Parts) -> Check:
    """Check that somebody sends what is in the outbox."""
    now = parts.clock.now()
    routes, oldest = await sending.unsent(parts.pool, now)
    age = timedelta(0) if oldest is None else now - oldest
    finding = f"{routes} streams have batches that nobody sends"
    finding += f", the oldest for {age.total_seconds():.0f} s" if routes else ""
    if age <= PATIENCE:
        return well("sender", finding)
    remedy = "Start the engine: `tidegate up`, or `tidegate worker --role sender`."
    return wrong("sender", "sender_idle", finding, remedy)


async def _receivers(parts: Parts) -> Check:
    """Check whether destinations take what is sent to them, by their last answers."""
    now = parts.clock.now()
    found = [each for each in await sending.failing(parts.pool) if now - each.since > PATIENCE]
    if not found:
        return well("receivers", "none has failed to take what is sent for more than a minute")
    told = [
        f"{each.name}: {each.routes} streams wait since {render_instant(each.since)}: {parts.mask.text(each.error)}"
        for each in found[:5]
    ]
    remedy = "Correct that; nothing is lost meanwhile. `tidegate webhook list --state open` shows what waits, and until when."
    return wrong("receivers", "receiver_failing", "; ".join(told) + ", …" * (len(found) > 5), remedy)


async def _key(parts: Parts) -> Check:
    """Check that sealing works and that all stored secrets open."""
    probe = {"probe": "what the checkup seals"}
    if parts.sealer.unseal(parts.sealer.seal(probe, "checkup"), "checkup") != probe:
        remedy = "Make a new key and apply the configuration again."
        return wrong("key", "key_wrong", "what it seals does not open again", remedy)
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
        return wrong("key", "key_wrong", f"does not open {', '.join(shut[:5])}{', …' * (len(shut) > 5)}", remedy)
    return well("key", f"opens the secrets of all {len(stored)} connections and destinations")


async def _refused(parts: Parts) -> list[Check]:
    """Check whether a source has refused a connection while it was at work."""
    refused = [made for made in await directory.connections(parts.pool) if made.unauthorised_at is not None]
    remedy = "Renew its secrets and apply the configuration again, or resume its installations to try once more."
    return [
        wrong(
            f"connection {made.tenant_id}/{made.name}",
            "connection_refused",
            f"refused by {made.account}: {made.unauthorised_reason}",
            remedy,
        )
        for made in refused
    ] or [well("connections to sources", "none is refused")]
