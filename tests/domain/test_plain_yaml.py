"""YAML by the rules of JSON, wherever we read it (SPEC 8: FILE is JSON or YAML)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidegate.cli.schedule import _read_yaml
from tidegate.connectors.rest.section import Section
from tidegate.domain import plain_yaml
from tidegate.domain.errors import InvalidInput
from tidegate.engine.configuring.document import DocumentFile, Mistakes, open_document


def read(text: str) -> Any:
    return plain_yaml.read(plain_yaml.compose(text))


def by_all(text: str) -> list[object]:
    """Return what the mapping `value` holds, as every reader of ours understands it."""
    mistakes = Mistakes()
    applied = open_document(DocumentFile("f", text, Path()), mistakes).values["value"]
    assert not mistakes
    previewed = _read_yaml(text, "f")
    assert isinstance(previewed, dict)
    return [applied, previewed["value"], Section.parse(text).tree("value")]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1:30", "1:30"),  # YAML 1.1: 90
        ("0100", "0100"),  # 64
        ("010", "010"),  # 8
        ("0x1F", "0x1F"),  # 31
        ("1_000", "1_000"),  # 1000
        (".5", ".5"),
        (".inf", ".inf"),
        ("+5", "+5"),
        ("2026-07-01", "2026-07-01"),
        ("7", 7),
        ("-7", -7),
        ("0", 0),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("FALSE", False),
        ("NO", "NO"),  # YAML 1.1: false, and Norway's code
        ("yes", "yes"),
        ("off", "off"),
        ("null", None),
        ("~", None),
        ("plain", "plain"),
        ("'7'", "7"),
    ],
)
def test_apply_preview_and_connectors_read_the_same(written: str, meant: object) -> None:
    """What is previewed is what is applied: `every: 1:30` is not 90 seconds in one and text in the other."""
    for found in by_all(f"value: {{it: {written}}}\n"):
        assert found == {"it": meant}
        assert isinstance(found, dict)
        assert type(found["it"]) is type(meant)


@pytest.mark.parametrize("key", ["no", "on", "1.10", "5e10", "010", "True", "null", "~", "'7'"])
def test_keys_are_names_and_stay_as_they_are_written(key: str) -> None:
    """Tenants 1.10 and 1.1 are two; a parameter `on` is not one called `True`."""
    assert by_all(f"value: {{{key}: x}}\n") == [{key.strip("'"): "x"}] * 3
    assert list(Section.parse(f"value: {{{key}: x}}").values("value")) == [key.strip("'")]


@pytest.mark.parametrize("number", [0, -0.5, 12, 1e300, 1.25e-7, 10**30, -1])
def test_every_number_of_json_is_read_as_json_reads_it(number: float) -> None:
    text = json.dumps(number)
    assert read(f"it: {text}") == {"it": json.loads(text)}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("value: {a: &a {x: 1, y: 2}, b: {<<: *a, y: 3}}", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        (
            "value: {a: &a {x: 1}, b: &b {x: 2, z: 2}, c: {<<: [*a, *b]}}",
            {"a": {"x": 1}, "b": {"x": 2, "z": 2}, "c": {"x": 1, "z": 2}},
        ),
        (
            "value: {a: &a {x: 1}, b: &b {<<: *a, x: 2}, c: *b, d: {<<: *b}}",
            {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 2}, "d": {"x": 2}},
        ),
        ("value: {a: &a [1, 2], b: *a}", {"a": [1, 2], "b": [1, 2]}),
    ],
)
def test_anchors_and_merge_keys_work_in_all_of_them(text: str, meant: object) -> None:
    """docs/reference/configuration.md says so of every YAML file."""
    assert by_all(text) == [meant] * 3


def test_a_connectors_streams_may_share_what_they_have_in_common() -> None:
    root = Section.parse("a: &common {records: data, key: id}\nb:\n  <<: *common\n  key: number\n")
    section = root.required_section("b")
    assert (section.text("records"), section.text("key")) == ("data", "number")
    section.finish()


@pytest.mark.parametrize("text", ["b: {<<: 7}", "b: {<<: [7]}", "b: {<<: }"])
def test_a_merge_key_that_names_no_mapping_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ValueError, match="line 1: << names what is not a mapping"):
        read(text)
    with pytest.raises(InvalidInput, match="not a mapping"):
        Section.parse(text).section("b")
    mistakes = Mistakes()
    open_document(DocumentFile("f", text, Path()), mistakes)
    assert len(mistakes) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {b: *a}",
        "a: &a [*a]",
        "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]),
        "it: !!python/name:os.system x",
        "it: !!int many",
        "it: !!timestamp 2026-07-01",
        "it: [",
        "{a: 1}: 2",
    ],
)
def test_what_is_no_such_document_is_refused_and_cannot_fill_the_memory(text: str) -> None:
    with pytest.raises((ValueError, RecursionError, yaml.YAMLError)):
        read(text)
    with pytest.raises(InvalidInput):
        _read_yaml(text, "f")
    with pytest.raises(InvalidInput):
        tree_of(text)


def tree_of(text: str) -> object:
    indented = "\n".join(f"  {line}" for line in text.splitlines())
    return Section.parse(f"document:\n{indented}\n").tree("document")


def test_merging_what_merges_itself_ends() -> None:
    assert read("a: &a {<<: *a, x: 1}") == {"a": {"x": 1}}
    levels = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60))]
    assert read("\n".join(levels))["a59"] == {"x": 1}
