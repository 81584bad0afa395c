"""What becomes of a reply (SPEC 5, "Failures"), and which addresses are never asked."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.abc import ResolveResult

from tests.connectors.rest.sources import Handler, serve
from tidegate.connectors.http import NO_RULES, Reply, ReplyRules, is_public_address, open_session, read_json, send
from tidegate.domain.errors import (
    ContractBroken,
    RateLimited,
    SourceError,
    SourceUnavailable,
    TidegateError,
    Unauthorised,
)

ANY = msgspec.json.Decoder()


async def _ask(handler: Handler, rules: ReplyRules = NO_RULES) -> Reply:
    async with serve(handler) as url, open_session(allow_private_addresses=True) as session:
        return await send(session, "GET", f"{url}/orders?key=s3cret", rules=rules)


def _answering(status: int, body: str = "", headers: Mapping[str, str] | None = None) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers=headers)

    return handler


def _refused(handler: Handler, rules: ReplyRules = NO_RULES) -> TidegateError:
    with pytest.raises(SourceError) as caught:
        asyncio.run(_ask(handler, rules))
    return caught.value


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, ContractBroken),
        (302, ContractBroken),
        (400, ContractBroken),
        (401, Unauthorised),
        (403, Unauthorised),
        (404, ContractBroken),
        (408, SourceUnavailable),
        (409, ContractBroken),
        (425, SourceUnavailable),
        (429, RateLimited),
        (500, SourceUnavailable),
        (502, SourceUnavailable),
        (503, SourceUnavailable),
        (504, SourceUnavailable),
        (599, SourceUnavailable),
    ],
)
def test_each_status_is_somebodys_fault(status: int, expected: type[SourceError]) -> None:
    assert type(_refused(_answering(status, "no"))) is expected


def test_declared_statuses_mean_what_their_source_means() -> None:
    assert type(_refused(_answering(403), ReplyRules(rate_limited=frozenset({403})))) is RateLimited
    assert type(_refused(_answering(409), ReplyRules(retryable=frozenset({409})))) is SourceUnavailable


def test_a_text_declared_as_a_rate_limit_is_one_whatever_its_status() -> None:
    """Some sources say it only in the body of a 403 or a 400; the wait is the declared one, unless a header says another."""
    rules = ReplyRules(limit_texts=("rate limit",), limit_wait_seconds=60.0)
    for status in (400, 403):
        error = _refused(_answering(status, "you hit a Rate Limit"), rules)
        assert isinstance(error, RateLimited)
        assert error.retry_after_seconds == 60.0
    asked = _refused(_answering(400, "a rate limit", {"Retry-After": "7"}), rules)
    assert isinstance(asked, RateLimited)
    assert asked.retry_after_seconds == 7.0
    assert type(_refused(_answering(403, "not yours"), rules)) is Unauthorised
    assert type(_refused(_answering(500, "rate limit"), rules)) is SourceUnavailable


@pytest.mark.parametrize("body", ["<!doctype html><title>Access denied</title>", "\ufeff\n <html>"])
def test_a_403_with_a_page_for_people_is_a_firewalls_and_passes(body: str) -> None:
    """SPEC 5: it marks no connection; an API's own refusal, or a 401 of any form, does."""
    assert type(_refused(_answering(403, body))) is SourceUnavailable
    assert type(_refused(_answering(401, body))) is Unauthorised


DATE = "Mon, 13 Jul 2026 16:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "Mon, 13 Jul 2026 16:02:00 GMT", "Date": DATE}, 120.0),
        ({"Retry-After": "Mon, 13 Jul 2026 15:00:00 GMT", "Date": DATE}, 0.0),
        ({"Retry-After": "Monday, 13-Jul-26 16:00:30 GMT", "Date": DATE}, 30.0),
        ({"Retry-After": "soon", "Date": DATE}, None),
        ({"Retry-After": "-3", "Date": DATE}, None),
        ({"Retry-After": "²", "Date": DATE}, None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date_by_the_sources_own_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    """HOLE k: the source's clock is not ours, so a date is counted from the reply's Date."""
    for status, kind in ((429, RateLimited), (503, SourceUnavailable)):
        error = _refused(_answering(status, headers=headers))
        assert isinstance(error, kind)
        assert error.retry_after_seconds == seconds


def test_the_replys_date_is_the_sources_clock() -> None:
    reply = asyncio.run(_ask(_answering(200, "{}", {"Date": DATE})))
    assert reply.source_at == datetime(2026, 7, 13, 16, tzinfo=UTC)


@pytest.mark.parametrize("date", ["yesterday", "", "Mon, 99 Jul 2026 16:00:00 GMT"])
def test_an_unreadable_date_is_no_clock(date: str) -> None:
    assert asyncio.run(_ask(_answering(200, "{}", {"Date": date}))).source_at is None


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _scripted(script: Script) -> AsyncIterator[str]:
    served: list[asyncio.Task[object]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.append(task)
        await script(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*served)


def _sending(raw: bytes, *, reset: bool = False) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        if reset:
            writer.transport.abort()

    return script


@pytest.mark.parametrize(
    "script",
    [
        _sending(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"data": [1,'),
        _sending(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"data": [1,', reset=True),
        _sending(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"dat\r\n'),
        _sending(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"data": [1,'),
        _sending(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nContent-Encoding: gzip\r\n\r\nnot gzip...."),
        _sending(b""),
        _sending(b"SSH-2.0-OpenSSH\r\n"),
    ],
    ids=["short", "reset", "chunk", "closed", "gzip", "silent", "not-http"],
)
def test_a_reply_that_breaks_off_is_tried_again(script: Script) -> None:
    async def check() -> None:
        async with _scripted(script) as url, open_session(allow_private_addresses=True) as session:
            with pytest.raises(SourceUnavailable):
                read_json(await send(session, "GET", url), ANY)

    asyncio.run(check())


def test_a_silent_source_times_out_and_is_tried_again() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def check() -> None:
        async with _scripted(script) as url, open_session(allow_private_addresses=True, read_seconds=0.05) as session:
            with pytest.raises(SourceUnavailable):
                await send(session, "GET", url)

    asyncio.run(check())


def test_a_port_where_nobody_listens_is_tried_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def check() -> None:
        async with open_session(allow_private_addresses=True) as session:
            await send(session, "GET", f"http://127.0.0.1:{port}/")

    with pytest.raises(SourceUnavailable, match="could not be reached"):
        asyncio.run(check())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<html><body>Down for maintenance</body></html>", SourceUnavailable),
        ("  <!DOCTYPE html>", SourceUnavailable),
        ("", SourceUnavailable),
        ('{"data": [{"id": 1}, {"i', SourceUnavailable),
        ('{"data": [1,]}', ContractBroken),
        ("OK", ContractBroken),
        ("{'data': []}", ContractBroken),
        ('{"data": []} trailing', ContractBroken),
    ],
)
def test_a_body_that_is_not_json(body: str, expected: type[SourceError]) -> None:
    """Maintenance pages and cut bodies pass; another language does not."""
    reply = asyncio.run(_ask(_answering(200, body)))
    with pytest.raises(SourceError) as caught:
        read_json(reply, ANY)
    assert type(caught.value) is expected


def test_a_page_larger_than_allowed_is_refused_before_it_is_read_whole() -> None:
    sent: list[int] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(10_000):
            sent.append(number)
            await response.write(b"x" * 1000)
        return response

    error = _refused(handler, ReplyRules(max_body_bytes=10_000))
    assert isinstance(error, ContractBroken)
    assert "more than 10000 bytes" in str(error)
    assert len(sent) < 10_000


def test_a_small_compressed_page_that_unpacks_to_a_large_one_is_refused() -> None:
    async def handler(request: web.Request) -> web.Response:
        body = gzip.compress(b"0" * 5_000_000)
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    error = _refused(handler, ReplyRules(max_body_bytes=100_000))
    assert "more than 100000 bytes" in str(error)


def test_secrets_are_masked_wherever_a_reply_repeats_them() -> None:
    rules = ReplyRules(secrets=("sk_live_abc123", "abc123"))
    for status in (400, 403, 500):
        error = _refused(_answering(status, "bad key sk_live_abc123 for sk_live_abc123x" * 30), rules)
        shown = f"{error} {error.as_json()}"
        assert "abc123" not in shown
        assert "s3cret" not in shown, "the query is never named"
        assert "***" in shown


def test_no_half_of_a_secret_is_left_where_the_excerpt_is_cut() -> None:
    rules = ReplyRules(secrets=("0123456789" * 8,))
    for padding in range(400, 520, 7):
        error = _refused(_answering(400, "x" * padding + "0123456789" * 8), rules)
        assert "01234" not in str(error.as_json())


PRIVATE = [
    "127.0.0.1",
    "127.8.9.10",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:db8::1",
    "fec0::1",
    "64:ff9b:1::a00:1",
    "64:ff9b:1::808:808",
    "::7f00:1",
    "::8.8.8.8",
    "::ffff:0:a00:1",
    "192.0.0.9",
    "::ffff:192.0.0.10",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_known_in_every_spelling(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are_let_through(address: str) -> None:
    assert is_public_address(address)


class FixedResolver(aiohttp.abc.AbstractResolver):
    """Answers every name with the given addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        return None


async def _forbidden(url: str, *resolved: str) -> None:
    async with open_session() as session:
        if resolved:
            connector = session.connector
            assert isinstance(connector, aiohttp.TCPConnector)
            await connector._resolver.close()
            connector._resolver = FixedResolver(*resolved)
        await send(session, "GET", url)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]", "10.1.2.3", "0.0.0.0", "localhost"],
)
def test_a_private_address_is_never_asked(host: str) -> None:
    """A tenant's settings must not reach the operator's own network."""
    asks: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asks.append(request.path)
        return web.Response(text="{}")

    async def check() -> None:
        async with serve(handler) as url:
            await _forbidden(f"http://{host}:{url.rpartition(':')[2]}/")

    with pytest.raises(ContractBroken, match="is not a public address"):
        asyncio.run(check())
    assert asks == []


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "017700000001", "127.1", "0x7f.1"])
def test_numbers_dressed_as_names_are_never_asked(host: str) -> None:
    asks: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asks.append(request.path)
        return web.Response(text="{}")

    async def check() -> None:
        async with serve(handler) as url:
            await _forbidden(f"http://{host}:{url.rpartition(':')[2]}/")

    with pytest.raises(SourceError):
        asyncio.run(check())
    assert asks == []


@pytest.mark.parametrize("resolved", [["127.0.0.1"], ["10.0.0.1", "192.168.0.1"], ["::1", "127.0.0.1"]])
def test_a_public_name_that_resolves_to_private_addresses_is_never_asked(resolved: list[str]) -> None:
    """DNS answers are checked at the socket, so neither rebinding nor a second answer gets by."""
    with pytest.raises(ContractBroken, match="is not a public address"):
        asyncio.run(_forbidden("http://shop.example/", *resolved))


@pytest.mark.parametrize("to", ["http://169.254.169.254/latest/meta-data", "http://other.example/", "/elsewhere"])
def test_redirects_are_not_followed(to: str) -> None:
    paths: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=302, headers={"Location": to})

    assert isinstance(_refused(handler), ContractBroken)
    assert paths == ["/orders"]


def test_a_3xx_that_leads_nowhere_is_not_called_a_redirect() -> None:
    """304 answers a condition that was never sent: there is no address to declare."""
    for status, headers, said in ((304, {}, "Compare"), (302, {"Location": "/elsewhere"}, "redirects to")):
        assert said in _refused(_answering(status, headers=headers)).remedy


@pytest.mark.parametrize("url", ["ftp://shop.example/", "http://", "file:///etc/passwd", "http://[::1"])
def test_an_address_that_cannot_be_asked_is_not(url: str) -> None:
    with pytest.raises(SourceError):
        asyncio.run(_forbidden(url))


def test_a_session_keeps_no_cookies() -> None:
    """Rows of different tenants share a session: a cookie would carry one tenant's login to the next."""
    cookies: list[Mapping[str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        cookies.append(dict(request.cookies))
        return web.Response(text="{}", headers={"Set-Cookie": "session=tenant-a"})

    async def check() -> None:
        async with serve(handler) as url, open_session(allow_private_addresses=True) as session:
            named = url.replace("127.0.0.1", "localhost")  # no cookie jar keeps cookies of bare addresses
            await send(session, "GET", named)
            await send(session, "GET", named)

    asyncio.run(check())
    assert cookies == [{}, {}]
