"""Moving: an installation leaves one server as a file and goes on at another, exactly where it stopped.

The file holds no secrets: it names the environment variables that the importing side takes them from, as a configuration
does. What it holds stands in docs/reference/export.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tidegate.domain.errors import InvalidInput
from tidegate.domain.failing import PausedBy
from tidegate.domain.instant import render_instant
from tidegate.domain.run import RunState
from tidegate.domain.schedule import next_due
from tidegate.domain.schedule_document import parse_schedule
from tidegate.domain.workflow import PLAIN_SYNC
from tidegate.engine.commands import installations
from tidegate.engine.configuring import applying
from tidegate.engine.configuring.changes import Action, Outcome
from tidegate.engine.configuring.configuration import in_writing, load
from tidegate.engine.configuring.document import DocumentFile, variable_name
from tidegate.engine.configuring.specs import Configuration
from tidegate.engine.parts import Parts
from tidegate.store import chains, database, directory, moves, schedules
from tidegate.store.directory import StoredConnection, StoredInstallation
from tidegate.store.moves import MovedChain
from tidegate.store.schedules import Move

if TYPE_CHECKING:
    from tidegate.store.database import Connection


class Exported(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. ``configuration`` is what `tidegate apply` reads; ``variables`` is the place for what runs remember.

    ``has_tokens``: its connection has renewed OAuth tokens; they stay behind, and the new server is authorised anew.
    ``dead_records``: records of covered periods that are in the dead letter; they stay behind too.
    """

    tidegate_export: Literal[1]
    exported_at: datetime
    tenant: str
    installation: str
    configuration: dict[str, Any]
    chains: list[MovedChain]
    variables: dict[str, Any] = msgspec.field(default_factory=dict)
    has_tokens: bool = False
    dead_records: int = 0


async def export(
    parts: Parts, tenant_id: str, installation: str, file: Path, *, with_quarantine: bool = False
) -> Exported:
    """Write an installation into ``file`` and pause it here, as exported; return what was written.

    Runs that wait for another attempt end, and what they did not cover is the other server's. The file is complete before
    the pause commits, and appears after it: the two servers never both run. Raises InvalidInput if a run is at work, if
    ``file`` exists, or the key does not open the secrets (their names are needed).
    """
    _require_free(file)
    draft = file.with_name(f"{file.name}.partial")
    now = parts.clock.now()
    try:
        async with parts.pool.acquire() as connection, connection.transaction():
            await database.lock(connection, database.APPLY_LOCK)
            found = await _stopped(connection, tenant_id, installation, now)
            read = await moves.read_chains(connection, found.id, with_quarantine=with_quarantine)
            document = await _configuration(parts, connection, found, read)
            tokens = await moves.has_tokens(connection, found.id)
            read = [_without_secrets(parts, chain) for chain in read]
            dead = await moves.dead_records(connection, found.id)
            exported = Exported(1, now, tenant_id, installation, document, read, has_tokens=tokens, dead_records=dead)
            _write(draft, msgspec.json.format(msgspec.json.encode(exported), indent=1))
        os.replace(draft, file)
    finally:
        with suppress(OSError):  # where it cannot be written, it is not there either
            draft.unlink(missing_ok=True)
    return exported


def _without_secrets(parts: Parts, chain: MovedChain) -> MovedChain:
    """Return a chain whose dropped records' reasons, which may repeat what a source sent, hide the secrets known by now."""
    hide = parts.mask.text
    return replace(chain, dropped=tuple(replace(each, reason=hide(each.reason)) for each in chain.dropped))


def _require_free(file: Path) -> None:
    if file.exists():
        raise InvalidInput("output", str(file), "exists", "Give a name that is free.")
    if not file.absolute().parent.is_dir():
        raise InvalidInput("output", str(file), "is in no directory that exists", "Make the directory first.")


async def _stopped(connection: Connection, tenant_id: str, installation: str, now: datetime) -> StoredInstallation:
    """Pause an installation as exported. Raises InvalidInput if it is not there, or a run of it is at work."""
    await installations.pause_in(connection, tenant_id, installation, "", now)
    (found,) = await directory.installations(connection, tenant_id, installation)
    active = await moves.end_retrying(connection, found.id, now)
    if active:
        name = f"{tenant_id}/{installation}"
        run_id, state = active[0]
        if state is RunState.DELIVERING:
            problem = f"has batches that are not acknowledged (run {run_id})"
            remedy = "`tidegate status` says why they are not taken; they are sent again by themselves, and a pause ends none."
            raise InvalidInput("installation", name, problem, remedy)
        remedy = f"Wait for it to end, or `tidegate pause {name}` first so that no other starts."
        raise InvalidInput("installation", name, f"has a run at work (run {run_id})", remedy)
    reason = (
        f"{installations.EXPORTED} at {render_instant(now.replace(microsecond=0))}: it goes on where it is imported"
    )
    await directory.set_paused(connection, found.id, found.paused_at or now, PausedBy.PERSON, reason)
    return found


async def _configuration(
    parts: Parts, connection: Connection, found: StoredInstallation, read: list[MovedChain]
) -> dict[str, Any]:
    """Return what `apply` would read to make the installation, its connection and its destination."""
    (link,) = [
        made for made in await directory.connections(connection, found.tenant_id) if made.name == found.connection
    ]
    (target,) = [made for made in await directory.destinations(connection) if made.name == found.destination]
    planned = [chain for chain in read if chain.rule is not None]
    if not planned:
        name = f"{found.tenant_id}/{found.name}"
        raise InvalidInput("installation", name, "has no stream that is planned", "Apply it with a stream first.")
    connector = f"./{Path(link.connector).name}" if link.connector.endswith((".yaml", ".yml")) else link.connector
    named = _Named()
    return {
        "destinations": {
            target.name: {
                "kind": target.kind,
                "settings": in_writing(target.settings),
                "secrets": named(parts.sealer.unseal(target.sealed, directory.destination_place(target.name)), target.name),
            }
        },
        "tenants": {
            found.tenant_id: {
                **_given(name=(await directory.tenants(connection))[found.tenant_id] or None),
                "connections": {
                    link.name: {
                        "connector": connector,
                        "account": link.account,
                        "concurrency": link.concurrency_limit,
                        **_limits(link),
                        "settings": in_writing(link.settings),
                        "secrets": named(parts.sealer.unseal(link.sealed, link.place), link.name),
                    }
                },
                "installations": {
                    found.name: {
                        "connection": link.name,
                        "destination": target.name,
                        **_schedules(planned),
                        **_given(pause_after_failing_days=found.pause_after_failing_days),
                    }
                },
            }
        },
    }  # fmt: skip


def _limits(link: StoredConnection) -> dict[str, Any]:
    rate = link.rate_limit
    return _given(
        connection_concurrency=link.own_concurrency_limit,
        requests_per_second=rate.per_second if rate else None,
        burst=rate.burst if rate else None,
    )


def _schedules(planned: Sequence[MovedChain]) -> dict[str, Any]:
    """Return the streams and the installation's schedule, the first stream's; others are written with their stream."""
    schedule = planned[0].rule
    own = {chain.stream: {"schedule": chain.rule} if chain.rule != schedule else {} for chain in planned}
    return {"streams": own if any(own.values()) else list(own), "schedule": schedule}


def _given(**values: object) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


class _Named:
    """Returns for each secret the environment variable to take it from, no two from the same one; never its value."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def __call__(self, secrets: Mapping[str, str], owner: str) -> dict[str, str]:
        return {key: "${" + self._free(variable_name(f"{owner}_{key}")) + "}" for key in secrets}

    def _free(self, name: str) -> str:
        names = (f"{name}_{nth}" if nth > 1 else name for nth in count(1))
        free = next(each for each in names if each not in self._taken)
        self._taken.add(free)
        return free


def _write(file: Path, text: bytes) -> None:
    try:
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise InvalidInput("output", str(file), problem, "Give a name in a directory of yours.") from None
    with os.fdopen(opened, "wb") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def read_export(file: Path) -> Exported:
    """Return what an exported file says. Raises InvalidInput if it is none, or of a later version."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Exported)
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidInput(
            "file", str(file), f"is no export that this version reads ({error})", "Give what `tidegate export` wrote."
        ) from None


def _document(exported: Exported, file: Path) -> DocumentFile:
    text = msgspec.json.encode(exported.configuration).decode()
    return DocumentFile(str(file), text, file.absolute().parent)


async def import_(parts: Parts, file: Path, environment: Mapping[str, str]) -> Outcome:
    """Make the installation of an exported ``file`` here, with its coverage, all or nothing; return what was added.

    It goes on at its watermark: due dates missed meanwhile are caught up. Raises InvalidInput if the installation is here
    already, if something of the file's names is here and different, or a variable for a secret is not set.
    """
    exported = read_export(file)
    wanted = await load([_document(exported, file)], environment, parts)
    _require_what_it_names(exported, wanted, file)
    async with parts.pool.acquire() as connection, connection.transaction():
        await database.lock(connection, database.APPLY_LOCK)
        if await directory.installations(connection, exported.tenant, exported.installation):
            name = f"{exported.tenant}/{exported.installation}"
            raise InvalidInput("installation", name, "is here already", "Nothing is imported over it.")
        outcome = await applying.apply_in(parts, connection, wanted, applied=True)
        for change in outcome.changes:
            if change.action is not Action.ADDED:
                fields = ", ".join(field.field for field in change.fields)
                raise InvalidInput(
                    change.kind, change.name, f"is here and different ({fields})", "Make the two the same first."
                )
        try:
            for chain in exported.chains:
                await _put_chain(connection, exported, chain, parts.clock.now())
        except moves.REFUSED as error:
            problem = f"holds a ledger that cannot be ({error})"
            raise InvalidInput("file", str(file), problem, "Give what `tidegate export` wrote, as it is.") from error
    return outcome


def _require_what_it_names(exported: Exported, wanted: Configuration, file: Path) -> None:
    """Raise InvalidInput unless the file holds the one installation that it names, with the ledger of its streams."""
    there = [(tenant.id, spec.name) for tenant in wanted.tenants for spec in tenant.installations]
    streams = {stream for tenant in wanted.tenants for spec in tenant.installations for stream in spec.streams}
    planned = {chain.stream for chain in exported.chains if chain.rule is not None}
    ours = all(chain.workflow == PLAIN_SYNC.name for chain in exported.chains)
    if there != [(exported.tenant, exported.installation)] or streams != planned or not ours:
        problem = "does not hold the installation that it names, and the ledger of each of its streams"
        raise InvalidInput("file", str(file), problem, "Give what `tidegate export` wrote, as it is.")


async def _put_chain(connection: Connection, exported: Exported, chain: MovedChain, now: datetime) -> None:
    (installation,) = await directory.installations(connection, exported.tenant, exported.installation)
    account_id = await directory.account_of(connection, installation.id)
    chain_id, _ = await chains.ensure(
        connection, exported.tenant, installation.id, chain.workflow, chain.stream, account_id, chain.start_at
    )
    await chains.set_start(connection, chain_id, chain.start_at)
    await moves.insert_coverage(connection, chain_id, chain.coverage)
    if chain.last_run is not None:
        await moves.insert_last_run(connection, chain_id, chain.last_run)
    await moves.insert_quarantine(connection, chain_id, chain.quarantine)
    await moves.insert_dropped(connection, chain_id, chain.dropped)
    if chain.rule is not None and chain.received_at is not None:
        after = max([chain.received_at, *(link.period_end for link in chain.coverage[-1:])])
        following = next_due(parse_schedule(chain.rule), after)
        await schedules.put(connection, chain_id, chain.rule, chain.received_at, following)
        await schedules.advance(connection, [Move(chain_id, after, following)])
    await installations.extend_to_start(connection, chain_id, now)
