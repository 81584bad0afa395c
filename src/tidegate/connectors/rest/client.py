"""One connection's way to its source: address, authentication, pace and the rules by which replies are read."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

import aiohttp
import msgspec
from yarl import URL

from tidegate.connectors.base import Allowance, Unlimited
from tidegate.connectors.http import Reply, ReplyRules, send
from tidegate.connectors.rest.declaration import Authentication, AuthenticationKind
from tidegate.connectors.rest.pagers import Position
from tidegate.domain.capacity import RateLimit
from tidegate.domain.clock import Clock
from tidegate.domain.errors import Unauthorised
from tidegate.domain.spelling import spellings


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, where it came from, and our clock just before the request was sent."""

    reply: Reply
    url: URL
    requested_at: datetime


Judge: TypeAlias = Callable[[Reply, ReplyRules], None]
"""Raises the SourceError that a 2xx reply stands for, if it does: GraphQL refuses a token with status 200."""


class Pace:
    """Lets ``burst`` requests through at once and then ``per_second``, waiting on the clock it is given."""

    def __init__(self, limit: RateLimit, clock: Clock) -> None:
        self._limit, self._clock = limit, clock
        self._free_at = clock.now()  # when the bucket is full again
        self._between = timedelta(seconds=1 / limit.per_second)

    async def wait(self) -> None:
        """Return when the next request may be sent; waiting requests are let through in order."""
        now = self._clock.now()
        self._free_at = max(self._free_at, now) + self._between
        wait = (self._free_at - now - self._between * self._limit.burst).total_seconds()
        if wait > 0:
            await self._clock.sleep(wait)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What each request carries to be let in, and the texts that must never be shown."""

    headers: Mapping[str, str]
    params: Mapping[str, str]
    secrets: tuple[str, ...]


def credentials(declared: Authentication, secrets: Mapping[str, str]) -> Credentials:
    """Return the credentials of a filled-in declaration; a login's token comes later (`Client`)."""
    known = (*secrets.values(), declared.value, declared.password)
    hidden = {spelling for secret in known if secret for spelling in spellings(secret)}
    match declared.kind:
        case AuthenticationKind.BASIC:
            pair = base64.b64encode(f"{declared.username}:{declared.password}".encode()).decode()
            return Credentials({"Authorization": f"Basic {pair}"}, {}, (*hidden, pair))
        case AuthenticationKind.BEARER:
            return Credentials({"Authorization": f"Bearer {declared.value}"}, {}, tuple(hidden))
        case AuthenticationKind.HEADER:
            return Credentials({declared.name: declared.value}, {}, tuple(hidden))
        case AuthenticationKind.QUERY:
            return Credentials({}, {declared.name: declared.value}, tuple(hidden))
        case _:
            return Credentials({}, {}, tuple(hidden))


class Bearer(Protocol):
    """Where bearer tokens come from. Safe for several fetches at once."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what must not be shown: the tokens in use, and those just before them."""
        ...

    async def token(self, refused: str | None) -> str:
        """Return a valid token, another one than ``refused``; raises a SourceError if there is none to be had."""
        ...

    def refused(self, error: Unauthorised) -> bool:
        """Return whether another token may be accepted where this ``error`` was the answer."""
        ...


class Client:
    """Sends requests to one origin, and only there. Safe for several fetches at once."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        clock: Clock,
        base_url: str,
        headers: Mapping[str, str],
        held: Credentials,
        rules: ReplyRules,
        *,
        bearer: Bearer | None = None,
        pace: Pace | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        self._session, self._clock, self._bearer, self._pace = session, clock, bearer, pace
        self._allowance = allowance or Unlimited()
        self._base = base_url.rstrip("/")
        self._headers, self._params = {**headers, **held.headers}, held.params
        self.rules = self._rules = rules
        self._hidden: tuple[str, ...] = ()

    async def ask(self, method: str, path: str, params: Mapping[str, object], judge: Judge | None = None) -> Answer:
        """Send a request for ``path`` below the base address; a POST carries ``params`` as a JSON object.

        Raises a SourceError, ``judge``'s among them: what it says of a 2xx reply. A bearer token that has expired is renewed
        before, one that is refused once after.
        """
        url = URL(self._base + path)
        if method == "POST":
            return await self._ask(method, url.update_query(self._params), msgspec.json.encode(params), judge)
        return await self._ask(method, url.with_query({**_texts(params), **self._params}), None)

    async def follow(self, link: str) -> Answer:
        """Send a GET for a path and query that the source itself gave, as it wrote it, to the same origin."""
        url = URL(f"{URL(self._base).origin()}{link}", encoded=True)
        return await self._ask("GET", url.update_query(self._params) if self._params else url, None)

    def without_credentials(self, position: Position) -> Position:
        """Return ``position`` fit to be kept: a link without the parameters that let us in."""
        if "link" not in position or not self._params:
            return position
        return {
            **position,
            "link": URL(str(position["link"]), encoded=True).without_query_params(*self._params).raw_path_qs,
        }

    async def _ask(self, method: str, url: URL, body: bytes | None, judge: Judge | None = None) -> Answer:
        if self._bearer is None:
            return await self._send(method, url, body, self._headers, judge)
        token = await self._token(self._bearer, refused=None)
        try:
            return await self._send(method, url, body, self._signed(token), judge)
        except Unauthorised as error:
            if not self._bearer.refused(error):
                raise
            token = await self._token(self._bearer, refused=token)
            return await self._send(method, url, body, self._signed(token), judge)

    def _signed(self, token: str) -> Mapping[str, str]:
        return {**self._headers, "Authorization": f"Bearer {token}"}

    async def _token(self, bearer: Bearer, refused: str | None) -> str:
        token = await bearer.token(refused)
        if bearer.secrets != self._hidden:
            self._hidden = bearer.secrets
            hidden = [spelling for secret in bearer.secrets for spelling in spellings(secret)]
            self.rules = replace(self._rules, secrets=(*self._rules.secrets, *hidden))
        return token

    async def _send(
        self, method: str, url: URL, body: bytes | None, headers: Mapping[str, str], judge: Judge | None
    ) -> Answer:
        if self._pace is not None:
            await self._pace.wait()
        await self._allowance.wait()
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
        requested_at = self._clock.now()
        reply = await send(self._session, method, url, headers=headers, body=body, rules=self.rules)
        if judge is not None:
            judge(reply, self.rules)
        return Answer(reply, url, requested_at)


def _texts(params: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in params.items()}
