"""`tidegate webhook`, and webhooks and files by configuration: the whole way from a file to a receiver (SPEC 5, 8)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIGURATION, CommandLine
from tests.cli.test_commands import make_due
from tests.destinations.webhook.receiver import SECRET, verify

OWN = "own: {kind: postgresql, settings: {schema: shop}}"


@dataclass
class App:
    """A receiver in a thread of its own: it verifies, and answers with ``status``."""

    url: str = ""
    status: int = 200
    ids: list[str] = field(default_factory=list)


@pytest.fixture
def receiving() -> Iterator[App]:
    """A tenant's app."""
    receiver = App()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            verify(SECRET, body, headers, datetime.now(UTC))
            receiver.ids.append(headers["webhook-id"])
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hooks"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield receiver
    server.shutdown()
    thread.join()
    server.server_close()


def webhook(url: str, **settings: object) -> str:
    """Return the configuration with a webhook in the place of its tables."""
    written = json.dumps({"url": url, **settings})
    secrets = '{signing_secrets: "${SIGNING}"}'
    return CONFIGURATION.replace(OWN, f"own: {{kind: webhook, settings: {written}, secrets: {secrets}}}")


def test_from_a_file_to_a_receiver_and_again_from_the_dead_letter(cli: CommandLine, receiving: App) -> None:
    """SPEC 8: apply, run, list, show, dead-letters and replay, as JSON and for people; unknown ids are bad input."""
    cli.environment["SIGNING"] = SECRET
    shown = cli.apply(webhook(receiving.url))
    assert SECRET not in shown
    receiving.status = 422
    (run,) = cli.json("run", "acme/orders")
    assert (run["state"], run["inserted_count"], run["dead_count"]) == ("succeeded", 45, 45)
    assert "45 in the dead letter" in cli.ok("runs").replace("\n", " ")
    dead = cli.json("webhook", "dead-letters", "acme/orders")
    assert {row["state"] for row in dead} == {"dead"}
    assert sum(row["records"] for row in dead) == 45
    assert f"not acknowledged: {45} records" in cli.ok("coverage")
    assert "The receiver answered 422" in cli.ok("webhook", "list")
    body = cli.json("webhook", "show", dead[0]["message_id"])["body"]
    assert body["data"]["tenant_id"] == "acme"

    receiving.status, before = 200, list(receiving.ids)
    assert cli.json("webhook", "replay", "--dead", "--installation", "acme/orders") == {"replayed": len(dead)}
    cli.json("tick")
    assert receiving.ids[: len(before)] == before
    assert set(before) <= set(receiving.ids[len(before) :])
    assert cli.json("webhook", "dead-letters") == []
    assert cli.json("runs")[-1]["dead_count"] == 0
    assert "No settled message fits." in cli.ok("webhook", "replay", "--dead", "--installation", "acme/orders")
    assert cli.json("webhook", "list", "--state", "acknowledged")[0]["status"] == 200
    for wrong in (
        ["replay", "msg_unknown"],
        ["replay"],
        ["show", "msg_unknown"],
        ["list", "nobody"],
        ["replay", "--since", "soon"],
        ["replay", "--installation", "acme/orders", "--stream", "ordres"],
    ):
        result = cli("webhook", *wrong, "--json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert json.loads(result.stderr)["remedy"]


def test_what_no_receiver_will_take_is_dropped_dead_or_open(cli: CommandLine, receiving: App) -> None:
    """SPEC 5, 8: by id or from the dead letter, with a reason; the run ends, and every face says what was not taken."""
    cli.environment["SIGNING"] = SECRET
    cli.apply(webhook(receiving.url))
    make_due(cli)
    receiving.status = 503
    assert cli("tick").exit_code == 1
    (waits,) = cli.json("webhook", "list")
    assert (waits["state"], waits["dropped_at"], waits["dropped_reason"]) == ("open", None, "")
    for wrong in (
        ["drop", waits["message_id"]],
        ["drop", waits["message_id"], "--reason", " "],
        ["drop", waits["message_id"], "msg_unknown", "--reason", "chokes"],
        ["drop", "--reason", "chokes"],
        ["drop", "--installation", "acme/orders", "--reason", "chokes"],
        ["drop", waits["message_id"], "--dead", "--reason", "chokes"],
    ):
        result = cli("webhook", *wrong, "--json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert json.loads(result.stderr)["remedy"]
    assert cli.json("webhook", "list") == [waits]
    assert cli.json("webhook", "drop", waits["message_id"], "--reason", "[chokes]") == {"dropped": 1}
    cli.json("tick")
    assert len(receiving.ids) == 1, "it is sent no more"
    (run,) = cli.json("runs")
    assert (run["state"], run["dead_count"]) == ("succeeded", waits["records"])
    assert cli.json("coverage")[0]["dead_records"] == waits["records"]
    told = f"not acknowledged: {waits['records']} records, see `tidegate webhook list --state dead --state dropped`"
    assert told in cli.ok("coverage").replace("\n", " ")
    assert (cli.json("webhook", "dead-letters"), cli.json("alerts")) == ([], [])
    (dropped,) = cli.json("webhook", "list", "--state", "dropped")
    assert (dropped["state"], dropped["status"], dropped["dropped_reason"]) == ("dropped", 503, "[chokes]")
    shown = cli.ok("webhook", "show", waits["message_id"])
    assert f"Last answer: {waits['answer']}" in shown
    assert ": [chokes]" in shown

    receiving.status = 422
    assert cli.json("webhook", "replay", waits["message_id"]) == {"replayed": 1}
    cli("tick")
    assert len(cli.json("alerts")) == 1
    assert "takes out what is not wanted" in cli.json("alerts")[0]["remedy"]
    everything = ("webhook", "drop", "--dead", "--installation", "acme/orders", "--reason", "no such field")
    assert "1 message dropped." in cli.ok(*everything)
    assert "No message in the dead letter fits." in cli.ok(*everything)
    assert "no such field" in cli.ok("webhook", "list").replace("\n", " ")
    cli("tick")
    assert cli.json("alerts") == []


def test_a_tick_that_leaves_a_receiver_waiting_says_so(cli: CommandLine, receiving: App) -> None:
    """SPEC 8: exit code 1, the state, and why; nothing is covered yet."""
    cli.environment["SIGNING"] = SECRET
    cli.apply(webhook(receiving.url))
    make_due(cli)
    receiving.status = 503
    result = cli("tick", "--json")
    assert result.exit_code == 1
    (run,) = [run for run in json.loads(result.stdout) if run["state"] == "delivering"]
    assert run["finished_at"] is None
    (status,) = cli.json("status")
    assert status["watermark"] is None
    assert "The receiver answered 503" in status["uncovered"]["reason"]


def test_files_by_configuration(cli: CommandLine, tmp_path: Path) -> None:
    """SPEC 5 "Files": a folder is all it takes."""
    root = tmp_path / "files"
    cli.apply(CONFIGURATION.replace(OWN, f"own: {{kind: files, settings: {{root: {root}}}}}"))
    (run,) = cli.json("run", "acme/orders")
    assert run["state"] == "succeeded"
    (file,) = root.rglob("*.jsonl")
    assert file.parent == root / "acme" / "orders" / "orders"
    assert len({json.loads(line)["record"]["id"] for line in file.read_text().splitlines()}) == 45


def test_what_is_wrong_with_a_destination_is_named_and_a_kind_is_not_changed(cli: CommandLine, receiving: App) -> None:
    """SPEC 8: exit code 2, every mistake with its path, and no secret shown."""
    cli.environment["SIGNING"] = "whsec_tooshort"
    wrong = webhook("ftp://receiver.example/")
    result = cli("apply", "-f", cli.write("wrong.yaml", wrong), "--json")
    assert result.exit_code == 2
    assert [error["field"] for error in json.loads(result.stderr)["errors"]] == [
        "destinations.own.secrets.signing_secrets"
    ]
    assert "tooshort" not in result.stderr
    cli.environment["SIGNING"] = SECRET
    for text, name in (
        (wrong, "destinations.own.settings.url"),
        (webhook(receiving.url, timeout="1s"), "destinations.own.settings.timeout"),
        (CONFIGURATION.replace(OWN, "own: {kind: files, settings: {root: here}}"), "destinations.own.settings.root"),
    ):
        result = cli("apply", "-f", cli.write("wrong.yaml", text), "--json")
        assert [error["field"] for error in json.loads(result.stderr)["errors"]] == [name]
    cli.apply()
    result = cli("apply", "-f", cli.write("other.yaml", webhook(receiving.url)), "--json")
    assert [error["field"] for error in json.loads(result.stderr)["errors"]] == ["destinations.own.kind"]
