"""docs/guides/write-a-connector.md, followed to the letter: its examples, its warnings, and what it says of the end."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from typer.testing import CliRunner, Result

from tests.connectors.guide.harbour import TOKEN, Harbour, serving
from tests.connectors.rest.sources import LeapingClock, ids
from tidegate.cli.connector import app
from tidegate.connectors.base import ConnectionSettings
from tidegate.connectors.http import open_session
from tidegate.connectors.rest.connector import RestConnector
from tidegate.connectors.rest.loader import load
from tidegate.connectors.skeletons import KINDS
from tidegate.domain.fetch import FetchRequest, Page

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "write-a-connector.md"
NOW = datetime(2026, 7, 13, 16, tzinfo=UTC)


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def _check(url: str, file: Path) -> Result:
    command = re.search(r"tidegate connector (check harbour\.yaml (?:.*\\\n)*.*)", GUIDE.read_text())
    assert command is not None
    written = command[1].replace("\\\n", " ").replace("http://127.0.0.1:8123", url).replace("harbour.yaml", str(file))
    return CliRunner(env={"HARBOUR_TOKEN": TOKEN}).invoke(app, written.split())


def test_the_hurried_attempt_is_warned_of_as_the_guide_says_and_the_second_is_not(tmp_path: Path) -> None:
    hurried, right = _blocks("yaml")
    (expected,) = _blocks("warnings")
    file = tmp_path / "harbour.yaml"
    with serving(Harbour.of_today(datetime.now(UTC))) as url:
        file.write_text(hurried)
        result = _check(url, file)
        assert result.exit_code == 0, result.output
        warned = [line.split(None, 1)[1] for line in result.output.splitlines() if line.startswith("  warning")]
        assert len(warned) == len(expected.splitlines())
        assert all(said.startswith(line) for said, line in zip(warned, expected.splitlines(), strict=True))
        file.write_text(right)
        result = _check(url, file)
        assert result.exit_code == 0, result.output
        assert "warning" not in result.output


async def _list(url: str, yaml: str) -> list[Page]:
    async with open_session(allow_private_addresses=True) as session:
        connection = ConnectionSettings({"base_url": url}, {"access_token": TOKEN})
        source = RestConnector(load(yaml)).open(connection, session, LeapingClock(NOW))
        request = FetchRequest("orders", NOW - timedelta(days=30), None, NOW + timedelta(days=1))
        return [page async for page in source.fetch(request)]


def test_all_orders_come_though_each_page_moves_one_of_them() -> None:
    """HOLE gg, and what the platform leaves out by default (HOLE w)."""
    harbour = Harbour.of_today(NOW)
    harbour.edit_while_listing = True
    with serving(harbour) as url:
        pages = asyncio.run(_list(url, _blocks("yaml")[1]))
    assert set(ids(pages)) == {order["id"] for order in harbour.orders.values()}
    assert harbour.requests == len(pages) == 6


def test_the_hurried_attempt_would_have_lost_orders() -> None:
    harbour = Harbour.of_today(NOW)
    with serving(harbour) as url:
        pages = asyncio.run(_list(url, _blocks("yaml")[0]))
    assert len(set(ids(pages))) == 167


def test_the_guide_names_the_skeletons_there_are_and_warnings_that_exist() -> None:
    text = GUIDE.read_text()
    assert set(KINDS) <= set(re.findall(r"`(\w+)`", text))
    source = "".join(
        (Path(__file__).parents[3] / "src/tidegate/connectors/rest" / name).read_text()
        for name in ("probes.py", "feed_probes.py", "hidden.py", "examination.py")
    )
    caught = re.findall(r"^\| [^|]+ \| (`.*) \|$", text.split("## 4.")[1], re.MULTILINE)
    said = [part.strip() for quoted in re.findall(r"`([^`]+)`", " ".join(caught)) for part in quoted.split("…")]
    assert len([part for part in said if part]) > 12
    assert [part for part in said if part not in source] == []
