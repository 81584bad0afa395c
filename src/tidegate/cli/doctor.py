"""`tidegate doctor`: is everything well, and if not, what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, out, print_json
from tidegate.cli.process import exit_unless

if TYPE_CHECKING:
    from tidegate.domain.clock import Clock
    from tidegate.engine.checkup.checks import Check

app = typer.Typer()


@app.command()
def doctor(
    context: typer.Context,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask sources and destinations.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine, database, schema, clocks, zones, key, queue, leases, sources, destinations; say what to do.

    Looks, and changes nothing. Exit code 1 if something is wrong.
    """
    import asyncio

    checks = asyncio.run(_checks(context.obj, outside=not offline, as_json=as_json))
    ok = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": ok, "checks": checks})
    else:
        for check in checks:
            _show(check)
        out().print("All is well." if ok else "Something is wrong.")
    exit_unless(ok)


def _show(check: Check) -> None:
    mark, style, code = ("✓", None, "") if check.ok else ("✗", "red", f" [{check.code}]")
    out().print(f"{mark} {check.name}: {check.finding}{code}", style=style, markup=False)
    if check.remedy:
        out().print(f"  → {check.remedy}", markup=False)


async def _checks(host: Clock, *, outside: bool, as_json: bool) -> list[Check]:
    """Return all checks, up to the one that says why no more could be looked at."""
    import asyncpg

    from tidegate.bootstrap import assemble, from_environment
    from tidegate.cli import logs
    from tidegate.domain.errors import InvalidInput, TidegateError
    from tidegate.engine.checkup.checks import check_machine, wrong
    from tidegate.engine.checkup.diagnosis import check_all

    found: list[Check] = []
    try:
        options = from_environment()
        logs.set_up(as_json=as_json, mask=options.mask)
        found = list(check_machine(options.data_dir, host.now()))
        if any(check.code == "key_file_exposed" for check in found):
            return found  # nothing can be opened with it until it is mended
        async with assemble(replace(options, migrate=False, traces=False)) as parts:
            return found + await check_all(parts, host.now(), outside=outside)
    except InvalidInput as error:
        return [*found, wrong("settings", "setting_invalid", error.message, error.remedy)]
    except TidegateError as error:
        return [*found, wrong("database", "database_unreachable", error.message, error.remedy)]
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        told = f"it failed while it was looked at: {type(error).__name__}: {options.mask.text(str(error))}"
        return [*found, wrong("database", "database_unreachable", told, "Look into its own log.")]
