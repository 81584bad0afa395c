"""docs/reference/holes.md names a test for each hole, and the tests exist."""

from __future__ import annotations

import ast
import re
from itertools import chain
from pathlib import Path
from string import ascii_lowercase

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reference" / "holes.md"
LETTERS = [*ascii_lowercase, *(letter * 2 for letter in ascii_lowercase[:13])]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def _rows() -> dict[str, str]:
    """Return what holds each hole, by letter."""
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if re.match(r"\| [a-z]{1,2} \|", line)]
    return {letter.strip(): held for letter, _, held in rows}


def _tests(path: str) -> set[str]:
    tree = ast.parse((TESTS / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_each_hole_is_listed_once_and_held_or_named_as_later() -> None:
    """HOLES a to mm."""
    rows = _rows()
    assert list(rows) == LETTERS
    assert [letter for letter, held in rows.items() if not NAMED.search(held) and "later: " not in held] == []


def test_every_test_named_exists() -> None:
    """A test that was renamed or removed leaves its hole open until the page says what holds it now."""
    named = set(chain.from_iterable(NAMED.findall(held) for held in _rows().values()))
    assert len(named) > 30
    missing = {f"{path}::{test}" for path, test in named if not (TESTS / path).is_file() or test not in _tests(path)}
    assert missing == set()
