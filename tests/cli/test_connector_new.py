"""`tidegate connector new`: a skeleton that loads as it is, that `connector check` accepts once filled, and no file lost."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qsl, urlsplit

import pytest
from typer.testing import CliRunner, Result

from tidegate.cli.connector import WRONG_KEY, app
from tidegate.cli.token_file import TokenFile
from tidegate.connectors.registry import find_connector
from tidegate.connectors.rest.loader import load
from tidegate.connectors.skeletons import KINDS, shipped, skeleton
from tidegate.domain.errors import InvalidInput

ORDERS = [{"id": n, "updated_at": f"2026-07-{n:02}T12:00:00Z"} for n in range(1, 29)]
SECRETS = ("access_token", "api_key", "client_id", "client_secret", "refresh_token")


def _run(*arguments: str) -> Result:
    return CliRunner(env={name.upper(): f"{name}-0123456789" for name in SECRETS}).invoke(app, arguments)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", [*KINDS, *shipped()])
def test_a_skeleton_is_written_loads_and_has_the_name(kind: str, here: Path) -> None:
    result = _run("new", "acme-shop", "--from-example", kind)
    assert result.exit_code == 0, result.output
    assert find_connector(str(here / "acme-shop.yaml")).name == "acme-shop"
    text = (here / "acme-shop.yaml").read_text()
    assert "NAME" not in text
    assert text.startswith("# ")
    if kind in KINDS:
        assert text.count("<-") > 5
    assert ("<-" in result.output) == ("<-" in text), "nobody is sent to look for a mark that is not there"


@pytest.mark.parametrize("kind", KINDS)
def test_a_skeleton_shows_the_other_ways_to_authenticate(kind: str) -> None:
    """Each is a line that takes the place of the one that is there; a platform with name and password is common."""
    text = skeleton("acme", kind)
    own = re.search(r"^authentication:.*\n(?:  .*\n)+", text, re.MULTILINE)
    assert own is not None
    others = re.findall(r"^# (authentication: .*)$", text, re.MULTILINE)
    ways = {
        load(text).authentication.kind,
        *(load(text.replace(own[0], f"{each}\n")).authentication.kind for each in others),
    }
    assert {"basic", "bearer", "header", "query"} <= ways
    assert len(ways) == len(others) + 1


def test_without_a_choice_it_is_the_first_kind(here: Path) -> None:
    assert json.loads(_run("new", "acme", "--json").stdout) == {"file": "acme.yaml", "kind": KINDS[0]}
    assert (here / "acme.yaml").read_text() == skeleton("acme", KINDS[0])


def test_what_is_there_is_not_overwritten(here: Path) -> None:
    (here / "acme.yaml").write_text("mine")
    result = _run("new", "acme")
    assert (result.exit_code, (here / "acme.yaml").read_text()) == (2, "mine")
    assert "exists already" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Acme",), "lower-case letters"),
        (("../acme",), "lower-case letters"),
        (("acme", "--from-example", "keysett"), "Did you mean 'keyset'"),
        (("acme", "--from-example", "shopify"), "Known are: token"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(arguments: tuple[str, ...], said: str, here: Path) -> None:
    result = _run("new", *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert list(here.rglob("*.yaml")) == []


Reply = dict[str, object]


def _by_token(query: dict[str, str]) -> Reply:
    found, begin = _since(query.get("updated_after")), int(query.get("cursor", 0))
    end = begin + int(query["limit"])
    return {"orders": found[begin:end], "next_cursor": str(end) if end < len(found) else None}


def _by_page(query: dict[str, str]) -> Reply:
    found, size, page = (
        _since(query.get("updated_since") or query.get("since")),
        int(query["per_page"]),
        int(query["page"]),
    )
    return {"data": found[(page - 1) * size : page * size], "meta": {"pages": -(-len(found) // size)}}


def _by_search(body: dict[str, str]) -> Reply:
    found = ORDERS
    for condition in body.get("filters") or []:
        at = int(condition["value"]) / 1000 - 1782864000  # type: ignore[index]
        found = [order for order in found if (int(str(order["updated_at"])[8:10]) - 1) * 86400 + 43200 >= at]
    begin = int(body.get("after", 0))
    end = begin + int(body["limit"])
    return {"results": found[begin:end], "paging": {"next": str(end)} if end < len(found) else {}}


def _since(text: str | None) -> list[dict[str, object]]:
    return [order for order in ORDERS if text is None or str(order["updated_at"]) >= text]


class Platform:
    """What each skeleton assumes of a platform, and a token endpoint."""

    def __init__(self, answer: Callable[[dict[str, str]], Reply]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def _send(self, document: Reply) -> None:
                body = json.dumps(document).encode()
                sent = " ".join(self.headers.values())
                self.send_response(401 if WRONG_KEY in sent else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self._send(answer(dict(parse_qsl(urlsplit(self.path).query))))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/oauth/token":
                    self._send({"access_token": "made-0123456789", "refresh_token": "rotated-0123456789"})
                else:
                    self._send(answer(json.loads(body)))

            def log_message(self, *_given: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_given: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.mark.parametrize(
    ("kind", "answer"), [("token", _by_token), ("page", _by_page), ("keyset", _by_page), ("search", _by_search)]
)
def test_a_skeleton_filled_in_is_accepted_without_a_warning(
    kind: str, answer: Callable[[dict[str, str]], Reply], here: Path
) -> None:
    """Only what is marked is filled in: the address, the size of a page; the rest is as the platform has it."""
    text = skeleton("acme", kind)
    with Platform(answer) as url:
        filled = re.sub(r"https://(api|login)\.example\.com", url, text).replace("value: 100", "value: 10")
        (here / "acme.yaml").write_text(filled)
        secrets = [name for name in SECRETS if f"secrets.{name}" in text]
        given = [part for name in secrets for part in ("--secret-env", f"{name}={name.upper()}")]
        tokens = ("--token-file", "acme.tokens") if kind == "search" else ()
        result = _run("check", "acme.yaml", *given, *tokens, "--allow-private-addresses")
    assert result.exit_code == 0, result.output
    assert "records  10 on the first page" in result.output
    assert "warning" not in result.output


def test_a_look_does_not_use_up_a_refresh_token(here: Path) -> None:
    """A refresh may be answered with a new refresh token: it is kept where only its owner reads it, and never shown."""
    (here / "acme.yaml").write_text(skeleton("acme", "search"))
    given = [part for name in SECRETS[2:] for part in ("--secret-env", f"{name}={name.upper()}")]
    refused = _run("check", "acme.yaml", *given)
    assert refused.exit_code == 2
    assert "--token-file" in refused.output
    with Platform(_by_search) as url:
        text = re.sub(r"https://(api|login)\.example\.com", url, skeleton("acme", "search"))
        (here / "acme.yaml").write_text(text)
        result = _run(
            "check", "acme.yaml", *given, "--token-file", "acme.tokens", "--allow-private-addresses", "--json"
        )
    assert result.exit_code == 0, result.output
    kept = here / "acme.tokens"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text())["refresh"] == "rotated-0123456789"
    assert "0123456789" not in result.output
    (here / "acme.tokens").write_text("no tokens")
    result = _run("check", "acme.yaml", *given, "--token-file", "acme.tokens", "--allow-private-addresses")
    assert result.exit_code == 2
    assert "is not a token file" in result.output


def test_a_token_file_that_cannot_be_written_is_told_before_a_token_is_asked_for(here: Path) -> None:
    """SPEC 8: exit code 2 with --json on stderr as everywhere, and no refresh token used up."""
    asked: list[str] = []

    async def renewal(held: Mapping[str, str]) -> Mapping[str, str]:
        asked.append("token")
        return held

    (here / "taken.tokens.new").mkdir()
    for name in ("nowhere/acme.tokens", "taken.tokens"):
        with pytest.raises(InvalidInput, match=f"{name}' cannot be written"):
            asyncio.run(TokenFile(Path(name)).renew(renewal))
    assert asked == []
    (here / "acme.yaml").write_text(skeleton("acme", "search"))
    given = [part for name in SECRETS[2:] for part in ("--secret-env", f"{name}={name.upper()}")]
    result = _run("check", "acme.yaml", *given, "--token-file", "nowhere/acme.tokens", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert json.loads(result.stderr)["value"] == "nowhere/acme.tokens"


def test_every_skeleton_says_what_it_is_for() -> None:
    for kind in KINDS:
        text = skeleton("acme", kind)
        assert load(text).streams
        assert text.splitlines()[0].startswith("# acme: ")
