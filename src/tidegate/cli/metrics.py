"""`tidegate metrics`, and the port of a running engine where metrics and health are asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, print_json
from tidegate.cli.process import with_parts

if TYPE_CHECKING:
    from tidegate.bootstrap import Options
    from tidegate.engine.parts import Parts
    from tidegate.signals.probes import Probes

app = typer.Typer()
LOOPBACK = "127.0.0.1"

MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=0, max=65_535, metavar="PORT", help="Serve /metrics, /healthz and /readyz there; default: not at all."
    ),
]
MetricsHost = Annotated[str, typer.Option(metavar="ADDRESS", help="Where that port listens; it asks for no password.")]


@app.command()
def metrics(as_json: AsJson = False) -> None:
    """Print where the whole fleet stands, once, in Prometheus' text format.

    What one process has counted is only known to that process: see `--metrics-port` of `up` and `worker`.
    """

    async def work(parts: Parts) -> str:
        from prometheus_client import CollectorRegistry, generate_latest

        from tidegate.signals.gauges import FleetGauges

        registry = CollectorRegistry()
        gauges = FleetGauges(parts, registry)
        await gauges.look()
        await gauges.looked()
        return generate_latest(registry).decode()

    text = with_parts(work, as_json=as_json)
    if as_json:
        from prometheus_client.parser import text_string_to_metric_families

        families = text_string_to_metric_families(text)
        print_json(
            [
                {"name": each.name, "labels": each.labels, "value": each.value}
                for one in families
                for each in one.samples
            ]
        )
    else:
        typer.echo(text, nl=False)


@asynccontextmanager
async def probed(probes: Probes | None, parts: Parts, host: str, port: int | None) -> AsyncGenerator[int | None]:
    """Serve the probes while inside, if there are any; yield the port."""
    if probes is None or port is None:
        yield None
        return
    from tidegate.signals.probes import served

    async with served(probes, parts, host, port) as at:
        yield at


def watched_by_probes(options: Options, port: int | None) -> tuple[Options, Probes | None]:
    """Return ``options`` with the observers that probes need, and the probes; nothing of it without a ``port``."""
    if port is None:
        return options, None
    from tidegate.signals.probes import Probes

    probes = Probes()
    return replace(options, observers=(*options.observers, *probes.observers)), probes
