"""Declared GraphQL streams against a real server (Strawberry), polite and hostile (SPEC 4, 5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiohttp import web

from tests.connectors.graphql.server import Hostility, Till, serving
from tests.connectors.rest.sources import LeapingClock, asked, fetched, ids, read, replied, serve
from tests.connectors.whole_path import on_whole_path, rows, with_declaration
from tests.engine.world import World
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.rest.connector import RestConnector, RestSource
from tidegate.connectors.rest.loader import load
from tidegate.domain.errors import ContractBroken, RateLimited, SourceError, SourceUnavailable, Unauthorised

DECLARATION = """
name: till
base_url: {url}
graphql: {{rate_limit_codes: [SLOW_DOWN], retryable_codes: [TRY_AGAIN]}}
streams:
  orders:
    graphql:
      connection: orders
      query: |
        query Orders($first: Int!, $after: String, $since: DateTime) {{
          orders(first: $first, after: $after, since: $since) {{
            {shape}
            pageInfo {{ hasNextPage endCursor }}
          }}
        }}
    page_size: {{param: first, value: 50}}
    cursor: {{field: updatedAt, precision_seconds: 1, ascending: true}}
    lookback_seconds: 60
    lower: {{param: since, meaning: inclusive}}
"""
EDGES = "edges { cursor node { id updatedAt total } }"
NODES = "nodes { id updatedAt total }"


def a_till(count: int = 7) -> Till:
    return Till(orders={number: datetime(2026, 7, 1, number, tzinfo=UTC) for number in range(1, count + 1)})


@asynccontextmanager
async def opened(till: Till, shape: str = EDGES) -> AsyncIterator[RestSource]:
    async with serving(till) as url, open_session(allow_private_addresses=True) as session:
        connector = RestConnector(load(DECLARATION.format(url=url, shape=shape)))
        yield connector.open(ConnectionSettings(), session, LeapingClock())


async def listed(till: Till, shape: str = EDGES, lower: datetime | None = None) -> list[object]:
    async with opened(till, shape) as source:
        return ids(await read(source, asked(lower)))


@pytest.mark.parametrize("shape", [EDGES, NODES], ids=["edges", "nodes"])
def test_a_connection_is_read_to_its_end_in_either_shape(shape: str) -> None:
    """SPEC 4: pages follow endCursor until hasNextPage is false; records come as the server wrote them."""
    till = a_till()
    assert asyncio.run(listed(till, shape)) == [1, 2, 3, 4, 5, 6, 7]
    assert [variables.get("after") is not None for variables in till.asked] == [False, True, True, True]


def test_the_lower_bound_is_a_variable_rounded_down() -> None:
    """HOLE j: a bound goes through the same rounding as a REST parameter; without one the variable is not sent."""
    till = a_till()
    lower = datetime(2026, 7, 1, 4, 0, 0, 900_000, tzinfo=UTC)
    assert asyncio.run(listed(till, lower=lower)) == [4, 5, 6, 7]
    assert {variables["since"] for variables in till.asked} == {"2026-07-01T04:00:00Z"}
    assert asyncio.run(listed(a_till())) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("form", "kind"),
    [("epoch_seconds", int), ("epoch_milliseconds", int), ("iso", str), ('epoch_seconds, value: ">{instant}"', str)],
)
def test_a_bound_that_counts_is_a_number_among_the_variables(form: str, kind: type) -> None:
    """A GraphQL server refuses text where it wants an Int; a REST address has no such types."""
    yaml = DECLARATION.format(url="'{settings.url}'\nsettings: {url: null}", shape=NODES)
    yaml = yaml.replace("{param: since, meaning: inclusive}", f"{{param: since, meaning: inclusive, format: {form}}}")
    sent: list[object] = []

    async def answer(request: web.Request) -> web.Response:
        sent.append((await request.json())["variables"]["since"])
        page = {"hasNextPage": False, "endCursor": None}
        return replied({"data": {"orders": {"nodes": [], "pageInfo": page}}})

    asyncio.run(fetched(answer, yaml, asked(datetime(2026, 7, 1, tzinfo=UTC))))
    assert [type(value) for value in sent] == [kind]


def test_an_empty_page_in_the_middle_is_not_the_end() -> None:
    """SPEC 4: an empty page ends a listing only if the source says so."""
    till = a_till()
    till.hostility = Hostility.EMPTY_MIDDLE
    assert asyncio.run(listed(till)) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("hostility", "message"),
    [
        (Hostility.REPEATED_CURSOR, "same page token twice"),
        (Hostility.NULL_CURSOR, "gives no token at data.orders.pageInfo.endCursor"),
        (Hostility.PARTIAL, "the till of order 2 is stuck"),
    ],
)
def test_a_server_that_breaks_its_own_paging_or_answers_in_part_is_an_error(hostility: Hostility, message: str) -> None:
    """SPEC 4, 5: a repeated endCursor, hasNextPage without one, and partial data beside errors are never a quiet end."""
    till = a_till()
    till.hostility = hostility
    with pytest.raises(ContractBroken, match=message):
        asyncio.run(listed(till))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("SLOW_DOWN", RateLimited),
        ("THROTTLED", RateLimited),
        ("TRY_AGAIN", SourceUnavailable),
        ("INTERNAL_SERVER_ERROR", SourceUnavailable),
        ("UNAUTHENTICATED", Unauthorised),
        ("BAD_USER_INPUT", ContractBroken),
        ("", ContractBroken),
    ],
)
def test_errors_with_status_200_are_errors_of_their_code(code: str, error: type[SourceError]) -> None:
    """SPEC 5 "Failures": the code says whether to try again, to ask for fewer, or to stop and show the reply."""
    till = a_till()
    till.hostility, till.code = Hostility.CODED, code
    with pytest.raises(error, match="not today"):
        asyncio.run(listed(till))


SIGNED = """
name: hostile
base_url: '{settings.url}'
settings: {url: null, token_url: none}
authentication: {type: AUTHENTICATION}
graphql: {unauthorised_codes: [SIGNED_OUT]}
streams:
  orders:
    graphql:
      connection: orders
      query: "query ($after: String) { orders(after: $after) { nodes { id } pageInfo { hasNextPage endCursor } } }"
"""
LOGIN = "login, path: /token, body: {key: '{secrets.key}'}, token: access_token"
OAUTH = "oauth2, grant: client_credentials, token_url: '{settings.token_url}', client_id: me, client_secret: '{secrets.key}'"


@pytest.mark.parametrize(
    ("authentication", "code", "tokens"),
    [
        (LOGIN, "UNAUTHENTICATED", 2),
        (LOGIN, "FORBIDDEN", 2),
        (OAUTH, "UNAUTHENTICATED", 2),
        (OAUTH, "SIGNED_OUT", 2),
        (OAUTH, "FORBIDDEN", 1),
    ],
)
@pytest.mark.parametrize("stays", [False, True])
def test_a_token_refused_with_status_200_is_renewed_once(
    authentication: str, code: str, tokens: int, stays: bool
) -> None:
    """SPEC 5: a token that has expired in the middle of a listing pauses nobody; one whose scope is too narrow does."""
    given: list[str] = []

    async def source(request: web.Request) -> web.Response:
        if request.path == "/token":
            given.append(f"token-{len(given)}")
            return replied({"access_token": given[-1]})
        last = (await request.json())["variables"].get("after") == "a"
        if last and (stays or request.headers["Authorization"] == "Bearer token-0"):
            said = f"no more {request.headers['Authorization']}"
            return replied({"errors": [{"message": said, "extensions": {"code": code}}]})
        listed = {"nodes": [{"id": 2 if last else 1}], "pageInfo": {"hasNextPage": not last, "endCursor": "a"}}
        return replied({"data": {"orders": listed}})

    async def work() -> list[object]:
        connector = RestConnector(load(SIGNED.replace("AUTHENTICATION", authentication)))
        async with serve(source) as url, open_session(allow_private_addresses=True) as session:
            settings = ConnectionSettings({"url": url, "token_url": f"{url}/token"}, {"key": "sesame"})
            return ids(await read(connector.open(settings, session, LeapingClock())))

    if stays or tokens == 1:
        with pytest.raises(Unauthorised, match=code) as caught:
            asyncio.run(work())
        assert "token-" not in str(caught.value.as_json())
    else:
        assert asyncio.run(work()) == [1, 2]
    assert len(given) == tokens


def test_a_code_in_the_errors_type_counts_too_and_an_unknown_form_is_shown() -> None:
    """Some servers write the code beside the message; errors that are no objects are shown as they are."""
    yaml = DECLARATION.format(url="'{settings.url}'\nsettings: {url: null}", shape=NODES)

    async def typed(request: web.Request) -> web.Response:
        said = {"errors": [{"type": "RATE_LIMITED", "message": "later"}]}
        return replied(said, {"Retry-After": "7"})

    async def odd(request: web.Request) -> web.Response:
        return replied({"data": None, "errors": "nope"})

    with pytest.raises(RateLimited, match="later") as limited:
        asyncio.run(fetched(typed, yaml))
    assert limited.value.retry_after_seconds == 7
    with pytest.raises(ContractBroken) as refused:
        asyncio.run(fetched(odd, yaml))
    assert '"errors":"nope"' in str(refused.value.values["response"])


def test_a_forgotten_page_token_begins_the_listing_again_once() -> None:
    """A checkpoint may outlive the server's cursors; GraphQL says so in `errors`, with status 200."""
    forgotten = {"pager": "cursor", "at": {"token": "bm90IGEgcGxhY2U="}, "page": 5, "anchor": {"token": "x"}}

    async def check() -> None:
        async with opened(a_till()) as source:
            assert ids(await read(source, asked(resume=forgotten))) == [1, 2, 3, 4, 5, 6, 7]

    asyncio.run(check())


def test_the_whole_path_delivers_and_covers_and_then_reads_only_what_changed(database_url: str) -> None:
    """SPEC 4, 5: a failure that passes by itself is tried again; the second period reads from the watermark on."""

    async def story(world: World) -> None:
        till = a_till()
        async with serving(till) as url:
            await with_declaration(world, DECLARATION.format(url=url, shape=EDGES))
            chain = await world.install()
            world.clock.advance(days=1)
            till.hostility, till.code = Hostility.CODED, "TRY_AGAIN"
            await world.tick()
            assert [run["state"] for run in await world.runs(chain)] == ["retrying"]
            till.hostility = Hostility.NOTHING
            world.clock.advance(hours=1)
            await world.tick()
            assert [run["state"] for run in await world.runs(chain)] == ["succeeded"]
            found = await rows(world, "select id, total from synced.till_orders order by id")
            assert found == [(number, f"{number}.00") for number in range(1, 8)]

            till.orders[3] = world.clock.now()
            world.clock.advance(days=1)
            await world.tick()
            assert len(await world.covered(chain)) == 2
            last = (await world.runs(chain))[-1]
            assert (last["read_count"], last["updated_count"]) == (1, 1)

    on_whole_path(database_url, story)
