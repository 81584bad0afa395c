"""Alerts: raised once, resolved when the cause is gone (SPEC 5 "Failures"; issue 2 "Failure policy")."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.engine.test_fleet import sleeping
from tests.engine.test_loops import until
from tests.engine.world import DAILY, World, in_world
from tidegate.domain.alert import AlertKind
from tidegate.domain.errors import ContractBroken, SourceUnavailable, Unauthorised
from tidegate.engine import queries
from tidegate.engine.commands import installations
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.engine import Engine, Role
from tidegate.engine.planner import plan_due
from tidegate.engine.watch import watch

Story = Callable[[World], Awaitable[None]]
EVERY_HOUR = {"every": "1h", "start_at": "2026-07-13T00:00:00Z"}


def utc(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 7, day, hour, minute, tzinfo=UTC)


async def open_kinds(world: World) -> list[AlertKind]:
    """Look, and return the kinds of the alerts that are open then."""
    await watch(world.parts, world.clock.now())
    return sorted(each.kind for each in await queries.list_alerts(world.parts))


async def connection_unauthorised(world: World) -> None:
    await world.install()
    world.shop.on_page = lambda _number: Unauthorised("scope withdrawn")
    world.clock.set(utc(14))
    await world.tick()
    assert await open_kinds(world) == [AlertKind.CONNECTION_UNAUTHORISED]
    (alert,) = await queries.list_alerts(world.parts)
    assert alert.message == "acme/shop is refused by acme.example: scope withdrawn"
    assert "Renew its secrets" in alert.remedy
    await installations.resume(world.parts, "acme", "sync")


async def paused_by_failures(world: World) -> None:
    world.with_settings(pause_after_failing_days=1)
    await world.install()
    world.shop.on_page = lambda _number: ContractBroken("no records")
    for day in (14, 15):
        world.clock.set(utc(day))
        await world.tick()
    assert await open_kinds(world) == [AlertKind.PAUSED_BY_FAILURES]
    world.shop.on_page = lambda _number: None
    await installations.resume(world.parts, "acme", "sync")
    await world.tick()


async def failing(world: World) -> None:
    await world.install()
    world.shop.on_page = lambda _number: SourceUnavailable("away")
    world.clock.set(utc(14))
    await world.tick()
    world.clock.set(utc(14, 23))
    await world.tick()
    assert await open_kinds(world) == []
    world.clock.set(utc(15, 0, 1))
    await world.tick()
    assert await open_kinds(world) == [AlertKind.FAILING]
    (alert,) = await queries.list_alerts(world.parts, "acme")
    assert alert.message == "acme/sync orders has been failing since 2026-07-14T00:00:00Z: away"
    world.shop.on_page = lambda _number: None
    world.clock.set(utc(15, 1))
    await world.tick()


async def stale(world: World) -> None:
    await world.install(rule=EVERY_HOUR)
    world.clock.set(utc(13, 17))
    await world.tick()
    world.shop.on_page = lambda _number: SourceUnavailable("away")
    for hour in (18, 19):
        world.clock.set(utc(13, hour))
        await world.tick()
        assert await open_kinds(world) == []
    world.clock.set(utc(13, 19, 1))
    assert await open_kinds(world) == [AlertKind.STALE]
    world.shop.on_page = lambda _number: None
    world.clock.set(utc(13, 20))
    await world.tick()


async def unproven(world: World) -> None:
    await world.install()
    world.shop.shortfall = "only 60 days are served"
    world.clock.set(utc(14))
    await world.tick()
    assert await open_kinds(world) == [AlertKind.UNPROVEN]
    (alert,) = await queries.list_alerts(world.parts)
    assert alert.message.endswith("but its period is not covered: only 60 days are served")
    (stream,) = await queries.status(world.parts)
    assert stream.uncovered is not None
    assert stream.uncovered.reason == "unproven: only 60 days are served"
    await world.pool.execute(
        """update runs set report = jsonb_build_object('shortfall', '', 'filters', '{"status": "open"}'::jsonb,
                                                     'remarks', '{"gone meanwhile": 2}'::jsonb)"""
    )
    await watch(world.parts, world.clock.now())
    (alert,) = await queries.list_alerts(world.parts)
    assert alert.message.endswith("is not covered: filtered by status (2 gone meanwhile)")
    world.shop.shortfall = ""
    world.clock.set(utc(15))
    await world.tick()


async def quarantine_grew(world: World) -> None:
    chain = await world.install()
    world.clock.set(utc(14))
    await world.tick()
    (run,) = await world.runs()
    await world.pool.execute(
        "insert into quarantine (tenant_id, chain_id, run_id, reason, record, quarantined_at) "
        "values ('acme', $1, $2, 'no key', '{}', $3)",
        chain, run["id"], utc(14),
    )  # fmt: skip
    assert await open_kinds(world) == [AlertKind.QUARANTINE_GREW]
    (alert,) = await queries.list_alerts(world.parts)
    assert alert.message == "acme/sync orders has 1 records in quarantine"
    await world.pool.execute("delete from quarantine")


async def dead_letter(world: World) -> None:
    chain = await world.install()
    world.clock.set(utc(14))
    await world.tick()
    (run,) = await world.runs()
    await world.pool.execute(
        "insert into routes (chain_id, destination_id, whole_periods) select $1, id, false from destinations", chain
    )
    await world.pool.execute(
        """insert into outbox (route_id, position, message_id, chain_id, tenant_id, run_id, batch, part, records, body, state,
                               created_at, settled_at, answer)
           select id, n, n::text, $1, 'acme', $2, n, 1, 20, '', 'dead', $3, $3, 'The receiver answered 40' || n || '.'
             from routes, generate_series(1, 2) n""",
        chain, run["id"], utc(14),
    )  # fmt: skip
    assert await open_kinds(world) == [AlertKind.DEAD_LETTER]
    (alert,) = await queries.list_alerts(world.parts)
    assert alert.message == "acme/sync orders has 40 records in the dead letter: The receiver answered 402."
    assert "tidegate webhook replay --dead --installation acme/sync`." in alert.remedy
    await world.pool.execute("update outbox set state = 'acknowledged'")


async def queue_starved(world: World) -> None:
    await world.install()
    world.clock.set(utc(14))
    await plan_due(world.parts, world.clock.now())
    await dispatch_ready(world.parts, world.clock.now())
    world.clock.set(utc(14, 0, 4))
    assert await open_kinds(world) == []
    world.clock.set(utc(14, 0, 6))
    assert await open_kinds(world) == [AlertKind.QUEUE_STARVED]
    await world.work()


STORIES: list[Story] = [
    connection_unauthorised, paused_by_failures, failing, stale, unproven, quarantine_grew, dead_letter, queue_starved,
]  # fmt: skip


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_an_alert_is_raised_once_and_resolved_when_its_cause_is_gone(database_url: str, story: Story) -> None:
    """SPEC 5: each story brings its cause about, sees the alert, and takes the cause away."""

    async def whole(world: World) -> None:
        await story(world)
        raised = await queries.list_alerts(world.parts, resolved=True)
        assert [each.kind for each in raised] == [story.__name__]
        assert raised[0].resolved_at is None
        changed = await watch(world.parts, world.clock.now())
        assert (changed.raised, changed.resolved) == ((), (raised[0].id,))
        assert await queries.list_alerts(world.parts) == []
        (resolved,) = await queries.list_alerts(world.parts, resolved=True)
        assert resolved.resolved_at == world.clock.now()

    in_world(database_url, whole)


def test_looking_again_raises_nothing_again(database_url: str) -> None:
    """Issue 2: raised once; its words go with the times."""

    async def story(world: World) -> None:
        await world.install(rule=EVERY_HOUR)
        world.shop.on_page = lambda _number: SourceUnavailable("away")
        world.clock.set(utc(13, 17))
        await world.tick()
        world.clock.set(utc(15))
        await world.tick()
        first = await watch(world.parts, world.clock.now())
        assert len(first.raised) == 2
        world.shop.on_page = lambda _number: SourceUnavailable("still away")
        for _ in range(3):
            world.clock.advance(hours=1)
            await world.tick()
            assert (await watch(world.parts, world.clock.now())).raised == ()
        texts = {each.id: each.message for each in await queries.list_alerts(world.parts)}
        assert set(texts) == set(first.raised)
        assert any("still away" in text for text in texts.values())

    in_world(database_url, story)


def test_every_kind_has_its_story() -> None:
    """Issue 2: no alert is declared that nobody has seen raised and resolved."""
    assert {story.__name__ for story in STORIES} == set(AlertKind)


def test_schedules_that_nobody_plans_are_told(database_url: str) -> None:
    """Issue 2 "queue starved": an engine without a planner, or none at all that plans."""

    async def story(world: World) -> None:
        await world.install()
        world.clock.set(utc(14, 0, 6))
        assert await open_kinds(world) == [AlertKind.QUEUE_STARVED]
        (alert,) = await queries.list_alerts(world.parts)
        assert "1 schedules are due and nobody plans them" in alert.message
        await world.tick()
        assert await open_kinds(world) == []

    in_world(database_url, story)


def test_a_schedule_held_behind_its_oldest_piece_is_stale_and_starves_nobody(database_url: str) -> None:
    """SPEC 2.8: due dates wait by rule until there is room for more pieces; its interval is that of its due dates."""

    async def story(world: World) -> None:
        world.with_settings(plan_ahead=1)
        await world.install(rule={**DAILY, "start_date": "2026-07-13", "catch_up": "each"})
        world.shop.on_page = lambda _number: SourceUnavailable("away")
        world.clock.set(utc(17))
        await world.tick()
        assert await world.pool.fetchval("select next_due_at < held_until from schedules")
        assert await open_kinds(world) == [AlertKind.FAILING, AlertKind.STALE]

    in_world(database_url, story)


def test_what_became_due_while_no_process_ran_is_no_alert(database_url: str) -> None:
    """The first look comes after ``watch_every``: until then the process may do what it has been started for."""

    async def story(world: World) -> None:
        await world.install()
        world.clock.set(utc(14, 0, 10))
        engine = Engine(world.parts, frozenset({Role.SWEEPER}))
        working = asyncio.create_task(engine.run())
        await until(sleeping(world.clock, utc(14, 0, 10) + timedelta(seconds=5)))
        await until(sleeping(world.clock, utc(14, 0, 10) + timedelta(seconds=30)))
        await plan_due(world.parts, world.clock.now())
        world.clock.set(utc(14, 0, 10) + timedelta(seconds=30))
        await until(sleeping(world.clock, utc(14, 0, 10) + timedelta(seconds=60)))
        engine.stop()
        await working
        assert await queries.list_alerts(world.parts, resolved=True) == []

    in_world(database_url, story)
