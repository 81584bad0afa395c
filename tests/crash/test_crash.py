"""kill -9 in mid-run loses nothing and doubles nothing (SPEC 5, 7; HOLE s). `make prove-crash` does it a thousand times."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.crash.audit import Violation
from tests.crash.harness import ALL, POLL_SECONDS, Form, World, open_world
from tests.crash.kills import Kill, Kind, Outcome, play, play_story
from tests.crash.plan import Trace, at_points, at_random, stories
from tests.crash.points import SIGNAL, Death
from tidegate.engine.settings import Settings

KILLS_PER_FORM = 25
LANES = 3
RECOVERY_SECONDS = 30.0
VITAL = (
    "COMMIT",
    "update runs",
    "with finished",
    "COPY",
    "WITH written",
    'UPDATE "synced".tidegate_commits',
    "CREATE TABLE",
)
"""Statements whose surroundings are killed in CI; all of them are in `make prove-crash`."""


@pytest.mark.parametrize("form", list(Form), ids=lambda form: form.name.lower())
def test_fifty_crashes_lose_nothing_and_double_nothing(
    form: Form, postgres: str, migrated_template: str, traces: dict[Form, tuple[Trace, Trace]], tmp_path: Path
) -> None:
    """SPEC 5: after every crash rows, versions, chain, counts and commits are those of a run that nothing happened to."""
    told = stories(_chosen(form, *traces[form], random.Random(form)))
    outcomes = asyncio.run(_played(postgres, migrated_template, tmp_path, form, told))
    assert sum(outcome.deaths for outcome in outcomes) >= KILLS_PER_FORM
    assert sum(outcome.unasked for outcome in outcomes) == 0, "a process ended by itself"
    assert max(outcome.seconds for outcome in outcomes if outcome.seconds is not None) < RECOVERY_SECONDS


def _chosen(form: Form, first: Trace, later: Trace, chance: random.Random) -> list[Kill]:
    """Return each signal once, some statements that matter, and some random instants, some more than are counted."""
    points = [kill for kill in at_points(form, first, later) if kill.death is not None]
    signals = [
        kill for kill in points if kill.death and kill.death.side == SIGNAL and kill.death.nth == 1 and not kill.fresh
    ]
    vital = [kill for kill in points if kill.death and kill.death.name.startswith(VITAL)]
    return signals + chance.sample(vital, 14) + [at_random(form, chance) for _ in range(8)]


async def _played(server: str, template: str, root: Path, form: Form, told: list[list[Kill]]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    waiting = iter(enumerate(told))

    async def lane(number: int) -> None:
        for story, kills in waiting:
            name = f"crash_{form.name.lower()}_{number}"
            await play_story(server, name, template, root / str(story), kills, outcomes)

    await asyncio.gather(*(lane(number) for number in range(LANES)))
    return outcomes


Story = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def in_world(postgres: str, migrated_template: str, tmp_path: Path) -> Callable[..., None]:
    """Play a story in a world of its own."""

    def run(story: Story, form: Form = Form.SAME, **settings: Any) -> None:
        async def whole() -> None:
            async with open_world(
                postgres, "crash_world", migrated_template, form, tmp_path / "world", **settings
            ) as world:
                await story(world)

        asyncio.run(whole())

    return run


def test_recovery_at_default_settings(in_world: Callable[..., None]) -> None:
    """Issue 1, target 3: kill -9 in mid-run, another worker alive: recovered within 30 s at default settings."""

    async def story(world: World) -> None:
        for _ in range(2):
            world.spawn(ALL)
        world.trade()
        await world.settle()
        await world.ready()
        world.source.hold()
        world.trade()
        holder = await _holder(world)
        world.children[holder].kill()
        world.source.release()
        killed_at = world.children[holder].died_at
        assert killed_at is not None
        survivor = world.children[1 - holder]
        seconds = await world.settle(revive=False) - killed_at
        assert survivor.alive
        await world.check()
        print(f"recovered in {seconds:.1f} s")
        assert 5 < seconds < RECOVERY_SECONDS, "sooner than a lease can expire means that it was not killed in mid-run"

    in_world(story, settings=Settings())


async def _holder(world: World) -> int:
    """Return which process has a run in hand, once one has."""
    deadline = time.monotonic() + 20
    while not (worker := await world.ledger.fetchval("select worker from runs where state = 'running' limit 1")):
        assert time.monotonic() < deadline, "no run was taken"
        await asyncio.sleep(POLL_SECONDS)
    return [child.process.pid for child in world.children].index(int(worker.rsplit(":")[-1]))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("delete from synced.crash_orders where id = 3", "lost or wrong"),
        ("update synced.crash_orders set rev = 1 where id = 3", "written more than once"),
        ("update synced.crash_events set note = note where id = 2", "written more than once"),
        ("update tidegate.runs set unchanged_count = unchanged_count + 1 where id = 1", "ended somewhere"),
        ("update tidegate.runs set read_count = read_count - 1, inserted_count = inserted_count - 1", "records shown"),
        ("update tidegate.runs set inserted_count = inserted_count - 1, unchanged_count = 1", "rows written"),
        ("update tidegate.runs set state = 'queued' where id = 2", "is queued"),
        ("delete from tidegate.coverage where chain_id = 1", "chain 1"),
        ("delete from tidegate.quarantine", "in quarantine"),
    ],
)
def test_the_checks_can_fail(damage: str, found: str, in_world: Callable[..., None]) -> None:
    """Each of the things that must be true is found when it is not."""

    async def story(world: World) -> None:
        world.spawn(ALL)
        world.trade()
        await world.settle()
        await world.check()
        world.children.pop().close()
        await world.rows.execute(damage)
        with pytest.raises(Violation, match=found):
            await world.check()

    in_world(story)


def test_a_batch_that_committed_elsewhere_is_counted_once(in_world: Callable[..., None]) -> None:
    """HOLE s: dead between the two commits; the next attempt enters the batch in the ledger, with its counts."""

    async def story(world: World) -> None:
        for nth in (1, 2, 3):
            kill = Kill(Kind.SIGNAL, Form.OTHER, death=Death(SIGNAL, "batch.written", nth), fresh=nth == 1)
            assert (await play(world, kill)).deaths == 1

    in_world(story, Form.OTHER)
