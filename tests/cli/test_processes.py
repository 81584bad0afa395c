"""`tidegate` as processes: exit codes, signals, start-up, the embedded database (SPEC 7, 8)."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIGURATION, CommandLine
from tests.cli.orders_api import OrdersApi
from tests.cli.test_commands import in_database, make_due

TIDEGATE = [sys.executable, "-m", "tidegate"]


AS_A_TERMINAL_DOES = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)


@contextmanager
def started(cli: CommandLine, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a running command, as a terminal would start it; it is killed if a test leaves it.

    Where the tests themselves run in the background (nohup, some CI) SIGINT is ignored, and children would inherit that.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", AS_A_TERMINAL_DOES, *TIDEGATE, *arguments],
        env={**os.environ, **cli.environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def log_lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def wait_for(process: subprocess.Popen[str], event: str) -> dict[str, object]:
    """Return the log line of an event, as soon as it comes."""
    assert process.stderr is not None
    for line in process.stderr:
        entry: dict[str, object] = json.loads(line)
        if entry["event"] == event:
            return entry
    raise AssertionError(f"ended with {process.wait()} before {event!r}")


@pytest.mark.parametrize("command", [("up",), ("worker", "--slots", "2")])
def test_sigterm_delivers_the_page_in_hand_and_gives_the_run_back(
    cli: CommandLine, api: OrdersApi, command: tuple[str, ...]
) -> None:
    """SPEC 5, 8: graceful; the next worker goes on from the checkpoint and nothing is fetched twice."""
    cli.apply()
    make_due(cli)
    api.gate.clear()
    with started(cli, *command) as process:
        wait_for(process, "up")
        assert api.asked.wait(30), "the due run must start"
        process.send_signal(signal.SIGTERM)
        assert "pages in hand" in str(wait_for(process, "stopping")["note"])
        api.gate.set()
        _, rest = process.communicate(timeout=30)
        assert process.returncode == 0
        assert log_lines(rest)[-1]["event"] == "stopped"
    (run,) = cli.json("runs")
    assert (run["state"], run["read_count"]) == ("retrying", 20)
    ended = {each["id"]: each for each in cli.json("tick")}[run["id"]]  # beside one that has become due meanwhile
    assert (ended["state"], ended["read_count"], ended["inserted_count"]) == ("succeeded", 45, 45)


@pytest.mark.parametrize("command", [("tick",), ("run", "acme/orders", "--json")], ids=["tick", "run"])
def test_sigterm_of_run_and_tick_delivers_the_page_in_hand_and_exits_with_130(
    cli: CommandLine, api: OrdersApi, command: tuple[str, ...]
) -> None:
    """SPEC 5, 8: what a supervisor stops goes on from its checkpoint; nothing is fetched twice."""
    cli.apply()
    make_due(cli)
    api.gate.clear()
    with started(cli, *command) as process:
        assert api.asked.wait(60), "a run must start"
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert any("pages in hand" in line for line in process.stderr)
        api.gate.set()
        out, rest = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        assert "Interrupted." in rest
        assert "Traceback" not in rest
    (run,) = [each for each in cli.json("runs") if each["state"] == "retrying"]
    assert (run["read_count"], run["attempt"]) == (20, 0)
    (run,) = [each for each in cli.json("tick") if each["id"] == run["id"]]
    assert (run["state"], run["read_count"], run["inserted_count"]) == ("succeeded", 45, 45)


def test_the_second_signal_ends_it_at_once(cli: CommandLine, api: OrdersApi) -> None:
    """A source that hangs does not hold the process."""
    cli.apply()
    make_due(cli)
    api.gate.clear()
    with started(cli, "up", "--json") as process:
        wait_for(process, "up")
        assert api.asked.wait(30)
        process.send_signal(signal.SIGINT)
        wait_for(process, "stopping")
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=15)
        assert not api.gate.is_set(), "the source still hangs"
        assert process.returncode == 130
        assert rest == "", "nothing is torn down noisily"


def test_ctrl_c_of_a_run_gives_it_back_and_exits_with_130(cli: CommandLine, api: OrdersApi) -> None:
    """The conventional code of an interrupted command; no traceback, and the run is not lost."""
    cli.apply()
    api.gate.clear()
    with started(cli, "run", "acme/orders") as process:
        assert api.asked.wait(60)
        process.send_signal(signal.SIGINT)
        out, text = process.communicate(timeout=60)  # the source stays silent: let go after the grace of 10 s
        assert (process.returncode, out) == (130, "")
        assert "Interrupted." in text
        assert "Traceback" not in text
    api.gate.set()
    (run,) = cli.json("runs")
    assert run["state"] == "retrying"
    assert cli.json("tick")[0]["state"] == "succeeded"


def test_tick_does_not_wait_behind_a_run_that_is_put_back(cli: CommandLine, api: OrdersApi) -> None:
    """SPEC 8: a source that is down for an hour does not hold cron's `tick` for an hour."""
    api.status = 500
    cli.apply()
    make_due(cli)
    assert cli("tick").exit_code == 1
    in_database(
        cli,
        """update tidegate.runs set not_before_at = now() + interval '1 hour', period_end = period_end - interval '1 hour',
                  first_due_at = first_due_at - interval '1 hour', due_at = due_at - interval '1 hour'""",
    )
    make_due(cli, minutes=1)
    done = subprocess.run(
        [*TIDEGATE, "tick", "--json"],
        env={**os.environ, **cli.environment},
        text=True,
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert [run["state"] for run in cli.json("runs")] == ["waiting", "retrying"]


def test_run_works_while_up_runs_elsewhere(cli: CommandLine) -> None:
    """SPEC 7: planner and workers are the same code in every process; either may execute the run."""
    cli.apply()
    with started(cli, "up") as process:
        wait_for(process, "up")
        (run,) = cli.json("run", "acme/orders")
        assert run["state"] == "succeeded"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0


def test_without_a_database_the_embedded_one_is_used_and_kept(cli: CommandLine) -> None:
    """SPEC 7: data in the data directory, there for the next command."""
    environment = {**os.environ, **cli.environment}
    del environment["TIDEGATE_DATABASE_URL"]
    environment["TIDEGATE_DATA_DIR"] = str(cli.folder / "embedded")
    cli.folder.chmod(0o755)
    path = cli.write("tidegate.yaml", CONFIGURATION)

    def tidegate(*arguments: str) -> str:
        done = subprocess.run(
            [*TIDEGATE, *arguments], env=environment, text=True, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    tidegate("apply", "-f", path)
    tidegate("run", "acme/orders")
    (status,) = json.loads(tidegate("status", "--json"))
    assert status["state"] == "succeeded"
    assert (cli.folder / "embedded" / "key").stat().st_mode & 0o777 == 0o600


def test_the_command_line_starts_without_the_heavy_modules() -> None:
    """Start-up stays quick: database, HTTP and tables are imported when they are needed."""
    code = (
        "import sys, tidegate.cli.main as m; m.LazyGroup(name='x').get_command(None, 'apply'); "
        "print(sorted({'asyncpg', 'aiohttp', 'pgqueuer', 'rich', 'structlog', 'msgspec', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (["backfill", "acme/orders", "orders", "--json"], "--from"),
        (["runs", "--state", "lost", "--json"], "--state"),
        (["status", "--json", "--nope"], "--nope"),
        (["nope", "--json"], ""),
        (["apply", "--json"], "--file"),
        (["schedule", "preview", "--json"], "FILE"),
    ],
)
def test_bad_usage_is_told_as_json_if_that_is_asked_for(cli: CommandLine, wrong: list[str], field: str) -> None:
    """SPEC 8: `--json` everywhere, errors too; 2 is bad usage."""
    result = cli(*wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    told = json.loads(result.stderr)
    assert (told["code"], field in told["field"] or field in told["message"]) == ("bad_usage", True)
    assert "--help" in told["remedy"]


def test_the_exit_codes_are_the_same_with_json(cli: CommandLine) -> None:
    """SPEC 8: 0 done, 1 the work failed, 2 bad input; `--help` too."""
    cli.apply()
    assert cli("status", "--json").exit_code == 0
    assert cli("status", "--help", "--json").exit_code == 0
    assert cli("run", "acme/nothing", "--json").exit_code == 2
    make_due(cli)
    assert cli("doctor", "--json").exit_code == 1


@pytest.mark.parametrize(
    ("typed", "code", "said", "streams"),
    [(b"\x03", 130, b"Interrupted.", 0), (b"n\n", 0, b"Nothing was changed.", 0), (b"y\n", 0, b"Applied.", 1)],
    ids=["Ctrl-C", "no", "yes"],
)
def test_what_is_answered_at_applys_question_is_done(
    cli: CommandLine, typed: bytes, code: int, said: bytes, streams: int
) -> None:
    """SPEC 8: 130 at the first Ctrl-C, and nothing is changed."""
    path = cli.write("tidegate.yaml", CONFIGURATION)
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [*TIDEGATE, "apply", "-f", path], {**os.environ, **cli.environment})
    seen = _seen_until(terminal, b"Apply these changes?")
    _wait_until_it_waits(child)
    os.write(terminal, typed)
    seen += _seen_until(terminal, b"never said")
    status = _ended(child, seen)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == code, seen.decode()
    assert b"Traceback" not in seen
    assert said in seen
    assert seen.count(b"+ tenant acme") == 1
    assert len(cli.json("status")) == streams


def _wait_until_it_waits(child: int) -> None:
    """Return once a process has been asleep at twenty looks in a row: it has come to read the answer to its question."""
    asleep = 0
    while asleep < 20:
        state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
        time.sleep(0.01)


def _ended(child: int, seen: bytes) -> int:
    """Return the status that a process has ended with; end it, and the test, if it goes on."""
    for _ in range(500):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail(f"it goes on waiting: {seen.decode()}")


def _seen_until(terminal: int, words: bytes) -> bytes:
    """Return what a terminal shows until ``words`` come, it is closed, or half a minute has passed without a word."""
    seen = b""
    while words not in seen and select.select([terminal], [], [], 30)[0]:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # the other side is gone
            break
        if not data:
            break
        seen += data
    return seen


def test_version_and_usage_errors() -> None:
    """SPEC 8: 0 and 2."""
    version = subprocess.run([*TIDEGATE, "--version"], text=True, capture_output=True, timeout=60, check=True)
    assert version.stdout.startswith("tidegate 0.")
    for wrong in (["nope"], ["up", "--nope"], ["worker", "--role", "cook"], ["apply"]):
        done = subprocess.run([*TIDEGATE, *wrong], text=True, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (2, "")
