"""`tidegate connector check`: what it shows, what it warns of, and how it exits."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from tests.connectors.rest.sources import Handler, declaration, replied, serve
from tidegate.cli.connector import app

SECRET = "sk_check_0123456789"
YAML = declaration(
    """
    path: /orders
    records: data
    key: [id]
    cursor: {field: at, format: iso, ascending: true}
    lower: {param: since, meaning: exclusive}
    upper: {param: until, meaning: inclusive}
    pager: {type: cursor, param: after, token: next}
""",
    "authentication: {type: bearer, token: '{secrets.key}'}",
)


def _run(tmp_path: Path, handler: Handler, *arguments: str, yaml: str = YAML) -> Result:
    file = tmp_path / "hostile.yaml"
    file.write_text(yaml)

    async def check() -> Result:
        async with serve(handler) as url:
            given = ["check", str(file), "--setting", f"url={url}", *arguments]
            return await asyncio.to_thread(CliRunner(env={"CHECK_KEY": SECRET}).invoke, app, given)

    return asyncio.run(check())


KEYED = ("--secret-env", "key=CHECK_KEY", "--allow-private-addresses")


def _ago(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).isoformat(timespec="milliseconds")


async def _sloppy(request: web.Request) -> web.Response:
    if request.headers.get("Authorization") != f"Bearer {SECRET}":
        return web.Response(status=401)
    records: list[object] = [
        {"id": 1, "at": _ago(hours=1), "total": 12.5, "paid": True, "lines": [], "on": "2026-07-13"},
        {"id": 2**64, "at": _ago(hours=2), "total": 3, "paid": None, "note": "x"},
        {"at": "soon"},
    ]
    return replied({"data": records, "next": "b"}, {"Date": "Mon, 13 Jul 2020 16:00:00 GMT"})


def test_it_shows_what_it_understood_and_warns_of_what_does_not_fit(tmp_path: Path) -> None:
    result = _run(tmp_path, _sloppy, *KEYED, "--json")
    assert result.exit_code == 0, result.output
    (orders,) = json.loads(result.stdout)["streams"]
    assert orders["records"] == 3
    assert orders["key"] == ["id"]
    assert "oldest first" in orders["cursor"]
    assert set(orders["sample_filters"]) == {"since", "until"}
    assert orders["pager"] == "?after=<next>; the end is a page without that token"
    assert orders["cursor_samples"][2] == ["'soon'", "cannot be read"]
    assert orders["cursor_samples"][0][1].endswith("Z")
    assert orders["columns"] == {
        "id": "bigint or numeric",
        "at": "timestamp or text",
        "total": "double or bigint",
        "paid": "boolean",
        "lines": "json",
        "on": "date",
        "note": "text",
    }
    warned = " ".join(orders["warnings"])
    for expected in (
        "behind ours",
        "1 of 3 records have no id",
        "no readable at",
        "finer than the declared 1 s",
        "does not ascend",
    ):
        assert expected in warned


def test_a_tidy_source_is_not_warned_of(tmp_path: Path) -> None:
    async def tidy(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {SECRET}":
            return web.Response(status=401)
        at = (datetime.now(UTC) - timedelta(hours=1)).replace(microsecond=0)
        shown = at >= datetime.fromisoformat(request.query.get("since", "2026-01-01T00:00:00Z"))
        return replied({"data": [{"id": 1, "at": at.isoformat()}] if shown else [], "next": None})

    result = _run(tmp_path, tidy, *KEYED)
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output
    assert "records  1 on the first page of the last 30 days\n" in result.output


def test_a_source_that_answers_a_wrong_key_is_warned_of(tmp_path: Path) -> None:
    """A withdrawn key would not stop the runs: they would cover what everybody may see (SPEC 5). It is asked once a stream."""
    asked: list[str] = []

    async def public(request: web.Request) -> web.Response:
        asked.append(request.headers["Authorization"])
        at = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
        return replied({"data": [{"id": 1, "at": at}], "next": None})

    result = _run(tmp_path, public, *KEYED)
    assert result.exit_code == 0, result.output
    assert "A wrong key is answered too, with 1 records" in " ".join(result.output.split())
    assert asked.count("Bearer wrong-on-purpose") == 1
    assert set(asked) == {"Bearer wrong-on-purpose", f"Bearer {SECRET}"}


@pytest.mark.parametrize(("username", "tried"), [("{secrets.key}", True), ("{settings.user}", False)])
def test_a_wrong_name_and_password_are_tried_and_never_a_password_of_somebody(
    tmp_path: Path, username: str, tried: bool
) -> None:
    """SPEC 5: Kinto answers a wrong password with what everybody may see. A name that is known might be locked out."""

    async def public(_request: web.Request) -> web.Response:
        at = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
        return replied({"data": [{"id": 1, "at": at}], "next": None})

    basic = f"{{type: basic, username: '{username}', password: '{{secrets.key}}'}}"
    yaml = YAML.replace("{type: bearer, token: '{secrets.key}'}", basic).replace("url: null", "url: null, user: ann")
    result = _run(tmp_path, public, *KEYED, yaml=yaml)
    assert result.exit_code == 0, result.output
    assert ("A wrong key is answered too" in " ".join(result.output.split())) is tried


@pytest.mark.parametrize("private", [True, False])
def test_the_path_that_verifies_the_key_is_tried_too(tmp_path: Path, private: bool) -> None:
    async def half_public(request: web.Request) -> web.Response:
        if request.path == "/me" and private and request.headers["Authorization"] != f"Bearer {SECRET}":
            return web.Response(status=401)
        at = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
        return replied({"data": [{"id": 1, "at": at}], "next": None})

    verified = YAML.replace("token: '{secrets.key}'", "token: '{secrets.key}', verify: /me")
    result = _run(tmp_path, half_public, *KEYED, yaml=verified)
    assert result.exit_code == 0, result.output
    assert ("A wrong key is answered too" in result.output) is not private


def test_children_are_shown_with_the_filter_by_which_their_parents_are_listed(tmp_path: Path) -> None:
    """They declare none of their own, and are not listed in full all the same."""

    async def source(request: web.Request) -> web.Response:
        at = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
        return replied({"data": [{"id": 1, "at": at, "lines": [{"id": 2}]}], "next": None})

    child = YAML + "  lines:\n    parent: {stream: orders, each: lines}\n"
    result = _run(tmp_path, source, *KEYED, "--stream", "lines", "--json", yaml=child)
    assert result.exit_code == 0, result.output
    (lines,) = json.loads(result.stdout)["streams"]
    assert set(lines["sample_filters"]) == {"since", "until"}
    assert lines["since_days"] == 30


def test_no_password_is_tried_that_could_lock_somebody_out(tmp_path: Path) -> None:
    async def public(request: web.Request) -> web.Response:
        asked.add(request.headers["Authorization"])
        at = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
        return replied({"data": [{"id": 1, "at": at}], "next": None})

    asked: set[str] = set()
    basic = YAML.replace(
        "{type: bearer, token: '{secrets.key}'}", "{type: basic, username: a, password: '{secrets.key}'}"
    )
    result = _run(tmp_path, public, *KEYED, yaml=basic)
    assert result.exit_code == 0, result.output
    assert len(asked) == 1


def test_a_record_that_is_no_clean_json_is_warned_of(tmp_path: Path) -> None:
    """SPEC 4: it goes to quarantine; the check goes on with the others."""

    async def source(request: web.Request) -> web.Response:
        at = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds").encode()
        return web.Response(body=b'{"data": [{"id": 1, "at": "%b"}, {"id": 2, "at": "\\ud800"}], "next": null}' % at)

    result = _run(tmp_path, source, *KEYED)
    assert result.exit_code == 0, result.output
    assert "1 of 2 records have no" in " ".join(result.output.split())


def test_a_failed_fetch_exits_with_1_and_shows_no_secret(tmp_path: Path) -> None:
    async def refusing(request: web.Request) -> web.Response:
        return web.Response(status=400, text=f"bad header {request.headers['Authorization']}")

    result = _run(tmp_path, refusing, *KEYED)
    assert result.exit_code == 1
    assert "contract_broken" in result.output
    assert SECRET not in result.output


def test_without_leave_a_private_address_is_not_asked(tmp_path: Path) -> None:
    result = _run(tmp_path, _sloppy, "--secret-env", "key=CHECK_KEY")
    assert result.exit_code == 1
    assert "is not a public address" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "✗ secrets.key is missing."),
        ((), "--secret-env key=NAME"),
        (("--secret-env", "key=NOT_SET_ANYWHERE"), "is not set in the environment"),
        ((*KEYED, "--setting", "ulr=x"), "Did you mean 'url'"),
        ((*KEYED, "--setting", "nothing"), "is not NAME=VALUE"),
        ((*KEYED, "--stream", "oders"), "Did you mean 'orders'"),
    ],
)
def test_unusable_arguments_exit_with_2_and_say_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = _run(tmp_path, _sloppy, *arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_a_declaration_that_is_not_one_exits_with_2_naming_path_and_line(tmp_path: Path) -> None:
    result = _run(tmp_path, _sloppy, *KEYED, yaml=YAML.replace("pager:", "pagger:"))
    assert result.exit_code == 2
    assert "streams.orders.pagger" in result.output
    assert "Did you mean 'pager'" in result.output
    assert "(line 14)" in result.output


def test_an_unknown_name_says_which_there_are() -> None:
    result = CliRunner().invoke(app, ["check", "strip"])
    assert result.exit_code == 2
    assert "Did you mean 'stripe'" in result.output
    assert "stripe" in json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)


def test_the_check_shows_how_queries_children_and_feeds_are_understood(tmp_path: Path) -> None:
    """SPEC 8: what a declaration says is shown before it is relied on."""
    yaml = """
name: hostile
base_url: '{settings.url}'
settings: {url: null}
streams:
  orders:
    graphql:
      connection: orders
      query: |
        query Orders ($after: String) {
          orders(first: 9, after: $after) { edges { node { id } } pageInfo { hasNextPage endCursor } }
        }
  items:
    parent: {stream: orders, each: lines}
  notes:
    parent: {stream: orders}
    path: /notes/{parent.id}
    records: data
  contacts:
    path: /contacts
    records: data
    changes: {param: since, token: next}
"""
    yaml = yaml.replace("node { id }", "node { id lines }")

    async def answer(request: web.Request) -> web.Response:
        if request.path != "/graphql":
            return replied({"data": [{"id": 7}], "next": "t"})
        page = {"hasNextPage": False, "endCursor": None}
        return replied({"data": {"orders": {"edges": [{"node": {"id": 1, "lines": [{"id": 2}]}}], "pageInfo": page}}})

    result = _run(tmp_path, answer, "--allow-private-addresses", "--json", yaml=yaml)
    assert result.exit_code == 0
    streams = {stream["stream"]: stream for stream in json.loads(result.stdout)["streams"]}
    assert streams["orders"]["listing"] == (
        "POST /graphql, query Orders($after), records at data.orders.edges, in each its node"
    )
    assert streams["orders"]["pager"] == (
        "?after=<data.orders.pageInfo.endCursor>; the end is data.orders.pageInfo.hasNextPage: false"
    )
    assert streams["items"]["listing"] == "in each of orders, at lines"
    assert streams["items"]["columns"] == {"parent_id": "bigint", "id": "bigint"}
    assert streams["notes"]["listing"] == "GET /notes/{parent.id}, records at data, for each of orders"
    assert (
        streams["contacts"]["listing"] == "GET /contacts, records at data; changes since since=<next of the last page>"
    )
    assert "says what has changed" in streams["contacts"]["cursor"]
    assert all(stream["records"] == 1 for stream in streams.values())
