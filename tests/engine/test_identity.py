"""Which platform account a connection links to: another one starts a new chain (SPEC 2.12)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.engine.test_applying import apply, fields_of, told
from tests.engine.world import World, in_world
from tidegate.connectors.registry import find_connector
from tidegate.engine.configuring.identity import Identity

DOCUMENT = """
destinations: {{table: {{kind: postgresql}}}}
tenants:
  acme:
    connections:
      code:
        {account}
        connector: fake
        settings: {{owner: acme, repository: {repository}, labels: {labels}}}
        secrets: {{token: "${{TOKEN}}"}}
    installations:
      sync: {{connection: code, destination: table, streams: [orders], schedule: {{daily: true, start_date: 2026-05-01}}}}
"""
NAMED = {"base_url": "https://api.example.com", "owner": None, "repository": None}


def text(repository: str = "one", labels: str = "all", account: str = "") -> str:
    return DOCUMENT.format(repository=repository, labels=labels, account=account and f"account: {account}")


async def accounts(world: World) -> list[tuple[str, bool]]:
    """Return the accounts of all chains, and whether they are planned."""
    rows = await world.pool.fetch(
        """select a.name, s.chain_id is not null as planned
             from chains c join accounts a on a.id = c.account_id left join schedules s on s.chain_id = c.id
            order by c.id"""
    )
    return [(row["name"], row["planned"]) for row in rows]


def test_another_repository_starts_a_new_chain_from_the_start(database_url: str) -> None:
    """SPEC 2.12: the new one's history below the old watermark has never been fetched."""

    async def story(world: World) -> None:
        world.shop.identity = NAMED
        await apply(world, text("one"))
        world.clock.set(datetime(2026, 7, 14, tzinfo=UTC))
        await world.tick()
        outcome = await apply(world, text("two"))
        assert told(outcome) == [
            ("changed", "connection", "acme/code"),
            ("added", "stream", "acme/sync"),
            ("retired", "stream", "acme/sync"),
        ]
        assert fields_of(outcome.changes[0])["account"] == ("owner=acme repository=one", "owner=acme repository=two")
        assert await accounts(world) == [("owner=acme repository=one", False), ("owner=acme repository=two", True)]
        world.clock.set(datetime(2026, 7, 15, tzinfo=UTC))
        await world.tick()
        assert world.shop.asked[-1].lower == datetime(2026, 5, 1, tzinfo=UTC)

    in_world(database_url, story)


@pytest.mark.parametrize("had", ["acme/code", "acme.example"], ids=["named by the revision before", "named by hand"])
def test_an_account_that_is_there_keeps_its_name_and_chain_when_the_connector_says_its_identity(
    database_url: str, had: str
) -> None:
    """Upgrading, or adding `identity:` to a declaration, re-reads no history; only another account does."""

    async def story(world: World) -> None:
        first = await apply(world, text(account="" if had == "acme/code" else had))
        assert first.warnings == ()
        assert await accounts(world) == [(had, True)]
        world.shop.identity = NAMED
        if had == "acme/code":
            assert told(await apply(world, text())) == []
        outcome = await apply(world, text(labels="bug"))
        assert ([change.kind for change in outcome.changes], outcome.warnings) == (["connection"], ())
        assert await accounts(world) == [(had, True)]
        await apply(world, text("two", labels="bug"))
        assert await accounts(world) == [(had, False), ("owner=acme repository=two", True)]

    in_world(database_url, story)


def test_an_upgrade_and_another_repository_at_once_start_a_new_chain(database_url: str) -> None:
    async def story(world: World) -> None:
        await apply(world, text())
        world.shop.identity = NAMED
        await apply(world, text("two"))
        assert await accounts(world) == [("acme/code", False), ("owner=acme repository=two", True)]

    in_world(database_url, story)


def test_settings_that_may_lead_to_another_account_are_warned_of_where_nothing_tells(database_url: str) -> None:
    """SPEC 2.12: a connector that names no identity, an account that is given by hand."""

    async def story(world: World) -> None:
        await apply(world, text())
        (warning,) = (await apply(world, text("two"))).warnings
        assert warning.startswith("acme/code: settings.repository changed, and the account is still acme/code")
        assert (await apply(world, text("two"), token="another")).warnings == ()
        world.shop.identity = NAMED
        await apply(world, text("two", account="mine"))
        assert (await apply(world, text("two", "bug", account="mine"))).warnings == ()
        (warning,) = (await apply(world, text("three", "bug", account="mine"))).warnings
        assert warning.startswith("acme/code: settings.repository changed, and the account is still mine")

    in_world(database_url, story)


def test_the_shipped_connectors_say_what_tells_their_accounts() -> None:
    """SPEC 2.12: a repository, a shop; Stripe's and HubSpot's accounts are told by the credentials alone."""
    assert find_connector("github").identity == {
        "base_url": "https://api.github.com",
        "owner": None,
        "repository": None,
    }
    assert find_connector("woocommerce").identity == {"base_url": None}
    assert find_connector("shopify").identity == {"shop": None}
    assert [dict(find_connector(name).identity) for name in ("stripe", "hubspot")] == [{}, {}]


@pytest.mark.parametrize(
    ("declared", "given", "account"),
    [
        ({"base_url": None}, {"base_url": "https://shop.example/"}, "https://shop.example"),
        (NAMED, {"owner": "acme", "repository": "one"}, "owner=acme repository=one"),
        (NAMED, {"owner": "a", "repository": "b", "base_url": "https://c"}, "base_url=https://c owner=a repository=b"),
        ({"workspace": "main"}, {}, "main"),
        ({"shop": None}, {"base_url": "https://sandbox.example"}, ""),
        ({}, {"shop": "acme.example", "account": "x"}, "acme.example"),
        ({}, {"base_url": "https://api.example"}, ""),
        ({"shop": None}, {"base_url": "https://sandbox.example", "account": "mine"}, "mine"),
    ],
)
def test_an_account_is_named_after_what_tells_it(
    declared: dict[str, str | None], given: dict[str, object], account: str
) -> None:
    assert Identity.named(declared, given).account(given) == account
