"""docs/reference/signals.md and the source say the same, in both directions."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "signals.md").read_text()
TRACES = PAGE.partition("## Traces")[2].partition("## Points")[0]
SOURCE = "".join(path.read_text() for path in sorted((ROOT / "src" / "tidegate").rglob("*.py")))


def test_every_point_is_listed_and_passed() -> None:
    """What tests may wait for and crash at."""
    listed = set(re.findall(r"^\| `([\w.]+)` \|", PAGE.partition("## Points")[2], re.M))
    assert listed == set(re.findall(r"\bsignal\(\"([\w.]+)\"\)", SOURCE))
    assert len(listed) >= 9


def test_every_span_and_attribute_is_listed_and_made() -> None:
    """What a dashboard is built on; counts are spelled with their prefix in the source."""
    spans = set(re.findall(r"^\| `([a-z ]+)` \| (?:none|`)", TRACES, re.M))
    source = (ROOT / "src" / "tidegate" / "signals" / "traces.py").read_text()
    made = set(re.findall(r"self\._(?:span|begin)\(\s*\"([a-z ]+)\"", source)) | set(
        re.findall(r"self\._child\([\w.]+, \"([a-z ]+)\"", source)
    )
    assert spans == made
    listed = set(re.findall(r"`((?:tidegate|http|server|url|error)\.[\w.]+)`", TRACES))
    counts = {f"tidegate.records.{name}" for name in re.findall(r"\"(\w+)\": fact\.counts\.", source)}
    attributes = set(re.findall(r"\"((?:tidegate|http|server|url|error)\.[\w.]+)\"", source)) | counts
    assert listed == attributes
    assert len(counts) == 6


def test_every_variable_that_is_read_is_listed() -> None:
    """Those that the SDK reads by itself are its own affair."""
    read = set(re.findall(r"\"(OTEL_\w+)\"", (ROOT / "src" / "tidegate" / "bootstrap.py").read_text()))
    assert {name for name in read if name not in TRACES and not name.endswith("HEADERS")} == set()
