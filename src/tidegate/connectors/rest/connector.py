"""A declaration as a Connector: its templates are filled in when a connection is opened."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import ReplyRules, require_json
from tidegate.connectors.listings import listing_name, shape_of
from tidegate.connectors.rest.children import ChildListing, ChildStream
from tidegate.connectors.rest.client import Bearer, Client, Pace, credentials
from tidegate.connectors.rest.declaration import (
    Authentication,
    AuthenticationKind,
    Declaration,
    OAuth,
    Param,
    StreamDeclaration,
)
from tidegate.connectors.rest.listing import Filled, ListedStream, Listing
from tidegate.connectors.rest.login import LoginTokens
from tidegate.connectors.rest.oauth import OAuthTokens
from tidegate.connectors.rest.section import suggest
from tidegate.connectors.rest.shape import declared_shape
from tidegate.connectors.rest.template import fill, fill_address, placeholders
from tidegate.domain.capacity import RateLimit
from tidegate.domain.clock import Clock
from tidegate.domain.errors import InvalidInput
from tidegate.domain.fetch import FetchRequest, Page
from tidegate.domain.stream import Stream

KEPT_FILLED = 1000
"""So many different settings are kept as filled in: most platforms have one address, and the same for all connections."""

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class RestConnector:
    """A platform declared in YAML."""

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self._secret_names = secret_names(declaration)
        self._streams = {name: declared.stream for name, declared in declaration.streams.items()}
        self._shape = cache(partial(declared_shape, declaration))
        self._filled_in = lru_cache(KEPT_FILLED)(partial(_filled_in, declaration))
        self._rules = _rules(declaration)
        self._listed = {
            name: ListedStream(declared, declaration.error_codes)
            for name, declared in declaration.streams.items()
            if declared.parent is None
        }
        self._children = {
            name: ChildStream.made(declared, self._listed[declared.parent.stream])
            for name, declared in declaration.streams.items()
            if declared.parent is not None
        }

    @property
    def name(self) -> str:
        """Return the declared name."""
        return self.declaration.name

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Return the declared streams by name."""
        return self._streams

    @property
    def rate_limit(self) -> RateLimit | None:
        """Return the declared rate."""
        return self.declaration.rate_limit

    @property
    def identity(self) -> Mapping[str, str | None]:
        """Return the settings that are declared to tell the platform account, with their defaults."""
        return {name: self.declaration.settings[name] for name in self.declaration.identity}

    def open(self, connection: ConnectionSettings, session: aiohttp.ClientSession, clock: Clock) -> RestSource:
        """Return the source of ``connection``. Raises InvalidInput naming a missing setting or secret."""
        declared = self.declaration
        chosen = tuple(_settings(declared, connection).items())
        secrets = _secrets(declared, self._secret_names, connection)
        there = self._filled_in(chosen)
        settings, base_url = there.settings, there.base_url
        authentication = _filled_authentication(declared.authentication, settings, secrets)
        held = credentials(authentication, secrets)
        headers = {name: fill(str(value), settings, secrets) for name, value in declared.headers.items()}
        _check_headers({**held.headers, **headers})
        rules = replace(self._rules, secrets=held.secrets) if held.secrets else self._rules
        pace = None if declared.rate_limit is None else Pace(declared.rate_limit, clock)

        def client_of(bearer: Bearer | None) -> Client:
            allowance = connection.allowance
            return Client(session, clock, base_url, headers, held, rules, bearer=bearer, pace=pace, allowance=allowance)

        client = client_of(None)
        if authentication.login is not None:
            client = client_of(LoginTokens(authentication.login, client, clock))
        elif authentication.oauth is not None:
            client = client_of(OAuthTokens(session, clock, authentication.oauth, connection.vault, rules))

        def shape(stream: str) -> bytes:
            return self._shape(stream) + shape_of(settings)

        verify = fill_address(authentication.verify, settings)
        return RestSource(self._listed, self._children, there.streams, shape, client, clock, verify)


class RestSource:
    """One connection of a declared platform, opened. ``shape``: what defines a stream's listing, settings among it.

    ``verify``: the path that is refused without valid credentials, "" if every path is.
    """

    def __init__(
        self,
        listed: Mapping[str, ListedStream],
        children: Mapping[str, ChildStream],
        filled: Mapping[str, Filled],
        shape: Callable[[str], bytes],
        client: Client,
        clock: Clock,
        verify: str = "",
    ) -> None:
        self._listed, self._children, self._filled, self._shape = listed, children, filled, shape
        self._client, self._clock, self._verify = client, clock, verify

    def fetch(self, request: FetchRequest) -> AsyncIterator[Page]:
        """Yield pages as `tidegate.connectors.base.Source` says; raises InvalidInput for an unknown stream.

        A listing that moved while it was read begins again, at most twice; then its report says so. A page is yielded only if
        the credentials are still valid after it: its source may show some records to everybody.
        """
        pages = self._pages(request)
        return self._verified(pages) if self._verify else pages

    async def verify(self) -> None:
        """Raise Unauthorised if the credentials are refused where nobody is let in without; nothing is asked if not declared."""
        if self._verify:
            require_json((await self._client.ask("GET", self._verify, {})).reply, self._client.rules)

    async def _verified(self, pages: AsyncGenerator[Page]) -> AsyncIterator[Page]:
        async with aclosing(pages):
            async for page in pages:
                await self.verify()
                yield page

    def _pages(self, request: FetchRequest) -> AsyncGenerator[Page]:
        if request.stream not in self._filled:
            raise InvalidInput("stream", request.stream, "is unknown", suggest(request.stream, self._filled))
        filled = self._filled[request.stream]
        child = self._children.get(request.stream)
        if child is None:
            return Listing(self._listed[request.stream], filled, request, self._client, self._clock).pages()
        parents = self._filled[child.parent.declared.stream.name]
        return ChildListing(child, filled, parents, request, self._client, self._clock).pages()

    async def total(self, request: FetchRequest) -> int | None:
        """Return how many records, or pages of them, the source says that ``request`` would show; None if it does not say."""
        if request.stream in self._children:
            return None
        listed, filled = self._listed[request.stream], self._filled[request.stream]
        return await Listing(listed, filled, request, self._client, self._clock).total()

    def listing(self, request: FetchRequest) -> str:
        """Return what tells one listing from another; see `tidegate.connectors.base.Source.listing`."""
        return listing_name(self._shape(request.stream), request)


@dataclass(frozen=True, slots=True)
class FilledIn:
    """What a declaration becomes with one choice of settings, whatever the secrets are."""

    settings: Mapping[str, str]
    base_url: str
    streams: Mapping[str, Filled]


def _filled_in(declared: Declaration, chosen: tuple[tuple[str, str], ...]) -> FilledIn:
    settings = dict(chosen)
    base_url = fill_address(declared.base_url, settings)
    _check_address("base_url", base_url)
    named = {f"settings.{name}": value for name, value in settings.items()}
    return FilledIn(
        settings,
        base_url,
        {name: _filled_stream(stream, settings, named) for name, stream in declared.streams.items()},
    )


def _rules(declared: Declaration) -> ReplyRules:
    return ReplyRules(
        retryable=declared.retryable_statuses,
        rate_limited=declared.rate_limit_statuses,
        max_body_bytes=declared.max_body_bytes,
        remaining_header=declared.limit_signs.remaining,
        reset_header=declared.limit_signs.reset,
        limit_texts=declared.limit_signs.texts,
        limit_wait_seconds=declared.limit_signs.wait_seconds,
    )


def _settings(declared: Declaration, connection: ConnectionSettings) -> dict[str, str]:
    for name in connection.settings:
        if name not in declared.settings:
            raise InvalidInput(
                f"settings.{name}", connection.settings[name], "is unknown", suggest(name, declared.settings)
            )
    settings = {}
    for name, default in declared.settings.items():
        value = connection.settings.get(name, default)
        if value is None:
            remedy = f"{declared.name} needs it to be reached: set it for the connection; a check takes --setting {name}=VALUE."
            raise InvalidInput(f"settings.{name}", None, "is missing", remedy)
        settings[name] = str(value)
    return settings


def _secrets(declared: Declaration, names: Iterable[str], connection: ConnectionSettings) -> Mapping[str, str]:
    for name in names:
        if not connection.secrets.get(name):
            remedy = f"{declared.name} needs it to sign in: set it for the connection; a check takes --secret-env {name}=NAME."
            raise InvalidInput(f"secrets.{name}", None, "is missing", remedy)
        if not connection.secrets[name].isprintable():
            raise InvalidInput(f"secrets.{name}", "***", "holds a line break or the like", "Copy it without one.")
    return connection.secrets


def secret_names(declared: Declaration) -> list[str]:
    """Return the names of the secrets that the declaration asks a connection for."""
    signing = declared.authentication
    texts = [signing.value, signing.username, signing.password, *map(str, declared.headers.values())]
    if signing.login is not None:
        texts += map(str, signing.login.body.values())
    if (oauth := signing.oauth) is not None:
        texts += [oauth.client_id, oauth.client_secret, oauth.refresh_token, *map(str, oauth.params.values())]
    found = [name for text in texts for kind, name in placeholders(text) if kind == "secrets"]
    return list(dict.fromkeys(found))


def _check_address(field: str, address: str) -> None:
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
        usable = usable and not (parts.query or parts.fragment or parts.username)
    except ValueError:  # no IPv6 address, no port
        usable = False
    if not usable or not address.isprintable() or " " in address:
        raise InvalidInput(
            field, address, "is not the address of a server", "Write https://host, and a path where needed."
        )


def _check_headers(headers: Mapping[str, str]) -> None:
    """Raise InvalidInput for a header that cannot be sent; its value, which may hold a secret, is not shown."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not value.isprintable():
            remedy = "Use letters, digits and '-' for its name, and no line break in its value."
            raise InvalidInput(f"headers.{name}", "***", "cannot be sent as a header", remedy)


def _filled_authentication(
    declared: Authentication, settings: Mapping[str, str], secrets: Mapping[str, str]
) -> Authentication:
    if declared.kind is AuthenticationKind.NONE:
        return declared
    login = declared.login
    if login is not None:
        body = {name: _filled(value, settings, secrets) for name, value in login.body.items()}
        login = replace(login, path=fill_address(login.path, settings), body=body)
    return replace(
        declared,
        value=fill(declared.value, settings, secrets),
        username=fill(declared.username, settings, secrets),
        password=fill(declared.password, settings, secrets),
        login=login,
        oauth=None if declared.oauth is None else _filled_oauth(declared.oauth, settings, secrets),
    )


def _filled_oauth(declared: OAuth, settings: Mapping[str, str], secrets: Mapping[str, str]) -> OAuth:
    token_url = fill_address(declared.token_url, settings)
    _check_address("authentication.token_url", token_url)
    return replace(
        declared,
        token_url=token_url,
        client_id=fill(declared.client_id, settings, secrets),
        client_secret=fill(declared.client_secret, settings, secrets),
        refresh_token=fill(declared.refresh_token, settings, secrets),
        scope=fill(declared.scope, settings, {}),
        audience=fill(declared.audience, settings, {}),
        params={name: _filled(value, settings, secrets) for name, value in declared.params.items()},
    )


def _filled(value: Param, settings: Mapping[str, str], secrets: Mapping[str, str]) -> Param:
    return fill(value, settings, secrets) if isinstance(value, str) else value


def _filled_stream(declared: StreamDeclaration, settings: Mapping[str, str], named: Mapping[str, str]) -> Filled:
    return Filled(
        fill_address(declared.path, settings),
        {name: _filled(value, settings, {}) for name, value in declared.params.items()},
        {name: _filled(value, settings, {}) for name, value in declared.filters.items()},
        named,
    )
