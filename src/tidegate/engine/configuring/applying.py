"""Applying: the difference between a configuration and the database, made in one transaction (SPEC 2.10, 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.domain.capacity import RateLimit
from tidegate.domain.errors import InvalidInput
from tidegate.domain.failing import PausedBy
from tidegate.domain.schedule import start_instant
from tidegate.domain.workflow import PLAIN_SYNC
from tidegate.engine.commands import installations
from tidegate.engine.configuring.changes import (
    Action,
    Bridge,
    Change,
    FieldChange,
    Outcome,
    differences,
    secret_differences,
)
from tidegate.engine.configuring.compared import (
    BRINGS_OVER,
    address_of,
    connection_fields,
    installation_fields,
    limit_fields,
    own_schedule_fields,
    spec_fields,
    under,
)
from tidegate.engine.configuring.document import Mistakes
from tidegate.engine.configuring.rule_edits import RuleEdits
from tidegate.engine.configuring.specs import (
    Configuration,
    ConnectionSpec,
    DestinationSpec,
    InstallationSpec,
    TenantSpec,
)
from tidegate.engine.parts import Parts
from tidegate.store import chains, database, directory, reports, runs, schedules
from tidegate.store.directory import StoredConnection, StoredDestination, StoredInstallation
from tidegate.store.reports import ScheduledChain

if TYPE_CHECKING:
    from tidegate.store.database import Connection


async def apply(
    parts: Parts, configuration: Configuration, *, dry_run: bool = False, expected: Outcome | None = None
) -> Outcome:
    """Make the database what ``configuration`` says, all or nothing, and return what changed.

    What the configuration does not name is left alone. Applying twice changes nothing the second time; two at once take
    turns. A dry run does the same and takes it back. ``expected``: what was shown and agreed to before.
    Raises InvalidConfiguration if a start cannot be changed (SPEC 2.10), InvalidInput if the changes would not be the
    expected ones.
    """
    async with parts.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            outcome = await apply_in(parts, connection, configuration, applied=not dry_run)
            if expected is not None and expected.changes != outcome.changes:
                raise InvalidInput(
                    "configuration", len(outcome.changes), "changes are not those shown before", "Apply it again."
                )
        except BaseException:
            await transaction.rollback()
            raise
        if dry_run:
            await transaction.rollback()
        else:
            await transaction.commit()
    return outcome


async def apply_in(parts: Parts, connection: Connection, configuration: Configuration, *, applied: bool) -> Outcome:
    """Make the changes inside the caller's transaction; whoever else applies waits for its end. Raises as `apply` does."""
    await database.lock(connection, database.APPLY_LOCK)
    named = frozenset((tenant.id, spec.name) for tenant in configuration.tenants for spec in tenant.connections)
    work = _Applying(parts, connection, parts.clock.now(), await _read_state(connection), named=named)
    configuration = _with_kept_accounts(configuration, work.state)
    for destination in configuration.destinations:
        await work.destination(destination)
    for tenant in configuration.tenants:
        await work.tenant(tenant)
    await work.retire_strangers(configuration)
    work.mistakes.refuse_any()
    left_alone = _left_alone(work.state, configuration)
    return Outcome(tuple(work.changes), tuple(work.warnings), left_alone, applied, tuple(work.bridges))


@dataclass(frozen=True, slots=True)
class _State:
    """What the database has, by name."""

    tenants: dict[str, str]
    destinations: dict[str, StoredDestination]
    connections: dict[tuple[str, str], StoredConnection]
    installations: dict[tuple[str, str], StoredInstallation]
    chains: dict[tuple[str, str], list[ScheduledChain]]
    limits: dict[tuple[str, str], tuple[int, RateLimit | None]]


async def _read_state(connection: Connection) -> _State:
    scheduled: dict[tuple[str, str], list[ScheduledChain]] = {}
    for chain in await reports.scheduled_chains(connection):
        scheduled.setdefault((chain.tenant_id, chain.installation), []).append(chain)
    return _State(
        tenants=await directory.tenants(connection),
        destinations={stored.name: stored for stored in await directory.destinations(connection)},
        connections={(stored.tenant_id, stored.name): stored for stored in await directory.connections(connection)},
        installations={(stored.tenant_id, stored.name): stored for stored in await directory.installations(connection)},
        chains=scheduled,
        limits=await directory.account_limits(connection),
    )


def _with_kept_accounts(configuration: Configuration, state: _State) -> Configuration:
    """Return ``configuration`` with the accounts that are there, where it gives none and the same settings tell the same.

    An account keeps the name that it was given first, and with it its chain (SPEC 2.12): by a revision that named it
    otherwise, under a declaration that did not say yet which settings tell it, or by hand.
    """

    def kept(tenant_id: str, spec: ConnectionSpec) -> ConnectionSpec:
        stored = state.connections.get((tenant_id, spec.name))
        if stored is None or spec.account_is_given or (stored.platform or stored.connector) != spec.platform:
            return spec
        told = spec.identity.told_by(spec.settings)
        same = bool(told) and told == spec.identity.told_by(stored.settings)
        return replace(spec, account=stored.account) if same else spec

    tenants = [
        replace(tenant, connections=tuple(kept(tenant.id, spec) for spec in tenant.connections))
        for tenant in configuration.tenants
    ]
    return replace(configuration, tenants=tuple(tenants))


def _left_alone(state: _State, configuration: Configuration) -> tuple[str, ...]:
    named = {f"destination {spec.name}" for spec in configuration.destinations}
    for tenant in configuration.tenants:
        named |= {f"connection {tenant.id}/{spec.name}" for spec in tenant.connections}
        named |= {f"installation {tenant.id}/{spec.name}" for spec in tenant.installations}
    there = [
        *(f"destination {name}" for name in state.destinations),
        *(f"connection {tenant}/{name}" for tenant, name in state.connections),
        *(f"installation {tenant}/{name}" for tenant, name in state.installations),
    ]
    return tuple(thing for thing in there if thing not in named)


@dataclass(slots=True)
class _Applying:
    """One transaction's work."""

    parts: Parts
    connection: Connection
    now: datetime
    state: _State
    changes: list[Change] = field(default_factory=list)
    bridges: list[Bridge] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    mistakes: Mistakes = field(default_factory=Mistakes)
    named: frozenset[tuple[str, str]] = frozenset()
    changed_connections: set[tuple[str, str]] = field(default_factory=set)
    renewed_connections: set[tuple[str, str]] = field(default_factory=set)

    async def destination(self, spec: DestinationSpec) -> None:
        stored = self.state.destinations.get(spec.name)
        if stored and stored.kind != spec.kind:
            problem = f"cannot take the place of {stored.kind}, for which batches may still wait"
            remedy = "Give the new destination another name, and the installations that name."
            self.mistakes.add(InvalidInput(f"destinations.{spec.name}.kind", spec.kind, problem, remedy))
        sealed_for = directory.destination_place(spec.name)
        before = {"kind": stored.kind, **under("settings.", stored.settings)} if stored else {}
        fields = differences(before, {"kind": spec.kind, **under("settings.", spec.settings)})
        known = self._opened(stored.sealed, sealed_for) if stored else {}
        fields += secret_differences(known, spec.secrets)
        fingerprint = self.parts.sealer.fingerprint(spec.kind, spec.settings, spec.secrets)
        if stored and stored.fingerprint == fingerprint and not fields:
            return
        if (
            stored
            and known is not None
            and address_of(stored.settings, known) != address_of(spec.settings, spec.secrets)
        ):
            self.warnings.append(
                f"destination {spec.name}: what was delivered until now stays where it was, and so may a part of what a run "
                f"at work delivers. {BRINGS_OVER.get(spec.kind, '')}".rstrip()
            )
        sealed = self.parts.sealer.seal(spec.secrets, sealed_for)
        await directory.put_destination(
            self.connection, StoredDestination(0, spec.name, spec.kind, spec.settings, sealed, fingerprint)
        )
        self._note("destination", spec.name, fields, new=stored is None)

    async def tenant(self, spec: TenantSpec) -> None:
        name = spec.name if spec.name is not None else self.state.tenants.get(spec.id, "")
        if self.state.tenants.get(spec.id) != name:
            before = {"name": self.state.tenants[spec.id]} if spec.id in self.state.tenants else {}
            await directory.put_tenant(self.connection, spec.id, name, self.now)
            self._note("tenant", spec.id, differences(before, {"name": name}), new=not before)
        for connection in spec.connections:
            await self._connection(spec.id, connection)
        accounts = {made.name: (made.platform, made.account) for made in spec.connections}
        for installation in spec.installations:
            await self._installation(spec.id, installation, accounts[installation.connection])

    async def _connection(self, tenant_id: str, written: ConnectionSpec) -> None:
        spec = self._with_limits(written)
        stored = self.state.connections.get((tenant_id, spec.name))
        place = directory.connection_place(tenant_id, spec.name)
        fields = differences(connection_fields(stored) if stored else {}, spec_fields(spec))
        fields += secret_differences(self._opened(stored.sealed, place) if stored else {}, spec.secrets)
        fingerprint = self.parts.sealer.fingerprint(spec.connector, spec.settings, spec.secrets)
        if stored and stored.fingerprint == fingerprint and not fields:
            return
        await directory.put_connection(
            self.connection,
            StoredConnection(
                id=0, tenant_id=tenant_id, name=spec.name, connector=spec.connector, account=spec.account,
                concurrency_limit=spec.concurrency, settings=spec.settings,
                sealed=self.parts.sealer.seal(spec.secrets, place), fingerprint=fingerprint, unauthorised_at=None,
                unauthorised_reason="", platform=spec.platform, rate_limit=spec.rate_limit,
                own_concurrency_limit=spec.own_concurrency,
            ),
        )  # fmt: skip
        self.changed_connections.add((tenant_id, spec.name))
        if stored is None or stored.fingerprint != fingerprint:
            self.renewed_connections.add((tenant_id, spec.name))
        self._note_limits(f"{tenant_id}/{spec.name}", stored, spec)
        if stored is not None and stored.account == spec.account:
            self._warn_of_the_same_account(f"{tenant_id}/{spec.name}", stored, spec)
        self._note("connection", f"{tenant_id}/{spec.name}", fields, new=stored is None)

    def _with_limits(self, spec: ConnectionSpec) -> ConnectionSpec:
        """Return a connection with the limits of its platform account as they are to be: those that are not written stay."""
        concurrency, rate_limit = self.state.limits.get(
            (spec.platform, spec.account), (spec.concurrency, spec.rate_limit)
        )
        return replace(
            spec,
            concurrency=spec.concurrency if "concurrency" in spec.given else concurrency,
            rate_limit=spec.rate_limit if "rate_limit" in spec.given or rate_limit is None else rate_limit,
        )

    def _note_limits(self, name: str, stored: StoredConnection | None, spec: ConnectionSpec) -> None:
        """Note the limits that a connection gives to its platform account, and warn of others whose limits they are too."""
        account = (spec.platform, spec.account)
        before = self.state.limits.get(account)
        self.state.limits[account] = (spec.concurrency, spec.rate_limit)
        if before is None or before == self.state.limits[account]:
            return
        if stored is None or (stored.platform, stored.account) != account:
            fields = differences(limit_fields(*before), limit_fields(spec.concurrency, spec.rate_limit))
            self._note("account", spec.account, fields, new=False)
        others = [
            f"{each.tenant_id}/{each.name}"
            for each in self.state.connections.values()
            if (each.platform, each.account) == account and (each.tenant_id, each.name) not in self.named
        ]
        if others:
            self.warnings.append(f"{name} sets limits of {spec.account} that hold for {', '.join(others)} too.")

    def _warn_of_the_same_account(self, name: str, stored: StoredConnection, spec: ConnectionSpec) -> None:
        """Warn if settings have changed that may lead to another platform account, and the account has not (SPEC 2.12)."""
        told = spec.identity.told_by(spec.settings)
        if told and told == spec.identity.told_by(stored.settings):
            return
        changed = [made.field for made in differences(dict(stored.settings), dict(spec.settings), "settings.")]
        if changed:
            self.warnings.append(
                f"{name}: {', '.join(changed)} changed, and the account is still {spec.account}: its ledger goes on, and "
                "what is older than its watermark is not fetched. If this is another platform account, give the connection "
                "another `account:`."
            )

    async def _installation(self, tenant_id: str, spec: InstallationSpec, account: tuple[str, str]) -> None:
        stored = self.state.installations.get((tenant_id, spec.name))
        name = f"{tenant_id}/{spec.name}"
        there = self.state.chains.get((tenant_id, spec.name), [])
        kept = {
            chain.stream: chain
            for chain in there
            if (chain.connector, chain.account) == account and chain.stream in spec.streams
        }
        new_streams = [stream for stream in spec.streams if stream not in kept]
        fields = differences(installation_fields(stored) if stored else {}, installation_fields(spec))
        if stored is None:
            fields += differences({}, {"streams": list(spec.streams), **under("schedule.", spec.schedule.as_json())})
            fields += own_schedule_fields(spec, spec.streams)
        if fields:
            self._note("installation", name, fields, new=stored is None)
        if stored is not None and stored.destination != spec.destination:
            self.warnings.append(f"{name}: what was delivered until now stays in {stored.destination}.")
        edits = RuleEdits(
            self.connection, self.now, self.mistakes, self.warnings, spec.path, name, spec.own_schedules.keys()
        )
        if fields or new_streams:
            await self._add_streams(tenant_id, spec, new_streams, edits, told=stored is not None)
        for chain in kept.values():
            await edits.edit(chain, spec.schedule_of(chain.stream))
        self.changes += edits.changes()
        self.bridges += edits.bridges
        await self._retire(name, [chain for chain in there if kept.get(chain.stream) is not chain])
        await self._pause_or_resume(tenant_id, spec, stored)

    async def _add_streams(
        self, tenant_id: str, spec: InstallationSpec, streams: Sequence[str], edits: RuleEdits, *, told: bool
    ) -> None:
        installation_id, account_id = await directory.put_installation(
            self.connection, tenant_id, spec.name, spec.connection, spec.destination, spec.pause_after_failing_days
        )
        for stream in streams:
            started = spec.schedule_of(stream).started(self.now)
            chain_id, new = await chains.ensure(
                self.connection, tenant_id, installation_id, PLAIN_SYNC.name, stream, account_id, start_instant(started)
            )
            await edits.begin(chain_id, stream, started, new=new)
        if streams and told:
            fields = tuple(own_schedule_fields(spec, streams))
            self.changes.append(Change(Action.ADDED, "stream", f"{tenant_id}/{spec.name}", fields, tuple(streams)))

    async def _retire(self, name: str, those: Sequence[ScheduledChain]) -> None:
        """Plan nothing more for chains that are not wanted any more, and drop what has not started."""
        if not those:
            return
        ids = [chain.chain_id for chain in those]
        await schedules.remove(self.connection, ids)
        await runs.drop_waiting(self.connection, ids, self.now)
        for account in dict.fromkeys(chain.account for chain in those):
            streams = tuple(chain.stream for chain in those if chain.account == account)
            fields = (FieldChange("account", account, None),)
            self.changes.append(Change(Action.RETIRED, "stream", name, fields, streams))

    async def _pause_or_resume(self, tenant_id: str, spec: InstallationSpec, stored: StoredInstallation | None) -> None:
        name = f"{tenant_id}/{spec.name}"
        paused, reason = (stored.paused_at is not None, stored.paused_reason) if stored else (False, "")
        refused = stored is not None and stored.paused_by is PausedBy.UNAUTHORISED
        renewed = (tenant_id, spec.connection) in self.renewed_connections
        resumes = spec.paused is not True and paused and (renewed if refused else spec.paused is False)
        if resumes:
            await installations.resume_in(self.connection, tenant_id, spec.name, self.now)
            self._note("installation", name, [FieldChange("paused", reason, False)], new=False)
        elif paused or spec.paused is True:  # streams added to a paused installation are paused too
            why = "paused in the configuration"
            by = stored.paused_by if stored and stored.paused_by and not spec.paused else PausedBy.PERSON
            await installations.pause_in(self.connection, tenant_id, spec.name, why, self.now, by)
            if not paused or (stored is not None and stored.paused_by is not by):
                self._note("installation", name, [FieldChange("paused", reason or False, why)], new=False)
            elif spec.paused is False or (renewed and by is PausedBy.FAILING):
                first = "renew its connection, or " if refused else ""
                self.warnings.append(f"{name} stays paused ({reason}): {first}`tidegate resume {name}`.")

    async def retire_strangers(self, configuration: Configuration) -> None:
        """Look after installations that share a changed connection and are not in the files.

        They resume if the connection's refusal had paused them; if it points at another platform account now, their
        chains end, for what they would fetch is not theirs (SPEC 2.12).
        """
        named = {(tenant.id, spec.name) for tenant in configuration.tenants for spec in tenant.installations}
        now_at = {
            (t.id, spec.name): (spec.platform, spec.account) for t in configuration.tenants for spec in t.connections
        }
        for (tenant_id, name), stored in self.state.installations.items():
            key = (tenant_id, stored.connection)
            if (tenant_id, name) in named or key not in self.changed_connections:
                continue
            there = self.state.chains.get((tenant_id, name), [])
            stale = [chain for chain in there if (chain.connector, chain.account) != now_at[key]]
            await self._retire(f"{tenant_id}/{name}", stale)
            if stale:
                self.warnings.append(
                    f"{tenant_id}/{name} uses {stored.connection} too: apply it to go on with the new account."
                )
            if stored.paused_by is PausedBy.UNAUTHORISED and key in self.renewed_connections:
                await installations.resume_in(self.connection, tenant_id, name, self.now)
                self._note(
                    "installation",
                    f"{tenant_id}/{name}",
                    [FieldChange("paused", stored.paused_reason, False)],
                    new=False,
                )

    def _opened(self, sealed: bytes, place: str) -> dict[str, str] | None:
        try:
            return self.parts.sealer.unseal(sealed, place)
        except InvalidInput:
            return None  # sealed under another key: this apply seals them anew

    def _note(self, kind: str, name: str, fields: Sequence[FieldChange], *, new: bool) -> None:
        told = tuple(fields) or (FieldChange("secrets", None, "sealed under another key"),)
        self.changes.append(Change(Action.ADDED if new else Action.CHANGED, kind, name, told))
