"""Backfills and waivers: what they change in the ledger, and what they may not (SPEC 2.10, 2.11, 5; HOLES o, bb, cc)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.engine.world import DAILY, World, in_world
from tidegate.domain.errors import ContractBroken, InvalidInput, LeaseLost
from tidegate.domain.fetch import FetchReport
from tidegate.domain.period import Period
from tidegate.domain.run import Lane, RunState
from tidegate.engine import queries
from tidegate.engine.commands import backfilling, installations, waiving
from tidegate.engine.commands.backfilling import Backfill
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.engine.sender import Sender
from tidegate.engine.watch import watch
from tidegate.store import chains, coverage, ending, leases, runs, sending
from tidegate.store.ending import Finish
from tidegate.store.leases import LeasedRun
from tidegate.store.sending import LeasedRoute


def utc(day: int, hour: int = 0, month: int = 7) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


async def backfill(world: World, start: datetime, end: datetime) -> Backfill:
    return await backfilling.request_backfill(world.parts, "acme", "sync", "orders", start, end)


async def waive(world: World, until: datetime, reason: str = "booked by hand") -> None:
    await waiving.waive(world.parts, "acme", "sync", "orders", until, reason)


async def covered_to(world: World, day: int, start: str = "2026-07-10") -> int:
    """Install, and cover 10 to 14 July and each day from there to ``day``."""
    chain = await world.install(rule={**DAILY, "start_date": start})
    for due in range(14, day + 1):
        world.clock.set(utc(due, 1))
        await world.tick()
    return chain


async def rows(world: World) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await world.pool.fetch("select * from coverage order by period_end")]


async def links(world: World, chain: int) -> list[tuple[int, int, str]]:
    return [(link.period.start.day, link.period.end.day, link.kind) for link in await chains.links(world.pool, chain)]


def test_a_backfill_inside_coverage_changes_no_chain_row(database_url: str) -> None:
    """SPEC 2.11, HOLE o: it delivers by the same version rule, its fetch is bounded, and the watermark does not move."""

    async def story(world: World) -> None:
        world.shop.put(1, utc(11))
        await covered_to(world, 16)
        before = await rows(world)
        world.shop.put(2, utc(11, 5))
        asked = await backfill(world, utc(11), utc(15))
        assert (asked.in_front, asked.waived) == (None, ())
        await world.tick()
        assert await rows(world) == before
        assert set(await world.delivered()) == {1, 2}
        assert (world.shop.asked[-1].lower, world.shop.asked[-1].upper) == (utc(11), utc(15))
        (run,) = [run for run in await world.runs() if run["lane"] == "backfill"]
        assert (run["state"], run["period_start"], run["period_end"]) == ("succeeded", utc(11), utc(15))
        world.clock.set(utc(17, 1))
        await world.tick()
        assert await world.covered((await world.runs())[0]["chain_id"]) == [
            (utc(10), utc(14)), (utc(14), utc(15)), (utc(15), utc(16)), (utc(16), utc(17)),
        ]  # fmt: skip

    in_world(database_url, story)


def test_a_backfill_ending_at_the_head_extends_it(database_url: str) -> None:
    """SPEC 2.11, 5: in one deferred transaction; it begins with its own start, however long the lookback."""

    async def story(world: World) -> None:
        chain = await covered_to(world, 15)
        world.shop.put(1, utc(3))
        asked = await backfill(world, utc(1), utc(10))
        assert asked.in_front == asked.period
        await world.tick()
        assert await links(world, chain) == [(1, 10, "covered"), (10, 14, "covered"), (14, 15, "covered")]
        assert await chains.start(world.pool, chain) == utc(1)
        assert set(await world.delivered()) == {1}
        assert (world.shop.asked[-1].lower, world.shop.asked[-1].upper) == (utc(1), utc(10))
        assert await chains.uncovered(world.pool, world.clock.now()) == []
        asked = await backfill(world, utc(28, month=6), utc(12))
        assert asked.in_front is not None
        assert asked.in_front.end == utc(1)
        await world.tick()
        assert (await links(world, chain))[:2] == [(28, 1, "covered"), (1, 10, "covered")]

    in_world(database_url, story)


def test_a_backfill_detached_in_front_is_refused_and_the_gap_named(database_url: str) -> None:
    """SPEC 2.11: with what to do instead; so are empty, future and live ranges, and nothing is written."""

    async def story(world: World) -> None:
        await covered_to(world, 15)
        before = await world.runs()
        refused = [
            (utc(1), utc(5), r"2026-07-05T00:00:00Z to 2026-07-10T00:00:00Z.*Backfill up to 2026-07-10"),
            (utc(12), utc(12), "is not before"),
            (utc(12), utc(11), "is not before"),
            (utc(12), utc(16), "in the future"),
            (utc(12), utc(15, 1), "is beyond 2026-07-15T00:00:00Z.*tidegate run acme/sync"),
        ]
        for start, end, words in refused:
            with pytest.raises(InvalidInput, match=words):
                await backfill(world, start, end)
        await world.install("belle")
        with pytest.raises(InvalidInput, match="nothing of belle/sync orders is covered yet"):
            await backfilling.request_backfill(world.parts, "belle", "sync", "orders", utc(1), utc(2))
        with pytest.raises(InvalidInput, match="is not a stream"):
            await backfilling.request_backfill(world.parts, "acme", "sync", "orderz", utc(1), utc(2))
        await installations.pause(world.parts, "acme", "sync")
        with pytest.raises(InvalidInput, match="is paused"):
            await backfill(world, utc(11), utc(12))
        assert await world.runs() == before

    in_world(database_url, story)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (15, 17, [(14, 15, "waived"), (15, 17, "covered"), (17, 18, "waived")]),
        (14, 18, [(14, 18, "covered")]),
        (12, 16, [(14, 16, "covered"), (16, 18, "waived")]),
        (16, 19, [(14, 16, "waived"), (16, 18, "covered")]),
    ],
)
def test_a_backfill_over_a_waived_stretch_splits_it(
    start: int, end: int, expected: list[tuple[int, int, str]], database_url: str
) -> None:
    """SPEC 2.11: into covered and waived; the reason stays with what is waived."""

    async def story(world: World) -> None:
        chain = await covered_to(world, 14)
        world.clock.set(utc(18))
        await waive(world, utc(18))
        world.clock.set(utc(19))
        await world.tick()
        assert await links(world, chain) == [(10, 14, "covered"), (14, 18, "waived"), (18, 19, "covered")]
        asked = await backfill(world, utc(start), utc(end))
        assert [(period.start.day, period.end.day) for period in asked.waived] == [
            (begin, until) for begin, until, kind in expected if kind == "covered"
        ]
        await world.tick()
        assert await links(world, chain) == [(10, 14, "covered"), *expected, (18, 19, "covered")]
        reasons = await world.pool.fetch("select distinct reason from coverage where kind = 'waived'")
        assert [row["reason"] for row in reasons] == ["booked by hand"] * any(k == "waived" for _, _, k in expected)

    in_world(database_url, story)


async def both_in_hand(world: World, start: int, end: int) -> tuple[LeasedRun, LeasedRun]:
    """Waive up to the chain's end, and lease a backfill over a part of it and the live run that follows it."""
    await covered_to(world, 14)
    world.clock.set(utc(18))
    await waive(world, utc(18))
    await backfill(world, utc(start), utc(end))
    world.clock.set(utc(19, 1))
    now = world.clock.now()
    await plan_due(world.parts, now)
    await dispatch_ready(world.parts, now)
    queued = [run["id"] for run in await world.runs() if run["state"] == "queued"]
    held = {run.lane: run for run in await leases.lease(world.pool, queued, now, now + timedelta(hours=1), "w")}
    assert held[Lane.LIVE].period.start == utc(18)
    return held[Lane.BACKFILL], held[Lane.LIVE]


async def waits(world: World, task: asyncio.Task[list[RunState | Exception]]) -> bool:
    """Return once ``task`` waits for another's lock (True), or has ended without (False)."""
    while not task.done():
        if await world.pool.fetchval("select exists (select from pg_locks where not granted)"):
            return True
        await asyncio.sleep(0)
    return False


@pytest.mark.parametrize("live_first", [False, True], ids=["the backfill first", "the live run first"])
@pytest.mark.parametrize(("start", "end"), [(15, 17), (14, 18), (15, 18), (14, 16)])
def test_a_live_run_ends_beside_a_backfill_that_splits_the_waiver_before_it(
    database_url: str, start: int, end: int, live_first: bool
) -> None:
    """SPEC 2.11, 5: whichever commits first, the other waits for it and neither fails, not even once."""

    async def story(world: World) -> None:
        first, second = await both_in_hand(world, start, end)
        if live_first:
            first, second = second, first
        report, now = FetchReport(None, None), world.clock.now()
        async with world.pool.acquire() as connection, connection.transaction():
            assert await ending.finish(connection, Finish(first, 1, report, True, now)) == "succeeded"
            later = asyncio.create_task(ending.finish_many(world.pool, [Finish(second, 1, report, True, now)]))
            waited = await waits(world, later)
        assert await later == [RunState.SUCCEEDED]
        assert waited == ((start, end) != (14, 18))  # no key of the row that stays changes then
        found = await chains.links(world.pool, second.chain_id)
        assert [link.period.end for link in found][-2:] == [utc(18), utc(19)]
        assert sum(link.kind == "covered" and link.run_id == first.id for link in found) == 1

    in_world(database_url, story)


def test_a_waiver_at_the_head_is_split_too(database_url: str) -> None:
    """SPEC 5: whichever row of the chain it is, with no row between or behind to lean on."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**DAILY, "start_date": "2026-07-10"})
        world.clock.set(utc(14))
        await waive(world, utc(14))
        assert await links(world, chain) == [(10, 14, "waived")]
        await backfill(world, utc(8), utc(12))
        await world.tick()
        assert await links(world, chain) == [(8, 10, "covered"), (10, 12, "covered"), (12, 14, "waived")]

    in_world(database_url, story)


def test_a_backfill_that_is_not_proven_changes_nothing(database_url: str) -> None:
    """SPEC 5, "The ledger cannot lie": neither does one that fails; asked for again, it is done anew."""

    async def story(world: World) -> None:
        chain = await covered_to(world, 14)
        before = await rows(world)
        world.shop.shortfall = "only sixty days"
        first = await backfill(world, utc(1), utc(10))
        await world.tick()
        assert await rows(world) == before
        assert await chains.start(world.pool, chain) == utc(10)
        world.shop.shortfall = ""
        world.shop.on_page = lambda _number: ContractBroken("no")
        await backfill(world, utc(2), utc(10))
        await world.tick()
        assert await rows(world) == before
        world.shop.on_page = lambda _number: None
        again = await backfill(world, utc(3), utc(10))
        assert again.run_id == first.run_id
        await world.tick()
        assert await links(world, chain) == [(3, 10, "covered"), (10, 14, "covered")]

    in_world(database_url, story)


def test_asking_twice_is_asking_once_and_a_second_time_reads_again(database_url: str) -> None:
    """SPEC 2.12, HOLE r: one run per chain, lane and end; another begin is refused while it is under way."""

    async def story(world: World) -> None:
        await covered_to(world, 15)
        first = await backfill(world, utc(11), utc(12))
        assert (await backfill(world, utc(11), utc(12))).run_id == first.run_id
        with pytest.raises(InvalidInput, match=f"run {first.run_id} already.*2026-07-11"):
            await backfill(world, utc(10), utc(12))
        await world.tick()
        asked = len(world.shop.asked)
        assert (await backfill(world, utc(10), utc(12))).run_id == first.run_id
        await world.tick()
        assert [request.lower for request in world.shop.asked[asked:]] == [utc(10)]

    in_world(database_url, story)


def test_live_goes_first_and_a_stream_has_one_run_of_each_lane(database_url: str) -> None:
    """SPEC 2.11, 2.12: where capacity is scarce the live run is chosen; where it is not, both may run at once."""

    async def story(world: World) -> None:
        await covered_to(world, 14)
        await world.pool.execute("update accounts set concurrency_limit = 1")
        await backfill(world, utc(11), utc(12))
        await backfill(world, utc(11), utc(13))
        world.clock.set(utc(15))
        await plan_due(world.parts, world.clock.now())
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        assert [run["lane"] for run in await world.runs() if run["state"] == "queued"] == ["live"]
        await world.pool.execute("update accounts set concurrency_limit = 9")
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        assert await dispatch_ready(world.parts, world.clock.now()) == 0
        await world.work()
        await world.tick()
        assert {run["state"] for run in await world.runs()} == {"succeeded"}

    in_world(database_url, story)


def test_a_waiver_leaves_out_what_was_booked_by_hand(database_url: str) -> None:
    """SPEC 2.10, HOLE cc: paused for ten days, waived, resumed: the next period starts where the waiver ends."""

    async def story(world: World) -> None:
        chain = await covered_to(world, 14)
        await installations.pause(world.parts, "acme", "sync", "stocktaking")
        world.clock.set(utc(24, 5))
        await world.tick()
        await waive(world, utc(24))
        await installations.resume(world.parts, "acme", "sync")
        await world.tick()
        assert await chains.uncovered(world.pool, world.clock.now()) == []
        world.clock.set(utc(25))
        await world.tick()
        assert await links(world, chain) == [(10, 14, "covered"), (14, 24, "waived"), (24, 25, "covered")]
        assert world.shop.asked[-1].lower == utc(24)
        assert len(world.shop.asked) == 2

    in_world(database_url, story)


def test_waiting_runs_inside_a_waiver_end_as_superseded(database_url: str) -> None:
    """SPEC 2.7: and one that ends behind it starts at its end."""

    async def story(world: World) -> None:
        chain = await world.install(rule={**DAILY, "start_date": "2026-07-13", "catch_up": "each"})
        world.clock.set(utc(16))
        await plan_due(world.parts, world.clock.now())
        assert len(await world.runs()) == 3
        await waive(world, utc(15))
        assert [run["state"] for run in await world.runs()] == ["superseded", "superseded", "waiting"]
        await world.tick()
        assert await links(world, chain) == [(13, 15, "waived"), (15, 16, "covered")]

    in_world(database_url, story)


def test_waivers_outside_what_can_be_waived_are_refused(database_url: str) -> None:
    """SPEC 5: a reason is required; not in the future, not before the watermark, not while a run is active."""

    async def story(world: World) -> None:
        await covered_to(world, 14)
        for until, reason, words in (
            (utc(14, 1), " ", "is empty"),
            (utc(15), "so", "in the future"),
            (utc(14), "so", "is not after 2026-07-14"),
            (utc(3), "so", "is not after"),
        ):
            with pytest.raises(InvalidInput, match=words):
                await waive(world, until, reason)
        world.clock.set(utc(15))
        await plan_due(world.parts, world.clock.now())
        await dispatch_ready(world.parts, world.clock.now())
        before = await rows(world)
        with pytest.raises(InvalidInput, match="active run") as refused:
            await waive(world, utc(15))
        assert "Wait until it has ended" in refused.value.remedy
        assert "pause acme/sync` keeps another from starting" in refused.value.remedy, "it does not end this one"
        assert await rows(world) == before

    in_world(database_url, story)


def test_a_run_cannot_be_chosen_while_a_waiver_is_written(database_url: str) -> None:
    """SPEC 5: between the look for active runs and the commit no dispatcher takes one."""

    async def story(world: World) -> None:
        chain = await covered_to(world, 14)
        world.clock.set(utc(15))
        await plan_due(world.parts, world.clock.now())
        async with world.pool.acquire() as connection, connection.transaction():
            assert await runs.hold_waiting(connection, chain)
            assert await dispatch_ready(world.parts, world.clock.now()) == 0
        assert await dispatch_ready(world.parts, world.clock.now()) == 1

    in_world(database_url, story)


def test_a_lost_lease_writes_no_coverage_in_front(database_url: str) -> None:
    """SPEC 5, fencing: a backfill whose epoch has moved on changes no chain row."""

    async def story(world: World) -> None:
        await covered_to(world, 14)
        before = await rows(world)
        await backfill(world, utc(1), utc(10))

        await dispatch_ready(world.parts, world.clock.now())
        (run,) = [run for run in await world.runs() if run["state"] == "queued"]
        now = world.clock.now()
        (held,) = await leases.lease(world.pool, [run["id"]], now, now + timedelta(seconds=1), "w")
        await world.pool.execute("update runs set epoch = epoch + 1 where id = $1", run["id"])
        report = FetchReport(None, None)
        async with world.pool.acquire() as connection:
            with pytest.raises(LeaseLost):
                await ending.finish(connection, Finish(held, 1, report, True, now))
        (answer,) = await ending.finish_many(world.pool, [Finish(held, 1, report, True, now)])
        assert isinstance(answer, LeaseLost)
        assert await rows(world) == before

    in_world(database_url, story)


def test_a_backfill_extends_the_head_when_its_last_batch_is_acknowledged(database_url: str) -> None:
    """SPEC 5, webhook: coverage in front waits for the acknowledgement too."""

    async def story(world: World) -> None:
        chain = await covered_to(world, 14)
        (first,) = await world.runs()
        await world.pool.execute(
            """with route as (
                   insert into routes (chain_id, destination_id, whole_periods, last_position)
                   select $1, id, false, 1 from destinations returning id)
               insert into outbox (route_id, position, message_id, chain_id, tenant_id, run_id, batch, part, records, body,
                                   created_at)
               select id, 1, 'm', $1, 'acme', $2, 1, 1, 1, '', now() from route""",
            chain, first["id"],
        )  # fmt: skip
        await backfill(world, utc(1), utc(10))
        await world.tick()
        assert [run["state"] for run in await world.runs() if run["lane"] == "backfill"] == ["delivering"]
        assert await links(world, chain) == [(10, 14, "covered")]
        await world.pool.execute("update outbox set state = 'acknowledged', settled_at = now()")
        assert await Sender(world.parts, on_end=lambda: None).step(world.clock.now()) == 1
        assert await links(world, chain) == [(1, 10, "covered"), (10, 14, "covered")]

    in_world(database_url, story)


def test_a_chain_that_a_backfill_would_break_is_refused_whole(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 5: the database checks what is deferred before the run may end; the run does not succeed either."""
    monkeypatch.setattr(coverage, "_INSERT", coverage._INSERT.replace("$3, $4", "$3 - interval '1 h', $4", 1))

    async def story(world: World) -> None:
        await covered_to(world, 14)
        before = await rows(world)
        await backfill(world, utc(1), utc(10))
        await world.tick()
        assert await rows(world) == before
        assert [run["state"] for run in await world.runs() if run["lane"] == "backfill"] == ["retrying"]

    in_world(database_url, story)


ROUTE = """
with route as (
    insert into routes (chain_id, destination_id, whole_periods, last_position)
    select $1, id, $3, 1 from destinations returning id),
batch as (
    insert into outbox (route_id, position, message_id, chain_id, tenant_id, run_id, batch, part, records, body, created_at)
    select id, 1, 'm', $1, 'acme', $2, 1, 1, 1, '', now() from route)
select id from route"""


def test_a_refusal_at_the_end_of_delivering_counts_as_failing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 5 "Failures": as one at the end of fetching does; the chain's failing begins with it."""
    monkeypatch.setattr(
        sending, "_END", sending._END.replace("f.period_start, f", "f.period_start - interval '1 h', f", 1)
    )

    async def story(world: World) -> None:
        chain = await covered_to(world, 14)
        (first,) = await world.runs()
        await world.pool.execute(ROUTE, chain, first["id"], False)
        world.clock.set(utc(15, 1))
        await world.tick()
        assert (await world.runs())[-1]["state"] == "delivering"
        await world.pool.execute("update outbox set state = 'acknowledged', settled_at = now()")
        assert await Sender(world.parts, on_end=lambda: None).step(world.clock.now()) == 1
        failed = (await world.runs())[-1]
        assert (failed["state"], "coverage_refused" in failed["error"]) == ("failed", True)
        assert await world.pool.fetchval("select failing_since from chains") == utc(15)

    in_world(database_url, story)


def test_of_two_runs_that_wait_for_one_batch_the_older_is_sent_first(database_url: str) -> None:
    """SPEC 5, webhook: one of them found nothing; which of them names the period does not depend on the table's order."""

    async def story(world: World) -> None:
        chain = await covered_to(world, 15)
        older, newer = [run["id"] for run in await world.runs()]
        await world.pool.execute("alter table runs disable trigger watch")
        route = await world.pool.fetchval(ROUTE, chain, older, True)
        for run, lane in ((newer, "backfill"), (older, "live")):
            await world.pool.execute(
                """update runs set state = 'delivering', ends_as = 'succeeded', finished_at = null, waits_for_route = $2,
                                   waits_for_position = 1, lane = $3 where id = $1""",
                run, route, lane,
            )  # fmt: skip
        found = await sending.following(world.pool, LeasedRoute(route, 1, chain, 1, "", True, None))
        assert found is not None
        assert found.period == Period(utc(10), utc(14))

    in_world(database_url, story)


def test_a_backfill_in_front_that_failed_is_tried_again_and_told_of(database_url: str) -> None:
    """SPEC 2.8, 2.10: once at each due date, as a live period would be; SPEC 5: it is worth an alert while it fails."""

    async def story(world: World) -> None:
        chain = await world.install()
        world.clock.set(datetime(2026, 7, 14, tzinfo=UTC))
        await world.tick()
        async with world.pool.acquire() as connection, connection.transaction():
            await chains.move_start(connection, chain, datetime(2026, 4, 1, tzinfo=UTC))
            await installations.extend_to_start(connection, chain, world.clock.now())

        def broken(_number: int) -> Exception | None:
            return ContractBroken("no records") if world.shop.asked[-1].upper is not None else None

        world.shop.on_page = broken
        tried = []
        for day in (14, 15, 16):
            world.clock.set(datetime(2026, 7, day, tzinfo=UTC))
            for _ in range(2):
                await world.tick()
                world.clock.advance(hours=1)
            tried.append(sum(asked.upper == datetime(2026, 5, 1, tzinfo=UTC) for asked in world.shop.asked))
        assert tried == [1, 2, 3]
        await watch(world.parts, world.clock.now())
        (alert,) = await queries.list_alerts(world.parts)
        assert alert.message == (
            "acme/sync orders: the backfill in front of what is covered has been failing since 2026-07-14T00:00:00Z: no records"
        )
        world.shop.on_page = lambda _number: None
        world.clock.set(datetime(2026, 7, 17, tzinfo=UTC))
        await world.tick()
        assert (await world.covered(chain))[0][0] == datetime(2026, 4, 1, tzinfo=UTC)
        await watch(world.parts, world.clock.now())
        assert await queries.list_alerts(world.parts) == []

    in_world(database_url, story)
