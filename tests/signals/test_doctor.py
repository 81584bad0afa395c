"""`tidegate doctor`: every finding, caused for real (docs/reference/doctor.md)."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from tests.cli.conftest import CONFIGURATION, CommandLine
from tests.cli.orders_api import CONNECTOR, OrdersApi
from tests.cli.test_commands import in_database, make_due
from tests.destinations.webhook.receiver import SECRET
from tests.destinations.webhook.world import Sending, in_sending
from tests.engine.world import World, in_world, open_world
from tidegate.bootstrap import anchored_clock
from tidegate.domain.errors import ContractBroken, RateLimited
from tidegate.engine.checkup.checks import Check, check_machine
from tidegate.engine.checkup.diagnosis import check_all
from tidegate.store import database

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 7, 13, 16, tzinfo=UTC)


def caused(code: str, checks: list[Check]) -> Check:
    """Return the check that found ``code``, which has a remedy; nothing else may be wrong."""
    wrong = [check for check in checks if not check.ok]
    assert [check.code for check in wrong] == [code], wrong
    assert wrong[0].remedy
    return wrong[0]


def doctor(cli: CommandLine, *options: str) -> list[Check]:
    """Return what the command finds; its exit code agrees."""
    result = cli("doctor", "--json", *options)
    told = json.loads(result.stdout)
    assert result.exit_code == (0 if told["ok"] else 1)
    return [Check(**each) for each in told["checks"]]


def test_all_is_well(cli: CommandLine) -> None:
    """What is well says so, sources and destinations too; the codes are for what is not."""
    cli.apply()
    checks = doctor(cli)
    assert all(check.ok and check.finding and not check.code for check in checks), checks
    assert {"source acme/shop", "destination own", "durability", "disk", "time zones"} <= {each.name for each in checks}
    assert not any(each.name.startswith("source ") for each in doctor(cli, "--offline"))


def test_it_looks_and_changes_nothing(cli: CommandLine, empty_database_url: str) -> None:
    """A database without a schema has none afterwards either."""
    cli.environment["TIDEGATE_DATABASE_URL"] = empty_database_url
    caused("schema_missing", doctor(cli))
    caused("schema_missing", doctor(cli))


@pytest.mark.parametrize(
    ("code", "statement"),
    [
        ("schema_behind", "delete from tidegate.migrations where name = (select min(name) from tidegate.migrations)"),
        ("schema_newer", "insert into tidegate.migrations (name) values ('9999_tomorrow')"),
        ("leases_expired", "update tidegate.runs set state = 'running', lease_until = now() - interval '1 minute'"),
        ("queue_idle", "update tidegate.runs set state = 'queued', queued_at = now() - interval '2 minutes'"),
        ("dispatcher_idle", "update tidegate.runs set not_before_at = now() - interval '2 minutes'"),
        ("runs_stuck", "update tidegate.runs set state = 'retrying', due_at = now() - interval '2 days',"
                       " first_due_at = now() - interval '2 days', not_before_at = now() + interval '1 minute'"),
        ("planner_idle", "update tidegate.schedules set next_due_at = now() - interval '2 minutes'"),
        ("consumers_dead", "insert into tidegate.pgqueuer (priority, created, updated, heartbeat, execute_after, status,"
                           " entrypoint)"
                           " values (0, now(), now(), now() - interval '5 minutes', now(), 'picked', 'run')"),
    ],
)  # fmt: skip
def test_what_the_ledger_shows(cli: CommandLine, code: str, statement: str) -> None:
    """Each state as a dead or missing process leaves it behind."""
    cli.apply()
    in_database(cli, "update tidegate.schedules set next_due_at = now() + interval '1 hour'")
    in_database(
        cli,
        """insert into tidegate.runs (chain_id, tenant_id, account_id, lane, trigger, state, first_due_at, due_at, period_end,
                                      not_before_at)
           select id, tenant_id, account_id, 'live', 'schedule', 'waiting', now(), now(), now(), now() + interval '1 hour'
             from tidegate.chains""",
    )
    in_database(cli, statement)
    caused(code, doctor(cli, "--offline"))


def test_a_database_that_is_away(cli: CommandLine) -> None:
    """Said by the same command that other commands point to."""
    cli.environment["TIDEGATE_DATABASE_URL"] = "postgresql://postgres:geheim@127.0.0.1:1/tidegate"
    assert "geheim" not in caused("database_unreachable", doctor(cli)).finding


def test_a_setting_that_is_not_usable(cli: CommandLine) -> None:
    """SPEC 8: named, with its remedy."""
    cli.environment["TIDEGATE_SLOTS"] = "many"
    assert "TIDEGATE_SLOTS" in caused("setting_invalid", doctor(cli)).finding


def test_a_key_others_may_read_and_one_that_does_not_open(cli: CommandLine) -> None:
    """The key's file is looked at before anything is opened with it."""
    cli.apply()
    key = Path(cli.environment["TIDEGATE_DATA_DIR"]) / "key"
    key.chmod(0o644)
    assert f"chmod 600 {key}" in caused("key_file_exposed", doctor(cli)).remedy
    key.chmod(0o600)
    cli.environment["TIDEGATE_KEY"] = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    caused("key_wrong", doctor(cli, "--offline"))


def test_settings_that_endanger_what_was_committed(cli: CommandLine, database_url: str, postgres: str) -> None:
    """synchronous_commit for this database; fsync for the whole server, for a moment."""
    cli.apply()
    name = database_url.partition("?")[0].rsplit("/", 1)[1]
    in_database(cli, f"alter database {name} set synchronous_commit = off")
    assert "may undo" in caused("durability_off", doctor(cli, "--offline")).finding
    in_database(cli, f"alter database {name} reset synchronous_commit")
    try:
        in_database(cli, "alter system set fsync = off")
        in_database(cli, "select pg_reload_conf()")
        asyncio.run(_until_set(postgres, "off"))
        assert "fsync is off" in caused("durability_off", doctor(cli, "--offline")).finding
    finally:
        in_database(cli, "alter system reset fsync")
        in_database(cli, "select pg_reload_conf()")
        asyncio.run(_until_set(postgres, "on"))


async def _until_set(dsn: str, value: str) -> None:
    """Wait until new sessions of the server see ``fsync`` so."""
    async with asyncio.timeout(20):
        while True:
            connection = await asyncpg.connect(dsn)
            found = await connection.fetchval("show fsync")
            await connection.close()
            if found == value:
                return


def test_too_few_connections(cli: CommandLine, database_url: str) -> None:
    """A limit on this database that one process alone would hit."""
    cli.apply()
    name = database_url.partition("?")[0].rsplit("/", 1)[1]
    in_database(cli, f"alter database {name} connection limit 5")
    assert "of 5 are free" in caused("connections_short", doctor(cli, "--offline")).finding


def test_a_slow_way_to_the_database(database_url: str) -> None:
    """Through a proxy that holds every reply for 60 ms."""

    async def story() -> list[Check]:
        path = re.search(r"host=([^&]+)", database_url)
        assert path is not None

        async def relay(near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
            far_in, far_out = await asyncio.open_unix_connection(f"{path[1].replace('%2F', '/')}/.s.PGSQL.5432")

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float) -> None:
                while data := await source.read(65_536):
                    await asyncio.sleep(delay)
                    sink.write(data)
                sink.close()

            await asyncio.gather(pump(near_in, far_out, 0), pump(far_in, near_out, 0.06), return_exceptions=True)

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        user = re.match(r"postgresql://([^:@/]+)", database_url)
        name = database_url.partition("?")[0].rsplit("/", 1)[1]
        pool = await database.open_pool(
            f"postgresql://{user[1] if user else 'postgres'}@127.0.0.1:{port}/{name}", size=12
        )
        async with open_world(database_url) as world, anchored_clock(pool) as clock:
            parts = replace(world.parts, pool=pool, clock=clock)
            found = await check_all(parts, clock.now(), outside=False)
        await pool.close()
        server.close()
        return found

    caused("database_slow", asyncio.run(story()))


def test_a_machine_whose_clock_is_off(cli: CommandLine) -> None:
    """Compared with the database's, by which the engine goes."""

    async def story(world: World) -> list[Check]:
        present: datetime = await world.pool.fetchval("select clock_timestamp()")
        return await check_all(world.parts, present + timedelta(seconds=90), outside=False)

    finding = caused("clock_skew", in_world(cli.environment["TIDEGATE_DATABASE_URL"], story)).finding
    assert re.match(r"(90|89)\.\d s between", finding)


def test_this_machine(tmp_path: Path) -> None:
    """Disk, zone data that is old, and zone data older than the system's."""
    assert all(check.ok for check in check_machine(tmp_path / "not" / "yet", NOW, system_zones=tmp_path / "none"))
    caused("disk_low", list(check_machine(tmp_path, NOW, least_free_bytes=2**60)))
    caused("zone_data_old", list(check_machine(tmp_path, NOW + timedelta(days=3 * 366))))
    newer = tmp_path / "tzdata.zi"
    newer.write_text("# version 2099b\nR x")
    assert "2099b" in caused("zone_data_behind_system", list(check_machine(tmp_path, NOW, system_zones=newer))).finding
    newer.write_text("# version 1999a\n")
    assert all(check.ok for check in check_machine(tmp_path, NOW, system_zones=newer))


def test_zone_data_that_lacks_zones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a stripped image leaves it."""
    monkeypatch.setattr("tidegate.engine.checkup.checks.zone_names", lambda: frozenset({"Etc/UTC"}))
    caused("zone_data_missing", list(check_machine(tmp_path, NOW)))


def test_sources_that_refuse_break_or_are_away(cli: CommandLine, api: OrdersApi) -> None:
    """Asked for one page, as a run would; the reply decides."""
    cli.apply()
    api.status = 401
    caused("source_refuses", doctor(cli))
    api.status = 404
    caused("source_broken", doctor(cli))
    api.status = 503
    caused("source_unreachable", doctor(cli))
    api.status = 429
    assert all(check.ok for check in doctor(cli)), "it answers; that it is busy is no fault"
    cli.environment["SHOP_URL"] = f"http://127.0.0.1:{_closed_port()}"
    cli.ok("apply", "-f", str(cli.folder / "tidegate.yaml"))
    caused("source_unreachable", doctor(cli))


def test_each_connection_is_asked_for_a_stream_of_its_own(cli: CommandLine) -> None:
    """Two connections of one account with connectors of their own: neither knows the streams of the other."""
    cli.write("other.yaml", CONNECTOR.replace("name: shop", "name: other").replace("  orders:", "  invoices:"))
    shop = CONFIGURATION[CONFIGURATION.index("      shop:\n") : CONFIGURATION.index("    installations:")]
    orders = CONFIGURATION[CONFIGURATION.index("      orders:\n") :]
    two = CONFIGURATION.replace(
        shop, shop + shop.replace("      shop:", "      extra:").replace("shop.yaml", "other.yaml")
    )
    cli.apply(
        two
        + orders.replace("      orders:", "      bills:").replace(": shop", ": extra").replace("[orders]", "[invoices]")
    )
    checks = {check.name: check for check in doctor(cli)}
    assert checks["source acme/shop"].finding.startswith("shows its orders")
    assert checks["source acme/extra"].finding.startswith("shows its invoices")


def test_a_source_that_is_silent_is_not_waited_for(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out for each, and the others are asked meanwhile."""
    monkeypatch.setattr("tidegate.engine.checkup.reaching.PATIENCE_SECONDS", 0.05)

    async def story(world: World) -> list[Check]:
        await world.install()
        world.shop.gate = asyncio.Event()
        return await outside(world)

    caused("source_unreachable", in_world(database_url, story))


@pytest.mark.parametrize("behind", [timedelta(seconds=90), timedelta(seconds=-90)], ids=["behind", "ahead"])
def test_a_source_whose_clock_is_off(database_url: str, behind: timedelta) -> None:
    """SPEC 3: runs wait for a source that is behind; the checkup says why."""

    async def story(world: World) -> list[Check]:
        await world.install()
        world.shop.clock_behind = behind
        return await outside(world)

    finding = caused("source_clock_skew", in_world(database_url, story)).finding
    assert ("behind" if behind > timedelta(0) else "ahead") in finding


@pytest.mark.parametrize("error", [RateLimited("busy"), None], ids=str)
def test_a_source_that_answers_is_well(database_url: str, error: Exception | None) -> None:
    """Beside those that are not."""

    async def story(world: World) -> list[Check]:
        await world.install()
        world.shop.on_page = lambda _n: error
        return await outside(world)

    assert all(check.ok for check in in_world(database_url, story))


def test_what_a_source_says_is_masked(database_url: str) -> None:
    """It may repeat the secret it was sent."""

    async def story(world: World) -> list[Check]:
        await world.install()
        world.parts.mask.learn("hunter2-hunter2")
        world.shop.on_page = lambda _n: ContractBroken("no hunter2-hunter2 here")
        return await outside(world)

    assert caused("source_broken", in_world(database_url, story)).finding == "no *** here"


async def outside(world: World) -> list[Check]:
    """Return the checks of sources and destinations."""
    found = await check_all(world.parts, await world.pool.fetchval("select clock_timestamp()"))
    return [check for check in found if check.name.startswith(("source", "destination"))]


def test_a_connection_refused_at_work(cli: CommandLine, api: OrdersApi) -> None:
    """What a run has met, without asking again."""
    cli.apply()
    api.status = 401
    assert cli("run", "acme/orders").exit_code == 1
    caused("connection_refused", doctor(cli))


def test_destinations_that_are_away_or_refuse(cli: CommandLine, empty_database_url: str) -> None:
    """Another PostgreSQL: at first there, then under a name that it does not know, then gone."""
    configuration = CONFIGURATION.replace(
        "settings: {schema: shop}}", 'settings: {schema: shop}, secrets: {url: "${WAREHOUSE}"}}'
    )
    cli.environment["WAREHOUSE"] = empty_database_url
    cli.apply(configuration)
    assert all(check.ok for check in doctor(cli))
    cli.environment["WAREHOUSE"] = f"postgresql://u:geheim@127.0.0.1:{_closed_port()}/x"
    cli.apply(configuration)
    assert "geheim" not in caused("destination_unreachable", doctor(cli)).finding


def test_a_receiver_that_is_away_and_files_that_cannot_be_written(database_url: str, tmp_path: Path) -> None:
    """A webhook's receiver is asked with a HEAD, a folder with a file without a name: neither is just said to answer."""

    async def story(sending: Sending) -> tuple[list[Check], ...]:
        await sending.install()
        well = await outside(sending.world)
        gone = f"http://127.0.0.1:{_closed_port()}/hooks/verborgen1234567"
        await sending.configure("webhook", {}, {"url": gone, "signing_secrets": SECRET})
        away = await outside(sending.world)
        await sending.configure("files", {"root": str(tmp_path / "made" / "later")}, {})
        writable = await outside(sending.world)
        (tmp_path / "taken").write_text("")
        await sending.configure("files", {"root": str(tmp_path / "taken" / "files")}, {})
        assert list(tmp_path.iterdir()) == [tmp_path / "taken"], "a look leaves nothing behind"
        return well, away, writable, await outside(sending.world)

    well, away, writable, refused = in_sending(database_url, story)
    assert all(check.ok for check in [*well, *writable])
    assert "verborgen" not in caused("destination_unreachable", away).finding
    assert "taken takes no file" in caused("destination_unreachable", refused).finding


def test_batches_that_nobody_sends_and_those_that_nobody_takes(database_url: str) -> None:
    """SPEC 5 "outbox": a sender that is missing or died with its lease, and a receiver that fails, are told apart."""

    async def story(sending: Sending) -> tuple[list[Check], ...]:
        world = sending.world

        async def look() -> list[Check]:
            found = await check_all(world.parts, world.clock.now(), outside=False)
            return [check for check in found if check.name in ("sender", "receivers")]

        await sending.install()
        world.shop.put(1, NOW)
        world.clock.set(NOW + timedelta(hours=8))
        await world.tick()
        assert all(check.ok for check in await look())
        world.clock.advance(minutes=2)
        missing = await look()
        await sending.die_at("delivery.sending")
        assert all(check.ok for check in await look()), "it may be at work"
        world.clock.advance(minutes=10)
        died = await look()
        sending.receiver.answer = lambda _number: (503, {}, "closed")
        await sending.send()
        assert all(check.ok for check in await look()), "it may pass"
        world.clock.advance(minutes=2)
        await sending.send()
        failing = await look()
        sending.receiver.answer = lambda _number: (204, {}, "")
        world.clock.advance(minutes=15)
        await sending.send()
        assert all(check.ok for check in await look())
        return missing, died, failing

    missing, died, failing = in_sending(database_url, story)
    assert "--role sender" in caused("sender_idle", missing).remedy
    assert caused("sender_idle", died)
    assert "The receiver answered 503. closed" in caused("receiver_failing", failing).finding


def test_a_destination_whose_kind_is_gone(cli: CommandLine) -> None:
    """A newer version has been here, and this one does not know what it stored."""
    cli.apply()
    in_database(cli, "update tidegate.destinations set kind = 'pigeon'")
    caused("destination_refuses", doctor(cli))


def test_no_planner(cli: CommandLine) -> None:
    """As an operator meets it: nobody runs the engine."""
    cli.apply()
    make_due(cli)
    assert "tidegate up" in caused("planner_idle", doctor(cli)).remedy


def _closed_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
    return port


def test_the_page_lists_every_code_and_every_code_is_caused_here() -> None:
    """docs/reference/doctor.md, the code and this module say the same."""
    listed = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "reference" / "doctor.md").read_text(), re.M))
    used = {f"{name}_idle" for name in ("planner", "dispatcher", "queue")}
    for module in (
        "engine/checkup/checks.py",
        "engine/checkup/diagnosis.py",
        "engine/checkup/reaching.py",
        "cli/doctor.py",
    ):
        used |= set(_codes(ast.parse((ROOT / "src" / "tidegate" / module).read_text())))
    assert listed == used
    here = Path(__file__).read_text()
    assert {code for code in listed if f'"{code}"' not in here} == set()


def _codes(tree: ast.AST) -> set[str]:
    """Return the texts given as second argument of ``wrong``, and those that a name given there may have."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "wrong"]
    given = [call.args[1] for call in calls]
    names = {node.id for node in given if isinstance(node, ast.Name)}
    assigned = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in names
    ]
    texts = [inner for node in (*given, *assigned) for inner in ast.walk(node) if isinstance(inner, ast.Constant)]
    return {str(text.value) for text in texts if re.fullmatch(r"[a-z]+_[a-z_]+", str(text.value))}
