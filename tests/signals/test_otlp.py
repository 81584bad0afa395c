"""Traces as a collector gets them: the real exporter, over HTTP, from the real command (docs/reference/signals.md)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.orders_api import OrdersApi
from tests.cli.test_commands import make_due
from tests.signals.collector import Collector, attributes, collecting
from tidegate.bootstrap import from_environment

HEADER = "c0llector-s3cret"


def traced(cli: CommandLine, collector: Collector) -> None:
    """Let the command line's processes export to ``collector``."""
    cli.environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={HEADER}",
        "OTEL_SERVICE_NAME": "shop-sync",
    }


def test_a_run_arrives_at_the_collector_with_its_requests(cli: CommandLine, api: OrdersApi) -> None:
    """The whole path: session, engine, SDK, protobuf, HTTP; the standard variables decide."""
    cli.apply()
    with collecting() as collector:
        traced(cli, collector)
        cli.ok("run", "acme/orders")
        (run,) = collector.named("run")
        assert {span.trace_id for span in collector.spans} == {run.trace_id}
        assert len(run.trace_id) == 16
        requests = [attributes(span) for span in collector.named("GET")]
        # three pages, each of them twice: `after=20` behind the orders 1 to 20 may be a place
        assert [request["http.response.status_code"] for request in requests] == [200] * 6
        assert {request["url.path"] for request in requests} == {"/orders"}
        assert {request["server.address"] for request in requests} == {"127.0.0.1"}
        (attempt,) = collector.named("attempt")
        assert {span.parent_span_id for span in collector.named("GET")} == {attempt.span_id}
        assert attributes(attempt)["tidegate.records.read"] == 45
        resource = collector.resources[0]
        assert (resource["service.name"], bool(resource["service.instance.id"])) == ("shop-sync", True)
        assert collector.headers[0]["x-key"] == HEADER
        everything = b"".join(collector.bodies)
        assert b"s3cr3t-token" not in everything
        assert b"updated_since" not in everything, "no query: it may hold a secret"


def test_a_refused_request_is_an_error_with_its_status(cli: CommandLine, api: OrdersApi) -> None:
    """429s and retries show where they happened; the attempt says when it is tried again."""
    cli.apply()
    make_due(cli)
    api.status = 429
    with collecting() as collector:
        traced(cli, collector)
        assert cli("tick").exit_code == 1
        request = collector.named("GET")[0]
        assert attributes(request)["http.response.status_code"] == 429
        assert request.status.code == 2
        attempt = attributes(collector.named("attempt")[0])
        assert attempt["tidegate.outcome"] == "retrying"
        assert attempt["tidegate.retry_in_seconds"] > 0


def test_a_collector_that_is_away_costs_no_run(cli: CommandLine, api: OrdersApi) -> None:
    """Signals may be lost, records may not; the process ends within seconds."""
    cli.apply()
    cli.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, "-m", "tidegate", "run", "acme/orders"],
        env={**os.environ, **cli.environment}, text=True, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "✓ acme/orders orders: succeeded" in done.stdout


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, True),
    ],
)
def test_the_standard_variables_turn_traces_on_and_off(variables: dict[str, str], wanted: bool) -> None:
    """docs/reference/signals.md."""
    assert from_environment(variables).traces is wanted


@pytest.mark.parametrize(("variables", "wanted"), [({}, False), ({"OTEL_TRACES_EXPORTER": "otlp"}, True)])
def test_without_being_asked_for_the_sdk_is_not_even_imported(variables: dict[str, str], wanted: bool) -> None:
    """Off at no cost: neither its import nor its threads."""
    code = (
        "import asyncio, sys; from tidegate import bootstrap\n"
        "async def main():\n"
        "    async with bootstrap._watched(bootstrap.from_environment(), 'w') as observers: return len(observers)\n"
        "print(asyncio.run(main()), 'opentelemetry.sdk.trace' in sys.modules, 'prometheus_client' in sys.modules)"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**plain, **variables}, text=True, capture_output=True, timeout=60, check=True
    )
    assert done.stdout.split() == (["1", "True", "False"] if wanted else ["0", "False", "False"])


@pytest.mark.parametrize(
    "variables", [{"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}], ids=str
)
def test_what_is_not_spoken_is_refused(cli: CommandLine, variables: dict[str, str]) -> None:
    """SPEC 8: 2, and what to write instead, rather than traces that never arrive."""
    cli.environment |= variables
    refused = cli("status")
    assert refused.exit_code == 2
    assert next(iter(variables)) in refused.stderr
