"""A schedule per stream: applied, told, edited, paused and resumed as if each stream were alone (SPEC 1, 2.10, 2.11)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.domain.calendar.test_preview_command import run
from tests.engine.test_applying import apply, configuration, everything, fields_of, schedule_rows, text, told, utc
from tests.engine.world import World, in_world
from tidegate.engine.commands import installations
from tidegate.engine.configuring.document import InvalidConfiguration
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due

EACH_HOUR = "{every: 1h, start_at: 2026-07-13T00:00:00Z}"
OWN = "{orders: {schedule: " + EACH_HOUR + "}, events: }"
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


async def due(world: World) -> dict[str, object]:
    return {row["stream"]: row["next_due_at"] for row in await schedule_rows(world)}


def test_a_stream_with_a_schedule_of_its_own_has_its_own_due_dates_and_the_others_the_installations(
    database_url: str,
) -> None:
    async def story(world: World) -> None:
        outcome = await apply(world, text(streams=OWN))
        shown = fields_of(outcome.changes[-1])
        assert shown["streams"] == (None, ["orders", "events"])
        assert shown["schedule.daily"] == (None, True)
        assert shown["streams.orders.schedule.every"] == (None, "1h")
        assert not any(name.startswith("streams.events") for name in shown)
        assert await due(world) == {"orders": utc(13, 17), "events": utc(14)}

        rows = await everything(world)
        world.clock.advance(minutes=10)
        assert (await apply(world, text(streams=OWN))).changes == ()
        assert await everything(world) == rows

        world.clock.set(utc(14, 1))
        await world.tick()
        chains = {row["stream"]: row["chain_id"] for row in await schedule_rows(world)}
        assert await world.covered(chains["orders"]) == [(utc(13), utc(14, 1))]
        assert await world.covered(chains["events"]) == [(utc(1, month=5), utc(14))]

    in_world(database_url, story)


def test_an_edit_concerns_the_streams_whose_schedule_it_changes(database_url: str) -> None:
    """SPEC 2.10: from the list to a mapping and back; each edit is told for its streams, nothing else moves."""

    async def story(world: World) -> None:
        await apply(world, text(streams="[orders, events]"))
        world.clock.set(utc(14, 1))
        await world.tick()
        outcome = await apply(world, text(streams=OWN.replace(", start_at: 2026-07-13T00:00:00Z", "")))
        assert told(outcome) == [("changed", "schedule", "acme/sync")]
        assert outcome.changes[0].streams == ("orders",)
        assert await due(world) == {"orders": utc(14, 2), "events": utc(15)}

        outcome = await apply(
            world,
            text(
                "{daily: true, sync_hour: 6, start_date: 2026-05-01}",
                streams=OWN.replace(", start_at: 2026-07-13T00:00:00Z", ""),
            ),
        )
        assert [change.streams for change in outcome.changes] == [("events",)]
        assert await due(world) == {"orders": utc(14, 2), "events": utc(14, 6)}

        outcome = await apply(
            world, text("{daily: true, sync_hour: 6, start_date: 2026-05-01}", streams="[orders, events]")
        )
        assert [change.streams for change in outcome.changes] == [("orders",)]
        assert await due(world) == {"orders": utc(14, 6), "events": utc(14, 6)}

    in_world(database_url, story)


def test_pausing_pauses_all_and_resuming_catches_each_up_by_its_own_schedule(database_url: str) -> None:
    """SPEC 2.11: one pause, per stream the due dates missed."""

    async def story(world: World) -> None:
        await apply(world, text(streams=OWN))
        await installations.pause(world.parts, "acme", "sync")
        world.clock.set(utc(14, 5, 30))
        await world.tick()
        assert await world.runs() == []
        await installations.resume(world.parts, "acme", "sync")
        await world.tick()
        ends = {
            run["stream"]: run["period_end"]
            for run in await world.pool.fetch("select * from runs r join chains c on c.id = r.chain_id")
        }
        assert ends == {"orders": utc(14, 5), "events": utc(14)}

    in_world(database_url, story)


def test_a_stream_added_later_brings_its_schedule_and_the_difference_shows_it(database_url: str) -> None:
    async def story(world: World) -> None:
        await apply(world, text())
        outcome = await apply(world, text(streams="{orders: , events: {schedule: " + EACH_HOUR + "}}"))
        assert told(outcome) == [("added", "stream", "acme/sync")]
        assert fields_of(outcome.changes[0])["streams.events.schedule.every"] == (None, "1h")
        assert await due(world) == {"orders": utc(14), "events": utc(13, 17)}

    in_world(database_url, story)


MISTAKES = [
    ("{orders: {schedule: {every: 1s}}}", "streams.orders.schedule.every"),
    ("{orders: {shedule: {every: 1h}}}", "streams.orders.shedule"),
    ("{orders: {schedule: }}", "streams.orders.schedule"),
    ("{orders: 7}", "streams.orders"),
    ("{oders: }", "streams"),
    ("{}", "streams"),
]


@pytest.mark.parametrize(("streams", "field"), MISTAKES)
def test_mistakes_are_named_where_they_stand(database_url: str, streams: str, field: str) -> None:
    async def story(world: World) -> None:
        with pytest.raises(InvalidConfiguration) as caught:
            await configuration(world, text(streams=streams))
        assert caught.value.errors[0].field == f"tenants.acme.installations.sync.{field}"
        assert caught.value.errors[0].remedy

    in_world(database_url, story)


def test_a_start_that_cannot_move_is_refused_where_the_streams_own_schedule_stands(database_url: str) -> None:
    async def story(world: World) -> None:
        await apply(world, text(streams=OWN))
        world.clock.set(utc(13, 17))
        await plan_due(world.parts, world.clock.now())
        assert await dispatch_ready(world.parts, world.clock.now()) == 1
        with pytest.raises(InvalidConfiguration, match="first run is active") as caught:
            await apply(world, text(streams=OWN.replace("07-13T", "07-12T")))
        assert caught.value.errors[0].field == "tenants.acme.installations.sync.streams.orders.schedule.start_at"

    in_world(database_url, story)


def test_the_documented_example_is_one(tmp_path: Path) -> None:
    """docs/reference/configuration.md, "A schedule per stream": what it says of each stream is what is shown."""
    (example,) = re.findall(r"```yaml installation\.yaml\n(.*?)```", REFERENCE.read_text(), re.DOTALL)
    file = tmp_path / "installation.yaml"
    file.write_text(example)
    found = {}
    for stream in ("orders", "customers"):
        shown = run(str(file), "--received-at", "2026-07-13T16:07:00Z", "--count", "1", "--json", "--stream", stream)
        found[stream] = json.loads(shown.stdout)[0]["due_at"]
    assert found == {"orders": "2026-07-13T16:15:00Z", "customers": "2026-07-13T23:00:00Z"}
