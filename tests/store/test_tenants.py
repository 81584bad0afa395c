"""Tenants are kept apart by foreign keys (SPEC 1): whatever the code does, the database refuses what would mix them."""

from __future__ import annotations

import asyncpg
import pytest

from tests.store.rows import CHAIN, DESTINATION, INSTALLATION, TENANT, Connection, on
from tidegate.store import directory


def test_a_tenant_cannot_use_another_tenants_connection(database_url: str) -> None:
    """The foreign key refuses it; with it dropped it would be accepted."""

    async def story(connection: Connection) -> None:
        theirs = await connection.fetchval(TENANT, "globex")
        await connection.fetchval(TENANT, "acme")
        target = await connection.fetchval(DESTINATION)
        with pytest.raises(asyncpg.ForeignKeyViolationError, match="installations_tenant_id_connection_id_fkey"):
            await connection.fetchval(INSTALLATION, "acme", "sync", theirs, target)
        await connection.execute("alter table installations drop constraint installations_tenant_id_connection_id_fkey")
        await connection.fetchval(INSTALLATION, "acme", "sync", theirs, target)

    on(database_url, story)


def test_a_tenant_cannot_have_a_chain_of_another_tenants_installation(database_url: str) -> None:
    """The foreign key refuses it; with it dropped it would be accepted."""

    async def story(connection: Connection) -> None:
        theirs = await connection.fetchval(TENANT, "globex")
        await connection.fetchval(TENANT, "acme")
        target = await connection.fetchval(DESTINATION)
        installation = await connection.fetchval(INSTALLATION, "globex", "sync", theirs, target)
        with pytest.raises(asyncpg.ForeignKeyViolationError, match="chains_tenant_id_installation_id_fkey"):
            await connection.fetchval(CHAIN, "acme", installation)
        await connection.execute("alter table chains drop constraint chains_tenant_id_installation_id_fkey")
        await connection.fetchval(CHAIN, "acme", installation)

    on(database_url, story)


def test_a_connection_of_the_same_name_is_the_tenants_own(database_url: str) -> None:
    """Names are resolved inside the tenant: never another's connection, and never one at all if it has none."""

    async def story(connection: Connection) -> None:
        theirs = await connection.fetchval(TENANT, "globex")
        await connection.execute("insert into tenants (id, created_at) values ('acme', now())")
        await connection.fetchval(DESTINATION)
        with pytest.raises(LookupError, match="tenant acme has no connection shop"):
            await directory.put_installation(connection, "acme", "sync", "shop", "rows")
        assert await directory.connections_by_id(connection, [("acme", theirs)]) == []
        installation, _ = await directory.put_installation(connection, "globex", "sync", "shop", "rows")
        used = await connection.fetchval("select connection_id from installations where id = $1", installation)
        assert used == theirs

    on(database_url, story)
