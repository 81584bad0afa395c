"""What one configuration asks for: destinations, and each tenant's connections and installations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.domain.capacity import RateLimit
from tidegate.domain.schedule import Schedule
from tidegate.engine.configuring.identity import Identity


@dataclass(frozen=True, slots=True)
class DestinationSpec:
    """A destination as configured, its secrets in the clear."""

    name: str
    kind: str
    settings: Mapping[str, object]
    secrets: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConnectionSpec:
    """A connection as configured, its secrets in the clear.

    ``connector``: a name, or where its file lies. ``platform``: the name the connector gives itself, which with
    ``account`` says what is at the other end, wherever the file lies. ``concurrency`` and ``rate_limit`` are the platform
    account's, ``own_concurrency`` the connection's; ``given``: which of the account's are written, the others are left as
    they are where the account is there already. ``identity``: the settings that tell the account; unless
    ``account_is_given``, it is named after them.
    """

    name: str
    connector: str
    platform: str
    account: str
    concurrency: int
    settings: Mapping[str, object]
    secrets: Mapping[str, str] = field(repr=False)
    own_concurrency: int | None = None
    rate_limit: RateLimit | None = None
    identity: Identity = field(default_factory=Identity)
    account_is_given: bool = False
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class InstallationSpec:
    """An installation as configured. ``paused`` is None where the document does not say.

    ``path`` is where it stands in the document, for errors that only the database can tell. ``own_schedules``: those of the
    streams that have another one than the installation's.
    """

    name: str
    connection: str
    destination: str
    streams: tuple[str, ...]
    schedule: Schedule
    paused: bool | None
    path: str
    own_schedules: Mapping[str, Schedule] = field(default_factory=dict)
    pause_after_failing_days: int | None = None

    def schedule_of(self, stream: str) -> Schedule:
        """Return the stream's own schedule, or else the installation's."""
        return self.own_schedules.get(stream, self.schedule)


@dataclass(frozen=True, slots=True)
class TenantSpec:
    """A tenant as configured; ``name`` is None where the document does not say."""

    id: str
    name: str | None
    connections: tuple[ConnectionSpec, ...]
    installations: tuple[InstallationSpec, ...]


@dataclass(frozen=True, slots=True)
class Configuration:
    """What one `apply` asks for."""

    destinations: tuple[DestinationSpec, ...]
    tenants: tuple[TenantSpec, ...]
