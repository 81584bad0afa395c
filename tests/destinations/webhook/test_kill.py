"""kill -9 of a real process around the outbox: nothing is lost, and what comes twice comes under its id (SPEC 5, HOLE s)."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.crash.child import KEY
from tests.crash.harness import ALL, Form, World, open_world
from tests.crash.points import BEFORE, SIDES, SIGNAL, Death, Orders
from tests.crash.source import CURSORS
from tests.destinations.webhook.receiver import SECRET, Receiver, receiving
from tidegate.store import directory
from tidegate.store.seal import Sealer, load_key

WEBHOOK_POINTS = ("batch.recorded", "batch.committed", "delivery.answered", "delivery.settled")
FILES_POINTS = ("batch.recorded", "delivery.sending", "delivery.answered")
CHANGING = ("insert into outbox", "insert into delivered", "insert into routes", "update outbox", "update routes")
"""Statements that change what is to be sent; every commit of theirs lies between two of them, or a signal."""
RENEWING = "update routes t set lease_until = $3 from unnest"
"""Comes by the clock, not in every round."""
VITAL = ("insert into outbox", "update outbox")
OTHER_KILLS = 4
COMPLETE = "select count(*) from tidegate.runs where state not in ('succeeded', 'superseded')"


async def configure(world: World, kind: str, settings: dict[str, Any], secrets: dict[str, str]) -> None:
    sealer = Sealer(load_key({"TIDEGATE_KEY": KEY}, world.root))
    await world.ledger.execute(
        "update destinations set kind = $1, settings = $2::text::jsonb, sealed = $3, fingerprint = 'g'",
        kind,
        json.dumps(settings),
        sealer.seal(secrets, directory.destination_place("rows")),
    )


async def play(world: World, points: Iterable[Death]) -> None:
    """Play a round per point, in which the only process dies there and another takes over once its leases have expired."""
    for point in points:
        before = len(world.fallen)
        world.trade()
        if not world.children:
            world.spawn(ALL)
        await world.ready()
        world.children[0].order(Orders(point))
        await world.settle()
        for _ in range(100):
            if len(world.fallen) > before:
                break
            world.revive()
            await asyncio.sleep(0.02)
        assert len(world.fallen) > before, f"nothing died at {point}"
    assert await world.ledger.fetchval(COMPLETE) == 0


async def statements(world: World) -> list[Death]:
    """Play two rounds, and return the deaths around each statement of the second that touches the outbox or its routes."""
    world.trade()
    child = world.spawn(ALL)
    await world.settle()
    await world.ready()
    child.order(Orders(tracing=True))
    world.trade()
    await world.settle()
    await world.until(lambda: child.alive and (SIGNAL, "delivery.settled") in child.trace, "a message is settled")
    passed = dict.fromkeys(name for side, name in child.trace if side == BEFORE and RENEWING not in name)
    return [Death(side, name) for name in passed if any(word in name for word in CHANGING) for side in SIDES]


def versions(stream: str, records: Iterable[dict[str, Any]]) -> list[tuple[str, int, datetime, int]]:
    cursor = CURSORS[stream]
    return [(stream, record["id"], datetime.fromisoformat(record[cursor]), record["rev"]) for record in records]


def test_a_killed_process_repeats_ids_and_loses_nothing(postgres: str, migrated_template: str, tmp_path: Path) -> None:
    """SPEC 5: a receiver that keeps ids has every version once and in order, wherever the process died."""

    async def whole() -> None:
        async with (
            open_world(postgres, "killed_webhook", migrated_template, Form.SAME, tmp_path / "world") as world,
            receiving(lambda: world.now) as receiver,
        ):
            await configure(world, "webhook", {"url": receiver.url}, {"signing_secrets": SECRET})
            await play(world, [Death(SIGNAL, point) for point in WEBHOOK_POINTS])
            check(world, receiver)

    asyncio.run(whole())


def test_a_process_killed_around_a_statement_repeats_ids_and_loses_nothing(
    postgres: str, migrated_template: str, tmp_path: Path
) -> None:
    """SPEC 5, HOLE s: before, during and after what fills the outbox and what settles it, and some of what lies around."""

    async def whole() -> None:
        async with (
            open_world(postgres, "killed_statement", migrated_template, Form.SAME, tmp_path / "world") as world,
            receiving(lambda: world.now) as receiver,
        ):
            await configure(world, "webhook", {"url": receiver.url}, {"signing_secrets": SECRET})
            deaths = await statements(world)
            for words in CHANGING:
                assert any(words in death.name for death in deaths), words
            vital = [death for death in deaths if any(words in death.name for words in VITAL)]
            others = [death for death in deaths if death not in vital]
            await play(world, vital + random.Random(1).sample(others, OTHER_KILLS))
            complete(world, receiver)
            told = await world.ledger.fetchval("select sum(inserted_count + updated_count) from tidegate.runs")
            assert told == len(world.shop.versions), "what the runs tell of entered the outbox with it"

    asyncio.run(whole())


def check(world: World, receiver: Receiver) -> None:
    complete(world, receiver)
    assert len(receiver.received) > len(receiver.taken), "dead between the answer and its settlement: it comes again"


def complete(world: World, receiver: Receiver) -> None:
    """Hold what the receiver has against what the shop has shown."""
    taken = receiver.taken
    got = Counter(
        version for one in taken for version in versions(one.data["stream"], (e["record"] for e in one.data["records"]))
    )
    assert got.keys() == world.shop.versions
    assert set(got.values()) == {1}
    for stream in world.shop.records:
        positions = [one.data["position"] for one in taken if one.data["stream"] == stream]
        assert positions == list(range(1, len(positions) + 1))
    assert {one.body for one in receiver.received} == {one.body for one in taken}


def test_a_killed_process_leaves_whole_files_and_loses_nothing(
    postgres: str, migrated_template: str, tmp_path: Path
) -> None:
    """SPEC 5 "Files": between the rename and the ledger's commit the process dies; the file is there once, and whole."""
    root = tmp_path / "files"

    async def whole() -> None:
        async with open_world(postgres, "killed_files", migrated_template, Form.SAME, tmp_path / "world") as world:
            await configure(world, "files", {"root": str(root)}, {})
            await play(world, [Death(SIGNAL, point) for point in FILES_POINTS])
            got: Counter[Any] = Counter()
            for path in root.rglob("*.jsonl"):
                lines = [json.loads(line)["record"] for line in path.read_text().splitlines()]
                got.update(versions(path.parent.name, lines))
            assert got.keys() == world.shop.versions
            assert set(got.values()) == {1}
            assert list(root.rglob("*.draft")) == []

    asyncio.run(whole())
