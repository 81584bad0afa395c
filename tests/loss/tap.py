"""The real destination, overheard: which pages were delivered in which batch, and what the table's own trigger saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from tidegate.destinations.base import DeliveryKey, Destination, Ledger, Target, Turn, Writer, Written
from tidegate.domain.fetch import Page

Pool = asyncpg.Pool


@dataclass(frozen=True)
class Delivered:
    """One batch that committed."""

    key: DeliveryKey
    pages: tuple[Page, ...]


@dataclass
class OverheardDestination:
    """Passes everything on and remembers what committed."""

    destination: Destination
    delivered: list[Delivered] = field(default_factory=list)

    def writer(self, target: Target, run_id: int, epoch: int) -> OverheardWriter:
        return OverheardWriter(self.destination.writer(target, run_id, epoch), self.delivered)

    async def close(self) -> None:
        await self.destination.close()


@dataclass
class OverheardWriter:
    writer: Writer
    delivered: list[Delivered]

    def ready(self, page: Page) -> None:
        self.writer.ready(page)

    async def committed(self) -> bytes | None:
        return await self.writer.committed()

    async def write(
        self, pages: Sequence[Page], key: DeliveryKey, checkpoint: bytes, ledger: Ledger, turn: Turn
    ) -> Written:
        written = await self.writer.write(pages, key, checkpoint, ledger, turn)
        self.delivered.append(Delivered(key, tuple(pages)))
        return written


_AUDIT = """
create schema if not exists loss_audit;
create table if not exists loss_audit.writes (
    id bigint generated always as identity primary key, schema text, ref bigint, revision bigint);
create or replace function loss_audit.note() returns trigger language plpgsql as $$
begin
    insert into loss_audit.writes (schema, ref, revision)
    values (tg_table_schema, new.ref, new.revision);
    return null;
end $$;
create or replace function loss_audit.attach() returns event_trigger language plpgsql as $$
declare made record;
begin
    for made in select * from pg_event_trigger_ddl_commands() loop
        if made.object_identity ~ '^story_[0-9]+[.]hostile_orders$' then
            execute format('create trigger loss_audit after insert or update on %s for each row
                            execute function loss_audit.note()', made.object_identity);
        end if;
    end loop;
end $$;
drop event trigger if exists loss_audit;
create event trigger loss_audit on ddl_command_end when tag in ('CREATE TABLE') execute function loss_audit.attach();
"""
_TABLES = (
    "quarantine", "coverage", "runs", "schedules", "chains", "installations", "connections", "destinations", "accounts",
    "tenants",
)  # fmt: skip


async def audit_writes(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    """Have PostgreSQL itself note every row that is written to a story's table: the destination is not asked."""
    await pool.execute(_AUDIT)


async def clear(pool: asyncpg.Pool[asyncpg.Record], schema: str) -> None:
    """Leave nothing of a story behind."""
    await pool.execute(f"truncate {', '.join(_TABLES)}, loss_audit.writes cascade")
    await pool.execute(f"drop schema if exists {schema} cascade")


async def writes(pool: asyncpg.Pool[asyncpg.Record], schema: str) -> dict[int, list[int]]:
    """The revisions that were written of each record, in order."""
    rows = await pool.fetch("select ref, revision from loss_audit.writes where schema = $1 order by id", schema)
    found: dict[int, list[int]] = {}
    for row in rows:
        found.setdefault(row["ref"], []).append(row["revision"])
    return found
