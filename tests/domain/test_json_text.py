"""JSON text taken apart: the short way through whole containers finds what looking at each token finds (SPEC 4)."""

from __future__ import annotations

import json
from collections.abc import Callable
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain import json_text

POISON = ("NaN", "-Infinity", "undefined", '"\x01"', '"\\ud800"', '"\\x"', "'a'", "1e999", "9" * 5000)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(POISON).map(lambda t: f"!{t}")
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=20,
)


def written(value: object) -> bytes:
    """Return ``value`` as JSON, with what begins with an exclamation mark as it stands."""
    if isinstance(value, list):
        return b"[" + b" ,".join(map(written, value)) + b"]"
    if isinstance(value, dict):
        return b"{" + b", ".join(json.dumps(key).encode() + b" :" + written(each) for key, each in value.items()) + b"}"
    if isinstance(value, str) and value[:1] == "!":
        return value[1:].encode("utf-8", "surrogatepass")
    return json.dumps(value).encode()


def outcome(take_apart: Callable[[bytes], object], text: bytes) -> object:
    """Return what a function returns, or what it raises."""
    try:
        return take_apart(text)
    except ValueError as error:
        return type(error), str(error)


def _by_token(*_: object) -> None:
    return None


@given(VALUES, st.integers(0, 200), st.sampled_from([b"", b'"', b"]", b"{", b",", b":", b"\\", b"\xff", b" "]))
def test_the_short_way_finds_what_each_token_says(value: object, at: int, damage: bytes) -> None:
    """SPEC 4: sound, poisoned and damaged texts give the same elements, members and errors either way."""
    text = written(value)
    text = text[:at] + damage + text[at:]
    for take_apart in (json_text.elements, json_text.members, json_text.require_structure):
        short = outcome(take_apart, text)
        with mock.patch.object(json_text._Wholes, "end", _by_token):
            assert short == outcome(take_apart, text), text


@given(st.lists(VALUES, max_size=5))
def test_elements_are_as_written(values: list[object]) -> None:
    """SPEC 4: what one element holds does not cost its neighbours."""
    texts = [written(each) for each in values]
    assert json_text.elements(b"[" + b",".join(texts) + b"]") == texts


@pytest.mark.parametrize("depth", [1, 16, 17, 100_000])
def test_any_depth_is_let_through(depth: int) -> None:
    """SPEC 4: a record that is nested too deep for any decoder goes its way to quarantine, and its page with it goes on."""
    deep = b'{"a":' * depth + b"NaN" + b"}" * depth
    text = b"[" + deep + b",1]"
    json_text.require_structure(text)
    assert json_text.elements(text) == [deep, b"1"]


def test_a_page_with_one_poison_record_is_read_mostly_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 4: what one bad record costs is that record's own reading, not the page's token by token."""
    looked_at = []

    class Counting:
        def search(self, text: bytes, at: int = 0) -> object:
            looked_at.append(at)
            return pattern.search(text, at)

    pattern = json_text._TOKEN
    monkeypatch.setattr(json_text, "_TOKEN", Counting())
    record = b'{"id": 1, "lines": [{"id": 2}, {"id": 3}]}'
    json_text.require_structure(b'{"orders": [' + b",".join([record] * 500 + [b'{"id": undefined}']) + b"]}")
    assert len(looked_at) < 3 * 501
