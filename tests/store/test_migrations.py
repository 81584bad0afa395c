"""Migrations run once, whoever starts first and however often (SPEC 7)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import datetime, timedelta

import asyncpg
import pytest

from tests.store.rows import Connection, chain, on
from tidegate.store import database, ledger, schema

MIGRATE = """
import asyncio, sys
from tidegate.store import database, schema

async def main() -> None:
    pool = await database.open_pool(sys.argv[1], size=1)
    print("connected", flush=True)
    sys.stdin.readline()
    print(",".join(await schema.migrate(pool)) or "nothing", flush=True)
    await pool.close()

asyncio.run(main())
"""


def test_migrating_twice_does_nothing_the_second_time(empty_database_url: str) -> None:
    """SPEC 7: every migration commits with its record."""

    async def twice() -> tuple[list[str], list[str]]:
        pool = await database.open_pool(empty_database_url, size=2)
        try:
            return await schema.migrate(pool), await schema.migrate(pool)
        finally:
            await pool.close()

    first, second = asyncio.run(twice())
    assert first == [name for name, _ in schema.migrations()] + ["pgqueuer"]
    assert second == []


def test_two_processes_migrate_an_empty_database_at_once(empty_database_url: str) -> None:
    """SPEC 7: one migrates, the other waits and finds nothing to do; both end well."""
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, empty_database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in pair:
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
    for process in pair:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = sorted(process.communicate(timeout=60)[0].strip() for process in pair)
    assert [process.returncode for process in pair] == [0, 0]
    assert answers == sorted([",".join([*(name for name, _ in schema.migrations()), "pgqueuer"]), "nothing"])


def test_a_migration_that_fails_leaves_nothing_and_is_tried_again(empty_database_url: str) -> None:
    """SPEC 7: a migration commits with its own record, or not at all."""

    async def story(connection: Connection) -> None:
        await connection.execute("create schema tidegate")
        await connection.execute("create table tidegate.quarantine (in_the_way int)")
        pool = await database.open_pool(empty_database_url, size=2)
        try:
            try:
                await schema.migrate(pool)
            except asyncpg.DuplicateTableError:
                pass
            else:
                raise AssertionError("the migration must fail")
            tables = await connection.fetch("select tablename from pg_tables where schemaname = 'tidegate'")
            assert {row["tablename"] for row in tables} == {"migrations", "quarantine"}
            await connection.execute("drop table tidegate.quarantine")
            assert await schema.migrate(pool)
        finally:
            await pool.close()

    on(empty_database_url, story)


def test_a_ledger_gets_an_id_that_stays_and_knows_whether_older_workers_may_be_left(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 5, `tidegate_commits`: for a day after an upgrade older workers may be, in a fresh database never."""
    newest = schema.migrations()

    async def story(connection: Connection) -> None:
        pool = await database.open_pool(empty_database_url, size=2)
        try:
            monkeypatch.setattr(schema, "migrations", lambda: [one for one in newest if one[0] < "0011"])
            await schema.migrate(pool)
            await chain(connection)
            monkeypatch.setattr(schema, "migrations", lambda: newest)
            await schema.migrate(pool)
            now: datetime = await connection.fetchval("select now()")
            first = await ledger.identity(pool, now)
            assert not first.alone
            assert await ledger.identity(pool, now + timedelta(days=1)) == ledger.Identity(first.id, alone=True)
            await connection.execute(
                "delete from migrations where name = '0011_ledger'; drop table ledger; delete from runs"
            )
            await schema.migrate(pool)
            fresh = await ledger.identity(pool, now)
            assert fresh.alone
            assert fresh.id != first.id
        finally:
            await pool.close()

    on(empty_database_url, story)
