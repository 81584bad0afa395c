"""What is planned no more can still be looked at, and what is missing on both sides of the ledger is told (SPEC 2.10, 5, 8)."""

from __future__ import annotations

import json

from tests.cli.conftest import CONFIGURATION, CommandLine
from tests.cli.test_commands import make_due

BOTH = CONFIGURATION.replace("streams: [orders]", "streams: [orders, customers]")
MOVED = CONFIGURATION.replace("account: acme.example", "account: other.example")
WITHOUT_INSTALLATION = MOVED[: MOVED.index("    installations:")]


def test_the_ledger_of_a_retired_stream_is_shown(cli: CommandLine) -> None:
    cli.apply(BOTH)
    cli.ok("run", "acme/orders", "--until", "2026-05-02T00:00:00Z")
    cli.apply()
    assert [(each["stream"], each["retired"]) for each in cli.json("status")] == [
        ("customers", True),
        ("orders", False),
    ]
    assert cli.json("status", "--summary")["streams"] == 1
    assert "retired (acme.example)" in cli.ok("status")
    retired = cli.json("coverage", "acme/orders")[0]
    assert (retired["stream"], retired["retired"], retired["watermark"]) == ("customers", True, "2026-05-02T00:00:00Z")
    assert "1 link, retired: nothing more is planned" in cli.ok("coverage")
    result = cli("run", "acme/orders", "--stream", "customers")
    assert (result.exit_code, "Use one of: orders." in result.stderr) == (2, True)


def test_an_installation_whose_account_has_gone_is_shown_and_refuses_a_run_in_a_sentence(cli: CommandLine) -> None:
    """SPEC 2.12: the connection points at another account, the chain of the old one has ended."""
    cli.apply()
    cli.ok("run", "acme/orders", "--until", "2026-05-02T00:00:00Z")
    cli.apply(WITHOUT_INSTALLATION)
    (status,) = cli.json("status")
    assert (status["retired"], status["watermark"]) == (True, "2026-05-02T00:00:00Z")
    assert "acme/orders" in cli.ok("status")
    assert "(acme.example)" in cli.ok("coverage", "acme/orders")
    for arguments in (("run", "acme/orders"), ("run", "acme/orders", "--stream", "orders")):
        result = cli(*arguments, "--json")
        assert result.exit_code == 2
        told = json.loads(result.stderr)
        assert told["message"] == "installation: 'acme/orders' has no stream that is planned."
        assert "tidegate coverage acme/orders" in told["remedy"]


def test_status_tells_what_is_missing_in_front_and_behind(cli: CommandLine) -> None:
    """SPEC 2.10: a start moved earlier, while the live end is behind too."""
    cli.apply()
    cli.ok("run", "acme/orders", "--until", "2026-05-03T00:00:00Z")
    cli.apply(CONFIGURATION.replace('start_at: "2026-05-01', 'start_at: "2026-04-01'))
    make_due(cli)
    (status,) = cli.json("status")
    assert (status["in_front"]["start"], status["in_front"]["end"]) == ("2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")
    assert status["uncovered"]["start"] == "2026-05-03T00:00:00Z"
    shown = cli.ok("status")
    assert "2026-04-01T00:00:00Z to 2026-05-01T00:00:00Z: waiting" in shown
    assert "2026-05-03T00:00:00Z to " in shown
