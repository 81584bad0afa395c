"""The whole path with rotating refresh tokens: configuration, sealed vault, engine, two processes, and kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from tests.connectors.oauth.conftest import SECRET, AuthorisationServer

CONNECTOR = """
name: shop
base_url: "{settings.url}"
settings: {url: null, token_url: null}
authentication:
  type: oauth2
  grant: refresh_token
  token_url: "{settings.token_url}"
  client_id: "{secrets.client_id}"
  client_secret: "{secrets.client_secret}"
  refresh_token: "{secrets.refresh_token}"
streams:
  orders: {path: /orders, records: orders, cursor: {field: updated_at}}
  sales: {path: /orders, records: orders, cursor: {field: updated_at}}
"""
CONFIGURATION = """
destinations:
  own: {kind: postgresql}
tenants:
  acme:
    connections:
      shop:
        connector: ./shop.yaml
        settings: {url: "${URL}", token_url: "${URL}/token"}
        secrets: {client_id: "${CLIENT_ID}", client_secret: "${CLIENT_SECRET}", refresh_token: "${REFRESH_TOKEN}"}
    installations:
      orders: {connection: shop, destination: own, streams: [orders], schedule: {every: 1m, start_at: "2026-06-01T00:00:00Z"}}
      sales: {connection: shop, destination: own, streams: [sales], schedule: {every: 1m, start_at: "2026-06-01T00:00:00Z"}}
"""
KILLED_BEFORE_THE_COMMIT = """
import os, signal, sys
from tidegate.cli.main import main
from tidegate.store.vaults import ConnectionVault

async def die(*_given):
    os.kill(os.getpid(), signal.SIGKILL)

ConnectionVault._put = die
sys.argv = ["tidegate", *sys.argv[1:]]
main()
"""


@dataclass
class Merchant:
    """A tenant whose connection is authorised at ``server``, in processes of their own."""

    server: AuthorisationServer
    folder: Path
    environment: dict[str, str]

    def apply(self, refresh_token: str) -> None:
        self.environment["REFRESH_TOKEN"] = refresh_token
        assert self("apply", "-f", str(self.folder / "tidegate.yaml"), "--yes").returncode == 0

    def __call__(self, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *(("-c", code) if code else ("-m", "tidegate")), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)

    def run(self) -> object:
        """Return how a run ends."""
        done = self("run", "acme/orders", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)[0]["state"]

    def run_and_be_killed(self) -> None:
        """Be killed between the token endpoint's answer and its commit; the lease is then over at once."""
        assert self("run", "acme/orders", code=KILLED_BEFORE_THE_COMMIT).returncode == -9
        asyncio.run(_expire_leases(self.environment["TIDEGATE_DATABASE_URL"]))

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tidegate", *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


async def _expire_leases(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("update tidegate.runs set lease_until = now() - interval '1 s' where state = 'running'")
    await connection.close()


@pytest.fixture
def merchant(server: AuthorisationServer, database_url: str, tmp_path: Path) -> Merchant:
    (tmp_path / "shop.yaml").write_text(CONNECTOR)
    (tmp_path / "tidegate.yaml").write_text(CONFIGURATION)
    given = {
        "TIDEGATE_DATABASE_URL": database_url,
        "TIDEGATE_DATA_DIR": str(tmp_path / "data"),
        "TIDEGATE_ALLOW_PRIVATE_ADDRESSES": "1",
        "URL": server.url,
        "CLIENT_ID": "by:basic",
        "CLIENT_SECRET": SECRET,
    }
    made = Merchant(server, tmp_path, {**os.environ, **given})
    made.apply(server.authorise())
    return made


def test_processes_share_one_rotating_token_and_new_settings_do_not_cost_it(merchant: Merchant) -> None:
    """Two runs of one connection at once, in two processes, are one token request; the next process needs none.

    The configured refresh token is long used up by then: what counts is in the vault, whatever else is applied.
    """
    merchant.server.do("hold")
    both = [merchant.begin("run", f"acme/{name}", "--json") for name in ("orders", "sales")]
    merchant.server.until_held()
    merchant.server.do("release")
    for process in both:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    assert merchant.server.statuses == [200]
    merchant.environment["URL"] = merchant.server.url.replace("127.0.0.1", "localhost")
    merchant.apply(merchant.environment["REFRESH_TOKEN"])
    merchant.server.do("expire")
    assert merchant.run() == "succeeded"
    assert merchant.server.statuses == [200, 200]


def test_the_doctor_keeps_the_token_that_it_is_given(merchant: Merchant) -> None:
    """A checkup looks with the tokens of the vault, and what replaces them is kept: the run after it needs no request."""
    assert "shows its orders" in merchant("doctor").stdout
    assert merchant.server.statuses == [200]
    assert merchant.run() == "succeeded"
    assert merchant.server.statuses == [200]


def test_a_process_killed_between_the_answer_and_the_commit_goes_on_where_the_old_token_still_works(
    merchant: Merchant,
) -> None:
    merchant.server.do("grace?times=1")
    merchant.run_and_be_killed()
    assert merchant.server.statuses == [200]
    assert merchant.run() == "succeeded"
    assert merchant.server.statuses == [200, 200]


def test_a_process_killed_there_where_reuse_is_detected_says_so_and_heals_by_a_new_authorisation(
    merchant: Merchant,
) -> None:
    """SPEC 5: the connection is marked, its installations pause, no secret shows; a new refresh token resumes them."""
    lost = merchant.environment["REFRESH_TOKEN"]
    merchant.run_and_be_killed()
    refused = merchant("run", "acme/orders")
    assert refused.returncode == 1
    doctor = merchant("doctor")
    assert "connection acme/shop" in doctor.stdout
    assert "invalid_grant" in doctor.stdout
    assert merchant.server.statuses == [200, 400], "asked once more, and then no more"
    for secret in (lost, SECRET):
        assert secret not in refused.stdout + refused.stderr + doctor.stdout + doctor.stderr
    merchant.apply(merchant.server.authorise())
    assert merchant.run() == "succeeded"
    assert merchant.server.statuses == [200, 400, 200]
