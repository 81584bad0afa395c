"""What ended long ago goes; the ledger, what explains a gap and what is held by others stay (SPEC 5, 7)."""

from __future__ import annotations

from datetime import timedelta

from tests.engine.world import World, in_world
from tidegate.domain.errors import ContractBroken
from tidegate.engine.retention import prune, would_go
from tidegate.store import chains, database, retention

LONG = timedelta(days=200)


async def a_week(world: World) -> int:
    """Sync seven days of one installation and return its chain's id."""
    chain_id = await world.install()
    for day in range(7):
        world.shop.put(day, world.clock.now())
        world.clock.advance(days=1)
        await world.tick()
    return chain_id


def test_old_runs_go_and_the_ledger_keeps_every_row_with_its_count_and_number(database_url: str) -> None:
    """SPEC 5: the ledger never loses a row; the newest run of a chain stays, so that `status` can tell of it."""

    async def story(world: World) -> None:
        chain_id = await a_week(world)
        before = await chains.links(world.pool, chain_id)
        assert [link.records for link in before] == [1] * 7
        now = world.clock.now()
        would, *_ = await would_go(world.parts, now + LONG)
        assert (would.what, would.count) == ("runs", 6)
        assert len(await world.runs(chain_id)) == 7, "a dry run deletes nothing"
        runs, *_, commits = await prune(world.parts, now + LONG)
        assert (runs.count, commits.count) == (6, 0)
        assert [run["id"] for run in await world.runs(chain_id)] == [before[-1].run_id]
        assert await chains.links(world.pool, chain_id) == before
        world.clock.advance(days=1)
        await world.tick()
        assert len(await world.covered(chain_id)) == 8, "the chain goes on where it was"

    in_world(database_url, story)


def test_a_kind_is_kept_as_long_as_the_setting_says(database_url: str) -> None:
    """The default is 90 days for runs; None keeps them for ever."""

    async def story(world: World) -> None:
        chain_id = await a_week(world)
        now = world.clock.now()
        assert (await prune(world.parts, now + timedelta(days=83)))[0].count == 0
        world.with_settings(keep={"runs": None})
        assert (await prune(world.parts, now + LONG))[0].count == 0
        world.with_settings(keep={"runs": timedelta(days=3)})
        assert (await prune(world.parts, now))[0].count == 3
        assert len(await world.runs(chain_id)) == 4

    in_world(database_url, story)


def test_a_failed_run_that_explains_a_gap_stays(database_url: str) -> None:
    """SPEC 5: one query names every due but uncovered stretch and its reason; pruning must not take the reason away."""

    async def story(world: World) -> None:
        chain_id = await a_week(world)
        world.shop.on_page = lambda _number: ContractBroken("It answers with recipes.")
        for _ in range(3):
            world.clock.advance(days=1)
            await world.tick()
        failed = [run["id"] for run in await world.runs(chain_id) if run["state"] == "failed"]
        assert len(failed) == 3
        (last,) = [run["id"] for run in (await world.runs(chain_id))[6:7]]
        (before,) = await chains.uncovered(world.pool, world.clock.now())
        await prune(world.parts, world.clock.now() + LONG)
        assert [run["id"] for run in await world.runs(chain_id)] == [last, *failed], (
            "the next period begins at the last"
        )
        assert await chains.uncovered(world.pool, world.clock.now()) == [before]

    in_world(database_url, story)


def test_a_run_with_a_record_in_quarantine_stays(database_url: str) -> None:
    """SPEC 4: a record in quarantine says which run set it aside."""

    async def story(world: World) -> None:
        chain_id = await a_week(world)
        first = (await world.runs(chain_id))[0]["id"]
        await world.pool.execute(
            """insert into quarantine (tenant_id, chain_id, run_id, reason, record, quarantined_at)
               values ('acme', $1, $2, 'poison', '{}', now())""",
            chain_id,
            first,
        )
        assert (await prune(world.parts, world.clock.now() + LONG))[0].count == 5
        assert (await world.runs(chain_id))[0]["id"] == first

    in_world(database_url, story)


def test_a_prune_passes_over_rows_that_others_hold(database_url: str) -> None:
    """No prune waits for, or holds up, whoever works on a row."""

    async def story(world: World) -> None:
        chain_id = await a_week(world)
        held = (await world.runs(chain_id))[0]["id"]
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute("select 1 from runs where id = $1 for update", held)
            assert (await prune(world.parts, world.clock.now() + LONG))[0].count == 5
        assert (await prune(world.parts, world.clock.now() + LONG))[0].count == 1

    in_world(database_url, story)


def test_one_process_prunes_at_a_time(database_url: str) -> None:
    """To the others nothing is old."""

    async def story(world: World) -> None:
        async with database.alone(world.pool, database.PRUNE_LOCK) as alone:
            assert alone
            assert await prune(world.parts, world.clock.now() + LONG) == []
        assert len(await prune(world.parts, world.clock.now())) == len(retention.AGEINGS) + 1

    in_world(database_url, story)


def test_alerts_go_when_they_were_resolved_long_ago(database_url: str) -> None:
    """Open ones stay, however old; an index finds those that go, not a look at every alert."""

    async def story(world: World) -> None:
        await world.pool.execute(
            """insert into alerts (kind, severity, subject, message, remedy, raised_at, resolved_at)
               select 'failing', 'warning', n::text, 'm', 'r', $1::timestamptz - interval '1 year',
                      case when n > 1 then $1 - n * interval '1 day' end from generate_series(1, 100) n""",
            world.clock.now(),
        )
        alerts = [one for one in await prune(world.parts, world.clock.now()) if one.what == "alerts"]
        assert [(one.keep, one.count) for one in alerts] == [(timedelta(days=90), 10)]
        world.with_settings(keep={"alerts": None})
        await prune(world.parts, world.clock.now() + LONG)
        assert await world.pool.fetchval("select count(*) from alerts") == 90
        world.with_settings(keep={"alerts": timedelta(0)})
        await prune(world.parts, world.clock.now() + LONG)
        assert await world.pool.fetchval("select array_agg(subject) from alerts") == ["1"]
        async with world.pool.acquire() as connection:
            await connection.execute("set enable_seqscan = off")
            plan = await connection.fetch(f"explain {retention.ALERTS._some}".replace("$1", "now()").replace("$2", "1"))
            assert "alerts_resolved" in " ".join(row[0] for row in plan)
            await connection.execute("reset enable_seqscan")

    in_world(database_url, story)
