"""Tables `tenants`, `accounts`, `connections`, `destinations`, `installations`: who syncs what to where.

Every query on a tenant's rows takes the tenant's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from tidegate.domain.capacity import RateLimit
from tidegate.domain.failing import PausedBy
from tidegate.store.database import from_json, to_json

if TYPE_CHECKING:
    import asyncpg

    from tidegate.store.database import Connection, Pool


class StoredConnection(msgspec.Struct, frozen=True):
    """A connection as stored: ``sealed`` opens with the Sealer for the place ``connection/<tenant>/<name>``.

    ``connector`` is a name, or where its file lies; ``platform`` the name that the connector gives itself, if another.
    ``concurrency_limit`` and ``rate_limit`` are its platform account's; ``own_concurrency_limit`` is this connection's.
    """

    id: int
    tenant_id: str
    name: str
    connector: str
    account: str
    concurrency_limit: int
    settings: Mapping[str, Any]
    sealed: bytes
    fingerprint: str
    unauthorised_at: datetime | None
    unauthorised_reason: str
    platform: str = ""
    rate_limit: RateLimit | None = None
    own_concurrency_limit: int | None = None
    account_id: int = 0

    @property
    def place(self) -> str:
        """Return what its secrets are sealed for."""
        return connection_place(self.tenant_id, self.name)


@dataclass(frozen=True, slots=True)
class StoredDestination:
    """A destination as stored: ``sealed`` opens for the place ``destination/<name>``."""

    id: int
    name: str
    kind: str
    settings: Mapping[str, Any]
    sealed: bytes
    fingerprint: str


@dataclass(frozen=True, slots=True)
class StoredInstallation:
    """An installation as stored."""

    id: int
    tenant_id: str
    name: str
    connection: str
    destination: str
    paused_at: datetime | None
    paused_reason: str
    paused_by: PausedBy | None
    pause_after_failing_days: int | None


def connection_place(tenant_id: str, name: str) -> str:
    """Return what a connection's secrets are sealed for."""
    return f"connection/{tenant_id}/{name}"


def destination_place(name: str) -> str:
    """Return what a destination's secrets are sealed for."""
    return f"destination/{name}"


async def tenants(connection: Connection | Pool) -> dict[str, str]:
    """Return the tenants' names by id."""
    return {row["id"]: row["name"] for row in await connection.fetch("select id, name from tenants order by id")}


async def put_tenant(connection: Connection, tenant_id: str, name: str, now: datetime) -> None:
    """Insert a tenant or rename it."""
    await connection.execute(
        """insert into tenants (id, name, created_at) values ($1, $2, $3)
           on conflict (id) do update set name = excluded.name""",
        tenant_id, name, now,
    )  # fmt: skip


_CONNECTION = """
select n.id, n.tenant_id, n.name, n.connector, a.connector as platform, a.name as account, a.concurrency_limit,
       a.id as account_id, a.rate_per_second, a.rate_burst, n.concurrency_limit as own_concurrency_limit,
       n.settings::text as settings,
       n.sealed, n.fingerprint, n.unauthorised_at, n.unauthorised_reason
  from connections n join accounts a on a.id = n.account_id
"""


async def connections(connection: Connection | Pool, tenant_id: str | None = None) -> list[StoredConnection]:
    """Return the connections of one tenant, or of all."""
    rows = await connection.fetch(
        _CONNECTION + " where $1::text is null or n.tenant_id = $1 order by n.tenant_id, n.name", tenant_id
    )
    return [_connection(row) for row in rows]


async def connections_by_id(connection: Connection | Pool, wanted: Sequence[tuple[str, int]]) -> list[StoredConnection]:
    """Return the connections (tenant id, connection id), each only if it is that tenant's."""
    rows = await connection.fetch(
        _CONNECTION
        + " join unnest($1::text[], $2::bigint[]) as w(tenant_id, id) on w.tenant_id = n.tenant_id and w.id = n.id",
        [tenant_id for tenant_id, _ in wanted], [connection_id for _, connection_id in wanted],
    )  # fmt: skip
    return [_connection(row) for row in rows]


def _connection(row: asyncpg.Record) -> StoredConnection:
    per_second, burst = row["rate_per_second"], row["rate_burst"]
    return StoredConnection(
        id=row["id"], tenant_id=row["tenant_id"], name=row["name"], connector=row["connector"], account=row["account"],
        concurrency_limit=row["concurrency_limit"], settings=from_json(row["settings"]), sealed=row["sealed"],
        fingerprint=row["fingerprint"], unauthorised_at=row["unauthorised_at"],
        unauthorised_reason=row["unauthorised_reason"], platform=row["platform"],
        rate_limit=None if per_second is None else RateLimit(per_second, burst),
        own_concurrency_limit=row["own_concurrency_limit"], account_id=row["account_id"],
    )  # fmt: skip


async def account_limits(connection: Connection | Pool) -> dict[tuple[str, str], tuple[int, RateLimit | None]]:
    """Return (runs at once, rate or None) of each platform account, by its connector's own name and its name."""
    rows = await connection.fetch(
        "select connector, name, concurrency_limit, rate_per_second, rate_burst from accounts"
    )
    return {
        (row["connector"], row["name"]): (
            row["concurrency_limit"],
            None if row["rate_per_second"] is None else RateLimit(row["rate_per_second"], row["rate_burst"]),
        )
        for row in rows
    }


async def put_connection(connection: Connection, stored: StoredConnection) -> None:
    """Insert or replace a connection by (tenant, name) and its platform account's limits; its id fields are ignored.

    Changed settings or secrets, and nothing else, clear an earlier mark of being unauthorised.
    """
    account_id: int = await connection.fetchval(
        """insert into accounts (connector, name, concurrency_limit, rate_per_second, rate_burst)
           values ($1, $2, $3, $4, $5)
           on conflict (connector, name) do update
              set concurrency_limit = excluded.concurrency_limit, rate_per_second = excluded.rate_per_second,
                  rate_burst = excluded.rate_burst
           returning id""",
        stored.platform or stored.connector, stored.account, stored.concurrency_limit,
        stored.rate_limit.per_second if stored.rate_limit else None, stored.rate_limit.burst if stored.rate_limit else 1,
    )  # fmt: skip
    await connection.execute(
        """insert into connections (tenant_id, name, connector, account_id, settings, sealed, fingerprint, concurrency_limit)
           values ($1, $2, $3, $4, $5::text::jsonb, $6, $7, $8)
           on conflict (tenant_id, name) do update
              set connector = excluded.connector, account_id = excluded.account_id, settings = excluded.settings,
                  sealed = excluded.sealed, fingerprint = excluded.fingerprint,
                  concurrency_limit = excluded.concurrency_limit,
                  unauthorised_at = case when connections.fingerprint = excluded.fingerprint
                                         then connections.unauthorised_at end,
                  unauthorised_reason = case when connections.fingerprint = excluded.fingerprint
                                             then connections.unauthorised_reason else '' end""",
        stored.tenant_id, stored.name, stored.connector, account_id, to_json(stored.settings), stored.sealed,
        stored.fingerprint, stored.own_concurrency_limit,
    )  # fmt: skip


async def mark_unauthorised(
    connection: Connection, connection_id: int, fingerprint: str, reason: str, now: datetime
) -> list[int] | None:
    """Mark a connection as refused by its source and pause its installations; return the chains to stop planning for.

    None, and nothing is marked, if its settings or secrets are not those of ``fingerprint`` any more: others were refused.
    """
    status = await connection.execute(
        "update connections set unauthorised_at = $2, unauthorised_reason = $3 where id = $1 and fingerprint = $4",
        connection_id,
        now,
        reason,
        fingerprint,
    )
    if status != "UPDATE 1":
        return None
    rows = await connection.fetch(
        """with paused as (
               update installations set paused_at = coalesce(paused_at, $2),
                      paused_by = case when paused_at is null then 'unauthorised' else paused_by end,
                      paused_reason = case when paused_at is null then $3 else paused_reason end
                where connection_id = $1 returning id)
           select c.id from chains c join paused p on p.id = c.installation_id""",
        connection_id, now, f"unauthorised: {reason}",
    )  # fmt: skip
    return [row["id"] for row in rows]


_DESTINATION = "select id, name, kind, settings::text as settings, sealed, fingerprint from destinations"


async def destinations(connection: Connection | Pool) -> list[StoredDestination]:
    """Return all destinations."""
    return [_destination(row) for row in await connection.fetch(_DESTINATION + " order by name")]


async def destination_by_id(connection: Connection | Pool, destination_id: int) -> StoredDestination:
    """Return one destination. Raises LookupError if there is none of that id."""
    row = await connection.fetchrow(_DESTINATION + " where id = $1", destination_id)
    if row is None:
        raise LookupError(f"there is no destination {destination_id}")
    return _destination(row)


def _destination(row: asyncpg.Record) -> StoredDestination:
    return StoredDestination(**{**dict(row), "settings": from_json(row["settings"])})


async def put_destination(connection: Connection, stored: StoredDestination) -> None:
    """Insert or replace a destination by name; its id field is ignored."""
    await connection.execute(
        """insert into destinations (name, kind, settings, sealed, fingerprint) values ($1, $2, $3::text::jsonb, $4, $5)
           on conflict (name) do update set kind = excluded.kind, settings = excluded.settings, sealed = excluded.sealed,
                                            fingerprint = excluded.fingerprint""",
        stored.name, stored.kind, to_json(stored.settings), stored.sealed, stored.fingerprint,
    )  # fmt: skip


_INSTALLATION = """
select i.id, i.tenant_id, i.name, n.name as connection, d.name as destination, i.paused_at, i.paused_reason,
       i.paused_by, i.pause_after_failing_days
  from installations i join connections n on n.id = i.connection_id join destinations d on d.id = i.destination_id
"""


async def installations(
    connection: Connection | Pool, tenant_id: str | None = None, name: str | None = None
) -> list[StoredInstallation]:
    """Return the installations of one tenant, or of all; of that name, or all."""
    rows = await connection.fetch(
        _INSTALLATION
        + """ where ($1::text is null or i.tenant_id = $1) and ($2::text is null or i.name = $2)
              order by i.tenant_id, i.name""",
        tenant_id, name,
    )  # fmt: skip
    return [
        StoredInstallation(**{**dict(row), "paused_by": PausedBy(row["paused_by"]) if row["paused_by"] else None})
        for row in rows
    ]


async def put_installation(
    connection: Connection,
    tenant_id: str,
    name: str,
    connection_name: str,
    destination_name: str,
    pause_after_failing_days: int | None = None,
) -> tuple[int, int]:
    """Insert or re-point an installation; return (its id, its connection's platform account id)."""
    row = await connection.fetchrow(
        """insert into installations (tenant_id, name, connection_id, destination_id, pause_after_failing_days)
           select $1, $2, n.id, d.id, $5 from connections n, destinations d
            where n.tenant_id = $1 and n.name = $3 and d.name = $4
           on conflict (tenant_id, name) do update
              set connection_id = excluded.connection_id, destination_id = excluded.destination_id,
                  pause_after_failing_days = excluded.pause_after_failing_days
           returning id, (select account_id from connections where id = connection_id) as account_id""",
        tenant_id, name, connection_name, destination_name, pause_after_failing_days,
    )  # fmt: skip
    if row is None:
        raise LookupError(
            f"tenant {tenant_id} has no connection {connection_name}, or there is no destination {destination_name}"
        )
    return row["id"], row["account_id"]


async def account_of(connection: Connection, installation_id: int) -> int:
    """Return the id of the platform account that an installation's connection points at."""
    found: int = await connection.fetchval(
        "select n.account_id from installations i join connections n on n.id = i.connection_id where i.id = $1",
        installation_id,
    )
    return found


async def clear_unauthorised(connection: Connection, tenant_id: str, name: str) -> None:
    """Forget that a connection was refused by its source: it may try again."""
    await connection.execute(
        "update connections set unauthorised_at = null, unauthorised_reason = '' where tenant_id = $1 and name = $2",
        tenant_id,
        name,
    )


async def hold_installation(
    connection: Connection, tenant_id: str, name: str, *, with_connection: bool = False
) -> None:
    """Keep others from pausing or resuming an installation until the transaction ends, and before it from changing its
    connection if asked: in the order in which a refusal takes them.
    """
    if with_connection:
        await connection.execute(
            """select 1 from connections where id = (
                      select connection_id from installations where tenant_id = $1 and name = $2) for no key update""",
            tenant_id, name,
        )  # fmt: skip
    await connection.execute(
        "select 1 from installations where tenant_id = $1 and name = $2 for no key update", tenant_id, name
    )


async def set_paused(
    connection: Connection, installation_id: int, paused_at: datetime, by: PausedBy, reason: str
) -> None:
    """Mark an installation as paused, by whom and why."""
    await connection.execute(
        "update installations set paused_at = $2, paused_by = $3, paused_reason = $4 where id = $1",
        installation_id,
        paused_at,
        by,
        reason,
    )


async def set_resumed(connection: Connection, installation_id: int) -> None:
    """Mark an installation as not paused."""
    await connection.execute(
        "update installations set paused_at = null, paused_by = '', paused_reason = '' where id = $1", installation_id
    )


async def authorised_again(connection: Connection | Pool) -> list[tuple[str, str]]:
    """Return (tenant id, name) of installations paused by a refusal whose connection is not refused any more."""
    rows = await connection.fetch(
        """select i.tenant_id, i.name from installations i join connections n on n.id = i.connection_id
            where i.paused_at is not null and i.paused_by = 'unauthorised' and n.unauthorised_at is null"""
    )
    return [(row["tenant_id"], row["name"]) for row in rows]
