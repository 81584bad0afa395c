"""`tidegate doctor`: is everything well, and if not, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tidegate.cli.host_clock import HostClock
from tidegate.cli.output import AsJson, out, print_json
from tidegate.cli.process import exit_unless

if TYPE_CHECKING:
    from tidegate.engine.checkup import Check

app = typer.Typer()


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check database, schema, clocks, time zones, key, queue, leases and connections; say what to do.

    Exit code 1 if something is wrong.
    """
    import asyncio

    checks = asyncio.run(_checks())
    well = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": well, "checks": checks})
    else:
        for check in checks:
            out().print(
                f"{'✓' if check.ok else '✗'} {check.name}: {check.finding}",
                style=None if check.ok else "red",
                markup=False,
            )
            if check.remedy:
                out().print(f"  → {check.remedy}", markup=False)
        out().print("All is well." if well else "Something is wrong.")
    exit_unless(well)


async def _checks() -> list[Check]:
    """Return all checks, or the one that says why nothing could be looked at."""
    from tidegate.bootstrap import assemble, from_environment
    from tidegate.domain.errors import TidegateError
    from tidegate.engine.checkup import Check, check_all

    try:
        async with assemble(from_environment()) as parts:
            return await check_all(parts, HostClock().now())
    except TidegateError as error:
        return [Check("database", ok=False, finding=error.message, remedy=error.remedy)]
