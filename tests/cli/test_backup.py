"""Backup while the engine runs, destroy, restore, go on: nothing lost, the chain whole (SPEC 5, 7)."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cli.conftest import CONFIGURATION, CommandLine
from tests.cli.orders_api import OrdersApi
from tests.cli.test_processes import started, wait_for
from tidegate.store.embedded import EmbeddedServer, is_running


@pytest.fixture
def embedded(cli: CommandLine) -> Iterator[CommandLine]:
    """The command line on the embedded server of a data directory, which other users can reach (see tests.conftest)."""
    with tempfile.TemporaryDirectory(prefix="tidegate-backup-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        shutil.copy(cli.folder / "shop.yaml", folder)
        cli.folder = Path(folder)
        cli.environment["TIDEGATE_DATABASE_URL"] = ""
        cli.environment["TIDEGATE_DATA_DIR"] = str(cli.folder / "first")
        yield cli


def tidegate(cli: CommandLine, *arguments: str, code: int = 0) -> str:
    """Return what a command prints, with an exit code."""
    result = cli(*arguments)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def look(data_dir: Path, *queries: str) -> list[Any]:
    """Return one value for each query to the database of a data directory."""

    async def ask() -> list[Any]:
        connection = await asyncpg.connect(server.dsn)
        try:
            return [await connection.fetchval(query) for query in queries]
        finally:
            await connection.close()

    server = EmbeddedServer(data_dir)
    try:
        return asyncio.run(ask())
    finally:
        server.release()


STATES = "select string_agg(state, ' ' order by id) from tidegate.runs"
TIME_PASSES = "update tidegate.runs set lease_until = now() where state = 'running' returning id"
DELIVERED = "select count(*) from shop.shop_orders"
BREAKS = """
select count(*) from (select period_start, lag(period_end) over (partition by chain_id order by period_end) as before
                        from tidegate.coverage) c where before <> period_start"""


def test_backed_up_at_work_destroyed_and_restored_it_goes_on_and_loses_nothing(
    embedded: CommandLine, api: OrdersApi
) -> None:
    """The destination equals the source after catch-up; the chain is contiguous; the key comes only if asked for."""
    cli = embedded
    first, second = cli.folder / "first", cli.folder / "second"
    backup = cli.folder / "a.backup"
    configuration = CONFIGURATION.replace("every: 1m", "every: 1000d")
    tidegate(cli, "apply", "-f", cli.write("tidegate.yaml", configuration), "--yes")
    tidegate(cli, "run", "acme/orders", "--until", "2026-05-02T22:00:00Z")
    api.gate.clear()
    api.asked.clear()
    with started(cli, "up") as up, started(cli, "run", "acme/orders") as run:
        wait_for(up, "up")
        assert api.asked.wait(30), "a run is at work"
        told = json.loads(tidegate(cli, "backup", str(backup), "--with-key", "--json"))
        assert told == {"file": str(backup), "size_bytes": backup.stat().st_size, "key_file": f"{backup}.key"}
        assert [file.stat().st_mode & 0o777 for file in (backup, Path(f"{backup}.key"))] == [0o600, 0o600]
        up.kill()
        run.kill()
        up.communicate()
        run.communicate()
    tidegate(cli, "stop")
    shutil.rmtree(first)
    cli.environment["TIDEGATE_DATA_DIR"] = str(second)
    tidegate(cli, "restore", str(backup), "--key", f"{backup}.key")
    assert sorted(entry.name for entry in second.iterdir()) == ["key", "postgresql"]
    assert look(second, STATES, TIME_PASSES)[0] == "succeeded running"
    api.count = 60
    api.gate.set()
    assert json.loads(tidegate(cli, "run", "acme/orders", "--json"))[0]["state"] == "succeeded"
    states, delivered, breaks = look(second, STATES, DELIVERED, BREAKS)
    assert set(states.split()) <= {"succeeded", "superseded"}, "the run at work went on too"
    assert (delivered, breaks) == (api.count, 0)
    assert json.loads(tidegate(cli, "doctor", "--json"))["ok"]


def test_what_is_in_the_way_is_refused_and_left_alone(embedded: CommandLine) -> None:
    """SPEC 8: exit code 2, nothing half-written."""
    cli = embedded
    first, backup = cli.folder / "first", cli.folder / "a.backup"
    assert "holds no database" in tidegate(cli, "backup", str(backup), code=2)
    tidegate(cli, "apply", "-f", cli.write("tidegate.yaml", CONFIGURATION), "--yes")
    assert "THE KEY IS NOT IN IT" in tidegate(cli, "backup", str(backup))
    cli.environment["TIDEGATE_KEY"] = base64.b64encode(bytes(32)).decode()
    other = cli.folder / "b.backup"
    assert "TIDEGATE_KEY: keep that" in tidegate(cli, "backup", str(other), "--with-key", code=2)
    assert not list(cli.folder.glob("b.backup*")), "a key file that opens nothing is not kept for the one that does"
    del cli.environment["TIDEGATE_KEY"]
    size = backup.stat().st_size
    assert "no backup is overwritten" in tidegate(cli, "backup", str(backup), code=2)
    assert "is not empty" in tidegate(cli, "restore", str(backup), code=2)
    assert (backup.stat().st_size, (first / "postgresql").is_dir()) == (size, True)
    backup.write_bytes(backup.read_bytes()[: size // 2])
    cli.environment["TIDEGATE_DATA_DIR"] = str(cli.folder / "second")
    assert "cannot be restored" in tidegate(cli, "restore", str(backup), code=2)
    assert list((cli.folder / "second").iterdir()) == []


def test_what_cannot_be_written_is_named(embedded: CommandLine) -> None:
    """SPEC 8: exit code 2 with the path and a remedy: a data directory that is a file, a backup of a name too long."""
    cli = embedded
    cli.environment["TIDEGATE_DATA_DIR"] = cli.write("first", "no directory")
    backup = cli.write("a.backup", "any")
    for arguments in (["status"], ["restore", backup], ["status", "--json"]):
        assert "TIDEGATE_DATA_DIR" in tidegate(cli, *arguments, code=2)
    cli.environment["TIDEGATE_DATA_DIR"] = str(cli.folder / "first" / "below")
    assert "cannot be used" in tidegate(cli, "status", code=2)
    (cli.folder / "second" / "postgresql").mkdir(parents=True)
    (cli.folder / "second" / "postgresql" / "PG_VERSION").touch()
    cli.environment["TIDEGATE_DATA_DIR"] = str(cli.folder / "second")
    assert "cannot be written" in tidegate(cli, "backup", str(cli.folder / ("b" * 250)), code=2)


def test_a_server_that_does_not_start_is_said_with_what_to_do(
    embedded: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC 8: exit code 1 and the remedy, by the command too that others point to; no traceback, nothing left behind."""
    cli = embedded
    tidegate(cli, "apply", "-f", cli.write("tidegate.yaml", CONFIGURATION), "--yes")
    settings = cli.folder / "first" / "postgresql" / "postgresql.conf"
    before = settings.read_text()
    settings.write_text("nonsense")
    told = tidegate(cli, "status", code=1)
    assert "does not start" in told
    assert str(settings.with_name("log")) in told
    assert "does not start" in tidegate(cli, "backup", str(cli.folder / "a.backup"), code=1)
    assert not list(cli.folder.glob("a.backup*"))
    found = json.loads(cli("doctor", "--json").stdout)["checks"][-1]
    assert (found["code"], "does not start" in found["finding"]) == ("database_unreachable", True)
    monkeypatch.setattr("tidegate.store.embedded.LEAST_FREE_BYTES", 2**63)
    assert "its disk is full" in tidegate(cli, "status", code=1)
    settings.write_text(before)
    tidegate(cli, "status")


def test_an_external_database_has_its_own_tools(cli: CommandLine) -> None:
    """pg_dump and pg_restore do it; nothing in Tidegate's schema needs a superuser."""
    for arguments in (["backup", "x"], ["restore", "x"], ["stop"]):
        result = cli(*arguments)
        assert (result.exit_code, "this is for the embedded server" in result.stderr) == (2, True)


def test_a_server_left_by_killed_processes_is_found_again_and_can_be_stopped(embedded: CommandLine) -> None:
    """SPEC 7: kill -9 leaves the server running. The next process uses it and, as the last one, stops it."""
    cli = embedded
    first = cli.folder / "first"
    for ending in (["status"], ["stop"]):
        with started(cli, "up") as process:
            wait_for(process, "up")
            assert "in use by process" in tidegate(cli, "stop", code=2)
            process.kill()
            process.communicate()
        assert is_running(first)
        tidegate(cli, *ending)
        assert not is_running(first)
    assert "not running" in tidegate(cli, "stop")
