"""Failures that last: what counts as a failing day, what is paused by it, and what resumes (SPEC 5, decision 0008)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.engine.world import DAILY, World, in_world
from tidegate.bootstrap import from_environment
from tidegate.domain.errors import ContractBroken, SourceUnavailable, Unauthorised
from tidegate.domain.retry import RetryPolicy
from tidegate.engine.commands import installations
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.engine.sweeper import sweep
from tidegate.store import chains, directory, leases


def utc(day: int, hour: int = 0, minute: int = 0, month: int = 7) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


async def paused_by(world: World, tenant: str = "acme") -> tuple[str | None, str]:
    (found,) = await directory.installations(world.pool, tenant)
    return found.paused_by, found.paused_reason


async def days(world: World, count: int) -> None:
    for _ in range(count):
        world.clock.advance(days=1)
        await world.tick()


def test_after_31_failing_days_the_installation_is_paused_and_says_so(database_url: str) -> None:
    """SPEC 5 "Failures", HOLE d: 31 days from the first failed due date to that of the last; then resume catches up."""

    async def story(world: World) -> None:
        chain = await world.install()
        await days(world, 1)
        world.shop.on_page = lambda _number: ContractBroken("no records")
        await days(world, 31)
        assert await paused_by(world) == (None, ""), "from July 15 to August 14 are 30 days"
        await days(world, 1)
        assert await paused_by(world) == (
            "failing",
            "orders has been failing for 31 days, since 2026-07-15T00:00:00Z: no records",
        )
        failed = len(await world.runs())
        await days(world, 10)
        assert len(await world.runs()) == failed, "nothing more is tried"
        world.shop.on_page = lambda _number: None
        await installations.resume(world.parts, "acme", "sync")
        await world.tick()
        assert (await world.covered(chain))[-1] == (utc(14), utc(25, month=8))

    in_world(database_url, story)


def test_a_success_ends_the_failure_and_a_retry_is_none(database_url: str) -> None:
    """SPEC 5: continuous failure since the last success; a run that is still being retried has not failed."""

    async def story(world: World) -> None:
        world.with_settings(pause_after_failing_days=3)
        await world.install()
        world.shop.on_page = lambda _number: ContractBroken("no records")
        await days(world, 3)
        world.shop.on_page = lambda _number: None
        await days(world, 1)
        world.shop.on_page = lambda _number: SourceUnavailable("away")
        await days(world, 6)
        assert await paused_by(world) == (None, ""), "it is still being retried"
        world.shop.on_page = lambda _number: None
        await days(world, 1)
        world.shop.on_page = lambda _number: ContractBroken("no records")
        await days(world, 3)
        assert await paused_by(world) == (None, "")
        await days(world, 1)
        assert (await paused_by(world))[0] == "failing"

    in_world(database_url, story)


def test_an_outage_of_our_own_is_no_failing_day(database_url: str) -> None:
    """Decision 0008: due dates that were never tried are in one run; that it fails once is one failure."""

    async def story(world: World) -> None:
        await world.install()
        world.shop.on_page = lambda _number: ContractBroken("no records")
        world.clock.advance(days=60)
        await world.tick()
        assert [run["state"] for run in await world.runs()] == ["failed"]
        assert await paused_by(world) == (None, "")

    in_world(database_url, story)


def test_an_installation_may_have_a_number_of_its_own(database_url: str) -> None:
    """SPEC 5 "(configurable)"; and resuming counts anew: one more failure does not pause it again at once."""

    async def story(world: World) -> None:
        await world.install()
        await world.install("patient")
        await world.pool.execute("update installations set pause_after_failing_days = 2 where tenant_id = 'acme'")
        world.shop.on_page = lambda _number: ContractBroken("no records")
        await days(world, 3)
        assert (await paused_by(world))[0] == "failing"
        assert await paused_by(world, "patient") == (None, "")
        await installations.resume(world.parts, "acme", "sync")
        await days(world, 2)
        assert await paused_by(world) == (None, "")
        await days(world, 1)
        assert (await paused_by(world))[0] == "failing"

    in_world(database_url, story)


def test_the_deployments_number_is_the_environments() -> None:
    """SPEC 5 "(configurable)"."""
    assert from_environment({"TIDEGATE_PAUSE_AFTER_FAILING_DAYS": "7"}).settings.pause_after_failing_days == 7
    assert from_environment({}).settings.pause_after_failing_days == 31


def test_a_run_that_kills_its_workers_fails_as_any_other(database_url: str) -> None:
    """SPEC 5: what the sweeper gives up counts too."""

    async def story(world: World) -> None:
        world.with_settings(retry=RetryPolicy(attempts=1), pause_after_failing_days=1)
        await world.install()
        for _ in range(2):
            world.clock.set(world.clock.now().replace(hour=0) + timedelta(days=1))
            await plan_due(world.parts, world.clock.now())
            assert await dispatch_ready(world.parts, world.clock.now()) == 1
            (queued,) = [run for run in await world.runs() if run["state"] == "queued"]
            now = world.clock.now()
            await leases.lease(world.pool, [queued["id"]], now, now + timedelta(seconds=15), "doomed")
            world.clock.advance(seconds=16)
            await sweep(world.parts, world.clock.now())
        assert (await paused_by(world))[0] == "failing"
        assert "again and again" in (await paused_by(world))[1]

    in_world(database_url, story)


def test_one_failing_stream_pauses_its_installation_and_what_waits_is_dropped(database_url: str) -> None:
    """SPEC 5, 2.11: the installation is paused as by hand, but knows by what."""

    async def story(world: World) -> None:
        world.with_settings(pause_after_failing_days=1)
        await world.install()
        await world.install(stream="events", rule={**DAILY, "settle": "12h"})
        world.shop.on_page = lambda _number: ContractBroken("no records")
        for day in (14, 15):
            world.clock.set(utc(day))
            await world.tick()
        assert (await paused_by(world))[0] == "failing"
        assert sorted(run["state"] for run in await world.runs()) == ["dropped", "failed", "failed", "failed"]
        reasons = [gap.reason for _, gap in await chains.uncovered(world.pool, world.clock.now())]
        assert any("dropped when the installation was paused" in reason for reason in reasons)

    in_world(database_url, story)


async def connect_another(world: World) -> None:
    """Install a second installation on acme's connection."""
    async with world.pool.acquire() as connection, connection.transaction():
        installation, account = await directory.put_installation(connection, "acme", "second", "shop", "table")
        chain, _ = await chains.ensure(connection, "acme", installation, "sync", "orders", account, utc(1, month=5))
        await connection.execute(
            """insert into schedules (chain_id, rule, received_at, planned_until, next_due_at)
               select $1, rule, received_at, planned_until, next_due_at from schedules limit 1""",
            chain,
        )


def test_once_one_may_try_again_all_that_the_refusal_had_paused_do(database_url: str) -> None:
    """SPEC 5 "Failures": a refused connection pauses its installations, and its return resumes them; not those paused by hand."""

    async def story(world: World) -> None:
        await world.install()
        await connect_another(world)
        await connect_third(world)
        world.shop.on_page = lambda _number: Unauthorised("scope withdrawn")
        await days(world, 1)
        found = {each.name: each.paused_by for each in await directory.installations(world.pool, "acme")}
        assert found == {"sync": "unauthorised", "second": "unauthorised", "third": "person"}
        await sweep(world.parts, world.clock.now())
        assert {each.paused_at is None for each in await directory.installations(world.pool, "acme")} == {False}
        world.shop.on_page = lambda _number: None
        await installations.resume(world.parts, "acme", "second")
        await sweep(world.parts, world.clock.now())
        found = {each.name: each.paused_by for each in await directory.installations(world.pool, "acme")}
        assert found == {"sync": None, "second": None, "third": "person"}
        await world.tick()
        assert [len(await world.covered(chain.id)) for chain in await chains.chains(world.pool, "acme")] == [1, 1]

    in_world(database_url, story)


def test_a_person_who_pauses_what_a_refusal_had_paused_is_the_one_who_resumes_it(database_url: str) -> None:
    """SPEC 5 "Failures": new credentials do not set going what somebody has meanwhile stopped on purpose."""

    async def story(world: World) -> None:
        await world.install()
        world.shop.on_page = lambda _number: Unauthorised("scope withdrawn")
        await days(world, 1)
        paused_at = await world.pool.fetchval("select paused_at from installations")
        world.clock.advance(hours=5)
        await installations.pause(world.parts, "acme", "sync", "the contract has ended")
        assert await paused_by(world) == ("person", "the contract has ended")
        assert await world.pool.fetchval("select paused_at from installations") == paused_at
        async with world.pool.acquire() as connection:
            await directory.clear_unauthorised(connection, "acme", "shop")
        await sweep(world.parts, world.clock.now())
        assert await paused_by(world) == ("person", "the contract has ended")

    in_world(database_url, story)


async def connect_third(world: World) -> None:
    """Install a third one, paused by a person before anything was refused."""
    async with world.pool.acquire() as connection, connection.transaction():
        await directory.put_installation(connection, "acme", "third", "shop", "table")
        await installations.pause_in(
            connection, "acme", "third", "unauthorised: not really, a person wrote this", utc(13)
        )


def test_under_each_failing_days_count_though_the_oldest_piece_is_tried_again(database_url: str) -> None:
    """SPEC 2.8, 5: its own due date stays the old one; the days are those on which it was tried."""

    async def story(world: World) -> None:
        world.with_settings(pause_after_failing_days=3)
        await world.install(rule={**DAILY, "start_date": "2026-07-13", "catch_up": "each"})
        world.shop.on_page = lambda _number: ContractBroken("no records")
        await days(world, 3)
        assert await paused_by(world) == (None, "")
        await days(world, 1)
        assert await paused_by(world) == (
            "failing",
            "orders has been failing for 3 days, since 2026-07-14T00:00:00Z: no records",
        )

    in_world(database_url, story)
