"""`tidegate tick` where nothing ran: it says whether nothing is due, or for what it waits (SPEC 3, 8)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.cli.conftest import CONFIGURATION, CommandLine
from tests.cli.orders_api import OrdersApi
from tests.cli.test_commands import in_database, make_due
from tests.cli.test_run import in_pieces


def test_tick_says_what_is_due_and_settles(cli: CommandLine) -> None:
    cli.apply(CONFIGURATION.replace("every: 1m,", "every: 1m, settle: 1h,"))
    make_due(cli)
    told = cli.ok("tick")
    assert "Nothing is due" not in told
    assert "1 due wait: settle, the oldest due " in told
    assert "\nNext due " in told


def test_tick_says_what_waits_behind_a_failed_piece(cli: CommandLine, api: OrdersApi) -> None:
    cli.apply(in_pieces(3))
    api.status = 404
    today = datetime.now(UTC).date()
    in_database(
        cli,
        f"""update tidegate.schedules set received_at = received_at - interval '1 day', planned_until = '{today - timedelta(1)}',
                   next_due_at = '{today}'""",
    )
    assert cli("tick").exit_code == 1
    told = cli.ok("tick")
    assert "Nothing is due" not in told
    assert "1 due wait: period failed, the oldest due " in told, "the piece behind the one that failed"
    assert "1 due wait: another run, the oldest due " in told, "and the one behind that"


def test_tick_says_that_nothing_is_due(cli: CommandLine) -> None:
    cli.apply()
    assert cli.ok("tick").startswith("Nothing is due.\nNext due 20")
