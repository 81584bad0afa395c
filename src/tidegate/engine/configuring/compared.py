"""What destinations, connections and installations are compared by when they are applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from tidegate.destinations.postgres.local import DEFAULT_SCHEMA
from tidegate.domain.capacity import RateLimit
from tidegate.engine.configuring.changes import FieldChange, differences
from tidegate.engine.configuring.specs import ConnectionSpec, InstallationSpec
from tidegate.store.directory import StoredConnection, StoredInstallation

_ANOTHER_NAME = "Under another name the destination is given everything anew, as soon as it is fetched."
BRINGS_OVER: Mapping[str, str] = {
    "postgresql": "`tidegate backfill` brings a period to the new place.",
    "webhook": "What waits goes to the new address, and `tidegate webhook replay` sends what is kept there again; "
    f"`tidegate backfill` only brings what is not remembered as handed over. {_ANOTHER_NAME}",
    "files": f"`tidegate backfill` only brings what is not remembered as handed over. {_ANOTHER_NAME}",
}
"""How what was delivered comes to where a destination of that kind has moved (SPEC 4: a `delivered` table for some)."""


def under(prefix: str, values: object) -> dict[str, object]:
    """Return a mapping's values under names that begin with ``prefix``."""
    assert isinstance(values, dict)
    return {f"{prefix}{key}": value for key, value in values.items()}


def own_schedule_fields(spec: InstallationSpec, streams: Sequence[str]) -> list[FieldChange]:
    """Return what an added installation's own schedules say, stream by stream."""
    return [
        made
        for stream in streams
        if stream in spec.own_schedules
        for made in differences({}, spec.own_schedules[stream].as_json(), f"streams.{stream}.schedule.")
    ]


def connection_fields(stored: StoredConnection) -> dict[str, object]:
    """Return what a stored connection is compared by, field by field."""
    return {
        "connector": stored.connector,
        "account": stored.account,
        **limit_fields(stored.concurrency_limit, stored.rate_limit),
        "connection_concurrency": stored.own_concurrency_limit,
        **under("settings.", stored.settings),
    }


def installation_fields(of: StoredInstallation | InstallationSpec) -> dict[str, object]:
    """Return what an installation, stored or wanted, is compared by."""
    days = of.pause_after_failing_days
    return {"connection": of.connection, "destination": of.destination, "pause_after_failing_days": days}


def spec_fields(spec: ConnectionSpec) -> dict[str, object]:
    """Return what a wanted connection is compared by, as `connection_fields` does a stored one."""
    return {
        "connector": spec.connector,
        "account": spec.account,
        **limit_fields(spec.concurrency, spec.rate_limit),
        "connection_concurrency": spec.own_concurrency,
        **under("settings.", spec.settings),
    }


def limit_fields(concurrency: int, rate: RateLimit | None) -> dict[str, object]:
    """Return a platform account's limits, field by field; no rate where none is known."""
    rates = {} if rate is None else {"requests_per_second": rate.per_second, "burst": rate.burst}
    return {"concurrency": concurrency, **rates}


def address_of(settings: Mapping[str, object], secrets: Mapping[str, str]) -> tuple[object, ...]:
    """Return where a destination is, whoever signs in there and however it is written."""
    try:
        address = urlsplit(str(secrets.get("url", settings.get("url", ""))))
        where = (address.hostname, address.port, address.path)
    except ValueError:
        where = (None, None, "")
    return settings.get("schema", DEFAULT_SCHEMA), settings.get("root"), *where
