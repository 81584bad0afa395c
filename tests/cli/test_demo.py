"""`tidegate demo`: what it does to the folder that it is given (SPEC 8)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tidegate.demo import folder
from tidegate.domain.errors import InvalidInput
from tidegate.store.embedded import FOLDER


def test_the_demo_refuses_a_folder_that_no_demo_has_made(cli: CommandLine, tmp_path: Path) -> None:
    """SPEC 8: 2 is bad input, with the remedy; nothing is removed."""
    precious = tmp_path / "mine" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("three years")
    result = cli("demo", "--data-dir", str(precious.parent), "--seconds", "5", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    told = json.loads(result.stderr)
    assert told["field"] == "--data-dir"
    assert "does not exist yet" in told["remedy"]
    assert precious.read_text() == "three years"
    assert sorted(each.name for each in precious.parent.iterdir()) == ["thesis.txt"]


def test_the_demo_refuses_what_is_no_folder(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("text")
    assert cli("demo", "--data-dir", str(file), "--seconds", "5").exit_code == 2
    assert file.read_text() == "text"


@pytest.mark.parametrize("there", [False, True], ids=["absent", "empty"])
def test_a_folder_that_holds_nothing_becomes_a_demos(tmp_path: Path, there: bool) -> None:
    place = tmp_path / "a" / "demo"
    if there:
        place.mkdir(parents=True)
    folder.fresh(place)
    assert [each.name for each in place.iterdir()] == [folder.MARKER]


def test_what_an_earlier_demo_has_left_is_removed_and_nothing_that_it_links_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    place = tmp_path / "demo"
    folder.fresh(place)
    (place / "demo.yaml").write_text("tenants: {}")
    (place / FOLDER / "base").mkdir(parents=True)
    (place / "link").symlink_to(outside)
    folder.fresh(place)
    assert [each.name for each in place.iterdir()] == [folder.MARKER]
    assert (outside / "kept.txt").read_text() == "kept"


def test_a_demo_whose_database_runs_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "demo"
    folder.fresh(place)
    (place / "demo.yaml").write_text("tenants: {}")
    monkeypatch.setattr(folder, "is_running", lambda data_dir: data_dir == place)
    with pytest.raises(InvalidInput, match="is running") as refused:
        folder.fresh(place)
    assert "tidegate stop" in refused.value.remedy
    assert (place / "demo.yaml").exists()
