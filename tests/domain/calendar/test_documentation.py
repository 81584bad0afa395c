"""The documentation's examples are true: what it shows in Python is run, what it shows as files is read."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import pytest
import yaml

from tidegate.domain import duration, schedule, schedule_document
from tidegate.domain.schedule_document import parse_schedule

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [DOCS / "reference" / "schedules.md", DOCS / "concepts" / "calendar.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path) -> None:
    """As printed, and there is at least one."""
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried
    assert not failed


@pytest.mark.parametrize("module", [duration, schedule, schedule_document], ids=lambda module: module.__name__)
def test_the_examples_of_a_module_run(module: object) -> None:
    """As printed, and there is at least one."""
    failed, tried = doctest.testmod(module)  # type: ignore[arg-type]
    assert tried
    assert not failed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_of_a_page_are_schedules(page: Path) -> None:
    """Each JSON or YAML block can be used as it stands."""
    blocks = re.findall(r"```(json|yaml)\n(.*?)```", page.read_text(), flags=re.DOTALL)
    assert blocks
    for kind, text in blocks:
        parse_schedule(json.loads(text) if kind == "json" else yaml.safe_load(text))
