"""A run that is resumed under another declaration lists from the beginning: its page token is a place in another listing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import aiohttp
import pytest
from aiohttp import web

from tests.connectors.rest.sources import NOW, LeapingClock, Record, asked, declaration, replied, serve
from tests.connectors.whole_path import on_whole_path, rows, with_declaration
from tests.engine.world import World
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.rest.connector import RestConnector, RestSource
from tidegate.connectors.rest.loader import load
from tidegate.domain.fetch import FetchRequest

START = datetime.fromisoformat("2026-07-13T00:00:00+00:00")
EVERY_HOUR = {"every": "1h", "start_at": "2026-07-13T00:00:00Z"}


def stable(size: int = 2, more: str = "") -> str:
    return declaration(f"""
    path: /orders
    records: data
    page_size: {{param: limit, value: {size}}}
    pager: {{type: page, param: page, has_more: more, stable: true}}
    {more}
""")


def keyset(cursor: str) -> str:
    return declaration(f"""
    path: /orders
    records: data
    cursor: {{field: {cursor}, precision_seconds: 1, ascending: true}}
    lower: {{param: since, meaning: inclusive}}
    page_size: {{param: limit, value: 2}}
    params: {{sort: {cursor}}}
    pager: {{type: keyset, within: {{type: page, param: page, has_more: more}}}}
""")


def at(minute: int) -> str:
    return (START + timedelta(minutes=minute)).isoformat()


ORDERS: list[Record] = [{"id": n, "created_at": at(n), "updated_at": at(23 - n)} for n in range(1, 21)]
"""Edited in the reverse of the order in which they were created."""


class Orders:
    """Lists the orders by number of page, and fails at one request."""

    def __init__(self, failing: int) -> None:
        self.failing = failing
        self.requests: list[Mapping[str, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        query = request.query
        self.requests.append(dict(query))
        if len(self.requests) == self.failing:
            return web.Response(status=503)
        sort, since = query.get("sort", "created_at"), query.get("since", "")
        page, limit = int(query.get("page", "1")), int(query["limit"])
        shown = sorted(
            (order for order in ORDERS if datetime.fromisoformat(str(order[sort])) >= datetime.fromisoformat(since or at(0))),
            key=lambda order: str(order[sort]),
        )  # fmt: skip
        return replied({"data": shown[(page - 1) * limit : page * limit], "more": page * limit < len(shown)})


@pytest.mark.parametrize(
    ("first", "corrected"),
    [(stable(2), stable(5)), (keyset("created_at"), keyset("updated_at"))],
    ids=["page size", "cursor field"],
)
def test_a_declaration_corrected_while_a_run_is_unfinished_skips_no_record(
    database_url: str, first: str, corrected: str
) -> None:
    """SPEC 5, HOLE s: what a checkpoint says holds for the listing that made it, and the ledger says covered."""

    async def story(world: World) -> None:
        orders = Orders(failing=4)
        async with serve(orders.answer) as url:
            await with_declaration(world, first.replace("{settings.url}", url).replace("url: null", ""))
            chain = await world.install(rule=EVERY_HOUR)
            world.clock.advance(hours=1)
            await world.tick()
            (run,) = await world.runs(chain)
            assert (run["state"], run["read_count"]) == ("retrying", 6)
            await with_declaration(world, corrected.replace("{settings.url}", url).replace("url: null", ""))
            world.clock.advance(minutes=5)
            await world.tick()
        assert await rows(world, "select id from synced.hostile_orders order by id") == [(n,) for n in range(1, 21)]
        assert len(await world.covered(chain)) == 1
        (run,) = await world.runs(chain)
        assert (run["state"], run["inserted_count"]) == ("succeeded", 20)

    on_whole_path(database_url, story, batch_bytes=1)


def source_of(yaml: str, settings: Mapping[str, object] | None = None, **secrets: str) -> RestSource:
    connection = ConnectionSettings(settings or {"host": "one.example"}, secrets)
    session: aiohttp.ClientSession = None  # type: ignore[assignment]
    return RestConnector(load(yaml)).open(connection, session, LeapingClock())


PLAIN = """
name: hostile
base_url: 'https://{settings.host}'
settings: {host: null, shop: one}
rate_limit: {requests_per_second: 5}
authentication: {type: bearer, token: '{secrets.key}'}
headers: {Version: '1'}
streams:
  orders:
    path: /orders
    records: data
    key: [id]
    cursor: {field: at}
    lower: {param: since, meaning: inclusive}
    history_seconds: 86400
    columns: {at: timestamp}
    params: {sort: at}
    filters: {status: open}
    pager: {type: cursor, param: after, token: next}
  items:
    path: /orders/{parent.id}/items
    parent: {stream: orders}
  contacts:
    path: /contacts
    records: data
    pager: {type: page, param: page}
    changes: {param: since, token: sync, expired_statuses: [409, 410, 422], expired_codes: [a, b, c, d]}
  products:
    graphql:
      connection: products
      query: |
        query ($after: String) { products(first: 10, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } } }
"""


@pytest.mark.parametrize(
    ("stream", "was", "becomes"),
    [
        ("orders", "path: /orders\n", "path: /v2/orders\n"),
        ("orders", "records: data\n    key", "records: rows\n    key"),
        ("orders", "key: [id]", "key: [number]"),
        ("orders", "field: at", "field: created"),
        ("orders", "inclusive", "exclusive"),
        ("orders", "history_seconds: 86400", "history_seconds: 43200"),
        ("orders", "sort: at", "sort: id"),
        ("orders", "status: open", "status: all"),
        ("orders", "param: after", "param: from"),
        ("orders", "Version: '1'", "Version: '2'"),
        ("orders", "https://{settings.host}", "https://{settings.host}/api"),
        ("items", "path: /orders/{parent.id}/items", "path: /orders/{parent.id}/lines"),
        ("items", "sort: at", "sort: id"),
        ("contacts", "token: sync", "token: since"),
        ("contacts", "pager: {type: page, param: page}", "pager: {type: page, param: page, first: 0}"),
        ("products", "first: 10", "first: 20"),
    ],
)
def test_whatever_defines_a_listing_gives_it_another_name(stream: str, was: str, becomes: str) -> None:
    assert PLAIN.count(was) == 1
    request = FetchRequest(stream, None, None, NOW)
    changed = PLAIN.replace(was, becomes)
    assert source_of(PLAIN, key="k").listing(request) != source_of(changed, key="k").listing(request)


def test_settings_and_bounds_give_a_listing_another_name() -> None:
    request = asked(START)
    name = source_of(PLAIN, key="k").listing(request)
    for settings in ({"host": "two.example"}, {"host": "one.example", "shop": "two"}):
        assert source_of(PLAIN, settings, key="k").listing(request) != name
    source = source_of(PLAIN, key="k")
    others = [asked(), asked(START, NOW), replace(request, changes_since="t"), asked(START - timedelta(seconds=1))]
    assert len({name, *map(source.listing, others)}) == 5


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("requests_per_second: 5", "requests_per_second: 6"), ("columns: {at: timestamp}", "columns: {at: text}")],
)
def test_what_does_not_define_it_leaves_a_listing_its_name(was: str, becomes: str) -> None:
    request = asked(START)
    name = source_of(PLAIN, key="k").listing(request)
    assert source_of(PLAIN.replace(was, becomes), key="another").listing(request) == name
    later = replace(request, stop_after=NOW + timedelta(days=1), resume={"pager": "cursor"})
    assert source_of(PLAIN, key="k").listing(later) == name


def test_a_listing_has_the_same_name_in_every_process() -> None:
    """Sets of texts are in another order in each."""
    code = (
        "from tests.connectors.rest.test_another_declaration import *\n"
        "print(source_of(PLAIN, key='k').listing(FetchRequest('contacts', None, None, NOW)))"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": str(seed), "PATH": ""}, check=True, stdout=subprocess.PIPE
        ).stdout
        for seed in range(1, 4)
    }  # fmt: skip
    assert len(names) == 1
