"""docs/reference/connectors.md lists exactly the keys that the loader reads, and its examples load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tidegate.connectors.rest.loader import load
from tidegate.connectors.rest.section import Section

DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = DOCS / "reference" / "connectors.md"
GUIDE = DOCS / "guides" / "write-a-connector.md"
NAMED_BY_THE_WRITER = re.compile(
    r"^(settings|headers|authentication\.(body|params)|streams\.NAME\.(params|filters|columns))\."
)


def _examples(page: Path) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)


def _documented() -> set[str]:
    keys: set[str] = set()
    heading = ""
    for line in REFERENCE.read_text().splitlines():
        if line.startswith("## "):
            named = re.fullmatch(r"## `(.+)`", line)
            heading = f"{named[1]}." if named else ""
        row = re.match(r"\| `(\w+)` \| .* \| .* \|$", line)
        if row:
            keys.add(heading + row[1])
    return keys


def test_every_key_that_the_loader_reads_is_documented_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    field = Section.field

    def remember(section: Section, key: str) -> str:
        path = re.sub(r"^streams\.\w+(\.|$)", r"streams.NAME\1", field(section, key))
        if not NAMED_BY_THE_WRITER.match(path) and path != "streams.NAME":
            read.add(path)
        return field(section, key)

    take = Section._take

    def taken(section: Section, key: str) -> object:
        remember(section, key)
        return take(section, key)

    monkeypatch.setattr(Section, "_take", taken)
    for example in _examples(REFERENCE):
        load(example)
    assert read == _documented()


@pytest.mark.parametrize("page", [REFERENCE, GUIDE], ids=["reference", "guide"])
def test_every_example_loads(page: Path) -> None:
    examples = _examples(page)
    assert examples
    for example in examples:
        load(example)
