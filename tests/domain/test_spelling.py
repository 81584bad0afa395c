"""How a secret may be spelt stands in one place, and is what the libraries that spell it write (docs/reference/logs.md)."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from tidegate.domain.http_reply import excerpt
from tidegate.domain.masking import Mask
from tidegate.domain.spelling import MASK, spellings

SOURCE = Path(__file__).parents[2] / "src" / "tidegate"
SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=4, max_size=30)


@given(SECRETS)
def test_every_spelling_that_a_library_writes_is_known(secret: str) -> None:
    """A source repeats a query as it came, a form, HTML, or JSON with or without escapes, those of PHP among them."""
    written = {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        URL.build(query={"x": secret}).raw_query_string.removeprefix("x="),
        msgspec.json.encode(secret).decode()[1:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        html.escape(secret),
    }
    assert written - spellings(secret) == set()


def test_a_known_secret_is_hidden_from_logs_and_replies_alike() -> None:
    """The mask of the process and that of a source's replies go by the same spellings."""
    secret = 'p/ss "wörd"+1'
    mask = Mask()
    mask.learn(secret)
    for spelling in spellings(secret):
        assert mask.text(f"<{spelling}>") == f"<{MASK}>"
        assert excerpt(f"<{spelling}>".encode(), spellings(secret)) == f"<{MASK}>"


ADDRESS = "https://hooks.example:8443/services/T024BE7LD/kjhkjhkjhkjhkjhkjh%2B?room=Ab3Ab3Ab3&as=tidegate"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (ADDRESS, "***"),
        (f"Cannot POST {ADDRESS.removeprefix('https://hooks.example:8443')}", "Cannot POST ***"),
        (f"404 {ADDRESS.removeprefix('https://hooks.example:8443').partition('?')[0]}", "404 ***"),
        ("at /T024BE7LD/ in room Ab3Ab3Ab3", "at /***/ in room ***"),
        ("kjhkjhkjhkjhkjhkjh+", "***"),
        ("hooks.example has no services for tidegate, nor any route", None),
    ],
)
def test_of_a_secret_address_its_path_and_what_tells_in_it_are_hidden(said: str, shown: str | None) -> None:
    """A server repeats the path, or pieces of it, and not the address; its ordinary words are no secret."""
    mask = Mask()
    mask.learn(ADDRESS)
    assert mask.text(said) == (shown or said)
    assert excerpt(said.encode(), spellings(ADDRESS)) == (shown or said)


def test_of_other_addresses_only_the_password_is_hidden() -> None:
    """A database's name, or a collector's path, stays readable."""
    mask = Mask()
    mask.learn(
        "postgresql://sync:pa55word@db.example:5432/Warehouse2026", "https://me:c0llector@otel.example/v1/traces"
    )
    said = "db.example:5432/Warehouse2026 refuses pa55word; /v1/traces at otel.example refuses c0llector"
    assert mask.text(said) == said.replace("pa55word", MASK).replace("c0llector", MASK)


def test_there_is_no_second_place() -> None:
    """Whoever spells a secret as JSON does takes that from there."""
    second = re.compile(r"dumps\([^)]*\)\[1:-1\]|json\.encode\([^)]*\)\.decode\(\)\[1:-1\]")
    found = [path.name for path in SOURCE.rglob("*.py") if second.search(path.read_text("utf-8"))]
    assert found == ["spelling.py"]
