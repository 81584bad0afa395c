"""Logs: every line of a run says whose it is (docs/reference/logs.md)."""

from __future__ import annotations

import ast
import json
import re
from datetime import timedelta
from pathlib import Path

import structlog
from structlog.testing import LogCapture

from tests.cli.conftest import CommandLine
from tests.cli.orders_api import OrdersApi
from tests.cli.test_commands import make_due
from tests.engine.world import World, in_world
from tests.signals.collector import collecting

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "logs.md"
NAMES = {"run_id", "tenant_id", "installation", "stream", "attempt", "epoch"}


def test_every_line_of_a_run_carries_its_names(database_url: str) -> None:
    """Whoever logs it, in whichever of the run's tasks, while other tenants' runs are at work in the same process."""
    capture = LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])

    async def story(world: World) -> None:
        for tenant in ("acme", "birch", "cedar"):
            await world.install(tenant=tenant)
            for number in range(5):
                world.shop.put(number, world.clock.now() - timedelta(days=1))

        def logging_source(_number: int) -> None:
            structlog.get_logger().info("asked")

        world.shop.on_page = logging_source
        world.clock.advance(days=1)
        await world.tick()

    try:
        in_world(database_url, story)
    finally:
        structlog.reset_defaults()
    lines = [entry for entry in capture.entries if entry["event"] == "asked"]
    assert len(lines) == 9
    assert all(set(line) >= NAMES for line in lines)
    by_run = {(line["run_id"], line["tenant_id"]) for line in lines}
    assert len(by_run) == 3
    assert {tenant for _, tenant in by_run} == {"acme", "birch", "cedar"}
    assert structlog.contextvars.get_contextvars() == {}, "nothing stays behind"


def test_a_failed_attempt_is_one_json_line_with_names_and_trace(cli: CommandLine, api: OrdersApi) -> None:
    """The real command, not at a terminal; the trace's id leads from the line to the trace."""
    cli.apply()
    make_due(cli)
    api.status = 500
    with collecting() as collector:
        cli.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        result = cli("tick")
        line, *_ = [json.loads(line) for line in result.stderr.splitlines() if "attempt failed" in line]
        assert set(line) >= NAMES | {"level", "timestamp", "code", "error", "retry_in"}
        assert (line["tenant_id"], line["stream"], line["code"]) == ("acme", "orders", "source_unavailable")
        assert line["retry_in"] > 0
        assert line["trace_id"] == collector.named("attempt")[0].trace_id.hex()


def test_the_page_lists_every_event(tmp_path: Path) -> None:
    """docs/reference/logs.md and the calls in the source say the same, with levels and values."""
    listed = {
        event: (level, set(re.findall(r"`(\w+)`", values)))
        for event, level, values in re.findall(r"^\| `([^`]+)` \| (\w+) \| (.*?) \|", PAGE.read_text(), re.M)
    }
    there: dict[str, tuple[str, set[str]]] = {}
    for path in (ROOT / "src" / "tidegate").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and _is_log(call.func):
                event = call.args[0]
                assert isinstance(event, ast.Constant), f"{path}: an event's name is fixed"
                level = "error" if call.func.attr == "exception" else call.func.attr
                values = {str(each.arg) for each in call.keywords}
                before = there.get(str(event.value), (level, set()))
                there[str(event.value)] = (level, before[1] | values)
    assert listed == there


def _is_log(function: ast.Attribute) -> bool:
    levels = {"debug", "info", "warning", "error", "exception"}
    return isinstance(function.value, ast.Name) and function.value.id == "log" and function.attr in levels
