"""How a source is asked: who we are, how fast, where, and what never shows."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta

import pytest
import structlog
from aiohttp import web

from tests.connectors.rest.sources import (
    NOW,
    LeapingClock,
    declaration,
    fetched,
    ids,
    opened,
    read,
    replied,
    serve,
)
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.rest.connector import RestConnector
from tidegate.connectors.rest.loader import load
from tidegate.domain.errors import (
    ContractBroken,
    InvalidInput,
    RateLimited,
    SourceError,
    SourceUnavailable,
    Unauthorised,
)
from tidegate.domain.fetch import FetchRequest

PLAIN = "    path: /orders\n"
SECRETS = {"key": "k3y-0123456789", "user": "someone", "password": "pa ss/w&rd"}


@pytest.mark.parametrize(
    ("authentication", "sent"),
    [
        ("{type: none}", (None, None, None)),
        ("{type: bearer, token: '{secrets.key}'}", ("Bearer k3y-0123456789", None, None)),
        ("{type: header, name: X-Key, value: 'Token {secrets.key}'}", (None, "Token k3y-0123456789", None)),
        ("{type: query, name: api_key, value: '{secrets.password}'}", (None, None, "pa ss/w&rd")),
        (
            "{type: basic, username: '{secrets.user}', password: '{secrets.password}'}",
            ("Basic " + base64.b64encode(b"someone:pa ss/w&rd").decode(), None, None),
        ),
    ],
)
def test_each_way_to_sign_in_and_that_it_never_shows(
    authentication: str, sent: tuple[str | None, str | None, str | None]
) -> None:
    async def source(request: web.Request) -> web.Response:
        got = (request.headers.get("Authorization"), request.headers.get("X-Key"), request.query.get("api_key"))
        return web.Response(status=400 if got == sent else 500, text=f"{request.raw_path} {dict(request.headers)}")

    yaml = declaration(PLAIN, f"authentication: {authentication}")
    with structlog.testing.capture_logs() as logs, pytest.raises(ContractBroken) as caught:
        asyncio.run(fetched(source, yaml, secrets=SECRETS))
    shown = f"{caught.value} {caught.value.as_json()} {logs}"
    encoded = base64.b64encode(b"someone:pa ss/w&rd").decode()
    for secret in (*SECRETS.values(), encoded, "pa%20ss%2Fw%26rd", "pa+ss"):
        if secret != "someone":
            assert secret not in shown


LOGIN = declaration(
    PLAIN,
    """authentication:
  type: login
  path: /login
  body: {user: "{secrets.user}", password: "{secrets.password}"}
  token: data.token
  expires_in: data.expires_in
""",
)


class Door:
    """A source with a login: tokens are numbered, and refused once revoked."""

    def __init__(self, life: int | None = None) -> None:
        self.logins = 0
        self.revoked: set[str] = set()
        self.life = life

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/login":
            assert await request.json() == {"user": "someone", "password": "pa ss/w&rd"}
            self.logins += 1
            return replied({"data": {"token": f"token-{self.logins}", "expires_in": self.life}})
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token != f"token-{self.logins}" or token in self.revoked:
            return web.Response(status=401, text=f"{token} is not valid")
        return replied([{"id": self.logins}])


def test_a_login_is_made_once_and_again_when_its_token_is_refused() -> None:
    async def check() -> None:
        door = Door()
        async with opened(door.answer, LOGIN, secrets=SECRETS) as source:
            assert ids(await read(source)) == [1]
            assert ids(await read(source)) == [1]
            door.revoked.add("token-1")
            assert ids(await read(source)) == [2]

    asyncio.run(check())


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"token": "opaque1234567", "user":', SourceUnavailable),
        (b'{"token": "opaque1234567", "user": "a', SourceUnavailable),
        (b'{"token": "opaque1234567", "x": NaN}', ContractBroken),
        (b'{"token": ["opaque1234567"]}', ContractBroken),
        (b"opaque1234567", ContractBroken),
    ],
)
def test_no_error_of_a_login_shows_the_token_it_gave(body: bytes, kind: type[SourceError]) -> None:
    """SPEC 5 "secrets masked": what is not known yet could not be masked, so nothing of such a reply is shown."""

    async def source(request: web.Request) -> web.Response:
        return web.Response(body=body)

    with pytest.raises(kind) as caught:
        asyncio.run(fetched(source, LOGIN, secrets=SECRETS))
    assert "opaque1234567" not in f"{caught.value} {caught.value.as_json()}"


def test_a_login_is_renewed_before_its_token_expires() -> None:
    async def check() -> None:
        clock, door = LeapingClock(), Door(life=3600)
        async with opened(door.answer, LOGIN, secrets=SECRETS, clock=clock) as source:
            await read(source)
            await clock.sleep(3500)
            assert ids(await read(source)) == [1]
            await clock.sleep(80)
            assert ids(await read(source)) == [2]

    asyncio.run(check())


def test_fetches_at_once_share_one_login() -> None:
    async def check() -> None:
        door = Door()
        async with opened(door.answer, LOGIN, secrets=SECRETS) as source:
            await asyncio.gather(*(read(source) for _ in range(5)))
            door.revoked.add("token-1")
            await asyncio.gather(*(read(source) for _ in range(5)))
        assert door.logins == 2

    asyncio.run(check())


def test_credentials_that_stay_refused_are_an_authorisation_failure_and_no_loop() -> None:
    door = Door()
    door.revoked |= {"token-1", "token-2", "token-3"}
    with pytest.raises(Unauthorised) as caught:
        asyncio.run(fetched(door.answer, LOGIN, secrets=SECRETS))
    assert door.logins == 2
    assert "token-2" not in str(caught.value.as_json())


def test_requests_are_paced_after_a_burst() -> None:
    clock = LeapingClock()
    begun = clock.now()

    async def source(request: web.Request) -> web.Response:
        return replied([])

    yaml = declaration(PLAIN, "rate_limit: {requests_per_second: 4, burst: 3}")

    async def check() -> None:
        async with opened(source, yaml, clock=clock) as opened_source:
            for _ in range(7):
                await read(opened_source)

    asyncio.run(check())
    assert clock.slept == [0.25] * 4
    assert clock.now() - begun == timedelta(seconds=1)


def test_declared_statuses_reach_the_fetch() -> None:
    async def source(request: web.Request) -> web.Response:
        return web.Response(status=403, headers={"Retry-After": "9"})

    with pytest.raises(RateLimited) as caught:
        asyncio.run(fetched(source, declaration(PLAIN, "rate_limit_statuses: [403]")))
    assert caught.value.retry_after_seconds == 9


def test_pages_carry_the_sources_clock_and_ours_before_the_request() -> None:
    """SPEC 3 and 4: HTTP Date, and the instant that orders equal versions."""
    clock = LeapingClock()

    async def source(request: web.Request) -> web.Response:
        await clock.sleep(5)
        return replied([], {"Date": "Mon, 13 Jul 2026 15:59:00 GMT"})

    (page,) = asyncio.run(fetched(source, declaration(PLAIN), clock=clock))
    assert page.requested_at == clock.now() - timedelta(seconds=5)
    assert page.source_at == page.requested_at - timedelta(minutes=1)


@pytest.mark.parametrize(
    "body",
    [
        b'{"items": []}',
        b'{"data": null}',
        b'{"data": {"0": {}}}',
        b'{"data": "none"}',
        b'{"error": "quota exceeded for k3y-0123456789"}',
        b"[]",
        b"3",
    ],
)
def test_a_reply_without_the_list_of_records_is_a_broken_contract_not_an_empty_page(body: bytes) -> None:
    """An error that comes with status 200 must never end a listing as if it were complete."""

    async def source(request: web.Request) -> web.Response:
        return web.Response(body=body)

    yaml = declaration(PLAIN + "    records: data", "authentication: {type: bearer, token: '{secrets.key}'}")
    with pytest.raises(ContractBroken) as caught:
        asyncio.run(fetched(source, yaml, secrets=SECRETS))
    assert "k3y-0123456789" not in str(caught.value.as_json())
    assert "response" in caught.value.values


def test_records_are_handed_on_as_the_source_wrote_them() -> None:
    """Numbers beyond 64 bits, precise decimals, escapes, duplicates: nothing is read and written again."""
    records = b'[{"id": 18446744073709551617, "a": 0.10000000000000000001, "b": "\\u00e9\\/", "a": 1e400}, 7, null]'

    async def source(request: web.Request) -> web.Response:
        return web.Response(body=b'{"meta": {"x": [1]}, "data": ' + records + b"}")

    (page,) = asyncio.run(fetched(source, declaration(PLAIN + "    records: data")))
    assert page.records == records


def test_records_of_an_odd_shape_do_not_stop_a_listing() -> None:
    """SPEC 4: one poison record must not stop a tenant; the destination quarantines it."""

    async def source(request: web.Request) -> web.Response:
        start = int(request.query["offset"])
        records = [{"id": 1}, 7, {"id": 2, "at": {"x": 1}}, None, {"id": None}, {"id": 3}, {"no": 1}, {"id": 4}]
        return replied({"data": records[start : start + 3], "total": len(records)})

    yaml = declaration("""
    path: /orders
    records: data
    cursor: {field: at, ascending: true}
    pager: {type: offset, param: offset, total_records: total}
""")
    pages = asyncio.run(fetched(source, yaml))
    assert b'{"id":4}' in pages[-1].records
    assert pages[-1].token is None


def _open(yaml: str, settings: dict[str, object], secrets: dict[str, str] | None = None) -> None:
    async def check() -> None:
        async with open_session() as session:
            RestConnector(load(yaml)).open(ConnectionSettings(settings, secrets or {}), session, LeapingClock())

    asyncio.run(check())


@pytest.mark.parametrize(
    ("settings", "secrets", "field"),
    [
        ({}, {"key": "x"}, "settings.url"),
        ({"url": "https://x", "shop": "y"}, {"key": "x"}, "settings.shop"),
        ({"url": "https://x"}, {}, "secrets.key"),
        ({"url": "https://x"}, {"key": ""}, "secrets.key"),
        ({"url": "https://x"}, {"key": "k\r\nX-Admin: 1"}, "secrets.key"),
        ({"url": "ftp://x"}, {"key": "x"}, "base_url"),
        ({"url": "https://"}, {"key": "x"}, "base_url"),
        ({"url": "https://user:pw@x"}, {"key": "x"}, "base_url"),
        ({"url": "https://x?y=z"}, {"key": "x"}, "base_url"),
        ({"url": "https://[::1"}, {"key": "x"}, "base_url"),
        ({"url": "https://x:99999"}, {"key": "x"}, "base_url"),
        ({"url": "https://x:none"}, {"key": "x"}, "base_url"),
        ({"url": "https://x y/"}, {"key": "x"}, "base_url"),
        ({"url": "https://x/\n"}, {"key": "x"}, "base_url"),
    ],
)
def test_a_connection_that_lacks_something_is_refused_when_opened(
    settings: dict[str, object], secrets: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        _open(declaration(PLAIN, "authentication: {type: bearer, token: '{secrets.key}'}"), settings, secrets)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("top", "field"),
    [
        ("headers: {X-Shop: '{settings.url}'}", "headers.X-Shop"),
        ("headers: {'X Shop': a}", "headers.X Shop"),
        ("headers: {'': a}", "headers."),
        ("authentication: {type: header, name: 'X:Key', value: '{secrets.key}'}", "headers.X:Key"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_when_opened(top: str, field: str) -> None:
    """It would be refused at every request, as a bug of ours that sixty attempts may get over."""
    yaml = declaration("    path: /orders", top).replace("base_url: '{settings.url}'", "base_url: https://x")
    with pytest.raises(InvalidInput) as caught:
        _open(yaml, {"url": "a\r\nX-Admin: 1"}, {"key": "x"})
    assert caught.value.field == field


@pytest.mark.parametrize("shop", ["evil.example/", "x@evil.example", "x#", "x?y", "a b", "..", "x\\y", "x:80", ""])
def test_a_setting_inside_an_address_cannot_lead_elsewhere(shop: str) -> None:
    yaml = "name: x\nbase_url: https://{settings.shop}.example.com\nsettings: {shop: null}\nstreams: {a: {path: /a}}"
    with pytest.raises(InvalidInput) as caught:
        _open(yaml, {"shop": shop})
    assert caught.value.field == "settings.shop"


def test_an_unknown_stream_is_named() -> None:
    async def source(request: web.Request) -> web.Response:
        return replied([])

    async def check() -> None:
        async with opened(source, declaration(PLAIN)) as opened_source:
            await read(opened_source, FetchRequest("oders", None, None, NOW))

    with pytest.raises(InvalidInput, match="Did you mean 'orders'"):
        asyncio.run(check())


def test_connections_of_the_same_settings_share_what_these_fill_in_and_nothing_else() -> None:
    """Two with one address and two keys, and one elsewhere: each asks its own address with its own key, and hides that."""
    yaml = declaration("    path: /orders/{settings.shop}\n", "authentication: {type: bearer, token: '{secrets.key}'}")
    yaml = yaml.replace("settings: {url: null}", "settings: {url: null, shop: null}")
    seen: list[tuple[str, str]] = []

    async def source(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers["Authorization"]))
        return web.Response(status=400, text=request.headers["Authorization"])

    async def story() -> list[str]:
        connector, shown = RestConnector(load(yaml)), []
        async with serve(source) as url, open_session(allow_private_addresses=True) as session:
            for shop, key in (("a", "first-key"), ("a", "second-key"), ("b", "third-key")):
                opened = connector.open(
                    ConnectionSettings({"shop": shop, "url": url}, {"key": key}), session, LeapingClock()
                )
                with pytest.raises(ContractBroken) as caught:
                    await read(opened)
                shown.append(str(caught.value.as_json()))
            with pytest.raises(InvalidInput, match=r"settings\.shop"):
                connector.open(ConnectionSettings({"shop": "../x", "url": url}, {"key": "k"}), session, LeapingClock())
        return shown

    shown = asyncio.run(story())
    assert seen == [
        ("/orders/a", "Bearer first-key"), ("/orders/a", "Bearer second-key"), ("/orders/b", "Bearer third-key"),
    ]  # fmt: skip
    assert not any("-key" in text for text in shown)


class HalfPublic:
    """Shows everybody page after page, one record each, and more to the holder of the key; ``withdrawn`` before that page."""

    def __init__(self, withdrawn: int) -> None:
        self.withdrawn = withdrawn
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        page = int(request.query.get("after", 0))
        self.asked.append(request.path)
        if request.path == "/me/acme":
            return web.Response(status=401) if self.asked.count("/orders") > self.withdrawn else replied({"id": 7})
        return replied({"data": [{"id": page}], "next": page + 1 if page < 3 else None})


HALF_PUBLIC = declaration(
    """
    path: /orders
    records: data
    pager: {type: cursor, param: after, token: next, stable: true}
""",
    "authentication: {type: header, name: X-Key, value: '{secrets.key}', verify: '/me/{settings.who}'}",
).replace("settings: {url: null}", "settings: {url: null, who: acme}")


@pytest.mark.parametrize("withdrawn", [0, 2, 3])
def test_no_page_is_believed_that_a_withdrawn_key_may_have_cut_short(withdrawn: int) -> None:
    """SPEC 5, HOLE w: a source that answers anybody would else be covered to where it only showed what everybody sees."""
    source, pages = HalfPublic(withdrawn), []

    async def listed() -> None:
        async with opened(source.answer, HALF_PUBLIC, secrets=SECRETS) as opened_source:
            async for page in opened_source.fetch(FetchRequest("orders", None, None, NOW)):
                pages.append(page)  # noqa: PERF401 those before the refusal are looked at

    with pytest.raises(Unauthorised, match="/me/acme"):
        asyncio.run(listed())
    assert ids(pages) == list(range(withdrawn))
    assert all(page.token is not None for page in pages)


def test_a_valid_key_is_verified_after_each_page() -> None:
    source = HalfPublic(9)
    assert ids(asyncio.run(fetched(source.answer, HALF_PUBLIC, secrets=SECRETS))) == [0, 1, 2, 3]
    assert source.asked == ["/orders", "/me/acme"] * 4


@pytest.mark.parametrize("path", ["me", "/me?x=1", "''"])
def test_what_verifies_the_key_is_a_path(path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(HALF_PUBLIC.replace("'/me/{settings.who}'", path))
    assert caught.value.field == "authentication.verify"
