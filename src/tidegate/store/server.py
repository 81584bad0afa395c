"""The PostgreSQL server itself: what it says of its version, clock, durability, room for connections and our schema."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.store.database import SCHEMA

if TYPE_CHECKING:
    from tidegate.store.database import Connection, Pool


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the database says of itself; ``now`` is its own clock.

    ``unsafe``: settings that may undo a commit, by name and value. ``room``: connections that may still be opened to this
    database by this user, of ``most``. ``migrations``: names of those that have run, None if there is no schema.
    """

    version: str
    now: datetime
    unsafe: tuple[tuple[str, str], ...]
    room: int
    most: int
    migrations: tuple[str, ...] | None


_FACTS = """
with limits as (
    select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true), '0')::int as of_server,
           (select datconnlimit from pg_database where datname = current_database()) as of_database,
           (select rolconnlimit from pg_roles where rolname = current_user) as of_user
),
used as (
    select count(*) as on_server, count(*) filter (where datname = current_database()) as on_database,
           count(*) filter (where usename = current_user) as by_user
      from pg_stat_activity where backend_type = 'client backend'
)
select current_setting('server_version') as version, clock_timestamp() as now,
       array(select name || '=' || setting from pg_settings
              where (name in ('fsync', 'full_page_writes', 'synchronous_commit') and setting = 'off')) as unsafe,
       least(of_server - on_server,
             case when of_database >= 0 then of_database - on_database end,
             case when of_user >= 0 then of_user - by_user end) as room,
       least(of_server, nullif(of_database, -1), nullif(of_user, -1)) as most,
       to_regclass($1) is not null as has_schema
  from limits, used
"""


async def server_facts(connection: Connection | Pool) -> ServerFacts:
    """Return what the server says; needs no schema and no special rights."""
    row = await connection.fetchrow(_FACTS, f"{SCHEMA}.migrations")
    assert row is not None
    migrations = None
    if row["has_schema"]:
        names = await connection.fetch(f"select name from {SCHEMA}.migrations order by name")
        migrations = tuple(each["name"] for each in names)
    unsafe = tuple((name, value) for name, _, value in (each.partition("=") for each in row["unsafe"]))
    return ServerFacts(row["version"], row["now"], unsafe, row["room"], row["most"], migrations)
