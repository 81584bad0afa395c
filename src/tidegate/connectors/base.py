"""What every connector is: streams, and a way to open one connection's source.

A connector yields pages of records and knows nothing of schedules, watermarks or tenants (ARCHITECTURE, "Layers").
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from tidegate.connectors.tokens import MemoryVault, TokenVault
from tidegate.domain.capacity import RateLimit
from tidegate.domain.clock import Clock
from tidegate.domain.fetch import FetchRequest, Page
from tidegate.domain.stream import Stream


class Allowance(Protocol):
    """What a platform account allows, shared by all that ask it in whatever process (SPEC 3)."""

    async def wait(self) -> None:
        """Return when the next request may be sent; call it before each. Raises AccountHeld if that is not to be soon."""
        ...


class Unlimited:
    """An allowance that lets every request through at once."""

    async def wait(self) -> None:
        """Return at once."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """What one connection adds to its connector: plain ``settings`` (base_url, shop) and unsealed ``secrets``.

    ``vault``: where its OAuth tokens are kept; unless given, for as long as this process lives. ``allowance``: its platform
    account's, to be waited for before each request.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    vault: TokenVault = field(default_factory=MemoryVault, repr=False)
    allowance: Allowance = field(default_factory=Unlimited, repr=False, compare=False)


class Source(Protocol):
    """One connection, opened."""

    def fetch(self, request: FetchRequest) -> AsyncIterator[Page]:
        """Yield pages until the listing is complete; every page carries the token of the next one.

        Never yields a page twice and never skips one silently: what could not be shown is in the report's
        ``shortfall``. Raises a SourceError; fetching again with ``resume`` set to the last delivered page's token
        goes on after that page, as long as `listing` says that it is the same listing.
        """
        ...

    def listing(self, request: FetchRequest) -> str:
        """Return what tells one listing from another: whatever defines what is listed, and in what order and pages.

        Of the request that is all but ``resume`` and ``stop_after``; of the connection, what reaches the source, except its
        secrets. A token of a listing that another text stands for must not be resumed from: it could skip records.
        """
        ...


class Connector(Protocol):
    """Code or declaration for one third-party platform."""

    @property
    def name(self) -> str:
        """Return the connector's name, as written in configuration."""
        ...

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Return the streams by name."""
        ...

    @property
    def rate_limit(self) -> RateLimit | None:
        """Return how fast one platform account may be asked unless its connection says otherwise, None if not known."""
        ...

    @property
    def identity(self) -> Mapping[str, str | None]:
        """Return the settings that tell which platform account a connection links to, each with its default, None for none.

        Another value of one of them means other records (SPEC 2.12). Empty where no setting tells it.
        """
        ...

    def open(self, connection: ConnectionSettings, session: aiohttp.ClientSession, clock: Clock) -> Source:
        """Return the source of ``connection``; does no I/O. Raises InvalidInput naming a missing setting or secret."""
        ...
