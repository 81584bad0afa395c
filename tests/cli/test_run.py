"""`tidegate run`: a manual run of several pieces (SPEC 2.8, 2.11)."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import CONFIGURATION, CommandLine
from tests.cli.orders_api import CONNECTOR, OrdersApi


def in_pieces(days: int) -> str:
    start = (datetime.now(UTC) - timedelta(days=days)).date()
    rule = f'{{daily: true, start_date: "{start}", max_period: 1d}}'
    return CONFIGURATION.replace('{every: 1m, start_at: "2026-05-01T00:00:00Z"}', rule)


def test_a_run_ends_when_its_first_piece_fails_and_drops_those_behind_it(
    cli: CommandLine, api: OrdersApi, environment: dict[str, str]
) -> None:
    """SPEC 2.8, 8: no piece starts before the one in front has covered, so waiting for them would never end."""
    cli.apply(in_pieces(3))
    api.status = 404  # a contract failure: not tried again
    done = subprocess.run(
        [sys.executable, "-m", "tidegate", "run", "acme/orders", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    ended = json.loads(done.stdout)
    assert [each["state"] for each in ended] == ["failed"] + ["dropped"] * (len(ended) - 1)
    assert len(ended) >= 3
    assert {each["state"] for each in cli.json("runs")} == {"failed", "dropped"}

    result = cli("run", "acme/orders")
    assert result.exit_code == 1
    failed, dropped = result.stdout.splitlines()
    assert failed.startswith("✗ acme/orders orders: failed")
    assert dropped.startswith("✗ acme/orders orders: ")
    assert "dropped, up to " in dropped
    (status,) = cli.json("status")
    assert status["uncovered"]["reason"].startswith("failed: GET "), "the failure, not what was dropped behind it"

    api.status = 200
    ended = cli.json("run", "acme/orders")
    assert {each["state"] for each in ended} == {"succeeded"}


def test_the_pieces_of_one_stream_go_on_while_another_fails(cli: CommandLine, api: OrdersApi) -> None:
    """SPEC 1: a plain sync runs each stream on its own; only what waits behind the failure is dropped."""
    cli.apply(in_pieces(2).replace("[orders]", "[orders, customers]"))
    api.failing = "/orders"
    result = cli("run", "acme/orders", "--json")
    assert result.exit_code == 1
    states: dict[str, set[str]] = {}
    for each in json.loads(result.stdout):
        states.setdefault(each["stream"], set()).add(each["state"])
    assert states == {"orders": {"failed", "dropped"}, "customers": {"succeeded"}}


LOWER = "    lower: {param: updated_since, meaning: inclusive}\n"
CURSOR = "    cursor: {field: updated_at, ascending: true}\n"


@pytest.mark.parametrize("left_out", [[LOWER], [LOWER, CURSOR]], ids=["no lower", "no cursor"])
def test_what_cannot_be_asked_for_by_time_is_delivered_whole_each_time(cli: CommandLine, left_out: list[str]) -> None:
    """docs/reference/connectors.md, "What is asked for without `lower`, or `cursor`": older than the start date too."""
    connector = CONNECTOR
    for line in left_out:
        connector = connector.replace(line, "")
    cli.write("shop.yaml", connector)
    cli.apply(CONFIGURATION.replace('start_at: "2026-05-01', 'start_at: "2026-05-02'))
    (first,) = cli.json("run", "acme/orders", "--until", "2026-05-03T00:00:00Z")
    assert (first["state"], first["inserted_count"]) == ("succeeded", 45)
    assert cli.json("query", "select min(updated_at) as oldest from shop_orders")["rows"] == [
        {"oldest": "2026-05-01T01:00:00Z"}
    ]
    (second,) = cli.json("run", "acme/orders")
    assert (second["read_count"], second["unchanged_count"], second["updated_count"]) == (45, 45, 0)
    assert cli.json("coverage")[0]["stretches"][0]["period"]["start"] == "2026-05-02T00:00:00Z"
