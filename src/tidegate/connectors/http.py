"""One guarded HTTP session for all sources, and one function that sends a request and names what went wrong.

What becomes of a reply (SPEC 5, "Failures"):

    2xx                                     the reply, its body read whole
    429, statuses declared as rate limits,  RateLimited, with the wait the source asked for
    403 with Retry-After, or with no
    request left by the header declared,
    a 4xx that says so in a declared text
    5xx, 408, 425, statuses declared so,    SourceUnavailable
    403 with HTML: of a firewall before it
    connection, time-out, broken-off body   SourceUnavailable
    401, 403                                Unauthorised
    3xx, other 4xx                          ContractBroken, showing the reply's beginning, secrets masked
    too large a body, forbidden address     ContractBroken

and of a 2xx body that should be JSON (`read_json`):

    HTML, an empty or broken-off document   SourceUnavailable: maintenance pages and cut connections pass
    other text, or JSON of another shape    ContractBroken
    JSON but for some value inside it       whatever else it holds: see `tidegate.connectors.rest.envelope`

Redirects are never followed: a declared address is the address, and a redirect is how a request leaves its host.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from tidegate.domain import json_text
from tidegate.domain.errors import ContractBroken, RateLimited, SourceError, SourceUnavailable, Unauthorised
from tidegate.domain.http_reply import excerpt, http_date, wait_asked_for
from tidegate.domain.spelling import masked

T = TypeVar("T")

MAX_BODY_BYTES = 64 * 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""It begins no JSON document, and may be ignored before one (RFC 8259, 8.1)."""
ALWAYS_RETRYABLE = frozenset({408, 425})


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, read whole. ``source_at``: the source's own clock (HTTP Date) in UTC, None if it sent none."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    source_at: datetime | None


@dataclass(frozen=True, slots=True)
class ReplyRules:
    """How one source's replies are to be read: its own meanings of statuses, and the ``secrets`` never to show.

    ``remaining_header`` says how many requests are left, ``reset_header`` when there are more, in epoch seconds; "" if none
    does. ``limit_texts``: what a refusal's body says, in lower case, where it is a rate limit. ``limit_wait_seconds``: how long
    to wait where no header says so.
    """

    retryable: frozenset[int] = frozenset()
    rate_limited: frozenset[int] = frozenset()
    secrets: tuple[str, ...] = ()
    max_body_bytes: int = MAX_BODY_BYTES
    remaining_header: str = ""
    reset_header: str = ""
    limit_texts: tuple[str, ...] = ()
    limit_wait_seconds: float | None = None

    def mask(self, text: str) -> str:
        """Return ``text`` with every secret of four or more characters replaced by ``***``, longest first."""
        return masked(text, self.secrets)

    def excerpt(self, body: bytes) -> str:
        """Return the beginning of ``body`` for people; masked before it is cut, so that no half secret remains."""
        return excerpt(body, self.secrets)


NO_RULES = ReplyRules()


def open_session(
    *,
    allow_private_addresses: bool = False,
    max_connections: int = 100,
    connect_seconds: float = 10.0,
    read_seconds: float = 60.0,
    reply_seconds: float = 300.0,
    trace_configs: Sequence[aiohttp.TraceConfig] = (),
) -> aiohttp.ClientSession:
    """Return a keep-alive session that keeps no cookies and reaches public addresses only. Call it inside the loop.

    Every socket is checked at the moment it is made, after name resolution, so neither a DNS answer nor a literal
    in any spelling reaches a private, loopback, link-local or reserved address unless ``allow_private_addresses``.
    ``read_seconds`` bounds the wait for the next bytes, ``reply_seconds`` a whole reply. Proxy variables are not read.
    ``trace_configs`` watch its requests.
    """
    connector = aiohttp.TCPConnector(
        limit=max_connections,
        ttl_dns_cache=60,
        keepalive_timeout=30,
        socket_factory=None if allow_private_addresses else _public_socket,
    )
    timeout = aiohttp.ClientTimeout(
        total=reply_seconds, connect=None, sock_connect=connect_seconds, sock_read=read_seconds
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=timeout,
        headers={"User-Agent": "tidegate", "Accept": "application/json", "Accept-Encoding": "gzip, deflate"},
        trust_env=False,
        trace_configs=list(trace_configs),
    )


def _public_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, where = address
    if not is_public_address(str(where[0])):
        raise OSError(errno.EACCES, f"{where[0]} is not a public address")
    return socket.socket(family=family, type=kind, proto=protocol)


_NOT_PUBLIC = tuple(
    map(ipaddress.ip_network, ("fec0::/10", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96", "192.0.0.0/24"))
)
"""What `is_global` of the standard library lets through in some versions: site-local, local translation (RFC 8215),
IPv4-compatible and IPv4-translated addresses, and those of protocols (RFC 6890)."""


def is_public_address(address: str) -> bool:
    """Return whether the IP ``address`` is globally reachable; an IPv4 address inside an IPv6 one counts as itself."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    outer = ip
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or _nat64(ip)
        ip = inner or ip
    return ip.is_global and not ip.is_multicast and not any(ip in net or outer in net for net in _NOT_PUBLIC)


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip in ipaddress.IPv6Network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


async def send(
    session: aiohttp.ClientSession,
    method: str,
    url: str | URL,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    rules: ReplyRules = NO_RULES,
) -> Reply:
    """Send one request and return its 2xx reply; raises the SourceError that the module's table names.

    Messages name method, host and path, never the query, which may hold a secret.
    """
    reply = await exchange(session, method, url, params=params, headers=headers, body=body, rules=rules)
    if 200 <= reply.status < 300:
        return reply
    raise refusal(reply, method, url, rules)


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str | URL,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    rules: ReplyRules = NO_RULES,
) -> Reply:
    """Send one request and return its reply whatever its status; raises as `send` does where there is none."""
    try:
        async with session.request(
            method, url, params=params, headers=headers, data=body, allow_redirects=False
        ) as response:
            content = await _read(response, rules)
            source_at = http_date(response.headers.get("Date", ""))
            return Reply(response.status, response.headers, content.removeprefix(BYTE_ORDER_MARK), source_at)
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError) as error:
        raise ContractBroken(f"{rules.mask(_name(method, url))} is not an address that can be asked.") from error
    except aiohttp.ClientConnectorError as error:
        raise _not_connected(error, method, url, rules) from error
    except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
        reason = rules.mask(f"{type(error).__name__} {error}".strip())
        raise SourceUnavailable(f"{rules.mask(_name(method, url))} broke off: {reason}.") from error


async def _read(response: aiohttp.ClientResponse, rules: ReplyRules) -> bytes:
    chunks: list[bytes] = []
    size = 0
    content = response.content
    while not content.at_eof() and (chunk := await content.readany()):
        size += len(chunk)
        if size > rules.max_body_bytes:
            response.close()
            raise ContractBroken(
                f"{response.url.path} sent more than {rules.max_body_bytes} bytes in one page.",
                remedy="Declare a smaller page size.",
            )
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _name(method: str, url: str | URL) -> str:
    try:
        parts = urlsplit(str(url))
    except ValueError:
        return f"{method} {str(url).partition('?')[0]}"
    return f"{method} {parts.hostname or ''}{parts.path}"


def _not_connected(error: aiohttp.ClientConnectorError, method: str, url: str | URL, rules: ReplyRules) -> SourceError:
    name = rules.mask(_name(method, url))
    if error.os_error.errno == errno.EACCES:
        return ContractBroken(
            f"{name} was not sent: {error.os_error.strerror}.",
            remedy="If this source is yours, allow private addresses for this deployment.",
        )
    return SourceUnavailable(f"{name} could not be reached: {rules.mask(str(error.os_error))}.")


def refusal(reply: Reply, method: str, url: str | URL, rules: ReplyRules) -> SourceError:
    """Return the error that the module's table names for a reply that is not 2xx."""
    status, excerpt = reply.status, rules.excerpt(reply.body)
    said = f"{rules.mask(_name(method, url))} answered {status}."
    if _is_rate_limit(reply, rules):
        return RateLimited(said, retry_after_seconds=_limited_for_seconds(reply, rules))
    if status in rules.retryable or status in ALWAYS_RETRYABLE or status >= 500 or _is_of_a_firewall(reply):
        return SourceUnavailable(f"{said} {excerpt[:200]}".rstrip(), retry_after_seconds=retry_after_seconds(reply))
    if status in (401, 403):
        return Unauthorised(
            said, remedy="Renew the connection's credentials or widen their scopes.", status=status, response=excerpt
        )
    redirects = 300 <= status < 400 and "Location" in reply.headers
    remedy = "Declare the address that it redirects to." if redirects else "Compare the declaration with it."
    return ContractBroken(f"{said} {excerpt[:200]}".rstrip(), remedy=remedy, status=status, response=excerpt)


def _is_rate_limit(reply: Reply, rules: ReplyRules) -> bool:
    if reply.status in rules.rate_limited or reply.status == 429:
        return True
    if reply.status == 403 and ("Retry-After" in reply.headers or _none_left(reply, rules)):
        return True
    said = reply.body.decode("utf-8", "replace").lower() if rules.limit_texts and 400 <= reply.status < 500 else ""
    return any(text in said for text in rules.limit_texts)


def _is_of_a_firewall(reply: Reply) -> bool:
    """Return whether a 403 is a page for people: an API's own refusal is none. If it stays, the run fails and shows it."""
    return reply.status == 403 and reply.body.lstrip()[:1] == b"<"


def _none_left(reply: Reply, rules: ReplyRules) -> bool:
    return bool(rules.remaining_header) and reply.headers.get(rules.remaining_header, "").strip() == "0"


def _limited_for_seconds(reply: Reply, rules: ReplyRules) -> float | None:
    """Return the wait that a rate limit asks for, by ``Retry-After``, or else until the limit's reset, or else as declared."""
    asked = retry_after_seconds(reply)
    if asked is not None:
        return asked
    reset = reply.headers.get(rules.reset_header, "").strip() if rules.reset_header else ""
    if reply.source_at is None or not _none_left(reply, rules) or not reset.isdecimal():
        return rules.limit_wait_seconds
    return max(0.0, int(reset) - reply.source_at.timestamp())


def retry_after_seconds(reply: Reply) -> float | None:
    """Return the wait that ``Retry-After`` asks for, as `domain.http_reply` reads it; None if there is none."""
    return wait_asked_for(reply.headers.get("Retry-After", ""), reply.source_at)


def read_json(reply: Reply, decoder: msgspec.json.Decoder[T], rules: ReplyRules = NO_RULES) -> T:
    """Return the decoded body; raises SourceUnavailable or ContractBroken as the module's table says."""
    try:
        return decoder.decode(reply.body)
    except msgspec.ValidationError as error:
        raise another_shape(reply, error, rules) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        require_json(reply, rules)
        raise ContractBroken(f"The reply is not JSON: {error}.", response=rules.excerpt(reply.body)) from error


def another_shape(reply: Reply, error: Exception, rules: ReplyRules) -> ContractBroken:
    """Return the error for a reply that is JSON and not what was declared."""
    return ContractBroken(
        f"The reply has another shape than declared: {error}.",
        remedy="Compare the declaration with the response shown.",
        response=rules.excerpt(reply.body),
    )


def require_json(reply: Reply, rules: ReplyRules) -> None:
    """Raise what the module's table names unless the body is JSON, whatever a decoder thinks of single values in it."""
    try:
        _require_structure(reply.body)
    except json_text.CutOff:
        said = f"The source sent no complete JSON document: {rules.excerpt(reply.body)[:200]}"
        raise SourceUnavailable(said) from None
    except ValueError as error:
        raise ContractBroken(f"The reply is not JSON: it {error}.", response=rules.excerpt(reply.body)) from None


def cut_short(body: bytes) -> bool:
    """Return whether ``body`` is what passes by itself: HTML, or a JSON document that ends early."""
    try:
        _require_structure(body)
    except json_text.CutOff:
        return True
    except ValueError:
        return False
    return False


def _require_structure(body: bytes) -> None:
    if body.lstrip()[:1] == b"<":
        raise json_text.CutOff("is HTML")
    json_text.require_structure(body)
