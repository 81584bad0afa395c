"""Secrets planted wherever one can come from, and sought in everything that leaves the process (docs/reference/logs.md)."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import asyncpg
import pytest

from tests.cli.conftest import CommandLine
from tests.cli.test_commands import in_database, make_due
from tests.signals.collector import Collector, collecting

KEY = base64.b64encode(b"a key of thirty-two bytes, really"[:32]).decode()
PLANTED = {
    "TOKEN": "tok-3f9a/with+signs=",
    "QUERY_KEY": "qk 77 &spaces",
    "BASIC": "basic-p4ssw0rd",
    "WAREHOUSE_PASSWORD": "wh!p4ss",
    "DATABASE_PASSWORD": "db-p4ss",
    "COLLECTOR": "coll3ctor-key",
}
CONNECTORS = {
    "bearer": 'authentication: {type: bearer, token: "{secrets.token}"}',
    "query": 'authentication: {type: query, name: key, value: "{secrets.token}"}',
    "basic": 'authentication: {type: basic, username: me, password: "{secrets.token}"}',
}
STREAM = """
base_url: "{settings.base_url}"
settings: {base_url: null}
streams:
  orders: {path: /orders, records: orders, cursor: {field: updated_at}, pager: {type: cursor, param: after, token: next}}
"""
LOUD = ("tick", "runs --json", "doctor --json")


@contextmanager
def echoing() -> Iterator[tuple[str, list[int]]]:
    """Yield a source that repeats all it is sent, in its body and in a redirect, with the status that is asked for."""
    statuses = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"orders": "none", "you sent": f"{self.path} {self.headers}"}).encode()
            self.send_response(statuses[0])
            self.send_header("Location", f"http://elsewhere.example{self.path}&{self.headers.get('Authorization')}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", statuses
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def configuration(cli: CommandLine) -> str:
    """Return the path of a configuration of three tenants, each let in in another way."""
    secret = {"bearer": "TOKEN", "query": "QUERY_KEY", "basic": "BASIC"}
    for name, signing in CONNECTORS.items():
        cli.write(f"{name}.yaml", f"name: {name}\n{signing}{STREAM}")
    tenants = [_tenant(name, name, secret[name], "own") for name in CONNECTORS]
    tenants.append(_tenant("away", "bearer", "TOKEN", "there"))
    return cli.write("secrets.yaml", DESTINATIONS + "".join(tenants))


DESTINATIONS = """
destinations:
  own: {kind: postgresql, settings: {schema: shop}}
  there: {kind: postgresql, settings: {schema: shop}, secrets: {url: "${WAREHOUSE_URL}"}}
tenants:"""


def _tenant(name: str, connector: str, secret: str, destination: str) -> str:
    return f"""
  {name}:
    connections:
      shop: {{connector: ./{connector}.yaml, settings: {{base_url: "${{SHOP_URL}}"}}, secrets: {{token: "${{{secret}}}"}}}}
    installations:
      sync:
        {{connection: shop, destination: {destination}, streams: [orders],
          schedule: {{every: 1m, start_at: "2026-05-01T00:00:00Z"}}}}"""


def planted(cli: CommandLine, collector: Collector, shop_url: str, database_url: str) -> None:
    """Put a secret everywhere one is read from."""
    with_password = database_url.replace(
        "postgresql://postgres@", f"postgresql://postgres:{PLANTED['DATABASE_PASSWORD']}@"
    )
    with_password = with_password.replace("postgres:@", f"postgres:{PLANTED['DATABASE_PASSWORD']}@")
    assert PLANTED["DATABASE_PASSWORD"] in with_password, database_url
    cli.environment |= PLANTED | {
        "TIDEGATE_KEY": KEY,
        "TIDEGATE_DATABASE_URL": with_password,
        "SHOP_URL": shop_url,
        "WAREHOUSE_URL": f"postgresql://u:{PLANTED['WAREHOUSE_PASSWORD']}@127.0.0.1:1/x",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={PLANTED['COLLECTOR']}",
    }


def spellings() -> set[str]:
    """Return each secret as it may turn up."""
    from urllib.parse import quote, quote_plus

    plain = {*PLANTED.values(), KEY}
    pair = base64.b64encode(f"me:{PLANTED['BASIC']}".encode()).decode()
    return plain | {quote(text, safe="") for text in plain} | {quote_plus(text) for text in plain} | {pair}


def test_no_secret_leaves_the_process(cli: CommandLine, database_url: str) -> None:
    """Outputs and errors as text and JSON, logs, traces, metrics, and what is kept with runs and connections."""
    said: list[str] = []
    with collecting() as collector, echoing() as (shop_url, statuses):
        planted(cli, collector, shop_url, database_url)
        path = configuration(cli)
        said += [_all_of(cli, "apply", "-f", path, "--dry-run", *option) for option in ((), ("--json",))]
        said.append(_all_of(cli, "apply", "-f", path))
        for status in (200, 302, 401, 500):
            statuses[0] = status
            in_database(cli, "delete from tidegate.runs")
            in_database(cli, "update tidegate.connections set unauthorised_at = null")
            in_database(cli, "update tidegate.installations set paused_at = null, paused_by = '', paused_reason = ''")
            in_database(cli, "update tidegate.schedules set paused_at = null")
            make_due(cli)
            said += [_all_of(cli, *command.split()) for command in LOUD]
            said.append(asyncio.run(_kept(database_url)))
        said += [_all_of(cli, command) for command in ("metrics", "status", "coverage", "runs", "doctor")]
        said += [body.decode("utf-8", "replace") for body in collector.bodies]
        assert len(collector.named("attempt")) >= 12, "all that was tried was traced"
    everything = "\n".join(said)
    assert "you sent" in everything, "the source's echo did get into the errors"
    assert everything.count("***") > 20
    found = {secret for secret in spellings() if secret in everything}
    assert found == set()


def _all_of(cli: CommandLine, *arguments: str) -> str:
    result = cli(*arguments)
    assert result.exit_code in (0, 1), result.output
    return result.stdout + result.stderr


async def _kept(database_url: str) -> str:
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("select error::text from tidegate.runs")
    rows += await connection.fetch("select unauthorised_reason from tidegate.connections")
    await connection.close()
    return "\n".join(str(row[0]) for row in rows)


def test_a_library_that_repeats_a_secret_is_masked(cli: CommandLine, capsys: pytest.CaptureFixture[str]) -> None:
    """Known values are sought in every line, whoever writes it; tracebacks too."""
    import logging

    import structlog

    from tidegate.cli import logs
    from tidegate.domain.masking import Mask

    mask = Mask()
    mask.learn(*PLANTED.values())
    logs.set_up(as_json=True, mask=mask)
    for secret in PLANTED.values():
        logging.getLogger("library").error("sent %s", secret)
        try:
            raise ValueError(secret)
        except ValueError:
            structlog.get_logger().exception("broke", at={"deep": [secret]})
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 2 * len(PLANTED)
    assert {secret for secret in spellings() if secret in text} == set()
    assert "Traceback" in text
