"""What we send is verified by those who define it: the official verifiers of PyPI and npm, and the guide's receivers."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from tests.destinations.webhook.receiver import HEADERS, OLDER_SECRET, SECRET, verify
from tests.destinations.webhook.world import Sending, in_sending
from tidegate.destinations.webhook.message import Body
from tidegate.destinations.webhook.settings import WebhookSettings
from tidegate.destinations.webhook.signing import SigningKeys
from tidegate.domain.errors import InvalidInput
from tidegate.engine.commands.messages import replay
from tidegate.store.messages import Choice

DOCS = Path(__file__).parents[3] / "docs"
NPM = "standardwebhooks@1.1.1"
NOW = datetime(2026, 7, 14, tzinfo=UTC)


@pytest.fixture(scope="session")
def modules(request: pytest.FixtureRequest) -> Path:
    """The folder node_modules with the official verifier; installed once into .cache, fails if it cannot be had."""
    folder = request.config.rootpath / ".cache" / "standardwebhooks"
    installed = folder / "node_modules"
    if not (installed / "standardwebhooks" / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), NPM]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"the verifier is needed and npm cannot install {NPM}: {done.stderr.strip()}"
    return installed


JUDGE = """
const { Webhook } = require("standardwebhooks");
const { now, cases } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
Date.now = () => now;
const verdicts = cases.map(({ secret, body, headers }) => {
  try { new Webhook(secret).verify(body, headers); return true; } catch { return false; }
});
process.stdout.write(JSON.stringify(verdicts));
"""


def judged(modules: Path, now: datetime, cases: list[dict[str, Any]]) -> list[bool]:
    """Return of each case whether the npm verifier accepts it at ``now``."""
    asked = json.dumps({"now": now.timestamp() * 1000, "cases": cases})
    environment = {"NODE_PATH": str(modules), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    node = shutil.which("node")
    assert node is not None, "node is needed"
    done = subprocess.run(
        [node, "-e", JUDGE], input=asked, capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    verdicts: list[bool] = json.loads(done.stdout)
    return verdicts


def accepted(secret: str, body: bytes, headers: dict[str, str], now: datetime) -> bool:
    """Return whether the PyPI verifier accepts a request."""
    try:
        verify(secret, body, headers, now)
    except WebhookVerificationError:
        return False
    return True


def test_both_official_verifiers_accept_what_is_sent_and_nothing_else(modules: Path) -> None:
    """SPEC 5 "Standard Webhooks signature and headers": with either key while two are active; not what was altered or is old."""
    body = '{"type":"records","data":{"note":"ünïcödé ☂"}}'.encode()
    keys = SigningKeys.parse(f"{SECRET} {OLDER_SECRET}")
    headers = keys.headers("msg_1", NOW, body)
    stranger = "whsec_" + "A" * 44
    single = SigningKeys.parse(SECRET).headers("msg_1", NOW, body)
    cases: list[tuple[str, bytes, dict[str, str], bool]] = [
        (SECRET, body, headers, True),
        (OLDER_SECRET, body, headers, True),
        (SECRET, body, single, True),
        (OLDER_SECRET, body, single, False),
        (stranger, body, headers, False),
        (SECRET, body.replace(b"note", b"bote"), headers, False),
        (SECRET, body, headers | {"webhook-id": "msg_2"}, False),
        (SECRET, body, keys.headers("msg_1", NOW - timedelta(minutes=6), body), False),
    ]
    expected = [good for *_, good in cases]
    assert [accepted(secret, text, given, NOW) for secret, text, given, _ in cases] == expected
    told = [{"secret": secret, "body": text.decode(), "headers": given} for secret, text, given, _ in cases]
    assert judged(modules, NOW, told) == expected


def test_requests_as_they_arrive_are_accepted_by_the_other_verifier_too(modules: Path, database_url: str) -> None:
    """SPEC 5: the receiver of all tests verifies with PyPI's; here the same bytes go to npm's; and they fit the schema."""

    async def story(sending: Sending) -> list[dict[str, Any]]:
        await sending.install(secrets=f"{SECRET} {OLDER_SECRET}")
        for number in range(1, 8):
            sending.world.shop.put(number, NOW - timedelta(hours=number), note='"☂\n', amount=1e300)
        sending.world.clock.set(NOW)
        await sending.tick()
        cases = []
        for one in sending.receiver.received:
            body = msgspec.json.decode(one.body, type=Body)
            assert body.data.record_count == len(body.data.records) > 0
            assert one.headers["content-type"] == "application/json"
            assert one.headers["user-agent"].startswith("tidegate-webhooks/")
            headers = {name: one.headers[name] for name in HEADERS}
            cases += [
                {"secret": secret, "body": one.body.decode(), "headers": headers} for secret in (SECRET, OLDER_SECRET)
            ]
        return cases

    cases = in_sending(database_url, story)
    assert judged(modules, NOW, cases) == [True] * len(cases)
    assert len(cases) > 0


def test_the_schema_in_the_docs_is_that_of_what_is_sent() -> None:
    """The JSON Schema of the body is made from the type that bodies are encoded from."""
    kept = json.loads((DOCS / "reference" / "webhook.schema.json").read_text())
    assert kept.pop("$schema") == "https://json-schema.org/draft/2020-12/schema"
    assert kept == msgspec.json.schema(Body)


def test_a_key_is_rotated_without_a_message_that_a_receiver_cannot_verify(database_url: str) -> None:
    """SPEC 5 "key rotation": old, both, new; the receiver changes over while both are active, in mid-outbox."""

    async def story(sending: Sending) -> None:
        sending.world.with_settings(batch_bytes=1)
        await sending.install(secrets=OLDER_SECRET)
        sending.receiver.secret = OLDER_SECRET
        url = {"url": sending.receiver.url}
        for number, secrets in enumerate(
            (OLDER_SECRET, f"{SECRET} {OLDER_SECRET}", f"{SECRET} {OLDER_SECRET}", SECRET)
        ):
            await sending.configure("webhook", url, {"signing_secrets": secrets})
            sending.world.shop.put(number, NOW + timedelta(days=number, hours=-1))
            sending.world.clock.set(NOW + timedelta(days=number))
            await sending.tick()
            if number == 1:
                sending.receiver.secret = SECRET
        assert [one.status for one in sending.receiver.received] == [204] * 4
        assert [len(one.headers["webhook-signature"].split()) for one in sending.receiver.received] == [1, 2, 2, 1]
        sealed = await sending.pool.fetchval("select sealed from destinations")
        assert SECRET.removeprefix("whsec_").encode() not in sealed

    in_sending(database_url, story)


WRONG = [
    ({"url": "https://a.example/"}, {}, "secrets.signing_secrets"),
    ({"url": "https://a.example/"}, {"signing_secrets": "  "}, "secrets.signing_secrets"),
    ({"url": "https://a.example/"}, {"signing_secrets": SECRET.removeprefix("whsec_")}, "secrets.signing_secrets"),
    ({"url": "https://a.example/"}, {"signing_secrets": "whsec_c2hvcnQ="}, "secrets.signing_secrets"),
    ({"url": "https://a.example/"}, {"signing_secrets": f"{SECRET} {SECRET}"}, "secrets.signing_secrets"),
    ({}, {"signing_secrets": SECRET}, "settings.url"),
    ({"url": "ftp://a.example/"}, {"signing_secrets": SECRET}, "settings.url"),
    ({"url": "https://"}, {"signing_secrets": SECRET}, "settings.url"),
    ({"url": "https://user:pass@a.example/"}, {"signing_secrets": SECRET}, "settings.url"),
    ({"url": "https://a.example/ b"}, {"signing_secrets": SECRET}, "settings.url"),
    ({"url": "https://a.example/"}, {"signing_secrets": SECRET, "url": "https://b.example/"}, "settings.url"),
    ({}, {"signing_secrets": SECRET, "url": "no address"}, "secrets.url"),
    ({"url": "https://a.example/", "timeout_seconds": 61}, {"signing_secrets": SECRET}, "settings.timeout_seconds"),
    ({"url": "https://a.example/", "max_body_bytes": "1 MB"}, {"signing_secrets": SECRET}, "settings.max_body_bytes"),
    ({"url": "https://a.example/", "max_body_bytes": 16383}, {"signing_secrets": SECRET}, "settings.max_body_bytes"),
    ({"url": "https://a.example/", "retry_for_days": True}, {"signing_secrets": SECRET}, "settings.retry_for_days"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "secrets", "field"), WRONG, ids=range(len(WRONG)))
def test_settings_that_are_not_usable_are_named(
    settings: dict[str, object], secrets: dict[str, str], field: str
) -> None:
    """House rule: bad input names field, value, problem and remedy, and never shows a secret."""
    with pytest.raises(InvalidInput) as refusal:
        WebhookSettings.parse(settings, secrets)
    assert refusal.value.field == field
    assert refusal.value.remedy
    shown = str(refusal.value.as_json())
    assert not [secret for text in secrets.values() for secret in text.split() if len(secret) > 8 and secret in shown]


@pytest.fixture
def port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def example(language: str, name: str) -> str:
    """Return a program of the guide."""
    guide = (DOCS / "guides" / "receive-webhooks.md").read_text()
    found = re.search(rf"```{language} {re.escape(name)}\n(.*?)```", guide, re.DOTALL)
    assert found is not None, f"the guide has no {name}"
    return found[1]


@asynccontextmanager
async def running(command: list[str], environment: dict[str, str], port: int) -> AsyncGenerator[None]:
    """Run a receiver until it is no longer needed."""
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    await writer.wait_closed()
                    break
                except ConnectionRefusedError:
                    assert process.returncode is None, "the receiver ended by itself"
                    await asyncio.sleep(0.02)
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_the_guides_receivers_take_each_message_once_and_keep_the_newest_versions(
    language: str, modules: Path, database_url: str, port: int, tmp_path: Path
) -> None:
    """The guide is run as it stands: signed messages are taken, repeated ones once, forged ones refused."""
    names = {"python": "receiver.py", "javascript": "receiver.js"}
    program = tmp_path / names[language]
    program.write_text(example(language, program.name))
    database = tmp_path / "kept"
    environment = {
        "SIGNING_SECRET": SECRET, "DATABASE": str(database), "PORT": str(port), "NODE_PATH": str(modules),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }  # fmt: skip
    interpreter = {"python": sys.executable, "javascript": str(shutil.which("node"))}[language]

    async def story(sending: Sending) -> None:
        now = datetime.now(UTC).replace(microsecond=0)  # real receivers have real clocks
        minute = timedelta(minutes=1)
        sending.world.clock.set(now - 3 * minute)
        sending.receiver.url = f"http://127.0.0.1:{port}/"
        start = (now - timedelta(days=1)).isoformat()
        await sending.world.install(rule={"every": "1m", "start_at": start})
        await sending.configure("webhook", {"url": sending.receiver.url}, {"signing_secrets": SECRET})
        for number in (1, 2, 3):
            sending.world.shop.put(number, now - timedelta(hours=number), note="first")
        sending.world.shop.put(4, now - 2 * minute, note="first")
        async with running([interpreter, str(program)], environment, port):
            sending.world.clock.set(now - 2 * minute)
            await sending.tick()
            sending.world.shop.put(2, now - 1.5 * minute, note="second")
            assert [len(one["body"].split(b'"note":"first"')) for one in await sending.outbox()] == [5]
            sending.world.shop.put(4, now - 2 * minute + timedelta(seconds=0.5), note="in the same second")
            sending.world.clock.set(now - minute)
            await sending.tick()
            assert await replay(sending.world.parts, Choice(tenant_id="acme", installation="sync")) >= 2
            await sending.send()
            assert {row["state"] for row in await sending.outbox()} == {"acknowledged"}
            (body,) = {bytes(row["body"]) for row in await sending.outbox() if row["position"] == 1}
            forged = {
                "webhook-id": "msg_x",
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": "v1,AAAA",
            }
            async with (
                aiohttp.ClientSession() as session,
                session.post(sending.receiver.url, data=body, headers=forged) as reply,
            ):
                assert reply.status == 400

    in_sending(database_url, story)
    kept = notes(language, database)
    assert kept == {1: "first", 2: "second", 3: "first", 4: "in the same second"}


def notes(language: str, database: Path) -> dict[int, str]:
    """Return what a receiver has kept: the note of each record."""
    if language == "javascript":
        records = [each["record"] for each in json.loads(database.read_text())["records"].values()]
    else:
        with sqlite3.connect(database) as connection:
            records = [json.loads(record) for (record,) in connection.execute("select record from records")]
        connection.close()
    return {record["id"]: record["note"] for record in records}
