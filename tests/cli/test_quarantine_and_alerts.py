"""`tidegate alerts`, `tidegate quarantine`, and what `status` and `runs` tell of waiting runs (SPEC 3, 5, 8)."""

from __future__ import annotations

import asyncio
import json
from unittest.mock import Mock

import asyncpg
import pytest

from tests.cli.conftest import CONFIGURATION, CommandLine
from tests.cli.orders_api import OrdersApi


async def _execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("set search_path = tidegate, public")
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def execute(cli: CommandLine, *statements: str) -> None:
    """Change the database behind the command line's back."""
    asyncio.run(_execute(cli.environment["TIDEGATE_DATABASE_URL"], *statements))


def test_records_go_in_and_out_of_quarantine(cli: CommandLine, api: OrdersApi) -> None:
    """SPEC 4: listed, shown, retried by number or by reason, dropped with a reason; exit code 1 while something stays."""
    cli.apply()
    cli.ok("run", "acme/orders")
    execute(
        cli,
        "alter table shop.shop_orders add constraint few check (id <= 46)",
        "delete from coverage",  # so that all of them are listed again
        "delete from runs",
    )
    api.count = 48
    cli.ok("run", "acme/orders")
    assert "2 quarantined" in cli.ok("runs", "--limit", "1")
    kept = cli.json("quarantine", "list", "--tenant", "acme")
    assert [(each["installation"], each["stream"], each["retries"]) for each in kept] == [("orders", "orders", 0)] * 2
    assert "few" in cli.ok("quarantine", "list", "--matching", "CHECK CONSTRAINT")
    first, second = (str(each["id"]) for each in kept)
    shown = cli.json("quarantine", "show", first)
    number = json.loads(shown["record"])["id"]
    assert number in (47, 48)
    assert f'"id": {number}' in cli.ok("quarantine", "show", first)

    execute(
        cli,
        f"update quarantine set record = record || '\\x7fc29b3a783a'::bytea, reason = e'\\x1b[2J:x:' where id = {first}",
    )
    told = cli.ok("quarantine", "show", first)
    assert "\ufffd[2J:x:" in told, "what a source sent does not steer the terminal, and is shown as it is"
    assert "\ufffd\ufffd:x:" in told
    execute(cli, f"update quarantine set record = substr(record, 1, length(record) - 6) where id = {first}")

    failed = cli("quarantine", "retry", first)
    assert failed.exit_code == 1
    assert "0 delivered, 1 stay." in failed.output
    execute(cli, "alter table shop.shop_orders drop constraint few")
    assert cli.json("quarantine", "retry", "--tenant", "acme", "--matching", "few", "--by", "ann") == [
        {"id": int(number), "delivered": True, "reason": ""} for number in (first, second)
    ]
    assert cli.ok("quarantine", "list") == "The quarantine is empty.\n"
    gone = cli.json("quarantine", "list", "--gone")
    assert {(each["action"], each["person"]) for each in gone} == {("delivered", "ann")}
    assert "ann" in cli.ok("quarantine", "list", "--gone")


def test_dropping_needs_a_reason_and_a_choice(cli: CommandLine, api: OrdersApi) -> None:
    """Issue 2 "Quarantine": never everything by default, never without saying why; exit code 2 and nothing changed."""
    cli.apply()
    for arguments in (("drop", "7"), ("drop", "7", "--reason", " "), ("retry",), ("retry", "7"), ("show", "7")):
        assert cli("quarantine", *arguments).exit_code == 2
    refused = json.loads(cli("quarantine", "drop", "7", "--json").stderr)
    assert refused["code"] == "invalid_input"
    assert "Say why" in refused["remedy"]


def test_an_installation_is_named_with_its_tenant(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 8: another tenant's installation of the same name is never meant by accident; a name mistyped is told."""
    cli.apply()
    for arguments in (("list",), ("retry",), ("drop", "--reason", "x", "--by", "ann")):
        result = cli("quarantine", *arguments, "--installation", "orders")
        assert (result.exit_code, "TENANT/INSTALLATION" in result.stderr) == (2, True)
        assert cli("quarantine", *arguments, "--tenant", "acme", "--stream", "ordres").exit_code == 2
    for chosen in (("--installation", "acme/orders"), ("--tenant", "acme", "--installation", "orders")):
        assert cli.json("quarantine", "list", *chosen) == []
    monkeypatch.setattr("getpass.getuser", Mock(side_effect=KeyError("uid not found")))
    result = cli("quarantine", "drop", "7", "--reason", "x")
    assert (result.exit_code, "--by NAME" in result.stderr) == (2, True)
    assert cli("quarantine", "show", str(2**64)).exit_code == 2


def test_alerts_are_listed_with_their_remedies(cli: CommandLine, api: OrdersApi) -> None:
    """Issue 2 "Failure policy": open ones by default, resolved ones if asked for."""
    cli.apply()
    assert cli.ok("alerts") == "No alerts.\n"
    execute(
        cli,
        """insert into alerts (kind, severity, subject, tenant_id, message, remedy, raised_at, resolved_at) values
           ('stale', 'warning', '1', 'acme', 'acme/orders orders is late', 'Look.', now(), null),
           ('failing', 'warning', '1', 'acme', 'acme/orders orders failed', 'Look.', now(), now())""",
    )
    assert [each["kind"] for each in cli.json("alerts", "--tenant", "acme")] == ["stale"]
    assert {each["kind"] for each in cli.json("alerts", "--all")} == {"stale", "failing"}
    assert "acme/orders orders is late" in cli.ok("alerts")
    assert "1 open alerts: `tidegate alerts`" in cli.ok("status")
    assert cli("alerts", "--tenant", "nobody").exit_code == 2


def test_status_and_runs_say_what_waits_for_what(cli: CommandLine, api: OrdersApi) -> None:
    """SPEC 3: both dates, the lag, and why a due run still waits; as a sum, and per stream."""
    cli.apply(CONFIGURATION.replace("every: 1m", "every: 1m, settle: 1h"))
    execute(
        cli,
        "update schedules set next_due_at = date_trunc('minute', now()), planned_until = now() - interval '1 h', "
        "received_at = now() - interval '2 h'",
    )
    cli.ok("tick")
    (run,) = cli.json("runs")
    assert run["waits"]["reason"] == "settle"
    assert run["waits"]["planned_at"] == run["not_before_at"]
    assert "waiting: settle" in cli.ok("runs")
    (stream,) = cli.json("status")
    assert stream["waits"] == run["waits"]
    summary = cli.json("status", "--summary")
    assert summary["streams"] == summary["nothing_covered_yet"] == 1
    assert [(each["reason"], each["runs"]) for each in summary["waiting"]] == [("settle", 1)]
    assert 0 <= summary["worst_lag_seconds"] < 3600
    told = cli.ok("status", "--summary")
    assert "1 due wait: settle, the oldest due" in told
    assert "acme/orders" not in told
