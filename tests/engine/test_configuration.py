"""Reading a configuration: what it may say, and every mistake at once with its place and remedy (SPEC 8)."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest

from tests.engine.doubles import FakeShop
from tests.simulated import SimulatedClock
from tidegate.domain.errors import DestinationUnavailable, InvalidInput
from tidegate.domain.recurrence import Frequency
from tidegate.engine.configuring.configuration import load
from tidegate.engine.configuring.document import DocumentFile, InvalidConfiguration
from tidegate.engine.configuring.specs import Configuration
from tidegate.engine.parts import Parts
from tidegate.store.directory import StoredDestination
from tidegate.store.seal import Sealer

SHOP = """
destinations:
  warehouse: {kind: postgresql, settings: {schema: shop}, secrets: {url: "postgresql://u:${PASSWORD}@h/db"}}
tenants:
  acme:
    name: Acme Ltd
    connections:
      shop: {connector: fake, settings: {base_url: "https://acme.example/api", region: "${REGION}"}, secrets: {token: "${TOKEN}"}}
    installations:
      orders:
        connection: shop
        destination: warehouse
        schedule: {daily: true, time_zone: Europe/London, start_date: 2026-05-01}
"""
ENVIRONMENT = {"TOKEN": "t0p-s3cret", "REGION": "eu", "PASSWORD": "pa55"}


class Closing:
    closed = 0

    async def close(self) -> None:
        Closing.closed += 1


class StrictShop(FakeShop):
    """A shop whose connections need a token."""

    def open(self, connection: Any, session: Any, clock: Any) -> Any:
        if "token" not in connection.secrets:
            raise InvalidInput("secrets.token", "", "is missing", "Give the API token.")
        return self


def parts() -> Parts:
    clock = SimulatedClock()
    shop = StrictShop(clock)

    def connector(name: str) -> Any:
        if name != "fake":
            raise InvalidInput("connector", name, "is unknown", "Did you mean 'fake'?")
        return shop

    async def open_destination(stored: StoredDestination, secrets: dict[str, str]) -> Any:
        if stored.kind != "postgresql":
            raise InvalidInput(f"destinations.{stored.name}.kind", stored.kind, "is not known", "Use postgresql.")
        if secrets:
            raise DestinationUnavailable("no network in this test")
        return Closing()

    nothing = cast(Any, None)
    return Parts(
        pool=nothing, clock=clock, session=nothing, sealer=Sealer(bytes(32)), connector=connector,
        open_destination=open_destination, chance=lambda: 0.5, worker="test",
    )  # fmt: skip


def read(*texts: str, environment: dict[str, str] = ENVIRONMENT) -> Configuration:
    files = [DocumentFile(f"file{number}.yaml", text, Path("/etc/tidegate")) for number, text in enumerate(texts, 1)]
    return asyncio.run(load(files, environment, parts()))


def mistakes(*texts: str, environment: dict[str, str] = ENVIRONMENT) -> dict[str, InvalidInput]:
    """Return the mistakes by field."""
    with pytest.raises(InvalidConfiguration) as caught:
        read(*texts, environment=environment)
    assert all(error.remedy for error in caught.value.errors), "every mistake says what to do"
    return {error.field: error for error in caught.value.errors}


def test_a_whole_document_becomes_values() -> None:
    """SPEC 1, 2.2: references resolved, variables filled in, a date as written, all streams by default."""
    configuration = read(SHOP)
    (tenant,), (destination,) = configuration.tenants, configuration.destinations
    (connection,), (installation,) = tenant.connections, tenant.installations
    assert destination.secrets == {"url": "postgresql://u:pa55@h/db"}
    assert (connection.account, connection.concurrency) == ("acme/shop", 4)
    assert connection.settings == {"base_url": "https://acme.example/api", "region": "eu"}
    assert connection.secrets == {"token": "t0p-s3cret"}
    assert installation.streams == ("orders", "events")
    assert (installation.schedule.recurrence, installation.schedule.start_on) == (Frequency.DAILY, date(2026, 5, 1))
    assert installation.paused is None


def test_secrets_do_not_show_in_the_values_text() -> None:
    """A stray log line or traceback must not carry them."""
    assert "t0p-s3cret" not in repr(read(SHOP))
    assert "pa55" not in repr(read(SHOP))


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ("name: Acme Ltd", r'name: "Ac\0me"', "tenants.acme.name"),
        ('region: "$', r'region: "\0$', "tenants.acme.connections.shop.settings.region"),
        ("region:", r'"re\0gion":', "tenants.acme.connections.shop.settings.re\0gion"),
    ],
)
def test_a_nul_character_is_a_mistake_with_its_line_and_no_trouble_with_the_database(
    before: str, after: str, path: str
) -> None:
    """SPEC 8: bad input exits with 2 and names its place; PostgreSQL would refuse it with words about an encoding."""
    assert before in SHOP
    assert "file1.yaml, line" in mistakes(SHOP.replace(before, after))[path].problem


def test_a_value_that_aliases_make_huge_is_shown_by_its_beginning() -> None:
    """SPEC 8: a mistake is told in a line, whatever ten lines of YAML can blow up to."""
    levels = [
        "a0: &a0 [x, x, x, x]",
        *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 8)),
    ]
    found = mistakes("\n".join(levels))
    assert max(len(error.message) for error in found.values()) < 700
    assert found["a7"].message.startswith("a7: [[[[")


def test_every_mistake_is_told_at_once_with_path_line_and_nearest_key() -> None:
    """SPEC 8: one round of corrections, not one per mistake."""
    text = SHOP.replace("name: Acme", "nam: Acme").replace("connector: fake", "connector: fike")
    text = text.replace("destination: warehouse", "destination: wherehouse").replace(
        "daily: true", "daily: true, sync_hour: 24"
    )
    found = mistakes(text)
    assert set(found) == {
        "tenants.acme.nam",
        "tenants.acme.connections.shop.connector",
        "tenants.acme.installations.orders.destination",
        "tenants.acme.installations.orders.schedule.sync_hour",
    }
    assert "(file1.yaml, line 6)" in found["tenants.acme.nam"].message
    assert "Did you mean 'name'?" in found["tenants.acme.nam"].remedy
    assert "Did you mean 'warehouse'?" in found["tenants.acme.installations.orders.destination"].remedy
    assert "(file1.yaml, line 13)" in found["tenants.acme.installations.orders.schedule.sync_hour"].message


def test_a_secret_in_the_clear_is_refused_and_never_shown() -> None:
    """Secrets come from the environment only."""
    error = mistakes(SHOP.replace("${TOKEN}", "hunter2"))["tenants.acme.connections.shop.secrets.token"]
    assert "hunter2" not in str(error.as_json())
    assert "${TOKEN}" in error.remedy


@pytest.mark.parametrize("missing", ["TOKEN", "REGION", "PASSWORD"])
def test_a_variable_that_is_not_set_is_named(missing: str) -> None:
    """In secrets and in settings."""
    environment = {name: value for name, value in ENVIRONMENT.items() if name != missing}
    (error,) = mistakes(SHOP, environment=environment).values()
    assert missing in error.remedy
    assert all(value not in str(error.as_json()) for value in environment.values())


def test_what_the_connector_itself_refuses_is_told_under_the_connection() -> None:
    """A missing secret is found before anything runs."""
    found = mistakes(SHOP.replace(', secrets: {token: "${TOKEN}"}', ""))
    assert list(found) == ["tenants.acme.connections.shop.secrets.token"]


def test_files_belong_together_and_nothing_may_be_written_twice() -> None:
    """Several -f are one configuration."""
    destinations, _, tenants = SHOP.partition("tenants:")
    assert read(destinations, f"tenants:{tenants}") == read(SHOP)
    found = mistakes(SHOP, SHOP)
    assert "destinations.warehouse" in found
    assert "tenants.acme.connections.shop" in found
    assert "file1.yaml" in found["tenants.acme.installations.orders"].message


def test_a_key_written_twice_in_one_file_is_refused() -> None:
    """YAML would silently keep the last one."""
    found = mistakes(SHOP + "    name: Other\n")
    assert list(found) == ["tenants.acme.name"]
    assert "line 14" in found["tenants.acme.name"].message


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ("name: Acme Ltd", "name: [a]", "tenants.acme.name"),
        ("connector: fake", "connector: fake, concurrency: 0", "tenants.acme.connections.shop.concurrency"),
        ("connector: fake", "connector: fake, concurrency: true", "tenants.acme.connections.shop.concurrency"),
        ("connection: shop", "connection: shop, x", "tenants.acme.installations.orders.connection"),
        ("connection: shop", "connection: shop\n        streams: []", "tenants.acme.installations.orders.streams"),
        ("connection: shop", "connection: shop\n        streams: [order]", "tenants.acme.installations.orders.streams"),
        ("connection: shop", "connection: shop\n        streams: [orders, orders]", "tenants.acme.installations.orders.streams"),
        ("connection: shop", "connection: shop\n        paused: soon", "tenants.acme.installations.orders.paused"),
        ("connection: shop", "", "tenants.acme.installations.orders.connection"),
        ("      orders:", "      a/b:", "tenants.acme.installations.a/b"),
        ("daily: true", "every: 10s", "tenants.acme.installations.orders.schedule.every"),
        ("daily: true, ", "", "tenants.acme.installations.orders.schedule"),
        ("Europe/London", "Europe/Londn", "tenants.acme.installations.orders.schedule.time_zone"),
        ("2026-05-01}", "2026-05-01T09:00:00Z}", "tenants.acme.installations.orders.schedule.start_date"),
        ("kind: postgresql", "kind: mysql", "destinations.warehouse.kind"),
        ("schema: shop", "shema: shop", "destinations.warehouse.settings.shema"),
    ],
)  # fmt: skip
def test_what_is_refused(before: str, after: str, field: str) -> None:
    """Each with its full dotted path (SPEC 2.2, 8)."""
    assert before in SHOP
    assert list(mistakes(SHOP.replace(before, after, 1))) == [field]


@pytest.mark.parametrize(
    "text", ["[a, b]", "a: {b: c", "just text", "tenants: [acme]", "? {a: b}\n: c", "x: !!binary aGk="]
)
def test_text_that_is_no_configuration_is_refused_and_never_breaks_the_reader(text: str) -> None:
    """A mistake, not a traceback."""
    assert mistakes(text)


def test_aliases_cannot_fill_the_memory() -> None:
    """A small file with aliases of aliases, and one that contains itself."""
    bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
    )
    assert "file" in mistakes(bomb)
    assert "file" in mistakes("a: &a {b: *a}")


def test_merge_keys_save_writing() -> None:
    """YAML's `<<` for many tenants alike."""
    text = (
        SHOP.replace("      orders:", "      again: &again", 1)
        + "      orders:\n        <<: *again\n        streams: [orders]\n"
    )
    again, orders = read(text).tenants[0].installations
    assert (again.streams, orders.streams) == (("orders", "events"), ("orders",))
    assert again.schedule == orders.schedule


def test_an_account_has_one_limit() -> None:
    """SPEC 3: the limit belongs to the platform account, whoever links to it."""
    extra = "      more: {connector: fake, account: acme.example, concurrency: 9, secrets: {token: '${TOKEN}'}}\n"
    first = SHOP.replace("shop: {connector: fake,", "shop: {connector: fake, account: acme.example, concurrency: 3,")
    text = first.replace("    installations:", f"{extra}    installations:")
    assert list(mistakes(text)) == ["tenants.acme.connections.more.concurrency"]
    assert read(text.replace(" concurrency: 3,", "")).tenants[0].connections[1].concurrency == 9  # written once will do


def test_without_a_hint_the_account_is_the_connection_itself() -> None:
    """SPEC 2.12: an address says nothing of the account, on most platforms all accounts have the same; `shop` does."""
    assert read(SHOP).tenants[0].connections[0].account == "acme/shop"
    named = SHOP.replace("region:", "shop: acme.example, region:")
    assert read(named).tenants[0].connections[0].account == "acme.example"


def test_a_destination_is_tried_out_and_closed_and_one_that_is_away_is_no_mistake() -> None:
    """The document is right even when the warehouse is down; the run will tell."""
    Closing.closed = 0
    read(SHOP.replace(', secrets: {url: "postgresql://u:${PASSWORD}@h/db"}', ""))
    assert Closing.closed == 1
    assert read(SHOP).destinations
