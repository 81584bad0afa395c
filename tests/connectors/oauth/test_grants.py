"""OAuth 2 grants against the real oidc-provider: rotation, reuse detection, refusals, and what never shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import structlog
from aiohttp import web

from tests.connectors.oauth.conftest import SECRET, AuthorisationServer
from tests.connectors.rest.sources import LeapingClock, ids, read, serve
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.rest.connector import RestConnector, RestSource
from tidegate.connectors.rest.loader import load
from tidegate.connectors.tokens import MemoryVault
from tidegate.domain.errors import ContractBroken, RateLimited, SourceUnavailable, TidegateError, Unauthorised

DECLARATION = """
name: hostile
base_url: "{settings.url}"
settings: {url: null, token_url: null}
authentication:
  type: oauth2
  token_url: "{settings.token_url}"
  client_id: "{secrets.client_id}"
  client_secret: "{secrets.client_secret}"
"""
STREAMS = "streams: {orders: {path: /orders, records: orders}}\n"
REFRESHING = DECLARATION + '  grant: refresh_token\n  refresh_token: "{secrets.refresh_token}"\n' + STREAMS
BY_CREDENTIALS = DECLARATION + (
    "  grant: client_credentials\n  scope: orders.read\n  params: {resource: 'https://orders.example'}\n"
)
BY_BASIC = BY_CREDENTIALS + STREAMS
BY_POST = BY_CREDENTIALS + "  client_authentication: client_secret_post\n" + STREAMS


@asynccontextmanager
async def opened(
    server: AuthorisationServer,
    yaml: str,
    *,
    refresh_token: str = "",
    client: str = "by:basic",
    vault: MemoryVault | None = None,
    clock: LeapingClock | None = None,
    token_url: str = "",
    secret: str = SECRET,
) -> AsyncIterator[RestSource]:
    secrets = {"client_id": client, "client_secret": secret, "refresh_token": refresh_token or "none-needed"}
    settings = {"url": server.url, "token_url": token_url or f"{server.url}/token"}
    async with open_session(allow_private_addresses=True) as session:
        connection = ConnectionSettings(settings, secrets, vault or MemoryVault())
        yield RestConnector(load(yaml)).open(connection, session, clock or LeapingClock())


def failing(work: Callable[[], Awaitable[object]]) -> TidegateError:
    async def run() -> TidegateError:
        with pytest.raises(TidegateError) as caught:
            await work()
        return caught.value

    return asyncio.run(run())


@pytest.mark.parametrize(("yaml", "client", "basic"), [(BY_BASIC, "by:basic", True), (BY_POST, "by:post", False)])
def test_client_credentials_are_asked_for_once_and_again_before_the_token_expires(
    server: AuthorisationServer, yaml: str, client: str, basic: bool
) -> None:
    """RFC 6749, 4.4 and 2.3.1; a secret with reserved characters; a token of 600 s is renewed after 540 s."""

    async def check() -> None:
        clock = LeapingClock()
        async with opened(server, yaml, client=client, clock=clock) as source:
            assert ids(await read(source)) == [1, 2, 3]
            await clock.sleep(539)
            await asyncio.gather(read(source), read(source), read(source))
            assert server.statuses == [200]
            await clock.sleep(2)
            await asyncio.gather(read(source), read(source), read(source))
        assert server.statuses == [200, 200]
        assert {(entry["grant_type"], entry["basic"]) for entry in server.log} == {("client_credentials", basic)}
        assert "scope=orders.read" in str(server.log[0]["form"])
        assert "resource=https%3A%2F%2Forders.example" in str(server.log[0]["form"])

    asyncio.run(check())


def test_each_refresh_uses_the_token_that_the_last_one_was_answered_with(server: AuthorisationServer) -> None:
    """Rotation with reuse detection: showing an old refresh token would revoke them all (RFC 9700, 4.14.2)."""

    async def check() -> None:
        clock, vault = LeapingClock(), MemoryVault()
        first = server.authorise()
        for _ in range(3):  # a source each time: what is in the vault is all that lasts
            async with opened(server, REFRESHING, refresh_token=first, vault=vault, clock=clock) as source:
                assert ids(await read(source)) == [1, 2, 3]
            await clock.sleep(3600)
        assert server.statuses == [200, 200, 200]
        shown = [str(entry["form"]) for entry in server.log]
        assert len(set(shown)) == 3
        assert first in shown[0]

    asyncio.run(check())


def test_a_token_refused_by_the_source_is_renewed_once(server: AuthorisationServer) -> None:
    async def check() -> None:
        async with opened(server, REFRESHING, refresh_token=server.authorise()) as source:
            await read(source)
            server.do("expire")
            assert ids(await read(source)) == [1, 2, 3]
        assert server.statuses == [200, 200]

    asyncio.run(check())


def test_tokens_that_stay_refused_are_an_authorisation_failure_and_no_loop(server: AuthorisationServer) -> None:
    async def refusing(request: web.Request) -> web.Response:
        return web.Response(status=401, text=f"no: {request.headers['Authorization']}")

    async def check() -> None:
        async with serve(refusing) as url, open_session(allow_private_addresses=True) as session:
            secrets = {"client_id": "by:basic", "client_secret": SECRET, "refresh_token": server.authorise()}
            vault = MemoryVault()
            connection = ConnectionSettings({"url": url, "token_url": f"{server.url}/token"}, secrets, vault)
            await read(RestConnector(load(REFRESHING)).open(connection, session, LeapingClock()))

    error = failing(check)
    assert isinstance(error, Unauthorised)
    assert server.statuses == [200, 200]
    assert "***" in str(error.as_json())


def test_a_403_of_the_source_is_no_reason_to_renew(server: AuthorisationServer) -> None:
    """RFC 6750, 3.1: the token is good and its scope is not; another one would be refused as well."""

    async def refusing(request: web.Request) -> web.Response:
        return web.Response(status=403)

    async def check() -> None:
        async with serve(refusing) as url, open_session(allow_private_addresses=True) as session:
            secrets = {"client_id": "by:basic", "client_secret": SECRET}
            connection = ConnectionSettings({"url": url, "token_url": f"{server.url}/token"}, secrets)
            await read(RestConnector(load(BY_BASIC)).open(connection, session, LeapingClock()))

    assert isinstance(failing(check), Unauthorised)
    assert server.statuses == [200]


def test_a_withdrawn_authorisation_is_said_at_once_with_the_remedy_and_without_a_secret(
    server: AuthorisationServer,
) -> None:
    """SPEC 5: an authorisation failure; `invalid_grant` is not tried again."""
    refresh_token = server.authorise()
    vault, clock = MemoryVault(), LeapingClock()

    async def check() -> None:
        async with opened(server, REFRESHING, refresh_token=refresh_token, vault=vault, clock=clock) as source:
            await read(source)
            server.do("withdraw")
            await read(source)

    with structlog.testing.capture_logs() as logs:
        error = failing(check)
    assert isinstance(error, Unauthorised)
    assert not error.retryable
    assert "invalid_grant" in error.message
    assert "authorise the connection anew" in error.remedy
    held = asyncio.run(vault.read())
    for secret in (refresh_token, SECRET, held["access"], held["refresh"]):
        assert secret not in f"{error} {error.as_json()} {logs} {vault!r}"
    assert server.statuses == [200, 400, 400], "the present token, then the one before it, and no more"


def test_wrong_client_credentials_are_an_authorisation_failure(server: AuthorisationServer) -> None:
    async def check() -> None:
        async with opened(server, BY_BASIC, secret="another-0123456789") as source:
            await read(source)

    error = failing(check)
    assert isinstance(error, Unauthorised)
    assert "Check the client id and secret" in error.remedy
    assert "another-0123456789" not in str(error.as_json())


def test_a_request_that_the_server_finds_wrong_is_a_mistake_in_the_declaration(server: AuthorisationServer) -> None:
    async def check() -> None:
        async with opened(server, BY_BASIC.replace("https://orders.example", "no address")) as source:
            await read(source)

    error = failing(check)
    assert isinstance(error, ContractBroken)
    assert "invalid_target" in str(error.values["response"])


@pytest.mark.parametrize(
    ("fault", "kind", "wait"),
    [
        ("answer?status=503", SourceUnavailable, None),
        ("answer?status=500&retry_after=7", SourceUnavailable, 7),
        ("answer?status=429&retry_after=9", RateLimited, 9),
    ],
)
def test_a_token_endpoint_out_of_order_is_tried_again_and_costs_no_token(
    server: AuthorisationServer, fault: str, kind: type[TidegateError], wait: float | None
) -> None:
    async def check() -> None:
        async with opened(server, REFRESHING, refresh_token=server.authorise()) as source:
            server.do(fault)
            with pytest.raises(kind) as caught:
                await read(source)
            assert caught.value.retryable
            assert caught.value.values["retry_after_seconds"] == wait
            assert ids(await read(source)) == [1, 2, 3]

    asyncio.run(check())


def test_a_lost_answer_is_survived_where_the_server_takes_the_old_token_once_more(server: AuthorisationServer) -> None:
    async def check() -> None:
        server.do("grace?times=1")
        server.do("lose?times=1")
        async with opened(server, REFRESHING, refresh_token=server.authorise()) as source:
            with pytest.raises(SourceUnavailable):
                await read(source)
            assert ids(await read(source)) == [1, 2, 3]

    asyncio.run(check())


def test_a_lost_answer_ends_the_authorisation_where_the_server_detects_reuse(server: AuthorisationServer) -> None:
    """No client can know the token that never arrived; what it can do is say so at once and not go on asking."""

    async def check() -> None:
        server.do("lose?times=1")
        async with opened(server, REFRESHING, refresh_token=server.authorise()) as source:
            with pytest.raises(SourceUnavailable):
                await read(source)
            await read(source)

    assert isinstance(failing(check), Unauthorised)
    assert server.statuses == [200, 400]


def test_the_refresh_token_before_is_tried_where_the_present_one_is_not_known(server: AuthorisationServer) -> None:
    """A server that restores a backup, or fails before it has written: the old token is kept until the new one is proven."""

    async def check() -> None:
        server.do("grace?times=1")
        first, vault, clock = server.authorise(), MemoryVault(), LeapingClock()
        async with opened(server, REFRESHING, refresh_token=first, vault=vault, clock=clock) as source:
            await read(source)
        held = await vault.read()
        assert held["previous"] == first
        forgotten = MemoryVault({**held, "refresh": "never-heard-of-0123456789"})
        await clock.sleep(3600)
        async with opened(server, REFRESHING, refresh_token=first, vault=forgotten, clock=clock) as source:
            assert ids(await read(source)) == [1, 2, 3]
        assert server.statuses == [200, 400, 200]

    asyncio.run(check())


def test_a_new_authorisation_takes_the_place_of_the_tokens_kept(server: AuthorisationServer) -> None:
    """Applying a new refresh token heals the connection; applying the old one again loses nothing that was rotated."""

    async def check() -> None:
        vault, clock = MemoryVault(), LeapingClock()
        first, second = server.authorise(), server.authorise()
        for token in (first, second, second):
            async with opened(server, REFRESHING, refresh_token=token, vault=vault, clock=clock) as source:
                assert ids(await read(source)) == [1, 2, 3]
        assert [first in str(entry["form"]) for entry in server.log] == [True, False]
        assert second in str(server.log[1]["form"])

    asyncio.run(check())


@pytest.mark.parametrize(
    ("status", "reply", "kind"),
    [
        (200, '{"token": "0123456789"}', ContractBroken),
        (200, '{"access_token": "0123456789", "token_type": "mac"}', ContractBroken),
        (200, '{"access_token": "0123456789\\r\\nX-Admin: 1"}', ContractBroken),
        (200, '{"access_token": "0123456789", "refresh', SourceUnavailable),
        (200, "<html>0123456789</html>", SourceUnavailable),
        (503, '{"error": "invalid_grant"}', SourceUnavailable),
        (400, '{"error": "temporarily_unavailable"}', SourceUnavailable),
        (400, '{"error": "invalid_grant", "error_description": "0123456789-secret-refresh is unknown"}', Unauthorised),
    ],
)
def test_an_answer_that_is_no_token_shows_nothing_secret(status: int, reply: str, kind: type[TidegateError]) -> None:
    """RFC 6749, 5.2; a server out of order is not believed when it speaks of the grant."""

    async def odd(request: web.Request) -> web.Response:
        return web.Response(status=status, text=reply)

    async def check() -> None:
        async with serve(odd) as url, open_session(allow_private_addresses=True) as session:
            secrets = {"client_id": "by:basic", "client_secret": SECRET, "refresh_token": "0123456789-secret-refresh"}
            connection = ConnectionSettings({"url": url, "token_url": f"{url}/token"}, secrets)
            await read(RestConnector(load(REFRESHING)).open(connection, session, LeapingClock()))

    error = failing(check)
    assert isinstance(error, kind)
    assert "0123456789" not in f"{error} {error.as_json()}"
