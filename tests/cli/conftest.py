"""The command line on a fresh database, with a configuration and a platform on localhost."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from tests.cli.orders_api import CONNECTOR, OrdersApi, serving
from tidegate.cli.main import app

CONFIGURATION = """
destinations:
  own: {kind: postgresql, settings: {schema: shop}}
tenants:
  acme:
    name: Acme Ltd
    connections:
      shop:
        {connector: ./shop.yaml, account: acme.example, settings: {base_url: "${SHOP_URL}"}, secrets: {token: "${SHOP_TOKEN}"}}
    installations:
      orders:
        connection: shop
        destination: own
        streams: [orders]
        schedule: {every: 1m, start_at: "2026-05-01T00:00:00Z"}
"""


@dataclass
class CommandLine:
    """Runs `tidegate` in this process."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str, typed: str | None = None) -> Result:
        """Return the result of one command; a bug in it is raised here."""
        result = CliRunner().invoke(app, [*arguments], env=self.environment, input=typed)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def ok(self, *arguments: str) -> str:
        """Return the standard output of a command that must succeed."""
        result = self(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """Return what a command that must succeed prints with --json."""
        return json.loads(self.ok(*arguments, "--json"))

    def write(self, name: str, text: str) -> str:
        """Write a file and return its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def apply(self, text: str = CONFIGURATION) -> str:
        """Apply a configuration."""
        return self.ok("apply", "-f", self.write("tidegate.yaml", text))


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    """The platform."""
    with serving(OrdersApi()) as api:
        yield api


@pytest.fixture
def environment(tmp_path: Path, database_url: str, api: OrdersApi) -> dict[str, str]:
    """What the processes of a test are started with."""
    return {
        "TIDEGATE_DATABASE_URL": database_url,
        "TIDEGATE_DATA_DIR": str(tmp_path / "data"),
        "TIDEGATE_ALLOW_PRIVATE_ADDRESSES": "1",
        "SHOP_URL": api.url,
        "SHOP_TOKEN": "s3cr3t-token",
    }


@pytest.fixture
def cli(tmp_path: Path, environment: dict[str, str]) -> Iterator[CommandLine]:
    """The command line; commands set up logging for their own process, which is undone here."""
    handlers = logging.getLogger().handlers[:]
    (tmp_path / "shop.yaml").write_text(CONNECTOR)
    yield CommandLine(tmp_path, environment)
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers
