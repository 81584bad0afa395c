"""OAuth 2 (RFC 6749): access tokens by client credentials, or by a refresh token that may change with every use.

A refresh may be answered with a new refresh token, and the old one is dead from then on; with reuse detection (RFC 9700,
4.14.2) showing it once more revokes them all. So tokens live in the connection's vault, one renewal at a time; what the
server answers is kept before it is used; and whoever waited for the vault takes what the one before left there. The
refresh token before the present one is kept until a refresh has proven the present one, for servers that still take it.

What becomes of the token endpoint's reply:

    2xx                                                            the tokens
    invalid_grant, invalid_client, unauthorized_client,            Unauthorised, at once, saying what to renew
    access_denied
    temporarily_unavailable, server_error, slow_down               SourceUnavailable
    anything else                                                  as any reply (`tidegate.connectors.http`)
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from urllib.parse import quote_plus, urlencode

import aiohttp
import msgspec

from tidegate.connectors.graphql import ABOUT_SCOPE
from tidegate.connectors.http import Reply, ReplyRules, cut_short, exchange, refusal, retry_after_seconds
from tidegate.connectors.rest.declaration import ClientAuthentication, Grant, OAuth
from tidegate.connectors.tokens import Held, TokenVault
from tidegate.domain.clock import Clock
from tidegate.domain.errors import ContractBroken, SourceError, SourceUnavailable, Unauthorised

MARGIN = timedelta(seconds=60)
"""A token is renewed this long before it expires, or when three quarters of its life are over if it is a short one."""

REMEDIES = {
    "invalid_grant": "The authorisation has expired, was withdrawn, or its refresh token was used elsewhere: "
    "authorise the connection anew and apply its new refresh token.",
    "invalid_client": "Check the client id and secret, and how the client authenticates itself.",
    "unauthorized_client": "Allow this grant type to the client at the platform.",
    "access_denied": "Authorise the connection anew.",
}
PASSING = frozenset({"temporarily_unavailable", "server_error", "slow_down"})


@dataclass(frozen=True, slots=True)
class Tokens:
    """An access token, when to renew it (UTC, None: when it is refused), and what to renew it with.

    ``previous``: the refresh token before ``refresh``. ``origin`` tells the authorisation that they come from.
    """

    access: str
    renew_at: datetime | None
    refresh: str
    previous: str
    origin: str

    @classmethod
    def read(cls, held: Held, origin: str) -> Tokens | None:
        """Return the tokens that a vault holds, None if it holds none, or those of another authorisation."""
        if held.get("origin") != origin:
            return None
        renew_at = datetime.fromisoformat(held["renew_at"]) if held["renew_at"] else None
        return cls(held["access"], renew_at, held["refresh"], held["previous"], origin)

    def held(self) -> Held:
        """Return the tokens as a vault holds them."""
        return {
            "access": self.access,
            "renew_at": self.renew_at.isoformat() if self.renew_at else "",
            "refresh": self.refresh,
            "previous": self.previous,
            "origin": self.origin,
        }

    def serve(self, now: datetime, refused: str | None) -> bool:
        """Return whether the access token may be used: not refused, and not about to expire."""
        return self.access != refused and (self.renew_at is None or now < self.renew_at)


class _InvalidGrant(Unauthorised):
    """The server refuses this refresh token: another one may do."""


class TokenReply(msgspec.Struct):
    """A token endpoint's answer (RFC 6749, 5.1)."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105
    expires_in: float | str | None = None
    refresh_token: str | None = None


class TokenError(msgspec.Struct):
    """A token endpoint's refusal (RFC 6749, 5.2)."""

    error: str
    error_description: str = ""


REPLY = msgspec.json.Decoder(TokenReply)
ERROR = msgspec.json.Decoder(TokenError)


class OAuthTokens:
    """The access tokens of one open connection. Safe for several fetches at once."""

    def __init__(
        self, session: aiohttp.ClientSession, clock: Clock, declared: OAuth, vault: TokenVault, rules: ReplyRules
    ) -> None:
        self._session, self._clock, self._declared, self._vault, self._rules = session, clock, declared, vault, rules
        self._origin = _origin(declared)
        self._asking = asyncio.Lock()
        self._tokens: Tokens | None = None
        self.secrets: tuple[str, ...] = ()

    async def token(self, refused: str | None) -> str:
        """Return a valid access token, another one than ``refused``; raises a SourceError if there is none to be had."""
        async with self._asking:
            tokens = self._tokens
            if tokens is None:
                tokens = Tokens.read(await self._vault.read(), self._origin)
            if tokens is None or not tokens.serve(self._clock.now(), refused):
                tokens = Tokens.read(await self._vault.renew(lambda held: self._renewed(held, refused)), self._origin)
            if tokens is None:
                raise SourceUnavailable("The connection was authorised anew meanwhile.")
            self._tokens = tokens
            self._hide(tokens)
            return tokens.access

    def refused(self, error: Unauthorised) -> bool:
        """Return whether the source refused the token itself; a 403 refuses what was asked for with it (RFC 6750, 3.1)."""
        codes = error.values.get("codes")
        told = isinstance(codes, list) and not ABOUT_SCOPE.issuperset(codes)
        return told or error.values.get("status") == 401

    def _hide(self, tokens: Tokens) -> None:
        found = (tokens.access, tokens.refresh, tokens.previous, *self.secrets)
        self.secrets = tuple(dict.fromkeys(secret for secret in found if secret))[:12]

    async def _renewed(self, held: Held, refused: str | None) -> Held:
        """Return what the vault is to hold: what another process has put there meanwhile, or what the server answers."""
        tokens = Tokens.read(held, self._origin)
        if tokens is not None and tokens.serve(self._clock.now(), refused):
            return held
        if self._declared.grant is Grant.CLIENT_CREDENTIALS:
            return (await self._granted({}, "")).held()
        if tokens is None:
            return (await self._refreshed(self._declared.refresh_token)).held()
        self._hide(tokens)
        try:
            return (await self._refreshed(tokens.refresh)).held()
        except _InvalidGrant:
            if not tokens.previous:
                raise
            return (await self._refreshed(tokens.previous)).held()

    async def _refreshed(self, refresh_token: str) -> Tokens:
        return await self._granted({"refresh_token": refresh_token}, refresh_token)

    async def _granted(self, shown: Mapping[str, str], refresh_token: str) -> Tokens:
        declared, asked_at = self._declared, self._clock.now()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        form = {"grant_type": declared.grant.value, **shown, **_optional(declared)}
        hidden = [*self._rules.secrets, *self.secrets]
        match declared.client_authentication:
            case ClientAuthentication.BASIC:
                pair = f"{quote_plus(declared.client_id)}:{quote_plus(declared.client_secret)}"
                hidden.append(base64.b64encode(pair.encode()).decode())
                headers["Authorization"] = f"Basic {hidden[-1]}"
            case ClientAuthentication.POST:
                form |= {"client_id": declared.client_id, "client_secret": declared.client_secret}
            case ClientAuthentication.NONE:
                form["client_id"] = declared.client_id
        rules, url, body = replace(self._rules, secrets=tuple(hidden)), declared.token_url, urlencode(form).encode()
        reply = await exchange(self._session, "POST", url, headers=headers, body=body, rules=rules)
        if not 200 <= reply.status < 300:
            raise _refusal(reply, url, rules)
        return _tokens(reply, asked_at, refresh_token, self._origin)


def _optional(declared: OAuth) -> Mapping[str, str]:
    given = {"scope": declared.scope, "audience": declared.audience, **declared.params}
    return {name: str(value) for name, value in given.items() if value != ""}


def _origin(declared: OAuth) -> str:
    """Return what tells one authorisation from another: new settings must not cost the only valid refresh token."""
    parts = [declared.grant.value, declared.client_id, declared.refresh_token]
    if declared.grant is Grant.CLIENT_CREDENTIALS:
        parts += [declared.token_url, declared.client_secret, *(f"{k}={v}" for k, v in _optional(declared).items())]
    return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _refusal(reply: Reply, url: str, rules: ReplyRules) -> SourceError:
    as_any = refusal(reply, "POST", url, rules)
    try:
        said = ERROR.decode(reply.body)
    except msgspec.DecodeError:
        return as_any
    if as_any.retryable or said.error not in {*REMEDIES, *PASSING}:
        return as_any
    message = (
        f"The authorisation server answered {rules.mask(f'{said.error}: {said.error_description[:200]}').rstrip(': ')}."
    )
    if said.error in PASSING:
        return SourceUnavailable(message, retry_after_seconds=retry_after_seconds(reply))
    kind = _InvalidGrant if said.error == "invalid_grant" else Unauthorised
    return kind(message, remedy=REMEDIES[said.error], status=reply.status)


def _tokens(reply: Reply, asked_at: datetime, refresh_token: str, origin: str) -> Tokens:
    """Return the tokens of a reply. No error shows any of it: its tokens are not known yet, so could not be masked."""
    try:
        said = REPLY.decode(reply.body)
    except (ValueError, RecursionError):
        if cut_short(reply.body):
            raise SourceUnavailable("The authorisation server sent no complete JSON document.") from None
        raise ContractBroken(
            f"The authorisation server answered {reply.status} without an access token as RFC 6749 (5.1) has it."
        ) from None
    if said.token_type.lower() != "bearer":
        raise ContractBroken("The authorisation server gave another type of token than bearer.")
    if not said.access_token or not said.access_token.isascii() or not said.access_token.isprintable():
        raise ContractBroken("The authorisation server gave an access token that no header can carry.")
    refresh = said.refresh_token or refresh_token
    previous = refresh_token if refresh != refresh_token else ""
    return Tokens(said.access_token, _renew_at(asked_at, said.expires_in), refresh, previous, origin)


def _renew_at(asked_at: datetime, expires_in: float | str | None) -> datetime | None:
    try:
        life = timedelta(seconds=float(expires_in)) if expires_in is not None else None
    except (ValueError, OverflowError):
        return None
    return None if life is None else asked_at + life - min(MARGIN, life / 4)
