"""How a secret may be spelt stands in one place, and is what the libraries that spell it write (docs/reference/logs.md)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote, quote_plus

import msgspec
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
    """A source repeats a query as it came, a form, or JSON with or without escapes."""
    written = {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        URL.build(query={"x": secret}).raw_query_string.removeprefix("x="),
        msgspec.json.encode(secret).decode()[1:-1],
        json.dumps(secret)[1:-1],
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


def test_there_is_no_second_place() -> None:
    """Whoever spells a secret as JSON does takes that from there."""
    second = re.compile(r"dumps\([^)]*\)\[1:-1\]|json\.encode\([^)]*\)\.decode\(\)\[1:-1\]")
    found = [path.name for path in SOURCE.rglob("*.py") if second.search(path.read_text("utf-8"))]
    assert found == ["spelling.py"]
