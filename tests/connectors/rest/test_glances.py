"""What is read of a page's ends without reading the rest is what reading all of it shows (HOLE gg)."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate.connectors.rest.records import Glance, Glances, RecordReader
from tidegate.domain.cursor import CursorField
from tidegate.domain.stream import Stream

READER = RecordReader(Stream("posts", ("id",), CursorField(("at",)), timedelta(0), {}))

TEXTS = st.text(alphabet='{}[]",:\\\n a1é', max_size=12)
VALUES = st.recursive(
    TEXTS | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.dictionaries(st.sampled_from(["id", "at", "x", '"},{', "\\"]) | TEXTS, VALUES, max_size=4)


def as_read_in_whole(text: bytes) -> list[Glance]:
    return [READER.glance(record) for record in READER.decoded(text)]


def check(text: bytes) -> None:
    whole = as_read_in_whole(text)
    assert list(Glances(READER, text)) == whole
    assert list(reversed(Glances(READER, text))) == whole[::-1]
    if whole:
        assert (Glances(READER, text)[0], Glances(READER, text)[-1]) == (whole[0], whole[-1])
    some = Glances(READER, text)
    assert (next(iter(some), None), next(reversed(some), None)) == (
        whole[0] if whole else None,
        whole[-1] if whole else None,
    )
    assert len(some) == len(whole)


@given(st.lists(RECORDS | VALUES, max_size=9), st.sampled_from([None, 0, 1]))
@example([{"id": 1, "x": [{"id": 2}, {"id": 3}]}, {"id": 4, "x": {"id": 5}}], None)
@example([{"id": 1, "x": '},{"id":9}'}, {"id": 2, "x": '{"id":9'}], None)
def test_the_ends_of_a_page_are_those_of_the_page_read_in_whole(records: list[Any], indent: int | None) -> None:
    check(json.dumps(records, indent=indent, ensure_ascii=False).encode())
    check(json.dumps(records, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "text",
    [
        b'[{"id":1,"x":NaN},{"id":2},{"id":3,"x":NaN}]',
        b'[{"id":1,"x":"\\ud800"},{"id":2,"x":"\x01"}]',
        b'[{"id":1,"x":"\xff},{"},{"id":2,"x":"},{\xff"}]',
        b'[{"id":1,"x":'
        + b'{"x":' * 2000
        + b"{}"
        + b"}" * 2000
        + b'},{"id":2,"x":'
        + b"[" * 2000
        + b"]" * 2000
        + b"}]",
    ],
    ids=["no number", "half a surrogate pair", "no UTF-8", "any depth"],
)
def test_so_are_those_of_a_page_that_no_decoder_takes(text: bytes) -> None:
    """SPEC 4: one poison record must not stop a tenant."""
    check(text)


def test_a_stable_page_is_not_read_in_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(
        [{"id": n, "at": f"2026-07-13T14:00:{n:02}Z", "lines": [{"id": 1}] * 3} for n in range(50)]
    ).encode()
    monkeypatch.setattr(READER, "decoded", lambda _records: pytest.fail("read in whole"))
    seen = Glances(READER, text)
    assert (seen[0].key, seen[-1].key) == ((b"0",), (b"49",))
    assert seen.ends_digest != Glances(READER, text.replace(b'"id": 49', b'"id": 48')).ends_digest


@pytest.mark.parametrize(
    "text", [b"[]", b'[{"id":1}]', b'[{"id":1},{"id":2},{"id":1}]', b'[{"x":1},{"id":2}]', b"[1, 2]"]
)
def test_ends_that_do_not_tell_pages_apart_are_not_used(text: bytes) -> None:
    assert Glances(READER, text).ends_digest == ""
