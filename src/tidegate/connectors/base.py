"""What every connector is: streams, and a way to open one connection's source.

A connector yields pages of records and knows nothing of schedules, watermarks or tenants (ARCHITECTURE, "Layers").
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from tidegate.connectors.tokens import MemoryVault, TokenVault
from tidegate.domain.clock import Clock
from tidegate.domain.fetch import FetchRequest, Page
from tidegate.domain.stream import Stream


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """What one connection adds to its connector: plain ``settings`` (base_url, shop) and unsealed ``secrets``.

    ``vault``: where its OAuth tokens are kept; unless given, for as long as this process lives.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    vault: TokenVault = field(default_factory=MemoryVault, repr=False)


class Source(Protocol):
    """One connection, opened."""

    def fetch(self, request: FetchRequest) -> AsyncIterator[Page]:
        """Yield pages until the listing is complete; every page carries the token of the next one.

        Never yields a page twice and never skips one silently: what could not be shown is in the report's
        ``shortfall``. Raises a SourceError; fetching again with ``resume`` set to the last delivered page's token
        goes on after that page.
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

    def open(self, connection: ConnectionSettings, session: aiohttp.ClientSession, clock: Clock) -> Source:
        """Return the source of ``connection``; does no I/O. Raises InvalidInput naming a missing setting or secret."""
        ...
