"""An installation moves to another server and goes on exactly where it stopped: nothing twice, nothing missed (SPEC 5)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cli.conftest import CONFIGURATION, CommandLine
from tests.cli.orders_api import CONNECTOR, OrdersApi

ELSEWHERE = CONFIGURATION.replace(
    "{kind: postgresql, settings: {schema: shop}}",
    '{kind: postgresql, settings: {schema: shop}, secrets: {url: "${WAREHOUSE}"}}',
).replace("every: 1m", "every: 1000d")
CHAIN = """
select string_agg(concat_ws('|', period_start, period_end, previous_end, kind, records, reason), e'\\n' order by period_end)
  from tidegate.coverage"""
LAST = """
select concat_ws('|', r.period_start, r.period_end, r.state, r.read_count, r.report) from tidegate.runs r
 where id = (select run_id from tidegate.coverage order by period_end desc limit 1)"""


def in_database(cli: CommandLine, query: str) -> Any:
    """Return one value of a query behind the command line's back."""

    async def ask() -> Any:
        connection = await asyncpg.connect(cli.environment["TIDEGATE_DATABASE_URL"])
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(ask())


@pytest.fixture
def other(cli: CommandLine, empty_database_url: str, tmp_path: Path) -> CommandLine:
    """Another server, which has the connector's file and the secrets in its environment, and a key of its own."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "shop.yaml").write_text(CONNECTOR)
    environment = {
        **cli.environment,
        "TIDEGATE_DATABASE_URL": empty_database_url,
        "TIDEGATE_DATA_DIR": str(folder / "data"),
        "OWN_URL": cli.environment["WAREHOUSE"],
    }
    return CommandLine(folder, environment)


@pytest.fixture(autouse=True)
def warehouse(cli: CommandLine, database_url: str) -> None:
    """The destination is a database of its own, as far as both servers can tell."""
    cli.environment["WAREHOUSE"] = database_url


def synced(cli: CommandLine) -> None:
    """Install and cover two periods."""
    cli.apply(ELSEWHERE)
    for until in ("2026-05-02T00:00:00Z", "2026-05-02T21:00:00Z"):
        cli.ok("run", "acme/orders", "--until", until)


def exported(cli: CommandLine, other: CommandLine, *options: str) -> str:
    """Export the installation and return the file's path at the other server."""
    path = other.folder / "orders.json"
    told = cli.json("export", "acme/orders", "-o", str(path), *options)
    assert told == {
        "installation": "acme/orders",
        "file": str(path),
        "environment": ["OWN_URL", "SHOP_TOKEN"],
        "paused": True,
    }
    return str(path)


def test_it_goes_on_where_it_stopped(cli: CommandLine, other: CommandLine, api: OrdersApi) -> None:
    """The chain arrives row by row; the next period begins at the watermark; what is delivered is not delivered again."""
    synced(cli)
    path = exported(cli, other)
    other.ok("import", path)
    assert in_database(other, CHAIN) == in_database(cli, CHAIN)
    assert in_database(other, LAST) == in_database(cli, LAST) is not None
    api.count = 60
    (run,) = other.json("run", "acme/orders")
    assert (run["state"], run["period_start"]) == ("succeeded", "2026-05-02T21:00:00Z")
    assert (run["inserted_count"], run["updated_count"]) == (15, 0)
    assert run["read_count"] == run["inserted_count"] + run["unchanged_count"]
    (coverage,) = other.json("coverage")
    assert (len(coverage["stretches"]), coverage["link_count"]) == (1, 3)


def test_every_limit_and_schedule_is_in_the_file(cli: CommandLine, other: CommandLine) -> None:
    """Its configuration, applied where it came from, changes nothing; where it is imported, it says the same."""
    limits = "requests_per_second: 2.5, burst: 7, concurrency: 5, connection_concurrency: 3, account: acme.example"
    own = '{schedule: {daily: true, start_date: "2026-05-01"}}'
    days = f"pause_after_failing_days: 9\n        streams:\n          orders:\n          customers: {own}"
    cli.apply(ELSEWHERE.replace("account: acme.example", limits).replace("streams: [orders]", days))
    path = Path(exported(cli, other))
    document = json.loads(path.read_text())["configuration"]
    cli.environment["OWN_URL"] = cli.environment["WAREHOUSE"]
    again = ("apply", "-y", "-f", cli.write("again.yaml", json.dumps(document)))
    assert cli.json(*again)["changes"] == []
    assert document["tenants"]["acme"]["connections"]["shop"]["burst"] == 7
    other.ok("import", str(path))
    look = """select concat_ws('|', string_agg(s.rule::text, '|' order by c.stream), max(i.pause_after_failing_days),
                     max(n.concurrency_limit), max(a.rate_per_second), max(a.rate_burst), max(a.concurrency_limit))
                from tidegate.schedules s join tidegate.chains c on c.id = s.chain_id
                join tidegate.installations i on i.id = c.installation_id join tidegate.accounts a on a.id = c.account_id
                join tidegate.connections n on n.id = i.connection_id"""
    assert in_database(other, look) == in_database(cli, look)
    assert str(in_database(other, look)).endswith("|9|3|2.5|7|5")


def test_a_schedule_arrives_with_the_instant_at_which_it_was_received(cli: CommandLine, other: CommandLine) -> None:
    """SPEC 2.6: before anything is covered the first due date follows from it; being moved is no new receipt."""
    cli.apply(ELSEWHERE)
    received = "select string_agg(received_at::text, '|') from tidegate.schedules"
    in_database(cli, "update tidegate.schedules set received_at = '2026-01-02 03:04Z' returning 1")
    other.ok("import", exported(cli, other))
    assert in_database(other, received) == in_database(cli, received) is not None


def test_a_setting_that_looks_like_a_reference_is_moved_as_it_is(cli: CommandLine, other: CommandLine) -> None:
    """docs/reference/configuration.md: `$${NAME}` is the text `${NAME}`, here and there."""
    cli.environment["SHOP_SCHEMA"] = "shop"
    cli.apply(ELSEWHERE.replace("schema: shop}", "schema: 'a$${WAREHOUSE}$$${b}${SHOP_SCHEMA}'}"))
    schema = "select settings ->> 'schema' from tidegate.destinations where settings ->> 'schema' like 'a%'"
    other.ok("import", exported(cli, other))
    assert in_database(other, schema) == in_database(cli, schema) == "a${WAREHOUSE}$${b}shop"


def test_the_file_holds_no_secret_and_is_the_owners_alone(cli: CommandLine, other: CommandLine) -> None:
    """Secrets are named as in a configuration; the other side sets them."""
    synced(cli)
    path = Path(exported(cli, other))
    text = path.read_text()
    assert cli.environment["SHOP_TOKEN"] not in text
    assert cli.environment["WAREHOUSE"] not in text
    assert path.stat().st_mode & 0o777 == 0o600
    del other.environment["OWN_URL"]
    result = other("import", str(path))
    assert (result.exit_code, "Set OWN_URL." in result.stderr) == (2, True)
    assert other.json("status") == []


def test_the_two_sides_never_both_run(cli: CommandLine, other: CommandLine) -> None:
    """The exported side is paused and says why; only words bring it back."""
    synced(cli)
    path = exported(cli, other)
    result = cli("resume", "acme/orders")
    assert (result.exit_code, "--not-imported" in result.stderr) == (2, True)
    assert cli("run", "acme/orders").exit_code == 2
    assert (
        cli(
            "apply",
            "-y",
            "-f",
            cli.write("again.yaml", ELSEWHERE.replace("streams:", "paused: false\n        streams:")),
        ).exit_code
        == 2
    )
    result = cli("export", "acme/orders", "-o", path)
    assert (result.exit_code, "exists" in result.stderr) == (2, True)
    cli.ok("resume", "acme/orders", "--not-imported")
    (run,) = cli.json("run", "acme/orders")
    assert run["state"] == "succeeded"


def test_nothing_is_imported_over_anything(cli: CommandLine, other: CommandLine) -> None:
    """SPEC 8: exit code 2, nothing half-written."""
    synced(cli)
    path = exported(cli, other)
    other.ok("import", path)
    result = other("import", path)
    assert (result.exit_code, "is here already" in result.stderr) == (2, True)
    document = json.loads(Path(path).read_text())
    installations = document["configuration"]["tenants"]["acme"]["installations"]
    installations["more"] = installations.pop("orders")
    document["installation"] = "more"
    document["configuration"]["tenants"]["acme"]["connections"]["shop"]["concurrency"] = 9
    other_path = other.write("more.json", json.dumps(document))
    result = other("import", other_path)
    assert (result.exit_code, "is here and different (concurrency)" in result.stderr) == (2, True)
    connections = document["configuration"]["tenants"]["acme"]["connections"]
    connections["another"] = connections.pop("shop")
    installations["more"]["connection"] = "another"
    result = other("import", other.write("account.json", json.dumps(document)))
    assert (result.exit_code, "is here and different (concurrency)" in result.stderr) == (2, True)
    document["tidegate_export"] = 2
    result = other("import", other.write("newer.json", json.dumps(document)))
    assert (result.exit_code, "no export that this version reads" in result.stderr) == (2, True)
    assert [stream["installation"] for stream in other.json("status")] == ["orders"]


def test_a_file_that_cannot_be_written_pauses_nothing(cli: CommandLine) -> None:
    """SPEC 8: exit code 2, nothing half-written."""
    synced(cli)
    result = cli("export", "acme/orders", "-o", str(cli.folder / ("o" * 250)))
    assert (result.exit_code, "cannot be written" in result.stderr) == (2, True)
    assert cli.json("status")[0]["paused"] is False


def test_a_run_at_work_is_waited_for_and_one_that_waits_ends(cli: CommandLine, other: CommandLine) -> None:
    """A run at work would go on delivering here; one that waits for a retry has its period fetched there."""
    synced(cli)
    in_database(
        cli,
        """insert into tidegate.runs (chain_id, tenant_id, account_id, lane, trigger, state, lease_until, first_due_at, due_at,
                                      period_end, not_before_at)
           select id, tenant_id, account_id, 'live', 'manual', 'running', now() + interval '1 day', now(), now(), now(), now()
             from tidegate.chains""",
    )
    path = str(other.folder / "orders.json")
    result = cli("export", "acme/orders", "-o", path)
    assert (result.exit_code, "has a run at work" in result.stderr) == (2, True)
    assert (Path(path).exists(), cli.json("status")[0]["paused"]) == (False, False)
    in_database(
        cli,
        """with route as (insert into tidegate.routes (chain_id, destination_id, whole_periods)
                          select c.id, d.id, false from tidegate.chains c, tidegate.destinations d returning id)
           update tidegate.runs set state = 'delivering', lease_until = null, ends_as = 'succeeded', waits_for_position = 1,
                  waits_for_route = route.id from route where state = 'running'""",
    )
    result = cli("export", "acme/orders", "-o", path)
    assert (result.exit_code, "has batches that are not acknowledged" in result.stderr) == (2, True)
    assert "`tidegate status` says why" in result.stderr
    assert "`tidegate pause" not in result.stderr, "that would not end it"
    in_database(
        cli,
        """update tidegate.runs set state = 'retrying', ends_as = null, waits_for_position = null, waits_for_route = null
            where state = 'delivering'""",
    )
    exported(cli, other)
    (run, *_) = cli.json("runs")
    assert (run["state"], run["error"]["code"]) == ("failed", "moved")


def test_quarantine_comes_along_if_asked_for(cli: CommandLine, other: CommandLine) -> None:
    """Each record with the run that set it aside, byte by byte."""
    synced(cli)
    in_database(
        cli,
        """insert into tidegate.quarantine (tenant_id, chain_id, run_id, reason, record, quarantined_at, requested_at)
           select tenant_id, chain_id, id, 'no key', '{"n": "\\\\u0000"}'::bytea, now(), now() - interval '1 s'
             from tidegate.runs order by id limit 1""",
    )
    other.ok("import", exported(cli, other, "--with-quarantine"))
    look = """select concat_ws('|', q.reason, encode(q.record, 'hex'), q.requested_at, r.period_end, r.state, r.read_count)
                from tidegate.quarantine q join tidegate.runs r on r.id = q.run_id"""
    found: Any = in_database(other, look)
    assert found == in_database(cli, look)
    assert found


def test_what_was_dropped_stays_out_at_the_other_server(cli: CommandLine, other: CommandLine) -> None:
    """SPEC 4: a person's decision is about the record, not about the server; with or without the quarantine itself."""
    synced(cli)
    for digest, action in (("poison", "dropped"), ("poison", "dropped"), ("corrected", "delivered")):
        in_database(
            cli,
            f"""insert into tidegate.quarantine_exits (quarantine_id, tenant_id, chain_id, run_id, action, digest, reason, note,
                                                      person, at)
               select 1, tenant_id, chain_id, id, '{action}', sha256('{digest}'), 'no key in {cli.environment["SHOP_TOKEN"]}',
                      'a test order', 'ann', now() from tidegate.runs order by id limit 1""",
        )
    path = exported(cli, other)
    assert cli.environment["SHOP_TOKEN"] not in Path(path).read_text()
    other.ok("import", path)
    look = """select string_agg(concat_ws('|', action, encode(digest, 'hex'), note, person, at), ' ') from (
                select distinct on (digest) * from tidegate.quarantine_exits where action = 'dropped'
                 order by digest, id desc) e"""
    assert in_database(other, look) == in_database(cli, look) is not None
    (told,) = other.json("quarantine", "list", "--gone")
    assert (told["action"], told["person"], told["reason"]) == ("dropped", "ann", "no key in ***")
    numbers = """select count(*) from tidegate.quarantine_exits e
                  where not exists (select 1 from tidegate.runs r where r.id = e.run_id)"""
    assert in_database(other, numbers) == 1, "under a number that no run has"


def test_what_was_missing_in_front_is_asked_for_at_the_other_side(cli: CommandLine, other: CommandLine) -> None:
    """SPEC 2.10: the start was moved back and its backfill had not run yet; pausing drops it, importing asks for it again."""
    synced(cli)
    cli.apply(ELSEWHERE.replace("2026-05-01T00:00:00Z", "2026-04-01T00:00:00Z"))
    waiting = "select concat_ws('|', period_start, period_end, state) from tidegate.runs where lane = 'backfill'"
    asked = in_database(cli, waiting)
    assert asked.endswith("|waiting")
    other.ok("import", exported(cli, other))
    assert in_database(other, waiting) == asked


def test_tokens_that_stay_behind_are_told_of(cli: CommandLine, other: CommandLine) -> None:
    """A refresh token that rotated is at the old server only: whoever moves is told to authorise anew."""
    synced(cli)
    in_database(
        cli,
        "insert into tidegate.connection_tokens (connection_id, sealed) select id, '\\x00' from tidegate.connections",
    )
    result = cli("export", "acme/orders", "-o", str(other.folder / "orders.json"), "--json")
    assert (result.exit_code, "Authorise anew at the new server" in result.stderr) == (0, True)
    assert json.loads(result.stdout)["paused"] is True
    assert "set that, in SHOP_TOKEN." in result.stderr
    token = other.environment.pop("SHOP_TOKEN")
    result = other("import", str(other.folder / "orders.json"))
    assert (result.exit_code, "Set SHOP_TOKEN." in result.stderr) == (2, True), "nothing is made without it"
    other.environment["SHOP_TOKEN"] = token
    result = other("import", str(other.folder / "orders.json"))
    assert (result.exit_code, "Authorise anew" in result.stderr) == (0, True)
    assert "RENEWED AT THE OLD SERVER" in result.stderr


def test_records_in_the_dead_letter_are_told_of(cli: CommandLine, other: CommandLine) -> None:
    """SPEC 5 "coverage waits for the dead letter, and says which": the ledger that moves counts their periods as covered."""
    synced(cli)
    in_database(
        cli,
        """with route as (insert into tidegate.routes (chain_id, destination_id, whole_periods)
                          select c.id, d.id, false from tidegate.chains c, tidegate.destinations d returning id, chain_id)
           insert into tidegate.outbox (route_id, position, message_id, chain_id, tenant_id, run_id, batch, part, records, body,
                                        state, created_at, settled_at)
           select route.id, 1, 'msg', route.chain_id, 'acme', (select max(id) from tidegate.runs), 1, 1, 17, '', 'dead', now(),
                  now()
             from route""",
    )
    other_columns = json.dumps({"position": 2, "part": 2, "message_id": "no", "dropped_at": "2026-07-14T00:00:00Z"})
    in_database(
        cli,
        f"""insert into tidegate.outbox
            select d.* from tidegate.outbox o, jsonb_populate_record(o, '{other_columns}') d""",
    )
    result = cli("export", "acme/orders", "-o", str(other.folder / "orders.json"))
    told = "17 RECORDS ARE IN THE DEAD LETTER OF THE OLD SERVER"
    assert (result.exit_code, told in result.stderr) == (0, True)
    assert "webhook replay --dead --installation acme/orders" in result.stderr
    result = other("import", str(other.folder / "orders.json"))
    assert (result.exit_code, told in result.stderr) == (0, True)


def test_a_tenant_without_a_name_and_names_that_no_variable_has_move_too(cli: CommandLine, other: CommandLine) -> None:
    """A tenant's name may be left out, and a connection may be called `2nd-shöp`: what is exported can be imported."""
    text = ELSEWHERE.replace("    name: Acme Ltd\n", "").replace("      shop:\n", "      2nd-shöp:\n")
    cli.apply(text.replace("connection: shop", "connection: 2nd-shöp"))
    path = other.folder / "orders.json"
    told = cli.json("export", "acme/orders", "-o", str(path))
    assert told["environment"] == ["OWN_URL", "_2ND_SH_P_TOKEN"]
    other.environment["_2ND_SH_P_TOKEN"] = cli.environment["SHOP_TOKEN"]
    other.ok("import", str(path))
    assert other.json("run", "acme/orders")[0]["state"] == "succeeded"


def test_no_two_secrets_are_taken_from_one_variable(cli: CommandLine, other: CommandLine) -> None:
    """A destination and a connection of one name, with secrets of one name: one's credentials are never sent to the other."""
    cli.write("shop.yaml", CONNECTOR.replace("{secrets.token}", "{secrets.url}"))
    text = ELSEWHERE.replace("  own:", "  shop:").replace("destination: own", "destination: shop")
    cli.apply(text.replace("secrets: {token:", "secrets: {url:"))
    path = other.folder / "orders.json"
    assert cli.json("export", "acme/orders", "-o", str(path))["environment"] == ["SHOP_URL", "SHOP_URL_2"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda file: file.update(installation="another"), "does not hold the installation that it names"),
        (lambda file: file.update(configuration={}), "does not hold the installation that it names"),
        (lambda file: file["chains"][0].update(stream="another"), "does not hold the installation that it names"),
        (lambda file: file["chains"][0].update(workflow="another"), "does not hold the installation that it names"),
        (
            lambda file: file["chains"][0]["coverage"][1].update(period_start="2026-05-02T01:00:00Z"),
            "a ledger that cannot be",
        ),
        (lambda file: file["chains"][0]["coverage"][0].update(kind="another"), "a ledger that cannot be"),
        (lambda file: file["chains"][0]["coverage"][0].update(reason="a\x00b"), "a ledger that cannot be"),
        (lambda file: file["chains"][0]["coverage"][0].update(period_start="2026-05-01T00:00:00"), "is no export"),
    ],
)
def test_a_file_that_was_altered_is_refused_whole(
    cli: CommandLine, other: CommandLine, change: Callable[[Any], object], problem: str
) -> None:
    """SPEC 5, 8: bad input is 2 and changes nothing; no gap, no other stream's ledger and no host's time gets into the chain."""
    synced(cli)
    path = Path(exported(cli, other))
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    result = other("import", str(path))
    assert (result.exit_code, problem in result.output) == (2, True), result.output
    assert other.json("status") == []
