"""A login: one call that turns secrets into a bearer token, made again when it expires or is refused."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import msgspec

from tidegate.connectors.http import Reply, cut_short
from tidegate.connectors.rest.client import Client
from tidegate.connectors.rest.declaration import Login
from tidegate.domain.clock import Clock
from tidegate.domain.errors import ContractBroken, SourceUnavailable, Unauthorised

EXPIRY_MARGIN = timedelta(seconds=30)


class LoginTokens:
    """The tokens of one open connection's login. ``client``: asks the same server, not signed in."""

    def __init__(self, login: Login, client: Client, clock: Clock) -> None:
        self._login, self._client, self._clock = login, client, clock
        self._asking = asyncio.Lock()
        self._token: str | None = None
        self._ends: datetime | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the token."""
        return () if self._token is None else (self._token,)

    async def token(self, refused: str | None) -> str:
        """Return a valid token, logging in if there is none, it is about to expire, or it is the ``refused`` one."""
        async with self._asking:
            expired = self._ends is not None and self._ends - EXPIRY_MARGIN <= self._clock.now()
            if self._token is None or expired or self._token == refused:
                self._token = await self._sign_in()
            return self._token

    def refused(self, error: Unauthorised) -> bool:
        """Return True: platforms with a login of their own answer an old token with 401 or 403."""
        return True

    async def _sign_in(self) -> str:
        login = self._login
        answer = await self._client.ask("POST", login.path, login.body)
        document = _document(answer.reply)
        token, life = _at(document, login.token), _at(document, login.expires_in) if login.expires_in else None
        if not isinstance(token, str) or not token:
            raise ContractBroken(f"The login's reply has no text at {'.'.join(login.token)}.")
        self._ends = answer.requested_at + timedelta(seconds=life) if isinstance(life, int | float) else None
        return token


def _document(reply: Reply) -> object:
    """Return what a reply holds. No error shows any of it: its token is not known yet, so could not be masked."""
    try:
        document: object = msgspec.json.decode(reply.body)
    except (ValueError, RecursionError):
        if cut_short(reply.body):
            raise SourceUnavailable("The login was answered with no complete JSON document.") from None
        raise ContractBroken(f"The login was answered {reply.status} with something else than JSON.") from None
    return document


def _at(document: object, path: tuple[str, ...]) -> object:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document
