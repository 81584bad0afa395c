"""Children through the real engine into PostgreSQL: kills, retries, deletions, and what is never lost (SPEC 4, 5)."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest

from tests.connectors.children.counter import ASKED, BOTH, NESTED, Counter, declaration, serving
from tests.connectors.graphql.server import Till
from tests.connectors.graphql.server import serving as serving_graphql
from tests.connectors.whole_path import on_whole_path, rows, with_declaration
from tests.engine.world import World
from tidegate.cli.runs import counts_of
from tidegate.engine.dispatcher import dispatch_ready
from tidegate.engine.planner import plan_due
from tidegate.engine.sweeper import sweep
from tidegate.store import reports

EVERY_HOUR = {"every": "1h", "start_at": "2026-07-13T00:00:00Z"}
CHILDREN = "select order_id, id from synced.counter_items order by 1, 2"


def stock(world: World, counter: Counter, orders: int = 5, items: int = 3) -> list[tuple[int, int]]:
    for number in range(1, orders + 1):
        counter.put(number, world.clock.now() - timedelta(minutes=orders - number), *range(1, items + 1))
    return [(number, item) for number in range(1, orders + 1) for item in range(1, items + 1)]


def test_a_worker_killed_among_children_is_followed_by_one_that_goes_on_there(database_url: str) -> None:
    """SPEC 5, HOLE s: after the lease has expired another worker resumes with the parent and page in hand."""

    async def story(world: World) -> None:
        counter = Counter()
        async with serving(counter) as url:
            await with_declaration(world, declaration(url, ASKED))
            chain = await world.install(rule=EVERY_HOUR, stream="items")
            expected = stock(world, counter)
            world.clock.advance(hours=1)
            await plan_due(world.parts, world.clock.now())
            await dispatch_ready(world.parts, world.clock.now())

            def stop_at_four(path: str) -> None:
                if path == "/orders/4/items":
                    counter.gate = asyncio.Event()

            counter.meddle = stop_at_four
            killed = asyncio.create_task(world.work())
            await counter.waiting.wait() if counter.gate else None
            while counter.asked.count("/orders/4/items") < 2:  # its second page is held back
                await asyncio.sleep(0)
            killed.cancel()
            await asyncio.gather(killed, return_exceptions=True)
            assert [run["state"] for run in await world.runs(chain)] == ["running"]
            before = list(counter.asked)

            assert counter.gate is not None
            counter.gate.set()
            counter.gate, counter.meddle = None, lambda _path: None
            world.clock.advance(minutes=1)
            await sweep(world.parts, world.clock.now())
            await world.tick()
            (run,) = await world.runs(chain)
            assert (run["state"], run["epoch"]) == ("succeeded", 2)
            assert await rows(world, CHILDREN) == expected
            assert "/orders/1/items" not in counter.asked[len(before) :], "what was delivered is not asked for again"

    on_whole_path(database_url, story, batch_bytes=1, pages_ahead=1)


@pytest.mark.parametrize("way", [NESTED, ASKED, BOTH], ids=["nested", "asked", "both"])
def test_failures_among_children_are_tried_again_from_the_checkpoint(database_url: str, way: str) -> None:
    """SPEC 4: whichever request fails, the run goes on and each child is delivered."""

    async def story(world: World) -> None:
        counter, chance = Counter(shown=1), random.Random(3)

        def fail_one_in_five(_path: str) -> int | None:
            return 503 if chance.random() < 0.2 else None

        async with serving(counter) as url:
            await with_declaration(world, declaration(url, way.replace("has_more: lines.more, fields", "fields")))
            chain = await world.install(rule=EVERY_HOUR, stream="items")
            expected = stock(world, counter, items=1 if way is NESTED else 3)
            counter.meddle = fail_one_in_five
            world.clock.advance(hours=1)
            for _ in range(30):
                await world.tick()
                if (await world.runs(chain))[-1]["state"] == "succeeded":
                    break
                world.clock.advance(minutes=5)
            assert await rows(world, CHILDREN) == expected
            assert len(await world.covered(chain)) == 1

    on_whole_path(database_url, story, batch_bytes=1)


@pytest.mark.parametrize("way", [NESTED, ASKED, BOTH], ids=["nested", "asked", "both"])
def test_children_are_fetched_only_once_the_sources_clock_has_passed_the_periods_end(
    way: str, database_url: str
) -> None:
    """SPEC 3: the source's clock is that of the parents' page, for by its answer it is decided whose children there are."""

    async def story(world: World) -> None:
        counter = Counter()
        async with serving(counter) as url:
            await with_declaration(world, declaration(url, way.replace("has_more: lines.more, fields", "fields")))
            chain = await world.install(rule=EVERY_HOUR, stream="items")
            expected = stock(world, counter, items=1)
            world.clock.advance(hours=1)
            counter.clock = lambda path: world.clock.now() - timedelta(minutes=40 if path == "/orders" else 0)
            await world.tick()
            assert [run["state"] for run in await world.runs(chain)] == ["retrying"]
            assert await world.covered(chain) == []
            world.clock.advance(minutes=41)
            await world.tick()
            assert await rows(world, CHILDREN) == expected
            assert len(await world.covered(chain)) == 1

    on_whole_path(database_url, story, batch_bytes=1)


def test_a_deleted_parent_is_told_in_the_runs_report(database_url: str) -> None:
    """SPEC 5: what was passed over is counted, once, though the run was tried again in between."""

    async def story(world: World) -> None:
        counter = Counter()
        failed = False

        def delete_two_and_fail_once(path: str) -> int | None:
            nonlocal failed
            if path == "/orders/1/items":
                counter.orders.pop(1, None)
                counter.orders.pop(2, None)
            if path == "/orders/4/items" and not failed:
                failed = True
                return 503
            return None

        async with serving(counter) as url:
            await with_declaration(world, declaration(url, ASKED))
            chain = await world.install(rule=EVERY_HOUR, stream="items")
            stock(world, counter)
            counter.meddle = delete_two_and_fail_once
            world.clock.advance(hours=1)
            await world.tick()
            world.clock.advance(minutes=10)
            await world.tick()
            (run,) = await world.runs(chain)
            assert run["state"] == "succeeded"
            (shown,) = await reports.runs_by_id(world.pool, [run["id"]])
            assert shown.remarks == {"parents gone before their children were asked for": 2}
            assert counts_of(shown).endswith("2 parents gone before their children were asked for")

    on_whole_path(database_url, story)


def test_children_removed_from_their_parent_stay_and_can_be_told_apart(database_url: str) -> None:
    """docs/reference/connectors.md: a removed child's row carries an older version of its parent than the parent's row."""

    async def story(world: World) -> None:
        counter = Counter()
        async with serving(counter) as url:
            await with_declaration(world, declaration(url, NESTED))
            await world.install("acme", rule=EVERY_HOUR, stream="items")
            await world.install("acme", rule=EVERY_HOUR, stream="orders")
            counter.put(1, world.clock.now(), 1, 2, 3)
            counter.put(2, world.clock.now(), 1)
            world.clock.advance(hours=1)
            await world.tick()
            counter.put(1, world.clock.now(), 1, 3)
            counter.put(2, world.clock.now())
            world.clock.advance(hours=1)
            await world.tick()
            assert await rows(world, CHILDREN) == [(1, 1), (1, 2), (1, 3), (2, 1)]
            current = """
                select i.order_id, i.id from synced.counter_items i
                  join synced.counter_orders o on (o.tenant_id, o.account_id, o.id) = (i.tenant_id, i.account_id, i.order_id)
                                              and o.updated_at = i.order_updated_at
                 order by 1, 2"""
            assert await rows(world, current) == [(1, 1), (1, 3)]

    on_whole_path(database_url, story)


def test_children_through_graphql_come_by_a_query_per_parent_and_a_parent_that_is_null_is_gone(
    database_url: str,
) -> None:
    """SPEC 4: the same declaration form, a variable in the place of the path; null where the parent stood is a deletion."""
    yaml = """
name: till
base_url: {url}
streams:
  orders:
    graphql:
      connection: orders
      query: |
        query ($after: String, $since: DateTime) {{
          orders(first: 50, after: $after, since: $since) {{
            nodes {{ id updatedAt }} pageInfo {{ hasNextPage endCursor }}
          }}
        }}
    cursor: {{field: updatedAt, ascending: true}}
    lower: {{param: since, meaning: inclusive}}
  items:
    parent: {{stream: orders, prefix: order_}}
    graphql:
      connection: order.items
      query: |
        query ($order: Int!, $after: String) {{
          order(id: $order) {{
            items(first: 50, after: $after) {{ nodes {{ id name }} pageInfo {{ hasNextPage endCursor }} }}
          }}
        }}
    params: {{order: "{{parent.id}}"}}
"""

    async def story(world: World) -> None:
        till = Till()
        async with serving_graphql(till) as url:
            await with_declaration(world, yaml.format(url=url))
            chain = await world.install(rule=EVERY_HOUR, stream="items")
            for number in (1, 2, 3):
                till.orders[number] = world.clock.now() + timedelta(minutes=number)
                till.items[number] = [10, 20, 30]
            till.forgets = 2
            world.clock.advance(hours=1)
            await world.tick()
            found = await rows(world, "select order_id, id, name from synced.till_items order by 1, 2")
            assert found == [(number, item, f"item {item}") for number in (1, 3) for item in (10, 20, 30)]
            (run,) = await world.runs(chain)
            assert run["state"] == "succeeded"

    on_whole_path(database_url, story)


@pytest.mark.parametrize("seed", range(5))
def test_no_child_is_lost_while_its_parents_change_between_any_two_requests(database_url: str, seed: int) -> None:
    """SPEC 4: the promise for children; edits, new orders and deletions between requests, failures, resumes."""

    async def story(world: World) -> None:
        chance = random.Random(seed)
        counter = Counter(shown=chance.choice([1, 3]))

        def live(_path: str) -> int | None:
            world.clock.advance(seconds=chance.choice([0, 0, 1, 30]))
            for _ in range(chance.choice([0, 0, 1, 2])):
                number = chance.randint(1, 12)
                counter.put(number, world.clock.now(), *chance.sample(range(1, 9), chance.randint(0, 5)))
            if counter.orders and chance.random() < 0.1:
                del counter.orders[chance.choice(list(counter.orders))]
            return 503 if chance.random() < 0.1 else None

        async with serving(counter) as url:
            await with_declaration(world, declaration(url, chance.choice([ASKED, BOTH])))
            chain = await world.install(rule=EVERY_HOUR, stream="items")
            stock(world, counter)
            counter.meddle = live
            for _ in range(6):
                world.clock.advance(hours=1)
                for _ in range(20):
                    await world.tick()
                    world.clock.advance(minutes=2)
            counter.meddle = lambda _path: None
            world.clock.advance(hours=2)
            await world.tick()
            shown = "select order_id, id, label from synced.counter_items order by 1, 2"
            there = {(order, item): label for order, item, label in await rows(world, shown)}
            for number, order in counter.orders.items():
                for item in order.items:
                    assert there.get((number, item)) == f"{number}/{item} {order.updated_at:%d %H:%M:%S}"
            assert len(await world.covered(chain)) >= 4

    on_whole_path(database_url, story, batch_bytes=1)
