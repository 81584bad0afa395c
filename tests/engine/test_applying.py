"""Applying a configuration: the difference, in one transaction, by the editing rules (SPEC 2.10, 2.11, 2.12)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from tests.destinations.webhook.receiver import SECRET
from tests.engine.world import World, in_world
from tidegate.domain.errors import ContractBroken, InvalidInput, Unauthorised
from tidegate.domain.period import Period
from tidegate.domain.waiting import WaitReason
from tidegate.engine import queries
from tidegate.engine.commands import installations
from tidegate.engine.configuring import applying
from tidegate.engine.configuring.changes import Action, Bridge, Change, Outcome
from tidegate.engine.configuring.configuration import load
from tidegate.engine.configuring.document import DocumentFile, InvalidConfiguration
from tidegate.engine.configuring.specs import Configuration
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.engine.sweeper import sweep
from tidegate.store import chains, directory, runs, waiting

CONFIGURATION = """
destinations:
  table: {{kind: postgresql}}
tenants:
  acme:
    name: Acme Ltd
    connections:
      shop: {{connector: fake, account: {account}, concurrency: {concurrency}, secrets: {{token: "${{TOKEN}}"}}}}
    installations:
      sync:
        connection: shop
        destination: table
        streams: {streams}
        schedule: {schedule}
        {more}
"""
DAILY = "{daily: true, time_zone: Etc/UTC, start_date: 2026-05-01}"


def utc(day: int, hour: int = 0, minute: int = 0, month: int = 7) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def text(
    schedule: str = DAILY,
    streams: str = "[orders]",
    account: str = "acme.example",
    concurrency: int = 4,
    more: str = "",
) -> str:
    return CONFIGURATION.format(schedule=schedule, streams=streams, account=account, concurrency=concurrency, more=more)


async def configuration(world: World, document: str, token: str = "one") -> Configuration:
    return await load([DocumentFile("t.yaml", document, Path("/"))], {"TOKEN": token}, world.parts)


async def apply(world: World, document: str, token: str = "one", *, dry_run: bool = False) -> Outcome:
    return await applying.apply(world.parts, await configuration(world, document, token), dry_run=dry_run)


def told(outcome: Outcome) -> list[tuple[str, str, str]]:
    return [(change.action, change.kind, change.name) for change in outcome.changes]


def fields_of(change: Change) -> dict[str, tuple[object, object]]:
    return {field.field: (field.before, field.after) for field in change.fields}


async def schedule_rows(world: World) -> list[asyncpg.Record]:
    return await world.pool.fetch(
        "select s.*, c.stream, c.start_at, c.account_id from schedules s join chains c on c.id = s.chain_id order by c.id"
    )


async def reasons(world: World) -> list[str]:
    return [stretch.reason for _, stretch in await chains.uncovered(world.pool, world.clock.now())]


ALL = ["tenants", "accounts", "connections", "destinations", "installations", "chains", "schedules", "runs", "coverage"]


async def everything(world: World) -> dict[str, list[tuple[object, ...]]]:
    return {table: [tuple(row) for row in await world.pool.fetch(f"select * from {table} order by 1")] for table in ALL}


def test_applying_twice_changes_nothing_the_second_time(database_url: str) -> None:
    """SPEC 8: idempotent, down to every row."""

    async def story(world: World) -> None:
        first = await apply(world, text())
        assert told(first) == [
            ("added", "destination", "table"),
            ("added", "tenant", "acme"),
            ("added", "connection", "acme/shop"),
            ("added", "installation", "acme/sync"),
        ]
        rows = await everything(world)
        world.clock.advance(hours=3)
        second = await apply(world, text())
        assert (second.changes, second.warnings) == ((), ())
        assert await everything(world) == rows

    in_world(database_url, story)


def test_the_first_due_date_and_period_are_those_of_the_worked_example(database_url: str) -> None:
    """SPEC 2.13: received July 13 16:00, start May 1, daily at 00:00."""

    async def story(world: World) -> None:
        await apply(world, text())
        (row,) = await schedule_rows(world)
        assert (row["start_at"], row["next_due_at"]) == (utc(1, month=5), utc(14))
        world.shop.put(1, utc(13, 20))
        world.clock.set(utc(14, 3))
        await world.tick()
        assert await world.covered(row["chain_id"]) == [(utc(1, month=5), utc(14))]

    in_world(database_url, story)


def test_a_dry_run_shows_the_same_and_changes_nothing(database_url: str) -> None:
    """SPEC 8."""

    async def story(world: World) -> None:
        before = await everything(world)
        shown = await apply(world, text(), dry_run=True)
        assert not shown.applied
        assert await everything(world) == before
        done = await apply(world, text())
        assert done.applied
        assert done.changes == shown.changes

    in_world(database_url, story)


def test_two_applies_at_once_take_turns(database_url: str) -> None:
    """One adds everything, the other finds nothing to change."""

    async def story(world: World) -> None:
        wanted = await configuration(world, text(streams="[orders, events]"))
        outcomes = await asyncio.gather(*(applying.apply(world.parts, wanted) for _ in range(4)))
        assert sorted(len(outcome.changes) for outcome in outcomes) == [0, 0, 0, 4]
        assert len(await schedule_rows(world)) == 2

    in_world(database_url, story)


def test_what_was_agreed_to_is_what_is_done(database_url: str) -> None:
    """Between showing and applying somebody else applied: it is not done, and nothing changes."""

    async def story(world: World) -> None:
        await apply(world, text())
        wanted = await configuration(world, text(concurrency=2))
        shown = await applying.apply(world.parts, wanted, dry_run=True)
        await apply(world, text(concurrency=3))
        with pytest.raises(InvalidInput, match="not those shown"):
            await applying.apply(world.parts, wanted, expected=shown)
        assert await world.pool.fetchval("select concurrency_limit from accounts") == 3

    in_world(database_url, story)


def test_changed_fields_are_told_one_by_one_and_secrets_only_as_changed(database_url: str) -> None:
    """SPEC 8; the new secret is what the connection then opens with."""

    async def story(world: World) -> None:
        await apply(world, text())
        outcome = await apply(world, text(concurrency=2), token="two")
        (change,) = outcome.changes
        assert fields_of(change) == {"concurrency": (4, 2), "secrets.token": (None, "changed")}
        (stored,) = await directory.connections(world.pool)
        assert world.parts.sealer.unseal(stored.sealed, stored.place) == {"token": "two"}

    in_world(database_url, story)


def test_secrets_sealed_under_a_lost_key_are_sealed_anew(database_url: str) -> None:
    """The remedy that the Sealer names for a lost key must work."""
    from dataclasses import replace

    from tidegate.store.seal import Sealer

    async def story(world: World) -> None:
        await apply(world, text())
        world.parts = replace(world.parts, sealer=Sealer(b"k" * 32))
        outcome = await apply(world, text())
        assert told(outcome) == [("changed", "destination", "table"), ("changed", "connection", "acme/shop")]
        (stored,) = await directory.connections(world.pool)
        assert world.parts.sealer.unseal(stored.sealed, stored.place) == {"token": "one"}

    in_world(database_url, story)


def test_editing_the_hour_plans_waiting_runs_anew_and_bridges(database_url: str) -> None:
    """SPEC 2.10: next due is the first of the new rule strictly after edit and watermark; the next period bridges."""

    async def story(world: World) -> None:
        settled = DAILY.replace("daily: true", "daily: true, settle: 2h")
        await apply(world, text(settled))
        world.clock.set(utc(14, 1))
        await plan_due(world.parts, world.clock.now())
        assert [run["state"] for run in await world.runs()] == ["waiting"]

        outcome = await apply(world, text(settled.replace("daily: true", "daily: true, sync_hour: 6")))
        (change,) = outcome.changes
        assert (change.kind, change.streams) == ("schedule", ("orders",))
        assert fields_of(change) == {"sync_hour": (0, 6)}
        assert [run["state"] for run in await world.runs()] == ["dropped"]
        (row,) = await schedule_rows(world)
        assert row["next_due_at"] == utc(14, 6)
        world.clock.set(utc(14, 9))
        await world.tick()
        assert await world.covered(row["chain_id"]) == [(utc(1, 6, month=5), utc(14, 6))]

    in_world(database_url, story)


def test_what_waits_of_a_manual_run_goes_on_at_a_start_moved_behind_where_it_begins(database_url: str) -> None:
    """SPEC 2.10, 2.11: nothing before the start need be covered, so none of its pieces waits for that."""

    async def story(world: World) -> None:
        pieces = "{daily: true, time_zone: Etc/UTC, start_date: 2026-07-01, max_period: 2d}"
        await apply(world, text(pieces))
        asked = await installations.request_runs(world.parts, "acme", "sync", end=utc(11))
        await apply(world, text(pieces.replace("07-01", "07-06")))
        assert await runs.outstanding(world.pool, world.clock.now()) == (3, None)
        await world.tick()
        assert [(run["id"], run["state"]) for run in await world.runs()] == [
            (asked[0], "superseded"), (asked[1], "superseded"), *((piece, "succeeded") for piece in asked[2:]),
        ]  # fmt: skip
        (row,) = await schedule_rows(world)
        assert await world.covered(row["chain_id"]) == [
            (utc(6), utc(7)), (utc(7), utc(9)), (utc(9), utc(11)),
        ]  # fmt: skip

    in_world(database_url, story)


def test_a_manual_run_left_out_by_a_start_that_is_moved_back_again_can_be_asked_for(database_url: str) -> None:
    """SPEC 2.10, HOLE r: asked for twice it is one run, but not one that has ended without covering its period."""

    async def story(world: World) -> None:
        await apply(world, text())
        await installations.request_runs(world.parts, "acme", "sync", end=utc(13, 15))
        await apply(world, text(DAILY.replace("2026-05-01", "2026-07-13, sync_hour: 15")))
        await world.tick()
        assert [run["state"] for run in await world.runs()] == ["superseded"]
        await apply(world, text())
        await installations.request_runs(world.parts, "acme", "sync", end=utc(13, 15))
        await world.tick()
        (row,) = await schedule_rows(world)
        assert await world.covered(row["chain_id"]) == [(utc(1, month=5), utc(13, 15))]

    in_world(database_url, story)


def test_what_is_due_is_named_with_the_run_next_there_not_with_one_of_the_rule_before(database_url: str) -> None:
    """SPEC 2.10, 5: a run that an edit has dropped may end behind the first piece of the new rule, and says nothing of it."""

    async def story(world: World) -> None:
        await apply(world, text())
        world.clock.set(utc(14))
        await world.tick()
        world.clock.set(utc(17))
        await plan_due(world.parts, world.clock.now())
        cut = DAILY.replace("daily: true", "daily: true, sync_hour: 6, max_period: 20h, settle: 1h")
        await apply(world, text(cut))
        assert await reasons(world) == ["dropped"]
        world.clock.set(utc(17, 6))
        await plan_due(world.parts, world.clock.now())
        assert await reasons(world) == ["waiting"]
        world.shop.on_page = lambda _number: ContractBroken("not what was promised")
        world.clock.set(utc(17, 7))
        await world.tick()
        assert await reasons(world) == ["failed: not what was promised"]

    in_world(database_url, story)


def test_an_edit_after_coverage_keeps_the_watermark(database_url: str) -> None:
    """SPEC 2.10, HOLE x: London to New York; no gap and no overlap, whatever the zones say of the start date."""

    async def story(world: World) -> None:
        await apply(world, text("{daily: true, time_zone: Europe/London, start_date: 2026-05-01}"))
        world.clock.set(utc(13, 23, 30))
        await world.tick()
        outcome = await apply(world, text("{daily: true, time_zone: America/New_York, start_date: 2026-05-01}"))
        assert outcome.warnings == ()
        (row,) = await schedule_rows(world)
        assert row["next_due_at"] == utc(14, 4)
        world.clock.set(utc(14, 5))
        await world.tick()
        assert await world.covered(row["chain_id"]) == [(utc(30, 23, month=4), utc(13, 23)), (utc(13, 23), utc(14, 4))]

    in_world(database_url, story)


def test_a_policy_edit_leaves_what_is_planned(database_url: str) -> None:
    """SPEC 3: settle and spread move no due date; a run that waits is not lost by lengthening them."""

    async def story(world: World) -> None:
        await apply(world, text(DAILY.replace("daily: true", "daily: true, settle: 2h")))
        world.clock.set(utc(14, 1))
        await plan_due(world.parts, world.clock.now())
        (before,) = await schedule_rows(world)
        outcome = await apply(world, text(DAILY.replace("daily: true", "daily: true, settle: 3h")))
        assert [change.kind for change in outcome.changes] == ["schedule"]
        (after,) = await schedule_rows(world)
        assert (before["planned_until"], before["next_due_at"]) == (after["planned_until"], after["next_due_at"])
        assert [run["state"] for run in await world.runs()] == ["waiting"]

    in_world(database_url, story)


def test_a_start_edited_before_anything_is_covered_replaces_it(database_url: str) -> None:
    """SPEC 2.10, HOLE bb: it only applies to the first sync."""

    async def story(world: World) -> None:
        await apply(world, text())
        for start, expected in (("2026-06-01", utc(1, month=6)), ("2026-01-01", utc(1, month=1))):
            await apply(world, text(DAILY.replace("2026-05-01", start)))
            (row,) = await schedule_rows(world)
            assert row["start_at"] == expected
        world.clock.set(utc(14, 3))
        await world.tick()
        assert await world.covered(row["chain_id"]) == [(utc(1, month=1), utc(14))]

    in_world(database_url, story)


def test_a_start_cannot_move_under_a_run_at_work(database_url: str) -> None:
    """The run has computed its period already; nothing of the document is applied."""

    async def story(world: World) -> None:
        await apply(world, text())
        world.clock.set(utc(14))
        await plan_due(world.parts, world.clock.now())
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        with pytest.raises(InvalidConfiguration, match="first run is active") as caught:
            await apply(world, text(DAILY.replace("2026-05-01", "2026-06-01"), concurrency=1))
        assert caught.value.errors[0].field == "tenants.acme.installations.sync.schedule.start_date"
        assert await world.pool.fetchval("select concurrency_limit from accounts") == 4
        await world.work()
        (row,) = await schedule_rows(world)
        assert await world.covered(row["chain_id"]) == [(utc(1, month=5), utc(14))]

    in_world(database_url, story)


def test_an_earlier_start_after_coverage_adds_only_what_is_missing_in_front(database_url: str) -> None:
    """SPEC 2.10, HOLE bb: as a backfill that extends the head; the chain behind it, and what is planned, stay as they are."""

    async def story(world: World) -> None:
        await apply(world, text())
        world.clock.set(utc(15))
        await world.tick()
        world.shop.put(1, utc(3, month=4))
        earlier = text(DAILY.replace("2026-05-01", "2026-04-01"))
        (before,) = await schedule_rows(world)
        outcome = await apply(world, earlier)
        (bridge,) = outcome.bridges
        assert bridge.in_front == Period(utc(1, month=4), utc(1, month=5))
        assert (bridge.dropped, bridge.period) == (0, Period(utc(15), utc(16)))
        (row,) = await schedule_rows(world)
        assert (row["next_due_at"], row["received_at"]) == (before["next_due_at"], before["received_at"])
        ((_, gap),) = await chains.uncovered(world.pool, world.clock.now())
        assert (gap.period, gap.reason, gap.in_front) == (bridge.in_front, "waiting", True)
        (stream,) = await queries.status(world.parts)
        assert stream.in_front is not None
        assert (stream.in_front.reason, stream.in_front.planned_at) == ("waiting: slots (ready)", world.clock.now())
        assert (await apply(world, earlier)).changes == ()
        await world.tick()
        expected = [(utc(1, month=4), utc(1, month=5)), (utc(1, month=5), utc(15))]
        assert await world.covered(row["chain_id"]) == expected
        assert set(await world.delivered()) == {1}
        assert world.shop.asked[-1].upper == utc(1, month=5)
        assert await chains.uncovered(world.pool, world.clock.now()) == []

    in_world(database_url, story)


def test_an_earlier_start_can_be_taken_back_or_moved_on_until_its_backfill_runs(database_url: str) -> None:
    """SPEC 2.10: nothing half-written; a backfill at work is not moved from under its worker, and a pause forgets none."""

    async def story(world: World) -> None:
        await apply(world, text())
        world.clock.set(utc(15))
        await world.tick()
        for start in ("2026-04-01", "2026-03-01"):
            await apply(world, text(DAILY.replace("2026-05-01", start)))
        outcome = await apply(world, text())
        assert outcome.bridges[0].in_front is None
        assert await chains.uncovered(world.pool, world.clock.now()) == []
        assert [run["state"] for run in await world.runs() if run["lane"] == "backfill"] == ["dropped"]

        march = text(DAILY.replace("2026-05-01", "2026-03-01"))
        await apply(world, march)
        await installations.pause(world.parts, "acme", "sync")
        await installations.resume(world.parts, "acme", "sync")
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        rows = await everything(world)
        with pytest.raises(InvalidConfiguration, match="backfill in front of the coverage is active"):
            await apply(world, text(DAILY.replace("2026-05-01", "2026-02-01"), concurrency=1))
        assert await everything(world) == rows
        await world.work()
        (row,) = await schedule_rows(world)
        assert (await world.covered(row["chain_id"]))[0] == (utc(1, month=3), utc(1, month=5))

    in_world(database_url, story)


def test_an_edit_says_before_it_is_saved_how_each_stream_goes_on(database_url: str) -> None:
    """SPEC 2.10: watermark, waiting runs planned anew, next due date, the period that bridges; a dry run writes nothing."""

    async def story(world: World) -> None:
        await apply(world, text(DAILY.replace("daily: true", "daily: true, settle: 3h")))
        world.clock.set(utc(14, 3))
        await world.tick()
        world.clock.set(utc(15, 1))
        await plan_due(world.parts, world.clock.now())
        rows = await everything(world)
        edited = text("{weekly: true, time_zone: America/New_York, start_date: 2026-05-01, settle: 3h}")
        shown = await apply(world, edited, dry_run=True)
        due_at = utc(17, 4)  # the Friday after, at midnight in New York
        assert shown.bridges == (Bridge("acme/sync", "orders", utc(14), 1, due_at, Period(utc(14), due_at)),)
        assert await everything(world) == rows
        assert (await apply(world, edited)).bridges == shown.bridges
        world.clock.set(due_at + timedelta(hours=3))
        await world.tick()
        (row,) = await schedule_rows(world)
        assert (await world.covered(row["chain_id"]))[-1] == (utc(14), due_at)

    in_world(database_url, story)


def test_another_way_to_catch_up_holds_for_what_is_not_covered_yet(database_url: str) -> None:
    """SPEC 2.8, 2.10: the due dates stay; what waits is planned anew by the new policy."""

    async def story(world: World) -> None:
        await apply(world, text(DAILY.replace("daily: true", "daily: true, settle: 3h")))
        world.clock.set(utc(14, 3))
        await world.tick()
        world.clock.set(utc(17, 1))
        await plan_due(world.parts, world.clock.now())
        outcome = await apply(world, text(DAILY.replace("daily: true", "daily: true, settle: 3h, catch_up: each")))
        assert (outcome.bridges[0].dropped, outcome.bridges[0].next_due_at) == (1, utc(15))
        world.clock.set(utc(17, 3))
        await world.tick()
        (row,) = await schedule_rows(world)
        assert (await world.covered(row["chain_id"]))[1:] == [(utc(day), utc(day + 1)) for day in (14, 15, 16)]

    in_world(database_url, story)


def test_the_period_told_of_an_edited_policy_is_the_one_that_comes(database_url: str) -> None:
    """SPEC 2.8, 2.10: `coalesce` makes one period up to the latest due date passed, and the preview says so."""

    async def story(world: World) -> None:
        each = DAILY.replace("daily: true", "daily: true, settle: 3h, catch_up: each")
        await apply(world, text(each))
        world.clock.set(utc(14, 3))
        await world.tick()
        world.clock.set(utc(17, 1))
        await plan_due(world.parts, world.clock.now())
        (bridge,) = (await apply(world, text(each.replace("each", "coalesce")))).bridges
        assert (bridge.dropped, bridge.period) == (3, Period(utc(14), utc(17)))
        world.clock.set(utc(17, 3))
        await world.tick()
        (row,) = await schedule_rows(world)
        assert (await world.covered(row["chain_id"]))[1:] == [(utc(14), utc(17))]

    in_world(database_url, story)


def test_a_later_start_after_coverage_changes_nothing_and_warns(database_url: str) -> None:
    """SPEC 2.10: it offers a waiver; the rest of the edit is done."""

    async def story(world: World) -> None:
        await apply(world, text())
        world.clock.set(utc(14))
        await world.tick()
        later = DAILY.replace("2026-05-01", "2026-08-01")
        outcome = await apply(world, text(later))
        assert outcome.changes == ()
        assert "tidegate waive acme/sync orders --until 2026-08-01T00:00:00Z --reason" in outcome.warnings[0]
        outcome = await apply(world, text(later.replace("daily: true", "daily: true, sync_hour: 6")))
        assert [change.kind for change in outcome.changes] == ["schedule"]
        (row,) = await schedule_rows(world)
        assert row["next_due_at"] == utc(14, 6)
        world.clock.set(utc(14, 6))
        await world.tick()
        assert await world.covered(row["chain_id"]) == [(utc(1, month=5), utc(14)), (utc(14), utc(14, 6))]

    in_world(database_url, story)


def test_a_rule_without_a_start_keeps_the_one_it_got_on_receipt(database_url: str) -> None:
    """SPEC 2.6: applying again must not move the start to now."""

    async def story(world: World) -> None:
        await apply(world, text("{every: 1h}"))
        world.clock.advance(minutes=20)
        assert (await apply(world, text("{every: 1h}"))).changes == ()
        await apply(world, text("{every: 30m}"))
        (row,) = await schedule_rows(world)
        assert (row["start_at"], row["next_due_at"]) == (utc(13, 16), utc(13, 16, 30))

    in_world(database_url, story)


def test_a_stream_taken_off_the_list_is_planned_no_more_not_even_after_a_resume(database_url: str) -> None:
    """Its coverage stays, and put back it goes on from its watermark."""

    async def story(world: World) -> None:
        both = "[orders, events]"
        await apply(world, text(streams=both))
        world.clock.set(utc(14))
        await world.tick()
        outcome = await apply(world, text(streams="[orders]"))
        (change,) = outcome.changes
        assert (change.action, change.name, change.streams) == (Action.RETIRED, "acme/sync", ("events",))
        assert (await apply(world, text(streams="[orders]"))).changes == ()

        await installations.pause(world.parts, "acme", "sync")
        await installations.resume(world.parts, "acme", "sync")
        world.clock.set(utc(15))
        await world.tick()
        streams = await world.pool.fetch(
            "select c.stream, count(*) from runs r join chains c on c.id = r.chain_id group by 1"
        )
        assert {row["stream"]: row["count"] for row in streams} == {"orders": 2, "events": 1}

        outcome = await apply(world, text(streams=both))
        assert [(change.action, change.streams) for change in outcome.changes] == [("added", ("events",))]
        assert outcome.bridges == (Bridge("acme/sync", "events", utc(14), 0, utc(16), Period(utc(14), utc(16))),)
        world.clock.set(utc(16))
        await world.tick()
        chain = await world.pool.fetchval("select id from chains where stream = 'events'")
        assert await world.covered(chain) == [(utc(1, month=5), utc(14)), (utc(14), utc(16))]

    in_world(database_url, story)


def test_another_platform_account_starts_a_new_chain(database_url: str) -> None:
    """SPEC 2.12: the old chain is planned no more, keeps its coverage, and its waiting runs fetch nothing."""

    async def story(world: World) -> None:
        await apply(world, text())
        world.clock.set(utc(14))
        await world.tick()
        world.clock.set(utc(15))
        await plan_due(world.parts, world.clock.now())
        asked = len(world.shop.asked)
        outcome = await apply(world, text(account="other.example"))
        assert [change.action for change in outcome.changes] == ["changed", "added", "retired"]
        assert fields_of(outcome.changes[0]) == {"account": ("acme.example", "other.example")}
        await world.tick()
        assert len(world.shop.asked) == asked, "the old account's waiting run must not fetch from the new one"
        old, new = await world.pool.fetch("select * from chains order by id")
        assert (new["start_at"], old["account_id"] != new["account_id"]) == (utc(1, month=5), True)
        world.clock.set(utc(16))
        await world.tick()
        assert await world.covered(new["id"]) == [(utc(1, month=5), utc(16))]
        assert await world.covered(old["id"]) == [(utc(1, month=5), utc(14))]

        await apply(world, text())
        world.clock.set(utc(17))
        await world.tick()
        assert await world.covered(old["id"]) == [(utc(1, month=5), utc(14)), (utc(14), utc(17))]

    in_world(database_url, story)


def test_a_run_of_the_old_account_that_retries_ends_as_superseded(database_url: str) -> None:
    """SPEC 2.12: what it would fetch now is another account's."""
    from tidegate.domain.errors import SourceUnavailable

    async def story(world: World) -> None:
        await apply(world, text())
        world.clock.set(utc(14))
        world.shop.on_page = lambda _number: SourceUnavailable("down")
        await world.tick()
        assert [run["state"] for run in await world.runs()] == ["retrying"]
        await apply(world, text(account="other.example"))
        world.shop.on_page = lambda _number: None
        asked = len(world.shop.asked)
        world.clock.advance(minutes=1)
        await world.tick()
        assert [run["state"] for run in await world.runs()] == ["superseded"]
        assert len(world.shop.asked) == asked

    in_world(database_url, story)


def test_new_credentials_resume_what_their_refusal_paused(database_url: str) -> None:
    """SPEC 5 "Failures": the mark goes, the installation catches up; nothing else resumes it."""

    async def story(world: World) -> None:
        await apply(world, text(more="paused: false"))
        world.shop.on_page = lambda _number: Unauthorised("token revoked")
        world.clock.set(utc(14))
        await world.tick()
        world.clock.set(utc(16))
        outcome = await apply(world, text(more="paused: false"))
        assert outcome.changes == ()
        assert "token revoked" in outcome.warnings[0]

        world.shop.on_page = lambda _number: None
        outcome = await apply(world, text(), token="two")
        assert told(outcome) == [("changed", "connection", "acme/shop"), ("changed", "installation", "acme/sync")]
        assert await world.pool.fetchval("select unauthorised_at from connections") is None
        await world.tick()
        (row,) = await schedule_rows(world)
        assert await world.covered(row["chain_id"]) == [(utc(1, month=5), utc(16))]

    in_world(database_url, story)


def test_a_corrected_connection_says_that_what_failed_for_long_stays_paused(database_url: str) -> None:
    """SPEC 5 "Failures": failing days are ended by a person, who is told so at the very correction."""

    async def story(world: World) -> None:
        world.with_settings(pause_after_failing_days=1)
        await apply(world, text())
        world.shop.on_page = lambda _number: ContractBroken("no records")
        for day in (14, 15):
            world.clock.set(utc(day))
            await world.tick()
        assert (await apply(world, text())).warnings == ()
        (warning,) = (await apply(world, text(), token="two")).warnings
        assert warning.startswith("acme/sync stays paused (orders has been failing for 1 days")
        assert warning.endswith(": `tidegate resume acme/sync`.")

    in_world(database_url, story)


def test_paused_in_the_document_outlives_new_credentials(database_url: str) -> None:
    """SPEC 5 "Failures": what the source had refused and the document pauses is resumed by the document only."""

    async def story(world: World) -> None:
        await apply(world, text())
        world.shop.on_page = lambda _number: Unauthorised("token revoked")
        world.clock.set(utc(14))
        await world.tick()
        outcome = await apply(world, text(more="paused: true"))
        assert fields_of(outcome.changes[0]) == {
            "paused": ("unauthorised: token revoked", "paused in the configuration")
        }
        assert (await apply(world, text(more="paused: true"))).changes == ()
        assert told(await apply(world, text(more="paused: true"), token="two")) == [
            ("changed", "connection", "acme/shop")
        ]
        await sweep(world.parts, world.clock.now())
        assert await world.pool.fetchval("select paused_by from installations") == "person"
        assert (await apply(world, text(streams="[orders, events]"), token="two")).changes[0].kind == "stream"
        assert await world.pool.fetchval("select paused_reason from installations") == "paused in the configuration"

    in_world(database_url, story)


def test_paused_in_the_document_pauses_and_resumes_and_unsaid_leaves_it(database_url: str) -> None:
    """SPEC 2.11: waiting runs are dropped; resuming is catch-up; a pause by hand outlives an apply that does not say."""

    async def story(world: World) -> None:
        await apply(world, text(more="paused: true"))
        world.clock.set(utc(15))
        await world.tick()
        assert await world.runs() == []
        assert (await apply(world, text(more="paused: true"))).changes == ()
        assert (await apply(world, text())).changes == ()
        await apply(world, text(streams="[orders, events]"))
        await world.tick()
        assert await world.runs() == [], "a stream added to a paused installation is paused too"

        outcome = await apply(world, text(streams="[orders, events]", more="paused: false"))
        assert [field.field for field in outcome.changes[0].fields] == ["paused"]
        world.clock.set(utc(16))
        await world.tick()
        assert {run["state"] for run in await world.runs()} == {"succeeded"}

    in_world(database_url, story)


def test_what_the_files_do_not_name_is_left_alone_and_named(database_url: str) -> None:
    """Removal is not by omission."""

    async def story(world: World) -> None:
        await apply(world, text())
        rows = await everything(world)
        outcome = await apply(world, "tenants: {}")
        assert outcome.changes == ()
        assert outcome.left_alone == ("destination table", "connection acme/shop", "installation acme/sync")
        assert await everything(world) == rows

    in_world(database_url, story)


def test_an_installation_outside_the_files_ends_with_the_account_of_its_connection(database_url: str) -> None:
    """SPEC 2.12: it must not fetch another account's records into its chain."""

    async def story(world: World) -> None:
        two = text().replace("      sync:", "      other:").split("installations:")[1]
        await apply(world, text() + two)
        assert len(await schedule_rows(world)) == 2
        outcome = await apply(world, text(account="new.example"))
        assert "acme/other" in outcome.warnings[0]
        world.clock.set(utc(14))
        await world.tick()
        assert [run["state"] for run in await world.runs()] == ["succeeded"]
        assert world.shop.asked[0].stream == "orders"

    in_world(database_url, story)


LIMITED = "concurrency: 1, requests_per_second: 2, burst: 3,"


def of_tenant(tenant: str, limits: str) -> str:
    """Return a configuration of a tenant whose connection is to the platform account of all of them."""
    return text().replace("  acme:", f"  {tenant}:").replace("concurrency: 4,", limits)


async def limits(world: World) -> tuple[object, ...]:
    row = await world.pool.fetchrow("select concurrency_limit, rate_per_second, rate_burst from accounts")
    assert row is not None
    return tuple(row)


def test_the_limits_of_an_account_that_are_not_written_stay(database_url: str) -> None:
    """SPEC 3: they are the platform account's; another tenant's file that says nothing of them changes nothing of them."""

    async def story(world: World) -> None:
        await apply(world, of_tenant("acme", LIMITED))
        other = await apply(world, of_tenant("other", ""))
        assert fields_of(other.changes[1])["concurrency"] == (None, 1)
        assert (other.warnings, await limits(world)) == ((), (1, 2.0, 3))
        for tenant, written in (("acme", LIMITED), ("other", ""), ("acme", "")):
            again = await apply(world, of_tenant(tenant, written))
            assert (again.changes, again.warnings, await limits(world)) == ((), (), (1, 2.0, 3))

    in_world(database_url, story)


def test_limits_that_hold_for_another_file_s_connection_are_warned_of(database_url: str) -> None:
    """SPEC 3: whose limits they are too is said before they are changed; a second time changes nothing (SPEC 8)."""

    async def story(world: World) -> None:
        await apply(world, of_tenant("acme", LIMITED))
        for written, before, after in (("concurrency: 9,", 1, 9), ("concurrency: 8,", 9, 8)):
            changed = await apply(world, of_tenant("other", written))
            assert changed.warnings == ("other/shop sets limits of acme.example that hold for acme/shop too.",)
            named = [each for each in changed.changes if fields_of(each).get("concurrency") == (before, after)]
            assert len(named) == 1  # the account's, or the connection's where it was there before
            assert await limits(world) == (after, 2.0, 3)
            again = await apply(world, of_tenant("other", written))
            assert (again.changes, again.warnings) == ((), ())

    in_world(database_url, story)


def test_a_limit_is_no_renewal_of_a_refused_connection(database_url: str) -> None:
    """SPEC 5: only other settings or secrets may be accepted; until then the installation stays paused."""

    async def story(world: World) -> None:
        await apply(world, text())
        world.shop.on_page = lambda _number: Unauthorised("scope withdrawn")
        world.clock.set(utc(14))
        await world.tick()
        outcome = await apply(world, text(concurrency=7))
        assert told(outcome) == [("changed", "connection", "acme/shop")]
        (connection,) = await directory.connections(world.pool)
        assert (connection.concurrency_limit, connection.unauthorised_reason) == (7, "scope withdrawn")
        assert connection.unauthorised_at is not None
        assert await directory.authorised_again(world.pool) == []
        await apply(world, text(concurrency=7), token="two")
        (connection,) = await directory.connections(world.pool)
        assert (connection.unauthorised_at, connection.unauthorised_reason) == (None, "")
        assert (await directory.installations(world.pool))[0].paused_at is None

    in_world(database_url, story)


def test_a_destination_that_is_moved_says_what_stays_behind(database_url: str) -> None:
    """SPEC 5: the ledger goes on as covered, and the new place has only what comes; another password is no other place."""

    def moved(settings: str) -> str:
        return text().replace("{kind: postgresql}", f"{{kind: postgresql, {settings}}}")

    async def story(world: World) -> list[tuple[str, ...]]:
        url = 'secrets: {url: "postgresql://u:${TOKEN}@h/'
        steps = [(text(), "one"), (moved("settings: {schema: synced}"), "one"), (moved("settings: {schema: other}"), "one"),
                 (moved(f'{url}db"}}'), "one"), (moved(f'{url}db"}}'), "two"), (moved(f'{url}db2"}}'), "two")]  # fmt: skip
        return [(await apply(world, document, token)).warnings for document, token in steps]

    found = in_world(database_url, story)
    assert [len(warnings) for warnings in found] == [0, 0, 1, 1, 0, 1]
    assert "destination table: what was delivered until now stays where it was" in found[2][0]
    assert "`tidegate backfill` brings a period to the new place" in found[2][0]


def test_a_receiver_that_moves_is_not_promised_what_is_remembered_as_handed_over(database_url: str) -> None:
    """SPEC 4: a backfill does not hand over what the `delivered` table knows, whatever address it went to; a replay does."""

    def at(address: str) -> str:
        kind = f"{{kind: webhook, settings: {{url: 'https://{address}'}}, secrets: {{signing_secrets: '${{TOKEN}}'}}}}"
        return text().replace("{kind: postgresql}", kind)

    async def story(world: World) -> tuple[str, ...]:
        await apply(world, at("app.example/hooks"), SECRET)
        return (await apply(world, at("new.example/hooks"), SECRET)).warnings

    (warning,) = in_world(database_url, story)
    assert "`tidegate webhook replay` sends what is kept there again" in warning
    assert "brings a period to the new place" not in warning


def test_a_limit_that_is_changed_holds_for_what_waits_already(database_url: str) -> None:
    """SPEC 3, issue 2 "limits are kept in the database": the next look of the dispatcher goes by it, up and down."""

    async def story(world: World) -> None:
        both = "[orders, events]"
        await apply(world, text(streams=both, concurrency=1))
        world.clock.set(utc(14))
        await plan_due(world.parts, world.clock.now())
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        told = {each.wait.reason for each in await waiting.explain(world.pool, world.clock.now())}
        assert told == {WaitReason.SLOTS, WaitReason.ACCOUNT_LIMIT}
        await apply(world, text(streams=both, concurrency=2))
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        await apply(world, text(streams=both, concurrency=1))
        await world.work()
        world.clock.set(utc(15))
        await plan_due(world.parts, world.clock.now())
        assert await dispatch_ready(world.parts, world.clock.now()) == 1

    in_world(database_url, story)
