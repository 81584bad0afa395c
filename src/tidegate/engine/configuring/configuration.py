"""Configuration: YAML documents become frozen values, or every mistake in them at once.

What a document may say stands in docs/reference/configuration.md. Reading needs no database; references are resolved
inside the files that are read together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tidegate.connectors.base import ConnectionSettings, Connector
from tidegate.destinations.files import files
from tidegate.destinations.webhook import settings as webhook
from tidegate.domain.capacity import RateLimit
from tidegate.domain.errors import DestinationError, InvalidInput
from tidegate.domain.schedule import Schedule
from tidegate.domain.schedule_document import parse_schedule
from tidegate.engine.configuring.document import (
    HIDDEN,
    DocumentFile,
    Mistakes,
    Part,
    open_document,
    suggest,
    variable_name,
)
from tidegate.engine.configuring.identity import Identity
from tidegate.engine.configuring.specs import (
    Configuration,
    ConnectionSpec,
    DestinationSpec,
    InstallationSpec,
    TenantSpec,
)
from tidegate.engine.parts import Parts
from tidegate.store.directory import StoredDestination

DEFAULT_CONCURRENCY = 4
LIMITS = {"concurrency": "concurrency", "requests_per_second": "rate_limit", "burst": "rate_limit"}
"""The limit of a platform account that each key sets."""
DESTINATION_KINDS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "postgresql": (frozenset({"schema"}), frozenset({"url"})),
    "webhook": (webhook.SETTINGS, webhook.SECRETS),
    "files": (files.SETTINGS, frozenset()),
}
"""The settings and the secrets that each kind of destination knows."""
_REFERENCE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A variable's value is put there, but where one more dollar stands before it: then the text without that dollar."""


async def load(files: Sequence[DocumentFile], environment: Mapping[str, str], parts: Parts) -> Configuration:
    """Return the configuration that ``files`` say together, with every connection and destination tried out.

    Trying out does no I/O with a source; a destination that cannot be reached now is no mistake. Raises
    InvalidConfiguration with all mistakes.
    """
    mistakes = Mistakes()
    reading = _Reading(environment, parts.connector, mistakes)

    def try_connection(connector: Connector, spec: ConnectionSpec) -> None:
        parts.mask.learn(*spec.secrets.values())
        connector.open(ConnectionSettings(spec.settings, spec.secrets), parts.session, parts.clock)

    configuration = reading.read([open_document(file, mistakes) for file in files], try_connection)
    for spec in configuration.destinations:
        await _try_destination(spec, parts, mistakes)
    mistakes.refuse_any()
    return configuration


async def _try_destination(spec: DestinationSpec, parts: Parts, mistakes: Mistakes) -> None:
    parts.mask.learn(*spec.secrets.values())
    stored = StoredDestination(0, spec.name, spec.kind, spec.settings, b"", "")
    try:
        destination = await parts.open_destination(stored, dict(spec.secrets))
    except InvalidInput as error:
        at_home = error.field.startswith(f"destinations.{spec.name}")
        mistakes.add(error if at_home else error.under(f"destinations.{spec.name}"))
    except DestinationError:
        pass
    else:
        await destination.close()


TryConnection = Callable[[Connector, ConnectionSpec], None]


class _Reading:
    """Reads the documents that are applied together."""

    def __init__(
        self, environment: Mapping[str, str], connector: Callable[[str], Connector], mistakes: Mistakes
    ) -> None:
        self._environment = environment
        self._find_connector = connector
        self._mistakes = mistakes
        self._written: dict[tuple[str, ...], Part] = {}
        self._connectors: dict[tuple[str, str], Connector] = {}
        self._limits: dict[tuple[str, str, str], object] = {}

    def read(self, roots: Sequence[Part], try_connection: TryConnection) -> Configuration:
        for root in roots:
            root.require_known("destinations", "tenants")
        destinations = [spec for root in roots for spec in self._destinations(root)]
        known_destinations = [name for root in roots for name in root.names_under("destinations")]
        tenants: dict[str, list[Part]] = {}
        for root in roots:
            for tenant_id, part in root.parts("tenants"):
                tenants.setdefault(tenant_id, []).append(part)
        return Configuration(
            tuple(destinations),
            tuple(self._tenant(id_, parts, known_destinations, try_connection) for id_, parts in tenants.items()),
        )

    def _destinations(self, root: Part) -> Iterable[DestinationSpec]:
        for name, part in root.parts("destinations"):
            before = len(self._mistakes)
            self._once(part, "destination", name)
            part.require_known("kind", "settings", "secrets")
            kind = part.text("kind")
            settings, secrets = self._settings(part), self._secrets(part)
            if kind in DESTINATION_KINDS:
                known_settings, known_secrets = DESTINATION_KINDS[kind]
                part.part("settings").require_known(*sorted(known_settings))
                part.part("secrets").require_known(*sorted(known_secrets))
            if len(self._mistakes) == before:
                yield DestinationSpec(name, kind, settings, secrets)

    def _once(self, part: Part, *key: str) -> None:
        """Record a mistake if something of that name was written before, in another file."""
        first = self._written.setdefault(key, part)
        if first is not part:
            problem = f"({part.file.name}) is written in {first.file.name} too"
            self._mistakes.add(InvalidInput(part.path, key[-1], problem, "Keep one of the two."))

    def _tenant(
        self, tenant_id: str, parts: Sequence[Part], destinations: Sequence[str], try_connection: TryConnection
    ) -> TenantSpec:
        connections: dict[str, ConnectionSpec] = {}
        for part in parts:
            part.require_known("name", "connections", "installations")
            for name, inner in part.parts("connections"):
                connection = self._connection(tenant_id, name, inner, try_connection)
                if connection is not None:
                    connections[name] = connection
        known = [name for part in parts for name in part.names_under("connections")]
        installations = [
            spec
            for part in parts
            for name, inner in part.parts("installations")
            if (spec := self._installation(tenant_id, name, inner, known, destinations)) is not None
        ]
        names = {part.text("name") for part in parts if "name" in part.values}
        if len(names) > 1:
            parts[-1].refuse("name", "is another one in the other file", "Write the tenant's name once.")
        return TenantSpec(tenant_id, names.pop() if names else None, tuple(connections.values()), tuple(installations))

    def _connection(
        self, tenant_id: str, name: str, part: Part, try_connection: TryConnection
    ) -> ConnectionSpec | None:
        before = len(self._mistakes)
        self._once(part, "connection", tenant_id, name)
        part.require_known(
            "connector", "account", "concurrency", "connection_concurrency", "requests_per_second", "burst", "settings",
            "secrets",
        )  # fmt: skip
        connector = self._connector(tenant_id, name, part)
        settings = self._settings(part)
        identity = Identity.named({} if connector is None else connector.identity, settings)
        spec = ConnectionSpec(
            name=name,
            connector=_resolved(part.text("connector", ""), part.file),
            platform="" if connector is None else connector.name,
            account=part.text("account", identity.account(settings) or f"{tenant_id}/{name}"),
            concurrency=part.whole("concurrency", DEFAULT_CONCURRENCY),
            settings=settings,
            secrets=self._secrets(part),
            own_concurrency=part.whole("connection_concurrency", 0) or None,
            rate_limit=_rate_limit(part, None if connector is None else connector.rate_limit),
            identity=identity,
            account_is_given="account" in part.values,
            given=frozenset(limit for key, limit in LIMITS.items() if key in part.values),
        )
        if connector is None or len(self._mistakes) > before:
            return None
        try:
            try_connection(connector, spec)
        except InvalidInput as error:
            self._mistakes.add(error.under(part.path))
        self._require_same_limits(part, spec)
        return spec

    def _require_same_limits(self, part: Part, spec: ConnectionSpec) -> None:
        """Refuse a limit that is written and is another one than that of another connection to the account."""
        for key, limit in (("concurrency", "concurrency"), ("requests_per_second", "rate_limit")):
            value = getattr(spec, limit)
            if limit in spec.given and value != self._limits.setdefault((spec.platform, spec.account, limit), value):
                problem = f"differs from that of another connection to {spec.account}"
                part.refuse(key, problem, "An account has one limit: write the same, or write it once.")

    def _connector(self, tenant_id: str, name: str, part: Part) -> Connector | None:
        written = part.text("connector")
        if not written:
            return None
        try:
            connector = self._find_connector(_resolved(written, part.file))
        except InvalidInput as error:
            if error.field == "connector":
                part.refuse("connector", error.problem, error.remedy)
            else:  # a mistake inside the connector's own file
                part.refuse_as(error, "connector")
            return None
        self._connectors[tenant_id, name] = connector
        return connector

    def _installation(
        self, tenant_id: str, name: str, part: Part, connections: Sequence[str], destinations: Sequence[str]
    ) -> InstallationSpec | None:
        before = len(self._mistakes)
        self._once(part, "installation", tenant_id, name)
        part.require_known("connection", "destination", "streams", "schedule", "paused", "pause_after_failing_days")
        connection, destination = part.text("connection"), part.text("destination")
        if connection and connection not in connections:
            part.refuse("connection", f"is not a connection of {tenant_id}", suggest(connection, connections))
        if destination and destination not in destinations:
            part.refuse("destination", "is not a destination of these files", suggest(destination, destinations))
        streams = self._streams(part, self._connectors.get((tenant_id, connection)))
        own_schedules = dict(_own_schedules(part))
        schedule = _schedule(part)
        paused = part.flag("paused")
        days = part.whole("pause_after_failing_days", 0) or None
        if schedule is None or len(self._mistakes) > before:
            return None
        return InstallationSpec(
            name,
            connection,
            destination,
            streams,
            schedule,
            paused,
            part.path,
            own_schedules=own_schedules,
            pause_after_failing_days=days,
        )

    def _streams(self, part: Part, connector: Connector | None) -> tuple[str, ...]:
        written = part.values.get("streams")
        chosen = tuple(written) if isinstance(written, Mapping) and written else part.names("streams")
        if connector is None:
            return chosen or ()
        for name in chosen or ():
            if name not in connector.streams:
                part.refuse(
                    "streams", f"is not a stream of {connector.name}", suggest(name, connector.streams), value=name
                )
        return tuple(connector.streams) if chosen is None else chosen

    def _settings(self, part: Part) -> dict[str, object]:
        settings = part.part("settings")
        return {key: self._filled(settings, key, value) for key, value in settings.values.items() if value is not None}

    def _secrets(self, part: Part) -> dict[str, str]:
        secrets = part.part("secrets")
        filled = {}
        for key, value in secrets.values.items():
            if not isinstance(value, str) or all(escaped for escaped, _ in _REFERENCE.findall(value)):
                remedy = f"Put it into an environment variable and write ${{{variable_name(key)}}} here."
                secrets.refuse(key, "is a secret in the clear", remedy, value=HIDDEN)
                continue
            filled[key] = str(self._filled(secrets, key, value))
        return filled

    def _filled(self, part: Part, key: str, value: object) -> object:
        """Return ``value`` with every ``${NAME}`` in its texts replaced by the environment's value."""
        return _rewritten(value, lambda found: found[0][1:] if found[1] else self._variable(part, key, found[2]))

    def _variable(self, part: Part, key: str, name: str) -> str:
        value = self._environment.get(name, "")
        if not value:
            part.refuse(key, "names an environment variable that is not set", f"Set {name}.", value=f"${{{name}}}")
        return value


def in_writing(value: object) -> object:
    """Return a setting's ``value`` as a configuration says it: what looks like a reference is none."""
    return _rewritten(value, lambda found: "$" + found[0])


def _rewritten(value: object, instead: Callable[[re.Match[str]], str]) -> object:
    """Return ``value`` with every reference in its texts replaced."""
    if isinstance(value, str):
        return _REFERENCE.sub(instead, value)
    if isinstance(value, list):
        return [_rewritten(item, instead) for item in value]
    return {name: _rewritten(item, instead) for name, item in value.items()} if isinstance(value, Mapping) else value


def _own_schedules(part: Part) -> Iterable[tuple[str, Schedule]]:
    """Yield (stream, schedule) of those that have one; a stream with nothing behind its name has the installation's."""
    if not isinstance(part.values.get("streams"), Mapping):
        return
    streams = part.part("streams")
    for name in streams.values:
        own = streams.part(name)
        own.require_known("schedule")
        if "schedule" in own.values and (schedule := _schedule(own)) is not None:
            yield name, schedule


def _rate_limit(part: Part, declared: RateLimit | None) -> RateLimit | None:
    """Return the rate that the connection sets, or the one its connector declares."""
    per_second = part.number("requests_per_second")
    burst = part.whole("burst", declared.burst if declared else 1)
    if per_second is None and "burst" in part.values and declared is None:
        part.refuse("burst", "says nothing without a rate", "Add `requests_per_second:`.")
    if per_second is None and declared is None:
        return None
    return RateLimit(declared.per_second if per_second is None and declared else per_second or 1.0, burst)


def _schedule(part: Part) -> Schedule | None:
    if part.values.get("schedule") is None:
        part.refuse("schedule", "is missing", "Add one such as `schedule: {daily: true, time_zone: Europe/London}`.")
        return None
    try:
        return parse_schedule(part.values["schedule"])
    except InvalidInput as error:
        part.refuse_as(error, "schedule")
        return None


def _resolved(connector: str, file: DocumentFile) -> str:
    """Return a connector's name as it is, and the path of its YAML file as an absolute one."""
    return str((file.folder / connector).resolve()) if connector.endswith((".yaml", ".yml")) else connector


def read_file(path: Path) -> DocumentFile:
    """Return the file at ``path``. Raises InvalidInput if it is none, or not UTF-8 text."""
    try:
        return DocumentFile(str(path), path.read_text("utf-8"), path.absolute().parent)
    except (OSError, UnicodeDecodeError) as error:
        remedy = "Name files one by one, each with -f." if path.is_dir() else "Give the path of a YAML file."
        raise InvalidInput("file", str(path), f"cannot be read: {error}", remedy) from None
