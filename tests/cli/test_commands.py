"""The commands of SPEC 8, on a real database and a real source: what they print and how they exit."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tests.cli.conftest import CONFIGURATION, CommandLine
from tests.cli.orders_api import OrdersApi
from tidegate.cli.main import COMMANDS, LazyGroup


def test_apply_shows_what_it_adds_and_then_has_nothing_to_change(cli: CommandLine) -> None:
    """SPEC 8: the diff, and idempotence; secrets are not shown."""
    shown = cli.apply()
    assert "+ connection acme/shop" in shown
    assert "secrets.token: set" in shown
    assert "s3cr3t" not in shown
    assert "Nothing to change." in cli.apply()


def test_apply_shows_changes_field_by_field_as_text_and_json(cli: CommandLine) -> None:
    """SPEC 8: `--json` everywhere."""
    cli.apply()
    path = cli.write("changed.yaml", CONFIGURATION.replace("every: 1m", "every: 5m"))
    assert "every: 1m → 5m" in cli.ok("apply", "-f", path, "--dry-run")
    outcome = cli.json("apply", "-f", path)
    assert outcome["applied"] is True
    assert outcome["changes"] == [
        {
            "action": "changed", "kind": "schedule", "name": "acme/orders", "streams": ["orders"],
            "fields": [{"field": "every", "before": "1m", "after": "5m"}],
        }
    ]  # fmt: skip


def test_a_wrong_document_exits_with_2_names_every_mistake_and_changes_nothing(cli: CommandLine) -> None:
    """SPEC 8: 2 is bad input; errors as JSON on stderr with --json, and nothing on stdout."""
    wrong = CONFIGURATION.replace("every: 1m", "every: 1s").replace("kind: postgresql", "kind: postgres")
    path = cli.write("wrong.yaml", wrong)
    result = cli("apply", "-f", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "✗ destinations.own.kind: 'postgres'" in result.stderr
    assert "tenants.acme.installations.orders.schedule.every" in result.stderr
    assert "Traceback" not in result.stderr
    result = cli("apply", "-f", path, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    errors = json.loads(result.stderr)["errors"]
    assert {error["field"] for error in errors} == {
        "destinations.own.kind",
        "tenants.acme.installations.orders.schedule.every",
    }
    assert all(error["remedy"] for error in errors)
    assert cli.json("status") == []


def test_run_fetches_delivers_and_covers(cli: CommandLine, api: OrdersApi) -> None:
    """SPEC 2.11: a manual run up to now; the token came from the environment through the sealed store."""
    cli.apply()
    (run,) = cli.json("run", "acme/orders")
    assert (run["state"], run["read_count"], run["inserted_count"], run["trigger"]) == ("succeeded", 45, 45, "manual")
    assert api.tokens == {"Bearer s3cr3t-token"}
    (status,) = cli.json("status")
    assert status["watermark"] == run["period_end"]
    if status["uncovered"] is not None:  # a minute has begun meanwhile
        assert status["uncovered"]["start"] == run["period_end"]
    assert 0 <= status["staleness_seconds"] < 60


def test_run_to_an_instant_and_never_into_the_future_or_twice(cli: CommandLine) -> None:
    """SPEC 2.11, HOLES m, n."""
    cli.apply()
    (run,) = cli.json("run", "acme/orders", "--until", "2026-05-02T00:00:00Z")
    assert (run["period_start"], run["period_end"]) == ("2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z")
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    for until, problem in (
        (future, "is in the future"),
        ("2026-05-02T00:00:00Z", "is covered already"),
        ("2026-05-03T00:00:00", "--until"),
        ("soon", "--until"),
    ):
        result = cli("run", "acme/orders", "--until", until)
        assert (result.exit_code, problem in result.stderr) == (2, True), result.stderr


def test_run_exits_with_1_if_the_run_fails(cli: CommandLine, api: OrdersApi) -> None:
    """SPEC 8: 1 is that the work failed; the reason is shown, and then the connection by `doctor`."""
    api.status = 401
    cli.apply()
    result = cli("run", "acme/orders")
    assert result.exit_code == 1
    assert "✗ acme/orders orders: failed" in result.stdout
    doctor = cli("doctor", "--json")
    assert doctor.exit_code == 1
    wrong = [check for check in json.loads(doctor.stdout)["checks"] if not check["ok"]]
    assert [check["name"] for check in wrong] == ["connection acme/shop"]
    assert wrong[0]["remedy"]
    (status,) = cli.json("status")
    assert status["paused_reason"].startswith("unauthorised")
    api.status = 200
    cli.ok("resume", "acme/orders")
    assert cli.json("run", "acme/orders")[0]["state"] == "succeeded"
    assert cli.json("doctor")["ok"] is True


def test_tick_does_what_is_due_then_says_what_is_next(cli: CommandLine) -> None:
    """SPEC 8 `tick`; SPEC 2.11: resuming is catch-up, so that here something is due at once."""
    cli.apply()
    make_due(cli, minutes=-60)  # not at the next minute, which may have come
    assert "Nothing is due" in cli.ok("tick")
    make_due(cli)
    (run,) = cli.json("tick")
    assert (run["state"], run["trigger"], run["read_count"]) == ("succeeded", "schedule", 45)
    (listed,) = cli.json("runs", "--tenant", "acme", "--state", "succeeded")
    assert listed["id"] == run["id"]
    assert listed["start_lag_seconds"] >= 0
    assert "acme/orders orders" in cli.ok("runs")
    assert "acme/orders orders" in cli.ok("runs", "acme/orders")
    assert cli.json("runs", "acme/orders", "--state", "succeeded") == [listed]


def test_tick_exits_with_1_if_an_attempt_failed(cli: CommandLine, api: OrdersApi) -> None:
    """SPEC 8: what will be tried again has not been done."""
    api.status = 500
    cli.apply()
    make_due(cli)
    result = cli("tick", "--json")
    assert result.exit_code == 1
    (run,) = json.loads(result.stdout)
    assert (run["state"], run["error"]["code"]) == ("retrying", "source_unavailable")


def test_coverage_draws_the_ledger(cli: CommandLine) -> None:
    """SPEC 8: start, watermark, links, as a picture and as JSON."""
    cli.apply()
    assert "nothing covered yet" in cli.ok("coverage")
    cli.ok("run", "acme/orders", "--until", "2026-05-02T00:00:00Z")
    cli.ok("run", "acme/orders", "--until", "2026-05-03T00:00:00Z")
    drawn = cli.ok("coverage", "acme/orders", "--links")
    assert "from 2026-05-01T00:00:00Z, covered to 2026-05-03T00:00:00Z, 2 links" in drawn
    assert "█" in drawn
    (stream,) = cli.json("coverage", "acme", "--links")
    assert stream["link_count"] == 2
    (stretch,) = stream["stretches"]
    assert stretch["period"] == {"start": "2026-05-01T00:00:00Z", "end": "2026-05-03T00:00:00Z"}
    assert [link["kind"] for link in stream["links"]] == ["covered", "covered"]


def test_pause_and_resume(cli: CommandLine) -> None:
    """SPEC 2.11."""
    cli.apply()
    cli.ok("pause", "acme/orders", "--reason", "stocktaking")
    assert "paused: stocktaking" in cli.ok("status")
    result = cli("run", "acme/orders")
    assert (result.exit_code, "stocktaking" in result.stderr) == (2, True)
    assert "`tidegate resume acme/orders`" in result.stderr, "what to do next"
    assert cli.json("resume", "acme/orders") == {"installation": "acme/orders", "paused": False}
    assert cli.json("status")[0]["paused"] is False


def test_status_names_what_is_due_and_not_covered(cli: CommandLine) -> None:
    """SPEC 5: every due but uncovered stretch with its reason."""
    cli.apply()
    make_due(cli)
    (status,) = cli.json("status", "--tenant", "acme")
    assert status["uncovered"]["reason"] == "not planned yet"
    assert "not planned yet" in cli.ok("status")
    assert "·" in cli.ok("coverage").splitlines()[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "acme"),
        ("run", "acme/nothing"),
        ("run", "acme/orders", "--stream", "nothing"),
        ("pause", "nobody/orders"),
        ("status", "--tenant", "nobody"),
        ("runs", "--tenant", "nobody"),
        ("runs", "acme/nothing"),
        ("runs", "acme/orders", "--tenant", "acme"),
        ("runs", "--installation", "nothing"),
        ("runs", "--installation", "nothing", "--state", "failed"),
        ("coverage", "acme/nothing"),
        ("coverage", "a/b/c"),
        ("apply", "-f", "/nowhere.yaml"),
        ("apply", "-f", "/"),
    ],
)
def test_what_is_not_there_exits_with_2_and_a_remedy_as_text_and_json(
    cli: CommandLine, arguments: tuple[str, ...]
) -> None:
    """SPEC 8: 2 is bad input, and every error says what to do."""
    cli.apply()
    result = cli(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "→" in result.stderr
    result = cli(*arguments, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert json.loads(result.stderr)["remedy"]


def test_an_unreachable_database_exits_with_1(cli: CommandLine) -> None:
    """SPEC 8: the input is right, the work cannot be done; `doctor` says so too."""
    cli.environment["TIDEGATE_DATABASE_URL"] = "postgresql://postgres:geheim@127.0.0.1:1/tidegate"
    for arguments in (("status",), ("doctor",), ("tick",)):
        result = cli(*arguments)
        assert result.exit_code == 1
        assert "TIDEGATE_DATABASE_URL" in result.output
        assert "geheim" not in result.output


def test_doctor_finds_all_well_and_what_stands_still(cli: CommandLine) -> None:
    """SPEC 8: each check with its remedy."""
    cli.apply()
    assert "All is well." in cli.ok("doctor")
    make_due(cli)
    result = cli("doctor", "--json")
    wrong = [check for check in json.loads(result.stdout)["checks"] if not check["ok"]]
    assert (result.exit_code, [check["name"] for check in wrong]) == (1, ["planner"])
    assert "tidegate up" in wrong[0]["remedy"]


def test_doctor_tells_a_wrong_key(cli: CommandLine) -> None:
    """The stored secrets do not open under it."""
    cli.apply()
    cli.environment["TIDEGATE_KEY"] = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    result = cli("doctor")
    assert result.exit_code == 1
    assert "✗ key: does not open connection/acme/shop" in result.stdout


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("schedule", "connector")])
def test_every_command_takes_json_and_explains_itself(cli: CommandLine, command: str) -> None:
    """SPEC 8: `--json` everywhere."""
    text = cli.ok(command, "--help")
    found = LazyGroup(name="tidegate").get_command(None, command)
    of_group = getattr(found, "commands", {})  # webhook list, quarantine show: each by itself
    texts = [cli.ok(command, name, "--help") for name in of_group] or [text]
    assert all("--json" in each for each in texts) or command == "demo"


def test_the_sub_commands_of_others_are_mounted(cli: CommandLine) -> None:
    """`schedule preview` and `connector check`; the preview gets a clock."""
    assert "check" in cli.ok("connector", "--help")
    path = cli.write("daily.yaml", "{daily: true, start_date: 2026-05-01}")
    (first,) = json.loads(cli.ok("schedule", "preview", path, "--count", "1", "--json"))
    assert first["period"]["start"] == "2026-05-01T00:00:00Z"


def test_backfill_and_waive_change_the_ledger_and_say_so(cli: CommandLine, api: OrdersApi) -> None:
    """SPEC 2.11, 8: what was asked for, what it will change, what the coverage then shows; refusals exit with 2."""
    cli.apply()
    cli.ok("run", "acme/orders", "--until", "2026-06-01T00:00:00Z")
    told = cli.ok("waive", "acme/orders", "orders", "--until", "2026-06-11T00:00:00Z", "--reason", "booked by hand")
    assert (
        told
        == "Waived acme/orders orders: 2026-06-01T00:00:00Z to 2026-06-11T00:00:00Z; the next period starts there.\n"
    )
    first = cli.json(
        "backfill", "acme/orders", "orders", "--from", "2026-04-01T00:00:00Z", "--to", "2026-06-02T00:00:00Z"
    )
    assert first["in_front"] == {"start": "2026-04-01T00:00:00Z", "end": "2026-05-01T00:00:00Z"}
    assert first["waived"] == [{"start": "2026-06-01T00:00:00Z", "end": "2026-06-02T00:00:00Z"}]
    inside = ("--from", "2026-05-02T00:00:00Z", "--to", "2026-05-03T00:00:00Z")
    assert "the ledger does not change" in cli.ok("backfill", "acme/orders", "orders", *inside)
    assert "(backfill)" in cli.ok("runs")
    cli.ok("pause", "acme/orders")  # so that this tick is about the past only
    result = cli("backfill", "acme/orders", "orders", *inside, "--json")
    assert (result.exit_code, json.loads(result.stderr)["field"]) == (2, "installation")
    cli.ok("resume", "acme/orders")
    in_database(cli, "update tidegate.schedules set paused_at = now(), held_until = null")
    in_database(cli, "update tidegate.runs set state = 'waiting' where lane = 'backfill'")
    cli.ok("tick")
    (coverage,) = cli.json("coverage", "acme")
    assert [(one["kind"], one["period"]["start"][:10], one["period"]["end"][:10]) for one in coverage["stretches"]] == [
        ("covered", "2026-04-01", "2026-06-02"), ("waived", "2026-06-02", "2026-06-11"),
    ]  # fmt: skip
    assert "booked by hand" in cli.ok("coverage", "acme", "--links")
    for wrong, words in (
        (("waive", "acme/orders", "orders", "--until", "2026-06-12", "--reason", "so"), "--until"),
        (
            ("backfill", "acme/orders", "orders", "--from", "2026-01-01T00:00:00Z", "--to", "2026-02-01T00:00:00Z"),
            "gap",
        ),
    ):
        result = cli(*wrong)
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in result.stderr


def test_an_edit_shows_the_period_that_bridges_before_it_is_saved(cli: CommandLine) -> None:
    """SPEC 2.10."""
    cli.apply()
    cli.ok("run", "acme/orders", "--until", "2026-06-01T00:00:00Z")
    edited = CONFIGURATION.replace(
        '{every: 1m, start_at: "2026-05-01T00:00:00Z"}', "{daily: true, start_date: 2026-04-01}"
    )
    shown = cli.ok("apply", "--dry-run", "-f", cli.write("edited.yaml", edited))
    assert "acme/orders orders: covered to 2026-06-01T00:00:00Z" in shown
    assert "backfill in front of what is covered: 2026-04-01T00:00:00Z to 2026-05-01T00:00:00Z" in shown
    assert "its period 2026-06-01T00:00:00Z to " in shown
    (status,) = cli.json("status")
    assert status["start_at"] == "2026-05-01T00:00:00Z"


def make_due(cli: CommandLine, minutes: int = 2) -> None:
    """Move the next due date some minutes into the past, as if nothing had run since."""
    in_database(
        cli,
        f"""update tidegate.schedules set next_due_at = date_trunc('minute', now()) - interval '{minutes} minutes',
                   planned_until = date_trunc('minute', now()) - interval '{minutes + 8} minutes'""",
    )


def in_database(cli: CommandLine, statement: str) -> None:
    """Execute a statement behind the command line's back."""

    async def execute() -> None:
        connection = await asyncpg.connect(cli.environment["TIDEGATE_DATABASE_URL"])
        await connection.execute(statement)
        await connection.close()

    asyncio.run(execute())


@pytest.mark.parametrize("number", ["-1", "1.5", "two", "²", "٣", "9999999999999", "1" * 5000])
@pytest.mark.parametrize("name", ["SLOTS", "QUEUE_DEPTH", "PAUSE_AFTER_FAILING_DAYS", "KEEP_RUNS_DAYS"])
def test_a_number_in_the_environment_that_is_none_or_too_large_is_bad_input(
    cli: CommandLine, name: str, number: str
) -> None:
    """SPEC 8: 2, with its name and the remedy, before anything is opened."""
    cli.environment[f"TIDEGATE_{name}"] = number
    result = cli("status", "--json")
    assert (result.exit_code, json.loads(result.stderr)["field"]) == (2, f"TIDEGATE_{name}")
