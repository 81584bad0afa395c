"""Planning and dispatching cost what is due, not what exists (`python -m benchmarks.fleet` measures a million)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.test_loops import until
from tests.engine.world import World, in_world
from tests.simulated import SimulatedClock
from tidegate.domain.schedule import Schedule, latest_due
from tidegate.engine import planner
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.engine import Engine, Role
from tidegate.engine.planner import plan_due
from tidegate.store import chains, database, queue, runs, schedules, waiting
from tidegate.store.runs import PlannedRun
from tidegate.store.schedules import Move

if TYPE_CHECKING:
    from tidegate.store.database import Connection

MANY = 20_000
COPIES = """
with made as (
    insert into installations (tenant_id, name, connection_id, destination_id)
    select i.tenant_id, 'i' || g, i.connection_id, i.destination_id from installations i, generate_series(1, $1) g
    returning id
),
linked as (
    insert into chains (tenant_id, installation_id, workflow, stream, account_id, start_at)
    select c.tenant_id, made.id, c.workflow, c.stream, c.account_id, c.start_at from chains c, made returning id
)
insert into schedules (chain_id, rule, received_at, planned_until, next_due_at)
select linked.id, s.rule, s.received_at, s.planned_until, s.next_due_at from schedules s, linked
"""


async def pages_touched(world: World, statement: str) -> int:
    """Return how many pages the server looks at for a statement under the plan that it keeps for any instant."""
    async with world.pool.acquire() as connection, connection.transaction():
        await connection.execute("set local plan_cache_mode = force_generic_plan")
        await connection.execute(f"prepare asked (timestamptz) as {statement}")
        plan = await connection.fetchval("explain (analyze, buffers, format json) execute asked ('2026-07-13T16:00Z')")
        await connection.execute("deallocate asked")
    root = json.loads(plan)[0]["Plan"]
    return int(root["Shared Hit Blocks"] + root["Shared Read Blocks"])


def test_an_idle_tick_looks_at_a_few_pages_however_many_schedules_there_are(database_url: str) -> None:
    """SPEC 7: the same code at every scale."""

    async def story(world: World) -> None:
        await world.install()
        await world.pool.execute(COPIES, MANY)
        await world.pool.execute("vacuum analyze schedules")
        assert await world.pool.fetchval("select count(*) from schedules") == MANY + 1
        assert await world.pool.fetchval("select pg_relation_size('schedules') / 8192") > 200
        assert await pages_touched(world, schedules.LOOK_AT) < 10
        assert await pages_touched(world, "select exists (select from schedules where next_due_at <= $1)") > 200
        assert await plan_due(world.parts, world.clock.now()) == 0

    in_world(database_url, story)


def test_schedules_that_are_held_cost_neither_an_idle_tick_nor_the_planning_of_others(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 2.8: under `each` thousands may have due dates that are held back until their coverage moves on."""

    async def story(world: World) -> None:
        await world.install()
        await world.pool.execute(COPIES, MANY)
        await world.pool.execute(
            "update schedules set next_due_at = '2026-07-13', held_until = '2026-08-01' where chain_id > 1"
        )
        await world.pool.execute("vacuum analyze schedules")
        assert await pages_touched(world, schedules.LOOK_AT) < 10
        world.clock.advance(days=1)
        read = await reading(world, monkeypatch, schedules, "due")
        assert await plan_due(world.parts, world.clock.now()) == 1
        (rows,) = read
        assert sum(rows["schedules"]) < 100
        await world.pool.execute("update schedules set held_until = '2026-07-14' where chain_id > 19000")
        assert await plan_due(world.parts, world.clock.now()) == MANY + 1 - 19_000

    in_world(database_url, story)


def test_batches_side_by_side_plan_every_due_schedule_once(database_url: str) -> None:
    """Each batch takes what no other holds; none is planned twice, none is left."""

    async def story(world: World) -> None:
        await world.install()
        await world.pool.execute(COPIES, 54)
        world.with_settings(plan_batch=10)
        world.clock.advance(days=1)
        assert await plan_due(world.parts, world.clock.now()) == 55
        made = await world.runs()
        assert len({run["chain_id"] for run in made}) == len(made) == 55
        left = "select count(*) from schedules where next_due_at <= $1"
        assert await world.pool.fetchval(left, world.clock.now() + timedelta(hours=1)) == 0
        assert await plan_due(world.parts, world.clock.now()) == 0

    in_world(database_url, story)


EVERY_5_MINUTES = {
    "cron": "*/5 * * * *", "start_at": "2026-07-13T16:00:00Z", "catch_up": "each", "time_zone": "Europe/London",
}  # fmt: skip


def test_no_transaction_plans_more_runs_than_a_batch(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 2.8: after an outage each schedule is a row of runs; a transaction of all of them would outlast a lease, be
    ended by another process's sweeper, and so never come to pass."""

    async def story(world: World) -> None:
        await world.install(rule=EVERY_5_MINUTES)
        await world.pool.execute(COPIES, 29)
        world.with_settings(plan_batch=20, plan_ahead=12)
        planned: list[int] = []
        original = runs.plan

        async def noting(connection: Connection, of: Sequence[PlannedRun]) -> None:
            planned.append(len(of))
            await original(connection, of)

        monkeypatch.setattr(runs, "plan", noting)
        world.clock.advance(days=2)
        assert await plan_due(world.parts, world.clock.now()) == 30
        assert sum(planned) == len(await world.runs()) == 30 * 12
        assert max(planned) < 20 + 12
        assert await plan_due(world.parts, world.clock.now()) == 0

    in_world(database_url, story)


def test_the_first_batch_is_small_so_that_workers_begin_at_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 3: at a midnight of many nobody has anything to do before the first of them are planned."""

    async def story(world: World) -> None:
        await world.install()
        await world.pool.execute(COPIES, 199)
        world.with_settings(plan_batch=80)
        planned: list[int] = []
        original = runs.plan

        async def noting(connection: Connection, of: Sequence[PlannedRun]) -> None:
            planned.append(len(of))
            await original(connection, of)

        monkeypatch.setattr(runs, "plan", noting)
        world.clock.advance(days=1)
        assert await plan_due(world.parts, world.clock.now()) == 200
        assert planned[0] == 10
        assert planned.count(10) >= 2, "the first of each of the two that plan side by side"
        assert max(planned) > 20, "and the others are not"

    in_world(database_url, story)


def test_what_is_planned_is_dispatched_while_the_rest_is_planned(database_url: str) -> None:
    """SPEC 3: the first of a hundred thousand due at one midnight do not wait for the last to be planned."""

    async def story(world: World) -> None:
        await world.install(limit=1000)
        await world.pool.execute(COPIES, 34)
        world.with_settings(plan_batch=10)
        world.clock.advance(days=1)
        engine, woken = Engine(world.parts, frozenset({Role.PLANNER})), 0

        def batch() -> None:
            nonlocal woken
            woken += 1

        engine._dispatch_anew = batch  # type: ignore[method-assign]
        assert await engine._plan(world.clock.now()) == 35
        assert woken >= 4

    in_world(database_url, story)


async def rows_read(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return, by table, how many rows this transaction has read one after the other, and through indexes."""
    rows = await connection.fetch(
        "select relname, seq_tup_read, coalesce(idx_tup_fetch, 0) as by_index from pg_stat_xact_user_tables"
    )
    return {row["relname"]: (row["seq_tup_read"], row["by_index"]) for row in rows}


async def reading(world: World, patch: pytest.MonkeyPatch, module: Any, name: str) -> list[dict[str, tuple[int, int]]]:
    """Return a list that grows by what a transaction has read when it calls a function of the store, its last one."""
    noted: list[dict[str, tuple[int, int]]] = []
    original = getattr(module, name)

    async def noting(connection: Connection, *arguments: Any) -> Any:
        answer = await original(connection, *arguments)
        noted.append(await rows_read(connection))
        return answer

    patch.setattr(module, name, noting)
    await world.pool.expire_connections()  # a new one has no counts of earlier transactions
    return noted


def test_planning_reads_what_is_due_whatever_the_server_believes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twentieth of the fleet is due, and as many as make a server prefer to read whole tables; it reads none."""

    async def story(world: World) -> None:
        await world.install()
        await world.pool.execute(COPIES, MANY)
        await world.pool.execute(
            "update schedules set next_due_at = next_due_at + interval '30 days' where chain_id % 20 <> 0"
        )
        await world.pool.execute("vacuum analyze schedules, chains")
        due = await world.pool.fetchval("select count(*) from schedules where next_due_at < '2026-07-15'")
        world.clock.advance(days=1)
        read = await reading(world, monkeypatch, schedules, "advance")
        assert await plan_due(world.parts, world.clock.now()) == due == MANY // 20
        assert sum(rows[table][0] for rows in read for table in ("schedules", "chains", "runs")) == 0
        by_index = sum(rows[table][1] for rows in read for table in ("schedules", "chains"))
        assert by_index < 20 * due, (
            "each of two planners passes over what the other holds; both tables whole would be 40"
        )

    in_world(database_url, story)


async def believe_nothing_waits(world: World) -> None:
    """Let the server have looked at the runs of a quiet hour: all but a few have succeeded."""
    await world.pool.execute(
        """insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end,
                             not_before_at, finished_at)
           select c.id, c.tenant_id, c.account_id, 'live', 'schedule', 'succeeded', d, d, d, d, d
             from chains c, generate_series($1::timestamptz - interval '9 days', $1, '1 day') d""",
        world.clock.now() - timedelta(days=1),
    )
    await world.pool.execute("vacuum analyze runs")


def test_runs_that_wait_cost_the_planning_of_others_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A midnight's batches each read the runs that the batches before had planned, where the server believed that hardly
    any wait: 6,500 planned a second in place of 30,000 once a fleet had been looked at in a quiet hour.
    """

    async def story(world: World) -> None:
        await world.install()
        await world.pool.execute(COPIES, 2000)
        await believe_nothing_waits(world)
        world.with_settings(plan_batch=20)
        for _ in range(2):  # the second planning merges what waits of the first
            world.clock.advance(days=1)
            with monkeypatch.context() as patch:
                read = await reading(world, patch, schedules, "advance")
                assert await plan_due(world.parts, world.clock.now()) == 2001
            assert len(read) > 100
            assert max(sum(rows["runs"]) for rows in read) < 10 * 2001, "of all batches of a session, one after another"
        waiting_of_each = await world.pool.fetch("select count(*) from runs where state = 'waiting' group by chain_id")
        assert [row[0] for row in waiting_of_each] == [1] * 2001

    in_world(database_url, story)


PAGES = """
select sum(pg_stat_get_xact_blocks_fetched(c.oid))::bigint from pg_class c left join pg_index i on i.indexrelid = c.oid
 where coalesce(i.indrelid, c.oid) = any('{schedules,chains,runs}'::regclass[])
"""
"""How many pages of these tables and their indexes this session has looked at since its counts were last taken."""


def test_planning_looks_at_no_more_pages_each_time_it_is_done(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet that has been planned day after day is planned as fast as a fresh one, though nobody has tidied up."""

    async def story(world: World) -> None:
        await world.install()
        await world.pool.execute(COPIES, 300)
        pages: list[int] = []
        original = schedules.advance

        async def noting(connection: Connection, moves: Sequence[Move]) -> None:
            await original(connection, moves)
            pages.append(await connection.fetchval(PAGES))

        monkeypatch.setattr(schedules, "advance", noting)
        for day in range(40):
            await world.pool.expire_connections()
            world.clock.advance(days=1)
            assert await plan_due(world.parts, world.clock.now()) == 301
            await world.pool.execute("update runs set state = 'dropped', finished_at = due_at where state = 'waiting'")
            if day in (3, 20):
                await world.pool.execute("analyze runs, schedules")
        assert len(pages) == 40
        assert max(pages[30:]) < 1.5 * max(pages[2:6]), pages

    in_world(database_url, story)


def test_what_was_due_is_passed_over_once_though_a_transaction_might_still_see_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup at midnight keeps the index entries of all that is planned; no batch reads those of the batches before."""

    async def story(world: World) -> None:
        await world.install()
        await world.pool.execute(COPIES, 2000)
        await world.pool.execute("vacuum analyze schedules")
        world.with_settings(plan_batch=100)
        world.clock.advance(days=1)
        passed: list[int] = []
        original = schedules.advance

        async def noting(connection: Connection, moves: Sequence[Move]) -> None:
            await original(connection, moves)
            passed.append(
                await connection.fetchval("select pg_stat_get_xact_tuples_returned('schedules_not_held'::regclass)")
            )

        monkeypatch.setattr(schedules, "advance", noting)
        async with world.pool.acquire() as backup, backup.transaction(isolation="repeatable_read"):
            await backup.fetchval("select count(*) from tenants")
            await world.pool.expire_connections()
            assert await plan_due(world.parts, world.clock.now()) == 2001
        assert len(passed) > 20
        assert max(passed) < 2 * 2001

    in_world(database_url, story)


def test_due_dates_of_schedules_that_are_alike_are_computed_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rule, planned up to one instant: one computation; another rule is another one, and each keeps its own spread."""

    async def story(world: World) -> None:
        await world.install()
        await world.pool.execute(COPIES, 41)
        spread = """update schedules set rule = rule || '{"spread": "1h"}' where chain_id % 2 = 0"""
        assert await world.pool.execute(spread) == "UPDATE 21"
        asked: list[Schedule] = []

        def counted(rule: Schedule, after: datetime, until: datetime) -> datetime | None:
            asked.append(rule)
            return latest_due(rule, after, until)

        monkeypatch.setattr(planner, "latest_due", counted)
        world.clock.advance(days=1)
        assert await plan_due(world.parts, world.clock.now()) == 42
        assert len(asked) == 2
        made = await world.runs()
        assert len(made) == 42
        assert len({run["not_before_at"] for run in made}) == 22  # 21 of one instant, 21 of which each has its own

    in_world(database_url, story)


def test_the_planner_is_there_at_the_next_due_date(database_url: str) -> None:
    """SPEC 3: the start lag is not a tick's; the planner sleeps until the due date, however long a tick is."""

    async def story(world: World) -> None:
        await world.install()
        world.with_settings(tick_every=timedelta(days=30))
        assert await ticks_until_planned(world, Engine(world.parts, frozenset({Role.PLANNER}))) == 1

    in_world(database_url, story)


async def ticks_until_planned(world: World, engine: Engine) -> int:
    working = asyncio.create_task(engine.run())
    clock = world.clock
    await until(sleeping(clock, datetime.fromisoformat("2026-07-14T00:00Z")))
    assert await world.runs() == []
    clock.set(datetime.fromisoformat("2026-07-14T00:00Z"))

    async def planned() -> bool:
        return bool(await world.runs())

    await until(planned)
    engine.stop()
    await working
    return len(await world.runs())


def sleeping(clock: SimulatedClock, wake_at: datetime) -> Callable[[], Any]:
    """Return a condition: somebody sleeps until ``wake_at``; those that sleep for less than a second are let go on."""

    async def holds() -> bool:
        if any(at == wake_at for at, _, _ in clock._sleepers):
            return True
        if clock._sleepers and clock._sleepers[0][0] - clock.now() < timedelta(seconds=1):
            clock.set(clock._sleepers[0][0])
        return False

    return holds


def test_a_dispatcher_that_finds_another_at_work_asks_again(database_url: str) -> None:
    """What has become ready behind the other's back does not wait for a tick."""

    async def story(world: World) -> None:
        await world.install()
        world.clock.advance(days=1)
        await plan_due(world.parts, world.clock.now())
        taken: list[bool] = []
        async with world.pool.acquire() as other, other.transaction():
            await database.lock(other, database.DISPATCH_LOCK)
            assert await dispatch_ready(world.parts, world.clock.now(), lambda: taken.append(True)) == 0
        assert taken == [True]
        assert await dispatch_ready(world.parts, world.clock.now(), lambda: taken.append(True)) == 1
        assert taken == [True]

    in_world(database_url, story)


def test_the_engine_dispatches_as_soon_as_the_other_is_done(database_url: str) -> None:
    """A tick is a month long here: only what asks again by itself gets the run queued."""

    async def story(world: World) -> None:
        await world.install()
        world.clock.advance(days=1)
        await plan_due(world.parts, world.clock.now())
        world.with_settings(tick_every=timedelta(days=30))
        engine = Engine(world.parts, frozenset({Role.DISPATCHER}))
        async with world.pool.acquire() as other, other.transaction():
            await database.lock(other, database.DISPATCH_LOCK)
            working = asyncio.create_task(engine.run())
            await until(sleeping(world.clock, world.clock.now() + world.parts.settings.dispatch_pause))
        assert [run["state"] for run in await world.runs()] == ["waiting"]

        async def queued() -> bool:
            world.clock.advance(seconds=0.05)
            return [run["state"] for run in await world.runs()] == ["queued"]

        await until(queued)
        engine.stop()
        await working

    in_world(database_url, story)


def test_a_look_asks_for_limits_of_connections_only_where_there_are_any(database_url: str) -> None:
    """SPEC 3: hardly any connection has a limit of its own; then no run's connection is looked up."""

    async def story(world: World) -> None:
        await world.install()
        await waiting_runs(world, 50)
        await world.pool.execute("update accounts set concurrency_limit = 5")
        read = "select sum(idx_tup_fetch + seq_tup_read) from pg_stat_xact_user_tables where relname = 'installations'"

        async def look() -> int:
            async with world.pool.acquire() as connection:
                transaction = connection.transaction()
                await transaction.start()
                await database.find_by_index(connection, "sort", "incremental_sort")
                before: int = await connection.fetchval(read)
                chosen = await runs.dispatch(connection, world.clock.now(), 10)
                after: int = await connection.fetchval(read)
                await transaction.rollback()
            assert len(chosen) == 5
            return after - before

        assert await look() == 0
        await world.pool.execute("update connections set concurrency_limit = 100")
        assert await look() > 0

    in_world(database_url, story)


def test_a_session_plans_a_look_once(database_url: str) -> None:
    """To plan it takes as long as to do it where little is ready; by default it would be planned five times."""

    async def story(world: World) -> None:
        await world.install()
        world.clock.advance(days=1)
        await plan_due(world.parts, world.clock.now())
        for _ in range(3):
            await dispatch_ready(world.parts, world.clock.now())
        kept = await world.pool.fetch(
            "select generic_plans, custom_plans from pg_prepared_statements where statement = $1", waiting.DISPATCH
        )
        assert [tuple(row) for row in kept] == [(3, 0)]

    in_world(database_url, story)


async def waiting_runs(world: World, count: int) -> None:
    """Make ``count`` more chains with a run that is ready to start."""
    await world.pool.execute(COPIES, count)
    await world.pool.execute("delete from schedules")
    await world.pool.execute(
        """insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end,
                             not_before_at)
           select id, tenant_id, account_id, 'live', 'schedule', 'waiting', d, d, d, d
             from chains, (select $1::timestamptz - interval '1 hour' as d) due""",
        world.clock.now(),
    )


def test_the_dispatcher_reads_no_further_than_it_needs_to(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 3: a hundred thousand ready at one midnight must not make each look cost a hundred thousand."""

    async def story(world: World) -> None:
        await world.install(limit=1000)
        await waiting_runs(world, 5000)
        world.with_settings(queue_depth=10)
        read = await reading(world, monkeypatch, queue, "enqueue")
        assert await dispatch_ready(world.parts, world.clock.now()) == 10
        (rows,) = read
        assert rows["runs"][0] == 0
        assert rows["runs"][1] < 2500

    in_world(database_url, story)


def test_runs_that_are_kept_back_keep_back_no_other_however_many_they_are(database_url: str) -> None:
    """SPEC 3: a held account with thousands of older runs does not fill the dispatcher's view."""

    async def story(world: World) -> None:
        await world.install("held", limit=1000)
        await waiting_runs(world, 3000)
        await world.pool.execute("update accounts set hold_until = $1", world.clock.now() + timedelta(hours=1))
        free = await world.install("free")
        world.clock.advance(minutes=1)
        await world.pool.execute(
            """insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end,
                                 not_before_at)
               select id, tenant_id, account_id, 'live', 'schedule', 'waiting', $2, $2, $2, $2 from chains where id = $1""",
            free, world.clock.now(),
        )  # fmt: skip
        world.with_settings(queue_depth=1)
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        assert await world.pool.fetchval("select chain_id from runs where state = 'queued'") == free

    in_world(database_url, story)


async def leave_queue(world: World, count: int) -> None:
    """Let ``count`` of the queued runs be ended."""
    ended = """update runs set state = 'dropped', finished_at = $2
                where id in (select id from runs where state = 'queued' order by id limit $1)"""
    assert await world.pool.execute(ended, count, world.clock.now()) == f"UPDATE {count}"


def test_runs_that_end_are_followed_by_others_once_half_of_the_queue_is_free(database_url: str) -> None:
    """To rank all that waits for one free place costs what it costs for hundreds. Whatever becomes ready is looked at at
    once, and what only a run's end has made room for after a tick at the latest (SPEC 3).
    """

    async def story(world: World) -> None:
        await world.install(limit=1000)
        await waiting_runs(world, 40)
        world.with_settings(queue_depth=10)
        engine = Engine(world.parts, frozenset({Role.DISPATCHER}))
        assert await engine._dispatch(world.clock.now()) == 10
        await leave_queue(world, 4)
        assert await engine._dispatch(world.clock.now()) == 0
        await leave_queue(world, 1)
        assert await engine._dispatch(world.clock.now()) == 5
        await leave_queue(world, 1)
        engine._dispatch_anew()
        assert await engine._dispatch(world.clock.now()) == 1
        await leave_queue(world, 1)
        assert await engine._dispatch(world.clock.now()) == 0
        world.clock.set(world.clock.now() + world.parts.settings.tick_every)
        assert await engine._dispatch(world.clock.now()) == 1

    in_world(database_url, story)


def test_what_is_planned_is_dispatched_at_once_into_a_queue_with_little_room(database_url: str) -> None:
    """SPEC 3: the start lag. A tick is a month long, and the queue more than half full."""

    async def story(world: World) -> None:
        await world.install(limit=1000)
        await waiting_runs(world, 5)
        world.with_settings(queue_depth=10, tick_every=timedelta(days=30))
        engine = Engine(world.parts, frozenset({Role.PLANNER, Role.DISPATCHER}))
        working = asyncio.create_task(engine.run())

        async def queued(count: int) -> bool:
            world.clock.advance(seconds=0.05)
            found: int = await world.pool.fetchval("select count(*) from runs where state = 'queued'")
            return found == count

        await until(lambda: queued(6))
        await world.install("another", rule={"every": "1m"})
        world.clock.advance(minutes=2)
        assert await engine._plan(world.clock.now()) == 1
        await until(lambda: queued(7))
        engine.stop()
        await working

    in_world(database_url, story)


def test_what_is_not_covered_is_found_without_reading_what_is(database_url: str) -> None:
    """SPEC 5, "one query names every due but uncovered stretch": of a long history it reads the end."""

    async def story(world: World) -> None:
        chain = await world.install()
        await world.pool.execute(
            """with made as (
                   insert into runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end,
                                     not_before_at)
                   select c.id, c.tenant_id, c.account_id, 'live', 'schedule', 'succeeded', d, d, d, d
                     from chains c, generate_series($2::timestamptz - interval '2000 minutes', $2, '1 minute') d
                    where c.id = $1 returning id, period_end)
               insert into coverage (chain_id, period_start, period_end, kind, run_id, committed_at)
               select c.id, c.start_at, $2, 'covered', made.id, $2 from made, chains c where period_end = $2 and c.id = $1""",
            chain, world.clock.now(),
        )  # fmt: skip
        await world.pool.expire_connections()
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute("set local enable_seqscan = off")
            assert await chains.uncovered(connection, world.clock.now()) == []
            assert (await rows_read(connection))["runs"][1] < 10

    in_world(database_url, story)
